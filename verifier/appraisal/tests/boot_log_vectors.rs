//! Public firmware logs: what they replay to, what they prove, where they are odd.

mod log_support;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use appraisal::boot_log::{
    EventSource, Later, PHASES, ProblemCode, Reading, Replay, ReplayedEvent, explain,
    quirks::Quirk, read,
};
use log_support::{all_pcrs, pcr, vector};
use proto::{
    digest::{Digest, HashAlg},
    eventlog::{EventLog, EventType, LogAlg, LogDigest, LogFormat},
    evidence::PcrValue,
    reason::ReasonCode,
};
use serde_json::Value;
use soft_tpm::vectors_dir;

/// The log whose Spec ID event declares vendor information beyond its own end. The collection says that it does not
/// parse, tpm2-tools reads over the end; the length of the event is what every later offset stands on, so it is
/// refused here.
const SPEC_ID_OVERRUN: &str = "specid-vendordata.bin";

/// Every log with its sidecar.
fn logs() -> Vec<(PathBuf, Value)> {
    let Some(dir) = vectors_dir() else { return Vec::new() };
    let mut out = Vec::new();
    for folder in [
        "google+go-tpm-tools/eventlogs",
        "google+go-attestation/eventlogs",
        "tpm2-software+tpm2-tools/eventlogs",
    ] {
        for entry in std::fs::read_dir(dir.join(folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            let sidecar = PathBuf::from(format!("{}.pcrs.json", path.display()));
            if let Ok(text) = std::fs::read(&sidecar) {
                out.push((path, serde_json::from_slice(&text).expect("JSON")));
            }
        }
    }
    out.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(out.len() >= 21, "{} logs", out.len());
    out
}

/// SHA-256, else what there is.
fn bank_of(log: &EventLog<'_>) -> LogAlg {
    if log.banks().contains(&LogAlg::Sha256) { LogAlg::Sha256 } else { LogAlg::Sha1 }
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("a name")
}

fn reading(bytes: &[u8], bank: LogAlg) -> Reading {
    let log = EventLog::parse(bytes).expect("well-formed");
    let replay = Replay::of(&log, &[bank]).expect("a replay");
    read(&log, &replay, bank, all_pcrs())
}

#[test]
fn every_log_replays_to_what_the_collection_states() {
    let mut compared = 0;
    for (path, sidecar) in logs() {
        let name = name(&path);
        let bytes = std::fs::read(&path).expect("readable");
        let log = match EventLog::parse(&bytes) {
            Ok(log) => log,
            Err(error) => {
                assert_eq!(
                    (name, error.code()),
                    (SPEC_ID_OVERRUN, ReasonCode::EventLogSpecIdInvalid)
                );
                assert!(sidecar["parse_error"].is_string(), "{name}: stated to parse");
                continue;
            }
        };
        assert!(sidecar["parse_error"].is_null(), "{name}: stated not to parse");
        let stated: Vec<&str> =
            sidecar["algs"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        let banks = log.banks();
        assert_eq!(banks.iter().map(|alg| alg.name()).collect::<Vec<_>>(), stated, "{name}");
        let events = u64::try_from(log.events().len()).expect("few");
        assert_eq!(Some(events), sidecar["events"].as_u64(), "{name}");
        let replay = Replay::of(&log, &banks).expect("a replay");
        assert_eq!(
            Some(u64::from(replay.startup_locality())),
            sidecar["startup_locality"].as_u64(),
            "{name}"
        );
        let own = sidecar["replayed_pcrs"].as_object().into_iter().flatten();
        let tests = sidecar["expected_from_tests"]["banks"].as_object().into_iter().flatten();
        for (alg, values) in own.chain(tests) {
            let alg: LogAlg = alg.parse().expect("a bank");
            for (index, value) in values.as_object().expect("PCRs") {
                let index = pcr(index.parse().expect("a PCR"));
                let found = replay.value(alg, index).map(|value| hex::encode(value.as_bytes()));
                assert_eq!(found.as_deref(), value.as_str(), "{name}: PCR {index} ({alg})");
                compared += 1;
            }
        }
    }
    println!("{compared} values");
}

/// What another implementation, written in another language, makes of the same bytes.
#[test]
fn tpm2_eventlog_agrees() {
    if Command::new("tpm2_eventlog").arg("--version").output().is_err() {
        assert!(
            std::env::var_os("CI").is_none_or(|value| value != "true"),
            "tpm2_eventlog is missing"
        );
        println!("skipped: tpm2_eventlog is not installed");
        return;
    }
    let mut agreed = Vec::new();
    for (path, _) in logs() {
        let output = Command::new("tpm2_eventlog").arg(&path).output().expect("runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let bytes = std::fs::read(&path).expect("readable");
        let theirs = pcrs_of_yaml(&text);
        let Ok(log) = EventLog::parse(&bytes) else {
            assert_eq!(name(&path), SPEC_ID_OVERRUN);
            assert!(theirs.is_empty(), "a log without events has no PCRs to differ in");
            continue;
        };
        if !output.status.success() {
            continue;
        }
        let replay = Replay::of(&log, &log.banks()).expect("a replay");
        for ((alg, index), value) in &theirs {
            let shown = |value: Option<LogDigest>| value.map(|value| hex::encode(value.as_bytes()));
            let found = shown(replay.value(*alg, pcr(*index)));
            if *index == 0 && found.as_ref() != Some(value) {
                // Version 5.4 starts PCR 0 at zero whatever the log says, and extends the event that says it.
                assert_ne!(replay.startup_locality(), 0, "{}", name(&path));
                assert_eq!(shown(old_pcr_0(&log, *alg)).as_ref(), Some(value), "{}", name(&path));
                continue;
            }
            assert_eq!(found.as_ref(), Some(value), "{}: PCR {index} ({alg})", name(&path));
        }
        agreed.push((name(&path).to_owned(), theirs.len()));
    }
    println!("{agreed:?}");
    assert!(vectors_dir().is_none() || agreed.len() >= 15, "{agreed:?}");
}

fn old_pcr_0(log: &EventLog<'_>, alg: LogAlg) -> Option<LogDigest> {
    let mut value = LogDigest::zero(alg);
    for event in log.events().iter().skip(1).filter(|event| event.pcr == Some(pcr(0))) {
        value = value.extended(event.digest_bytes(alg)?)?;
    }
    Some(value)
}

/// The last part of its output: `pcrs:`, banks, `index : 0xvalue`.
fn pcrs_of_yaml(text: &str) -> BTreeMap<(LogAlg, u8), String> {
    let mut out = BTreeMap::new();
    let mut bank = None;
    for line in text.lines().skip_while(|line| *line != "pcrs:").skip(1) {
        let Some((key, value)) = line.trim().split_once(':') else { continue };
        match (value.trim().strip_prefix("0x"), bank, key.trim().parse()) {
            (Some(value), Some(bank), Ok(index)) => {
                out.insert((bank, index), value.to_owned());
            }
            _ => bank = key.trim().parse().ok(),
        }
    }
    out
}

#[test]
fn secure_boot_is_what_the_collection_states() {
    for (path, sidecar) in logs() {
        let name = name(&path);
        let bytes = std::fs::read(&path).expect("readable");
        let Ok(log) = EventLog::parse(&bytes) else { continue };
        let facts = reading(&bytes, bank_of(&log)).facts;
        let stated = match sidecar["secureboot_var"].as_str() {
            Some("01") => Some(true),
            Some("00") => Some(false),
            _ => None,
        };
        assert_eq!(facts.secure_boot, stated, "{name}");
    }
}

/// Every deviation in the table is shown by the log that it names.
#[test]
fn every_quirk_is_shown_by_its_log() {
    for quirk in Quirk::ALL {
        let Some(bytes) = vector(quirk.shown_by()) else { return };
        if *quirk == Quirk::ExitNotLogged {
            // Only PCR 5 shows it: see the next test.
            continue;
        }
        let log = EventLog::parse(&bytes).expect("well-formed");
        let seen = reading(&bytes, bank_of(&log)).quirks;
        assert!(seen.iter().any(|seen| seen.quirk == *quirk), "{}: {seen:?}", quirk.name());
    }
}

#[test]
fn a_log_that_ends_before_the_firmware_is_left_explains_pcr_5_with_the_two_known_events() {
    let Some(bytes) = vector(Quirk::ExitNotLogged.shown_by()) else { return };
    let log = EventLog::parse(&bytes).expect("well-formed");
    let mut replay = Replay::of(&log, &[LogAlg::Sha1]).expect("a replay");
    for text in ["Exit Boot Services Invocation", "Exit Boot Services Returned with Success"] {
        let event = ReplayedEvent {
            source: EventSource::Inferred,
            index: 0,
            pcr: pcr(5),
            untrusted_type: EventType::EFI_ACTION,
            untrusted_data: text.as_bytes(),
        };
        replay.extend(event, &[LogAlg::Sha1.hash(&[text.as_bytes()]).expect("computed")]);
    }
    let stated = "sha1:31245808d6d35849bc394f6343f2b3ff908ed5e3";
    assert_eq!(replay.value(LogAlg::Sha1, pcr(5)), stated.parse().ok());
}

/// A quote's own PCR values, and the log that came with it.
#[test]
fn the_log_of_a_windows_machine_replays_to_its_pcrs() {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let Some(bytes) = vector("google+go-attestation/quotes/windows_gcp_shielded_vm.json") else {
        return;
    };
    let document: Value = serde_json::from_slice(&bytes).expect("JSON");
    let base64 =
        |value: &Value| BASE64_STANDARD.decode(value.as_str().expect("text")).expect("base64");
    let raw = base64(&document["Log"]["Raw"]);
    let log = EventLog::parse(&raw).expect("well-formed");
    let replay = Replay::of(&log, &[LogAlg::Sha1]).expect("a replay");
    for stated in document["Log"]["PCRs"].as_array().expect("a list") {
        let index = u8::try_from(stated["Index"].as_u64().expect("a number")).expect("small");
        let value = LogDigest::new(LogAlg::Sha1, &base64(&stated["Digest"])).expect("20 bytes");
        assert_eq!(replay.value(LogAlg::Sha1, pcr(index)), Some(value), "PCR {index}");
    }
    assert_eq!(reading(&raw, LogAlg::Sha1).facts.secure_boot, Some(true));
}

#[test]
fn a_short_first_event_makes_a_log_of_the_old_format() {
    let Some(bytes) = vector("google+go-attestation/eventlogs/short_no_action_eventlog") else {
        return;
    };
    let log = EventLog::parse(&bytes).expect("well-formed");
    assert_eq!((log.format(), log.banks()), (LogFormat::Tcg12, vec![LogAlg::Sha1]));
    let replay = Replay::of(&log, &[LogAlg::Sha1]).expect("a replay");
    assert_eq!(replay.startup_locality(), 3);
}

/// Facts of one log, against what its machine is known to be.
#[test]
fn facts_of_a_rhel_machine() {
    let Some(bytes) = vector("google+go-tpm-tools/eventlogs/rhel8-uefi.bin") else { return };
    let Reading { facts, problems, .. } = reading(&bytes, LogAlg::Sha256);
    assert_eq!(facts.secure_boot, Some(true));
    assert_eq!(facts.setup_mode, Some(false));
    let subjects = |database: &Option<appraisal::boot_log::KeyDatabase>| -> Vec<String> {
        database
            .iter()
            .flat_map(|database| &database.entries)
            .filter_map(|entry| entry.certificate.as_ref())
            .map(|certificate| certificate.subject.clone())
            .collect()
    };
    assert!(subjects(&facts.db).iter().any(|s| s.contains("Microsoft Corporation UEFI CA 2011")));
    assert_eq!(facts.authorities.len(), 2);
    assert_eq!(facts.authorities[0].in_db, Some(true));
    assert_eq!(facts.authorities[1].in_db, Some(false));
    assert_eq!(facts.authorities[1].variable, "Shim");
    assert_eq!(facts.boot_applications.len(), 3);
    assert!(facts.boot_applications.iter().all(|app| app.after_call && app.text.is_none()));
    assert_eq!(facts.separators.len(), 8);
    assert!(facts.exit_boot_services.success.is_some());
    assert_eq!(facts.firmware[0].text.as_deref(), Some("GCE Virtual Firmware v1"));
    assert_eq!(facts.hints.boot_order, Some(vec![2, 0, 1]));
    assert_eq!(facts.boot_order, None, "its name is not under the digest");
    assert_eq!(facts.partition_tables.len(), 1);
    let lines = &facts.hints.command_lines;
    assert!(
        lines.iter().any(|line| line.text.as_deref().is_some_and(|t| t.contains("root=UUID=")))
    );
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn oddities_of_a_physical_machine() {
    let Some(bytes) = vector("google+go-tpm-tools/eventlogs/gdc-host.bin") else { return };
    let Reading { facts, problems, .. } = reading(&bytes, LogAlg::Sha256);
    assert!(facts.dma_protection_disabled && !facts.debug_mode);
    assert_eq!(facts.deployed_mode, Some(true));
    assert_eq!(facts.audit_mode, Some(false));
    assert_eq!(facts.sbat_level.as_deref(), Some("sbat,1,2021030218\n"));
    let codes: Vec<_> = problems.iter().map(|problem| (problem.code, problem.event)).collect();
    assert_eq!(
        codes,
        [
            (ProblemCode::DataNotVouched, Some(3)),
            (ProblemCode::DmaProtectionDisabled, Some(18)),
            (ProblemCode::ApplicationBeforeCall, Some(54)),
        ]
    );
}

/// Logs of virtual machines of this project's own, with the values that their TPM reported. The kernel's IMA list, which
/// extends PCR 10, is not part of them.
#[test]
fn logs_of_our_own_machines_explain_what_their_tpm_reports() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../swtpm-tests/vectors");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("skipped: no {}", folder.display());
        return;
    };
    let required = log_support::pcrs(&[0, 1, 2, 3, 4, 5, 6, 7, 9, 11]);
    for entry in entries {
        let path = entry.expect("an entry").path();
        let Some(stem) = name(&path).strip_suffix(".uefi.bin") else { continue };
        let sidecar = std::fs::read(path.with_file_name(format!("{stem}.pcrs.json")));
        let sidecar: Value = serde_json::from_slice(&sidecar.expect("a sidecar")).expect("JSON");
        let mut values = Vec::new();
        for (bank, pcrs) in sidecar.as_object().expect("banks") {
            let bank: HashAlg = bank.parse().expect("a bank");
            for (index, value) in pcrs.as_object().expect("PCRs") {
                let bytes = hex::decode(value.as_str().expect("text")).expect("hexadecimal");
                values.push(PcrValue {
                    index: pcr(index.parse().expect("a PCR")),
                    value: Digest::new(bank, &bytes).expect("its length"),
                });
            }
        }
        let bytes = std::fs::read(&path).expect("readable");
        let log = EventLog::parse(&bytes).expect("well-formed");
        let explained = explain(&log, Later::default(), &values, required).expect("explained");
        let facts = explained.facts();
        let is_off = ["secure-boot-off", "ima-violations"].contains(&stem);
        assert_eq!(facts.secure_boot, Some(!is_off), "{stem}");
        // systemd 252 keeps no log of what it measured.
        let phases: &[&str] = match stem {
            "systemd-252" => &PHASES[2..4],
            "systemd-252-initrd" => &PHASES[..4],
            _ => &[],
        };
        let told: Vec<_> = facts.userspace.iter().map(|m| (m.source, m.text.as_deref())).collect();
        let inferred = phases.iter().map(|phase| (EventSource::Inferred, Some(*phase)));
        assert_eq!(told, inferred.collect::<Vec<_>>(), "{stem}");
        let sections: Vec<&str> =
            facts.uki_sections.iter().map(|section| section.name.as_str()).collect();
        assert_eq!(sections, [".linux", ".osrel", ".cmdline", ".initrd"], "{stem}");
    }
}
