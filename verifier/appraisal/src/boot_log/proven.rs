//! What a boot's logs proved, kept with the boot so that a renewal need not send them again.

use std::collections::BTreeMap;

use proto::{
    digest::{Digest, HashAlg, PcrIndex, PcrSet},
    eventlog::{EventLog, LogAlg, systemd},
    evidence::LogSuffix,
    ima::{BankAlg, BankDigest},
    reason::ReasonCode,
};
use serde::{Deserialize, Serialize};

use super::{
    AttestedBootLog, BootFacts, EventSource, Later, Problem, Replay, explain::refuse_problems,
    quirks::QuirkSeen,
};
use crate::{
    ima::{BootAggregate, BootPcrs},
    pcr::AttestedPcrs,
    verdict::{Denial, Finding},
};

/// PCRs that a kernel hashes into IMA's first entry.
const AGGREGATED_PCRS: u8 = 10;

/// Logs of one boot that the TPM vouches for, as far as they are read later.
///
/// # Proves
/// In every quoted bank the events of the logs, in their order, lead to the value that was quoted of each PCR in
/// [`Self::values`]. Facts are of these PCRs alone.
///
/// # Invariants
/// Made by [`ProvenBootLog::read`] alone, or read back from a store that the reader trusts and keeps for one boot
/// only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvenBootLog {
    /// SHA-256 of the firmware's log.
    pub log: Digest,
    /// SHA-256 of systemd's log, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub systemd_log: Option<Digest>,
    /// Quoted values that the logs lead to, by bank and PCR.
    pub values: BTreeMap<HashAlg, BTreeMap<PcrIndex, Digest>>,
    /// The events that lead there.
    pub events: Vec<ProvenEvent>,
    /// What IMA's first entry may be, over PCRs in banks that the log has and the quote has not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aggregates: Vec<BootAggregate>,
    /// Facts.
    pub facts: BootFacts,
    /// Oddities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// Deviations of firmware that were tolerated, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quirks: Vec<QuirkSeen>,
}

/// An event of an explained PCR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvenEvent {
    /// The PCR.
    pub pcr: PcrIndex,
    /// Which log it is from.
    pub source: EventSource,
    /// Its place in that log, from 0.
    pub index: u32,
    /// One digest for each quoted bank, ascending.
    pub digests: Vec<Digest>,
    /// In words, for people: no digest vouches for them.
    pub untrusted_words: String,
}

impl ProvenEvent {
    /// Its digest in one bank.
    #[must_use]
    pub fn digest(&self, bank: HashAlg) -> Option<&Digest> {
        self.digests.iter().find(|digest| digest.alg() == bank)
    }
}

/// What logs lead to besides what is kept of them: other logs go on from here.
#[derive(Clone, Debug)]
pub struct BootLogReading {
    /// What is kept.
    pub proven: ProvenBootLog,
    /// Where the log that continues a PCR starts, by PCR: only of PCRs that firmware extended.
    starts: Vec<(PcrIndex, Vec<Digest>)>,
    /// Firmware's PCRs in every bank that can be computed, for IMA's first entry.
    pub boot_pcrs: BootPcrs,
}

impl BootLogReading {
    /// Values from which another log continues this PCR, one a bank; `None` where firmware left it at its reset value.
    #[must_use]
    pub fn start_of(&self, pcr: PcrIndex) -> Option<&[Digest]> {
        self.starts.iter().find(|(known, _)| *known == pcr).map(|(_, values)| values.as_slice())
    }
}

impl ProvenBootLog {
    /// Reads whole logs against quoted values.
    ///
    /// `required` are the PCRs that policy reads from logs, whatever a node is. Of `later` this reads what is no log: the
    /// PCRs that some rules read, those that other logs (tools, IMA) go on with, and the bank of the facts.
    ///
    /// # Errors
    /// Those of [`EventLog::parse`], [`systemd::parse`] and [`super::explain()`].
    pub fn read(
        firmware: &LogSuffix,
        systemd_log: Option<&LogSuffix>,
        pcrs: &AttestedPcrs,
        required: PcrSet,
        later: Later<'_>,
    ) -> Result<BootLogReading, Denial> {
        let log = EventLog::parse(&firmware.bytes).map_err(|error| {
            deny("event log", error.code(), "a firmware event log", error.to_string())
        })?;
        let records = systemd_log
            .map(|suffix| systemd::parse(whole_records(&suffix.bytes)))
            .transpose()
            .map_err(|error| deny("systemd's log", error.code(), "a log", error.to_string()))?;
        let continued = later.continued;
        let later = Later { systemd: records.as_deref(), ..later };
        let attested = AttestedBootLog::verify(&log, later, pcrs, required)?;
        let explained: PcrSet =
            attested.explained().iter().filter(|pcr| !continued.contains(*pcr)).collect();
        let mut values: BTreeMap<HashAlg, BTreeMap<PcrIndex, Digest>> = BTreeMap::new();
        for value in pcrs.values().iter().filter(|value| explained.contains(value.index)) {
            values.entry(value.value.alg()).or_default().insert(value.index, value.value);
        }
        let banks: Vec<HashAlg> = values.keys().copied().collect();
        let starts = continued
            .iter()
            .filter(|pcr| attested.replay().has_events(*pcr))
            .map(|pcr| (pcr, start(attested.replay(), pcr, pcrs)))
            .collect();
        let boot_pcrs = boot_pcrs(&log, pcrs, explained);
        let quoted = quoted_boot_pcrs(pcrs).candidates();
        let mut aggregates = boot_pcrs.candidates();
        aggregates.retain(|aggregate| !quoted.contains(aggregate));
        let proven = Self {
            log: HashAlg::Sha256.hash(&[&firmware.bytes]),
            systemd_log: systemd_log.map(|suffix| HashAlg::Sha256.hash(&[&suffix.bytes])),
            events: events(attested.replay(), &banks, explained),
            aggregates,
            values,
            facts: attested.facts().clone(),
            problems: attested.problems().to_vec(),
            quirks: attested.quirks().to_vec(),
        };
        Ok(BootLogReading { proven, starts, boot_pcrs })
    }

    /// Whether the logs lead to the value of this PCR in this bank.
    #[must_use]
    pub fn explains(&self, bank: HashAlg, pcr: PcrIndex) -> bool {
        self.values.get(&bank).is_some_and(|values| values.contains_key(&pcr))
    }

    /// PCRs that the logs lead to.
    #[must_use]
    pub fn explained(&self) -> PcrSet {
        self.values.values().flat_map(BTreeMap::keys).copied().collect()
    }

    /// The events of one PCR, in order.
    pub fn of_pcr(&self, pcr: PcrIndex) -> impl Iterator<Item = &ProvenEvent> {
        self.events.iter().filter(move |event| event.pcr == pcr)
    }

    /// Whether the PCRs still have the values that the logs lead to: then facts and events hold for this quote too.
    ///
    /// # Errors
    /// `EVENT_LOG_STALE`, naming the first PCR that went on: the logs have to be read again.
    pub fn still_leads_to(&self, pcrs: &AttestedPcrs) -> Result<(), Denial> {
        for (bank, values) in &self.values {
            for (pcr, value) in values {
                let quoted = pcrs.value(*bank, *pcr);
                if quoted != Some(value) {
                    return Err(deny(
                        format!("event log, PCR {pcr} ({bank})"),
                        ReasonCode::EventLogStale,
                        value.to_string(),
                        quoted.map_or_else(|| "not quoted".to_owned(), ToString::to_string),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Refuses what [`Self::read`] refuses of PCRs that policy reads: policy may ask for more than when it was read.
    ///
    /// # Errors
    /// `EVENT_LOG_SEPARATOR_INVALID`.
    pub fn refuse_problems(&self, required: PcrSet) -> Result<(), Denial> {
        refuse_problems(&self.problems, required)
    }
}

/// systemd's log up to the end of its last record: it may have been read while one was written.
fn whole_records(log: &[u8]) -> &[u8] {
    let end = log.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at.saturating_add(1));
    log.get(..end).unwrap_or_default()
}

/// Firmware's PCRs as the kernel found them: quoted where the log leads to them, and in banks that are not quoted as the
/// same log replays.
fn boot_pcrs(log: &EventLog<'_>, pcrs: &AttestedPcrs, explained: PcrSet) -> BootPcrs {
    let mut out = quoted_boot_pcrs(pcrs);
    let quoted: Vec<_> = pcrs.values().iter().map(|value| value.value.alg().into()).collect();
    let others: Vec<_> = log
        .banks()
        .into_iter()
        .filter(|bank| bank.is_computed() && !quoted.contains(bank))
        .collect();
    let Ok(replay) = Replay::of(log, &others) else { return out };
    for bank in others {
        for pcr in explained.iter().filter(|pcr| pcr.get() < AGGREGATED_PCRS) {
            let value = replay
                .value(bank, pcr)
                .and_then(|value| BankDigest::new(ima_bank(bank)?, value.as_bytes()).ok());
            if let Some(value) = value {
                out.set(pcr.get(), value);
            }
        }
    }
    out
}

/// The bank as IMA knows it.
fn ima_bank(bank: LogAlg) -> Option<BankAlg> {
    match bank {
        LogAlg::Sha1 => Some(BankAlg::Sha1),
        other => HashAlg::from_tpm(other.tpm_id()).map(BankAlg::from),
    }
}

/// Firmware's PCRs as they were quoted: nothing extends them once the kernel runs.
#[must_use]
pub fn quoted_boot_pcrs(pcrs: &AttestedPcrs) -> BootPcrs {
    pcrs.values()
        .iter()
        .filter(|value| value.index.get() < AGGREGATED_PCRS)
        .map(|value| (value.index.get(), BankDigest::from(&value.value)))
        .collect()
}

/// Replayed values of a PCR in each quoted bank.
fn start(replay: &Replay<'_>, pcr: PcrIndex, pcrs: &AttestedPcrs) -> Vec<Digest> {
    pcrs.values()
        .iter()
        .filter(|value| value.index == pcr)
        .filter_map(|value| replay.value(value.value.alg().into(), pcr)?.to_digest())
        .collect()
}

fn events(replay: &Replay<'_>, banks: &[HashAlg], explained: PcrSet) -> Vec<ProvenEvent> {
    let mut out = Vec::new();
    for (position, event) in replay.events().iter().enumerate() {
        if !explained.contains(event.pcr) {
            continue;
        }
        let digests = banks
            .iter()
            .filter_map(|bank| replay.digest(position, (*bank).into())?.to_digest())
            .collect();
        out.push(ProvenEvent {
            pcr: event.pcr,
            source: event.source,
            index: event.index,
            digests,
            untrusted_words: event.words(),
        });
    }
    out
}

fn deny(
    subject: impl Into<String>,
    code: ReasonCode,
    expected: impl Into<String>,
    observed: impl Into<String>,
) -> Denial {
    Finding::new(code, subject, expected, observed).into()
}
