//! Name, pool, version, words, and what is included.

use std::collections::BTreeSet;

use super::{Effect, Kind, Words, scope::Scope};
use crate::policy::document::GoldenDocument;

pub(super) fn compare(scope: &mut Scope<'_>, before: &GoldenDocument, after: &GoldenDocument) {
    include(scope, before, after);
    if before.pool != after.pool {
        // Nodes of one pool are no longer judged by it, and those of another are.
        let name = |document: &GoldenDocument| match &document.pool {
            Some(pool) => Words::new("pool ").quote(pool),
            None => Words::new("no pool (a part for others to include)"),
        };
        let words = name(before).say(" → ").then(name(after));
        let value = |pool: &Option<String>| pool.iter().cloned().collect();
        let values = (value(&before.pool), value(&after.pool));
        scope.add(Kind::Pool, "pool", Effect::Both, words, values);
    }
    if before.name != after.name {
        // Sets are told apart by name; who includes a part gets another one by another name.
        let is_set = before.pool.is_some() && after.pool.is_some();
        let effect = if is_set { Effect::Neither } else { Effect::Both };
        scope.setting(Kind::Name, "name", effect, "name", (&before.name, &after.name));
    }
    if before.version != after.version {
        let (was, is) = (before.version.to_string(), after.version.to_string());
        scope.setting(Kind::Version, "version", Effect::Neither, "version", (&was, &is));
    }
    if before.description != after.description {
        let text = |document: &GoldenDocument| document.description.clone().unwrap_or_default();
        let words = Words::new("description: ").quote(&text(before)).say(" → ").quote(&text(after));
        let values = (vec![text(before)], vec![text(after)]);
        scope.add(Kind::Description, "description", Effect::Neither, words, values);
    }
    if before.schema != after.schema {
        // Rules of another format may mean something else.
        let sides = (before.schema.as_str(), after.schema.as_str());
        scope.setting(Kind::Schema, "schema", Effect::Both, "schema", sides);
    }
}

fn include(scope: &mut Scope<'_>, before: &GoldenDocument, after: &GoldenDocument) {
    let of = |document: &GoldenDocument| -> BTreeSet<String> {
        document.include.iter().cloned().collect()
    };
    let (old, new) = (of(before), of(after));
    // A part may name starts of the tool PCR where this document names none.
    let may_start = before.tools.start.is_empty() || after.tools.start.is_empty();
    for part in old.symmetric_difference(&new) {
        let is_added = new.contains(part);
        let effect = if may_start { Effect::Both } else { Effect::of_rule(is_added) };
        let words = Words::new("part ").quote(part).say(if is_added {
            " included: its rules must be met too"
        } else {
            " no longer included: its rules need not be met"
        });
        let words = match (may_start, is_added) {
            (false, _) => words,
            (true, true) => words.say("; starts of the tool PCR that it names are accepted"),
            (true, false) => words.say("; starts of the tool PCR that it named are refused"),
        };
        let value = vec![part.clone()];
        let values = if is_added { (Vec::new(), value) } else { (value, Vec::new()) };
        scope.add(Kind::Include, "include", effect, words, values);
    }
}
