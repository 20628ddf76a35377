//! The signer of attestation results.

use std::sync::Arc;

use results::{
    Sha256Digest,
    bundle::{Bundle, Content},
    dsse::Envelope,
    signer::SoftwareKey,
    statement::Predicate,
};

use super::{
    ResultsError, TimestampAuthority,
    leaf::{Issuing, Renewed},
};
use crate::{
    ca::{Issuer, ResultsSubject, SpiffeId, TrustDomain},
    clock::Clock,
};

/// Signs statements as `spiffe://TD/verifier/results`, each with a time stamp of the verifier's own authority.
#[derive(Debug)]
pub struct ResultsSigner {
    pub(super) issuing: Arc<Issuing>,
    leaf: Renewed<(SoftwareKey, Vec<u8>)>,
    authority: TimestampAuthority,
}

impl ResultsSigner {
    /// A signer under the CA for results, and its time stamp authority.
    ///
    /// # Errors
    /// [`ResultsError`]: a certificate could not be had now, and a verifier that cannot sign should not start.
    pub fn new(
        issuer: Issuer,
        trust_domain: TrustDomain,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ResultsError> {
        let issuing = Arc::new(Issuing::new(issuer, trust_domain, clock));
        let authority = TimestampAuthority::new(Arc::clone(&issuing));
        let signer = Self { issuing, leaf: Renewed::new(), authority };
        signer.try_once()?;
        Ok(signer)
    }

    /// Signs from now on under another CA, with other keys.
    ///
    /// # Errors
    /// [`ResultsError`]: as [`ResultsSigner::new`]; the former CA stays then.
    pub fn replace_issuer(&self, issuer: Issuer) -> Result<(), ResultsError> {
        let former = self.issuing.replace(Arc::new(issuer));
        self.forget();
        self.try_once().inspect_err(|_| {
            self.issuing.replace(former);
            self.forget();
        })
    }

    /// Who signs.
    #[must_use]
    pub fn spiffe_id(&self) -> SpiffeId {
        self.issuing.trust_domain.results_id()
    }

    /// The time stamp authority, which stamps for others as well.
    #[must_use]
    pub const fn authority(&self) -> &TimestampAuthority {
        &self.authority
    }

    /// Signs a statement: JSON of a Sigstore bundle, and the SHA-256 of the statement, by which others refer to it.
    ///
    /// # Errors
    /// [`ResultsError`].
    pub fn sign_statement(
        &self,
        statement: &impl Predicate,
    ) -> Result<(Vec<u8>, Sha256Digest), ResultsError> {
        let now = self.issuing.now()?;
        let leaf = self.leaf(now)?;
        let (key, certificate_der) = leaf.as_ref();
        let envelope = Envelope::sign(statement, key)?;
        let digest = Sha256Digest::of(envelope.untrusted_payload());
        let stamp = self.authority.stamp(Sha256Digest::of(envelope.signature()), now)?;
        let bundle = Bundle::new(certificate_der, vec![stamp], Content::Statement(envelope))?;
        Ok((bundle.to_json().into_bytes(), digest))
    }

    /// As [`ResultsSigner::sign_statement`], where nothing refers to it.
    ///
    /// # Errors
    /// [`ResultsError`].
    pub fn sign(&self, statement: &impl Predicate) -> Result<Vec<u8>, ResultsError> {
        Ok(self.sign_statement(statement)?.0)
    }

    fn leaf(&self, now: results::UnixTime) -> Result<Arc<(SoftwareKey, Vec<u8>)>, ResultsError> {
        self.leaf.get(now, || {
            let leaf = self.issuing.leaf(ResultsSubject::new, now)?;
            let renew_at = leaf.renew_at(now);
            Ok(((leaf.key, leaf.certificate_der), renew_at))
        })
    }

    fn forget(&self) {
        self.leaf.forget();
        self.authority.forget();
    }

    fn try_once(&self) -> Result<(), ResultsError> {
        let now = self.issuing.now()?;
        self.leaf(now)?;
        self.authority.stamp(Sha256Digest::of(&[]), now).map(drop)
    }
}
