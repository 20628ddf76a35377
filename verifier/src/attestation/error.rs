//! Why an attestation, or what follows from one, gives no answer.

use proto::evidence::EvidenceError;

use crate::{
    ca::CaError,
    credential::RandomError,
    store::{DocumentId, StoreError},
};

/// The verifier failed to answer: no verdict, no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttestError {
    /// What came over the wire is not well-formed.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// The store.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// The certificate could not be made.
    #[error("the certificate could not be made")]
    Certificate(#[from] CaError),
    /// A JWT-SVID could not be made.
    #[error("the JWT-SVID could not be made")]
    Token(#[source] jose::svid::SvidError),
    /// An attestation result could not be signed or kept.
    #[error("an attestation result could not be made")]
    Result(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The permit is being redeemed at this moment, or too many of its node are.
    #[error("the permit is being redeemed already, or many of its node are; come again")]
    RedemptionUnderWay,
    /// A permit could not be redeemed when it was looked at, and could a moment later: nothing was stated of it.
    #[error("the permit could not be redeemed a moment ago, and can be now; come again")]
    PermitCameToStand,
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The credential could not be made.
    #[error(transparent)]
    Credential(#[from] appraisal::activation::CredentialError),
    /// The clock went back behind what is recorded.
    #[error("the clock shows {now_unix_s}, but a decision at {last_unix_s} is recorded")]
    ClockRegressed {
        /// Now.
        now_unix_s: i64,
        /// Last recorded decision.
        last_unix_s: i64,
    },
    /// The node's admissions have stored as many log bytes as they may for now.
    #[error("node {node} has sent as many log bytes as its admissions may store; come again later")]
    TooManyLogs {
        /// The node.
        node: String,
    },
    /// A policy of the site is in force and cannot be used: without it more would be admitted.
    #[error(
        "{id} is in force and cannot be used, and without it nobody is judged: {why}; restore the database, or replace the policy with the version of this program that it was activated with"
    )]
    PolicyUnusable {
        /// Which.
        id: DocumentId,
        /// Why not.
        why: String,
    },
    /// A background task ended.
    #[error("a verification task ended without an answer")]
    Task,
}
