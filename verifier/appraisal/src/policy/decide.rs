//! The policy step: every finding, sorted.

use proto::{
    digest::{Digest, HashAlg, PcrIndex},
    reason::ReasonCode,
    tool_log::{EntryKind, ToolMeasurement, ToolState, path_text},
};

use super::{
    boot,
    reference::{Alternative, ReferenceValues},
    rules::{Rules, ToolReference, canonical_id},
};
use crate::{claims::Claims, ima::ImaEvidence, verdict::Finding};

/// What is compared with reference values.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'p> {
    /// What the evidence says.
    pub claims: &'p Claims,
    /// Tool measurements of this evidence, with their files: they let a finding name the file that differs. They can only
    /// add words, never take a finding away.
    pub measurements: &'p [ToolMeasurement],
    /// What the policies of the reference values said of the kernel's list.
    pub ima: &'p ImaEvidence,
}

/// What reference values say of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome<'r> {
    /// The alternative that accepts it, or the one that is nearest.
    pub(crate) label: &'r str,
    /// Findings against that alternative; none: it is accepted.
    pub(crate) findings: Vec<Finding>,
    /// Findings against the nearest of the alternatives that nothing stands against but what the evidence lacks; empty
    /// where there is none, or one accepts the node. It need not be the alternative above.
    pub(crate) lacking: Vec<Finding>,
    /// The policies by which [`Self::label`] judges the kernel's list.
    pub(crate) ima: Vec<Digest>,
}

/// Judges a node by every alternative of its pool.
///
/// The first alternative without a finding accepts it. Otherwise the findings are those of the alternative with the fewest,
/// so that words are about the change that was made.
#[must_use]
pub(crate) fn decide<'r>(node: Judged<'_>, reference: &'r ReferenceValues) -> Outcome<'r> {
    let mut of_rules: Vec<Option<Vec<Finding>>> = vec![None; reference.rules.len()];
    let mut nearest: Option<Outcome<'r>> = None;
    let mut lacking: Option<Vec<Finding>> = None;
    for alternative in &reference.alternatives {
        let mut findings = tool_start(node.claims, reference, alternative);
        for at in &alternative.rules {
            let (Some(rules), Some(known)) = (reference.rules.get(*at), of_rules.get_mut(*at))
            else {
                continue;
            };
            findings.extend_from_slice(known.get_or_insert_with(|| by_rules(node, rules)));
        }
        if findings.is_empty() {
            return Outcome::of(reference, alternative, findings);
        }
        let is_nearer = |known: &Option<Vec<Finding>>| {
            known.as_ref().is_none_or(|best| findings.len() < best.len())
        };
        if findings.iter().all(Finding::is_of_lacking_evidence) && is_nearer(&lacking) {
            lacking = Some(findings.clone());
        }
        if nearest.as_ref().is_none_or(|best| findings.len() < best.findings.len()) {
            nearest = Some(Outcome::of(reference, alternative, findings));
        }
    }
    if let Some(nearest) = &mut nearest {
        nearest.lacking = lacking.unwrap_or_default();
    }
    nearest.unwrap_or_else(|| Outcome {
        label: "",
        // There is always an alternative; without one nothing may pass.
        findings: vec![Finding::new(
            ReasonCode::PolicyNoReferenceValues,
            format!("pool {}", reference.pool()),
            "an active golden set",
            "none",
        )],
        lacking: Vec::new(),
        ima: Vec::new(),
    })
}

impl<'r> Outcome<'r> {
    fn of(
        reference: &ReferenceValues,
        alternative: &'r Alternative,
        findings: Vec<Finding>,
    ) -> Self {
        let policies = reference.rules_of(alternative).filter_map(|rules| rules.ima.as_ref());
        let ima = policies.map(|policy| *policy.digest()).collect();
        Self { label: &alternative.label, findings, lacking: Vec::new(), ima }
    }
}

fn by_rules(node: Judged<'_>, rules: &Rules) -> Vec<Finding> {
    let Judged { claims, measurements, ima } = node;
    let mut findings = Vec::new();
    tpm(claims, rules, &mut findings);
    // What every alternative reads was refused before; this is for what only some of them read.
    if let Some(Err(denial)) =
        claims.boot_log().proven().map(|log| log.refuse_problems(rules.log_pcrs()))
    {
        findings.extend(denial.findings().cloned());
    }
    if let Some(boot_rules) = &rules.boot {
        boot::boot(claims.boot_log(), boot_rules, &mut findings);
    }
    pcrs(claims, rules, &mut findings);
    for rule in &rules.events {
        boot::events(claims.boot_log(), rule, &mut findings);
    }
    if let Some(policy) = &rules.ima {
        findings.extend(ima.findings(policy.digest()));
    }
    tools(claims, measurements, rules, &mut findings);
    findings
}

/// What firmware left in the tool PCR has to be named somewhere, and by all who name anything.
fn tool_start(
    claims: &Claims,
    reference: &ReferenceValues,
    alternative: &Alternative,
) -> Vec<Finding> {
    let state = claims.tools();
    let mut findings = Vec::new();
    for start in &state.start_values {
        if *start == state.pcr.reset_value(start.alg()) {
            continue;
        }
        let rules = alternative.rules.iter().filter_map(|at| reference.rules.get(*at));
        let lists: Vec<_> =
            rules.map(|rules| &rules.tool_start).filter(|list| !list.is_empty()).collect();
        if lists.is_empty() || !lists.iter().all(|list| list.contains(start)) {
            let listed: Vec<_> =
                lists.iter().flat_map(|list| list.iter().map(ToString::to_string)).collect();
            findings.push(Finding::new(
                ReasonCode::PolicyToolPcrStart,
                format!("PCR {} ({}) before the first tool", state.pcr, start.alg()),
                if listed.is_empty() { "its reset value".to_owned() } else { listed.join(" or ") },
                start.to_string(),
            ));
        }
    }
    findings
}

fn tpm(claims: &Claims, reference: &Rules, findings: &mut Vec<Finding>) {
    let manufacturer = claims.ek().manufacturer.as_deref().map(canonical_id);
    if !reference.manufacturers.is_empty()
        && !manufacturer.as_ref().is_some_and(|id| reference.manufacturers.contains(id))
    {
        findings.push(Finding::new(
            ReasonCode::PolicyTpmManufacturerNotAllowed,
            "TPM manufacturer",
            reference.manufacturers.iter().cloned().collect::<Vec<_>>().join(" or "),
            manufacturer.clone().unwrap_or_else(|| "not certified".into()),
        ));
    }
    let floors = &reference.firmware_floor;
    let floor = match &manufacturer {
        Some(id) => floors.get(id).or_else(|| floors.get("*")),
        // Nobody certified who made it: a floor that cannot be looked up must not be passed by.
        None => floors.get("*").or_else(|| floors.values().max()),
    };
    if let Some(floor) = floor {
        let version = u64::from_str_radix(&claims.tpm().firmware_version, 16).unwrap_or(0);
        if version < *floor {
            findings.push(Finding::new(
                ReasonCode::PolicyTpmFirmwareBelowFloor,
                "TPM firmware",
                format!("at least {floor:016x}"),
                claims.tpm().firmware_version.clone(),
            ));
        }
    }
    if reference.require_safe_clock && !claims.tpm().clock_safe {
        findings.push(Finding::new(
            ReasonCode::PolicyClockNotSafe,
            "TPM clock",
            "safe",
            "not safe",
        ));
    }
}

/// What a finding about the value of a PCR is about.
#[must_use]
pub fn pcr_subject(bank: HashAlg, index: PcrIndex) -> String {
    format!("PCR {index} ({bank})")
}

fn pcrs(claims: &Claims, reference: &Rules, findings: &mut Vec<Finding>) {
    for pcr in &reference.pcrs {
        let subject = || pcr_subject(pcr.bank, pcr.index);
        let Some(value) = claims.pcr(pcr.bank, pcr.index) else {
            findings.push(Finding::new(
                ReasonCode::PcrSelectionIncomplete,
                subject(),
                "in the quote",
                "not quoted",
            ));
            continue;
        };
        // A firmware PCR that nothing was extended into is refused whatever the set says.
        if pcr.index.get() <= 7 && value.is_reset_value() {
            findings.push(Finding::new(
                ReasonCode::PcrAtResetValue,
                subject(),
                "extended by firmware",
                value.to_string(),
            ));
        } else if !pcr.accept.iter().any(|accepted| accepted.value == *value) {
            findings.push(boot::first_difference(claims.boot_log(), pcr).unwrap_or_else(|| {
                let accepted = pcr.accept.iter().map(|accepted| accepted.value.to_string());
                Finding::new(
                    ReasonCode::PolicyPcrNotAllowed,
                    subject(),
                    accepted.collect::<Vec<_>>().join(" or "),
                    value.to_string(),
                )
            }));
        }
    }
}

fn tools(
    claims: &Claims,
    measurements: &[ToolMeasurement],
    reference: &Rules,
    findings: &mut Vec<Finding>,
) {
    let state = claims.tools();
    for digest in reference.denied_tools.intersection(&state.seen_digests) {
        findings.push(Finding::new(
            ReasonCode::PolicyToolDenied,
            "tool with a denied digest",
            "never in this boot",
            digest.to_string(),
        ));
    }
    for (name, rule) in &reference.tools {
        let latest = state.latest.get(name);
        let present = latest.filter(|tool| tool.state == ToolState::Present);
        if let Some(tool) = present {
            if !rule.accept.iter().any(|accepted| accepted.digest == tool.digest) {
                findings.push(not_allowed(name, rule, tool.digest, measurements));
            }
        } else if rule.required {
            findings.push(Finding::new(
                ReasonCode::PolicyToolMissing,
                format!("tool {name}"),
                "measured and present",
                if latest.is_some() { "absent" } else { "not in the worker's tool list" },
            ));
        }
    }
    if reference.closed {
        for (name, tool) in &state.latest {
            if tool.state == ToolState::Present && !reference.tools.contains_key(name) {
                findings.push(Finding::new(
                    ReasonCode::PolicyToolUnexpected,
                    format!("tool {name}"),
                    "not on the worker",
                    tool.digest.to_string(),
                ));
            }
        }
    }
}

/// One finding for the tool, naming the first file that differs where both sides are known.
fn not_allowed(
    name: &str,
    rule: &ToolReference,
    digest: proto::digest::Digest,
    measurements: &[ToolMeasurement],
) -> Finding {
    let expected =
        rule.accept.iter().map(|tool| tool.digest.to_string()).collect::<Vec<_>>().join(" or ");
    let plain = Finding::new(
        ReasonCode::PolicyToolNotAllowed,
        format!("tool {name}"),
        expected,
        digest.to_string(),
    );
    let measured = measurements.iter().rev().find(|tool| tool.name() == name);
    let known = rule.accept.iter().filter(|tool| !tool.files.is_empty());
    let Some(measured) = measured else { return plain };
    // Against the accepted state that is nearest, so that the words are about the real change.
    let nearest =
        known.map(|tool| differences(measured, &tool.files)).min_by_key(|diff| diff.count);
    match nearest {
        Some(Differences { count, first: Some((path, expected, observed)) }) => Finding::new(
            ReasonCode::PolicyToolNotAllowed,
            format!("tool {name}: {path}"),
            expected,
            if count > 1 {
                format!("{observed} (and {} more files differ)", count - 1)
            } else {
                observed
            },
        ),
        _ => plain,
    }
}

struct Differences {
    count: usize,
    first: Option<(String, String, String)>,
}

fn differences(
    measured: &ToolMeasurement,
    expected: &std::collections::BTreeMap<String, String>,
) -> Differences {
    let observed: std::collections::BTreeMap<String, String> = measured
        .entries()
        .iter()
        .map(|entry| (path_text(&entry.path), entry_text(&entry.kind)))
        .collect();
    let mut out = Differences { count: 0, first: None };
    let paths: std::collections::BTreeSet<&String> =
        expected.keys().chain(observed.keys()).collect();
    for path in paths {
        let (want, have) = (expected.get(path), observed.get(path));
        if want != have {
            out.count += 1;
            if out.first.is_none() {
                let text = |side: Option<&String>| side.cloned().unwrap_or_else(|| "absent".into());
                out.first = Some((path.clone(), text(want), text(have)));
            }
        }
    }
    out
}

/// An entry as golden sets write it: `sha256:…` or `-> target`.
#[must_use]
pub fn entry_text(kind: &EntryKind) -> String {
    match kind {
        EntryKind::File { digest, .. } => digest.to_string(),
        EntryKind::Link { target } => format!("-> {}", path_text(target)),
    }
}
