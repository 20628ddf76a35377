//! What manufacturers leave in NV: nonces, templates, certificate chains, padding, odd permissions.

mod common;

use attestor::tpm::{EkTemplate, Tpm as _, TpmConfig, esapi::EsapiTpm, template};
use common::{CountingProxy, Swtpm, transient_objects};
use proto::{
    spki::canonical_spki,
    tpm::public::{KeyKind, Public},
};
use tss_esapi::{
    attributes::NvIndexAttributesBuilder,
    handles::NvIndexTpmHandle,
    interface_types::{
        algorithm::HashingAlgorithm,
        resource_handles::{NvAuth, Provision},
        session_handles::AuthSession,
    },
    structures::{MaxNvBuffer, NvPublicBuilder},
};

/// Who may read an index that a test defines.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Readable {
    ByAnyone,
    ByOwner,
}

/// Defines an NV index as an owner may and writes it in pieces of 512 bytes.
fn define(swtpm: &Swtpm, index: u32, content: &[u8], readable: Readable) {
    let attributes = NvIndexAttributesBuilder::new()
        .with_owner_write(true)
        .with_owner_read(true)
        .with_auth_read(readable == Readable::ByAnyone)
        .with_no_da(true)
        .build()
        .expect("attributes");
    let public = NvPublicBuilder::new()
        .with_nv_index(NvIndexTpmHandle::new(index).expect("an index"))
        .with_index_name_algorithm(HashingAlgorithm::Sha256)
        .with_index_attributes(attributes)
        .with_data_area_size(content.len())
        .build()
        .expect("a public area");
    let mut context = swtpm.raw();
    context.execute_with_session(Some(AuthSession::Password), |context| {
        let handle = context.nv_define_space(Provision::Owner, None, public).expect("defined");
        for (piece, at) in content.chunks(512).zip((0_u16..).step_by(512)) {
            let piece = MaxNvBuffer::try_from(piece).expect("fits");
            context.nv_write(NvAuth::Owner, handle, piece, at).expect("written");
        }
    });
}

fn open(config: TpmConfig) -> EsapiTpm {
    EsapiTpm::open(config).expect("swtpm answers")
}

/// The P-256 key that this TPM makes.
fn p256(swtpm: &Swtpm) -> Public {
    let ek = "ecc-p256".parse().expect("a preference");
    open(TpmConfig { ek, ..swtpm.config() }).enroll().expect("enrolls").ek.public
}

/// Not a certificate, but a SEQUENCE that holds the key; what stands around it is the verifier's
/// business.
fn holding(key: &Public, len: u16) -> Vec<u8> {
    let mut content = canonical_spki(key);
    content.resize(usize::from(len), 0x05);
    let mut out = vec![0x30, 0x82];
    out.extend(len.to_be_bytes());
    out.extend(content);
    out
}

#[test]
fn a_p256_certificate_in_nv_is_preferred_and_padding_is_kept() {
    let swtpm = Swtpm::manufactured();
    // Longer than TPM_PT_NV_BUFFER_MAX (1024 here), with padding as real indexes have it.
    let mut content = holding(&p256(&swtpm), 1500);
    content.extend([0xff; 100]);
    define(&swtpm, EkTemplate::L2.certificate_index(), &content, Readable::ByAnyone);
    let identity = open(swtpm.config()).enroll().expect("enrolls");
    assert_eq!(identity.ek.template, EkTemplate::L2);
    assert_eq!(identity.ek.certificate, Some(content));
}

#[test]
fn a_certificate_for_another_key_is_passed_over() {
    let (swtpm, other) = (Swtpm::manufactured(), Swtpm::bare());
    let content = holding(&p256(&other), 600);
    define(&swtpm, EkTemplate::L2.certificate_index(), &content, Readable::ByAnyone);
    let mut tpm = open(swtpm.config());
    let identity = tpm.enroll().expect("enrolls");
    assert_eq!(identity.ek.template, EkTemplate::H3);
    let survey = tpm.survey_endorsement().expect("surveys");
    assert!(survey.problems.iter().any(|problem| problem.starts_with("L-2 (ecc-p256): ")));
    assert_eq!(tpm.facts().expect("facts").loaded_objects, 1);
}

#[test]
fn blank_certificates_are_none() {
    let swtpm = Swtpm::manufactured();
    define(&swtpm, EkTemplate::L2.certificate_index(), &[0xff; 700], Readable::ByAnyone);
    let identity = open(swtpm.config()).enroll().expect("enrolls");
    assert_eq!(identity.ek.template, EkTemplate::H3);
}

#[test]
fn nonce_and_template_of_the_manufacturer_are_used() {
    let swtpm = Swtpm::bare();
    let default = p256(&swtpm);
    let nonce = [0x5a; 16];
    define(&swtpm, 0x01c0_000b, &nonce, Readable::ByAnyone);
    let with_nonce = p256(&swtpm);
    assert_ne!(with_nonce, default, "the nonce makes another key");
    // A template in NV: the default one with that nonce in it, so the same key comes out; and then
    // one that differs, AES-256 in place of AES-128.
    let other = Swtpm::bare();
    let own = template::with_nonce(&EkTemplate::L2.public(), &[]).expect("fits");
    define(&other, 0x01c0_000c, &own, Readable::ByAnyone);
    p256(&other);
    let third = Swtpm::bare();
    let mut own = EkTemplate::L2.public();
    // type, nameAlg, attributes, authPolicy (size and 32 bytes), AES, then the key's bits.
    own.splice(44..46, 256_u16.to_be_bytes());
    define(&third, 0x01c0_000c, &own, Readable::ByAnyone);
    let key = p256(&third);
    assert_eq!(key.symmetric().map(|aes| aes.key_bits), Some(256));
    assert!(matches!(key.key(), KeyKind::Ecc { .. }));
}

#[test]
fn a_template_that_is_none_is_said_and_passed_over() {
    let swtpm = Swtpm::bare();
    define(&swtpm, 0x01c0_000c, &[1, 2, 3], Readable::ByAnyone);
    let identity = open(swtpm.config()).enroll().expect("enrolls with the next template");
    assert_eq!(identity.ek.template, EkTemplate::L1);
    let ek = "ecc-p256".parse().expect("a preference");
    // The high-range template of the same curve comes next.
    let identity = open(TpmConfig { ek, ..swtpm.config() }).enroll().expect("enrolls");
    assert_eq!(identity.ek.template, EkTemplate::H2);
    define(&swtpm, 0x01c0_0015, &[1, 2, 3], Readable::ByAnyone);
    let error = open(TpmConfig { ek, ..swtpm.config() }).enroll().expect_err("both are broken");
    let text = error.to_string();
    assert!(text.contains("fits ecc-p256") && text.contains("0x01c0000c"), "{text}");
    assert_eq!(transient_objects(&swtpm), 0);
}

#[test]
fn chains_run_over_several_indexes() {
    let swtpm = Swtpm::manufactured();
    let key = p256(&swtpm);
    let chain = [holding(&key, 1100), holding(&key, 400)];
    let mut run = chain.concat();
    run.extend([0; 50]);
    let (first, second) = run.split_at(1000);
    define(&swtpm, 0x01c0_0100, first, Readable::ByAnyone);
    define(&swtpm, 0x01c0_0101, second, Readable::ByOwner);
    let config = TpmConfig { ek_chain: vec![vec![0x30, 1, 0]], ..swtpm.config() };
    let identity = open(config).enroll().expect("enrolls");
    assert_eq!(identity.ek_chain, [vec![0x30, 1, 0], chain[0].clone(), chain[1].clone()]);
}

#[test]
fn an_index_only_the_owner_may_read_needs_the_owners_password() {
    let swtpm = Swtpm::manufactured();
    let content = holding(&p256(&swtpm), 600);
    define(&swtpm, EkTemplate::L2.certificate_index(), &content, Readable::ByOwner);
    let auth = tss_esapi::structures::Auth::try_from(&b"owner"[..]).expect("fits");
    swtpm
        .raw()
        .execute_with_session(Some(AuthSession::Password), |raw| {
            raw.hierarchy_change_auth(tss_esapi::handles::AuthHandle::Owner, auth)
        })
        .expect("changed");
    let error = open(swtpm.config()).enroll().expect_err("no password").to_string();
    assert!(error.contains("owner_auth_file"), "{error}");
    let config = TpmConfig { owner_auth: b"owner".to_vec().into(), ..swtpm.config() };
    let proxy = CountingProxy::before(&swtpm);
    let config = TpmConfig { tcti: proxy.tcti(), ..config };
    assert_eq!(open(config).enroll().expect("enrolls").ek.template, EkTemplate::L2);
    println!("enroll with CreatePrimary: {} commands", proxy.take().len());
}
