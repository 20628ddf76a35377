//! The harness itself: what the other tests stand on.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use proto::tpm::public::Public;
use swtpm_tests::{
    firmware::Firmware,
    manufacturer::{
        DAY, EKU_AK_CERTIFICATE, EkProfile, EkTemplate, Issuer, Manufacturer, NV_CHAIN_FIRST, spki,
    },
    proxy::{Fault, FaultRule, Proxy},
    raw::{
        Bank, CommandCode, NV_INDEX_FIRST, PERSISTENT_FIRST, RC_LOCKOUT, RH_ENDORSEMENT, RH_NULL,
        RawError, TRANSIENT_FIRST,
    },
    swtpm::{Swtpm, SwtpmOptions},
};
use x509_cert::{
    Certificate,
    der::{Decode, Encode},
};

/// What `openssl verify` says of a leaf under the manufacturer's root; `Ok` holds its output.
fn openssl_verify(
    root_pem: &str,
    chain: &[Vec<u8>],
    leaf: &[u8],
    crls: &[Vec<u8>],
) -> Result<String, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let to_pem = |label: &str, der: &[u8]| pem(directory.path(), label, der);
    fs::write(path("root.pem"), root_pem).unwrap();
    // openssl refuses an empty file; the root among the untrusted certificates changes nothing.
    let mut untrusted = root_pem.to_owned();
    for certificate in chain {
        untrusted.push_str(&to_pem("x509", certificate));
    }
    fs::write(path("chain.pem"), untrusted).unwrap();
    fs::write(path("leaf.pem"), to_pem("x509", leaf)).unwrap();
    let mut command = Command::new("openssl");
    command.arg("verify").arg("-x509_strict").arg("-CAfile").arg(path("root.pem"));
    command.arg("-untrusted").arg(path("chain.pem"));
    if !crls.is_empty() {
        let text: String = crls.iter().map(|crl| to_pem("crl", crl)).collect();
        fs::write(path("crl.pem"), text).unwrap();
        command.arg("-crl_check_all").arg("-CRLfile").arg(path("crl.pem"));
    }
    // The EK's SAN is critical, as it must be; openssl handles it.
    let output = command.arg(path("leaf.pem")).output().unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(text) } else { Err(text) }
}

fn pem(directory: &Path, kind: &str, der: &[u8]) -> String {
    let file = directory.join("in.der");
    fs::write(&file, der).unwrap();
    let output =
        Command::new("openssl").args([kind, "-inform", "DER", "-in"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "openssl {kind}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn certificate_at(tpm: &Swtpm, template: EkTemplate) -> Vec<u8> {
    tpm.raw().nv_read(template.certificate_index()).unwrap()
}

#[test]
fn every_ek_template_matches_its_certificate_and_chains_to_the_root() {
    let tpm = Swtpm::start(SwtpmOptions::with_all_eks()).unwrap();
    let chain = tpm.raw().nv_read(NV_CHAIN_FIRST).unwrap();
    assert_eq!(chain, tpm.manufacturer().intermediate_der().unwrap());
    for template in EkTemplate::ALL {
        let der = certificate_at(&tpm, template);
        let certificate = Certificate::from_der(&der).unwrap();
        let public = tpm.ek(template).unwrap();
        assert_eq!(
            certificate.tbs_certificate().subject_public_key_info().to_der().unwrap(),
            spki(&public).unwrap().to_der().unwrap(),
            "{template:?}"
        );
        let root = tpm.manufacturer().root_pem().unwrap();
        openssl_verify(&root, std::slice::from_ref(&chain), &der, &[])
            .unwrap_or_else(|error| panic!("{template:?}: {error}"));
    }
    assert_eq!(tpm.raw().handles(TRANSIENT_FIRST).unwrap(), Vec::<u32>::new());
}

#[test]
fn platform_certificate_and_no_certificate_are_options() {
    let with = Swtpm::start(SwtpmOptions {
        platform_certificate: true,
        chain_in_nv: false,
        ..SwtpmOptions::default()
    })
    .unwrap();
    assert!(with.raw().handles(NV_INDEX_FIRST).unwrap().contains(&0x01c0_8000));
    let without = Swtpm::start(SwtpmOptions::without_certificates()).unwrap();
    assert_eq!(without.raw().handles(NV_INDEX_FIRST).unwrap(), Vec::<u32>::new());
    assert_ne!(
        with.ek(EkTemplate::Rsa2048).unwrap().as_bytes(),
        without.ek(EkTemplate::Rsa2048).unwrap().as_bytes(),
        "two TPMs, two EKs"
    );
}

#[test]
fn forged_certificates_are_forged_in_the_way_asked_for() {
    let manufacturer = Manufacturer::new("Forger").unwrap();
    let root = manufacturer.root_pem().unwrap();
    let ek = Public::decode(&p256_public()).unwrap();
    let good = EkProfile::default();
    let now = std::time::SystemTime::now();
    let from = |issuer| EkProfile { issuer, ..good.clone() };
    let cases: Vec<(&str, EkProfile, Option<&str>)> = vec![
        ("good", good.clone(), None),
        ("under the root", from(Issuer::Root), None),
        ("never expires", EkProfile { not_after: None, ..good.clone() }, None),
        ("deep", from(Issuer::Deep(6)), None),
        (
            "AK usage",
            EkProfile { extended_key_usage: vec![EKU_AK_CERTIFICATE], ..good.clone() },
            None,
        ),
        ("expired", EkProfile { not_after: Some(now - DAY / 2), ..good.clone() }, Some("expired")),
        ("future", EkProfile { not_before: now + DAY, ..good.clone() }, Some("not yet valid")),
        ("broken", EkProfile { broken_signature: true, ..good.clone() }, Some("signature failure")),
        (
            "critical",
            EkProfile { unknown_critical_extension: true, ..good.clone() },
            Some("unhandled critical extension"),
        ),
        ("no CA", from(Issuer::NotCa), Some("invalid CA certificate")),
        ("no keyCertSign", from(Issuer::WithoutCertSign), Some("error")),
        ("expired CA", from(Issuer::Expired), Some("expired")),
        ("future CA", from(Issuer::NotYetValid), Some("not yet valid")),
        ("path length", from(Issuer::BelowPathLength), Some("path length constraint exceeded")),
        ("impostor", from(Issuer::Impostor), Some("error")),
        ("loop", from(Issuer::Loop), Some("error")),
    ];
    for (name, profile, expected) in cases {
        let issued = manufacturer.issue(&ek, &profile).unwrap();
        match (openssl_verify(&root, &issued.chain, &issued.der, &[]), expected) {
            (Ok(_), None) => {}
            (Err(text), Some(part)) => assert!(text.contains(part), "{name}: {text}"),
            (outcome, _) => panic!("{name}: expected {expected:?}, openssl says {outcome:?}"),
        }
    }
}

#[test]
fn revocation_lists_revoke() {
    let manufacturer = Manufacturer::new("Revoker").unwrap();
    let root = manufacturer.root_pem().unwrap();
    let ek = Public::decode(&p256_public()).unwrap();
    let issued = manufacturer.issue(&ek, &EkProfile::default()).unwrap();
    let now = std::time::SystemTime::now();
    let (since, until) = (now - DAY, now + DAY);
    let root_crl = manufacturer.root_crl(false, since, until).unwrap();
    let empty = manufacturer.crl(&[], since, until).unwrap();
    let listing = manufacturer.crl(std::slice::from_ref(&issued.serial), since, until).unwrap();
    let against = |crls: &[Vec<u8>]| openssl_verify(&root, &issued.chain, &issued.der, crls);
    against(&[root_crl.clone(), empty.clone()]).unwrap();
    let revoked = against(&[root_crl, listing]).unwrap_err();
    assert!(revoked.contains("certificate revoked"), "{revoked}");
    let no_ca = manufacturer.root_crl(true, since, until).unwrap();
    let revoked = against(&[no_ca, empty.clone()]).unwrap_err();
    assert!(revoked.contains("certificate revoked"), "{revoked}");
    let stale = manufacturer.root_crl(false, now - 3 * DAY, now - 2 * DAY).unwrap();
    let expired = against(&[stale, empty]).unwrap_err();
    assert!(expired.contains("CRL has expired"), "{expired}");
}

#[test]
fn power_states_move_pcrs_and_counters_as_the_specification_says() {
    let tpm = Swtpm::start(SwtpmOptions {
        banks: vec![Bank::Sha1, Bank::Sha256, Bank::Sha384],
        ..SwtpmOptions::without_certificates()
    })
    .unwrap();
    let raw = tpm.raw();
    let firmware = Firmware::default();
    let is_booted = || {
        [Bank::Sha1, Bank::Sha256, Bank::Sha384]
            .iter()
            .all(|bank| raw.pcr_read(*bank, 4).unwrap().unwrap() == firmware.pcr_value(*bank, 4))
    };
    let start = raw.clock().unwrap();
    firmware.boot_swtpm(&tpm).unwrap();
    assert!(is_booted());
    assert_eq!(raw.pcr_read(Bank::Sha512, 4).unwrap(), None, "bank not allocated");

    tpm.suspend_resume().unwrap();
    let resumed = raw.clock().unwrap();
    assert!(is_booted(), "a resume keeps the PCRs");
    assert_eq!(
        (resumed.reset_count, resumed.restart_count),
        (start.reset_count, start.restart_count + 1)
    );

    tpm.restart().unwrap();
    let restarted = raw.clock().unwrap();
    assert!(!is_booted(), "a restart clears the PCRs");
    assert_eq!(
        (restarted.reset_count, restarted.restart_count),
        (start.reset_count, start.restart_count + 2)
    );

    firmware.boot_swtpm(&tpm).unwrap();
    tpm.reset().unwrap();
    let reset = raw.clock().unwrap();
    assert!(!is_booted(), "a reset clears the PCRs");
    assert_eq!((reset.reset_count, reset.restart_count), (start.reset_count + 1, 0));
    assert!(reset.safe);

    tpm.power_cut().unwrap();
    let cut = raw.clock().unwrap();
    assert_eq!(cut.reset_count, start.reset_count + 2);
    assert!(!cut.safe, "the clock is not safe after a power cut");

    tpm.clear().unwrap();
    let cleared = raw.clock().unwrap();
    assert_eq!((cleared.reset_count, cleared.restart_count), (0, 0));
}

#[test]
fn clear_keeps_the_manufacturers_certificates() {
    let tpm = Swtpm::start(SwtpmOptions::default()).unwrap();
    let before = certificate_at(&tpm, EkTemplate::Rsa2048);
    let ek = tpm.ek(EkTemplate::Rsa2048).unwrap();
    tpm.raw().change_hierarchy_auth(RH_ENDORSEMENT, b"", b"secret").unwrap();
    let refused = tpm.ek(EkTemplate::Rsa2048).unwrap_err();
    assert!(format!("{refused:?}").contains("Response"), "{refused:?}");
    tpm.clear().unwrap();
    assert_eq!(certificate_at(&tpm, EkTemplate::Rsa2048), before);
    assert_eq!(tpm.ek(EkTemplate::Rsa2048).unwrap(), ek, "the endorsement seed stays");
    assert_eq!(tpm.raw().handles(PERSISTENT_FIRST).unwrap(), Vec::<u32>::new());
}

#[test]
fn lockout_locks_and_unlocks() {
    let tpm = Swtpm::start(SwtpmOptions::without_certificates()).unwrap();
    tpm.lockout().unwrap();
    let key = tpm.raw().create_primary(RH_NULL, &[], b"right", &signing_template()).unwrap();
    let refused = tpm.raw().sign(key.handle, b"right", &[1; 32]).unwrap_err();
    assert_eq!(refused.response_code(), Some(RC_LOCKOUT));
    tpm.unlock().unwrap();
    tpm.raw().sign(key.handle, b"right", &[1; 32]).unwrap();
}

#[test]
fn snapshots_turn_back_time_and_power_can_be_off() {
    let mut tpm = Swtpm::start(SwtpmOptions::without_certificates()).unwrap();
    let old = tpm.snapshot().unwrap();
    let count = tpm.raw().clock().unwrap().reset_count;
    tpm.reset().unwrap();
    tpm.reset().unwrap();
    assert_eq!(tpm.raw().clock().unwrap().reset_count, count + 2);
    let port = tpm.port();
    tpm.power_off();
    assert!(tpm.process_id().is_none());
    assert!(matches!(tpm.raw().clock(), Err(RawError::Io { .. })));
    tpm.restore(&old).unwrap();
    assert_eq!(tpm.port(), port);
    assert!(tpm.raw().clock().unwrap().reset_count <= count + 1, "the counter went back");
    // A second TPM from the same state is a clone: the same EK.
    let clone = Swtpm::start(SwtpmOptions { state: Some(old), ..SwtpmOptions::default() }).unwrap();
    assert_eq!(clone.ek(EkTemplate::EccP256).unwrap(), tpm.ek(EkTemplate::EccP256).unwrap());
}

#[test]
fn dropping_ends_the_process_and_tpms_run_side_by_side() {
    let threads: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(|| {
                let tpm = Swtpm::start(SwtpmOptions::without_certificates()).unwrap();
                tpm.raw().clock().unwrap();
                (tpm.port(), tpm.process_id().unwrap(), tpm)
            })
        })
        .collect();
    let tpms: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let ports: std::collections::BTreeSet<_> = tpms.iter().map(|(port, ..)| *port).collect();
    assert_eq!(ports.len(), tpms.len());
    let processes: Vec<_> = tpms.iter().map(|(_, process, _)| *process).collect();
    drop(tpms);
    for process in processes {
        assert!(!Path::new(&format!("/proc/{process}")).exists(), "swtpm {process} still runs");
    }
}

#[test]
fn firmware_log_replays_to_the_pcrs() {
    let tpm = Swtpm::start(SwtpmOptions {
        banks: vec![Bank::Sha256, Bank::Sha384],
        ..SwtpmOptions::without_certificates()
    })
    .unwrap();
    let firmware =
        Firmware { command_line: "root=/dev/sda1 init=/bin/sh".into(), ..Firmware::default() };
    let log = firmware.boot_swtpm(&tpm).unwrap();
    let replayed = replay(&log, &[Bank::Sha256, Bank::Sha384]);
    for bank in [Bank::Sha256, Bank::Sha384] {
        for pcr in 0..24 {
            let actual = tpm.raw().pcr_read(bank, pcr).unwrap().unwrap();
            match replayed.get(&(bank, pcr)) {
                Some(value) => assert_eq!(*value, actual, "{bank:?} PCR {pcr}"),
                None => {
                    assert!(actual.iter().all(|b| *b == 0 || *b == 0xff), "PCR {pcr} untouched")
                }
            }
        }
        for pcr in (0..=7).chain([9, 11]) {
            assert!(replayed.contains_key(&(bank, pcr)), "PCR {pcr} is measured");
        }
        assert!(!replayed.contains_key(&(bank, 14)));
    }
    let other = Firmware::default();
    assert_ne!(other.pcr_value(Bank::Sha256, 9), firmware.pcr_value(Bank::Sha256, 9));
    assert_eq!(other.pcr_value(Bank::Sha256, 4), firmware.pcr_value(Bank::Sha256, 4));
    // tpm2-tools reads the log and computes the same values.
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &log).unwrap();
    if let Ok(output) = Command::new("tpm2_eventlog").arg(file.path()).output() {
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains(&hex::encode(firmware.pcr_value(Bank::Sha384, 7))), "{text}");
        assert!(text.contains("SecureBoot"), "{text}");
    }
}

/// An independent reading of the crypto-agile format.
fn replay(log: &[u8], banks: &[Bank]) -> BTreeMap<(Bank, u8), Vec<u8>> {
    let word = |at: usize| u32::from_le_bytes(log[at..at + 4].try_into().unwrap()) as usize;
    let mut at = 32 + word(28);
    let mut out = BTreeMap::new();
    while at < log.len() {
        let pcr = u8::try_from(word(at)).unwrap();
        assert_eq!(word(at + 8), banks.len());
        at += 12;
        for bank in banks {
            assert_eq!(u16::from_le_bytes(log[at..at + 2].try_into().unwrap()), bank.tpm_id());
            let digest = &log[at + 2..at + 2 + bank.len_bytes()];
            let value = out.entry((*bank, pcr)).or_insert_with(|| vec![0; bank.len_bytes()]);
            value.extend_from_slice(digest);
            *value = bank.hash(value);
            at += 2 + bank.len_bytes();
        }
        at += 4 + word(at);
    }
    out
}

#[test]
fn proxy_counts_and_faults() {
    let tpm = Swtpm::start(SwtpmOptions::without_certificates()).unwrap();
    let proxy = Proxy::before(&tpm).unwrap();
    let counter = proxy.counter();
    let raw = proxy.raw();
    raw.clock().unwrap();
    raw.pcr_read(Bank::Sha256, 0).unwrap();
    raw.clock().unwrap();
    assert_eq!(
        counter.counts(),
        BTreeMap::from([(CommandCode::READ_CLOCK, 2), (CommandCode::PCR_READ, 1)])
    );
    assert_eq!(
        counter.log(),
        [CommandCode::READ_CLOCK, CommandCode::PCR_READ, CommandCode::READ_CLOCK]
    );
    counter.reset();
    assert!(counter.counts().is_empty());

    proxy.inject(FaultRule::once(CommandCode::READ_CLOCK, Fault::Answer(0x101)));
    assert_eq!(raw.clock().unwrap_err().response_code(), Some(0x101));
    raw.clock().unwrap();

    proxy.inject(FaultRule { skip: 1, ..FaultRule::once(CommandCode::PCR_READ, Fault::Cut) });
    raw.pcr_read(Bank::Sha256, 0).unwrap();
    assert!(matches!(raw.pcr_read(Bank::Sha256, 0), Err(RawError::Io { .. })));
    raw.pcr_read(Bank::Sha256, 0).unwrap();

    proxy.inject(FaultRule::once(CommandCode::PCR_EXTEND, Fault::CutAfter));
    assert!(raw.pcr_extend_data(16, &[Bank::Sha256], b"x").is_err());
    assert_ne!(raw.pcr_read(Bank::Sha256, 16).unwrap().unwrap(), [0; 32], "the TPM did extend");

    proxy.inject(FaultRule::once(
        CommandCode::PCR_READ,
        Fault::RewriteAnswer(std::sync::Arc::new(|frame: &mut Vec<u8>| {
            let last = frame.len() - 1;
            frame[last] ^= 1;
        })),
    ));
    let honest = tpm.raw().pcr_read(Bank::Sha256, 16).unwrap();
    assert_ne!(raw.pcr_read(Bank::Sha256, 16).unwrap(), honest);
    assert_eq!(raw.pcr_read(Bank::Sha256, 16).unwrap(), honest);

    let delay = Duration::from_millis(120);
    proxy.inject(FaultRule::every(CommandCode::READ_CLOCK, Fault::Delay(delay)));
    let before = Instant::now();
    raw.clock().unwrap();
    assert!(before.elapsed() >= delay);
    proxy.heal();
    raw.clock().unwrap();
}

#[test]
fn tss2_clients_work_through_the_proxy() {
    let tpm = Swtpm::start(SwtpmOptions::default()).unwrap();
    let proxy = Proxy::before(&tpm).unwrap();
    // A tss2 client; tpm2-tools are what the docs use, so they are installed where these tests run.
    let output =
        Command::new("tpm2_nvread").args(["-T", &proxy.tcti(), "0x01c00002"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, certificate_at(&tpm, EkTemplate::Rsa2048));
    assert!(proxy.counter().count(CommandCode::NV_READ) >= 1);
    let port = proxy.port();
    drop(proxy);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "the proxy has ended");
    tpm.raw().clock().unwrap();
}

/// A P-256 EK made up from the curve's generator.
fn p256_public() -> Vec<u8> {
    let mut out = EkTemplate::EccP256.template();
    out.truncate(out.len() - 68);
    let generator = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
                     4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
    for coordinate in hex::decode(generator).unwrap().chunks(32) {
        out.extend_from_slice(&[0, 32]);
        out.extend_from_slice(coordinate);
    }
    out
}

/// A P-256 signing key that is subject to dictionary-attack protection.
fn signing_template() -> Vec<u8> {
    hex::decode("0023000b00040072000000100018000b0003001000000000").unwrap()
}
