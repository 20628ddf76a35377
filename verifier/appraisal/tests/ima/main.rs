//! The IMA list: replay, judgement, manifests and signatures.
#![allow(unreachable_pub, clippy::panic, reason = "one test binary of several files")]

#[path = "../ek_support/mod.rs"]
mod ek_support;

mod judging;
mod mutation;
mod replaying;
mod signatures;
mod support;
mod vectors;
