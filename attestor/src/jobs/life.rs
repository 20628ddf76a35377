//! One job that runs: its identities stay fresh, and end when anything that they rest on does.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use jose::{
    jwk::{JwkError, JwkSet},
    spiffe_bundle::{Bundle, BundleError},
};
use proto::{
    pb,
    spiffe::{SpiffeError, SpiffeId},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use workload::{
    AdmitError, Credentials, JobHandle, JwtGrant, JwtRefusal, JwtRequest, JwtSvid, ProcessKey,
    X509Svid,
};
use zeroize::Zeroizing;

use super::{KeyError, Line, LineError, NodeState, action::Actions};

/// How long the verifier is waited for when a job is over.
pub(super) const FAREWELL: Duration = Duration::from_secs(5);

/// Between looks at whether a process is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A check and one request may take this part of the silence that is borne of the verifier each: one request that is lost, or
/// gets no answer, ends no job.
const PARTS_OF_SILENCE: u32 = 3;
/// Pause before a check that had no answer is made again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Later than any job ends.
const NEVER: Duration = Duration::from_hours(24 * 365);

/// Why a job's permit is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// `GATE_JOB_OVER`, another code of the gate, or a reason code of the verifier.
    pub(super) code: String,
    /// In words.
    pub(super) why: String,
}

impl End {
    pub(super) fn new(code: &str, why: impl Into<String>) -> Self {
        Self { code: code.to_owned(), why: why.into() }
    }

    /// The job said itself that it is over.
    pub(super) fn over(why: &str) -> Self {
        Self::new(JOB_OVER, why)
    }

    /// Whether the job ended before its permit.
    pub(super) fn is_over(&self) -> bool {
        self.code == JOB_OVER
    }
}

const JOB_OVER: &str = "GATE_JOB_OVER";

/// Identities cannot be made of what the verifier sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum IdentityError {
    #[error("the verifier sent an identity that is none: {0}")]
    SpiffeId(#[from] SpiffeError),
    #[error("the verifier sent no identity")]
    Nothing,
    #[error("the verifier sent keys that are none: {0}")]
    Keys(#[from] JwkError),
    #[error("the verifier sent a bundle that is none: {0}")]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the verifier's identities do not hold together: {0}")]
    Admit(#[from] AdmitError),
}

/// What the Workload API serves of a job.
pub(super) fn credentials(
    line: &Arc<Line>,
    identity: &pb::JobIdentity,
) -> Result<Credentials, IdentityError> {
    let key: Zeroizing<Vec<u8>> = line.key().pkcs8()?;
    let mut x509 = Vec::with_capacity(identity.x509.len());
    for svid in &identity.x509 {
        x509.push(X509Svid {
            spiffe_id: svid.spiffe_id.parse()?,
            chain: svid.chain.clone(),
            key_pkcs8: key.clone(),
            hint: svid.hint.clone(),
        });
    }
    let trust_domain = x509.first().ok_or(IdentityError::Nothing)?.spiffe_id.trust_domain().clone();
    let keys = JwkSet::parse(&identity.jwt_bundle)?;
    let bundle = Bundle::new(identity.trust_bundle.clone(), keys.keys().to_vec())?;
    let spiffe_ids = x509.iter().map(|svid| svid.spiffe_id.clone()).collect();
    let line = Arc::downgrade(line);
    let source = Arc::new(move |request: JwtRequest| {
        let line = line.upgrade();
        async move {
            let gone = || JwtRefusal::Denied("the job's permit has ended".to_owned());
            tokens(line.ok_or_else(gone)?.as_ref(), request).await
        }
    });
    let jwt = Some(JwtGrant { spiffe_ids, source });
    Ok(Credentials { x509, jwt, bundles: BTreeMap::from([(trust_domain, bundle)]) })
}

async fn tokens(line: &Line, request: JwtRequest) -> Result<Vec<JwtSvid>, JwtRefusal> {
    let identity = line.proceed(false, request.audiences).await.map_err(|error| match error {
        LineError::Refused { why, .. } => JwtRefusal::Denied(why),
        other => JwtRefusal::Unavailable(crate::chain(&other)),
    })?;
    let mut out = Vec::new();
    for svid in identity.jwt {
        let spiffe_id: SpiffeId = svid.spiffe_id.parse().map_err(|_| {
            JwtRefusal::Unavailable("the verifier sent an identity that is none".to_owned())
        })?;
        if request.spiffe_id.as_ref().is_none_or(|wanted| *wanted == spiffe_id) {
            out.push(JwtSvid { spiffe_id, token: svid.token, hint: svid.hint });
        }
    }
    Ok(out)
}

/// A job that runs.
pub(super) struct Life {
    pub(super) line: Arc<Line>,
    pub(super) handle: JobHandle,
    pub(super) node: watch::Receiver<NodeState>,
    /// Events of the tool log when the permit was given.
    pub(super) tool_events: u64,
    /// The process whose end is the job's, where nobody holds the permit by a call.
    pub(super) first: Option<ProcessKey>,
    /// Longest silence of the verifier.
    pub(super) silence: Duration,
    /// What is done about its end, where that comes before the job's.
    pub(super) on_end: Arc<Actions>,
    /// Whose job it is.
    pub(super) uid: u32,
    /// What the redemption gave.
    pub(super) identity: pb::JobIdentity,
    /// Tells that the job is to end, and by this life that it has.
    pub(super) stop: watch::Sender<Option<End>>,
}

impl Life {
    /// Until the job is over, or its permit ends; tells the Workload API and the verifier, and runs what is to run then.
    pub(super) async fn run(mut self) -> End {
        let end = self.lasts().await;
        let Self { line, handle, on_end, uid, stop, .. } = self;
        handle.end(&end.why);
        stop.send_replace(Some(end.clone()));
        if end.is_over() {
            tracing::info!(permit = line.permit_id(), "the job is over");
        } else {
            tracing::error!(
                permit = line.permit_id(),
                code = end.code,
                why = end.why,
                "permit ended"
            );
        }
        let act = async {
            if !end.is_over() {
                let about = [
                    ("ASSAY_PERMIT_ID", line.permit_id()),
                    ("ASSAY_END_CODE", end.code.as_str()),
                    ("ASSAY_END_WHY", end.why.as_str()),
                ];
                on_end.act(uid, &about).await;
            }
        };
        // What the site does waits for no verifier.
        tokio::join!(act, tell(&line, &end));
        end
    }

    async fn lasts(&mut self) -> End {
        let start = Instant::now();
        let mut watch = Watch {
            stop: self.stop.subscribe(),
            node: self.node.clone(),
            tool_events: self.tool_events,
            first: self.first,
            ends: start + seconds(self.identity.ends_within_s),
        };
        let second = Duration::from_secs(1);
        let silence = self.silence.max(second);
        let check_every =
            seconds(self.identity.check_within_s).min(silence / PARTS_OF_SILENCE).max(second);
        let mut heard = start;
        let mut rotate = half_life(start, &self.identity);
        let mut check = rotate.min(start + check_every);
        let mut keys = Keys::of(&self.identity);
        loop {
            tokio::select! {
                biased;
                end = watch.ends() => return end,
                () = sleep_until(check) => {}
            }
            let asked = Instant::now();
            let is_due = asked >= rotate;
            let patience = (silence / PARTS_OF_SILENCE).max(second);
            let until = (heard + silence).min(asked + patience).max(asked + second);
            let answer = tokio::select! {
                biased;
                end = watch.ends() => return end,
                answer = timeout_at(until, self.line.proceed(is_due, Vec::new())) => answer,
            };
            let missing = match answer {
                Ok(Ok(identity)) => {
                    heard = Instant::now();
                    if is_due {
                        let update = credentials(&self.line, &identity)
                            .and_then(|credentials| Ok(self.handle.update(credentials)?));
                        if let Err(error) = update {
                            let why = format!("new certificates cannot be used: {error}");
                            return End::new("GATE_IDENTITY_UNUSABLE", why);
                        }
                        rotate = half_life(heard, &identity);
                        keys = Keys::of(&identity);
                    } else if keys != Keys::of(&identity) {
                        // A key that left may be known to others: the job has what verifies now with new certificates.
                        rotate = heard;
                        check = heard;
                        continue;
                    }
                    None
                }
                Ok(Err(LineError::Refused { code, why })) => return End { code, why },
                Ok(Err(error)) => Some(crate::chain(&error)),
                Err(_) => Some("no answer in time".to_owned()),
            };
            if let Some(missing) = missing {
                let silent = heard.elapsed();
                tracing::warn!(
                    silent_s = silent.as_secs(),
                    "the verifier was not asked whether the job may go on: {missing}"
                );
                if silent >= silence {
                    let why = format!("the verifier has not answered for {} s", silent.as_secs());
                    return End::new("GATE_VERIFIER_SILENT", why);
                }
            }
            check = match heard >= asked {
                true => (heard + check_every).min(rotate),
                false => Instant::now() + AGAIN_AFTER,
            };
        }
    }
}

/// Tells the verifier of an end, also of one that it may have made itself: of a permit whose time is up by this worker's clock
/// it has not heard.
async fn tell(line: &Line, end: &End) {
    if end.code == "PERMIT_UNKNOWN" {
        return;
    }
    match timeout(FAREWELL, line.end(&end.why)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("the verifier was not told: {}", crate::chain(&error)),
        Err(_) => tracing::warn!("the verifier was not told: it does not answer"),
    }
}

/// What others are verified with: roots, and keys of JWT-SVIDs.
#[derive(PartialEq, Eq)]
struct Keys {
    trust_bundle: Vec<Vec<u8>>,
    jwt_bundle: Vec<u8>,
}

impl Keys {
    fn of(identity: &pb::JobIdentity) -> Self {
        let pb::JobIdentity { trust_bundle, jwt_bundle, .. } = identity;
        Self { trust_bundle: trust_bundle.clone(), jwt_bundle: jwt_bundle.clone() }
    }
}

/// What ends a permit without asking anybody.
struct Watch {
    stop: watch::Receiver<Option<End>>,
    node: watch::Receiver<NodeState>,
    tool_events: u64,
    first: Option<ProcessKey>,
    ends: Instant,
}

impl Watch {
    /// Resolves when the permit ends.
    async fn ends(&mut self) -> End {
        loop {
            let known = by_the_node(&self.node.borrow_and_update(), self.tool_events);
            if let Some(end) = known {
                return end;
            }
            tokio::select! {
                biased;
                told = self.stop.wait_for(Option::is_some) => {
                    let end = told.ok().and_then(|end| end.clone());
                    return end.unwrap_or_else(stopping);
                }
                changed = self.node.changed() => {
                    if changed.is_err() {
                        return stopping();
                    }
                }
                () = gone(self.first) => return End::over("the process that it was for has ended"),
                () = sleep_until(self.ends) => return End::new("PERMIT_ENDED", "its time is up"),
            }
        }
    }
}

fn stopping() -> End {
    End::new("GATE_STOPPING", "the worker's daemon stops")
}

/// Resolves when this process has ended.
async fn gone(process: Option<ProcessKey>) {
    let Some(process) = process else { return std::future::pending().await };
    loop {
        match ProcessKey::of(process.pid) {
            Ok(now) if now != process => return,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            // What cannot be read may be there.
            Ok(_) | Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// What the worker itself knows against its jobs.
pub(super) fn by_the_node(node: &NodeState, tool_events: u64) -> Option<End> {
    if let Some((code, why)) = &node.against {
        return Some(End {
            code: code.clone(),
            why: format!("the worker is not fit for jobs: {why}"),
        });
    }
    (node.tool_events != tool_events)
        .then(|| End::new("GATE_TOOL_CHANGED", "a build tool changed since the permit was given"))
}

/// When to ask for new certificates.
fn half_life(now: Instant, identity: &pb::JobIdentity) -> Instant {
    let shortest = identity.x509.iter().map(|svid| svid.lifetime_s).min();
    now + seconds(shortest.unwrap_or(0) / 2)
}

/// So many seconds of what the verifier said, in the bounds of a clock.
fn seconds(count: u64) -> Duration {
    Duration::from_secs(count).min(NEVER)
}
