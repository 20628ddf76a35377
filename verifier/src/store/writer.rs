//! The one task that writes: it takes what is queued, runs each piece of work under a savepoint in
//! one transaction, commits once, and then answers everybody.
//!
//! A piece that fails is rolled back alone. An error after which SQLite may have ended the
//! transaction fails the whole batch, and the connection is opened again: the chain's head is then
//! read from the database, so that it is right even where a failed commit has taken effect.

use std::{future::Future, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions as _, Connection as _, QueryBuilder, Sqlite, SqliteConnection,
    sqlite::SqliteConnectOptions,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    StoreError,
    cache::BootCache,
    changes::{Changes, Ground, Seen},
    lock::FolderLock,
    signed::{MARKS, Marking, Signed},
    types::{KnownBoot, Node},
};
use crate::audit::{AuditEntry, AuditKind, ChainHead, read_anchor, write_anchor};

/// Pieces of work in one transaction: bounds how long the first one waits.
const MAX_BATCH: usize = 256;
/// Pieces that wait; callers beyond wait for a place.
pub(super) const QUEUE: usize = 1024;
/// Marks of signed certificates wait at most this long for a commit that is made anyway.
const MARK_DELAY: Duration = Duration::from_millis(50);
/// The anchor follows the chain at most by this.
const ANCHOR_INTERVAL: Duration = Duration::from_secs(1);

pub(super) type TxFuture<'t, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 't>>;

/// What the cache must learn once the transaction is committed.
pub(super) enum Touched {
    /// A boot was written.
    Boot(KnownBoot),
    /// What certificates rest on changed.
    Ground(Ground),
    /// A node changed.
    Node(String),
}

/// The open transaction.
pub(super) struct Tx {
    pub(super) conn: SqliteConnection,
    replica: String,
    seq: u64,
    hash: [u8; 32],
    cache: Arc<BootCache>,
    changes: Arc<Changes>,
    pub(super) touched: Vec<Touched>,
    piece_ended: bool,
}

/// Keeps what a piece of work did, and begins the next piece.
const END_PIECE: &str = "RELEASE piece; SAVEPOINT piece";

/// An entry to be appended.
pub(super) struct Event<'e> {
    pub(super) kind: AuditKind,
    pub(super) at: i64,
    pub(super) actor: &'e str,
    pub(super) subject: &'e str,
    pub(super) body: Vec<u8>,
}

impl Tx {
    async fn open(setup: &Setup) -> Result<Self, StoreError> {
        let mut conn = setup.options.connect().await.map_err(StoreError::database("open"))?;
        let head = super::chain::head(&mut conn, &setup.replica).await?;
        let (seq, hash) = head.map_or((0, [0; 32]), |entry| (entry.seq, entry.entry_hash));
        let (replica, cache) = (setup.replica.clone(), Arc::clone(&setup.cache));
        let changes = Arc::clone(&setup.changes);
        let touched = Vec::new();
        Ok(Self { conn, replica, seq, hash, cache, changes, touched, piece_ended: false })
    }

    /// Appends an entry to this replica's chain.
    pub(super) async fn append(&mut self, event: Event<'_>) -> Result<(), StoreError> {
        let entry = self.next_entry(event);
        super::chain::insert(&mut self.conn, &entry).await?;
        self.appended(&entry);
        Ok(())
    }

    /// The entry that comes next, for whoever inserts it together with something else and then
    /// calls [`Self::appended`].
    pub(super) fn next_entry(&self, event: Event<'_>) -> AuditEntry {
        let mut entry = AuditEntry {
            replica: self.replica.clone(),
            seq: self.seq + 1,
            at: event.at,
            kind: event.kind.as_str().to_owned(),
            actor: event.actor.to_owned(),
            subject: event.subject.to_owned(),
            body: event.body,
            prev_hash: self.hash,
            entry_hash: [0; 32],
        };
        entry.entry_hash = entry.computed_hash();
        entry
    }

    pub(super) fn appended(&mut self, entry: &AuditEntry) {
        (self.seq, self.hash) = (entry.seq, entry.entry_hash);
    }

    /// The node of a boot, from memory. What is there is what is committed, because this task
    /// alone writes and applies each commit before the next; a node that changed in the open
    /// transaction is not answered.
    pub(super) fn remembered_node(&self, ak_name: &[u8], name: &str) -> Option<Arc<Node>> {
        let changed = |touched: &Touched| matches!(touched, Touched::Node(node) if node == name);
        if self.touched.iter().any(changed) {
            return None;
        }
        let node = Arc::clone(&self.cache.find(ak_name).ok()?.node);
        (node.name == name).then_some(node)
    }

    /// Whether this ground changed after it was read, in the open transaction too.
    pub(super) fn changed_since(&self, seen: Seen, ground: &Ground) -> bool {
        let changed = |touched: &Touched| matches!(touched, Touched::Ground(g) if g == ground);
        self.changes.since(seen, ground) || self.touched.iter().any(changed)
    }

    /// Adds the end of the piece to the last call of it, which saves a call;
    /// [`Self::piece_ended`] tells once the call is done.
    pub(super) fn end_piece(sql: &mut QueryBuilder<Sqlite>) {
        sql.push("; ").push(END_PIECE);
    }

    pub(super) const fn piece_ended(&mut self) {
        self.piece_ended = true;
    }

    fn head(&self) -> ChainHead {
        ChainHead::new(&self.replica, self.seq, self.hash)
    }

    async fn execute(&mut self, sql: &'static str) -> Result<(), StoreError> {
        let done = sqlx::query(sql).execute(&mut self.conn).await;
        done.map(drop).map_err(StoreError::database("commit"))
    }

    /// Runs one piece under the open savepoint, and opens the next; its failure leaves no trace.
    async fn run(&mut self, job: &mut dyn Job) -> Result<(), StoreError> {
        let (seq, hash, touched) = (self.seq, self.hash, self.touched.len());
        let done = job.run(self).await;
        if std::mem::take(&mut self.piece_ended) {
            // Whatever it answers, what it did is kept, and the chain goes on from there.
            return done;
        }
        let Err(error) = &done else {
            self.execute(END_PIECE).await?;
            return done;
        };
        (self.seq, self.hash) = (seq, hash);
        self.touched.truncate(touched);
        if !error.ends_transaction() {
            self.execute("ROLLBACK TO piece").await?;
        }
        done
    }
}

/// A piece of work with its caller waiting.
pub(super) trait Job: Send {
    fn run<'t>(&'t mut self, tx: &'t mut Tx) -> TxFuture<'t, ()>;
    fn answer(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Typed<F, T> {
    work: Option<F>,
    value: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Job for Typed<F, T>
where
    F: for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T> + Send,
    T: Send,
{
    fn run<'t>(&'t mut self, tx: &'t mut Tx) -> TxFuture<'t, ()> {
        Box::pin(async move {
            let work = self.work.take().ok_or(StoreError::Closed)?;
            self.value = Some(work(tx).await?);
            Ok(())
        })
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Self { value, reply, .. } = *self;
        let answer = outcome.and_then(|()| value.ok_or(StoreError::Closed));
        // A caller that went away does not undo what is committed.
        let _ = reply.send(answer);
    }
}

enum Message {
    Work(Box<dyn Job>),
    Signed(Signed),
    Close(oneshot::Sender<Result<(), StoreError>>),
}

/// Hands work to the writer task.
#[derive(Clone)]
pub(super) struct Writer(mpsc::Sender<Message>);

/// What the writer task owns.
pub(super) struct Setup {
    pub(super) folder: PathBuf,
    pub(super) options: SqliteConnectOptions,
    pub(super) replica: String,
    pub(super) cache: Arc<BootCache>,
    pub(super) changes: Arc<Changes>,
    pub(super) lock: FolderLock,
}

impl Writer {
    pub(super) async fn start(setup: Setup) -> Result<Self, StoreError> {
        let tx = Tx::open(&setup).await?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(
            Task {
                setup,
                tx: Some(tx),
                anchored: None,
                marks: Vec::new(),
                mark_due: None,
                receiver,
            }
            .run(),
        );
        Ok(Self(sender))
    }

    /// Runs `work` in a transaction and answers when it is committed and durable.
    pub(super) async fn write<F, T>(&self, work: F) -> Result<T, StoreError>
    where
        F: for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Typed { work: Some(work), value: None, reply });
        self.0.send(Message::Work(job)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Takes a mark, to be written soon.
    pub(super) async fn signed(&self, mark: Signed) -> Result<(), StoreError> {
        self.0.send(Message::Signed(mark)).await.map_err(|_| StoreError::Closed)
    }

    pub(super) async fn close(&self) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        if self.0.send(Message::Close(reply)).await.is_err() {
            return Ok(());
        }
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

struct Task {
    setup: Setup,
    /// `None` after an error that closed the connection.
    tx: Option<Tx>,
    anchored: Option<(u64, Instant)>,
    marks: Vec<Signed>,
    /// When the oldest mark must be written; `None` where there is none.
    mark_due: Option<Instant>,
    receiver: mpsc::Receiver<Message>,
}

impl Task {
    async fn run(mut self) {
        let mut batch: Vec<Box<dyn Job>> = Vec::new();
        let closing = loop {
            match self.next(&mut batch).await {
                Next::Work => self.commit(std::mem::take(&mut batch)).await,
                Next::Anchor => self.anchor().await,
                Next::End(reply) => break reply,
            }
        };
        self.commit(batch).await;
        self.anchored = None;
        self.anchor().await;
        let closed = match self.tx.take() {
            Some(tx) => tx.conn.close().await.map_err(StoreError::database("close")),
            None => Ok(()),
        };
        let Self { setup: Setup { lock, .. }, .. } = self;
        drop(lock);
        if let Some(reply) = closing {
            let _ = reply.send(closed);
        }
    }

    /// Waits for work and takes all that is queued, up to a batch.
    async fn next(&mut self, batch: &mut Vec<Box<dyn Job>>) -> Next {
        loop {
            let due = [self.mark_due, self.anchor_due()].into_iter().flatten().min();
            let mut message = match due {
                Some(due) => match tokio::time::timeout_at(due, self.receiver.recv()).await {
                    Ok(message) => message,
                    Err(_) if self.mark_due == Some(due) => return Next::Work,
                    Err(_) => return Next::Anchor,
                },
                None => self.receiver.recv().await,
            };
            loop {
                match message {
                    Some(Message::Work(job)) => batch.push(job),
                    Some(Message::Signed(mark)) => {
                        self.mark_due.get_or_insert_with(|| Instant::now() + MARK_DELAY);
                        self.marks.push(mark);
                    }
                    Some(Message::Close(reply)) => return Next::End(Some(reply)),
                    None => return Next::End(None),
                }
                if batch.len() >= MAX_BATCH || self.marks.len() >= MAX_BATCH {
                    return Next::Work;
                }
                match self.receiver.try_recv() {
                    Ok(queued) => message = Some(queued),
                    Err(_) => break,
                }
            }
            // Marks alone wait.
            if !batch.is_empty() {
                return Next::Work;
            }
        }
    }

    /// Writes a batch, and first the marks that wait, which are older.
    async fn commit(&mut self, work: Vec<Box<dyn Job>>) {
        let mut batch: Vec<Box<dyn Job>> = Vec::new();
        let mut marks = std::mem::take(&mut self.marks).into_iter().peekable();
        self.mark_due = None;
        while marks.peek().is_some() {
            batch.push(Box::new(Marking::new(marks.by_ref().take(MARKS).collect())));
        }
        batch.extend(work);
        if batch.is_empty() {
            return;
        }
        let mut tx = match self.tx.take() {
            Some(tx) => tx,
            None => match Tx::open(&self.setup).await {
                Ok(tx) => tx,
                Err(error) => return answer_all(batch, &error),
            },
        };
        if let Err(error) = tx.execute("BEGIN IMMEDIATE; SAVEPOINT piece").await {
            return answer_all(batch, &error);
        }
        let mut done = Vec::with_capacity(batch.len());
        let mut failed = None;
        let mut waiting = batch.into_iter();
        for mut job in waiting.by_ref() {
            let outcome = tx.run(job.as_mut()).await;
            failed = outcome.as_ref().err().filter(|error| error.ends_transaction()).cloned();
            done.push((job, outcome));
            if failed.is_some() {
                break;
            }
        }
        if failed.is_none() {
            failed = tx.execute("COMMIT").await.err();
        }
        if let Some(error) = failed {
            // The connection is dropped, and with it whatever is left of the transaction.
            tracing::error!(error = %crate::store::error_chain(&error), "a write failed");
            drop(tx);
            // Whether the commit took effect is unknown: nothing that was cached is sure.
            self.setup.cache.clear();
            self.setup.changes.perhaps_everything();
            answer_all(done.into_iter().map(|(job, _)| job).chain(waiting).collect(), &error);
            return;
        }
        for touched in &tx.touched {
            if let Touched::Ground(ground) = touched {
                self.setup.changes.committed(ground);
            }
        }
        self.setup.cache.apply(tx.touched.drain(..));
        self.tx = Some(tx);
        for (job, outcome) in done {
            job.answer(outcome);
        }
        if self.anchor_due().is_some_and(|due| due <= Instant::now()) {
            self.anchor().await;
        }
    }

    /// When the anchor must follow; `None` if it names the head already.
    fn anchor_due(&self) -> Option<Instant> {
        let seq = self.tx.as_ref()?.seq;
        match self.anchored {
            Some((anchored, _)) if anchored == seq => None,
            Some((_, at)) => Some(at + ANCHOR_INTERVAL),
            None => (seq > 0).then(Instant::now),
        }
    }

    async fn anchor(&mut self) {
        let Some(tx) = &self.tx else { return };
        let (head, folder) = (tx.head(), self.setup.folder.clone());
        let seq = head.seq;
        if seq == 0 {
            return;
        }
        let written = tokio::task::spawn_blocking(move || {
            let mut heads = read_anchor(&folder)?.unwrap_or_default();
            heads.retain(|other| other.replica != head.replica);
            heads.push(head);
            heads.sort_by(|a, b| a.replica.cmp(&b.replica));
            write_anchor(&folder, &heads)
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(error = %crate::store::error_chain(&error), "no audit anchor");
            }
            Err(error) => tracing::error!(%error, "no audit anchor"),
        }
        self.anchored = Some((seq, Instant::now()));
    }
}

enum Next {
    Work,
    Anchor,
    End(Option<oneshot::Sender<Result<(), StoreError>>>),
}

fn answer_all(batch: Vec<Box<dyn Job>>, error: &StoreError) {
    for job in batch {
        job.answer(Err(error.clone()));
    }
}
