//! Golden sets, policies and rings of keys on their way into force.
//!
//! ```text
//! text ─read─▶ ReadDocument ─propose─▶ proposed ─sign─▶ signed ─stage─▶ staged ─activate─▶ active ─retire─▶ retired
//!              (read)                            (life)          judged, reported   (dry_run first)
//! ```
//! Who may take a step is the service's to decide; whether a document is approved, signatures alone decide: they are verified
//! when they come, when it is staged or activated, and each time it is read to be put in force.

mod change;
mod dry_run;
mod edit;
mod error;
mod life;
mod read;
mod ring;
pub mod schema;
#[cfg(test)]
mod tests;

pub use self::{
    change::Change,
    dry_run::{DryRun, Judged, NodeChange, Summary, Told, What},
    edit::with_comments_of,
    error::DocumentError,
    life::{Activated, Proposal},
    read::{Content, ReadDocument, kind_of, name_and_version, payload_of},
    ring::Rings,
};
