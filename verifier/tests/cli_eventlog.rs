//! `verifier inspect eventlog`, the built program: what docs/INSPECT.md promises.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use proto::{digest::HashAlg, eventlog::EventType};
use serde_json::Value;
use tempfile::TempDir;

#[path = "../appraisal/tests/log_support/mod.rs"]
mod log_support;

use log_support::{Boot, Log, values_of};

fn inspect(args: &[&str], file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_verifier"))
        .args(["inspect", "eventlog"])
        .arg(file)
        .args(args)
        .output()
        .expect("the program runs")
}

fn written(bytes: &[u8]) -> (TempDir, std::path::PathBuf) {
    let folder = TempDir::new().expect("temporary folder");
    let path = folder.path().join("log");
    std::fs::write(&path, bytes).expect("written");
    (folder, path)
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn the_document_has_the_fields_that_are_promised() {
    let bytes = Boot::default().log();
    let (_folder, path) = written(&bytes);
    let output = inspect(&["--json"], &path);
    assert_eq!(output.status.code(), Some(0));
    let document = json(&output);
    let fields: Vec<&str> =
        document.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        [
            "banks",
            "events",
            "facts",
            "format",
            "padding_bytes",
            "pcrs",
            "problems",
            "quirks",
            "startup_locality"
        ]
    );
    for value in values_of(&bytes, HashAlg::Sha256, 3) {
        let found = &document["pcrs"]["sha256"][value.index.to_string()];
        if !found.is_null() {
            assert_eq!(found.as_str(), Some(hex::encode(value.value.as_bytes()).as_str()));
        }
    }
    assert_eq!(document["pcrs"]["sha384"].as_object().map(serde_json::Map::len), Some(13));
    assert_eq!(document["facts"]["secure_boot"], true);
    assert_eq!(document["facts"]["bank"], "sha256");
    assert_eq!(document["problems"].as_array().map(Vec::len), Some(0));
    assert_eq!(document["quirks"][0]["quirk"], "loader_text_only");
    let event = &document["events"][2];
    assert_eq!(event["event"], 2);
    assert_eq!(event["untrusted_type"], "EV_S_CRTM_VERSION");
    assert_eq!((&event["vouch"], &event["extended"]), (&"data".into(), &true.into()));
    let other_bank = json(&inspect(&["--json", "--bank", "sha384"], &path));
    assert_eq!(other_bank["facts"]["bank"], "sha384");
}

#[test]
fn problems_that_would_be_refused_exit_with_3() {
    let mut log = Log::new(&[proto::eventlog::LogAlg::Sha256]);
    log.separator(7).separator(7);
    let (_folder, path) = written(&log.bytes);
    let output = inspect(&["--json"], &path);
    assert_eq!(output.status.code(), Some(3));
    let problems = json(&output)["problems"].clone();
    let repeated = problems
        .as_array()
        .expect("a list")
        .iter()
        .find(|problem| problem["code"] == "SEPARATOR_REPEATED")
        .expect("told");
    assert_eq!((&repeated["event"], &repeated["pcr"]), (&2.into(), &7.into()));
    assert_eq!(repeated["detail"], "a second separator");
}

#[test]
fn a_damaged_log_is_refused_with_its_code() {
    let bytes = Boot::default().log();
    let (_folder, path) = written(&bytes[..bytes.len() - 1]);
    let output = inspect(&["--json"], &path);
    assert_eq!(output.status.code(), Some(3));
    let error: Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!(error["reason"], "EVENT_LOG_MALFORMED");
}

#[test]
fn a_bank_that_the_log_lacks_is_refused() {
    let (_folder, path) = written(&Boot::default().log());
    let output = inspect(&["--json", "--bank", "sha512"], &path);
    let error: Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!(
        (output.status.code(), &error["reason"]),
        (Some(3), &"EVENT_LOG_BANK_MISSING".into())
    );
    let output = inspect(&["--bank", "md5"], &path);
    assert_eq!(output.status.code(), Some(2), "wrong usage");
}

#[test]
fn people_are_told_what_is_proven_and_what_is_claimed() {
    let mut log = Boot::default().log();
    let mut more = Log::empty(&[proto::eventlog::LogAlg::Sha256]);
    // What a worker sends must not move the cursor of an administrator's terminal.
    more.data(9, EventType::IPL, "file \u{1b}[2J\0".as_bytes());
    log.extend(more.bytes);
    let mut child = Command::new(env!("CARGO_BIN_EXE_verifier"))
        .args(["inspect", "eventlog", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    child.stdin.take().expect("a pipe").write_all(&log).expect("written");
    let output = child.wait_with_output().expect("ends");
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0));
    for line in [
        "Secure Boot       on",
        "Facts, vouched for by sha256 digests",
        "Hints: nobody vouches for these",
        "No problem.",
        "kernel command line",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains('\u{1b}'));
}

/// systemd's log continues PCR 11.
#[test]
fn the_log_of_systemd_goes_on_after_the_firmware_s() {
    let bytes = Boot::default().log();
    let (folder, path) = written(&bytes);
    let digest = HashAlg::Sha256.hash(&[b"sysinit"]);
    let record = serde_json::json!({
        "pcr": 11,
        "digests": [{ "hashAlg": "sha256", "digest": hex::encode(digest.as_bytes()) }],
        "content_type": "systemd",
        "content": { "eventType": "phase", "string": "sysinit" },
    });
    let systemd = folder.path().join("systemd");
    std::fs::write(&systemd, format!("\u{1e}{record}\n")).expect("written");
    let document = json(&inspect(&["--json", "--systemd", systemd.to_str().expect("text")], &path));
    let expected = values_of(&bytes, HashAlg::Sha256, 3)[11].value.extended(&digest);
    let found = document["pcrs"]["sha256"]["11"].as_str().expect("a value");
    assert_eq!(found, hex::encode(expected.as_bytes()));
    assert_eq!(document["facts"]["userspace"][0]["text"], "sysinit");
    assert!(document["pcrs"]["sha384"]["11"].is_null(), "the record has no SHA-384 digest");
    std::fs::write(&systemd, "no log").expect("written");
    let output = inspect(&["--json", "--systemd", systemd.to_str().expect("text")], &path);
    let error: Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!((output.status.code(), &error["reason"]), (Some(3), &"EVENT_LOG_MALFORMED".into()));
}

#[test]
fn every_field_and_problem_is_documented() {
    use appraisal::boot_log::{ProblemClass, ProblemCode};
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/INSPECT.md");
    let text = std::fs::read_to_string(path).expect("the document");
    let (_folder, log) = written(&Boot::default().log());
    let document = json(&inspect(&["--json"], &log));
    for object in
        [&document, &document["facts"], &document["facts"]["hints"], &document["events"][0]]
    {
        for field in object.as_object().expect("an object").keys() {
            let told =
                text.contains(&format!("`{field}`")) || text.contains(&format!("\"{field}\""));
            assert!(told, "{field} is not documented");
        }
    }
    for code in ProblemCode::ALL {
        let refused = match code.class() {
            ProblemClass::Refusal(reason) => format!("`{reason}`"),
            ProblemClass::Fact => "no".to_owned(),
        };
        let row = format!("| `{code}` | {} | {refused} |", code.meaning());
        assert!(text.lines().any(|line| line == row), "{row}");
    }
}
