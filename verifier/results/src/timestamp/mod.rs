//! Time stamps: that a signature existed at an instant, by the word of an authority.
//!
//! Leaves live for minutes; what proves that a signature was made while its leaf was valid is a time
//! stamp over the signature's bytes. [`Authority`] gives them, [`Response::verify`] believes them.
//!
//! Only SHA-256 imprints are asked for and taken.
//!
//! # Source
//! RFC 3161; RFC 5816 (ESSCertIDv2); RFC 5652 (CMS); RFC 5035 (signing certificate attribute).

mod algorithms;
#[cfg(feature = "ask")]
pub mod ask;
mod asn1;
mod authority;
mod request;
mod response;

pub use self::{
    authority::{Answer, Authority, DEFAULT_POLICY, Failure},
    request::{MAX_NONCE_BYTES, MAX_REQUEST_BYTES, Request},
    response::{ClockTolerance, MAX_RESPONSE_BYTES, ProvenTime, Response},
};

#[cfg(test)]
mod tests;
