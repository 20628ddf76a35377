//! What the command line takes, refuses and tells programs that call it.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::process::{Command, Output};

fn attestor(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attestor"));
    for name in ["ASSAY_LOG", "ASSAY_JOB_SOCKET", "SPIFFE_ENDPOINT_SOCKET"] {
        command.env_remove(name);
    }
    command.env("ASSAY_JOB_ID", "b").env("ASSAY_JOB_RUN_ID", "1").args(arguments).output().unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn what_would_be_dropped_is_refused() {
    let defer =
        &["permit", "--job", "generic", "--socket", "/nowhere/job.sock", "--defer", "p"][..];
    let end = &["permit", "--socket", "/nowhere/job.sock", "--end", "p"][..];
    for command in [defer, end] {
        let output = attestor(command);
        assert_eq!(output.status.code(), Some(1), "by itself it is one: {output:?}");
        for dropped in [["--for", "parent"], ["--audience", "a"], ["--out", "results"]] {
            let output = attestor(&[command, &dropped].concat());
            assert_eq!(output.status.code(), Some(2), "{dropped:?}: {output:?}");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains("cannot be used with"), "{said}");
        }
    }
    let output = attestor(&[end, &["--token-env", "T"]].concat());
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn each_help_has_its_own_exit_codes() {
    let help = |command: &str| {
        let output = attestor(&[command, "--help"]);
        String::from_utf8(output.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let (exec, permit, status) = (help("exec"), help("permit"), help("status"));
    assert!(exec.contains("126 it cannot be executed"), "{exec}");
    assert!(permit.contains("3 with --end: no such permit of this user runs"), "{permit}");
    assert!(!permit.contains("126"), "{permit}");
    assert!(status.contains("its last outcome is stale"), "{status}");
}

#[test]
fn a_configuration_is_judged_in_json_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let config = format!(
        "[verifier]\nurl = \"https://v.example:8443\"\npin = \"sha256:{}\"\n\n[tools]\nlist = {:?}\n",
        "ab".repeat(32),
        path("tools.toml")
    );
    std::fs::write(path("attestor.toml"), config).unwrap();
    let check = || attestor(&["check-config", "--config", &path("attestor.toml"), "--json"]);
    let output = check();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(json(&output)["usable"], false);
    let what = json(&output)["problems"][0]["what"].as_str().unwrap().to_owned();
    assert!(what.contains("tools.toml"), "{what}");
    std::fs::write(path("tools.toml"), "[[tool]]\nname = \"sh\"\npaths = [\"/bin/sh\"]\n").unwrap();
    let output = check();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(json(&output), serde_json::json!({ "usable": true, "problems": [] }));
}

#[test]
fn what_is_not_signed_is_told_in_json_too() {
    let output = attestor(&["sign", "/nowhere/app", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = json(&output);
    assert_eq!((&told["outcome"], &told["signed"]), (&"failed".into(), &serde_json::json!([])));
    assert!(told["why"].as_str().unwrap().contains("SPIFFE_ENDPOINT_SOCKET"), "{told}");
}
