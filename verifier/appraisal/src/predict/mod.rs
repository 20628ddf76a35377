//! Golden predict: what PCRs will be after an update, from its artifacts, before anything boots them.
//!
//! ```text
//! old artifact ─▶ Measured ─┐ (which recorded events are its own)
//! new artifact ─▶ Measured ─┴─▶ Replacement ─▶ recorded events with the new in the old one's place ─replay─▶ value
//! golden set   ─▶ recorded events of each accepted value ─┘
//! ```
//!
//! # Trust
//! Bytes in, prediction out: no files, no clock. The golden set and the artifacts come from an operator; an artifact may
//! be malformed, and is then an error that says where. A prediction only ever proposes: what it proposes is digests
//! of the artifacts that were given and of events that the set has accepted before.
//!
//! # What is not guessed
//! Where the artifacts and the record do not determine a PCR, there is a [`Gap`] for it and no value.
//!
//! # Source
//! docs/EVIDENCE.md, "Prediction", cites who measures what, for each event.

mod artifact;
mod cpio;
mod kernel;
mod measured;
pub mod pe;
mod replace;
mod rules;
#[cfg(test)]
mod sample;
mod stub;
#[cfg(test)]
mod tests;
mod uki;
mod update;
mod work;

use std::{collections::BTreeSet, fmt};

use proto::digest::HashAlg;

pub use self::{
    artifact::ArtifactError,
    kernel::{Kernel, MAX_COMMAND_LINE_BYTES},
    measured::Unknown,
    replace::GapReason,
    update::{Before, GroupName, Provenance, UpdateError, Updated, updated, updated_by},
};
use self::{
    artifact::application,
    measured::{INITRD_PCR, Measured, OPTIONS_PCR, Role},
    pe::Image,
    uki::Uki,
    work::Work,
};
use crate::policy::document::{BootRules, EventRule, GoldenDocument, PcrRule};

/// PCR of what confirms images: it changes where another certificate does.
const AUTHORITIES_PCR: u8 = 7;
/// GRUB's commands.
const COMMANDS_PCR: u8 = 8;
/// System extensions that systemd-stub found beside its image.
const EXTENSIONS_PCR: u8 = 13;
/// shim's variables.
const SHIM_PCR: u8 = 14;

/// The rules that a prediction starts from: those of a golden set, or of one of its alternatives.
#[derive(Clone, Copy, Debug)]
pub struct BaseRules<'a> {
    /// Values, with the events that led to them.
    pub pcr: &'a [PcrRule],
    /// PCRs that are judged event by event.
    pub events: &'a [EventRule],
    /// What must have booted.
    pub boot: &'a BootRules,
}

impl<'a> From<&'a GoldenDocument> for BaseRules<'a> {
    fn from(document: &'a GoldenDocument) -> Self {
        Self { pcr: &document.pcr, events: &document.events, boot: &document.boot }
    }
}

/// An update.
#[derive(Clone, Debug)]
pub struct Update<'a> {
    /// The artifacts.
    pub what: What<'a>,
    /// What it is called, for `from` of the new values: a file's name and date.
    pub label: String,
}

/// The artifacts of an update.
///
/// With the old ones its events are found by their digests. Without, they are found by what the record says that they
/// are, and only where that leaves no choice.
#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    /// A unified kernel image.
    Uki {
        /// What it replaces.
        old: Option<&'a [u8]>,
        /// The new one.
        new: &'a [u8],
    },
    /// A kernel with initrd and command line.
    Kernel {
        /// What it replaces.
        old: Option<Kernel<'a>>,
        /// The new one.
        new: Kernel<'a>,
    },
    /// Boot loaders, in the order in which each starts the next: shim, GRUB or systemd-boot.
    Applications {
        /// What they replace, one for one; or none, and then the new ones are all that the machine starts.
        old: &'a [&'a [u8]],
        /// The new ones.
        new: &'a [&'a [u8]],
    },
}

/// What the golden set has to accept besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prediction {
    /// PCRs whose value changes: only those, each with the new values only and with the events that lead to them. Where
    /// a PCR has several values, one for each that the old artifact leads to.
    pub pcr: Vec<PcrRule>,
    /// PCRs that are judged event by event and that change: all events of the new state. `required` moves to the event
    /// that replaces one; a set that accepts both states must require neither.
    pub events: Vec<EventRule>,
    /// Entries that rules about what booted lack. Lists that the set does not judge stay empty.
    pub boot: BootRules,
    /// What the update takes the place of. Other entries are other states' and stay as they are.
    pub replaced: Replaced,
    /// PCRs that the update changes and that have no prediction. With a gap, a node that boots the update is denied
    /// until the PCR is captured.
    pub gaps: Vec<Gap>,
    /// What was assumed, and what else to think of.
    pub notes: Vec<String>,
}

/// Entries of a golden set that an update takes the place of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// Values that the old artifact leads to. Where there is a new value, also those of which no record tells what led
    /// to them: they may be the old artifact's.
    pub pcr: Vec<PcrRule>,
    /// Entries of rules about what booted that are the old artifact's.
    pub boot: BootRules,
}

/// A PCR that the update changes, without a prediction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Bank.
    pub bank: HashAlg,
    /// PCR.
    pub index: u8,
    /// Why, and what to do.
    pub why: GapReason,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PCR {} ({}): {}", self.index, self.bank, self.why)
    }
}

/// Why there is no prediction at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PredictError {
    /// An artifact is malformed, or none of its kind.
    #[error("{which}: {source}")]
    Artifact {
        /// Which of them.
        which: &'static str,
        /// Why.
        source: ArtifactError,
    },
    /// No rule of the golden set accepts the old artifact.
    #[error(
        "no rule of the golden set has an event of the old artifact: is it the one that was captured?"
    )]
    OldNotInSet,
    /// The old and the new chain differ in length.
    #[error("{old} old and {new} new boot applications: give one for one, or only the new ones")]
    UnequalChains {
        /// How many old ones.
        old: usize,
        /// How many new ones.
        new: usize,
    },
    /// A digest of the golden set.
    #[error("PCR {index} ({bank}): {text:?} is not a digest of this bank")]
    Digest {
        /// Bank of the rule.
        bank: HashAlg,
        /// PCR of the rule.
        index: u8,
        /// What stands there.
        text: String,
    },
}

/// Predicts what the golden set has to accept once the update has booted.
///
/// # Errors
/// [`PredictError`]. What cannot be said of a single PCR is a [`Gap`] instead.
pub fn predict<'a>(
    base: impl Into<BaseRules<'a>>,
    update: &Update<'_>,
) -> Result<Prediction, PredictError> {
    let base = base.into();
    let banks = banks(&base);
    let (old, mut new) = subjects(update, &banks)?;
    let mut notes = notes(&base, update, &new);
    if old.is_none() && matches!(update.what, What::Uki { .. }) && has_outside_events(&base) {
        let is_merged = |role| matches!(role, Role::LoadOptions | Role::Initrd);
        new.events.iter_mut().filter(|event| is_merged(event.role)).for_each(Measured::forget);
    }
    let old_subject = old.as_ref();
    let old = old_subject.map(|old| old.events.as_slice());
    let touched: BTreeSet<u8> =
        new.events.iter().chain(old.into_iter().flatten()).map(|event| event.pcr).collect();
    let mut work = Work { old, new: &new, gaps: Vec::new(), is_found: false, replaced: Vec::new() };
    let is_touched = |index: u8| touched.contains(&index);
    let mut pcr = Vec::new();
    for rule in base.pcr.iter().filter(|rule| is_touched(rule.index)) {
        pcr.extend(work.values(rule)?);
    }
    let mut events = Vec::new();
    for rule in base.events.iter().filter(|rule| is_touched(rule.index)) {
        events.extend(work.events(rule)?);
    }
    if old.is_some() && !work.is_found && !work.gaps.is_empty() {
        let is_lost = |gap: &Gap| gap.why == GapReason::NotFound;
        if work.gaps.iter().all(is_lost) {
            return Err(PredictError::OldNotInSet);
        }
    }
    let (gaps, replaced) = (work.gaps, work.replaced);
    notes.extend(gaps.iter().map(|gap| format!("{gap}.")));
    let rules::BootChange { boot, replaced: replaced_boot } =
        rules::boot_rules(&base, old_subject, &new, &mut notes);
    let replaced = Replaced { pcr: replaced, boot: replaced_boot };
    Ok(Prediction { pcr, events, boot, replaced, gaps, notes })
}

/// The new artifact.
#[derive(Debug)]
struct Subject {
    events: Vec<Measured>,
    command_line: Option<String>,
    is_signed: bool,
    /// Version of its systemd-stub.
    stub: Option<u16>,
    label: String,
}

/// Every bank that rules about a touched PCR, or about what booted, are in.
fn banks(base: &BaseRules<'_>) -> Vec<HashAlg> {
    let values = base.pcr.iter().map(|rule| rule.bank);
    let events = base.events.iter().map(|rule| rule.bank);
    let all: BTreeSet<HashAlg> = values.chain(events).chain(rules::algorithms(base.boot)).collect();
    all.into_iter().collect()
}

fn subjects(
    update: &Update<'_>,
    banks: &[HashAlg],
) -> Result<(Option<Subject>, Subject), PredictError> {
    let label = update.label.as_str();
    let failed = |which| move |source| PredictError::Artifact { which, source };
    match update.what {
        What::Uki { old, new } => {
            let old = old.map(|old| uki(old, banks, label)).transpose();
            let old = old.map_err(failed("the old unified kernel image"))?;
            Ok((old, uki(new, banks, label).map_err(failed("the new unified kernel image"))?))
        }
        What::Kernel { old, new } => {
            let old = old.map(|old| kernel(old, banks, label)).transpose();
            let old = old.map_err(failed("the old kernel"))?;
            Ok((old, kernel(new, banks, label).map_err(failed("the new kernel"))?))
        }
        What::Applications { old, new } => {
            if !old.is_empty() && old.len() != new.len() {
                return Err(PredictError::UnequalChains { old: old.len(), new: new.len() });
            }
            let new = applications(new, banks, label).map_err(failed("a new boot application"))?;
            if old.is_empty() {
                return Ok((None, new));
            }
            let old = applications(old, banks, label).map_err(failed("an old boot application"))?;
            Ok((Some(old), new))
        }
    }
}

fn uki(bytes: &[u8], banks: &[HashAlg], label: &str) -> Result<Subject, ArtifactError> {
    let uki = Uki::parse(bytes)?;
    let text = uki.section(".cmdline")?.map(|content| content.to_vec());
    Ok(Subject {
        events: uki.measured(banks)?,
        command_line: text.map(|text| String::from_utf8_lossy(&text).trim_matches('\0').to_owned()),
        is_signed: uki.image.is_signed(),
        stub: Some(uki.stub.0),
        label: label.to_owned(),
    })
}

fn kernel(kernel: Kernel<'_>, banks: &[HashAlg], label: &str) -> Result<Subject, ArtifactError> {
    Ok(Subject {
        events: kernel.measured(banks)?,
        command_line: Some(kernel.command_line.to_owned()),
        is_signed: Image::parse(kernel.image)?.is_signed(),
        stub: None,
        label: label.to_owned(),
    })
}

fn applications(chain: &[&[u8]], banks: &[HashAlg], label: &str) -> Result<Subject, ArtifactError> {
    let mut events = Vec::with_capacity(chain.len());
    let mut is_signed = true;
    for (number, bytes) in chain.iter().enumerate() {
        let image = Image::parse(bytes)?;
        is_signed &= image.is_signed();
        events.push(application(&image, Role::Application(number), "boot application", banks));
    }
    Ok(Subject { events, command_line: None, is_signed, stub: None, label: label.to_owned() })
}

/// Whether something besides the image decides what the kernel is handed: a command line, credentials, extensions.
fn has_outside_events(base: &BaseRules<'_>) -> bool {
    let is_outside = |index: u8| [OPTIONS_PCR, EXTENSIONS_PCR].contains(&index);
    base.pcr.iter().any(|rule| is_outside(rule.index))
        || base.events.iter().any(|rule| is_outside(rule.index) && !rule.accept.is_empty())
}

fn has_rule(base: &BaseRules<'_>, index: u8) -> bool {
    base.pcr.iter().any(|rule| rule.index == index)
        || base.events.iter().any(|rule| rule.index == index)
}

fn notes(base: &BaseRules<'_>, update: &Update<'_>, new: &Subject) -> Vec<String> {
    let mut notes = Vec::new();
    if base.boot.secure_boot == Some(true) && !new.is_signed {
        notes.push("The new image has no signature, and the set demands Secure Boot: firmware will not start it.".to_owned());
    }
    if has_rule(base, AUTHORITIES_PCR) {
        notes.push(
            "PCR 7 was left as it is: it changes if another certificate authorises the new image."
                .to_owned(),
        );
    }
    if let Some(version) = new.stub.filter(|version| *version > stub::NEWEST) {
        let newest = stub::NEWEST;
        notes.push(format!("systemd-stub {version} is newer than {newest}, the newest that this prediction knows: compare with a boot."));
    }
    match update.what {
        What::Uki { .. } => {}
        What::Kernel { .. } if has_rule(base, COMMANDS_PCR) => notes.push("PCR 8 was left as it is: GRUB measures its commands there, which name kernel, initrd and command line; capture it.".to_owned()),
        What::Applications { .. } if has_rule(base, SHIM_PCR) => notes.push("PCR 14 was left as it is: another shim may measure other variables.".to_owned()),
        _ => {}
    }
    if matches!(update.what, What::Kernel { .. }) && has_rule(base, INITRD_PCR) {
        notes.push("PCR 9 was predicted for the kernel's own EFI stub and for files that GRUB reads; GRUB's other files were left as they are.".to_owned());
    }
    notes
}
