//! Path validation: each way a chain can be wrong gives its own code.

mod ek_support;

use appraisal::{
    ek::{AllowListed, Profile, Trust, ek_digest},
    x509::{ExpiredIntermediates, MAX_PATH_CERTIFICATES, Oddity, RevocationState},
};
use aws_lc_rs::rsa::KeySize;
use ek_support::*;
use proto::reason::ReasonCode;

#[test]
fn a_chain_by_the_book_is_trusted_without_oddities() {
    let pki = Pki::new();
    let mut world = pki.world();
    world.profile = Profile::Strict;
    let ek = world.trusted();
    assert!(ek.oddities().is_empty(), "{:?}", ek.oddities());
    assert_eq!(ek.digest(), ek_digest(&world.public));
    assert_eq!(ek.revocation(), RevocationState::Unknown);
    assert_eq!(ek.valid_until_unix_s(), Some(2_208_988_800), "2040-01-01");
    let identity = ek.identity().expect("named");
    assert_eq!(identity.manufacturer, "id:54455354");
    assert_eq!(identity.vendor().as_deref(), Some("TEST"));
    assert_eq!((identity.model.as_str(), identity.version.as_str()), ("Forged", "id:00010002"));
    let Trust::Certificate(certified) = ek.trust() else { panic!("by certificate") };
    assert_eq!(certified.path().anchor().subject_text(), "CN=Root");
    assert_eq!(certified.path().intermediates().len(), 1);
}

#[test]
fn keys_of_every_supported_kind_make_chains() {
    for ca_key in [Key::p256(), Key::p384(), Key::p521(), Key::rsa(KeySize::Rsa2048)] {
        for ek_key in [Key::p256(), Key::p384()] {
            let pki = Pki { root_key: Key::p521(), ca_key: copy_kind(&ca_key), ek_key };
            assert!(pki.world().judge().is_ok());
        }
    }
    for size in [KeySize::Rsa2048, KeySize::Rsa3072] {
        let pki = Pki { root_key: Key::p256(), ca_key: Key::p256(), ek_key: Key::rsa(size) };
        assert!(pki.world().judge().is_ok());
    }
}

fn copy_kind(key: &Key) -> Key {
    match key {
        Key::Rsa(_) => Key::rsa(KeySize::Rsa2048),
        Key::Ec { .. } => match key.point().len() {
            65 => Key::p256(),
            97 => Key::p384(),
            _ => Key::p521(),
        },
    }
}

#[test]
fn the_worker_may_send_the_intermediates() {
    let pki = Pki::new();
    let mut world = pki.world();
    world.chain = std::mem::take(&mut world.intermediates);
    assert!(world.judge().is_ok());
    // The root among them changes nothing: it is an anchor because it was imported.
    world.chain.push(world.anchors[0].clone());
    assert!(world.judge().is_ok());
    world.anchors.clear();
    world.assert_refused(ReasonCode::EkChainUnknownRoot);
}

#[test]
fn anchors_may_issue_ek_certificates_themselves() {
    let pki = Pki::new();
    let leaf = ek_certificate("Root", &pki.ek_key).sign(&pki.root_key);
    let world = World::new(pki.root().sign(&pki.root_key), leaf, &pki.ek_key);
    assert!(world.judge().is_ok());
}

#[test]
fn the_anchor_s_own_signature_is_never_looked_at() {
    let pki = Pki::new();
    let mut world = pki.world();
    let other = Key::p256();
    world.anchors = vec![pki.root().sign(&other)];
    assert!(world.judge().is_ok());
}

#[test]
fn unknown_root() {
    let pki = Pki::new();
    let other = Pki::new();
    let mut world = pki.world();
    let mut root = other.root();
    root.subject = name("Other root");
    world.anchors = vec![root.sign(&other.root_key)];
    world.assert_refused(ReasonCode::EkChainUnknownRoot);
    world.intermediates.clear();
    world.assert_refused(ReasonCode::EkChainUnknownRoot);
}

#[test]
fn a_name_alone_proves_nothing() {
    let pki = Pki::new();
    // Same names, same key identifiers, another key.
    let mut world = pki.world();
    let impostor = Pki::new();
    world.anchors = vec![impostor.root().sign(&impostor.root_key)];
    world.assert_refused(ReasonCode::EkChainSignatureInvalid);

    let mut world = pki.world();
    world.certificate = Some(pki.leaf().sign(&Key::p256()));
    world.assert_refused(ReasonCode::EkChainSignatureInvalid);

    // An RSA signature under an EC issuer's name.
    let mut world = pki.world();
    world.certificate = Some(pki.leaf().sign(&Key::rsa(KeySize::Rsa2048)));
    world.assert_refused(ReasonCode::EkChainSignatureInvalid);
}

#[test]
fn names_are_compared_byte_for_byte() {
    let pki = Pki::new();
    let mut leaf = pki.leaf();
    leaf.issuer = name("ca");
    pki.world_of(&pki.ca(), &leaf).assert_refused(ReasonCode::EkChainUnknownRoot);
}

#[test]
fn key_identifiers_choose_among_issuers() {
    let pki = Pki::new();
    let mut leaf = pki.leaf();
    leaf.set(authority_key_id(b"another"));
    pki.world_of(&pki.ca(), &leaf).assert_refused(ReasonCode::EkChainUnknownRoot);
    leaf.drop_extension(OID_AKI);
    let ek = pki.world_of(&pki.ca(), &leaf).trusted();
    assert!(ek.oddities().contains(Oddity::AuthorityKeyIdAbsent));
}

#[test]
fn expired_and_not_yet_valid() {
    let pki = Pki::new();
    let past = "261231235959Z".to_owned();
    let future = "280101000000Z".to_owned();

    let mut leaf = pki.leaf();
    leaf.not_after = past.clone();
    pki.world_of(&pki.ca(), &leaf).assert_refused(ReasonCode::EkChainExpired);
    let mut leaf = pki.leaf();
    leaf.not_before = future.clone();
    pki.world_of(&pki.ca(), &leaf).assert_refused(ReasonCode::EkChainNotYetValid);

    let mut ca = pki.ca();
    ca.not_after = past.clone();
    pki.world_of(&ca, &pki.leaf()).assert_refused(ReasonCode::EkChainExpired);
    let mut ca = pki.ca();
    ca.not_before = future.clone();
    pki.world_of(&ca, &pki.leaf()).assert_refused(ReasonCode::EkChainNotYetValid);

    let mut root = pki.root();
    root.not_after = past;
    let mut world = pki.world();
    world.anchors = vec![root.sign(&pki.root_key)];
    world.assert_refused(ReasonCode::EkChainExpired);
    root.not_after = "400101000000Z".to_owned();
    root.not_before = future;
    world.anchors = vec![root.sign(&pki.root_key)];
    world.assert_refused(ReasonCode::EkChainNotYetValid);
}

#[test]
fn validity_includes_both_ends() {
    let pki = Pki::new();
    let mut world = pki.world();
    for (now, expected) in [
        (1_577_836_799, Err(ReasonCode::EkChainNotYetValid)),
        (1_577_836_800, Ok(())),
        (2_208_988_800, Ok(())),
        (2_208_988_801, Err(ReasonCode::EkChainExpired)),
    ] {
        world.now = now;
        assert_eq!(world.judge().map(|_| ()).map_err(|denial| denial.code()), expected, "{now}");
    }
}

#[test]
fn expired_intermediates_are_accepted_only_where_the_roots_say_so() {
    let pki = Pki::new();
    let mut ca = pki.ca();
    ca.not_after = "261231235959Z".to_owned();
    let mut world = pki.world_of(&ca, &pki.leaf());
    let refusing = world.roots().digest();
    world.expired_intermediates = ExpiredIntermediates::AcceptImportedIfValidAtIssue;
    assert_ne!(world.roots().digest(), refusing, "the choice is part of the set's digest");
    let ek = world.trusted();
    assert!(ek.oddities().contains(Oddity::IntermediateExpired));
    assert_eq!(ek.valid_until_unix_s(), Some(2_208_988_800), "the expired one does not count");

    // Not one that the worker sent.
    let mut sent = world.clone();
    sent.chain = std::mem::take(&mut sent.intermediates);
    sent.assert_refused(ReasonCode::EkChainExpired);
    // Not for a certificate issued after it ended.
    let mut late = pki.leaf();
    late.not_before = "270101000000Z".to_owned();
    let mut backwards = pki.world_of(&ca, &late);
    backwards.expired_intermediates = ExpiredIntermediates::AcceptImportedIfValidAtIssue;
    backwards.assert_refused(ReasonCode::EkChainExpired);
    // Not an anchor, not an EK certificate.
    let mut root = pki.root();
    root.not_after = "261231235959Z".to_owned();
    world.anchors = vec![root.sign(&pki.root_key)];
    world.assert_refused(ReasonCode::EkChainExpired);
    let mut leaf = pki.leaf();
    leaf.not_after = "261231235959Z".to_owned();
    let mut world = pki.world_of(&pki.ca(), &leaf);
    world.expired_intermediates = ExpiredIntermediates::AcceptImportedIfValidAtIssue;
    world.assert_refused(ReasonCode::EkChainExpired);
}

/// Root → CA → `issuer` (any certificate of the worker's) → EK.
fn with_rogue_issuer(pki: &Pki, change: impl FnOnce(&mut Spec)) -> World {
    let rogue_key = Key::p256();
    let mut rogue = ca("Rogue", "CA", 7, &rogue_key);
    change(&mut rogue);
    let leaf = ek_certificate("Rogue", &pki.ek_key).sign(&rogue_key);
    let mut world = pki.world();
    world.certificate = Some(leaf);
    world.chain = vec![rogue.sign(&pki.ca_key)];
    world
}

#[test]
fn issuers_must_be_allowed_to_issue() {
    let pki = Pki::new();
    assert!(with_rogue_issuer(&pki, |_| {}).judge().is_ok());
    let faults: [(&str, Fault<Spec>); 6] = [
        ("CA:FALSE", |spec| spec.set(basic_constraints(false, None))),
        ("no basic constraints", |spec| spec.drop_extension(OID_BASIC_CONSTRAINTS)),
        ("no keyCertSign", |spec| spec.set(key_usage(KU_CRL_ONLY))),
        ("an EK as issuer", |spec| spec.set(key_usage(KU_AGREEMENT))),
        ("purposes without EK certificates", |spec| spec.set(extended_key_usage(&[EKU_SERVER]))),
        ("version 1", |spec| {
            spec.version = None;
            spec.extensions.clear();
        }),
    ];
    for (what, fault) in faults {
        println!("{what}");
        with_rogue_issuer(&pki, fault).assert_refused(ReasonCode::EkChainCaInvalid);
    }
    let world = with_rogue_issuer(&pki, |spec| spec.drop_extension(OID_KEY_USAGE));
    assert!(world.trusted().oddities().contains(Oddity::KeyUsageAbsent));
}

#[test]
fn path_length_is_obeyed() {
    let pki = Pki::new();
    for (limit, allowed) in [(0, false), (1, true)] {
        let mut world = with_rogue_issuer(&pki, |_| {});
        let mut ca = pki.ca();
        ca.set(basic_constraints(true, Some(limit)));
        world.intermediates = vec![ca.sign(&pki.root_key)];
        if allowed {
            assert!(world.judge().is_ok());
        } else {
            world.assert_refused(ReasonCode::EkChainCaInvalid);
        }
    }
    // The anchor's own limit too.
    let mut root = pki.root();
    root.set(basic_constraints(true, Some(0)));
    let mut world = pki.world();
    world.anchors = vec![root.sign(&pki.root_key)];
    world.assert_refused(ReasonCode::EkChainCaInvalid);
}

#[test]
fn self_issued_certificates_do_not_count_for_path_length() {
    let pki = Pki::new();
    // "CA" renews its key under its own name: Root → CA (old key) → CA (new key) → EK.
    let old_key = Key::p256();
    let mut old = ca("CA", "Root", 2, &old_key);
    old.set(basic_constraints(true, Some(0)));
    old.set(subject_key_id(b"old"));
    let mut new = ca("CA", "CA", 3, &pki.ca_key);
    new.set(authority_key_id(b"old"));
    let mut world = pki.world();
    world.intermediates = vec![old.sign(&pki.root_key), new.sign(&old_key)];
    assert!(world.judge().is_ok());
}

#[test]
fn unknown_critical_extensions_are_refused_wherever_they_stand() {
    let pki = Pki::new();
    let unknown = || extension(&[0x2a, 0x03, 0x04], true, &[5, 0]);
    let mut leaf = pki.leaf();
    leaf.extensions.push(unknown());
    pki.world_of(&pki.ca(), &leaf).assert_refused(ReasonCode::EkChainCriticalExtension);
    with_rogue_issuer(&pki, |spec| spec.extensions.push(unknown()))
        .assert_refused(ReasonCode::EkChainCriticalExtension);
    // Constraints that are not processed are refused even if marked as not critical.
    with_rogue_issuer(&pki, |spec| {
        spec.extensions.push(extension(OID_NAME_CONSTRAINTS, false, &tlv(SEQUENCE, &[])));
    })
    .assert_refused(ReasonCode::EkChainCriticalExtension);
    // Not critical: ignored.
    let mut leaf = pki.leaf();
    leaf.extensions.push(extension(&[0x2a, 0x03, 0x04], false, &[5, 0]));
    assert!(pki.world_of(&pki.ca(), &leaf).judge().is_ok());
}

#[test]
fn critical_policies_are_an_oddity() {
    let pki = Pki::new();
    let policy = tlv(SEQUENCE, &[&tlv(SEQUENCE, &[&tlv(6, &[&[0x2a, 0x03]])])]);
    let mut ca = pki.ca();
    ca.extensions.push(extension(OID_POLICIES, true, &policy));
    let mut world = pki.world_of(&ca, &pki.leaf());
    assert!(world.trusted().oddities().contains(Oddity::PoliciesCritical));
    world.profile = Profile::Strict;
    world.assert_refused(ReasonCode::EkCertificateProfileViolation);
}

#[test]
fn loops_end() {
    let pki = Pki::new();
    let (a_key, b_key) = (Key::p256(), Key::p256());
    let leaf = ek_certificate("A", &pki.ek_key).sign(&a_key);
    let mut world = World::new(pki.root().sign(&pki.root_key), leaf, &pki.ek_key);
    world.chain = vec![ca("A", "B", 5, &a_key).sign(&b_key), ca("B", "A", 6, &b_key).sign(&a_key)];
    world.assert_refused(ReasonCode::EkChainUnknownRoot);
    // One that is its own issuer.
    world.chain = vec![ca("A", "A", 5, &a_key).sign(&a_key)];
    world.assert_refused(ReasonCode::EkChainUnknownRoot);
}

#[test]
fn cross_signed_duplicates_find_the_way_that_is_good() {
    let pki = Pki::new();
    let other = Key::p256();
    // The same CA name and key, issued by an unknown root, by an expired one, and by ours.
    let mut expired = pki.ca();
    expired.serial = vec![8];
    expired.not_after = "210101000000Z".to_owned();
    let stranger = ca("CA", "Stranger", 9, &pki.ca_key);
    let mut world = pki.world();
    world.intermediates.push(expired.sign(&pki.root_key));
    world.intermediates.push(stranger.sign(&other));
    world.chain = vec![expired.sign(&pki.root_key), stranger.sign(&other)];
    assert!(world.judge().is_ok());
}

#[test]
fn depth_is_bounded() {
    let pki = Pki::new();
    // Certificates on the path: EK, `count` intermediates, anchor.
    let chain = |count: usize| {
        let keys: Vec<Key> = (0..count).map(|_| Key::p256()).collect();
        let mut world = pki.world();
        world.intermediates.clear();
        for (index, key) in keys.iter().enumerate() {
            let (issuer, issuer_key) = match index {
                0 => ("Root".to_owned(), &pki.root_key),
                _ => (format!("CA {}", index - 1), &keys[index - 1]),
            };
            let spec = ca(&format!("CA {index}"), &issuer, 5, key);
            world.intermediates.push(spec.sign(issuer_key));
        }
        let last = keys.last().expect("at least one");
        let leaf = ek_certificate(&format!("CA {}", count - 1), &pki.ek_key);
        world.certificate = Some(leaf.sign(last));
        world
    };
    assert!(chain(MAX_PATH_CERTIFICATES - 2).judge().is_ok());
    chain(MAX_PATH_CERTIFICATES - 1).assert_refused(ReasonCode::EkChainTooLong);
}

#[test]
fn work_is_bounded() {
    let pki = Pki::new();
    // Six levels of twins: 2^6 ways to the top, which leads nowhere.
    let levels: Vec<[Key; 2]> = (0..6).map(|_| [Key::p256(), Key::p256()]).collect();
    let mut world = pki.world();
    world.intermediates.clear();
    let plain = |spec: &mut Spec| {
        spec.drop_extension(OID_AKI);
        spec.drop_extension(OID_SKI);
    };
    for (level, keys) in levels.iter().enumerate() {
        for key in keys {
            let mut spec = ca(&format!("L{level}"), &format!("L{}", level + 1), 5, key);
            plain(&mut spec);
            match levels.get(level + 1) {
                Some(above) => {
                    for signer in above {
                        world.intermediates.push(spec.sign(signer));
                    }
                }
                None => world.intermediates.push(spec.sign(&pki.ca_key)),
            }
        }
    }
    let mut leaf = ek_certificate("L0", &pki.ek_key);
    plain(&mut leaf);
    world.certificate = Some(leaf.sign(&levels[0][0]));
    world.assert_refused(ReasonCode::EkChainTooLong);
}

#[test]
fn too_many_certificates_sent_along() {
    let pki = Pki::new();
    let mut world = pki.world();
    world.chain = vec![world.intermediates[0].clone(); 8];
    assert!(world.judge().is_ok());
    world.chain.push(world.intermediates[0].clone());
    world.assert_refused(ReasonCode::EkChainTooLong);
}

#[test]
fn unsupported_algorithms() {
    let pki = Pki::new();
    // ecdsa-with-SHA1, RSASSA-PSS, sha1WithRSAEncryption on an EK certificate.
    for oid in [
        &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01][..],
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a],
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05],
    ] {
        let mut leaf = pki.leaf();
        leaf.signature_algorithm = Some(tlv(SEQUENCE, &[&tlv(6, &[oid])]));
        pki.world_of(&pki.ca(), &leaf)
            .assert_refused(ReasonCode::EkCertificateAlgorithmUnsupported);
    }
}

#[test]
fn sha1_is_accepted_for_imported_intermediates_only() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sha1-intermediate");
    let read = |file: &str| read_der(&dir.join(file));
    let leaf = read("ek.pem");
    let certificate = appraisal::x509::Certificate::parse(&leaf).expect("well-formed");
    let appraisal::x509::SubjectKey::Rsa { modulus, .. } = certificate.key() else {
        panic!("an RSA EK")
    };
    let mut world = Pki::new().world();
    world.public = rsa_public(2048, 0, modulus, EK_ATTRIBUTES);
    world.anchors = vec![read("root.pem")];
    world.intermediates = vec![read("intermediate.pem")];
    world.certificate = Some(leaf);
    let ek = world.trusted();
    assert!(ek.oddities().contains(Oddity::Sha1Intermediate));
    // Sent by the worker as well: it is still the imported one.
    world.chain = world.intermediates.clone();
    assert!(world.judge().is_ok());
    world.intermediates.clear();
    world.assert_refused(ReasonCode::EkCertificateAlgorithmUnsupported);
}

#[test]
fn ecdsa_null_parameters_are_an_oddity() {
    let pki = Pki::new();
    let mut leaf = pki.leaf();
    let oid = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    leaf.signature_algorithm = Some(tlv(SEQUENCE, &[&tlv(6, &[&oid]), &[5, 0]]));
    let mut world = pki.world_of(&pki.ca(), &leaf);
    assert!(world.trusted().oddities().contains(Oddity::EcdsaNullParameters));
    world.profile = Profile::Strict;
    world.assert_refused(ReasonCode::EkCertificateProfileViolation);
}

#[test]
fn an_allow_listed_ek_needs_no_certificate() {
    let pki = Pki::new();
    let mut world = pki.world();
    let digest = ek_digest(&world.public);
    world.certificate = None;
    world.assert_refused(ReasonCode::EkCertificateMissing);
    world.allow_listed = AllowListed::ByDigest(ek_digest(&Pki::new().world().public));
    world.assert_refused(ReasonCode::EkCertificateMissing);
    world.allow_listed = AllowListed::ByDigest(digest);
    let ek = world.trusted();
    assert!(matches!(ek.trust(), Trust::AllowListed { certificate_refused: None }));
    assert_eq!(ek.valid_until_unix_s(), None);

    // A refused certificate is recorded, a good one preferred.
    let mut world = pki.world();
    world.allow_listed = AllowListed::ByDigest(digest);
    assert!(matches!(world.trusted().trust(), Trust::Certificate(_)));
    world.anchors.clear();
    let ek = world.trusted();
    let Trust::AllowListed { certificate_refused: Some(finding) } = ek.trust() else {
        panic!("allow-listed")
    };
    assert_eq!(finding.code, ReasonCode::EkChainUnknownRoot);
}

#[test]
fn the_digest_of_roots_is_that_of_their_content() {
    let pki = Pki::new();
    let mut world = pki.world();
    world.anchors.push(ca("Second", "Second", 4, &Key::p256()).sign(&pki.root_key));
    let digest = world.roots().digest();
    world.anchors.reverse();
    world.anchors.push(world.anchors[0].clone());
    assert_eq!(world.roots().digest(), digest, "neither order nor repetition matters");
    world.anchors.remove(0);
    world.anchors.remove(1);
    assert_ne!(world.roots().digest(), digest);
}
