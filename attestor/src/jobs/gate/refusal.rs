//! Why a job does not start, with one stable code.

use proto::pb;

use crate::jobs::{DeskError, LineError};

/// Why a job does not start.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusal(pub(super) pb::JobRefused);

impl Refusal {
    pub(super) fn new(code: &str, why: impl Into<String>) -> Self {
        Self(pb::JobRefused { code: code.to_owned(), why: why.into(), ..Default::default() })
    }
}

impl From<DeskError> for Refusal {
    fn from(error: DeskError) -> Self {
        let why = error.to_string();
        match error {
            DeskError::Denied(result) => Self(pb::JobRefused {
                code: result.findings.first().map(|first| first.code.clone()).unwrap_or_default(),
                why,
                findings: result.findings,
                decision_id: result.decision_id,
            }),
            DeskError::Late(_) => Self::new("GATE_LATE", why),
            DeskError::Stopping => Self::new("GATE_STOPPING", why),
            DeskError::Failed(_) => Self::new("GATE_NO_VERDICT", why),
        }
    }
}

impl From<LineError> for Refusal {
    fn from(error: LineError) -> Self {
        match error {
            LineError::Refused { code, why } => Self::new(&code, why),
            other => Self::new("GATE_NO_VERDICT", crate::chain(&other)),
        }
    }
}
