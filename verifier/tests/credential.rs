//! MakeCredential against an independent activation: only the EK and the AK that it was made for open it.

use appraisal::{
    activation::ActivationChallenge,
    ak::RestrictedAk,
    ek::{AllowListed, EkPolicy, EkPresented, Profile, TrustedEk, ek_digest, verify_ek},
    x509::{RevocationRequirement, RootsBuilder},
};
use proto::{
    digest::{HashAlg, PcrIndex},
    pb,
    tpm::name::Name,
};
use soft_tpm::{Algorithm, EkKind, SoftTpm};
use verifier::credential::{make_credential, random_bytes};

fn trusted(tpm: &SoftTpm) -> TrustedEk {
    let (roots, _) = RootsBuilder::new().build();
    let presented = EkPresented { public: tpm.ek.public(), certificate: None, chain: &[] };
    let policy = EkPolicy {
        roots: &roots,
        allow_listed: AllowListed::ByDigest(ek_digest(tpm.ek.public())),
        now_unix_s: 0,
        profile: Profile::AsShipped,
        revocation: RevocationRequirement::IfKnown,
    };
    verify_ek(&presented, &policy).expect("an allow-listed EK")
}

fn tpm(kind: EkKind) -> SoftTpm {
    SoftTpm::new(kind, Algorithm::EcdsaP256, PcrIndex::new(14).expect("a PCR"))
}

fn credential(tpm: &SoftTpm, secret: [u8; 32]) -> (pb::Credential, ActivationChallenge) {
    let ek = trusted(tpm);
    let ak = RestrictedAk::verify(&tpm.ak_public).expect("an AK");
    let activation = ActivationChallenge::new(&ek, ak, secret);
    (make_credential(ek.public(), &activation).expect("a credential"), activation)
}

#[test]
fn every_kind_of_ek_opens_its_credential() {
    for kind in EkKind::ALL {
        let tpm = tpm(kind);
        let secret = random_bytes().expect("random");
        let (made, activation) = credential(&tpm, secret);
        let opened = tpm.ek.activate(&tpm.ak_public.name(), &made).expect("opens");
        assert_eq!(opened, secret, "{kind:?}");
        let answer: [u8; 32] = opened.try_into().expect("32 bytes");
        activation.redeem(Some(&answer)).expect("the secret");
    }
}

/// Two credentials for one secret share nothing that tells.
#[test]
fn a_credential_is_made_of_fresh_randomness() {
    let tpm = tpm(EkKind::P256);
    let (first, _) = credential(&tpm, [7; 32]);
    let (second, _) = credential(&tpm, [7; 32]);
    assert_ne!(first.encrypted_secret, second.encrypted_secret);
    assert_ne!(first.id_object, second.id_object);
    assert!(!first.id_object.windows(8).any(|window| window == [7; 8]));
}

#[test]
fn nobody_else_opens_it() {
    for kind in [EkKind::P256, EkKind::P384, EkKind::Rsa2048] {
        let (tpm, other) = (tpm(kind), tpm(kind));
        let (made, _) = credential(&tpm, [7; 32]);
        let name = tpm.ak_public.name();
        assert_eq!(other.ek.activate(&name, &made), None, "another EK");
        assert_eq!(tpm.ek.activate(&other.ak_public.name(), &made), None, "another AK");
        let relabelled = Name::of(HashAlg::Sha384, tpm.ak_public.as_bytes());
        assert_eq!(tpm.ek.activate(&relabelled, &made), None, "another nameAlg");
    }
}

#[test]
fn no_byte_of_it_can_be_changed() {
    let tpm = tpm(EkKind::P256);
    let (made, _) = credential(&tpm, [7; 32]);
    let name = tpm.ak_public.name();
    for at in 0..made.id_object.len() {
        let mut changed = made.clone();
        changed.id_object[at] ^= 1;
        assert_eq!(tpm.ek.activate(&name, &changed), None, "id_object byte {at}");
    }
    for at in 0..made.encrypted_secret.len() {
        let mut changed = made.clone();
        changed.encrypted_secret[at] ^= 1;
        assert_eq!(tpm.ek.activate(&name, &changed), None, "encrypted_secret byte {at}");
    }
}
