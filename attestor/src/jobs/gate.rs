//! What the commands of jobs talk to: who calls is the kernel's word, what they may ask is configured.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use proto::{
    job::{JobClaims, Source},
    pb,
    permit::audiences_are_bounded,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use workload::{JobIdentity, MAX_ANCESTORS, Observation, Peer, ProcessKey, Registry, Selector};

use super::{
    Desk, DeskError, JobKeyPair, JobSettings, Line, LineError, Link,
    action::act,
    life::{End, FAREWELL, Life, by_the_node, credentials},
};

mod processes;
mod stamp;
#[cfg(test)]
mod tests;

use processes::Processes;

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
    slots: Arc<Semaphore>,
    jobs: Arc<Mutex<HashMap<String, Entry>>>,
    /// Identifiers of permits that were redeemed, the latest last.
    used: Arc<Mutex<VecDeque<String>>>,
    /// One action on a refusal at a time: whoever asks and asks starts no more than that.
    acting: Arc<Semaphore>,
    /// Time stamps that are being asked for.
    stamps: Arc<stamp::Stamps>,
}

/// A job that runs, or a permit that waits for one.
#[derive(Debug)]
struct Entry {
    uid: u32,
    processes: Processes,
    /// The process that holds the permit by its call, and may say that its job is over.
    holder: Option<ProcessKey>,
    /// Told how the job ended when somebody stops it.
    stop: watch::Sender<Option<End>>,
    /// A permit that was not redeemed yet.
    deferred: Option<Deferred>,
}

#[derive(Debug)]
struct Deferred {
    line: Arc<Line>,
    tool_events: u64,
    tools: u32,
    decision_id: String,
    claims: Vec<u8>,
    redeem_within: Duration,
    slot: OwnedSemaphorePermit,
}

/// Why a job does not start.
#[derive(Clone, Debug, Default)]
struct Refusal(pb::JobRefused);

impl Refusal {
    fn new(code: &str, why: impl Into<String>) -> Self {
        Self(pb::JobRefused { code: code.to_owned(), why: why.into(), ..Default::default() })
    }
}

impl From<DeskError> for Refusal {
    fn from(error: DeskError) -> Self {
        let why = error.to_string();
        match error {
            DeskError::Denied(result) => Self(pb::JobRefused {
                code: result.findings.first().map(|first| first.code.clone()).unwrap_or_default(),
                why,
                findings: result.findings,
                decision_id: result.decision_id,
            }),
            DeskError::Busy => Self::new("GATE_BUSY", why),
            DeskError::Late(_) => Self::new("GATE_LATE", why),
            DeskError::Stopping => Self::new("GATE_STOPPING", why),
            DeskError::Failed(_) => Self::new("GATE_NO_VERDICT", why),
        }
    }
}

impl From<LineError> for Refusal {
    fn from(error: LineError) -> Self {
        match error {
            LineError::Refused { code, why } => Self::new(&code, why),
            other => Self::new("GATE_NO_VERDICT", crate::chain(&other)),
        }
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
        let (settings, jobs, used) = (Arc::new(settings), Arc::default(), Arc::default());
        let acting = Arc::new(Semaphore::new(1));
        let stamps = Arc::new(stamp::Stamps::new());
        Self { settings, desk, link, registry, endpoint, slots, jobs, used, acting, stamps }
    }

    /// Resolves when every job has ended, with all that is done about it, or `within` is over. None starts any more.
    pub(super) async fn ended(&self, within: Duration) {
        self.jobs().retain(|_, entry| entry.deferred.is_none());
        let all = u32::try_from(self.settings.max_jobs).unwrap_or(u32::MAX);
        if timeout(within, self.slots.acquire_many(all)).await.is_err() {
            tracing::warn!("jobs, or what is done about their end, did not come to an end in time");
        }
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
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
                "the caller has {MAX_ANCESTORS} parents or more: whose it is cannot be told"
            );
            return Err(Refusal::new("GATE_PROCESSES_UNKNOWN", why));
        }
        let jobs = self.jobs();
        let its = |job: &&Entry| job.deferred.is_none() && job.processes.have(caller, job.uid);
        match jobs.values().find(its) {
            Some(_) => Err(Refusal::new(
                "GATE_CALLER_IS_A_JOB",
                "a process of a job that runs cannot start another one",
            )),
            None => Ok(()),
        }
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

    /// A permit, with the place that it takes.
    async fn permit(&self, request: &pb::StartRequest) -> Result<Deferred, Refusal> {
        let busy = || Refusal::new("GATE_BUSY", "as many jobs run as this worker lets run");
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|_| busy())?;
        self.claims(&request.claims)?;
        let key = JobKeyPair::generate().and_then(|key| Ok((key.public()?, key)));
        let (public, key) = key.map_err(|error| Refusal::new("GATE_NO_KEY", error.to_string()))?;
        let job = pb::JobRequest {
            key: public,
            claims: request.claims.clone(),
            token: request.token.clone(),
        };
        let permitted = self.desk.ask(job, self.settings.start_within).await?;
        let pb::Permit { id, secret, claims, redeem_within_s } = permitted.permit;
        let line = Arc::new(Line::new(self.link.clone(), key, permitted.verifier_id, id, secret));
        Ok(Deferred {
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
        let entry = jobs.get_mut(permit_id).filter(|entry| entry.uid == caller.uid);
        let Some(deferred) = entry.and_then(|entry| entry.deferred.take()) else {
            let why = "no permit of this user waits by this identifier";
            return Err(Refusal::new("PERMIT_UNKNOWN", why));
        };
        jobs.remove(permit_id);
        remember(&mut used, permit_id);
        Ok(deferred)
    }

    /// Redeems a permit and gives the job's processes its identities.
    async fn begin(
        &self,
        deferred: Deferred,
        request: &pb::StartRequest,
        caller: &Observation,
    ) -> Result<Begun, Refusal> {
        let Deferred { line, tool_events, tools, decision_id, claims, slot, .. } = deferred;
        let processes = Processes::of(request.processes(), caller)?;
        let node = self.desk.node();
        let stands = || match by_the_node(&node.borrow(), tool_events) {
            Some(End { code, why }) => Err(Refusal::new(&code, why)),
            None => Ok(()),
        };
        // What the worker itself knows by now, the verifier may not.
        stands()?;
        // One that was not deferred is used as well: its number stands in logs and environments.
        remember(&mut self.used(), line.permit_id());
        let identity = line.redeem(request.audiences.clone()).await?;
        if let Err(refusal) = stands() {
            let _ = timeout(FAREWELL, line.end(&refusal.0.why)).await;
            return Err(refusal);
        }
        let unusable = |why: String| Refusal::new("GATE_IDENTITY_UNUSABLE", why);
        let selectors: Vec<Selector> = processes.selector(caller.uid).into_iter().collect();
        let first = processes.first().filter(|_| !request.hold);
        let holder = caller.ancestry.first().copied().filter(|_| request.hold);
        let served = credentials(&line, &identity).map_err(|error| unusable(error.to_string()))?;
        let id =
            line.permit_id().parse().map_err(|_| unusable("the permit's identifier".into()))?;
        let job = JobIdentity { id, selectors, credentials: served };
        let handle = self.registry.admit(job).map_err(|error| unusable(error.to_string()))?;
        let (stop, stopped) = watch::channel(None);
        let (uid, deferred) = (caller.uid, None);
        let entry = Entry { uid, processes, holder, stop: stop.clone(), deferred };
        self.jobs().insert(line.permit_id().to_owned(), entry);
        let started = pb::JobStarted {
            permit_id: line.permit_id().to_owned(),
            decision_id,
            node: node.borrow().spiffe_id.clone(),
            spiffe_ids: identity.x509.iter().map(|svid| svid.spiffe_id.clone()).collect(),
            claims,
            ends_within_s: identity.ends_within_s,
            workload_endpoint: self.endpoint.clone(),
            jwt: identity.jwt.clone(),
            statements: identity.statements.clone(),
            tools,
        };
        let settings = Arc::clone(&self.settings);
        let life = Life { line, handle, node, tool_events, first, settings, identity };
        Ok(Begun { started, life, stop, stopped, slot })
    }

    /// Runs a job to its end in a task of its own.
    fn run(&self, begun: Begun) -> tokio::task::JoinHandle<End> {
        let (gate, id) = (self.clone(), begun.started.permit_id.clone());
        let Begun { life, stopped, slot, .. } = begun;
        tokio::spawn(async move {
            let end = life.run(stopped).await;
            gate.jobs().remove(&id);
            drop(slot);
            end
        })
    }

    /// Keeps a permit for a later call, until its time is up.
    fn keep(&self, deferred: Deferred, within: Duration, caller: &Observation) {
        let id = deferred.line.permit_id().to_owned();
        let (stop, _) = watch::channel(None);
        let (uid, processes) = (caller.uid, Processes::User(caller.uid));
        let (holder, deferred) = (None, Some(deferred));
        let entry = Entry { uid, processes, holder, stop, deferred };
        self.jobs().insert(id.clone(), entry);
        let gate = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(within.saturating_add(KEPT_LONGER)).await;
            let mut jobs = gate.jobs();
            if jobs.get(&id).is_some_and(|entry| entry.deferred.is_some()) {
                jobs.remove(&id);
            }
        });
    }

    /// What the site has done about a job that was refused. Users who may not ask, and jobs, cause nothing by asking.
    async fn acts_on(&self, refused: &pb::JobRefused, caller: &Observation) {
        if NO_ACTION.contains(&refused.code.as_str()) {
            return;
        }
        let Ok(_turn) = self.acting.try_acquire() else { return };
        let about = [
            ("ASSAY_REFUSED_CODE", refused.code.as_str()),
            ("ASSAY_REFUSED_WHY", refused.why.as_str()),
            ("ASSAY_DECISION_ID", refused.decision_id.as_str()),
            ("ASSAY_UID", &caller.uid.to_string()),
        ];
        act(&self.settings.on_refused, &about).await;
    }

    async fn start(
        &self,
        request: pb::StartRequest,
        caller: &Observation,
        events: &mpsc::Sender<Result<pb::JobEvent, Status>>,
    ) -> Result<(), Refusal> {
        self.admits(caller)?;
        if !audiences_are_bounded(&request.audiences) {
            let why = "at most 8 audiences, of 1 to 255 bytes each";
            return Err(Refusal::new("EVIDENCE_LIMIT_EXCEEDED", why));
        }
        let permit = match request.permit_id.as_str() {
            "" => self.permit(&request).await?,
            waiting => self.take(waiting, caller)?,
        };
        if request.defer {
            let within = permit.redeem_within;
            let told = pb::JobDeferred {
                permit_id: permit.line.permit_id().to_owned(),
                decision_id: permit.decision_id.clone(),
                redeem_within_s: within.as_secs(),
                claims: permit.claims.clone(),
            };
            self.keep(permit, within, caller);
            send(events, Event::Deferred(told)).await;
            return Ok(());
        }
        let begun = self.begin(permit, &request, caller).await?;
        let (started, stop) = (begun.started.clone(), begun.stop.clone());
        let mut running = self.run(begun);
        let told = send(events, Event::Started(started)).await;
        if !request.hold && told {
            return Ok(());
        }
        // Held by the call: whichever ends first ends the other. A caller who went away before it heard that it may start
        // has no job either.
        let end = tokio::select! {
            end = &mut running => end.ok(),
            () = events.closed() => {
                // One that ends its job says so before it goes.
                let why = "whoever held the permit is gone, and did not say that its job is over";
                stop.send_if_modified(|stop| {
                    let first = stop.is_none();
                    if first {
                        *stop = Some(End::new("GATE_HOLDER_GONE", why));
                    }
                    first
                });
                return Ok(());
            }
        };
        let End { code, why } =
            end.unwrap_or_else(|| End::new("GATE_STOPPING", "the job's task ended"));
        send(events, Event::Ended(pb::JobEnded { code, why })).await;
        Ok(())
    }
}

use pb::job_event::Event;

/// A job whose identities are served.
struct Begun {
    started: pb::JobStarted,
    life: Life,
    stop: watch::Sender<Option<End>>,
    stopped: watch::Receiver<Option<End>>,
    slot: OwnedSemaphorePermit,
}

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

/// Who calls; everything is refused where the kernel does not say.
fn caller<T>(request: &Request<T>) -> Result<Observation, Status> {
    let peer = request.extensions().get::<Arc<Peer>>();
    let peer = peer.ok_or_else(|| Status::internal("the caller is not known"))?;
    peer.observe().map_err(|error| Status::permission_denied(error.to_string()))
}

#[tonic::async_trait]
impl pb::job_gate_server::JobGate for Gate {
    type StartStream = ReceiverStream<Result<pb::JobEvent, Status>>;

    async fn start(
        &self,
        request: Request<pb::StartRequest>,
    ) -> Result<Response<Self::StartStream>, Status> {
        let caller = caller(&request)?;
        let (events, stream) = mpsc::channel(EVENTS);
        let (gate, request) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            if let Err(Refusal(refused)) = gate.start(request, &caller, &events).await {
                tracing::warn!(
                    uid = caller.uid,
                    code = refused.code,
                    decision = refused.decision_id,
                    "no job starts: {}",
                    refused.why
                );
                send(&events, Event::Refused(refused.clone())).await;
                // The call is over; what is done about it may take its time.
                drop(events);
                gate.acts_on(&refused, &caller).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn stop(
        &self,
        request: Request<pb::StopRequest>,
    ) -> Result<Response<pb::Stopped>, Status> {
        let caller = caller(&request)?;
        let pb::StopRequest { permit_id, reason } = request.into_inner();
        let mut jobs = self.jobs();
        let entry = jobs.get(&permit_id);
        let entry = entry.filter(|entry| caller.uid == 0 || entry.uid == caller.uid);
        let ended = match entry {
            // Nobody can redeem it any more.
            Some(entry) if entry.deferred.is_some() => jobs.remove(&permit_id).is_some(),
            Some(entry) if entry.stop.borrow().is_none() => {
                let why = if reason.is_empty() { "stopped".to_owned() } else { reason };
                // A job that gives its own permit back may go on without it: what the site has for such an end is done.
                let holds =
                    entry.holder.is_some() && entry.holder == caller.ancestry.first().copied();
                let is_its_own = matches!(entry.processes, Processes::Below(_))
                    && entry.processes.have(&caller, entry.uid);
                entry.stop.send_replace(Some(match is_its_own && !holds {
                    true => End::new("GATE_ENDED_BY_ITS_JOB", why),
                    false => End::over(&why),
                }));
                true
            }
            Some(_) | None => false,
        };
        Ok(Response::new(pb::Stopped { ended }))
    }

    async fn timestamp(
        &self,
        request: Request<pb::TimestampRequest>,
    ) -> Result<Response<pb::TimestampReply>, Status> {
        let caller = caller(&request)?;
        let reply = self.stamp(request.into_inner(), &caller).await;
        reply.map(Response::new).map_err(Status::from)
    }
}
