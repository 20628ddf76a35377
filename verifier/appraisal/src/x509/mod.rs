//! X.509 as endorsement-key chains need it: certificates, CRLs, manufacturer roots, path
//! validation.
//!
//! ```text
//! bytes ─parse─▶ Certificate ─┐
//! bytes ─parse─▶ Crl ─────────┴▶ RootsBuilder ─build─▶ EndorsementRoots ─┐
//!                                    leaf, presented chain, now ─────────┴─validate─▶ ValidPath
//! ```
//!
//! Signatures are checked over the bytes that were received, never over a re-encoding:
//! manufacturers have shipped unsorted RDN sets and explicit default values that do not survive
//! one. What deviates from RFC 5280 or the TCG profile and is accepted all the same is an
//! [`Oddity`] with a name and a reason; everything else that deviates is refused.
//!
//! # Not here
//! Nothing is fetched (AIA, CRL distribution points, OCSP): endorsements are imported beforehand.
//! Name constraints, policy constraints and policy mappings are refused, not processed.
//!
//! # Source
//! RFC 5280; X.690 (DER); TCG EK Credential Profile for TPM Family 2.0.

mod certificate;
mod crl;
mod der;
mod key;
mod name;
mod oddity;
mod path;
mod roots;
mod time;

pub use certificate::{
    BasicConstraints, Certificate, ExtendedKeyUsage, Extensions, KeyUsage, TpmIdentity,
};
pub use crl::Crl;
pub use der::{DerError, DerErrorKind};
pub use key::{EcCurve, SignatureAlgorithm, SignatureFailure, SubjectKey};
pub(crate) use key::{bit_length, parse_spki};
pub use oddity::{Oddities, Oddity};
pub use path::{
    MAX_PATH_CERTIFICATES, MAX_SIGNATURE_CHECKS, RevocationRequirement, RevocationState, ValidPath,
};
pub(crate) use path::{PathRequest, validate};
pub use roots::{
    EndorsementRoots, ExpiredIntermediates, MAX_CRLS, MAX_ENDORSEMENT_CERTIFICATES, RootsBuilder,
    RootsError,
};
pub use time::format_utc;
