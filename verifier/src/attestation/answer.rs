//! What the worker is told: on a denial code, subject and observed, never what was expected.

use appraisal::{
    StagedOutcome,
    verdict::{Denial, Finding},
};
use proto::{limits::MAX_FINDINGS, pb, reason::ReasonCode};

/// Result of an attestation, ready to be sent.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The answer to the worker.
    pub result: pb::AttestationResult,
    /// First reason code, for metrics; `None` on admit.
    pub code: Option<ReasonCode>,
}

/// The denial of a revoked node.
pub(super) fn revoked(node: &str) -> Denial {
    Finding::new(ReasonCode::NodeRevoked, format!("node {node}"), "an active node", "revoked")
        .into()
}

/// The denial of a job whose token gave another job a permit.
pub(super) fn token_used() -> Denial {
    let (expected, observed) = ("a token that gave no permit yet", "one that did");
    Finding::new(ReasonCode::PlatformTokenReplayed, "the job's token", expected, observed).into()
}

/// Reason codes of a denial, as they are recorded: sorted, each once.
pub(super) fn codes(denial: &Denial) -> Vec<String> {
    let mut codes: Vec<String> =
        denial.findings().map(|finding| finding.code.as_str().to_owned()).collect();
    codes.dedup();
    codes
}

/// Longest name of staged documents that a worker is told: a few sets, groups and parts.
const MAX_STAGED_BYTES: usize = 512;

/// What of the staged golden sets accepts a node that is denied today; empty if nothing does.
pub(super) fn accepted_by_staged(staged: Option<&StagedOutcome>) -> String {
    let accepting = staged.filter(|staged| staged.findings.is_empty());
    let mut label = accepting.map(|staged| staged.judged_by.clone()).unwrap_or_default();
    while label.len() > MAX_STAGED_BYTES {
        label.pop();
    }
    label
}

/// The answer to a job that may start here.
pub(super) fn permitted(permit: pb::Permit, decision_id: String) -> pb::AttestationResult {
    pb::AttestationResult {
        outcome: pb::Outcome::Admit.into(),
        decision_id,
        permit: Some(permit),
        ..Default::default()
    }
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
