//! What a merged set says of all its nodes: its name, which TPMs, and tools as a whole.

use std::collections::BTreeSet;

use proto::digest::Digest;

use super::{Capture, note};
use crate::policy::{
    document::{GoldenDocument, ToolRule, ToolSetRules, TpmRules},
    rules::canonical_id,
};

/// The set without the rules that may be in groups.
pub(super) fn head(
    captures: &[Capture],
    tool: Vec<ToolRule>,
    notes: &mut Vec<String>,
) -> GoldenDocument {
    let documents: Vec<&GoldenDocument> = captures.iter().map(|(_, document)| document).collect();
    let first = documents.first();
    let who = note::nodes(captures.iter().map(|(node, _)| node.as_str()));
    let description =
        format!("Merged from {who}. Trust on first use: review it before you apply it.");
    let name = first.map(|it| it.name.clone()).unwrap_or_default();
    let pool = first.and_then(|it| it.pool.clone());
    let version = documents.iter().map(|it| it.version).max().unwrap_or(1);
    GoldenDocument {
        description: Some(description),
        tpm: tpm(captures, notes),
        tools: tools(captures, notes),
        tool,
        ..GoldenDocument::new(name, pool, version)
    }
}

/// Every rule as far as all nodes meet it.
fn tpm(captures: &[Capture], notes: &mut Vec<String>) -> TpmRules {
    let rules = || captures.iter().map(|(_, document)| &document.tpm);
    let uncertified: Vec<&str> = captures
        .iter()
        .filter(|(_, document)| document.tpm.manufacturers.is_empty())
        .map(|(node, _)| node.as_str())
        .collect();
    let all: BTreeSet<String> =
        rules().flat_map(|tpm| &tpm.manufacturers).map(|id| canonical_id(id)).collect();
    if !uncertified.is_empty() && !all.is_empty() {
        notes.push(format!(
            "REVIEW: TPMs of any manufacturer are accepted, because that of {} names none.",
            note::nodes(uncertified.iter().copied())
        ));
    } else if all.len() > 1 {
        let ids: Vec<&str> = all.iter().map(String::as_str).collect();
        notes.push(format!("TPMs of every manufacturer found are accepted: {}.", ids.join(", ")));
    }
    let mut floors = rules().map(|tpm| &tpm.firmware_floor);
    let floor = floors.next().cloned().unwrap_or_default();
    let is_same = floors.all(|other| *other == floor);
    if !is_same {
        notes.push(
            "REVIEW: no floor for TPM firmware: the captures name different ones.".to_owned(),
        );
    }
    let clock = rules().filter(|tpm| tpm.require_safe_clock).count();
    if (1..captures.len()).contains(&clock) {
        notes.push(
            "REVIEW: a TPM clock that is not safe is accepted, as for some nodes.".to_owned(),
        );
    }
    TpmRules {
        manufacturers: if uncertified.is_empty() { all.into_iter().collect() } else { Vec::new() },
        firmware_floor: if is_same { floor } else { Default::default() },
        require_safe_clock: clock == captures.len(),
    }
}

/// Starts of any node; closed, and denied digests, only as far as all captures agree.
fn tools(captures: &[Capture], notes: &mut Vec<String>) -> ToolSetRules {
    let rules = || captures.iter().map(|(_, document)| &document.tools);
    let closed = rules().filter(|tools| tools.closed).count();
    if (1..captures.len()).contains(&closed) {
        notes.push(
            "REVIEW: tools that the set does not name are accepted, as for some nodes.".to_owned(),
        );
    }
    let of = |list: fn(&ToolSetRules) -> &Vec<Digest>| -> BTreeSet<Digest> {
        rules().flat_map(list).copied().collect()
    };
    let start = of(|tools| &tools.start);
    if start.len() > 1 {
        notes.push(format!(
            "The tool PCR may begin with any of the {} values that firmware left in it.",
            start.len()
        ));
    }
    let denied = of(|tools| &tools.deny);
    let deny: Vec<Digest> = denied
        .iter()
        .filter(|digest| rules().all(|tools| tools.deny.contains(digest)))
        .copied()
        .collect();
    let dropped = denied.len().saturating_sub(deny.len());
    if dropped > 0 {
        notes.push(format!(
            "REVIEW: {dropped} tool digests are not denied any more: not every capture denies them."
        ));
    }
    ToolSetRules { closed: closed == captures.len(), deny, start: start.into_iter().collect() }
}
