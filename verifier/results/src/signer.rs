//! Keys that sign: in this process, or behind whatever the caller has.

use std::fmt;

use aws_lc_rs::{
    digest::{Digest, SHA256},
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
        ParsedPublicKey,
    },
};
use der::Encode as _;
use spki::{AlgorithmIdentifier, SubjectPublicKeyInfo, der::asn1::BitString};

use crate::{
    Sha256Digest,
    refusal::{Code, Refusal, quoted},
};

/// Largest signature, bytes: an `ECDSA-Sig-Value` on P-256 has 72 at most.
pub const MAX_SIGNATURE_BYTES: usize = 72;

/// A P-256 key that signs SHA-256 digests. The private half may be anywhere.
pub trait Signer {
    /// DER `SubjectPublicKeyInfo` of the public half: named curve, uncompressed point.
    fn spki_der(&self) -> &[u8];

    /// DER `ECDSA-Sig-Value` over `digest`, which is the SHA-256 of what is signed.
    ///
    /// # Errors
    /// In words, what kept the key from signing.
    fn sign_digest(&self, digest: &Sha256Digest) -> Result<Vec<u8>, String>;
}

/// The identifier of a key: `sha256:` and the SHA-256 of its SPKI DER, as for the keys of documents.
#[must_use]
pub fn key_id(spki_der: &[u8]) -> String {
    format!("sha256:{}", Sha256Digest::of(spki_der))
}

/// Signs, and looks whether what came back is a signature of that key: a key elsewhere can be broken,
/// exchanged or asked over a line that lies, and nobody should learn it from a relying party.
pub(crate) fn sign(signer: &dyn Signer, digest: &Sha256Digest) -> Result<Vec<u8>, Refusal> {
    let failed =
        |observed: String| Refusal::new(Code::SigningFailed, "key", "a signature", observed);
    let signature = signer.sign_digest(digest).map_err(|why| failed(quoted(&why)))?;
    if verifies(signer.spki_der(), digest, &signature) {
        return Ok(signature);
    }
    Err(failed("bytes that the key's public half does not accept".to_owned()))
}

/// Whether `signature` is the P-256 key's over `digest`.
pub(crate) fn verifies(spki_der: &[u8], digest: &Sha256Digest, signature: &[u8]) -> bool {
    let Ok(key) = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, spki_der) else { return false };
    let Ok(digest) = Digest::import_less_safe(digest.as_bytes(), &SHA256) else { return false };
    key.verify_digest_sig(&digest, signature).is_ok()
}

/// A P-256 key in memory; never printed.
pub struct SoftwareKey {
    pair: EcdsaKeyPair,
    spki_der: Vec<u8>,
}

/// Bytes that are no PKCS#8 private key on P-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a PKCS#8 private key on P-256")]
pub struct KeyError;

impl SoftwareKey {
    /// A key from PKCS#8 DER.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der);
        Self::from_pair(pair.map_err(|_| KeyError)?)
    }

    /// A new key, out of the signature library's random generator.
    ///
    /// # Errors
    /// [`KeyError`] if the generator fails.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING);
        Self::from_pair(pair.map_err(|_| KeyError)?)
    }

    fn from_pair(pair: EcdsaKeyPair) -> Result<Self, KeyError> {
        let spki = SubjectPublicKeyInfo {
            algorithm: AlgorithmIdentifier {
                oid: const_oid::db::rfc5912::ID_EC_PUBLIC_KEY,
                parameters: Some(const_oid::db::rfc5912::SECP_256_R_1),
            },
            subject_public_key: BitString::from_bytes(pair.public_key().as_ref())
                .map_err(|_| KeyError)?,
        };
        let spki_der = spki.to_der().map_err(|_| KeyError)?;
        Ok(Self { pair, spki_der })
    }
}

impl Signer for SoftwareKey {
    fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    fn sign_digest(&self, digest: &Sha256Digest) -> Result<Vec<u8>, String> {
        let digest = Digest::import_less_safe(digest.as_bytes(), &SHA256)
            .map_err(|_| "not a SHA-256 digest".to_owned())?;
        // The library's nonce: random, with the private key and the digest mixed in.
        let signature =
            self.pair.sign_digest(&digest).map_err(|_| "the library refused".to_owned())?;
        Ok(signature.as_ref().to_vec())
    }
}

impl fmt::Debug for SoftwareKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoftwareKey").field("id", &key_id(&self.spki_der)).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_verifies_what_it_signed_and_nothing_else() {
        let key = SoftwareKey::generate().expect("a key");
        let (one, other) = (Sha256Digest::of(b"1"), Sha256Digest::of(b"2"));
        let signature = sign(&key, &one).expect("a signature");
        assert!(verifies(key.spki_der(), &one, &signature));
        assert!(!verifies(key.spki_der(), &other, &signature));
        let stranger = SoftwareKey::generate().expect("a key");
        assert!(!verifies(stranger.spki_der(), &one, &signature));
        assert_eq!(SoftwareKey::from_pkcs8_der(b"").err(), Some(KeyError));
    }

    /// A key whose answers are somebody else's.
    struct Exchanged(SoftwareKey, SoftwareKey);

    impl Signer for Exchanged {
        fn spki_der(&self) -> &[u8] {
            self.0.spki_der()
        }

        fn sign_digest(&self, digest: &Sha256Digest) -> Result<Vec<u8>, String> {
            self.1.sign_digest(digest)
        }
    }

    #[test]
    fn what_a_key_elsewhere_answers_is_checked() {
        let [one, other] = [(); 2].map(|()| SoftwareKey::generate().expect("a key"));
        let refusal = sign(&Exchanged(one, other), &Sha256Digest::of(b"")).expect_err("refused");
        assert_eq!(refusal.code(), Code::SigningFailed);
    }
}
