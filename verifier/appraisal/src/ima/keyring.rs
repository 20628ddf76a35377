//! Keys that may vouch for files, and checking their signatures.
//!
//! # Source
//! Linux `security/integrity/digsig_asymmetric.c`; `ima-evm-utils`, which makes the signatures: RSA with
//! PKCS #1 v1.5 or ECDSA over the file's digest (version 2), or over the hash of type, algorithm and
//! digest (version 3).

use std::sync::Arc;

use aws_lc_rs::{
    digest as hash,
    rsa::PublicKeyComponents,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1,
        ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA512_ASN1,
        ECDSA_P521_SHA256_ASN1, ECDSA_P521_SHA384_ASN1, ECDSA_P521_SHA512_ASN1,
        EcdsaVerificationAlgorithm, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
        RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RsaParameters,
    },
};
use proto::{
    digest::{Digest, HashAlg},
    ima::{BankAlg, DigestKind, FileDigest, FileSignature, SignatureForm},
};

use super::ImaProblem;
use crate::x509::{Certificate, EcCurve, SubjectKey, parse_spki};

/// Keys of one policy.
pub const MAX_KEYS: usize = 256;

/// Keys that may sign files, found by the identifier that signatures name.
#[derive(Clone, Debug)]
pub struct Keyring {
    keys: Vec<Key>,
    id: Digest,
}

#[derive(Clone, Debug)]
struct Key {
    /// Identifiers that a signature may name it by: of its certificate, and computed.
    ids: Vec<[u8; 4]>,
    name: String,
    /// `SubjectPublicKeyInfo` in canonical form.
    spki: Vec<u8>,
    /// The key for SHA-256, SHA-384 and SHA-512, in this order.
    by_hash: [Arc<ParsedPublicKey>; 3],
}

/// What a file's signature is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignatureCheck {
    /// Made by this key of the keyring, over this file's digest.
    Good {
        /// The key's name.
        key: String,
    },
    /// Names a key of the keyring, and is not its signature over this digest. Why.
    Bad(String),
    /// Not one that this keyring can say anything about. Why.
    NotOurs(String),
}

impl Keyring {
    /// A keyring of certificates and bare public keys, each in DER or PEM; a PEM file may hold
    /// several.
    ///
    /// Certificates are names for keys here: neither their dates nor their issuers are looked at. Who
    /// gives the verifier a keyring decides which keys it trusts, and for how long.
    ///
    /// # Errors
    /// [`ImaProblem`] for a file that holds neither, a key that is too weak or of another type, no key
    /// at all, or too many.
    pub fn new<'f>(
        files: impl IntoIterator<Item = (&'f str, &'f [u8])>,
    ) -> Result<Self, ImaProblem> {
        let mut keys: Vec<Key> = Vec::new();
        for (name, bytes) in files {
            for der in documents(name, bytes)? {
                let key = Key::parse(name, &der)?;
                if !keys.iter().any(|known| known.spki == key.spki && known.ids == key.ids) {
                    keys.push(key);
                }
                if keys.len() > MAX_KEYS {
                    return Err(ImaProblem::new("keys", format!("more than {MAX_KEYS}")));
                }
            }
        }
        if keys.is_empty() {
            return Err(ImaProblem::new("keys", "there is no key"));
        }
        keys.sort_by(|a, b| (&a.spki, &a.ids).cmp(&(&b.spki, &b.ids)));
        let parts: Vec<Vec<u8>> = keys
            .iter()
            .map(|key| {
                // Each part has a length of its own: no two keyrings give the same bytes.
                let count = u32::try_from(key.ids.len()).unwrap_or(u32::MAX).to_be_bytes();
                let size = u32::try_from(key.spki.len()).unwrap_or(u32::MAX).to_be_bytes();
                [&count[..], &key.ids.concat(), &size, &key.spki].concat()
            })
            .collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        Ok(Self { id: HashAlg::Sha256.hash(&parts), keys })
    }

    /// SHA-256 over its keys.
    #[must_use]
    pub const fn id(&self) -> &Digest {
        &self.id
    }

    /// Identifier and name of each key.
    pub fn keys(&self) -> impl Iterator<Item = (String, &str)> {
        self.keys
            .iter()
            .flat_map(|key| key.ids.iter().map(|id| (hex::encode(id), key.name.as_str())))
    }

    /// Checks the value of the field `sig` for a file with this digest.
    #[must_use]
    pub fn check(&self, value: &[u8], digest: &FileDigest<'_>) -> SignatureCheck {
        let signature = match FileSignature::parse(value) {
            Ok(signature) => signature,
            Err(error) => return SignatureCheck::NotOurs(error.to_string()),
        };
        let id = hex::encode(signature.key_id);
        let mut keys =
            self.keys.iter().filter(|key| key.ids.contains(&signature.key_id)).peekable();
        if keys.peek().is_none() {
            return SignatureCheck::NotOurs(format!("key {id} is not in the keyring"));
        }
        let alg = match signed_with(&signature, digest) {
            Ok(alg) => alg,
            Err(why) => return SignatureCheck::Bad(why),
        };
        match keys.find(|key| key.verifies(alg, &signature, digest.bytes)) {
            Some(key) => SignatureCheck::Good { key: key.name.clone() },
            None => SignatureCheck::Bad(format!("the signature of key {id} does not verify")),
        }
    }
}

/// The hash of a signature, if it is over a digest like the one measured.
fn signed_with(signature: &FileSignature<'_>, digest: &FileDigest<'_>) -> Result<HashAlg, String> {
    if digest.algorithm != Some(signature.algorithm) {
        let (signed, measured) = (signature.algorithm, digest.to_string());
        return Err(format!("it is over a {signed} digest, measured was {measured}"));
    }
    let is_verity = signature.form == SignatureForm::V3 { is_verity: true };
    if is_verity != (digest.kind == DigestKind::Verity) {
        return Err("fs-verity in one of signature and measurement only".to_owned());
    }
    let alg = signature.algorithm.appraised();
    alg.ok_or_else(|| format!("{} proves nothing", signature.algorithm))
}

impl Key {
    fn parse(name: &str, der: &[u8]) -> Result<Self, ImaProblem> {
        let problem = |what: String| ImaProblem::new(name, what);
        let certificate;
        let spki;
        let mut ids = Vec::new();
        let key = match Certificate::parse(der) {
            Ok(read) => {
                certificate = read;
                ids.extend(certificate.subject_key_id().and_then(last_four));
                certificate.key()
            }
            Err(error) => {
                spki = parse_spki(der).map_err(|_| {
                    problem(format!("neither a certificate nor a public key: {error}"))
                })?;
                spki.key(der)
            }
        };
        let unsupported = || problem(format!("{key} cannot be used to check files"));
        let bits = key.public_key_bits().ok_or_else(unsupported)?;
        ids.extend(last_four(BankAlg::Sha1.hash(&[&bits]).as_bytes()));
        ids.dedup();
        let parsed = |hash: usize| key_for(&key, hash).ok_or_else(unsupported);
        let by_hash = [parsed(0)?, parsed(1)?, parsed(2)?];
        let spki = key.canonical_spki().ok_or_else(unsupported)?;
        Ok(Self { ids, name: name.to_owned(), spki, by_hash })
    }

    fn verifies(&self, alg: HashAlg, signature: &FileSignature<'_>, digest: &[u8]) -> bool {
        let [sha256, sha384, sha512] = &self.by_hash;
        let (key, algorithm) = match alg {
            HashAlg::Sha256 => (sha256, &hash::SHA256),
            HashAlg::Sha384 => (sha384, &hash::SHA384),
            HashAlg::Sha512 => (sha512, &hash::SHA512),
        };
        match signature.file_id_prefix() {
            Some(prefix) => key.verify_sig(&[&prefix, digest].concat(), signature.value).is_ok(),
            None => hash::Digest::import_less_safe(digest, algorithm)
                .is_ok_and(|digest| key.verify_digest_sig(&digest, signature.value).is_ok()),
        }
    }
}

/// The key with the `hash`-th of SHA-256, SHA-384, SHA-512; `None` if it is of another type or size.
fn key_for(key: &SubjectKey<'_>, hash: usize) -> Option<Arc<ParsedPublicKey>> {
    let parsed = match key {
        SubjectKey::Rsa { modulus, exponent } => {
            let parameters: [&'static RsaParameters; 3] = [
                &RSA_PKCS1_2048_8192_SHA256,
                &RSA_PKCS1_2048_8192_SHA384,
                &RSA_PKCS1_2048_8192_SHA512,
            ];
            if !(2048..=8192).contains(&crate::x509::bit_length(modulus)) {
                return None;
            }
            PublicKeyComponents { n: *modulus, e: *exponent }
                .to_parsed_public_key(parameters.get(hash)?)
                .ok()?
        }
        SubjectKey::Ec { curve, point } => {
            let algorithms: [&'static EcdsaVerificationAlgorithm; 3] = match curve {
                EcCurve::P256 => {
                    [&ECDSA_P256_SHA256_ASN1, &ECDSA_P256_SHA384_ASN1, &ECDSA_P256_SHA512_ASN1]
                }
                EcCurve::P384 => {
                    [&ECDSA_P384_SHA256_ASN1, &ECDSA_P384_SHA384_ASN1, &ECDSA_P384_SHA512_ASN1]
                }
                EcCurve::P521 => {
                    [&ECDSA_P521_SHA256_ASN1, &ECDSA_P521_SHA384_ASN1, &ECDSA_P521_SHA512_ASN1]
                }
            };
            ParsedPublicKey::new(*algorithms.get(hash)?, *point).ok()?
        }
        SubjectKey::Unsupported(_) => return None,
    };
    Some(Arc::new(parsed))
}

fn last_four(id: &[u8]) -> Option<[u8; 4]> {
    id.last_chunk::<4>().copied()
}

/// DER documents in a file: each PEM block, or the file itself.
fn documents(name: &str, bytes: &[u8]) -> Result<Vec<Vec<u8>>, ImaProblem> {
    const BEGIN: &[u8] = b"-----BEGIN ";
    const END: &[u8] = b"-----END ";
    let Some(start) = find(bytes, BEGIN) else { return Ok(vec![bytes.to_vec()]) };
    let problem = |what: String| ImaProblem::new(name, what);
    let mut rest = bytes.get(start..).unwrap_or_default();
    let mut out = Vec::new();
    while let Some(start) = find(rest, BEGIN) {
        rest = rest.get(start..).unwrap_or_default();
        let end = find(rest, END).ok_or_else(|| problem("a PEM block has no end".to_owned()))?;
        let tail = rest.get(end..).unwrap_or_default();
        let line = tail.iter().position(|byte| *byte == b'\n').unwrap_or(tail.len());
        let block = rest.get(..end.saturating_add(line)).unwrap_or_default();
        let (label, der) =
            der::pem::decode_vec(block).map_err(|error| problem(format!("PEM: {error}")))?;
        if !matches!(label, "CERTIFICATE" | "PUBLIC KEY") {
            return Err(problem(format!("a PEM block is a {label}")));
        }
        out.push(der);
        if out.len() > MAX_KEYS {
            return Err(problem(format!("more than {MAX_KEYS} keys")));
        }
        rest = tail.get(line..).unwrap_or_default();
    }
    Ok(out)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
