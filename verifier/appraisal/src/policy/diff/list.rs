//! Lists of accepted digests.

use super::{
    Effect, Kind, Words,
    scope::{Scope, Values},
};
use crate::policy::document::AcceptedDigest;

/// Entries that words name.
const MAX_NAMED: usize = 4;

/// What a list says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Means {
    /// Nothing else may be there; an empty list says nothing.
    NothingElse,
    /// Each must be there.
    EachOfThem,
}

/// Where a list stands and what is in it.
pub(super) struct List<'l> {
    pub(super) kind: Kind,
    pub(super) at: &'l str,
    /// Of one entry: "boot application".
    pub(super) noun: Words,
    pub(super) means: Means,
    /// Whether either side's list is empty, and says nothing: see [`Scope::emptiness`].
    pub(super) emptiness: (bool, bool),
}

/// Compares two lists by digest.
pub(super) fn digests(
    scope: &mut Scope<'_>,
    list: &List<'_>,
    before: &[AcceptedDigest],
    after: &[AcceptedDigest],
) {
    let (removed, added) = (only(before, after), only(after, before));
    if list.emptiness.0 != list.emptiness.1 && list.means == Means::NothingElse {
        begins_or_ends(scope, list, &removed, &added);
        return;
    }
    let of = |removed: bool, added: bool| match list.means {
        Means::NothingElse => Effect::of(added, removed),
        Means::EachOfThem => Effect::of(removed, added),
    };
    let (pairs, removed, added) = pair(removed, added);
    for (old, new) in pairs {
        let words = list.noun.clone().say(": ");
        let words = words.then(named(old)).say(scope.sides.instead()).then(named(new));
        let values = (values(&[old]), values(&[new]));
        scope.add(list.kind, list.at, of(true, true), words, values);
    }
    for entry in removed {
        let words = list.noun.clone().say(": ").then(named(entry));
        let words = words.say(format!(" {}", scope.sides.removed()));
        scope.add(list.kind, list.at, of(true, false), words, (values(&[entry]), Vec::new()));
    }
    for entry in added {
        let words = list.noun.clone().say(": ").then(named(entry));
        let words = words.say(format!(" {}", scope.sides.added()));
        scope.add(list.kind, list.at, of(false, true), words, (Vec::new(), values(&[entry])));
    }
    renamed(scope, list, before, after);
}

/// The first entry of a list says that nothing else may be there, and with the last one that is gone too.
fn begins_or_ends(
    scope: &mut Scope<'_>,
    list: &List<'_>,
    removed: &[&AcceptedDigest],
    added: &[&AcceptedDigest],
) {
    let begins = list.emptiness.0;
    let entries = if begins { added } else { removed };
    if entries.is_empty() {
        return;
    }
    let named = entries.iter().map(|entry| named(entry)).collect();
    let verb = if begins { ": judged by a list: " } else { ": no longer judged; the list was: " };
    let words = list.noun.clone().say(verb).then(Words::joined(named, ", ", MAX_NAMED));
    let effect = Effect::of_list(list.emptiness, false, false);
    scope.add(list.kind, list.at, effect, words, (values(removed), values(added)));
}

/// The same digest under other words.
fn renamed(
    scope: &mut Scope<'_>,
    list: &List<'_>,
    before: &[AcceptedDigest],
    after: &[AcceptedDigest],
) {
    for old in before.iter().filter(|old| !after.contains(old)) {
        if let Some(new) = after.iter().find(|new| new.digest == old.digest) {
            let (was, is) = (old.what.as_deref().unwrap_or(""), new.what.as_deref().unwrap_or(""));
            let words = list.noun.clone().say(": ").digest(&old.digest.to_string());
            let words = words.say(" is called ").quote(is).say(" instead of ").quote(was);
            let values = (vec![was.to_owned()], vec![is.to_owned()]);
            scope.add(list.kind, list.at, Effect::Neither, words, values);
        }
    }
}

fn only<'d>(these: &'d [AcceptedDigest], those: &[AcceptedDigest]) -> Vec<&'d AcceptedDigest> {
    let known: std::collections::BTreeSet<String> =
        those.iter().map(|entry| entry.digest.to_string()).collect();
    these.iter().filter(|entry| !known.contains(&entry.digest.to_string())).collect()
}

pub(super) fn named(entry: &AcceptedDigest) -> Words {
    Words::default().named(&entry.digest.to_string(), entry.what.as_deref())
}

fn values(entries: &[&AcceptedDigest]) -> Values {
    entries.iter().map(|entry| entry.digest.to_string()).collect()
}

type Paired<'d> = (
    Vec<(&'d AcceptedDigest, &'d AcceptedDigest)>,
    Vec<&'d AcceptedDigest>,
    Vec<&'d AcceptedDigest>,
);

/// What took whose place: the same words first, then one by one where there are as many on both sides.
fn pair<'d>(
    mut removed: Vec<&'d AcceptedDigest>,
    mut added: Vec<&'d AcceptedDigest>,
) -> Paired<'d> {
    let mut pairs = Vec::new();
    removed.retain(|old| {
        let same = added.iter().position(|new| old.what.is_some() && old.what == new.what);
        if let Some(at) = same {
            pairs.push((*old, added.remove(at)));
        }
        same.is_none()
    });
    if removed.len() == added.len() {
        pairs.extend(removed.drain(..).zip(added.drain(..)));
    }
    (pairs, removed, added)
}
