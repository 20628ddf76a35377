//! Appraisals that read logs: what a boot's log and the kernel's list must prove, and what does not help.
#![allow(unreachable_pub, clippy::panic, reason = "one test binary of several files")]

#[path = "../log_support/mod.rs"]
mod log_support;
#[path = "../site/mod.rs"]
mod site;

mod boot;
mod documents;
mod events;
mod hostile;
mod ima;
mod policy_input;
mod renewal;
mod support;
mod tool_pcr;
