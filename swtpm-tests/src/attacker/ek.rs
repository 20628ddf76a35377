//! Endorsement keys and certificates, and AK public areas, as an attacker shows them.

use std::time::SystemTime;

use proto::{
    pb,
    tpm::public::{ObjectAttributes as A, Public},
};

use super::{
    mutate::Mutations,
    site::Site,
    tpm::{
        self, ALG_ECDSA, ALG_SHA1, ALG_SHA256, ALG_SHA384, P256, SoftKey, ecc_public, rsa_public,
    },
};
use crate::{
    cluster::AnyError,
    manufacturer::{DAY, EKU_AK_CERTIFICATE, EkProfile, EkTemplate, Issuer, Manufacturer, spki},
};

/// `TPM_ALG_RSASSA`.
const ALG_RSASSA: u16 = 0x0014;

/// `ak-shown:…`: another public area than the AK's.
///
/// # Errors
/// An unknown verb.
pub fn shown_ak(verb: &str, honest: &[u8]) -> Result<Vec<u8>, AnyError> {
    let mut public = honest.to_vec();
    let ecdsa = |hash| Some((ALG_ECDSA, hash));
    let decoded = Public::decode(honest)?;
    let proto::tpm::public::KeyKind::Ecc { x, y, .. } = decoded.key() else {
        return Err("the honest AK is not ECC".into());
    };
    let point = (x.as_slice(), y.as_slice());
    let rsassa = Some((ALG_RSASSA, ALG_SHA256));
    Ok(match verb {
        "decrypt" => {
            set_attributes(&mut public, |bits| bits | A::DECRYPT);
            public
        }
        "not-signing" => {
            set_attributes(&mut public, |bits| bits & !A::SIGN);
            public
        }
        "imported" => {
            set_attributes(&mut public, |bits| bits & !A::SENSITIVE_DATA_ORIGIN);
            public
        }
        "null-scheme" => ecc_public(tpm::AK, None, None, P256, point),
        "sha1" => ecc_public(tpm::AK, None, ecdsa(ALG_SHA1), P256, point),
        "sha384-on-p256" => ecc_public(tpm::AK, None, ecdsa(ALG_SHA384), P256, point),
        "off-curve" => {
            if let Some(last) = public.last_mut() {
                *last ^= 1;
            }
            public
        }
        "infinity" => ecc_public(tpm::AK, None, ecdsa(ALG_SHA256), P256, (&[], &[])),
        "rsa-1024" => rsa_public(tpm::AK, None, rsassa, 1024, 0, &odd(128)),
        "rsa-even" => rsa_public(tpm::AK, None, rsassa, 2048, 0, &even(256)),
        "rsa-exponent-3" => rsa_public(tpm::AK, None, rsassa, 2048, 3, &odd(256)),
        "rsa-short" => rsa_public(tpm::AK, None, rsassa, 2048, 0, &odd(255)),
        "keyed-hash" => {
            public[..2].copy_from_slice(&[0x00, 0x08]);
            public
        }
        "unknown-name-alg" => {
            public[2..4].copy_from_slice(&[0x00, 0x27]);
            public
        }
        other => return Err(format!("ak-shown:{other}").into()),
    })
}

/// `ek:…` and `ek-cert:…`: the EK and its certificate in Hello.
///
/// # Errors
/// An unknown verb.
pub fn forge(site: &mut Site, m: &Mutations, hello: &mut pb::Hello) -> Result<(), AnyError> {
    if let Some(verb) = m.arg("ek") {
        key(site, verb, hello)?;
    }
    if let Some(verb) = m.arg("ek-cert") {
        certificate(site, verb, hello)?;
    }
    Ok(())
}

fn key(site: &Site, verb: &str, hello: &mut pb::Hello) -> Result<(), AnyError> {
    let rsa = |bits, exponent, modulus: &[u8]| {
        rsa_public(tpm::EK, Some(128), None, bits, exponent, modulus)
    };
    let mut other = |public: Vec<u8>| hello.ek_public = public;
    match verb {
        // The victim's EK and certificate are public data.
        "of-other-node" => {
            hello.ek_public = site.other.ek.as_bytes().to_vec();
            hello.ek_certificate.clone_from(&site.other.certificate);
        }
        // A genuine TPM that nobody enrolled: another EK of the same chip.
        "stranger" => {
            let public = site.worker.tpm.ek(EkTemplate::Rsa2048)?;
            let index = EkTemplate::Rsa2048.certificate_index();
            hello.ek_certificate = site.worker.raw().nv_read(index)?;
            hello.ek_public = public.as_bytes().to_vec();
        }
        "rsa-even" => other(rsa(2048, 0, &even(256))),
        "rsa-short" => other(rsa(2048, 0, &odd(255))),
        "rsa-exponent-3" => other(rsa(2048, 3, &odd(256))),
        "rsa-roca" => other(rsa(2048, 0, &roca())),
        "rsa-1024" => other(rsa(1024, 0, &odd(128))),
        "rsa-4096" => other(rsa(4096, 0, &odd(512))),
        "off-curve" => other(ecc_public(tpm::EK, Some(128), None, P256, (&[1; 32], &[2; 32]))),
        "exportable" => set_attributes(&mut hello.ek_public, |bits| bits & !A::FIXED_TPM),
        "unrestricted" => set_attributes(&mut hello.ek_public, |bits| bits & !A::RESTRICTED),
        "signing" => set_attributes(&mut hello.ek_public, |bits| bits | A::SIGN),
        "imported" => {
            set_attributes(&mut hello.ek_public, |bits| bits & !A::SENSITIVE_DATA_ORIGIN);
        }
        // A signing key passed off as an EK.
        "an-ak" => other(hello.ak_public.clone()),
        other => return Err(format!("ek:{other}").into()),
    }
    Ok(())
}

fn certificate(site: &mut Site, verb: &str, hello: &mut pb::Hello) -> Result<(), AnyError> {
    let now = site.now();
    let profile = |edit: &dyn Fn(&mut EkProfile)| {
        let mut profile = EkProfile::default();
        edit(&mut profile);
        profile
    };
    let by = |issuer| profile(&|profile| profile.issuer = issuer);
    let bad = match verb {
        "none" => {
            hello.ek_certificate.clear();
            return Ok(());
        }
        "of-other" => {
            hello.ek_certificate.clone_from(&site.other.certificate);
            return Ok(());
        }
        "garbage" => {
            hello.ek_certificate = vec![0x5a; 700];
            return Ok(());
        }
        "cut" => {
            hello.ek_certificate.truncate(300);
            return Ok(());
        }
        "revoked" => {
            hello.ek_certificate.clone_from(&site.revoked_certificate);
            return Ok(());
        }
        "algorithm" => {
            // ecdsa-with-SHA256 becomes an algorithm that does not exist, inside and outside.
            let known = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
            replace(&mut hello.ek_certificate, &known, 7, 0x63);
            return Ok(());
        }
        "unknown-root" => {
            let elsewhere = Manufacturer::new("Nobody's TPMs")?;
            let issued = elsewhere.issue(&site.worker.ek, &EkProfile::default())?;
            hello.ek_certificate = issued.der;
            hello.ek_chain = issued.chain;
            hello.ek_chain.push(elsewhere.root_der()?);
            return Ok(());
        }
        "self-signed" => {
            let elsewhere = Manufacturer::new("Nobody's TPMs")?;
            let profile = by(Issuer::Root);
            let issued = elsewhere.issue(&site.worker.ek, &profile)?;
            hello.ek_certificate = issued.der;
            hello.ek_chain = vec![elsewhere.root_der()?];
            return Ok(());
        }
        "expired" => profile(&|p| {
            p.not_before = now - 30 * DAY;
            p.not_after = Some(now - DAY);
        }),
        "not-yet-valid" => profile(&|p| p.not_before = now + DAY),
        "ca" => profile(&|p| p.ca = true),
        "ak-purpose" => profile(&|p| p.extended_key_usage = vec![EKU_AK_CERTIFICATE]),
        "both-purposes" => profile(&|p| p.extended_key_usage.push(EKU_AK_CERTIFICATE)),
        "unknown-critical" => profile(&|p| p.unknown_critical_extension = true),
        "broken-signature" => profile(&|p| p.broken_signature = true),
        "other-key" => {
            let other = spki(&Public::decode(&SoftKey::new(tpm::EK, None)?.public)?)?;
            profile(&|p| p.other_key = Some(other.clone()))
        }
        "impostor" => by(Issuer::Impostor),
        "issuer-no-ca" => by(Issuer::NotCa),
        "issuer-without-cert-sign" => by(Issuer::WithoutCertSign),
        "issuer-expired" => by(Issuer::Expired),
        "issuer-not-yet-valid" => by(Issuer::NotYetValid),
        "issuer-below-path-length" => by(Issuer::BelowPathLength),
        "loop" => by(Issuer::Loop),
        "deep" => by(Issuer::Deep(8)),
        other => return Err(format!("ek-cert:{other}").into()),
    };
    let issued = site.worker.tpm.manufacturer().issue(&site.worker.ek, &bad)?;
    hello.ek_certificate = issued.der;
    hello.ek_chain = issued.chain;
    Ok(())
}

/// Changes `TPMA_OBJECT` of a `TPMT_PUBLIC`.
pub(crate) fn set_attributes(public: &mut [u8], change: impl Fn(u32) -> u32) {
    if let Some(bits) = public.get_mut(4..8).and_then(|bits| bits.first_chunk_mut::<4>()) {
        *bits = change(u32::from_be_bytes(*bits)).to_be_bytes();
    }
}

/// A number of this size with its highest and lowest bits set.
fn odd(bytes: usize) -> Vec<u8> {
    let mut out = vec![0xb7; bytes];
    out[0] = 0xc3;
    out[bytes - 1] = 0x01;
    out
}

fn even(bytes: usize) -> Vec<u8> {
    let mut out = odd(bytes);
    out[bytes - 1] = 0x02;
    out
}

/// A modulus with the fingerprint of CVE-2017-15361: its residue by every prime that tells is a power of
/// 65537, namely 1, being one more than a multiple of their product.
fn roca() -> Vec<u8> {
    const PRIMES: [u32; 17] =
        [11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157];
    // Twice the product; shifted to the top below.
    let mut product = vec![2_u8];
    for prime in PRIMES {
        let mut carry = 0;
        for byte in product.iter_mut().rev() {
            carry += u32::from(*byte) * prime;
            *byte = carry.to_le_bytes()[0];
            carry >>= 8;
        }
        while carry > 0 {
            product.insert(0, carry.to_le_bytes()[0]);
            carry >>= 8;
        }
    }
    // Doubled until its highest bit is that of its highest byte.
    while product[0] < 0x80 {
        let mut carry = 0;
        for byte in product.iter_mut().rev() {
            let doubled = u16::from(*byte) << 1 | carry;
            *byte = doubled.to_le_bytes()[0];
            carry = doubled >> 8;
        }
    }
    product.resize(256, 0);
    product[255] |= 1;
    product
}

/// Changes one byte of every occurrence of `pattern`.
fn replace(bytes: &mut [u8], pattern: &[u8], at: usize, byte: u8) {
    let mut from = 0;
    while let Some(found) = bytes[from..].windows(pattern.len()).position(|part| part == pattern) {
        bytes[from + found + at] = byte;
        from += found + pattern.len();
    }
}

/// A moment of the site's clock as certificates carry it.
#[must_use]
pub fn moment(unix_s: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(unix_s.unsigned_abs())
}
