//! What the commands of jobs talk to: who calls is the kernel's word, what they may ask is configured.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use proto::{
    job::{JobClaims, Source},
    pb,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::timeout,
};
use tonic::Status;
use workload::{Full, MAX_ANCESTORS, Observation, Place, Places, ProcessKey, Registry};

use super::{
    Desk, JobKeyPair, JobSettings, Line, Link,
    action::Actions,
    life::{End, by_the_node},
};

mod processes;
mod refusal;
mod rpc;
mod stamp;
mod start;
#[cfg(test)]
mod tests;

use processes::{Origin, Processes};
use refusal::Refusal;

/// Events that wait for a job: started, ended.
const EVENTS: usize = 2;
/// A permit that was not redeemed in time is kept a little longer: the verifier says then what is wrong with it.
const KEPT_LONGER: Duration = Duration::from_secs(30);
/// Refusals of those who may not ask at all.
const NO_ACTION: [&str; 2] = ["GATE_CALLER_IS_A_JOB", "GATE_USER_NOT_ALLOWED"];
/// Permits that are remembered as used.
const REMEMBERED: usize = 1024;

/// Implements `assay.attest.v1.JobGate`.
#[derive(Clone, Debug)]
pub struct Gate {
    settings: Arc<JobSettings>,
    desk: Desk,
    link: Link,
    registry: Registry,
    endpoint: String,
    /// One for each job that runs or waits.
    slots: Arc<Semaphore>,
    /// Whose they are.
    places: Places,
    jobs: Arc<Mutex<Jobs>>,
    /// Identifiers of permits that were redeemed, the latest last.
    used: Arc<Mutex<VecDeque<String>>>,
    /// Users about whose refusals something is being done: one action of each at a time, so that whoever asks and asks starts
    /// no more than that, and keeps nothing from being done about another user's.
    acting: Arc<Mutex<HashSet<u32>>>,
    /// What is done about refusals, and about ends.
    on_refused: Arc<Actions>,
    on_end: Arc<Actions>,
    /// Time stamps that are being asked for.
    stamps: Arc<stamp::Stamps>,
    /// Calls for a job that are not over yet, with what is done about their refusals.
    calls: Arc<watch::Sender<usize>>,
}

/// By the identifiers of their permits.
#[derive(Debug, Default)]
struct Jobs {
    running: HashMap<String, Running>,
    /// Permits that were not redeemed yet.
    waiting: HashMap<String, Deferred>,
}

/// A job that runs.
#[derive(Debug)]
struct Running {
    uid: u32,
    processes: Processes,
    origin: Origin,
    /// The process that holds the permit by its call, and may say that its job is over.
    holder: Option<ProcessKey>,
    line: Arc<Line>,
    /// Events of the tool log when the permit was given.
    tool_events: u64,
    /// How the job ended, or is to end since somebody stops it.
    stop: watch::Sender<Option<End>>,
}

impl Running {
    /// Whether this process is one of its own.
    fn has(&self, process: &Observation) -> bool {
        self.processes.have(process, self.uid)
    }

    /// Whether this process may be one of its own that has left its parents.
    fn may_have_lost(&self, process: &Observation) -> bool {
        self.processes.may_have_lost(process, self.uid, &self.origin)
    }
}

/// A permit, before its job.
#[derive(Debug)]
struct Deferred {
    uid: u32,
    line: Arc<Line>,
    tool_events: u64,
    tools: u32,
    decision_id: String,
    claims: Vec<u8>,
    redeem_within: Duration,
    slot: Slot,
}

/// A job's place.
#[derive(Debug)]
struct Slot {
    // In this order: who finds a place finds a slot.
    _slot: OwnedSemaphorePermit,
    _place: Place,
}

/// A call for a job that is not over yet.
struct Call(Arc<watch::Sender<usize>>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.send_modify(|calls| *calls = calls.saturating_sub(1));
    }
}

/// A user's turn to have something done about a refusal, given back on drop.
struct Acting<'a>(&'a Mutex<HashSet<u32>>, u32);

impl Drop for Acting<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

impl Gate {
    /// A gate before a daemon.
    #[must_use]
    pub fn new(
        settings: JobSettings,
        desk: Desk,
        link: Link,
        registry: Registry,
        endpoint: String,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(settings.max_jobs));
        let JobSettings { max_jobs, ref users, .. } = settings;
        let places = Places::new(max_jobs, max_jobs, users, settings.kept_for_each());
        let actions = |command: &Vec<String>| Arc::new(Actions::new(command.clone(), users));
        let (on_refused, on_end) = (actions(&settings.on_refused), actions(&settings.on_end));
        Self {
            settings: Arc::new(settings),
            desk,
            link,
            registry,
            endpoint,
            slots,
            places,
            jobs: Arc::default(),
            used: Arc::default(),
            acting: Arc::default(),
            on_refused,
            on_end,
            stamps: Arc::new(stamp::Stamps::new()),
            calls: Arc::new(watch::Sender::new(0)),
        }
    }

    /// A call for a job, until this is dropped.
    fn call(&self) -> Call {
        self.calls.send_modify(|calls| *calls += 1);
        Call(Arc::clone(&self.calls))
    }

    /// The daemon stops: what is done about ends and refusals is done soon.
    pub(super) fn end_soon(&self) {
        self.on_end.end_soon();
        self.on_refused.end_soon();
    }

    /// Resolves when every job has ended and every call for one, with all that is done about it, or `within` is over. None starts
    /// any more.
    pub(super) async fn ended(&self, within: Duration) {
        self.jobs().waiting.clear();
        let all = u32::try_from(self.settings.max_jobs).unwrap_or(u32::MAX);
        let over = async {
            let _slots = self.slots.acquire_many(all).await;
            let _ = self.calls.subscribe().wait_for(|calls| *calls == 0).await;
        };
        if timeout(within, over).await.is_err() {
            tracing::warn!("jobs, or what is done about their end, did not come to an end in time");
        }
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this caller may ask at all: a user of the list, and no process of a job that runs.
    fn admits(&self, caller: &Observation) -> Result<(), Refusal> {
        if caller.uid != 0 && !self.settings.users.contains(&caller.uid) {
            return Err(Refusal::new(
                "GATE_USER_NOT_ALLOWED",
                format!("user {} is not listed under jobs.users", caller.uid),
            ));
        }
        if caller.ancestry.len() >= MAX_ANCESTORS {
            let why = format!(
                "the caller has {} parents or more: whose it is cannot be told",
                MAX_ANCESTORS - 1
            );
            return Err(Refusal::new("GATE_PROCESSES_UNKNOWN", why));
        }
        let jobs = self.jobs();
        if jobs.running.values().any(|job| job.has(caller)) {
            let why = "a process of a job that runs cannot start another one";
            return Err(Refusal::new("GATE_CALLER_IS_A_JOB", why));
        }
        // Of one that is ending nothing is left soon, and its agent may be back already.
        let is_going_on = |job: &&Running| job.stop.borrow().is_none();
        let mut going_on = jobs.running.values().filter(is_going_on);
        if !self.settings.detached_callers && going_on.any(|job| job.may_have_lost(caller)) {
            let why = "the caller has no parent that was there before a job of its user, which still runs, and no control group \
                       of its own: it cannot be told from a process of that job; run agents as services of their own, or see \
                       jobs.detached_callers";
            return Err(Refusal::new("GATE_CALLER_IS_A_JOB", why));
        }
        Ok(())
    }

    /// What the environment says, if it can be believed to be claims at all.
    fn claims(&self, claims: &[u8]) -> Result<(), Refusal> {
        let read = JobClaims::from_canonical_json(claims, Source::Environment)
            .map_err(|error| Refusal::new("JOB_CLAIMS_INVALID", error.to_string()))?;
        let systems = &self.settings.systems;
        if !systems.is_empty() && !systems.contains(&read.system()) {
            return Err(Refusal::new(
                "GATE_SYSTEM_NOT_ALLOWED",
                format!("jobs of {} are not among jobs.systems", read.system()),
            ));
        }
        Ok(())
    }

    /// A place for a job of this user.
    fn place(&self, uid: u32) -> Result<Slot, Refusal> {
        let all = || Refusal::new("GATE_BUSY", "as many jobs run, or wait, as this worker lets");
        let _place = self.places.take(uid).map_err(|full| match full {
            Full::Kept => Refusal::new(
                "GATE_USER_BUSY",
                format!(
                    "user {uid} has its share of this worker's {} jobs, running or waiting; {} are kept for each user of \
                     jobs.users",
                    self.settings.max_jobs,
                    self.settings.kept_for_each()
                ),
            ),
            Full::Total | Full::User => all(),
        })?;
        let _slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|_| all())?;
        Ok(Slot { _slot, _place })
    }

    /// A permit, with the place that it takes.
    async fn permit(&self, request: &pb::StartRequest, uid: u32) -> Result<Deferred, Refusal> {
        let slot = self.place(uid)?;
        self.claims(&request.claims)?;
        let key = JobKeyPair::generate().and_then(|key| Ok((key.public()?, key)));
        let (public, key) = key.map_err(|error| Refusal::new("GATE_NO_KEY", error.to_string()))?;
        let job = pb::JobRequest {
            key: public,
            claims: request.claims.clone(),
            token: request.token.clone(),
        };
        let permitted = self.desk.ask(uid, job, self.settings.start_within).await?;
        let pb::Permit { id, secret, claims, redeem_within_s } = permitted.permit;
        let line = Arc::new(Line::new(self.link.clone(), key, permitted.verifier_id, id, secret));
        Ok(Deferred {
            uid,
            line,
            tool_events: permitted.tool_events,
            tools: permitted.tools,
            decision_id: permitted.decision_id,
            claims,
            redeem_within: Duration::from_secs(redeem_within_s),
            slot,
        })
    }

    /// Takes a permit that waits, if it is this user's.
    fn take(&self, permit_id: &str, caller: &Observation) -> Result<Deferred, Refusal> {
        let mut used = self.used();
        if used.iter().any(|id| id == permit_id) {
            let why = "a job has been started by this permit already";
            return Err(Refusal::new("PERMIT_ALREADY_REDEEMED", why));
        }
        let mut jobs = self.jobs();
        let is_theirs = jobs.waiting.get(permit_id).is_some_and(|permit| permit.uid == caller.uid);
        let permit = is_theirs.then(|| jobs.waiting.remove(permit_id)).flatten();
        let permit = permit.ok_or_else(|| {
            let why = "no permit of this user waits by this identifier";
            Refusal::new("PERMIT_UNKNOWN", why)
        })?;
        remember(&mut used, permit_id);
        Ok(permit)
    }

    /// Keeps a permit for a later call, until its time is up.
    fn keep(&self, permit: Deferred) {
        let (id, within) = (permit.line.permit_id().to_owned(), permit.redeem_within);
        self.jobs().waiting.insert(id.clone(), permit);
        let gate = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(within.saturating_add(KEPT_LONGER)).await;
            gate.jobs().waiting.remove(&id);
        });
    }

    /// What the site has done about a job that was refused. Users who may not ask, and jobs, cause nothing by asking.
    async fn acts_on(&self, refused: &pb::JobRefused, caller: &Observation) {
        if NO_ACTION.contains(&refused.code.as_str()) {
            return;
        }
        let turn = self.acting.lock().unwrap_or_else(PoisonError::into_inner).insert(caller.uid);
        if !turn {
            return;
        }
        let _turn = Acting(&self.acting, caller.uid);
        let about = [
            ("ASSAY_REFUSED_CODE", refused.code.as_str()),
            ("ASSAY_REFUSED_WHY", refused.why.as_str()),
            ("ASSAY_DECISION_ID", refused.decision_id.as_str()),
        ];
        self.on_refused.act(caller.uid, &about).await;
    }
}

use pb::job_event::Event;

/// Notes a permit as used, once.
fn remember(used: &mut VecDeque<String>, permit_id: &str) {
    if used.iter().any(|id| id == permit_id) {
        return;
    }
    if used.len() == REMEMBERED {
        used.pop_front();
    }
    used.push_back(permit_id.to_owned());
}

/// Whether the caller is still there.
async fn send(events: &mpsc::Sender<Result<pb::JobEvent, Status>>, event: Event) -> bool {
    events.send(Ok(pb::JobEvent { event: Some(event) })).await.is_ok()
}
