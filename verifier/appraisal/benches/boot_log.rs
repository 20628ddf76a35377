//! Reading a firmware log of 45 kB: parse, replay, facts.
//!
//! Budget (docs/PERFORMANCE.md): 0.3 ms with one bank.

use std::hint::black_box;

use appraisal::boot_log::{Later, Replay, explain, read};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use proto::{
    digest::HashAlg,
    eventlog::{EventLog, LogAlg},
};

#[path = "../tests/log_support/mod.rs"]
mod log_support;

use log_support::{Boot, all_pcrs, pcrs, values_of};

fn benches(criterion: &mut Criterion) {
    let bytes = Boot::large().log();
    assert!((40_000..52_000).contains(&bytes.len()), "{} bytes", bytes.len());
    let values = values_of(&bytes, HashAlg::Sha256, 3);
    let required = pcrs(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 14]);
    let mut group = criterion.benchmark_group("boot_log");
    group.throughput(Throughput::Bytes(u64::try_from(bytes.len()).expect("small")));
    group.bench_function("parse", |b| b.iter(|| EventLog::parse(black_box(&bytes))));
    group.bench_function("parse_replay_facts", |b| {
        b.iter(|| {
            let log = EventLog::parse(black_box(&bytes)).expect("well-formed");
            explain(&log, Later::default(), &values, required).expect("explained")
        });
    });
    group.bench_function("parse_replay_facts_two_banks", |b| {
        b.iter(|| {
            let log = EventLog::parse(black_box(&bytes)).expect("well-formed");
            let replay = Replay::of(&log, &[LogAlg::Sha1, LogAlg::Sha256]).expect("a replay");
            read(&log, &replay, LogAlg::Sha256, all_pcrs())
        });
    });
    group.finish();
}

criterion_group!(boot_log, benches);
criterion_main!(boot_log);
