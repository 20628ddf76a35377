//! What would tell every node apart, and says nothing of what belongs together.

use std::collections::{BTreeMap, BTreeSet};

use proto::digest::HashAlg;

use super::{
    Capture,
    class::{Class, Detail, boot_classes},
    note,
    union::take_tool,
    unit::{Content, Unit, is_coherent, is_of_the_kernel, units},
};
use crate::policy::document::{AcceptedEvent, EventRule, GoldenDocument, PcrRule, ToolRule};

/// Nodes from which on a value of each node's own is taken for chance, and not for a group of one.
const ENOUGH_NODES: usize = 4;
/// PCRs above have no rules over events.
const MAX_EVENT_PCR: u8 = 15;

/// Captures, with what differs node by node settled.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) captures: Vec<Capture>,
    /// Tools that are judged alike for the whole set.
    pub(super) common_tools: Vec<ToolRule>,
    /// Whether command lines tell nodes apart.
    pub(super) lines_tell: bool,
}

pub(super) fn settle(captures: &[Capture], detail: Detail, notes: &mut Vec<String>) -> Settled {
    let mut settled = captures.to_vec();
    let common_tools = common_tools(&mut settled, notes);
    let boots = boot_classes(captures);
    for (bank, index) in pcrs_by_value(captures) {
        if !is_coherent(index) && is_by_node(&boots, &Unit::Pcr(bank, index), detail) {
            by_node(&mut settled, (bank, index), notes);
        }
    }
    unite_events(&mut settled, notes);
    let lines_tell = !is_by_node(&boots, &Unit::CommandLines, detail);
    if !lines_tell {
        notes.push(note::lines_by_node());
    }
    Settled { captures: settled, common_tools, lines_tell }
}

fn pcrs_by_value(captures: &[Capture]) -> BTreeSet<(HashAlg, u8)> {
    let rules = captures.iter().flat_map(|(_, document)| &document.pcr);
    rules.map(|rule| (rule.bank, rule.index)).collect()
}

/// Whether something differs among nodes that booted the same, and nearly every node has its own.
fn is_by_node(boots: &[Class<'_>], unit: &Unit, detail: Detail) -> bool {
    let content = |document: &GoldenDocument| units(document).remove(unit);
    let (mut nodes, mut pairs, mut is_constant) = (0_usize, 0_usize, true);
    for class in boots {
        let contents: BTreeSet<Option<Content>> =
            class.members.iter().map(|(_, document)| content(document)).collect();
        nodes = nodes.saturating_add(class.members.len());
        pairs = pairs.saturating_add(contents.len());
        is_constant &= contents.len() == 1;
    }
    let nearly_all = pairs.saturating_mul(4) >= nodes.saturating_mul(3);
    !is_constant && (detail >= Detail::BootOnly || (nodes >= ENOUGH_NODES && nearly_all))
}

/// A PCR of each node's own: by its events where they are known, else not at all.
fn by_node(captures: &mut [Capture], key: (HashAlg, u8), notes: &mut Vec<String>) {
    let is_it = |rule: &PcrRule| (rule.bank, rule.index) == key;
    let is_known = key.1 <= MAX_EVENT_PCR
        && captures
            .iter()
            .flat_map(|(_, it)| &it.pcr)
            .filter(|rule| is_it(rule))
            .all(|rule| rule.accept.iter().all(|value| !value.events.is_empty()));
    for (_, document) in &mut *captures {
        let rule = document.pcr.iter().find(|rule| is_it(rule)).cloned();
        document.pcr.retain(|rule| !is_it(rule));
        match rule {
            Some(rule) if is_known => document.events.push(events_of(&rule)),
            _ if !is_known => document.events.retain(|rule| (rule.bank, rule.index) != key),
            _ => {}
        }
    }
    notes.push(if is_known { note::by_event(key) } else { note::unstable(key) });
}

fn events_of(rule: &PcrRule) -> EventRule {
    let mut known = BTreeSet::new();
    let events = rule.accept.iter().flat_map(|value| &value.events);
    let accept = events
        .filter(|event| known.insert(event.digest.to_ascii_lowercase()))
        .map(|event| AcceptedEvent {
            digest: event.digest.clone(),
            what: Some(event.what.clone()).filter(|what| !what.is_empty()),
            required: false,
        })
        .collect();
    let why = Some("Nearly every node has a value of its own.".to_owned());
    EventRule { bank: rule.bank, index: rule.index, why, accept }
}

/// What differs between boots of one machine is not of one group: a node takes its boot entries along to the next kernel.
fn unite_events(captures: &mut [Capture], notes: &mut Vec<String>) {
    let mut all: BTreeMap<(HashAlg, u8), Vec<EventRule>> = BTreeMap::new();
    for (_, document) in &*captures {
        for rule in &document.events {
            if !is_coherent(rule.index) && !is_of_the_kernel(rule.index) {
                all.entry((rule.bank, rule.index)).or_default().push(rule.clone());
            }
        }
    }
    for (key, rules) in all {
        let united = rules.iter().skip(1).fold(rules.first().cloned(), |united, rule| {
            let mut united = united?;
            take(&mut united, rule);
            Some(united)
        });
        let Some(united) = united else { continue };
        if rules.iter().any(|rule| rule.accept.len() != united.accept.len()) {
            notes.push(note::united(key, rules.len()));
        }
        for rule in captures.iter_mut().flat_map(|(_, document)| &mut document.events) {
            if (rule.bank, rule.index) == key {
                rule.clone_from(&united);
            }
        }
    }
}

fn take(rule: &mut EventRule, other: &EventRule) {
    super::union::take_events(rule, std::slice::from_ref(other));
}

/// Tools that not every node has, and all of them where a closed set refuses what its base does not name.
fn common_tools(captures: &mut [Capture], notes: &mut Vec<String>) -> Vec<ToolRule> {
    let nodes = captures.len();
    let is_closed = captures.iter().all(|(_, document)| document.tools.closed);
    let mut by_name: BTreeMap<String, Vec<ToolRule>> = BTreeMap::new();
    for rule in captures.iter().flat_map(|(_, document)| &document.tool) {
        by_name.entry(rule.name.clone()).or_default().push(rule.clone());
    }
    by_name.retain(|_, rules| rules.len() < nodes || is_closed);
    for (_, document) in captures {
        document.tool.retain(|rule| !by_name.contains_key(&rule.name));
    }
    let mut out = Vec::new();
    for (name, rules) in by_name {
        let Some((first, others)) = rules.split_first() else { continue };
        let mut united = first.clone();
        for rule in others {
            take_tool(&mut united, std::slice::from_ref(rule));
        }
        if rules.len() < nodes {
            united.required = false;
            notes.push(note::optional_tool(&name, rules.len(), nodes, united.accept.len()));
        } else if united.accept.len() > 1 {
            notes.push(note::closed_tool(&name, united.accept.len()));
        }
        out.push(united);
    }
    out
}
