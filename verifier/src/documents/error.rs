//! Why a document does not take a step.

use appraisal::policy::GoldenProblem;

use super::Summary;
use crate::{
    attestation::AttestError,
    signatures::{ApprovalError, EnvelopeError, SuccessorError},
    store::{DocumentId, StoreError},
};

/// Why a document does not take a step; nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// It is not well-formed.
    #[error("the document has problems: {}", list(.0))]
    Problems(Vec<GoldenProblem>),
    /// There is none.
    #[error("there is no {0}")]
    NotFound(DocumentId),
    /// Nobody can approve anything.
    #[error(
        "there is no ring of security keys; `verifier init`, run again on the verifier's machine, makes one"
    )]
    NoRing,
    /// The envelope cannot be read.
    #[error("the envelope cannot be used")]
    Envelope(#[from] EnvelopeError),
    /// A signature of no key that counts.
    #[error("signature {position} is of no key of the ring {ring}, or is not over this document")]
    UnknownSigner {
        /// Place in the envelope.
        position: usize,
        /// Ring in force, with the names of its keys.
        ring: String,
    },
    /// Signatures do not suffice, or are false.
    #[error("{id} is not approved")]
    NotApproved {
        /// Document.
        id: DocumentId,
        /// Why.
        #[source]
        why: Box<ApprovalError>,
    },
    /// A ring does not follow the one in force.
    #[error("{id} cannot take the place of the ring in force")]
    NoSuccessor {
        /// Document.
        id: DocumentId,
        /// Why.
        #[source]
        why: Box<SuccessorError>,
    },
    /// With it, a set would judge nobody.
    #[error("with {id} in force a set would judge nobody: {what}")]
    Unresolved {
        /// Document.
        id: DocumentId,
        /// What is missing.
        what: String,
    },
    /// Too many nodes would be turned away.
    #[error(
        "{id}: {} of {} admitted nodes would be denied or cannot be told, more than {limit_percent} %",
        summary.newly_denied.saturating_add(summary.undecided), summary.admitted_now()
    )]
    DeniesTooMany {
        /// Document.
        id: DocumentId,
        /// What the dry run found.
        summary: Summary,
        /// Share that is allowed.
        limit_percent: u8,
    },
    /// Whoever asked for a dry run went away.
    #[error("nobody listens to the dry run any more")]
    NobodyListens,
    /// A request that makes no sense for this kind of document.
    #[error("{0}")]
    Invalid(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is in force could not be read.
    #[error(transparent)]
    Attest(#[from] AttestError),
}

fn list(problems: &[GoldenProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
