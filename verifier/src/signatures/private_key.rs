//! Private security keys: made, read from and written to files of their holder, used to sign.

use std::{fmt, path::Path};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use der::pem::LineEnding;
use p256::pkcs8::PrivateKeyInfoRef;
use zeroize::Zeroizing;

use super::{
    Algorithm, KeyError, Pae, PublicKey, Signature,
    pem::only_block,
    public_key::{EC_PUBLIC_KEY, ID_ED25519, P256, described},
};
use crate::ca::files;

/// PKCS#8, RFC 5958.
const PKCS8: &str = "PRIVATE KEY";
/// Of P-256 only, RFC 5915: what `openssl ecparam -genkey` writes.
const SEC1: &str = "EC PRIVATE KEY";

/// A private security key in memory; never printed. The library that signs wipes it.
pub struct SecurityPrivateKey {
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SecurityPrivateKey {
    /// A new key: PKCS#8 PEM, wiped when dropped.
    ///
    /// # Errors
    /// [`KeyError::Generate`].
    pub fn generate(algorithm: Algorithm) -> Result<Zeroizing<String>, KeyError> {
        let pkcs8 = match algorithm {
            Algorithm::P256 => EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
                .and_then(|pair| pair.to_pkcs8v1()),
            // Version 1, without the public key: OpenSSL 3.0 reads no other.
            Algorithm::Ed25519 => Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8v1()),
        }
        .map_err(KeyError::Generate)?;
        let pem = der::pem::encode_string(PKCS8, LineEnding::LF, pkcs8.as_ref());
        Ok(Zeroizing::new(pem.map_err(|error| KeyError::Pem(error.to_string()))?))
    }

    /// Reads PKCS#8, or the form of P-256 that OpenSSL calls traditional.
    ///
    /// # Errors
    /// [`KeyError`]; [`KeyError::Encrypted`] for a key under a password.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let (label, der) = only_block(text, &[PKCS8, SEC1])?;
        let algorithm = if label == SEC1 { Algorithm::P256 } else { algorithm_of(&der)? };
        match algorithm {
            Algorithm::P256 => {
                let pair =
                    EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, &der)
                        .map_err(KeyError::Rejected)?;
                let public = PublicKey::from_raw(algorithm, pair.public_key().as_ref())?;
                Ok(Self { pair: Pair::P256(pair), public })
            }
            Algorithm::Ed25519 => {
                let pair = Ed25519KeyPair::from_pkcs8(&der).map_err(KeyError::Rejected)?;
                let public = PublicKey::from_raw(algorithm, pair.public_key().as_ref())?;
                Ok(Self { pair: Pair::Ed25519(pair), public })
            }
        }
    }

    /// Reads a file that only its owner can read.
    ///
    /// # Errors
    /// [`KeyError::File`] where others could have read it too; else as
    /// [`SecurityPrivateKey::from_pem`].
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        Self::from_pem(&files::read_secret(path).map_err(KeyError::File)?)
    }

    /// Makes a key and its file with mode 0600. Returns the public key; `None`, and no file is
    /// touched, where one of that name exists.
    ///
    /// # Errors
    /// [`KeyError::Generate`], [`KeyError::File`].
    pub fn create(path: &Path, algorithm: Algorithm) -> Result<Option<PublicKey>, KeyError> {
        let pem = Self::generate(algorithm)?;
        let public = Self::from_pem(&pem)?.public;
        let is_new = files::create(path, pem.as_bytes(), files::MODE_SECRET);
        Ok(is_new.map_err(KeyError::File)?.then_some(public))
    }

    /// The public key.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs an envelope's content, and nothing but envelopes' contents.
    ///
    /// # Errors
    /// [`KeyError::Sign`], also if the signature does not verify: a fault while signing can betray
    /// the key.
    pub fn sign(&self, pae: &Pae) -> Result<Signature, KeyError> {
        let message = pae.as_bytes();
        let signature = match &self.pair {
            Pair::P256(pair) => {
                // The library asks its own generator, whatever is given here.
                let signature = pair.sign(&SystemRandom::new(), message);
                signature.map_err(|_| KeyError::Sign)?.as_ref().to_vec()
            }
            Pair::Ed25519(pair) => {
                pair.try_sign(message).map_err(|_| KeyError::Sign)?.as_ref().to_vec()
            }
        };
        if !self.public.verifies(message, &signature) {
            return Err(KeyError::Sign);
        }
        Signature::new(Some(self.public.id().to_string()), signature).map_err(|_| KeyError::Sign)
    }
}

impl fmt::Debug for SecurityPrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecurityPrivateKey").field("public", &self.public).finish_non_exhaustive()
    }
}

fn algorithm_of(pkcs8: &[u8]) -> Result<Algorithm, KeyError> {
    let info = PrivateKeyInfoRef::try_from(pkcs8).map_err(|error| match error {
        p256::pkcs8::Error::Asn1(error) => KeyError::Der(error),
        _ => KeyError::Der(der::ErrorKind::Failed.into()),
    })?;
    match (info.algorithm.oid, info.algorithm.parameters_oid()) {
        (EC_PUBLIC_KEY, Ok(P256)) => Ok(Algorithm::P256),
        (ID_ED25519, _) => Ok(Algorithm::Ed25519),
        (other, _) => Err(KeyError::Algorithm(described(other))),
    }
}
