//! Public keys: P-256 and Ed25519, one encoding each.

use std::{fmt, str::FromStr, sync::Arc};

use aws_lc_rs::{
    error::{KeyRejected, Unspecified},
    signature::{ECDSA_P256_SHA256_ASN1, ED25519, ParsedPublicKey, VerificationAlgorithm},
};
use der::{Decode, Encode, asn1::BitString};
use proto::digest::{Digest, HashAlg};
use spki::{AlgorithmIdentifierOwned, ObjectIdentifier, SubjectPublicKeyInfoOwned};

use super::pem::only_block;
use crate::ca::files::{FileError, pem};

/// `id-ecPublicKey`; RFC 5480.
pub(super) const EC_PUBLIC_KEY: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// `secp256r1`; RFC 5480.
pub(super) const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// `id-Ed25519`; RFC 8410.
pub(super) const ID_ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// y-coordinates of the points of Ed25519 whose order divides 8, little-endian, without the sign of
/// x: a signature under one of them can be made by anybody.
///
/// # Source
/// Of order 4, 1, 2, 8, 8, in this order: y = 0, 1, -1 and the two roots ±y of
/// `d·y⁴ + 2·y² - 1 = 0`, which is where doubling gives y = 0 (RFC 8032, "Point Addition").
const SMALL_ORDER_Y: [&str; 5] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
];

/// A key cannot be read, made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not one PEM block.
    #[error("not a key in PEM: {0}")]
    Pem(String),
    /// Something else in PEM.
    #[error("{found} is not what is expected here: {expected}")]
    Label {
        /// Label of the block found.
        found: String,
        /// Labels that are accepted.
        expected: String,
    },
    /// A private key under a password.
    #[error(
        "the private key is encrypted, which is not supported: decrypt it with `openssl pkey -in \
         FILE -out PLAIN` onto a medium that only its holder has"
    )]
    Encrypted,
    /// Not the DER of a key.
    #[error("the key's DER does not decode")]
    Der(#[source] der::Error),
    /// Another algorithm or curve.
    #[error("the key is neither P-256 nor Ed25519: {0}")]
    Algorithm(String),
    /// A P-256 point that is not written as `04 ‖ x ‖ y`.
    #[error(
        "the point is not in uncompressed form: write the key with `openssl ec -conv_form \
         uncompressed`"
    )]
    PointForm,
    /// An Ed25519 key that is no point, has another spelling, or verifies everybody's signatures.
    #[error(
        "the Ed25519 key is weak: its point has a small order, or is not spelled as RFC 8032 says"
    )]
    Weak,
    /// The library that verifies and signs refused the key.
    #[error("the key is not valid")]
    Rejected(#[source] KeyRejected),
    /// No key was made.
    #[error("no key could be made")]
    Generate(#[source] Unspecified),
    /// No signature was made.
    #[error("signing failed")]
    Sign,
    /// A key's file.
    #[error("the key's file cannot be used")]
    File(#[source] FileError),
}

/// Kind of a security key, and with it the one kind of signature that it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256; signatures are DER `ECDSA-Sig-Value`.
    P256,
    /// Ed25519, of RFC 8032, "pure"; signatures have 64 bytes.
    Ed25519,
}

impl Algorithm {
    /// The name, as on a command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::Ed25519 => "ed25519",
        }
    }

    fn identifier(self) -> AlgorithmIdentifierOwned {
        match self {
            Self::P256 => {
                AlgorithmIdentifierOwned { oid: EC_PUBLIC_KEY, parameters: Some((&P256).into()) }
            }
            Self::Ed25519 => AlgorithmIdentifierOwned { oid: ID_ED25519, parameters: None },
        }
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_ASN1,
            Self::Ed25519 => &ED25519,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no algorithm of security keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a security key is `p256` or `ed25519`")]
pub struct UnknownAlgorithm;

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::P256, Self::Ed25519]
            .into_iter()
            .find(|algorithm| algorithm.as_str() == text)
            .ok_or(UnknownAlgorithm)
    }
}

/// A public key.
///
/// # Format
/// SPKI. One key has one encoding: named curve, uncompressed point, DER; hence one identifier.
#[derive(Clone)]
pub struct PublicKey {
    algorithm: Algorithm,
    spki_der: Vec<u8>,
    id: Digest,
    key: Arc<ParsedPublicKey>,
}

impl PublicKey {
    /// Reads `BEGIN PUBLIC KEY`.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let (_, der) = only_block(text, &["PUBLIC KEY"])?;
        let spki = SubjectPublicKeyInfoOwned::from_der(&der).map_err(KeyError::Der)?;
        let algorithm = [Algorithm::P256, Algorithm::Ed25519]
            .into_iter()
            .find(|algorithm| algorithm.identifier() == spki.algorithm)
            .ok_or_else(|| KeyError::Algorithm(described(spki.algorithm.oid)))?;
        let raw = spki
            .subject_public_key
            .as_bytes()
            .ok_or_else(|| KeyError::Der(der::ErrorKind::Failed.into()))?;
        Self::from_raw(algorithm, raw)
    }

    /// A point, as its algorithm writes it.
    pub(super) fn from_raw(algorithm: Algorithm, raw: &[u8]) -> Result<Self, KeyError> {
        match algorithm {
            Algorithm::P256 if raw.len() != 65 || raw.first() != Some(&0x04) => {
                return Err(KeyError::PointForm);
            }
            Algorithm::Ed25519 => strong_ed25519(raw)?,
            Algorithm::P256 => (),
        }
        let key =
            ParsedPublicKey::new(algorithm.verification(), raw).map_err(KeyError::Rejected)?;
        let spki = SubjectPublicKeyInfoOwned {
            algorithm: algorithm.identifier(),
            subject_public_key: BitString::from_bytes(raw).map_err(KeyError::Der)?,
        };
        let spki_der = spki.to_der().map_err(KeyError::Der)?;
        let id = HashAlg::Sha256.hash(&[&spki_der]);
        Ok(Self { algorithm, spki_der, id, key: Arc::new(key) })
    }

    /// Kind of the key.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// SHA-256 of the SPKI DER; displayed as `sha256:…`, it is the `keyid` of signatures.
    #[must_use]
    pub const fn id(&self) -> &Digest {
        &self.id
    }

    /// SPKI PEM, always the same for one key.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem("PUBLIC KEY", &self.spki_der)
    }

    /// Whether the signature verifies; who asks makes a value of it.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verify_sig(message, signature).is_ok()
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.spki_der == other.spki_der
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey")
            .field("algorithm", &self.algorithm)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What an algorithm is, in words, if somebody is likely to try it.
pub(super) fn described(oid: ObjectIdentifier) -> String {
    match oid.to_string().as_str() {
        "1.2.840.10045.2.1" => {
            "an elliptic curve other than P-256, or P-256 without its name".into()
        }
        "1.2.840.113549.1.1.1" => "RSA".into(),
        "1.3.101.113" => "Ed448".into(),
        "1.3.101.110" => "X25519, which does not sign".into(),
        other => format!("algorithm {other}"),
    }
}

/// Refuses points of small order and second spellings of a point.
fn strong_ed25519(raw: &[u8]) -> Result<(), KeyError> {
    let mut y: [u8; 32] = raw.try_into().map_err(|_| KeyError::Weak)?;
    if let Some(last) = y.last_mut() {
        *last &= 0x7f;
    }
    let is_small = SMALL_ORDER_Y.iter().any(|small| *small == hex::encode(y));
    // p = 2^255 - 19: from it on, a coordinate repeats a smaller one.
    let [first, middle @ .., last] = y;
    let is_reduced = first < 0xed || last != 0x7f || middle.iter().any(|byte| *byte != 0xff);
    if is_small || !is_reduced { Err(KeyError::Weak) } else { Ok(()) }
}
