//! What the machine booted: firmware's log and systemd's, replayed to the quoted PCRs, and what they prove.
//!
//! ```text
//! bytes ─▶ EventLog ─▶ Replay ─▶ ExplainedBootLog ─▶ BootFacts, Problems, Quirks
//!          (proto)     values    equal to the quoted   only from bytes that a digest vouches for
//! ```
//!
//! # What vouches for what
//! A replay that reaches a quoted value proves, for each PCR of its own, which digests were extended and in which
//! order. It proves nothing about the order of events in different PCRs, nothing about an event's type, and about its
//! data only what [`Vouch`] names. A fact therefore never depends on a type: separators and actions are known by their
//! digests, variables by their content with vendor and name, sections of a kernel image by their neighbours. What
//! depends on types, on the order between PCRs or on data that no digest covers stands in [`Hints`] or in a field that
//! begins with `untrusted_`; changing it never changes a fact, it can at most take one away.
//!
//! # Refusals and facts
//! Integrity refusals, each with a reason code: a log that does not decode, an impossible start of the TPM, a required
//! PCR that the log does not replay to or does not mention, an event without a digest of the quoted bank, and a
//! required firmware PCR whose separator is missing, repeated or error-valued. Everything else that is odd is a
//! [`Problem`]: a fact for policy.
//!
//! # Source
//! TCG PC Client Platform Firmware Profile; docs/EVIDENCE.md.

mod constants;
mod explain;
mod facts;
mod hints;
mod loader;
mod problem;
mod proven;
pub mod quirks;
mod reader;
mod replay;
mod secure_boot;
mod systemd;
mod vouch;
mod words;

pub(crate) use constants::{Constant, Constants};
pub use explain::{AttestedBootLog, ExplainedBootLog, Later, explain};
pub use facts::{
    Application, Authority, BootFacts, BootVariable, CommandLine, Driver, ExitBootServices,
    FirmwareInfo, KeyDatabase, KeyEntry, KeyKind, KeySubject, PartitionFact, PartitionTable,
    Section, Separator, SeparatorValue, Source, Untold, UserspaceMeasurement,
};
pub use hints::{CommandLineHint, FileHint, Hints, TextHint};
pub use problem::{Problem, ProblemClass, ProblemCode};
pub use proven::{BootLogReading, ProvenBootLog, ProvenEvent, quoted_boot_pcrs};
pub use reader::{EventVouch, Reading, read};
pub use replay::{EventSource, Replay, ReplayError, ReplayedEvent};
pub use systemd::{PHASES, userspace_measurements};
pub use vouch::{Vouch, Vouched};
pub use words::describe;
