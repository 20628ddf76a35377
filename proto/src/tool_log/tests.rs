use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::{
    digest::Digest,
    limits::{MAX_PATH_BYTES, MAX_TEXT_BYTES, MAX_TOOL_LOG_BYTES, MAX_TOOLS},
};

const BANKS: [HashAlg; 2] = [HashAlg::Sha256, HashAlg::Sha384];

fn pcr() -> PcrIndex {
    PcrIndex::new(14).expect("below 24")
}

fn file(path: &str, byte: u8) -> ToolEntry {
    let kind = EntryKind::File {
        digest: HashAlg::Sha256.hash(&[&[byte]]),
        size_bytes: 1,
        role: FileRole::Listed,
    };
    ToolEntry { path: path.into(), kind }
}

fn link(path: &str, target: &str) -> ToolEntry {
    ToolEntry { path: path.into(), kind: EntryKind::Link { target: target.into() } }
}

fn gcc() -> ToolMeasurement {
    ToolMeasurement::new(
        "gcc",
        ToolState::Present,
        Some("12.2.0".to_owned()),
        Some("deb:gcc-12@12.2.0-14".to_owned()),
        vec![link("/usr/bin/gcc", "gcc-12"), file("/usr/bin/gcc-12", 1), link("/bin", "usr/bin")],
    )
    .expect("well-formed")
}

fn simple(name: &str, byte: u8) -> ToolMeasurement {
    ToolMeasurement::new(name, ToolState::Present, None, None, vec![file("/t", byte)])
        .expect("well-formed")
}

fn log(tools: &[ToolMeasurement]) -> Vec<u8> {
    (0..).zip(tools).flat_map(|(n, tool)| encode_event(n, pcr(), &BANKS, tool)).collect()
}

fn state() -> ToolLogState {
    ToolLogState::at_reset(pcr(), &BANKS)
}

/// One element, as in the format.
fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend(u32::try_from(value.len()).expect("small").to_be_bytes());
    out.extend(value);
    out
}

/// An event around any content value, with right digests.
fn event_with(content_tag: u8, content: &[u8]) -> Vec<u8> {
    let content = tlv(content_tag, content);
    let digests: Vec<u8> = BANKS
        .iter()
        .flat_map(|bank| tlv(bank.tpm_id().to_be_bytes()[1], bank.hash(&[&content]).as_bytes()))
        .collect();
    [tlv(0, &0_u64.to_be_bytes()), tlv(1, &[14]), tlv(3, &digests), content].concat()
}

fn content(fields: &[(u8, &[u8])]) -> Vec<u8> {
    let fields: Vec<u8> = fields.iter().flat_map(|(tag, value)| tlv(*tag, value)).collect();
    event_with(0xA5, &fields)
}

fn file_entry(path: &[u8]) -> Vec<u8> {
    [tlv(0, path), tlv(1, &[0]), tlv(2, &1_u64.to_be_bytes()), tlv(3, &[7; 32])].concat()
}

fn with_entries(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut fields: Vec<(u8, &[u8])> = vec![(0, b"assay/v1/tool"), (1, b"gcc"), (2, &[1])];
    fields.extend(entries.iter().map(|entry| (5, entry.as_slice())));
    content(&fields)
}

fn code_of(bytes: &[u8]) -> (ReasonCode, ToolLogErrorKind) {
    let mut state = state();
    let before = state.clone();
    let error = state.apply(bytes).expect_err("refused");
    assert_eq!(state, before, "a refused suffix changes nothing");
    (error.code(), error.kind)
}

#[test]
fn an_event_has_the_documented_bytes() {
    let tool = simple("t", 1);
    let entry = [
        tlv(0, b"/t"),
        tlv(1, &[0]),
        tlv(2, &1_u64.to_be_bytes()),
        tlv(3, HashAlg::Sha256.hash(&[&[1]]).as_bytes()),
    ]
    .concat();
    let expected = content(&[(0, b"assay/v1/tool"), (1, b"t"), (2, &[1]), (5, &entry)]);
    assert_eq!(hex::encode(encode_event(0, pcr(), &BANKS, &tool)), hex::encode(expected));
}

#[test]
fn replay_head_and_latest_state_are_what_the_format_says() {
    let tools = [gcc(), simple("ld", 2), ToolMeasurement::absent("gcc").expect("name")];
    let bytes = log(&tools);
    let mut state = state();
    assert_eq!(state.apply(&bytes).expect("accepted"), tools);
    assert_eq!((state.events, state.bytes), (3, bytes.len() as u64));

    let mut head = [0_u8; 32];
    let mut pcr_value = Digest::zero(HashAlg::Sha384);
    for event in ToolLogReader::new(&bytes) {
        let event = event.expect("accepted");
        let part = event.content_digest();
        let next = HashAlg::Sha256.hash(&[&head, part.as_bytes()]);
        head.copy_from_slice(next.as_bytes());
        pcr_value = pcr_value.extended(&event.digests[1]);
    }
    assert_eq!(state.head.as_bytes(), head);
    assert_eq!(state.pcr_values[1], pcr_value);
    assert_eq!(state.latest["gcc"].state, ToolState::Absent);
    assert_eq!(state.latest["ld"].digest, tools[1].digest());
    assert!(state.seen_digests.contains(&tools[0].digest()), "earlier states are remembered");
    assert_eq!(state.seen_digests.len(), 2);
}

#[test]
fn a_log_in_pieces_gives_the_state_of_the_whole() {
    let tools = [gcc(), simple("ld", 2), simple("gcc", 3)];
    let mut whole = state();
    whole.apply(&log(&tools)).expect("accepted");
    let mut pieces = state();
    for (number, tool) in (0..).zip(&tools) {
        pieces.apply(&encode_event(number, pcr(), &BANKS, tool)).expect("accepted");
        let stored = serde_json::to_string(&pieces).expect("serializes");
        pieces = serde_json::from_str(&stored).expect("reads back");
        assert_eq!(pieces.apply(b"").expect("nothing new"), []);
    }
    assert_eq!(pieces, whole);
}

#[test]
fn the_tool_digest_covers_name_state_and_entries_but_not_claims() {
    let base = gcc();
    let with = |name: &str, version: Option<&str>, entries: &[ToolEntry]| {
        let version = version.map(str::to_owned);
        ToolMeasurement::new(name, ToolState::Present, version, None, entries.to_vec())
            .expect("well-formed")
            .digest()
    };
    let entries = base.entries();
    assert_eq!(with("gcc", None, entries), base.digest());
    assert_eq!(with("gcc", Some("13"), entries), base.digest());
    assert_ne!(with("cc", None, entries), base.digest());
    assert_ne!(with("gcc", None, &entries[1..]), base.digest());
    let mut other = entries.to_vec();
    other[1] = link("/usr/bin/gcc", "gcc-13");
    assert_ne!(with("gcc", None, &other), base.digest());
}

#[test]
fn each_refusal_has_its_code() {
    use ReasonCode as C;
    use ToolLogErrorKind as K;
    let one = encode_event(0, pcr(), &BANKS, &gcc());
    let other_pcr = encode_event(0, PcrIndex::new(15).expect("below 24"), &BANKS, &gcc());
    let one_bank = encode_event(0, pcr(), &[HashAlg::Sha256], &gcc());
    let second = encode_event(1, pcr(), &BANKS, &gcc());
    let a = file_entry(b"/a");
    let b = file_entry(b"/b");
    let long_path = [b"/".as_slice(), &vec![b'a'; MAX_PATH_BYTES]].concat();
    let long_text = vec![b'a'; MAX_TEXT_BYTES + 1];
    let domain: (u8, &[u8]) = (0, b"assay/v1/tool");
    let path = |path: &[u8]| with_entries(&[file_entry(path)]);

    let rows: Vec<(&str, Vec<u8>, C, K)> = vec![
        ("gap", second.clone(), C::ToolLogOutOfSequence, K::Sequence { expected: 0, found: 1 }),
        (
            "repeat",
            [one.clone(), one.clone()].concat(),
            C::ToolLogOutOfSequence,
            K::Sequence { expected: 1, found: 0 },
        ),
        ("other PCR", other_pcr, C::ToolLogWrongPcr, K::Pcr { expected: pcr(), found: 15 }),
        ("missing bank", one_bank, C::ToolLogWrongPcr, K::Banks),
        (
            "unknown bank",
            [tlv(0, &[0; 8]), tlv(1, &[14]), tlv(3, &tlv(4, &[0; 20])), tlv(0xA5, &[])].concat(),
            C::ToolLogWrongPcr,
            K::Banks,
        ),
        (
            "no bank",
            [tlv(0, &[0; 8]), tlv(1, &[14]), tlv(3, &[]), tlv(0xA5, &[])].concat(),
            C::ToolLogWrongPcr,
            K::Banks,
        ),
        (
            "digest of other content",
            [tlv(0, &[0; 8]), tlv(1, &[14]), tlv(3, &tlv(11, &[1; 32])), tlv(0xA5, &[])].concat(),
            C::ToolLogDigestMismatch,
            K::Digest(HashAlg::Sha256),
        ),
        (
            "short digest",
            [tlv(0, &[0; 8]), tlv(1, &[14]), tlv(3, &tlv(11, &[1; 31])), tlv(0xA5, &[])].concat(),
            C::ToolLogMalformed,
            K::Length { what: "event digest", expected: 32, found: 31 },
        ),
        (
            "banks descend",
            {
                let body = tlv(0xA5, &[]);
                let sha256 = tlv(11, HashAlg::Sha256.hash(&[&body]).as_bytes());
                let sha384 = tlv(12, HashAlg::Sha384.hash(&[&body]).as_bytes());
                let banks = tlv(3, &[sha384, sha256].concat());
                [tlv(0, &[0; 8]), tlv(1, &[14]), banks, body].concat()
            },
            C::ToolLogNotCanonical,
            K::Order("banks"),
        ),
        (
            "PCR 24",
            [tlv(0, &[0; 8]), tlv(1, &[24])].concat(),
            C::ToolLogMalformed,
            K::Value { what: "PCR", found: 24 },
        ),
        (
            "short record number",
            tlv(0, &[0; 7]),
            C::ToolLogMalformed,
            K::Length { what: "record number", expected: 8, found: 7 },
        ),
        (
            "NV index instead of PCR",
            [tlv(0, &[0; 8]), tlv(2, &[0; 4])].concat(),
            C::ToolLogMalformed,
            K::Type { what: "PCR", found: 2 },
        ),
        (
            "other content type",
            event_with(0x05, b""),
            C::ToolLogMalformed,
            K::Type { what: "tool measurement", found: 5 },
        ),
        (
            "declared length past the end",
            vec![0, 0xff, 0xff, 0xff, 0xff, 0],
            C::ToolLogMalformed,
            K::Truncated { wanted: 0xffff_ffff + 5, left: 6 },
        ),
        (
            "other domain",
            content(&[(0, b"assay/v2/tool"), (1, b"t"), (2, &[0])]),
            C::ToolLogMalformed,
            K::Domain,
        ),
        (
            "state 2",
            content(&[domain, (1, b"t"), (2, &[2])]),
            C::ToolLogMalformed,
            K::Value { what: "tool state", found: 2 },
        ),
        (
            "fields out of order",
            content(&[domain, (2, &[0]), (1, b"t")]),
            C::ToolLogMalformed,
            K::Type { what: "tool name", found: 2 },
        ),
        (
            "version after package",
            content(&[domain, (1, b"t"), (2, &[1]), (4, b"p"), (3, b"v"), (5, &a)]),
            C::ToolLogMalformed,
            K::Type { what: "tool entry", found: 3 },
        ),
        (
            "empty version",
            content(&[domain, (1, b"t"), (2, &[1]), (3, b""), (5, &a)]),
            C::ToolLogMalformed,
            K::Measurement(MeasurementError::TextInvalid("version")),
        ),
        (
            "newline in the name",
            content(&[domain, (1, b"a\nb"), (2, &[0])]),
            C::ToolLogMalformed,
            K::Measurement(MeasurementError::TextInvalid("tool name")),
        ),
        (
            "name is not UTF-8",
            content(&[domain, (1, &[0xff]), (2, &[0])]),
            C::ToolLogMalformed,
            K::Measurement(MeasurementError::TextInvalid("tool name")),
        ),
        (
            "long name",
            content(&[domain, (1, &long_text), (2, &[0])]),
            C::EvidenceLimitExceeded,
            K::Measurement(MeasurementError::TooLong { what: "tool name", max: MAX_TEXT_BYTES }),
        ),
        (
            "absent with an entry",
            content(&[domain, (1, b"t"), (2, &[0]), (5, &a)]),
            C::ToolLogMalformed,
            K::Measurement(MeasurementError::AbsentWithContent),
        ),
        (
            "present without entries",
            content(&[domain, (1, b"t"), (2, &[1])]),
            C::ToolLogMalformed,
            K::Measurement(MeasurementError::PresentWithoutEntries),
        ),
        (
            "entries descend",
            with_entries(&[b, a.clone()]),
            C::ToolLogNotCanonical,
            K::Order("tool entries"),
        ),
        (
            "entry twice",
            with_entries(&[a.clone(), a.clone()]),
            C::ToolLogNotCanonical,
            K::Order("tool entries"),
        ),
        (
            "role 4",
            with_entries(&[[tlv(0, b"/a"), tlv(1, &[4]), tlv(2, &[0; 8])].concat()]),
            C::ToolLogMalformed,
            K::Value { what: "file role", found: 4 },
        ),
        (
            "size of 4 bytes",
            with_entries(&[
                [tlv(0, b"/a"), tlv(1, &[0]), tlv(2, &[0; 4]), tlv(3, &[0; 32])].concat()
            ]),
            C::ToolLogMalformed,
            K::Length { what: "file size", expected: 8, found: 4 },
        ),
        (
            "file digest of 20 bytes",
            with_entries(&[
                [tlv(0, b"/a"), tlv(1, &[0]), tlv(2, &[0; 8]), tlv(3, &[0; 20])].concat()
            ]),
            C::ToolLogMalformed,
            K::Length { what: "file digest", expected: 32, found: 20 },
        ),
        (
            "more behind an entry's digest",
            with_entries(&[[a, tlv(4, b"x")].concat()]),
            C::ToolLogMalformed,
            K::Type { what: "end of the entry", found: 4 },
        ),
        (
            "entry without a kind",
            with_entries(&[tlv(0, b"/a")]),
            C::ToolLogMalformed,
            K::Truncated { wanted: 5, left: 0 },
        ),
        (
            "empty link target",
            with_entries(&[[tlv(0, b"/abcdefgh"), tlv(4, b"")].concat()]),
            C::ToolLogMalformed,
            K::Measurement(MeasurementError::TargetInvalid("/abcdefgh".to_owned())),
        ),
        (
            "long path",
            path(&long_path),
            C::EvidenceLimitExceeded,
            K::Measurement(MeasurementError::TooLong { what: "path", max: MAX_PATH_BYTES }),
        ),
    ];
    for (what, bytes, code, kind) in rows {
        assert_eq!(code_of(&bytes), (code, kind), "{what}");
    }
    for bad in ["", "a", "/", "//a", "/a/", "/a//b", "/./a", "/a/..", "/a\0b"] {
        let expected = K::Measurement(MeasurementError::PathInvalid(path_text(bad.as_bytes())));
        assert_eq!(code_of(&path(bad.as_bytes())), (C::ToolLogMalformed, expected), "{bad:?}");
    }
}

#[test]
fn limits_of_one_boot_hold() {
    let mut state = state();
    let oversized = vec![0; MAX_TOOL_LOG_BYTES + 1];
    let error = state.apply(&oversized).expect_err("too long");
    assert_eq!(error.code(), ReasonCode::EvidenceLimitExceeded);

    let tools: Vec<_> = (0..=MAX_TOOLS).map(|n| simple(&format!("t{n}"), 1)).collect();
    let error = state.apply(&log(&tools)).expect_err("too many tools");
    assert_eq!(error.kind, ToolLogErrorKind::TooMany { what: "tools", max: MAX_TOOLS });
    assert_eq!(error.code(), ReasonCode::EvidenceLimitExceeded);

    state.events = crate::limits::MAX_TOOL_EVENTS as u64;
    let event = encode_event(state.events, pcr(), &BANKS, &gcc());
    let error = state.apply(&event).expect_err("too many events");
    assert_eq!(error.code(), ReasonCode::EvidenceLimitExceeded);
}

#[test]
fn every_flipped_bit_is_seen() {
    let tools = [gcc(), simple("ld", 2)];
    let bytes = log(&tools);
    let mut good = state();
    good.apply(&bytes).expect("accepted");
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(state().apply(&bad).is_err(), "bit {bit} flipped and accepted");
    }
}

#[test]
fn every_truncation_is_seen_and_leaves_the_offset_of_the_torn_event() {
    let first = encode_event(0, pcr(), &BANKS, &gcc());
    let bytes = log(&[gcc(), simple("ld", 2)]);
    for len in 1..bytes.len() {
        let mut reader = ToolLogReader::new(&bytes[..len]);
        let error = reader.by_ref().find_map(Result::err);
        if len == first.len() {
            assert_eq!(error, None, "a whole event");
            continue;
        }
        let error = error.expect("torn");
        assert_eq!(error.code(), ReasonCode::ToolLogMalformed, "cut at {len}");
        assert!(error.is_truncation(), "cut at {len}: {error}");
        assert_eq!(reader.offset(), if len < first.len() { 0 } else { first.len() });
    }
}

#[test]
fn a_measurement_cannot_be_built_against_the_rules() {
    let new = |state, entries| ToolMeasurement::new("t", state, None, None, entries);
    let twice = vec![file("/a", 1), file("/a", 2)];
    assert_eq!(
        new(ToolState::Present, twice),
        Err(MeasurementError::PathRepeated("/a".to_owned()))
    );
    let sha384 = ToolEntry {
        path: b"/a".to_vec(),
        kind: EntryKind::File {
            digest: Digest::zero(HashAlg::Sha384),
            size_bytes: 0,
            role: FileRole::Listed,
        },
    };
    assert_eq!(
        new(ToolState::Present, vec![sha384]),
        Err(MeasurementError::DigestAlg("/a".to_owned()))
    );
    assert_eq!(new(ToolState::Present, vec![]), Err(MeasurementError::PresentWithoutEntries));
    let same = new(ToolState::Present, vec![file("/b", 1), file("/a", 1), file("/b", 1)]);
    assert_eq!(same.map(|tool| tool.entries().len()), Ok(2));
}

#[test]
fn path_text_is_unambiguous() {
    for (path, text) in [
        (b"/usr/bin/gcc".as_slice(), "/usr/bin/gcc"),
        ("/opt/bär".as_bytes(), "/opt/bär"),
        (b"/a\nb", "/a\\x0ab"),
        (b"/a\\nb", "/a\\\\nb"),
        (b"/\xff\xfe", "/\\xff\\xfe"),
    ] {
        assert_eq!(path_text(path), text);
    }
}

#[test]
fn json_names_paths_and_digest() {
    let json = serde_json::to_value(gcc()).expect("serializes");
    assert_eq!(json["name"], "gcc");
    assert_eq!(json["entries"][0]["path"], "/bin");
    assert_eq!(json["entries"][0]["link"], "usr/bin");
    assert_eq!(json["entries"][2]["role"], "listed");
    assert_eq!(json["digest"], gcc().digest().to_string());
}

fn any_measurement() -> impl Strategy<Value = ToolMeasurement> {
    let kind = prop_oneof![
        (any::<[u8; 32]>(), any::<u64>(), 0_usize..4).prop_map(|(bytes, size_bytes, role)| {
            EntryKind::File {
                digest: Digest::new(HashAlg::Sha256, &bytes).expect("32 bytes"),
                size_bytes,
                role: [
                    FileRole::Listed,
                    FileRole::Interpreter,
                    FileRole::Library,
                    FileRole::ScriptInterpreter,
                ][role],
            }
        }),
        vec(1_u8..=255, 1..20).prop_map(|target| EntryKind::Link { target }),
    ];
    let path = vec(vec(prop_oneof![1_u8..=45, 48_u8..=255], 1..8), 1..4)
        .prop_map(|parts| [b"/".as_slice(), &parts.join(&b'/')].concat());
    let entries = proptest::collection::btree_map(path, kind, 1..8);
    let text = "[a-z0-9.+ä-]{1,20}";
    (text, option::of(text), option::of(text), entries, any::<bool>()).prop_filter_map(
        "dots",
        |(name, version, package, entries, present)| {
            if !present {
                return ToolMeasurement::absent(name).ok();
            }
            let entries =
                entries.into_iter().map(|(path, kind)| ToolEntry { path, kind }).collect();
            ToolMeasurement::new(name, ToolState::Present, version, package, entries).ok()
        },
    )
}

proptest! {
    #[test]
    fn decoding_what_was_encoded_gives_it_back(tools in vec(any_measurement(), 1..5)) {
        let bytes = log(&tools);
        let mut state = state();
        prop_assert_eq!(state.apply(&bytes).expect("accepted"), tools);
        prop_assert_eq!(state.bytes, bytes.len() as u64);
    }

    /// The content is re-signed (its digests recomputed) after the damage, as an attacker would.
    #[test]
    fn what_is_accepted_encodes_to_the_bytes_that_were_read(
        tool in any_measurement(),
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
        cut in 0_usize..4,
    ) {
        let bytes = encode_event(0, pcr(), &BANKS, &tool);
        let start = bytes.len() - content_len(&bytes);
        let mut body = bytes[start + 5..].to_vec();
        let at = at.index(body.len());
        body[at] = with;
        body.truncate(body.len() - cut.min(body.len()));
        let damaged = event_with(0xA5, &body);
        for event in ToolLogReader::new(&damaged).flatten() {
            prop_assert_eq!(encode_event(0, pcr(), &BANKS, &event.content), damaged.clone());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = state().apply(&bytes);
        let _ = state().apply(&event_with(0xA5, &bytes));
    }
}

fn content_len(event: &[u8]) -> usize {
    // Record number 13, PCR 6, digests 5 + (5 + 32) + (5 + 48).
    event.len() - 13 - 6 - 95
}
