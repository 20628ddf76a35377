//! Where differences are collected: those of the set, or of one of its groups.

use super::{Difference, Effect, Kind, Sides, Words};

/// Rules of one place on both sides.
pub(super) struct Scope<'s> {
    pub(super) sides: Sides,
    pub(super) group: Option<&'s str>,
    pub(super) found: &'s mut Vec<Difference>,
}

/// Full values of one side.
pub(super) type Values = Vec<String>;

impl Scope<'_> {
    pub(super) fn add(
        &mut self,
        kind: Kind,
        at: &str,
        effect: Effect,
        words: Words,
        (removed, added): (Values, Values),
    ) {
        self.found.push(Difference {
            kind,
            effect,
            group: self.group.map(str::to_owned),
            at: at.to_owned(),
            words,
            removed,
            added,
        });
    }

    /// Whether the lists of the two sides say nothing, being empty.
    ///
    /// A node has no lists: what the set does not ask of it was left out before.
    pub(super) const fn emptiness(&self, before: bool, after: bool) -> (bool, bool) {
        match self.sides {
            Sides::Sets => (before, after),
            Sides::SetAndNode => (false, false),
        }
    }

    /// A setting that is there or not, on or off.
    pub(super) fn setting(
        &mut self,
        kind: Kind,
        at: &str,
        effect: Effect,
        what: &str,
        sides: (&str, &str),
    ) {
        let words = Words::new(format!("{what}: ")).plain(sides.0).say(" → ").plain(sides.1);
        self.add(kind, at, effect, words, (vec![sides.0.to_owned()], vec![sides.1.to_owned()]));
    }
}
