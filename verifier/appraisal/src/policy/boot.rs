//! What firmware's log proves, against what must have booted.
//!
//! Facts alone decide: nothing that the log says without a digest for it (`untrusted_*`) is compared.

use std::collections::{BTreeMap, BTreeSet};

use proto::{
    digest::{Digest, HashAlg, PcrIndex},
    reason::ReasonCode,
};

use super::{
    document::{AcceptedCommandLine, AcceptedDigest, BootRules},
    golden_set::{GoldenProblem, problem},
    pattern::Pattern,
    rules::{EventReference, PcrReference},
};
use crate::{
    boot::BootLog,
    boot_log::{BootFacts, EventSource, KeyDatabase, ProblemCode, ProvenEvent, Untold},
    verdict::Finding,
};

/// PCR of the boot applications.
const APPLICATIONS_PCR: u8 = 4;
/// PCR of Secure Boot's state and keys.
const SECURE_BOOT_PCR: u8 = 7;
/// PCR of a unified kernel image's sections, its command line among them.
const SECTIONS_PCR: u8 = 11;
/// PCR of the options that a kernel image is started with.
const OPTIONS_PCR: u8 = 12;
/// Digests that a finding names as expected.
const MAX_EXPECTED: usize = 3;

/// [`BootRules`], compiled.
#[derive(Clone, Debug)]
pub(super) struct BootReference {
    secure_boot: Option<bool>,
    tolerate: BTreeSet<ProblemCode>,
    applications: Accepted,
    signers: Accepted,
    command_lines: CommandLines,
    /// Accepted contents by name of the section.
    sections: BTreeMap<String, Accepted>,
    pk: Accepted,
    kek: Accepted,
    db: Accepted,
    /// Each must be there.
    dbx: Accepted,
}

/// Accepted digests, as facts write them, with what they are; empty: not judged.
type Accepted = BTreeMap<String, String>;

#[derive(Clone, Debug, Default)]
struct CommandLines {
    texts: BTreeSet<String>,
    patterns: Vec<Pattern>,
    digests: Accepted,
}

impl CommandLines {
    fn is_empty(&self) -> bool {
        self.texts.is_empty() && self.patterns.is_empty() && self.digests.is_empty()
    }

    fn accepts(&self, text: &str) -> bool {
        self.texts.contains(text) || self.patterns.iter().any(|pattern| pattern.matches(text))
    }

    /// What a finding names as expected.
    fn wanted(&self) -> String {
        let texts = self.texts.iter().map(|text| format!("{text:?}"));
        let patterns = self.patterns.iter().map(|pattern| format!("{:?}", pattern.text()));
        let all = texts.chain(patterns).chain(self.digests.keys().cloned());
        all.take(MAX_EXPECTED).collect::<Vec<_>>().join(" or ")
    }
}

impl BootReference {
    pub(super) fn compile(rules: &BootRules, problems: &mut Vec<GoldenProblem>) -> Self {
        let mut sections = BTreeMap::new();
        for (at, rule) in rules.sections.iter().enumerate() {
            let at = format!("boot.sections[{at}]");
            if rule.accept.is_empty() {
                problems.push(problem(format!("{at}.accept"), "empty: no content is accepted"));
            }
            if sections.insert(rule.name.clone(), accepted(&rule.accept)).is_some() {
                problems.push(problem(at, format!("section {:?} is listed twice", rule.name)));
            }
        }
        let mut command_lines = CommandLines::default();
        for (at, line) in rules.command_lines.iter().enumerate() {
            match line {
                AcceptedCommandLine::Text { text } => {
                    command_lines.texts.insert(text.clone());
                }
                AcceptedCommandLine::Pattern { pattern } => match Pattern::compile(pattern) {
                    Ok(pattern) => command_lines.patterns.push(pattern),
                    Err(what) => {
                        let at = format!("boot.command_lines[{at}].pattern");
                        problems.push(problem(at, format!("{pattern:?}: {what}")));
                    }
                },
                AcceptedCommandLine::Digest(accepted) => {
                    command_lines.digests.extend([entry(accepted)]);
                }
            }
        }
        Self {
            secure_boot: rules.secure_boot,
            tolerate: rules.tolerate.iter().copied().collect(),
            applications: accepted(&rules.applications),
            signers: accepted(&rules.signers),
            command_lines,
            sections,
            pk: accepted(&rules.keys.pk),
            kek: accepted(&rules.keys.kek),
            db: accepted(&rules.keys.db),
            dbx: accepted(&rules.keys.dbx),
        }
    }

    /// PCRs whose events the rules read wherever they are used at all.
    pub(super) fn pcrs(&self) -> impl Iterator<Item = PcrIndex> {
        let secure_boot = self.secure_boot.is_some()
            || [&self.signers, &self.pk, &self.kek, &self.db, &self.dbx]
                .into_iter()
                .any(|list| !list.is_empty());
        let applications = !self.applications.is_empty();
        // A line in one of the two PCRs would hide one in the other, if no log had to lead there.
        let lines = !self.command_lines.is_empty();
        let sections = lines || !self.sections.is_empty();
        [
            (applications, APPLICATIONS_PCR),
            (secure_boot, SECURE_BOOT_PCR),
            (sections, SECTIONS_PCR),
            (lines, OPTIONS_PCR),
        ]
        .into_iter()
        .filter_map(|(read, pcr)| PcrIndex::new(pcr).filter(|_| read))
    }
}

fn accepted(list: &[AcceptedDigest]) -> Accepted {
    list.iter().map(entry).collect()
}

fn entry(accepted: &AcceptedDigest) -> (String, String) {
    (accepted.digest.to_string(), accepted.what.clone().unwrap_or_default())
}

/// Judges the boot by its log.
pub(super) fn boot(log: &BootLog, reference: &BootReference, findings: &mut Vec<Finding>) {
    let Some(log) = log.proven() else {
        findings.push(log_missing("firmware event log", log));
        return;
    };
    let facts = &log.facts;
    // A boot that was proven under another set may have been asked for less: facts about a PCR that its log does not
    // lead to are missing, and nothing that is missing may pass for good.
    let bank = HashAlg::from_tpm(facts.bank.tpm_id());
    for pcr in reference.pcrs() {
        if !bank.is_some_and(|bank| log.explains(bank, pcr)) {
            findings.push(log_missing_for(&format!("PCR {pcr} ({})", facts.bank)));
        }
    }
    for problem in log.problems.iter().filter(|p| !reference.tolerate.contains(&p.code)) {
        let at = problem.event.map_or_else(String::new, |event| format!(", event {event}"));
        let pcr = problem.pcr.map_or_else(String::new, |pcr| format!(", PCR {pcr}"));
        findings.push(Finding::new(
            ReasonCode::PolicyBootProblem,
            format!("event log{pcr}{at}: {}", problem.code),
            "not in the log",
            problem.detail.clone(),
        ));
    }
    if let Some(wanted) = reference.secure_boot
        && facts.secure_boot != Some(wanted)
    {
        findings.push(Finding::new(
            ReasonCode::PolicyBootSecureBoot,
            "Secure Boot",
            on_or_off(Some(wanted)),
            on_or_off(facts.secure_boot),
        ));
    }
    applications(facts, reference, findings);
    signers(facts, reference, findings);
    command_lines(facts, reference, findings);
    sections(facts, reference, findings);
    keys(facts, reference, findings);
}

const fn on_or_off(state: Option<bool>) -> &'static str {
    match state {
        Some(true) => "on",
        Some(false) => "off",
        None => "not proven by the log",
    }
}

fn applications(facts: &BootFacts, reference: &BootReference, findings: &mut Vec<Finding>) {
    if reference.applications.is_empty() {
        return;
    }
    // Without one the list would be met by a boot that measured nothing.
    if facts.boot_applications.is_empty() {
        findings.push(Finding::new(
            ReasonCode::PolicyBootApplicationNotAllowed,
            "boot applications",
            expected(&reference.applications),
            "none",
        ));
    }
    for application in &facts.boot_applications {
        let digest = application.digest.to_string();
        if !reference.applications.contains_key(&digest) {
            findings.push(Finding::new(
                ReasonCode::PolicyBootApplicationNotAllowed,
                format!(
                    "event {} (PCR {}): boot application",
                    application.source.event, application.source.pcr
                ),
                expected(&reference.applications),
                digest,
            ));
        }
    }
}

fn signers(facts: &BootFacts, reference: &BootReference, findings: &mut Vec<Finding>) {
    if reference.signers.is_empty() {
        return;
    }
    let images =
        facts.authorities.iter().filter(|authority| is_image_authority(&authority.variable));
    let mut any = false;
    for authority in images {
        any = true;
        let digest = key_digest(&authority.digest);
        if !reference.signers.contains_key(&digest) {
            findings.push(Finding::new(
                ReasonCode::PolicyBootSignerNotAllowed,
                format!(
                    "event {} (PCR {}): image authorised by {}",
                    authority.source.event, authority.source.pcr, authority.variable
                ),
                expected(&reference.signers),
                digest,
            ));
        }
    }
    // Whoever edits the log could hide an authorisation behind data that its digest is not over.
    for untold in facts.untold.iter().filter(|untold| untold.source.pcr == SECURE_BOOT_PCR) {
        findings.push(Finding::new(
            ReasonCode::PolicyBootSignerNotAllowed,
            format!(
                "event {} (PCR {}): its digest is not over the data in the log",
                untold.source.event, untold.source.pcr
            ),
            expected(&reference.signers),
            untold.digest.to_string(),
        ));
    }
    if !any {
        findings.push(Finding::new(
            ReasonCode::PolicyBootSignerNotAllowed,
            "image authorisations",
            expected(&reference.signers),
            "none",
        ));
    }
}

/// State that shim measures beside the entries that authorise images. Anything else counts as such an entry, also
/// `MokSBState`: it is there where somebody switched shim's validation off.
const SHIM_STATE: [&str; 4] = ["MokDBState", "MokListTrusted", "MokPolicy", "SbatLevel"];

pub(crate) fn is_image_authority(variable: &str) -> bool {
    !SHIM_STATE.contains(&variable)
}

fn command_lines(facts: &BootFacts, reference: &BootReference, findings: &mut Vec<Finding>) {
    let rules = &reference.command_lines;
    if rules.is_empty() {
        return;
    }
    let wanted = || rules.wanted();
    if facts.command_lines.is_empty() {
        findings.push(Finding::new(
            ReasonCode::PolicyBootCommandLineNotAllowed,
            "kernel command line",
            wanted(),
            "not proven by the log",
        ));
    }
    // Whoever edits the log could hide an option line behind other data; what is no line is listed by its digest.
    let is_read = |untold: &&Untold| [SECTIONS_PCR, OPTIONS_PCR].contains(&untold.source.pcr);
    for untold in facts.untold.iter().filter(is_read) {
        let digest = untold.digest.to_string();
        if !rules.digests.contains_key(&digest) {
            findings.push(Finding::new(
                ReasonCode::PolicyBootCommandLineNotAllowed,
                format!(
                    "event {} (PCR {}): no text that its digest is over",
                    untold.source.event, untold.source.pcr
                ),
                wanted(),
                digest,
            ));
        }
    }
    for line in &facts.command_lines {
        let by_text = line.text.as_ref().is_some_and(|text| rules.accepts(text));
        let digest = line.digest.to_string();
        if !by_text && !rules.digests.contains_key(&digest) {
            findings.push(Finding::new(
                ReasonCode::PolicyBootCommandLineNotAllowed,
                format!(
                    "event {} (PCR {}): kernel command line",
                    line.source.event, line.source.pcr
                ),
                wanted(),
                line.text.as_ref().map_or(digest, |text| format!("{text:?}")),
            ));
        }
    }
}

fn sections(facts: &BootFacts, reference: &BootReference, findings: &mut Vec<Finding>) {
    if reference.sections.is_empty() {
        return;
    }
    // Whatever stands there and is told to be something else could be a section.
    for untold in facts.untold.iter().filter(|untold| untold.source.pcr == SECTIONS_PCR) {
        findings.push(Finding::new(
            ReasonCode::PolicyBootSectionNotAllowed,
            format!(
                "event {} (PCR {}): no section that is known",
                untold.source.event, SECTIONS_PCR
            ),
            "sections of a kernel image, then phases of systemd",
            untold.digest.to_string(),
        ));
    }
    for (name, accept) in &reference.sections {
        let mut any = false;
        for section in facts.uki_sections.iter().filter(|section| section.name == *name) {
            any = true;
            let digest = section.digest.to_string();
            if !accept.contains_key(&digest) {
                findings.push(Finding::new(
                    ReasonCode::PolicyBootSectionNotAllowed,
                    format!(
                        "event {} (PCR {}): section {name}",
                        section.source.event, section.source.pcr
                    ),
                    expected(accept),
                    digest,
                ));
            }
        }
        if !any {
            findings.push(Finding::new(
                ReasonCode::PolicyBootSectionNotAllowed,
                format!("section {name}"),
                expected(accept),
                "not in the log",
            ));
        }
    }
}

fn keys(facts: &BootFacts, reference: &BootReference, findings: &mut Vec<Finding>) {
    let lists = [
        ("PK", &facts.pk, &reference.pk),
        ("KEK", &facts.kek, &reference.kek),
        ("db", &facts.db, &reference.db),
    ];
    for (name, database, accept) in lists {
        if accept.is_empty() {
            continue;
        }
        let Some(database) = database else {
            findings.push(unproven_keys(name, accept));
            continue;
        };
        for entry in &database.entries {
            let digest = key_digest(&entry.digest);
            if !accept.contains_key(&digest) {
                let who = entry.certificate.as_ref().map(|key| format!(" ({})", key.subject));
                findings.push(Finding::new(
                    ReasonCode::PolicyBootKeyNotAllowed,
                    format!(
                        "event {} (PCR {}): {name}",
                        database.source.event, database.source.pcr
                    ),
                    expected(accept),
                    format!("{digest}{}", who.unwrap_or_default()),
                ));
            }
        }
    }
    if reference.dbx.is_empty() {
        return;
    }
    let Some(dbx) = &facts.dbx else {
        findings.push(unproven_keys("dbx", &reference.dbx));
        return;
    };
    let there = digests(dbx);
    for (digest, what) in reference.dbx.iter().filter(|(digest, _)| !there.contains(*digest)) {
        findings.push(Finding::new(
            ReasonCode::PolicyBootKeyMissing,
            format!("dbx: {digest}"),
            if what.is_empty() { "in dbx".to_owned() } else { format!("in dbx: {what}") },
            format!("not among the {} entries of dbx", dbx.entries.len()),
        ));
    }
}

fn unproven_keys(name: &str, accept: &Accepted) -> Finding {
    Finding::new(
        ReasonCode::PolicyBootKeyNotAllowed,
        name.to_owned(),
        expected(accept),
        "not proven by the log",
    )
}

fn digests(database: &KeyDatabase) -> BTreeSet<String> {
    database.entries.iter().map(|entry| key_digest(&entry.digest)).collect()
}

/// The digest of a signature list's entry, as golden sets write it: facts have it without its algorithm.
#[must_use]
pub fn key_digest(digest: &str) -> String {
    let alg = HashAlg::ALL.into_iter().find(|alg| 2 * alg.len_bytes() == digest.len());
    format!("{}:{digest}", alg.unwrap_or(HashAlg::Sha256))
}

fn expected(accept: &Accepted) -> String {
    let mut shown: Vec<String> = accept
        .iter()
        .take(MAX_EXPECTED)
        .map(
            |(digest, what)| {
                if what.is_empty() { digest.clone() } else { format!("{digest} ({what})") }
            },
        )
        .collect();
    let more = accept.len().saturating_sub(shown.len());
    if more > 0 {
        shown.push(format!("{more} others"));
    }
    shown.join(" or ")
}

/// Judges one PCR event by event.
pub(super) fn events(log: &BootLog, rule: &EventReference, findings: &mut Vec<Finding>) {
    let subject = format!("PCR {} ({})", rule.index, rule.bank);
    let proven = log.proven().filter(|log| log.explains(rule.bank, rule.index));
    let Some(log) = proven else {
        findings.push(log_missing(&subject, log));
        return;
    };
    let mut missing = rule.required.clone();
    for event in log.of_pcr(rule.index) {
        let digest = event.digest(rule.bank);
        if let Some(digest) = digest.filter(|digest| rule.accept.contains_key(*digest)) {
            missing.remove(digest);
            continue;
        }
        findings.push(Finding::new(
            ReasonCode::PolicyEventNotAllowed,
            event_subject(event),
            format!("one of the {} events that the golden set lists", rule.accept.len()),
            digest.map_or_else(|| "no digest".to_owned(), ToString::to_string),
        ));
    }
    for digest in missing {
        let what = rule.accept.get(&digest).map_or("", String::as_str);
        findings.push(Finding::new(
            ReasonCode::PolicyEventMissing,
            subject.clone(),
            if what.is_empty() { digest.to_string() } else { format!("{digest} ({what})") },
            "not in the PCR",
        ));
    }
}

fn log_missing_for(pcr: &str) -> Finding {
    Finding::new(
        ReasonCode::PolicyBootLogMissing,
        pcr,
        "a log that leads to the quoted value",
        "the log does not lead to this PCR's value",
    )
}

fn log_missing(subject: &str, log: &BootLog) -> Finding {
    let observed = match log {
        BootLog::Absent => "no log was sent".to_owned(),
        BootLog::Unread(code) => format!("the log could not be used: {code}"),
        BootLog::Proven(_) => return log_missing_for(subject),
    };
    Finding::new(
        ReasonCode::PolicyBootLogMissing,
        subject,
        "a log that leads to the quoted value",
        observed,
    )
}

/// Where a boot leaves the recorded one that is nearest, for a PCR whose value is not accepted.
///
/// `None` where no log leads to the value or no events were recorded with the accepted ones. Names what differs; the
/// value was refused before.
pub(super) fn first_difference(log: &BootLog, pcr: &PcrReference) -> Option<Finding> {
    let log = log.proven().filter(|log| log.explains(pcr.bank, pcr.index))?;
    let observed: Vec<&ProvenEvent> = log.of_pcr(pcr.index).collect();
    let recorded = pcr.accept.iter().filter(|value| !value.events.is_empty());
    let nearest = recorded
        .map(|value| (common(&value.events, &observed, pcr.bank), &value.events))
        .max_by_key(|(common, _)| *common)?;
    let (at, events) = nearest;
    let (expected, found) = (events.get(at), observed.get(at));
    let subject = match (found, expected) {
        (Some(event), _) => event_subject(event),
        (None, Some((_, what))) => format!("PCR {}: an event is missing: {what}", pcr.index),
        (None, None) => return None,
    };
    Some(Finding::new(
        ReasonCode::PolicyPcrNotAllowed,
        subject,
        expected.map_or_else(
            || "no further event".to_owned(),
            |(digest, what)| {
                if what.is_empty() { digest.to_string() } else { format!("{digest} ({what})") }
            },
        ),
        found
            .and_then(|event| event.digest(pcr.bank))
            .map_or_else(|| "no event".to_owned(), ToString::to_string),
    ))
}

/// Events at the start that both have.
fn common(recorded: &[(Digest, String)], observed: &[&ProvenEvent], bank: HashAlg) -> usize {
    let same = |((digest, _), event): &(&(Digest, String), &&ProvenEvent)| {
        event.digest(bank) == Some(digest)
    };
    recorded.iter().zip(observed).take_while(same).count()
}

/// `event 61 (PCR 9): kernel command line`.
fn event_subject(event: &ProvenEvent) -> String {
    let log = match event.source {
        EventSource::Systemd => "systemd's ",
        _ => "",
    };
    format!("{log}event {} (PCR {}): {}", event.index, event.pcr, event.untrusted_words)
}
