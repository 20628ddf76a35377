//! `attestor`: proves this worker to a verifier and keeps its build-node certificate.
#![warn(clippy::panic, clippy::unwrap_used)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before any thread: libtss2 reads the environment.
    attestor::tpm::quiet::silence_tss_log();
    cli::main()
}
