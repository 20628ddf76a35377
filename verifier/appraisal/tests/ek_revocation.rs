//! CRLs: good, revoked, unknown.

mod ek_support;

use appraisal::{
    ek::{AllowListed, ek_digest},
    x509::{Certificate, Crl, RevocationRequirement, RevocationState, RootsBuilder, RootsError},
};
use ek_support::*;
use proto::reason::ReasonCode;

fn world_with(pki: &Pki, of_ca: &CrlSpec, of_root: &CrlSpec) -> World {
    let mut world = pki.world();
    world.crls = vec![of_ca.sign(&pki.ca_key), of_root.sign(&pki.root_key)];
    world
}

#[test]
fn good_needs_a_current_list_of_every_issuer() {
    let pki = Pki::new();
    let mut world = world_with(&pki, &crl("CA", &[&[0x12]]), &crl("Root", &[]));
    world.revocation = RevocationRequirement::Required;
    assert_eq!(world.trusted().revocation(), RevocationState::Good);
    for missing in [0, 1] {
        let mut world = world.clone();
        world.crls.remove(missing);
        world.assert_refused(ReasonCode::EkRevocationUnknown);
        world.revocation = RevocationRequirement::IfKnown;
        assert_eq!(world.trusted().revocation(), RevocationState::Unknown);
    }
}

#[test]
fn revoked_denies_whatever_policy_says() {
    let pki = Pki::new();
    let leaf_revoked = world_with(&pki, &crl("CA", &[&[0x10], &[0x11]]), &crl("Root", &[]));
    let ca_revoked = world_with(&pki, &crl("CA", &[]), &crl("Root", &[&[2]]));
    for mut world in [leaf_revoked, ca_revoked] {
        for requirement in [RevocationRequirement::IfKnown, RevocationRequirement::Required] {
            world.revocation = requirement;
            world.assert_refused(ReasonCode::EkRevoked);
        }
        // Not even the inventory overrules it.
        world.allow_listed = AllowListed::ByDigest(ek_digest(&world.public));
        world.assert_refused(ReasonCode::EkRevoked);
    }
}

#[test]
fn serials_are_compared_in_minimal_form() {
    let pki = Pki::new();
    world_with(&pki, &crl("CA", &[&[0, 0, 0x11]]), &crl("Root", &[]))
        .assert_refused(ReasonCode::EkRevoked);
    let mut leaf = pki.leaf();
    leaf.serial = vec![0, 0, 0x91];
    let mut world = pki.world_of(&pki.ca(), &leaf);
    world.crls = vec![crl("CA", &[&[0, 0x91]]).sign(&pki.ca_key)];
    world.assert_refused(ReasonCode::EkRevoked);
    // 0x91 alone is a negative number, another serial.
    world.crls = vec![crl("CA", &[&[0x91]]).sign(&pki.ca_key)];
    assert!(world.judge().is_ok());
}

#[test]
fn stale_lists_say_nothing_good_but_still_revoke() {
    let pki = Pki::new();
    let stale = |revoked: &[&[u8]]| {
        let mut spec = crl("CA", revoked);
        spec.next_update = Some("261231000000Z".to_owned());
        spec
    };
    let mut world = world_with(&pki, &stale(&[]), &crl("Root", &[]));
    assert_eq!(world.trusted().revocation(), RevocationState::Unknown);
    world.revocation = RevocationRequirement::Required;
    world.assert_refused(ReasonCode::EkRevocationUnknown);
    world_with(&pki, &stale(&[&[0x11]]), &crl("Root", &[])).assert_refused(ReasonCode::EkRevoked);

    let mut early = crl("CA", &[]);
    early.this_update = "270601000000Z".to_owned();
    let mut world = world_with(&pki, &early, &crl("Root", &[]));
    world.revocation = RevocationRequirement::Required;
    world.assert_refused(ReasonCode::EkRevocationUnknown);
}

#[test]
fn where_revocation_is_required_trust_ends_with_the_first_list_that_runs_out() {
    let until = |next_update: &str, of: &str| {
        let mut spec = crl(of, &[]);
        spec.next_update = Some(next_update.to_owned());
        spec
    };
    // 2027-03-01 and 2027-02-01: NOW is 2027-01-15.
    let (march, february) = (1_803_859_200, 1_801_440_000);
    let pki = Pki::new();
    let of_ca = until("270301000000Z", "CA");
    let of_root = until("270201000000Z", "Root");
    let mut world = world_with(&pki, &of_ca, &of_root);
    world.revocation = RevocationRequirement::Required;
    assert_eq!(world.trusted().valid_until_unix_s(), Some(february));
    world.now = february;
    assert_eq!(world.trusted().revocation(), RevocationState::Good);
    world.now = february + 1;
    world.assert_refused(ReasonCode::EkRevocationUnknown);
    // A later list of the same issuer carries on.
    world.now = NOW;
    world.crls.push(until("270401000000Z", "Root").sign(&pki.root_key));
    assert_eq!(world.trusted().valid_until_unix_s(), Some(march));
    // Where unknown is accepted, a stale list changes nothing.
    world.revocation = RevocationRequirement::IfKnown;
    assert_eq!(world.trusted().valid_until_unix_s(), Some(2_208_988_800), "2040-01-01");
}

#[test]
fn a_list_counts_only_for_its_issuer_s_key() {
    let pki = Pki::new();
    // Another CA of the same name lists the serial.
    let other_key = Key::p256();
    let mut other = ca("CA", "Root", 5, &other_key);
    other.set(subject_key_id(b"another"));
    let mut world = pki.world();
    world.intermediates.push(other.sign(&pki.root_key));
    world.crls = vec![crl("CA", &[&[0x11]]).sign(&other_key)];
    assert_eq!(world.trusted().revocation(), RevocationState::Unknown);
}

#[test]
fn lists_that_nobody_imported_signed_are_left_out() {
    let pki = Pki::new();
    let no_crl_sign = {
        let mut spec = pki.ca();
        spec.set(key_usage(&[2, 0b0000_0100]));
        spec
    };
    let wrong_key_id = {
        let mut spec = crl("CA", &[]);
        spec.extensions.push(authority_key_id(b"another"));
        spec
    };
    for (issuer, list) in [
        (pki.ca(), crl("CA", &[]).sign(&Key::p256())),
        (pki.ca(), crl("Nobody", &[]).sign(&pki.ca_key)),
        (pki.ca(), wrong_key_id.sign(&pki.ca_key)),
        (no_crl_sign, crl("CA", &[]).sign(&pki.ca_key)),
    ] {
        let mut builder = RootsBuilder::new();
        let issuer = Certificate::parse(&issuer.sign(&pki.root_key)).expect("well-formed");
        builder.intermediate(issuer).expect("a CA");
        let empty = builder_digest(&pki);
        builder.crl(Crl::parse(&list).expect("well-formed")).expect("room");
        let (roots, refused) = builder.build();
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].1, RootsError::SignerUnknown);
        assert_eq!(roots.crls().count(), 0);
        assert_ne!(roots.digest(), empty);
    }
}

fn builder_digest(pki: &Pki) -> proto::digest::Digest {
    let mut builder = RootsBuilder::new();
    let root = Certificate::parse(&pki.root().sign(&pki.root_key)).expect("well-formed");
    builder.anchor(root).expect("a CA");
    builder.build().0.digest()
}

#[test]
fn partial_delta_and_indirect_lists_are_refused() {
    let pki = Pki::new();
    let faults: [(&str, Fault<CrlSpec>); 6] = [
        ("issuing distribution point", |spec| {
            spec.extensions.push(extension(&[0x55, 0x1d, 28], true, &tlv(SEQUENCE, &[])));
        }),
        ("issuing distribution point, not critical", |spec| {
            spec.extensions.push(extension(&[0x55, 0x1d, 28], false, &tlv(SEQUENCE, &[])));
        }),
        ("delta", |spec| {
            spec.extensions.push(extension(&[0x55, 0x1d, 27], true, &[2, 1, 1]));
        }),
        ("unknown critical", |spec| {
            spec.extensions.push(extension(&[0x2a, 0x03], true, &[5, 0]));
        }),
        ("certificate issuer", |spec| {
            spec.entry_extensions.push(extension(&[0x55, 0x1d, 29], true, &tlv(SEQUENCE, &[])));
        }),
        ("no next update", |spec| spec.next_update = None),
    ];
    for (what, fault) in faults {
        let mut spec = crl("CA", &[&[1]]);
        fault(&mut spec);
        let error = Crl::parse(&spec.sign(&pki.ca_key)).expect_err(what);
        println!("{what}: {error}");
    }
    // The reason code and CRL number of ordinary lists are fine.
    let mut spec = crl("CA", &[&[1]]);
    spec.extensions.push(extension(&[0x55, 0x1d, 20], false, &[2, 1, 1]));
    spec.entry_extensions.push(extension(&[0x55, 0x1d, 21], false, &[10, 1, 1]));
    assert_eq!(Crl::parse(&spec.sign(&pki.ca_key)).expect("ordinary").revoked_count(), 1);
}

#[test]
fn mutated_lists_never_panic_and_never_count() {
    let pki = Pki::new();
    let issuer = Certificate::parse(&pki.ca().sign(&pki.root_key)).expect("well-formed");
    let der = crl("CA", &[&[1], &[2, 3]]).sign(&pki.ca_key);
    assert!(Crl::parse(&der).expect("good").verify_signed_by(&issuer).is_ok());
    for at in 0..der.len() {
        assert!(Crl::parse(&der[..at]).is_err());
        for bit in 0..8 {
            let mut wrong = der.clone();
            wrong[at] ^= 1 << bit;
            let accepted =
                Crl::parse(&wrong).is_ok_and(|crl| crl.verify_signed_by(&issuer).is_ok());
            assert!(!accepted, "byte {at} bit {bit}");
        }
    }
}
