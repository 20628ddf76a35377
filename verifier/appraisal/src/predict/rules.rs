//! Rules about what booted: what the new artifact adds to them.

use proto::{
    digest::{Digest, HashAlg},
    eventlog::LogDigest,
};

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

/// Entries that the base has not. A list that is empty there stays so: it is not judged, and one entry would make it so.
pub(super) fn boot_rules(
    base: &BaseRules<'_>,
    old: Option<&[Measured]>,
    new: &Subject,
) -> BootRules {
    BootRules {
        applications: applications(&base.boot.applications, old, new),
        command_lines: command_lines(&base.boot.command_lines, new),
        sections: sections(&base.boot.sections, new),
        ..BootRules::default()
    }
}

fn applications(
    base: &[AcceptedDigest],
    old: Option<&[Measured]>,
    new: &Subject,
) -> Vec<AcceptedDigest> {
    let Some(alg) = alg_of(base) else { return Vec::new() };
    let of = |events: &[Measured], role: Role| -> Option<Digest> {
        events.iter().find(|event| event.role == role)?.digest(alg).ok()?
    };
    let mut out = Vec::new();
    for event in &new.events {
        if !matches!(event.role, Role::Application(_) | Role::InnerKernel) {
            continue;
        }
        let Some(digest) = of(std::slice::from_ref(event), event.role) else { continue };
        let replaced = match old {
            Some(old) => {
                let digest = of(old, event.role).map(LogDigest::from);
                base.iter().find(|accepted| Some(accepted.digest) == digest)
            }
            None => only(base, event.role == Role::InnerKernel),
        };
        // The kernel inside is measured on some machines only: those where the old one was.
        if event.role == Role::InnerKernel && replaced.is_none() {
            continue;
        }
        let digest = digest.into();
        if base.iter().chain(&out).all(|known| known.digest != digest) {
            let what = replaced.and_then(|replaced| replaced.what.clone());
            out.push(AcceptedDigest { digest, what: what.or_else(|| Some(new.label.clone())) });
        }
    }
    out
}

/// The one entry that is the kernel inside of an image, or the one that is not.
fn only(base: &[AcceptedDigest], is_inner: bool) -> Option<&AcceptedDigest> {
    let is_payload = |what: &String| what.contains(STUB_PAYLOAD);
    let mut found =
        base.iter().filter(|accepted| accepted.what.as_ref().is_some_and(is_payload) == is_inner);
    let first = found.next();
    first.filter(|_| found.next().is_none())
}

fn command_lines(base: &[AcceptedCommandLine], new: &Subject) -> Vec<AcceptedCommandLine> {
    let section = new.events.iter().find(|event| event.role == Role::Section(".cmdline"));
    let alg = alg_of(base.iter().filter_map(digest_of_line));
    let line = match (section, alg, &new.command_line) {
        (Some(section), Some(alg), text) => {
            let Ok(Some(digest)) = section.digest(alg) else { return Vec::new() };
            let digest = digest.into();
            if base.iter().filter_map(digest_of_line).any(|known| known.digest == digest) {
                return Vec::new();
            }
            AcceptedCommandLine::Digest(AcceptedDigest { digest, what: text.clone() })
        }
        // Without sections only text that a boot loader measured into PCR 12 is judged.
        (None, _, Some(text)) if !base.is_empty() => {
            AcceptedCommandLine::Text { text: text.clone() }
        }
        _ => return Vec::new(),
    };
    if base.contains(&line) { Vec::new() } else { vec![line] }
}

fn sections(base: &[SectionRule], new: &Subject) -> Vec<SectionRule> {
    let mut out = Vec::new();
    for rule in base {
        let is_it =
            |event: &&Measured| matches!(event.role, Role::Section(name) if name == rule.name);
        let Some(event) = new.events.iter().find(is_it) else { continue };
        let Some(Ok(Some(digest))) = alg_of(&rule.accept).map(|alg| event.digest(alg)) else {
            continue;
        };
        let digest = digest.into();
        if rule.accept.iter().all(|known| known.digest != digest) {
            let accept = vec![AcceptedDigest { digest, what: Some(new.label.clone()) }];
            out.push(SectionRule { name: rule.name.clone(), accept });
        }
    }
    out
}
