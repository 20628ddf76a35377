//! Tool measurement against `openssl dgst -sha256` and `sha256sum` over the same files, page cache
//! warm.
//!
//! Budgets: cold at most 0.6 of openssl's time with two cores, unchanged at most 3 % of cold.

#![expect(clippy::unwrap_used, reason = "a bench that cannot set up its files should fail")]

use std::{
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use attestor::measure::{Cache, Options, ToolList, measure};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// About 300 MB like a toolchain: few big programs, many small files.
fn tree(root: &Path) -> (Vec<PathBuf>, u64) {
    let sizes = [(4, 32 << 20), (30, 4 << 20), (300, 150 << 10), (700, 12 << 10)];
    let (mut files, mut total) = (Vec::new(), 0);
    let mut state = 1_u64;
    for (count, size) in sizes {
        for n in 0..count {
            let bytes: Vec<u8> = (0..size / 8)
                .flat_map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state.to_le_bytes()
                })
                .collect();
            let path = root.join(format!("d{}/{size}-{n}", n % 20));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes).unwrap();
            total += bytes.len() as u64;
            files.push(path);
        }
    }
    (files, total)
}

fn bench(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let (files, bytes) = tree(&root);
    let list =
        ToolList::parse(&format!("[[tool]]\nname = \"tree\"\npaths = [\"{}/**\"]", root.display()))
            .unwrap();
    // Let the files settle: the cache does not trust what changed just now.
    std::thread::sleep(Duration::from_millis(2100));

    let mut group = criterion.benchmark_group("measure");
    group.sample_size(10).throughput(Throughput::Bytes(bytes));
    let run = |cache: &mut Cache, threads: usize| {
        let measured = measure(&list, cache, Options { fresh: false, threads }, &|_| {});
        assert_eq!(measured.problems, []);
        measured
    };
    for threads in [1, 2] {
        group.bench_function(format!("cold, {threads} threads"), |bencher| {
            bencher.iter(|| black_box(run(&mut Cache::new(), threads)));
        });
    }
    let mut cache = Cache::new();
    run(&mut cache, 2);
    group.bench_function("unchanged", |bencher| {
        bencher.iter(|| black_box(run(&mut cache, 2)));
    });
    for (name, program, arguments) in [
        ("openssl dgst -sha256", "openssl", &["dgst", "-sha256"][..]),
        ("sha256sum", "sha256sum", &[]),
    ] {
        let run =
            || Command::new(program).args(arguments).args(&files).stdout(Stdio::null()).status();
        if run().is_ok_and(|status| status.success()) {
            group.bench_function(name, |bencher| {
                bencher.iter(|| assert!(run().unwrap().success()));
            });
        } else {
            println!("skipped: {program} is not there");
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
