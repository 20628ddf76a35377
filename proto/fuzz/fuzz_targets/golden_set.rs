//! Golden sets: a document is refused with problems, or checked rules come out, which join or say why not.
#![no_main]

use std::sync::Arc;

use appraisal::policy::{GoldenSet, Manifests, ReferenceValues};
use libfuzzer_sys::fuzz_target;
use proto::digest::PcrIndex;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(tool_pcr) = PcrIndex::new(14) else { return };
    let set = match GoldenSet::parse(text, tool_pcr, &Manifests::new()) {
        Ok(set) => Arc::new(set),
        Err(problems) => return assert!(!problems.is_empty(), "a refusal says why"),
    };
    assert!(!set.name().is_empty());
    let Some(pool) = set.pool().map(str::to_owned) else { return };
    let (values, unresolved) = ReferenceValues::resolve(&pool, &[set], &[]);
    match values {
        Some(values) => assert!(values.labels().next().is_some(), "values without an alternative"),
        None => assert!(!unresolved.is_empty(), "a set that judges nobody says why"),
    }
});
