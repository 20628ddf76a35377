//! Golden sets proposed from what a node last proved.
//!
//! Only evidence that passed every integrity stage is captured: the claims in its recorded verdict, and its tools
//! with their files from the recorded log. What is captured is trust on first use, and says so.

use std::collections::BTreeMap;

use appraisal::{
    claims::ClaimsDocument,
    policy::{
        decide::entry_text,
        document::{
            AcceptedTool, AcceptedValue, GoldenDocument, PcrRule, SCHEMA, ToolRule, ToolSetRules,
            TpmRules,
        },
        reference::path_key,
    },
};
use prost::Message as _;
use proto::{
    digest::{Digest, HashAlg, PcrIndex},
    pb,
    tool_log::{ToolLogReader, ToolMeasurement, ToolState},
};
use serde::Deserialize;

use crate::store::{DecisionFilter, Node, RecordedDecision, Store, StoreError};

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
    /// No evidence of the node passed the integrity stages, or retention dropped it.
    #[error(
        "node {0} has proven nothing yet: let it attest once (it will be denied, and recorded)"
    )]
    NothingProven(String),
    /// Every quoted PCR stands at its reset value.
    #[error("every PCR of node {0} stands at its reset value: its firmware measures nothing")]
    NothingMeasured(String),
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

/// A golden set, TOML, from the node's last proven evidence.
///
/// # Errors
/// [`CaptureError`].
pub async fn capture(
    store: &Store,
    node: &Node,
    set_name: &str,
    tool_pcr: PcrIndex,
) -> Result<String, CaptureError> {
    let last = last_claims(store, &node.name)
        .await?
        .ok_or_else(|| CaptureError::NothingProven(node.name.clone()))?;
    let measured = measurements(store, node).await?;
    let version = store
        .golden_sets(Some(&node.pool))
        .await?
        .iter()
        .map(|set| set.version)
        .max()
        .unwrap_or(0)
        .saturating_add(1);
    let from = format!("node {}, decision {}", node.name, last.decision.decision.id);
    let name = if set_name.is_empty() { node.pool.as_str() } else { set_name };
    let document = GoldenDocument {
        schema: SCHEMA.to_owned(),
        name: name.to_owned(),
        pool: node.pool.clone(),
        version,
        description: Some(format!(
            "Captured from {from}. Trust on first use: review it before you apply it."
        )),
        tpm: TpmRules {
            manufacturers: last.claims.ek.manufacturer.iter().cloned().collect(),
            ..Default::default()
        },
        pcr: pcr_rules(&last.claims, tool_pcr, &from),
        tools: ToolSetRules::default(),
        tool: tool_rules(&last.claims, &measured, &from),
    };
    if document.pcr.is_empty() {
        return Err(CaptureError::NothingMeasured(node.name.clone()));
    }
    toml::to_string_pretty(&document).map_err(|error| CaptureError::Write(error.to_string()))
}

/// Quoted PCRs that were extended, but none that a golden set must not list.
fn pcr_rules(claims: &ClaimsDocument, tool_pcr: PcrIndex, from: &str) -> Vec<PcrRule> {
    let mut rules = Vec::new();
    for (bank, values) in &claims.pcrs {
        for (index, value) in values {
            let skipped = *index == tool_pcr || NEVER_AS_VALUES.contains(&index.get());
            if skipped || value.is_reset_value() {
                continue;
            }
            rules.push(PcrRule {
                bank: *bank,
                index: index.get(),
                accept: vec![AcceptedValue {
                    value: hex::encode(value.as_bytes()),
                    from: Some(from.to_owned()),
                }],
            });
        }
    }
    rules
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
