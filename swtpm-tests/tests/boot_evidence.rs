//! Firmware's event log end to end: sent by a worker, replayed to the quote, judged by what it proves.

use attestor::tpm::EkPreference;
use proto::pb;
use swtpm_tests::{
    attacker::logs::with_event,
    cluster::{Cluster, Tools, ek_of},
    firmware::Firmware,
    raw::Bank,
    swtpm::{Swtpm, SwtpmOptions},
};

/// A verifier, a machine that booted this firmware and has its log, its tools; golden set captured.
async fn site(firmware: &Firmware) -> (Cluster, Swtpm, Tools, String) {
    let tpm = Swtpm::start(SwtpmOptions::default()).expect("swtpm");
    let mut tools = Tools::new().expect("tools");
    tools.firmware_log(&firmware.boot_swtpm(&tpm).expect("boot")).expect("log");
    let cluster = Cluster::start().await.expect("verifier");
    cluster.trust(tpm.manufacturer()).await.expect("root");
    let ek = ek_of(&tpm.tcti(), EkPreference::Auto).await.expect("ek");
    cluster.add_node("w1", "linux", ek).await.expect("node");
    let mut worker = cluster.worker(&tpm.tcti(), &tools).await.expect("worker");
    worker.denied(&["POLICY_NO_REFERENCE_VALUES"]).await;
    worker.stop().await;
    let golden = cluster.golden_from("w1", |text| text).await.expect("golden");
    (cluster, tpm, tools, golden)
}

/// The machine boots again; the findings of its attestation, `subject: observed` by code.
async fn reboot(
    cluster: &Cluster,
    tpm: &Swtpm,
    tools: &mut Tools,
    firmware: &Firmware,
) -> Vec<(String, String)> {
    tpm.reset().expect("reset");
    tools.firmware_log(&firmware.boot_swtpm(tpm).expect("boot")).expect("log");
    attest(cluster, tpm, tools).await
}

async fn attest(cluster: &Cluster, tpm: &Swtpm, tools: &Tools) -> Vec<(String, String)> {
    let mut worker = cluster.worker(&tpm.tcti(), tools).await.expect("worker");
    let result = worker.attest().await.expect("a verdict").result;
    worker.stop().await;
    assert_eq!(result.outcome() == pb::Outcome::Admit, result.findings.is_empty());
    assert_eq!(result.outcome() == pb::Outcome::Admit, !result.certificate_chain.is_empty());
    result.findings.into_iter().map(|finding| (finding.code, finding.subject)).collect()
}

fn has(findings: &[(String, String)], code: &str, words: &str) {
    assert!(
        findings.iter().any(|(found, subject)| found == code && subject.contains(words)),
        "{code} with {words:?} expected, found {findings:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_captured_boot_is_admitted_again_and_a_changed_one_denied_by_its_first_difference() {
    let honest = Firmware::default();
    let (cluster, tpm, mut tools, golden) = site(&honest).await;
    // Each PCR in the way that suits it, and what booted.
    for part in ["[boot]", "secure_boot = true", "[[events]]", "index = 9", "[[pcr]]"] {
        assert!(golden.contains(part), "{part} is not in\n{golden}");
    }
    assert_eq!(attest(&cluster, &tpm, &tools).await, []);
    assert_eq!(reboot(&cluster, &tpm, &mut tools, &honest).await, []);

    let other = Firmware { command_line: "init=/bin/sh".into(), ..honest.clone() };
    let found = reboot(&cluster, &tpm, &mut tools, &other).await;
    has(&found, "POLICY_EVENT_NOT_ALLOWED", "kernel command line");
    let other = Firmware { initrd: b"initrd with a gift".to_vec(), ..honest.clone() };
    let found = reboot(&cluster, &tpm, &mut tools, &other).await;
    has(&found, "POLICY_EVENT_NOT_ALLOWED", "(PCR 9)");
    let other = Firmware { boot_application: b"another loader".to_vec(), ..honest.clone() };
    let found = reboot(&cluster, &tpm, &mut tools, &other).await;
    has(&found, "POLICY_PCR_NOT_ALLOWED", "(PCR 4): boot application");
    has(&found, "POLICY_BOOT_APPLICATION_NOT_ALLOWED", "(PCR 4)");
    let other = Firmware { secure_boot: false, ..honest.clone() };
    let found = reboot(&cluster, &tpm, &mut tools, &other).await;
    has(&found, "POLICY_BOOT_SECURE_BOOT", "Secure Boot");
    has(&found, "POLICY_PCR_NOT_ALLOWED", "(PCR 7)");
    let mut other = honest.clone();
    other.db.push(b"certificate of somebody else".to_vec());
    let found = reboot(&cluster, &tpm, &mut tools, &other).await;
    has(&found, "POLICY_BOOT_KEY_NOT_ALLOWED", "db");
    assert_eq!(reboot(&cluster, &tpm, &mut tools, &honest).await, []);
}

/// systemd-stub measures archives beside the options: they are no text, and part of what was captured.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_command_line_is_captured_by_its_digest() {
    let tpm = Swtpm::start(SwtpmOptions::default()).expect("swtpm");
    let log = Firmware::default().boot_swtpm(&tpm).expect("boot");
    let archive = Bank::Sha256.hash(b"an archive");
    tpm.raw().pcr_extend(12, &[(Bank::Sha256, archive.clone())]).expect("extend");
    let mut tools = Tools::new().expect("tools");
    tools.firmware_log(&with_event(&log, 12, &archive).expect("a log")).expect("log");
    let cluster = Cluster::start().await.expect("verifier");
    cluster.trust(tpm.manufacturer()).await.expect("root");
    let ek = ek_of(&tpm.tcti(), EkPreference::Auto).await.expect("ek");
    cluster.add_node("w1", "linux", ek).await.expect("node");
    let mut worker = cluster.worker(&tpm.tcti(), &tools).await.expect("worker");
    worker.denied(&["POLICY_NO_REFERENCE_VALUES"]).await;
    worker.stop().await;
    let golden = cluster.golden_from("w1", |text| text).await.expect("golden");
    assert!(golden.contains(&format!("sha256:{}", hex::encode(&archive))), "{golden}");
    assert_eq!(attest(&cluster, &tpm, &tools).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_edited_or_withheld_does_not_help() {
    let honest = Firmware::default();
    let (cluster, tpm, mut tools, _) = site(&honest).await;
    let log = {
        tpm.reset().expect("reset");
        honest.boot_swtpm(&tpm).expect("boot")
    };
    // Another command line was booted, and the log of the honest boot is shown.
    tpm.reset().expect("reset");
    let other = Firmware { command_line: "init=/bin/sh".into(), ..honest.clone() };
    other.boot_swtpm(&tpm).expect("boot");
    tools.firmware_log(&log).expect("log");
    let found = attest(&cluster, &tpm, &tools).await;
    has(&found, "EVENT_LOG_REPLAY_MISMATCH", "PCR 9");
    // Its last event is left out.
    let cut = &log[..log.len() - 1];
    tools.firmware_log(cut).expect("log");
    has(&attest(&cluster, &tpm, &tools).await, "EVENT_LOG_MALFORMED", "event log");
    // It is not sent at all.
    tools.no_firmware_log();
    has(&attest(&cluster, &tpm, &tools).await, "POLICY_BOOT_LOG_MISSING", "firmware event log");
    assert_eq!(reboot(&cluster, &tpm, &mut tools, &honest).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_stands_on_the_logs_of_its_boot_until_a_pcr_goes_on() {
    let (cluster, tpm, tools, _) = site(&Firmware::default()).await;
    let mut worker = cluster.worker(&tpm.tcti(), &tools).await.expect("worker");
    let first = worker.admitted().await.node_key.expect("a key");
    let second = worker.admitted().await.node_key.expect("a key");
    assert_eq!(first.public(), second.public(), "a renewal");
    // systemd measures a phase of the boot: the PCR goes on, and the worker proves its boot again by itself.
    let banks = swtpm_tests::raw::Bank::ALL;
    let banks: Vec<_> = banks
        .into_iter()
        .filter(|bank| tpm.raw().pcr_read(*bank, 0).expect("read").is_some())
        .collect();
    tpm.raw().pcr_extend_data(11, &banks, b"sysinit").expect("extend");
    let result = worker.attest().await.expect("a verdict").result;
    // Nothing logs it on this machine, and it is no prefix of the phases: the set was captured without them.
    let codes: Vec<_> = result.findings.iter().map(|finding| finding.code.as_str()).collect();
    assert!(codes.contains(&"POLICY_PCR_NOT_ALLOWED"), "{:#?}", result.findings);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_go_on_from_what_shim_left_in_their_pcr() {
    let shim = Firmware { machine_owner_keys: Some(vec![0x4d; 40]), ..Firmware::default() };
    let (cluster, tpm, mut tools, golden) = site(&shim).await;
    assert!(golden.contains("start = [\"sha256:"), "{golden}");
    assert_eq!(attest(&cluster, &tpm, &tools).await, []);
    assert_eq!(reboot(&cluster, &tpm, &mut tools, &shim).await, []);
    // A machine where shim is not used, or knows another key, is another machine.
    let found = reboot(&cluster, &tpm, &mut tools, &Firmware::default()).await;
    assert!(
        found.iter().all(|(code, _)| code != "POLICY_TOOL_PCR_START"),
        "a reset PCR is as good"
    );
    let other = Firmware { machine_owner_keys: Some(vec![0x66; 40]), ..Firmware::default() };
    let found = reboot(&cluster, &tpm, &mut tools, &other).await;
    has(&found, "POLICY_TOOL_PCR_START", "PCR 14 (sha256)");
    // Without the firmware's log nothing explains what the PCR held.
    tools.no_firmware_log();
    let mut worker = cluster.worker(&tpm.tcti(), &tools).await.expect("worker");
    let error = worker.attest().await.expect_err("no verdict").to_string();
    assert!(error.contains("TOOL_LOG_REPLAY_MISMATCH"), "{error}");
    worker.stop().await;
}
