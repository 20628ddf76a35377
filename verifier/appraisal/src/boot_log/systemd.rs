//! Events that systemd measures from userspace, continued after the firmware's.

use proto::{
    digest::{PcrIndex, PcrSet},
    eventlog::{EventType, LogAlg, LogDigest, systemd::SystemdRecord},
};

use super::{
    facts::{Source, Untold, UserspaceMeasurement},
    replay::{EventSource, Replay, ReplayedEvent},
    vouch::Vouch,
};

/// PCR of boot phases.
const PHASE_PCR: u8 = 11;
/// PCRs that systemd extends from userspace: boot phases (11), and what the machine and its file systems are (15).
///
/// Records of others are left aside: root writes this log, and could declare firmware's own events to be systemd's, so
/// that they led to the quoted value and were facts about nothing.
///
/// # Source
/// systemd-pcrphase.service(8), systemd-pcrmachine.service(8).
const USERSPACE_PCRS: [u8; 2] = [PHASE_PCR, 15];
/// Phases that systemd measures, in order. The first two only where the initial RAM disk runs systemd.
///
/// # Source
/// systemd-pcrphase.service(8).
pub const PHASES: [&str; 6] =
    ["enter-initrd", "leave-initrd", "sysinit", "ready", "shutdown", "final"];
/// Phases that are measured inside of the initial RAM disk.
const INITRD_PHASES: usize = 2;

/// Values that a TPM quoted.
pub(super) type Quoted<'q> = &'q [(LogAlg, PcrIndex, LogDigest)];

fn event(source: EventSource, index: usize, pcr: PcrIndex, data: &[u8]) -> ReplayedEvent<'_> {
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    ReplayedEvent { source, index, pcr, untrusted_type: EventType::EVENT_TAG, untrusted_data: data }
}

fn extend_record<'a>(replay: &mut Replay<'a>, index: usize, record: &'a SystemdRecord) {
    let Some(pcr) = userspace_pcr(record) else { return };
    let text = record.untrusted_string.as_deref().unwrap_or_default().as_bytes();
    replay.extend(event(EventSource::Systemd, index, pcr, text), &record.digests);
}

/// The PCR of a record, if it is one of [`USERSPACE_PCRS`].
fn userspace_pcr(record: &SystemdRecord) -> Option<PcrIndex> {
    record.pcr.filter(|pcr| USERSPACE_PCRS.contains(&pcr.get()))
}

impl<'a> Replay<'a> {
    /// Extends every record of systemd's log that is in a PCR of userspace.
    pub fn append_systemd(&mut self, records: &'a [SystemdRecord]) {
        for (index, record) in records.iter().enumerate() {
            extend_record(self, index, record);
        }
    }

    /// Extends the longest beginning of systemd's log after which every PCR that the log touches has its quoted
    /// value; a log read after the quote may go on. All of it where there is none: the difference is then told.
    ///
    /// Returns how many records were taken. One pass to find them, one to extend.
    pub(super) fn append_systemd_until(
        &mut self,
        records: &'a [SystemdRecord],
        quoted: Quoted<'_>,
    ) -> usize {
        let touched = |pcr| records.iter().any(|record| userspace_pcr(record) == Some(pcr));
        let mut wanted: Vec<(LogAlg, PcrIndex, LogDigest, Option<LogDigest>)> = quoted
            .iter()
            .filter(|(_, pcr, _)| touched(*pcr))
            .map(|(alg, pcr, value)| (*alg, *pcr, *value, self.value(*alg, *pcr)))
            .collect();
        let reached = |wanted: &[(LogAlg, PcrIndex, LogDigest, Option<LogDigest>)]| {
            wanted.iter().all(|(_, _, value, now)| now.as_ref() == Some(value))
        };
        let mut taken = if reached(&wanted) { Some(0) } else { None };
        for (index, record) in records.iter().enumerate() {
            for (alg, pcr, _, now) in &mut wanted {
                if userspace_pcr(record) == Some(*pcr) {
                    let digest = record.digest(*alg);
                    *now =
                        now.zip(digest).and_then(|(now, digest)| now.extended(digest.as_bytes()));
                }
            }
            if reached(&wanted) {
                taken = Some(index.saturating_add(1));
            }
        }
        let taken = taken.unwrap_or(records.len());
        for (index, record) in records.iter().enumerate().take(taken) {
            extend_record(self, index, record);
        }
        taken
    }

    /// Where there is no log of systemd's: finds the phases, from "enter-initrd" or from "sysinit" on, that lead PCR
    /// 11 to its quoted value in every quoted bank, and extends them. False, and nothing extended, if none do.
    pub(super) fn append_phases(&mut self, quoted: Quoted<'_>) -> bool {
        let Some(pcr) = PcrIndex::new(PHASE_PCR) else { return false };
        let wanted: Vec<(LogAlg, LogDigest)> = quoted
            .iter()
            .filter(|(_, index, _)| *index == pcr)
            .map(|(alg, _, value)| (*alg, *value))
            .collect();
        if wanted.is_empty() {
            return false;
        }
        for first in [0, INITRD_PHASES] {
            let phases = PHASES.get(first..).unwrap_or_default();
            let count = wanted
                .iter()
                .map(|(alg, value)| self.phases_to(*alg, pcr, value, phases))
                .reduce(|a, b| if a == b { a } else { None })
                .flatten();
            let Some(count) = count else { continue };
            for (index, phase) in phases.iter().enumerate().take(count) {
                let digests: Vec<LogDigest> =
                    self.banks().filter_map(|alg| alg.hash(&[phase.as_bytes()])).collect();
                self.extend(event(EventSource::Inferred, index, pcr, phase.as_bytes()), &digests);
            }
            return true;
        }
        false
    }

    /// How many of `phases` lead a PCR to `value`.
    fn phases_to(
        &self,
        alg: LogAlg,
        pcr: PcrIndex,
        value: &LogDigest,
        phases: &[&str],
    ) -> Option<usize> {
        let mut now = self.value(alg, pcr)?;
        for (count, phase) in phases.iter().enumerate() {
            if now == *value {
                return Some(count);
            }
            now = now.extended(alg.hash(&[phase.as_bytes()])?.as_bytes())?;
        }
        (now == *value).then_some(phases.len())
    }
}

/// Events of PCR 11 that systemd's log claims and that are no phase of the boot: sections of the kernel image, for
/// all that is known.
pub(super) fn untold(replay: &Replay<'_>, bank: LogAlg) -> Vec<Untold> {
    let phases: Vec<_> = PHASES.iter().map(|phase| bank.hash(&[phase.as_bytes()])).collect();
    let events = replay.events().iter().enumerate();
    events
        .filter(|(_, event)| event.source == EventSource::Systemd && event.pcr.get() == PHASE_PCR)
        .filter_map(|(position, event)| Some((event, replay.digest(position, bank)?)))
        .filter(|(_, digest)| !phases.contains(&Some(*digest)))
        .map(|(event, digest)| Untold {
            source: Source { event: event.index, pcr: PHASE_PCR, vouch: Vouch::Digest },
            digest,
        })
        .collect()
}

/// What systemd measured, as facts of the PCRs in `trusted`: the records of its log that were extended, and the phases
/// that were inferred.
#[must_use]
pub fn userspace_measurements(
    replay: &Replay<'_>,
    records: &[SystemdRecord],
    bank: LogAlg,
    trusted: PcrSet,
) -> Vec<UserspaceMeasurement> {
    let mut out = Vec::new();
    for (position, event) in replay.events().iter().enumerate() {
        let Some(digest) = replay.digest(position, bank).filter(|_| trusted.contains(event.pcr))
        else {
            continue;
        };
        let record = match event.source {
            EventSource::Systemd => records.get(usize::try_from(event.index).unwrap_or(usize::MAX)),
            EventSource::Inferred if event.pcr.get() == PHASE_PCR => None,
            _ => continue,
        };
        let text = std::str::from_utf8(event.untrusted_data).ok().filter(|text| !text.is_empty());
        let proven = text.filter(|text| bank.hash(&[text.as_bytes()]) == Some(digest));
        out.push(UserspaceMeasurement {
            source: event.source,
            record: event.index,
            pcr: event.pcr.get(),
            digest,
            text: proven.map(str::to_owned),
            untrusted_type: record.and_then(|record| record.untrusted_event_type.clone()),
            untrusted_text: text.filter(|_| proven.is_none()).map(str::to_owned),
        });
    }
    out
}
