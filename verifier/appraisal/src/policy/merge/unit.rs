//! The rules of a document taken apart: what can be shared, or tell nodes apart.

use std::collections::{BTreeMap, BTreeSet};

use proto::digest::HashAlg;

use crate::policy::document::{
    AcceptedCommandLine, AcceptedDigest, BootRules, GoldenDocument, KeyRules,
};

/// PCRs that say what was started, and by what: code, boot applications, keys, the parts of a kernel image. Their values
/// belong together, and are never taken for something of one node alone.
const COHERENT: [u8; 5] = [0, 2, 4, 7, 11];
/// PCRs of what a boot loader reads and passes on: kernels, initrds, command lines.
const OF_THE_KERNEL: [u8; 3] = [8, 9, 12];

/// One rule, or one list of rules that is judged by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unit {
    Pcr(HashAlg, u8),
    Events(HashAlg, u8),
    /// Whether the log is judged at all.
    Boot,
    SecureBoot,
    Applications,
    Signers,
    CommandLines,
    Section(String),
    Pk,
    Kek,
    Db,
    Dbx,
    Ima,
    Tool(String),
}

/// What is compared of a unit; where it comes from and what it is called is not.
pub(super) type Content = BTreeSet<String>;

pub(super) fn is_coherent(pcr: u8) -> bool {
    COHERENT.contains(&pcr)
}

pub(super) fn is_of_the_kernel(pcr: u8) -> bool {
    OF_THE_KERNEL.contains(&pcr)
}

/// Every unit that a document has.
pub(super) fn units(document: &GoldenDocument) -> BTreeMap<Unit, Content> {
    let mut out = BTreeMap::new();
    for rule in &document.pcr {
        let values = rule.accept.iter().map(|value| value.value.to_ascii_lowercase());
        out.insert(Unit::Pcr(rule.bank, rule.index), values.collect());
    }
    for rule in &document.events {
        let events = rule
            .accept
            .iter()
            .map(|event| format!("{} {}", event.digest.to_ascii_lowercase(), event.required));
        out.insert(Unit::Events(rule.bank, rule.index), events.collect());
    }
    for rule in &document.tool {
        let states = rule.accept.iter().map(|state| state.digest.to_string());
        let content = states.chain([format!("required {}", rule.required)]).collect();
        out.insert(Unit::Tool(rule.name.clone()), content);
    }
    if let Some(ima) = &document.ima {
        out.insert(Unit::Ima, Content::from([format!("{ima:?}")]));
    }
    boot(&document.boot, &mut out);
    out
}

fn boot(rules: &BootRules, out: &mut BTreeMap<Unit, Content>) {
    if rules.is_empty() {
        return;
    }
    out.insert(Unit::Boot, Content::new());
    if let Some(state) = rules.secure_boot {
        out.insert(Unit::SecureBoot, Content::from([state.to_string()]));
    }
    let digests = |list: &[AcceptedDigest]| -> Content {
        list.iter().map(|entry| entry.digest.to_string()).collect()
    };
    let lines = rules.command_lines.iter().map(|line| match line {
        AcceptedCommandLine::Text { text } => format!("text {text}"),
        AcceptedCommandLine::Pattern { pattern } => format!("pattern {pattern}"),
        AcceptedCommandLine::Digest(entry) => format!("digest {}", entry.digest),
    });
    let KeyRules { pk, kek, db, dbx } = &rules.keys;
    let lists = [
        (Unit::Applications, digests(&rules.applications)),
        (Unit::Signers, digests(&rules.signers)),
        (Unit::CommandLines, lines.collect()),
        (Unit::Pk, digests(pk)),
        (Unit::Kek, digests(kek)),
        (Unit::Db, digests(db)),
        (Unit::Dbx, digests(dbx)),
    ];
    out.extend(lists.into_iter().filter(|(_, content)| !content.is_empty()));
    for section in &rules.sections {
        out.insert(Unit::Section(section.name.clone()), digests(&section.accept));
    }
}

/// The document with only those of its rules that `keep` names.
///
/// What is tolerated stays wherever the log is judged: without it the rules beside it would not be met.
pub(super) fn pick(document: &GoldenDocument, keep: impl Fn(&Unit) -> bool) -> GoldenDocument {
    let mut out = document.clone();
    out.pcr.retain(|rule| keep(&Unit::Pcr(rule.bank, rule.index)));
    out.events.retain(|rule| keep(&Unit::Events(rule.bank, rule.index)));
    out.tool.retain(|rule| keep(&Unit::Tool(rule.name.clone())));
    out.ima = out.ima.filter(|_| keep(&Unit::Ima));
    let boot = &mut out.boot;
    boot.secure_boot = boot.secure_boot.filter(|_| keep(&Unit::SecureBoot));
    boot.command_lines.retain(|_| keep(&Unit::CommandLines));
    boot.sections.retain(|section| keep(&Unit::Section(section.name.clone())));
    for (unit, list) in [
        (Unit::Applications, &mut boot.applications),
        (Unit::Signers, &mut boot.signers),
        (Unit::Pk, &mut boot.keys.pk),
        (Unit::Kek, &mut boot.keys.kek),
        (Unit::Db, &mut boot.keys.db),
        (Unit::Dbx, &mut boot.keys.dbx),
    ] {
        list.retain(|_| keep(&unit));
    }
    let says_more = BootRules { tolerate: Vec::new(), ..boot.clone() } != BootRules::default();
    if !says_more && !keep(&Unit::Boot) {
        boot.tolerate.clear();
    }
    out
}
