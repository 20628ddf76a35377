//! Signing with ES256.

use std::fmt;

use aws_lc_rs::{
    error::{KeyRejected, Unspecified},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::{
    Algorithm, Curve, KeyProblem, PublicKey, base64url,
    jwk::{Jwk, KeyUse, Malformed},
    jws::MAX_TOKEN_BYTES,
};

/// No signature was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The private key is not one on P-256 in PKCS#8.
    #[error("not a private key on P-256 in PKCS#8")]
    KeyRejected(#[source] KeyRejected),
    /// The public half is no key; never for a key that was accepted.
    #[error("the public half of the key cannot be used")]
    Public(#[source] KeyProblem),
    /// The key's name cannot be a `kid`.
    #[error("the key's name cannot be used")]
    KeyId(#[source] Malformed),
    /// No key was made.
    #[error("no key could be made")]
    Generate(#[source] Unspecified),
    /// The signer failed.
    #[error("signing failed")]
    Sign(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The token would be longer than one may be.
    #[error("the token would have {found} bytes, more than {MAX_TOKEN_BYTES}")]
    TooLarge {
        /// Its length.
        found: usize,
    },
}

impl SignError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::KeyRejected(_) | Self::Public(_) | Self::KeyId(_) => "JWS_SIGNING_KEY_INVALID",
            Self::Generate(_) | Self::Sign(_) => "JWS_SIGNING_FAILED",
            Self::TooLarge { .. } => "JWS_TOO_LARGE",
        }
    }
}

/// A key that signs tokens, in memory or elsewhere.
pub trait Sign: fmt::Debug + Send + Sync {
    /// `kid` of the key.
    fn key_id(&self) -> &str;

    /// ECDSA on P-256 over the SHA-256 of `message`: `r ‖ s`, 32 bytes each, big-endian.
    ///
    /// # Errors
    /// [`SignError::Sign`].
    fn sign_es256(&self, message: &[u8]) -> Result<[u8; 64], SignError>;
}

/// A P-256 key in memory. Its `kid` is its thumbprint unless another is given.
pub struct Es256Key {
    pair: EcdsaKeyPair,
    public: PublicKey,
    id: String,
}

impl Es256Key {
    /// A new key.
    ///
    /// # Errors
    /// [`SignError::Generate`].
    pub fn generate() -> Result<Self, SignError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .map_err(SignError::Generate)?;
        Self::from_pair(pair)
    }

    /// A key from PKCS#8 DER.
    ///
    /// # Errors
    /// [`SignError::KeyRejected`].
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, SignError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
            .map_err(SignError::KeyRejected)?;
        Self::from_pair(pair)
    }

    fn from_pair(pair: EcdsaKeyPair) -> Result<Self, SignError> {
        let point = pair.public_key().as_ref();
        let (x, y) = point
            .get(1..)
            .and_then(|rest| rest.split_at_checked(Curve::P256.field_bytes()))
            .unwrap_or_default();
        let public = PublicKey::ec(Curve::P256, x, y).map_err(SignError::Public)?;
        let id = public.thumbprint();
        Ok(Self { pair, public, id })
    }

    /// With another `kid`.
    ///
    /// # Errors
    /// [`SignError::KeyId`].
    pub fn with_id(mut self, id: &str) -> Result<Self, SignError> {
        // A key set is what the name must fit into.
        self.jwk_named(id, KeyUse::Signature)?;
        id.clone_into(&mut self.id);
        Ok(self)
    }

    /// PKCS#8 DER, wiped when dropped.
    ///
    /// # Errors
    /// [`SignError::Generate`], never for a key that was made or read here.
    pub fn to_pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, SignError> {
        let document = self.pair.to_pkcs8v1().map_err(SignError::Generate)?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }

    /// The public key.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The public key with its `kid` and `alg`, for this use.
    ///
    /// # Errors
    /// Never for a key that was made here.
    pub fn jwk(&self, key_use: KeyUse) -> Result<Jwk, SignError> {
        self.jwk_named(&self.id, key_use)
    }

    fn jwk_named(&self, id: &str, key_use: KeyUse) -> Result<Jwk, SignError> {
        Jwk::new(self.public.clone())
            .with_use(key_use)
            .with_id(id)
            .and_then(|key| key.with_algorithm(Algorithm::Es256))
            .map_err(SignError::KeyId)
    }
}

impl Sign for Es256Key {
    fn key_id(&self) -> &str {
        &self.id
    }

    fn sign_es256(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        // The library asks its own generator, whatever is given here.
        let signature = self
            .pair
            .sign(&SystemRandom::new(), message)
            .map_err(|error| SignError::Sign(Box::new(error)))?;
        signature.as_ref().try_into().map_err(|error| SignError::Sign(Box::new(error)))
    }
}

impl fmt::Debug for Es256Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Es256Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A signed token: header exactly `alg`, `kid` and `typ` (`JWT`); claims in alphabetical order.
///
/// # Errors
/// [`SignError::Sign`], [`SignError::TooLarge`].
pub fn token(signer: &dyn Sign, claims: Map<String, Value>) -> Result<String, SignError> {
    let header = serde_json::json!({
        "alg": Algorithm::Es256.as_str(),
        "kid": signer.key_id(),
        "typ": "JWT",
    });
    let header = base64url::encode(header.to_string().as_bytes());
    let claims = base64url::encode(Value::Object(claims).to_string().as_bytes());
    let signed = format!("{header}.{claims}");
    let signature = base64url::encode(&signer.sign_es256(signed.as_bytes())?);
    let token = format!("{signed}.{signature}");
    if token.len() > MAX_TOKEN_BYTES {
        return Err(SignError::TooLarge { found: token.len() });
    }
    Ok(token)
}
