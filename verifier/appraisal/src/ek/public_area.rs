//! What an EK's public area must say, and which keys are too weak to be one.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, EcdsaVerificationAlgorithm, ParsedPublicKey,
};
use proto::{
    reason::ReasonCode,
    tpm::public::{Curve, KeyKind, ObjectAttributes, Public, Scheme},
};

use crate::{verdict::Finding, verification_key::uncompressed_point};

const SUBJECT: &str = "EK public area";

/// Attributes that every EK has: the TPM made the key, it cannot leave, and it only unwraps what
/// the TPM itself will check (TCG EK Credential Profile, "Default EK Templates").
const REQUIRED: [(u32, &str); 5] = [
    (ObjectAttributes::FIXED_TPM, "fixedTPM"),
    (ObjectAttributes::FIXED_PARENT, "fixedParent"),
    (ObjectAttributes::SENSITIVE_DATA_ORIGIN, "sensitiveDataOrigin"),
    (ObjectAttributes::RESTRICTED, "restricted"),
    (ObjectAttributes::DECRYPT, "decrypt"),
];
/// Attributes that differ between templates and weaken nothing: who may use the key.
const ALLOWED: u32 = ObjectAttributes::USER_WITH_AUTH
    | ObjectAttributes::ADMIN_WITH_POLICY
    | ObjectAttributes::NO_DA
    | ObjectAttributes::ST_CLEAR;

/// Primes up to 167 whose residues 65537 does not generate: for an RSALib modulus (ROCA,
/// CVE-2017-15361), and for hardly any other, the residue by each of them is a power of 65537.
const ROCA_PRIMES: [u16; 17] =
    [11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157];

/// Judges the public area of an EK.
///
/// # Errors
/// `EK_TEMPLATE_INVALID` attributes, scheme or symmetric algorithm; `EK_KEY_UNSUPPORTED` type or
/// size;
/// `EK_KEY_WEAK` the key itself.
pub(super) fn check(public: &Public) -> Result<(), Finding> {
    check_template(public)?;
    match public.key() {
        KeyKind::Rsa { key_bits, exponent, modulus } => check_rsa(*key_bits, *exponent, modulus),
        KeyKind::Ecc { curve, x, y } => check_ecc(*curve, x, y),
        _ => Err(unsupported("another key type")),
    }
}

fn check_template(public: &Public) -> Result<(), Finding> {
    let refuse = |expected: &str, observed: &str| {
        Err(Finding::new(ReasonCode::EkTemplateInvalid, SUBJECT, expected, observed))
    };
    let attributes = public.attributes();
    for (mask, name) in REQUIRED {
        if !attributes.has(mask) {
            return refuse(&format!("attribute {name}"), &format!("{name} clear"));
        }
    }
    if attributes.has(ObjectAttributes::SIGN) {
        return refuse("attribute sign clear", "sign set: a key that signs is no EK");
    }
    let known = REQUIRED.iter().fold(ALLOWED, |mask, (bit, _)| mask | bit);
    if attributes.0 & !known != 0 {
        let observed = format!("{:#010x}", attributes.0 & !known);
        return refuse("no attribute that an EK template does not have", &observed);
    }
    if public.symmetric().is_none() {
        return refuse("AES-CFB as the symmetric algorithm of a storage key", "none");
    }
    if public.scheme() != Scheme::Null {
        return refuse("no scheme, as a storage key has", "a scheme");
    }
    Ok(())
}

fn check_rsa(key_bits: u16, exponent: u32, modulus: &[u8]) -> Result<(), Finding> {
    if !matches!(key_bits, 2048 | 3072) {
        return Err(unsupported(&format!("RSA-{key_bits}")));
    }
    if !matches!(exponent, 0 | 65_537) {
        return Err(weak("exponent 65537 (0 stands for it)", &format!("exponent {exponent}")));
    }
    let full = modulus.len() == usize::from(key_bits) / 8
        && modulus.first().is_some_and(|byte| *byte >= 0x80);
    if !full {
        let observed = format!("{} bits", crate::x509::bit_length(modulus));
        return Err(weak(&format!("a modulus of exactly {key_bits} bits"), &observed));
    }
    if modulus.last().is_none_or(|byte| byte & 1 == 0) {
        return Err(weak("an odd modulus", "an even modulus"));
    }
    if has_roca_fingerprint(modulus) {
        return Err(weak("a modulus without the ROCA fingerprint", "CVE-2017-15361"));
    }
    Ok(())
}

fn check_ecc(curve: Curve, x: &[u8], y: &[u8]) -> Result<(), Finding> {
    let algorithm: &'static EcdsaVerificationAlgorithm = match curve {
        Curve::P256 => &ECDSA_P256_SHA256_ASN1,
        Curve::P384 => &ECDSA_P384_SHA384_ASN1,
    };
    // Parsing checks the curve equation; the point at infinity has no uncompressed form.
    let on_curve = uncompressed_point(curve, x, y)
        .is_some_and(|point| ParsedPublicKey::new(algorithm, point).is_ok());
    if on_curve { Ok(()) } else { Err(weak("a point on its curve", "a point off the curve")) }
}

/// Whether `modulus` (big-endian) looks like one that Infineon's RSALib made.
///
/// Another modulus does with a chance of about one in 2^27.
fn has_roca_fingerprint(modulus: &[u8]) -> bool {
    ROCA_PRIMES.iter().all(|prime| {
        let prime = u32::from(*prime);
        let residue = modulus.iter().fold(0, |rest, byte| (rest << 8 | u32::from(*byte)) % prime);
        let generator = 65_537 % prime;
        let mut power = 1;
        loop {
            if power == residue {
                return true;
            }
            power = power * generator % prime;
            if power == 1 {
                return false;
            }
        }
    })
}

fn unsupported(observed: &str) -> Finding {
    let expected = "RSA-2048, RSA-3072, P-256 or P-384";
    Finding::new(ReasonCode::EkKeyUnsupported, SUBJECT, expected, observed)
}

fn weak(expected: &str, observed: &str) -> Finding {
    Finding::new(ReasonCode::EkKeyWeak, SUBJECT, expected, observed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roca_primes_are_those_that_tell_something() {
        let primes = (3_u32..=167).filter(|n| (2..*n).all(|d| n % d != 0));
        let telling: Vec<u32> = primes
            .filter(|prime| {
                let mut order = 1;
                let mut power = 65_537 % prime;
                while power > 1 {
                    power = power * (65_537 % prime) % prime;
                    order += 1;
                }
                // Where 65537 is 0 or generates every residue, nothing is told.
                power == 1 && order < prime - 1
            })
            .collect();
        let listed: Vec<u32> = ROCA_PRIMES.iter().map(|prime| u32::from(*prime)).collect();
        assert!(listed.iter().all(|prime| telling.contains(prime)), "{telling:?}");
    }

    #[test]
    fn roca_fingerprint_is_found_in_powers_of_65537_only() {
        // 65537^k for any k has the fingerprint by construction.
        let mut value: Vec<u8> = vec![1];
        for _ in 0..40 {
            // times 2^16, plus itself
            let mut shifted = value.clone();
            shifted.extend([0, 0]);
            let mut carry = 0;
            for (index, byte) in value.iter().rev().enumerate() {
                let at = shifted.len() - 1 - index;
                let sum = u16::from(shifted[at]) + u16::from(*byte) + carry;
                shifted[at] = sum as u8;
                carry = sum >> 8;
            }
            let mut at = shifted.len() - 1 - value.len();
            while carry > 0 {
                let sum = u16::from(shifted[at]) + carry;
                shifted[at] = sum as u8;
                carry = sum >> 8;
                at = at.wrapping_sub(1);
            }
            value = shifted;
            assert!(has_roca_fingerprint(&value));
        }
        *value.last_mut().expect("not empty") ^= 2;
        assert!(!has_roca_fingerprint(&value));
    }
}
