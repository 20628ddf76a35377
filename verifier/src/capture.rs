//! Golden sets proposed from what nodes last proved.
//!
//! Only evidence that passed every integrity stage is captured: the claims in its recorded verdict, and its tools
//! with their files from the recorded log. What is captured is trust on first use, and says so.

mod boot;

use std::collections::BTreeMap;

use appraisal::{
    boot::{Boot, BootDocument},
    boot_log::ProvenBootLog,
    claims::ClaimsDocument,
    policy::{
        decide::entry_text,
        document::{AcceptedTool, GoldenDocument, ToolRule, ToolSetRules, TpmRules},
        merge::{MergeError, merge},
        path_key,
    },
    x509::format_utc,
};
use prost::Message as _;
use proto::{
    digest::{Digest, HashAlg, PcrIndex},
    pb,
    tool_log::{ToolLogReader, ToolMeasurement, ToolState},
};
use serde::Deserialize;

use self::boot::{PcrRules, boot_rules, pcr_rules, tolerated};
use crate::store::{By, DecisionFilter, DocumentKind, Node, RecordedDecision, Store, StoreError};

/// Decisions looked through for the last proven claims.
const LOOK_BACK: u32 = 200;
/// PCRs that are never captured as values: IMA's, and those that any process can reset.
const NEVER_AS_VALUES: [u8; 3] = [10, 16, 23];

/// Claims of a node's last integrity-verified evidence.
#[derive(Debug)]
pub struct LastClaims {
    /// The decision they stand in.
    pub decision: RecordedDecision,
    /// The claims.
    pub claims: ClaimsDocument,
    /// The claims, JSON.
    pub json: String,
}

/// Why nothing was captured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// No node was named.
    #[error("no node was named")]
    NoNode,
    /// A set judges one pool.
    #[error("nodes of two pools, {0} and {1}: a set judges one pool")]
    SeveralPools(String, String),
    /// No evidence of the node passed the integrity stages, or retention dropped it.
    #[error(
        "node {0} has proven nothing yet: let it attest once (it will be denied, and recorded)"
    )]
    NothingProven(String),
    /// Every quoted PCR stands at its reset value.
    #[error("every PCR of node {0} stands at its reset value: its firmware measures nothing")]
    NothingMeasured(String),
    /// The captures make no set.
    #[error("the captures of these nodes make no set")]
    Merge(#[from] MergeError),
    /// The set could not be written as TOML.
    #[error("the golden set could not be written: {0}")]
    Write(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Deserialize)]
struct Verdict {
    claims: Option<ClaimsDocument>,
}

/// The claims of the node's last evidence that passed the integrity stages.
///
/// # Errors
/// [`StoreError`].
pub async fn last_claims(store: &Store, node: &str) -> Result<Option<LastClaims>, StoreError> {
    let filter =
        DecisionFilter { node: Some(node.to_owned()), limit: LOOK_BACK, ..Default::default() };
    for decision in store.decisions(&filter).await? {
        let Some(verdict) = store.verdict(&decision.decision.id).await? else { continue };
        let Ok(Verdict { claims: Some(claims) }) = serde_json::from_slice(&verdict) else {
            continue;
        };
        let json = serde_json::to_string_pretty(&claims).unwrap_or_default();
        return Ok(Some(LastClaims { decision, claims, json }));
    }
    Ok(None)
}

/// One golden set, TOML, from the last proven evidence of nodes of one pool.
///
/// # Errors
/// [`CaptureError`].
pub async fn capture(
    store: &Store,
    nodes: &[Node],
    set_name: &str,
    tool_pcr: PcrIndex,
    by: &By,
) -> Result<String, CaptureError> {
    let Some(first) = nodes.first() else { return Err(CaptureError::NoNode) };
    if let Some(other) = nodes.iter().find(|node| node.pool != first.pool) {
        return Err(CaptureError::SeveralPools(first.pool.clone(), other.pool.clone()));
    }
    let name = if set_name.is_empty() { first.pool.as_str() } else { set_name };
    let version = next_version(store, name).await?;
    let mut captures = Vec::with_capacity(nodes.len());
    let mut notes = Vec::new();
    for node in nodes {
        let captured = of_node(store, node, name, version, tool_pcr, by).await;
        let (document, its_notes) = match captured {
            Ok(captured) => captured,
            // Of many, who never came is no reason to have no set.
            Err(CaptureError::NothingProven(node)) if nodes.len() > 1 => {
                notes.push(format!("REVIEW: node {node} has proven nothing yet and is left out."));
                continue;
            }
            Err(other) => return Err(other),
        };
        captures.push((node.name.clone(), document));
        for note in its_notes {
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    if captures.is_empty() {
        return Err(CaptureError::NothingProven(first.name.clone()));
    }
    let merged = merge(captures)?;
    notes.extend(merged.notes);
    let text = toml::to_string_pretty(&merged.document)
        .map_err(|error| CaptureError::Write(error.to_string()))?;
    let comments: String = notes.iter().map(|note| comment(note)).collect();
    Ok(comments + &text)
}

/// A note as lines of a comment.
fn comment(note: &str) -> String {
    note.lines().map(|line| format!("# {line}\n")).collect()
}

/// What one node last proved, as a set, and what was chosen, and why.
async fn of_node(
    store: &Store,
    node: &Node,
    name: &str,
    version: u64,
    tool_pcr: PcrIndex,
    by: &By,
) -> Result<(GoldenDocument, Vec<String>), CaptureError> {
    let last = last_claims(store, &node.name)
        .await?
        .ok_or_else(|| CaptureError::NothingProven(node.name.clone()))?;
    let measured = measurements(store, node).await?;
    let decision = &last.decision.decision;
    let provenance = Provenance {
        from: format!("node {}, decision {}", node.name, decision.id),
        by: by.actor.clone(),
        at: format_utc(decision.at),
    };
    let boot = proven_boot(store, node, &last.claims).await?;
    let log = boot.as_ref().and_then(|boot| boot.boot_log().proven()).map(AsRef::as_ref);
    let skipped: Vec<PcrIndex> =
        NEVER_AS_VALUES.iter().copied().filter_map(PcrIndex::new).chain([tool_pcr]).collect();
    let pcrs = pcr_rules(&last.claims, log, &skipped, &provenance);
    let notes = notes(&last.claims, log, &pcrs);
    let from = &provenance.from;
    let document = GoldenDocument {
        description: Some(format!(
            "Captured from {from}. Trust on first use: review it before you sign it."
        )),
        tpm: TpmRules {
            manufacturers: last.claims.ek.manufacturer.iter().cloned().collect(),
            ..Default::default()
        },
        boot: log.map(boot_rules).unwrap_or_default(),
        pcr: pcrs.values,
        events: pcrs.events,
        tools: ToolSetRules { start: start(&last.claims, tool_pcr), ..Default::default() },
        tool: tool_rules(&last.claims, &measured, from),
        ..GoldenDocument::new(name.to_owned(), Some(node.pool.clone()), version)
    };
    if document.pcr.is_empty() && document.events.is_empty() {
        return Err(CaptureError::NothingMeasured(node.name.clone()));
    }
    Ok((document, notes))
}

/// Where a value comes from.
struct Provenance {
    from: String,
    by: String,
    at: String,
}

/// Above every version of the name so far.
async fn next_version(store: &Store, name: &str) -> Result<u64, StoreError> {
    let known = store.document_heads(DocumentKind::Golden).await?;
    let newest = known.iter().filter(|set| set.id.name == name).map(|set| set.id.version).max();
    Ok(newest.unwrap_or(0).saturating_add(1))
}

/// The record of the boot that the claims are of, for the facts and events of its logs.
async fn proven_boot(
    store: &Store,
    node: &Node,
    claims: &ClaimsDocument,
) -> Result<Option<Boot>, StoreError> {
    let Some(log) = claims.boot.as_ref().and_then(|boot| boot.log) else { return Ok(None) };
    for (stored, _) in store.boots(&node.name).await? {
        let document: Result<BootDocument, _> = serde_json::from_slice(&stored.record);
        let boot = document.ok().and_then(|document| Boot::assert_from_store(document).ok());
        let same = |boot: &Boot| boot.boot_log().proven().is_some_and(|known| known.log == log);
        if let Some(boot) = boot.filter(same) {
            return Ok(Some(boot));
        }
    }
    Ok(None)
}

/// What was chosen for this node, and why.
fn notes(claims: &ClaimsDocument, log: Option<&ProvenBootLog>, rules: &PcrRules) -> Vec<String> {
    let mut out = Vec::new();
    match (log, &claims.boot) {
        (Some(log), _) => {
            for code in tolerated(log) {
                out.push(format!(
                    "REVIEW: this boot shows {code}, and the set tolerates it. {}",
                    code.meaning()
                ));
            }
            for rule in &rules.events {
                let why = rule.why.as_deref().unwrap_or_default();
                out.push(format!("PCR {} is judged event by event: {why}", rule.index));
            }
            if !rules.values.is_empty() {
                out.push(
                    "The other PCRs are judged by value: the same in every boot of the same parts."
                        .to_owned(),
                );
            }
        }
        (None, Some(boot)) => {
            let why = boot.unread.map_or_else(String::new, |code| format!(" ({code})"));
            out.push(format!(
                "Every PCR is judged by value: the firmware's event log could not be used{why}."
            ));
        }
        (None, None) => out.push(
            "Every PCR is judged by value: the worker sent no firmware event log.".to_owned(),
        ),
    }
    out.push(
        "PCR 10 is never a value: it changes with every file. To judge what runs, build a manifest\n\
         (`verifier ima manifest`), import it (`verifier ima import`), and name it under [ima]."
            .to_owned(),
    );
    out
}

/// What firmware left in the tool PCR, where that is not its reset value.
fn start(claims: &ClaimsDocument, tool_pcr: PcrIndex) -> Vec<Digest> {
    claims
        .tool_pcr_start
        .iter()
        .filter(|value| **value != tool_pcr.reset_value(value.alg()))
        .copied()
        .collect()
}

fn tool_rules(
    claims: &ClaimsDocument,
    measured: &BTreeMap<Digest, ToolMeasurement>,
    from: &str,
) -> Vec<ToolRule> {
    claims
        .tools
        .iter()
        .filter(|(_, tool)| tool.state == ToolState::Present)
        .map(|(name, tool)| ToolRule {
            name: name.clone(),
            required: true,
            accept: vec![AcceptedTool {
                digest: tool.digest,
                version: tool.version.clone(),
                purl: tool.package.clone(),
                from: Some(from.to_owned()),
                files: measured.get(&tool.digest).map(files).unwrap_or_default(),
            }],
        })
        .collect()
}

fn files(measurement: &ToolMeasurement) -> BTreeMap<String, String> {
    measurement
        .entries()
        .iter()
        .map(|entry| (path_key(&entry.path), entry_text(&entry.kind)))
        .collect()
}

/// Every tool measurement in the node's recorded logs, by tool digest, as far back as evidence is kept.
async fn measurements(
    store: &Store,
    node: &Node,
) -> Result<BTreeMap<Digest, ToolMeasurement>, StoreError> {
    let filter =
        DecisionFilter { node: Some(node.name.clone()), limit: LOOK_BACK, ..Default::default() };
    let mut out = BTreeMap::new();
    for decision in store.decisions(&filter).await? {
        let Some(bytes) = store.case(&decision.decision.id).await? else { continue };
        let Ok(case) = pb::Case::decode(bytes.as_slice()) else { continue };
        for log in case.logs.iter().filter(|log| log.kind() == pb::LogKind::Tools) {
            let bytes = match Digest::new(HashAlg::Sha256, &log.object) {
                Ok(digest) => store.object(digest).await?,
                Err(_) => log.data.clone(),
            };
            for event in ToolLogReader::new(&bytes).map_while(Result::ok) {
                let digest = event.content.digest();
                out.entry(digest).or_insert(event.content);
            }
        }
    }
    Ok(out)
}
