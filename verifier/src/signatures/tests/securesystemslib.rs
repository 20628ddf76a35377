//! Python's `securesystemslib`, an implementation of DSSE by its authors, verifies our envelopes.

use std::{path::Path, process::Command};

use super::*;

#[test]
fn securesystemslib_verifies_an_envelope_by_keys_of_both_kinds() {
    let Some(python) = independent::python("import securesystemslib.dsse, cryptography") else {
        return;
    };
    let [alice, _, carol] = holders();
    let envelope = signed(PayloadType::Golden, &golden(), [&alice, &carol]);
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).expect("a file is written");
        path
    };
    let keys = [&alice, &carol]
        .map(|holder| file(&format!("{}.pem", holder.name), &holder.key.public().to_pem()));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/verify_envelope.py");
    let run = |json: &str, threshold: &str| {
        let envelope = file("envelope.json", json);
        let output = Command::new(&python)
            .arg(&script)
            .arg(&envelope)
            .args([PayloadType::Golden.as_str(), threshold])
            .args(&keys)
            .output()
            .expect("python runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    };
    let (is_good, text) = run(&envelope.to_json(), "2");
    assert!(is_good, "{text}");
    for key in &keys {
        assert!(text.contains(&key.display().to_string()), "{text}");
    }
    eprintln!("{text}");
    let (is_good, text) = run(&signed(PayloadType::Golden, &golden(), [&alice]).to_json(), "2");
    assert!(!is_good, "{text}");
    let mut other = golden();
    other.push(b'\n');
    let other = Envelope::new(PayloadType::Golden, other).expect("an envelope");
    let grafted = with_signatures(&other, envelope.signatures().iter().cloned());
    let (is_good, text) = run(&grafted.to_json(), "1");
    assert!(!is_good, "{text}");
}
