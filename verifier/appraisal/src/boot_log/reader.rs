//! Facts out of a replayed log.

use std::collections::BTreeSet;

use proto::{
    digest::{HashAlg, PcrSet},
    eventlog::{
        Event, EventLog, EventType, LogAlg, LogDigest, device_path, firmware::ImageLoad, gpt::Gpt,
        guid::Guid, load_option::LoadOption, no_action::NoAction, text, variable::VariableData,
    },
};
use serde::Serialize;

use super::{
    constants::{Constant, Constants, ERROR_SEPARATOR},
    facts::{
        Application, BootFacts, BootVariable, Driver, FirmwareInfo, PartitionFact, PartitionTable,
        Separator, SeparatorValue, Source,
    },
    problem::{Problem, ProblemCode},
    quirks::{Quirk, QuirkSeen},
    replay::Replay,
    secure_boot,
    vouch::{Vouch, Vouched},
};

/// Longest data of PCR 0 that becomes part of the facts.
const MAX_FIRMWARE_INFO_BYTES: usize = 256;
/// Problems that are told one by one; a log of real firmware has a few. Of further ones the first of each kind is told in
/// each PCR: whoever edits the log can put any number of harmless ones before the one that counts.
const MAX_PROBLEMS: usize = 1024;

/// What was read from a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// Facts.
    pub facts: BootFacts,
    /// Oddities, sorted by event.
    pub problems: Vec<Problem>,
    /// Deviations that were tolerated.
    pub quirks: Vec<QuirkSeen>,
    /// For each event that was read, what of it its digest is over.
    pub vouches: Vec<EventVouch>,
}

/// What the digest of one event is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EventVouch {
    /// The event.
    pub event: u32,
    /// What its digest is over.
    pub vouch: Vouch,
}

/// An extended event with what its digest proves.
pub(super) struct Seen<'e, 'a> {
    pub(super) event: &'e Event<'a>,
    pub(super) pcr: u8,
    pub(super) digest: LogDigest,
    pub(super) constant: Option<Constant>,
    pub(super) vouched: Vouched<'a>,
}

impl Seen<'_, '_> {
    pub(super) const fn source(&self) -> Source {
        Source { event: self.event.index, pcr: self.pcr, vouch: self.vouched.vouch }
    }

    /// Of a fact that is the digest and nothing else.
    pub(super) const fn digest_source(&self) -> Source {
        Source { event: self.event.index, pcr: self.pcr, vouch: Vouch::Digest }
    }

    const fn is_separator(&self) -> bool {
        matches!(self.constant, Some(Constant::Separator(_) | Constant::ErrorSeparator))
    }
}

/// Reads the facts of the PCRs in `trusted`, from what the digests of `bank` vouch for.
///
/// The caller names only PCRs whose replayed value equals the quoted one; for a person's eyes, all of them.
#[must_use]
pub fn read(log: &EventLog<'_>, replay: &Replay<'_>, bank: LogAlg, trusted: PcrSet) -> Reading {
    let mut constants = Constants::new(bank);
    if log.events().iter().any(|event| event.pcr.is_some_and(|pcr| pcr.get() == 11)) {
        constants.add_sections();
    }
    let mut out = Collector {
        reading: Reading {
            facts: BootFacts::none(bank),
            problems: Vec::new(),
            quirks: Vec::new(),
            vouches: Vec::new(),
        },
        told: BTreeSet::new(),
    };
    let mut seen = Vec::with_capacity(log.events().len());
    for event in log.events() {
        let Some(pcr) = event.pcr.filter(|_| event.is_extended()) else {
            out.information(event, bank);
            continue;
        };
        if !trusted.contains(pcr) {
            continue;
        }
        let Some(digest) = event.digest(bank) else {
            let detail = format!("no {bank} digest");
            out.problem(ProblemCode::DigestMissing, event.index, pcr.get(), detail);
            continue;
        };
        let constant = constants.of(&digest).filter(|constant| !is_boot_variable(event, *constant));
        let vouched = match constant {
            Some(_) => Vouched { vouch: Vouch::Constant, bytes: &[], quirk: None },
            None => Vouched::of(event, bank, &digest),
        };
        let seen_event = Seen { event, pcr: pcr.get(), digest, constant, vouched };
        out.reading.vouches.push(EventVouch { event: event.index, vouch: vouched.vouch });
        out.check_type(&seen_event);
        seen.push(seen_event);
    }
    out.reading.facts.hints.startup_locality = replay.startup_locality();
    out.separators(&seen, trusted);
    out.firmware(&seen);
    out.boot_variables(&seen);
    out.drivers(&seen);
    secure_boot::read(&mut out, &seen, trusted);
    out.applications(&seen, trusted);
    out.partitions_and_exit(&seen, trusted);
    out.loader(&seen);
    out.kernel_image(&seen);
    out.finish()
}

/// Gathers facts, problems and quirks.
pub(super) struct Collector {
    pub(super) reading: Reading,
    /// Kinds of problems that were told, by PCR.
    told: BTreeSet<(ProblemCode, Option<u8>)>,
}

impl Collector {
    pub(super) fn problem(
        &mut self,
        code: ProblemCode,
        event: u32,
        pcr: u8,
        detail: impl Into<String>,
    ) {
        self.push(Problem::at(code, event, Some(pcr), detail));
    }

    pub(super) fn push(&mut self, problem: Problem) {
        let is_first = self.told.insert((problem.code, problem.pcr));
        if is_first || self.reading.problems.len() < MAX_PROBLEMS {
            self.reading.problems.push(problem);
        }
    }

    pub(super) fn quirk(&mut self, quirk: Quirk, event: u32) {
        if self.reading.quirks.iter().all(|known| known.quirk != quirk) {
            self.reading.quirks.push(QuirkSeen { quirk, event });
        }
    }

    fn finish(mut self) -> Reading {
        self.reading.problems.sort_by_key(|problem| {
            (problem.event.is_none(), problem.event, problem.code, problem.pcr)
        });
        self.reading.quirks.sort();
        self.reading
    }

    /// An event that is not extended: nothing that it says is a fact.
    fn information(&mut self, event: &Event<'_>, bank: LogAlg) {
        let pcr = event.pcr.map(|pcr| pcr.get());
        if event.digests().any(|digest| !digest.is_zero()) {
            let detail = "an event that is not extended has a digest";
            self.push(Problem::at(ProblemCode::NoActionDigest, event.index, pcr, detail));
        }
        if event.digest(bank).is_none() && event.index > 0 {
            let detail = format!("no {bank} digest");
            self.push(Problem::at(ProblemCode::DigestMissing, event.index, pcr, detail));
        }
        let kind = NoAction::read(event.untrusted_data);
        let misplaced = match kind {
            NoAction::SpecId => event.index > 0,
            NoAction::StartupLocality(_) | NoAction::Hcrtm => pcr != Some(0),
            NoAction::Sp800_155 { .. } => !matches!(pcr, Some(0) | None),
            _ => false,
        };
        if misplaced {
            let detail =
                super::words::describe(event.pcr, event.untrusted_type, event.untrusted_data);
            self.push(Problem::at(ProblemCode::NoActionMisplaced, event.index, pcr, detail));
        }
        if pcr.is_none() {
            self.quirk(Quirk::TrailingInformation, event.index);
        }
    }

    /// Whether type and digest contradict each other, or the data of a type that is measured as it is does not hash to
    /// the digest.
    fn check_type(&mut self, seen: &Seen<'_, '_>) {
        let (index, pcr, kind) = (seen.event.index, seen.pcr, seen.event.untrusted_type);
        if let Some(quirk) = seen.vouched.quirk {
            self.quirk(quirk, index);
        }
        if (kind == EventType::SEPARATOR) != seen.is_separator() {
            if kind == EventType::SEPARATOR && seen.vouched.bytes == b"WBCL" && pcr > 7 {
                self.quirk(Quirk::WindowsSeparator, index);
            } else if kind == EventType::SEPARATOR || pcr <= 7 {
                let detail = format!("{kind}, and its digest says otherwise");
                self.problem(ProblemCode::TypeMislabelled, index, pcr, detail);
            }
            return;
        }
        let data = seen.event.untrusted_data;
        if let Some(text) = seen.constant.and_then(Constant::text)
            && data.strip_suffix(&[0]).unwrap_or(data) != text.as_bytes()
        {
            let detail =
                format!("\"{text}\" by its digest, and the data in the log says otherwise");
            self.problem(ProblemCode::DataNotVouched, index, pcr, detail);
        }
        let measured_as_logged = matches!(
            kind,
            EventType::ACTION
                | EventType::EFI_ACTION
                | EventType::EFI_VARIABLE_DRIVER_CONFIG
                | EventType::EFI_VARIABLE_BOOT
                | EventType::EFI_VARIABLE_BOOT2
                | EventType::EFI_VARIABLE_AUTHORITY
                | EventType::EFI_GPT_EVENT
                | EventType::S_CRTM_VERSION
        );
        if measured_as_logged && seen.vouched.vouch == Vouch::Digest {
            if kind == EventType::S_CRTM_VERSION {
                self.quirk(Quirk::CrtmVersionNotVouched, index);
            }
            let words = super::words::describe(seen.event.pcr, kind, seen.event.untrusted_data);
            let detail = format!("{words}: the digest is not over the data in the log");
            self.problem(ProblemCode::DataNotVouched, index, pcr, detail);
        }
    }

    fn separators(&mut self, seen: &[Seen<'_, '_>], trusted: PcrSet) {
        for pcr in trusted.iter().map(|pcr| pcr.get()).filter(|pcr| *pcr <= 7) {
            let mut found = 0_usize;
            for event in seen.iter().filter(|event| event.pcr == pcr) {
                let value = match event.constant {
                    Some(Constant::Separator([0, ..])) => SeparatorValue::Zeros,
                    Some(Constant::Separator(_)) => SeparatorValue::Ones,
                    Some(Constant::ErrorSeparator) => SeparatorValue::Error,
                    _ => continue,
                };
                found = found.saturating_add(1);
                self.reading.facts.separators.push(Separator { source: event.source(), value });
                if value == SeparatorValue::Error {
                    let detail = "the firmware reports an error";
                    self.problem(ProblemCode::SeparatorError, event.event.index, pcr, detail);
                }
                if found == 2 {
                    let detail = "a second separator";
                    self.problem(ProblemCode::SeparatorRepeated, event.event.index, pcr, detail);
                }
            }
            if found == 0 {
                let detail = format!("PCR {pcr} has no separator");
                self.push(Problem::missing(ProblemCode::SeparatorMissing, pcr, detail));
            }
        }
    }

    /// PCR 0.
    fn firmware(&mut self, seen: &[Seen<'_, '_>]) {
        for event in seen.iter().filter(|event| event.pcr == 0 && event.constant.is_none()) {
            let data = event.event.untrusted_data;
            let kind = event.event.untrusted_type;
            if kind == EventType::S_CRTM_VERSION {
                let shown = text::any_printable(data).unwrap_or_else(|| match data {
                    [] | [0, 0] => String::new(),
                    _ => hex::encode(data.get(..MAX_FIRMWARE_INFO_BYTES).unwrap_or(data)),
                });
                self.reading.facts.hints.crtm_version.get_or_insert(shown);
            }
            if event.vouched.vouch == Vouch::Data && data.len() <= MAX_FIRMWARE_INFO_BYTES {
                self.reading.facts.firmware.push(FirmwareInfo {
                    source: event.source(),
                    text: text::any_printable(data),
                    data: hex::encode(data),
                    untrusted_type: kind.to_string(),
                });
            }
        }
    }

    /// PCR 1.
    fn boot_variables(&mut self, seen: &[Seen<'_, '_>]) {
        for event in seen.iter().filter(|event| event.pcr == 1) {
            let Ok(logged) = VariableData::read(event.event.untrusted_data) else { continue };
            let untrusted_name = logged.name_text();
            let (content, name) = match event.vouched.vouch {
                Vouch::Data => (logged.data, Some(untrusted_name.clone())),
                Vouch::VariableData => (event.vouched.bytes, None),
                _ => continue,
            };
            if logged.is(Guid::GLOBAL_VARIABLE, "BootOrder") {
                let order = content
                    .chunks_exact(2)
                    .filter_map(|pair| Some(u16::from_le_bytes(pair.try_into().ok()?)))
                    .collect();
                let slot = match name {
                    Some(_) => &mut self.reading.facts.boot_order,
                    None => &mut self.reading.facts.hints.boot_order,
                };
                slot.get_or_insert(order);
            }
            let option = LoadOption::read(content).ok().filter(|option| option.path.len() >= 4);
            self.reading.facts.boot_variables.push(BootVariable {
                source: event.source(),
                name,
                digest: HashAlg::Sha256.hash(&[content]),
                description: option.as_ref().map(|option| option.description.clone()),
                path: option.map(|option| device_path::show(option.path)),
                untrusted_name,
            });
        }
    }

    /// PCR 2.
    fn drivers(&mut self, seen: &[Seen<'_, '_>]) {
        for event in seen.iter().filter(|event| event.pcr == 2 && event.constant.is_none()) {
            self.reading.facts.drivers.push(Driver {
                source: event.digest_source(),
                digest: event.digest,
                untrusted_path: image_path(event.event),
            });
        }
    }

    /// PCR 4.
    fn applications(&mut self, seen: &[Seen<'_, '_>], trusted: PcrSet) {
        let mut called = false;
        let mut authority = None;
        for event in seen {
            if event.pcr == 7 && event.event.untrusted_type == EventType::EFI_VARIABLE_AUTHORITY {
                authority = Some(event.event.index);
            }
            if event.pcr == 5 && event.constant == Some(Constant::Calling) {
                self.quirk(Quirk::CallInPcr5, event.event.index);
            }
            if event.pcr != 4 {
                continue;
            }
            match event.constant {
                Some(Constant::Calling) => called = true,
                Some(_) => {}
                None => {
                    let data = event.event.untrusted_data;
                    let text = (event.vouched.vouch == Vouch::Data)
                        .then(|| text::any_printable(data))
                        .flatten();
                    if let (false, None) = (called, &text) {
                        let words = super::words::describe(
                            event.event.pcr,
                            event.event.untrusted_type,
                            data,
                        );
                        self.problem(
                            ProblemCode::ApplicationBeforeCall,
                            event.event.index,
                            4,
                            words,
                        );
                    }
                    if is_image_without_place(event.event) {
                        self.quirk(Quirk::ImagePathCut, event.event.index);
                    }
                    self.reading.facts.boot_applications.push(Application {
                        source: event.digest_source(),
                        digest: event.digest,
                        text,
                        after_call: called,
                        untrusted_path: image_path(event.event),
                        untrusted_authority: authority,
                    });
                }
            }
        }
        if called {
            let early = self.reading.facts.boot_applications.iter().find(|app| !app.after_call);
            if let Some(event) = early.map(|app| app.source.event) {
                self.quirk(Quirk::EarlyApplication, event);
            }
        } else if trusted.iter().any(|pcr| pcr.get() == 4) {
            let detail = "PCR 4 does not say that firmware called a boot option";
            self.push(Problem::missing(ProblemCode::ApplicationCallMissing, 4, detail));
        }
    }

    /// PCR 5.
    fn partitions_and_exit(&mut self, seen: &[Seen<'_, '_>], trusted: PcrSet) {
        for event in seen.iter().filter(|event| event.pcr == 5) {
            let source = event.source();
            let exit = &mut self.reading.facts.exit_boot_services;
            match event.constant {
                Some(Constant::ExitInvocation) => exit.calls.push(source),
                Some(Constant::ExitSuccess) => exit.success = exit.success.or(Some(source)),
                Some(Constant::ExitFailure) => {
                    exit.failures.push(source);
                    let detail = "leaving the firmware failed";
                    self.problem(ProblemCode::ExitBootServicesFailed, source.event, 5, detail);
                }
                Some(_) => {}
                None => {
                    if let (Vouch::Data, Ok(table)) =
                        (source.vouch, Gpt::read(event.event.untrusted_data))
                    {
                        let partitions =
                            table.partitions.into_iter().map(|partition| PartitionFact {
                                kind: partition.kind,
                                id: partition.id,
                                name: partition.name,
                            });
                        self.reading.facts.partition_tables.push(PartitionTable {
                            source,
                            disk: table.disk,
                            partitions: partitions.collect(),
                        });
                    }
                }
            }
        }
        let in_sight = trusted.iter().any(|pcr| pcr.get() == 5);
        if in_sight && self.reading.facts.exit_boot_services.success.is_none() {
            let detail = "PCR 5 does not say that the firmware was left with success";
            self.push(Problem::missing(ProblemCode::ExitBootServicesMissing, 5, detail));
        }
    }
}

/// Whether what looks like a separator of PCR 1 is the content of a boot variable, measured without its name: the
/// order "entry 1, then entry 0" has the four bytes of a separator that reports an error. Nothing under the digest tells
/// the two apart, so the log is believed here: at worst an error of PCR 1 is taken for a variable, whose digest is told.
fn is_boot_variable(event: &Event<'_>, constant: Constant) -> bool {
    let value = match constant {
        Constant::Separator(value) => value,
        Constant::ErrorSeparator => ERROR_SEPARATOR,
        _ => return false,
    };
    event.pcr.is_some_and(|pcr| pcr.get() == 1)
        && event.untrusted_type == EventType::EFI_VARIABLE_BOOT
        && VariableData::read(event.untrusted_data).is_ok_and(|variable| variable.data == value)
}

fn image_path(event: &Event<'_>) -> Option<String> {
    let is_image = matches!(
        event.untrusted_type,
        EventType::EFI_BOOT_SERVICES_APPLICATION
            | EventType::EFI_BOOT_SERVICES_DRIVER
            | EventType::EFI_RUNTIME_SERVICES_DRIVER
    );
    let load = ImageLoad::read(event.untrusted_data).ok().filter(|_| is_image)?;
    Some(device_path::show(load.path)).filter(|path| !path.is_empty())
}

fn is_image_without_place(event: &Event<'_>) -> bool {
    event.untrusted_type == EventType::EFI_BOOT_SERVICES_APPLICATION
        && ImageLoad::read(event.untrusted_data)
            .is_ok_and(|load| (load.location, load.len_bytes) == (0, 0))
}
