//! The verifier's own signers: of attestation results, and of time stamps.

use spki::SubjectPublicKeyInfoOwned;

use super::{Profile, Subject, order::Terms, subject::name};
use crate::ca::{CaCertificate, CaError, LintedTbs, PrivateKey};

/// Whoever signs attestation results: a key in this process's memory.
#[derive(Debug)]
pub struct ResultsSubject {
    key: SubjectPublicKeyInfoOwned,
}

impl ResultsSubject {
    /// The holder of `key`.
    #[must_use]
    pub fn new(key: &PrivateKey) -> Self {
        Self { key: key.public().clone() }
    }
}

impl Subject for ResultsSubject {
    fn prepare(
        self,
        issuer: &CaCertificate,
        terms: &Terms<'_>,
    ) -> Result<LintedTbs<Self>, CaError> {
        let subject = name("CN=Assay attestation results")?;
        terms.order(Profile::Results, subject, self.key, issuer.into())?.linted()
    }
}

/// Whoever signs time stamps: another key in this process's memory.
#[derive(Debug)]
pub struct TimestampSubject {
    key: SubjectPublicKeyInfoOwned,
}

impl TimestampSubject {
    /// The holder of `key`.
    #[must_use]
    pub fn new(key: &PrivateKey) -> Self {
        Self { key: key.public().clone() }
    }
}

impl Subject for TimestampSubject {
    fn prepare(
        self,
        issuer: &CaCertificate,
        terms: &Terms<'_>,
    ) -> Result<LintedTbs<Self>, CaError> {
        let subject = name("CN=Assay time stamp authority")?;
        terms.order(Profile::Timestamp, subject, self.key, issuer.into())?.linted()
    }
}
