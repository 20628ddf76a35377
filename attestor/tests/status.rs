//! `status`: what a daemon reported last counts as long as it may still be so.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    thread::sleep,
    time::Duration,
};

use attestor::{
    daemon::now_unix_s,
    output::{GRACE, STATUS_FILE, Status},
};

fn status(folder: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attestor"));
    command.arg("status").arg("--output-dir").arg(folder).args(more).env_remove("ASSAY_LOG");
    command
}

/// A report that was due to be followed so many seconds ago.
fn report(folder: &Path, outcome: &str, late_s: u64) {
    let now = now_unix_s();
    let report = Status {
        outcome: outcome.to_owned(),
        next_unix_s: Some(now - late_s),
        ..Status::starting(now - late_s - 1800)
    };
    attestor::output::Output::open(folder).unwrap().status(&report).unwrap();
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn what_a_dead_daemon_reported_counts_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let late = GRACE.as_secs() + 60;
    // Each outcome, when it is fresh, and what is left of it.
    for (outcome, code) in [("admitted", 0), ("denied", 3), ("failed", 1), ("starting", 1)] {
        report(folder.path(), outcome, 5);
        let output = status(folder.path(), &[]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{outcome}: {output:?}");
        assert!(text(&output).starts_with(outcome), "{output:?}");
        report(folder.path(), outcome, late);
        let output = status(folder.path(), &[]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{outcome}: {output:?}");
        let said = text(&output);
        assert!(said.starts_with("stale: the daemon has not reported since 20"), "{said}");
        assert!(said.contains(&format!("Z ({outcome} then)")), "{said}");
        let output = status(folder.path(), &["--json"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&told["outcome"], &told["last_outcome"]), (&"stale".into(), &outcome.into()));
    }
    report(folder.path(), "admitted", 5);
    let output = status(folder.path(), &["--json"]).output().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["outcome"], told.get("last_outcome")), (&"admitted".into(), None));
}

#[test]
fn nobody_waits_for_what_a_dead_daemon_reported() {
    let folder = tempfile::tempdir().unwrap();
    report(folder.path(), "admitted", GRACE.as_secs() + 60);
    let output = status(folder.path(), &["--wait", "1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let mut waits = status(folder.path(), &["--wait", "60"]);
    let mut waits = waits.stdout(Stdio::null()).spawn().unwrap();
    sleep(Duration::from_secs(1));
    assert_eq!(waits.try_wait().unwrap(), None, "a stale admission is none");
    report(folder.path(), "starting", 0);
    sleep(Duration::from_secs(1));
    assert_eq!(waits.try_wait().unwrap(), None, "nor is a start");
    report(folder.path(), "admitted", 0);
    assert_eq!(waits.wait().unwrap().code(), Some(0));
}

#[test]
fn whoever_looks_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("assay");
    let output = status(&absent, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(!absent.exists() && !folder.path().join(STATUS_FILE).exists());
}
