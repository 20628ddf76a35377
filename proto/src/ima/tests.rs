//! Lists made by hand, byte by byte.

use super::*;

const LITTLE_SHA1: ListFormat = ListFormat { order: ByteOrder::Little, recorded: BankAlg::Sha1 };

/// An entry with its right digest.
fn entry(format: ListFormat, template: &str, values: &[&[u8]]) -> Vec<u8> {
    let data: Vec<u8> =
        values.iter().flat_map(|value| [&number(format, value.len()), *value].concat()).collect();
    framed(format, template, format.recorded.hash(&[&data]).as_bytes(), &data)
}

fn framed(format: ListFormat, template: &str, digest: &[u8], data: &[u8]) -> Vec<u8> {
    [
        &number(format, 10)[..],
        digest,
        &number(format, template.len()),
        template.as_bytes(),
        &number(format, data.len()),
        data,
    ]
    .concat()
}

fn number(format: ListFormat, value: usize) -> [u8; 4] {
    let value = u32::try_from(value).expect("small");
    match format.order {
        ByteOrder::Little => value.to_le_bytes(),
        ByteOrder::Big => value.to_be_bytes(),
    }
}

fn sha256(fill: u8) -> Vec<u8> {
    [b"sha256:\0".as_slice(), &[fill; 32]].concat()
}

fn first_error(list: &[u8]) -> Option<ImaErrorKind> {
    let mut reader = ImaListReader::new(list, LITTLE_SHA1);
    reader.find_map(Result::err).map(|error| error.kind)
}

#[test]
fn every_form_is_detected_and_read() {
    for format in ListFormat::ALL {
        let list = [
            entry(format, "ima-ng", &[&sha256(1), b"boot_aggregate\0"]),
            entry(format, "ima-sig", &[&sha256(2), b"/usr/bin/true\0", b"\x03\x02"]),
            entry(format, "d-ng|n-ng|imode", &[&sha256(3), b"/a b\0", &[0xed, 0x81]]),
        ]
        .concat();
        assert_eq!(ListFormat::detect(&list), Some(format));
        let mut reader = ImaListReader::new(&list, format);
        let entries: Vec<_> = reader.by_ref().map(|entry| entry.expect("well-formed")).collect();
        assert_eq!(reader.end(), ListEnd::Complete);
        assert_eq!(entries.len(), 3);
        assert!(entries.iter().all(ImaEntry::has_right_digest));
        assert!(entries[0].is_boot_aggregate() && !entries[1].is_boot_aggregate());
        let fields = entries[1].vouched().expect("no violation");
        assert_eq!(fields.name, Some(b"/usr/bin/true".as_slice()));
        assert_eq!(fields.signature, Some([3, 2].as_slice()));
        let mode = entries[2].vouched().expect("no violation").mode;
        let expected = if format.order == ByteOrder::Little { 0x81ed } else { 0xed81 };
        assert_eq!(mode, Some(expected));
    }
}

#[test]
fn the_original_template_is_hashed_padded() {
    let name = b"boot_aggregate";
    let padded = [&[5; 20][..], name, &[0; 256 - 14]].concat();
    let digest = BankAlg::Sha1.hash(&[&padded]);
    let list = [
        &number(LITTLE_SHA1, 10)[..],
        digest.as_bytes(),
        &number(LITTLE_SHA1, 3),
        b"ima",
        &[5; 20],
        &number(LITTLE_SHA1, name.len()),
        name,
    ]
    .concat();
    assert_eq!(ListFormat::detect(&list), Some(LITTLE_SHA1));
    let read = ImaListReader::new(&list, LITTLE_SHA1).next().expect("one").expect("well-formed");
    assert!(read.has_right_digest());
    let digest = read.vouched().and_then(|fields| fields.digest).expect("a digest");
    assert_eq!(digest.algorithm, Some(ImaHashAlg::Sha1));
}

#[test]
fn a_cut_list_ends_partially_at_every_byte() {
    let whole = entry(LITTLE_SHA1, "ima-ng", &[&sha256(1), b"boot_aggregate\0"]);
    let list = [whole.as_slice(), &whole].concat();
    for cut in 0..list.len() {
        let mut reader = ImaListReader::new(&list[..cut], LITTLE_SHA1);
        let read = reader.by_ref().filter(Result::is_ok).count();
        assert_eq!(read, cut / whole.len());
        let left = cut % whole.len();
        let expected =
            if left == 0 { ListEnd::Complete } else { ListEnd::Partial { at: cut - left, left } };
        assert_eq!(reader.end(), expected, "cut at {cut}");
    }
}

#[test]
fn each_fault_has_its_error() {
    let name = b"/usr/bin/true\0".as_slice();
    let digest = sha256(1);
    let made = |template: &str, values: &[&[u8]]| entry(LITTLE_SHA1, template, values);
    let long = [vec![b'a'; 4097], vec![0]].concat();
    let huge = framed(LITTLE_SHA1, "ima-ng", &[1; 20], &[]);
    let huge = [&huge[..huge.len() - 4], &[0xff; 4]].concat();
    let mut far = made("ima-ng", &[&digest, name]);
    far[0] = 24;
    let cases: [(Vec<u8>, ImaErrorKind); 14] = [
        (made("ima-new", &[&digest, name]), ImaErrorKind::Template("ima-new".to_owned())),
        (made("ima-\u{1b}", &[&digest]), ImaErrorKind::Template("ima-\\x1b".to_owned())),
        (made("ima-ng", &[&digest]), ImaErrorKind::FieldTruncated("n-ng")),
        (made("ima-ng", &[&digest, name, b""]), ImaErrorKind::TrailingData { left: 4 }),
        (made("d-ng|d", &[&digest, &[1; 20]]), ImaErrorKind::FieldTwice("d")),
        (made("d", &[&[1; 21]]), ImaErrorKind::DigestLength { expected: 20, found: 21 }),
        (made("iuid", &[&[1; 3]]), ImaErrorKind::NumberLength { found: 3 }),
        (made("d-ngv2", &[&digest]), ImaErrorKind::DigestForm),
        (made("ima-ng", &[&digest, b"\0"]), ImaErrorKind::NameEmpty),
        (made("ima-ng", &[&digest, b"/a\0b\0"]), ImaErrorKind::NameHasNul),
        (made("ima-ng", &[&digest, b"/a"]), ImaErrorKind::NameNotTerminated),
        (made("ima-ng", &[&digest, &long]), ImaErrorKind::NameTooLong { max: 4096, found: 4097 }),
        (
            huge,
            ImaErrorKind::TooLong { what: "template data", max: 1 << 20, found: u32::MAX as usize },
        ),
        (far, ImaErrorKind::PcrIndex(24)),
    ];
    for (list, expected) in cases {
        assert_eq!(first_error(&list), Some(expected));
    }
}

#[test]
fn errors_leave_with_their_codes_and_say_where() {
    let good = entry(LITTLE_SHA1, "ima-ng", &[&sha256(1), b"boot_aggregate\0"]);
    let coded = |bad: Vec<u8>| {
        let list = [good.clone(), bad].concat();
        let mut reader = ImaListReader::new(&list, LITTLE_SHA1);
        let error = reader.find_map(Result::err).expect("an error");
        assert_eq!((error.at, error.entry), (good.len(), 1));
        assert!(reader.next().is_none(), "nothing after an error");
        error.code()
    };
    let digest = sha256(1);
    let made = |template: &str, values: &[&[u8]]| entry(LITTLE_SHA1, template, values);
    assert_eq!(coded(made("ima-ng", &[&digest, b"/a\0b\0"])), ReasonCode::ImaNameInvalid);
    assert_eq!(coded(made("ima-new", &[])), ReasonCode::ImaTemplateUnsupported);
    assert_eq!(coded(made("ima-ng", &[b"sha256", b"/a\0"])), ReasonCode::ImaLogMalformed);
    let long = "d-ng|".repeat(60);
    assert_eq!(coded(made(&long, &[])), ReasonCode::EvidenceLimitExceeded);
}

#[test]
fn a_violation_vouches_for_nothing() {
    let data = [&number(LITTLE_SHA1, 26)[..], b"sha1:\0", &[0; 20]].concat();
    let data = [&data[..], &number(LITTLE_SHA1, 8), b"/a/file\0"].concat();
    let list = framed(LITTLE_SHA1, "ima-ng", &[0; 20], &data);
    let read = ImaListReader::new(&list, LITTLE_SHA1).next().expect("one").expect("well-formed");
    assert!(read.is_violation && !read.has_right_digest());
    assert_eq!(read.vouched(), None);
    assert_eq!(read.untrusted_fields().name, Some(b"/a/file".as_slice()));
}
