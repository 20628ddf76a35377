//! Which jobs there are, whose process a peer is, and what a job has at the moment.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use proto::spiffe::TrustDomain;
use tokio::sync::{Semaphore, watch};

use crate::{
    conformance::{self, Nonconformity},
    identity::{Credentials, JobId, JobIdentity},
    peer::{Observation, Peer},
    refusal::{Refusal, RefusalCode},
    selector::{Closeness, Selector},
};

/// Selectors of one job.
const MAX_SELECTORS: usize = 16;
/// Requests for tokens of one job that its source has at a time, so that a job cannot flood the issuer:
/// more wait for their turn.
const MAX_TOKEN_REQUESTS: usize = 4;
/// Requests for tokens that a job may make at once: a build that starts many steps together; each costs the verifier a
/// signature and a record.
pub(crate) const TOKEN_BURST: u32 = 64;
/// And from then on: tokens live for minutes, and clients keep them.
pub(crate) const TOKENS_PER_S: u32 = 1;
/// Bytes of a reason that goes to the job.
const MAX_REASON_BYTES: usize = 512;

/// Seconds since 1970; the server's only clock.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Why a job, or its new credentials, were not taken over. Nothing of them is served then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdmitError {
    /// Not exactly the bundle of the trust domain of all identities.
    #[error("the bundles are not exactly that of the identities' trust domain")]
    BundlesMismatch,
    /// A job of this name is there.
    #[error("there is a job {0} already")]
    Duplicate(JobId),
    /// The job's permit has ended.
    #[error("the job's permit has ended")]
    Ended,
    /// Neither X.509-SVIDs nor JWT-SVIDs.
    #[error("the job has no identity at all")]
    NoIdentity,
    /// No selector, or too many.
    #[error("a job has 1 to {MAX_SELECTORS} selectors")]
    SelectorCount,
    /// An X.509-SVID or bundle that does not hold together.
    #[error("{0}")]
    Svid(Nonconformity),
}

impl AdmitError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BundlesMismatch => "JOB_BUNDLES_MISMATCH",
            Self::Duplicate(_) => "JOB_DUPLICATE",
            Self::Ended => "JOB_ENDED",
            Self::NoIdentity => "JOB_NO_IDENTITY",
            Self::SelectorCount => "JOB_SELECTOR_COUNT",
            Self::Svid(problem) => problem.code(),
        }
    }
}

impl From<Nonconformity> for AdmitError {
    fn from(problem: Nonconformity) -> Self {
        Self::Svid(problem)
    }
}

/// The jobs of a worker. A cheap handle: clones are the same registry.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    jobs: Mutex<BTreeMap<JobId, Arc<Job>>>,
    is_ready: watch::Sender<bool>,
    clock: Clock,
}

/// A job that is there, or was until a moment ago.
pub(crate) struct Job {
    pub(crate) id: JobId,
    selectors: Vec<Selector>,
    state: watch::Sender<State>,
    /// Turns at the job's source of tokens.
    pub(crate) token_turns: Semaphore,
    /// Requests for tokens that are left, and since when.
    tokens: Mutex<(f64, Instant)>,
}

/// What a stream watches: always the newest, older ones are skipped.
#[derive(Clone)]
pub(crate) enum State {
    Live(Arc<Live>),
    Ended(String),
}

/// Credentials that were checked.
pub(crate) struct Live {
    pub(crate) credentials: Credentials,
    /// When the first X.509-SVID expires.
    not_after_unix_s: Option<u64>,
}

/// A job's permit. Dropping it ends the job, as nobody could any more.
#[derive(Debug)]
#[must_use = "dropping a job's handle ends the job"]
pub struct JobHandle {
    registry: Registry,
    job: Arc<Job>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// An empty registry that is not ready, with the system's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Arc::new(|| {
            // Before 1970 nothing is valid yet.
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
        }))
    }

    /// An empty registry that is not ready, with this clock.
    #[must_use]
    pub fn with_clock(clock: Clock) -> Self {
        let jobs = Mutex::new(BTreeMap::new());
        Self { shared: Arc::new(Shared { jobs, is_ready: watch::Sender::new(false), clock }) }
    }

    /// Says whether the worker is attested. While it is not, every request is answered `UNAVAILABLE`
    /// and streams end so.
    pub fn set_ready(&self, is_ready: bool) {
        self.shared.is_ready.send_replace(is_ready);
    }

    /// Takes a job in; its processes are served from now on.
    ///
    /// # Errors
    /// [`AdmitError`]; nothing was changed then.
    pub fn admit(&self, identity: JobIdentity) -> Result<JobHandle, AdmitError> {
        let JobIdentity { id, selectors, credentials } = identity;
        if selectors.is_empty() || selectors.len() > MAX_SELECTORS {
            return Err(AdmitError::SelectorCount);
        }
        let live = Live::check(credentials, self.now_unix_s())?;
        let state = watch::Sender::new(State::Live(Arc::new(live)));
        let job = Arc::new(Job {
            id: id.clone(),
            selectors,
            state,
            token_turns: Semaphore::new(MAX_TOKEN_REQUESTS),
            tokens: Mutex::new((f64::from(TOKEN_BURST), Instant::now())),
        });
        let mut jobs = self.jobs();
        if jobs.contains_key(&id) {
            return Err(AdmitError::Duplicate(id));
        }
        jobs.insert(id, Arc::clone(&job));
        drop(jobs);
        tracing::info!(job = %job.id, "job admitted");
        Ok(JobHandle { registry: self.clone(), job })
    }

    /// Names of the jobs that are there.
    #[must_use]
    pub fn job_ids(&self) -> Vec<JobId> {
        self.jobs().keys().cloned().collect()
    }

    /// Streams that are open over all jobs.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.jobs().values().map(|job| job.state.receiver_count()).sum()
    }

    pub(crate) fn now_unix_s(&self) -> u64 {
        (self.shared.clock)()
    }

    pub(crate) fn readiness(&self) -> watch::Receiver<bool> {
        self.shared.is_ready.subscribe()
    }

    pub(crate) fn check_ready(&self) -> Result<(), Refusal> {
        if *self.shared.is_ready.borrow() {
            return Ok(());
        }
        Err(Refusal::new(RefusalCode::NotReady, "the worker is not attested yet; try again"))
    }

    /// Whose process a peer is, as things are now.
    pub(crate) fn resolve(&self, peer: &Peer) -> Result<Arc<Job>, Refusal> {
        self.check_ready()?;
        let observation = peer.observe()?;
        let found = self.closest(&observation);
        if let Err(refusal) = &found {
            let pid = peer.key().pid;
            tracing::debug!(code = refusal.code().code(), uid = peer.uid(), pid, "no identity");
        }
        found
    }

    /// The one job that selects a process most closely; never one of several.
    fn closest(&self, observation: &Observation) -> Result<Arc<Job>, Refusal> {
        let jobs = self.jobs();
        let mut best: Option<(Closeness, &Arc<Job>)> = None;
        let mut is_tied = false;
        for job in jobs.values() {
            let Some(closeness) = job.closeness(observation) else { continue };
            match best {
                Some((found, _)) if closeness < found => {}
                Some((found, _)) if closeness == found => is_tied = true,
                _ => {
                    best = Some((closeness, job));
                    is_tied = false;
                }
            }
        }
        match best {
            None => Err(Refusal::new(
                RefusalCode::IdentityNone,
                "no job claims this process, or its permit has ended",
            )),
            Some(_) if is_tied => Err(Refusal::new(
                RefusalCode::IdentityAmbiguous,
                "several jobs claim this process equally closely",
            )),
            Some((_, job)) => Ok(Arc::clone(job)),
        }
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<JobId, Arc<Job>>> {
        // Every change of the map is one call, so that a panic elsewhere leaves it whole.
        self.shared.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("jobs", &self.job_ids()).finish_non_exhaustive()
    }
}

impl Job {
    fn closeness(&self, observation: &Observation) -> Option<Closeness> {
        let selecting = self.selectors.iter().filter(|selector| selector.selects(observation));
        selecting.map(Selector::closeness).max()
    }

    /// Counts a request for tokens, unless there were too many.
    pub(crate) fn may_ask_for_tokens(&self) -> bool {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = *tokens;
        let now = Instant::now();
        let back = now.duration_since(since).as_secs_f64() * f64::from(TOKENS_PER_S);
        let left = (left + back).min(f64::from(TOKEN_BURST));
        let may = left >= 1.0;
        *tokens = (if may { left - 1.0 } else { left }, now);
        may
    }

    pub(crate) fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// What the job has now.
    pub(crate) fn live(&self) -> Result<Arc<Live>, Refusal> {
        self.state.borrow().live(&self.id)
    }

    fn end(&self, reason: &str) {
        // The first reason stays: it is the cause.
        self.state.send_if_modified(|state| {
            if matches!(state, State::Ended(_)) {
                return false;
            }
            *state = State::Ended(printable(reason));
            true
        });
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("id", &self.id).finish_non_exhaustive()
    }
}

impl State {
    pub(crate) fn live(&self, job: &JobId) -> Result<Arc<Live>, Refusal> {
        match self {
            Self::Live(live) => Ok(Arc::clone(live)),
            Self::Ended(reason) => {
                let what = format!("the permit of job {job} ended: {reason}");
                Err(Refusal::new(RefusalCode::JobEnded, what))
            }
        }
    }
}

impl Live {
    fn check(credentials: Credentials, now_unix_s: u64) -> Result<Self, AdmitError> {
        let Credentials { x509, jwt, bundles } = &credentials;
        let jwt_ids = jwt.as_ref().map_or(&[][..], |grant| grant.spiffe_ids.as_slice());
        let ids = x509.iter().map(|svid| &svid.spiffe_id).chain(jwt_ids);
        let mut domains: Vec<&TrustDomain> = ids.map(|id| id.trust_domain()).collect();
        domains.dedup();
        let domain = match domains[..] {
            [] => return Err(AdmitError::NoIdentity),
            [domain] if bundles.len() == 1 => domain,
            _ => return Err(AdmitError::BundlesMismatch),
        };
        let bundle = bundles.get(domain).ok_or(AdmitError::BundlesMismatch)?;
        let roots = bundle.x509_authorities();
        conformance::check_roots(roots)?;
        for id in jwt_ids {
            if id.path().is_empty() {
                return Err(Nonconformity::SvidIdMalformed.into());
            }
        }
        if x509.len() > conformance::MAX_SVIDS || jwt_ids.len() > conformance::MAX_SVIDS {
            return Err(Nonconformity::SvidCountInvalid.into());
        }
        conformance::check_hints(x509.iter().map(|svid| svid.hint.as_str()))?;
        let mut not_after_unix_s = None;
        for svid in x509 {
            let checked = conformance::check_svid(
                &svid.spiffe_id.to_string(),
                &svid.chain,
                &svid.key_pkcs8,
                roots,
                now_unix_s,
            )?;
            let end = checked.not_after_unix_s();
            not_after_unix_s = Some(not_after_unix_s.map_or(end, |first: u64| first.min(end)));
        }
        Ok(Self { credentials, not_after_unix_s })
    }

    /// Refuses when an X.509-SVID has expired: a client could do nothing with it.
    pub(crate) fn check_current(&self, now_unix_s: u64) -> Result<(), Refusal> {
        match self.not_after_unix_s {
            Some(end) if now_unix_s > end => {
                let what = "the X.509-SVID expired and was not renewed; try again";
                Err(Refusal::new(RefusalCode::SvidExpired, what))
            }
            _ => Ok(()),
        }
    }
}

impl JobHandle {
    /// The job's name.
    #[must_use]
    pub fn id(&self) -> &JobId {
        &self.job.id
    }

    /// Replaces all that the job has; open streams get the new state. What it replaces is wiped once
    /// no answer needs it.
    ///
    /// # Errors
    /// [`AdmitError`]; the job keeps what it had then.
    pub fn update(&self, credentials: Credentials) -> Result<(), AdmitError> {
        let live = Live::check(credentials, self.registry.now_unix_s())?;
        let was_live = self.job.state.send_if_modified(|state| {
            let is_live = matches!(state, State::Live(_));
            if is_live {
                *state = State::Live(Arc::new(live));
            }
            is_live
        });
        if was_live { Ok(()) } else { Err(AdmitError::Ended) }
    }

    /// Ends the job's permit: its streams end with `reason`, its processes get nothing more, its keys
    /// are wiped.
    ///
    /// `reason` goes to the job: one line, up to 512 bytes.
    pub fn end(self, reason: &str) {
        self.finish(reason);
    }

    fn finish(&self, reason: &str) {
        // Ended first: whoever finds the job until it is gone from the map is told why.
        self.job.end(reason);
        let mut jobs = self.registry.jobs();
        if jobs.get(&self.job.id).is_some_and(|job| Arc::ptr_eq(job, &self.job)) {
            jobs.remove(&self.job.id);
            tracing::info!(job = %self.job.id, reason, "job ended");
        }
    }
}

impl Drop for JobHandle {
    fn drop(&mut self) {
        self.finish("the worker let go of the job");
    }
}

/// One line that may stand in a status message or a command's environment, of at most 512 bytes.
#[must_use]
pub fn printable(reason: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut out: String = reason.chars().map(clean).collect();
    out.truncate(out.floor_char_boundary(MAX_REASON_BYTES));
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use jose::spiffe_bundle::Bundle;
    use proto::spiffe::SpiffeId;

    use super::*;
    use crate::{
        identity::X509Svid,
        pki::{Ca, Leaf},
    };

    const NOW: u64 = 1_790_000_000;

    fn credentials() -> Credentials {
        let id: SpiffeId = "spiffe://td.example/job/7".parse().unwrap();
        let root = Ca::root("td.example", NOW);
        let intermediate = root.intermediate("td.example", NOW);
        let issued = intermediate.issue(&Leaf::new(&id.to_string(), NOW));
        let bundle = Bundle::new(vec![root.der], Vec::new()).unwrap();
        Credentials {
            bundles: [(id.trust_domain().clone(), bundle)].into(),
            x509: vec![X509Svid {
                spiffe_id: id,
                chain: vec![issued.der, intermediate.der],
                key_pkcs8: issued.key_pkcs8.into(),
                hint: String::new(),
            }],
            jwt: None,
        }
    }

    fn weak(handle: &JobHandle) -> Weak<Live> {
        Arc::downgrade(&handle.job.live().unwrap())
    }

    /// Keys are wiped as they are dropped, so that what counts is that nothing holds them.
    #[test]
    fn nothing_holds_a_key_that_was_rotated_or_whose_job_ended() {
        let registry = Registry::with_clock(Arc::new(|| NOW));
        let job = JobIdentity {
            id: "7".parse().unwrap(),
            selectors: vec![Selector::user(1)],
            credentials: credentials(),
        };
        let handle = registry.admit(job).unwrap();
        // A stream that waits holds nothing either.
        let mut watching = handle.job.watch();
        let first = weak(&handle);
        assert_eq!(first.strong_count(), 1);
        handle.update(credentials()).unwrap();
        assert_eq!(first.strong_count(), 0);
        let second = weak(&handle);
        assert_eq!(second.strong_count(), 1);
        let job = Arc::clone(&handle.job);
        handle.end("over");
        assert_eq!(second.strong_count(), 0);
        let ended = job.live().map(drop).map_err(|refusal| refusal.code());
        assert_eq!(ended, Err(RefusalCode::JobEnded));
        assert!(matches!(&*watching.borrow_and_update(), State::Ended(why) if why == "over"));
    }
}
