//! `verifier inspect ima` and `verifier ima manifest`, run as an operator runs them.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use proto::digest::HashAlg;
use serde_json::Value;
use soft_tpm::ima::{ImaKernel, ImaList};
use tempfile::TempDir;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_verifier")).args(arguments).output().expect("runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!("{e}: {}{}", stdout(output), String::from_utf8_lossy(&output.stderr))
    })
}

fn list() -> ImaList {
    let mut list = ImaList::booted(ImaKernel::default(), "ima-ng", "sha256", &[b"firmware"]);
    let digest = HashAlg::Sha256.hash(&[b"a"]);
    list.file("ima-ng", "sha256", digest.as_bytes(), "/usr/bin/a", &[]);
    list
}

fn written(folder: &Path, bytes: &[u8]) -> String {
    let file = folder.join("list");
    fs::write(&file, bytes).expect("written");
    file.to_str().expect("text").to_owned()
}

#[test]
fn a_list_is_inspected() {
    let folder = TempDir::new().expect("temporary folder");
    let mut list = list();
    list.violation("/var/log/x");
    let file = written(folder.path(), &[list.bytes(), &[10, 0]].concat());
    let output = run(&["--json", "inspect", "ima", &file, "--entries"]);
    assert_eq!(output.status.code(), Some(0));
    let read = json(&output);
    for bank in soft_tpm::ima::BANKS {
        assert_eq!(read["pcr10"][bank], hex::encode(list.pcr(bank)), "{bank}");
    }
    assert_eq!(read["entries"], 3);
    assert_eq!(read["violations"], 1);
    assert_eq!(read["partial_bytes"], 2);
    assert_eq!(read["templates"]["ima-ng"], 3);
    assert_eq!(read["list"][1]["name"], "/usr/bin/a");
    assert_eq!(read["problems"][0]["code"], "POLICY_IMA_VIOLATION");
    assert_eq!(read["problems"][0]["event"], 2);
    let text = run(&["inspect", "ima", &file]);
    assert_eq!(text.status.code(), Some(0));
    assert!(stdout(&text).contains(&hex::encode(list.pcr("sha256"))));
}

#[test]
fn a_damaged_list_has_no_pcr_and_its_problem() {
    let folder = TempDir::new().expect("temporary folder");
    let mut bytes = list().bytes().to_vec();
    bytes[4] ^= 1;
    let output = run(&["--json", "inspect", "ima", &written(folder.path(), &bytes)]);
    assert_eq!(output.status.code(), Some(3));
    let read = json(&output);
    assert_eq!(read["pcr10"], Value::Null);
    assert_eq!(read["problems"][0]["code"], "IMA_TEMPLATE_DIGEST_MISMATCH");
    assert_eq!(read["problems"][0]["event"], 0);
    let text = written(folder.path(), b"10 0000 ima-ng sha256:00 boot_aggregate\n");
    assert_eq!(run(&["inspect", "ima", &text]).status.code(), Some(3));
}

#[test]
fn manifests_are_built_checked_and_compared() {
    let folder = TempDir::new().expect("temporary folder");
    let file = written(folder.path(), list().bytes());
    let at = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let built = run(&["--json", "ima", "manifest", "from-list", &file, "-o", &at("a.jsonl")]);
    assert_eq!(built.status.code(), Some(0), "{}", String::from_utf8_lossy(&built.stderr));
    assert_eq!(json(&built)["files"], 1);
    let checked = run(&["--json", "ima", "manifest", "check", &at("a.jsonl")]);
    assert_eq!(json(&checked)["id"], json(&built)["id"]);

    let root = folder.path().join("root/usr/bin");
    fs::create_dir_all(&root).expect("made");
    fs::write(root.join("b"), "#!/bin/sh\n").expect("written");
    let root = at("root");
    let built = run(&["ima", "manifest", "from-root", &root, "--digest", "sha512"]);
    assert_eq!(built.status.code(), Some(0));
    assert!(built.stderr.is_empty(), "silent in a pipe");
    let digest = HashAlg::Sha512.hash(&[b"#!/bin/sh\n"]).to_string();
    assert!(stdout(&built).contains(&digest));
    fs::write(at("b.jsonl"), &built.stdout).expect("written");
    let differ = run(&["--json", "ima", "manifest", "diff", &at("a.jsonl"), &at("b.jsonl")]);
    let changes: Vec<_> = json(&differ)
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| (row["change"].to_string(), row["path"].to_string()))
        .collect();
    let row = |change: &str, path: &str| (format!("{change:?}"), format!("{path:?}"));
    assert_eq!(changes, [row("removed", "/usr/bin/a"), row("added", "/usr/bin/b")]);
    let bad = run(&["ima", "manifest", "check", &file]);
    assert_eq!(bad.status.code(), Some(3));
    let absent = run(&["ima", "manifest", "from-packages", "--installed-status", &root]);
    assert_eq!(absent.status.code(), Some(1));
}
