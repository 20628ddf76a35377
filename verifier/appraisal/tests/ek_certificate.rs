//! The EK certificate itself: its form, its profile and the key it is for.

mod ek_support;

use appraisal::{ek::Profile, x509::Oddity};
use aws_lc_rs::rsa::KeySize;
use ek_support::*;
use proto::reason::ReasonCode;

const MALFORMED: ReasonCode = ReasonCode::EkCertificateMalformed;
const PROFILE: ReasonCode = ReasonCode::EkCertificateProfileViolation;

fn refused(change: impl FnOnce(&mut Spec), code: ReasonCode) {
    let pki = Pki::new();
    let mut leaf = pki.leaf();
    change(&mut leaf);
    pki.world_of(&pki.ca(), &leaf).assert_refused(code);
}

/// The change is accepted as this oddity, and refused under the strict profile.
fn odd(change: impl FnOnce(&mut Spec), oddity: Oddity) {
    let pki = Pki::new();
    let mut leaf = pki.leaf();
    change(&mut leaf);
    let mut world = pki.world_of(&pki.ca(), &leaf);
    let oddities = world.trusted().oddities();
    assert_eq!(oddities.iter().collect::<Vec<_>>(), [oddity]);
    world.profile = Profile::Strict;
    world.assert_refused(PROFILE);
}

#[test]
fn certificates_of_other_kinds_are_refused() {
    refused(|leaf| leaf.set(extended_key_usage(&[EKU_AK])), PROFILE);
    refused(|leaf| leaf.set(extended_key_usage(&[EKU_EK, EKU_AK])), PROFILE);
    refused(|leaf| leaf.set(extended_key_usage(&[EKU_PLATFORM])), PROFILE);
    refused(|leaf| leaf.set(extended_key_usage(&[EKU_EK, EKU_PLATFORM])), PROFILE);
    refused(|leaf| leaf.set(extended_key_usage(&[EKU_SERVER])), PROFILE);
    refused(|leaf| leaf.set(extended_key_usage(&[&[0x55, 0x1d, 37, 0]])), PROFILE);
    refused(|leaf| leaf.set(basic_constraints(true, None)), PROFILE);
    // An AK's certificate under the EK's purpose.
    refused(|leaf| leaf.set(key_usage(KU_SIGNATURE)), PROFILE);
    // Transport of the other key type.
    refused(|leaf| leaf.set(key_usage(KU_ENCIPHERMENT)), PROFILE);
    refused(|leaf| leaf.version = Some(1), MALFORMED);
    refused(
        |leaf| {
            leaf.version = Some(1);
            leaf.extensions.clear();
        },
        PROFILE,
    );
}

#[test]
fn without_extended_key_usage_key_usage_must_forbid_signing() {
    odd(|leaf| leaf.drop_extension(OID_EXT_KEY_USAGE), Oddity::ExtendedKeyUsageAbsent);
    refused(
        |leaf| {
            leaf.drop_extension(OID_EXT_KEY_USAGE);
            leaf.drop_extension(OID_KEY_USAGE);
        },
        PROFILE,
    );
    refused(
        |leaf| {
            leaf.drop_extension(OID_EXT_KEY_USAGE);
            leaf.set(key_usage(&[3, 0b1000_1000]));
        },
        PROFILE,
    );
}

#[test]
fn oddities_are_named() {
    odd(|leaf| leaf.drop_extension(OID_BASIC_CONSTRAINTS), Oddity::BasicConstraintsAbsent);
    odd(|leaf| leaf.drop_extension(OID_KEY_USAGE), Oddity::KeyUsageAbsent);
    odd(|leaf| leaf.drop_extension(OID_AKI), Oddity::AuthorityKeyIdAbsent);
    odd(|leaf| leaf.drop_extension(OID_ALT_NAME), Oddity::SubjectAltNameAbsent);
    odd(|leaf| leaf.set(key_usage(&[3, 0b1000_1000])), Oddity::KeyUsageSigning);
    odd(|leaf| leaf.not_after = "99991231235959Z".to_owned(), Oddity::NoExpiry);
    odd(|leaf| leaf.serial = vec![0, 0x11], Oddity::SerialNotMinimal);
    odd(|leaf| leaf.serial = vec![0x91], Oddity::SerialNotPositive);
    odd(|leaf| leaf.serial = vec![0], Oddity::SerialNotPositive);
    odd(
        |leaf| {
            let mut usage = extended_key_usage(&[EKU_EK]);
            usage.critical = Some(true);
            leaf.set(usage);
        },
        Oddity::ExtendedKeyUsageCritical,
    );
    odd(
        |leaf| {
            let mut usage = extended_key_usage(&[EKU_EK]);
            usage.critical = Some(false);
            leaf.set(usage);
        },
        Oddity::DefaultEncoded,
    );
    odd(
        |leaf| {
            let value = tlv(SEQUENCE, &[&[1, 1, 0]]);
            leaf.set(extension(OID_BASIC_CONSTRAINTS, true, &value));
        },
        Oddity::DefaultEncoded,
    );
    odd(
        |leaf| leaf.extensions.push(extension(&[0x55, 0x1d, 9], true, &tlv(SEQUENCE, &[]))),
        Oddity::SubjectDirectoryAttributesCritical,
    );
    odd(
        |leaf| {
            let part = |oid: u8, text: &[u8]| {
                tlv(SEQUENCE, &[&tlv(6, &[&[0x55, 0x04, oid]]), &tlv(0x0c, &[text])])
            };
            // O before CN, longer before shorter: not in the order of DER.
            let set = tlv(0x31, &[&part(10, b"Organisation"), &part(3, b"EK")]);
            leaf.subject = tlv(SEQUENCE, &[&set]);
        },
        Oddity::RdnUnsorted,
    );
}

#[test]
fn rsaes_oaep_keys_are_an_oddity() {
    let pki =
        Pki { root_key: Key::p256(), ca_key: Key::p256(), ek_key: Key::rsa(KeySize::Rsa2048) };
    let mut leaf = pki.leaf();
    leaf.spki = rsa_spki(7, &rsa_public_key(&pki.ek_key));
    let world = pki.world_of(&pki.ca(), &leaf);
    let ek = world.trusted();
    assert!(ek.oddities().contains(Oddity::RsaesOaepKey));
    assert_eq!(ek.digest(), pki.world().trusted().digest(), "one key, one digest");
}

#[test]
fn nv_padding_and_header_are_cut_off_the_ek_certificate_only() {
    let pki = Pki::new();
    let world = pki.world();
    let der = world.certificate.clone().expect("there");
    let with = |bytes: Vec<u8>| {
        let mut world = world.clone();
        world.certificate = Some(bytes);
        world
    };
    for pad in [0x00, 0xff] {
        let mut padded = der.clone();
        padded.extend([pad; 300]);
        let oddities = with(padded).trusted().oddities();
        assert_eq!(oddities.iter().collect::<Vec<_>>(), [Oddity::NvPadding]);
    }
    for tail in [&[0x00, 0xff][..], &[0x01], &der] {
        with([&der, tail].concat()).assert_refused(MALFORMED);
    }

    let size = u16::try_from(der.len() + 2).expect("short").to_be_bytes();
    let header = [0x10, 0x01, 0x00, size[0], size[1], 0x10, 0x02];
    let oddities = with([&header[..], &der].concat()).trusted().oddities();
    assert_eq!(oddities.iter().collect::<Vec<_>>(), [Oddity::TcgHeader]);
    let both = [&header[..], &der, &[0xff; 9]].concat();
    assert_eq!(with(both).trusted().oddities().iter().count(), 1, "padding outside the header");
    for (at, what) in [(0, "tag"), (2, "type"), (4, "size"), (6, "inner tag")] {
        println!("wrong {what}");
        let mut wrong = [&header[..], &der].concat();
        wrong[at] ^= 0x40;
        with(wrong).assert_refused(MALFORMED);
    }

    let mut world = pki.world();
    let mut sent = world.intermediates[0].clone();
    sent.push(0);
    world.chain = vec![sent];
    world.assert_refused(MALFORMED);
}

#[test]
fn malformed_certificates_are_refused() {
    let pki = Pki::new();
    let mut world = pki.world();
    world.certificate = Some(Vec::new());
    world.assert_refused(ReasonCode::EkCertificateMissing);
    for bytes in [&[0][..], &[0xff; 64], b"-----BEGIN CERTIFICATE-----", &[0x30, 0x80, 0, 0]] {
        world.certificate = Some(bytes.to_vec());
        world.assert_refused(MALFORMED);
    }
    // Larger than any.
    let mut huge = pki.leaf();
    huge.extensions.push(extension(&[0x2a, 0x03], false, &vec![0; 9000]));
    pki.world_of(&pki.ca(), &huge).assert_refused(MALFORMED);

    refused(|leaf| leaf.extensions.push(basic_constraints(false, None)), MALFORMED);
    refused(|leaf| leaf.serial = Vec::new(), MALFORMED);
    refused(|leaf| leaf.serial = vec![0x11; 22], MALFORMED);
    refused(|leaf| leaf.not_after = "400101000000".to_owned() + "+", MALFORMED);
    refused(|leaf| leaf.version = Some(3), MALFORMED);
    refused(|leaf| leaf.set(extended_key_usage(&[])), MALFORMED);
    refused(|leaf| leaf.set(extension(OID_KEY_USAGE, true, &[5, 0])), MALFORMED);
    refused(|leaf| leaf.issuer = tlv(0x31, &[]), MALFORMED);
    let twice = [(1, "id:00000001"), (1, "id:00000002"), (2, "m"), (3, "id:0")];
    refused(|leaf| leaf.set(tpm_alt_name(&twice)), MALFORMED);
    let long = "m".repeat(65);
    refused(|leaf| leaf.set(tpm_alt_name(&[(1, &long)])), MALFORMED);
    refused(
        |leaf| {
            for index in 0..40 {
                leaf.extensions.push(extension(&[0x2a, 0x04, index], false, &[]));
            }
        },
        MALFORMED,
    );
}

#[test]
fn the_signed_algorithm_must_be_the_outer_one() {
    let pki = Pki::new();
    let mut der = pki.leaf().sign(&pki.ca_key);
    // ecdsa-with-SHA256 becomes -SHA384 outside of the signed part only.
    let oid = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    let at = der.windows(oid.len()).rposition(|window| window == oid).expect("outer algorithm");
    der[at + oid.len() - 1] = 0x03;
    let mut world = pki.world();
    world.certificate = Some(der);
    world.assert_refused(MALFORMED);
}

#[test]
fn the_certificate_must_be_for_the_ek() {
    let pki = Pki::new();
    let mut world = pki.world();
    world.public = ek_public(&Key::p256());
    world.assert_refused(ReasonCode::EkCertificateKeyMismatch);
    // Of another type, and of a kind that cannot be an EK.
    refused(|leaf| leaf.spki = Key::p521().spki(), ReasonCode::EkCertificateKeyMismatch);
    let ed25519 =
        tlv(SEQUENCE, &[&tlv(SEQUENCE, &[&[6, 3, 0x2b, 0x65, 0x70]]), &tlv(3, &[&[0; 33]])]);
    refused(|leaf| leaf.spki = ed25519, ReasonCode::EkCertificateKeyMismatch);

    let pki =
        Pki { root_key: Key::p256(), ca_key: Key::p256(), ek_key: Key::rsa(KeySize::Rsa2048) };
    let mut world = pki.world();
    let modulus = pki.ek_key.modulus();
    world.public = rsa_public(2048, 65_537, &modulus, EK_ATTRIBUTES);
    assert!(world.judge().is_ok(), "exponent 65537 written out is exponent 0");
}

#[test]
fn surplus_zeros_in_keys_change_nothing() {
    // A P-256 EK whose x begins with a zero byte: a TPM may strip it.
    let ek_key = loop {
        let key = Key::p256();
        if key.point()[1] == 0 {
            break key;
        }
    };
    let pki = Pki { root_key: Key::p256(), ca_key: Key::p256(), ek_key };
    let mut world = pki.world();
    let point = pki.ek_key.point();
    world.public = ecc_public(3, &point[2..33], &point[33..], EK_ATTRIBUTES);
    assert_eq!(world.trusted().digest(), pki.world().trusted().digest());
}
