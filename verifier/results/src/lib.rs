//! Attestation results and job signatures: the formats in which they leave, and how anyone checks
//! them later, offline.
//!
//! # Main path
//! ```text
//! verifier:  Vsa, Dispatch ─to_json─▶ statement ─Envelope::sign─▶ envelope ─┐
//! worker:    SHA-256 of a file ─────────────────────────▶ job signature ────┼─ + time stamp ─▶ Bundle
//! authority: TimeStampRequest ─Authority::answer─▶ time-stamp response ─────┘
//!
//! anyone:    bytes ─parse─▶ Bundle ─prove_time─▶ TimestampedBundle ─┬─verify_artifact──▶ VerifiedArtifact
//!                   (nobody's word)   (existed then: a TSA says so) └─verify_statement─▶ VerifiedStatement
//!
//! admission: artifact ◀─ job key ◀─ dispatch statement ◀─ VSA ◀─ quote, AK       ─admit─▶ Admitted
//! ```
//! Each arrow consumes or borrows its source; what stands right of it has private fields and one
//! constructor, so that nothing can claim to be verified that was not.
//!
//! # Trust
//! Everything hangs on the [`bundle::TrustedRoot`] that the caller brings, on its list of accepted
//! identities and, for admission, on its [`admit::AdmitPolicy`]. Nothing in a bundle is believed
//! before its signature, its certificate and its time are.
//!
//! # What is not here
//! No clock, no files: callers pass the time and the bytes. No network but for `timestamp::ask`, which the
//! feature `ask` adds. Random numbers are drawn by the
//! signature library alone. No revocation: leaves live for minutes to hours, and
//! a [`bundle::TrustedRoot`] whose authority ended says so by `validFor`. No transparency log.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(test)]
extern crate self as results;

pub mod admit;
pub mod bundle;
pub mod certificate;
pub mod digest;
pub mod dsse;
mod json;
pub mod refusal;
pub mod signer;
pub mod spiffe;
pub mod statement;
pub mod time;
pub mod timestamp;
pub mod verify;

pub use digest::Sha256Digest;
pub use refusal::{Code, Refusal};
pub use spiffe::SpiffeId;
pub use time::UnixTime;
