//! The pure appraisal core of Assay: evidence and context in, verdict out.
//!
//! No clock, randomness, file or network access, no async runtime: every input is a parameter, so a recorded case
//! gives the same verdict, byte for byte, whenever it is judged again.
//!
//! # Main path
//! ```text
//! Hello    ─▶ TrustedEk (ek) ─┐
//!             RestrictedAk (ak) ┴─▶ ActivationChallenge (activation) ─secret─▶ BoundAk
//! Evidence ─▶ SignedQuote ─▶ VerifiedQuote ─▶ AttestedPcrs ─┬─▶ ProvenBootLog (boot_log) ─┬─▶ Claims ─decide─▶ Verdict
//!             (quote)        our challenge     (pcr)         ├─▶ AttestedMeasurements ─────┤                    │
//!                                                            ├─▶ AnchoredImaList (ima) ────┘  Deny(Denial) | Admit(Admission)
//!                                                            └─▶ CertifiedNodeKey (node_key)
//! ```
//! Each arrow is the only constructor of its target: a check that was not made has no value to go on with.
//! Integrity stages stop at the first failure, because later facts would be about an attacker's data; policy reports
//! every finding.
//!
//! # Trust
//! `context` comes from the verifier's own store, clock and configuration; everything in `Evidence` comes from the
//! worker and is believed only as far as a TPM that the endorsements vouch for signed it.
#![warn(clippy::panic, clippy::unwrap_used)]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod activation;
pub mod ak;
pub mod boot;
pub mod boot_log;
pub mod claims;
pub mod context;
pub mod ek;
pub mod ima;
mod logs;
pub mod measurement;
pub mod node_key;
pub mod pcr;
pub mod policy;
pub mod predict;
mod printable;
pub mod quote;
pub mod verdict;
pub mod verification_key;
pub mod x509;

use std::sync::Arc;

use proto::{
    binding::{Purpose, QualifyingData},
    digest::Digest,
    evidence::{Evidence, LogKind, NodeKeyEvidence},
    reason::ReasonCode,
    tool_log::ToolMeasurement,
    tpm::name::Name,
};
use serde::Serialize;

pub use self::printable::printable;
use crate::{
    boot::{Boot, Counters},
    claims::Claims,
    context::{AppraisalContext, Expected, Signer, Standing},
    ima::ImaEvidence,
    logs::BootLogs,
    measurement::{AttestedMeasurements, ReplayedToolLog},
    node_key::CertifiedNodeKey,
    pcr::AttestedPcrs,
    policy::{
        decide::{Judged, decide},
        site::{PolicyInput, RuleScope},
    },
    quote::SignedQuote,
    verdict::{Admission, Denial, Finding, Grant, Verdict},
};

/// A verdict, with what the evidence proved on the way.
#[derive(Debug)]
#[must_use]
pub struct Appraisal {
    /// The answer.
    pub verdict: Verdict,
    /// What integrity-verified evidence says; `None` if an integrity stage refused.
    ///
    /// Present on a policy denial too: reference values are captured from it.
    pub proven: Option<Proven>,
    /// What of the reference values was met, or is nearest: `linux@3#kernel-6.1 + platform@2`; empty where none were asked.
    pub judged_by: String,
    /// Where the golden sets have an alternative that nothing stands against but what this evidence lacks: that, and what
    /// stands against the node whatever it sends. If there is nothing of the latter, more evidence may be admitted. Empty
    /// where there is no such alternative, or the node is admitted.
    pub lacking: Vec<Finding>,
    /// Whether something of what is denied is said of the node, not only of the job that asks for a permit there; not where an
    /// integrity stage refused, which says nothing of any node.
    pub is_node_denied: bool,
    /// What the staged reference values say; `None` where none are staged, or an integrity stage refused.
    pub staged: Option<StagedOutcome>,
}

/// What reference values that are not in force yet say of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StagedOutcome {
    /// What was met, or is nearest.
    pub judged_by: String,
    /// Why the node would be denied; empty: it would be admitted.
    pub findings: Vec<Finding>,
}

impl Appraisal {
    /// A refusal before anything was proven.
    pub fn refused(denial: Denial) -> Self {
        let lacking = match denial.findings().all(Finding::is_of_lacking_evidence) {
            true => denial.findings().cloned().collect(),
            false => Vec::new(),
        };
        Self {
            verdict: Verdict::Deny(denial),
            lacking,
            proven: None,
            judged_by: String::new(),
            is_node_denied: false,
            staged: None,
        }
    }
}

/// What was proven before policy was asked.
#[derive(Debug)]
pub struct Proven {
    /// The claims.
    pub claims: Claims,
    /// The boot's record for the store.
    pub boot: Boot,
    /// Tool measurements in this evidence, with their files.
    pub measurements: Vec<ToolMeasurement>,
    /// What the golden sets say of the whole boot's IMA list.
    ima: ImaEvidence,
}

/// Appraises evidence: the one way to an [`Admission`].
pub fn appraise(evidence: &Evidence, signer: Signer, context: &AppraisalContext<'_>) -> Appraisal {
    let proven = match prove(evidence, signer, context) {
        Ok(proven) => proven,
        Err(denial) => return Appraisal::refused(denial),
    };
    let Judgement { judged_by, findings, is_node_denied, mut lacking, ima } =
        judge(&proven, context.in_force, context);
    let is_node_denied = is_node_denied || not_active(context).is_some();
    let staged = context.staged.map(|staged| {
        let Judgement { judged_by, findings, .. } = judge(&proven, staged, context);
        StagedOutcome { judged_by, findings }
    });
    if !lacking.is_empty() {
        lacking.extend(not_active(context));
        lacking.sort();
    }
    let verdict = conclude(&proven, &judged_by, findings, context);
    let proven = Proven { claims: proven.claims.with_ima_judges(ima), ..proven };
    Appraisal { verdict, proven: Some(proven), judged_by, lacking, is_node_denied, staged }
}

/// The integrity stages, in order; stops at the first failure.
fn prove(
    evidence: &Evidence,
    signer: Signer,
    context: &AppraisalContext<'_>,
) -> Result<Proven, Denial> {
    let issued = context.challenge;
    if context.now_unix_s > issued.expires_unix_s {
        return Err(Finding::new(
            ReasonCode::ChallengeExpired,
            "challenge",
            format!("an answer by {}", issued.expires_unix_s),
            format!("an answer at {}", context.now_unix_s),
        )
        .into());
    }
    let (origin, ak) = match signer {
        Signer::Activating { ek, activation } => {
            let ak = activation.redeem(evidence.activation_secret.as_ref())?;
            (Origin::New { ek: ek.claims(), valid_until: ek.valid_until_unix_s() }, ak)
        }
        Signer::Known(boot) => {
            let ak = boot.ak.clone();
            (Origin::Known(boot), ak)
        }
    };
    admissible(context, origin.ek_digest())?;
    if let (Purpose::Permit(_), None) = (&issued.purpose, origin.boot()) {
        return Err(boot_unproven(&context.node.name).into());
    }

    let quote = SignedQuote::verify(&ak, &evidence.quote)?;
    let log = ReplayedToolLog::replay(
        origin.tool_log(),
        evidence.log(LogKind::Tools),
        context.tool_pcr,
        &issued.required,
    )?;
    let key = match (&origin, &evidence.node_key) {
        (Origin::Known(boot), _) => KeySource::Stored(boot.node_key.clone()),
        (Origin::New { .. }, Some(key)) => KeySource::Presented(key),
        (Origin::New { .. }, None) => {
            return Err(Finding::new(
                ReasonCode::EvidenceFieldMissing,
                "evidence.node_key",
                "a certified node key on a new boot",
                "none",
            )
            .into());
        }
    };
    let quote = quote.answering(&QualifyingData::for_quote(
        &issued.purpose,
        &issued.challenge,
        &issued.verifier_id,
        &key.name(),
        &log.state().head,
    ))?;
    let counters = Counters::from(quote.clock_info());
    same_boot(&origin, counters, quote.firmware_version(), context)?;

    let node_key = match key {
        KeySource::Presented(key) => CertifiedNodeKey::verify(
            &ak,
            key,
            &issued.challenge,
            &issued.verifier_id,
            quote.clock_info(),
        )?,
        KeySource::Stored(key) => key,
    };
    let pcrs = AttestedPcrs::verify(&ak, &quote, &issued.required, &evidence.pcr_values)?;
    let logs = BootLogs::read(origin.boot(), evidence, &pcrs, context)?;
    let log = match &logs.tool_pcr_start {
        Some(start) => log.starting_at(start, evidence.log(LogKind::Tools))?,
        None => log,
    };
    let measurements = AttestedMeasurements::verify(log, &pcrs, context.tool_pcr)?;
    let ima = logs::judge_ima(origin.boot(), evidence, &pcrs, &logs.boot_pcrs, context)?;

    let (ek, ek_valid_until_unix_s) = origin.into_ek();
    let boot = Boot {
        ak,
        ek: ek.clone(),
        endorsements: context.endorsements,
        ek_valid_until_unix_s,
        counters,
        firmware_version: quote.firmware_version(),
        node_key,
        tool_log: Arc::clone(measurements.state()),
        boot_log: logs.log.clone(),
        ima: ima.state,
    };
    let claims = Claims::new(ek, &quote, pcrs, &measurements, logs.log).with_ima(boot.ima.clone());
    let measurements = measurements.into_new_measurements();
    Ok(Proven { claims, boot, measurements, ima: ima.evidence })
}

/// What the policy step says.
struct Judgement {
    /// What was met, or is nearest.
    judged_by: String,
    /// Every finding of golden sets and of the site's policies.
    findings: Vec<Finding>,
    /// As [`Appraisal::is_node_denied`], as far as policy knows.
    is_node_denied: bool,
    /// As [`Appraisal::lacking`], as far as policy knows.
    lacking: Vec<Finding>,
    /// The policies by which the alternative of [`Self::judged_by`] judges the kernel's list.
    ima: Vec<Digest>,
}

/// The policy step.
fn judge(proven: &Proven, expected: Expected<'_>, context: &AppraisalContext<'_>) -> Judgement {
    let mut judgement = judge_by_golden_sets(proven, expected, context);
    let policies = || expected.site.iter().filter(|site| site.applies_to(&context.node.pool));
    // Making the input costs as much as ten rules: not without one.
    if policies().next().is_some() {
        let input = PolicyInput::judged_by(&proven.claims, context.node, judgement.ima.clone());
        let input = match context.job {
            Some(job) => input.with_job(job),
            None => input,
        };
        let lacking = judgement.lacking.clone();
        for found in policies().flat_map(|site| site.findings(&input)) {
            if !lacking.is_empty() && !found.is_for_want_of(&lacking) {
                judgement.lacking.push(found.finding.clone());
            }
            judgement.is_node_denied |= found.at == RuleScope::Always;
            judgement.findings.push(found.finding);
        }
    }
    judgement
}

fn judge_by_golden_sets(
    proven: &Proven,
    expected: Expected<'_>,
    context: &AppraisalContext<'_>,
) -> Judgement {
    let pool = &context.node.pool;
    let nothing = |observed: &str| Judgement {
        judged_by: String::new(),
        findings: vec![no_reference_values(pool, observed)],
        is_node_denied: true,
        lacking: Vec::new(),
        ima: Vec::new(),
    };
    let Some(reference) = expected.reference else { return nothing("none") };
    // They judge nothing for this node then.
    if reference.pool() != pool {
        return nothing("a golden set of another pool");
    }
    let node =
        Judged { claims: &proven.claims, measurements: &proven.measurements, ima: &proven.ima };
    let outcome = decide(node, reference);
    Judgement {
        judged_by: outcome.label.to_owned(),
        is_node_denied: !outcome.findings.is_empty(),
        findings: outcome.findings,
        lacking: outcome.lacking,
        ima: outcome.ima,
    }
}

/// The one place where an [`Admission`] is made.
fn conclude(
    proven: &Proven,
    judged_by: &str,
    mut findings: Vec<Finding>,
    context: &AppraisalContext<'_>,
) -> Verdict {
    let node = context.node;
    findings.extend(not_active(context));
    findings.extend(against_the_job(context));
    let reference = match (Denial::all(findings), context.in_force.reference) {
        (Some(denial), _) => return Verdict::Deny(denial),
        (None, Some(reference)) => reference,
        // There is a finding then; without reference values nothing may pass.
        (None, None) => return Verdict::Deny(no_reference_values(&node.pool, "none").into()),
    };
    Verdict::Admit(Admission {
        grant: Grant {
            node: node.name.clone(),
            pool: node.pool.clone(),
            purpose: context.challenge.purpose,
            node_key: proven.boot.node_key().clone(),
            case_digest: context.case_digest,
            policy_version: judged_by.to_owned(),
            reference_digest: *reference.digest(),
            counters: proven.boot.counters(),
            appraised_unix_s: context.now_unix_s,
            tools: reference.matched_tools(&proven.claims),
        },
    })
}

/// What stands against the job that asks for a permit. A permit is for a job that was judged.
fn against_the_job(context: &AppraisalContext<'_>) -> Vec<Finding> {
    match (&context.challenge.purpose, context.job) {
        (Purpose::Node, None) => Vec::new(),
        (Purpose::Permit(_), Some(job)) => job.findings.clone(),
        (Purpose::Node, Some(_)) | (Purpose::Permit(_), None) => vec![Finding::new(
            ReasonCode::JobClaimsInvalid,
            "job",
            "a challenge for a permit, with the job that it is for",
            "one without the other",
        )],
    }
}

/// What the inventory has against a node that it lets attest.
fn not_active(context: &AppraisalContext<'_>) -> Option<Finding> {
    let node = context.node;
    (node.standing != Standing::Active).then(|| {
        Finding::new(
            ReasonCode::NodePending,
            format!("node {}", node.name),
            "approved by an operator",
            "waiting for approval",
        )
    })
}

fn no_reference_values(pool: &str, observed: &str) -> Finding {
    Finding::new(
        ReasonCode::PolicyNoReferenceValues,
        format!("pool {pool}"),
        "an active golden set of this pool",
        observed,
    )
}

/// A permit stands on a boot that was proven: its quote is all that is new.
#[must_use]
pub fn boot_unproven(node: &str) -> Finding {
    let (expected, observed) = ("a boot that the node has proved", "an AK that is not known");
    Finding::new(ReasonCode::JobBootUnproven, format!("node {node}"), expected, observed)
}

/// Whether the inventory lets this EK be this node at all.
fn admissible(context: &AppraisalContext<'_>, ek: proto::digest::Digest) -> Result<(), Denial> {
    let node = context.node;
    if node.ek_digest != ek {
        return Err(Finding::new(
            ReasonCode::NodeEkMismatch,
            format!("node {}", node.name),
            node.ek_digest.to_string(),
            ek.to_string(),
        )
        .into());
    }
    if node.standing == Standing::Revoked {
        return Err(Finding::new(
            ReasonCode::NodeRevoked,
            format!("node {}", node.name),
            "an active node",
            "revoked",
        )
        .into());
    }
    Ok(())
}

/// One boot is (AK Name, resetCount, restartCount); counters never go back under one EK.
fn same_boot(
    origin: &Origin,
    counters: Counters,
    firmware_version: u64,
    context: &AppraisalContext<'_>,
) -> Result<(), Denial> {
    let known = origin.boot();
    let floor = known.map(Boot::counters).max(context.node.highest_counters);
    if let Some(floor) = floor.filter(|floor| counters < *floor) {
        return Err(Finding::new(
            ReasonCode::QuoteResetCountRegressed,
            "TPM counters",
            format!("at least {floor}"),
            counters.to_string(),
        )
        .into());
    }
    let Some(boot) = known else { return Ok(()) };
    if boot.counters() != counters {
        return Err(Finding::new(
            ReasonCode::QuoteBootChanged,
            "TPM counters",
            boot.counters().to_string(),
            counters.to_string(),
        )
        .into());
    }
    if boot.firmware_version != firmware_version {
        return Err(Finding::new(
            ReasonCode::QuoteFirmwareChanged,
            "TPM firmware",
            format!("{:016x}", boot.firmware_version),
            format!("{firmware_version:016x}"),
        )
        .into());
    }
    Ok(())
}

/// Where the node key comes from.
enum KeySource<'e> {
    /// From this evidence: its certification is still to be verified.
    Presented(&'e NodeKeyEvidence),
    /// From the boot's record.
    Stored(CertifiedNodeKey),
}

impl KeySource<'_> {
    fn name(&self) -> Name {
        match self {
            Self::Presented(key) => key.public.name(),
            Self::Stored(key) => key.public().name(),
        }
    }
}

/// Where the knowledge about EK and boot comes from.
enum Origin {
    New { ek: claims::EkClaims, valid_until: Option<i64> },
    Known(Boot),
}

impl Origin {
    /// The boot that was proven before.
    const fn boot(&self) -> Option<&Boot> {
        match self {
            Self::New { .. } => None,
            Self::Known(boot) => Some(boot),
        }
    }

    const fn ek_digest(&self) -> proto::digest::Digest {
        match self {
            Self::New { ek, .. } => ek.digest,
            Self::Known(boot) => boot.ek.digest,
        }
    }

    fn tool_log(&self) -> Option<&Arc<proto::tool_log::ToolLogState>> {
        self.boot().map(|boot| &boot.tool_log)
    }

    fn into_ek(self) -> (claims::EkClaims, Option<i64>) {
        match self {
            Self::New { ek, valid_until } => (ek, valid_until),
            Self::Known(boot) => (boot.ek, boot.ek_valid_until_unix_s),
        }
    }
}
