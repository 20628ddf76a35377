//! The kernel's IMA list.

use std::collections::{BTreeMap, BTreeSet};

use super::{Effect, Kind, Words, scope::Scope};
use crate::{
    ima::{ImaRules, Require},
    policy::document::ImaSection,
};

pub(super) fn compare(
    scope: &mut Scope<'_>,
    before: Option<&ImaSection>,
    after: Option<&ImaSection>,
) {
    match (before, after) {
        (None, None) => {}
        (Some(before), Some(after)) => {
            manifest(scope, before, after);
            keys(scope, before, after);
            rules(scope, &before.rules, &after.rules);
        }
        (before, after) => {
            let is_added = after.is_some();
            let words = if is_added {
                "the kernel's IMA list is judged"
            } else {
                "the kernel's IMA list is no longer judged"
            };
            let value = |section: Option<&ImaSection>| {
                section.and_then(|it| it.manifest).iter().map(ToString::to_string).collect()
            };
            let values = (value(before), value(after));
            scope.add(Kind::Ima, "ima", Effect::of_rule(is_added), Words::new(words), values);
        }
    }
}

fn manifest(scope: &mut Scope<'_>, before: &ImaSection, after: &ImaSection) {
    if before.manifest == after.manifest {
        return;
    }
    let name = |section: &ImaSection| {
        section.manifest.map_or_else(
            || Words::new("none"),
            |digest| Words::default().digest(&digest.to_string()),
        )
    };
    // Beside keys a manifest accepts more, unless a file needs both. What is in it is not known here.
    let is_either =
        before.rules.require == Require::Either && after.rules.require == Require::Either;
    let effect = match (before.manifest, after.manifest) {
        (None, Some(_)) if is_either => Effect::Widens,
        (Some(_), None) if is_either => Effect::Narrows,
        _ => Effect::Both,
    };
    let words = Words::new("IMA manifest ").then(name(before)).say(scope.sides.instead());
    let words = words.then(name(after)).say(": other files may run");
    let value = |section: &ImaSection| section.manifest.iter().map(ToString::to_string).collect();
    scope.add(Kind::Ima, "ima.manifest", effect, words, (value(before), value(after)));
}

fn keys(scope: &mut Scope<'_>, before: &ImaSection, after: &ImaSection) {
    let by_name = |section: &ImaSection| -> BTreeMap<String, String> {
        section.key.iter().map(|key| (key.name.clone(), key.pem.clone())).collect()
    };
    let (old, new) = (by_name(before), by_name(after));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let (was, is) = (old.get(name), new.get(name));
        if was == is {
            continue;
        }
        let verb = match (was, is) {
            (None, _) => " may sign files",
            (_, None) => " may no longer sign files",
            _ => " is another key under the same name",
        };
        let effect = Effect::of(is.is_some(), was.is_some());
        let words = Words::new("IMA key ").quote(name).say(verb);
        let values = (was.cloned().into_iter().collect(), is.cloned().into_iter().collect());
        scope.add(Kind::Ima, "ima.key", effect, words, values);
    }
}

fn rules(scope: &mut Scope<'_>, before: &ImaRules, after: &ImaRules) {
    if before.require != after.require {
        let is_stricter = after.require == Require::Both;
        let words = if is_stricter {
            "IMA: a file has to be signed and in the manifest"
        } else {
            "IMA: a file has to be signed or in the manifest"
        };
        let effect = Effect::of(!is_stricter, is_stricter);
        let word = |rules: &ImaRules| match rules.require {
            Require::Either => vec!["either".to_owned()],
            Require::Both => vec!["both".to_owned()],
        };
        let values = (word(before), word(after));
        scope.add(Kind::Ima, "ima.rules.require", effect, Words::new(words), values);
    }
    for (key, what, was, is, allows) in [
        (
            "bind_paths",
            "files count only at the path of the manifest",
            before.bind_paths,
            after.bind_paths,
            false,
        ),
        (
            "allow_violations",
            "violations are accepted",
            before.allow_violations,
            after.allow_violations,
            true,
        ),
        (
            "allow_padded_sha1",
            "padded SHA-1 digests are accepted",
            before.allow_padded_sha1,
            after.allow_padded_sha1,
            true,
        ),
    ] {
        if was != is {
            let effect = Effect::of(is == allows, is != allows);
            let words =
                Words::new(format!("IMA: {what}: {}", if is { "yes" } else { "no longer" }));
            let values = (vec![was.to_string()], vec![is.to_string()]);
            scope.add(Kind::Ima, &format!("ima.rules.{key}"), effect, words, values);
        }
    }
    let texts = |list: &[String]| -> BTreeSet<String> { list.iter().cloned().collect() };
    let digests = |rules: &ImaRules| -> BTreeSet<String> {
        rules.deny.iter().map(ToString::to_string).collect()
    };
    let excluded = (texts(&before.exclude), texts(&after.exclude));
    entries(scope, ("ima.rules.exclude", "files not judged"), &excluded, Effect::of(true, false));
    let denied = (digests(before), digests(after));
    entries(scope, ("ima.rules.deny", "files denied"), &denied, Effect::of(false, true));
}

/// `of_added`: what one entry more does; one less does the opposite.
fn entries(
    scope: &mut Scope<'_>,
    (at, what): (&str, &str),
    (before, after): &(BTreeSet<String>, BTreeSet<String>),
    of_added: Effect,
) {
    for entry in before.symmetric_difference(after) {
        let is_added = after.contains(entry);
        let effect =
            if is_added { of_added } else { Effect::of(of_added.narrows(), of_added.widens()) };
        let verb = if is_added { scope.sides.added() } else { scope.sides.removed() };
        let words = Words::new(format!("IMA, {what}: ")).quote(entry).say(format!(" {verb}"));
        let value = vec![entry.clone()];
        let values = if is_added { (Vec::new(), value) } else { (value, Vec::new()) };
        scope.add(Kind::Ima, at, effect, words, values);
    }
}
