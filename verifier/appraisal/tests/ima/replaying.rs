//! From bytes and a quote to an anchored list.

use appraisal::ima::{AggregateForm, IMA_PCR, ImaState, ReplayedImaList, TemplateHashing};
use proto::{
    digest::{Digest, HashAlg, PcrIndex},
    ima::{BankAlg, BankDigest},
    limits::MAX_IMA_LOG_BYTES,
    reason::ReasonCode,
};
use soft_tpm::ima::{ImaKernel, ImaList, ImaValue, hash};

use crate::support::{anchored, boot_pcrs, booted, booted_over, code, continued, quoted, sha256};

const TEMPLATES: [&str; 7] =
    ["ima", "ima-ng", "ima-sig", "ima-ngv2", "ima-sigv2", "ima-modsig", "evm-sig"];

/// A list with an entry of each template, a buffer, a custom template and a violation.
fn everything(kernel: ImaKernel) -> ImaList {
    let mut list = booted(kernel);
    for template in TEMPLATES {
        let algorithm = if template == "ima" { "sha1" } else { "sha256" };
        let digest = hash(algorithm, &[template.as_bytes()]);
        list.file(template, algorithm, &digest, "/usr/bin/a file", b"\x03\x02signature");
    }
    list.buffer("sha512", "kexec-cmdline", b"root=/dev/vda1 quiet");
    list.violation("/var/log/messages");
    let digest = hash("sha384", &[b"custom"]);
    let custom =
        [ImaValue::Name("/opt/x"), ImaValue::U16(0o100_644), ImaValue::Digest("sha384", &digest)];
    list.entry("n-ng|imode|d-ng", &custom);
    list
}

#[test]
fn every_template_byte_order_and_bank_replays() {
    for is_big_endian in [false, true] {
        for recorded in ["sha1", "sha256", "sha384", "sha512"] {
            let kernel = ImaKernel { is_big_endian, recorded, ..ImaKernel::default() };
            let list = everything(kernel);
            let banks = [HashAlg::Sha256, HashAlg::Sha384, HashAlg::Sha512];
            for count in 1..=3 {
                let quoted = quoted(&list, &banks[..count]);
                let anchored = anchored(list.bytes(), &quoted).expect("replays");
                let state = anchored.state();
                assert_eq!((state.entries, state.violations), (11, 1));
                assert_eq!(state.bytes, list.bytes().len() as u64);
                assert_eq!(state.recorded.name(), recorded);
                assert_eq!(state.order.name(), if is_big_endian { "big" } else { "little" });
                assert_eq!(state.boot_aggregate.form, AggregateForm::Pcr0To9);
                assert!(state.banks.iter().all(|b| b.hashing == TemplateHashing::PerBank));
                assert_eq!(anchored.surplus_bytes(), 0);
                assert_eq!(anchored.new_entries().count(), 11);
            }
        }
    }
}

#[test]
fn a_kernel_that_pads_is_recognized() {
    let kernel = ImaKernel { is_padding: true, ..ImaKernel::default() };
    let mut list = booted_over(kernel, "ima-ng", BankAlg::Sha1, 8);
    list.violation("/var/log/messages");
    list.file("ima-ng", "sha256", sha256(b"a").as_bytes(), "/usr/bin/a", &[]);
    let quote = quoted(&list, &[HashAlg::Sha256, HashAlg::Sha512]);
    let state = anchored(list.bytes(), &quote).expect("replays").state().clone();
    assert_eq!(state.boot_aggregate.form, AggregateForm::Pcr0To7);
    assert!(state.banks.iter().all(|bank| bank.hashing == TemplateHashing::PaddedSha1));
    let from = list.bytes().len();
    list.file("ima-ng", "sha256", sha256(b"b").as_bytes(), "/usr/bin/b", &[]);
    let quote = quoted(&list, &[HashAlg::Sha256, HashAlg::Sha512]);
    let state = continued(&state, &list.bytes()[from..], &quote).expect("replays");
    assert_eq!(state.state().entries, 4);
}

/// A kernel without SHA-512 pads that bank alone.
#[test]
fn each_bank_has_a_hashing_of_its_own() {
    let per_bank = everything(ImaKernel::default());
    let padded = everything(ImaKernel { is_padding: true, ..ImaKernel::default() });
    assert_eq!(per_bank.bytes(), padded.bytes());
    let quote =
        [quoted(&per_bank, &[HashAlg::Sha256]), quoted(&padded, &[HashAlg::Sha512])].concat();
    let state = anchored(per_bank.bytes(), &quote).expect("replays").state().clone();
    let hashing: Vec<_> = state.banks.iter().map(|bank| bank.hashing).collect();
    assert_eq!(hashing, [TemplateHashing::PerBank, TemplateHashing::PaddedSha1]);
}

#[test]
fn a_list_that_grew_past_the_quote_counts_up_to_it() {
    let mut list = booted(ImaKernel::default());
    list.file("ima-ng", "sha256", sha256(b"a").as_bytes(), "/usr/bin/a", &[]);
    let quote = quoted(&list, &[HashAlg::Sha256]);
    let at_quote = list.bytes().len();
    list.file("ima-ng", "sha256", sha256(b"evil").as_bytes(), "/usr/bin/evil", &[]);
    for cut in at_quote..=list.bytes().len() {
        let anchored = anchored(&list.bytes()[..cut], &quote).expect("replays");
        assert_eq!(anchored.state().entries, 2);
        assert_eq!(anchored.state().bytes, at_quote as u64);
        assert_eq!(anchored.surplus_bytes(), (cut - at_quote) as u64);
        assert_eq!(anchored.new_entries().count(), 2, "what follows is not read");
    }
    let mut garbage = list.bytes()[..at_quote].to_vec();
    garbage.extend([0xff; 64]);
    assert_eq!(anchored(&garbage, &quote).expect("replays").surplus_bytes(), 64);
}

#[test]
fn renewals_continue_entry_by_entry() {
    let list = everything(ImaKernel { is_big_endian: true, ..ImaKernel::default() });
    let banks = [HashAlg::Sha256, HashAlg::Sha384];
    let whole = anchored(list.bytes(), &quoted(&list, &banks)).expect("replays").state().clone();
    let mut steps: Option<ImaState> = None;
    let mut from = 0;
    for (entry, end) in list.ends().iter().enumerate() {
        let quote = banks.map(|bank| {
            Digest::new(bank, list.pcr_after(bank.name(), entry)).expect("a PCR value")
        });
        let piece = &list.bytes()[from..*end];
        let next = match &steps {
            None => anchored(piece, &quote),
            Some(known) => continued(known, piece, &quote),
        };
        steps = Some(next.expect("replays").state().clone());
        from = *end;
    }
    assert_eq!(steps, Some(whole));
}

#[test]
fn nothing_new_is_accepted_and_remembered_as_it_was() {
    let list = everything(ImaKernel::default());
    let quote = quoted(&list, &[HashAlg::Sha256]);
    let state = anchored(list.bytes(), &quote).expect("replays").state().clone();
    let again = continued(&state, &[], &quote).expect("replays");
    assert_eq!(*again.state(), state);
    assert_eq!(again.new_entries().count(), 0);
    let stored = serde_json::to_string(&state).expect("JSON");
    assert_eq!(serde_json::from_str::<ImaState>(&stored).expect("a state"), state);
    assert!(stored.len() < 600, "{stored}");
}

#[test]
fn a_piece_from_elsewhere_is_refused() {
    let list = booted(ImaKernel::default());
    let quote = quoted(&list, &[HashAlg::Sha256]);
    let state = anchored(list.bytes(), &quote).expect("replays").state().clone();
    let replay = |known: Option<&ImaState>, from, bytes| {
        code(ReplayedImaList::replay(known, from, bytes, IMA_PCR, &quote))
    };
    assert_eq!(replay(None, 1, list.bytes()), ReasonCode::ImaOffsetInvalid);
    assert_eq!(replay(Some(&state), 0, list.bytes()), ReasonCode::ImaOffsetInvalid);
    assert_eq!(replay(Some(&state), state.bytes + 1, &[]), ReasonCode::ImaOffsetInvalid);
}

#[test]
fn what_does_not_replay_is_refused() {
    let mut list = everything(ImaKernel::default());
    let bytes = list.bytes().to_vec();
    let quote = quoted(&list, &[HashAlg::Sha256]);
    let ends = list.ends().to_vec();
    let mismatch = |bytes: &[u8], quote: &[Digest]| {
        assert_eq!(code(anchored(bytes, quote)), ReasonCode::ImaReplayMismatch);
    };
    mismatch(&bytes[..ends[9]], &quote);
    mismatch(&[], &quote);
    mismatch(&[&bytes[..ends[2]], &bytes[ends[3]..]].concat(), &quote);
    let swapped =
        [&bytes[..ends[2]], &bytes[ends[3]..ends[4]], &bytes[ends[2]..ends[3]], &bytes[ends[4]..]];
    mismatch(&swapped.concat(), &quote);
    let twice = [&bytes[..ends[2]], &bytes[ends[1]..]].concat();
    mismatch(&twice, &quote);
    // Each bank by itself is right, at different entries.
    let later = {
        list.violation("/x");
        quoted(&list, &[HashAlg::Sha384])
    };
    mismatch(list.bytes(), &[quote, later].concat());
}

/// A zeroed digest extends ones: neither hides an entry nor makes one of a violation.
#[test]
fn violations_cannot_be_put_in_or_taken_away() {
    let list = everything(ImaKernel::default());
    let quote = quoted(&list, &[HashAlg::Sha256]);
    let ends = list.ends();
    let mut hidden = list.bytes().to_vec();
    hidden[ends[1] + 4..ends[1] + 24].fill(0);
    assert_eq!(code(anchored(&hidden, &quote)), ReasonCode::ImaReplayMismatch);
    let mut shown = list.bytes().to_vec();
    let data = &list.bytes()[ends[8] + 4 + 20 + 4 + 6 + 4..ends[9]];
    shown[ends[8] + 4..ends[8] + 24].copy_from_slice(&hash("sha1", &[data]));
    assert_eq!(code(anchored(&shown, &quote)), ReasonCode::ImaReplayMismatch);
}

#[test]
fn a_digest_of_other_fields_is_refused() {
    let list = everything(ImaKernel::default());
    let quote = quoted(&list, &[HashAlg::Sha256]);
    let mut bytes = list.bytes().to_vec();
    bytes[list.ends()[0] + 4] ^= 1;
    let denial = anchored(&bytes, &quote).expect_err("refused");
    assert_eq!(denial.code(), ReasonCode::ImaTemplateDigestMismatch);
    let finding = denial.findings().next().expect("one").clone();
    assert_eq!(finding.subject, "IMA entry 000001: /usr/bin/a file");
    assert!(finding.expected.starts_with("sha1:") && finding.observed.starts_with("sha1:"));
}

#[test]
fn malformed_entries_are_refused_with_their_code_and_place() {
    let list = booted(ImaKernel::default());
    let digest = sha256(b"a");
    let file = |template: &str, values: &[ImaValue<'_>]| {
        let mut list = list.clone();
        list.entry(template, values);
        list.violation("/x");
        let quote = quoted(&list, &[HashAlg::Sha256]);
        let denial = anchored(list.bytes(), &quote).expect_err("refused");
        let finding = denial.findings().next().expect("one").clone();
        let at = list.ends()[0];
        assert_eq!(finding.subject, format!("IMA entry 000001 at byte {at}"));
        finding.code
    };
    let digest = ImaValue::Digest("sha256", digest.as_bytes());
    let name = ImaValue::Name;
    assert_eq!(file("ima-ng", &[digest, name("/a\0b")]), ReasonCode::ImaNameInvalid);
    assert_eq!(file("ima-ng", &[digest, name("")]), ReasonCode::ImaNameInvalid);
    let long = "a".repeat(4097);
    assert_eq!(file("ima-ng", &[digest, name(&long)]), ReasonCode::ImaNameInvalid);
    assert_eq!(file("ima-ng", &[digest]), ReasonCode::ImaLogMalformed);
    assert_eq!(file("ima-next", &[digest]), ReasonCode::ImaTemplateUnsupported);
    let huge = vec![0; 1024 * 1024];
    let values = [digest, name("/a"), ImaValue::Raw(&huge)];
    assert_eq!(file("ima-buf", &values), ReasonCode::EvidenceLimitExceeded);
}

/// A newline is a byte of a name, and makes no line.
#[test]
fn names_may_have_newlines() {
    let mut list = booted(ImaKernel::default());
    let name = "/tmp/x\n10 0000 ima-ng sha256:00 /usr/bin/true";
    list.file("ima-ng", "sha256", sha256(b"x").as_bytes(), name, &[]);
    let anchored = anchored(list.bytes(), &quoted(&list, &[HashAlg::Sha256])).expect("replays");
    let read = anchored.new_entries().nth(1).and_then(|entry| entry.vouched()?.name.map(Vec::from));
    assert_eq!(read, Some(name.as_bytes().to_vec()));
}

#[test]
fn the_first_entry_must_be_boot_aggregate_of_this_firmware() {
    let quote = |list: &ImaList| quoted(list, &[HashAlg::Sha256]);
    let missing = ReasonCode::ImaBootAggregateMissing;
    // A host without IMA: its PCR is where it was.
    let empty = ImaList::new(ImaKernel::default());
    assert_eq!(code(anchored(empty.bytes(), &quote(&empty))), missing);
    let mut other = ImaList::new(ImaKernel::default());
    other.file("ima-ng", "sha256", sha256(b"a").as_bytes(), "/usr/bin/a", &[]);
    assert_eq!(code(anchored(other.bytes(), &quote(&other))), missing);
    let mut violation = ImaList::new(ImaKernel::default());
    violation.violation("boot_aggregate");
    assert_eq!(code(anchored(violation.bytes(), &quote(&violation))), missing);
    let mismatch = ReasonCode::ImaBootAggregateMismatch;
    let mut wrong = ImaList::new(ImaKernel::default());
    wrong.file("ima-ng", "sha256", &[0; 32], "boot_aggregate", &[]);
    assert_eq!(code(anchored(wrong.bytes(), &quote(&wrong))), mismatch);
    // Right for another firmware.
    let list = booted(ImaKernel::default());
    let mut firmware = boot_pcrs();
    firmware.set(4, BankDigest::zero(BankAlg::Sha256));
    let replayed =
        ReplayedImaList::replay(None, 0, list.bytes(), IMA_PCR, &quote(&list)).expect("replays");
    assert_eq!(code(replayed.anchor(&firmware)), mismatch);
}

#[test]
fn every_template_may_carry_boot_aggregate() {
    for template in TEMPLATES {
        let bank = if template == "ima" { BankAlg::Sha1 } else { BankAlg::Sha512 };
        let list = booted_over(ImaKernel::default(), template, bank, 8);
        let anchored = anchored(list.bytes(), &quoted(&list, &[HashAlg::Sha256])).expect(template);
        assert_eq!(anchored.state().boot_aggregate.form, AggregateForm::Pcr0To7);
    }
}

#[test]
fn the_pcr_must_be_quoted_in_the_known_banks() {
    let list = booted(ImaKernel::default());
    let quote = quoted(&list, &[HashAlg::Sha256]);
    let state = anchored(list.bytes(), &quote).expect("replays").state().clone();
    let wrong = ReasonCode::ImaWrongPcr;
    assert_eq!(code(anchored(list.bytes(), &[])), wrong);
    assert_eq!(code(continued(&state, &[], &[])), wrong);
    assert_eq!(code(continued(&state, &[], &quoted(&list, &[HashAlg::Sha384]))), wrong);
    let both = quoted(&list, &[HashAlg::Sha256, HashAlg::Sha384]);
    assert_eq!(code(continued(&state, &[], &both)), wrong);
    assert_eq!(code(anchored(list.bytes(), &[quote[0], quote[0]])), wrong);
    let other = PcrIndex::new(11).expect("a PCR");
    let replayed = ReplayedImaList::replay(Some(&state), state.bytes, &[], other, &quote);
    assert_eq!(code(replayed), wrong);
}

#[test]
fn entries_of_another_pcr_are_refused() {
    let list = booted(ImaKernel { pcr: 11, ..ImaKernel::default() });
    let quote = quoted(&list, &[HashAlg::Sha256]);
    assert_eq!(code(anchored(list.bytes(), &quote)), ReasonCode::ImaWrongPcr);
    let pcr = PcrIndex::new(11).expect("a PCR");
    let replayed = ReplayedImaList::replay(None, 0, list.bytes(), pcr, &quote).expect("replays");
    assert_eq!(replayed.entries(), 1);
    assert_eq!(replayed.anchor(&boot_pcrs()).expect("anchored").state().pcr, pcr);
}

#[test]
fn one_boots_list_is_bounded() {
    let list = booted(ImaKernel::default());
    let quote = quoted(&list, &[HashAlg::Sha256]);
    let mut state = anchored(list.bytes(), &quote).expect("replays").state().clone();
    state.bytes = MAX_IMA_LOG_BYTES as u64;
    assert!(continued(&state, &[], &quote).is_ok());
    let beyond = code(continued(&state, &[0], &quote));
    assert_eq!(beyond, ReasonCode::EvidenceLimitExceeded);
}
