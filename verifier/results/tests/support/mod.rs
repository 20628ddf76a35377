//! A small world: two roots, an issuing CA, a time stamp authority, a verifier and a job.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]

pub(crate) mod chain;
pub(crate) mod pki;
pub(crate) mod tools;

pub(crate) use chain::Chain;
pub(crate) use pki::{Key, Leaf, NOW, TSA_SERIAL, World, at};
