//! What must have booted.

use std::collections::BTreeSet;

use super::{
    Effect, Kind, Words, command_line,
    list::{List, Means, digests},
    scope::Scope,
};
use crate::policy::document::{AcceptedDigest, BootRules, SectionRule};

pub(super) fn compare(scope: &mut Scope<'_>, before: &BootRules, after: &BootRules) {
    command_line::compare(scope, &before.command_lines, &after.command_lines);
    let mut list = |kind, at: &str, noun: &str, old: &[_], new: &[_]| {
        accepted(scope, (kind, at, Words::new(noun)), old, new);
    };
    let (kind, at) = (Kind::BootApplication, "boot.applications");
    list(kind, at, "boot application", &before.applications, &after.applications);
    list(Kind::Signer, "boot.signers", "signer of an image", &before.signers, &after.signers);
    let (old, new, kind) = (&before.keys, &after.keys, Kind::SecureBootKey);
    list(kind, "boot.keys.pk", "Secure Boot PK", &old.pk, &new.pk);
    list(kind, "boot.keys.kek", "Secure Boot KEK", &old.kek, &new.kek);
    list(kind, "boot.keys.db", "Secure Boot db", &old.db, &new.db);
    let noun = Words::new("entry that dbx must have");
    // An empty dbx is met by every machine: it needs no rule of its own.
    let (means, emptiness) = (Means::EachOfThem, (false, false));
    let list = List { kind, at: "boot.keys.dbx", noun, means, emptiness };
    digests(scope, &list, &old.dbx, &new.dbx);
    sections(scope, &before.sections, &after.sections);
    secure_boot(scope, before.secure_boot, after.secure_boot);
    log(scope, before, after);
}

/// A list beside which nothing may be there.
fn accepted(
    scope: &mut Scope<'_>,
    (kind, at, noun): (Kind, &str, Words),
    before: &[AcceptedDigest],
    after: &[AcceptedDigest],
) {
    let emptiness = scope.emptiness(before.is_empty(), after.is_empty());
    let list = List { kind, at, noun, means: Means::NothingElse, emptiness };
    digests(scope, &list, before, after);
}

fn secure_boot(scope: &mut Scope<'_>, before: Option<bool>, after: Option<bool>) {
    if before == after {
        return;
    }
    let words = |state: Option<bool>| match state {
        Some(true) => "must be on",
        Some(false) => "must be off",
        None => "not judged",
    };
    let effect = Effect::of(before.is_some(), after.is_some());
    let sides = (words(before), words(after));
    scope.setting(Kind::SecureBoot, "boot.secure_boot", effect, "Secure Boot", sides);
}

/// Whether the log is judged at all, and what of it is tolerated.
fn log(scope: &mut Scope<'_>, before: &BootRules, after: &BootRules) {
    let emptiness = scope.emptiness(before.is_empty(), after.is_empty());
    if emptiness.0 != emptiness.1 {
        let words = if emptiness.0 {
            "the firmware's event log is needed, and its oddities are refused"
        } else {
            "the firmware's event log is no longer needed, and its oddities are accepted"
        };
        let effect = Effect::of_list(emptiness, false, false);
        scope.add(Kind::BootLog, "boot", effect, Words::new(words), (Vec::new(), Vec::new()));
    }
    let (old, new): (BTreeSet<_>, BTreeSet<_>) =
        (before.tolerate.iter().copied().collect(), after.tolerate.iter().copied().collect());
    for code in old.symmetric_difference(&new) {
        let is_added = new.contains(code);
        // Where the log was not judged every oddity was accepted, and where it is not judged any more every one is.
        let effect = match emptiness {
            (false, false) => Effect::of(is_added, !is_added),
            _ => Effect::Neither,
        };
        let verb = if is_added { "tolerated" } else { "no longer tolerated" };
        let words = Words::new(format!("oddity {code} of the log {verb}: {}", code.meaning()));
        let value = vec![code.to_string()];
        let values = if is_added { (Vec::new(), value) } else { (value, Vec::new()) };
        scope.add(Kind::BootLog, "boot.tolerate", effect, words, values);
    }
}

fn sections(scope: &mut Scope<'_>, before: &[SectionRule], after: &[SectionRule]) {
    let names: BTreeSet<&String> =
        before.iter().chain(after).map(|section| &section.name).collect();
    for name in names {
        let noun = match name.as_str() {
            ".linux" => Words::new("kernel (section .linux)"),
            ".initrd" => Words::new("initrd (section .initrd)"),
            ".cmdline" => Words::new("kernel command line (section .cmdline)"),
            _ => Words::new("section ").plain(name),
        };
        let at = format!("boot.sections.{name}");
        let (old, new) = (contents(before, name), contents(after, name));
        accepted(scope, (Kind::Section, &at, noun), &old, &new);
    }
}

fn contents(sections: &[SectionRule], name: &str) -> Vec<AcceptedDigest> {
    let named = sections.iter().filter(|section| section.name == name);
    named.flat_map(|section| section.accept.iter().cloned()).collect()
}
