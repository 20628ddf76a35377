//! PCR values, with the first recorded event that differs.

use std::collections::BTreeMap;

use proto::digest::HashAlg;

use super::{
    Effect, Kind, Sides, Words,
    scope::{Scope, Values},
};
use crate::policy::document::{AcceptedValue, EventRule, PcrRule, RecordedEvent, RulesOf};

/// Accepted values of one PCR that words name.
const MAX_NAMED: usize = 4;

type Key = (HashAlg, u8);
/// Accepted values by what is compared: hexadecimal in lower case.
type Accepted<'d> = BTreeMap<String, &'d AcceptedValue>;

/// `PCR 4`, and its bank where that is not the usual one.
pub(in crate::policy) fn title((bank, index): Key) -> String {
    if bank == HashAlg::Sha256 { format!("PCR {index}") } else { format!("PCR {index} ({bank})") }
}

/// PCRs that are judged by value on one side and by event on the other are told here, once.
pub(super) fn compare(scope: &mut Scope<'_>, before: RulesOf<'_>, after: RulesOf<'_>) {
    let (old, new) = (by_pcr(before.pcr), by_pcr(after.pcr));
    for (key, accepted) in &old {
        match (new.get(key), event_rule(after.events, *key)) {
            (Some(now), _) => values_of(scope, *key, accepted, now),
            (None, Some(rule)) => {
                let events = rule.accept.len();
                let text = format!(
                    "{}: judged event by event ({events} events listed), no longer by value",
                    title(*key)
                );
                let words = Words::new(text);
                let values = (accepted.keys().cloned().collect(), events_of(rule));
                scope.add(Kind::Pcr, &at(*key), Effect::Both, words, values);
            }
            (None, None) => rule(scope, *key, accepted, false),
        }
    }
    for (key, accepted) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
        match event_rule(before.events, *key) {
            Some(rule) => {
                let text = format!("{}: judged by value, no longer event by event", title(*key));
                let values = (events_of(rule), accepted.keys().cloned().collect());
                scope.add(Kind::Pcr, &at(*key), Effect::Both, Words::new(text), values);
            }
            None => rule(scope, *key, accepted, true),
        }
    }
}

fn by_pcr(rules: &[PcrRule]) -> BTreeMap<Key, Accepted<'_>> {
    let mut out: BTreeMap<Key, Accepted<'_>> = BTreeMap::new();
    for rule in rules {
        let values = rule.accept.iter().map(|value| (value.value.to_ascii_lowercase(), value));
        out.entry((rule.bank, rule.index)).or_default().extend(values);
    }
    out
}

fn event_rule(rules: &[EventRule], key: Key) -> Option<&EventRule> {
    rules.iter().find(|rule| (rule.bank, rule.index) == key)
}

fn events_of(rule: &EventRule) -> Values {
    rule.accept.iter().map(|event| event.digest.to_ascii_lowercase()).collect()
}

fn at((bank, index): Key) -> String {
    format!("pcr.{bank}.{index}")
}

/// A rule that one side alone has.
fn rule(scope: &mut Scope<'_>, key: Key, accepted: &Accepted<'_>, is_added: bool) {
    let named = accepted.keys().map(|value| Words::default().digest(value)).collect();
    let verb = match (scope.sides, is_added) {
        (_, true) => "judged by value: ",
        (Sides::Sets, false) => "no longer judged; accepted were: ",
        (Sides::SetAndNode, false) => "the node has no value; the set accepts ",
    };
    let words = Words::new(format!("{}: {verb}", title(key)));
    let words = words.then(Words::joined(named, " or ", MAX_NAMED));
    let values: Values = accepted.keys().cloned().collect();
    let values = if is_added { (Vec::new(), values) } else { (values, Vec::new()) };
    scope.add(Kind::Pcr, &at(key), Effect::of_rule(is_added), words, values);
}

fn values_of(scope: &mut Scope<'_>, key: Key, before: &Accepted<'_>, after: &Accepted<'_>) {
    let gone: Vec<_> = before.iter().filter(|(value, _)| !after.contains_key(*value)).collect();
    let mut fresh: Vec<_> =
        after.iter().filter(|(value, _)| !before.contains_key(*value)).collect();
    let title = title(key);
    for (value, old) in gone {
        let words = Words::new(format!("{title}: ")).digest(value);
        let nearest = (0..fresh.len())
            .rev()
            .max_by_key(|at| fresh.get(*at).map(|(_, new)| common(&old.events, &new.events)));
        let Some(nearest) = nearest else {
            let words = words.say(format!(" {}", scope.sides.removed()));
            let values = (vec![value.clone()], Vec::new());
            scope.add(Kind::Pcr, &at(key), Effect::Narrows, words, values);
            continue;
        };
        let (other, new) = fresh.remove(nearest);
        let words = words.say(scope.sides.instead()).digest(other);
        let words = words.then(first_difference(&old.events, &new.events));
        let values = (vec![value.clone()], vec![other.clone()]);
        scope.add(Kind::Pcr, &at(key), Effect::Both, words, values);
    }
    for (value, new) in fresh {
        // Beside an accepted boot that is near, what differs is told too.
        let near = before.values().max_by_key(|old| common(&old.events, &new.events));
        let words = Words::new(format!("{title}: ")).digest(value);
        let words = words.say(format!(" {}", scope.sides.added()));
        let words = match near {
            Some(old) => words.then(first_difference(&old.events, &new.events)),
            None => words,
        };
        scope.add(Kind::Pcr, &at(key), Effect::Widens, words, (Vec::new(), vec![value.clone()]));
    }
    for (value, old) in before {
        if let Some(new) =
            after.get(value).filter(|new| ***new != **old && told_otherwise(old, new))
        {
            let words = Words::new(format!("{title}: ")).digest(value);
            let words = words.say(" says otherwise where it comes from");
            let values = (origin(old), origin(new));
            scope.add(Kind::Pcr, &at(key), Effect::Neither, words, values);
        }
    }
}

/// Whether more than the spelling of the value differs.
fn told_otherwise(old: &AcceptedValue, new: &AcceptedValue) -> bool {
    AcceptedValue { value: String::new(), ..old.clone() }
        != AcceptedValue { value: String::new(), ..new.clone() }
}

fn origin(value: &AcceptedValue) -> Values {
    let told = [("from", &value.from), ("by", &value.by), ("at", &value.at)];
    let told =
        told.into_iter().filter_map(|(key, text)| Some(format!("{key}: {}", text.as_ref()?)));
    told.chain([format!("{} recorded events", value.events.len())]).collect()
}

/// Events at the start that both have.
fn common(old: &[RecordedEvent], new: &[RecordedEvent]) -> usize {
    let is_same = |(old, new): &(&RecordedEvent, &RecordedEvent)| {
        old.digest.eq_ignore_ascii_case(&new.digest)
    };
    old.iter().zip(new).take_while(is_same).count()
}

/// `; the 3rd event differs: boot application …`; nothing where the events of one side are not known.
fn first_difference(old: &[RecordedEvent], new: &[RecordedEvent]) -> Words {
    if old.is_empty() || new.is_empty() {
        return Words::default();
    }
    let at = common(old, new);
    let nth = nth(at.saturating_add(1));
    match (old.get(at), new.get(at)) {
        (Some(was), Some(is)) if was.what == is.what => {
            Words::new(format!("; the {nth} event differs: "))
                .plain(told(is))
                .say(", of other content")
        }
        (Some(was), Some(is)) => {
            let words = Words::new(format!("; the {nth} event differs: ")).plain(told(was));
            words.say(" → ").plain(told(is))
        }
        (Some(was), None) => Words::new(format!("; the {nth} event is missing: ")).plain(told(was)),
        (None, Some(is)) => Words::new(format!("; the {nth} event is new: ")).plain(told(is)),
        (None, None) => Words::new("; the recorded events are the same"),
    }
}

fn told(event: &RecordedEvent) -> &str {
    if event.what.is_empty() { "an event without words" } else { &event.what }
}

fn nth(n: usize) -> String {
    let ending = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{ending}")
}
