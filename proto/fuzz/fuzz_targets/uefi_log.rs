//! The firmware log, from bytes to facts: what is read lies in the log, each source of a fact leads to an event that was
//! extended, and what the log leads to explains itself.
#![no_main]

use appraisal::boot_log::{Later, Replay, Vouch, explain, read};
use libfuzzer_sys::fuzz_target;
use proto::{
    digest::{PcrIndex, PcrSet},
    eventlog::EventLog,
    evidence::PcrValue,
};
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Ok(log) = EventLog::parse(data) else { return };
    let all: PcrSet = (0..24).filter_map(PcrIndex::new).collect();
    for bank in log.banks().into_iter().filter(|alg| alg.is_computed()) {
        let Ok(replay) = Replay::of(&log, &[bank]) else { return };
        let reading = read(&log, &replay, bank, all);
        let facts = serde_json::to_value(&reading.facts).expect("a document");
        sources(&facts, &log);
        for vouch in reading.vouches.iter().filter(|vouch| vouch.vouch == Vouch::Data) {
            let index = usize::try_from(vouch.event).expect("small");
            let event = log.events().get(index).expect("an event of this log");
            assert_eq!(bank.hash(&[event.untrusted_data]), event.digest(bank));
        }
        let values: Option<Vec<PcrValue>> = all
            .iter()
            .map(|index| {
                let value = replay.value(bank, index)?.to_digest()?;
                Some(PcrValue { index, value })
            })
            .collect();
        // Phases and the events that leave the firmware are tried only where the log alone does not lead there.
        if let Some(values) = values {
            let explained = explain(&log, Later::default(), &values, PcrSet::default());
            let explained = explained.expect("nothing is required");
            assert_eq!(explained.replay().events().len(), replay.events().len());
        }
    }
});

fn sources(value: &Value, log: &EventLog<'_>) {
    match value {
        Value::Object(fields) => {
            if let (Some(event), Some(_)) = (fields.get("event"), fields.get("vouch")) {
                let index = event.as_u64().and_then(|index| usize::try_from(index).ok());
                let event = index.and_then(|index| log.events().get(index)).expect("an event");
                assert!(event.is_extended());
            }
            fields.values().for_each(|value| sources(value, log));
        }
        Value::Array(items) => items.iter().for_each(|value| sources(value, log)),
        _ => {}
    }
}
