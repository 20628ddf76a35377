//! Time stamps over what jobs sign: passed on to the verifier, to which a job has no trusted way of its own.
//!
//! What comes back proves itself to whoever verifies: nothing here has to be believed, and nothing is looked at but its
//! size.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use proto::pb;
use results::{
    Sha256Digest,
    bundle::MessageSignature,
    timestamp::{MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES},
};
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use workload::{ERROR_DOMAIN, Observation};

use super::{
    super::{LineError, NodeState},
    End, Gate, Line, Refusal, by_the_node,
};

/// Time stamps asked for at once, of all jobs together: the verifier counts what comes from one address, and attestations
/// and permits of this worker must find their place.
const AT_ONCE: usize = 2;
/// Time stamps of one user that are asked for or wait: whoever asks for more takes nobody's turn.
const PER_USER: usize = 4;
/// Longest wait for one, the others' turns included; below [`workload::Limits::request_timeout`], which says less.
const WITHIN: Duration = Duration::from_secs(25);

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

/// What may have its signatures stamped: a job that runs.
#[derive(Debug)]
struct Stamping {
    line: Arc<Line>,
    tool_events: u64,
    stop: watch::Receiver<Option<End>>,
}

impl Gate {
    /// Asks the verifier to stamp what a job signed, for a process of that job.
    pub(super) async fn stamp(
        &self,
        request: pb::StampRequest,
        caller: &Observation,
    ) -> Result<pb::TimestampReply, StampRefused> {
        let jobs = self.its_jobs(caller);
        if jobs.is_empty() {
            let why =
                "the caller is no process of a job that runs: only what a job signs is stamped";
            return Err(refused(Code::PermissionDenied, "GATE_CALLER_IS_NO_JOB", why));
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
        // A signature is verified for whoever has a place alone: that is what costs here.
        let job = jobs.into_iter().find(|job| job.signed(&request)).ok_or_else(|| {
            let why = "the signature to be stamped is not by the key of the caller's job";
            refused(Code::PermissionDenied, "PERMIT_TIMESTAMP_FOREIGN", why)
        })?;
        let late = |_| {
            let why = format!("no time stamp within {} s", WITHIN.as_secs());
            refused(Code::Unavailable, "GATE_LATE", why)
        };
        timeout(WITHIN, self.pass_on(&job, request)).await.map_err(late)?
    }

    /// The jobs that run and have this process; one, but where a user's or a control group's processes are several jobs'.
    fn its_jobs(&self, caller: &Observation) -> Vec<Stamping> {
        let jobs = self.jobs();
        let its = jobs.running.values().filter(|job| job.has(caller));
        its.map(|job| Stamping {
            line: Arc::clone(&job.line),
            tool_events: job.tool_events,
            stop: job.stop.subscribe(),
        })
        .collect()
    }

    async fn pass_on(
        &self,
        job: &Stamping,
        request: pb::StampRequest,
    ) -> Result<pb::TimestampReply, StampRefused> {
        let stopping = |_| refused(Code::Unavailable, "GATE_STOPPING", "the daemon is stopping");
        let _turn = self.stamps.turns.acquire().await.map_err(stopping)?;
        let node = self.desk.node();
        // What the worker itself knows by now, the verifier may not.
        job.stands(&node.borrow())?;
        let response = job.line.stamp(request).await.map_err(|error| match error {
            LineError::Refused { code, why } => refused(Code::FailedPrecondition, &code, why),
            other => refused(Code::Unavailable, "GATE_NO_TIMESTAMP", crate::chain(&other)),
        })?;
        job.stands(&node.borrow())?;
        if response.len() > MAX_RESPONSE_BYTES {
            let why = format!("the verifier sent more than {MAX_RESPONSE_BYTES} bytes");
            return Err(refused(Code::Unavailable, "GATE_NO_TIMESTAMP", why));
        }
        Ok(pb::TimestampReply { response })
    }
}

impl Stamping {
    /// Whether the job's key made the signature that is to be stamped.
    fn signed(&self, request: &pb::StampRequest) -> bool {
        let digest = <[u8; 32]>::try_from(request.content_sha256.as_slice());
        let (Ok(digest), Ok(key)) = (digest, self.line.key().public()) else { return false };
        let untrusted_digest = Sha256Digest::from_bytes(digest);
        let signature = request.content_signature.clone();
        MessageSignature { untrusted_digest, signature }.is_of(&key)
    }

    /// Whether nothing is known here that ends the job.
    fn stands(&self, node: &NodeState) -> Result<(), StampRefused> {
        let end = self.stop.borrow().clone().or_else(|| by_the_node(node, self.tool_events));
        match end {
            Some(End { code, why }) => Err(refused(Code::FailedPrecondition, &code, why)),
            None => Ok(()),
        }
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
    use workload::{ProcessKey, Registry};

    use super::{
        super::{super::desk, JobSettings, Link, Processes, Running, tests::job},
        *,
    };
    use crate::trust::{Learned, Trust};

    const LISTED: u32 = 1001;
    const OTHER: u32 = 1002;
    const CONTENT: &[u8] = b"artifact";

    /// Of a worker whose verifier is not there.
    fn gate() -> Gate {
        let settings = JobSettings {
            directory: "/nonexistent".into(),
            users: vec![LISTED],
            systems: Vec::new(),
            max_jobs: 1,
            start_within: WITHIN,
            detached_callers: false,
            silence: WITHIN,
            on_end: Vec::new(),
            on_refused: Vec::new(),
        };
        let (_, bundle) = watch::channel(Learned::default());
        let (url, trust) = ("https://127.0.0.1:1".to_owned(), Trust::Pin([0; 32]));
        let link = Link::new(url, trust, bundle);
        Gate::new(settings, desk().0, link, Registry::new(), String::new())
    }

    fn process(uid: u32, pid: u32) -> Observation {
        let key = |pid| ProcessKey { pid, start_time: 1 };
        Observation { uid, gid: uid, cgroup: None, ancestry: vec![key(pid), key(1)] }
    }

    /// A job of a user, below this process.
    fn below(gate: &Gate, uid: u32, pid: u32) -> Running {
        job(gate, uid, Processes::Below(ProcessKey { pid, start_time: 1 }))
    }

    /// A request for a time stamp over what a job signed.
    fn asks(job: &Running) -> pb::StampRequest {
        pb::StampRequest {
            request: vec![0; 70],
            content_sha256: Sha256Digest::of(CONTENT).as_bytes().to_vec(),
            content_signature: job.line.key().sign(CONTENT).expect("signed"),
        }
    }

    async fn code(gate: &Gate, request: pb::StampRequest, caller: &Observation) -> String {
        let refused = gate.stamp(request, caller).await.expect_err("nobody is there to stamp");
        let status = Status::from(refused);
        status.get_details_error_info().expect("a code").reason
    }

    #[tokio::test]
    async fn only_a_process_of_a_job_gets_to_the_verifier_and_with_its_own_signature() {
        let gate = gate();
        // Root's jobs have processes of any user.
        let (job, another) = (below(&gate, 0, 7), below(&gate, LISTED, 8));
        let (good, foreign) = (asks(&job), asks(&another));
        let caller = process(OTHER, 7);
        let nobody = "GATE_CALLER_IS_NO_JOB";
        assert_eq!(code(&gate, good.clone(), &caller).await, nobody);
        gate.jobs().running.insert("permit".to_owned(), job);
        // This reaches the verifier, which is not there.
        assert_eq!(code(&gate, good.clone(), &caller).await, "GATE_NO_TIMESTAMP");
        // Another process of that user, a user who may start jobs, root.
        for stranger in [process(OTHER, 10), process(LISTED, 10), process(0, 10)] {
            assert_eq!(code(&gate, good.clone(), &stranger).await, nobody);
        }
        gate.jobs().running.insert("another".to_owned(), another);
        let of_another = "PERMIT_TIMESTAMP_FOREIGN";
        assert_eq!(code(&gate, foreign.clone(), &caller).await, of_another);
        assert_eq!(code(&gate, foreign.clone(), &process(LISTED, 8)).await, "GATE_NO_TIMESTAMP");
        for spoiled in [
            pb::StampRequest { content_sha256: vec![0; 32], ..good.clone() },
            pb::StampRequest { content_sha256: Vec::new(), ..good.clone() },
            pb::StampRequest { content_signature: vec![0; 1 << 20], ..good.clone() },
        ] {
            assert_eq!(code(&gate, spoiled, &caller).await, of_another);
        }
        gate.jobs().running.clear();
        assert_eq!(code(&gate, good, &caller).await, nobody);
    }

    #[tokio::test]
    async fn what_ends_a_job_here_keeps_its_signatures_from_the_verifier() {
        let gate = gate();
        let (job, caller) = (below(&gate, LISTED, 7), process(LISTED, 7));
        let (good, stop) = (asks(&job), job.stop.clone());
        gate.jobs().running.insert("permit".to_owned(), job);
        let mut changed = below(&gate, LISTED, 8);
        // No event of the tool log is known here.
        changed.tool_events = 1;
        let of_changed = asks(&changed);
        gate.jobs().running.insert("another".to_owned(), changed);
        assert_eq!(code(&gate, of_changed, &process(LISTED, 8)).await, "GATE_TOOL_CHANGED");
        assert_eq!(code(&gate, good.clone(), &caller).await, "GATE_NO_TIMESTAMP");
        stop.send_replace(Some(End::over("stopped")));
        assert_eq!(code(&gate, good, &caller).await, "GATE_JOB_OVER");
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_does_not_come_in_time_and_a_daemon_that_stops_are_said() {
        let gate = gate();
        let (job, caller) = (below(&gate, LISTED, 7), process(LISTED, 7));
        let (good, stop) = (asks(&job), job.stop.clone());
        gate.jobs().running.insert("permit".to_owned(), job);
        let taken = gate.stamps.turns.acquire_many(2).await.expect("both turns");
        let start = tokio::time::Instant::now();
        assert_eq!(code(&gate, good.clone(), &caller).await, "GATE_LATE");
        assert_eq!(start.elapsed(), WITHIN);
        drop(taken);
        stop.send_replace(Some(End::new("GATE_STOPPING", "the worker's daemon stops")));
        assert_eq!(code(&gate, good, &caller).await, "GATE_STOPPING");
    }

    #[tokio::test]
    async fn requests_are_bounded_in_size_and_number() {
        let gate = gate();
        let (job, another) = (below(&gate, LISTED, 8), below(&gate, 0, 9));
        let (good, of_root) = (asks(&job), asks(&another));
        gate.jobs().running.insert("permit".to_owned(), job);
        gate.jobs().running.insert("another".to_owned(), another);
        let caller = process(LISTED, 8);
        let sized = |bytes| pb::StampRequest { request: vec![0; bytes], ..good.clone() };
        assert_eq!(code(&gate, sized(MAX_REQUEST_BYTES), &caller).await, "GATE_NO_TIMESTAMP");
        let limit = "EVIDENCE_LIMIT_EXCEEDED";
        assert_eq!(code(&gate, sized(MAX_REQUEST_BYTES + 1), &caller).await, limit);
        let held: Vec<_> = (0..PER_USER).map(|_| gate.stamps.enter(LISTED)).collect();
        assert!(held.iter().all(Option::is_some));
        assert_eq!(code(&gate, good.clone(), &caller).await, "GATE_BUSY");
        // Not another user's, and not for long.
        assert_eq!(code(&gate, of_root, &process(0, 9)).await, "GATE_NO_TIMESTAMP");
        drop(held);
        assert_eq!(code(&gate, good.clone(), &caller).await, "GATE_NO_TIMESTAMP");
        assert!(gate.stamps.by_user.lock().expect("whole").is_empty());
    }
}
