//! The worker daemon: TPM evidence, build-tool measurements, node certificate.

pub mod inspect;
pub mod measure;
pub mod tpm;
