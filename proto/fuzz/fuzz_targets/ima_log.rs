//! IMA lists: what is read is framed by the very bytes, replaying piecewise is the same as replaying at
//! once, and what replays to a quote is judged.
#![no_main]

use std::sync::LazyLock;

use appraisal::ima::{
    BootPcrs, IMA_PCR, ImaPolicy, ImaRules, ListReplay, Manifest, ManifestBuilder, ReplayedImaList,
    TemplateHashing, judge,
};
use libfuzzer_sys::fuzz_target;
use proto::{
    digest::{Digest, HashAlg},
    ima::{BankAlg, FileSignature, ImaListReader, ListEnd, ListFormat},
};

/// A policy with every kind of rule.
static POLICY: LazyLock<ImaPolicy> = LazyLock::new(|| {
    let mut builder = ManifestBuilder::new();
    builder.file(&HashAlg::Sha256.hash(&[b"/usr/bin/a"]), b"/usr/bin/a");
    let manifest = Manifest::parse(builder.to_text("fuzz", 0).as_bytes()).expect("a manifest");
    let rules = ImaRules {
        bind_paths: true,
        exclude: vec!["/var/**/*.log".to_owned()],
        deny: vec![HashAlg::Sha256.hash(&[b"/usr/bin/evil"])],
        ..ImaRules::default()
    };
    ImaPolicy::new(&rules, Some(manifest.into()), None).expect("a policy")
});

fuzz_target!(|data: &[u8]| {
    let Some(format) = ListFormat::detect(data) else { return };
    let mut reader = ImaListReader::new(data, format);
    let mut replay = ListReplay::new(IMA_PCR, &[BankAlg::Sha256]);
    let mut quotes = Vec::new();
    let mut read = 0_u64;
    while let Some(Ok(entry)) = reader.next() {
        read += 1;
        assert!(data[..reader.offset()].len() > entry.data.len(), "data lies within what was read");
        if let Some(signature) = entry.untrusted_fields().signature {
            let _ = FileSignature::parse(signature);
        }
        if replay.push(&entry).is_err() {
            return;
        }
        let value = replay.value(BankAlg::Sha256, TemplateHashing::PerBank).expect("replayed");
        quotes.push((
            Digest::new(HashAlg::Sha256, value.as_bytes()).expect("32 bytes"),
            reader.offset(),
        ));
    }
    assert_eq!(reader.entries(), read);
    assert!(matches!(reader.end(), ListEnd::Complete | ListEnd::Partial { .. }));

    // A quote after any entry: that prefix and no other, however the list goes on.
    let Some((last, _)) = quotes.last() else { return };
    for (quote, end) in quotes.iter().rev().take(4) {
        let list = ReplayedImaList::replay(None, 0, data, IMA_PCR, &[*quote]).expect("replays");
        assert_eq!(list.banks().first().map(|bank| bank.value), Some(*quote));
        // These PCRs are of no firmware: only what anchors by chance, which is nothing, goes on.
        if let Ok(anchored) = list.anchor(&firmware()) {
            assert_eq!(anchored.state().bytes, *end as u64);
            let state = judge(&anchored, &POLICY).state;
            let rest = &data[*end..];
            let next = ReplayedImaList::replay(Some(&state), state.bytes, rest, IMA_PCR, &[*last]);
            let next = next.expect("the rest of what replayed").anchor(&BootPcrs::new());
            let next = judge(&next.expect("anchored before"), &POLICY);
            let whole = ReplayedImaList::replay(None, 0, data, IMA_PCR, &[*last]).expect("replays");
            let whole = judge(&whole.anchor(&firmware()).expect("anchored"), &POLICY);
            assert_eq!(next.state, whole.state);
            assert_eq!(next.findings, whole.findings);
        }
    }
});

/// The firmware of the seeds.
fn firmware() -> BootPcrs {
    BankAlg::ALL
        .into_iter()
        .flat_map(|bank| (0..10).map(move |index| (index, bank.hash(&[b"firmware", &[index]]))))
        .collect()
}
