//! The only place where an error becomes a gRPC status.

use proto::{evidence::EvidenceError, reason::ReasonCode};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{attestation::AttestError, ca::CaError, store::StoreError};

/// `domain` of every `google.rpc.ErrorInfo` that the verifier sends.
pub const ERROR_DOMAIN: &str = "assay";

/// A status with a stable reason code in its `ErrorInfo`.
#[must_use]
pub fn with_reason(code: Code, reason: ReasonCode, message: impl Into<String>) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason.as_str(), ERROR_DOMAIN, std::collections::HashMap::new());
    Status::with_error_details(code, message.into(), details)
}

/// The reason code of a status, if it has one.
#[must_use]
pub fn reason_of(status: &Status) -> Option<ReasonCode> {
    let info = status.get_details_error_info()?;
    ReasonCode::from_wire(&info.reason)
}

/// Malformed or over-limit input.
#[must_use]
pub fn evidence(error: &EvidenceError) -> Status {
    let code = match error.code {
        ReasonCode::EvidenceLimitExceeded => Code::ResourceExhausted,
        ReasonCode::EvidenceOutOfOrder => Code::FailedPrecondition,
        ReasonCode::EvidenceVersionUnsupported => Code::Unimplemented,
        _ => Code::InvalidArgument,
    };
    with_reason(code, error.code, error.to_string())
}

/// A failure to answer: the caller learns an incident's identifier, the log the rest.
#[must_use]
pub fn attest(error: &AttestError) -> Status {
    match error {
        AttestError::Evidence(error) => evidence(error),
        AttestError::ClockRegressed { .. } => {
            incident(Code::Unavailable, ReasonCode::ServiceClockRegressed, error)
        }
        AttestError::Certificate(CaError::Profile(_)) => {
            incident(Code::Internal, ReasonCode::CertificateProfileViolation, error)
        }
        AttestError::Store(StoreError::Conflict { .. }) => with_reason(
            Code::Aborted,
            ReasonCode::ServiceBusy,
            "another attestation of this node was recorded meanwhile; come again",
        ),
        AttestError::Store(StoreError::Superseded { .. }) => with_reason(
            Code::Aborted,
            ReasonCode::ServiceBusy,
            "what the verifier judges by was changed meanwhile; come again",
        ),
        AttestError::RedemptionUnderWay | AttestError::PermitCameToStand => {
            with_reason(Code::Aborted, ReasonCode::ServiceBusy, error.to_string())
        }
        AttestError::TooManyLogs { .. } => {
            with_reason(Code::ResourceExhausted, ReasonCode::ServiceBusy, error.to_string())
        }
        _ => incident(Code::Unavailable, ReasonCode::ServiceUnavailable, error),
    }
}

/// Logs the whole chain of an error under an identifier and tells the caller only that.
fn incident(code: Code, reason: ReasonCode, error: &(dyn std::error::Error + 'static)) -> Status {
    let mut id = [0; 6];
    // Without randomness the identifier is zero; the log line stands all the same.
    let _ = getrandom::fill(&mut id);
    let id = hex::encode(id);
    tracing::error!(incident = id, reason = %reason, "{}", chain(error));
    with_reason(code, reason, format!("{} (incident {id})", reason.meaning()))
}

/// An error with its sources, outermost first.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut out = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        out.push_str(": ");
        out.push_str(&inner.to_string());
        source = inner.source();
    }
    out
}
