//! One attestation from Hello to result, without the wire: gather context, call the core, record, issue.
//!
//! ```text
//! begin(hello)  ─▶ Begun { challenge } ─▶ finish(evidence, logs) ─▶ Outcome
//!        └─▶ Refused (denial before any challenge; nothing is recorded)
//! ```
//! Order of writes: the decision and the certificate's intent are committed in one transaction, then the
//! certificate is signed, then it leaves. A crash between loses a certificate, never a record.

mod answer;
mod boots;
mod candidate;
mod challenge;
mod denials;
mod error;
mod in_force;
#[cfg(test)]
pub(crate) mod testing;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use appraisal::{
    Appraisal,
    activation::ActivationChallenge,
    ak::RestrictedAk,
    appraise, boot_unproven,
    context::{AppraisalContext, IssuedChallenge, Signer, Standing},
    ek::{AllowListed, ek_digest},
    policy::Manifests,
    verdict::{Admission, Denial, Verdict},
};
use arc_swap::ArcSwap;
use platform::Platforms;
use proto::{
    binding::Purpose,
    digest::{Digest, HashAlg},
    evidence::{Evidence, Hello, LogKind, LogSuffix},
    pb,
};

pub(crate) use self::in_force::blocking;
pub use self::{
    answer::{Outcome, denied},
    error::AttestError,
    in_force::{Endorsements, ForJobs, Issuers, Settings},
};
use self::{
    answer::{accepted_by_staged, codes, permitted, revoked, token_used},
    boots::{Boots, ParsedBoot, WrittenBoot},
    candidate::{Candidate, is_allow_listed},
    challenge::logs_wanted,
    denials::{About, Denials},
};
use crate::{
    ca::{self, CaError, Issuer, NodeSubject, Segment, Terms},
    case::{self, CaseInputs, MAX_INLINE_LOG_BYTES},
    clock::Clock,
    credential::{RandomError, make_credential, random_bytes},
    endorsements::EkRules,
    expectations::{Expectations, Expected, PoolExpectations},
    jobs::{AskingJob, Redeeming, Vouching},
    jwt_key::JwtKeys,
    metrics,
    results_files::ResultFiles,
    results_service::ResultsSigner,
    store::{self, AdmissionRule, By, CertificateIntent, Ground, NewDecision, Store, StoreError},
};

/// Everything an attestation needs besides what the worker sends.
pub struct Verifier {
    settings: Settings,
    ek_rules: EkRules,
    store: Store,
    clock: Arc<dyn Clock>,
    issuers: ArcSwap<Issuers>,
    trust_bundle: ArcSwap<Vec<Vec<u8>>>,
    /// What jobs are given and held against.
    for_jobs: ForJobs,
    endorsements: ArcSwap<Endorsements>,
    expectations: ArcSwap<Expectations>,
    /// Manifests that golden sets in force name.
    manifests: ArcSwap<Manifests>,
    rules: ArcSwap<Vec<AdmissionRule>>,
    boots: Boots,
    denials: Denials,
    /// Permits that are being redeemed.
    redeeming: Redeeming,
    /// One reload at a time, so that an older snapshot never replaces a newer one.
    reloading: tokio::sync::Mutex<()>,
    /// One step of a document at a time: what is put in force is what the dry run before it judged.
    changing: tokio::sync::Mutex<()>,
    last_seen: AtomicI64,
}

/// Steps back of the clock that time synchronisation makes, seconds; more is refused.
const MAX_CLOCK_STEP_BACK_S: i64 = 5;
/// Purpose of an attestation, as decisions record it.
const fn purpose(purpose: &Purpose) -> &'static str {
    match purpose {
        Purpose::Node => "node",
        Purpose::Permit(_) => "permit",
    }
}

/// Answer to a Hello.
#[derive(Debug)]
pub enum Begun {
    /// Go on: answer this.
    Challenge(Box<Session>),
    /// Refused before any challenge.
    Refused(Denial),
}

/// An attestation that was challenged. Finishing consumes it: a challenge is used once.
#[derive(Debug)]
pub struct Session {
    hello: pb::Hello,
    candidate: Candidate,
    signer: Signer,
    issued: IssuedChallenge,
    credential: Option<pb::Credential>,
    logs_wanted: Vec<(LogKind, u64)>,
    known: Option<Arc<ParsedBoot>>,
    /// Version of the boot record that will be replaced.
    replaces: Option<u64>,
    secret: Option<[u8; 32]>,
    lifetime: Duration,
    endorsements: Arc<Endorsements>,
    expected: Arc<PoolExpectations>,
    /// The job that asks for a permit.
    job: Option<AskingJob>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Session {
    /// The challenge as the wire carries it.
    #[must_use]
    pub fn challenge(&self) -> pb::Challenge {
        pb::Challenge {
            challenge: self.issued.challenge.as_bytes().to_vec(),
            verifier_id: self.issued.verifier_id.as_bytes().to_vec(),
            credential: self.credential.clone(),
            pcr_selection: case::selection_to_pb(&self.issued.selection),
            logs_wanted: self
                .logs_wanted
                .iter()
                .map(|(kind, from)| pb::LogWanted { kind: kind.to_pb().into(), from_bytes: *from })
                .collect(),
            deadline_ms: u64::try_from(self.lifetime.as_millis()).unwrap_or(u64::MAX),
            node_key_wanted: self.known.is_none(),
        }
    }

    /// Logs asked for, and from which byte on.
    #[must_use]
    pub fn logs_wanted(&self) -> &[(LogKind, u64)] {
        &self.logs_wanted
    }
}

impl Verifier {
    /// Judges a Hello and issues a challenge for it.
    ///
    /// # Errors
    /// [`AttestError`] where there is no answer.
    pub async fn begin(self: &Arc<Self>, message: pb::Hello) -> Result<Begun, AttestError> {
        let hello = Hello::try_from(message.clone())?;
        let now_unix_s = self.now()?;
        let endorsements = self.endorsements.load_full();
        let replaces = match self.recognise(&hello, &endorsements, now_unix_s).await? {
            Recognised::Current { known, version, candidate } => {
                let expected = self.expectations.load().of(&candidate.record.pool);
                let job = hello.job.as_ref().map(|job| self.judge_job(job, now_unix_s));
                return Ok(Begun::Challenge(Box::new(Session {
                    lifetime: self.settings.challenge_lifetime,
                    issued: self.issue(now_unix_s, hello.purpose(), &expected)?,
                    job,
                    hello: message,
                    candidate,
                    signer: Signer::Known(known.boot.clone()),
                    credential: None,
                    logs_wanted: logs_wanted(&hello, Some(&known.boot), &expected),
                    known: Some(known),
                    replaces: Some(version),
                    secret: None,
                    endorsements,
                    expected,
                })));
            }
            Recognised::Stale { version } => Some(version),
            Recognised::Unknown => None,
        };
        if hello.job.is_some() {
            return Ok(Begun::Refused(boot_unproven("of this worker").into()));
        }
        let ek_digest = ek_digest(&hello.ek_public);
        let node = self.store.node_by_ek(&ek_digest).await?;
        let allow_listed = node.as_ref().is_some_and(is_allow_listed);
        let judged = {
            let (hello, endorsements) = (hello.clone(), Arc::clone(&endorsements));
            tokio::task::spawn_blocking(move || {
                let allowed =
                    if allow_listed { AllowListed::ByDigest(ek_digest) } else { AllowListed::No };
                let ek = endorsements.set.verify(&hello, allowed, now_unix_s)?;
                let ak = RestrictedAk::verify(&hello.ak_public)?;
                Ok::<_, Denial>((ek, ak))
            })
            .await
            .map_err(|_| AttestError::Task)?
        };
        let (ek, ak) = match judged {
            Ok(judged) => judged,
            Err(denial) => return Ok(Begun::Refused(denial)),
        };
        let candidate = match node {
            Some(node) => Candidate::of(&node),
            None => {
                let (rules, pending) = (self.rules.load(), self.settings.allow_pending);
                match Candidate::unknown(&hello, &ek, &rules, pending) {
                    Ok(candidate) => candidate,
                    Err(denial) => return Ok(Begun::Refused(denial)),
                }
            }
        };
        if candidate.record.standing == Standing::Revoked {
            return Ok(Begun::Refused(revoked(&candidate.record.name)));
        }
        let secret = random_bytes()?;
        let activation = ActivationChallenge::new(&ek, ak, secret);
        let credential = make_credential(ek.public(), &activation)?;
        let expected = self.expectations.load().of(&candidate.record.pool);
        Ok(Begun::Challenge(Box::new(Session {
            issued: self.issue(now_unix_s, Purpose::Node, &expected)?,
            job: None,
            hello: message,
            candidate,
            signer: Signer::Activating { ek, activation },
            credential: Some(credential),
            logs_wanted: logs_wanted(&hello, None, &expected),
            known: None,
            replaces,
            secret: Some(secret),
            lifetime: self.settings.challenge_lifetime,
            endorsements,
            expected,
        })))
    }

    /// Appraises the answer, records the decision, and issues a certificate if it admits.
    ///
    /// # Errors
    /// [`AttestError`] where there is no answer: nothing was issued then.
    pub async fn finish(
        self: &Arc<Self>,
        session: Session,
        message: pb::Evidence,
        logs: Vec<LogSuffix>,
    ) -> Result<Outcome, AttestError> {
        let now_unix_s = self.now()?;
        let mut evidence = Evidence::try_from(message.clone())?;
        evidence.logs = logs;
        let this = Arc::clone(self);
        let judged =
            tokio::task::spawn_blocking(move || this.judge(session, message, evidence, now_unix_s))
                .await
                .map_err(|_| AttestError::Task)??;
        match self.conclude(judged, now_unix_s).await {
            // Revoked while it was being appraised: the store has the last word, and wrote nothing.
            Err(AttestError::Store(StoreError::NodeNotActive { name, .. })) => {
                Ok(denied(&revoked(&name), String::new()))
            }
            // Judged by what is retired by now: nothing was written, and the worker comes again.
            Err(error @ AttestError::Store(StoreError::Superseded { .. })) => {
                self.catch_up().await;
                Err(error)
            }
            other => other,
        }
    }

    /// Appraises and prepares what will be written: everything of [`Verifier::finish`] that computes or blocks.
    fn judge(
        &self,
        session: Session,
        message: pb::Evidence,
        evidence: Evidence,
        now_unix_s: i64,
    ) -> Result<Judged, AttestError> {
        let Session { hello, candidate, signer, issued, known, replaces, secret, .. } = session;
        let (endorsements, expected, job) = (session.endorsements, session.expected, session.job);
        let context_of_job = job.as_ref().map(|job| &job.context);
        let case = case::encode(&CaseInputs {
            now_unix_s,
            issued: &issued,
            node: &candidate.record,
            endorsements: endorsements.set.digest(),
            documents: &expected.documents,
            tool_pcr: self.settings.tool_pcr,
            hello: &hello,
            evidence: &message,
            logs: &evidence.logs,
            known_boot: known.as_ref().map(|known| known.record.digest()),
            activation_secret: secret,
            allow_listed: candidate.allow_listed,
            job: context_of_job,
        });
        let context = AppraisalContext {
            now_unix_s,
            challenge: &issued,
            node: &candidate.record,
            endorsements: endorsements.set.digest(),
            tool_pcr: self.settings.tool_pcr,
            in_force: expected.in_force.as_context(),
            staged: expected.staged.as_ref().map(Expected::as_context),
            job: context_of_job,
            case_digest: HashAlg::Sha256.hash(&[&case]),
        };
        let appraisal = appraise(&evidence, signer, &context);
        let verdict = case::verdict_bytes(&appraisal, &context);
        let Appraisal { verdict: decided, proven, judged_by: policy_version, .. } = appraisal;
        let Appraisal { is_node_denied, staged, .. } = appraisal;
        let decided = match decided {
            Verdict::Admit(admission) => Ok(admission),
            Verdict::Deny(denial) => Err(denial),
        };
        if let Some(staged) = &staged {
            metrics::staged(decided.is_ok(), staged.findings.is_empty());
        }
        let accepted_by_staged = accepted_by_staged(staged.as_ref());
        let is_large = |log: &&LogSuffix| log.bytes.len() > MAX_INLINE_LOG_BYTES;
        let large_logs = || evidence.logs.iter().filter(is_large);
        let logs: usize = large_logs().map(|log| log.bytes.len()).sum();
        let about = About {
            node: &candidate.record.name,
            policy_version: &policy_version,
            bytes: case.len().saturating_add(verdict.len()).saturating_add(logs),
        };
        if let (Ok(_), Some(proven), true) = (&decided, &proven, logs > 0)
            && !self.denials.admits(proven.boot.ek().digest, logs, now_unix_s)
        {
            return Err(AttestError::TooManyLogs { node: candidate.record.name });
        }
        let denial = decided.as_ref().err();
        let is_recorded = self.denials.records(denial, proven.as_ref(), &about, now_unix_s);
        let mut objects = vec![endorsements.object.clone()];
        objects.extend(known.as_ref().map(|known| known.record.clone()));
        // Whoever proved nothing leaves no large objects behind.
        let written = proven.as_ref().filter(|_| is_recorded);
        if written.is_some() {
            for log in large_logs() {
                objects.push(self.store.objects().put(&log.bytes)?);
            }
        }
        let boot = written
            .map(|proven| {
                let node = &candidate.record.name;
                let (known, denied) = (known.as_deref(), decided.is_err());
                WrittenBoot::of(proven, node, known, replaces, denied, now_unix_s, &self.store)
            })
            .transpose()?
            .flatten();
        let decision = NewDecision {
            id: decision_id(now_unix_s)?,
            at: now_unix_s,
            node: proven.as_ref().map(|_| candidate.record.name.clone()),
            ek_digest: proven.as_ref().map(|proven| proven.boot.ek().digest),
            purpose: purpose(&issued.purpose).to_owned(),
            outcome: match decided {
                Ok(_) => store::Outcome::Admitted,
                Err(_) => store::Outcome::Denied,
            },
            codes: decided.as_ref().err().map(codes).unwrap_or_default(),
            verdict,
            case,
            objects,
            policy_version,
        };
        let node_version = candidate.version.filter(|_| proven.is_some());
        let new_node = candidate.new.filter(|_| proven.is_some()).map(|node| *node);
        let mut grounds = Vec::new();
        if decided.is_ok() {
            grounds.push(Ground::Endorsements);
            grounds.push(Ground::ReferenceDocuments);
        }
        if new_node.as_ref().is_some_and(|node| node.admitted_by.is_some()) {
            grounds.push(Ground::AdmissionRules);
        }
        let seen = endorsements.seen;
        let renewed_ak = known.as_ref().map(|known| known.boot.ak_name().as_bytes().to_vec());
        let record = store::Appraisal {
            node_version,
            new_node,
            renewed_ak,
            grounds,
            seen,
            ..store::Appraisal::of(decision)
        };
        let ak_name = known.as_ref().map(|known| known.boot.ak_name());
        let job = job.zip(ak_name).map(|(job, ak_name)| {
            let quote = HashAlg::Sha256.hash(&[&evidence.quote.untrusted_attest]);
            let ak_public = HashAlg::Sha256.hash(&[&hello.ak_public]);
            (job, Vouching { ak_name: ak_name.as_bytes().to_vec(), ak_public, quote })
        });
        let known_node = candidate.version.map(|_| candidate.record.name);
        let denied_node = known_node.filter(|_| is_node_denied);
        Ok(Judged { decided, is_recorded, denied_node, record, boot, accepted_by_staged, job })
    }

    /// Records, signs, answers.
    async fn conclude(&self, judged: Judged, now_unix_s: i64) -> Result<Outcome, AttestError> {
        let Judged { decided, denied_node, mut record, boot, accepted_by_staged, job, .. } = judged;
        let decision_id = record.decision.id.clone();
        let admission = match decided {
            Ok(admission) => admission,
            Err(denial) => {
                // Before it is recorded, and where it is not: no job goes on under what is denied.
                if let Some(node) = denied_node {
                    self.end_permits_of(&node, now_unix_s).await?;
                }
                let told = if judged.is_recorded {
                    self.record(record, boot, None).await?;
                    decision_id
                } else {
                    String::new()
                };
                let mut answer = denied(&denial, told);
                answer.result.accepted_by_staged = accepted_by_staged;
                return Ok(answer);
            }
        };
        if let Some((job, vouching)) = job {
            let (permit, told) = self.permit(admission, job, vouching, now_unix_s)?;
            record.permit = Some(permit);
            return match self.record(record, boot, None).await {
                Ok(()) => Ok(Outcome { result: permitted(told, decision_id), code: None }),
                Err(AttestError::Store(StoreError::AlreadyExists { what: "permit", .. })) => {
                    // All or nothing: no decision is recorded that says that this job may start.
                    Ok(denied(&token_used(), String::new()))
                }
                Err(other) => Err(other),
            };
        }
        let issuers = self.issuers.load_full();
        let issuer = &issuers.nodes;
        let Prepared { tbs, intent, spiffe_id } =
            self.prepare(admission, &decision_id, issuer, now_unix_s)?;
        let serial = intent.serial.clone();
        self.record(record, boot, Some(intent)).await?;
        // Here and not on a blocking thread: one signature takes less than changing threads twice.
        let issued = ca::sign(tbs, issuer.key()).map_err(CaError::from)?;
        self.mark_signed(&serial, issued.fingerprint(), now_unix_s).await;
        let mut certificate_chain = vec![issued.der().to_vec()];
        certificate_chain.extend(issuer.chain().iter().cloned());
        Ok(Outcome {
            result: pb::AttestationResult {
                outcome: pb::Outcome::Admit.into(),
                findings: Vec::new(),
                decision_id,
                certificate_chain,
                trust_bundle: self.trust_bundle.load().as_ref().clone(),
                renew_after_s: self.settings.certificate_lifetime.as_secs() / 2,
                spiffe_id,
                accepted_by_staged: String::new(),
                permit: None,
            },
            code: None,
        })
    }

    /// Ends what the jobs of a node go on by.
    async fn end_permits_of(&self, node: &str, now_unix_s: i64) -> Result<(), AttestError> {
        let by = By::new("verifier", now_unix_s);
        if self.store.end_permits_of(node, by).await? > 0 {
            self.tell_of_an_end();
        }
        Ok(())
    }

    /// One transaction: decision, new node, boot, and the certificate that is about to be signed.
    async fn record(
        &self,
        mut record: store::Appraisal,
        boot: Option<WrittenBoot>,
        certificate: Option<CertificateIntent>,
    ) -> Result<(), AttestError> {
        record.boot = boot.as_ref().map(|boot| boot.put.clone());
        record.certificate = certificate;
        let recorded = self.store.record(record).await?;
        if let (Some(boot), Some(version)) = (boot, recorded.boot_version) {
            self.boots.keep(boot, version);
        }
        Ok(())
    }
}

impl Verifier {
    /// The verifier's settings.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The CAs in force.
    pub(crate) fn issuers(&self) -> Arc<Issuers> {
        self.issuers.load_full()
    }

    /// Issuers of job tokens.
    pub(crate) const fn platforms(&self) -> &Platforms {
        &self.for_jobs.platforms
    }

    /// Signs JWT-SVIDs, and says what they verify with.
    pub(crate) fn jwt_key(&self) -> &JwtKeys {
        &self.for_jobs.jwt_key
    }

    /// Told when a permit ends.
    pub(crate) fn ended_permits(&self) -> &tokio::sync::Notify {
        &self.for_jobs.ended
    }

    /// Permits that are being redeemed.
    pub(crate) const fn redeeming(&self) -> &Redeeming {
        &self.redeeming
    }

    /// What is said of jobs and nodes: who signs it, and where it is kept.
    pub(crate) fn results(&self) -> (&Arc<ResultsSigner>, &ResultFiles) {
        (&self.for_jobs.results, &self.for_jobs.result_files)
    }

    /// Roots that relying parties trust, DER.
    pub(crate) fn trust_bundle(&self) -> Vec<Vec<u8>> {
        self.trust_bundle.load().as_ref().clone()
    }

    /// The trust domain's bundle document.
    pub(crate) fn spiffe_bundle(&self) -> Result<String, String> {
        self.for_jobs.jwt_key.bundle(self.trust_bundle())
    }

    /// The store.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The time, unless it stands before what is recorded.
    ///
    /// # Errors
    /// [`AttestError::ClockRegressed`]: a clock set back would make expired things valid again.
    pub fn now(&self) -> Result<i64, AttestError> {
        let now_unix_s = self.clock.now_unix_s();
        let last_unix_s = self.last_seen.fetch_max(now_unix_s, Ordering::SeqCst);
        if now_unix_s.saturating_add(MAX_CLOCK_STEP_BACK_S) < last_unix_s {
            return Err(AttestError::ClockRegressed { now_unix_s, last_unix_s });
        }
        Ok(now_unix_s)
    }

    /// Records, without making the worker wait, that an intended certificate was signed.
    pub(crate) async fn mark_signed(&self, serial: &str, fingerprint: [u8; 32], now_unix_s: i64) {
        let by = By::new("verifier", now_unix_s);
        if let Ok(digest) = Digest::new(HashAlg::Sha256, &fingerprint) {
            self.store.certificate_signed_soon(serial, digest, by).await;
        }
    }

    /// Whether a renewal may stand on the record of this AK: same EK, same endorsements, node active.
    async fn recognise(
        &self,
        hello: &Hello,
        endorsements: &Endorsements,
        now_unix_s: i64,
    ) -> Result<Recognised, AttestError> {
        let ak_name = hello.ak_public.name();
        let Some(stored) = self.store.boot(ak_name.as_bytes()).await? else {
            return Ok(Recognised::Unknown);
        };
        let version = stored.version;
        let known = match self.boots.parsed(&self.store, &stored) {
            Ok(known) => known,
            Err(why) => {
                tracing::warn!(%why, ak = %ak_name, "a boot record is not usable; proving the boot again");
                return Ok(Recognised::Stale { version });
            }
        };
        let candidate = Candidate::of(&stored.node);
        let is_current = known.boot.is_current(&endorsements.set.digest(), now_unix_s)
            && candidate.record.standing == Standing::Active
            && known.boot.ek().digest == candidate.record.ek_digest
            && ek_digest(&hello.ek_public) == candidate.record.ek_digest;
        Ok(if is_current {
            Recognised::Current { known, version, candidate }
        } else {
            Recognised::Stale { version }
        })
    }

    /// From the one-shot admission to a linted certificate and its recorded intent.
    fn prepare(
        &self,
        admission: Admission,
        decision_id: &str,
        issuer: &Issuer,
        now_unix_s: i64,
    ) -> Result<Prepared, AttestError> {
        let grant = admission.grant();
        let name: Segment = grant.node.parse().map_err(|_| CaError::Unknown(grant.node.clone()))?;
        let spiffe_id = self.settings.trust_domain.node_id(&name).to_string();
        let node = grant.node.clone();
        let spki_sha256 = proto::spki::ek_digest(&grant.node_key);
        let subject = NodeSubject::admitted(admission, decision_id)?;
        let now = u64::try_from(now_unix_s).unwrap_or(0);
        let terms = Terms {
            trust_domain: &self.settings.trust_domain,
            now_unix_s: now,
            lifetime: self.settings.certificate_lifetime,
        };
        let tbs = ca::prepare(subject, issuer.certificate(), &terms)?;
        let intent = CertificateIntent {
            serial: tbs.serial().to_string(),
            node,
            not_before: now_unix_s,
            not_after: i64::try_from(tbs.not_after_unix_s()).unwrap_or(i64::MAX),
            spki_sha256,
        };
        Ok(Prepared { tbs, intent, spiffe_id })
    }
}

/// What the store knows of the boot that an AK belongs to.
enum Recognised {
    /// Nothing.
    Unknown,
    /// A record that no longer counts: the boot is proven again, and the record replaced.
    Stale { version: u64 },
    /// A record that a renewal may stand on.
    Current { known: Arc<ParsedBoot>, version: u64, candidate: Candidate },
}

/// What an appraisal left to be recorded.
struct Judged {
    decided: Result<Admission, Denial>,
    /// Whether the decision is recorded: every admission is, of denials what their bounds let pass.
    is_recorded: bool,
    /// The node, where it is denied and not only a job there.
    denied_node: Option<String>,
    /// What is written besides boot and certificate.
    record: store::Appraisal,
    boot: Option<WrittenBoot>,
    /// What is staged and accepts the node.
    accepted_by_staged: String,
    /// The job that asked for a permit, with what vouches for it.
    job: Option<(AskingJob, Vouching)>,
}

struct Prepared {
    tbs: ca::LintedTbs<NodeSubject>,
    intent: CertificateIntent,
    spiffe_id: String,
}

/// Rises with time, unique by 64 random bits: `0067a1b2c3-8f3a…`.
fn decision_id(now_unix_s: i64) -> Result<String, RandomError> {
    let random = random_bytes()?;
    Ok(format!("{:010x}-{}", now_unix_s.max(0), hex::encode(&random[..8])))
}
