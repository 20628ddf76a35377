//! What an appraisal answers: findings, a denial, a verdict.

use proto::reason::ReasonCode;
use serde::{Deserialize, Serialize};

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

impl Finding {
    /// A finding.
    pub fn new(
        code: ReasonCode,
        subject: impl Into<String>,
        expected: impl Into<String>,
        observed: impl Into<String>,
    ) -> Self {
        Self {
            code,
            subject: subject.into(),
            expected: expected.into(),
            observed: observed.into(),
        }
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
