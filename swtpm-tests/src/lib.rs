//! The whole of Assay on software TPMs: harness, end-to-end tests, attack suite, benches.
//!
//! # Harness
//! [`swtpm::Swtpm`] gives each test its own TPM, [`manufacturer::Manufacturer`] certifies its EKs (and
//! forges certificates), [`firmware::Firmware`] boots it and writes the event log, [`proxy::Proxy`]
//! counts commands and injects faults, [`raw::RawTpm`] acts on it from outside. [`machine::Machine`] is
//! a whole computer that boots with such a TPM.
#![warn(missing_docs)]

pub mod attacker;
pub mod case;
pub mod clock;
pub mod cluster;
pub mod documented;
pub mod efi;
pub mod firmware;
pub mod hook_driver;
pub mod impostor;
pub mod job_site;
pub mod machine;
pub mod manufacturer;
mod ports;
pub mod practice;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod road;
pub mod soft_worker;
pub mod swtpm;
pub mod timestamp_server;
