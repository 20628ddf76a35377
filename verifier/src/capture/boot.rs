//! What a boot's log proposes: which PCRs by value and which by event, and what must have booted.

use std::collections::BTreeSet;

use appraisal::{
    boot_log::{EventSource, KeyDatabase, KeyEntry, PHASES, ProblemCode, ProvenBootLog},
    claims::ClaimsDocument,
    policy::{
        document::{
            AcceptedCommandLine, AcceptedDigest, AcceptedEvent, AcceptedValue, BootRules,
            EventRule, KeyRules, PcrRule, RecordedEvent,
        },
        key_digest,
    },
};
use proto::digest::{Digest, HashAlg, PcrIndex};

use super::Provenance;

/// PCRs that differ between good boots of one machine, and why.
const BY_EVENT: [(u8, &str); 5] = [
    (1, "Boot entries and their order change without a change of what boots."),
    (3, "Settings of drivers change without a change of the drivers."),
    (5, "The partition table and how often the firmware was left differ between boots."),
    (8, "GRUB measures every command, also those of its menu."),
    (
        9,
        "Each update brings another initrd and command line: add its events, keep those of before.",
    ),
];
/// PCR of the sections of a unified kernel image and of systemd's boot phases.
const SECTIONS_PCR: u8 = 11;
/// PCR of the options that a kernel image is started with.
const OPTIONS_PCR: u8 = 12;
const WHY_PHASES: &str = "systemd extends it with each phase of the boot, so that its value depends on when it is quoted.";

/// Rules about PCRs, from quoted values and from the events that led to them.
#[derive(Debug, Default)]
pub(super) struct PcrRules {
    pub(super) values: Vec<PcrRule>,
    pub(super) events: Vec<EventRule>,
}

/// Quoted PCRs that were extended, but none in `skipped`.
pub(super) fn pcr_rules(
    claims: &ClaimsDocument,
    log: Option<&ProvenBootLog>,
    skipped: &[PcrIndex],
    from: &Provenance,
) -> PcrRules {
    let mut rules = PcrRules::default();
    for (bank, values) in &claims.pcrs {
        for (index, value) in values {
            if skipped.contains(index) || value.is_reset_value() {
                continue;
            }
            let log = log.filter(|log| log.explains(*bank, *index));
            match log.and_then(|log| Some((log, why_by_event(log, *index)?))) {
                Some((log, why)) => rules.events.push(by_event(log, *bank, *index, why)),
                None => rules.values.push(by_value(log, *bank, *index, value, from)),
            }
        }
    }
    rules
}

fn why_by_event(log: &ProvenBootLog, pcr: PcrIndex) -> Option<&'static str> {
    if pcr.get() == SECTIONS_PCR {
        let is_phase = |source| matches!(source, EventSource::Systemd | EventSource::Inferred);
        return log.of_pcr(pcr).any(|event| is_phase(event.source)).then_some(WHY_PHASES);
    }
    BY_EVENT.iter().find(|(known, _)| *known == pcr.get()).map(|(_, why)| *why)
}

fn by_event(log: &ProvenBootLog, bank: HashAlg, pcr: PcrIndex, why: &str) -> EventRule {
    let mut known = BTreeSet::new();
    let mut accept: Vec<AcceptedEvent> = log
        .of_pcr(pcr)
        .filter_map(|event| Some((event.digest(bank)?, &event.untrusted_words)))
        .filter(|(digest, _)| known.insert(**digest))
        .map(|(digest, words)| accepted_event(digest, words))
        .collect();
    if pcr.get() == SECTIONS_PCR {
        let phases = PHASES.iter().map(|phase| (bank.hash(&[phase.as_bytes()]), phase));
        accept.extend(
            phases
                .filter(|(digest, _)| known.insert(*digest))
                .map(|(digest, phase)| accepted_event(&digest, &format!("systemd: {phase}"))),
        );
    }
    EventRule { bank, index: pcr.get(), why: Some(why.to_owned()), accept }
}

fn accepted_event(digest: &Digest, what: &str) -> AcceptedEvent {
    AcceptedEvent {
        digest: hex::encode(digest.as_bytes()),
        what: Some(what.to_owned()),
        required: false,
    }
}

fn by_value(
    log: Option<&ProvenBootLog>,
    bank: HashAlg,
    pcr: PcrIndex,
    value: &Digest,
    from: &Provenance,
) -> PcrRule {
    let events = log
        .into_iter()
        .flat_map(|log| log.of_pcr(pcr))
        .filter_map(|event| {
            Some(RecordedEvent {
                digest: hex::encode(event.digest(bank)?.as_bytes()),
                what: event.untrusted_words.clone(),
            })
        })
        .collect();
    PcrRule {
        bank,
        index: pcr.get(),
        accept: vec![AcceptedValue {
            value: hex::encode(value.as_bytes()),
            from: Some(from.from.clone()),
            by: Some(from.by.clone()),
            at: Some(from.at.clone()),
            events,
        }],
    }
}

/// Codes of the oddities that this boot shows: a set that it is to meet tolerates them.
pub(super) fn tolerated(log: &ProvenBootLog) -> BTreeSet<ProblemCode> {
    log.problems.iter().map(|problem| problem.code).collect()
}

/// What must have booted, as this boot did.
pub(super) fn boot_rules(log: &ProvenBootLog) -> BootRules {
    let facts = &log.facts;
    let tolerate = tolerated(log);
    let mut applications: Vec<AcceptedDigest> = Vec::new();
    for application in &facts.boot_applications {
        if applications.iter().all(|known| known.digest != application.digest) {
            applications.push(AcceptedDigest {
                digest: application.digest,
                what: application.untrusted_path.clone(),
            });
        }
    }
    BootRules {
        secure_boot: facts.secure_boot,
        tolerate: tolerate.into_iter().collect(),
        applications,
        command_lines: command_lines(log),
        keys: KeyRules {
            pk: keys(facts.pk.as_ref()),
            kek: keys(facts.kek.as_ref()),
            db: keys(facts.db.as_ref()),
            dbx: Vec::new(),
        },
        ..BootRules::default()
    }
}

/// Command lines, and what else is in the PCR of options; none where the log does not lead to both PCRs that rules about
/// them need.
fn command_lines(log: &ProvenBootLog) -> Vec<AcceptedCommandLine> {
    let facts = &log.facts;
    let explained = log.explained();
    let is_proven = [SECTIONS_PCR, OPTIONS_PCR]
        .into_iter()
        .all(|pcr| PcrIndex::new(pcr).is_some_and(|pcr| explained.contains(pcr)));
    if facts.command_lines.is_empty() || !is_proven {
        return Vec::new();
    }
    let lines = facts.command_lines.iter().map(|line| match &line.text {
        Some(text) => AcceptedCommandLine::Text { text: text.clone() },
        None => AcceptedCommandLine::Digest(AcceptedDigest { digest: line.digest, what: None }),
    });
    let is_read = |pcr| [SECTIONS_PCR, OPTIONS_PCR].contains(&pcr);
    let untold = facts.untold.iter().filter(|untold| is_read(untold.source.pcr));
    let untold = untold.map(|untold| {
        let what = Some(format!("event {} of PCR {}", untold.source.event, untold.source.pcr));
        AcceptedCommandLine::Digest(AcceptedDigest { digest: untold.digest, what })
    });
    lines.chain(untold).collect()
}

fn keys(database: Option<&KeyDatabase>) -> Vec<AcceptedDigest> {
    database.iter().flat_map(|database| &database.entries).filter_map(key).collect()
}

fn key(entry: &KeyEntry) -> Option<AcceptedDigest> {
    let what = entry.certificate.as_ref().map(|certificate| certificate.subject.clone());
    Some(AcceptedDigest { digest: key_digest(&entry.digest).parse().ok()?, what })
}
