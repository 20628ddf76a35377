//! Answers to administrators: what was wrong with a request, in words for operators.

use proto::reason::ReasonCode;
use tonic::{Code, Response, Status};

use super::status::{chain, with_reason};
use crate::{documents::DocumentError, store::StoreError};

pub(super) type Answer<T> = Result<Response<T>, Status>;

pub(super) fn invalid(message: impl Into<String>) -> Status {
    with_reason(Code::InvalidArgument, ReasonCode::AdminRequestInvalid, message)
}

pub(super) fn not_found(what: impl std::fmt::Display) -> Status {
    with_reason(Code::NotFound, ReasonCode::AdminNotFound, format!("there is no {what}"))
}

/// A store's answer to an administrator: its words are for operators already.
pub(super) fn store(error: &StoreError) -> Status {
    let (code, reason) = match error {
        StoreError::NotFound { .. } => (Code::NotFound, ReasonCode::AdminNotFound),
        StoreError::AlreadyExists { .. } => (Code::AlreadyExists, ReasonCode::AdminRequestInvalid),
        StoreError::Conflict { .. } => (Code::Aborted, ReasonCode::AdminRequestInvalid),
        StoreError::InvalidTransition { what: "reference document", .. } => {
            (Code::FailedPrecondition, ReasonCode::GoldenStateInvalid)
        }
        StoreError::VersionNotNewer { .. } => {
            (Code::FailedPrecondition, ReasonCode::GoldenVersionNotNewer)
        }
        StoreError::Invalid { .. }
        | StoreError::InvalidTransition { .. }
        | StoreError::TooLarge { .. } => {
            (Code::FailedPrecondition, ReasonCode::AdminRequestInvalid)
        }
        _ => {
            tracing::error!("{}", chain(error));
            (Code::Unavailable, ReasonCode::ServiceUnavailable)
        }
    };
    with_reason(code, reason, chain(error))
}

/// Why a document does not take a step.
pub(super) fn document(error: &DocumentError) -> Status {
    let (code, reason) = match error {
        DocumentError::Store(error) => return store(error),
        DocumentError::Attest(error) => return super::status::attest(error),
        DocumentError::Problems(_)
        | DocumentError::Invalid(_)
        | DocumentError::Unresolved { .. } => {
            (Code::InvalidArgument, ReasonCode::AdminRequestInvalid)
        }
        DocumentError::NobodyListens => (Code::Cancelled, ReasonCode::ServiceBusy),
        DocumentError::NotFound(_) => (Code::NotFound, ReasonCode::AdminNotFound),
        DocumentError::NoRing => (Code::FailedPrecondition, ReasonCode::GoldenSignaturesMissing),
        DocumentError::Envelope(_) | DocumentError::UnknownSigner { .. } => {
            (Code::InvalidArgument, ReasonCode::GoldenSignatureInvalid)
        }
        DocumentError::NotApproved { why, .. } => (Code::FailedPrecondition, why.code()),
        DocumentError::NoSuccessor { why, .. } => (Code::FailedPrecondition, why.code()),
        DocumentError::DeniesTooMany { .. } => {
            (Code::FailedPrecondition, ReasonCode::GoldenDeniesTooMany)
        }
    };
    with_reason(code, reason, chain(error))
}
