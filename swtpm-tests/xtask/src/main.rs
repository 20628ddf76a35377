//! `cargo xtask`: set-up, tests, demo and CI, one command each, the same on a laptop and in CI.
//!
//! Standard library only, so that it builds in seconds on a machine where nothing else is there yet.

mod ci;
mod fuzz;
mod generated;
mod interop;
mod kernel;
mod package;
mod run;
mod setup;
mod systemd;

use std::{
    env,
    process::{Command, ExitCode},
};

use run::{Failure, cargo, execute, target_directory};

const HELP: &str = "\
Usage: cargo xtask COMMAND [ARGUMENTS]

Start here
  demo            install what is missing, then show the main path on software TPMs: enrolment,
                  a certificate, a CI job and its signed artifact, and four attacks that fail
  demo --write-examples
                  the same, and write what README.md and docs/RESULTS.md show of it
  demo --practice a shell with a verifier and three workers, to follow docs/GOLDEN-SETS.md
  test [ARGS]     install what is missing, then run every test; ARGS go to the test
                  runner, e.g. `cargo xtask test -p proto` or `cargo xtask test renewal`

  machine [--secure-boot] [--cmdline WORDS]
                  install what is missing, then boot a virtual machine with firmware, TPM, IMA
                  and the attestor, and give its console; `poweroff -f` or Ctrl-A X leaves

While working
  setup [--check] install missing Debian or Ubuntu packages; --check only says which
  ci [STEP...]    everything CI runs, in CI's order, with the time of each step;
                  with names, only those steps (`cargo xtask ci fmt clippy`)
  e2e [ARGS]      only the end-to-end tests on software TPMs
  interop         verify results, tokens and documents with programs of others (Python, npm,
                  crates), and fetch identities with their clients; all in target/interop
  bench [ARGS]    benchmarks in release mode; budgets stand in docs/PERFORMANCE.md
  vectors [--check | --machine]
                  write generated files again (reason codes, ...); --check compares;
                  --machine boots the machine and writes the logs in swtpm-tests/vectors
  fuzz [TARGET] [--seconds N]
                  fuzz one target, or each in turn; 60 seconds unless told;
                  without a name it lists what there is first
  fuzz-smoke      every target for ten seconds, as CI does
  fuzz-seeds      write the committed fuzz seeds again from real TPM structures
  deep            what CI has no time for: oldest supported compiler, each feature
                  alone, dependency policy, long fuzzing
  help            this text

Exit codes: 0 done; 1 a step failed; 2 wrong usage; 3 something is missing that this
command cannot install here. Builds go to target/ (or CARGO_TARGET_DIR), fuzzing to
target/fuzz, its corpus to target/fuzz-corpus, and crashes to target/fuzz-artifacts.
";

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let command = arguments.next().unwrap_or_else(|| "help".into());
    let rest: Vec<String> = arguments.collect();
    match dispatch(&command, &rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::Reported) {
                eprintln!("xtask: {failure}");
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

fn dispatch(command: &str, rest: &[String]) -> Result<(), Failure> {
    match command {
        "setup" => match rest {
            [] => setup::install_missing(),
            [flag] if flag == "--check" => setup::check(),
            _ => Err(Failure::usage("setup takes nothing or --check")),
        },
        "test" => test(rest),
        "e2e" => {
            setup::install_missing()?;
            execute(cargo(["test", "--locked", "-p", "swtpm-tests", "--tests"]).args(rest))
        }
        "demo" => demo(rest),
        "machine" => machine(rest),
        "ci" => ci::run(rest),
        "bench" => {
            setup::install_missing()?;
            execute(cargo(["bench", "--locked", "--workspace"]).args(rest))
        }
        "vectors" => match rest {
            [] => generated::write(),
            [flag] if flag == "--check" => generated::check(),
            [flag] if flag == "--machine" => machine(&["vectors".to_owned()]),
            _ => Err(Failure::usage("vectors takes nothing, --check or --machine")),
        },
        "interop" => match rest {
            [] => interop::run(),
            _ => Err(Failure::usage("interop takes nothing")),
        },
        "fuzz" => fuzz::fuzz(rest),
        "fuzz-smoke" => fuzz::smoke(),
        "fuzz-seeds" => {
            setup::install_missing()?;
            execute(&mut cargo(["run", "-p", "swtpm-tests", "--example", "fuzz_seeds"]))?;
            execute(&mut cargo(["run", "-p", "results", "--example", "results_fuzz_seeds"]))
        }
        "deep" => ci::deep(rest),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => Err(Failure::usage(&format!("there is no `{other}`; try `cargo xtask help`"))),
    }
}

fn test(rest: &[String]) -> Result<(), Failure> {
    setup::install_missing()?;
    if !run::is_installed("cargo-nextest") {
        return execute(cargo(["test", "--locked", "--workspace"]).args(rest));
    }
    execute(cargo(["nextest", "run", "--locked", "--workspace"]).args(rest))?;
    if rest.is_empty() {
        // nextest does not run doctests.
        execute(&mut cargo(["test", "--locked", "--workspace", "--doc"]))?;
    }
    Ok(())
}

/// Not under cargo: a shell in it is alone on the terminal.
fn demo(rest: &[String]) -> Result<(), Failure> {
    setup::install_missing()?;
    let is_release = rest.iter().any(|argument| argument == "--release");
    let profile: &[&str] = if is_release { &["--release"] } else { &[] };
    let packages = ["-p", "verifier", "-p", "attestor", "-p", "swtpm-tests", "--bins"];
    execute(cargo(["build", "--locked"]).args(packages).args(profile))?;
    let folder = target_directory()?.join(if is_release { "release" } else { "debug" });
    let is_practice = rest.iter().any(|argument| argument == "--practice");
    let program = if is_practice { "practice" } else { "demo" };
    let is_ours = |argument: &&String| ["--release", "--practice"].contains(&argument.as_str());
    let arguments = rest.iter().filter(|argument| !is_ours(argument));
    execute(Command::new(folder.join(program)).args(arguments))
}

/// Not under cargo: the program's own folder tells it where its parts are, and the console is its alone.
fn machine(rest: &[String]) -> Result<(), Failure> {
    setup::install_missing()?;
    let packages = ["-p", "verifier", "-p", "attestor", "-p", "swtpm-tests", "--bins"];
    execute(cargo(["build", "--locked"]).args(packages))?;
    execute(Command::new(target_directory()?.join("debug/machine")).args(rest))
}
