//! Golden sets: a document is refused with problems, or checked values come out.
#![no_main]

use appraisal::policy::{Manifests, ReferenceValues};
use libfuzzer_sys::fuzz_target;
use proto::digest::PcrIndex;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(tool_pcr) = PcrIndex::new(14) else { return };
    match ReferenceValues::parse(text, tool_pcr, &Manifests::new()) {
        Ok(values) => assert!(!values.name().is_empty() && !values.pool().is_empty()),
        Err(problems) => assert!(!problems.is_empty(), "a refusal says why"),
    }
});
