//! Which TPMs are accepted.

use std::collections::{BTreeMap, BTreeSet};

use super::{Effect, Kind, Words, scope::Scope};
use crate::policy::{
    document::TpmRules,
    rules::{canonical_id, hexadecimal},
};

/// Floors by manufacturer.
type Floors = BTreeMap<String, Floor>;

/// A floor, in the order of what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Floor {
    /// Least firmware version.
    Number(u64),
    /// No number: refused where the set is checked, so that it accepts no TPM at all.
    Text(String),
}

impl Floor {
    fn of(text: &str) -> Self {
        hexadecimal(text).map_or_else(|| Self::Text(text.to_ascii_lowercase()), Self::Number)
    }

    fn shown(&self) -> String {
        match self {
            Self::Number(number) => format!("{number:016x}"),
            Self::Text(text) => text.clone(),
        }
    }
}

pub(super) fn compare(scope: &mut Scope<'_>, before: &TpmRules, after: &TpmRules) {
    manufacturers(scope, before, after);
    floors(scope, floors_of(before), floors_of(after));
    if before.require_safe_clock != after.require_safe_clock {
        let is_demanded = after.require_safe_clock;
        let words = if is_demanded {
            "TPM: quotes with a clock that is not safe are refused"
        } else {
            "TPM: quotes with a clock that is not safe are accepted"
        };
        let values = (vec![(!is_demanded).to_string()], vec![is_demanded.to_string()]);
        let effect = Effect::of_rule(is_demanded);
        scope.add(Kind::Tpm, "tpm.require_safe_clock", effect, Words::new(words), values);
    }
}

fn manufacturers(scope: &mut Scope<'_>, before: &TpmRules, after: &TpmRules) {
    let of = |rules: &TpmRules| -> BTreeSet<String> {
        rules.manufacturers.iter().map(|id| canonical_id(id)).collect()
    };
    let (old, new) = (of(before), of(after));
    let emptiness = scope.emptiness(old.is_empty(), new.is_empty());
    for id in old.symmetric_difference(&new) {
        let is_added = new.contains(id);
        let effect = Effect::of_list(emptiness, !is_added, is_added);
        let verb = match (emptiness.0 != emptiness.1, is_added) {
            (true, true) => ": no longer any manufacturer, but this",
            (true, false) => " removed: any manufacturer is accepted",
            (false, true) => " accepted",
            (false, false) => " no longer accepted",
        };
        let words = Words::new("TPM manufacturer ").quote(id).then(maker(id)).say(verb);
        let value = vec![id.clone()];
        let values = if is_added { (Vec::new(), value) } else { (value, Vec::new()) };
        scope.add(Kind::Tpm, "tpm.manufacturers", effect, words, values);
    }
}

/// `id:49465800` is four letters: ` (IFX)`.
fn maker(id: &str) -> Words {
    let bytes = id.strip_prefix("id:").and_then(|hex| hex::decode(hex).ok()).unwrap_or_default();
    let letters: String = bytes
        .into_iter()
        .filter(|byte| *byte != 0)
        .map(char::from)
        .take_while(char::is_ascii_graphic)
        .collect();
    if letters.is_empty() { Words::default() } else { Words::new(" (").plain(&letters).say(")") }
}

fn floors_of(rules: &TpmRules) -> Floors {
    let floors = rules.firmware_floor.iter();
    floors.map(|(id, floor)| (canonical_id(id), Floor::of(floor))).collect()
}

/// One manufacturer after the other, because each change is judged beside the floors that the others have by then.
fn floors(scope: &mut Scope<'_>, before: Floors, after: Floors) {
    let ids: BTreeSet<String> = before.keys().chain(after.keys()).cloned().collect();
    let mut now = before;
    for id in ids {
        let was = now.clone();
        match after.get(&id) {
            Some(floor) => now.insert(id.clone(), floor.clone()),
            None => now.remove(&id),
        };
        if was == now {
            continue;
        }
        let who = if id == "*" {
            Words::new("TPM firmware of any manufacturer without a floor of its own: ")
        } else {
            Words::new("TPM firmware of ").quote(&id).then(maker(&id)).say(": ")
        };
        let side = |floors: &Floors| match floors.get(&id) {
            Some(floor) => Words::new("at least ").plain(&floor.shown()),
            None => Words::new("no floor"),
        };
        let words = who.then(side(&was)).say(" → ").then(side(&now));
        let value = |floors: &Floors| floors.get(&id).map(Floor::shown).into_iter().collect();
        let at = format!("tpm.firmware_floor.{id}");
        scope.add(Kind::Tpm, &at, effect(&was, &now), words, (value(&was), value(&now)));
    }
}

/// What the floors ask of each kind of TPM that they tell apart: of those named, of any other, of those that nobody
/// certified.
fn effect(before: &Floors, after: &Floors) -> Effect {
    let ids: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let named = ids.into_iter().map(|id| (floor(before, id), floor(after, id)));
    let other = (before.get("*"), after.get("*"));
    let uncertified = (unknown(before), unknown(after));
    named
        .chain([other, uncertified])
        .fold(Effect::Neither, |effect, (was, is)| effect | Effect::of(was > is, is > was))
}

fn floor<'f>(floors: &'f Floors, id: &str) -> Option<&'f Floor> {
    floors.get(id).or_else(|| floors.get("*"))
}

fn unknown(floors: &Floors) -> Option<&Floor> {
    floors.get("*").or_else(|| floors.values().max())
}
