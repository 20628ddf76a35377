//! Signing keys of every kind that an AK may have, and some that it may not.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PSS_SHA256, RSA_PSS_SHA384,
        RsaEncoding, RsaKeyPair,
    },
};
use proto::{digest::HashAlg, tpm::credential::sized};

/// Type, size and scheme of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    EcdsaP256,
    /// ECDSA on P-384 with SHA-384.
    EcdsaP384,
    /// RSASSA-PKCS1-v1_5: modulus bits (2048, 3072 or 4096), SHA-256 or SHA-384.
    RsaSsa(u16, HashAlg),
    /// RSAPSS.
    RsaPss(u16, HashAlg),
}

impl Algorithm {
    /// Everything that the verifier accepts of an AK, RSA-4096 left out for the time it takes.
    pub const ALL: [Self; 10] = [
        Self::EcdsaP256,
        Self::EcdsaP384,
        Self::RsaSsa(2048, HashAlg::Sha256),
        Self::RsaSsa(2048, HashAlg::Sha384),
        Self::RsaSsa(3072, HashAlg::Sha256),
        Self::RsaSsa(3072, HashAlg::Sha384),
        Self::RsaPss(2048, HashAlg::Sha256),
        Self::RsaPss(2048, HashAlg::Sha384),
        Self::RsaPss(3072, HashAlg::Sha256),
        Self::RsaPss(3072, HashAlg::Sha384),
    ];

    /// `TPM_ALG_ID` of the signing scheme and of its hash.
    #[must_use]
    pub const fn scheme(self) -> (u16, u16) {
        let (scheme, hash) = match self {
            Self::EcdsaP256 => (0x0018, HashAlg::Sha256),
            Self::EcdsaP384 => (0x0018, HashAlg::Sha384),
            Self::RsaSsa(_, hash) => (0x0014, hash),
            Self::RsaPss(_, hash) => (0x0016, hash),
        };
        (scheme, hash.tpm_id())
    }

    /// The scheme's hash.
    #[must_use]
    pub const fn hash(self) -> HashAlg {
        match self {
            Self::EcdsaP256 => HashAlg::Sha256,
            Self::EcdsaP384 => HashAlg::Sha384,
            Self::RsaSsa(_, hash) | Self::RsaPss(_, hash) => hash,
        }
    }
}

/// A key pair.
#[derive(Clone, Debug)]
pub struct SigningKey {
    algorithm: Algorithm,
    pair: Arc<Pair>,
}

#[derive(Debug)]
enum Pair {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// RSA keys take long to make: one a size serves a whole process.
static RSA: LazyLock<Mutex<HashMap<u16, Arc<Pair>>>> = LazyLock::new(Mutex::default);

impl SigningKey {
    /// A fresh elliptic key, or this process's RSA key of that size.
    ///
    /// # Panics
    /// If the library makes no key.
    #[must_use]
    pub fn generate(algorithm: Algorithm) -> Self {
        let pair = match algorithm {
            Algorithm::EcdsaP256 => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::EcdsaP384 => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::RsaSsa(bits, _) | Algorithm::RsaPss(bits, _) => {
                let mut keys = RSA.lock().unwrap_or_else(PoisonError::into_inner);
                let key = keys.entry(bits).or_insert_with(|| {
                    let size = match bits {
                        2048 => KeySize::Rsa2048,
                        3072 => KeySize::Rsa3072,
                        _ => KeySize::Rsa4096,
                    };
                    Arc::new(Pair::Rsa(RsaKeyPair::generate(size).expect("an RSA key")))
                });
                Arc::clone(key)
            }
        };
        Self { algorithm, pair }
    }

    /// What it was made for.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The same key used with another scheme, as an attacker who has it may.
    #[must_use]
    pub fn with(&self, algorithm: Algorithm) -> Self {
        Self { algorithm, pair: Arc::clone(&self.pair) }
    }

    /// Affine coordinates, or the modulus: the `unique` field of a public area, in parts.
    #[must_use]
    pub fn unique(&self) -> Vec<Vec<u8>> {
        match &*self.pair {
            Pair::Ecdsa(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = point[1..].split_at(point.len() / 2);
                vec![x.to_vec(), y.to_vec()]
            }
            Pair::Rsa(pair) => {
                let bits = u16::try_from(pair.public_modulus_len() * 8).expect("a small key");
                vec![modulus(pair.public_key().as_ref(), bits)]
            }
        }
    }

    /// `TPMT_SIGNATURE` over `message`.
    ///
    /// # Panics
    /// If the key does not fit its algorithm.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let (scheme, hash) = self.algorithm.scheme();
        let mut out = scheme.to_be_bytes().to_vec();
        out.extend(hash.to_be_bytes());
        for part in self.raw_signature(message) {
            out.extend(sized(&part));
        }
        out
    }

    /// r and s, or the RSA signature.
    ///
    /// # Panics
    /// As [`SigningKey::sign`].
    #[must_use]
    pub fn raw_signature(&self, message: &[u8]) -> Vec<Vec<u8>> {
        let rng = SystemRandom::new();
        match (&*self.pair, self.algorithm) {
            (Pair::Ecdsa(pair), _) => {
                let signature = pair.sign(&rng, message).expect("a signature");
                let (r, s) = signature.as_ref().split_at(signature.as_ref().len() / 2);
                vec![r.to_vec(), s.to_vec()]
            }
            (Pair::Rsa(pair), algorithm) => {
                let padding: &'static dyn RsaEncoding = match algorithm {
                    Algorithm::RsaSsa(_, HashAlg::Sha256) => &RSA_PKCS1_SHA256,
                    Algorithm::RsaSsa(..) => &RSA_PKCS1_SHA384,
                    Algorithm::RsaPss(_, HashAlg::Sha256) => &RSA_PSS_SHA256,
                    _ => &RSA_PSS_SHA384,
                };
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &rng, message, &mut out).expect("a signature");
                vec![out]
            }
        }
    }
}

fn ecdsa(algorithm: &'static aws_lc_rs::signature::EcdsaSigningAlgorithm) -> Arc<Pair> {
    Arc::new(Pair::Ecdsa(EcdsaKeyPair::generate(algorithm).expect("an elliptic key")))
}

/// The modulus in DER that ends with it and the exponent 65537 (`02 03 01 00 01`).
pub(crate) fn modulus(der: &[u8], bits: u16) -> Vec<u8> {
    let end = der.len() - 5;
    der[end - usize::from(bits) / 8..end].to_vec()
}
