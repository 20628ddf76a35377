//! The kernel's IMA list: replayed to the quoted PCR, tied to the firmware, judged entry by entry.
//!
//! ```text
//! suffix, ImaState, quoted PCR 10 ─replay─▶ ReplayedImaList ─anchor─▶ AnchoredImaList ─judge─▶ Judgement
//!                                            in every bank             boot_aggregate           findings,
//!                                                                      over the firmware's PCRs next ImaState
//! ```
//!
//! - [`replay`]: one pass; the list may have grown past the quote, so the prefix that replays exactly
//!   is found, and what follows is neither believed nor remembered.
//! - [`boot_aggregate`]: the first entry ties the list to what firmware measured in this boot.
//! - [`judge()`]: every entry counts, not the last of a path; by [`manifest`], by [`keyring`], by anchored
//!   [`exclusion`]s. The rules of a site are an [`policy::ImaPolicy`], compiled once and shared.
//! - [`state`]: what a renewal continues from, findings included: a file that was refused stays refused
//!   for the boot.
//!
//! # What a list proves
//! That the kernel measured these files before they were used, as far as its IMA policy reached, and as
//! far as the kernel itself is the one that firmware's PCRs speak of.

pub mod boot_aggregate;
pub mod exclusion;
pub mod judge;
pub mod keyring;
pub mod manifest;
pub mod policy;
pub mod replay;
pub mod state;

pub use self::{
    boot_aggregate::{AggregateForm, BootAggregate, BootPcrs},
    exclusion::Exclusion,
    judge::{ImaEvidence, Judgement, Judgements, judge, judge_by_all},
    keyring::{Keyring, SignatureCheck},
    manifest::{Manifest, ManifestBuilder},
    policy::{ImaPolicy, ImaRules, Require},
    replay::{AnchoredImaList, ListReplay, ReplayedImaList},
    state::{ImaBank, ImaCounts, ImaJudged, ImaState, TemplateHashing},
};

use proto::digest::PcrIndex;

/// PCR that the kernel extends unless it was built or told otherwise.
///
/// # Source
/// Linux `CONFIG_IMA_MEASURE_PCR_IDX`.
pub const IMA_PCR: PcrIndex = match PcrIndex::new(10) {
    Some(pcr) => pcr,
    None => unreachable!(),
};

/// What is wrong in a policy, manifest or key for IMA, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct ImaProblem {
    /// Key of a document, or number of a line.
    pub at: String,
    /// What is wrong and what is expected.
    pub what: String,
}

impl ImaProblem {
    fn new(at: impl Into<String>, what: impl Into<String>) -> Self {
        Self { at: at.into(), what: what.into() }
    }
}
