//! Rules about what booted: what the new artifact adds to them.

use proto::{digest::HashAlg, eventlog::LogDigest};

use super::{
    BaseRules, Subject,
    measured::{Measured, Role},
    replace::STUB_PAYLOAD,
};
use crate::policy::document::{AcceptedCommandLine, AcceptedDigest, BootRules, SectionRule};

/// Algorithms of the digests in these rules that may be appraised.
pub(super) fn algorithms(boot: &BootRules) -> impl Iterator<Item = HashAlg> {
    let lines = boot.command_lines.iter().filter_map(digest_of_line);
    let sections = boot.sections.iter().flat_map(|rule| &rule.accept);
    boot.applications
        .iter()
        .chain(lines)
        .chain(sections)
        .filter_map(|accepted| alg(&accepted.digest))
}

fn alg(digest: &LogDigest) -> Option<HashAlg> {
    HashAlg::from_tpm(digest.alg().tpm_id())
}

const fn digest_of_line(line: &AcceptedCommandLine) -> Option<&AcceptedDigest> {
    match line {
        AcceptedCommandLine::Digest(accepted) => Some(accepted),
        AcceptedCommandLine::Text { .. } | AcceptedCommandLine::Pattern { .. } => None,
    }
}

/// The one algorithm that a list is in: facts have one.
fn alg_of<'a>(accepted: impl IntoIterator<Item = &'a AcceptedDigest>) -> Option<HashAlg> {
    accepted.into_iter().find_map(|accepted| alg(&accepted.digest))
}

/// What changes in rules about what booted.
pub(super) struct BootChange {
    /// Entries that the base has not.
    pub(super) boot: BootRules,
    /// Entries that they take the place of.
    pub(super) replaced: BootRules,
}

/// What changes in the rules of a base. A list that is empty there stays so: it is not judged, and one entry would make it
/// so.
pub(super) fn boot_rules(
    base: &BaseRules<'_>,
    old: Option<&Subject>,
    new: &Subject,
    notes: &mut Vec<String>,
) -> BootChange {
    let (applications, old_applications) = applications(&base.boot.applications, old, new);
    let (command_lines, old_lines) = command_lines(&base.boot.command_lines, old, new, notes);
    let (sections, old_sections) = sections(&base.boot.sections, old, new, notes);
    BootChange {
        boot: BootRules { applications, command_lines, sections, ..BootRules::default() },
        replaced: BootRules {
            applications: old_applications,
            command_lines: old_lines,
            sections: old_sections,
            ..BootRules::default()
        },
    }
}

const fn is_image(role: Role) -> bool {
    matches!(role, Role::Application(_) | Role::InnerKernel)
}

/// New entries, and those whose place they take.
fn applications(
    base: &[AcceptedDigest],
    old: Option<&Subject>,
    new: &Subject,
) -> (Vec<AcceptedDigest>, Vec<AcceptedDigest>) {
    let Some(alg) = alg_of(base) else { return Default::default() };
    let digest =
        |event: &Measured| -> Option<LogDigest> { event.digest(alg).ok()?.map(LogDigest::from) };
    let listed = |digest: LogDigest| base.iter().find(|accepted| accepted.digest == digest);
    let of_old = |role: Role| {
        old?.events.iter().find(|event| event.role == role).and_then(digest).and_then(listed)
    };
    let (mut added, mut replaced, mut images) = (Vec::new(), Vec::new(), Vec::new());
    for event in new.events.iter().filter(|event| is_image(event.role)) {
        let Some(digest) = digest(event) else { continue };
        let place = match old {
            Some(_) => of_old(event.role),
            None => only(base, event.role == Role::InnerKernel),
        };
        // The kernel inside is measured on some machines only: those where the old one was.
        if event.role == Role::InnerKernel && place.is_none() {
            continue;
        }
        images.push(digest);
        replaced.extend(place.cloned());
        if base.iter().chain(&added).all(|known| known.digest != digest) {
            let what = place.and_then(|replaced| replaced.what.clone());
            added.push(AcceptedDigest { digest, what: what.or_else(|| Some(new.label.clone())) });
        }
    }
    // What the new artifact has no counterpart of.
    let lost = old.into_iter().flat_map(|old| &old.events).filter(|event| is_image(event.role));
    let lost = lost.filter(|old| new.events.iter().all(|new| new.role != old.role));
    replaced.extend(lost.filter_map(digest).filter_map(listed).cloned());
    replaced.retain(|replaced| !images.contains(&replaced.digest));
    (added, replaced)
}

/// The one entry that is the kernel inside of an image, or the one that is not.
fn only(base: &[AcceptedDigest], is_inner: bool) -> Option<&AcceptedDigest> {
    let is_payload = |what: &String| what.contains(STUB_PAYLOAD);
    let mut found =
        base.iter().filter(|accepted| accepted.what.as_ref().is_some_and(is_payload) == is_inner);
    let first = found.next();
    first.filter(|_| found.next().is_none())
}

/// The line that the base lacks, and those whose place it takes: the old artifact's. Others are of other machines.
fn command_lines(
    base: &[AcceptedCommandLine],
    old: Option<&Subject>,
    new: &Subject,
    notes: &mut Vec<String>,
) -> (Vec<AcceptedCommandLine>, Vec<AcceptedCommandLine>) {
    let alg = alg_of(base.iter().filter_map(digest_of_line));
    let section = new.events.iter().find(|event| event.role == Role::Section(".cmdline"));
    let line = match (section, alg, &new.command_line) {
        (Some(section), Some(alg), text) => {
            let Ok(Some(digest)) = section.digest(alg) else { return Default::default() };
            AcceptedCommandLine::Digest(AcceptedDigest {
                digest: digest.into(),
                what: text.clone(),
            })
        }
        // Without sections only text that a boot loader measured into PCR 12 is judged.
        (None, _, Some(text)) if !base.is_empty() => {
            AcceptedCommandLine::Text { text: text.clone() }
        }
        _ => return Default::default(),
    };
    let is_known = base.iter().any(|known| is_same_line(known, &line));
    let others = base.iter().filter(|known| !is_same_line(known, &line));
    let replaced: Vec<AcceptedCommandLine> = match old {
        Some(old) => others.filter(|known| is_line_of(old, known)).cloned().collect(),
        None if is_known => Vec::new(),
        None => {
            let is_digest = digest_of_line(&line).is_some();
            let of_its_kind: Vec<_> = others
                .filter(|known| match known {
                    AcceptedCommandLine::Digest(_) => is_digest,
                    AcceptedCommandLine::Text { .. } => !is_digest,
                    AcceptedCommandLine::Pattern { .. } => false,
                })
                .collect();
            match of_its_kind.as_slice() {
                [one] => vec![(*one).clone()],
                [] => Vec::new(),
                _ => {
                    notes.push(stays("command_lines"));
                    Vec::new()
                }
            }
        }
    };
    (if is_known { Vec::new() } else { vec![line] }, replaced)
}

/// Whether they accept the same line; what people read beside it does not matter.
pub(super) fn is_same_line(a: &AcceptedCommandLine, b: &AcceptedCommandLine) -> bool {
    match (digest_of_line(a), digest_of_line(b)) {
        (Some(a), Some(b)) => a.digest == b.digest,
        _ => a == b,
    }
}

/// Whether an entry is the artifact's line.
fn is_line_of(old: &Subject, line: &AcceptedCommandLine) -> bool {
    match line {
        AcceptedCommandLine::Text { text } => old.command_line.as_ref() == Some(text),
        AcceptedCommandLine::Pattern { .. } => false,
        AcceptedCommandLine::Digest(accepted) => {
            let is_line = |event: &&Measured| {
                [Role::Section(".cmdline"), Role::Options].contains(&event.role)
            };
            let mut lines = old.events.iter().filter(is_line);
            lines.any(|event| is_event(event, &accepted.digest))
        }
    }
}

fn is_event(event: &Measured, digest: &LogDigest) -> bool {
    let Some(alg) = alg(digest) else { return false };
    matches!(event.digest(alg), Ok(Some(found)) if LogDigest::from(found) == *digest)
}

fn stays(list: &str) -> String {
    format!(
        "boot.{list}: which entry is the old artifact's is not known, and all stay: give the old artifact, or remove it."
    )
}

/// New contents of sections, and those whose place they take.
fn sections(
    base: &[SectionRule],
    old: Option<&Subject>,
    new: &Subject,
    notes: &mut Vec<String>,
) -> (Vec<SectionRule>, Vec<SectionRule>) {
    let (mut added, mut replaced) = (Vec::new(), Vec::new());
    for rule in base {
        let is_it =
            |event: &&Measured| matches!(event.role, Role::Section(name) if name == rule.name);
        let Some(event) = new.events.iter().find(is_it) else { continue };
        let Some(Ok(Some(digest))) = alg_of(&rule.accept).map(|alg| event.digest(alg)) else {
            continue;
        };
        let digest = LogDigest::from(digest);
        let is_known = rule.accept.iter().any(|known| known.digest == digest);
        let others = rule.accept.iter().filter(|known| known.digest != digest);
        let gone: Vec<AcceptedDigest> = match old {
            Some(old) => {
                let of_old: Vec<_> = old.events.iter().filter(is_it).collect();
                let is_old = |known: &&AcceptedDigest| {
                    of_old.iter().any(|event| is_event(event, &known.digest))
                };
                others.filter(is_old).cloned().collect()
            }
            None if is_known => Vec::new(),
            None if rule.accept.len() > 1 => {
                notes.push(stays(&format!("sections ({})", rule.name)));
                Vec::new()
            }
            None => others.cloned().collect(),
        };
        let rule = |accept| SectionRule { name: rule.name.clone(), accept };
        if !is_known {
            added.push(rule(vec![AcceptedDigest { digest, what: Some(new.label.clone()) }]));
        }
        if !gone.is_empty() {
            replaced.push(rule(gone));
        }
    }
    (added, replaced)
}
