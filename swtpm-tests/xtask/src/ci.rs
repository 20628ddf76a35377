//! What CI runs, step by step, with the time of each.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    fuzz, generated, interop,
    run::{Failure, cargo, execute, execute_reading, is_installed, output_of},
    setup,
};

/// Tests that ran.
#[derive(Clone, Copy, Default)]
struct Tally {
    passed: u64,
    failed: u64,
}

struct Step {
    name: &'static str,
    run: fn(&mut Tally) -> Result<(), Failure>,
}

/// Cheap ones first; clippy and rustdoc share their dependencies' metadata, so they stand together.
const STEPS: [Step; 10] = [
    Step { name: "setup", run: |_| setup::install_missing().and_then(|()| components()) },
    Step { name: "fmt", run: |_| execute(&mut cargo(["fmt", "--all", "--check"])) },
    Step { name: "clippy", run: |_| clippy() },
    Step { name: "docs", run: |_| docs() },
    Step { name: "deny", run: |_| deny() },
    Step { name: "tests", run: tests },
    Step { name: "demo", run: |_| crate::demo(&[]) },
    Step { name: "interop", run: interop_tests },
    Step { name: "generated", run: |_| generated::check() },
    Step { name: "fuzz", run: |_| fuzz::smoke() },
];

/// Runs all steps, or those named, and goes on after a failure so that one run tells everything.
pub(crate) fn run(names: &[String]) -> Result<(), Failure> {
    for name in names {
        if !STEPS.iter().any(|step| step.name == name) {
            let known: Vec<_> = STEPS.iter().map(|step| step.name).collect();
            let text = format!("there is no step `{name}`; there are: {}", known.join(", "));
            return Err(Failure::Usage(text));
        }
    }
    let is_wanted = |step: &&Step| names.is_empty() || names.iter().any(|name| name == step.name);
    let mut tally = Tally::default();
    let mut results = Vec::new();
    for step in STEPS.iter().filter(is_wanted) {
        eprintln!("\n=== {} ===", step.name);
        let begin = Instant::now();
        let result = (step.run)(&mut tally);
        if let Err(failure) = &result {
            eprintln!("xtask: {failure}");
        }
        let is_fatal = step.name == "setup" && result.is_err();
        results.push((step.name, begin.elapsed(), result));
        if is_fatal {
            break;
        }
    }
    summarise(&results, tally)
}

fn summarise(
    results: &[(&str, Duration, Result<(), Failure>)],
    tally: Tally,
) -> Result<(), Failure> {
    println!("\nstep        result   seconds");
    let mut total = Duration::ZERO;
    let mut broken = Vec::new();
    for (name, time, result) in results {
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        println!("{name:<11} {word:<8} {:>7.1}", time.as_secs_f64());
        total += *time;
        if result.is_err() {
            broken.push(*name);
        }
    }
    println!("{:<20} {:>7.1}", "all", total.as_secs_f64());
    if !broken.is_empty() {
        println!("failed: {}", broken.join(", "));
    }
    // The last line of all output, for whoever reads it by program.
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if broken.is_empty() { Ok(()) } else { Err(Failure::Reported) }
}

/// rustfmt and clippy, which a minimal toolchain lacks.
fn components() -> Result<(), Failure> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        let probe = cargo([subcommand, "--version"]).output();
        if probe.is_ok_and(|output| output.status.success()) {
            continue;
        }
        if !is_installed("rustup") {
            let text = format!("cargo {subcommand} is missing; install the component {component}");
            return Err(Failure::Missing(text));
        }
        execute(Command::new("rustup").args(["component", "add", component]))?;
    }
    Ok(())
}

fn clippy() -> Result<(), Failure> {
    let arguments = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    execute(&mut cargo(arguments))
}

fn docs() -> Result<(), Failure> {
    execute(
        cargo(["doc", "--locked", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"),
    )
}

/// Unit, integration, end-to-end and doc tests, all binaries even after a failure.
fn tests(tally: &mut Tally) -> Result<(), Failure> {
    let mut command = cargo(["test", "--locked", "--workspace", "--no-fail-fast"]);
    execute_reading(&mut command, |line| tally.add(line))
}

/// Attestation results, by verifiers of others.
fn interop_tests(tally: &mut Tally) -> Result<(), Failure> {
    execute_reading(&mut interop::command()?, |line| tally.add(line))
}

/// Dependency policy, where cargo-deny is there. Advisories need the network: only `deep` asks.
fn deny() -> Result<(), Failure> {
    if !is_installed("cargo-deny") {
        println!("skipped: cargo-deny is not installed; tests check the graph's main rules");
        return Ok(());
    }
    // cargo-deny finds .deny.toml by itself.
    execute(&mut cargo(["deny", "--locked", "check", "bans", "licenses", "sources"]))
}

impl Tally {
    /// Counts `test result: ok. 12 passed; 0 failed; …`.
    fn add(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        let counts = rest.split_once(". ").map_or(rest, |(_, counts)| counts);
        for part in counts.split("; ") {
            let mut words = part.split_whitespace();
            let count = words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
            match words.next() {
                Some("passed") => self.passed += count,
                Some("failed") => self.failed += count,
                _ => {}
            }
        }
    }
}

/// Long checks on demand. `--seconds N` sets the fuzzing time of each target (default 600).
pub(crate) fn deep(arguments: &[String]) -> Result<(), Failure> {
    let seconds = match arguments {
        [] => 600,
        [flag, text] if flag == "--seconds" => {
            text.parse().map_err(|_| Failure::usage("--seconds wants a whole number"))?
        }
        _ => return Err(Failure::usage("deep [--seconds N]")),
    };
    setup::install_missing()?;
    let mut results = Vec::new();
    let mut step = |name, run: &dyn Fn() -> Result<(), Failure>| {
        eprintln!("\n=== {name} ===");
        let begin = Instant::now();
        let result = run();
        if let Err(failure) = &result {
            eprintln!("xtask: {failure}");
        }
        results.push((name, begin.elapsed(), result));
    };
    step("msrv", &oldest_compiler);
    step("features", &features);
    step("deny", &|| deny().and_then(|()| advisories()));
    step("release", &|| execute(&mut cargo(["build", "--locked", "--workspace", "--release"])));
    step("fuzz", &|| fuzz::long(seconds));
    summarise(&results, Tally::default())
}

/// Checks the workspace with the compiler that `rust-version` names, where rustup has it.
fn oldest_compiler() -> Result<(), Failure> {
    // Every package inherits the workspace's.
    let version = env!("CARGO_PKG_RUST_VERSION");
    let toolchains = output_of(Command::new("rustup").args(["toolchain", "list"]));
    let is_there = toolchains.is_ok_and(|list| {
        String::from_utf8_lossy(&list).lines().any(|line| line.starts_with(version))
    });
    if !is_there {
        println!("skipped: no toolchain {version}; `rustup toolchain install {version}`");
        return Ok(());
    }
    let mut command = Command::new("cargo");
    command.arg(format!("+{version}")).args(["check", "--locked", "--workspace", "--all-targets"]);
    // The variables of the cargo that runs us would choose its compiler again.
    for name in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    execute(&mut command)
}

/// The packages with optional parts, each part alone.
fn features() -> Result<(), Failure> {
    execute(&mut cargo(["check", "--locked", "-p", "proto"]))?;
    execute(&mut cargo(["check", "--locked", "-p", "proto", "--features", "rpc"]))?;
    execute(&mut cargo(["check", "--locked", "-p", "platform", "--no-default-features"]))?;
    for package in ["appraisal", "jose", "platform", "verifier", "attestor"] {
        execute(cargo(["check", "--locked", "-p"]).arg(package))?;
    }
    Ok(())
}

/// Known vulnerabilities; the database comes from the network, so a failure to fetch is said.
fn advisories() -> Result<(), Failure> {
    if !is_installed("cargo-deny") {
        return Ok(());
    }
    execute(&mut cargo(["deny", "--locked", "check", "advisories"]))
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn tally_adds_up_test_results() {
        let mut tally = Tally::default();
        tally.add("running 3 tests");
        tally.add("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out");
        tally.add("test result: FAILED. 2 passed; 3 failed; 0 ignored; finished in 0.02s");
        assert_eq!((tally.passed, tally.failed), (14, 3));
    }
}
