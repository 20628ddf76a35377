//! A golden set, checked and compiled.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proto::{
    digest::{Digest, HashAlg, PcrIndex, PcrSelection, PcrSet},
    tool_log::path_text,
};

use super::{
    boot::BootReference,
    document::{AcceptedTool, GoldenDocument, ImaSection, RecordedEvent, SCHEMA},
};
use crate::ima::{IMA_PCR, ImaPolicy, Keyring, Manifest};

/// Largest golden set, bytes: 100 tools with 2 000 files of 150 bytes each fit ten times over.
pub const MAX_DOCUMENT_BYTES: usize = 32 * 1024 * 1024;

/// PCRs that a golden set must not list as values, with the reason.
const NOT_AS_VALUES: [(u8, &str); 3] = [
    (10, "IMA extends it at every new file"),
    (16, "any process can reset it"),
    (23, "any process can reset it"),
];

/// A golden set that passed every check of the document.
///
/// # Proves
/// No dangling or contradictory rule, at least one PCR, every digest well-formed.
#[derive(Clone, Debug)]
pub struct ReferenceValues {
    pub(super) name: String,
    pub(super) pool: String,
    pub(super) version: u64,
    pub(super) digest: Digest,
    pub(super) manufacturers: BTreeSet<String>,
    pub(super) firmware_floor: BTreeMap<String, u64>,
    pub(super) require_safe_clock: bool,
    pub(super) pcrs: Vec<PcrReference>,
    pub(super) closed: bool,
    pub(super) denied_tools: BTreeSet<Digest>,
    pub(super) tools: BTreeMap<String, ToolReference>,
    pub(super) tool_start: Vec<Digest>,
    pub(super) boot: Option<BootReference>,
    pub(super) events: Vec<EventReference>,
    pub(super) ima: Option<Arc<ImaPolicy>>,
}

/// Manifests of files that IMA may list, by digest: compiled once, shared by every set that names them.
pub type Manifests = BTreeMap<Digest, Arc<Manifest>>;

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

/// What is wrong in a golden set, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct GoldenProblem {
    /// Key path, or line and column of a syntax error.
    pub at: String,
    /// What is wrong and what is expected.
    pub what: String,
}

impl ReferenceValues {
    /// Parses and checks a golden set.
    ///
    /// `tool_pcr` must not be listed as a value: it is judged tool by tool. `manifests` has those that the set names.
    ///
    /// # Errors
    /// Every problem found, never only the first (a syntax error hides the rest).
    pub fn parse(
        text: &str,
        tool_pcr: PcrIndex,
        manifests: &Manifests,
    ) -> Result<Self, Vec<GoldenProblem>> {
        if text.len() > MAX_DOCUMENT_BYTES {
            return Err(vec![problem(
                "document",
                format!("{} bytes, at most {MAX_DOCUMENT_BYTES} are allowed", text.len()),
            )]);
        }
        let document = Self::document(text)?;
        Self::compile(&document, HashAlg::Sha256.hash(&[text.as_bytes()]), tool_pcr, manifests)
    }

    /// The manifest that a set names: it has to be at hand before the set is parsed.
    #[must_use]
    pub fn manifest_named_by(text: &str) -> Option<Digest> {
        Self::document(text).ok()?.ima?.manifest
    }

    fn document(text: &str) -> Result<GoldenDocument, Vec<GoldenProblem>> {
        toml::from_str(text).map_err(|error| vec![syntax_problem(text, &error)])
    }

    fn compile(
        document: &GoldenDocument,
        digest: Digest,
        tool_pcr: PcrIndex,
        manifests: &Manifests,
    ) -> Result<Self, Vec<GoldenProblem>> {
        let mut problems = Vec::new();
        if document.schema != SCHEMA {
            problems.push(problem("schema", format!("{:?}, expected {SCHEMA:?}", document.schema)));
        }
        for (at, name) in [("name", &document.name), ("pool", &document.pool)] {
            if !is_name(name) {
                problems.push(problem(
                    at,
                    format!("{name:?}: lower-case letters, digits, '-', '_' and '.', at most 63"),
                ));
            }
        }
        if document.version == 0 {
            problems.push(problem("version", "0, the first version is 1"));
        }
        let firmware_floor = firmware_floor(document, &mut problems);
        let pcrs = pcrs(document, tool_pcr, &mut problems);
        let tools = tools(document, &mut problems);
        let events = events(document, tool_pcr, &mut problems);
        if document.pcr.is_empty() && document.events.is_empty() {
            problems.push(problem("pcr", "empty: a golden set lists at least one PCR"));
        }
        let boot = (!document.boot.is_empty())
            .then(|| BootReference::compile(&document.boot, &mut problems));
        let ima = document.ima.as_ref().and_then(|section| ima(section, manifests, &mut problems));
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            name: document.name.clone(),
            pool: document.pool.clone(),
            version: document.version,
            digest,
            manufacturers: document.tpm.manufacturers.iter().map(|id| canonical_id(id)).collect(),
            firmware_floor,
            require_safe_clock: document.tpm.require_safe_clock,
            pcrs,
            closed: document.tools.closed,
            denied_tools: document.tools.deny.iter().copied().collect(),
            tools,
            tool_start: document.tools.start.clone(),
            boot,
            events,
            ima,
        })
    }

    /// Name of the set.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Pool whose nodes it judges.
    #[must_use]
    pub fn pool(&self) -> &str {
        &self.pool
    }

    /// Version.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// SHA-256 of the document's bytes.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// PCRs that it reads by value, by event, or for what booted: these in the first of its banks.
    #[must_use]
    pub fn selection(&self) -> PcrSelection {
        let values = self.pcrs.iter().map(|pcr| (pcr.bank, pcr.index));
        let events = self.events.iter().map(|rule| (rule.bank, rule.index));
        let read: Vec<(HashAlg, PcrIndex)> = values.chain(events).collect();
        let bank = read.iter().map(|(bank, _)| *bank).min();
        let boot = self.boot.iter().flat_map(BootReference::pcrs);
        let boot: Vec<_> = boot.filter_map(|index| Some((bank?, index))).collect();
        PcrSelection::new(
            read.into_iter().chain(boot).map(|(bank, index)| (bank, PcrSet::from_iter([index]))),
        )
    }

    /// PCRs that firmware's log must lead to: rules read it for them.
    #[must_use]
    pub fn log_pcrs(&self) -> PcrSet {
        let events = self.events.iter().map(|rule| rule.index);
        events.chain(self.boot.iter().flat_map(BootReference::pcrs)).collect()
    }

    /// How the kernel's IMA list is judged.
    #[must_use]
    pub const fn ima(&self) -> Option<&Arc<ImaPolicy>> {
        self.ima.as_ref()
    }
}

fn events(
    document: &GoldenDocument,
    tool_pcr: PcrIndex,
    problems: &mut Vec<GoldenProblem>,
) -> Vec<EventReference> {
    let mut out: Vec<EventReference> = Vec::new();
    for (at, rule) in document.events.iter().enumerate() {
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
        let by_value =
            document.pcr.iter().any(|pcr| pcr.bank == rule.bank && pcr.index == rule.index);
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

fn firmware_floor(
    document: &GoldenDocument,
    problems: &mut Vec<GoldenProblem>,
) -> BTreeMap<String, u64> {
    let mut out = BTreeMap::new();
    for (manufacturer, floor) in &document.tpm.firmware_floor {
        match u64::from_str_radix(floor, 16) {
            Ok(value) if floor.len() == 16 => {
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

fn pcrs(
    document: &GoldenDocument,
    tool_pcr: PcrIndex,
    problems: &mut Vec<GoldenProblem>,
) -> Vec<PcrReference> {
    let mut out: Vec<PcrReference> = Vec::new();
    for (at, rule) in document.pcr.iter().enumerate() {
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

fn tools(
    document: &GoldenDocument,
    problems: &mut Vec<GoldenProblem>,
) -> BTreeMap<String, ToolReference> {
    let mut out = BTreeMap::new();
    for (at, rule) in document.tool.iter().enumerate() {
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
            if document.tools.deny.contains(&accepted.digest) {
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

pub(super) fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
        && !name.starts_with('.')
}

pub(super) fn problem(at: impl Into<String>, what: impl Into<String>) -> GoldenProblem {
    GoldenProblem { at: at.into(), what: what.into() }
}

/// A syntax error of a document, by line and column.
pub(super) fn syntax_problem(text: &str, error: &toml::de::Error) -> GoldenProblem {
    let at = error.span().map_or_else(
        || "document".to_owned(),
        |span| {
            let before = text.get(..span.start).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
            format!("line {line}, column {column}")
        },
    );
    problem(at, error.message().to_owned())
}
