//! Every entry against the policy.

use std::{collections::BTreeMap, sync::Arc};

use proto::{
    digest::Digest,
    ima::{BankDigest, Fields, FileDigest, ImaEntry},
    reason::ReasonCode,
    tool_log::path_text,
};

use super::{
    keyring::SignatureCheck,
    policy::{ImaPolicy, Require},
    replay::{AnchoredImaList, subject},
    state::{ImaCounts, ImaJudged, ImaState, TemplateHashing},
};
use crate::verdict::{Denial, Finding};

/// Findings about one boot's list that are kept; entries after so many are counted, not judged: the
/// denial is certain, and signatures of a hostile list are not worth checking.
pub const MAX_IMA_FINDINGS: usize = 64;
/// Entries whose rows of the manifest are fetched together: their waits for memory overlap.
const BATCH: usize = 16;
/// Digests that a finding names as expected.
const MAX_EXPECTED: usize = 3;

/// What a policy says of a list.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// Findings of the whole boot, by entry; empty: everything is accepted.
    pub findings: Vec<Finding>,
    /// What a renewal continues from, these findings included.
    pub state: ImaState,
}

/// What several policies say of a list.
#[derive(Clone, Debug)]
pub struct Judgements {
    /// Findings of the whole boot by [`ImaPolicy::digest`].
    pub findings: BTreeMap<Digest, Vec<Finding>>,
    /// What a renewal continues from, these findings included.
    pub state: ImaState,
}

/// What is known of the kernel's list when a golden set asks for it.
#[derive(Clone, Debug)]
pub enum ImaEvidence {
    /// The worker sent none.
    Absent,
    /// It does not lead to what was quoted, and not every accepted alternative reads it.
    Unusable(Denial),
    /// It was judged.
    Judged(BTreeMap<Digest, Vec<Finding>>),
}

impl ImaEvidence {
    /// What stands against the node by this policy.
    #[must_use]
    pub fn findings(&self, policy: &Digest) -> Vec<Finding> {
        let missing = |observed: String| {
            vec![Finding::new(
                ReasonCode::PolicyImaListMissing,
                "IMA list",
                "a list that replays to PCR 10",
                observed,
            )]
        };
        match self {
            Self::Absent => missing("no list was sent".to_owned()),
            Self::Unusable(denial) => {
                missing(format!("the list could not be used: {}", denial.code()))
            }
            Self::Judged(by_policy) => by_policy
                .get(policy)
                .cloned()
                .unwrap_or_else(|| missing("a list that this policy did not judge".to_owned())),
        }
    }
}

/// Judges what a list gained, on top of how the entries before it were judged.
///
/// The findings are those of the whole boot: what was refused once stays refused, although a renewal does not send it again.
/// If the policy did not judge the entries before, the one finding is `IMA_OFFSET_INVALID`: the whole list has to be asked
/// for (see [`ImaState::is_judged_by`]).
#[must_use]
pub fn judge(list: &AnchoredImaList<'_>, policy: &ImaPolicy) -> Judgement {
    let mut state = ImaState { judged: Vec::new(), ..list.state.clone() };
    let findings = judge_into(&mut state, list, policy);
    Judgement { findings, state }
}

/// As [`judge`], by each policy.
#[must_use]
pub fn judge_by_all(list: &AnchoredImaList<'_>, policies: &[&Arc<ImaPolicy>]) -> Judgements {
    let mut state = ImaState { judged: Vec::new(), ..list.state.clone() };
    let mut findings = BTreeMap::new();
    for policy in policies {
        findings.insert(*policy.digest(), judge_into(&mut state, list, policy));
    }
    Judgements { findings, state }
}

fn judge_into(
    state: &mut ImaState,
    list: &AnchoredImaList<'_>,
    policy: &ImaPolicy,
) -> Vec<Finding> {
    match judge_by(list, policy) {
        Ok(judged) => {
            let findings = judged.findings.clone();
            state.judged.push(judged);
            findings
        }
        Err(whole_list_needed) => vec![whole_list_needed],
    }
}

fn judge_by(list: &AnchoredImaList<'_>, policy: &ImaPolicy) -> Result<ImaJudged, Finding> {
    let (judged, first) = match &list.known {
        None => (ImaJudged::new(policy), 0),
        Some(known) => match known.judged_by(policy.digest()) {
            Some(judged) => (judged.clone(), known.entries),
            None => return Err(whole_list_needed(known.entries)),
        },
    };
    let mut judge = Judge { policy, state: &list.state, judged };
    if first == 0 {
        judge.hashing();
    }
    let mut entries = (first..).zip(list.new_entries());
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        batch.extend(entries.by_ref().take(BATCH));
        if batch.is_empty() {
            break;
        }
        policy.look_ahead(&batch);
        for (index, entry) in batch.drain(..) {
            judge.entry(index, &entry);
        }
    }
    Ok(judge.judged)
}

fn whole_list_needed(known: u64) -> Finding {
    Finding::new(
        ReasonCode::ImaOffsetInvalid,
        "IMA list",
        "the whole list, because the policy changed",
        format!("what follows {known} entries"),
    )
}

impl ImaJudged {
    fn new(policy: &ImaPolicy) -> Self {
        let counts = ImaCounts::default();
        Self { policy: *policy.digest(), counts, findings: Vec::new(), unjudged: 0 }
    }
}

struct Judge<'j> {
    policy: &'j ImaPolicy,
    state: &'j ImaState,
    judged: ImaJudged,
}

impl Judge<'_> {
    /// How the list is bound to the quote, once a boot.
    fn hashing(&mut self) {
        for bank in &self.state.banks {
            if bank.hashing == TemplateHashing::PaddedSha1 && !self.policy.allow_padded_sha1 {
                let alg = bank.value.alg();
                self.judged.findings.push(Finding::new(
                    ReasonCode::PolicyImaDigestWeak,
                    format!("PCR {} ({alg})", self.state.pcr),
                    format!("extended with {alg} digests"),
                    "extended with padded SHA-1 digests",
                ));
            }
        }
    }

    fn entry(&mut self, index: u64, entry: &ImaEntry<'_>) {
        if self.judged.findings.len() >= MAX_IMA_FINDINGS {
            self.judged.unjudged = self.judged.unjudged.saturating_add(1);
            return;
        }
        let counts = &mut self.judged.counts;
        let counter = match accept(self.policy, self.state, entry) {
            Ok(Ground::BootAggregate) => &mut counts.boot_aggregates,
            Ok(Ground::Excluded) => &mut counts.excluded,
            Ok(Ground::Manifest) => &mut counts.by_manifest,
            Ok(Ground::Signature) => &mut counts.by_signature,
            Ok(Ground::Violation) => &mut counts.violations,
            Err(refusal) => {
                let Refusal { code, expected, observed } = refusal;
                let finding = Finding::new(code, subject(index, entry), expected, observed);
                self.judged.findings.push(finding);
                &mut counts.refused
            }
        };
        *counter = counter.saturating_add(1);
    }
}

/// Why an entry is accepted.
enum Ground {
    BootAggregate,
    Excluded,
    Manifest,
    Signature,
    Violation,
}

/// Why it is not.
struct Refusal {
    code: ReasonCode,
    expected: String,
    observed: String,
}

fn refuse<T>(
    code: ReasonCode,
    expected: impl Into<String>,
    observed: impl Into<String>,
) -> Result<T, Refusal> {
    Err(Refusal { code, expected: expected.into(), observed: observed.into() })
}

/// Whether the policy accepts an entry.
///
/// Only what the template digest vouches for is looked at. The template's name is not: an entry that is
/// read under another one loses its name, its digest or its signature, or gains a buffer that does not
/// hash to its digest, and none of that makes it more acceptable. A list of fields in which a value that
/// somebody may choose stands before the digest is refused: it could be read as the digest.
fn accept(policy: &ImaPolicy, state: &ImaState, entry: &ImaEntry<'_>) -> Result<Ground, Refusal> {
    let Some(fields) = entry.vouched() else {
        if policy.allow_violations {
            return Ok(Ground::Violation);
        }
        let name = entry.untrusted_fields().name.map_or_else(|| "no name".to_owned(), path_text);
        let observed = format!("a violation, said to be of {name}");
        return refuse(ReasonCode::PolicyImaViolation, "no violation", observed);
    };
    let (Some(digest), Some(name)) = (&fields.digest, fields.name) else {
        let observed = format!("template {}", entry.template.untrusted_name());
        let code = ReasonCode::PolicyImaFileNotAllowed;
        return refuse(code, "an entry with a digest and a name", observed);
    };
    if !entry.template.has_a_digest_of_its_own_first() {
        let observed = format!("template {}", entry.template.untrusted_name());
        let expected = "the file's digest before signatures, buffers and attributes";
        return refuse(ReasonCode::ImaTemplateUnsupported, expected, observed);
    }
    if policy.denies(digest) {
        return refuse(ReasonCode::PolicyImaFileDenied, "another file", digest.to_string());
    }
    if entry.is_boot_aggregate() {
        return boot_aggregate(state, digest);
    }
    let alg = digest.algorithm.and_then(|alg| alg.appraised());
    if let (Some(buffer), Some(alg)) = (fields.buffer, alg) {
        let hashed = alg.hash(&[buffer]);
        if hashed.as_bytes() != digest.bytes {
            let observed = format!("{digest} beside a buffer of {} bytes", buffer.len());
            return refuse(ReasonCode::PolicyImaFileNotAllowed, hashed.to_string(), observed);
        }
    }
    let in_manifest = policy.in_manifest(digest, name);
    // Before the exclusions, which take longer to look through.
    if in_manifest && policy.require == Require::Either {
        return Ok(Ground::Manifest);
    }
    if policy.excludes(name) {
        return Ok(Ground::Excluded);
    }
    if alg.is_none() {
        let expected = "a digest of sha256, sha384 or sha512";
        return refuse(ReasonCode::PolicyImaDigestWeak, expected, digest.to_string());
    }
    match (checked(policy, fields, digest), policy.require) {
        (Some(SignatureCheck::Good { .. }), Require::Both) if !in_manifest => {
            not_allowed(policy, digest, name)
        }
        (Some(SignatureCheck::Good { .. }), _) => Ok(Ground::Signature),
        (Some(SignatureCheck::Bad(why)), _) => bad_signature(digest, &why),
        (Some(SignatureCheck::NotOurs(_)) | None, Require::Either) => {
            not_allowed(policy, digest, name)
        }
        (Some(SignatureCheck::NotOurs(why)), Require::Both) => no_signature(digest, &why),
        (None, Require::Both) => no_signature(digest, "there is no signature"),
    }
}

/// After the first entry there is one at each kexec; firmware's PCRs are what they were.
fn boot_aggregate(state: &ImaState, digest: &FileDigest<'_>) -> Result<Ground, Refusal> {
    let observed = digest.algorithm.and_then(|alg| BankDigest::new(alg.bank()?, digest.bytes).ok());
    if observed == Some(state.boot_aggregate.digest) {
        return Ok(Ground::BootAggregate);
    }
    let expected = state.boot_aggregate.digest.to_string();
    refuse(ReasonCode::ImaBootAggregateMismatch, expected, digest.to_string())
}

/// The signature's worth, if there is one and there are keys.
fn checked(
    policy: &ImaPolicy,
    fields: &Fields<'_>,
    digest: &FileDigest<'_>,
) -> Option<SignatureCheck> {
    Some(policy.keyring()?.check(fields.signature?, digest))
}

fn bad_signature(digest: &FileDigest<'_>, why: &str) -> Result<Ground, Refusal> {
    let expected = "a signature of a key of the policy over the file";
    refuse(ReasonCode::PolicyImaSignatureInvalid, expected, format!("{digest}: {why}"))
}

fn no_signature(digest: &FileDigest<'_>, why: &str) -> Result<Ground, Refusal> {
    let expected = "a signature of a key of the policy";
    refuse(ReasonCode::PolicyImaSignatureMissing, expected, format!("{digest}: {why}"))
}

fn not_allowed(
    policy: &ImaPolicy,
    digest: &FileDigest<'_>,
    name: &[u8],
) -> Result<Ground, Refusal> {
    let known = policy
        .manifest()
        .map(|manifest| manifest.digests_of(name, MAX_EXPECTED))
        .unwrap_or_default();
    let expected = match (policy.manifest(), policy.keyring()) {
        _ if !known.is_empty() => known.join(" or "),
        (Some(manifest), None) => format!("a file of manifest {}", manifest.name()),
        (Some(manifest), Some(_)) => {
            format!("a file of manifest {} or signed by a key of the policy", manifest.name())
        }
        (None, _) => "a file signed by a key of the policy".to_owned(),
    };
    refuse(ReasonCode::PolicyImaFileNotAllowed, expected, digest.to_string())
}
