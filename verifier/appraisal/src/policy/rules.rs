//! The rules of one document or group, checked and compiled.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proto::{
    digest::{Digest, HashAlg, PcrIndex, PcrSet},
    tool_log::path_text,
};

use super::{
    boot::BootReference,
    document::{AcceptedTool, ImaSection, RecordedEvent, RulesOf, TpmRules},
    golden_set::{GoldenProblem, Manifests, problem},
};
use crate::ima::{IMA_PCR, ImaPolicy, Keyring};

/// PCRs that a golden set must not list as values, with the reason.
const NOT_AS_VALUES: [(u8, &str); 3] = [
    (10, "IMA extends it at every new file"),
    (16, "any process can reset it"),
    (23, "any process can reset it"),
];

/// Rules that passed every check: no dangling or contradictory one, every digest well-formed.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) manufacturers: BTreeSet<String>,
    pub(super) firmware_floor: BTreeMap<String, u64>,
    pub(super) require_safe_clock: bool,
    pub(super) pcrs: Vec<PcrReference>,
    pub(super) closed: bool,
    pub(super) denied_tools: BTreeSet<Digest>,
    pub(super) tools: BTreeMap<String, ToolReference>,
    /// Values that the tool PCR may have before the first tool; empty: nothing is said of it.
    pub(super) tool_start: Vec<Digest>,
    pub(super) boot: Option<BootReference>,
    pub(super) events: Vec<EventReference>,
    pub(super) ima: Option<Arc<ImaPolicy>>,
}

/// Events that one PCR may have.
#[derive(Clone, Debug)]
pub(super) struct EventReference {
    pub(super) bank: HashAlg,
    pub(super) index: PcrIndex,
    /// What each is, by digest.
    pub(super) accept: BTreeMap<Digest, String>,
    pub(super) required: BTreeSet<Digest>,
}

/// Accepted values of one PCR.
#[derive(Clone, Debug)]
pub(super) struct PcrReference {
    pub(super) bank: HashAlg,
    pub(super) index: PcrIndex,
    pub(super) accept: Vec<PcrValueReference>,
}

/// One accepted value.
#[derive(Clone, Debug)]
pub(super) struct PcrValueReference {
    pub(super) value: Digest,
    /// The events that led to it, where they were recorded: digest and words.
    pub(super) events: Vec<(Digest, String)>,
}

/// Accepted states of one tool.
#[derive(Clone, Debug)]
pub(super) struct ToolReference {
    pub(super) required: bool,
    pub(super) accept: Vec<AcceptedTool>,
}

impl Rules {
    /// Checks and compiles what stands at `at` in a document (`""` or `group[0].`).
    ///
    /// `tool_pcr` must not be listed as a value: it is judged tool by tool. `manifests` has those that the rules name.
    pub(super) fn compile(
        rules: RulesOf<'_>,
        at: &str,
        tool_pcr: PcrIndex,
        manifests: &Manifests,
        problems: &mut Vec<GoldenProblem>,
    ) -> Self {
        let mut found = Vec::new();
        let none = TpmRules::default();
        let tpm = rules.tpm.unwrap_or(&none);
        let compiled = Self {
            manufacturers: tpm.manufacturers.iter().map(|id| canonical_id(id)).collect(),
            firmware_floor: firmware_floor(tpm, &mut found),
            require_safe_clock: tpm.require_safe_clock,
            pcrs: pcrs(rules, tool_pcr, &mut found),
            closed: rules.tools.is_some_and(|tools| tools.closed),
            denied_tools: rules.tools.iter().flat_map(|tools| tools.deny.iter().copied()).collect(),
            tools: tools(rules, &mut found),
            tool_start: rules.tools.map(|tools| tools.start.clone()).unwrap_or_default(),
            boot: (!rules.boot.is_empty()).then(|| BootReference::compile(rules.boot, &mut found)),
            events: events(rules, tool_pcr, &mut found),
            ima: rules.ima.and_then(|section| ima(section, manifests, &mut found)),
        };
        let placed =
            found.into_iter().map(|found| problem(format!("{at}{}", found.at), found.what));
        problems.extend(placed);
        compiled
    }

    /// Whether any PCR is judged, by value or by event.
    pub(super) fn reads_a_pcr(&self) -> bool {
        !self.pcrs.is_empty() || !self.events.is_empty()
    }

    /// PCRs that are judged by value or by event, with their banks.
    pub(super) fn measured(&self) -> impl Iterator<Item = (HashAlg, PcrIndex)> {
        let values = self.pcrs.iter().map(|pcr| (pcr.bank, pcr.index));
        values.chain(self.events.iter().map(|rule| (rule.bank, rule.index)))
    }

    /// PCRs that are read for what booted, in whatever bank.
    pub(super) fn boot_pcrs(&self) -> impl Iterator<Item = PcrIndex> {
        self.boot.iter().flat_map(BootReference::pcrs)
    }

    /// PCRs that firmware's log must lead to: rules read it for them.
    pub(super) fn log_pcrs(&self) -> PcrSet {
        self.events.iter().map(|rule| rule.index).chain(self.boot_pcrs()).collect()
    }
}

fn events(
    rules: RulesOf<'_>,
    tool_pcr: PcrIndex,
    problems: &mut Vec<GoldenProblem>,
) -> Vec<EventReference> {
    let mut out: Vec<EventReference> = Vec::new();
    for (at, rule) in rules.events.iter().enumerate() {
        let at = format!("events[{at}]");
        let index = PcrIndex::new(rule.index)
            .filter(|pcr| pcr.get() < 16 && *pcr != IMA_PCR && *pcr != tool_pcr);
        let Some(index) = index else {
            problems.push(problem(
                format!("{at}.index"),
                format!("{}: 0 to 15, but not {IMA_PCR} (IMA) nor {tool_pcr} (tools)", rule.index),
            ));
            continue;
        };
        let by_value = rules.pcr.iter().any(|pcr| pcr.bank == rule.bank && pcr.index == rule.index);
        if by_value || out.iter().any(|known| known.bank == rule.bank && known.index == index) {
            problems
                .push(problem(at.clone(), format!("PCR {index} ({}) is judged twice", rule.bank)));
        }
        if rule.accept.is_empty() {
            problems.push(problem(format!("{at}.accept"), "empty: no event would be accepted"));
        }
        let mut reference = EventReference {
            bank: rule.bank,
            index,
            accept: BTreeMap::new(),
            required: BTreeSet::new(),
        };
        for (n, event) in rule.accept.iter().enumerate() {
            match bank_digest(rule.bank, &event.digest) {
                Ok(digest) => {
                    reference.accept.insert(digest, event.what.clone().unwrap_or_default());
                    if event.required {
                        reference.required.insert(digest);
                    }
                }
                Err(what) => problems.push(problem(format!("{at}.accept[{n}].digest"), what)),
            }
        }
        out.push(reference);
    }
    out
}

fn ima(
    section: &ImaSection,
    manifests: &Manifests,
    problems: &mut Vec<GoldenProblem>,
) -> Option<Arc<ImaPolicy>> {
    let before = problems.len();
    let manifest = section.manifest.and_then(|digest| {
        let found = manifests.get(&digest).cloned();
        if found.is_none() {
            problems.push(problem(
                "ima.manifest",
                format!("{digest} is not imported; `verifier ima import FILE` does that"),
            ));
        }
        found
    });
    let keyring = if section.key.is_empty() {
        None
    } else {
        let keys = section.key.iter().map(|key| (key.name.as_str(), key.pem.as_bytes()));
        match Keyring::new(keys) {
            Ok(keyring) => Some(Arc::new(keyring)),
            Err(found) => {
                problems.push(problem(format!("ima.key: {}", found.at), found.what));
                None
            }
        }
    };
    if problems.len() > before {
        return None;
    }
    match ImaPolicy::new(&section.rules, manifest, keyring) {
        Ok(policy) => Some(Arc::new(policy)),
        Err(found) => {
            problems.extend(
                found
                    .into_iter()
                    .map(|found| problem(format!("ima.rules.{}", found.at), found.what)),
            );
            None
        }
    }
}

/// A digest of a bank, as golden sets write it.
fn bank_digest(bank: HashAlg, text: &str) -> Result<Digest, String> {
    hex::decode(text)
        .map_err(|_| format!("{text:?} is not hexadecimal"))
        .and_then(|bytes| Digest::new(bank, &bytes).map_err(|error| error.to_string()))
}

fn recorded_events(
    bank: HashAlg,
    at: &str,
    events: &[RecordedEvent],
    problems: &mut Vec<GoldenProblem>,
) -> Vec<(Digest, String)> {
    let mut out = Vec::with_capacity(events.len());
    for (n, event) in events.iter().enumerate() {
        match bank_digest(bank, &event.digest) {
            Ok(digest) => out.push((digest, event.what.clone())),
            Err(what) => problems.push(problem(format!("{at}.events[{n}].digest"), what)),
        }
    }
    out
}

fn firmware_floor(tpm: &TpmRules, problems: &mut Vec<GoldenProblem>) -> BTreeMap<String, u64> {
    let mut out = BTreeMap::new();
    for (manufacturer, floor) in &tpm.firmware_floor {
        match hexadecimal(floor) {
            Some(value) if floor.len() == 16 => {
                out.insert(canonical_id(manufacturer), value);
            }
            _ => problems.push(problem(
                format!("tpm.firmware_floor.{manufacturer:?}"),
                format!("{floor:?}: 16 hexadecimal digits expected"),
            )),
        }
    }
    out
}

/// A number of hexadecimal digits and nothing else: no sign.
pub(super) fn hexadecimal(text: &str) -> Option<u64> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

fn pcrs(
    rules: RulesOf<'_>,
    tool_pcr: PcrIndex,
    problems: &mut Vec<GoldenProblem>,
) -> Vec<PcrReference> {
    let mut out: Vec<PcrReference> = Vec::new();
    for (at, rule) in rules.pcr.iter().enumerate() {
        let at = format!("pcr[{at}]");
        let Some(index) = PcrIndex::new(rule.index) else {
            problems.push(problem(format!("{at}.index"), format!("{} is above 23", rule.index)));
            continue;
        };
        if let Some((_, reason)) = NOT_AS_VALUES.iter().find(|(pcr, _)| *pcr == rule.index) {
            problems.push(problem(format!("{at}.index"), format!("PCR {index}: {reason}")));
        }
        if index == tool_pcr {
            problems.push(problem(
                format!("{at}.index"),
                format!("PCR {index} holds the tool log; list [[tool]] entries instead"),
            ));
        }
        if out.iter().any(|known| known.bank == rule.bank && known.index == index) {
            problems
                .push(problem(at.clone(), format!("PCR {index} ({}) is listed twice", rule.bank)));
        }
        if rule.accept.is_empty() {
            problems.push(problem(format!("{at}.accept"), "empty: no value would be accepted"));
        }
        let mut accept = Vec::new();
        for (n, value) in rule.accept.iter().enumerate() {
            let at = format!("{at}.accept[{n}]");
            let events = recorded_events(rule.bank, &at, &value.events, problems);
            let at = format!("{at}.value");
            match bank_digest(rule.bank, &value.value) {
                Ok(digest) if index.get() <= 7 && digest.is_reset_value() => problems
                    .push(problem(at, "a firmware PCR at its reset value is never accepted")),
                Ok(value) => accept.push(PcrValueReference { value, events }),
                Err(what) => problems.push(problem(at, what)),
            }
        }
        out.push(PcrReference { bank: rule.bank, index, accept });
    }
    out.sort_by_key(|pcr| (pcr.bank, pcr.index));
    out
}

fn tools(rules: RulesOf<'_>, problems: &mut Vec<GoldenProblem>) -> BTreeMap<String, ToolReference> {
    let mut out = BTreeMap::new();
    for (at, rule) in rules.tool.iter().enumerate() {
        let at = format!("tool[{at}]");
        if rule.name.is_empty() {
            problems.push(problem(format!("{at}.name"), "empty"));
        }
        if rule.accept.is_empty() {
            problems.push(problem(format!("{at}.accept"), "empty: no digest would be accepted"));
        }
        for (n, accepted) in rule.accept.iter().enumerate() {
            let at = format!("{at}.accept[{n}].digest");
            if accepted.digest.alg() != HashAlg::Sha256 {
                problems.push(problem(at.clone(), "tool digests are sha256"));
            }
            if rules.tools.is_some_and(|tools| tools.deny.contains(&accepted.digest)) {
                problems.push(problem(at, "both accepted and on the deny list"));
            }
        }
        let reference = ToolReference { required: rule.required, accept: rule.accept.clone() };
        if out.insert(rule.name.clone(), reference).is_some() {
            problems.push(problem(at, format!("tool {:?} is listed twice", rule.name)));
        }
    }
    out
}

/// `ID:49465800` and `id:49465800` are one manufacturer.
pub(super) fn canonical_id(id: &str) -> String {
    id.to_ascii_lowercase()
}

/// A path as golden sets write it.
#[must_use]
pub fn path_key(path: &[u8]) -> String {
    path_text(path)
}
