//! The worker daemon: TPM evidence, build-tool measurements, node certificate.
//!
//! Main path: [`daemon::run`] → [`attestation::Attester::attest`] → [`measure`], [`tpm`], [`client`] →
//! [`output`].
#![warn(clippy::panic, clippy::unwrap_used)]

pub mod attestation;
pub mod client;
pub mod config;
pub mod daemon;
pub mod hooks;
pub mod inspect;
pub mod jobs;
pub mod logs;
pub mod measure;
pub mod output;
pub mod privilege;
pub mod tpm;
pub mod trust;

/// An error with its sources, outermost first.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut out = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !out.ends_with(&inner_text) {
            out.push_str(": ");
            out.push_str(&inner_text);
        }
        source = inner.source();
    }
    out
}
