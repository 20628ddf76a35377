//! The way from a job to the daemon, which alone has the TPM: one job at a time.

use std::time::Duration;

use proto::{binding::VerifierId, pb};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use crate::trust::Learned;

/// Jobs that wait for the TPM.
const WAITING: usize = 32;

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
    /// As many jobs wait as may.
    #[error("{WAITING} jobs wait for the TPM already")]
    Busy,
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
    asks: mpsc::Sender<Ask>,
    node: watch::Receiver<NodeState>,
}

/// The daemon's side: jobs that ask, and where to say how the node stands.
pub type Counter = (mpsc::Receiver<Ask>, watch::Sender<NodeState>);

/// Both sides.
#[must_use]
pub fn desk() -> (Desk, Counter) {
    let (asks, asked) = mpsc::channel(WAITING);
    let (state, node) = watch::channel(NodeState::default());
    (Desk { asks, node }, (asked, state))
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
    /// Asks for a permit.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn ask(&self, job: pb::JobRequest, within: Duration) -> Asked {
        let (reply, answer) = oneshot::channel();
        self.asks.try_send(Ask { job, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => DeskError::Busy,
            mpsc::error::TrySendError::Closed(_) => DeskError::Stopping,
        })?;
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
