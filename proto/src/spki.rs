//! Canonical `SubjectPublicKeyInfo` of a TPM key, and the endorsement key digest made from it.
//!
//! One key has one encoding here, whatever its certificate looks like, so that the digest can name
//! an endorsement key in the inventory, with or without a certificate.

use crate::{
    digest::{Digest, HashAlg},
    tpm::public::{Curve, KeyKind, Public},
};

/// DER tags.
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;

/// `AlgorithmIdentifier` of rsaEncryption (1.2.840.113549.1.1.1) with NULL parameters.
const RSA_ENCRYPTION: &[u8] =
    &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
/// `AlgorithmIdentifier` of id-ecPublicKey (1.2.840.10045.2.1) on prime256v1 (1.2.840.10045.3.1.7).
const EC_P256: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x03, 0x01, 0x07,
];
/// `AlgorithmIdentifier` of id-ecPublicKey on secp384r1 (1.3.132.0.34).
const EC_P384: &[u8] = &[
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04,
    0x00, 0x22,
];
/// Exponent that a TPM writes as 0.
const DEFAULT_EXPONENT: u32 = 65_537;

/// The key as DER `SubjectPublicKeyInfo`.
///
/// # Format
/// RSA: rsaEncryption with NULL parameters, modulus and exponent without superfluous zeros.
/// ECC: id-ecPublicKey with the named curve, uncompressed point, coordinates padded to the field.
///
/// # Does not prove
/// That the key is valid: a point is not checked to be on its curve, a modulus not for its size.
///
/// # Source
/// RFC 5280, RFC 3279, RFC 5480; SEC 1 section 2.3.3.
#[must_use]
pub fn canonical_spki(public: &Public) -> Vec<u8> {
    match public.key() {
        KeyKind::Rsa { exponent, modulus, .. } => {
            let exponent = if *exponent == 0 { DEFAULT_EXPONENT } else { *exponent };
            rsa_spki(modulus, &exponent.to_be_bytes())
        }
        KeyKind::Ecc { curve, x, y } => ecc_spki(*curve, x, y),
    }
}

/// As [`canonical_spki`], for an RSA key of a certificate; big-endian numbers.
#[must_use]
pub fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    spki(RSA_ENCRYPTION, &rsa_public_key(modulus, exponent))
}

/// `RSAPublicKey`: minimal integers; big-endian numbers, leading zeros do not count.
#[must_use]
pub fn rsa_public_key(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let mut numbers = unsigned_integer(modulus);
    numbers.extend(unsigned_integer(exponent));
    tlv(SEQUENCE, &numbers)
}

/// As [`canonical_spki`], for an ECC key of a certificate; big-endian coordinates.
#[must_use]
pub fn ecc_spki(curve: Curve, x: &[u8], y: &[u8]) -> Vec<u8> {
    let mut point = vec![0x04];
    point.extend(padded(x, curve.field_bytes()));
    point.extend(padded(y, curve.field_bytes()));
    let algorithm = match curve {
        Curve::P256 => EC_P256,
        Curve::P384 => EC_P384,
    };
    spki(algorithm, &point)
}

fn spki(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    // No unused bits.
    let bits = [&[0], key].concat();
    tlv(SEQUENCE, &[algorithm, &tlv(BIT_STRING, &bits)].concat())
}

/// Names an endorsement key: SHA-256 of [`canonical_spki`], written `sha256:<hex>`.
#[must_use]
pub fn ek_digest(public: &Public) -> Digest {
    HashAlg::Sha256.hash(&[&canonical_spki(public)])
}

/// One DER element; `content` is far below 64 KiB, as a public area is.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let len = content.len().to_be_bytes();
    let significant: Vec<u8> = len.into_iter().skip_while(|byte| *byte == 0).collect();
    match significant.as_slice() {
        [] => out.push(0),
        [short] if *short < 0x80 => out.push(*short),
        long => {
            // At most 8 length bytes follow.
            out.push(0x80 | u8::try_from(long.len()).unwrap_or(0x7f));
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
    out
}

/// A non-negative DER `INTEGER` from big-endian bytes.
fn unsigned_integer(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let digits = bytes.get(start..).unwrap_or_default();
    let mut content = Vec::with_capacity(digits.len().saturating_add(1));
    if digits.first().is_none_or(|first| *first >= 0x80) {
        content.push(0);
    }
    content.extend_from_slice(digits);
    tlv(INTEGER, &content)
}

/// `bytes` left-padded with zeros to `len`; the decoder has bounded them to `len`.
fn padded(bytes: &[u8], len: usize) -> Vec<u8> {
    let mut out = vec![0; len.saturating_sub(bytes.len())];
    out.extend_from_slice(bytes);
    out
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };

    use super::*;

    fn public(bytes: &[u8]) -> Public {
        Public::decode(bytes).expect("test structure")
    }

    /// `TPMT_PUBLIC` of a P-256 key with the given coordinates.
    fn ecc(curve: u16, x: &[u8], y: &[u8]) -> Public {
        let mut out = vec![0x00, 0x23, 0x00, 0x0b, 0, 0, 0, 0, 0, 0, 0x00, 0x10, 0x00, 0x10];
        out.extend(curve.to_be_bytes());
        out.extend([0x00, 0x10]);
        for part in [x, y] {
            out.extend(crate::tpm::credential::sized(part));
        }
        public(&out)
    }

    fn rsa(bits: u16, exponent: u32, modulus: &[u8]) -> Public {
        let mut out = vec![0x00, 0x01, 0x00, 0x0b, 0, 0, 0, 0, 0, 0, 0x00, 0x10, 0x00, 0x10];
        out.extend(bits.to_be_bytes());
        out.extend(exponent.to_be_bytes());
        out.extend(crate::tpm::credential::sized(modulus));
        public(&out)
    }

    /// Runs openssl with `input` on its standard input; `None` where it is not installed.
    fn openssl(args: &[&str], input: &[u8]) -> Option<Vec<u8>> {
        let mut child = match Command::new("openssl")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
        {
            Ok(child) => child,
            Err(error) if std::env::var_os("CI").is_none() => {
                println!("skipped: openssl: {error}");
                return None;
            }
            Err(error) => panic!("openssl: {error}"),
        };
        child.stdin.take().expect("piped").write_all(input).expect("written");
        let output = child.wait_with_output().expect("ended");
        assert!(output.status.success());
        Some(output.stdout)
    }

    /// SPKI as openssl writes it for a new key.
    fn new_key(args: &[&str]) -> Option<Vec<u8>> {
        let mut all = vec!["genpkey", "-outform", "DER"];
        all.extend(args);
        let key = openssl(&all, &[])?;
        openssl(&["pkey", "-inform", "DER", "-pubout", "-outform", "DER"], &key)
    }

    #[test]
    fn ecc_keys_encode_as_openssl_encodes_them() {
        for (name, curve, field) in [("P-256", 3, 32), ("P-384", 4, 48)] {
            let option = format!("ec_paramgen_curve:{name}");
            let Some(spki) = new_key(&["-algorithm", "EC", "-pkeyopt", &option]) else {
                return;
            };
            let (_, point) = spki.split_at(spki.len() - 2 * field);
            let (x, y) = point.split_at(field);
            assert_eq!(canonical_spki(&ecc(curve, x, y)), spki);
        }
    }

    #[test]
    fn rsa_keys_encode_as_openssl_encodes_them() {
        let Some(spki) = new_key(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]) else {
            return;
        };
        // … INTEGER modulus (with a leading zero), INTEGER 65537 (02 03 01 00 01).
        let end = spki.len() - 5;
        let modulus = &spki[end - 256..end];
        assert_eq!(canonical_spki(&rsa(2048, 0, modulus)), spki);
        assert_eq!(canonical_spki(&rsa(2048, 65_537, modulus)), spki);
    }

    #[test]
    fn stripped_leading_zeros_do_not_change_the_digest() {
        let mut x = [7; 32];
        x[0] = 0;
        let whole = ecc(3, &x, &[9; 32]);
        let stripped = ecc(3, &x[1..], &[9; 32]);
        assert_eq!(ek_digest(&whole), ek_digest(&stripped));
        assert_eq!(canonical_spki(&stripped).len(), 91);
    }

    #[test]
    fn lengths_are_minimal() {
        assert_eq!(tlv(SEQUENCE, &[]), [0x30, 0]);
        assert_eq!(tlv(SEQUENCE, &[0; 127])[..2], [0x30, 0x7f]);
        assert_eq!(tlv(SEQUENCE, &[0; 128])[..3], [0x30, 0x81, 0x80]);
        assert_eq!(tlv(SEQUENCE, &[0; 256])[..4], [0x30, 0x82, 0x01, 0x00]);
        assert_eq!(unsigned_integer(&[0, 0]), [2, 1, 0]);
        assert_eq!(unsigned_integer(&[0, 0x80]), [2, 2, 0, 0x80]);
    }
}
