//! The committed logs of real boots are whole: they replay to the PCRs that were read beside them.
//!
//! Judged by others: tpm2-tools replays the firmware's log, and IMA's list is replayed here by its definition.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use sha2::{Digest as _, Sha256, Sha384};
use swtpm_tests::machine::PcrValues;

/// What one boot left.
struct Record {
    name: &'static str,
    /// Violations in IMA's list.
    violations: usize,
    /// What systemd extended PCR 11 with after the firmware's log, which tells nothing of it.
    phases: &'static [&'static str],
}

const RECORDS: [Record; 5] = [
    Record { name: "secure-boot-on", violations: 0, phases: &[] },
    Record { name: "secure-boot-off", violations: 0, phases: &[] },
    Record { name: "ima-violations", violations: 2, phases: &[] },
    Record { name: "systemd-252", violations: 0, phases: &["sysinit", "ready"] },
    Record {
        name: "systemd-252-initrd",
        violations: 0,
        phases: &["enter-initrd", "leave-initrd", "sysinit", "ready"],
    },
];
/// PCR of boot phases.
const PHASE_PCR: u8 = 11;
/// IMA's PCR.
const IMA_PCR: u8 = 10;

fn path(name: &str, kind: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("vectors/{name}.{kind}"))
}

fn pcrs(name: &str) -> PcrValues {
    let text = fs::read(path(name, "pcrs.json")).expect("PCR values");
    serde_json::from_slice(&text).expect("JSON")
}

#[test]
fn firmware_logs_replay_to_the_pcrs() {
    for Record { name, phases, .. } in RECORDS {
        let output = Command::new("tpm2_eventlog").arg(path(name, "uefi.bin")).output();
        let output = match output {
            Ok(output) => output,
            Err(error) => {
                let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
                assert!(!is_ci, "tpm2_eventlog cannot run, and CI=true: {error}");
                eprintln!("skipped: tpm2-tools is not installed");
                return;
            }
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let replayed = replayed(&String::from_utf8_lossy(&output.stdout));
        let read = pcrs(name);
        assert_eq!(replayed.keys().collect::<Vec<_>>(), ["sha256", "sha384"]);
        for (bank, values) in replayed {
            assert_eq!(values.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7, 9, 11]);
            for (pcr, mut value) in values {
                if pcr == PHASE_PCR {
                    value =
                        phases.iter().fold(value, |value, phase| extended(&bank, &value, phase));
                }
                assert_eq!(value, read[&bank][&pcr], "{name}: PCR {pcr} of {bank}");
            }
        }
    }
}

/// A PCR's value after one more measurement of these bytes.
fn extended(bank: &str, value: &str, measured: &str) -> String {
    let value = hex::decode(value).expect("hexadecimal");
    match bank {
        "sha256" => {
            let digest = Sha256::digest(measured).to_vec();
            hex::encode(Sha256::digest([value, digest].concat()))
        }
        "sha384" => {
            let digest = Sha384::digest(measured).to_vec();
            hex::encode(Sha384::digest([value, digest].concat()))
        }
        other => panic!("bank {other}"),
    }
}

/// The last part of tpm2_eventlog's output: `pcrs:`, then each bank with its lines `N : 0xVALUE`.
fn replayed(text: &str) -> PcrValues {
    let (_, text) = text.split_once("\npcrs:\n").expect("replayed values");
    let mut out = PcrValues::new();
    let mut bank = String::new();
    for line in text.lines() {
        let (key, value) = line.split_once(':').expect("key: value");
        match value.trim().strip_prefix("0x") {
            None => bank = key.trim().to_owned(),
            Some(value) => {
                let values: &mut BTreeMap<u8, String> = out.entry(bank.clone()).or_default();
                values.insert(key.trim().parse().expect("an index"), value.to_owned());
            }
        }
    }
    out
}

#[test]
fn ima_lists_replay_to_pcr_10() {
    for Record { name, violations, .. } in RECORDS {
        let list = fs::read(path(name, "ima.bin")).expect("a list");
        let read = pcrs(name);
        let mut sha256 = [0; 32].to_vec();
        let mut sha384 = [0; 48].to_vec();
        let mut rest = list.as_slice();
        let (mut entries, mut found) = (0, 0);
        while !rest.is_empty() {
            let pcr = number(&mut rest);
            let sha1 = take(&mut rest, 20);
            let name_len = number(&mut rest);
            assert_eq!(take(&mut rest, name_len), b"ima-sig");
            let data_len = number(&mut rest);
            let data = take(&mut rest, data_len);
            assert_eq!(pcr, usize::from(IMA_PCR));
            let is_violation = sha1.iter().all(|byte| *byte == 0);
            let mut own = Sha256::digest(data).to_vec();
            // A bank whose algorithm the kernel lacked when IMA began is extended by SHA-1, padded.
            let mut padded = sha1.to_vec();
            padded.resize(48, 0);
            if is_violation {
                // The list has zeros, the TPM got ones: nobody can show a content for it.
                own.fill(0xff);
                padded.fill(0xff);
            }
            sha256 = Sha256::digest([sha256, own].concat()).to_vec();
            sha384 = Sha384::digest([sha384, padded].concat()).to_vec();
            entries += 1;
            found += usize::from(is_violation);
        }
        assert!(entries > 10, "{name}: only {entries} entries");
        assert_eq!(found, violations, "{name}");
        assert_eq!(hex::encode(sha256), read["sha256"][&IMA_PCR], "{name}");
        assert_eq!(hex::encode(sha384), read["sha384"][&IMA_PCR], "{name}");
    }
}

/// A number of the list: little-endian on this machine's kernel.
fn number(rest: &mut &[u8]) -> usize {
    let bytes = take(rest, 4).try_into().expect("four bytes");
    usize::try_from(u32::from_le_bytes(bytes)).expect("a length")
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, after) = rest.split_at_checked(len).expect("the list goes on");
    *rest = after;
    taken
}
