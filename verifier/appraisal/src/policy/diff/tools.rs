//! Tools by name and version, and rules for the tool set as a whole.

use std::collections::{BTreeMap, BTreeSet};

use proto::digest::Digest;

use super::{
    Effect, Kind, Words,
    scope::{Scope, Values},
};
use crate::policy::document::{AcceptedTool, ToolRule, ToolSetRules};

/// Files that words name.
const MAX_FILES: usize = 3;
/// Accepted states that words name.
const MAX_NAMED: usize = 3;

/// Compares tools; `is_closed` says whether the second document refuses tools that it does not name.
pub(super) fn compare(
    scope: &mut Scope<'_>,
    before: &[ToolRule],
    after: &[ToolRule],
    is_closed: bool,
) {
    let by_name = |rules: &'_ [ToolRule]| -> BTreeMap<String, ToolRule> {
        rules.iter().map(|rule| (rule.name.clone(), rule.clone())).collect()
    };
    let (old, new) = (by_name(before), by_name(after));
    for (name, was) in &old {
        match new.get(name) {
            Some(is) => tool(scope, was, is),
            None => whole(scope, was, false, is_closed),
        }
    }
    for (_, is) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        whole(scope, is, true, is_closed);
    }
}

fn at(name: &str) -> String {
    format!("tool.{name}")
}

fn title(rule: &ToolRule) -> Words {
    Words::new("tool ").plain(&rule.name)
}

/// A tool that one side alone names. In a closed set a name is a permission, elsewhere a demand.
fn whole(scope: &mut Scope<'_>, rule: &ToolRule, is_added: bool, is_closed: bool) {
    let effect = match (is_closed, is_added) {
        (false, _) => Effect::of_rule(is_added),
        (true, true) => Effect::of(true, rule.required),
        (true, false) => Effect::of(rule.required, true),
    };
    let states = rule.accept.iter().map(state).collect();
    let must = if rule.required { "required" } else { "not required" };
    let verb = if is_added { scope.sides.added() } else { scope.sides.removed() };
    let words = title(rule).say(format!(" {verb} ({must}): "));
    let words = words.then(Words::joined(states, " or ", MAX_NAMED));
    let values: Values = rule.accept.iter().map(|tool| tool.digest.to_string()).collect();
    let values = if is_added { (Vec::new(), values) } else { (values, Vec::new()) };
    scope.add(Kind::Tool, &at(&rule.name), effect, words, values);
}

/// `12.2.0 (sha256:…)`.
fn state(tool: &AcceptedTool) -> Words {
    let digest = tool.digest.to_string();
    match &tool.version {
        Some(version) => Words::default().plain(version).say(" (").digest(&digest).say(")"),
        None => Words::default().digest(&digest),
    }
}

fn tool(scope: &mut Scope<'_>, before: &ToolRule, after: &ToolRule) {
    let at = at(&before.name);
    if before.required != after.required {
        let effect = Effect::of(before.required, after.required);
        let words = title(before).say(if after.required {
            ": a node without it is denied"
        } else {
            ": a node may be without it"
        });
        let values = (vec![before.required.to_string()], vec![after.required.to_string()]);
        scope.add(Kind::Tool, &at, effect, words, values);
    }
    let has = |rule: &ToolRule, digest: &Digest| rule.accept.iter().any(|it| it.digest == *digest);
    let gone: Vec<_> = before.accept.iter().filter(|it| !has(after, &it.digest)).collect();
    let fresh: Vec<_> = after.accept.iter().filter(|it| !has(before, &it.digest)).collect();
    let value = |tool: &AcceptedTool| vec![tool.digest.to_string()];
    let pairs = gone.len().min(fresh.len());
    for (old, new) in gone.iter().zip(&fresh) {
        let words = title(before).say(": ").then(change(old, new));
        scope.add(Kind::Tool, &at, Effect::Both, words, (value(old), value(new)));
    }
    for old in gone.iter().skip(pairs) {
        let words =
            title(before).say(": ").then(state(old)).say(format!(" {}", scope.sides.removed()));
        scope.add(Kind::Tool, &at, Effect::Narrows, words, (value(old), Vec::new()));
    }
    for new in fresh.iter().skip(pairs) {
        let words =
            title(before).say(": ").then(state(new)).say(format!(" {}", scope.sides.added()));
        let near = before.accept.iter().map(|old| files(old, new)).find(|words| !words.is_empty());
        let words = words.then(near.unwrap_or_default());
        scope.add(Kind::Tool, &at, Effect::Widens, words, (Vec::new(), value(new)));
    }
    for old in before.accept.iter().filter(|old| !after.accept.contains(old)) {
        if has(after, &old.digest) {
            let words = title(before).say(": ").then(state(old));
            let words = words.say(" is described otherwise (version, package, origin or files)");
            scope.add(Kind::Tool, &at, Effect::Neither, words, (value(old), value(old)));
        }
    }
}

/// `12.2.0 → 12.2.1, 3 files differ: /usr/bin/gcc-12, …`
fn change(old: &AcceptedTool, new: &AcceptedTool) -> Words {
    let words = match (&old.version, &new.version) {
        (Some(was), Some(is)) if was != is => Words::default().plain(was).say(" → ").plain(is),
        (Some(version), Some(_)) => Words::default().plain(version).say(" in another build"),
        _ => state(old).say(" → ").then(state(new)),
    };
    words.then(files(old, new))
}

/// Files that differ; nothing where those of one side are not known.
fn files(old: &AcceptedTool, new: &AcceptedTool) -> Words {
    if old.files.is_empty() || new.files.is_empty() {
        return Words::default();
    }
    let paths: BTreeSet<&String> = old.files.keys().chain(new.files.keys()).collect();
    let differ: Vec<Words> = paths
        .into_iter()
        .filter(|path| old.files.get(*path) != new.files.get(*path))
        .map(|path| {
            let more = match (old.files.contains_key(path), new.files.contains_key(path)) {
                (true, false) => " (gone)",
                (false, true) => " (new)",
                _ => "",
            };
            Words::default().plain(path).say(more)
        })
        .collect();
    let words = match differ.len() {
        0 => ", no listed file differs".to_owned(),
        1 => ", 1 file differs: ".to_owned(),
        many => format!(", {many} files differ: "),
    };
    Words::new(words).then(Words::joined(differ, ", ", MAX_FILES))
}

/// Closed, denied digests, and what firmware may leave in the tool PCR.
///
/// `has_parts`: other documents are judged together with this one, and may name starts of their own.
pub(super) fn set(
    scope: &mut Scope<'_>,
    before: &ToolSetRules,
    after: &ToolSetRules,
    has_parts: bool,
) {
    if before.closed != after.closed {
        let effect = Effect::of(before.closed, after.closed);
        let words = Words::new(if after.closed {
            "tools that the set does not name are refused"
        } else {
            "tools that the set does not name are accepted"
        });
        let values = (vec![before.closed.to_string()], vec![after.closed.to_string()]);
        scope.add(Kind::ToolSet, "tools.closed", effect, words, values);
    }
    let sets = |old: &[Digest], new: &[Digest]| -> (BTreeSet<Digest>, BTreeSet<Digest>) {
        (old.iter().copied().collect(), new.iter().copied().collect())
    };
    let (old, new) = sets(&before.deny, &after.deny);
    for digest in old.symmetric_difference(&new) {
        let is_added = new.contains(digest);
        let verb = if is_added { "denied" } else { "no longer denied" };
        let words = Words::new("tool digest ").digest(&digest.to_string()).say(format!(" {verb}"));
        one(scope, "tools.deny", Effect::of_rule(is_added), words, *digest, is_added);
    }
    let (old, new) = sets(&before.start, &after.start);
    let begins_or_ends = old.is_empty() != new.is_empty();
    for digest in old.symmetric_difference(&new) {
        let is_added = new.contains(digest);
        // Alone, an empty list accepts the reset value only. Beside a part that has a list, it says nothing.
        let effect = if begins_or_ends && has_parts {
            Effect::Both
        } else {
            Effect::of(is_added, !is_added)
        };
        let verb = if is_added { "accepted" } else { "no longer accepted" };
        let words = Words::new("start of the tool PCR ").digest(&digest.to_string());
        one(scope, "tools.start", effect, words.say(format!(" {verb}")), *digest, is_added);
    }
}

fn one(
    scope: &mut Scope<'_>,
    at: &str,
    effect: Effect,
    words: Words,
    digest: Digest,
    is_added: bool,
) {
    let value = vec![digest.to_string()];
    let values = if is_added { (Vec::new(), value) } else { (value, Vec::new()) };
    scope.add(Kind::ToolSet, at, effect, words, values);
}
