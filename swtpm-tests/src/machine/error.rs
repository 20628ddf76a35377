//! Why a machine did not do what was asked.

use std::time::Duration;

use crate::swtpm::HarnessError;

/// Why a machine could not be built, booted or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// A part of the machine is not installed.
    #[error("{what} is not there (package {package}); `cargo xtask setup` brings it")]
    Missing {
        /// The part.
        what: String,
        /// The package that has it.
        package: &'static str,
    },
    /// The guest did not do it in time.
    #[error("{awaited}: not within {} s; the console's end:\n{console}", deadline.as_secs())]
    Deadline {
        /// What was awaited.
        awaited: String,
        /// For how long.
        deadline: Duration,
        /// The end of the guest's console.
        console: String,
    },
    /// The machine powered off or crashed meanwhile.
    #[error("{awaited}: the machine ended meanwhile; the console's end:\n{console}")]
    Ended {
        /// What was awaited.
        awaited: String,
        /// The end of the guest's console.
        console: String,
    },
    /// A script failed in the guest.
    #[error("in the guest, `{script}` ended with {status}:\n{output}")]
    Script {
        /// The script.
        script: String,
        /// Its exit status.
        status: u8,
        /// What it printed.
        output: String,
    },
    /// The guest's agent said what it never says.
    #[error("the guest's agent answered {0:?}")]
    Agent(String),
    /// A part has another shape than expected.
    #[error("{0}")]
    Shape(String),
    /// The verifier or the attestor's configuration.
    #[error("{0}")]
    Site(#[source] crate::cluster::AnyError),
    /// A program, file, TPM or certificate.
    #[error(transparent)]
    Harness(#[from] HarnessError),
}
