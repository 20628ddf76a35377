//! Fuzzing with libFuzzer on the stable compiler: the coverage flags that cargo-fuzz would pass are
//! ordinary code generation options.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use crate::run::{Failure, cargo, execute, output_of, target_directory, workspace_root};

/// SanitizerCoverage as libFuzzer wants it: counters at edges, comparisons traced.
const RUSTFLAGS: &str = "-Cpasses=sancov-module \
     -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
     -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares \
     -Ccodegen-units=1 --cfg fuzzing";

/// Seconds for each target in a smoke run.
const SMOKE_SECONDS: u64 = 10;
/// Seconds for each target where nothing is said.
const DEFAULT_SECONDS: u64 = 60;
/// Largest input: above every limit for single structures, below those for logs, so that both
/// sides of a limit are met.
const MAX_INPUT_BYTES: u64 = 16 * 1024;
/// No decoder may need more than this, whatever lengths its input declares.
const MEMORY_LIMIT_MB: u64 = 512;
/// One input may take this long.
const TIMEOUT_SECONDS: u64 = 5;

/// `fuzz [TARGET] [--seconds N]`.
pub(crate) fn fuzz(arguments: &[String]) -> Result<(), Failure> {
    let mut seconds = DEFAULT_SECONDS;
    let mut wanted = None;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--seconds" {
            seconds = rest
                .next()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| Failure::usage("--seconds wants a whole number"))?;
        } else if argument.starts_with('-') || wanted.is_some() {
            return Err(Failure::usage("fuzz [TARGET] [--seconds N]"));
        } else {
            wanted = Some(argument.clone());
        }
    }
    let all = targets()?;
    let chosen = match wanted {
        Some(name) if all.contains(&name) => vec![name],
        Some(name) => {
            let text = format!("there is no fuzz target `{name}`; there are: {}", all.join(", "));
            return Err(Failure::Usage(text));
        }
        None => {
            println!("targets: {}", all.join(", "));
            all
        }
    };
    run_targets(&chosen, seconds)
}

/// Every target for a short time.
pub(crate) fn smoke() -> Result<(), Failure> {
    run_targets(&targets()?, SMOKE_SECONDS)
}

/// Every target for `seconds`.
pub(crate) fn long(seconds: u64) -> Result<(), Failure> {
    run_targets(&targets()?, seconds)
}

/// Names of the targets: the files of `fuzz_targets`.
fn targets() -> Result<Vec<String>, Failure> {
    let directory = workspace_root()?.join("proto/fuzz/fuzz_targets");
    let entries = fs::read_dir(&directory)
        .map_err(|error| Failure::Missing(format!("{}: {error}", directory.display())))?;
    let mut out: Vec<_> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    out.sort();
    Ok(out)
}

fn run_targets(names: &[String], seconds: u64) -> Result<(), Failure> {
    let binaries = build()?;
    let mut failed = Vec::new();
    for name in names {
        if let Err(failure) = run_one(&binaries, name, seconds) {
            eprintln!("{failure}");
            failed.push(name.clone());
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::Failed(format!("fuzz targets failed: {}", failed.join(", "))))
}

/// Builds all targets and returns the directory of their binaries.
fn build() -> Result<PathBuf, Failure> {
    let host = host_triple()?;
    let directory = target_directory()?.join("fuzz");
    // With --target the flags spare build scripts and procedural macros.
    let mut command = cargo(["build", "--locked", "--bins", "--target", &host]);
    command.args(["--manifest-path", "proto/fuzz/Cargo.toml"]);
    command.env("CARGO_TARGET_DIR", &directory).env("RUSTFLAGS", RUSTFLAGS);
    command.env_remove("CARGO_ENCODED_RUSTFLAGS");
    execute(&mut command)?;
    Ok(directory.join(host).join("debug"))
}

fn host_triple() -> Result<String, Failure> {
    let text = output_of(Command::new("rustc").arg("-vV"))?;
    String::from_utf8_lossy(&text)
        .lines()
        .find_map(|line| line.strip_prefix("host: ").map(str::to_owned))
        .ok_or_else(|| Failure::Missing("rustc does not name its host".into()))
}

fn run_one(binaries: &std::path::Path, name: &str, seconds: u64) -> Result<(), Failure> {
    let target = target_directory()?;
    let corpus = target.join("fuzz-corpus").join(name);
    let artifacts = target.join("fuzz-artifacts").join(name);
    let seeds = workspace_root()?.join("proto/fuzz/seeds").join(name);
    let log_path = target.join("fuzz-artifacts").join(format!("{name}.log"));
    let failed = |error: std::io::Error| Failure::Failed(format!("fuzz target {name}: {error}"));
    fs::create_dir_all(&corpus).map_err(failed)?;
    fs::create_dir_all(&artifacts).map_err(failed)?;
    let log = File::create(&log_path).map_err(failed)?;
    let mut command = Command::new(binaries.join(name));
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={MAX_INPUT_BYTES}"))
        .arg(format!("-rss_limit_mb={MEMORY_LIMIT_MB}"))
        .arg(format!("-timeout={TIMEOUT_SECONDS}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-print_final_stats=1", "-detect_leaks=0"])
        .arg(&corpus);
    if seeds.is_dir() {
        command.arg(&seeds);
    }
    let begin = Instant::now();
    let status =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).status().map_err(failed)?;
    let summary = Summary::read(&log_path).map_err(failed)?;
    if status.success() {
        println!(
            "fuzz {name:<16} {:>10} executions  {:>5} edges  {:>4} s  no finding",
            summary.executions,
            summary.edges,
            begin.elapsed().as_secs()
        );
        return Ok(());
    }
    for line in &summary.tail {
        eprintln!("  {line}");
    }
    Err(Failure::Failed(format!(
        "fuzz target {name} found something ({status}); the input is in {}, the log in {}",
        artifacts.display(),
        log_path.display()
    )))
}

/// What libFuzzer said.
#[derive(Default)]
struct Summary {
    executions: String,
    edges: String,
    tail: VecDeque<String>,
}

impl Summary {
    fn read(path: &std::path::Path) -> std::io::Result<Self> {
        let mut out = Self { executions: "0".into(), edges: "0".into(), ..Self::default() };
        for line in BufReader::new(File::open(path)?).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
                out.executions = count.trim().to_owned();
            }
            let mut words = line.split_whitespace();
            if words.any(|word| word == "cov:")
                && let Some(edges) = words.next()
            {
                out.edges = edges.to_owned();
            }
            if out.tail.len() == 24 {
                out.tail.pop_front();
            }
            out.tail.push_back(line);
        }
        Ok(out)
    }
}
