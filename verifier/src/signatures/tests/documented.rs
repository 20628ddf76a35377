//! The commands of docs/SIGNATURES.md do what is said there.

use std::process::Command;

use super::{
    super::{PublicKey, SecurityKey},
    *,
};

/// The shell blocks of the document, one after the other.
fn commands() -> String {
    let document = include_str!("../../../../docs/SIGNATURES.md");
    let blocks = document.split("```sh\n").skip(1);
    let blocks: Vec<&str> =
        blocks.map(|rest| rest.split_once("```").expect("the block ends").0).collect();
    assert_eq!(blocks.len(), 4, "keys, what is signed, sign, verify");
    blocks.concat()
}

#[test]
fn the_documented_commands_sign_and_verify() {
    if Command::new("jq").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "jq is not installed");
        println!("skipped: jq is not installed");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let unsigned = Envelope::new(PayloadType::Golden, golden()).expect("an envelope");
    std::fs::write(dir.path().join("envelope.json"), unsigned.to_json()).expect("written");
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &commands()])
        .current_dir(dir.path())
        .output()
        .expect("bash runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("Signature Verified Successfully"), "Ed25519: {text}");
    assert!(text.contains("Verified OK"), "P-256: {text}");

    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("a file");
    let keys = ["alice", "bob"].map(|name| {
        let public = PublicKey::from_pem(&read(&format!("{name}.pem"))).expect("a key");
        SecurityKey::new(name.parse().expect("a name"), public)
    });
    let ring: String = keys
        .iter()
        .map(|key| {
            format!("[[key]]\nname = \"{}\"\npem = '''{}'''\n", key.name(), key.public().to_pem())
        })
        .collect();
    let ring = KeyRing::parse(&format!(
        "schema = \"assay.keys/v1\"\nname = \"security\"\nversion = 1\nthreshold = 2\n{ring}"
    ))
    .expect("a ring");
    let envelope = Envelope::parse(read("signed.json").as_bytes()).expect("an envelope");
    let approval = ring.verify(&envelope, PayloadType::Golden, &golden()).expect("approved");
    assert_eq!(approval.signers().len(), 2);
    assert_eq!(approval.uncounted(), []);
}
