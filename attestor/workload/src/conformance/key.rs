//! Whether a private key is a certificate's.

use aws_lc_rs::{
    encoding::AsDer,
    rsa,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
        ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    },
};

use super::{Nonconformity, certificate::first_sequence};

/// Bytes of a key; one of RSA with 8192 bits has under 5 KiB.
const MAX_KEY_BYTES: usize = 8 * 1024;

/// The key is one unencrypted PKCS#8 structure, and its public half is `public_key_der` (a
/// `SubjectPublicKeyInfo`).
pub(super) fn check(pkcs8: &[u8], public_key_der: &[u8]) -> Result<(), Nonconformity> {
    if pkcs8.len() > MAX_KEY_BYTES || !is_pkcs8(pkcs8) {
        return Err(Nonconformity::SvidKeyMalformed);
    }
    let own = public_half(pkcs8).ok_or(Nonconformity::SvidKeyMalformed)?;
    if own == public_key_der { Ok(()) } else { Err(Nonconformity::SvidKeyMismatch) }
}

/// One SEQUENCE that begins with the version of RFC 5208 and an algorithm: libraries also take keys of
/// other forms, which a client may not.
fn is_pkcs8(der: &[u8]) -> bool {
    let Some((all, rest)) = first_sequence(der) else { return false };
    let Some(inner) = content(all) else { return false };
    let is_versioned = matches!(inner.get(..3), Some([0x02, 0x01, 0]));
    rest.is_empty() && is_versioned && inner.get(3) == Some(&0x30)
}

/// What is in a SEQUENCE.
fn content(sequence: &[u8]) -> Option<&[u8]> {
    match *sequence.get(1)? {
        length @ 0..0x80 => sequence.get(2..2 + usize::from(length)),
        long => sequence.get(2 + usize::from(long & 0x7f)..),
    }
}

fn public_half(pkcs8: &[u8]) -> Option<Vec<u8>> {
    let curves = [
        &ECDSA_P256_SHA256_ASN1_SIGNING,
        &ECDSA_P384_SHA384_ASN1_SIGNING,
        &ECDSA_P521_SHA512_ASN1_SIGNING,
    ];
    for curve in curves {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(curve, pkcs8) {
            return Some(AsDer::as_der(pair.public_key()).ok()?.as_ref().to_vec());
        }
    }
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8(pkcs8) {
        return Some(AsDer::as_der(pair.public_key()).ok()?.as_ref().to_vec());
    }
    let pair = rsa::KeyPair::from_pkcs8(pkcs8).ok()?;
    Some(AsDer::as_der(pair.public_key()).ok()?.as_ref().to_vec())
}
