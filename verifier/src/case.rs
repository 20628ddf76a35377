//! Recorded cases: everything one appraisal read, in one message, so that it can be judged again.

use std::sync::Arc;

use appraisal::{
    Appraisal, StagedOutcome,
    activation::ActivationChallenge,
    ak::RestrictedAk,
    appraise,
    boot::{Boot, BootDocument},
    claims::ClaimsDocument,
    context::{self, AppraisalContext, IssuedChallenge, JobContext, NodeRecord, Signer},
    ek::{AllowListed, TrustedEk},
    ima::Manifest,
    policy::{GoldenSet, Manifests},
    verdict::{Denial, Finding, Verdict},
};
use prost::Message;
use proto::{
    binding::{Challenge, JobBinding, Purpose, VerifierId},
    digest::{Digest, HashAlg, PcrIndex, PcrSelection, PcrSet},
    evidence::{Evidence, Hello, LogKind, LogSuffix},
    pb,
    tpm::name::Name,
};
use serde::Serialize;

use crate::{
    endorsements::EndorsementSet,
    expectations::{Compiled, Expected, Named, PoolExpectations},
    store::DocumentKind,
};

/// Format of [`pb::Case`] that this version writes.
const FORMAT: u32 = 2;
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
    /// Golden sets and policies that judge, or are staged.
    pub documents: &'a [Named],
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
    /// The job that asked for a permit.
    pub job: Option<&'a JobContext>,
}

/// Encodes a case. Large logs are named by digest; the caller stores them as objects.
#[must_use]
pub fn encode(inputs: &CaseInputs<'_>) -> Vec<u8> {
    let (hello, job_token_sha256) = without_token(inputs.hello);
    pb::Case {
        format: FORMAT,
        now_unix_s: inputs.now_unix_s,
        challenge: inputs.issued.challenge.as_bytes().to_vec(),
        verifier_id: inputs.issued.verifier_id.as_bytes().to_vec(),
        pcr_selection: selection_to_pb(&inputs.issued.selection),
        required_selection: selection_to_pb(&inputs.issued.required),
        expires_unix_s: inputs.issued.expires_unix_s,
        tool_pcr: u32::from(inputs.tool_pcr.get()),
        node: serde_json::to_vec(inputs.node).unwrap_or_default(),
        endorsements: inputs.endorsements.as_bytes().to_vec(),
        documents: inputs.documents.iter().map(named_to_pb).collect(),
        hello: Some(hello),
        evidence: Some(inputs.evidence.clone()),
        logs: inputs.logs.iter().map(log_to_pb).collect(),
        known_boot: inputs.known_boot.map(|d| d.as_bytes().to_vec()).unwrap_or_default(),
        activation_secret: inputs.activation_secret.map(|s| s.to_vec()).unwrap_or_default(),
        allow_listed: inputs.allow_listed,
        job_token_sha256,
        job: inputs.job.map(|job| serde_json::to_vec(job).unwrap_or_default()).unwrap_or_default(),
    }
    .encode_to_vec()
}

/// A Hello as it is kept: with the token a reader of the case could act as the job at its CI system.
fn without_token(hello: &pb::Hello) -> (pb::Hello, Vec<u8>) {
    let mut hello = hello.clone();
    let Some(job) = &mut hello.job else { return (hello, Vec::new()) };
    let token = std::mem::take(&mut job.token);
    (hello, HashAlg::Sha256.hash(&[token.as_bytes()]).as_bytes().to_vec())
}

fn named_to_pb(named: &Named) -> pb::CaseDocument {
    pb::CaseDocument {
        kind: named.kind.as_str().to_owned(),
        is_staged: named.is_staged,
        sha256: named.sha256.as_bytes().to_vec(),
    }
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
    /// Digest over the golden sets that were asked.
    pub reference: Option<Digest>,
    /// What of them was met, or is nearest.
    pub judged_by: &'a str,
    /// Why not.
    pub findings: Vec<&'a Finding>,
    /// What staged golden sets and policies say; nothing of it was enforced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staged: Option<&'a StagedOutcome>,
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
        reference: context.in_force.reference.map(|reference| *reference.digest()),
        judged_by: &appraisal.judged_by,
        findings,
        staged: appraisal.staged.as_ref(),
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
    /// The reference document with this SHA-256.
    ///
    /// # Errors
    /// As [`CaseObjects::object`].
    fn document(&self, digest: &Digest) -> Result<Vec<u8>, ReplayError>;
    /// The manifest with this SHA-256, as golden sets name it.
    ///
    /// # Errors
    /// As [`CaseObjects::object`].
    fn manifest(&self, digest: &Digest) -> Result<Arc<Manifest>, ReplayError>;
    /// The endorsement set with this SHA-256.
    ///
    /// # Errors
    /// As [`CaseObjects::object`], or [`ReplayError::Damaged`].
    fn endorsements(&self, digest: &Digest) -> Result<Arc<EndorsementSet>, ReplayError> {
        let bytes = self.object("endorsement set", digest)?;
        let set = EndorsementSet::from_object(&bytes).map_err(|e| damaged(e.to_string()))?;
        Ok(Arc::new(set))
    }
}

/// Why a case cannot be judged again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The case's bytes are damaged.
    #[error("the recorded case is damaged: {0}")]
    Damaged(String),
    /// It was recorded by another version of this program.
    #[error(
        "the case has format {found}, this program judges format {FORMAT}: judge it with the version that recorded it"
    )]
    Format {
        /// Format of the case.
        found: u32,
    },
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
    let case = RecordedCase::read(case_bytes)?;
    let expected = expectations(&case.message, &case.node.pool, case.tool_pcr, objects)?;
    let staged = expected.staged.as_ref().map(Expected::as_context);
    let context = case.context(&case.node, expected.in_force.as_context(), staged);
    let appraisal = case.appraise(&context, objects)?;
    Ok(verdict_bytes(&appraisal, &context))
}

/// A recorded case, read: to be judged again, by what it was judged by or by something else.
#[derive(Debug)]
pub struct RecordedCase {
    message: pb::Case,
    /// SHA-256 of its bytes.
    digest: Digest,
    endorsements: Digest,
    tool_pcr: PcrIndex,
    node: NodeRecord,
    issued: IssuedChallenge,
    hello: Hello,
    job: Option<JobContext>,
}

impl RecordedCase {
    /// Reads a case.
    ///
    /// # Errors
    /// [`ReplayError::Damaged`], [`ReplayError::Format`].
    pub fn read(bytes: &[u8]) -> Result<Self, ReplayError> {
        if bytes.is_empty() {
            return Err(damaged("it is empty"));
        }
        let message = pb::Case::decode(bytes).map_err(|e| damaged(e.to_string()))?;
        if message.format != FORMAT {
            return Err(ReplayError::Format { found: message.format });
        }
        let tool_pcr = u8::try_from(message.tool_pcr)
            .ok()
            .and_then(PcrIndex::new)
            .ok_or_else(|| damaged(format!("tool PCR {}", message.tool_pcr)))?;
        let node: NodeRecord =
            serde_json::from_slice(&message.node).map_err(|e| damaged(format!("node: {e}")))?;
        let issued = IssuedChallenge {
            purpose: Purpose::Node,
            challenge: Challenge::new(array("challenge", &message.challenge)?),
            verifier_id: VerifierId::new(array("verifier_id", &message.verifier_id)?),
            selection: selection(&message.pcr_selection)?,
            required: selection(&message.required_selection)?,
            expires_unix_s: message.expires_unix_s,
        };
        let hello: Hello = message
            .hello
            .clone()
            .ok_or_else(|| damaged("no hello"))?
            .try_into()
            .map_err(|e: proto::evidence::EvidenceError| damaged(e.to_string()))?;
        let purpose = match hello.purpose() {
            Purpose::Node => Purpose::Node,
            Purpose::Permit(job) => Purpose::Permit(JobBinding {
                token: digest("job_token_sha256", &message.job_token_sha256)?,
                ..job
            }),
        };
        let issued = IssuedChallenge { purpose, ..issued };
        let job = match message.job.as_slice() {
            [] => None,
            json => Some(serde_json::from_slice(json).map_err(|e| damaged(format!("job: {e}")))?),
        };
        Ok(Self {
            job,
            digest: HashAlg::Sha256.hash(&[bytes]),
            endorsements: digest("endorsements", &message.endorsements)?,
            tool_pcr,
            node,
            issued,
            hello,
            message,
        })
    }

    /// What it was judged in, but for what it is judged by now.
    #[must_use]
    pub fn context<'c>(
        &'c self,
        node: &'c NodeRecord,
        in_force: context::Expected<'c>,
        staged: Option<context::Expected<'c>>,
    ) -> AppraisalContext<'c> {
        AppraisalContext {
            now_unix_s: self.message.now_unix_s,
            challenge: &self.issued,
            node,
            endorsements: self.endorsements,
            tool_pcr: self.tool_pcr,
            in_force,
            staged,
            job: self.job.as_ref(),
            case_digest: self.digest,
        }
    }

    /// The inventory's record as it was then.
    #[must_use]
    pub const fn node(&self) -> &NodeRecord {
        &self.node
    }

    /// Name of the AK: one boot, if it did not prove itself anew.
    #[must_use]
    pub fn ak_name(&self) -> Name {
        self.hello.ak_public.name()
    }

    /// PCRs that the quote was to cover.
    pub fn asked_for(&self) -> impl Iterator<Item = (HashAlg, PcrIndex)> {
        self.issued.selection.iter()
    }

    /// Whether the worker said that it has such a log.
    #[must_use]
    pub fn has_log(&self, kind: LogKind) -> bool {
        self.hello.logs.iter().any(|(known, _)| *known == kind)
    }

    /// What the case has of a log.
    ///
    /// # Errors
    /// [`ReplayError`] if it cannot be read.
    pub fn log(
        &self,
        kind: LogKind,
        objects: &impl CaseObjects,
    ) -> Result<Option<LogSuffix>, ReplayError> {
        let found = self.message.logs.iter().find(|log| log.kind == i32::from(kind.to_pb()));
        found.map(|log| log_suffix(log, objects)).transpose()
    }

    /// Judges it.
    ///
    /// # Errors
    /// [`ReplayError`] if what it refers to cannot be read: that is no verdict.
    pub fn appraise(
        &self,
        context: &AppraisalContext<'_>,
        objects: &impl CaseObjects,
    ) -> Result<Appraisal, ReplayError> {
        Ok(self.open(objects)?.appraise(context))
    }

    /// Reads what it refers to, so that it can be judged several times.
    ///
    /// # Errors
    /// [`ReplayError`] if that cannot be read.
    pub fn open(&self, objects: &impl CaseObjects) -> Result<OpenedCase, ReplayError> {
        let evidence = evidence(&self.message, objects)?;
        Ok(OpenedCase { evidence, origin: self.origin(objects)? })
    }

    fn origin(&self, objects: &impl CaseObjects) -> Result<Origin, ReplayError> {
        let case = &self.message;
        if !case.known_boot.is_empty() {
            let bytes = objects.object("boot record", &digest("known_boot", &case.known_boot)?)?;
            let document: BootDocument =
                serde_json::from_slice(&bytes).map_err(|e| damaged(format!("boot record: {e}")))?;
            let boot = Boot::assert_from_store(document).map_err(|e| damaged(e.to_string()))?;
            return Ok(Origin::Known(boot));
        }
        let hello = &self.hello;
        let allow_listed = if case.allow_listed {
            AllowListed::ByDigest(appraisal::ek::ek_digest(&hello.ek_public))
        } else {
            AllowListed::No
        };
        let secret = array("activation_secret", &case.activation_secret)?;
        let endorsements = objects.endorsements(&self.endorsements)?;
        let judged = endorsements
            .verify(hello, allow_listed, case.now_unix_s)
            .and_then(|ek| Ok((ek, RestrictedAk::verify(&hello.ak_public)?)));
        Ok(match judged {
            Ok((ek, ak)) => Origin::New { ek, ak, secret },
            Err(denial) => Origin::Refused(denial),
        })
    }
}

/// A recorded case with what it refers to.
#[derive(Clone, Debug)]
pub struct OpenedCase {
    evidence: Evidence,
    origin: Origin,
}

/// Who signed the quote.
#[derive(Clone, Debug)]
enum Origin {
    /// A boot that was proven before.
    Known(Boot),
    /// A boot that is proven by this.
    New { ek: TrustedEk, ak: RestrictedAk, secret: [u8; 32] },
    /// Nobody whom the endorsements vouch for.
    Refused(Denial),
}

impl OpenedCase {
    /// Judges it.
    pub fn appraise(&self, context: &AppraisalContext<'_>) -> Appraisal {
        let signer = match &self.origin {
            Origin::Known(boot) => Signer::Known(boot.clone()),
            Origin::New { ek, ak, secret } => {
                let (ek, ak) = (ek.clone(), ak.clone());
                let activation = ActivationChallenge::new(&ek, ak, *secret);
                Signer::Activating { ek, activation }
            }
            Origin::Refused(denial) => return Appraisal::refused(denial.clone()),
        };
        appraise(&self.evidence, signer, context)
    }

    /// The boot that it stands on, if it is a renewal.
    #[must_use]
    pub const fn known_boot(&self) -> Option<&Boot> {
        match &self.origin {
            Origin::Known(boot) => Some(boot),
            Origin::New { .. } | Origin::Refused(_) => None,
        }
    }

    /// What it has of a log.
    #[must_use]
    pub fn log(&self, kind: LogKind) -> Option<&LogSuffix> {
        self.evidence.log(kind)
    }

    /// Where it has the kernel's whole list: to be read from the first byte on, whatever was known of it.
    ///
    /// Which rules judge decides whether a renewal continues a list, and others may judge now than did then.
    #[must_use]
    pub fn reading_the_whole_list(mut self) -> Self {
        let is_whole = self.log(LogKind::Ima).is_some_and(|log| log.from_bytes == 0);
        self.origin = match self.origin {
            Origin::Known(boot) if is_whole => Origin::Known(boot.without_ima()),
            other => other,
        };
        self
    }

    /// With this in place of what it has of a log of the kind.
    #[must_use]
    pub fn with_log(&self, log: LogSuffix) -> Self {
        let mut out = self.clone();
        out.evidence.logs.retain(|known| known.kind != log.kind);
        out.evidence.logs.push(log);
        out
    }
}

fn evidence(case: &pb::Case, objects: &impl CaseObjects) -> Result<Evidence, ReplayError> {
    let mut evidence: Evidence = case
        .evidence
        .clone()
        .ok_or_else(|| damaged("no evidence"))?
        .try_into()
        .map_err(|e: proto::evidence::EvidenceError| damaged(e.to_string()))?;
    for log in &case.logs {
        evidence.logs.push(log_suffix(log, objects)?);
    }
    Ok(evidence)
}

fn log_suffix(log: &pb::CaseLog, objects: &impl CaseObjects) -> Result<LogSuffix, ReplayError> {
    let kind =
        LogKind::from_pb("case.logs[].kind", log.kind).map_err(|e| damaged(e.to_string()))?;
    let bytes = if log.object.is_empty() {
        log.data.clone()
    } else {
        objects.object("log", &digest("logs[].object", &log.object)?)?
    };
    Ok(LogSuffix { kind, from_bytes: log.from_bytes, bytes })
}

/// What the pool was judged by then.
fn expectations(
    case: &pb::Case,
    pool: &str,
    tool_pcr: PcrIndex,
    objects: &impl CaseObjects,
) -> Result<PoolExpectations, ReplayError> {
    let mut compiled = Vec::with_capacity(case.documents.len());
    for named in &case.documents {
        let sha256 = digest("documents[].sha256", &named.sha256)?;
        let kind: DocumentKind =
            named.kind.parse().map_err(|_| damaged(format!("document kind {:?}", named.kind)))?;
        let text = String::from_utf8(objects.document(&sha256)?)
            .map_err(|_| damaged("a reference document is not UTF-8"))?;
        let mut manifests = Manifests::new();
        for digest in GoldenSet::manifests_named_by(&text) {
            manifests.insert(digest, objects.manifest(&digest)?);
        }
        let parsed = Compiled::parse(kind, &text, named.is_staged, sha256, tool_pcr, &manifests)
            .map_err(|problems| {
                damaged(problems.first().map_or_else(String::new, ToString::to_string))
            })?;
        compiled.extend(parsed);
    }
    Ok(PoolExpectations::compile(pool, &compiled))
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
