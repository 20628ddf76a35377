//! Cut and changed lists: an answer or a typed refusal, and never other content for the same quote.

use appraisal::ima::{AnchoredImaList, ImaState};
use proto::{
    digest::{Digest, HashAlg},
    ima::{Fields, ImaEntry},
};
use soft_tpm::ima::{ImaKernel, ImaList, ImaValue, hash};

use crate::support::{anchored, booted, booted_over, continued, quoted, sha256};

/// What a list says that a policy may go by.
#[derive(Debug, PartialEq)]
struct Content<'e> {
    entries: Vec<Option<(Vec<u8>, Fields<'e>)>>,
    state: ImaState,
}

fn content<'e>(list: &AnchoredImaList<'e>) -> Content<'e> {
    let vouched = |entry: ImaEntry<'e>| Some((entry.data.to_vec(), *entry.vouched()?));
    Content { entries: list.new_entries().map(vouched).collect(), state: list.state().clone() }
}

fn lists() -> Vec<ImaList> {
    let mut out = Vec::new();
    for (is_big_endian, recorded) in [(false, "sha1"), (true, "sha1"), (false, "sha256")] {
        let kernel = ImaKernel { is_big_endian, recorded, ..ImaKernel::default() };
        let mut list = booted(kernel);
        list.file("ima-sig", "sha256", sha256(b"a").as_bytes(), "/usr/bin/a", b"\x03\x02\x04");
        list.violation("/var/log/x");
        list.file("ima-ngv2", "sha256", sha256(b"b").as_bytes(), "/b", &[]);
        list.buffer("sha256", ".ima", b"key");
        let custom = [ImaValue::Name("/c"), ImaValue::U32(7), ImaValue::Digest("md5", &[1; 16])];
        list.entry("n-ng|iuid|d-ng", &custom);
        out.push(list);
    }
    let bank = proto::ima::BankAlg::Sha1;
    let mut list = booted_over(ImaKernel::default(), "ima", bank, 8);
    list.file("ima", "sha1", &hash("sha1", &[b"a"]), "/usr/bin/a", &[]);
    out.push(list);
    out
}

/// Every prefix but those that hold the quoted entries whole is refused.
#[test]
fn cut_at_every_byte() {
    for list in lists() {
        let quote = quoted(&list, &[HashAlg::Sha256, HashAlg::Sha512]);
        let whole = list.bytes();
        for cut in 0..whole.len() {
            let refused = anchored(&whole[..cut], &quote);
            assert!(refused.is_err(), "cut at {cut} of {}", whole.len());
        }
        assert!(anchored(whole, &quote).is_ok());
        // Cut at the front, or in two pieces at every byte.
        for cut in 1..whole.len() {
            assert!(anchored(&whole[cut..], &quote).is_err(), "from {cut}");
        }
        for (entry, end) in list.ends().iter().enumerate() {
            let at = [HashAlg::Sha256, HashAlg::Sha512].map(|bank| {
                Digest::new(bank, list.pcr_after(bank.name(), entry)).expect("a PCR value")
            });
            let state = anchored(whole, &at).expect("grown past the quote").state().clone();
            assert_eq!(state.bytes, *end as u64);
            assert!(continued(&state, &whole[*end..], &quote).is_ok());
        }
    }
}

/// One bit changed, at every byte and each bit of it: the content accepted is the very same, or none is.
#[test]
fn one_bit_changed_at_every_byte() {
    let mut accepted = 0_usize;
    let mut refused = 0_usize;
    for list in lists() {
        let quote = quoted(&list, &[HashAlg::Sha256]);
        let good = anchored(list.bytes(), &quote).expect("replays");
        let good = content(&good);
        let mut bytes = list.bytes().to_vec();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                match anchored(&bytes, &quote) {
                    Ok(list) => {
                        accepted += 1;
                        assert_eq!(content(&list), good, "bit {bit} of byte {at}");
                    }
                    Err(denial) => {
                        refused += 1;
                        assert!(denial.findings().count() == 1, "an integrity refusal");
                    }
                }
                bytes[at] ^= 1 << bit;
            }
        }
    }
    // A violation's fields are under no digest, so some changes are not content at all.
    assert!(accepted > 0 && refused > 10 * accepted, "{accepted} accepted, {refused} refused");
}

/// Names of templates are under no digest: another one for the same fields changes no content, or is
/// refused, or takes away what is judged by; it never gives an entry another digest or name.
#[test]
fn another_template_name_gives_no_other_digest_or_name() {
    let mut list = booted(ImaKernel::default());
    let digest = sha256(b"a");
    list.file("ima-modsig", "sha256", digest.as_bytes(), "/usr/bin/a", b"\x03\x02");
    let quote = quoted(&list, &[HashAlg::Sha256]);
    let start = list.ends()[0];
    let kinds = ["d", "n", "d-ng", "n-ng", "sig", "buf", "d-modsig", "modsig", "d-ngv2", "evmsig"];
    let name_at = start + 4 + 20;
    let data_at = name_at + 4 + "ima-modsig".len();
    let mut tried = 0;
    let mut renamed = |fields: &[&str]| {
        let name = fields.join("|");
        let length = u32::try_from(name.len()).expect("short").to_le_bytes();
        let whole = list.bytes();
        let bytes = [&whole[..name_at], &length, name.as_bytes(), &whole[data_at..]].concat();
        let Ok(list) = anchored(&bytes, &quote) else { return };
        tried += 1;
        let fields = list.new_entries().nth(1).and_then(|e| e.vouched().copied()).expect("fields");
        assert!(fields.name.is_none_or(|name| name == b"/usr/bin/a"), "{name}");
        assert!(fields.digest.is_none_or(|read| read.bytes == digest.as_bytes()), "{name}");
    };
    for a in kinds {
        for b in kinds {
            for c in kinds {
                for d in kinds {
                    renamed(&[a, b, c, d, "modsig"]);
                }
            }
        }
    }
    assert!(tried > 1, "ima-modsig's own fields at least");
}
