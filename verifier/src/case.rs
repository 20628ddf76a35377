//! Recorded cases: everything one appraisal read, in one message, so that it can be judged again.

use std::sync::Arc;

use appraisal::{
    Appraisal,
    activation::ActivationChallenge,
    ak::RestrictedAk,
    appraise,
    boot::{Boot, BootDocument},
    claims::ClaimsDocument,
    context::{AppraisalContext, IssuedChallenge, NodeRecord, Signer},
    ek::AllowListed,
    ima::Manifest,
    policy::{Manifests, ReferenceValues},
    verdict::{Denial, Finding, Verdict},
};
use prost::Message;
use proto::{
    binding::{Challenge, VerifierId},
    digest::{Digest, HashAlg, PcrIndex, PcrSelection, PcrSet},
    evidence::{Evidence, Hello, LogKind, LogSuffix},
    pb,
};
use serde::Serialize;

use crate::endorsements::EndorsementSet;

/// Format of [`pb::Case`] that this version writes.
const FORMAT: u32 = 1;
/// Logs up to this size stand in the case; larger ones become objects of their own.
pub const MAX_INLINE_LOG_BYTES: usize = 32 * 1024;

/// What the service gathered for one appraisal.
#[derive(Debug)]
pub struct CaseInputs<'a> {
    /// When.
    pub now_unix_s: i64,
    /// The challenge.
    pub issued: &'a IssuedChallenge,
    /// The inventory's record.
    pub node: &'a NodeRecord,
    /// Endorsements in force.
    pub endorsements: Digest,
    /// Golden set in force.
    pub reference: Option<Digest>,
    /// The tool log's PCR.
    pub tool_pcr: PcrIndex,
    /// As received.
    pub hello: &'a pb::Hello,
    /// As received.
    pub evidence: &'a pb::Evidence,
    /// As received.
    pub logs: &'a [LogSuffix],
    /// SHA-256 of the boot record that a renewal stood on.
    pub known_boot: Option<Digest>,
    /// The secret that was wrapped on a new boot.
    pub activation_secret: Option<[u8; 32]>,
    /// Whether the site's allow-list vouched for the EK.
    pub allow_listed: bool,
}

/// Encodes a case. Large logs are named by digest; the caller stores them as objects.
#[must_use]
pub fn encode(inputs: &CaseInputs<'_>) -> Vec<u8> {
    pb::Case {
        format: FORMAT,
        now_unix_s: inputs.now_unix_s,
        challenge: inputs.issued.challenge.as_bytes().to_vec(),
        verifier_id: inputs.issued.verifier_id.as_bytes().to_vec(),
        pcr_selection: selection_to_pb(&inputs.issued.selection),
        expires_unix_s: inputs.issued.expires_unix_s,
        tool_pcr: u32::from(inputs.tool_pcr.get()),
        node: serde_json::to_vec(inputs.node).unwrap_or_default(),
        endorsements: inputs.endorsements.as_bytes().to_vec(),
        reference: inputs.reference.map(|d| d.as_bytes().to_vec()).unwrap_or_default(),
        hello: Some(inputs.hello.clone()),
        evidence: Some(inputs.evidence.clone()),
        logs: inputs.logs.iter().map(log_to_pb).collect(),
        known_boot: inputs.known_boot.map(|d| d.as_bytes().to_vec()).unwrap_or_default(),
        activation_secret: inputs.activation_secret.map(|s| s.to_vec()).unwrap_or_default(),
        allow_listed: inputs.allow_listed,
    }
    .encode_to_vec()
}

fn log_to_pb(log: &LogSuffix) -> pb::CaseLog {
    let inline = log.bytes.len() <= MAX_INLINE_LOG_BYTES;
    pb::CaseLog {
        kind: log.kind.to_pb().into(),
        from_bytes: log.from_bytes,
        data: if inline { log.bytes.clone() } else { Vec::new() },
        object: if inline {
            Vec::new()
        } else {
            HashAlg::Sha256.hash(&[&log.bytes]).as_bytes().to_vec()
        },
    }
}

/// A selection as messages carry it.
#[must_use]
pub fn selection_to_pb(selection: &PcrSelection) -> Vec<pb::PcrSelection> {
    selection
        .banks()
        .iter()
        .map(|(alg, set)| pb::PcrSelection {
            hash_alg: u32::from(alg.tpm_id()),
            pcr_bits: set.bits(),
        })
        .collect()
}

/// What is recorded of a verdict: deterministic JSON.
#[derive(Debug, Serialize)]
pub struct VerdictDocument<'a> {
    /// `admit` or `deny`.
    pub outcome: &'static str,
    /// Node.
    pub node: &'a str,
    /// Pool.
    pub pool: &'a str,
    /// SHA-256 of the case.
    pub case: Digest,
    /// SHA-256 of the golden set that was asked.
    pub reference: Option<Digest>,
    /// Why not.
    pub findings: Vec<&'a Finding>,
    /// What was proven; absent if an integrity stage refused.
    pub claims: Option<ClaimsDocument>,
}

/// The bytes that are recorded of a verdict.
#[must_use]
pub fn verdict_bytes(appraisal: &Appraisal, context: &AppraisalContext<'_>) -> Vec<u8> {
    let (outcome, findings) = match &appraisal.verdict {
        Verdict::Admit(_) => ("admit", Vec::new()),
        Verdict::Deny(denial) => ("deny", denial.findings().collect()),
    };
    let document = VerdictDocument {
        outcome,
        node: &context.node.name,
        pool: &context.node.pool,
        case: context.case_digest,
        reference: context.reference.map(|reference| *reference.digest()),
        findings,
        claims: appraisal.proven.as_ref().map(|proven| proven.claims.document()),
    };
    serde_json::to_vec(&document).unwrap_or_default()
}

/// Finds objects and golden sets that a case names by digest.
pub trait CaseObjects {
    /// The bytes with this SHA-256.
    ///
    /// # Errors
    /// [`ReplayError::Missing`] if they are not there any more.
    fn object(&self, what: &'static str, digest: &Digest) -> Result<Vec<u8>, ReplayError>;
    /// The golden set's document with this SHA-256.
    ///
    /// # Errors
    /// As [`CaseObjects::object`].
    fn golden(&self, digest: &Digest) -> Result<Vec<u8>, ReplayError>;
    /// The manifest with this SHA-256, as golden sets name it.
    ///
    /// # Errors
    /// As [`CaseObjects::object`].
    fn manifest(&self, digest: &Digest) -> Result<Arc<Manifest>, ReplayError>;
}

/// Why a case cannot be judged again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The case's bytes are damaged.
    #[error("the recorded case is damaged: {0}")]
    Damaged(String),
    /// Something it refers to is gone.
    #[error(
        "{what} {digest} is not there any more: retention dropped it, or the store is incomplete"
    )]
    Missing {
        /// What.
        what: &'static str,
        /// Its digest.
        digest: Digest,
    },
}

/// Judges a recorded case again; returns the bytes of the verdict.
///
/// # Errors
/// [`ReplayError`] if the case or what it refers to cannot be read: that is no verdict.
pub fn replay(case_bytes: &[u8], objects: &impl CaseObjects) -> Result<Vec<u8>, ReplayError> {
    let case = pb::Case::decode(case_bytes).map_err(|e| damaged(e.to_string()))?;
    if case.format != FORMAT {
        return Err(damaged(format!("format {}, expected {FORMAT}", case.format)));
    }
    let endorsements_digest = digest("endorsements", &case.endorsements)?;
    let endorsements =
        EndorsementSet::from_object(&objects.object("endorsement set", &endorsements_digest)?)
            .map_err(|e| damaged(e.to_string()))?;
    let tool_pcr = u8::try_from(case.tool_pcr)
        .ok()
        .and_then(PcrIndex::new)
        .ok_or_else(|| damaged(format!("tool PCR {}", case.tool_pcr)))?;
    let reference = reference(&case, tool_pcr, objects)?;
    let node: NodeRecord =
        serde_json::from_slice(&case.node).map_err(|e| damaged(format!("node: {e}")))?;
    let issued = IssuedChallenge {
        challenge: Challenge::new(array("challenge", &case.challenge)?),
        verifier_id: VerifierId::new(array("verifier_id", &case.verifier_id)?),
        selection: selection(&case.pcr_selection)?,
        expires_unix_s: case.expires_unix_s,
    };
    let context = AppraisalContext {
        now_unix_s: case.now_unix_s,
        challenge: &issued,
        node: &node,
        endorsements: endorsements_digest,
        tool_pcr,
        reference: reference.as_deref(),
        case_digest: HashAlg::Sha256.hash(&[case_bytes]),
    };
    let hello: Hello = case
        .hello
        .clone()
        .ok_or_else(|| damaged("no hello"))?
        .try_into()
        .map_err(|e: proto::evidence::EvidenceError| damaged(e.to_string()))?;
    let evidence = evidence(&case, objects)?;
    let appraisal = match signer(&case, &hello, &endorsements, objects)? {
        Ok(signer) => appraise(&evidence, signer, &context),
        Err(denial) => Appraisal { verdict: Verdict::Deny(denial), proven: None },
    };
    Ok(verdict_bytes(&appraisal, &context))
}

fn signer(
    case: &pb::Case,
    hello: &Hello,
    endorsements: &EndorsementSet,
    objects: &impl CaseObjects,
) -> Result<Result<Signer, Denial>, ReplayError> {
    if !case.known_boot.is_empty() {
        let bytes = objects.object("boot record", &digest("known_boot", &case.known_boot)?)?;
        let document: BootDocument =
            serde_json::from_slice(&bytes).map_err(|e| damaged(format!("boot record: {e}")))?;
        let boot = Boot::assert_from_store(document).map_err(|e| damaged(e.to_string()))?;
        return Ok(Ok(Signer::Known(boot)));
    }
    let allow_listed = if case.allow_listed {
        AllowListed::ByDigest(appraisal::ek::ek_digest(&hello.ek_public))
    } else {
        AllowListed::No
    };
    let secret = array("activation_secret", &case.activation_secret)?;
    Ok(endorsements.verify(hello, allow_listed, case.now_unix_s).and_then(|ek| {
        let ak = RestrictedAk::verify(&hello.ak_public)?;
        let activation = ActivationChallenge::new(&ek, ak, secret);
        Ok(Signer::Activating { ek, activation })
    }))
}

fn evidence(case: &pb::Case, objects: &impl CaseObjects) -> Result<Evidence, ReplayError> {
    let mut evidence: Evidence = case
        .evidence
        .clone()
        .ok_or_else(|| damaged("no evidence"))?
        .try_into()
        .map_err(|e: proto::evidence::EvidenceError| damaged(e.to_string()))?;
    for log in &case.logs {
        let kind =
            LogKind::from_pb("case.logs[].kind", log.kind).map_err(|e| damaged(e.to_string()))?;
        let bytes = if log.object.is_empty() {
            log.data.clone()
        } else {
            objects.object("log", &digest("logs[].object", &log.object)?)?
        };
        evidence.logs.push(LogSuffix { kind, from_bytes: log.from_bytes, bytes });
    }
    Ok(evidence)
}

fn reference(
    case: &pb::Case,
    tool_pcr: PcrIndex,
    objects: &impl CaseObjects,
) -> Result<Option<Arc<ReferenceValues>>, ReplayError> {
    if case.reference.is_empty() {
        return Ok(None);
    }
    let bytes = objects.golden(&digest("reference", &case.reference)?)?;
    let text = String::from_utf8(bytes).map_err(|_| damaged("golden set is not UTF-8"))?;
    let manifests = match ReferenceValues::manifest_named_by(&text) {
        Some(digest) => Manifests::from([(digest, objects.manifest(&digest)?)]),
        None => Manifests::new(),
    };
    let parsed = ReferenceValues::parse(&text, tool_pcr, &manifests).map_err(|problems| {
        damaged(problems.first().map_or_else(String::new, ToString::to_string))
    })?;
    Ok(Some(Arc::new(parsed)))
}

fn selection(banks: &[pb::PcrSelection]) -> Result<PcrSelection, ReplayError> {
    let banks: Option<Vec<_>> = banks
        .iter()
        .map(|bank| {
            let alg = u16::try_from(bank.hash_alg).ok().and_then(HashAlg::from_tpm)?;
            Some((alg, PcrSet::from_bits(bank.pcr_bits)?))
        })
        .collect();
    banks.map(PcrSelection::new).ok_or_else(|| damaged("PCR selection"))
}

fn array(what: &str, bytes: &[u8]) -> Result<[u8; 32], ReplayError> {
    bytes.try_into().map_err(|_| damaged(format!("{what} has {} bytes", bytes.len())))
}

fn digest(what: &str, bytes: &[u8]) -> Result<Digest, ReplayError> {
    Digest::new(HashAlg::Sha256, bytes).map_err(|e| damaged(format!("{what}: {e}")))
}

fn damaged(why: impl Into<String>) -> ReplayError {
    ReplayError::Damaged(why.into())
}
