//! Jobs on this worker: a permit for each, its identities, and an end when the worker is not what it proved to be.
//!
//! ```text
//! attestor exec ──socket──▶ Gate ──▶ Desk ──▶ daemon: fresh measurement, quote over the job's key and claims
//!                            │                      └─▶ permit, or why not
//!                            └─▶ Line: redeem, continue, end (signed by the job's key) ─▶ verifier
//!                                  └─▶ Workload API: the job's processes get its identities
//! ```
//! The job's key is made here, stays in this process's memory and in the job's, and dies with the permit. Neither the TPM
//! nor the node key is reachable from the socket: all that a caller says is hashed into a quote's qualifyingData.

mod action;
mod desk;
mod gate;
mod key;
mod life;
mod line;
mod link;
mod serve;

use std::{path::PathBuf, time::Duration};

pub use self::{
    desk::{Ask, Asked, Asks, Counter, Desk, DeskError, NodeState, Permitted, desk},
    gate::Gate,
    key::{JobKeyPair, KeyError},
    line::{Line, LineError},
    link::Link,
    serve::JobSockets,
};

/// Jobs that run or ask at once: a worker has as many slots as processors, seldom more.
pub const DEFAULT_MAX_JOBS: usize = 64;
/// A verifier that is silent for so long ends the jobs of a worker: nobody could tell them of a revocation.
pub const DEFAULT_SILENCE: Duration = Duration::from_secs(60);
/// A job waits so long for its permit: a TPM needs a second, ten jobs that start together ten.
pub const DEFAULT_START_WITHIN: Duration = Duration::from_secs(60);

/// Of this share of the places, each listed user has an equal part kept for it; the rest is for whoever comes first.
const KEPT_SHARE: usize = 2;

/// How jobs are treated.
#[derive(Clone, Debug)]
pub struct JobSettings {
    /// Folder of the sockets.
    pub directory: PathBuf,
    /// Users whose processes may ask; root always may.
    pub users: Vec<u32>,
    /// CI systems that jobs may say they are of; empty: all.
    pub systems: Vec<proto::job::CiSystem>,
    /// Jobs at once.
    pub max_jobs: usize,
    /// Longest wait for a permit.
    pub start_within: Duration,
    /// Whether a caller may ask that cannot be told from a process which left a job of its user.
    pub detached_callers: bool,
    /// Longest silence of the verifier while a job runs.
    pub silence: Duration,
    /// What runs when a permit ends before its job did; empty: nothing.
    pub on_end: Vec<String>,
    /// What runs when a job of a listed user gets no permit; empty: nothing.
    pub on_refused: Vec<String>,
}

impl JobSettings {
    /// Places that are kept for each listed user, whatever all others take: an equal part of half of them, at least one. None
    /// where there are more users than places.
    #[must_use]
    pub fn kept_for_each(&self) -> usize {
        let mut users = self.users.clone();
        users.sort_unstable();
        users.dedup();
        match users.len() {
            0 => 0,
            users if users > self.max_jobs => 0,
            users => (self.max_jobs / (KEPT_SHARE * users)).max(1),
        }
    }
}
