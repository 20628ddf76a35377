//! What all classes share, and what makes each a group.

use std::collections::BTreeSet;

use super::{
    class::Class,
    note,
    union::{left_out, union},
    unit::{Unit, pick, units},
};
use crate::policy::{
    diff::{summary, title},
    document::{GoldenDocument, Group},
};

/// The set: `whole` has everything that no group can have.
pub(super) fn factor(
    mut whole: GoldenDocument,
    classes: &[Class<'_>],
    notes: &mut Vec<String>,
) -> GoldenDocument {
    let members = |class: &Class<'_>| -> Vec<GoldenDocument> {
        class.members.iter().map(|(_, document)| document.clone()).collect()
    };
    let all: Vec<GoldenDocument> = classes.iter().flat_map(members).collect();
    let all: Vec<&GoldenDocument> = all.iter().collect();
    let Some(of_all) = union(&all) else { return whole };
    let of_each: Vec<GoldenDocument> = classes
        .iter()
        .filter_map(|class| union(&class.members.iter().map(|(_, it)| it).collect::<Vec<_>>()))
        .collect();
    let shared = shared(&of_each);
    for (class, united) in classes.iter().zip(&of_each) {
        let members: Vec<&GoldenDocument> = class.members.iter().map(|(_, it)| it).collect();
        notes.extend(left_out(&members, united).iter().map(note::left_out));
    }
    let base = pick(&of_all, |unit| shared.contains(unit));
    whole.boot = base.boot;
    whole.pcr = base.pcr;
    whole.events = base.events;
    whole.ima = base.ima;
    whole.tool.splice(0..0, base.tool);
    tolerated(&whole, classes, notes);
    if let [_] = classes {
        notes.insert(0, note::no_groups(all.len()));
        return whole;
    }
    notes.insert(0, note::groups(classes.len()));
    for (at, (class, united)) in classes.iter().zip(&of_each).enumerate() {
        let rules = pick(united, |unit| !shared.contains(unit));
        let mut group = Group {
            name: format!("variant-{}", at.saturating_add(1)),
            description: None,
            boot: rules.boot,
            pcr: rules.pcr,
            events: rules.events,
            ima: rules.ima,
            tool: rules.tool,
        };
        if group.rules().is_empty() {
            notes.push(repeat(&mut group, &whole));
        }
        let about = summary(group.rules());
        let who = note::nodes(class.nodes());
        group.description = Some(format!("{who}: {about}"));
        whole.group.push(group);
    }
    whole
}

/// Units that every class has, with the same content.
fn shared(of_each: &[GoldenDocument]) -> BTreeSet<Unit> {
    let mut each = of_each.iter().map(units);
    let Some(first) = each.next() else { return BTreeSet::new() };
    let common = each.fold(first, |mut common, next| {
        common.retain(|unit, content| next.get(unit) == Some(content));
        common
    });
    common.into_keys().collect()
}

/// A group needs a rule: one that its nodes meet anyway.
fn repeat(group: &mut Group, base: &GoldenDocument) -> String {
    let what = if let Some(rule) = base.pcr.first() {
        group.pcr.push(rule.clone());
        title((rule.bank, rule.index))
    } else if let Some(rule) = base.events.first() {
        group.events.push(rule.clone());
        title((rule.bank, rule.index))
    } else {
        group.tool.extend(base.tool.iter().take(1).cloned());
        "a tool".to_owned()
    };
    note::repeated(&group.name, &what)
}

/// What a reviewer has to see: oddities that are accepted, and who showed them.
fn tolerated(whole: &GoldenDocument, classes: &[Class<'_>], notes: &mut Vec<String>) {
    let members = || classes.iter().flat_map(|class| &class.members);
    let codes: BTreeSet<_> =
        members().flat_map(|(_, document)| document.boot.tolerate.iter().copied()).collect();
    for code in codes {
        let shown = members().filter(|(_, document)| document.boot.tolerate.contains(&code));
        let who = note::nodes(shown.map(|(node, _)| node.as_str()));
        let of = if whole.boot.is_empty() { "their groups tolerate" } else { "the set tolerates" };
        notes.push(format!("REVIEW: {who} show {code}, and {of} it. {}", code.meaning()));
    }
}
