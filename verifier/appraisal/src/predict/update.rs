//! The golden set after an update: the prediction put where the old state stood, or beside it as a group of its own.

use std::collections::BTreeSet;

use proto::digest::HashAlg;

use super::{BaseRules, Gap, PredictError, Prediction, Update, predict, rules::is_same_line};
use crate::policy::document::{
    AcceptedDigest, AcceptedEvent, AcceptedValue, BootRules, EventRule, GoldenDocument, Group,
    PcrRule, SectionRule,
};

/// What becomes of the state before the update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before<'a> {
    /// It is not accepted any more by the new set: the set of before stays in force beside it while nodes reboot.
    Replaced,
    /// It stays, as the group of this name, beside the new state.
    Kept {
        /// Name of the old state, where it is no group yet.
        old: &'a str,
        /// Name of the new state.
        new: &'a str,
    },
}

/// Where the update starts from, in a set with groups.
pub type GroupName<'a> = Option<&'a str>;

/// A golden set after an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updated {
    /// The set, with the version above.
    pub document: GoldenDocument,
    /// PCRs that change and have no prediction: nodes that boot the update are denied by them.
    pub gaps: Vec<Gap>,
    /// What was assumed, and what else to think of.
    pub notes: Vec<String>,
}

/// Why a set has no state after the update.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// No prediction.
    #[error(transparent)]
    Predict(#[from] PredictError),
    /// The set has groups, and none or another was named.
    #[error("the set has the groups {0}: say which one the update starts from")]
    WhichGroup(String),
    /// A group of the new name is there.
    #[error("the set has a group {0:?} already")]
    GroupExists(String),
}

/// Who predicts, and when: for each value that a prediction brings. This crate has no clock and knows nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Provenance<'a> {
    /// Who.
    pub by: Option<&'a str>,
    /// When, as RFC 3339 writes it.
    pub at: Option<&'a str>,
}

/// Predicts, and puts the prediction into the set.
///
/// # Errors
/// [`UpdateError`].
pub fn updated(
    document: &GoldenDocument,
    from: GroupName<'_>,
    update: &Update<'_>,
    before: Before<'_>,
) -> Result<Updated, UpdateError> {
    updated_by(document, from, update, before, Provenance::default())
}

/// As [`updated`], with who predicts and when on each new value.
///
/// # Errors
/// [`UpdateError`].
pub fn updated_by(
    document: &GoldenDocument,
    from: GroupName<'_>,
    update: &Update<'_>,
    before: Before<'_>,
    provenance: Provenance<'_>,
) -> Result<Updated, UpdateError> {
    let at = match (from, document.group.len()) {
        (None, 0) => None,
        (None, 1) => Some(0),
        (Some(name), _) if document.group.iter().any(|group| group.name == name) => {
            document.group.iter().position(|group| group.name == name)
        }
        _ => {
            let names: Vec<&str> = document.group.iter().map(|group| group.name.as_str()).collect();
            return Err(UpdateError::WhichGroup(names.join(", ")));
        }
    };
    let state = State::of(document, at);
    let base = BaseRules { pcr: &state.pcr, events: &state.events, boot: &state.boot };
    let mut prediction = predict(base, update)?;
    for value in prediction.pcr.iter_mut().flat_map(|rule| &mut rule.accept) {
        value.by = provenance.by.map(str::to_owned);
        value.at = provenance.at.map(str::to_owned);
    }
    let mut next = document.clone();
    next.version = document.version.saturating_add(1);
    match before {
        Before::Replaced => replace(&mut next, at, &prediction),
        Before::Kept { old, new } => keep(&mut next, at, &prediction, old, new)?,
    }
    let Prediction { gaps, notes, .. } = prediction;
    Ok(Updated { document: next, gaps, notes })
}

/// The rules that a node in the old state meets: those of the base, then those of its group.
struct State {
    pcr: Vec<PcrRule>,
    events: Vec<EventRule>,
    boot: BootRules,
}

impl State {
    fn of(document: &GoldenDocument, at: Option<usize>) -> Self {
        let group = at.and_then(|at| document.group.get(at));
        let pcr = document.pcr.iter().chain(group.iter().flat_map(|group| &group.pcr));
        let events = document.events.iter().chain(group.iter().flat_map(|group| &group.events));
        let mut boot = document.boot.clone();
        if let Some(group) = group {
            boot.applications.extend_from_slice(&group.boot.applications);
            boot.command_lines.extend_from_slice(&group.boot.command_lines);
            boot.sections.extend_from_slice(&group.boot.sections);
        }
        Self { pcr: pcr.cloned().collect(), events: events.cloned().collect(), boot }
    }
}

/// The new state in the old one's place, wherever each rule of it stands.
fn replace(next: &mut GoldenDocument, at: Option<usize>, prediction: &Prediction) {
    let gone = gone(&next.pcr, at.and_then(|at| next.group.get(at)), prediction);
    if next.group.len() > 1 {
        // The base holds for groups too that the update is not about.
        spread(next, prediction);
    } else {
        put_pcr(&mut next.pcr, prediction, Others::Stay);
        put_events(&mut next.events, prediction);
        put_boot(&mut next.boot, prediction, &gone);
    }
    if let Some(group) = at.and_then(|at| next.group.get_mut(at)) {
        put_pcr(&mut group.pcr, prediction, Others::Stay);
        put_events(&mut group.events, prediction);
        put_boot(&mut group.boot, prediction, &gone);
    }
}

/// The old state as a group, the new one as another: what changes leaves the base.
fn keep(
    next: &mut GoldenDocument,
    at: Option<usize>,
    prediction: &Prediction,
    old: &str,
    new: &str,
) -> Result<(), UpdateError> {
    if old == new || next.group.iter().any(|group| group.name == new) {
        return Err(UpdateError::GroupExists(new.to_owned()));
    }
    let gone = gone(&next.pcr, at.and_then(|at| next.group.get(at)), prediction);
    let at = match at {
        Some(at) => {
            spread(next, prediction);
            at
        }
        None => {
            let moved = changing(next, prediction);
            next.group.push(Group { name: old.to_owned(), ..moved });
            next.group.len() - 1
        }
    };
    let Some(from) = next.group.get(at) else { return Ok(()) };
    let mut group = Group { name: new.to_owned(), description: None, ..from.clone() };
    put_pcr(&mut group.pcr, prediction, Others::Go);
    put_events(&mut group.events, prediction);
    put_boot(&mut group.boot, prediction, &gone);
    next.group.push(group);
    Ok(())
}

/// Takes the rules that change out of the base.
fn changing(next: &mut GoldenDocument, prediction: &Prediction) -> Group {
    Group {
        pcr: take(&mut next.pcr, |rule| is_changed(prediction, rule.bank, rule.index)),
        events: take(&mut next.events, |rule| is_changed(prediction, rule.bank, rule.index)),
        boot: take_boot(&mut next.boot, prediction),
        ..Group::default()
    }
}

/// Moves the rules that change from the base into every group: what was the same in all is not any more.
fn spread(next: &mut GoldenDocument, prediction: &Prediction) {
    let moved = changing(next, prediction);
    for group in &mut next.group {
        for rule in &moved.pcr {
            let is_it = |known: &&mut PcrRule| (known.bank, known.index) == (rule.bank, rule.index);
            match group.pcr.iter_mut().find(is_it) {
                // Both had to be met.
                Some(known) => narrow(&mut known.accept, &rule.accept, is_same_value),
                None => group.pcr.push(rule.clone()),
            }
        }
        for rule in &moved.events {
            let is_it =
                |known: &&mut EventRule| (known.bank, known.index) == (rule.bank, rule.index);
            match group.events.iter_mut().find(is_it) {
                Some(known) => narrow(&mut known.accept, &rule.accept, is_same_event),
                None => group.events.push(rule.clone()),
            }
        }
        join_boot(&mut group.boot, &moved.boot);
    }
}

/// Leaves what both lists accept; one that is empty is not judged.
fn narrow<T: Clone>(list: &mut Vec<T>, by: &[T], is_same: impl Fn(&T, &T) -> bool) {
    if list.is_empty() {
        *list = by.to_vec();
    } else if list.iter().any(|known| by.iter().any(|other| is_same(known, other))) {
        list.retain(|known| by.is_empty() || by.iter().any(|other| is_same(known, other)));
    }
}

fn is_same_value(a: &AcceptedValue, b: &AcceptedValue) -> bool {
    a.value.eq_ignore_ascii_case(&b.value)
}

fn is_same_event(a: &AcceptedEvent, b: &AcceptedEvent) -> bool {
    a.digest.eq_ignore_ascii_case(&b.digest)
}

fn is_same_digest(a: &AcceptedDigest, b: &AcceptedDigest) -> bool {
    a.digest == b.digest
}

fn is_changed(prediction: &Prediction, bank: HashAlg, index: u8) -> bool {
    prediction.pcr.iter().any(|rule| (rule.bank, rule.index) == (bank, index))
        || prediction.events.iter().any(|rule| (rule.bank, rule.index) == (bank, index))
        || prediction.replaced.pcr.iter().any(|rule| (rule.bank, rule.index) == (bank, index))
}

fn take<T>(rules: &mut Vec<T>, is_taken: impl Fn(&T) -> bool) -> Vec<T> {
    let (taken, left) = std::mem::take(rules).into_iter().partition(is_taken);
    *rules = left;
    taken
}

/// What becomes of values that have nothing to do with the update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    /// They are other states', which the rules go on accepting.
    Stay,
    /// They are in the group of the old state: the new one is the new state alone.
    Go,
}

fn put_pcr(rules: &mut [PcrRule], prediction: &Prediction, others: Others) {
    for rule in rules {
        let (bank, index) = (rule.bank, rule.index);
        let of = |rules: &'_ [PcrRule]| -> Vec<AcceptedValue> {
            let found = rules.iter().filter(|known| (known.bank, known.index) == (bank, index));
            found.flat_map(|known| known.accept.clone()).collect()
        };
        let (gone, new) = (of(&prediction.replaced.pcr), of(&prediction.pcr));
        if others == Others::Go && !new.is_empty() {
            rule.accept = new;
            continue;
        }
        put(&mut rule.accept, &gone, &new, is_same_value);
    }
}

fn put_events(rules: &mut [EventRule], prediction: &Prediction) {
    for rule in rules {
        let is_it = |new: &&EventRule| (new.bank, new.index) == (rule.bank, rule.index);
        if let Some(new) = prediction.events.iter().find(is_it) {
            rule.accept.clone_from(&new.accept);
        }
    }
}

/// Takes entries out of a list and adds others. A list that is judged stays so: it never becomes empty.
fn put<T: Clone>(list: &mut Vec<T>, gone: &[T], new: &[T], is_same: impl Fn(&T, &T) -> bool) {
    if list.is_empty() {
        return;
    }
    let mut next: Vec<T> = list
        .iter()
        .filter(|known| !gone.iter().any(|gone| is_same(known, gone)))
        .cloned()
        .collect();
    for entry in new {
        if !next.iter().any(|known| is_same(known, entry)) {
            next.push(entry.clone());
        }
    }
    if !next.is_empty() {
        *list = next;
    }
}

/// Digests of recorded events that the update takes away.
fn gone(base: &[PcrRule], group: Option<&Group>, prediction: &Prediction) -> BTreeSet<String> {
    let digests = |values: &mut dyn Iterator<Item = &AcceptedValue>| -> BTreeSet<String> {
        values
            .flat_map(|accepted| &accepted.events)
            .map(|event| event.digest.to_ascii_lowercase())
            .collect()
    };
    let replaced = &prediction.replaced.pcr;
    let is_replaced = |rule: &PcrRule, value: &AcceptedValue| {
        let mut found = replaced.iter().filter(|it| (it.bank, it.index) == (rule.bank, rule.index));
        found.any(|it| it.accept.iter().any(|known| is_same_value(known, value)))
    };
    let rules = base.iter().chain(group.iter().flat_map(|group| &group.pcr));
    let left = rules.flat_map(|rule| {
        rule.accept.iter().filter(move |value| !is_replaced(rule, value)).collect::<Vec<_>>()
    });
    let new = prediction.pcr.iter().flat_map(|rule| &rule.accept);
    let kept = digests(&mut left.chain(new));
    let old = digests(&mut replaced.iter().flat_map(|rule| &rule.accept));
    old.difference(&kept).cloned().collect()
}

/// Lists about what booted: without what the update takes away, with what it brings.
fn put_boot(rules: &mut BootRules, prediction: &Prediction, gone: &BTreeSet<String>) {
    let (new, old) = (&prediction.boot, &prediction.replaced.boot);
    let mut gone: Vec<AcceptedDigest> =
        rules.applications.iter().filter(|accepted| is_gone(accepted, gone)).cloned().collect();
    gone.extend_from_slice(&old.applications);
    put(&mut rules.applications, &gone, &new.applications, is_same_digest);
    put(&mut rules.command_lines, &old.command_lines, &new.command_lines, is_same_line);
    for rule in &mut rules.sections {
        let of = |rules: &[SectionRule]| -> Vec<AcceptedDigest> {
            let found = rules.iter().filter(|known| known.name == rule.name);
            found.flat_map(|known| known.accept.clone()).collect()
        };
        let (gone, new) = (of(&old.sections), of(&new.sections));
        put(&mut rule.accept, &gone, &new, is_same_digest);
    }
}

fn is_gone(accepted: &AcceptedDigest, gone: &BTreeSet<String>) -> bool {
    let text = accepted.digest.to_string();
    text.split_once(':').is_some_and(|(_, digest)| gone.contains(digest))
}

/// Takes the lists that change out of the base, with the oddities that a log may show where they are judged.
fn take_boot(base: &mut BootRules, prediction: &Prediction) -> BootRules {
    let (new, old) = (&prediction.boot, &prediction.replaced.boot);
    let mut out = BootRules::default();
    if !new.applications.is_empty() || !old.applications.is_empty() {
        out.applications = std::mem::take(&mut base.applications);
    }
    if !new.command_lines.is_empty() || !old.command_lines.is_empty() {
        out.command_lines = std::mem::take(&mut base.command_lines);
    }
    let sections = new.sections.iter().chain(&old.sections);
    let names: BTreeSet<&str> = sections.map(|section| section.name.as_str()).collect();
    out.sections = take(&mut base.sections, |rule| names.contains(rule.name.as_str()));
    if !out.is_empty() {
        out.tolerate.clone_from(&base.tolerate);
    }
    out
}

/// Adds the base's rules to a group's: both had to be met.
fn join_boot(group: &mut BootRules, moved: &BootRules) {
    narrow(&mut group.applications, &moved.applications, is_same_digest);
    narrow(&mut group.command_lines, &moved.command_lines, is_same_line);
    for rule in &moved.sections {
        match group.sections.iter_mut().find(|known| known.name == rule.name) {
            Some(known) => narrow(&mut known.accept, &rule.accept, is_same_digest),
            None => group.sections.push(rule.clone()),
        }
    }
    for code in &moved.tolerate {
        if !group.tolerate.contains(code) {
            group.tolerate.push(*code);
        }
    }
}
