//! `attestor hook` as an administrator calls it: exit codes, and what it says is left to do.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::process::{Command, Output};

fn hook(root: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attestor"));
    command.arg("hook").args(arguments).args(["--dir", root]);
    command.env_remove("ASSAY_LOG").output().unwrap()
}

#[test]
fn a_name_that_is_none_is_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    for wrong in [["--user", "Root"], ["--audience", "a b"], ["--socket", "job.sock"]] {
        let output = hook(root, &[["install", "github"], wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("HOOK_NAME_INVALID"), "{said}");
    }
    let output = hook(root, &["remove", "github"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(std::fs::read_dir(root).unwrap().count(), 0);
}

#[test]
fn both_ways_say_what_is_left_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    for system in ["buildkite", "github", "gitlab", "jenkins", "tekton"] {
        let said = |output: Output| {
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let installed = said(hook(root, &["install", system, "--user", "nobody"]));
        let removed = said(hook(root, &["remove", system]));
        assert!(removed.contains("\nnext:\n"), "{removed}");
        // What the one enabled, the other stops, and what linked it goes.
        let enabled = installed.lines().find_map(|line| line.split_once("enable --now "));
        for unit in enabled.iter().flat_map(|(_, units)| units.split(' ')) {
            let link = format!("{root}/etc/systemd/system/*.wants/{unit}");
            assert!(removed.contains(&link), "{unit}: {removed}");
        }
        assert_eq!(removed.contains("systemctl stop"), enabled.is_some(), "{removed}");
        let is_on_the_worker = system != "tekton";
        assert_eq!(removed.contains("daemon-reload"), is_on_the_worker, "{removed}");
    }
}
