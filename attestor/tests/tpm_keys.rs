//! Enrollment, activation, certification and quotes on swtpm.
#![allow(clippy::panic, reason = "a test ends by panicking")]

mod common;

use attestor::tpm::{
    AkAlgorithm, EkPreference, EkTemplate, Tpm as _, TpmConfig, TpmError, esapi::EsapiTpm,
};
use common::{
    CountingProxy, Swtpm, loaded_sessions, make_credential, remove_persistent, transient_objects,
    verifies,
};
use proto::{
    digest::{Digest, HashAlg, PcrIndex, PcrSelection, PcrSet},
    tpm::{
        attest::{Attest, Attested},
        constants::{RH_ENDORSEMENT, RH_NULL},
        name::Name,
        public::{KeyKind, Public},
    },
};

const SECRET: [u8; 32] = [0x42; 32];
/// Command codes, TPM 2.0 Library Part 2, "TPM_CC".
const CC_CREATE_PRIMARY: u32 = 0x131;
const CC_QUOTE: u32 = 0x158;
const CC_PCR_READ: u32 = 0x17e;
const CC_PCR_EXTEND: u32 = 0x182;
const CC_CERTIFY: u32 = 0x148;

fn open(config: TpmConfig) -> EsapiTpm {
    EsapiTpm::open(config).expect("swtpm answers")
}

fn pcr(index: u8) -> PcrIndex {
    PcrIndex::new(index).expect("0..=23")
}

fn selection(banks: &[(HashAlg, &[u8])]) -> PcrSelection {
    PcrSelection::new(
        banks
            .iter()
            .map(|(alg, indexes)| (*alg, indexes.iter().map(|i| pcr(*i)).collect::<PcrSet>())),
    )
}

/// Enrolls, activates, makes and certifies a node key, quotes; checks everything a verifier would.
fn whole_path(tpm: &mut EsapiTpm, helper: &Swtpm, template: EkTemplate, certificate: bool) {
    let identity = tpm.enroll().expect("enrolls");
    assert_eq!(identity.ek.template, template);
    assert_eq!(identity.ek.certificate.is_some(), certificate);

    let (blob, encrypted) =
        make_credential(helper, &identity.ek.public, &identity.ak_public, &SECRET);
    let secret = tpm.activate_credential(&blob, &encrypted).expect("activates");
    assert_eq!(secret.as_slice(), SECRET);
    // For another key of the same TPM: refused, and nothing is lost.
    let (blob, encrypted) =
        make_credential(helper, &identity.ek.public, &identity.ek.public, &SECRET);
    assert_eq!(tpm.activate_credential(&blob, &encrypted), Err(TpmError::CredentialRejected));

    let node_key = tpm.create_node_key().expect("a node key");
    let certified = tpm.certify_node_key(&node_key, &[7; 32]).expect("certified");
    assert!(verifies(helper, &identity.ak_public, &certified.attest, &certified.signature));
    let attest = Attest::decode(&certified.attest).expect("decodes");
    assert_eq!(attest.extra_data, [7; 32]);
    let Attested::Certify { name, qualified_name } = attest.attested else { panic!("a certify") };
    assert_eq!(name, node_key.public().name().as_bytes());
    let parent = node_key.parent_public();
    let parent = Name::qualified_primary(RH_NULL, parent.name_alg(), &parent.name());
    let expected = Name::qualified_child(&parent, HashAlg::Sha256, &node_key.public().name());
    assert_eq!(qualified_name, expected.as_bytes());

    let wanted = selection(&[(HashAlg::Sha256, &[0, 1, 14]), (HashAlg::Sha384, &[0])]);
    let quote = tpm.quote(&[9; 32], &wanted).expect("quotes");
    assert!(verifies(helper, &identity.ak_public, &quote.attest, &quote.signature));
    let attest = Attest::decode(&quote.attest).expect("decodes");
    assert_eq!(attest.extra_data, [9; 32]);
    let ek = &identity.ek.public;
    let ek_name = Name::qualified_primary(RH_ENDORSEMENT, ek.name_alg(), &ek.name());
    let ak_name = Name::qualified_child(&ek_name, HashAlg::Sha256, &identity.ak_public.name());
    assert_eq!(attest.qualified_signer, ak_name.as_bytes(), "a child of the EK signed");
    let Attested::Quote { selection: signed, pcr_digest } = attest.attested else {
        panic!("a quote")
    };
    assert_eq!(signed.len(), 2);
    let values = tpm.read_pcrs(&wanted).expect("reads");
    let bytes: Vec<&[u8]> = values.iter().map(|value| value.digest.as_bytes()).collect();
    assert_eq!(pcr_digest, HashAlg::Sha256.hash(&bytes).as_bytes());
}

#[test]
fn p384_with_certificate_is_preferred_to_rsa() {
    let (swtpm, helper) = (Swtpm::manufactured(), Swtpm::bare());
    whole_path(&mut open(swtpm.config()), &helper, EkTemplate::H3, true);
}

#[test]
fn rsa_2048_with_certificate() {
    let (swtpm, helper) = (Swtpm::manufactured(), Swtpm::bare());
    let ek = "rsa-2048".parse().expect("a preference");
    let config = TpmConfig { ek, ..swtpm.config() };
    whole_path(&mut open(config), &helper, EkTemplate::L1, true);
}

#[test]
fn rsa_3072_with_certificate() {
    let swtpm = Swtpm::new(&["--create-ek-cert", "--rsa-keysize", "3072"]);
    let helper = Swtpm::bare();
    let ek = "rsa-3072".parse().expect("a preference");
    let config = TpmConfig { ek, ..swtpm.config() };
    whole_path(&mut open(config), &helper, EkTemplate::H6, true);
}

#[test]
fn without_a_certificate_p256_by_template() {
    let (swtpm, helper) = (Swtpm::bare(), Swtpm::bare());
    whole_path(&mut open(swtpm.config()), &helper, EkTemplate::L2, false);
}

#[test]
fn rsa_attestation_key() {
    let (swtpm, helper) = (Swtpm::bare(), Swtpm::bare());
    let ek = "rsa-2048".parse().expect("a preference");
    let config = TpmConfig { ak: AkAlgorithm::Rsa2048, ek, ..swtpm.config() };
    let mut tpm = open(config);
    whole_path(&mut tpm, &helper, EkTemplate::L1, false);
    let identity = tpm.enroll().expect("enrolls again");
    assert!(matches!(identity.ak_public.key(), KeyKind::Rsa { key_bits: 2048, .. }));
}

#[test]
fn a_certificate_file_chooses_the_key() {
    let swtpm = Swtpm::manufactured();
    let rsa = TpmConfig { ek: "rsa-2048".parse().expect("a preference"), ..swtpm.config() };
    let certificate = open(rsa).enroll().expect("enrolls").ek.certificate;
    let config = TpmConfig { ek_certificate: certificate.clone(), ..swtpm.config() };
    let identity = open(config).enroll().expect("enrolls");
    assert_eq!(identity.ek.template, EkTemplate::L1);
    assert_eq!(identity.ek.certificate, certificate);

    let stranger = Swtpm::bare();
    let config = TpmConfig { ek_certificate: certificate, ..stranger.config() };
    let error = open(config).enroll().expect_err("the certificate of another TPM");
    assert!(matches!(error, TpmError::CertificateMismatch { .. }), "{error}");
    assert_eq!(transient_objects(&stranger), 0);
}

#[test]
fn a_preference_without_certificate_is_made_by_template() {
    let swtpm = Swtpm::manufactured();
    let ek = EkPreference::Only(attestor::tpm::EkAlgorithm::EccP256);
    let identity = open(TpmConfig { ek, ..swtpm.config() }).enroll().expect("enrolls");
    assert_eq!(identity.ek.template, EkTemplate::L2);
    assert_eq!(identity.ek.certificate, None);
}

#[test]
fn steady_quote_is_one_command() {
    let swtpm = Swtpm::manufactured();
    let proxy = CountingProxy::before(&swtpm);
    let mut tpm = open(TpmConfig { tcti: proxy.tcti(), ..swtpm.config() });
    assert_eq!(proxy.take(), [0; 0], "opening sends no command");
    tpm.enroll().expect("enrolls");
    let enrollment = proxy.take();
    println!("enroll: {} commands {enrollment:x?}", enrollment.len());
    // The P-384 key is persistent: it is not made again.
    assert!(!enrollment.contains(&CC_CREATE_PRIMARY));
    assert!(enrollment.len() <= 14, "{enrollment:x?}");
    let node_key = tpm.create_node_key().expect("a node key");
    println!("create_node_key: {:x?}", proxy.take());
    tpm.certify_node_key(&node_key, &[1; 32]).expect("certified");
    let certify = proxy.take();
    println!("certify_node_key: {certify:x?}");
    assert_eq!(certify.iter().filter(|code| **code == CC_CERTIFY).count(), 1);
    let all: Vec<u8> = (0..24).collect();
    let wanted = selection(&[(HashAlg::Sha256, &all)]);
    for _ in 0..3 {
        tpm.quote(&[2; 32], &wanted).expect("quotes");
        assert_eq!(proxy.take(), [CC_QUOTE]);
    }
    tpm.read_pcrs(&wanted).expect("reads");
    assert_eq!(proxy.take(), [CC_PCR_READ; 3]);
    let digests = [HashAlg::Sha256, HashAlg::Sha384].map(|alg| alg.hash(&[b"event"]));
    tpm.extend(pcr(14), &digests).expect("extends");
    assert_eq!(proxy.take(), [CC_PCR_EXTEND]);
}

#[test]
fn extending_and_reading_agree_in_every_bank() {
    let swtpm = Swtpm::bare();
    let mut tpm = open(swtpm.config());
    let wanted = selection(&[(HashAlg::Sha256, &[14, 16]), (HashAlg::Sha384, &[14])]);
    let before = tpm.read_pcrs(&wanted).expect("reads");
    let event = |alg: HashAlg| alg.hash(&[b"event"]);
    // SHA-512 is not allocated: the TPM leaves it out.
    let digests: Vec<Digest> = HashAlg::ALL.into_iter().map(event).collect();
    tpm.extend(pcr(14), &digests).expect("extends");
    let after = tpm.read_pcrs(&wanted).expect("reads");
    for (before, after) in before.iter().zip(&after) {
        let expected = match before.index.get() {
            14 => before.digest.extended(&event(before.bank)),
            _ => before.digest,
        };
        assert_eq!(after.digest, expected, "{}:{}", after.bank, after.index);
    }
    let error = tpm.read_pcrs(&selection(&[(HashAlg::Sha512, &[0])])).expect_err("not allocated");
    assert_eq!(
        error,
        TpmError::Unsupported { what: "PCRs that are not allocated: sha512:0".to_owned() }
    );
}

#[test]
fn a_hundred_enrollments_leave_nothing_loaded() {
    let swtpm = Swtpm::manufactured();
    let mut tpm = open(swtpm.config());
    for round in 0..100_u8 {
        tpm.enroll().expect("enrolls");
        if round % 10 == 0 {
            let node_key = tpm.create_node_key().expect("a node key");
            tpm.certify_node_key(&node_key, &[round; 32]).expect("certified");
            // Refused input must not leave the endorsement key behind either.
            let refused = tpm.activate_credential(&[0, 2, 0, 0], &[0, 1, 0]);
            assert_eq!(refused, Err(TpmError::CredentialRejected));
        }
        let facts = tpm.facts().expect("facts");
        assert_eq!((facts.loaded_objects, facts.loaded_sessions), (1, 0), "round {round}");
    }
    drop(tpm);
    assert_eq!((transient_objects(&swtpm), loaded_sessions(&swtpm)), (0, 0));
}

#[test]
fn slots_of_a_killed_predecessor_are_freed() {
    let swtpm = Swtpm::bare();
    for _ in 0..2 {
        let mut raw = swtpm.raw();
        let template =
            Public::decode(&attestor::tpm::template::null_primary()).expect("a template");
        let template =
            <tss_esapi::structures::Public as tss_esapi::traits::UnMarshall>::unmarshall(
                template.as_bytes(),
            )
            .expect("a template");
        let key = raw
            .execute_with_session(
                Some(tss_esapi::interface_types::session_handles::AuthSession::Password),
                |raw| {
                    raw.create_primary(
                        tss_esapi::interface_types::resource_handles::Hierarchy::Null,
                        template,
                        None,
                        None,
                        None,
                        None,
                    )
                },
            )
            .expect("created");
        // tss-esapi flushes at drop what it knows; what it has closed it does not know any more.
        let mut object = key.key_handle.into();
        let _ = raw.tr_close(&mut object);
    }
    assert_eq!(transient_objects(&swtpm), 2);
    let mut tpm = open(swtpm.config());
    let identity = tpm.enroll().expect("enrolls in spite of them");
    let quote = tpm.quote(&[0; 32], &selection(&[(HashAlg::Sha256, &[0])])).expect("quotes");
    assert!(!quote.attest.is_empty());
    let node_key = tpm.create_node_key().expect("a node key");
    tpm.certify_node_key(&node_key, &[0; 32]).expect("certified");
    assert_eq!(tpm.facts().expect("facts").loaded_objects, 1);
    drop((tpm, identity));
    assert_eq!(transient_objects(&swtpm), 0);
}

#[test]
fn a_persistent_endorsement_key_is_used_where_it_is_the_certificates() {
    // swtpm_setup keeps the RSA-2048 key at 0x81010001 and the P-384 key at 0x81010016.
    let swtpm = Swtpm::manufactured();
    let proxy = CountingProxy::before(&swtpm);
    let mut tpm = open(TpmConfig { tcti: proxy.tcti(), ..swtpm.config() });
    let identity = tpm.enroll().expect("enrolls");
    let made = proxy.take().into_iter().filter(|code| *code == CC_CREATE_PRIMARY).count();
    assert_eq!((identity.ek.persistent, made), (Some(0x8101_0016), 0));
    drop(tpm);
    // Taken away, the key is made from its template, and is the same.
    remove_persistent(&swtpm, 0x8101_0016);
    let again = open(swtpm.config()).enroll().expect("enrolls");
    assert_eq!((again.ek.persistent, again.ek.public), (None, identity.ek.public));
}

#[test]
fn after_a_power_cycle_the_keys_are_gone_and_enrolling_works() {
    let mut swtpm = Swtpm::manufactured();
    let mut tpm = open(swtpm.config());
    tpm.enroll().expect("enrolls");
    let node_key = tpm.create_node_key().expect("a node key");
    swtpm.power_cycle();
    let lost = tpm.quote(&[0; 32], &selection(&[(HashAlg::Sha256, &[0])])).expect_err("reset");
    assert_eq!(lost, TpmError::KeyLost { command: "TPM2_Quote" });
    let error = tpm.certify_node_key(&node_key, &[0; 32]).expect_err("no attestation key");
    assert_eq!(error, TpmError::NotEnrolled);
    tpm.enroll().expect("enrolls");
    let error = tpm.certify_node_key(&node_key, &[0; 32]).expect_err("a key of an earlier boot");
    assert_eq!(error, TpmError::NodeKeyLost);
    assert_eq!(tpm.facts().expect("facts").loaded_objects, 1);
}
