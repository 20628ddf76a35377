//! The way from a job to the daemon, which alone has the TPM: one job at a time, users in turn.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use proto::{binding::VerifierId, pb};
use tokio::{
    sync::{Notify, oneshot, watch},
    time::timeout,
};

use crate::trust::Learned;

/// A job that asks for a permit.
#[derive(Debug)]
pub struct Ask {
    /// What it asks with.
    pub job: pb::JobRequest,
    reply: oneshot::Sender<Asked>,
}

/// What became of it.
pub type Asked = Result<Permitted, DeskError>;

/// A permit, with what is needed to use it.
#[derive(Clone, Debug)]
pub struct Permitted {
    /// The permit.
    pub permit: pb::Permit,
    /// Decision that it rests on.
    pub decision_id: String,
    /// The fleet of verifiers that it is of.
    pub verifier_id: VerifierId,
    /// Roots to trust.
    pub bundle: Learned,
    /// Tools that were measured.
    pub tools: u32,
    /// Events of the tool log then.
    pub tool_events: u64,
}

/// Why there is no permit.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeskError {
    /// The verifier said no.
    #[error("the verifier refuses this worker or this job")]
    Denied(Box<pb::AttestationResult>),
    /// There was no verdict.
    #[error("no verdict: {0}")]
    Failed(String),
    /// The answer did not come in time.
    #[error("no verdict within {} s", .0.as_secs())]
    Late(Duration),
    /// The daemon ends.
    #[error("the daemon is stopping")]
    Stopping,
}

/// What the daemon knows of its node at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeState {
    /// Events of the tool log: more means that a tool changed.
    pub tool_events: u64,
    /// Why the node may run no jobs, by the last verdict: code and words.
    pub against: Option<(String, String)>,
    /// SPIFFE ID of the node, by the last admission.
    pub spiffe_id: String,
}

/// The jobs' side.
#[derive(Clone, Debug)]
pub struct Desk {
    shared: Arc<Shared>,
    node: watch::Receiver<NodeState>,
}

/// The daemon's side: jobs that ask, and where to say how the node stands.
pub type Counter = (Asks, watch::Sender<NodeState>);

/// Jobs that ask.
#[derive(Debug)]
pub struct Asks(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    came: Notify,
}

/// Whose turn it is: the first user's first job. How many wait is bounded by who asks: each has a place at the gate.
#[derive(Debug, Default)]
struct Waiting {
    by_user: VecDeque<(u32, VecDeque<Ask>)>,
    is_closed: bool,
}

impl Waiting {
    fn push(&mut self, uid: u32, ask: Ask) {
        // Those that went away have no place any more.
        for (_, asks) in &mut self.by_user {
            asks.retain(|ask| !ask.is_abandoned());
        }
        match self.by_user.iter_mut().find(|(user, _)| *user == uid) {
            Some((_, asks)) => asks.push_back(ask),
            None => self.by_user.push_back((uid, VecDeque::from([ask]))),
        }
    }

    fn pop(&mut self) -> Option<Ask> {
        while let Some((uid, mut asks)) = self.by_user.pop_front() {
            let next = asks.pop_front();
            if !asks.is_empty() {
                self.by_user.push_back((uid, asks));
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Every change is one call, so that a panic elsewhere leaves it whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asks {
    /// The next one: of the user who waits longest since it was served. May be given up at any time.
    pub async fn next(&mut self) -> Ask {
        loop {
            let next = self.0.waiting().pop();
            match next {
                Some(ask) => return ask,
                None => self.0.came.notified().await,
            }
        }
    }
}

#[cfg(test)]
impl Asks {
    /// Whether nobody asks.
    pub(super) fn are_none(&self) -> bool {
        self.0.waiting().by_user.is_empty()
    }
}

impl Drop for Asks {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        waiting.is_closed = true;
        waiting.by_user.clear();
    }
}

/// Both sides.
#[must_use]
pub fn desk() -> (Desk, Counter) {
    let shared = Arc::<Shared>::default();
    let (state, node) = watch::channel(NodeState::default());
    (Desk { shared: Arc::clone(&shared), node }, (Asks(shared), state))
}

impl Ask {
    /// Whether nobody waits for the answer any more: neither quote nor token are to be spent on it.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    /// Answers; a job that has gone away is no matter.
    pub fn answer(self, asked: Asked) {
        let _ = self.reply.send(asked);
    }
}

impl Desk {
    /// Asks for a permit for a job of this user.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn ask(&self, uid: u32, job: pb::JobRequest, within: Duration) -> Asked {
        let (reply, answer) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting();
            if waiting.is_closed {
                return Err(DeskError::Stopping);
            }
            waiting.push(uid, Ask { job, reply });
        }
        self.shared.came.notify_one();
        timeout(within, answer)
            .await
            .map_err(|_| DeskError::Late(within))?
            .map_err(|_| DeskError::Stopping)?
    }

    /// How the node stands, now and from now on.
    #[must_use]
    pub fn node(&self) -> watch::Receiver<NodeState> {
        self.node.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(60);

    fn asks(desk: &Desk, uid: u32, name: &str) -> tokio::task::JoinHandle<Asked> {
        let (desk, key) = (desk.clone(), name.as_bytes().to_vec());
        let job = pb::JobRequest { key, ..pb::JobRequest::default() };
        tokio::spawn(async move { desk.ask(uid, job, WITHIN).await })
    }

    async fn next(asks: &mut Asks) -> String {
        let ask = asks.next().await;
        String::from_utf8(ask.job.key.clone()).expect("a name")
    }

    #[tokio::test]
    async fn a_user_with_one_job_waits_for_one_job_of_each_other_user() {
        let (desk, (mut counter, _node)) = desk();
        let mut waiting = Vec::new();
        for (uid, name) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (1, "a4"), (3, "c1")] {
            waiting.push(asks(&desk, uid, name));
            tokio::task::yield_now().await;
        }
        let mut order = Vec::new();
        for _ in 0..waiting.len() {
            order.push(next(&mut counter).await);
        }
        assert_eq!(order, ["a1", "b1", "c1", "a2", "a3", "a4"]);
    }

    #[tokio::test]
    async fn who_went_away_leaves_nothing_behind() {
        let (desk, (mut counter, _node)) = desk();
        for _ in 0..1000 {
            let late = desk.ask(1, pb::JobRequest::default(), Duration::ZERO).await;
            assert!(matches!(late, Err(DeskError::Late(_))), "{late:?}");
        }
        let kept: usize = desk.shared.waiting().by_user.iter().map(|(_, asks)| asks.len()).sum();
        assert_eq!(kept, 1, "the last one, until the next comes");
        assert!(counter.next().await.is_abandoned());
        let last = asks(&desk, 1, "last");
        tokio::task::yield_now().await;
        drop(counter);
        assert!(matches!(last.await, Ok(Err(DeskError::Stopping))));
        let after = desk.ask(1, pb::JobRequest::default(), WITHIN).await;
        assert!(matches!(after, Err(DeskError::Stopping)), "{after:?}");
    }
}
