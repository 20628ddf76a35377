//! Streams of a job's state: at once, then at every change, until the permit ends.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::Status;

use crate::{
    peer::Peer,
    refusal::{Refusal, RefusalCode},
    registry::{Job, Live, Registry, State},
};

/// Makes a message of what a job has.
pub(crate) type Build<M> = fn(&Live, now_unix_s: u64) -> Result<M, Refusal>;

type Step<M> = Pin<Box<dyn Future<Output = (Result<M, Status>, Option<Watcher<M>>)> + Send>>;

/// Messages of one stream.
///
/// Nothing is queued: the next message is made when the transport asks for one, of the newest state
/// then. The stream has no task of its own, so that it goes with its connection.
pub(crate) struct JobStream<M> {
    step: Option<Step<M>>,
}

/// What a stream looks at.
pub(crate) struct Watcher<M> {
    pub(crate) registry: Registry,
    pub(crate) peer: Arc<Peer>,
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) build: Build<M>,
    job: Arc<Job>,
    state: watch::Receiver<State>,
    readiness: watch::Receiver<bool>,
}

impl<M: Send + 'static> JobStream<M> {
    /// Begins a stream with its first message, or refuses.
    pub(crate) fn begin(
        registry: Registry,
        peer: Arc<Peer>,
        stopping: watch::Receiver<bool>,
        build: Build<M>,
    ) -> Result<Self, Status> {
        let readiness = registry.readiness();
        let job = registry.resolve(&peer)?;
        let state = job.watch();
        let mut watcher = Watcher { registry, peer, stopping, build, job, state, readiness };
        // A refusal of the first message is the call's own status, not an empty stream's.
        let first = watcher.current()?;
        Ok(Self { step: Some(Box::pin(async move { (Ok(first), Some(watcher)) })) })
    }
}

impl<M: Send + 'static> Watcher<M> {
    async fn next(mut self) -> (Result<M, Status>, Option<Self>) {
        // Whichever it was, `current` says what it means.
        tokio::select! {
            _ = self.state.changed() => {}
            _ = self.readiness.wait_for(|is_ready| !is_ready) => {}
            _ = self.stopping.wait_for(|is_stopping| *is_stopping) => {}
        }
        match self.current() {
            Ok(message) => (Ok(message), Some(self)),
            Err(refusal) => (Err(refusal.into()), None),
        }
    }

    /// The message for now. Whose process the peer is is asked again each time: a rotated key is for
    /// the job's processes of this moment.
    fn current(&mut self) -> Result<M, Refusal> {
        if *self.stopping.borrow() {
            return Err(Refusal::new(RefusalCode::Stopping, "the server stops; try again"));
        }
        let live = self.state.borrow_and_update().live(&self.job.id)?;
        let job = self.registry.resolve(&self.peer)?;
        if !Arc::ptr_eq(&job, &self.job) {
            let what = format!("the process is no longer one of job {}; ask again", self.job.id);
            return Err(Refusal::new(RefusalCode::JobChanged, what));
        }
        (self.build)(&live, self.registry.now_unix_s())
    }
}

impl<M: Send + 'static> Stream for JobStream<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(step) = self.step.as_mut() else { return Poll::Ready(None) };
        match step.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready((item, next)) => {
                self.step = next.map(|watcher| Box::pin(watcher.next()) as Step<M>);
                Poll::Ready(Some(item))
            }
        }
    }
}
