//! Kernel command lines, word by word.

use super::{
    Effect, Kind, Words,
    list::{List, Means, digests},
    scope::Scope,
};
use crate::policy::{
    document::{AcceptedCommandLine, AcceptedDigest},
    pattern::Pattern,
};

const AT: &str = "boot.command_lines";
/// Changed words that are named.
const MAX_NAMED: usize = 12;
/// Longest line that is compared word by word, words: the kernel takes 2 048 bytes, and time is their square.
const MAX_WORDS: usize = 1024;

/// A line as it was written: its text or its pattern.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line<'d> {
    Text(&'d str),
    Pattern(&'d str),
}

impl<'d> Line<'d> {
    const fn written(self) -> &'d str {
        match self {
            Self::Text(text) | Self::Pattern(text) => text,
        }
    }

    /// Whether one of `lines` accepts all that this line does.
    fn is_covered(self, lines: &[Line<'_>]) -> bool {
        lines.iter().any(|line| match (*line, self) {
            (Line::Pattern(pattern), Self::Text(text)) => {
                Pattern::compile(pattern).is_ok_and(|pattern| pattern.matches(text))
            }
            _ => *line == self,
        })
    }
}

pub(super) fn compare(
    scope: &mut Scope<'_>,
    before: &[AcceptedCommandLine],
    after: &[AcceptedCommandLine],
) {
    let (old, new) = (lines(before), lines(after));
    let removed: Vec<Line<'_>> = old.iter().copied().filter(|line| !new.contains(line)).collect();
    let added: Vec<Line<'_>> = new.iter().copied().filter(|line| !old.contains(line)).collect();
    let emptiness = scope.emptiness(before.is_empty(), after.is_empty());
    let begins_or_ends = emptiness.0 != emptiness.1;
    let gone = |line: Line<'_>| !line.is_covered(&new);
    let fresh = |line: Line<'_>| !line.is_covered(&old);
    let (pairs, removed, added) = pair(removed, added);
    for (was, is) in pairs {
        let words =
            Words::new("kernel command line: ").then(words_between(was.written(), is.written()));
        let effect = Effect::of_list(emptiness, gone(was), fresh(is));
        let values = (vec![was.written().to_owned()], vec![is.written().to_owned()]);
        scope.add(Kind::CommandLine, AT, effect, words, values);
    }
    for line in removed {
        let words = Words::new("kernel command line: ").quote(line.written());
        let verb = if begins_or_ends { "no longer judged" } else { scope.sides.removed() };
        let effect = Effect::of_list(emptiness, gone(line), false);
        let values = (vec![line.written().to_owned()], Vec::new());
        scope.add(Kind::CommandLine, AT, effect, words.say(format!(" {verb}")), values);
    }
    for line in added {
        let words = Words::new("kernel command line: ").quote(line.written());
        let verb = if begins_or_ends { "judged from now on" } else { scope.sides.added() };
        let effect = Effect::of_list(emptiness, false, fresh(line));
        let values = (Vec::new(), vec![line.written().to_owned()]);
        scope.add(Kind::CommandLine, AT, effect, words.say(format!(" {verb}")), values);
    }
    by_digest(scope, before, after, emptiness);
}

/// Lines whose text no log has, and what else is in the PCR of options.
fn by_digest(
    scope: &mut Scope<'_>,
    before: &[AcceptedCommandLine],
    after: &[AcceptedCommandLine],
    emptiness: (bool, bool),
) {
    let noun = Words::new("kernel command line by digest");
    // Whether the list says anything depends on lines of every form, not on these alone.
    let list = List { kind: Kind::CommandLine, at: AT, noun, means: Means::NothingElse, emptiness };
    digests(scope, &list, &of_digests(before), &of_digests(after));
}

fn lines(list: &[AcceptedCommandLine]) -> Vec<Line<'_>> {
    list.iter()
        .filter_map(|line| match line {
            AcceptedCommandLine::Text { text } => Some(Line::Text(text)),
            AcceptedCommandLine::Pattern { pattern } => Some(Line::Pattern(pattern)),
            AcceptedCommandLine::Digest(_) => None,
        })
        .collect()
}

fn of_digests(list: &[AcceptedCommandLine]) -> Vec<AcceptedDigest> {
    list.iter()
        .filter_map(|line| match line {
            AcceptedCommandLine::Digest(digest) => Some(digest.clone()),
            _ => None,
        })
        .collect()
}

type Paired<'d> = (Vec<(Line<'d>, Line<'d>)>, Vec<Line<'d>>, Vec<Line<'d>>);

/// Each line that went with the new one that has most of its words.
fn pair<'d>(removed: Vec<Line<'d>>, mut added: Vec<Line<'d>>) -> Paired<'d> {
    let (mut pairs, mut alone) = (Vec::new(), Vec::new());
    for old in removed {
        let common = |new: &Line<'_>| {
            let words: Vec<&str> = old.written().split(' ').take(MAX_WORDS).collect();
            new.written().split(' ').take(MAX_WORDS).filter(|word| words.contains(word)).count()
        };
        let nearest = (0..added.len()).rev().max_by_key(|at| added.get(*at).map(common));
        match nearest {
            Some(at) => pairs.push((old, added.remove(at))),
            None => alone.push(old),
        }
    }
    (pairs, alone, added)
}

/// "`quiet` removed, `debug` added".
fn words_between(old: &str, new: &str) -> Words {
    let (was, is): (Vec<&str>, Vec<&str>) = (old.split(' ').collect(), new.split(' ').collect());
    let whole = || Words::default().quote(old).say(" → ").quote(new);
    if was.len() > MAX_WORDS || is.len() > MAX_WORDS {
        return whole();
    }
    let (mut removed, mut added) = without_common(&was, &is);
    let mut changes = Vec::new();
    removed.retain(|old| {
        let Some((option, _)) = old.split_once('=') else { return true };
        let is_same = |new: &&str| new.split_once('=').is_some_and(|(other, _)| other == option);
        let Some(at) = added.iter().position(is_same) else { return true };
        changes.push(Words::default().quote(old).say(" → ").quote(added.remove(at)));
        false
    });
    changes.extend(removed.iter().map(|word| Words::default().quote(word).say(" removed")));
    changes.extend(added.iter().map(|word| Words::default().quote(word).say(" added")));
    if changes.is_empty() {
        // The last `root=` wins: the order is not without meaning.
        return Words::new("the same words in another order or form: ").then(whole());
    }
    Words::joined(changes, ", ", MAX_NAMED)
}

/// What each side has more often than the other, in its order.
fn without_common<'l>(was: &[&'l str], is: &[&'l str]) -> (Vec<&'l str>, Vec<&'l str>) {
    let mut added: Vec<&str> = is.to_vec();
    let mut removed = Vec::new();
    for word in was {
        match added.iter().position(|other| other == word) {
            Some(at) => {
                added.remove(at);
            }
            None => removed.push(*word),
        }
    }
    (removed, added)
}
