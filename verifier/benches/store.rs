//! Durable decision records a second, and lookups of a known boot.
//!
//! A record is what a renewal writes: the decision with a verdict and a case of 2 KiB each, its
//! audit entry, and the boot by compare-and-swap. It counts when the store says that it is durable.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use proto::digest::{Digest, HashAlg};
use tokio::runtime::Runtime;
use verifier::store::{
    Appraisal, Boot, By, Counters, NewDecision, NewNode, NodeStatus, Outcome, PutBoot, Store,
    StoreOptions,
};

const NOW: i64 = 1_800_000_000;
/// Streams that renew at once.
const STREAMS: u64 = 256;
const NODES: u64 = 256;

fn digest(text: &str) -> Digest {
    HashAlg::Sha256.hash(&[text.as_bytes()])
}

fn ak_name(node: u64) -> Vec<u8> {
    [&[0, 11], digest(&node.to_string()).as_bytes()].concat()
}

fn boot(node: u64) -> Boot {
    Boot {
        ak_name: ak_name(node),
        node: format!("n{node}"),
        counters: Counters { reset_count: 1, restart_count: 0 },
        record: vec![b' '; 1024],
        created_at: NOW,
        updated_at: NOW,
    }
}

fn decision(id: String, node: u64) -> NewDecision {
    NewDecision {
        id,
        at: NOW,
        node: Some(format!("n{node}")),
        ek_digest: Some(digest(&node.to_string())),
        purpose: "node".into(),
        outcome: Outcome::Admitted,
        codes: vec![],
        verdict: vec![b'v'; 2048],
        case: vec![b'c'; 2048],
        objects: vec![],
        policy_version: "linux/1".into(),
    }
}

async fn store(folder: &tempfile::TempDir, cache_bytes: usize) -> Store {
    let options = StoreOptions::new(folder.path().join("state")).cache_bytes(cache_bytes);
    let store = Store::open(options, NOW).await.expect("open");
    for node in 0..NODES {
        let new = NewNode {
            name: format!("n{node}"),
            ek_digest: digest(&node.to_string()),
            pool: "linux".into(),
            status: NodeStatus::Active,
            ek_certificate: Some(vec![0; 1200]),
            ek_chain: vec![vec![0; 1200]],
            manufacturer: Some("IFX".into()),
            admitted_by: None,
            note: String::new(),
        };
        store.add_node(new, By::new("admin/eve", NOW)).await.expect("node");
        store.put_boot(boot(node), None).await.expect("boot");
    }
    store
}

/// Writes `count` records from [`STREAMS`] tasks.
async fn write(store: &Store, count: u64, round: u64, with_boot: bool) -> Duration {
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for stream in 0..STREAMS {
        let store = store.clone();
        tasks.spawn(async move {
            let mut version = match store.boot(&ak_name(stream)).await.expect("read") {
                Some(known) => known.version,
                None => 0,
            };
            for number in 0..count.div_ceil(STREAMS) {
                let decision = decision(format!("{round:08}-{number:06}-{stream:04}"), stream);
                let put = PutBoot { boot: boot(stream), expected_version: Some(version) };
                let boot = with_boot.then_some(put);
                let appraisal = Appraisal { boot, ..Appraisal::of(decision) };
                let recorded = store.record(appraisal).await.expect("record");
                version = recorded.boot_version.unwrap_or(version);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("task");
    }
    // So many were asked for; up to STREAMS - 1 more were written.
    start.elapsed().mul_f64(count as f64 / (count.div_ceil(STREAMS) * STREAMS) as f64)
}

fn benches(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("runtime");
    let folder = tempfile::tempdir().expect("temporary folder");
    let warm = runtime.block_on(store(&folder, 64 << 20));
    let mut round = 0;
    let mut group = criterion.benchmark_group("store");
    group.throughput(Throughput::Elements(1)).sample_size(10);
    group.measurement_time(Duration::from_secs(10));
    for (name, with_boot) in [("record_decision", false), ("record_decision_and_boot", true)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                round += 1;
                runtime.block_on(write(&warm, count, round, with_boot))
            });
        });
    }
    group.bench_function("boot_from_memory", |bencher| {
        bencher.iter(|| runtime.block_on(warm.boot(black_box(&ak_name(7)))).expect("read"));
    });
    let folder = tempfile::tempdir().expect("temporary folder");
    let cold = runtime.block_on(store(&folder, 0));
    group.bench_function("boot_from_database", |bencher| {
        bencher.iter(|| runtime.block_on(cold.boot(black_box(&ak_name(7)))).expect("read"));
    });
    group.finish();
    runtime.block_on(warm.close()).expect("close");
    runtime.block_on(cold.close()).expect("close");
}

criterion_group!(store_benches, benches);
criterion_main!(store_benches);
