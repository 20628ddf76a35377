//! What a change would do to the fleet, found out from the last recorded evidence of every node.
//!
//! ```text
//! store ─page─▶ nodes, newest evidence ─judge─▶ Judged ─▶ Told::Change, Summary
//!                                       (judge)  asks for older evidence of the boot where the newest lacks a list (ima)
//! ```
//! Evidence is judged as an attestation judges it, once by what is in force and once by what would be: the same function,
//! the same findings. What was not asked for then (a PCR that was not quoted, an IMA list that another policy judged)
//! cannot be told, and is said to be undecided: a document that is staged has it asked for from the next attestation on.

mod ima;
mod judge;
mod outcome;

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};

use self::judge::{First, Judge};
pub use self::outcome::{Judged, NodeChange, Summary, What};
use super::{Change, DocumentError};
use crate::{
    attestation::{AttestError, Verifier},
    expectations::{Compiled, Expectations},
    store::{FleetNode, Store, StoreError},
};

/// Recorded decisions of one node that are looked through where the newest does not tell.
const LOOK_BACK: u32 = 16;
/// Nodes that are read and judged together: bounds what is in memory, and is enough for one query to be cheap.
const PAGE: u32 = 64;
/// Pages of answers that wait for whoever reads them.
const QUEUE: usize = 16;

/// What a dry run tells while it runs.
#[derive(Clone, Debug)]
pub enum Told {
    /// So many nodes are judged.
    Progress {
        /// Judged so far.
        judged: u32,
        /// Of so many, when it began.
        of: u32,
    },
    /// A node whose answer changes.
    Change(Box<NodeChange>),
}

/// A dry run, ready.
#[derive(Debug)]
pub struct DryRun {
    judge: Arc<Judge>,
}

impl DryRun {
    /// Prepares a dry run of a change against the whole fleet.
    ///
    /// # Errors
    /// [`DocumentError`] if the store cannot be read.
    pub async fn new(verifier: &Verifier, change: Change) -> Result<Self, DocumentError> {
        let in_force: Vec<Compiled> = verifier.compile_in_force().await?;
        let then = Expectations::compile(&change.applied_to(&in_force));
        let active: Vec<Compiled> = in_force.into_iter().filter(|one| !one.is_staged).collect();
        let now = Expectations::compile(&active);
        let objects = verifier.store().objects().clone();
        Ok(Self { judge: Arc::new(Judge::new(now, then, objects)) })
    }

    /// Judges every node, telling `listener` what changes while it goes on; ends when nobody listens any more.
    ///
    /// # Errors
    /// [`DocumentError`] if the store cannot be read, or the listener went away.
    pub async fn run(
        self,
        verifier: &Verifier,
        listener: Option<mpsc::Sender<Told>>,
    ) -> Result<Summary, DocumentError> {
        let tell = async |told| match &listener {
            Some(listener) => listener.send(told).await.map_err(|_| DocumentError::NobodyListens),
            None => Ok(()),
        };
        let of = verifier.store().fleet_size().await?;
        let pages = Arc::new(Pages::of(verifier.store()));
        let (send, mut receive) = mpsc::channel::<Result<Vec<Judged>, DocumentError>>(QUEUE);
        // One more than cores: while a page is read, others are judged.
        let threads = std::thread::available_parallelism().map_or(1, usize::from).saturating_add(1);
        for _ in 0..threads {
            let (pages, judge, send) = (Arc::clone(&pages), Arc::clone(&self.judge), send.clone());
            tokio::spawn(async move {
                loop {
                    let judged = match pages.next().await {
                        Ok(page) if page.is_empty() => return,
                        Ok(page) => judge_page(&pages.store, &judge, page).await,
                        Err(error) => Err(error.into()),
                    };
                    let is_over = judged.is_err();
                    if send.send(judged).await.is_err() || is_over {
                        return;
                    }
                }
            });
        }
        drop(send);
        let mut summary = Summary::default();
        while let Some(page) = receive.recv().await {
            for judged in page? {
                summary.count(&judged);
                if let Judged::Changed(change) = judged {
                    tell(Told::Change(change)).await?;
                }
            }
            tell(Told::Progress { judged: summary.nodes, of }).await?;
        }
        // A task that ended early left nodes unjudged: no summary may hide that.
        if !pages.gave(summary.nodes).await {
            return Err(AttestError::Task.into());
        }
        Ok(summary)
    }
}

/// The fleet, page by page, shared by the tasks that judge it.
struct Pages {
    store: Store,
    at: Mutex<Position>,
}

#[derive(Default)]
struct Position {
    after: Option<String>,
    given: u32,
    is_over: bool,
}

impl Pages {
    fn of(store: &Store) -> Self {
        Self { store: store.clone(), at: Mutex::default() }
    }

    /// The next page; empty: there is none.
    async fn next(&self) -> Result<Vec<FleetNode>, StoreError> {
        let mut at = self.at.lock().await;
        if at.is_over {
            return Ok(Vec::new());
        }
        let page = self.store.fleet(at.after.as_deref(), PAGE).await?;
        let nodes = u32::try_from(page.len()).unwrap_or(u32::MAX);
        at.given = at.given.saturating_add(nodes);
        at.is_over = nodes < PAGE;
        at.after = page.last().map(|node| node.name.clone());
        Ok(page)
    }

    /// Whether all was given, and was so many nodes.
    async fn gave(&self, nodes: u32) -> bool {
        let at = self.at.lock().await;
        at.is_over && at.given == nodes
    }
}

async fn judge_page(
    store: &Store,
    judge: &Arc<Judge>,
    page: Vec<FleetNode>,
) -> Result<Vec<Judged>, DocumentError> {
    let first = {
        let judge = Arc::clone(judge);
        tokio::task::spawn_blocking(move || {
            page.into_iter().map(|node| (judge.newest(&node), node)).collect::<Vec<_>>()
        })
    };
    let mut out = Vec::new();
    for (answer, node) in first.await.map_err(|_| AttestError::Task)? {
        out.push(match answer {
            First::Told(judged) => judged,
            First::AskOlder => {
                let evidence = store.recorded_evidence(&node.name, LOOK_BACK).await?;
                let judge = Arc::clone(judge);
                tokio::task::spawn_blocking(move || judge.any(&node, &evidence))
                    .await
                    .map_err(|_| AttestError::Task)?
            }
        });
    }
    Ok(out)
}
