//! Logs that must be refused, each with its code, and those that must not.

use super::*;
use crate::eventlog::{
    LogDigest, device_path, firmware, gpt, load_option, no_action, signature_list, spdm, tagged,
    variable,
};
use crate::reason::ReasonCode;

const SHA256: (u16, u16) = (0x000b, 32);
const SHA384: (u16, u16) = (0x000c, 48);
/// An algorithm that has no name here.
const UNNAMED: (u16, u16) = (0x7fff, 8);

fn spec_id(algorithms: &[(u16, u16)], declared: u32, vendor: &[u8]) -> Vec<u8> {
    let mut data = b"Spec ID Event03\0\0\0\0\0\0\x02\0\x02".to_vec();
    data.extend(declared.to_le_bytes());
    for (alg, size) in algorithms {
        data.extend(alg.to_le_bytes());
        data.extend(size.to_le_bytes());
    }
    data.extend(vendor);
    data
}

fn first(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.extend(EventType::NO_ACTION.0.to_le_bytes());
    out.extend([0; 20]);
    out.extend(u32::try_from(data.len()).expect("short").to_le_bytes());
    out.extend(data);
    out
}

/// A log of two banks with one more event.
fn agile(event: &[u8]) -> Vec<u8> {
    let mut out = first(&spec_id(&[SHA256, SHA384, UNNAMED], 3, &[0]));
    out.extend(event);
    out
}

fn event(pcr: u32, kind: EventType, digests: &[(u16, usize)], data: &[u8]) -> Vec<u8> {
    let mut out = pcr.to_le_bytes().to_vec();
    out.extend(kind.0.to_le_bytes());
    out.extend(u32::try_from(digests.len()).expect("few").to_le_bytes());
    for (alg, size) in digests {
        out.extend(alg.to_le_bytes());
        out.extend(vec![7; *size]);
    }
    out.extend(u32::try_from(data.len()).expect("short").to_le_bytes());
    out.extend(data);
    out
}

fn code(bytes: &[u8]) -> Result<usize, ReasonCode> {
    EventLog::parse(bytes).map(|log| log.events().len()).map_err(|error| error.code())
}

#[test]
fn good_logs_are_read() {
    let separator = event(7, EventType::SEPARATOR, &[(0x0b, 32), (0x0c, 48), (0x7fff, 8)], &[0; 4]);
    let bytes = agile(&separator);
    let log = EventLog::parse(&bytes).expect("well-formed");
    assert_eq!(log.format(), LogFormat::CryptoAgile);
    assert_eq!(log.banks(), [LogAlg::Sha256, LogAlg::Sha384]);
    let [_, event] = log.events() else { panic!("two events") };
    assert_eq!((event.index, event.offset), (1, bytes.len() - separator.len()));
    assert_eq!(event.digest(LogAlg::Sha384), LogDigest::new(LogAlg::Sha384, &[7; 48]).ok());
    assert_eq!(event.digest(LogAlg::Sha1), None);
    assert_eq!(event.untrusted_data, [0; 4]);
    assert_eq!(code(&[]), Ok(0));
    assert_eq!(code(&first(b"Spec ID Event00\0\0\0\0\0\0\x01\0\x02\0")), Ok(1));
    assert_eq!(code(&first(b"anything")), Ok(1), "the format of TPM 1.2");
}

#[test]
fn banks_may_be_missing_or_in_another_order() {
    assert_eq!(code(&agile(&event(9, EventType::IPL, &[(0x0c, 48), (0x0b, 32)], b""))), Ok(2));
    assert_eq!(code(&agile(&event(9, EventType::IPL, &[], b""))), Ok(2));
}

#[test]
fn information_may_belong_to_no_pcr_and_nothing_else_may() {
    let none = u32::MAX;
    assert_eq!(code(&agile(&event(none, EventType::NO_ACTION, &[], b"x"))), Ok(2));
    let refused = Err(ReasonCode::EventLogPcrInvalid);
    assert_eq!(code(&agile(&event(none, EventType::SEPARATOR, &[], b""))), refused);
    for pcr in [24, 255, 256, 0x8000_0000] {
        assert_eq!(code(&agile(&event(pcr, EventType::NO_ACTION, &[], b""))), refused);
    }
}

#[test]
fn uniform_padding_is_tolerated_and_bounded() {
    let log = agile(&event(7, EventType::SEPARATOR, &[(0x0b, 32)], &[0; 4]));
    for (byte, other) in [(0x00, 0x01), (0xff, 0x00)] {
        for count in [1, 7, 8, 4096, crate::limits::MAX_LOG_PADDING_BYTES] {
            let mut bytes = log.clone();
            bytes.extend(std::iter::repeat_n(byte, count));
            // Zeros at the end of the last event's data are no padding.
            let read = EventLog::parse(&bytes).expect("padding");
            assert_eq!((read.events().len(), read.padding_bytes()), (2, count));
        }
        let mut bytes = log.clone();
        bytes.extend(std::iter::repeat_n(byte, crate::limits::MAX_LOG_PADDING_BYTES + 1));
        assert_eq!(code(&bytes), Err(ReasonCode::EventLogLimitExceeded));
        let mut bytes = log.clone();
        bytes.extend([byte, byte, byte, other, byte]);
        assert_ne!(code(&bytes), Ok(2), "not uniform");
    }
}

/// Sixteen zeros are a valid event without digests and data: a log of them is not searched again at each.
#[test]
fn many_events_are_bounded() {
    let mut bytes = agile(&[]);
    bytes.extend(event(1, EventType::IPL, &[], b"").repeat(crate::limits::MAX_UEFI_EVENTS - 1));
    assert_eq!(code(&bytes), Ok(crate::limits::MAX_UEFI_EVENTS));
    bytes.extend(event(1, EventType::IPL, &[], b""));
    assert_eq!(code(&bytes), Err(ReasonCode::EventLogLimitExceeded));
    let mut zeros = agile(&[]);
    zeros.extend(vec![0; 1_000_000]);
    zeros.push(1);
    assert_eq!(code(&zeros), Err(ReasonCode::EventLogLimitExceeded));
}

#[test]
fn each_defect_has_its_code() {
    let mut huge = event(7, EventType::IPL, &[(0x0b, 32)], b"");
    let end = huge.len();
    huge.splice(end - 4.., u32::MAX.to_le_bytes());
    let mut many_digests = event(7, EventType::IPL, &[(0x0b, 32)], b"");
    many_digests.splice(8..12, u32::MAX.to_le_bytes());
    let mut seventeen = event(7, EventType::IPL, &[(0x0b, 32)], b"");
    seventeen.splice(8..12, 17_u32.to_le_bytes());
    let long = vec![1; crate::limits::MAX_UEFI_LOG_BYTES + 1];
    for (bytes, expected) in [
        (agile(&huge), ReasonCode::EventLogMalformed),
        (agile(&event(7, EventType::IPL, &[(0x0b, 31)], b"")), ReasonCode::EventLogMalformed),
        (agile(&many_digests), ReasonCode::EventLogLimitExceeded),
        (agile(&seventeen), ReasonCode::EventLogLimitExceeded),
        (long, ReasonCode::EventLogLimitExceeded),
        (
            agile(&event(7, EventType::IPL, &[(0x0b, 32), (0x0b, 32)], b"")),
            ReasonCode::EventLogAlgorithmInvalid,
        ),
        (
            agile(&event(7, EventType::IPL, &[(0x7fff, 8), (0x7fff, 8)], b"")),
            ReasonCode::EventLogAlgorithmInvalid,
        ),
        (
            agile(&event(7, EventType::IPL, &[(0x04, 20)], b"")),
            ReasonCode::EventLogAlgorithmInvalid,
        ),
        (first(&spec_id(&[SHA256, SHA256], 2, &[0])), ReasonCode::EventLogAlgorithmInvalid),
        (first(&spec_id(&[SHA256], u32::MAX, &[0])), ReasonCode::EventLogLimitExceeded),
        (first(&spec_id(&[SHA256], 2, &[])), ReasonCode::EventLogSpecIdInvalid),
        (first(&spec_id(&[], 0, &[0])), ReasonCode::EventLogSpecIdInvalid),
        (first(&spec_id(&[(0x0b, 20)], 1, &[0])), ReasonCode::EventLogSpecIdInvalid),
        (first(&spec_id(&[(0x7fff, 0)], 1, &[0])), ReasonCode::EventLogSpecIdInvalid),
        (first(&spec_id(&[(0x7fff, 65)], 1, &[0])), ReasonCode::EventLogSpecIdInvalid),
        (first(&spec_id(&[SHA256], 1, &[])), ReasonCode::EventLogSpecIdInvalid),
        (first(&spec_id(&[SHA256], 1, &[4, 1, 2, 3])), ReasonCode::EventLogSpecIdInvalid),
        (first(&spec_id(&[SHA256], 1, &[1, 2, 3])), ReasonCode::EventLogSpecIdInvalid),
        (first(b"Spec ID Event04\0"), ReasonCode::EventLogSpecIdInvalid),
        (first(b"Spec ID Event02\0\0"), ReasonCode::EventLogSpecIdInvalid),
    ] {
        assert_eq!(code(&bytes), Err(expected), "{:?}", EventLog::parse(&bytes).err());
    }
}

#[test]
fn errors_say_where() {
    let mut bytes = agile(&event(7, EventType::IPL, &[(0x0b, 32)], b"abc"));
    bytes.pop();
    let error = EventLog::parse(&bytes).expect_err("cut");
    let start = bytes.len() + 1 - event(7, EventType::IPL, &[(0x0b, 32)], b"abc").len();
    assert_eq!(error.event, 1);
    assert_eq!(
        error.to_string(),
        format!("event 1 at byte {}: event data: 3 bytes expected, 2 left", start + 12 + 34 + 4)
    );
}

proptest::proptest! {
    /// No input makes the reader panic, and what is read lies in the input.
    #[test]
    fn any_bytes_are_read_or_refused(
        tail in proptest::collection::vec(proptest::num::u8::ANY, 0..400),
        prefix in proptest::bool::ANY,
    ) {
        let bytes = if prefix { agile(&tail) } else { tail };
        if let Ok(log) = EventLog::parse(&bytes) {
            let data: usize = log.events().iter().map(|event| event.untrusted_data.len()).sum();
            proptest::prop_assert!(data <= bytes.len());
            for event in log.events() {
                let _ = variable::VariableData::read(event.untrusted_data);
                let _ = device_path::show(event.untrusted_data);
                let _ = gpt::Gpt::read(event.untrusted_data);
                let _ = load_option::LoadOption::read(event.untrusted_data);
                let _ = signature_list::SignatureLists::new(event.untrusted_data).count();
            }
        }
    }
}

/// Counts and lengths inside of event data are bounded by the data.
#[test]
fn structures_in_events_end_with_their_data() {
    use firmware::{FirmwareBlob, HandoffTables, ImageLoad};
    use no_action::NoAction;
    use spdm::DeviceSecurityEvent;
    use tagged::TaggedEvent;

    let huge = u64::MAX.to_le_bytes();
    let mut gpt = b"EFI PART".to_vec();
    gpt.extend([0; 84]);
    for (count, what) in
        [(huge, "GPT partition count"), (257_u64.to_le_bytes(), "GPT partition count")]
    {
        let bytes = [gpt.as_slice(), &count].concat();
        assert_eq!(gpt::Gpt::read(&bytes).map_err(|error| error.what), Err(what));
    }
    let one = [gpt.as_slice(), &1_u64.to_le_bytes(), &[0; 127]].concat();
    assert_eq!(gpt::Gpt::read(&one).map_err(|error| error.what), Err("GPT partition"));
    assert_eq!(HandoffTables::read(&huge).map_err(|error| error.what), Err("table count"));
    let short = [1, 0, 0, 0, 0, 0, 0, 0, 1];
    assert_eq!(HandoffTables::read(&short).map_err(|error| error.what), Err("table"));
    let blob = FirmwareBlob::read(&[0; 17]).map_err(|error| error.what);
    assert_eq!(blob, Err("bytes follow the blob"));
    let blob = FirmwareBlob::read2(&[200, 0]).map_err(|error| error.what);
    assert_eq!(blob, Err("blob description"));
    let tagged = TaggedEvent::read(&[1, 0, 0, 0, 2, 0, 0, 0, 9]).map_err(|error| error.what);
    assert_eq!(tagged, Err("tagged data"));
    // A path length that leaves the data: what is there.
    let image = [[0; 24].as_slice(), &huge, &[4, 4]].concat();
    assert_eq!(ImageLoad::read(&image).map(|load| load.path.len()), Ok(2));
    let option = load_option::LoadOption::read(&[1, 0, 0, 0, 0, 0, b'a', 0]);
    assert_eq!(option.map_err(|error| error.what), Err("load option description"));
    let device = DeviceSecurityEvent::read(b"SPDM Device Sec2\0").map_err(|error| error.what);
    assert_eq!(device, Err("device event header"));
    for (data, expected) in [
        (&b"StartupLocality\0"[..], NoAction::Other),
        (b"StartupLocality\0\x03\0", NoAction::Other),
        (b"StartupLocality\0\x03", NoAction::StartupLocality(3)),
        (b"SP800-155 Event3\0", NoAction::Other),
        (b"NvIndexInstance\0", NoAction::NvIndex),
        (b"", NoAction::Other),
    ] {
        assert_eq!(NoAction::read(data), expected);
    }
}
