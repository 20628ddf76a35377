//! A TPM in memory that lies on demand: for tests and benches, never for a worker.
//!
//! A real TPM, and swtpm, refuse to sign a quote with a wrong magic, a forged counter or somebody else's
//! qualifiedSigner; an attacker with a stolen key does not. [`SoftTpm`] answers a challenge honestly, and every part
//! of its [`Answer`] can be changed before it is signed.
//!
//! Written from the TPM 2.0 Library specification, apart from the code that it tests: KDFa, KDFe and credential
//! activation are here a second time.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod attest;
pub mod ek;
pub mod ima;
pub mod ima_seeds;
mod kdf;
pub mod key;
pub mod public;
pub mod tpm;
pub mod vectors;

pub use attest::{AttestTemplate, Body};
pub use ek::{Ek, EkKind};
pub use key::{Algorithm, SigningKey};
pub use public::PublicTemplate;
pub use tpm::{Answer, SoftTpm};
pub use vectors::vectors_dir;
