//! The tool log: what is accepted encodes to the same bytes, and replaying it piecewise is the same
//! as replaying it at once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::{
    digest::{HashAlg, PcrIndex},
    tool_log::{ToolLogReader, ToolLogState, encode_event},
};

fuzz_target!(|data: &[u8]| {
    let mut at = 0;
    let mut ends = Vec::new();
    let mut reader = ToolLogReader::new(data);
    while let Some(Ok(event)) = reader.next() {
        let banks: Vec<_> = event.digests.iter().map(|digest| digest.alg()).collect();
        let again = encode_event(event.record_number, event.pcr, &banks, &event.content);
        assert_eq!(data.get(at..reader.offset()), Some(again.as_slice()), "one encoding only");
        at = reader.offset();
        ends.push(at);
    }
    let Some(pcr) = PcrIndex::new(14) else { return };
    let mut whole = ToolLogState::at_reset(pcr, &[HashAlg::Sha256]);
    if whole.apply(data).is_err() {
        return;
    }
    let mut pieces = ToolLogState::at_reset(pcr, &[HashAlg::Sha256]);
    let mut from = 0;
    for end in ends {
        let piece = data.get(from..end).unwrap_or_default();
        assert!(pieces.apply(piece).is_ok(), "a piece of an accepted log is accepted");
        from = end;
    }
    assert_eq!(whole, pieces);
});
