//! The `verifier` program; everything is in [`verifier::cli`].
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    verifier::cli::main()
}
