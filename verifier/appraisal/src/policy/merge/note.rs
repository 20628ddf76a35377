//! Why a merged set is as it is, one sentence each.

use std::fmt::Write as _;

use proto::digest::HashAlg;

use super::{Capture, class::Detail, unit::Unit};
use crate::policy::diff::title;

/// Nodes that are named.
const MAX_NAMED: usize = 3;

/// `3 nodes (w1, w2, w3)`, or a few of them and how many more.
pub(super) fn nodes<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.collect();
    let count = match names.len() {
        1 => "1 node".to_owned(),
        many => format!("{many} nodes"),
    };
    let shown: Vec<String> =
        names.iter().take(MAX_NAMED).map(|name| name.escape_debug().to_string()).collect();
    let mut out = format!("{count} ({}", shown.join(", "));
    let more = names.len().saturating_sub(shown.len());
    if more > 0 {
        // Writing to a string does not fail.
        let _ = write!(out, " and {more} more");
    }
    out + ")"
}

pub(super) fn single(captures: &[Capture]) -> String {
    let who = nodes(captures.iter().map(|(node, _)| node.as_str()));
    format!("Captured from {who}: there is nothing to merge, and the set is as it was captured.")
}

pub(super) fn fallback(detail: Detail) -> Option<String> {
    let text = match detail {
        Detail::Everything => return None,
        Detail::WithoutTools => {
            "REVIEW: with a group for each combination of tools there would be too many groups; \
             tools are lists of accepted states, and may be mixed within a group."
        }
        Detail::BootOnly => {
            "REVIEW: there would be too many groups; nodes are told apart by what they boot alone \
             (PCR 0, 2, 4, 7 and 11), and what else differs may be mixed within a group."
        }
        Detail::Nothing => {
            "REVIEW: there would be too many groups even for what the nodes boot; there are none, and every rule \
             accepts what any node has: an old kernel with a new initrd too."
        }
    };
    Some(text.to_owned())
}

pub(super) fn by_event(key: (HashAlg, u8)) -> String {
    format!(
        "{} is judged event by event: nearly every node has a value of its own, and the events are known.",
        title(key)
    )
}

pub(super) fn unstable(key: (HashAlg, u8)) -> String {
    format!(
        "REVIEW: {} is not judged: it is unstable (nodes that boot the same have values of their own), and the events \
         that led there were not recorded.",
        title(key)
    )
}

pub(super) fn united(key: (HashAlg, u8), nodes: usize) -> String {
    format!(
        "{} is judged event by event, with the events of all {nodes} nodes that show it: it differs between boots, and \
         a node takes its events along to another kernel.",
        title(key)
    )
}

pub(super) fn lines_by_node() -> String {
    "Kernel command lines are listed, and tell no groups apart: nearly every node has one of its own; a pattern may say \
     what they share."
        .to_owned()
}

pub(super) fn optional_tool(name: &str, have: usize, nodes: usize, states: usize) -> String {
    let state = if states == 1 { "this state" } else { "one of these states" };
    format!(
        "Tool {} is on {have} of {nodes} nodes: a node may be without it, and whoever has it has it in {state}; a rule in \
         some groups alone would leave it unjudged in the others.",
        name.escape_debug()
    )
}

pub(super) fn closed_tool(name: &str, states: usize) -> String {
    format!(
        "Tool {} is accepted in {states} states by every group: a closed set refuses tools that its base does not name.",
        name.escape_debug()
    )
}

pub(super) fn groups(count: usize) -> String {
    format!(
        "Nodes differ in what belongs together: {count} groups, and a node must meet every rule of one of them; what all \
         nodes share stands before the groups."
    )
}

pub(super) fn no_groups(nodes: usize) -> String {
    format!("All {nodes} nodes meet the same rules: no groups are needed.")
}

pub(super) fn left_out(unit: &Unit) -> String {
    let what = match unit {
        Unit::Pcr(bank, index) => format!("{} by value", title((*bank, *index))),
        Unit::Events(bank, index) => format!("{} event by event", title((*bank, *index))),
        Unit::Boot => "the firmware's event log".to_owned(),
        Unit::SecureBoot => "Secure Boot's state".to_owned(),
        Unit::Applications => "boot applications".to_owned(),
        Unit::Signers => "signers of images".to_owned(),
        Unit::CommandLines => "kernel command lines".to_owned(),
        Unit::Section(name) => format!("section {}", name.escape_debug()),
        Unit::Pk => "Secure Boot's PK".to_owned(),
        Unit::Kek => "Secure Boot's KEK".to_owned(),
        Unit::Db => "Secure Boot's db".to_owned(),
        Unit::Dbx => "entries that dbx must have".to_owned(),
        Unit::Ima => "the kernel's IMA list".to_owned(),
        Unit::Tool(name) => format!("tool {}", name.escape_debug()),
    };
    format!("REVIEW: not judged, because not every node was captured with it: {what}.")
}

pub(super) fn repeated(group: &str, what: &str) -> String {
    format!(
        "Group {group} repeats {what} of the base: its nodes lack what tells the others apart, and a group needs a rule."
    )
}
