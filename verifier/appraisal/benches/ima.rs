//! Replaying and judging an IMA list against a manifest of 100 000 files, beside the hashing that it cannot do without.
//!
//! Budgets: 2 000 000 entries a second on a thread; a renewal with nothing new in half a millisecond, whatever the
//! manifest's size.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use appraisal::ima::{
    BootPcrs, IMA_PCR, ImaPolicy, ImaRules, ImaState, Manifest, ManifestBuilder, ReplayedImaList,
    judge,
};
use criterion::{Criterion, criterion_group, criterion_main};
use proto::{
    digest::{Digest, HashAlg},
    ima::{BankAlg, ImaListReader, ListFormat},
};
use soft_tpm::ima::{ImaKernel, ImaList, hash};

const FILES: u32 = 100_000;
/// Entries of the list: few enough for a round between two switches of a busy machine.
const ENTRIES: u32 = 5_000;
const ROUNDS: u32 = 300;

fn path(number: u32) -> String {
    format!("/usr/lib/x86_64-linux-gnu/package-{}/library-{number}.so.1", number % 1000)
}

fn digest(number: u32) -> Digest {
    HashAlg::Sha256.hash(&[&number.to_be_bytes()])
}

fn manifest(files: u32) -> Arc<Manifest> {
    let mut builder = ManifestBuilder::new();
    for number in 0..files {
        builder.file(&digest(number), path(number).as_bytes());
    }
    let text = builder.to_text("bench", 0);
    let started = Instant::now();
    let manifest = Manifest::parse(text.as_bytes()).expect("a manifest");
    println!(
        "manifest of {files} files: {} kB of text compiled in {:.0?}, {} kB in memory",
        text.len() / 1000,
        started.elapsed(),
        manifest.memory_bytes() / 1000
    );
    Arc::new(manifest)
}

fn boot_pcrs() -> BootPcrs {
    let values: Vec<_> = (0..10).map(|index| (index, BankAlg::Sha256.hash(&[&[index]]))).collect();
    values.into_iter().collect()
}

fn list() -> ImaList {
    let values: Vec<Vec<u8>> = (0_u8..10).map(|index| hash("sha256", &[&[index]])).collect();
    let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
    let mut list = ImaList::booted(ImaKernel::default(), "ima-ng", "sha256", &values);
    for number in 1..ENTRIES {
        // Spread over the manifest, as a machine's files are.
        let number = number.wrapping_mul(48_271) % FILES;
        list.file("ima-ng", "sha256", digest(number).as_bytes(), &path(number), &[]);
    }
    list
}

/// The least time of several rounds: a neighbour only ever adds.
fn least(mut work: impl FnMut()) -> Duration {
    (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            work();
            started.elapsed()
        })
        .min()
        .unwrap_or_default()
}

fn rate(name: &str, time: Duration) {
    let rate = f64::from(ENTRIES) / time.as_secs_f64();
    println!("{name}: {:.2} M entries/s, {:.0} ns an entry", rate / 1e6, 1e9 / rate);
}

fn bench(criterion: &mut Criterion) {
    let policy = |files| {
        ImaPolicy::new(&ImaRules::default(), Some(manifest(files)), None).expect("a policy")
    };
    let hundred = policy(FILES);
    let list = list();
    let quote = [Digest::new(HashAlg::Sha256, list.pcr("sha256")).expect("a value")];
    let boot = boot_pcrs();
    let whole = || {
        let replayed =
            ReplayedImaList::replay(None, 0, list.bytes(), IMA_PCR, &quote).expect("replays");
        let judgement = judge(&replayed.anchor(&boot).expect("anchored"), &hundred);
        assert!(judgement.findings.is_empty());
        judgement.state
    };
    let state = whole();
    let suffix_of = |state: &ImaState, bytes: &[u8]| {
        let replayed = ReplayedImaList::replay(Some(state), state.bytes, bytes, IMA_PCR, &quote)
            .expect("replays");
        judge(&replayed.anchor(&BootPcrs::new()).expect("anchored"), &hundred)
    };

    // Two hashes an entry in the bank (fields, extending) and one with SHA-1 (the list's own digest).
    let format = ListFormat::detect(list.bytes()).expect("a list");
    let data: Vec<&[u8]> = ImaListReader::new(list.bytes(), format)
        .map(|entry| entry.expect("well-formed").data)
        .collect();
    rate(
        "parsing alone",
        least(|| {
            black_box(ImaListReader::new(list.bytes(), format).filter(Result::is_ok).count());
        }),
    );
    rate(
        "hash library alone",
        least(|| {
            let mut pcr = BankAlg::Sha256.hash(&[]);
            for data in &data {
                let recorded = BankAlg::Sha1.hash(&[data]);
                let digest = BankAlg::Sha256.hash(&[data]);
                pcr = pcr.extended(&digest);
                black_box(recorded);
            }
            black_box(pcr);
        }),
    );
    rate(
        "first replay and judgement, hashing not known",
        least(|| {
            black_box(whole());
        }),
    );
    // The second entry on, with the way of hashing known.
    let mut known = state.clone();
    let first = list.ends()[0];
    known.entries = 1;
    known.bytes = first as u64;
    known.banks[0].value =
        Digest::new(HashAlg::Sha256, list.pcr_after("sha256", 0)).expect("a value");
    rate(
        "replay and judgement, hashing known",
        least(|| {
            black_box(suffix_of(&known, &list.bytes()[first..]));
        }),
    );
    let replayed = ReplayedImaList::replay(None, 0, list.bytes(), IMA_PCR, &quote)
        .expect("replays")
        .anchor(&boot)
        .expect("anchored");
    rate(
        "judgement alone",
        least(|| {
            black_box(judge(&replayed, &hundred));
        }),
    );

    let mut group = criterion.benchmark_group("ima");
    group.bench_function("whole list", |bencher| bencher.iter(|| black_box(whole())));
    group.bench_function("renewal, nothing new", |bencher| {
        bencher.iter(|| black_box(suffix_of(&state, &[])));
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
