//! The daemon: attests, renews at half-life, measures when files change, backs off, ends cleanly.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use notify::{
    EventKind, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use proto::{
    pb,
    reason::{ReasonCode, Stage},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, sleep_until},
};

use crate::{
    attestation::{Answered, AttestError, Attester, renewal_delay},
    jobs::{Ask, Asked, Counter, DeskError, NodeState, Permitted},
    output::{Output, OutputError, Reason, STATUS_FILE, Status, write_bundle},
};

/// First wait after a failure; doubles up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_secs(2);
/// Longest wait after failures.
const MAX_BACKOFF: Duration = Duration::from_secs(300);
/// A denied worker comes again this often: an operator may just have approved it.
const DENIED_RETRY: Duration = Duration::from_secs(60);
/// Package managers write many files: measure once they rest.
const SETTLE: Duration = Duration::from_secs(2);
/// Directories watched at most; beyond, the timer finds changes.
const MAX_WATCHED: usize = 2_000;

/// How the daemon runs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Time between measurements that nothing else asked for.
    pub measure_interval: Duration,
    /// Where the trust bundle is kept for the next start.
    pub bundle_path: PathBuf,
}

/// Keeps a verdict: credentials in place or withdrawn, status written.
///
/// # Errors
/// [`OutputError`].
pub fn keep(
    output: &Output,
    answered: &Answered,
    plan: Option<&Plan>,
    next: Option<Duration>,
) -> Result<Status, OutputError> {
    let result = &answered.result;
    let admitted = result.outcome() == pb::Outcome::Admit;
    let key = answered.node_key.as_ref().and_then(|key| key.to_pem().ok());
    match key.filter(|_| admitted) {
        Some(key) => {
            output.credentials(&result.certificate_chain, &result.trust_bundle, &key)?;
            if let Some(plan) = plan.filter(|_| !answered.bundle.is_empty()) {
                write_bundle(&plan.bundle_path, &answered.bundle)?;
            }
        }
        None => output.withdraw()?,
    }
    let now = now_unix_s();
    let status = Status {
        outcome: if admitted { "admitted" } else { "denied" }.to_owned(),
        at_unix_s: now,
        spiffe_id: result.spiffe_id.clone(),
        decision_id: result.decision_id.clone(),
        next_unix_s: next.map(|next| now + next.as_secs()),
        reasons: result.findings.iter().map(Reason::from).collect(),
        accepted_by_staged: result.accepted_by_staged.clone(),
        error: String::new(),
    };
    output.status(&status)?;
    Ok(status)
}

/// Keeps a verdict on a blocking thread: what serves the jobs that run does not wait for the disk.
async fn keep_aside(
    output: &Output,
    answered: Answered,
    plan: &Plan,
    next: Duration,
) -> Result<Status, OutputError> {
    let (to, plan) = (output.clone(), plan.clone());
    let kept = spawn_blocking(move || keep(&to, &answered, Some(&plan), Some(next))).await;
    kept.unwrap_or_else(|error| {
        let (path, source) = (output.path(STATUS_FILE), std::io::Error::other(error));
        Err(OutputError { doing: "write", path, source })
    })
}

/// Runs until `ends` is ready; jobs that ask are served between attestations.
///
/// A file that cannot be written (a full disk) is logged and written again at the next attestation.
pub async fn run(
    attester: Attester,
    output: Output,
    plan: Plan,
    counter: Counter,
    ends: impl Future<Output = ()>,
) {
    tokio::select! {
        biased;
        // Whatever is under way is given up: a verifier that does not answer keeps nobody from stopping.
        () = ends => stopping(),
        never = prove(attester, output, plan, counter) => match never {},
    }
}

/// Attests, measures and serves jobs that ask, for ever.
async fn prove(
    mut attester: Attester,
    output: Output,
    plan: Plan,
    (mut asks, node): Counter,
) -> Infallible {
    // A job that waits for its node's own proof.
    let mut waiting: Option<Ask> = None;
    let (changed, mut changes) = mpsc::channel(1);
    let mut watch = Watch::new(changed);
    let mut backoff = MIN_BACKOFF;
    sd_notify(&[sd_notify::NotifyState::Ready]);
    loop {
        let wait = match attester.attest().await {
            Ok(answered) => {
                let admitted = answered.result.outcome() == pb::Outcome::Admit;
                let wait = if admitted {
                    backoff = MIN_BACKOFF;
                    renewal_delay(
                        Duration::from_secs(answered.result.renew_after_s.max(1)),
                        random(),
                    )
                } else {
                    DENIED_RETRY
                };
                watch.follow(answered.measured.directories());
                node.send_replace(stands(&answered, attester.log_events()));
                if let Some(ask) = waiting.take().filter(|ask| !ask.is_abandoned()) {
                    let asked = match admitted {
                        true => permitted(&mut attester, &ask).await.into_answer(),
                        false => Err(DeskError::Denied(Box::new(answered.result.clone()))),
                    };
                    ask.answer(asked);
                }
                match keep_aside(&output, answered, &plan, wait).await {
                    Ok(status) => {
                        report(&status);
                        wait
                    }
                    Err(error) => {
                        tracing::error!("the result could not be kept: {}", crate::chain(&error));
                        wait.min(DENIED_RETRY)
                    }
                }
            }
            Err(error) => {
                node.send_modify(|node| unproven(node, &error, attester.log_events()));
                if let Some(ask) = waiting.take() {
                    ask.answer(Err(DeskError::Failed(crate::chain(&error))));
                }
                let wait = renewal_delay(backoff, random());
                backoff = (backoff * 2).min(MAX_BACKOFF);
                failed(&output, &error, wait);
                wait
            }
        };
        let renew = Instant::now() + wait;
        // Until the renewal: measure on file changes and on the timer; attest at once if something changed.
        loop {
            let measure_at = (Instant::now() + plan.measure_interval).min(renew);
            tokio::select! {
                () = sleep_until(renew) => break,
                () = sleep_until(measure_at) => {}
                ask = asks.next() => {
                    if ask.is_abandoned() {
                        continue;
                    }
                    let before = attester.log_events();
                    match permitted(&mut attester, &ask).await {
                        Vouched::NeedsProof => {
                            node.send_modify(|node| node.tool_events = attester.log_events());
                            waiting = Some(ask);
                            break;
                        }
                        vouched => {
                            let is_news = node.borrow().against.is_none() && vouched.denies_the_node();
                            ask.answer(vouched.into_answer());
                            if is_news {
                                tracing::info!("a job was refused for what the node is: attesting at once");
                                break;
                            }
                        }
                    }
                    if attester.log_events() != before {
                        tracing::info!("a tool changed: attesting at once");
                        node.send_modify(|node| node.tool_events = attester.log_events());
                        break;
                    }
                    continue;
                }
                _ = changes.recv() => {
                    tokio::time::sleep(SETTLE).await;
                    while changes.try_recv().is_ok() {}
                }
            }
            let before = attester.log_events();
            match attester.measure(false).await {
                Ok(_) if attester.log_events() != before => {
                    tracing::info!("a tool changed: attesting at once");
                    // Jobs need no verdict to end.
                    node.send_modify(|node| node.tool_events = attester.log_events());
                    break;
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!("measuring failed: {}", crate::chain(&error));
                    break;
                }
            }
        }
    }
}

/// What became of a job's request.
enum Vouched {
    /// The node has to prove itself first.
    NeedsProof,
    /// The verifier's answer, with the events of the tool log then.
    Answered(Box<Answered>, u64),
    /// There was none.
    Failed(String),
}

impl Vouched {
    /// Whether a job was denied for something that stands against each job of the node.
    fn denies_the_node(&self) -> bool {
        let Self::Answered(answered, _) = self else { return false };
        answered.result.outcome() != pb::Outcome::Admit
            && !answered.result.findings.iter().all(|found| may_be_of_the_job(&found.code))
    }

    fn into_answer(self) -> Asked {
        let (answered, tool_events) = match self {
            Self::Answered(answered, tool_events) => (answered, tool_events),
            Self::Failed(why) => return Err(DeskError::Failed(why)),
            Self::NeedsProof => {
                return Err(DeskError::Failed("the verifier does not know this boot".to_owned()));
            }
        };
        let Answered { result, measured, bundle, verifier_id, .. } = *answered;
        match (result.permit.clone(), verifier_id) {
            (Some(permit), Some(verifier_id)) => Ok(Permitted {
                permit,
                decision_id: result.decision_id,
                verifier_id,
                bundle,
                tools: u32::try_from(measured.tools.len()).unwrap_or(u32::MAX),
                tool_events,
            }),
            _ if result.outcome() == pb::Outcome::Admit => {
                Err(DeskError::Failed("the verifier sent no permit".to_owned()))
            }
            _ => Err(DeskError::Denied(Box::new(result))),
        }
    }
}

async fn permitted(attester: &mut Attester, ask: &Ask) -> Vouched {
    match attester.permit(ask.job.clone()).await {
        Ok(answered) if answered.needs_proof() => Vouched::NeedsProof,
        Ok(answered) => Vouched::Answered(Box::new(answered), attester.log_events()),
        Err(AttestError::Tpm(error)) if error.needs_enrollment() => {
            attester.forget_boot();
            Vouched::NeedsProof
        }
        Err(error) => Vouched::Failed(crate::chain(&error)),
    }
}

/// Whether what a code says may be so of one job alone. A code that is not known here, of a newer verifier, is the node's.
fn may_be_of_the_job(code: &str) -> bool {
    ReasonCode::from_wire(code).is_some_and(|code| match code {
        // A rule may be about jobs.
        ReasonCode::PolicyRuleFalse | ReasonCode::PolicyRuleError => true,
        other => matches!(other.stage(), Stage::Job | Stage::Platform),
    })
}

/// What jobs are told of the node.
fn stands(answered: &Answered, tool_events: u64) -> NodeState {
    let result = &answered.result;
    let against = (result.outcome() != pb::Outcome::Admit).then(|| {
        let first = result.findings.first();
        first.map_or_else(
            || ("GATE_NO_VERDICT".to_owned(), "the verifier gave no reason".to_owned()),
            |first| (first.code.clone(), format!("{}: {}", first.subject, first.observed)),
        )
    });
    NodeState { tool_events, against, spiffe_id: result.spiffe_id.clone() }
}

/// What jobs are told where no verdict came of an attestation. A tool that changed is known all the same, and tools that
/// cannot be read are not what the last verdict was about.
fn unproven(node: &mut NodeState, error: &AttestError, tool_events: u64) {
    node.tool_events = tool_events;
    if matches!(error, AttestError::Log(_)) && node.against.is_none() {
        node.against = Some(("GATE_TOOLS_UNREADABLE".to_owned(), crate::chain(error)));
    }
}

fn stopping() {
    sd_notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("ending: told to stop");
}

/// Resolves at SIGTERM or SIGINT.
pub async fn ended() {
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

fn report(status: &Status) {
    if status.outcome == "admitted" {
        tracing::info!(spiffe_id = status.spiffe_id, decision = status.decision_id, "admitted");
        sd_notify(&[sd_notify::NotifyState::Status("admitted")]);
        return;
    }
    for reason in &status.reasons {
        tracing::error!(
            code = reason.code,
            subject = reason.subject,
            observed = reason.observed,
            decision = status.decision_id,
            "denied: {}",
            reason.remedy
        );
    }
    if !status.accepted_by_staged.is_empty() {
        tracing::warn!(
            staged = status.accepted_by_staged,
            "this state is accepted by what is staged: it waits for somebody to put that in force"
        );
    }
    sd_notify(&[sd_notify::NotifyState::Status("denied")]);
}

fn failed(output: &Output, error: &AttestError, wait: Duration) {
    let text = crate::chain(error);
    tracing::error!(again_in_s = wait.as_secs(), "no verdict: {text}");
    sd_notify(&[sd_notify::NotifyState::Status("no verdict")]);
    let now = now_unix_s();
    let status = Status {
        outcome: "failed".to_owned(),
        at_unix_s: now,
        spiffe_id: String::new(),
        decision_id: String::new(),
        next_unix_s: Some(now + wait.as_secs()),
        reasons: Vec::new(),
        accepted_by_staged: String::new(),
        error: text,
    };
    if let Err(error) = output.status(&status) {
        tracing::error!("the status could not be written: {}", crate::chain(&error));
    }
}

/// Replaces what a former run reported. On a full disk that is taken away instead: its outcome is not this run's.
pub fn starts(output: &Output) {
    if let Err(error) = output.status(&Status::starting(now_unix_s())) {
        tracing::error!("the status could not be written: {}", crate::chain(&error));
        let _ = std::fs::remove_file(output.path(STATUS_FILE));
    }
}

fn sd_notify(state: &[sd_notify::NotifyState<'_>]) {
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(state);
}

/// Watches the directories of the measured files.
struct Watch {
    watcher: Option<notify::RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

impl Watch {
    fn new(changed: mpsc::Sender<()>) -> Self {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // What was written by way of a mapping shows when the file is closed.
            let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
            if event.is_ok_and(|event| !event.kind.is_access() || event.kind == closed) {
                // One waiting signal is enough.
                let _ = changed.try_send(());
            }
        });
        let watcher = watcher
            .inspect_err(|error| {
                tracing::warn!(%error, "file changes are not watched; the timer finds them");
            })
            .ok();
        Self { watcher, watched: BTreeSet::new() }
    }

    fn follow(&mut self, directories: BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        for old in self.watched.difference(&directories) {
            let _ = watcher.unwatch(old);
        }
        for new in directories.difference(&self.watched).take(MAX_WATCHED) {
            if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                tracing::debug!(%error, directory = %new.display(), "is not watched");
            }
        }
        self.watched = directories;
    }
}

/// Seconds since 1970 by the worker's clock; nothing that matters is decided by it.
#[must_use]
pub fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness the fleet renews together; nothing else depends on it.
    let _ = getrandom::fill(&mut bytes);
    u32::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{client::ClientError, measure::log::LogError};

    #[test]
    fn jobs_learn_of_tools_whatever_became_of_the_attestation() {
        let admitted = NodeState { tool_events: 3, ..NodeState::default() };
        // The verifier is out of reach: what was measured on the way is known all the same, and nothing else is new.
        let mut node = admitted.clone();
        let away = AttestError::Client(ClientError::Silent(Duration::from_secs(1)));
        unproven(&mut node, &away, 4);
        assert_eq!(node, NodeState { tool_events: 4, ..admitted.clone() });
        // Tools that cannot be measured are not those of the last verdict.
        let blocked = AttestError::Log(LogError::Blocked("cc1 is no file".to_owned()));
        unproven(&mut node, &blocked, 4);
        let code = node.against.as_ref().map(|(code, _)| code.as_str());
        assert_eq!(code, Some("GATE_TOOLS_UNREADABLE"));
        // A denial says more.
        let denial = Some(("POLICY_TOOL_NOT_ALLOWED".to_owned(), "cc".to_owned()));
        let mut denied = NodeState { against: denial.clone(), ..admitted };
        unproven(&mut denied, &blocked, 4);
        assert_eq!(denied.against, denial);
    }
}
