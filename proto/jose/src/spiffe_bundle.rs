//! SPIFFE bundles: the public keys of one trust domain.
//!
//! # Format
//! ```json
//! {
//!   "keys": [
//!     { "kty": "EC", "crv": "P-256", "x": "…", "y": "…", "use": "x509-svid", "x5c": ["…"] },
//!     { "kty": "EC", "crv": "P-256", "x": "…", "y": "…", "use": "jwt-svid", "kid": "…" }
//!   ],
//!   "spiffe_refresh_hint": 300,
//!   "spiffe_sequence": 7
//! }
//! ```
//!
//! # Source
//! SPIFFE Trust Domain and Bundle, "SPIFFE Bundle Format"; X509-SVID and JWT-SVID, "SPIFFE Bundles"
//! (representation in the bundle).

#[cfg(test)]
mod tests;

use der::Decode as _;
use proto::limits::MAX_CERTIFICATE_BYTES;
use serde_json::{Map, Value};
use x509_cert::Certificate;

use crate::{
    PublicKey,
    jwk::{Jwk, JwkError, JwkSet, KeyUse, read},
};

/// Longest refresh hint: one day; a bundle that is read less often than that misses a rotation.
pub const MAX_REFRESH_HINT_S: u64 = 24 * 3600;

/// A bundle cannot be used, or not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The key set it is made of cannot be used.
    #[error("the bundle's key set cannot be used")]
    Keys(#[source] JwkError),
    /// A member of the bundle has another type than a whole number.
    #[error("`{0}` is not a whole number that it may be")]
    Number(&'static str),
    /// An X.509 authority has not exactly one certificate.
    #[error("X.509 authority {index} has {found} certificates instead of one")]
    CertificateCount {
        /// Position among the keys that are understood, from 0.
        index: usize,
        /// How many it has.
        found: usize,
    },
    /// An X.509 authority has a `kid`.
    #[error("X.509 authority {index} has a `kid`")]
    X509KeyId {
        /// Position among the keys that are understood, from 0.
        index: usize,
    },
    /// A certificate does not decode, is too large, or its key is of another type.
    #[error("the certificate of X.509 authority {index} does not decode, or its key is not usable")]
    Certificate {
        /// Position among the keys, from 0.
        index: usize,
    },
    /// A certificate is for another key than the entry's.
    #[error("the certificate of X.509 authority {index} is for another key")]
    CertificateKey {
        /// Position among the keys that are understood, from 0.
        index: usize,
    },
    /// A JWT authority has no `kid`.
    #[error("JWT authority {index} has no `kid`")]
    JwtKeyId {
        /// Position among the keys that are understood, from 0.
        index: usize,
    },
}

impl BundleError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Keys(error) => error.code(),
            Self::Number(_) => "BUNDLE_NUMBER_INVALID",
            Self::CertificateCount { .. } | Self::X509KeyId { .. } | Self::JwtKeyId { .. } => {
                "BUNDLE_KEY_INVALID"
            }
            Self::Certificate { .. } => "BUNDLE_CERTIFICATE_INVALID",
            Self::CertificateKey { .. } => "BUNDLE_CERTIFICATE_KEY_MISMATCH",
        }
    }
}

/// The keys of one trust domain. Which one is not in the document: it follows from where it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    x509: Vec<Vec<u8>>,
    jwt: JwkSet,
    sequence: Option<u64>,
    refresh_hint_s: Option<u64>,
    skipped: usize,
}

impl Bundle {
    /// A bundle of certificate authorities (DER) and keys for JWT-SVIDs.
    ///
    /// # Errors
    /// [`BundleError`]: a certificate that cannot be read, a JWT key without `kid`.
    pub fn new(x509: Vec<Vec<u8>>, jwt: Vec<Jwk>) -> Result<Self, BundleError> {
        for (index, der) in x509.iter().enumerate() {
            certificate_key(index, der)?;
        }
        if let Some(index) = jwt.iter().position(|key| key.id().is_none()) {
            return Err(BundleError::JwtKeyId { index });
        }
        let found = x509.len().saturating_add(jwt.len());
        if found > crate::jwk::MAX_KEYS {
            return Err(BundleError::Keys(JwkError::TooManyKeys { found }));
        }
        let jwt = jwt.into_iter().map(|key| key.with_use(KeyUse::JwtSvid)).collect();
        let jwt = JwkSet::new(jwt).map_err(BundleError::Keys)?;
        Ok(Self { x509, jwt, ..Self::default() })
    }

    /// With `spiffe_sequence`: higher for every change.
    #[must_use]
    pub const fn with_sequence(mut self, sequence: u64) -> Self {
        self.sequence = Some(sequence);
        self
    }

    /// With `spiffe_refresh_hint`, seconds.
    ///
    /// # Errors
    /// [`BundleError::Number`] for 0 and for more than [`MAX_REFRESH_HINT_S`].
    pub fn with_refresh_hint_s(mut self, seconds: u64) -> Result<Self, BundleError> {
        self.refresh_hint_s = Some(refresh_hint(seconds)?);
        Ok(self)
    }

    /// Reads a bundle.
    ///
    /// # Format
    /// A key set as in [`JwkSet::parse`]. An entry with `use` `x509-svid` has no `kid` and exactly one
    /// certificate in `x5c`, for the entry's key; one with `jwt-svid` has a `kid`. Entries with
    /// another `use` or none are skipped and counted, as the specification says.
    ///
    /// # Does not prove
    /// That a certificate is in force, may issue, or is of the trust domain: whoever validates a
    /// chain sees to that.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        let document = read::document(bytes).map_err(BundleError::Keys)?;
        let keys = read::set(&document).map_err(BundleError::Keys)?;
        let mut bundle = Self {
            sequence: number(&document, "spiffe_sequence")?,
            refresh_hint_s: number(&document, "spiffe_refresh_hint")?
                .map(refresh_hint)
                .transpose()?,
            skipped: keys.skipped(),
            ..Self::default()
        };
        let mut jwt = Vec::new();
        for (index, key) in keys.keys().iter().enumerate() {
            match key.key_use() {
                Some(KeyUse::X509Svid) => bundle.x509.push(authority(index, key)?),
                Some(KeyUse::JwtSvid) if key.id().is_none() => {
                    return Err(BundleError::JwtKeyId { index });
                }
                Some(KeyUse::JwtSvid) => jwt.push(key.clone()),
                Some(KeyUse::Encryption | KeyUse::Signature) | None => {
                    bundle.skipped = bundle.skipped.saturating_add(1);
                }
            }
        }
        bundle.jwt = JwkSet::new(jwt).map_err(BundleError::Keys)?;
        Ok(bundle)
    }

    /// The bundle as JSON: members in alphabetical order, X.509 authorities first.
    ///
    /// # Errors
    /// [`BundleError::Keys`] if it would be larger than a bundle may be.
    pub fn to_json(&self) -> Result<String, BundleError> {
        let mut keys = Vec::with_capacity(self.x509.len().saturating_add(self.jwt.keys().len()));
        for (index, der) in self.x509.iter().enumerate() {
            keys.push(
                Jwk::new(certificate_key(index, der)?)
                    .with_use(KeyUse::X509Svid)
                    .with_certificates(vec![der.clone()]),
            );
        }
        keys.extend(self.jwt.keys().iter().cloned());
        let keys = JwkSet::new(keys).map_err(BundleError::Keys)?;
        let mut out = Map::new();
        out.insert("keys".to_owned(), Value::Array(keys.values()));
        for (name, value) in
            [("spiffe_sequence", self.sequence), ("spiffe_refresh_hint", self.refresh_hint_s)]
        {
            if let Some(value) = value {
                out.insert(name.to_owned(), value.into());
            }
        }
        let text = Value::Object(out).to_string();
        if text.len() > crate::jwk::MAX_SET_BYTES {
            return Err(BundleError::Keys(JwkError::TooLarge { found: text.len() }));
        }
        Ok(text)
    }

    /// Certificates of the X.509 authorities, DER.
    #[must_use]
    pub fn x509_authorities(&self) -> &[Vec<u8>] {
        &self.x509
    }

    /// Keys for JWT-SVIDs, each with a `kid`.
    #[must_use]
    pub const fn jwt_authorities(&self) -> &JwkSet {
        &self.jwt
    }

    /// `spiffe_sequence`.
    #[must_use]
    pub const fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// `spiffe_refresh_hint`, seconds.
    #[must_use]
    pub const fn refresh_hint_s(&self) -> Option<u64> {
        self.refresh_hint_s
    }

    /// How many entries were skipped because their type or use has no meaning here.
    #[must_use]
    pub const fn skipped(&self) -> usize {
        self.skipped
    }
}

/// The one certificate of an X.509 authority.
fn authority(index: usize, key: &Jwk) -> Result<Vec<u8>, BundleError> {
    if key.id().is_some() {
        return Err(BundleError::X509KeyId { index });
    }
    let [der] = key.certificates() else {
        return Err(BundleError::CertificateCount { index, found: key.certificates().len() });
    };
    if certificate_key(index, der)? != *key.key() {
        return Err(BundleError::CertificateKey { index });
    }
    Ok(der.clone())
}

fn certificate_key(index: usize, der: &[u8]) -> Result<PublicKey, BundleError> {
    let unusable = || BundleError::Certificate { index };
    if der.len() > MAX_CERTIFICATE_BYTES {
        return Err(unusable());
    }
    let certificate = Certificate::from_der(der).map_err(|_| unusable())?;
    PublicKey::from_spki(certificate.tbs_certificate().subject_public_key_info())
        .map_err(|_| unusable())
}

fn number(document: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, BundleError> {
    document.get(name).map(|value| value.as_u64().ok_or(BundleError::Number(name))).transpose()
}

fn refresh_hint(seconds: u64) -> Result<u64, BundleError> {
    let is_good = (1..=MAX_REFRESH_HINT_S).contains(&seconds);
    if is_good { Ok(seconds) } else { Err(BundleError::Number("spiffe_refresh_hint")) }
}
