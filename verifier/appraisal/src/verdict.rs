//! What an appraisal answers: findings, a denial, a verdict.

use proto::{binding::Purpose, digest::Digest, reason::ReasonCode, tpm::public::Public};
use serde::{Deserialize, Serialize};

use crate::boot::Counters;

/// One reason for a refusal, with what it is about.
///
/// The worker is told `code`, `subject` and `observed`; `expected` stays in the audit record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// Stable code.
    pub code: ReasonCode,
    /// What the finding is about, for example `PCR 4 (sha256)` or `tool gcc: /usr/bin/gcc-12`.
    pub subject: String,
    /// What policy or the protocol expected, in words or digests.
    pub expected: String,
    /// What was seen.
    pub observed: String,
}

/// Findings that say what the evidence lacks, not what the node is: more evidence may take them away.
const LACKING: [ReasonCode; 3] = [
    ReasonCode::PcrSelectionIncomplete,
    ReasonCode::PolicyImaListMissing,
    ReasonCode::ImaOffsetInvalid,
];

impl Finding {
    /// Whether it says what the evidence lacks, not what the node is.
    #[must_use]
    pub fn is_of_lacking_evidence(&self) -> bool {
        LACKING.contains(&self.code)
    }

    /// A finding.
    pub fn new(
        code: ReasonCode,
        subject: impl Into<String>,
        expected: impl Into<String>,
        observed: impl Into<String>,
    ) -> Self {
        Self { code, subject: subject.into(), expected: expected.into(), observed: observed.into() }
    }
}

/// A refusal: at least one finding, sorted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub struct Denial {
    first: Finding,
    rest: Vec<Finding>,
}

impl Denial {
    /// A refusal for one reason.
    pub fn one(finding: Finding) -> Self {
        Self { first: finding, rest: Vec::new() }
    }

    /// A refusal for every finding, sorted; `None` if there is none.
    pub fn all(mut findings: Vec<Finding>) -> Option<Self> {
        findings.sort();
        findings.dedup();
        let mut findings = findings.into_iter();
        let first = findings.next()?;
        Some(Self { first, rest: findings.collect() })
    }

    /// The findings, sorted.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// The code of the first finding.
    #[must_use]
    pub const fn code(&self) -> ReasonCode {
        self.first.code
    }
}

impl From<Finding> for Denial {
    fn from(finding: Finding) -> Self {
        Self::one(finding)
    }
}

/// The answer of an appraisal.
#[derive(Debug)]
#[must_use]
pub enum Verdict {
    /// Every check passed.
    Admit(Admission),
    /// At least one did not.
    Deny(Denial),
}

/// Permission to issue one certificate, or one job's permit, for one node, one key, once, soon.
///
/// # Proves
/// Every integrity stage and every policy rule passed for this node and this key. Only [`crate::appraise`] builds it;
/// it is not `Clone`, and issuing consumes it.
///
/// # Invariants
/// INV-1 (docs/THREAT_MODEL.md). A permission is for one use:
/// ```
/// fn issue(admission: appraisal::verdict::Admission) -> String {
///     admission.redeem().node
/// }
/// ```
/// and a second use does not compile:
/// ```compile_fail,E0382
/// fn issue_twice(admission: appraisal::verdict::Admission) -> (String, String) {
///     (admission.redeem().node, admission.redeem().node)
/// }
/// ```
/// nor is there another way to one:
/// ```compile_fail,E0451
/// use appraisal::verdict::{Admission, Grant};
///
/// fn forge(grant: Grant) -> Admission {
///     Admission { grant }
/// }
/// ```
#[derive(Debug)]
#[must_use]
pub struct Admission {
    pub(crate) grant: Grant,
}

/// What an [`Admission`] permits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Name of the node, from the inventory.
    pub node: String,
    /// Pool of the node, from the inventory.
    pub pool: String,
    /// What may be issued: a node certificate, or a permit for this job.
    pub purpose: Purpose,
    /// The certified key: the only one that a certificate may be issued for.
    pub node_key: Public,
    /// SHA-256 of the recorded case.
    pub case_digest: Digest,
    /// What of the reference values was met: `linux@3#kernel-6.1 + platform@2`.
    pub policy_version: String,
    /// [`crate::policy::ReferenceValues::digest`]: over every document that they are made of.
    pub reference_digest: Digest,
    /// The boot's counters.
    pub counters: Counters,
    /// When the appraisal was made.
    pub appraised_unix_s: i64,
    /// Tools of the node that the golden sets in force name, with the digests that they accept; by name.
    pub tools: Vec<MatchedTool>,
}

/// A tool that was measured with a digest that a golden set in force accepts under its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatchedTool {
    /// Name.
    pub name: String,
    /// What was measured, and is accepted.
    pub digest: Digest,
    /// As the golden set has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// As the golden set has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purl: Option<String>,
}

impl Admission {
    /// Gives up the permission for what it permits.
    pub fn redeem(self) -> Grant {
        self.grant
    }

    /// What it permits, without giving it up.
    #[must_use]
    pub const fn grant(&self) -> &Grant {
        &self.grant
    }
}
