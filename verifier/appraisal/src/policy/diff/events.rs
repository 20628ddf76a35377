//! PCRs that are judged event by event.

use std::collections::BTreeMap;

use proto::digest::HashAlg;

use super::{Effect, Kind, Words, pcr::title, scope::Scope};
use crate::policy::document::{AcceptedEvent, EventRule, PcrRule, RulesOf};

type Key = (HashAlg, u8);

/// What a rule says of one event.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Event<'d> {
    what: Option<&'d str>,
    required: bool,
}

struct Rule<'d> {
    why: Option<&'d str>,
    events: BTreeMap<String, Event<'d>>,
}

pub(super) fn compare(scope: &mut Scope<'_>, before: RulesOf<'_>, after: RulesOf<'_>) {
    let (old, new) = (by_pcr(before.events), by_pcr(after.events));
    for (key, was) in &old {
        match new.get(key) {
            Some(is) => rule(scope, *key, was, is),
            None if is_by_value(after.pcr, *key) => {}
            None => whole(scope, *key, was, false),
        }
    }
    for (key, is) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
        if !is_by_value(before.pcr, *key) {
            whole(scope, *key, is, true);
        }
    }
}

/// Then [`super::pcr`] told of it.
fn is_by_value(rules: &[PcrRule], key: Key) -> bool {
    rules.iter().any(|rule| (rule.bank, rule.index) == key)
}

fn by_pcr(rules: &[EventRule]) -> BTreeMap<Key, Rule<'_>> {
    let mut out: BTreeMap<Key, Rule<'_>> = BTreeMap::new();
    for rule in rules {
        let known = out
            .entry((rule.bank, rule.index))
            .or_insert_with(|| Rule { why: rule.why.as_deref(), events: BTreeMap::new() });
        for event in &rule.accept {
            known.events.entry(event.digest.to_ascii_lowercase()).or_insert(Event::NEW).take(event);
        }
    }
    out
}

impl<'d> Event<'d> {
    const NEW: Self = Self { what: None, required: false };

    /// An event that stands twice is required if it is so once: as rules are compiled.
    fn take(&mut self, event: &'d AcceptedEvent) {
        self.what = event.what.as_deref();
        self.required |= event.required;
    }
}

fn at((bank, index): Key) -> String {
    format!("events.{bank}.{index}")
}

fn whole(scope: &mut Scope<'_>, key: Key, rule: &Rule<'_>, is_added: bool) {
    let verb = if is_added { "judged event by event" } else { "no longer judged event by event" };
    let text = format!("{}: {verb} ({} events listed)", title(key), rule.events.len());
    let values = rule.events.keys().cloned().collect();
    let values = if is_added { (Vec::new(), values) } else { (values, Vec::new()) };
    scope.add(Kind::EventRule, &at(key), Effect::of_rule(is_added), Words::new(text), values);
}

/// Events that are gone, and the new one that is called the same: another initrd, another entry.
fn replaced<'r>(before: &'r Rule<'_>, after: &'r Rule<'_>) -> BTreeMap<&'r String, &'r str> {
    let mut fresh: Vec<(&String, &Event<'_>)> =
        after.events.iter().filter(|(digest, _)| !before.events.contains_key(*digest)).collect();
    let gone = before.events.iter().filter(|(digest, _)| !after.events.contains_key(*digest));
    gone.filter_map(|(digest, was)| {
        let same = |(_, is): &(&String, &Event<'_>)| is.what.is_some() && *is == was;
        let at = fresh.iter().position(same)?;
        Some((digest, fresh.remove(at).0.as_str()))
    })
    .collect()
}

fn rule(scope: &mut Scope<'_>, key: Key, before: &Rule<'_>, after: &Rule<'_>) {
    let title = title(key);
    let named = |digest: &str, event: &Event<'_>| {
        Words::new(format!("{title}: event ")).named(digest, event.what)
    };
    let replaced = replaced(before, after);
    for (digest, was) in &before.events {
        let words = named(digest, was);
        let one = || vec![digest.clone()];
        match after.events.get(digest) {
            None if replaced.contains_key(digest) => {
                let new = replaced.get(digest).copied().unwrap_or_default();
                let words = words.say(scope.sides.instead()).digest(new);
                let values = (one(), vec![new.to_owned()]);
                scope.add(Kind::EventRule, &at(key), Effect::Both, words, values);
            }
            None => {
                // Whoever had to have it may not have it now.
                let effect = Effect::of(was.required, true);
                let words = words.say(format!(" {}", scope.sides.removed()));
                scope.add(Kind::EventRule, &at(key), effect, words, (one(), Vec::new()));
            }
            Some(is) if is.required != was.required => {
                let verb = if is.required { " is required now" } else { " is no longer required" };
                let effect = Effect::of(was.required, is.required);
                scope.add(Kind::EventRule, &at(key), effect, words.say(verb), (one(), one()));
            }
            Some(is) if is.what != was.what => {
                let words = words.say(" is called ").quote(is.what.unwrap_or(""));
                scope.add(Kind::EventRule, &at(key), Effect::Neither, words, (one(), one()));
            }
            Some(_) => {}
        }
    }
    let is_told = |digest: &String| {
        before.events.contains_key(digest) || replaced.values().any(|new| new == digest)
    };
    for (digest, is) in after.events.iter().filter(|(digest, _)| !is_told(digest)) {
        let must = if is.required { ", and required" } else { "" };
        let words = named(digest, is).say(format!(" {}{must}", scope.sides.added()));
        let effect = Effect::of(true, is.required);
        scope.add(Kind::EventRule, &at(key), effect, words, (Vec::new(), vec![digest.clone()]));
    }
    if before.why != after.why {
        let words = Words::new(format!("{title}: why it is judged event by event was reworded"));
        let text = |why: Option<&str>| why.iter().map(|why| (*why).to_owned()).collect();
        let values = (text(before.why), text(after.why));
        scope.add(Kind::EventRule, &at(key), Effect::Neither, words, values);
    }
}
