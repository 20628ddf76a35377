//! The golden set after an update: the prediction put where the old state stood, or beside it as a group of its own.

use std::collections::BTreeSet;

use super::{BaseRules, Gap, PredictError, Prediction, Update, predict};
use crate::policy::document::{
    AcceptedCommandLine, AcceptedDigest, BootRules, EventRule, GoldenDocument, Group, PcrRule,
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
    let prediction = predict(base, update)?;
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
    put_pcr(&mut next.pcr, prediction);
    put_events(&mut next.events, prediction);
    put_boot(&mut next.boot, &prediction.boot, &gone);
    if let Some(group) = at.and_then(|at| next.group.get_mut(at)) {
        put_pcr(&mut group.pcr, prediction);
        put_events(&mut group.events, prediction);
        put_boot(&mut group.boot, &prediction.boot, &gone);
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
    let moved = Group {
        pcr: take(&mut next.pcr, |rule| is_predicted(prediction, rule.bank, rule.index)),
        events: take(&mut next.events, |rule| is_predicted(prediction, rule.bank, rule.index)),
        boot: take_boot(&mut next.boot, &prediction.boot),
        ..Group::default()
    };
    let at = match at {
        Some(at) => {
            // What was the same in every group is not any more.
            for group in &mut next.group {
                group.pcr.extend(moved.pcr.iter().cloned());
                group.events.extend(moved.events.iter().cloned());
                join_boot(&mut group.boot, &moved.boot);
            }
            at
        }
        None => {
            next.group.push(Group { name: old.to_owned(), ..moved });
            next.group.len() - 1
        }
    };
    let Some(from) = next.group.get(at) else { return Ok(()) };
    let mut group = Group { name: new.to_owned(), description: None, ..from.clone() };
    put_pcr(&mut group.pcr, prediction);
    put_events(&mut group.events, prediction);
    put_boot(&mut group.boot, &prediction.boot, &gone);
    next.group.push(group);
    Ok(())
}

fn is_predicted(prediction: &Prediction, bank: proto::digest::HashAlg, index: u8) -> bool {
    prediction.pcr.iter().any(|rule| (rule.bank, rule.index) == (bank, index))
        || prediction.events.iter().any(|rule| (rule.bank, rule.index) == (bank, index))
}

fn take<T>(rules: &mut Vec<T>, is_taken: impl Fn(&T) -> bool) -> Vec<T> {
    let (taken, left) = std::mem::take(rules).into_iter().partition(is_taken);
    *rules = left;
    taken
}

fn put_pcr(rules: &mut [PcrRule], prediction: &Prediction) {
    for rule in rules {
        let new =
            prediction.pcr.iter().find(|new| (new.bank, new.index) == (rule.bank, rule.index));
        if let Some(new) = new {
            rule.accept.clone_from(&new.accept);
        }
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

/// Digests of recorded events that the update takes away.
fn gone(base: &[PcrRule], group: Option<&Group>, prediction: &Prediction) -> BTreeSet<String> {
    let digests = |rules: &mut dyn Iterator<Item = &PcrRule>| -> BTreeSet<String> {
        rules
            .flat_map(|rule| &rule.accept)
            .flat_map(|accepted| &accepted.events)
            .map(|event| event.digest.to_ascii_lowercase())
            .collect()
    };
    let of_group = group.iter().flat_map(|group| &group.pcr);
    let is_changed = |rule: &&PcrRule| is_predicted(prediction, rule.bank, rule.index);
    let old = digests(&mut base.iter().chain(of_group).filter(is_changed));
    let new = digests(&mut prediction.pcr.iter());
    old.difference(&new).cloned().collect()
}

/// Lists that the update adds to: without what it takes away, with what it brings.
fn put_boot(rules: &mut BootRules, new: &BootRules, gone: &BTreeSet<String>) {
    if !rules.applications.is_empty() && !new.applications.is_empty() {
        rules.applications.retain(|accepted| !is_gone(accepted, gone));
        rules.applications.extend_from_slice(&new.applications);
    }
    if !rules.command_lines.is_empty() && !new.command_lines.is_empty() {
        // An image has one line of its own; shapes go on accepting what they accept.
        rules.command_lines.retain(|line| matches!(line, AcceptedCommandLine::Pattern { .. }));
        rules.command_lines.extend_from_slice(&new.command_lines);
    }
    for section in &new.sections {
        for rule in rules.sections.iter_mut().filter(|rule| rule.name == section.name) {
            rule.accept.clone_from(&section.accept);
        }
    }
}

fn is_gone(accepted: &AcceptedDigest, gone: &BTreeSet<String>) -> bool {
    let text = accepted.digest.to_string();
    text.split_once(':').is_some_and(|(_, digest)| gone.contains(digest))
}

/// Takes the lists that change out of the base, with the oddities that a log may show where they are judged.
fn take_boot(base: &mut BootRules, new: &BootRules) -> BootRules {
    let mut out = BootRules::default();
    if !new.applications.is_empty() {
        out.applications = std::mem::take(&mut base.applications);
    }
    if !new.command_lines.is_empty() {
        out.command_lines = std::mem::take(&mut base.command_lines);
    }
    let names: BTreeSet<&str> = new.sections.iter().map(|section| section.name.as_str()).collect();
    out.sections = take(&mut base.sections, |rule| names.contains(rule.name.as_str()));
    if !out.is_empty() {
        out.tolerate.clone_from(&base.tolerate);
    }
    out
}

fn join_boot(group: &mut BootRules, moved: &BootRules) {
    group.applications.extend_from_slice(&moved.applications);
    group.command_lines.extend_from_slice(&moved.command_lines);
    group.sections.extend_from_slice(&moved.sections);
    for code in &moved.tolerate {
        if !group.tolerate.contains(code) {
            group.tolerate.push(*code);
        }
    }
}
