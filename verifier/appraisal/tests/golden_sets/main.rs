//! Golden sets that are compared and merged: words for people, and what real judging says of them.
#![allow(unreachable_pub, clippy::panic, reason = "one test binary of several files")]

#[path = "../log_support/mod.rs"]
mod log_support;
#[path = "../site/mod.rs"]
mod site;

mod change;
mod diff_effect;
mod diff_words;
mod machine;
mod merge;
