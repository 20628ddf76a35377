//! The signer of attestation results.

use std::sync::Arc;

use results::{
    Sha256Digest, UnixTime,
    bundle::{Bundle, Content},
    dsse::Envelope,
    signer::SoftwareKey,
    statement::Predicate,
};

use super::{
    ExternalAuthorities, ResultsError, TimestampAuthority,
    external::StampError,
    leaf::{Issuing, Renewed},
};
use crate::{
    ca::{Issuer, ResultsSubject, SpiffeId, TrustDomain},
    clock::Clock,
    service::status::chain,
};

/// Signs statements as `spiffe://TD/verifier/results`; each is stamped before anybody gets it.
#[derive(Debug)]
pub struct ResultsSigner {
    pub(super) issuing: Arc<Issuing>,
    leaf: Renewed<(SoftwareKey, Vec<u8>)>,
    authority: TimestampAuthority,
    external: ExternalAuthorities,
}

/// A signed statement that nobody can verify yet: it has no time.
#[derive(Debug)]
#[must_use]
pub struct Unstamped {
    envelope: Envelope,
    certificate_der: Vec<u8>,
    digest: Sha256Digest,
}

impl Unstamped {
    /// SHA-256 of the statement, by which others refer to it.
    #[must_use]
    pub const fn digest(&self) -> Sha256Digest {
        self.digest
    }
}

impl ResultsSigner {
    /// A signer under the CA for results, its time stamp authority, and those of others.
    ///
    /// # Errors
    /// [`ResultsError`]: a certificate could not be had now, and a verifier that cannot sign should not start.
    pub fn new(
        issuer: Issuer,
        trust_domain: TrustDomain,
        clock: Arc<dyn Clock>,
        external: ExternalAuthorities,
    ) -> Result<Self, ResultsError> {
        let issuing = Arc::new(Issuing::new(issuer, trust_domain, clock));
        let authority = TimestampAuthority::new(Arc::clone(&issuing));
        let signer = Self { issuing, leaf: Renewed::new(), authority, external };
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

    /// The authorities of others.
    #[must_use]
    pub const fn external(&self) -> &ExternalAuthorities {
        &self.external
    }

    /// Signs a statement.
    ///
    /// # Errors
    /// [`ResultsError`].
    pub fn sign(&self, statement: &impl Predicate) -> Result<Unstamped, ResultsError> {
        let leaf = self.leaf(self.issuing.now()?)?;
        let (key, certificate_der) = leaf.as_ref();
        let envelope = Envelope::sign(statement, key)?;
        let digest = Sha256Digest::of(envelope.untrusted_payload());
        Ok(Unstamped { envelope, certificate_der: certificate_der.clone(), digest })
    }

    /// Has a statement stamped, at an instant that is not before `earliest`: JSON of a Sigstore bundle.
    ///
    /// # Errors
    /// [`ResultsError`]: [`ResultsError::Stamp`] where the authority is another's and gave no good answer in time.
    pub async fn stamp(
        &self,
        unstamped: Unstamped,
        earliest: UnixTime,
    ) -> Result<Vec<u8>, ResultsError> {
        let Unstamped { envelope, certificate_der, .. } = unstamped;
        let imprint = Sha256Digest::of(envelope.signature());
        let stamp = match self.external.stamping() {
            None => self.authority.stamp(imprint, self.issuing.now()?)?,
            Some(authority) => {
                let stamp = authority.stamp(imprint, earliest, self.issuing.clock()).await;
                stamp.map_err(|source| ResultsError::Stamp {
                    url: Box::new(authority.url().clone()),
                    source: Box::new(source),
                })?
            }
        };
        let bundle = Bundle::new(&certificate_der, vec![stamp], Content::Statement(envelope))?;
        Ok(bundle.to_json().into_bytes())
    }

    /// Asks the authority that stamps for a time stamp of nothing, so that whoever starts the verifier learns of one that does
    /// not answer before a job does. Nothing happens where the verifier's own stamps.
    pub async fn try_external(&self) {
        let Some(authority) = self.external.stamping() else { return };
        let url = authority.url();
        let stamped = match self.issuing.now() {
            Ok(now) => authority.stamp(Sha256Digest::of(&[]), now, self.issuing.clock()).await,
            Err(_) => Err(StampError::NoTime),
        };
        match stamped {
            Ok(_) => tracing::info!(%url, "the time stamp authority answers"),
            Err(error) => tracing::error!(
                %url,
                "the time stamp authority gave no time stamp, and no job starts without one: {}",
                chain(&error)
            ),
        }
    }

    fn leaf(&self, now: UnixTime) -> Result<Arc<(SoftwareKey, Vec<u8>)>, ResultsError> {
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
