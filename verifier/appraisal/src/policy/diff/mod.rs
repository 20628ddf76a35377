//! What differs between two golden documents, in words first.
//!
//! A reviewer wants to know two things of a change: what it is, and whether it lets anybody in. So each [`Difference`] has
//! [`Words`] that an operator understands, the full values beside them, and its [`Effect`].
//!
//! Two documents are compared as they are written: `include` is followed nowhere, and an IMA manifest is its digest.

mod boot;
mod command_line;
mod effect;
mod events;
mod groups;
mod head;
mod ima;
mod kind;
mod list;
mod node;
mod pcr;
mod render;
mod scope;
mod sides;
mod tools;
mod tpm;
mod words;

use serde::Serialize;

pub use self::{
    effect::Effect,
    kind::Kind,
    node::diff_with_node,
    render::{to_markdown, to_text},
    words::Words,
};
pub(super) use self::{groups::summary, pcr::title};
use self::{scope::Scope, sides::Sides};
use super::document::{GoldenDocument, RulesOf};

/// One thing that differs.
///
/// # Format
/// As JSON an object of exactly these fields: `kind` and `effect` as words in kebab-case, `group` a name or `null`, `words` one
/// line of printable text, `removed` and `added` lists of strings as the documents have them. Kinds may be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What it is about.
    pub kind: Kind,
    /// Whether more or less is accepted.
    pub effect: Effect,
    /// The group whose rules differ; `None`: those of the whole set.
    pub group: Option<String>,
    /// Where it stands in the document: `boot.command_lines`, `pcr.sha256.4`, `tool.gcc`.
    pub at: String,
    /// In words; digests are shortened.
    pub words: Words,
    /// What the first document alone has, in full.
    pub removed: Vec<String>,
    /// What the second document alone has, in full.
    pub added: Vec<String>,
}

/// What differs, the most important first; empty if and only if the documents are equal.
///
/// Meant for documents that [`super::GoldenSet::parse`] takes: of rules that stand twice, one is compared.
#[must_use]
pub fn diff(before: &GoldenDocument, after: &GoldenDocument) -> Vec<Difference> {
    let mut found = Vec::new();
    if before == after {
        return found;
    }
    let mut scope = Scope { sides: Sides::Sets, group: None, found: &mut found };
    let has_parts = [before, after].into_iter().any(is_judged_with_others);
    rules(&mut scope, before.rules(), after.rules(), has_parts);
    groups::compare(&mut scope, &before.group, &after.group);
    head::compare(&mut scope, before, after);
    if scope.found.is_empty() {
        let words = "only order, repetition or spelling differs; the rules are the same";
        let none = (Vec::new(), Vec::new());
        scope.add(Kind::Form, "", Effect::Neither, Words::new(words), none);
    }
    // Stable: within a kind, in the order of the document.
    found.sort_by_key(|difference| difference.kind);
    found
}

/// A part, or a set that includes parts.
fn is_judged_with_others(document: &GoldenDocument) -> bool {
    document.pool.is_none() || !document.include.is_empty()
}

/// Rules of the set or of one group.
fn rules(scope: &mut Scope<'_>, before: RulesOf<'_>, after: RulesOf<'_>, has_parts: bool) {
    boot::compare(scope, before.boot, after.boot);
    pcr::compare(scope, before, after);
    events::compare(scope, before, after);
    let is_closed = after.tools.is_some_and(|tools| tools.closed);
    tools::compare(scope, before.tool, after.tool, is_closed);
    if let (Some(old), Some(new)) = (before.tools, after.tools) {
        tools::set(scope, old, new, has_parts);
    }
    ima::compare(scope, before.ima, after.ima);
    if let (Some(old), Some(new)) = (before.tpm, after.tpm) {
        tpm::compare(scope, old, new);
    }
}
