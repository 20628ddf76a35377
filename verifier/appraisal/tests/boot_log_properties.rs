//! Logs cut at every byte and with a bit changed at every byte: an answer or a typed error, and no fact that is not
//! vouched for.
//!
//! A fact is vouched for if the bytes that it was read from hash, as its source says, to a digest that the replay
//! extends. Where a change leaves every replayed value as it was, an attester could have made it unseen by the TPM: then
//! each fact must be one of the unchanged log's. Taking facts away is all that such a change may do.
//!
//! A debug build takes a sample; with `ASSAY_EVERY_BYTE` set, and in release builds, it is every byte.

mod log_support;

use appraisal::boot_log::{EventVouch, Reading, Replay, Vouch, read};
use log_support::{Boot, all_pcrs, pcr};
use proto::eventlog::{EventLog, EventType, LogAlg, LogDigest, variable::VariableData};
use serde_json::Value;
use soft_tpm::vectors_dir;

/// Changes of one log that a debug build tries.
const SAMPLE: usize = 700;
/// Logs up to this size are changed.
const MAX_BYTES: usize = 8 * 1024;

fn every_byte() -> bool {
    !cfg!(debug_assertions) || std::env::var_os("ASSAY_EVERY_BYTE").is_some()
}

/// The logs of up to 8 kB that are public, and one of our own with everything in it.
fn logs() -> Vec<(String, Vec<u8>)> {
    let mut out = vec![("synthetic".to_owned(), Boot::default().log())];
    if let Some(dir) = vectors_dir() {
        for folder in [
            "google+go-tpm-tools/eventlogs",
            "google+go-attestation/eventlogs",
            "tpm2-software+tpm2-tools/eventlogs",
        ] {
            for entry in std::fs::read_dir(dir.join(folder)).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.extension().is_none_or(|extension| extension != "json") {
                    let bytes = std::fs::read(&path).expect("readable");
                    if bytes.len() <= MAX_BYTES {
                        out.push((path.display().to_string(), bytes));
                    }
                }
            }
        }
    }
    out
}

struct Outcome {
    values: Vec<Option<LogDigest>>,
    reading: Reading,
}

/// Reads a log, and shows that each of its facts is vouched for.
fn read_log(bytes: &[u8]) -> Option<Outcome> {
    let log = EventLog::parse(bytes).ok()?;
    let bank = if log.banks().contains(&LogAlg::Sha256) { LogAlg::Sha256 } else { LogAlg::Sha1 };
    let replay = Replay::of(&log, &[bank]).ok()?;
    let reading = read(&log, &replay, bank, all_pcrs());
    let facts = proven(&reading);
    vouched(&facts, &log, bank);
    told_or_untold(&reading, &log);
    let values = (0..24).map(|index| replay.value(bank, pcr(index))).collect();
    Some(Outcome { values, reading })
}

/// Every event of PCR 7 is read from its data, is a constant, or is said to be untold; in PCR 12 every one is a command
/// line or untold; in PCR 11 what follows an unknown name may be.
fn told_or_untold(reading: &Reading, log: &EventLog<'_>) {
    for EventVouch { event, vouch } in &reading.vouches {
        let at = usize::try_from(*event).expect("small");
        let in_pcr_7 = log.events()[at].pcr == Some(pcr(7));
        let told = matches!(vouch, Vouch::Data | Vouch::DataButLastByte | Vouch::Constant);
        let untold = reading.facts.untold.iter().any(|untold| untold.source.event == *event);
        let in_pcr_12 = log.events()[at].pcr == Some(pcr(12));
        let is_line = reading.facts.command_lines.iter().any(|line| line.source.event == *event);
        let is_constant = *vouch == Vouch::Constant;
        let may_be = in_pcr_7 || log.events()[at].pcr == Some(pcr(11));
        let must_be = (in_pcr_7 && !told) || (in_pcr_12 && !is_line && !is_constant);
        assert!(if untold { must_be || may_be } else { !must_be }, "event {event}: {vouch:?}");
    }
}

/// The facts without what nobody vouches for.
fn proven(reading: &Reading) -> Value {
    let mut facts = serde_json::to_value(&reading.facts).expect("JSON");
    strip(&mut facts);
    facts
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            // What is untold grows where facts go.
            let is_fact = |name: &str| !["hints", "untold"].contains(&name);
            fields.retain(|name, _| is_fact(name) && !name.starts_with("untrusted_"));
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

/// Follows every source in the facts to its event.
fn vouched(value: &Value, log: &EventLog<'_>, bank: LogAlg) {
    match value {
        Value::Object(fields) => {
            if let (Some(event), Some(vouch)) = (fields.get("event"), fields.get("vouch")) {
                let index = usize::try_from(event.as_u64().expect("a number")).expect("small");
                let event = &log.events()[index];
                assert!(event.is_extended());
                assert_eq!(event.pcr.map(|pcr| u64::from(pcr.get())), fields["pcr"].as_u64());
                let digest = event.digest(bank).expect("a digest");
                let data = event.untrusted_data;
                let hashes = |parts: &[&[u8]]| assert_eq!(bank.hash(parts), Some(digest));
                match vouch.as_str().expect("text") {
                    "data" => hashes(&[data]),
                    "data_but_last_byte" => hashes(&[&data[..data.len() - 1]]),
                    "data_and_terminator" => hashes(&[data, &[0]]),
                    "variable_data" => hashes(&[VariableData::read(data).expect("one").data]),
                    "text" => assert!((0..data.len()).any(|at| {
                        let text = &data[at..];
                        let bare = text.strip_suffix(&[0]).unwrap_or(text);
                        [text, bare].iter().any(|text| bank.hash(&[text]) == Some(digest))
                    })),
                    // The digest itself is the fact.
                    "constant" | "digest" | "structure" => {}
                    other => panic!("{other}"),
                }
            }
            fields.values().for_each(|value| vouched(value, log, bank));
        }
        Value::Array(items) => items.iter().for_each(|value| vouched(value, log, bank)),
        _ => {}
    }
}

/// Whether everything that `some` says is said by `all`.
fn within(some: &Value, all: &Value) -> bool {
    match (some, all) {
        (Value::Null, _) => true,
        (Value::Object(some), Value::Object(all)) => {
            some.iter().all(|(name, value)| within(value, all.get(name).unwrap_or(&Value::Null)))
        }
        (Value::Array(some), Value::Array(all)) => {
            some.iter().all(|value| all.iter().any(|other| within(value, other)))
        }
        (some, all) => some == all,
    }
}

fn positions(len: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(if every_byte() { 1 } else { len.div_ceil(SAMPLE).max(1) })
}

#[test]
fn a_log_cut_anywhere_is_read_or_refused() {
    for (name, bytes) in logs() {
        let mut read = 0;
        for end in positions(bytes.len()) {
            if read_log(&bytes[..end]).is_some() {
                read += 1;
            }
        }
        assert!(read < bytes.len(), "{name}: some cuts are refused");
    }
}

#[test]
fn a_changed_bit_is_refused_or_changes_a_pcr_or_takes_facts_away() {
    for (name, bytes) in logs() {
        let Some(original) = read_log(&bytes) else { continue };
        let original_facts = proven(&original.reading);
        let mut unseen = 0;
        for at in positions(bytes.len()) {
            let bits = if every_byte() { 0..8 } else { at % 8..at % 8 + 1 };
            for bit in bits {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                let Some(outcome) = read_log(&changed) else { continue };
                if outcome.values == original.values {
                    unseen += 1;
                    let facts = proven(&outcome.reading);
                    assert!(
                        within(&facts, &original_facts),
                        "{name}: bit {bit} of byte {at}\n{facts:#}\n{original_facts:#}"
                    );
                }
            }
        }
        println!("{name}: {unseen} changes that no PCR shows");
    }
}

/// The property has teeth: a reader that went by types would fall for this.
#[test]
fn relabelling_events_changes_no_fact() {
    let bytes = Boot::default().log();
    let original = proven(&read_log(&bytes).expect("good").reading);
    let offsets: Vec<usize> = EventLog::parse(&bytes)
        .expect("good")
        .events()
        .iter()
        .skip(1)
        .filter(|event| event.is_extended())
        .map(|event| event.offset)
        .collect();
    for kind in EventType::NAMED.iter().filter(|kind| **kind != EventType::NO_ACTION) {
        for offset in positions(offsets.len()).filter_map(|at| offsets.get(at)) {
            let mut changed = bytes.clone();
            changed.splice(offset + 4..offset + 8, kind.0.to_le_bytes());
            let reading = read_log(&changed).expect("still well-formed").reading;
            assert!(within(&proven(&reading), &original), "{kind} at {offset}");
        }
    }
}

#[test]
fn the_comparison_of_facts_sees_differences() {
    let all: Value = serde_json::json!({"a": [1, {"b": 2, "c": 3}], "d": true});
    for (some, expected) in [
        (serde_json::json!({"a": [{"b": 2, "c": null}], "d": null}), true),
        (serde_json::json!({"a": [], "d": true}), true),
        (serde_json::json!({"a": [{"b": 3}]}), false),
        (serde_json::json!({"d": false}), false),
        (serde_json::json!({"e": 1}), false),
    ] {
        assert_eq!(within(&some, &all), expected, "{some}");
    }
}
