//! Nodes that belong together.

use std::collections::BTreeMap;

use super::{
    Capture,
    settle::Settled,
    unit::{Content, Unit, is_coherent, units},
};

/// What tells nodes apart, from the finest to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Detail {
    /// Everything that is stable.
    Everything,
    /// Everything but tools.
    WithoutTools,
    /// What was started, and by what.
    BootOnly,
    /// Nothing: one class.
    Nothing,
}

impl Detail {
    pub(super) const ALL: [Self; 4] =
        [Self::Everything, Self::WithoutTools, Self::BootOnly, Self::Nothing];
}

/// Nodes that agree.
#[derive(Debug)]
pub(super) struct Class<'c> {
    pub(super) members: Vec<&'c Capture>,
}

impl Class<'_> {
    pub(super) fn nodes(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|(node, _)| node.as_str())
    }
}

/// How far a unit tells nodes apart.
enum Tells {
    Content,
    /// Whether it is there: rules are united only where everybody has them.
    Presence,
    Nothing,
}

/// The largest class first, then by the name of its first node.
pub(super) fn classes(settled: &Settled, detail: Detail) -> Vec<Class<'_>> {
    let lines = settled.lines_tell && detail < Detail::BootOnly;
    by(&settled.captures, |unit| tells(unit, detail, lines))
}

/// By what was started alone.
pub(super) fn boot_classes(captures: &[Capture]) -> Vec<Class<'_>> {
    by(captures, |unit| match unit {
        Unit::Pcr(_, index) | Unit::Events(_, index) if !is_coherent(*index) => Tells::Nothing,
        Unit::Tool(_) | Unit::CommandLines => Tells::Nothing,
        _ => Tells::Content,
    })
}

fn tells(unit: &Unit, detail: Detail, lines: bool) -> Tells {
    match unit {
        _ if detail == Detail::Nothing => Tells::Nothing,
        Unit::Tool(_) if detail == Detail::Everything => Tells::Content,
        // Not everybody's tools are taken out before.
        Unit::Tool(_) => Tells::Nothing,
        Unit::CommandLines if !lines => Tells::Presence,
        // Events differ from boot to boot: nodes are not told apart by them.
        Unit::Events(_, index) if !is_coherent(*index) => Tells::Presence,
        Unit::Pcr(_, index) if detail == Detail::BootOnly && !is_coherent(*index) => {
            Tells::Presence
        }
        _ => Tells::Content,
    }
}

fn by(captures: &[Capture], tells: impl Fn(&Unit) -> Tells) -> Vec<Class<'_>> {
    let mut classes: BTreeMap<Vec<(Unit, Content)>, Class<'_>> = BTreeMap::new();
    for capture in captures {
        let key = units(&capture.1)
            .into_iter()
            .filter_map(|(unit, content)| match tells(&unit) {
                Tells::Content => Some((unit, content)),
                Tells::Presence => Some((unit, Content::new())),
                Tells::Nothing => None,
            })
            .collect();
        classes.entry(key).or_insert(Class { members: Vec::new() }).members.push(capture);
    }
    let mut classes: Vec<Class<'_>> = classes.into_values().collect();
    classes.sort_by(|a, b| {
        let first = |class: &Class<'_>| class.nodes().min().map(str::to_owned);
        b.members.len().cmp(&a.members.len()).then_with(|| first(a).cmp(&first(b)))
    });
    classes
}
