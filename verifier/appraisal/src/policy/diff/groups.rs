//! Alternatives: compared by name.

use super::{Effect, Kind, Words, pcr::title, rules, scope::Scope};
use crate::policy::document::{Group, RulesOf};

/// Rules of a group that words name.
const MAX_NAMED: usize = 5;

pub(super) fn compare<'s>(scope: &mut Scope<'s>, before: &'s [Group], after: &'s [Group]) {
    let find = |groups: &'s [Group], name: &str| groups.iter().find(|group| group.name == name);
    let mut fresh: Vec<&Group> =
        after.iter().filter(|group| find(before, &group.name).is_none()).collect();
    for old in before {
        if let Some(new) = find(after, &old.name) {
            let sides = scope.sides;
            let found = &mut *scope.found;
            let mut inner = Scope { sides, group: Some(&old.name), found };
            rules(&mut inner, old.rules(), new.rules(), false);
            described(&mut inner, old, new);
            continue;
        }
        let renamed = fresh.iter().position(|new| is_renamed(old, new));
        if let Some(at) = renamed {
            let new = fresh.remove(at);
            let words = Words::new("group ").quote(&old.name).say(" is called ").quote(&new.name);
            let words = words.say(", with the same rules");
            let values = (vec![old.name.clone()], vec![new.name.clone()]);
            scope.add(Kind::Group, "group", Effect::Neither, words, values);
            continue;
        }
        whole(scope, old, false, after.is_empty());
    }
    for new in fresh {
        whole(scope, new, true, before.is_empty());
    }
}

/// The first group restricts the set, each further one is one more way to be accepted; `is_alone`: the other side has none.
fn whole(scope: &mut Scope<'_>, group: &Group, is_added: bool, is_alone: bool) {
    let effect = Effect::of(is_added != is_alone, is_added == is_alone);
    let verb = if is_added { "added" } else { "removed" };
    let words = Words::new("group ").quote(&group.name).say(format!(" {verb}: "));
    let words = words.then(about(group.rules()));
    let words = match (is_alone, is_added) {
        (false, _) => words,
        (true, true) => words.say("; until now the set accepted nodes of no group"),
        (true, false) => words.say("; the set has no groups any more, its own rules are enough"),
    };
    let value = vec![group.name.clone()];
    let values = if is_added { (Vec::new(), value) } else { (value, Vec::new()) };
    scope.add(Kind::Group, "group", effect, words, values);
}

fn is_renamed(old: &Group, new: &Group) -> bool {
    let bare = |group: &Group| Group { name: String::new(), description: None, ..group.clone() };
    bare(old) == bare(new)
}

fn described(scope: &mut Scope<'_>, old: &Group, new: &Group) {
    if old.description != new.description {
        let text = |group: &Group| group.description.clone().unwrap_or_default();
        let words = Words::new("description: ").quote(&text(old)).say(" → ").quote(&text(new));
        let values = (vec![text(old)], vec![text(new)]);
        scope.add(Kind::Description, "description", Effect::Neither, words, values);
    }
}

/// What a group's rules are about, one line.
pub(in crate::policy) fn summary(rules: RulesOf<'_>) -> String {
    about(rules).to_string()
}

fn about(rules: RulesOf<'_>) -> Words {
    Words::joined(subjects(rules), ", ", MAX_NAMED)
}

fn subjects(rules: RulesOf<'_>) -> Vec<Words> {
    let mut out = Vec::new();
    for application in &rules.boot.applications {
        out.push(Words::new("boot application ").then(super::list::named(application)));
    }
    for tool in rules.tool {
        let version = tool.accept.iter().find_map(|state| state.version.as_deref());
        let words = Words::new("tool ").plain(&tool.name);
        out.push(match version {
            Some(version) => words.say(" ").plain(version),
            None => words,
        });
    }
    for pcr in rules.pcr {
        let words = Words::new(format!("{} = ", title((pcr.bank, pcr.index))));
        let values = pcr.accept.iter().map(|value| Words::default().digest(&value.value));
        out.push(words.then(Words::joined(values.collect(), " or ", 2)));
    }
    for rule in rules.events {
        out.push(Words::new(format!("{} event by event", title((rule.bank, rule.index)))));
    }
    let others = [
        (rules.boot.secure_boot.is_some(), "Secure Boot"),
        (!rules.boot.command_lines.is_empty(), "kernel command lines"),
        (!rules.boot.sections.is_empty(), "sections of the kernel image"),
        (rules.ima.is_some(), "the IMA list"),
    ];
    out.extend(others.iter().filter(|(is_there, _)| *is_there).map(|(_, what)| Words::new(*what)));
    out
}
