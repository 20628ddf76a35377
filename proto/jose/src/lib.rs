//! JSON Web Keys and JSON Web Signatures as SPIFFE and OpenID Connect need them, and no more.
//!
//! ```text
//! text ──parse──▶ UnverifiedToken ──verify──▶ VerifiedToken ──current_at──▶ CurrentToken
//!                 kid, alg only     one key,   claims         clock and      claims in force,
//!                                   allow-list                audience       for this audience
//! ```
//!
//! Each arrow consumes its source, and each target is made in one place. What is read is read once
//! and strictly: base64url without padding or spare bits, no JSON member twice at any depth, sizes
//! and counts bounded before anything is decoded, numbers that are whole.
//!
//! # Trust
//! The caller says which keys may sign and with which algorithms; nothing in a token adds to either.
//! A token names a key by `kid`, and a header that brings or points to a key is refused. This crate
//! has no clock and no network: the time is a parameter, key sets come as bytes.
//!
//! # Absent
//! Encryption, symmetric keys, the JSON serialisations, detached payloads, discovery.
//!
//! # Source
//! RFC 7515 (JWS), RFC 7517 (JWK), RFC 7518 (JWA), RFC 7519 (JWT), RFC 8725 (best practices);
//! SPIFFE: "JWT-SVID", "X509-SVID", "SPIFFE Trust Domain and Bundle".
#![warn(clippy::panic, clippy::unwrap_used)]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod algorithm;
mod base64url;
mod claims;
pub mod json;
pub mod jwk;
pub mod jws;
mod public_key;
pub mod sign;
pub mod spiffe_bundle;
pub mod svid;
#[cfg(test)]
mod testing;

pub use self::{
    algorithm::Algorithm,
    claims::{
        AudienceRule, ClaimError, ClaimRules, Claims, CurrentToken, MAX_AUDIENCES, MAX_UNIX_S,
    },
    public_key::{Curve, KeyProblem, MAX_RSA_BITS, MIN_RSA_BITS, PublicKey},
};
