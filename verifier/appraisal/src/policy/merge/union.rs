//! Rules that every one of several nodes meets.

use std::collections::BTreeSet;

use super::unit::{Unit, units};
use crate::policy::document::{
    AcceptedCommandLine, AcceptedDigest, BootRules, EventRule, GoldenDocument, KeyRules, PcrRule,
    SectionRule, ToolRule,
};

/// The rules of the first, opened as far as the others need it. A rule that one of them does not have is left out.
pub(super) fn union(members: &[&GoldenDocument]) -> Option<GoldenDocument> {
    let (first, others) = members.split_first()?;
    let mut out = (*first).clone();
    out.pcr.retain_mut(|rule| others.iter().all(|other| take_values(rule, &other.pcr)));
    out.events.retain_mut(|rule| others.iter().all(|other| take_events(rule, &other.events)));
    out.tool.retain_mut(|rule| others.iter().all(|other| take_tool(rule, &other.tool)));
    out.ima = out.ima.filter(|ima| others.iter().all(|other| other.ima.as_ref() == Some(ima)));
    for other in others {
        out.boot = boots(&out.boot, &other.boot);
    }
    Some(out)
}

/// Units that some member has and the union has not.
pub(super) fn left_out(members: &[&GoldenDocument], union: &GoldenDocument) -> BTreeSet<Unit> {
    let kept = units(union);
    let all = members.iter().flat_map(|member| units(member).into_keys());
    all.filter(|unit| !kept.contains_key(unit)).collect()
}

/// Adds the values that another set accepts; false where it does not judge the PCR.
fn take_values(rule: &mut PcrRule, others: &[PcrRule]) -> bool {
    let same = |other: &&PcrRule| (other.bank, other.index) == (rule.bank, rule.index);
    let Some(other) = others.iter().find(same) else { return false };
    for value in &other.accept {
        if !rule.accept.iter().any(|known| known.value.eq_ignore_ascii_case(&value.value)) {
            rule.accept.push(value.clone());
        }
    }
    true
}

/// Adds the events that another set accepts; required is what both require.
pub(super) fn take_events(rule: &mut EventRule, others: &[EventRule]) -> bool {
    let same = |other: &&EventRule| (other.bank, other.index) == (rule.bank, rule.index);
    let Some(other) = others.iter().find(same) else { return false };
    let required = |list: &EventRule| -> BTreeSet<String> {
        let required = list.accept.iter().filter(|event| event.required);
        required.map(|event| event.digest.to_ascii_lowercase()).collect()
    };
    let required: BTreeSet<String> =
        required(rule).intersection(&required(other)).cloned().collect();
    for event in &other.accept {
        if !rule.accept.iter().any(|known| known.digest.eq_ignore_ascii_case(&event.digest)) {
            rule.accept.push(event.clone());
        }
    }
    for event in &mut rule.accept {
        event.required = required.contains(&event.digest.to_ascii_lowercase());
    }
    true
}

/// Adds the states that another set accepts; false where it does not name the tool.
pub(super) fn take_tool(rule: &mut ToolRule, others: &[ToolRule]) -> bool {
    let Some(other) = others.iter().find(|other| other.name == rule.name) else { return false };
    rule.required &= other.required;
    for state in &other.accept {
        if !rule.accept.iter().any(|known| known.digest == state.digest) {
            rule.accept.push(state.clone());
        }
    }
    true
}

/// Where one does not judge the log, both together do not either.
fn boots(a: &BootRules, b: &BootRules) -> BootRules {
    if a.is_empty() || b.is_empty() {
        return BootRules::default();
    }
    let tolerate: BTreeSet<_> = a.tolerate.iter().chain(&b.tolerate).copied().collect();
    BootRules {
        secure_boot: a.secure_boot.filter(|state| b.secure_boot == Some(*state)),
        tolerate: tolerate.into_iter().collect(),
        applications: either(&a.applications, &b.applications),
        signers: either(&a.signers, &b.signers),
        command_lines: lines(&a.command_lines, &b.command_lines),
        sections: sections(&a.sections, &b.sections),
        keys: KeyRules {
            pk: either(&a.keys.pk, &b.keys.pk),
            kek: either(&a.keys.kek, &b.keys.kek),
            db: either(&a.keys.db, &b.keys.db),
            dbx: both(&a.keys.dbx, &b.keys.dbx),
        },
    }
}

/// An empty list is not judged.
fn either(a: &[AcceptedDigest], b: &[AcceptedDigest]) -> Vec<AcceptedDigest> {
    if a.is_empty() || b.is_empty() {
        return Vec::new();
    }
    let more = b.iter().filter(|entry| !a.iter().any(|known| known.digest == entry.digest));
    a.iter().chain(more).cloned().collect()
}

/// What must be there for both.
fn both(a: &[AcceptedDigest], b: &[AcceptedDigest]) -> Vec<AcceptedDigest> {
    let known = a.iter().filter(|entry| b.iter().any(|other| other.digest == entry.digest));
    known.cloned().collect()
}

fn lines(a: &[AcceptedCommandLine], b: &[AcceptedCommandLine]) -> Vec<AcceptedCommandLine> {
    if a.is_empty() || b.is_empty() {
        return Vec::new();
    }
    a.iter().chain(b.iter().filter(|line| !a.contains(line))).cloned().collect()
}

fn sections(a: &[SectionRule], b: &[SectionRule]) -> Vec<SectionRule> {
    a.iter()
        .filter_map(|section| {
            let other = b.iter().find(|other| other.name == section.name)?;
            let accept = either(&section.accept, &other.accept);
            Some(SectionRule { name: section.name.clone(), accept })
        })
        .collect()
}
