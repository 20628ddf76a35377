//! A set and what a node proved: only what stands between the node and an admission.

use super::{Difference, Scope, Sides, rules, tools};
use crate::policy::{
    document::{
        AcceptedCommandLine, AcceptedDigest, BootRules, EventRule, GoldenDocument, Group, KeyRules,
        PcrRule, RecordedEvent, RulesOf, ToolRule, TpmRules,
    },
    pattern::Pattern,
    rules::canonical_id,
};

/// What a node's evidence, captured as a document, has that the set does not accept, and what it lacks.
///
/// With groups, those of the group that is nearest are told. [`super::Effect`] is what taking the node's values in place of the
/// set's would do. Rules that no capture speaks of (floors, denied digests, IMA, signers, dbx, sections, included parts) are not
/// compared: [`crate::appraise`] judges, this names.
#[must_use]
pub fn diff_with_node(set: &GoldenDocument, node: &GoldenDocument) -> Vec<Difference> {
    let mut found = Vec::new();
    between(set.rules(), None, node, &mut found);
    let of_group = |group: &Group| {
        let mut found = Vec::new();
        between(group.rules(), Some(&group.name), node, &mut found);
        found
    };
    found.extend(set.group.iter().map(of_group).min_by_key(Vec::len).unwrap_or_default());
    found.sort_by_key(|difference| difference.kind);
    found
}

fn between(
    set: RulesOf<'_>,
    group: Option<&str>,
    node: &GoldenDocument,
    found: &mut Vec<Difference>,
) {
    let mut scope = Scope { sides: Sides::SetAndNode, group, found };
    let (mut of_set, mut of_node) = (bare(node), bare(node));
    (of_set.boot, of_node.boot) = boot(set.boot, &node.boot);
    (of_set.pcr, of_node.pcr) = pcrs(set.pcr, node);
    (of_set.events, of_node.events) = events(set.events, node);
    if let Some(tpm) = set.tpm {
        (of_set.tpm, of_node.tpm) = makers(tpm, &node.tpm);
    }
    rules(&mut scope, of_set.rules(), of_node.rules(), false);
    let is_closed = set.tools.is_some_and(|tools| tools.closed);
    let (old, new) = tool_rules(set.tool, &node.tool, is_closed);
    tools::compare(&mut scope, &old, &new, is_closed);
    if let Some(old) = set.tools {
        let mut new = old.clone();
        let fresh = node.tools.start.iter().filter(|start| !old.start.contains(start));
        new.start.extend(fresh.copied());
        tools::set(&mut scope, old, &new, false);
    }
}

/// The node's document without its rules.
fn bare(node: &GoldenDocument) -> GoldenDocument {
    GoldenDocument::new(node.name.clone(), node.pool.clone(), node.version)
}

/// What the node has and the set does not list, beside what the set lists instead.
fn unlisted<T: Clone + PartialEq>(
    set: &[T],
    node: &[T],
    is_listed: impl Fn(&T) -> bool,
) -> (Vec<T>, Vec<T>) {
    let fresh: Vec<T> = node.iter().filter(|entry| !is_listed(entry)).cloned().collect();
    // A list is not met by nothing.
    if set.is_empty() || (fresh.is_empty() && !node.is_empty()) {
        return (Vec::new(), Vec::new());
    }
    (set.iter().filter(|entry| !node.contains(entry)).cloned().collect(), fresh)
}

fn digests(
    set: &[AcceptedDigest],
    node: &[AcceptedDigest],
) -> (Vec<AcceptedDigest>, Vec<AcceptedDigest>) {
    unlisted(set, node, |entry| set.iter().any(|known| known.digest == entry.digest))
}

fn boot(set: &BootRules, node: &BootRules) -> (BootRules, BootRules) {
    let (mut old, mut new) = (BootRules::default(), BootRules::default());
    if set.is_empty() {
        return (old, new);
    }
    if node.is_empty() {
        return (set.clone(), new);
    }
    if set.secure_boot.is_some() {
        (old.secure_boot, new.secure_boot) = (set.secure_boot, node.secure_boot);
    }
    new.tolerate = node.tolerate.iter().filter(|it| !set.tolerate.contains(it)).copied().collect();
    (old.applications, new.applications) = digests(&set.applications, &node.applications);
    (old.command_lines, new.command_lines) =
        unlisted(&set.command_lines, &node.command_lines, |line| is_accepted(set, line));
    let (keys, of_node) = (&set.keys, &node.keys);
    let pk = digests(&keys.pk, &of_node.pk);
    let kek = digests(&keys.kek, &of_node.kek);
    let db = digests(&keys.db, &of_node.db);
    old.keys = KeyRules { pk: pk.0, kek: kek.0, db: db.0, dbx: Vec::new() };
    new.keys = KeyRules { pk: pk.1, kek: kek.1, db: db.1, dbx: Vec::new() };
    (old, new)
}

fn is_accepted(set: &BootRules, line: &AcceptedCommandLine) -> bool {
    set.command_lines.iter().any(|known| match (known, line) {
        (AcceptedCommandLine::Pattern { pattern }, AcceptedCommandLine::Text { text }) => {
            Pattern::compile(pattern).is_ok_and(|pattern| pattern.matches(text))
        }
        (AcceptedCommandLine::Digest(known), AcceptedCommandLine::Digest(other)) => {
            known.digest == other.digest
        }
        _ => known == line,
    })
}

fn pcrs(set: &[PcrRule], node: &GoldenDocument) -> (Vec<PcrRule>, Vec<PcrRule>) {
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for rule in set {
        let is_same = |other: &&PcrRule| (other.bank, other.index) == (rule.bank, rule.index);
        let Some(proven) = node.pcr.iter().find(is_same) else {
            // By event there is no value to compare; else it stands at its reset value, or was not quoted.
            let is_read = |other: &EventRule| (other.bank, other.index) == (rule.bank, rule.index);
            old.extend((!node.events.iter().any(is_read)).then(|| rule.clone()));
            continue;
        };
        let is_met = proven.accept.iter().any(|value| {
            rule.accept.iter().any(|known| known.value.eq_ignore_ascii_case(&value.value))
        });
        if !is_met {
            old.push(rule.clone());
            new.push(proven.clone());
        }
    }
    (old, new)
}

/// The node's events, whether it has them by event or recorded with a value.
fn events(set: &[EventRule], node: &GoldenDocument) -> (Vec<EventRule>, Vec<EventRule>) {
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for rule in set {
        let is_here = |bank, index| (bank, index) == (rule.bank, rule.index);
        let by_event = node.events.iter().find(|other| is_here(other.bank, other.index));
        let by_value = node.pcr.iter().find(|other| is_here(other.bank, other.index));
        let recorded = by_value.and_then(|rule| rule.accept.first()).map(|value| &value.events);
        let there: Vec<RecordedEvent> = match (by_event, recorded) {
            (Some(rule), _) => rule
                .accept
                .iter()
                .map(|event| RecordedEvent {
                    digest: event.digest.clone(),
                    what: event.what.clone().unwrap_or_default(),
                })
                .collect(),
            (None, Some(events)) if !events.is_empty() => events.clone(),
            _ => continue,
        };
        let is_same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
        let (mut wanted, mut proven) = (rule.clone(), rule.clone());
        wanted.accept.clear();
        proven.accept.clear();
        let missing = rule.accept.iter().filter(|event| {
            event.required && !there.iter().any(|other| is_same(&other.digest, &event.digest))
        });
        wanted.accept.extend(missing.cloned());
        let fresh = there
            .iter()
            .filter(|event| !rule.accept.iter().any(|other| is_same(&other.digest, &event.digest)));
        proven.accept.extend(fresh.map(|event| crate::policy::document::AcceptedEvent {
            digest: event.digest.clone(),
            what: Some(event.what.clone()).filter(|what| !what.is_empty()),
            required: false,
        }));
        old.push(wanted);
        new.push(proven);
    }
    (old, new)
}

fn makers(set: &TpmRules, node: &TpmRules) -> (TpmRules, TpmRules) {
    let ids = |rules: &TpmRules| -> Vec<String> {
        rules.manufacturers.iter().map(|id| canonical_id(id)).collect()
    };
    let (of_set, of_node) = (ids(set), ids(node));
    let (mut old, mut new) = (TpmRules::default(), TpmRules::default());
    (old.manufacturers, new.manufacturers) = unlisted(&of_set, &of_node, |id| of_set.contains(id));
    // Nobody certified who made it, and the set asks.
    if of_node.is_empty() {
        old.manufacturers = of_set;
    }
    (old, new)
}

fn tool_rules(
    set: &[ToolRule],
    node: &[ToolRule],
    is_closed: bool,
) -> (Vec<ToolRule>, Vec<ToolRule>) {
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for rule in set {
        match node.iter().find(|tool| tool.name == rule.name) {
            None if rule.required => old.push(rule.clone()),
            None => {}
            Some(proven) => {
                let is_known = proven
                    .accept
                    .iter()
                    .any(|state| rule.accept.iter().any(|known| known.digest == state.digest));
                if !is_known {
                    old.push(rule.clone());
                    new.push(ToolRule { required: rule.required, ..proven.clone() });
                }
            }
        }
    }
    let unnamed = node.iter().filter(|tool| !set.iter().any(|rule| rule.name == tool.name));
    new.extend(unnamed.filter(|_| is_closed).cloned());
    (old, new)
}
