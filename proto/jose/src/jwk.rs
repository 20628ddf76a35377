//! JSON Web Keys and sets of them: public keys only.

mod error;
pub(crate) mod read;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

pub use self::error::{JwkError, Malformed};
use crate::{Algorithm, Curve, PublicKey, base64url, public_key::Kind};

/// Largest key set, bytes: 64 keys of RSA-8192 with a certificate chain each stay below.
pub const MAX_SET_BYTES: usize = 256 * 1024;
/// Most keys in a set: issuers publish two to five.
pub const MAX_KEYS: usize = 64;
/// Longest `kid`, bytes: real ones are UUIDs, SHA-256 in hexadecimal or base64url.
pub const MAX_KEY_ID_BYTES: usize = 256;
/// Most certificates in `x5c`.
pub const MAX_CERTIFICATES: usize = 8;

/// What a key is for.
///
/// # Source
/// RFC 7517, "\"use\" (Public Key Use) Parameter"; SPIFFE Trust Domain and Bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyUse {
    /// `enc`: never verifies a signature.
    Encryption,
    /// `jwt-svid`: verifies JWT-SVIDs of its trust domain.
    JwtSvid,
    /// `sig`.
    Signature,
    /// `x509-svid`: a certificate authority of its trust domain.
    X509Svid,
}

impl KeyUse {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Encryption, Self::JwtSvid, Self::Signature, Self::X509Svid];

    /// The text, as `use` has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Encryption => "enc",
            Self::JwtSvid => "jwt-svid",
            Self::Signature => "sig",
            Self::X509Svid => "x509-svid",
        }
    }
}

/// The algorithm that a key says it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// One that can be allowed; it fits the key.
    Known(Algorithm),
    /// Any other: such a key verifies nothing here.
    Other(String),
}

/// One public key with what its publisher says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwk {
    key: PublicKey,
    id: Option<String>,
    key_use: Option<KeyUse>,
    algorithm: Option<KeyAlgorithm>,
    /// `key_ops` is absent or has `verify`.
    may_verify: bool,
    /// DER.
    certificates: Vec<Vec<u8>>,
}

impl Jwk {
    /// A key with nothing said of it.
    #[must_use]
    pub const fn new(key: PublicKey) -> Self {
        Self {
            key,
            id: None,
            key_use: None,
            algorithm: None,
            may_verify: true,
            certificates: Vec::new(),
        }
    }

    /// With a `kid`.
    ///
    /// # Errors
    /// [`Malformed::KeyId`]: 1 to [`MAX_KEY_ID_BYTES`] bytes without control characters.
    pub fn with_id(mut self, id: &str) -> Result<Self, Malformed> {
        self.id = Some(checked_id(id)?.to_owned());
        Ok(self)
    }

    /// With a `use`.
    #[must_use]
    pub const fn with_use(mut self, key_use: KeyUse) -> Self {
        self.key_use = Some(key_use);
        self
    }

    /// With an `alg`.
    ///
    /// # Errors
    /// [`Malformed::AlgorithmUnfit`].
    pub fn with_algorithm(mut self, algorithm: Algorithm) -> Result<Self, Malformed> {
        if !algorithm.fits(&self.key) {
            return Err(Malformed::AlgorithmUnfit(algorithm));
        }
        self.algorithm = Some(KeyAlgorithm::Known(algorithm));
        Ok(self)
    }

    /// With a certificate chain, DER.
    pub(crate) fn with_certificates(mut self, certificates: Vec<Vec<u8>>) -> Self {
        self.certificates = certificates;
        self
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// `kid`.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// `use`.
    #[must_use]
    pub const fn key_use(&self) -> Option<KeyUse> {
        self.key_use
    }

    /// `alg`.
    #[must_use]
    pub const fn algorithm(&self) -> Option<&KeyAlgorithm> {
        self.algorithm.as_ref()
    }

    /// `x5c`, DER, as it was published: neither parsed nor compared with the key, except in a SPIFFE
    /// bundle.
    #[must_use]
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.certificates
    }

    /// Whether signatures of this algorithm may be verified with the key: type and curve fit, and
    /// `alg` and `key_ops` say nothing else.
    #[must_use]
    pub fn allows(&self, algorithm: Algorithm) -> bool {
        let is_named = match &self.algorithm {
            None => true,
            Some(KeyAlgorithm::Known(named)) => *named == algorithm,
            Some(KeyAlgorithm::Other(_)) => false,
        };
        is_named && self.may_verify && algorithm.fits(&self.key)
    }

    fn to_value(&self) -> Value {
        let mut out = Map::new();
        let mut text = |name: &str, value: String| out.insert(name.to_owned(), value.into());
        match self.key.kind() {
            Kind::Ec { curve, .. } => {
                text("kty", "EC".into());
                text("crv", curve.as_str().into());
                let [x, y] = self.key.coordinates().unwrap_or_default();
                text("x", x);
                text("y", y);
            }
            Kind::Rsa { modulus } => {
                text("kty", "RSA".into());
                text("n", base64url::encode(modulus));
                text("e", "AQAB".into());
            }
        }
        if let Some(id) = &self.id {
            text("kid", id.clone());
        }
        if let Some(key_use) = self.key_use {
            text("use", key_use.as_str().into());
        }
        match &self.algorithm {
            Some(KeyAlgorithm::Known(named)) => drop(text("alg", named.as_str().into())),
            Some(KeyAlgorithm::Other(named)) => drop(text("alg", named.clone())),
            None => {}
        }
        if !self.may_verify {
            out.insert("key_ops".to_owned(), json!([]));
        }
        if !self.certificates.is_empty() {
            let encoded = self.certificates.iter().map(|der| read::standard(der)).collect();
            out.insert("x5c".to_owned(), Value::Array(encoded));
        }
        Value::Object(out)
    }
}

fn checked_id(id: &str) -> Result<&str, Malformed> {
    let is_good = (1..=MAX_KEY_ID_BYTES).contains(&id.len()) && !id.chars().any(char::is_control);
    if is_good { Ok(id) } else { Err(Malformed::KeyId) }
}

/// A set of public keys.
///
/// # Proves
/// No two keys have the same `kid`; none brought private numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwkSet {
    keys: Vec<Jwk>,
    skipped: usize,
}

impl JwkSet {
    /// Reads a set.
    ///
    /// # Format
    /// A JSON object of at most [`MAX_SET_BYTES`] with `keys`, an array of at most [`MAX_KEYS`]
    /// objects. Members of a key that are read: `kty`, `kid`, `use`, `key_ops`, `alg`, `x5c`; `crv`,
    /// `x`, `y`; `n`, `e`. Other members say nothing here, except private ones, which are refused.
    /// A key of another type or curve, or for a `use` that has no meaning here, is skipped and
    /// counted.
    ///
    /// # Errors
    /// [`JwkError`].
    ///
    /// # Source
    /// RFC 7517, "JWK Set Format"; RFC 7518, "Cryptographic Algorithms for Keys".
    pub fn parse(bytes: &[u8]) -> Result<Self, JwkError> {
        read::set(&read::document(bytes)?)
    }

    /// A set of these keys.
    ///
    /// # Errors
    /// [`JwkError::KeyIdTwice`], [`JwkError::TooManyKeys`].
    pub fn new(keys: Vec<Jwk>) -> Result<Self, JwkError> {
        if keys.len() > MAX_KEYS {
            return Err(JwkError::TooManyKeys { found: keys.len() });
        }
        let mut seen = read::Seen::default();
        for (index, key) in keys.iter().enumerate() {
            if let Some(id) = key.id() {
                seen.insert(index, id)?;
            }
        }
        Ok(Self { keys, skipped: 0 })
    }

    /// The keys, in the order of the document.
    #[must_use]
    pub fn keys(&self) -> &[Jwk] {
        &self.keys
    }

    /// How many entries were skipped because their type, curve or use has no meaning here.
    #[must_use]
    pub const fn skipped(&self) -> usize {
        self.skipped
    }

    /// The key with this `kid`; there is at most one.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<&Jwk> {
        self.keys.iter().find(|key| key.id() == Some(id))
    }

    /// The set as JSON, members in alphabetical order.
    #[must_use]
    pub fn to_json(&self) -> String {
        json!({ "keys": self.values() }).to_string()
    }

    pub(crate) fn values(&self) -> Vec<Value> {
        self.keys.iter().map(Jwk::to_value).collect()
    }
}

/// `crv` of keys that are understood.
fn curve(name: &str) -> Option<Curve> {
    [Curve::P256, Curve::P384].into_iter().find(|curve| curve.as_str() == name)
}
