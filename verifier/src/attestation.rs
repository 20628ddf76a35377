//! One attestation from Hello to result, without the wire: gather context, call the core, record, issue.
//!
//! ```text
//! begin(hello)  ─▶ Begun { challenge } ─▶ finish(evidence, logs) ─▶ Outcome
//!        └─▶ Refused (denial before any challenge; nothing is recorded)
//! ```
//! Order of writes: the decision and the certificate's intent are committed in one transaction, then the
//! certificate is signed, then it leaves. A crash between loses a certificate, never a record.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use appraisal::{
    Appraisal, Proven,
    activation::ActivationChallenge,
    ak::RestrictedAk,
    appraise,
    boot::{Boot, BootDocument, Counters},
    context::{AppraisalContext, IssuedChallenge, NodeRecord, Signer, Standing},
    ek::{AllowListed, TrustedEk, ek_digest},
    policy::ReferenceValues,
    verdict::{Admission, Denial, Finding, Verdict},
};
use arc_swap::ArcSwap;
use proto::{
    binding::{Challenge, VerifierId},
    digest::{Digest, HashAlg, PcrIndex, PcrSelection, PcrSet},
    evidence::{Evidence, EvidenceError, Hello, LogKind, LogSuffix},
    limits::MAX_FINDINGS,
    pb,
    reason::ReasonCode,
};

use crate::{
    ca::{self, CaError, Issuer, NodeSubject, Segment, Terms, TrustDomain},
    case::{self, CaseInputs, MAX_INLINE_LOG_BYTES},
    clock::Clock,
    credential::{RandomError, make_credential, random_bytes},
    endorsements::{EkRules, EndorsementSet},
    objects::StoredObject,
    store::{
        self, ALLOW_LISTED, AdmissionRule, By, CertificateIntent, DecisionFilter, GoldenState, NewDecision, NewNode, NodeStatus, PutBoot, Store,
        StoreError,
    },
    throttle::Throttle,
};

/// What stays the same while the verifier runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Trust domain of every SPIFFE ID.
    pub trust_domain: TrustDomain,
    /// Identifier of the fleet, hashed into every quote.
    pub verifier_id: VerifierId,
    /// PCRs that every quote covers besides those of the golden set.
    pub selection: PcrSelection,
    /// PCR of the tool log.
    pub tool_pcr: PcrIndex,
    /// Life of node certificates.
    pub certificate_lifetime: Duration,
    /// Whether an unknown TPM that proves itself becomes a pending node.
    pub allow_pending: bool,
    /// Life of a challenge; at most [`proto::limits::CHALLENGE_LIFETIME`].
    pub challenge_lifetime: Duration,
}

/// Golden sets in force, by pool.
pub type References = HashMap<String, Arc<ReferenceValues>>;

/// The endorsement set in force, with its stored object.
#[derive(Debug)]
pub struct Endorsements {
    set: EndorsementSet,
    object: StoredObject,
}

/// Everything an attestation needs besides what the worker sends.
pub struct Verifier {
    settings: Settings,
    ek_rules: EkRules,
    store: Store,
    clock: Arc<dyn Clock>,
    issuer: ArcSwap<Issuer>,
    trust_bundle: ArcSwap<Vec<Vec<u8>>>,
    endorsements: ArcSwap<Endorsements>,
    references: ArcSwap<References>,
    rules: ArcSwap<Vec<AdmissionRule>>,
    boots: Mutex<HashMap<Vec<u8>, Arc<ParsedBoot>>>,
    denials: Throttle,
    last_seen: AtomicI64,
}

/// A boot's record, parsed once: the AK's key is ready to verify.
#[derive(Debug)]
struct ParsedBoot {
    /// Version of the stored record.
    version: u64,
    boot: Boot,
    record: StoredObject,
}

/// Steps back of the clock that time synchronisation makes, seconds; more is refused.
const MAX_CLOCK_STEP_BACK_S: i64 = 5;
/// Denials of callers that proved nothing which are recorded at once, and per second after that.
const UNPROVEN_DENIALS: (u32, u32) = (200, 5);
/// Parsed boots kept in memory; beyond it the map is emptied and fills again.
const MAX_PARSED_BOOTS: usize = 20_000;

/// A node as the inventory knows it, or as a rule would make it.
#[derive(Clone, Debug)]
struct Candidate {
    record: NodeRecord,
    /// To be added to the inventory once the worker proved itself.
    new: Option<Box<NewNode>>,
    allow_listed: bool,
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
    known: Option<(Arc<ParsedBoot>, u64)>,
    secret: Option<[u8; 32]>,
    lifetime: Duration,
    endorsements: Arc<Endorsements>,
    reference: Option<Arc<ReferenceValues>>,
}

/// Result of an attestation, ready to be sent.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The answer to the worker.
    pub result: pb::AttestationResult,
    /// First reason code, for metrics; `None` on admit.
    pub code: Option<ReasonCode>,
}

/// The verifier failed to answer: no verdict, no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttestError {
    /// What came over the wire is not well-formed.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// The store.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// The certificate could not be made.
    #[error("the certificate could not be made")]
    Certificate(#[from] CaError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The credential could not be made.
    #[error(transparent)]
    Credential(#[from] appraisal::activation::CredentialError),
    /// The clock went back behind what is recorded.
    #[error("the clock shows {now_unix_s}, but a decision at {last_unix_s} is recorded")]
    ClockRegressed {
        /// Now.
        now_unix_s: i64,
        /// Last recorded decision.
        last_unix_s: i64,
    },
    /// A background task ended.
    #[error("a verification task ended without an answer")]
    Task,
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
        if let Some(known) = self.known_boot(&hello, &endorsements, now_unix_s).await? {
            let (parsed, node, version) = known;
            let reference = self.reference(&node.record.pool);
            let signer = Signer::Known(parsed.boot.clone());
            let from = parsed.boot.tool_log().bytes;
            return Ok(Begun::Challenge(Box::new(Session {
                issued: self.issue(now_unix_s, reference.as_deref())?,
                hello: message,
                candidate: node,
                signer,
                credential: None,
                logs_wanted: vec![(LogKind::Tools, from)],
                known: Some((parsed, version)),
                secret: None,
                lifetime: self.settings.challenge_lifetime,
                endorsements,
                reference,
            })));
        }
        let ek_digest = ek_digest(&hello.ek_public);
        let node = self.store.node_by_ek(&ek_digest).await?;
        let allow_listed = node.as_ref().is_some_and(is_allow_listed);
        let judged = {
            let (hello, endorsements) = (hello.clone(), Arc::clone(&endorsements));
            tokio::task::spawn_blocking(move || {
                let allowed = if allow_listed {
                    AllowListed::ByDigest(ek_digest)
                } else {
                    AllowListed::No
                };
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
            None => match self.unknown(&hello, &ek) {
                Ok(candidate) => candidate,
                Err(denial) => return Ok(Begun::Refused(denial)),
            },
        };
        if candidate.record.standing == Standing::Revoked {
            return Ok(Begun::Refused(revoked(&candidate.record.name)));
        }
        let secret = random_bytes()?;
        let activation = ActivationChallenge::new(&ek, ak, secret);
        let credential = make_credential(ek.public(), &activation)?;
        let reference = self.reference(&candidate.record.pool);
        Ok(Begun::Challenge(Box::new(Session {
            issued: self.issue(now_unix_s, reference.as_deref())?,
            hello: message,
            candidate,
            signer: Signer::Activating { ek, activation },
            credential: Some(credential),
            logs_wanted: vec![(LogKind::Tools, 0)],
            known: None,
            secret: Some(secret),
            lifetime: self.settings.challenge_lifetime,
            endorsements,
            reference,
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
        let judged = tokio::task::spawn_blocking(move || {
            this.judge(session, message, evidence, now_unix_s)
        })
        .await
        .map_err(|_| AttestError::Task)??;
        self.conclude(judged, now_unix_s).await
    }

    /// Everything of [`Verifier::finish`] that only computes or writes objects.
    fn judge(
        &self,
        session: Session,
        message: pb::Evidence,
        evidence: Evidence,
        now_unix_s: i64,
    ) -> Result<Judged, AttestError> {
        let Session { hello, candidate, signer, issued, known, secret, endorsements, reference, .. } =
            session;
        let mut objects = vec![endorsements.object.clone()];
        let inputs = CaseInputs {
            now_unix_s,
            issued: &issued,
            node: &candidate.record,
            endorsements: endorsements.set.digest(),
            reference: reference.as_ref().map(|reference| *reference.digest()),
            tool_pcr: self.settings.tool_pcr,
            hello: &hello,
            evidence: &message,
            logs: &evidence.logs,
            known_boot: known.as_ref().map(|(parsed, _)| parsed.record.digest()),
            activation_secret: secret,
            allow_listed: candidate.allow_listed,
        };
        let case = case::encode(&inputs);
        let case_digest = HashAlg::Sha256.hash(&[&case]);
        let context = AppraisalContext {
            now_unix_s,
            challenge: &issued,
            node: &candidate.record,
            endorsements: endorsements.set.digest(),
            tool_pcr: self.settings.tool_pcr,
            reference: reference.as_deref(),
            case_digest,
        };
        let appraisal = appraise(&evidence, signer, &context);
        let verdict_bytes = case::verdict_bytes(&appraisal, &context);
        if let Some((parsed, _)) = &known {
            objects.push(parsed.record.clone());
        }
        if appraisal.proven.is_some() {
            for log in evidence.logs.iter().filter(|log| log.bytes.len() > MAX_INLINE_LOG_BYTES) {
                objects.push(self.store.objects().put(&log.bytes)?);
            }
        }
        Ok(Judged { candidate, case, objects, appraisal, verdict_bytes, known, reference })
    }

    /// Records, signs, answers.
    async fn conclude(
        self: &Arc<Self>,
        judged: Judged,
        now_unix_s: i64,
    ) -> Result<Outcome, AttestError> {
        let Judged { candidate, case, objects, appraisal, verdict_bytes, known, reference } = judged;
        let Appraisal { verdict, proven } = appraisal;
        let decision_id = decision_id(now_unix_s)?;
        let (admission, denial) = match verdict {
            Verdict::Admit(admission) => (Some(admission), None),
            Verdict::Deny(denial) => (None, Some(denial)),
        };
        // Whoever proved nothing may fill the log only slowly, and never a node's history.
        if proven.is_none() && !self.denials.allow(now_unix_s) {
            return Ok(denied(&denial.unwrap_or_else(|| revoked("")), String::new()));
        }
        let decision = NewDecision {
            id: decision_id.clone(),
            at: now_unix_s,
            node: proven.as_ref().map(|_| candidate.record.name.clone()),
            ek_digest: proven.as_ref().map(|proven| proven.boot.ek().digest),
            purpose: "node".to_owned(),
            outcome: if admission.is_some() {
                store::Outcome::Admitted
            } else {
                store::Outcome::Denied
            },
            codes: denial.iter().flat_map(codes).collect(),
            verdict: verdict_bytes,
            case,
            objects,
            policy_version: reference
                .as_ref()
                .map(|reference| format!("{}@{}", reference.name(), reference.version()))
                .unwrap_or_default(),
        };
        let issuer = self.issuer.load_full();
        let prepared = admission
            .map(|admission| self.prepare(admission, &decision_id, &issuer, now_unix_s))
            .transpose()?;
        let boot = match &proven {
            Some(proven) => self.boot_record(proven, &candidate, known, denial.is_some(), now_unix_s)?,
            None => None,
        };
        let node_is_new = proven.is_some();
        let recorded = self
            .store
            .record(store::Appraisal {
                decision,
                new_node: candidate.new.clone().filter(|_| node_is_new).map(|node| *node),
                boot: boot.as_ref().map(|boot| boot.put.clone()),
                certificate: prepared.as_ref().map(|prepared| prepared.intent.clone()),
            })
            .await?;
        if let (Some(boot), Some(version)) = (boot, recorded.boot_version) {
            self.keep(boot, version);
        }
        let Some(prepared) = prepared else {
            let denial = denial.unwrap_or_else(|| revoked(&candidate.record.name));
            return Ok(denied(&denial, decision_id));
        };
        let issued = {
            let issuer = Arc::clone(&issuer);
            tokio::task::spawn_blocking(move || ca::sign(prepared.tbs, issuer.key()))
                .await
                .map_err(|_| AttestError::Task)?
                .map_err(CaError::from)?
        };
        self.mark_signed(prepared.intent.serial, issued.fingerprint(), now_unix_s);
        let mut chain = vec![issued.der().to_vec()];
        chain.extend(issuer.chain().iter().cloned());
        Ok(Outcome {
            result: pb::AttestationResult {
                outcome: pb::Outcome::Admit.into(),
                findings: Vec::new(),
                decision_id,
                certificate_chain: chain,
                trust_bundle: self.trust_bundle.load().as_ref().clone(),
                renew_after_s: self.settings.certificate_lifetime.as_secs() / 2,
                spiffe_id: prepared.spiffe_id,
            },
            code: None,
        })
    }
}

impl Verifier {
    /// A verifier over an open store, with what the store holds in force.
    ///
    /// # Errors
    /// [`AttestError`] if the store cannot be read.
    pub async fn open(
        settings: Settings,
        rules: EkRules,
        store: Store,
        clock: Arc<dyn Clock>,
        issuer: Issuer,
        trust_bundle: Vec<Vec<u8>>,
    ) -> Result<Self, AttestError> {
        let newest = DecisionFilter { limit: 1, ..Default::default() };
        let last = store.decisions(&newest).await?.first().map_or(0, |last| last.decision.at);
        let (burst, per_second) = UNPROVEN_DENIALS;
        let set = EndorsementSet::new(&store.endorsements().await?.items, rules);
        let object = store.put_object(set.object().to_vec()).await?;
        let verifier = Self {
            settings,
            ek_rules: rules,
            store,
            clock,
            issuer: ArcSwap::from_pointee(issuer),
            trust_bundle: ArcSwap::from_pointee(trust_bundle),
            endorsements: ArcSwap::from_pointee(Endorsements { set, object }),
            references: ArcSwap::default(),
            rules: ArcSwap::default(),
            boots: Mutex::default(),
            denials: Throttle::new(burst, per_second),
            last_seen: AtomicI64::new(last),
        };
        verifier.reload().await?;
        Ok(verifier)
    }

    /// Puts in force what the store holds now: endorsements, rules, golden sets.
    ///
    /// Attestations under way keep what they began with.
    ///
    /// # Errors
    /// [`AttestError`] if the store cannot be read; what was in force stays.
    pub async fn reload(&self) -> Result<(), AttestError> {
        let set = EndorsementSet::new(&self.store.endorsements().await?.items, self.ek_rules);
        for (digest, why) in set.rejected() {
            tracing::warn!(%digest, why, "an imported endorsement is not usable");
        }
        let object = self.store.put_object(set.object().to_vec()).await?;
        let rules =
            self.store.admission_rules().await?.into_iter().map(|(rule, _)| rule).collect();
        let mut references = References::new();
        for golden in self.store.golden_sets(None).await? {
            if golden.state != GoldenState::Active {
                continue;
            }
            let text = String::from_utf8_lossy(&golden.document);
            match ReferenceValues::parse(&text, self.settings.tool_pcr) {
                Ok(reference) => {
                    references.insert(golden.pool, Arc::new(reference));
                }
                // The pool is then without golden set, and denies.
                Err(problems) => {
                    for problem in problems {
                        tracing::error!(pool = golden.pool, version = golden.version, %problem, "the active golden set is not usable");
                    }
                }
            }
        }
        self.endorsements.store(Arc::new(Endorsements { set, object }));
        self.rules.store(Arc::new(rules));
        self.references.store(Arc::new(references));
        Ok(())
    }

    /// Issues under another CA, and hands out another trust bundle, from now on.
    ///
    /// Attestations that are being answered keep the CA that they began with.
    pub fn replace_issuer(&self, issuer: Issuer, trust_bundle: Vec<Vec<u8>>) {
        self.issuer.store(Arc::new(issuer));
        self.trust_bundle.store(Arc::new(trust_bundle));
    }

    /// The verifier's settings.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
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

    /// The record that a renewal may stand on: same EK, same endorsements, node active.
    async fn known_boot(
        &self,
        hello: &Hello,
        endorsements: &Endorsements,
        now_unix_s: i64,
    ) -> Result<Option<(Arc<ParsedBoot>, Candidate, u64)>, AttestError> {
        let ak_name = hello.ak_public.name();
        let Some(known) = self.store.boot(ak_name.as_bytes()).await? else {
            return Ok(None);
        };
        let parsed = match self.parsed(&known) {
            Ok(parsed) => parsed,
            Err(why) => {
                tracing::warn!(%why, ak = %ak_name, "a boot record is not usable; proving the boot again");
                return Ok(None);
            }
        };
        let candidate = Candidate::of(&known.node);
        let current = parsed.boot.is_current(&endorsements.set.digest(), now_unix_s)
            && candidate.record.standing == Standing::Active
            && parsed.boot.ek().digest == candidate.record.ek_digest
            && ek_digest(&hello.ek_public) == candidate.record.ek_digest;
        Ok(current.then(|| (parsed, candidate, known.version)))
    }

    /// The stored record, parsed at most once a version.
    fn parsed(&self, known: &store::KnownBoot) -> Result<Arc<ParsedBoot>, String> {
        let ak_name = &known.boot.ak_name;
        let mut boots = self.boots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(parsed) = boots.get(ak_name).filter(|parsed| parsed.version == known.version) {
            return Ok(Arc::clone(parsed));
        }
        let bytes = &known.boot.tool_log_state;
        let document: BootDocument = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let boot = Boot::assert_from_store(document).map_err(|e| e.to_string())?;
        let record = self.store.objects().put(bytes).map_err(|e| e.to_string())?;
        let parsed = Arc::new(ParsedBoot { version: known.version, boot, record });
        if boots.len() >= MAX_PARSED_BOOTS {
            boots.clear();
        }
        boots.insert(ak_name.clone(), Arc::clone(&parsed));
        Ok(parsed)
    }

    fn keep(&self, written: WrittenBoot, version: u64) {
        let parsed = Arc::new(ParsedBoot { version, boot: written.boot, record: written.record });
        let mut boots = self.boots.lock().unwrap_or_else(PoisonError::into_inner);
        if boots.len() >= MAX_PARSED_BOOTS {
            boots.clear();
        }
        boots.insert(written.put.boot.ak_name, parsed);
    }

    /// Records, without making the worker wait, that an intended certificate was signed.
    fn mark_signed(&self, serial: String, fingerprint: [u8; 32], now_unix_s: i64) {
        let store = self.store.clone();
        tokio::spawn(async move {
            let by = By::new("verifier", now_unix_s);
            let digest = Digest::new(HashAlg::Sha256, &fingerprint);
            let Ok(digest) = digest else { return };
            if let Err(error) = store.certificate_signed(&serial, digest, by).await {
                tracing::error!(%error, serial, "a signed certificate stays recorded as intended");
            }
        });
    }

    fn reference(&self, pool: &str) -> Option<Arc<ReferenceValues>> {
        self.references.load().get(pool).cloned()
    }

    /// A fresh challenge over everything that will be read.
    fn issue(
        &self,
        now_unix_s: i64,
        reference: Option<&ReferenceValues>,
    ) -> Result<IssuedChallenge, AttestError> {
        let mut banks: Vec<_> = self.settings.selection.banks().to_vec();
        if let Some(reference) = reference {
            banks.extend_from_slice(reference.selection().banks());
        }
        let tool = PcrSet::from_iter([self.settings.tool_pcr]);
        let with_tool: Vec<_> = banks.iter().map(|(alg, _)| (*alg, tool)).collect();
        banks.extend(with_tool);
        let lifetime = i64::try_from(self.settings.challenge_lifetime.as_secs()).unwrap_or(60);
        Ok(IssuedChallenge {
            challenge: Challenge::new(random_bytes()?),
            verifier_id: self.settings.verifier_id,
            selection: PcrSelection::new(banks),
            expires_unix_s: now_unix_s.saturating_add(lifetime),
        })
    }

    /// What an unknown TPM may become: a node by rule, a pending node, or nothing.
    fn unknown(&self, hello: &Hello, ek: &TrustedEk) -> Result<Candidate, Denial> {
        let claims = ek.claims();
        let rules = self.rules.load();
        let rule = rules.iter().find(|rule| rule_matches(rule, &claims));
        let short = &hex::encode(claims.digest.as_bytes())[..12];
        let (name, pool, status, admitted_by) = match rule {
            Some(rule) => (
                format!("{}{short}", rule.name_template),
                rule.pool.clone(),
                NodeStatus::Active,
                Some(rule.name.clone()),
            ),
            None if self.settings.allow_pending => {
                (format!("pending-{short}"), "pending".to_owned(), NodeStatus::Pending, None)
            }
            None => {
                return Err(Finding::new(
                    ReasonCode::NodeUnknown,
                    "node",
                    "a TPM in the inventory, or one that an admission rule matches",
                    format!("EK {}", claims.digest),
                )
                .into());
            }
        };
        Ok(Candidate {
            record: NodeRecord {
                name: name.clone(),
                pool: pool.clone(),
                standing: standing(status),
                ek_digest: claims.digest,
                highest_counters: None,
            },
            new: Some(Box::new(NewNode {
                name,
                ek_digest: claims.digest,
                pool,
                status,
                ek_certificate: hello.ek_certificate.clone(),
                ek_chain: hello.ek_chain.clone(),
                manufacturer: claims.manufacturer,
                admitted_by,
                note: String::new(),
            })),
            allow_listed: false,
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

    /// The boot's record, if it must be written: it is new, or its tool log went on.
    ///
    /// After a denial the log is recorded as unread, so that the next one is read whole and can name files.
    fn boot_record(
        &self,
        proven: &Proven,
        candidate: &Candidate,
        known: Option<(Arc<ParsedBoot>, u64)>,
        denied: bool,
        now_unix_s: i64,
    ) -> Result<Option<WrittenBoot>, AttestError> {
        let boot = if denied {
            proven.boot.clone().with_tool_log_restarted()
        } else {
            proven.boot.clone()
        };
        let same = known
            .as_ref()
            .is_some_and(|(parsed, _)| parsed.boot.tool_log().head == boot.tool_log().head);
        if same {
            return Ok(None);
        }
        let bytes = serde_json::to_vec(&boot.document()).unwrap_or_default();
        let record = self.store.objects().put(&bytes)?;
        let put = PutBoot {
            boot: store::Boot {
                ak_name: boot.ak_name().as_bytes().to_vec(),
                node: candidate.record.name.clone(),
                counters: store_counters(boot.counters()),
                ak_public: proven.boot.ak_public().as_bytes().to_vec(),
                node_key_name: boot.node_key().name().as_bytes().to_vec(),
                node_key_public: boot.node_key().as_bytes().to_vec(),
                tool_log_state: bytes,
                endorsement_digest: boot.endorsements(),
                ek_valid_until: boot.ek_valid_until_unix_s(),
                firmware_version: Some(format!("{:016x}", boot.firmware_version())),
                created_at: now_unix_s,
                updated_at: now_unix_s,
            },
            expected_version: known.map(|(_, version)| version),
        };
        Ok(Some(WrittenBoot { put, boot, record }))
    }
}

/// What an appraisal left to be recorded.
struct Judged {
    candidate: Candidate,
    case: Vec<u8>,
    objects: Vec<StoredObject>,
    appraisal: Appraisal,
    verdict_bytes: Vec<u8>,
    known: Option<(Arc<ParsedBoot>, u64)>,
    reference: Option<Arc<ReferenceValues>>,
}

struct Prepared {
    tbs: ca::LintedTbs<NodeSubject>,
    intent: CertificateIntent,
    spiffe_id: String,
}

struct WrittenBoot {
    put: PutBoot,
    boot: Boot,
    record: StoredObject,
}

impl Candidate {
    fn of(node: &store::Node) -> Self {
        Self {
            record: NodeRecord {
                name: node.name.clone(),
                pool: node.pool.clone(),
                standing: standing(node.status),
                ek_digest: node.ek_digest,
                highest_counters: node.counters.map(|counters| Counters {
                    reset_count: counters.reset_count,
                    restart_count: counters.restart_count,
                }),
            },
            new: None,
            allow_listed: is_allow_listed(node),
        }
    }
}

fn is_allow_listed(node: &store::Node) -> bool {
    node.admitted_by.as_deref() == Some(ALLOW_LISTED)
}

const fn standing(status: NodeStatus) -> Standing {
    match status {
        NodeStatus::Active => Standing::Active,
        NodeStatus::Pending => Standing::Pending,
        NodeStatus::Revoked => Standing::Revoked,
    }
}

const fn store_counters(counters: Counters) -> store::Counters {
    store::Counters {
        reset_count: counters.reset_count,
        restart_count: counters.restart_count,
    }
}

fn rule_matches(rule: &AdmissionRule, ek: &appraisal::claims::EkClaims) -> bool {
    let root = match &ek.trust {
        appraisal::claims::EkTrust::Certificate { root, .. } => root,
        appraisal::claims::EkTrust::AllowListed => return false,
    };
    rule.root_sha256.is_none_or(|wanted| wanted == *root)
        && rule.manufacturer.as_deref().is_none_or(|wanted| {
            ek.manufacturer.as_deref().is_some_and(|found| found.eq_ignore_ascii_case(wanted))
        })
}

fn revoked(node: &str) -> Denial {
    Finding::new(ReasonCode::NodeRevoked, format!("node {node}"), "an active node", "revoked").into()
}

fn codes(denial: &Denial) -> Vec<String> {
    let mut codes: Vec<String> =
        denial.findings().map(|finding| finding.code.as_str().to_owned()).collect();
    codes.dedup();
    codes
}

/// The answer to a denied worker: code, subject and observed; what was expected stays here.
#[must_use]
pub fn denied(denial: &Denial, decision_id: String) -> Outcome {
    Outcome {
        result: pb::AttestationResult {
            outcome: pb::Outcome::Deny.into(),
            findings: denial
                .findings()
                .take(MAX_FINDINGS)
                .map(|finding| pb::Finding {
                    code: finding.code.as_str().to_owned(),
                    subject: finding.subject.clone(),
                    observed: finding.observed.clone(),
                    remedy: finding.code.remedy().to_owned(),
                })
                .collect(),
            decision_id,
            ..Default::default()
        },
        code: Some(denial.code()),
    }
}

/// Rises with time, unique by 64 random bits: `0067a1b2c3-8f3a…`.
fn decision_id(now_unix_s: i64) -> Result<String, RandomError> {
    let random = random_bytes()?;
    Ok(format!("{:010x}-{}", now_unix_s.max(0), hex::encode(&random[..8])))
}
