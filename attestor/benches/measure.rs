//! Tool measurement against `openssl dgst -sha256` and `sha256sum` over the same files, page cache
//! warm.
//!
//! Budgets: cold at most 0.6 of openssl's time with two cores, unchanged at most 3 % of cold.
//!
//! The ratios are taken from rounds of their own, in which all sides take turns, so that other work
//! of the machine slows each alike. A ratio of processor time needs no quiet machine at all: half of
//! it is what two free cores give, as far as the work can be split.

#![expect(clippy::unwrap_used, reason = "a bench that cannot set up its files should fail")]

use std::{
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
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
    compare(&files, &mut || drop(black_box(run(&mut Cache::new(), 2))));
}

/// Rounds in which all sides take turns.
const ROUNDS: usize = 15;
/// Clock ticks a second of `/proc/self/stat` on Linux.
const TICKS: f64 = 100.0;

/// What is run, the times that it took, and its processor time so far.
type Side<'w> = (&'w mut dyn FnMut(), Vec<f64>, f64);

/// Cold measurement against the programs, turn by turn: medians of time, sums of processor time.
fn compare(files: &[PathBuf], cold: &mut dyn FnMut()) {
    let program = |name: &'static str, arguments: &'static [&'static str]| {
        let mut command = Command::new(name);
        command.args(arguments).args(files).stdout(Stdio::null()).stderr(Stdio::null());
        move || assert!(command.status().unwrap().success(), "{name}")
    };
    let mut openssl = program("openssl", &["dgst", "-sha256"]);
    let mut sha256sum = program("sha256sum", &[]);
    if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
        return;
    }
    let mut sides: [Side<'_>; 3] =
        [(cold, vec![], 0.0), (&mut openssl, vec![], 0.0), (&mut sha256sum, vec![], 0.0)];
    for _ in 0..ROUNDS {
        for (work, times, cpu) in &mut sides {
            let (start, before) = (Instant::now(), cpu_s());
            work();
            times.push(start.elapsed().as_secs_f64());
            *cpu += cpu_s() - before;
        }
    }
    let [ours, openssl, sha256sum] = sides.map(|(_, mut times, cpu)| {
        times.sort_unstable_by(f64::total_cmp);
        (times[ROUNDS / 2], cpu / ROUNDS as f64)
    });
    for (name, other) in [("openssl dgst -sha256", openssl), ("sha256sum", sha256sum)] {
        println!(
            "cold, 2 threads, against {name}: {:.2} of its time, {:.2} of its processor time",
            ours.0 / other.0,
            ours.1 / other.1
        );
    }
    println!("cold, 2 threads: {:.0} ms, of processor time {:.0} ms", ours.0 * 1e3, ours.1 * 1e3);
}

/// User and system time of this process and of its children that ended, seconds.
fn cpu_s() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(4);
    ticks.map(|field| field.parse::<f64>().unwrap()).sum::<f64>() / TICKS
}

criterion_group!(benches, bench);
criterion_main!(benches);
