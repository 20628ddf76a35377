//! Reference values and the policy step: does what was proven match what is expected?
//!
//! ```text
//! text ─parse─▶ GoldenSet (golden_set) ─┐
//!               rules, groups, includes ├─resolve─▶ ReferenceValues (reference) ─▶ judge (decide)
//! text ─parse─▶ parts ──────────────────┘           alternatives of one pool
//! ```
//! For those who write sets: what differs between two ([`diff`]), and one set from the captures of many nodes ([`merge`]).

mod boot;
pub mod decide;
pub mod diff;
pub mod document;
mod golden_set;
#[cfg(feature = "schema")]
pub mod json_schema;
pub mod merge;
mod pattern;
mod reference;
mod rules;
pub mod site;

pub(crate) use boot::is_image_authority;
pub use boot::key_digest;
pub use decide::Judged;
pub use golden_set::{
    GoldenProblem, GoldenSet, MAX_DOCUMENT_BYTES, MAX_GROUPS, MAX_INCLUDES, Manifests,
};
pub use reference::{MAX_ALTERNATIVES, ReferenceValues, Unresolved};
pub use rules::path_key;
