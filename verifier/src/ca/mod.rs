//! The certificate authority: keys, profiles, lint, certificates, revocation lists, rotation.
//!
//! ```text
//! NodeSubject ──prepare──▶ LintedTbs ──sign──▶ Issued      (each arrow consumes its source)
//!                          every rule           only by the key of the issuer
//!                          of the profile       it was prepared for
//! ```
//!
//! Nothing reaches a signing key but a [`LintedTbs`], a revocation list or a certificate request
//! that this crate encoded. The time comes from the caller; random numbers are drawn in `signer`
//! only.
//!
//! # Hierarchy
//! One root, three issuing CAs under it: `nodes`, `admins`, `servers`. The root's key signs issuing
//! CAs and nothing else, so that after `verifier init` the operator can move `ca/root.key` off the
//! machine; serving, issuing, renewing the server certificate and revoking never need it. Each
//! issuing CA can instead be signed by the site's own PKI ([`CaDir::request`], [`CaDir::import`]).

pub(crate) mod certificate;
mod crl;
mod dir;
pub mod files;
mod lint;
mod profile;
mod request;
mod signer;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use self::signer::{random_32, verifies};
pub use self::{
    certificate::CaCertificate,
    crl::{CRL_LIFETIME, Crl, MAX_CRL_ENTRIES, RevocationReason, Revoked},
    dir::{CaDir, ImportReport, Issuer, RotationReport, Step},
    lint::{LintedTbs, ProfileViolation, Rule},
    profile::{
        ADMIN_LIFETIME, ADMISSION_LIFETIME, ATTESTATION_EXTENSION, AdminSubject, BACKDATE, CaRole,
        CaSubject, LONG_CA_LIFETIME, MAX_NODE_LIFETIME, MIN_NODE_LIFETIME, NODE_CA_LIFETIME,
        NodeFacts, NodeSubject, ROOT_LIFETIME, SERVER_LIFETIME, ServerName, ServerNameError,
        ServerSubject, Subject, Terms, prepare,
    },
    signer::{Issued, IssuingKey, KeyId, PrivateKey, Serial, SerialParseError, SignerError, sign},
};

use std::path::PathBuf;

pub use proto::spiffe::{
    MAX_SEGMENT_BYTES, MAX_SPIFFE_ID_BYTES, MAX_TRUST_DOMAIN_BYTES, Segment, SpiffeError, SpiffeId,
    TrustDomain,
};

/// A certificate for a node, for exactly the key that its TPM certified.
pub type NodeCertificate = Issued<NodeSubject>;

/// The CA could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaError {
    /// The admission lapsed before a certificate was prepared.
    #[error("the admission lapsed at {expired_unix_s} (seconds since 1970)")]
    AdmissionExpired {
        /// When it lapsed.
        expired_unix_s: u64,
    },
    /// A certificate cannot be used as what it is meant to be.
    #[error("{what}: {why}")]
    Certificate {
        /// Which certificate.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A revocation list cannot be used.
    #[error("the revocation list cannot be used: {0}")]
    Crl(String),
    /// More revocations than one list may have.
    #[error("{entries} revocations do not fit into one list of at most {}", MAX_CRL_ENTRIES)]
    CrlTooLong {
        /// How many there are.
        entries: usize,
    },
    /// A file.
    #[error(transparent)]
    File(#[from] files::FileError),
    /// A name that cannot stand in a SPIFFE ID.
    #[error(transparent)]
    Name(#[from] SpiffeError),
    /// The node's key is not on P-256.
    #[error("the node key is not a point on P-256")]
    NodeKey,
    /// The content broke its profile.
    #[error(transparent)]
    Profile(#[from] ProfileViolation),
    /// A file of the CA is gone and must not be made anew.
    #[error("{} is missing while {} exists: restore it from a backup", missing.display(), present.display())]
    Partial {
        /// What is missing.
        missing: PathBuf,
        /// What shows that it existed.
        present: PathBuf,
    },
    /// A root that is still in use was to be retired.
    #[error("the root {root} cannot be retired yet: {why}")]
    RootInUse {
        /// The root's key identifier.
        root: String,
        /// What still needs it.
        why: String,
    },
    /// The root's private key is needed and not there.
    #[error(
        "this needs the root's private key, and {} is not there: bring it back from where it was \
         moved to, and take it away again afterwards", path.display()
    )]
    RootKeyAbsent {
        /// Where it is looked for.
        path: PathBuf,
    },
    /// A key or a signature.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// No such retired CA or root.
    #[error("no such CA certificate: {0}")]
    Unknown(String),
}
