//! Time stamps over what jobs sign: passed on to the verifier, to which a job has no trusted way of its own.
//!
//! What comes back proves itself to whoever verifies: nothing here has to be believed, and nothing is looked at but its
//! size.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use proto::pb;
use results::timestamp::{MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES};
use tokio::{sync::Semaphore, time::timeout};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use workload::{ERROR_DOMAIN, Observation};

use super::{Gate, LineError, Refusal};

/// Time stamps asked for at once, of all jobs together: the verifier counts what comes from one address, and attestations
/// and permits of this worker must find their place.
const AT_ONCE: usize = 2;
/// Time stamps of one user that are asked for or wait: whoever asks for more takes nobody's turn.
const PER_USER: usize = 4;
/// Longest wait for one, the others' turns included.
const WITHIN: Duration = Duration::from_secs(30);

/// Turns at the verifier.
#[derive(Debug)]
pub(super) struct Stamps {
    turns: Semaphore,
    by_user: Mutex<HashMap<u32, usize>>,
}

/// A place in the queue, given back on drop.
#[derive(Debug)]
struct Place<'a> {
    stamps: &'a Stamps,
    uid: u32,
}

impl Stamps {
    pub(super) fn new() -> Self {
        Self { turns: Semaphore::new(AT_ONCE), by_user: Mutex::default() }
    }

    /// A place, if the user has not all that there are for one.
    fn enter(&self, uid: u32) -> Option<Place<'_>> {
        let mut by_user = self.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        let held = by_user.entry(uid).or_insert(0);
        (*held < PER_USER).then(|| {
            *held += 1;
            Place { stamps: self, uid }
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut by_user = self.stamps.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = by_user.get_mut(&self.uid) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                by_user.remove(&self.uid);
            }
        }
    }
}

impl Gate {
    /// Asks the verifier for a time stamp, for a process of a job that runs or for a user who may start one.
    pub(super) async fn stamp(
        &self,
        request: pb::TimestampRequest,
        caller: &Observation,
    ) -> Result<pb::TimestampReply, StampRefused> {
        if !self.may_stamp(caller) {
            let why = format!(
                "user {} is not listed under jobs.users, and the caller is no process of a job that runs",
                caller.uid
            );
            return Err(refused(Code::PermissionDenied, "GATE_USER_NOT_ALLOWED", why));
        }
        if request.request.len() > MAX_REQUEST_BYTES {
            let why = format!("a request for a time stamp has at most {MAX_REQUEST_BYTES} bytes");
            return Err(refused(Code::InvalidArgument, "EVIDENCE_LIMIT_EXCEEDED", why));
        }
        let busy = || {
            let why = format!("user {} waits for {PER_USER} time stamps already", caller.uid);
            refused(Code::ResourceExhausted, "GATE_BUSY", why)
        };
        let _place = self.stamps.enter(caller.uid).ok_or_else(busy)?;
        let late = |_| {
            let why = format!("no time stamp within {} s", WITHIN.as_secs());
            refused(Code::Unavailable, "GATE_LATE", why)
        };
        timeout(WITHIN, self.pass_on(request)).await.map_err(late)?
    }

    fn may_stamp(&self, caller: &Observation) -> bool {
        caller.uid == 0
            || self.settings.users.contains(&caller.uid)
            || self
                .jobs()
                .values()
                .any(|job| job.deferred.is_none() && job.processes.have(caller, job.uid))
    }

    async fn pass_on(
        &self,
        request: pb::TimestampRequest,
    ) -> Result<pb::TimestampReply, StampRefused> {
        let stopping = |_| refused(Code::Unavailable, "GATE_STOPPING", "the daemon is stopping");
        let _turn = self.stamps.turns.acquire().await.map_err(stopping)?;
        let reply = async {
            let mut client = self.link.client().await?;
            Ok::<_, LineError>(client.timestamp(request).await?.into_inner())
        };
        let reply = reply.await.map_err(|error| match error {
            LineError::Refused { code, why } => refused(Code::FailedPrecondition, &code, why),
            other => refused(Code::Unavailable, "GATE_NO_TIMESTAMP", crate::chain(&other)),
        })?;
        if reply.response.len() > MAX_RESPONSE_BYTES {
            let why = format!("the verifier sent more than {MAX_RESPONSE_BYTES} bytes");
            return Err(refused(Code::Unavailable, "GATE_NO_TIMESTAMP", why));
        }
        Ok(reply)
    }
}

/// Why there is no time stamp: `PermissionDenied`, `InvalidArgument` and `FailedPrecondition` are answers, `Unavailable` and
/// `ResourceExhausted` are none.
#[derive(Debug)]
pub(super) struct StampRefused {
    status: Code,
    why: Refusal,
}

fn refused(status: Code, code: &str, why: impl Into<String>) -> StampRefused {
    StampRefused { status, why: Refusal::new(code, why) }
}

impl From<StampRefused> for Status {
    fn from(StampRefused { status, why: Refusal(refused) }: StampRefused) -> Self {
        let details = ErrorDetails::with_error_info(
            refused.code,
            ERROR_DOMAIN,
            std::collections::HashMap::new(),
        );
        Status::with_error_details(status, refused.why, details)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;
    use workload::{ProcessKey, Registry};

    use super::{
        super::{super::desk, Entry, JobSettings, Link, Processes},
        *,
    };
    use crate::trust::{Learned, Trust};

    const LISTED: u32 = 1001;
    const OTHER: u32 = 1002;

    /// Of a worker whose verifier is not there.
    fn gate() -> Gate {
        let settings = JobSettings {
            directory: "/nonexistent".into(),
            users: vec![LISTED],
            systems: Vec::new(),
            max_jobs: 1,
            start_within: WITHIN,
            silence: WITHIN,
            on_end: Vec::new(),
            on_refused: Vec::new(),
        };
        let (_, bundle) = watch::channel(Learned::default());
        let (url, trust) = ("https://127.0.0.1:1".to_owned(), Trust::Pin([0; 32]));
        let link = Link { url, trust, bundle };
        Gate::new(settings, desk().0, link, Registry::new(), String::new())
    }

    fn process(uid: u32, pid: u32) -> Observation {
        let key = |pid| ProcessKey { pid, start_time: 1 };
        Observation { uid, gid: uid, cgroup: None, ancestry: vec![key(pid), key(1)] }
    }

    async fn code(gate: &Gate, bytes: usize, caller: &Observation) -> String {
        let request = pb::TimestampRequest { request: vec![0; bytes] };
        let refused = gate.stamp(request, caller).await.expect_err("nobody is there to stamp");
        let status = Status::from(refused);
        status.get_details_error_info().expect("a code").reason
    }

    #[tokio::test]
    async fn only_jobs_that_run_and_users_who_may_start_one_get_to_the_verifier() {
        let gate = gate();
        let job = process(OTHER, 7);
        assert_eq!(code(&gate, 70, &job).await, "GATE_USER_NOT_ALLOWED");
        // These reach the verifier, which is not there.
        assert_eq!(code(&gate, 70, &process(LISTED, 8)).await, "GATE_NO_TIMESTAMP");
        assert_eq!(code(&gate, 70, &process(0, 9)).await, "GATE_NO_TIMESTAMP");
        let (stop, _) = watch::channel(None);
        let processes = Processes::Below(ProcessKey { pid: 7, start_time: 1 });
        // Root's jobs have processes of any user.
        let entry = Entry { uid: 0, processes, holder: None, stop, deferred: None };
        gate.jobs().insert("permit".to_owned(), entry);
        assert_eq!(code(&gate, 70, &job).await, "GATE_NO_TIMESTAMP");
        // Another process of that user is none of the job.
        assert_eq!(code(&gate, 70, &process(OTHER, 10)).await, "GATE_USER_NOT_ALLOWED");
        gate.jobs().clear();
        assert_eq!(code(&gate, 70, &job).await, "GATE_USER_NOT_ALLOWED");
    }

    #[tokio::test]
    async fn requests_are_bounded_in_size_and_number() {
        let gate = gate();
        let (caller, most) = (process(LISTED, 8), MAX_REQUEST_BYTES);
        assert_eq!(code(&gate, most, &caller).await, "GATE_NO_TIMESTAMP");
        assert_eq!(code(&gate, most + 1, &caller).await, "EVIDENCE_LIMIT_EXCEEDED");
        let held: Vec<_> = (0..PER_USER).map(|_| gate.stamps.enter(LISTED)).collect();
        assert!(held.iter().all(Option::is_some));
        assert_eq!(code(&gate, 70, &caller).await, "GATE_BUSY");
        // Not another user's, and not for long.
        assert_eq!(code(&gate, 70, &process(0, 9)).await, "GATE_NO_TIMESTAMP");
        drop(held);
        assert_eq!(code(&gate, 70, &caller).await, "GATE_NO_TIMESTAMP");
        assert!(gate.stamps.by_user.lock().expect("whole").is_empty());
    }
}
