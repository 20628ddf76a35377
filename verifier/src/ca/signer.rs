//! Private keys, serial numbers, and the one place that signs.
//!
//! This is the only file of the CA that draws random numbers.

use std::{fmt, marker::PhantomData};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use der::{
    Decode, Encode,
    asn1::{BitString, OctetString},
};
use p256::{
    PublicKey, SecretKey,
    ecdsa::{DerSignature, VerifyingKey},
    pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, LineEnding},
};
use sha2::{Digest, Sha256};
use spki::{AlgorithmIdentifierOwned, ObjectIdentifier, SubjectPublicKeyInfoOwned};
use zeroize::Zeroizing;

use super::lint::LintedTbs;

/// `ecdsa-with-SHA256`, the only signature algorithm of this CA.
///
/// # Source
/// RFC 5758, "ECDSA Signature Algorithm": parameters are absent.
pub(super) const ECDSA_WITH_SHA256: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

/// Size of a serial number, bytes: 126 random bits, above the 64 that RFC 5280 practice asks for
/// and below its 20-byte bound.
pub(super) const SERIAL_BYTES: usize = 16;

/// The CA could not make or use a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignerError {
    /// DER encoding failed.
    #[error("a structure could not be encoded")]
    Encoding(#[from] der::Error),
    /// Not a PKCS#8 P-256 private key.
    #[error("not a PKCS#8 private key on P-256")]
    KeyFormat(#[source] p256::pkcs8::Error),
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Random(#[source] getrandom::Error),
    /// The library that signs refused the key.
    #[error("the private key cannot be used for signing")]
    KeyRejected(#[source] aws_lc_rs::error::KeyRejected),
    /// Signing failed.
    #[error("signing failed")]
    Signature(#[source] aws_lc_rs::error::Unspecified),
    /// The certificate was prepared for another issuer.
    #[error("the certificate was prepared for the issuer {prepared}, not for {found}")]
    WrongIssuer {
        /// Key identifier it was prepared for.
        prepared: KeyId,
        /// Key identifier of the key given.
        found: KeyId,
    },
}

/// Subject key identifier.
///
/// # Format
/// The first 160 bits of SHA-256 over the `subjectPublicKey` bits.
///
/// # Source
/// RFC 7093, "Additional Methods for Generating Key Identifiers", method 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 20]);

impl KeyId {
    /// Identifier of a public key.
    #[must_use]
    pub fn of(key: &SubjectPublicKeyInfoOwned) -> Self {
        let hash = Sha256::digest(key.subject_public_key.raw_bytes());
        let mut id = [0; 20];
        id.copy_from_slice(&hash[..20]);
        Self(id)
    }

    /// The identifier's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// First eight hexadecimal digits: tells keys apart in names of files and subjects.
    #[must_use]
    pub fn short(&self) -> String {
        hex::encode(&self.0[..4])
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A P-256 private key in memory, wiped when dropped; never printed.
pub struct PrivateKey {
    secret: SecretKey,
    public: SubjectPublicKeyInfoOwned,
}

impl PrivateKey {
    /// A new key.
    ///
    /// # Errors
    /// [`SignerError::Random`].
    pub fn generate() -> Result<Self, SignerError> {
        let mut bytes = Zeroizing::new([0; 32]);
        // A candidate is not a scalar with a probability below 2^-32.
        let secret = loop {
            getrandom::fill(bytes.as_mut()).map_err(SignerError::Random)?;
            if let Ok(secret) = SecretKey::from_slice(bytes.as_ref()) {
                break secret;
            }
        };
        Self::from_secret(secret)
    }

    /// A key from PKCS#8 PEM.
    ///
    /// # Errors
    /// [`SignerError::KeyFormat`] for anything but one PKCS#8 key on P-256.
    pub fn from_pem(pem: &str) -> Result<Self, SignerError> {
        Self::from_secret(SecretKey::from_pkcs8_pem(pem).map_err(SignerError::KeyFormat)?)
    }

    fn from_secret(secret: SecretKey) -> Result<Self, SignerError> {
        let public = spki_of(&secret.public_key())?;
        Ok(Self { secret, public })
    }

    /// PKCS#8 PEM, wiped when dropped.
    ///
    /// # Errors
    /// [`SignerError::KeyFormat`], never for a key made here.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, SignerError> {
        self.secret.to_pkcs8_pem(LineEnding::LF).map_err(SignerError::KeyFormat)
    }

    /// PKCS#8 DER, wiped when dropped.
    ///
    /// # Errors
    /// [`SignerError::KeyFormat`], never for a key made here.
    pub fn to_der(&self) -> Result<Zeroizing<Vec<u8>>, SignerError> {
        Ok(self.secret.to_pkcs8_der().map_err(SignerError::KeyFormat)?.to_bytes())
    }

    /// The public key.
    #[must_use]
    pub const fn public(&self) -> &SubjectPublicKeyInfoOwned {
        &self.public
    }

    /// Identifier of the public key.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId::of(&self.public)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// `SubjectPublicKeyInfo` of a P-256 key.
pub(crate) fn spki_of(key: &PublicKey) -> Result<SubjectPublicKeyInfoOwned, SignerError> {
    let document = key.to_public_key_der().map_err(|_| der::Error::from(der::ErrorKind::Failed))?;
    Ok(SubjectPublicKeyInfoOwned::from_der(document.as_bytes())?)
}

/// A key that signs certificates and CRLs.
///
/// What it is given to sign is a [`LintedTbs`] or comes from this crate's CRL and request encoders;
/// there is no way to sign arbitrary bytes from outside. Signing is on the path of every renewal,
/// hence by aws-lc-rs, which needs a fraction of the time of `p256`.
pub struct IssuingKey {
    pair: EcdsaKeyPair,
    id: KeyId,
}

impl IssuingKey {
    /// The signing half of `key`.
    ///
    /// # Errors
    /// [`SignerError::KeyFormat`], [`SignerError::KeyRejected`], never for a key made here.
    pub fn new(key: &PrivateKey) -> Result<Self, SignerError> {
        let der = key.to_der()?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der)
            .map_err(SignerError::KeyRejected)?;
        Ok(Self { pair, id: key.id() })
    }

    /// Identifier of the public key.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// DER `ECDSA-Sig-Value` over SHA-256 of `message`. The nonce is the library's: random, with the
    /// private key and the digest mixed in, so that a weak random generator does not betray the key.
    pub(super) fn sign_raw(&self, message: &[u8]) -> Result<BitString, SignerError> {
        // The library asks its own generator, whatever is given here.
        let signed = self.pair.sign(&SystemRandom::new(), message);
        Ok(BitString::from_bytes(signed.map_err(SignerError::Signature)?.as_ref())?)
    }

    /// Joins signed content and signature: `SEQUENCE { content, algorithm, signature }`.
    pub(super) fn sign_structure(&self, content: &[u8]) -> Result<Vec<u8>, SignerError> {
        let signature = self.sign_raw(content)?.to_der()?;
        let algorithm = signature_algorithm().to_der()?;
        let mut body = Vec::with_capacity(content.len() + algorithm.len() + signature.len());
        body.extend_from_slice(content);
        body.extend_from_slice(&algorithm);
        body.extend_from_slice(&signature);
        Ok(der::Any::new(der::Tag::Sequence, body)?.to_der()?)
    }
}

impl fmt::Debug for IssuingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuingKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The algorithm identifier in certificates, CRLs and requests.
#[must_use]
pub(super) const fn signature_algorithm() -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA256, parameters: None }
}

/// Whether the P-256 key `issuer` signed the certificate or CRL `signed` (tbs, algorithm,
/// signature).
pub(crate) fn verifies(
    issuer: &SubjectPublicKeyInfoOwned,
    algorithm: &AlgorithmIdentifierOwned,
    message: &[u8],
    signature: &BitString,
) -> bool {
    if *algorithm != signature_algorithm() || signature.unused_bits() != 0 {
        return false;
    }
    let Ok(der) = issuer.to_der() else { return false };
    let Ok(key) = <VerifyingKey as p256::pkcs8::DecodePublicKey>::from_public_key_der(&der) else {
        return false;
    };
    let Ok(signature) = DerSignature::try_from(signature.raw_bytes()) else { return false };
    p256::ecdsa::signature::Verifier::verify(&key, message, &signature).is_ok()
}

/// 32 random bytes from the operating system.
///
/// # Errors
/// [`SignerError::Random`].
pub(crate) fn random_32() -> Result<[u8; 32], SignerError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(SignerError::Random)?;
    Ok(bytes)
}

/// A certificate serial number: positive, 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial([u8; SERIAL_BYTES]);

impl Serial {
    /// A new serial number with 126 random bits.
    ///
    /// # Errors
    /// [`SignerError::Random`].
    pub(super) fn random() -> Result<Self, SignerError> {
        let mut bytes = [0; SERIAL_BYTES];
        getrandom::fill(&mut bytes).map_err(SignerError::Random)?;
        // Positive, and its DER always has exactly 16 content bytes.
        bytes[0] = bytes[0] & 0x3f | 0x40;
        Ok(Self(bytes))
    }

    /// Big-endian bytes, without a sign byte.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; SERIAL_BYTES] {
        &self.0
    }
}

impl std::str::FromStr for Serial {
    type Err = SerialParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; SERIAL_BYTES];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| SerialParseError)?;
        if bytes[0] & 0xc0 == 0x40 { Ok(Self(bytes)) } else { Err(SerialParseError) }
    }
}

/// The text is not a serial number that this CA gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a serial number of this CA is 32 hexadecimal digits, the first of them 4 to 7")]
pub struct SerialParseError;

/// Lower-case hexadecimal, as OpenSSL prints it without colons.
impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A signed certificate for a subject of kind `S`.
///
/// # Proves
/// Its content passed every rule of its profile and was signed by the issuer it names.
pub struct Issued<S> {
    der: Vec<u8>,
    serial: Serial,
    not_after_unix_s: u64,
    _subject: PhantomData<fn() -> S>,
}

impl<S> Issued<S> {
    /// DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Serial number.
    #[must_use]
    pub const fn serial(&self) -> Serial {
        self.serial
    }

    /// End of validity, seconds since 1970.
    #[must_use]
    pub const fn not_after_unix_s(&self) -> u64 {
        self.not_after_unix_s
    }

    /// SHA-256 of the DER.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.der).into()
    }
}

impl<S> fmt::Debug for Issued<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("serial", &self.serial)
            .field("not_after_unix_s", &self.not_after_unix_s)
            .finish_non_exhaustive()
    }
}

/// Signs what passed the lint; consumes it, so that one preparation gives one certificate.
///
/// # Errors
/// [`SignerError::WrongIssuer`] if the key is not that of the issuer it was prepared for.
pub fn sign<S>(tbs: LintedTbs<S>, key: &IssuingKey) -> Result<Issued<S>, SignerError> {
    if tbs.issuer_key_id() != key.id {
        return Err(SignerError::WrongIssuer { prepared: tbs.issuer_key_id(), found: key.id });
    }
    let der = key.sign_structure(tbs.der())?;
    Ok(Issued {
        der,
        serial: tbs.serial(),
        not_after_unix_s: tbs.not_after_unix_s(),
        _subject: PhantomData,
    })
}

/// Octet string of a key identifier.
pub(super) fn key_id_octets(id: KeyId) -> Result<OctetString, der::Error> {
    OctetString::new(id.as_bytes())
}
