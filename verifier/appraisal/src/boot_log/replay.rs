//! A log's events, extended into PCRs of our own.

use proto::{
    digest::PcrIndex,
    eventlog::{EventLog, EventType, LogAlg, LogDigest, no_action::NoAction},
    limits::PCR_COUNT,
    reason::ReasonCode,
};

use super::words;

/// Localities that `TPM2_Startup` may come from; 4 stands for an H-CRTM sequence before it.
const STARTUP_LOCALITIES: [u8; 3] = [0, 3, 4];
/// Locality of an H-CRTM sequence.
const HCRTM_LOCALITY: u8 = 4;

/// Where an event comes from.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventSource {
    /// The firmware's log.
    Firmware,
    /// systemd's log.
    Systemd,
    /// No log: a value that is known to be measured, and that explains the PCR.
    Inferred,
    /// Another log that was continued with.
    Other,
}

/// An event that was extended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayedEvent<'a> {
    /// Which log it is from.
    pub source: EventSource,
    /// Its place in that log, from 0.
    pub index: u32,
    /// The PCR.
    pub pcr: PcrIndex,
    /// What the log says that this is.
    pub untrusted_type: EventType,
    /// Its data.
    pub untrusted_data: &'a [u8],
}

impl ReplayedEvent<'_> {
    /// The event in words such as "kernel command line"; a hint, from data that no digest may cover.
    #[must_use]
    pub fn words(&self) -> String {
        match self.source {
            EventSource::Firmware => {
                words::describe(Some(self.pcr), self.untrusted_type, self.untrusted_data)
            }
            _ => words::quoted("measurement of the running system", self.untrusted_data),
        }
    }
}

/// Why a log cannot be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The log does not declare the bank, or its digests are not computed here.
    #[error("the log has no bank {0} that could be replayed")]
    Bank(LogAlg),
    /// The locality is not one that a TPM is started from.
    #[error("event {event}: a TPM is not started from locality {locality}")]
    Locality {
        /// The event.
        event: u32,
        /// What it says.
        locality: u8,
    },
    /// A second event names a locality, or PCR 0 was extended before.
    #[error("event {event}: the start of the TPM is told late or again")]
    LocalityLate {
        /// The event.
        event: u32,
    },
    /// It stands in another PCR than 0.
    #[error("event {event}: the start of the TPM is told for another PCR than 0")]
    LocalityPcr {
        /// The event.
        event: u32,
    },
}

impl ReplayError {
    /// The reason code that this error is refused with.
    #[must_use]
    pub const fn code(self) -> ReasonCode {
        match self {
            Self::Bank(_) => ReasonCode::EventLogBankMissing,
            Self::Locality { .. } | Self::LocalityLate { .. } | Self::LocalityPcr { .. } => {
                ReasonCode::EventLogStartupInvalid
            }
        }
    }
}

/// PCR values that a log leads to, in each of some banks, with the events that lead there.
///
/// # Proves
/// Nothing, until a value is compared with one that was quoted.
#[derive(Clone, Debug)]
pub struct Replay<'a> {
    banks: Vec<Bank>,
    events: Vec<ReplayedEvent<'a>>,
    /// For each event, one digest a bank.
    digests: Vec<Option<LogDigest>>,
    startup_locality: u8,
}

#[derive(Clone, Debug)]
struct Bank {
    alg: LogAlg,
    values: [LogDigest; PCR_COUNT],
    /// The first event without a digest of this bank: from there on the PCR cannot be replayed.
    missing: [Option<u32>; PCR_COUNT],
}

impl<'a> Replay<'a> {
    /// Replays a firmware log in the banks asked for, and hashes in no other.
    ///
    /// PCR 0 starts at the locality that the log names, at 4 where its first event is that of an H-CRTM. Type and
    /// locality are not under a digest; a wrong one leads to a wrong value.
    ///
    /// # Errors
    /// [`ReplayError`]. An event that lacks a bank's digest is none: see [`Self::missing`].
    pub fn of(log: &EventLog<'a>, banks: &[LogAlg]) -> Result<Self, ReplayError> {
        let declared = log.banks();
        let mut chosen = banks.to_vec();
        chosen.sort_unstable();
        chosen.dedup();
        if let Some(alg) = chosen.iter().find(|alg| !alg.is_computed() || !declared.contains(alg)) {
            return Err(ReplayError::Bank(*alg));
        }
        let startup_locality = startup_locality(log)?;
        let mut out = Self::at_reset(&chosen, startup_locality);
        out.events.reserve(log.events().len());
        out.digests.reserve(log.events().len().saturating_mul(chosen.len()));
        for event in log.events() {
            let (true, Some(pcr)) = (event.is_extended(), event.pcr) else { continue };
            out.events.push(ReplayedEvent {
                source: EventSource::Firmware,
                index: event.index,
                pcr,
                untrusted_type: event.untrusted_type,
                untrusted_data: event.untrusted_data,
            });
            for bank in &mut out.banks {
                let digest = event.digest(bank.alg);
                bank.extend(pcr, event.index, digest.as_ref());
                out.digests.push(digest);
            }
        }
        Ok(out)
    }

    /// Every PCR at its reset value, PCR 0 after a start from `startup_locality`.
    #[must_use]
    pub fn at_reset(banks: &[LogAlg], startup_locality: u8) -> Self {
        let banks = banks.iter().map(|alg| Bank::at_reset(*alg, startup_locality)).collect();
        Self { banks, events: Vec::new(), digests: Vec::new(), startup_locality }
    }

    /// Extends one more event. A bank without a digest in `digests` cannot be replayed in this PCR any further.
    pub fn extend(&mut self, event: ReplayedEvent<'a>, digests: &[LogDigest]) {
        for bank in &mut self.banks {
            let digest = digests.iter().find(|digest| digest.alg() == bank.alg);
            bank.extend(event.pcr, event.index, digest);
            self.digests.push(digest.copied());
        }
        self.events.push(event);
    }

    /// Banks that were replayed, ascending.
    pub fn banks(&self) -> impl Iterator<Item = LogAlg> + '_ {
        self.banks.iter().map(|bank| bank.alg)
    }

    /// The value that a PCR is led to; `None` if the bank was not replayed, or not all the way.
    #[must_use]
    pub fn value(&self, alg: LogAlg, pcr: PcrIndex) -> Option<LogDigest> {
        let bank = self.banks.iter().find(|bank| bank.alg == alg)?;
        match bank.missing.get(usize::from(pcr.get())) {
            Some(None) => bank.values.get(usize::from(pcr.get())).copied(),
            _ => None,
        }
    }

    /// The first event that extended this PCR without a digest of this bank.
    #[must_use]
    pub fn missing(&self, alg: LogAlg, pcr: PcrIndex) -> Option<u32> {
        let bank = self.banks.iter().find(|bank| bank.alg == alg)?;
        bank.missing.get(usize::from(pcr.get())).copied().flatten()
    }

    /// All events, in the order in which they are extended.
    #[must_use]
    pub fn events(&self) -> &[ReplayedEvent<'a>] {
        &self.events
    }

    /// The events of one PCR with their digests in one bank, in order.
    pub fn of_pcr(
        &self,
        alg: LogAlg,
        pcr: PcrIndex,
    ) -> impl Iterator<Item = (&ReplayedEvent<'a>, Option<LogDigest>)> + '_ {
        self.events
            .iter()
            .enumerate()
            .filter(move |(_, event)| event.pcr == pcr)
            .map(move |(position, event)| (event, self.digest(position, alg)))
    }

    /// The digest of the event at `position` of [`Self::events`].
    #[must_use]
    pub fn digest(&self, position: usize, alg: LogAlg) -> Option<LogDigest> {
        let bank = self.banks.iter().position(|bank| bank.alg == alg)?;
        let at = position.checked_mul(self.banks.len())?.checked_add(bank)?;
        self.digests.get(at).copied().flatten()
    }

    /// Whether anything was extended into this PCR.
    #[must_use]
    pub fn has_events(&self, pcr: PcrIndex) -> bool {
        self.events.iter().any(|event| event.pcr == pcr)
    }

    /// The locality that PCR 0 started from.
    #[must_use]
    pub const fn startup_locality(&self) -> u8 {
        self.startup_locality
    }
}

impl Bank {
    fn at_reset(alg: LogAlg, startup_locality: u8) -> Self {
        let mut values = [LogDigest::zero(alg); PCR_COUNT];
        for (index, value) in values.iter_mut().enumerate() {
            match index {
                0 => *value = LogDigest::ending_in(alg, startup_locality),
                17..=22 => *value = LogDigest::ones(alg),
                _ => {}
            }
        }
        Self { alg, values, missing: [None; PCR_COUNT] }
    }

    fn extend(&mut self, pcr: PcrIndex, event: u32, digest: Option<&LogDigest>) {
        let at = usize::from(pcr.get());
        let (Some(value), Some(missing)) = (self.values.get_mut(at), self.missing.get_mut(at))
        else {
            return;
        };
        match digest.and_then(|digest| value.extended(digest.as_bytes())) {
            Some(extended) => *value = extended,
            None => {
                missing.get_or_insert(event);
            }
        }
    }
}

/// The locality that PCR 0 starts from.
fn startup_locality(log: &EventLog<'_>) -> Result<u8, ReplayError> {
    let mut told = None;
    let mut first_of_pcr_0 = None;
    for event in log.events() {
        let in_pcr_0 = event.pcr.is_some_and(|pcr| pcr.get() == 0);
        if event.is_extended() {
            if in_pcr_0 && first_of_pcr_0.is_none() {
                first_of_pcr_0 = Some(event.untrusted_type);
            }
            continue;
        }
        let NoAction::StartupLocality(locality) = NoAction::read(event.untrusted_data) else {
            continue;
        };
        let event = event.index;
        if !in_pcr_0 {
            return Err(ReplayError::LocalityPcr { event });
        }
        if told.is_some() || first_of_pcr_0.is_some() {
            return Err(ReplayError::LocalityLate { event });
        }
        if !STARTUP_LOCALITIES.contains(&locality) {
            return Err(ReplayError::Locality { event, locality });
        }
        told = Some(locality);
    }
    if first_of_pcr_0 == Some(EventType::EFI_HCRTM_EVENT) {
        // An H-CRTM sequence sets PCR 0 whatever locality the start comes from afterwards.
        return Ok(HCRTM_LOCALITY);
    }
    Ok(told.unwrap_or(0))
}
