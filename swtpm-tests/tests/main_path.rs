//! The main path, end to end: real swtpm, real TLS and gRPC, real store.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use attestor::{
    daemon::{Plan, keep},
    output::{Output, read_bundle},
    tpm::EkPreference,
    trust::Trust,
};
use sha2::{Digest as _, Sha256};
use swtpm_tests::{
    cluster::{Cluster, Tools, assert_denied, booted, ek_of},
    firmware::Firmware,
    manufacturer::Manufacturer,
    proxy::Proxy,
    raw::CommandCode,
    swtpm::{Swtpm, SwtpmOptions},
};
use verifier::store::{DecisionFilter, NodeChange, NodeStatus};
use x509_cert::der::{Decode as _, Encode as _};

/// A verifier that trusts the manufacturer, a booted TPM that is node `w1` of pool `linux`, its tools.
async fn site() -> (Cluster, Swtpm, Tools) {
    let tpm = booted(Swtpm::start(SwtpmOptions::default()).expect("swtpm")).expect("boot");
    let cluster = Cluster::start().await.expect("verifier");
    cluster.trust(tpm.manufacturer()).await.expect("root");
    let ek = ek_of(&tpm.tcti(), EkPreference::Auto).await.expect("ek");
    cluster.add_node("w1", "linux", ek).await.expect("node");
    (cluster, tpm, Tools::new().expect("tools"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_enrols_is_captured_admitted_and_renews_with_one_quote() {
    let (cluster, tpm, tools) = site().await;
    let proxy = Proxy::before(&tpm).expect("proxy");
    let mut worker = cluster.worker(&proxy.tcti(), &tools).await.expect("worker");
    // No golden set: denied, and recorded, so that the first capture needs no hole.
    worker.denied(&["POLICY_NO_REFERENCE_VALUES"]).await;
    let golden = cluster.golden_from("w1", |text| text).await.expect("golden");
    assert!(golden.contains("Trust on first use"), "{golden}");
    let answered = worker.admitted().await;
    assert_eq!(answered.result.spiffe_id, "spiffe://test.example/node/w1");
    // A steady renewal is one TPM command: TPM2_Quote.
    let counter = proxy.counter();
    counter.reset();
    worker.admitted().await;
    assert_eq!(counter.log(), [CommandCode::QUOTE]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_tool_is_denied_by_name_and_its_restoration_admitted() {
    let (cluster, _tpm, tools) = site().await;
    let mut worker = cluster.worker(&_tpm.tcti(), &tools).await.expect("worker");
    worker.denied(&["POLICY_NO_REFERENCE_VALUES"]).await;
    cluster.golden_from("w1", |text| text).await.expect("golden");
    worker.admitted().await;
    tools.write("cc1", b"compiler proper 12.2.0 with a gift").expect("tamper");
    for _ in 0..2 {
        // The second denial names the file too: after a denial the whole log is read again.
        let result = worker.denied(&["POLICY_TOOL_NOT_ALLOWED"]).await;
        let finding = &result.findings[0];
        assert!(finding.subject.ends_with("/cc1"), "{finding:?}");
        let verdict = cluster.verdict(&result.decision_id).await.expect("verdict");
        assert_eq!(verdict["findings"][0]["code"], "POLICY_TOOL_NOT_ALLOWED");
        assert!(
            verdict["findings"][0]["expected"].as_str().expect("text").starts_with("sha256:"),
            "operators see what was expected"
        );
    }
    tools.write("cc1", b"compiler proper 12.2.0").expect("restore");
    worker.admitted().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn boots_resets_and_clears_are_told_apart() {
    let (cluster, tpm, tools) = site().await;
    let mut worker = cluster.worker(&tpm.tcti(), &tools).await.expect("worker");
    worker.denied(&["POLICY_NO_REFERENCE_VALUES"]).await;
    cluster.golden_from("w1", |text| text).await.expect("golden");
    let first = worker.admitted().await.node_key.expect("key");
    // A reset ends AK and node key; the worker proves the new boot by itself.
    tpm.reset().expect("reset");
    Firmware::default().boot_swtpm(&tpm).expect("boot");
    let second = worker.admitted().await.node_key.expect("key");
    assert_ne!(first.public(), second.public(), "a boot has its own node key");
    // Shutdown(STATE) and Startup(CLEAR): PCRs are zero, only restartCount moves.
    tpm.restart().expect("restart");
    Firmware::default().boot_swtpm(&tpm).expect("boot");
    worker.admitted().await;
    // Another kernel command line.
    tpm.reset().expect("reset");
    let other = Firmware { command_line: "init=/bin/sh".into(), ..Firmware::default() };
    other.boot_swtpm(&tpm).expect("boot");
    let result = worker.attest().await.expect("verdict").result;
    assert_denied(&result, &["POLICY_PCR_NOT_ALLOWED", "POLICY_PCR_NOT_ALLOWED"]);
    tpm.reset().expect("reset");
    Firmware::default().boot_swtpm(&tpm).expect("boot");
    worker.admitted().await;
    // TPM2_Clear takes the counters back: only an operator can say that it was meant.
    tpm.clear().expect("clear");
    tpm.reset().expect("reset");
    Firmware::default().boot_swtpm(&tpm).expect("boot");
    worker.denied(&["QUOTE_RESET_COUNT_REGRESSED"]).await;
    let change = NodeChange::ForgetCounters { reason: "cleared on purpose".into() };
    cluster.store().change_node("w1", None, change, cluster.by()).await.expect("accept");
    worker.admitted().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_may_restart_and_a_revoked_node_is_out() {
    let (mut cluster, tpm, tools) = site().await;
    let mut worker = cluster.worker(&tpm.tcti(), &tools).await.expect("worker");
    worker.denied(&["POLICY_NO_REFERENCE_VALUES"]).await;
    cluster.golden_from("w1", |text| text).await.expect("golden");
    worker.admitted().await;
    worker.stop().await;
    cluster.stop_verifier().await.expect("stop");
    cluster.start_verifier().await.expect("start");
    let mut worker = cluster.worker(&tpm.tcti(), &tools).await.expect("worker");
    worker.admitted().await;
    let change = NodeChange::Revoke { reason: "stolen".into() };
    cluster.store().change_node("w1", None, change, cluster.by()).await.expect("revoke");
    worker.denied(&["NODE_REVOKED"]).await;
    let node = cluster.store().node("w1").await.expect("read").expect("there");
    assert_eq!(node.status, NodeStatus::Revoked);
    let report = cluster.store().verify_chain(|_, _| {}).await.expect("chain");
    assert!(report.broken.is_none(), "{report:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_endorsements_makes_a_running_boot_prove_itself_again() {
    let (cluster, tpm, tools) = site().await;
    let proxy = Proxy::before(&tpm).expect("proxy");
    let mut worker = cluster.worker(&proxy.tcti(), &tools).await.expect("worker");
    worker.denied(&["POLICY_NO_REFERENCE_VALUES"]).await;
    cluster.golden_from("w1", |text| text).await.expect("golden");
    worker.admitted().await;
    let other = Manufacturer::new("Other").expect("manufacturer");
    cluster.trust(&other).await.expect("root");
    let counter = proxy.counter();
    counter.reset();
    // Same AK, same boot: activated again, and the record replaced.
    worker.admitted().await;
    assert_eq!(counter.count(CommandCode::ACTIVATE_CREDENTIAL), 1);
    counter.reset();
    worker.admitted().await;
    assert_eq!(counter.log(), [CommandCode::QUOTE]);
    worker.stop().await;
}

/// The `attestor` program, which `cargo test --workspace` builds beside the tests.
fn attestor_program() -> PathBuf {
    let here = std::env::current_exe().expect("this program");
    let program = here.ancestors().nth(2).expect("target folder").join("attestor");
    assert!(program.is_file(), "{} is not built; run `cargo xtask test`", program.display());
    program
}

/// Waits until the daemon's status says `outcome`.
async fn wait_for(status: &Path, outcome: &str) -> serde_json::Value {
    for _ in 0..600 {
        let text = std::fs::read(status).unwrap_or_default();
        if let Ok(value) = serde_json::from_slice::<serde_json::Value>(&text)
            && value["outcome"] == outcome
        {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the daemon never was {outcome}: {:?}", std::fs::read_to_string(status));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_attests_notices_a_changed_tool_and_ends_cleanly() {
    let (cluster, tpm, tools) = site().await;
    let mut worker = cluster.worker(&tpm.tcti(), &tools).await.expect("worker");
    worker.denied(&["POLICY_NO_REFERENCE_VALUES"]).await;
    cluster.golden_from("w1", |text| text).await.expect("golden");
    worker.stop().await;
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("tools.toml"), tools.list_text()).expect("tools");
    let config = format!(
        "[verifier]\nurl = \"https://127.0.0.1:{}\"\nca_file = \"{}\"\n[tpm]\ntcti = \"{}\"\n\
         [tools]\nlist = \"{}\"\n[logs]\nuefi = \"none\"\nima = \"none\"\nsystemd = \"none\"\n[daemon]\nstate_dir = \"{}\"\noutput_dir = \"{}\"\n",
        cluster.running().address.port(),
        cluster.folder().join("state/bundle.pem").display(),
        tpm.tcti(),
        at("tools.toml"),
        tools.state().display(),
        at("output"),
    );
    std::fs::write(at("attestor.toml"), config).expect("config");
    let daemon = std::process::Command::new(attestor_program())
        .args(["run", "--config", &at("attestor.toml")])
        .stdout(std::process::Stdio::null())
        .stderr(std::fs::File::create(at("log")).expect("log"))
        .spawn()
        .expect("starts");
    let mut daemon = swtpm_tests::process::Ended(daemon);
    let status = folder.path().join("output/status.json");
    let admitted = wait_for(&status, "admitted").await;
    assert_eq!(admitted["spiffe_id"], "spiffe://test.example/node/w1");
    assert!(folder.path().join("output/node.pem").is_file());
    tools.write("cc1", b"compiler proper with a gift").expect("tamper");
    let denied = wait_for(&status, "denied").await;
    assert_eq!(denied["reasons"][0]["code"], "POLICY_TOOL_NOT_ALLOWED");
    assert!(!folder.path().join("output/node.pem").exists(), "the certificate is withdrawn");
    let pid = daemon.0.id().to_string();
    // The shell's own: a bare machine has no program of this name.
    let kill = format!("kill -TERM {pid}");
    let told = std::process::Command::new("sh").args(["-c", &kill]).status().expect("kill");
    assert!(told.success());
    let ended = daemon.0.wait().expect("ends");
    assert!(ended.success(), "{ended}: {:?}", std::fs::read_to_string(at("log")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verifier_is_trusted_by_the_pin_that_was_given_and_by_no_other() {
    let (cluster, tpm, tools) = site().await;
    let bundle = std::fs::read_to_string(cluster.folder().join("state/bundle.pem")).expect("root");
    let root = attestor::trust::certificates(&bundle).expect("PEM").remove(0);
    let root = x509_cert::Certificate::from_der(&root).expect("DER");
    let spki = root.tbs_certificate().subject_public_key_info().to_der().expect("SPKI");
    let pin: [u8; 32] = Sha256::digest(spki).into();
    let mut wrong = pin;
    wrong[0] ^= 1;
    let mut worker =
        cluster.worker_trusting(&tpm.tcti(), &tools, Trust::Pin(wrong)).await.expect("worker");
    let error = worker.attest().await.expect_err("no verdict");
    assert!(error.to_string().contains("cannot reach the verifier"), "{error}");
    worker.stop().await;
    let mut worker =
        cluster.worker_trusting(&tpm.tcti(), &tools, Trust::Pin(pin)).await.expect("worker");
    worker.denied(&["POLICY_NO_REFERENCE_VALUES"]).await;
    worker.stop().await;
}

/// Only an admission says whom to trust besides, and only while the same CA file is given.
#[tokio::test(flavor = "multi_thread")]
async fn roots_are_learned_on_admission_and_forgotten_with_another_ca_file() {
    let (cluster, tpm, tools) = site().await;
    let folder = tempfile::tempdir().expect("folder");
    let ca_file = folder.path().join("ca.pem");
    std::fs::copy(cluster.folder().join("state/bundle.pem"), &ca_file).expect("copy");
    let trust = Trust::CaFile(ca_file.clone());
    let plan = Plan {
        measure_interval: Duration::from_secs(600),
        bundle_path: folder.path().join("learned.pem"),
    };
    let output = Output::open(&folder.path().join("output")).expect("output");

    let mut worker = cluster.worker_trusting(&tpm.tcti(), &tools, trust).await.expect("worker");
    let denied = worker.attest().await.expect("a verdict");
    assert_denied(&denied.result, &["POLICY_NO_REFERENCE_VALUES"]);
    keep(&output, &denied, Some(&plan), None).expect("kept");
    assert!(worker.attester.bundle().is_empty() && !plan.bundle_path.exists());

    cluster.golden_from("w1", |text| text).await.expect("golden");
    let admitted = worker.admitted().await;
    keep(&output, &admitted, Some(&plan), None).expect("kept");
    let learned = worker.attester.bundle().clone();
    assert_eq!(learned.roots(), admitted.result.trust_bundle);
    assert_eq!(read_bundle(&plan.bundle_path).expect("read"), learned, "for the next start");

    // A file of another CA: what was learned under the former one must not keep it trusted.
    let other = tpm.manufacturer().root_der().expect("a CA");
    let pem = der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, &other);
    std::fs::write(&ca_file, pem.expect("PEM")).expect("write");
    let error = worker.attest().await.expect_err("no verdict");
    assert!(error.to_string().contains("cannot reach the verifier"), "{error}");
    assert!(worker.attester.bundle().is_empty());
    worker.stop().await;
}

/// A stored bundle that does not say what it was learned under counts under nothing.
#[test]
fn a_bundle_of_before_holds_under_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("bundle.pem");
    let tpm = Manufacturer::new("IFX").expect("a manufacturer");
    let root = tpm.root_der().expect("a CA");
    let pem = der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, &root);
    let pem = pem.expect("PEM");
    std::fs::write(&path, &pem).expect("write");
    assert!(read_bundle(&path).expect("read").is_empty());
    // With the line it is read, and holds under what the line says.
    let given = Trust::Pin([7; 32]).read().expect("a pin");
    let learned = given.learned(vec![root]);
    std::fs::write(&path, learned.to_text()).expect("write");
    let read = read_bundle(&path).expect("read");
    assert!(read == learned && read.holds_under(&given));
    assert!(!read.holds_under(&Trust::Pin([8; 32]).read().expect("a pin")));
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, &pem).expect("write");
    let given = Trust::CaFile(file.clone()).read().expect("a file");
    let learned = given.learned(Vec::new());
    std::fs::write(&file, format!("# the same\n{pem}{pem}")).expect("write");
    assert!(learned.holds_under(&Trust::CaFile(file).read().expect("a file")));
}

/// A node that proved its TPM and is denied again and again: the first are recorded, the rest are
/// answered, counted and summed up; a change of its state is recorded at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_denied_again_and_again_does_not_fill_the_record() {
    let (cluster, tpm, tools) = site().await;
    let mut worker = cluster.worker(&tpm.tcti(), &tools).await.expect("worker");
    let mut recorded = 0;
    for _ in 0..20 {
        let result = worker.denied(&["POLICY_NO_REFERENCE_VALUES"]).await;
        recorded += usize::from(!result.decision_id.is_empty());
    }
    assert_eq!(recorded, 11, "one that is news, and ten that repeat it");
    let decisions = cluster.store().decisions(&DecisionFilter::default()).await.expect("read");
    assert_eq!(decisions.len(), recorded);
    // Another tool state is news, and so is the first denial after an admission.
    tools.write("cc1", b"another compiler").expect("tool");
    let changed = worker.denied(&["POLICY_NO_REFERENCE_VALUES"]).await;
    assert!(!changed.decision_id.is_empty());
    cluster.golden_from("w1", |text| text).await.expect("captured from the latest state");
    worker.admitted().await;
    tools.write("cc1", b"compiler with a gift").expect("tamper");
    assert!(!worker.denied(&["POLICY_TOOL_NOT_ALLOWED"]).await.decision_id.is_empty());
    worker.stop().await;

    cluster.verifier().report_unrecorded().await.expect("reported");
    let about = Some("denials not recorded");
    let entry = cluster.store().audit_entries(about, 10).await.expect("read").remove(0);
    let body: serde_json::Value = serde_json::from_slice(&entry.body).expect("JSON");
    let told = &body["tpms"][0];
    assert_eq!((&told["node"], &told["denials"]), (&"w1".into(), &9.into()), "{body}");
    assert_eq!(told["codes"], serde_json::json!(["POLICY_NO_REFERENCE_VALUES"]));
    // Once.
    cluster.verifier().report_unrecorded().await.expect("nothing to report");
    assert_eq!(cluster.store().audit_entries(about, 10).await.expect("read").len(), 1);
}
