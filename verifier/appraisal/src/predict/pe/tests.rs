use super::*;
use crate::predict::sample::{Sample, put};

/// Where the sample's fields stand.
const OPTIONAL: usize = 0x40 + 24;
const TABLE: usize = OPTIONAL + 112 + 128;

fn sample() -> Sample {
    Sample::default().section(".text", b"code").section(".data", &[7; 600])
}

fn digest(bytes: &[u8]) -> Digest {
    Image::parse(bytes).expect("an image").authenticode(HashAlg::Sha256)
}

#[test]
fn a_signature_and_the_checksum_leave_the_digest_as_it_is() {
    let unsigned = sample().build();
    let signed = sample().signed(b"a signature of 32 bytes, or more").build();
    assert_ne!(unsigned, signed);
    assert_eq!(digest(&unsigned), digest(&signed));
    assert!(Image::parse(&signed).expect("an image").is_signed());
    let mut other = unsigned.clone();
    put(&mut other, OPTIONAL + 64, &[1, 2, 3, 4]);
    assert_eq!(digest(&unsigned), digest(&other));
}

#[test]
fn every_other_byte_counts() {
    let image = sample().trailing(b"behind the sections").signed(b"signature").build();
    let whole = digest(&image);
    let uncounted = |at: usize| {
        (OPTIONAL + 64..OPTIONAL + 68).contains(&at)
            || (OPTIONAL + 112 + 32..OPTIONAL + 112 + 40).contains(&at)
            || at >= image.len() - b"signature".len()
    };
    for at in 0..image.len() {
        let mut other = image.clone();
        other[at] ^= 0x80;
        if let Ok(parsed) = Image::parse(&other) {
            let is_same = parsed.authenticode(HashAlg::Sha256) == whole;
            assert_eq!(is_same, uncounted(at), "byte {at:#x}");
        }
    }
}

#[test]
fn sections_are_hashed_by_their_place_in_the_file() {
    let image = sample().build();
    let mut swapped = image.clone();
    // The other order in the table, the same places in the file: only the table's own bytes differ.
    let (first, second) =
        (image[TABLE..TABLE + 40].to_vec(), image[TABLE + 40..TABLE + 80].to_vec());
    put(&mut swapped, TABLE, &second);
    put(&mut swapped, TABLE + 40, &first);
    let skipped = [OPTIONAL + 64..OPTIONAL + 68, OPTIONAL + 144..OPTIONAL + 152];
    let counted: Vec<u8> = (0..swapped.len())
        .filter(|at| skipped.iter().all(|range| !range.contains(at)))
        .map(|at| swapped[at])
        .collect();
    assert_eq!(digest(&swapped), HashAlg::Sha256.hash(&[&counted]));
}

#[test]
fn a_section_ends_at_its_virtual_size_and_goes_on_with_zeros() {
    let mut image = sample().build();
    let loaded = |image: &[u8]| {
        let image = Image::parse(image).expect("an image");
        image.section(".text").expect("one").expect("there").loaded().map(|c| c.to_vec())
    };
    assert_eq!(loaded(&image).expect("bytes"), b"code");
    put(&mut image, TABLE + 8, &0x202_u32.to_le_bytes());
    let mut padded = b"code".to_vec();
    padded.resize(0x202, 0);
    assert_eq!(loaded(&image).expect("bytes"), padded);
    put(&mut image, TABLE + 8, &u32::MAX.to_le_bytes());
    let zeros = 0xffff_ffff - 0x200;
    assert_eq!(loaded(&image), Err(PeError::ZeroFill { name: ".text".into(), zeros }));
}

#[test]
fn malformed_images_say_what_and_where() {
    let image = sample().signed(b"signature").build();
    let end = image.len();
    let number = |value: usize| u32::try_from(value).expect("small").to_le_bytes().to_vec();
    let table: [(usize, Vec<u8>, PeError); 10] = [
        (0, b"ZM".to_vec(), PeError::Magic { what: "the DOS signature", at: 0, found: 0x4d5a }),
        (
            0x40,
            b"NE".to_vec(),
            PeError::Magic { what: "the PE signature", at: 0x40, found: 0x454e },
        ),
        (0x3c, number(end), PeError::Truncated { what: "the PE signature", at: end, len: 4 }),
        (
            OPTIONAL,
            vec![7, 1],
            PeError::Magic {
                what: "the optional header's magic number",
                at: OPTIONAL,
                found: 0x107,
            },
        ),
        (0x46, vec![1, 1], PeError::TooManySections { count: 257 }),
        (OPTIONAL + 60, number(0x100), PeError::Headers { found: 0x100, least: TABLE + 80 }),
        (
            OPTIONAL + 60,
            number(end + 1),
            PeError::Truncated { what: "the headers", at: 0, len: end + 1 },
        ),
        (TABLE + 20, number(end), PeError::Truncated { what: "a section", at: end, len: 0x200 }),
        (TABLE + 16, number(0x600), PeError::Overlap),
        (
            OPTIONAL + 112 + 36,
            number(4),
            PeError::CertificateTable { at: end - b"signature".len(), len: 4 },
        ),
    ];
    for (at, bytes, expected) in table {
        let mut malformed = image.clone();
        put(&mut malformed, at, &bytes);
        assert_eq!(Image::parse(&malformed).expect_err("malformed"), expected);
    }
}

#[test]
fn a_name_that_two_sections_have_is_refused() {
    let image = sample().repeated(".text", b"more").build();
    let image = Image::parse(&image).expect("an image");
    assert_eq!(image.section(".text"), Err(PeError::Repeated { name: ".text".into() }));
    assert_eq!(image.section(".none"), Ok(None));
}

#[test]
fn no_beginning_of_an_image_is_one() {
    let image = sample().signed(b"signature").build();
    for len in 0..image.len() {
        assert!(Image::parse(&image[..len]).is_err(), "{len} bytes");
    }
}

proptest::proptest! {
    #[test]
    fn whatever_the_headers_say_nothing_panics(
        changes in proptest::collection::vec((0_usize..0x200, proptest::prelude::any::<u8>()), 0..12),
        len in 0_usize..0x900,
    ) {
        let mut image = sample().signed(b"signature").build();
        for (at, value) in changes {
            image[at] = value;
        }
        image.truncate(len.max(1));
        if let Ok(image) = Image::parse(&image) {
            let _ = image.authenticode(HashAlg::Sha384);
            for section in image.sections() {
                let _ = section.loaded().map(|content| content.to_vec());
            }
        }
    }
}
