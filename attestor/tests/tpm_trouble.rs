//! A TPM that is absent, locked, or guarded by a password: clear words, nothing left behind.

mod common;

use attestor::{
    inspect::{Level, LogState, inspect},
    logs::LogPaths,
    tpm::{EkTemplate, Tcti, Tpm as _, TpmConfig, TpmError, TpmHandle, esapi::EsapiTpm},
};
use common::{Swtpm, loaded_sessions, lock_out, make_credential, tcti, transient_objects};
use proto::{
    digest::{HashAlg, PcrIndex, PcrSelection, PcrSet},
    spki::ek_digest,
};
use std::time::{Duration, SystemTime};
use tss_esapi::{
    handles::AuthHandle, interface_types::session_handles::AuthSession, structures::Auth,
};

const SECRET: [u8; 32] = [0x42; 32];

fn open(config: TpmConfig) -> EsapiTpm {
    EsapiTpm::open(config).expect("swtpm answers")
}

fn set_endorsement_password(swtpm: &Swtpm, password: &[u8]) {
    let auth = Auth::try_from(password).expect("fits");
    swtpm
        .raw()
        .execute_with_session(Some(AuthSession::Password), |raw| {
            raw.hierarchy_change_auth(AuthHandle::Endorsement, auth)
        })
        .expect("changed");
}

#[test]
fn a_wrong_endorsement_password_is_said_and_the_right_one_works() {
    let (swtpm, helper) = (Swtpm::bare(), Swtpm::bare());
    set_endorsement_password(&swtpm, b"open sesame");
    for wrong in [&b""[..], b"open barley"] {
        let config = TpmConfig { endorsement_auth: wrong.to_vec().into(), ..swtpm.config() };
        let error = open(config).enroll().expect_err("refused");
        assert!(matches!(error, TpmError::WrongAuth { hierarchy: "endorsement", .. }), "{error}");
        assert!(error.to_string().contains("endorsement_auth_file"), "{error}");
    }
    assert_eq!((transient_objects(&swtpm), loaded_sessions(&swtpm)), (0, 0));
    let config = TpmConfig { endorsement_auth: b"open sesame".to_vec().into(), ..swtpm.config() };
    let mut tpm = open(config);
    let identity = tpm.enroll().expect("enrolls");
    let (blob, encrypted) =
        make_credential(&helper, &identity.ek.public, &identity.ak_public, &SECRET);
    let secret = tpm.activate_credential(&blob, &encrypted).expect("activates");
    assert_eq!(secret.as_slice(), SECRET);
    assert_eq!(tpm.facts().expect("facts").loaded_objects, 1);
}

#[test]
fn a_wrong_password_for_a_persistent_key_leaves_no_session() {
    // The P-384 key is persistent and used by its own empty password: the endorsement password does
    // not matter for it. The RSA key needs PolicySecret, so the password matters.
    let swtpm = Swtpm::manufactured();
    set_endorsement_password(&swtpm, b"open sesame");
    let ek = "rsa-2048".parse().expect("a preference");
    let error = open(TpmConfig { ek, ..swtpm.config() }).enroll().expect_err("refused");
    assert!(
        matches!(
            error,
            TpmError::WrongAuth { hierarchy: "endorsement", command: "TPM2_PolicySecret" }
        ),
        "{error}"
    );
    assert_eq!((transient_objects(&swtpm), loaded_sessions(&swtpm)), (0, 0));
}

#[test]
fn lockout_does_not_stop_a_key_with_a_policy() {
    let (swtpm, helper) = (Swtpm::manufactured(), Swtpm::bare());
    lock_out(&swtpm);
    for (preference, template) in [("auto", EkTemplate::H3), ("rsa-2048", EkTemplate::L1)] {
        let ek = preference.parse().expect("a preference");
        let mut tpm = open(TpmConfig { ek, ..swtpm.config() });
        assert!(tpm.facts().expect("facts").lockout.locked);
        let identity = tpm.enroll().expect("enrolls in spite of the lockout");
        assert_eq!(identity.ek.template, template);
        let (blob, encrypted) =
            make_credential(&helper, &identity.ek.public, &identity.ak_public, &SECRET);
        let secret = tpm.activate_credential(&blob, &encrypted).expect("activates");
        assert_eq!(secret.as_slice(), SECRET);
        assert_eq!(tpm.facts().expect("facts").loaded_sessions, 0);
    }
}

#[test]
fn no_tpm_is_said_with_what_to_do() {
    let device =
        TpmConfig { tcti: Tcti::Device("/dev/no-such-tpm".into()), ..TpmConfig::default() };
    let error = EsapiTpm::open(device).expect_err("absent").to_string();
    assert!(error.starts_with("no TPM at device:/dev/no-such-tpm: "), "{error}");
    assert!(error.contains("firmware setup"), "{error}");
    let mut swtpm = Swtpm::bare();
    let port = swtpm.port();
    swtpm.stop();
    let error = EsapiTpm::open(TpmConfig { tcti: tcti(port), ..TpmConfig::default() });
    let error = error.expect_err("absent").to_string();
    assert!(error.contains(&format!("nothing listens on 127.0.0.1 port {port}")), "{error}");
}

#[tokio::test]
async fn the_worker_survives_errors_and_ends_cleanly() {
    let swtpm = Swtpm::manufactured();
    let (tpm, thread) = TpmHandle::start(swtpm.config()).await.expect("starts");
    let pcr14: PcrSet = PcrIndex::new(14).into_iter().collect();
    let wanted = PcrSelection::new([(HashAlg::Sha256, pcr14)]);
    let error = tpm.quote([0; 32], wanted.clone()).await.expect_err("no key yet");
    assert_eq!(error, TpmError::NotEnrolled);
    tpm.enroll().await.expect("enrolls");
    let clone = tpm.clone();
    let (first, second) =
        tokio::join!(tpm.quote([1; 32], wanted.clone()), clone.quote([2; 32], wanted.clone()));
    assert_ne!(first.expect("quotes"), second.expect("quotes"));
    let node_key = tpm.create_node_key().await.expect("a node key");
    tpm.certify_node_key(node_key, [3; 32]).await.expect("certified");
    drop((tpm, clone));
    thread.ended().await;
    assert_eq!((transient_objects(&swtpm), loaded_sessions(&swtpm)), (0, 0));
}

#[tokio::test]
async fn the_worker_opens_a_restarted_tpm_again() {
    let mut swtpm = Swtpm::bare();
    let port = swtpm.port();
    let (tpm, thread) = TpmHandle::start(swtpm.config()).await.expect("starts");
    let wanted = PcrSelection::new([(HashAlg::Sha256, PcrSet::from_bits(1).expect("PCR 0"))]);
    tpm.enroll().await.expect("enrolls");
    swtpm.stop();
    let error = tpm.quote([0; 32], wanted.clone()).await.expect_err("nobody there");
    assert!(error.is_connection_lost() && error.needs_enrollment(), "{error}");
    let error = tpm.quote([0; 32], wanted.clone()).await.expect_err("still nobody there");
    assert!(matches!(error, TpmError::Absent { .. }), "{error}");
    swtpm.start();
    assert_eq!(swtpm.port(), port, "nobody took the port meanwhile");
    let error = tpm.quote([0; 32], wanted.clone()).await.expect_err("a new connection, no key");
    assert_eq!(error, TpmError::NotEnrolled);
    tpm.enroll().await.expect("enrolls again");
    tpm.quote([0; 32], wanted.clone()).await.expect("quotes");

    // A reset between two calls: libtss2 connects to swtpm anew at each command, so only the key
    // is missing.
    swtpm.power_cycle();
    assert_eq!(swtpm.port(), port, "nobody took the port meanwhile");
    let error = tpm.quote([0; 32], wanted.clone()).await.expect_err("the key is gone");
    assert_eq!(error, TpmError::KeyLost { command: "TPM2_Quote" });
    assert!(error.needs_enrollment());
    let error = tpm.quote([0; 32], wanted.clone()).await.expect_err("forgotten");
    assert_eq!(error, TpmError::NotEnrolled);
    tpm.enroll().await.expect("enrolls again");
    tpm.quote([0; 32], wanted).await.expect("quotes");
    drop(tpm);
    thread.ended().await;
    assert_eq!((transient_objects(&swtpm), loaded_sessions(&swtpm)), (0, 0));
}

#[tokio::test]
async fn inspect_shows_keys_certificates_and_logs() {
    let swtpm = Swtpm::manufactured();
    let uefi = swtpm.path().join("uefi.log");
    std::fs::write(&uefi, b"log").expect("written");
    let paths = LogPaths {
        uefi: Some(uefi),
        ima: Some("/no/ima".into()),
        systemd: Some("/no/systemd".into()),
    };
    let config = swtpm.config();
    let seen = inspect(&config, &paths, SystemTime::now()).await;
    assert!(!seen.has_errors(), "{seen}");
    let tpm = seen.tpm.as_ref().expect("a TPM");
    assert_eq!((tpm.manufacturer.as_str(), tpm.family.as_str()), ("IBM", "2.0"));
    let banks: Vec<&str> = tpm.banks.iter().map(|bank| bank.alg.as_str()).collect();
    assert_eq!(banks, ["sha1", "sha256", "sha384"]);
    assert!(tpm.curves.iter().any(|curve| curve == "p256"));
    assert!(tpm.algorithms.iter().any(|alg| alg == "ecdsa"));
    let templates: Vec<&str> = seen.endorsement_keys.iter().map(|key| key.template).collect();
    // First the key that attests, last the one without a certificate.
    assert_eq!(templates, ["H-3", "L-1", "L-2"]);
    let [p384, rsa, p256] = seen.endorsement_keys.as_slice() else { panic!("three keys") };
    assert!(p256.certificate.is_none());
    for key in [p384, rsa] {
        let certificate = key.certificate.as_ref().expect("in NV");
        assert_eq!(certificate.problem, None);
        assert!(certificate.issuer.contains("swtpm-localca"), "{}", certificate.issuer);
    }
    assert_eq!(seen.platform_certificates.len(), 1);
    assert_eq!(seen.logs[0].state, LogState::Readable);
    assert_eq!(seen.logs[1].state, LogState::Missing);
    // The digest is that of the key which enrolling uses.
    let identity = open(config.clone()).enroll().expect("enrolls");
    assert_eq!(p384.ek_digest, ek_digest(&identity.ek.public));
    let text = seen.to_string();
    for part in ["Manufacturer            IBM", "Endorsement key H-3", "note: ima log: /no/ima"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let json = serde_json::to_value(&seen).expect("serializes");
    assert_eq!(json["endorsement_keys"][0]["template"], "H-3");
    let later = SystemTime::now() + Duration::from_secs(200 * 365 * 24 * 3600);
    let aged = inspect(&config, &paths, later).await;
    if seen.endorsement_keys[1]
        .certificate
        .as_ref()
        .is_some_and(|c| !c.not_after.starts_with("9999"))
    {
        assert!(aged.to_string().contains("has expired"), "{aged}");
    }
    assert_eq!((transient_objects(&swtpm), loaded_sessions(&swtpm)), (0, 0));
    println!("{seen}");
}

#[tokio::test]
async fn inspect_says_what_is_missing() {
    let swtpm = Swtpm::bare();
    set_endorsement_password(&swtpm, b"open sesame");
    lock_out(&swtpm);
    let now = SystemTime::now();
    let seen = inspect(&swtpm.config(), &LogPaths::default(), now).await.to_string();
    for part in [
        "error: the endorsement hierarchy has a password and none is configured",
        "warning: the TPM is in dictionary attack lockout",
    ] {
        assert!(seen.contains(part), "{part} is not in\n{seen}");
    }
    let config = TpmConfig { endorsement_auth: b"open sesame".to_vec().into(), ..swtpm.config() };
    let seen = inspect(&config, &LogPaths::default(), now).await;
    assert!(!seen.has_errors(), "{seen}");
    assert!(seen.to_string().contains("verifier nodes add --ek-digest sha256:"), "{seen}");

    let absent = TpmConfig { tcti: "device:/dev/no-such-tpm".parse().expect("a TCTI"), ..config };
    let seen = inspect(&absent, &LogPaths::default(), now).await;
    assert!(seen.tpm.is_none() && seen.has_errors());
    assert_eq!(seen.advice[0].level, Level::Error);
    assert!(seen.advice[0].what.contains("/dev/no-such-tpm does not exist"));
}
