//! One set from the captures of many nodes.
//!
//! ```text
//! captures ─settle─▶ PCRs that differ node by node, tools that not every node has
//!          ─class──▶ nodes that agree in everything that is left
//!          ─union──▶ the rules of each class
//!          ─factor─▶ what all classes share is the base, the rest is a group each
//! ```
//! Every captured node is admitted by the merged set. What one class has is never mixed with what another has, except where a
//! note says so. Each choice has a note: the caller writes them as comments at the top of the set, for whoever reviews it.

mod class;
mod factor;
mod head;
mod note;
mod settle;
mod union;
mod unit;

use self::class::Detail;
use super::{
    MAX_GROUPS,
    document::{GoldenDocument, RulesOf},
};

/// Captures of several nodes as one set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The set.
    pub document: GoldenDocument,
    /// Why it is as it is, one sentence each.
    pub notes: Vec<String>,
}

/// Why captures cannot become one set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// There is none.
    #[error("no capture to merge")]
    NoCapture,
    /// They are of different pools.
    #[error("node {0} is of another pool than the first; merge the captures of one pool")]
    OtherPool(String),
    /// A document is no capture: it has groups, or includes parts.
    #[error("the document of node {0} has groups or includes parts; merge captures only")]
    NotACapture(String),
    /// Some node has no PCR that can be judged.
    #[error(
        "no PCR can be judged on every node: they differ from node to node, and no events were recorded"
    )]
    NothingStable,
}

/// A node's name and what was captured of it.
pub(super) type Capture = (String, GoldenDocument);

/// Merges captures; a single one stays as it is.
///
/// # Errors
/// [`MergeError`].
pub fn merge(captures: Vec<(String, GoldenDocument)>) -> Result<Merged, MergeError> {
    let Some((_, first)) = captures.first() else { return Err(MergeError::NoCapture) };
    for (node, document) in &captures {
        if document.pool != first.pool {
            return Err(MergeError::OtherPool(node.clone()));
        }
        if !document.group.is_empty() || !document.include.is_empty() {
            return Err(MergeError::NotACapture(node.clone()));
        }
    }
    if captures.len() == 1 {
        let document = first.clone();
        return Ok(Merged { document, notes: vec![note::single(&captures)] });
    }
    // The finest that is not too many: each step after the first gives up some coherence, and says so.
    for detail in Detail::ALL {
        let mut notes = Vec::new();
        let mut settled = settle::settle(&captures, detail, &mut notes);
        let common = std::mem::take(&mut settled.common_tools);
        let classes = class::classes(&settled, detail);
        if classes.len() > MAX_GROUPS {
            continue;
        }
        notes.splice(0..0, note::fallback(detail));
        let whole = head::head(&captures, common, &mut notes);
        let document = factor::factor(whole, &classes, &mut notes);
        return if judges_all(&document) {
            Ok(Merged { document, notes })
        } else {
            Err(MergeError::NothingStable)
        };
    }
    // The last step makes one class of all.
    Err(MergeError::NothingStable)
}

/// Whether a PCR is judged whatever the group: else everything would be accepted, and no verifier takes the set.
fn judges_all(document: &GoldenDocument) -> bool {
    let reads = |rules: RulesOf<'_>| !rules.pcr.is_empty() || !rules.events.is_empty();
    let in_groups = || document.group.iter().all(|group| reads(group.rules()));
    reads(document.rules()) || (!document.group.is_empty() && in_groups())
}
