//! A log against quoted PCR values.

use proto::{
    digest::{HashAlg, PcrIndex, PcrSet},
    eventlog::{EventLog, EventType, LogAlg, LogDigest, systemd::SystemdRecord},
    evidence::PcrValue,
    reason::ReasonCode,
};

use super::{
    constants::{EXIT_INVOCATION, EXIT_SUCCESS},
    facts::BootFacts,
    problem::{Problem, ProblemClass, ProblemCode},
    quirks::{Quirk, QuirkSeen},
    reader::{self, Reading},
    replay::{EventSource, Replay, ReplayedEvent},
    systemd,
};
use crate::{
    pcr::AttestedPcrs,
    verdict::{Denial, Finding},
};

/// PCRs that firmware always measures into: one that has a value at reset means that nothing was.
const FIRMWARE_PCRS: u8 = 8;
/// PCR of the sections of a kernel image and of systemd's phases.
const SECTIONS_PCR: u8 = 11;
/// PCR of the events that leave the firmware.
const EXIT_PCR: u8 = 5;

/// What continues a firmware log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Later<'a> {
    /// systemd's log; `None` where the worker has none.
    pub systemd: Option<&'a [SystemdRecord]>,
    /// PCRs that other logs continue (tool log, IMA): not compared here. Their start is [`Replay::value`].
    pub continued: PcrSet,
    /// PCRs beside the required ones that rules may read: what is odd in them is kept in whichever bank it was given.
    pub kept: PcrSet,
    /// The bank whose digests rules name: facts are read in it, if it was given.
    pub facts_bank: Option<HashAlg>,
}

/// A firmware log that explains quoted PCR values.
///
/// # Proves
/// For every PCR in [`Self::explained`], in every bank given: the events of the log, in their order, and systemd's
/// after them, lead from the reset value to the value given.
///
/// # Does not prove
/// That the values were quoted: see [`AttestedBootLog`].
#[derive(Clone, Debug)]
pub struct ExplainedBootLog<'a> {
    replay: Replay<'a>,
    reading: Reading,
    explained: PcrSet,
    systemd_records: usize,
}

impl<'a> ExplainedBootLog<'a> {
    /// The replay, systemd's events included.
    #[must_use]
    pub const fn replay(&self) -> &Replay<'a> {
        &self.replay
    }

    /// The facts of the PCRs that are explained.
    #[must_use]
    pub const fn facts(&self) -> &BootFacts {
        &self.reading.facts
    }

    /// Oddities: facts for policy.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.reading.problems
    }

    /// Deviations that were tolerated.
    #[must_use]
    pub fn quirks(&self) -> &[QuirkSeen] {
        &self.reading.quirks
    }

    /// PCRs whose replayed value equals the one given, in every bank given.
    #[must_use]
    pub const fn explained(&self) -> PcrSet {
        self.explained
    }

    /// Records of systemd's log that lead to the values given.
    #[must_use]
    pub const fn systemd_records(&self) -> usize {
        self.systemd_records
    }
}

/// A firmware log that the TPM vouches for.
///
/// # Proves
/// What [`ExplainedBootLog`] does, for values in [`AttestedPcrs`].
#[derive(Clone, Debug)]
pub struct AttestedBootLog<'a>(ExplainedBootLog<'a>);

impl<'a> AttestedBootLog<'a> {
    /// Compares the replay with the quoted values; see [`explain`].
    ///
    /// # Errors
    /// See [`explain`].
    pub fn verify(
        log: &EventLog<'a>,
        later: Later<'a>,
        pcrs: &AttestedPcrs,
        required: PcrSet,
    ) -> Result<Self, Denial> {
        explain(log, later, pcrs.values(), required).map(Self)
    }
}

impl<'a> std::ops::Deref for AttestedBootLog<'a> {
    type Target = ExplainedBootLog<'a>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// Explains PCR values by a log.
///
/// Every PCR in `required` must be given, in at least one bank, and be led to in every bank in which it is given, but
/// for those that other logs continue. Facts are read from PCRs that are led to, also beyond the required ones, and
/// from no other. The digests of one bank vouch for them: of [`Later::facts_bank`], else of the one that covers most of
/// the required PCRs, the lowest of several. A PCR that was not given in that bank has no facts: nothing compared its digests there. What is
/// odd in it is told all the same.
///
/// Two things are known that a log may lack: the events that leave the firmware (PCR 5) and, without a log of
/// systemd's, its boot phases (PCR 11). They are tried, and told by [`EventSource::Inferred`].
///
/// # Errors
/// `EVENT_LOG_BANK_MISSING`, `EVENT_LOG_STARTUP_INVALID`, `EVENT_LOG_DIGEST_MISSING`, `EVENT_LOG_PCR_UNACCOUNTED`,
/// `EVENT_LOG_REPLAY_MISMATCH`, `EVENT_LOG_SEPARATOR_INVALID`; the lowest required PCR is told.
pub fn explain<'a>(
    log: &EventLog<'a>,
    later: Later<'a>,
    values: &[PcrValue],
    required: PcrSet,
) -> Result<ExplainedBootLog<'a>, Denial> {
    let quoted: Vec<(LogAlg, PcrIndex, LogDigest)> = values
        .iter()
        .map(|value| (value.value.alg().into(), value.index, value.value.into()))
        .collect();
    let mut banks: Vec<LogAlg> = quoted.iter().map(|(alg, _, _)| *alg).collect();
    banks.sort_unstable();
    banks.dedup();
    let named = later.facts_bank.map(LogAlg::from).filter(|bank| banks.contains(bank));
    let Some(bank) = named.or_else(|| bank_of_facts(&banks, &quoted, required)) else {
        return Err(deny(ReasonCode::EventLogBankMissing, "a quoted bank", "no PCR value".into()));
    };
    let mut replay = Replay::of(log, &banks)
        .map_err(|error| deny(error.code(), "a log that can be replayed", error.to_string()))?;
    let exit = append_exit(&mut replay, &quoted);
    let systemd_records =
        later.systemd.map_or(0, |records| replay.append_systemd_until(records, &quoted));
    if later.systemd.is_none() {
        replay.append_phases(&quoted);
    }
    let mut explained = PcrSet::default();
    for pcr in quoted.iter().map(|(_, pcr, _)| *pcr).collect::<PcrSet>().iter() {
        match compare(&replay, &quoted, pcr) {
            Ok(()) => explained.insert(pcr),
            Err(finding) if required.contains(pcr) && !later.continued.contains(pcr) => {
                return Err(finding.into());
            }
            Err(_) => {}
        }
    }
    if let Some(pcr) = required.iter().find(|pcr| quoted.iter().all(|(_, known, _)| known != pcr)) {
        let expected = format!("PCR {pcr} in the quote");
        return Err(deny(ReasonCode::EventLogPcrUnaccounted, &expected, "not quoted".into()));
    }
    let vouched_for: PcrSet =
        explained.iter().filter(|pcr| is_quoted(&quoted, bank, *pcr)).collect();
    let mut reading = reader::read(log, &replay, bank, vouched_for);
    // What is odd in a required PCR counts in whichever bank it was given; what would be refused counts in every PCR,
    // for rules that come later to require it.
    for other in banks.iter().filter(|other| **other != bank) {
        let rest: PcrSet = explained
            .iter()
            .filter(|pcr| !vouched_for.contains(*pcr) && is_quoted(&quoted, *other, *pcr))
            .collect();
        if !rest.is_empty() {
            let mut odd = reader::read(log, &replay, *other, rest).problems;
            odd.retain(|odd| {
                let pcr = odd.pcr.and_then(PcrIndex::new).filter(|pcr| rest.contains(*pcr));
                let is_refused = matches!(odd.code.class(), ProblemClass::Refusal(_));
                pcr.is_some_and(|pcr| {
                    is_refused || required.contains(pcr) || later.kept.contains(pcr)
                })
            });
            reading.problems.append(&mut odd);
        }
    }
    if exit {
        reading.facts.exit_boot_services.inferred = true;
        reading.problems.retain(|problem| problem.code != ProblemCode::ExitBootServicesMissing);
        reading.quirks.push(QuirkSeen { quirk: Quirk::ExitNotLogged, event: 0 });
    }
    refuse_problems(&reading.problems, required)?;
    let records = later.systemd.unwrap_or_default();
    reading.facts.userspace = systemd::userspace_measurements(&replay, records, bank, vouched_for);
    if PcrIndex::new(SECTIONS_PCR).is_some_and(|pcr| vouched_for.contains(pcr)) {
        reading.facts.untold.extend(systemd::untold(&replay, bank));
    }
    Ok(ExplainedBootLog { replay, reading, explained, systemd_records })
}

/// Refuses what is more than odd in a required PCR.
///
/// # Errors
/// `EVENT_LOG_SEPARATOR_INVALID`.
pub(super) fn refuse_problems(problems: &[Problem], required: PcrSet) -> Result<(), Denial> {
    for problem in problems {
        let pcr = problem.pcr.and_then(PcrIndex::new);
        if let (ProblemClass::Refusal(code), true) =
            (problem.code.class(), pcr.is_some_and(|pcr| required.contains(pcr)))
        {
            return Err(Finding::new(
                code,
                place(pcr, problem.event),
                problem.code.meaning(),
                problem.detail.clone(),
            )
            .into());
        }
    }
    Ok(())
}

/// The quoted bank with most of the required PCRs, the lowest of several; `None` where nothing was quoted. `banks` ascend.
fn bank_of_facts(
    banks: &[LogAlg],
    quoted: &[(LogAlg, PcrIndex, LogDigest)],
    required: PcrSet,
) -> Option<LogAlg> {
    let covered =
        |bank: LogAlg| required.iter().filter(|pcr| is_quoted(quoted, bank, *pcr)).count();
    // Of equal ones the last is taken: from the end.
    banks.iter().rev().copied().max_by_key(|bank| covered(*bank))
}

fn is_quoted(quoted: &[(LogAlg, PcrIndex, LogDigest)], bank: LogAlg, pcr: PcrIndex) -> bool {
    quoted.iter().any(|(alg, index, _)| (*alg, *index) == (bank, pcr))
}

/// One PCR, in every bank in which it was quoted.
fn compare(
    replay: &Replay<'_>,
    quoted: &[(LogAlg, PcrIndex, LogDigest)],
    pcr: PcrIndex,
) -> Result<(), Finding> {
    for (alg, _, value) in quoted.iter().filter(|(_, index, _)| *index == pcr) {
        let finding = |code, expected: String, observed: String| {
            Finding::new(code, format!("event log, PCR {pcr} ({alg})"), expected, observed)
        };
        let count = replay.of_pcr(*alg, pcr).count();
        let Some(replayed) = replay.value(*alg, pcr) else {
            let event = replay.missing(*alg, pcr).unwrap_or_default();
            return Err(finding(
                ReasonCode::EventLogDigestMissing,
                format!("a {alg} digest in every event"),
                format!("none in event {event}"),
            ));
        };
        let firmware = pcr.get() < FIRMWARE_PCRS;
        if count == 0 && (firmware || replayed != *value) {
            return Err(finding(
                ReasonCode::EventLogPcrUnaccounted,
                "events that lead to the value".into(),
                format!("no event, and {value}"),
            ));
        }
        if replayed != *value {
            return Err(finding(
                ReasonCode::EventLogReplayMismatch,
                format!("{replayed} after {count} events"),
                value.to_string(),
            ));
        }
    }
    Ok(())
}

/// Extends the two events that leave the firmware, where the log has neither and they lead PCR 5 to its quoted value
/// in every bank.
fn append_exit(replay: &mut Replay<'_>, quoted: &[(LogAlg, PcrIndex, LogDigest)]) -> bool {
    let Some(pcr) = PcrIndex::new(EXIT_PCR) else { return false };
    let mut values = quoted.iter().filter(|(_, index, _)| *index == pcr).peekable();
    if values.peek().is_none() {
        return false;
    }
    let texts = [EXIT_INVOCATION.as_bytes(), EXIT_SUCCESS.as_bytes()];
    let leads = |(alg, _, value): &(LogAlg, PcrIndex, LogDigest)| {
        let mut now = replay.value(*alg, pcr);
        for text in texts {
            now =
                now.zip(alg.hash(&[text])).and_then(|(now, event)| now.extended(event.as_bytes()));
        }
        now.as_ref() == Some(value)
    };
    if !values.all(leads) {
        return false;
    }
    for (index, text) in texts.into_iter().enumerate() {
        let digests: Vec<LogDigest> = replay.banks().filter_map(|alg| alg.hash(&[text])).collect();
        replay.extend(
            ReplayedEvent {
                source: EventSource::Inferred,
                index: u32::try_from(index).unwrap_or_default(),
                pcr,
                untrusted_type: EventType::EFI_ACTION,
                untrusted_data: text,
            },
            &digests,
        );
    }
    true
}

fn place(pcr: Option<PcrIndex>, event: Option<u32>) -> String {
    match (pcr, event) {
        (Some(pcr), Some(event)) => format!("event log, PCR {pcr}, event {event}"),
        (Some(pcr), None) => format!("event log, PCR {pcr}"),
        _ => "event log".to_owned(),
    }
}

fn deny(code: ReasonCode, expected: &str, observed: String) -> Denial {
    Finding::new(code, "event log", expected, observed).into()
}
