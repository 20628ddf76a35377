//! Keys in memory with certificates of the CA for results, made anew in time.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use results::{UnixTime, signer::SoftwareKey};

use super::ResultsError;
use crate::{
    ca::{
        CaError, Issuer, PrivateKey, RESULTS_LIFETIME, Subject, Terms, TrustDomain, prepare, sign,
    },
    clock::Clock,
};

/// Who issues, for whom, and what time it is.
#[derive(Debug)]
pub(super) struct Issuing {
    pub(super) trust_domain: TrustDomain,
    issuer: ArcSwap<Issuer>,
    clock: Arc<dyn Clock>,
}

/// A key and its certificate.
pub(super) struct Leaf {
    pub(super) key: SoftwareKey,
    pub(super) certificate_der: Vec<u8>,
    not_after_unix_s: u64,
}

impl Issuing {
    pub(super) fn new(issuer: Issuer, trust_domain: TrustDomain, clock: Arc<dyn Clock>) -> Self {
        Self { trust_domain, issuer: ArcSwap::from_pointee(issuer), clock }
    }

    /// Issues by another CA from now on; the former is returned.
    pub(super) fn replace(&self, issuer: Arc<Issuer>) -> Arc<Issuer> {
        self.issuer.swap(issuer)
    }

    pub(super) const fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub(super) fn now(&self) -> Result<UnixTime, ResultsError> {
        instant(self.clock.now_unix_s())
    }

    /// A new key, and a certificate for it of the subject that `name` makes of it.
    pub(super) fn leaf<S: Subject>(
        &self,
        name: impl FnOnce(&PrivateKey) -> S,
        now: UnixTime,
    ) -> Result<Leaf, ResultsError> {
        let private = PrivateKey::generate().map_err(CaError::from)?;
        let pkcs8 = private.to_der().map_err(CaError::from)?;
        let key = SoftwareKey::from_pkcs8_der(&pkcs8).map_err(|_| ResultsError::Key)?;
        let issuer = self.issuer.load();
        let (trust_domain, now_unix_s) = (&self.trust_domain, now.unix_s());
        let terms = Terms { trust_domain, now_unix_s, lifetime: RESULTS_LIFETIME };
        let prepared = prepare(name(&private), issuer.certificate(), &terms)?;
        let issued = sign(prepared, issuer.key()).map_err(CaError::from)?;
        Ok(Leaf {
            key,
            certificate_der: issued.der().to_vec(),
            not_after_unix_s: issued.not_after_unix_s(),
        })
    }
}

/// What a clock shows, as certificates and time stamps have it.
pub(super) fn instant(unix_s: i64) -> Result<UnixTime, ResultsError> {
    let time = u64::try_from(unix_s).ok().and_then(|now| UnixTime::from_unix_s(now).ok());
    time.ok_or(ResultsError::Clock(unix_s))
}

impl Leaf {
    /// When to make another one: at half of its life, so that whoever verifies with a clock that is behind has time left.
    pub(super) const fn renew_at(&self, now: UnixTime) -> u64 {
        now.unix_s().saturating_add(self.not_after_unix_s.saturating_sub(now.unix_s()) / 2)
    }
}

/// Something that rests on a leaf, made anew when that is due.
pub(super) struct Renewed<T>(Mutex<Option<Current<T>>>);

struct Current<T> {
    value: Arc<T>,
    made_at: u64,
    renew_at: u64,
}

impl<T> Renewed<T> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// The one in use; `make` gives another with the time at which it is to be replaced.
    pub(super) fn get(
        &self,
        now: UnixTime,
        make: impl FnOnce() -> Result<(T, u64), ResultsError>,
    ) -> Result<Arc<T>, ResultsError> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Current { value, made_at, renew_at }) = current.as_ref()
            // A clock that went back would stamp before the certificate.
            && (*made_at..*renew_at).contains(&now.unix_s())
        {
            return Ok(Arc::clone(value));
        }
        let (value, renew_at) = make()?;
        let value = Arc::new(value);
        *current = Some(Current { value: Arc::clone(&value), made_at: now.unix_s(), renew_at });
        Ok(value)
    }

    /// Lets the next use make another one.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl<T> fmt::Debug for Renewed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewed")
    }
}
