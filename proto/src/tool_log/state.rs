//! What a tool log amounts to so far, so that a renewal reads only what is new.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    ToolLogError, ToolLogErrorKind,
    event::{ToolEvent, ToolLogReader},
    measurement::{ToolMeasurement, ToolState},
};
use crate::{
    digest::{Digest, HashAlg, PcrIndex},
    limits::{MAX_TOOL_EVENTS, MAX_TOOL_LOG_BYTES, MAX_TOOLS},
};

/// The latest measurement of one tool, without its entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolSummary {
    /// Record number of the event that says this.
    pub record_number: u64,
    /// Whether the tool is there.
    pub state: ToolState,
    /// [`ToolMeasurement::digest`].
    pub digest: Digest,
    /// The worker's claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The worker's claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Files and links measured.
    pub entries: u64,
}

impl ToolSummary {
    fn of(event: &ToolEvent<'_>) -> Self {
        let tool = &event.content;
        Self {
            record_number: event.record_number,
            state: tool.state(),
            digest: tool.digest(),
            version: tool.version().map(str::to_owned),
            package: tool.package().map(str::to_owned),
            entries: u64::try_from(tool.entries().len()).unwrap_or(u64::MAX),
        }
    }
}

/// A log, replayed: continues from any prefix that was replayed before.
///
/// # Does not prove
/// That the TPM's PCR has [`ToolLogState::pcr_values`]: the appraisal compares them with the quote.
///
/// # Invariants
/// Built by [`ToolLogState::new`] and [`ToolLogState::apply`] alone, or read back from a store that
/// the reader trusts and keeps for one boot only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolLogState {
    /// The PCR of the log.
    pub pcr: PcrIndex,
    /// Events so far; the next record number.
    pub events: u64,
    /// Bytes so far; the next suffix starts here.
    pub bytes: u64,
    /// Head of the hash chain over the contents, SHA-256; zeros before the first event.
    pub head: Digest,
    /// Value of the PCR before the first event, one a bank, ascending by `TPM_ALG_ID`.
    pub start_values: Vec<Digest>,
    /// Replayed value of the PCR, one a bank, ascending by `TPM_ALG_ID`.
    pub pcr_values: Vec<Digest>,
    /// The latest state of each tool, which decides.
    pub latest: BTreeMap<String, ToolSummary>,
    /// Digest of every present tool ever measured in this boot: a denied one denies wherever it
    /// stands.
    pub seen_digests: BTreeSet<Digest>,
}

impl ToolLogState {
    /// The state before the first event.
    ///
    /// `start_values`: what the PCR held before the first tool event, one a bank of the log (its
    /// reset values, or what the firmware's own log replays to); sorted here, a bank counts once.
    #[must_use]
    pub fn new(pcr: PcrIndex, start_values: &[Digest]) -> Self {
        let mut pcr_values = start_values.to_vec();
        pcr_values.sort();
        pcr_values.dedup_by_key(|value| value.alg());
        Self {
            pcr,
            events: 0,
            bytes: 0,
            head: Digest::zero(HashAlg::Sha256),
            start_values: pcr_values.clone(),
            pcr_values,
            latest: BTreeMap::new(),
            seen_digests: BTreeSet::new(),
        }
    }

    /// The state before the first event of a PCR that firmware leaves at its reset value.
    #[must_use]
    pub fn at_reset(pcr: PcrIndex, banks: &[HashAlg]) -> Self {
        let values: Vec<Digest> = banks.iter().map(|bank| pcr.reset_value(*bank)).collect();
        Self::new(pcr, &values)
    }

    /// The state before the first event, from the same start.
    #[must_use]
    pub fn restarted(&self) -> Self {
        Self::new(self.pcr, &self.start_values)
    }

    /// Banks of the log, ascending.
    pub fn banks(&self) -> impl Iterator<Item = HashAlg> + '_ {
        self.pcr_values.iter().map(Digest::alg)
    }

    /// Replays the events that follow; returns their measurements in order.
    ///
    /// # Errors
    /// [`ToolLogError`], and then the state is what it was. `TOOL_LOG_OUT_OF_SEQUENCE` for a record
    /// number that is not the next, `TOOL_LOG_WRONG_PCR` for another PCR or set of banks,
    /// `TOOL_LOG_DIGEST_MISMATCH`, `TOOL_LOG_NOT_CANONICAL` and `TOOL_LOG_MALFORMED` for an event
    /// that is not what it must be, `EVIDENCE_LIMIT_EXCEEDED` beyond the limits of one boot's log.
    pub fn apply(&mut self, suffix: &[u8]) -> Result<Vec<ToolMeasurement>, ToolLogError> {
        if suffix.is_empty() {
            return Ok(Vec::new());
        }
        let mut next = self.clone();
        let mut measurements = Vec::new();
        let total = u64::try_from(suffix.len()).ok().and_then(|len| self.bytes.checked_add(len));
        if total.is_none_or(|total| total > count(MAX_TOOL_LOG_BYTES)) {
            return Err(too_many(0, "bytes of tool log in one boot", MAX_TOOL_LOG_BYTES));
        }
        let mut reader = ToolLogReader::new(suffix);
        loop {
            let at = reader.offset();
            let Some(event) = reader.next() else { break };
            let event = event?;
            next.push(&event, at)?;
            let end = u64::try_from(reader.offset()).unwrap_or(u64::MAX);
            next.bytes = self.bytes.saturating_add(end);
            measurements.push(event.content);
        }
        *self = next;
        Ok(measurements)
    }

    fn push(&mut self, event: &ToolEvent<'_>, at: usize) -> Result<(), ToolLogError> {
        let refuse = |kind| Err(ToolLogError { at, kind });
        if event.record_number != self.events {
            return refuse(ToolLogErrorKind::Sequence {
                expected: self.events,
                found: event.record_number,
            });
        }
        if event.pcr != self.pcr {
            return refuse(ToolLogErrorKind::Pcr { expected: self.pcr, found: event.pcr.get() });
        }
        if !event.digests.iter().map(Digest::alg).eq(self.banks()) {
            return refuse(ToolLogErrorKind::Banks);
        }
        if self.events >= count(MAX_TOOL_EVENTS) {
            return Err(too_many(at, "tool events in one boot", MAX_TOOL_EVENTS));
        }
        let name = event.content.name();
        if self.latest.len() >= MAX_TOOLS && !self.latest.contains_key(name) {
            return Err(too_many(at, "tools", MAX_TOOLS));
        }
        for (value, digest) in self.pcr_values.iter_mut().zip(&event.digests) {
            *value = value.extended(digest);
        }
        self.head =
            HashAlg::Sha256.hash(&[self.head.as_bytes(), event.content_digest().as_bytes()]);
        self.events = self.events.saturating_add(1);
        let summary = ToolSummary::of(event);
        if summary.state == ToolState::Present {
            self.seen_digests.insert(summary.digest);
        }
        self.latest.insert(name.to_owned(), summary);
        Ok(())
    }
}

const fn too_many(at: usize, what: &'static str, max: usize) -> ToolLogError {
    ToolLogError { at, kind: ToolLogErrorKind::TooMany { what, max } }
}

fn count(limit: usize) -> u64 {
    u64::try_from(limit).unwrap_or(u64::MAX)
}
