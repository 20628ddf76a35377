//! The tool log against the quoted PCR.

use std::sync::Arc;

use proto::{
    digest::{Digest, HashAlg, PcrIndex, PcrSelection},
    evidence::LogSuffix,
    reason::ReasonCode,
    tool_log::{ToolLogReader, ToolLogState, ToolMeasurement},
};

use crate::{
    pcr::AttestedPcrs,
    verdict::{Denial, Finding},
};

/// A tool log, replayed but not yet compared with a PCR.
#[derive(Clone, Debug)]
pub struct ReplayedToolLog {
    state: Arc<ToolLogState>,
    new: Vec<ToolMeasurement>,
}

impl ReplayedToolLog {
    /// Replays a suffix on what is known of this boot's log.
    ///
    /// `known` is `None` at the start of a boot's log: then the suffix must begin at byte 0. The set of banks is
    /// that of the log's first event (it must hold every quoted bank).
    ///
    /// # Errors
    /// `TOOL_LOG_OFFSET_INVALID` for a suffix that begins elsewhere, and the codes of
    /// [`ToolLogState::apply`].
    pub fn replay(
        known: Option<&Arc<ToolLogState>>,
        suffix: Option<&LogSuffix>,
        tool_pcr: PcrIndex,
        asked: &PcrSelection,
    ) -> Result<Self, Denial> {
        let bytes = suffix.map_or(&[][..], |suffix| suffix.bytes.as_slice());
        let from =
            suffix.map_or_else(|| known.map_or(0, |state| state.bytes), |suffix| suffix.from_bytes);
        let expected = known.map_or(0, |state| state.bytes);
        if from != expected {
            return Err(deny(
                ReasonCode::ToolLogOffsetInvalid,
                format!("from byte {expected} on"),
                format!("from byte {from} on"),
            ));
        }
        if let (Some(state), []) = (known, bytes) {
            return Ok(Self { state: Arc::clone(state), new: Vec::new() });
        }
        let mut state = match known {
            Some(state) if state.events > 0 => ToolLogState::clone(state),
            // Of an empty log only the quoted banks were known: its first event names its own.
            known => {
                let before = known.map_or(&[][..], |state| state.start_values.as_slice());
                let start: Vec<Digest> = banks(bytes, tool_pcr, asked)
                    .into_iter()
                    .map(|bank| {
                        let known = before.iter().find(|value| value.alg() == bank);
                        known.copied().unwrap_or_else(|| tool_pcr.reset_value(bank))
                    })
                    .collect();
                ToolLogState::new(tool_pcr, &start)
            }
        };
        let new = state
            .apply(bytes)
            .map_err(|error| deny(error.code(), "a canonical tool log", error.to_string()))?;
        Ok(Self { state: Arc::new(state), new })
    }

    /// The same log on a PCR that firmware extended before: `start` holds what it left there, one value a bank.
    ///
    /// # Errors
    /// As [`ReplayedToolLog::replay`].
    pub fn starting_at(self, start: &[Digest], suffix: Option<&LogSuffix>) -> Result<Self, Denial> {
        let values: Vec<Digest> = self
            .state
            .start_values
            .iter()
            .map(|reset| *start.iter().find(|value| value.alg() == reset.alg()).unwrap_or(reset))
            .collect();
        let mut state = ToolLogState::new(self.state.pcr, &values);
        let new = state
            .apply(suffix.map_or(&[][..], |suffix| suffix.bytes.as_slice()))
            .map_err(|error| deny(error.code(), "a canonical tool log", error.to_string()))?;
        Ok(Self { state: Arc::new(state), new })
    }

    /// The replayed state.
    #[must_use]
    pub const fn state(&self) -> &Arc<ToolLogState> {
        &self.state
    }
}

/// Banks of a log that starts here: those of its first event, else those that are quoted.
fn banks(log: &[u8], tool_pcr: PcrIndex, asked: &PcrSelection) -> Vec<HashAlg> {
    match ToolLogReader::new(log).next() {
        Some(Ok(event)) => event.digests.iter().map(proto::digest::Digest::alg).collect(),
        _ => asked
            .banks()
            .iter()
            .filter(|(_, set)| set.contains(tool_pcr))
            .map(|(alg, _)| *alg)
            .collect(),
    }
}

/// Tool measurements that the TPM vouches for.
///
/// # Proves
/// The log replays, in every quoted bank, to the value of the tool PCR in [`AttestedPcrs`]: nothing was left out,
/// put in or put elsewhere since the PCR's reset.
///
/// # Does not prove
/// That the worker hashed what it says it hashed: see docs/THREAT_MODEL.md, "User-space measurement".
///
/// # Errors
/// `TOOL_LOG_WRONG_PCR` if the tool PCR was quoted in a bank that the log has not, or in none;
/// `TOOL_LOG_REPLAY_MISMATCH`.
///
/// # Invariants
/// INV-5 (docs/THREAT_MODEL.md).
#[derive(Clone, Debug)]
pub struct AttestedMeasurements {
    state: Arc<ToolLogState>,
    new: Vec<ToolMeasurement>,
}

impl AttestedMeasurements {
    /// Compares the replay with every quoted bank.
    ///
    /// # Errors
    /// See the type.
    pub fn verify(
        log: ReplayedToolLog,
        pcrs: &AttestedPcrs,
        tool_pcr: PcrIndex,
    ) -> Result<Self, Denial> {
        let mut compared = 0_usize;
        for value in pcrs.values().iter().filter(|value| value.index == tool_pcr) {
            let bank = value.value.alg();
            let Some(replayed) = log.state.pcr_values.iter().find(|known| known.alg() == bank)
            else {
                return Err(deny(
                    ReasonCode::ToolLogWrongPcr,
                    format!("digests for bank {bank}"),
                    "none",
                ));
            };
            if *replayed != value.value {
                return Err(deny(
                    ReasonCode::ToolLogReplayMismatch,
                    format!("PCR {tool_pcr} = {replayed} after {} events", log.state.events),
                    value.value.to_string(),
                ));
            }
            compared = compared.saturating_add(1);
        }
        if compared == 0 {
            return Err(deny(
                ReasonCode::ToolLogWrongPcr,
                format!("PCR {tool_pcr} in the quote"),
                "not quoted",
            ));
        }
        Ok(Self { state: log.state, new: log.new })
    }

    /// The whole boot's log, replayed.
    #[must_use]
    pub const fn state(&self) -> &Arc<ToolLogState> {
        &self.state
    }

    /// Measurements in this evidence's suffix, in order, with their files.
    #[must_use]
    pub fn into_new_measurements(self) -> Vec<ToolMeasurement> {
        self.new
    }
}

fn deny(code: ReasonCode, expected: impl Into<String>, observed: impl Into<String>) -> Denial {
    Finding::new(code, "tool log", expected, observed).into()
}
