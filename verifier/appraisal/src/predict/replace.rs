//! The events of the new artifact in the place of the old one's.

use proto::digest::{Digest, HashAlg};

use super::measured::{
    APPLICATIONS_PCR, INITRD_PCR, Measured, OPTIONS_PCR, Role, SECTIONS_PCR, Unknown,
};
use crate::boot_log::{Constant, Constants};

/// How systemd-stub's own handle names the kernel that it has firmware load, in the words of its event.
///
/// # Source
/// systemd, `STUB_PAYLOAD_GUID`.
pub(super) const STUB_PAYLOAD: &str = "VenMedia(55c5d1f8-04cd-46b5-8a20-e56cbb3052d0)";

/// An event as a golden set has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) digest: Digest,
    pub(super) what: String,
    pub(super) required: bool,
}

/// Why the events of a PCR cannot be foretold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GapReason {
    /// The golden set has a value without its events.
    #[error(
        "no events are recorded with its values: capture them from a node whose logs explain this PCR"
    )]
    NoEvents,
    /// Nothing in the record is of the old artifact.
    #[error(
        "no recorded event is of the old artifact: give the artifact that the set was captured from"
    )]
    NotFound,
    /// More than one event may be the old artifact's.
    #[error("each of these may be the old artifact: {}; give it", candidates.join(", "))]
    Ambiguous {
        /// The events, in words.
        candidates: Vec<String>,
    },
    /// The artifact alone does not tell.
    #[error("{what}: {why}")]
    Unknown {
        /// The event, in words.
        what: String,
        /// Why.
        why: Unknown,
    },
}

/// Whether a list is what happened, or what may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Each event once, in its order: those that led to a value.
    Sequence,
    /// Each event that is accepted, from any number of boots.
    Set,
}

/// What replaces what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replacement<'m> {
    pub(super) pcr: u8,
    pub(super) bank: HashAlg,
    pub(super) order: Order,
    /// The old artifact's events, where it is at hand.
    pub(super) old: Option<&'m [Measured]>,
    pub(super) new: &'m [Measured],
}

impl Replacement<'_> {
    /// The list with the new artifact's events.
    pub(super) fn apply(&self, list: &[Entry]) -> Result<Vec<Entry>, GapReason> {
        let mut out = match (self.pcr, self.order) {
            (SECTIONS_PCR, Order::Sequence) => self.image_at_start(list)?,
            (SECTIONS_PCR, Order::Set) => self.image_in_set(list)?,
            _ => self.by_role(list)?,
        };
        if self.order == Order::Set {
            let mut known = Vec::with_capacity(out.len());
            out.retain(|entry| {
                let is_new = !known.contains(&entry.digest);
                known.push(entry.digest);
                is_new
            });
        }
        Ok(out)
    }

    fn old(&self) -> Option<impl Iterator<Item = &Measured>> {
        self.old.map(|old| old.iter().filter(|event| event.pcr == self.pcr))
    }

    fn new_events(&self) -> impl Iterator<Item = &Measured> {
        self.new.iter().filter(|event| event.pcr == self.pcr)
    }

    /// The new event with this role, in the words and with the demand of the one that it replaces.
    fn entry(&self, new: &Measured, what: &str, required: bool) -> Result<Entry, GapReason> {
        let unknown = |why| GapReason::Unknown { what: new.what.clone(), why };
        // Every bank of the set was asked for.
        let digest = new.digest(self.bank).map_err(unknown)?.ok_or(GapReason::NotFound)?;
        Ok(Entry { digest, what: what.to_owned(), required })
    }

    /// All sections of the new image.
    fn image(&self, required: impl Fn(&str) -> bool) -> Result<Vec<Entry>, GapReason> {
        self.new_events().map(|new| self.entry(new, &new.what, required(&new.what))).collect()
    }

    /// PCR 11: the image's sections are its first events, and what systemd measures follows.
    fn image_at_start(&self, list: &[Entry]) -> Result<Vec<Entry>, GapReason> {
        let replaced = match self.old() {
            Some(old) => {
                let old: Vec<_> = old.collect();
                let is_there = old.len() <= list.len()
                    && old.iter().zip(list).all(|(old, entry)| old.is(self.bank, &entry.digest));
                if is_there { old.len() } else { 0 }
            }
            None => self.pairs(list),
        };
        if replaced == 0 {
            return Err(GapReason::NotFound);
        }
        let mut out = self.image(|_| false)?;
        out.extend(list.iter().skip(replaced).cloned());
        Ok(out)
    }

    /// How many of the first events are names of sections and, behind each, a content.
    fn pairs(&self, list: &[Entry]) -> usize {
        let mut constants = Constants::new(self.bank.into());
        constants.add_sections();
        let is_name = |entry: &Entry| {
            matches!(constants.of(&entry.digest.into()), Some(Constant::Section(_)))
        };
        let pairs = list.chunks_exact(2).take_while(|pair| pair.first().is_some_and(is_name));
        pairs.count().saturating_mul(2)
    }

    fn image_in_set(&self, list: &[Entry]) -> Result<Vec<Entry>, GapReason> {
        let is_old = |entry: &Entry| match self.old() {
            Some(mut old) => old.any(|old| old.is(self.bank, &entry.digest)),
            None => entry.what.starts_with("kernel image section "),
        };
        let first = list.iter().position(is_old).ok_or(GapReason::NotFound)?;
        let required = |what: &str| {
            list.iter().any(|entry| is_old(entry) && entry.required && entry.what == what)
        };
        let mut out: Vec<Entry> = list.iter().take(first).cloned().collect();
        out.extend(self.image(required)?);
        out.extend(list.iter().skip(first).filter(|entry| !is_old(entry)).cloned());
        Ok(out)
    }

    /// Event by event, each in its old place.
    fn by_role(&self, list: &[Entry]) -> Result<Vec<Entry>, GapReason> {
        let roles = self.roles(list)?;
        let has = |role: Role| roles.contains(&Some(role));
        if roles.iter().all(Option::is_none) {
            return Err(GapReason::NotFound);
        }
        let mut out = Vec::with_capacity(list.len().saturating_add(1));
        for (entry, role) in list.iter().zip(&roles) {
            let Some(role) = role else {
                out.push(entry.clone());
                continue;
            };
            let new = |role: Role| self.new_events().find(|new| new.role == role);
            // The kernel measures its options, then its initrd. What the old one had none of stands beside the other.
            if *role == Role::Initrd
                && !has(Role::LoadOptions)
                && self.had_none(Role::LoadOptions)
                && let Some(options) = new(Role::LoadOptions)
            {
                out.push(self.entry(options, &options.what, false)?);
            }
            if let Some(replacement) = new(*role) {
                out.push(self.entry(replacement, &entry.what, entry.required)?);
            }
            if *role == Role::LoadOptions
                && !has(Role::Initrd)
                && self.had_none(Role::Initrd)
                && let Some(initrd) = new(Role::Initrd)
            {
                out.push(self.entry(initrd, &initrd.what, false)?);
            }
        }
        Ok(out)
    }

    /// Whether the old artifact has no such event; one that has it and does not show it was merged with something.
    fn had_none(&self, role: Role) -> bool {
        self.old().is_none_or(|mut old| old.all(|event| event.role != role))
    }

    fn roles(&self, list: &[Entry]) -> Result<Vec<Option<Role>>, GapReason> {
        if let Some(old) = self.old {
            let old: Vec<&Measured> = old.iter().filter(|event| event.pcr == self.pcr).collect();
            let roles = list.iter().map(|entry| self.role_in(&old, entry)).collect();
            return self.all_found(&old, list, roles);
        }
        if self.pcr == APPLICATIONS_PCR {
            return self.applications(list);
        }
        let roles: Vec<_> = list.iter().map(|entry| role_by_words(self.pcr, &entry.what)).collect();
        for role in [Role::LoadOptions, Role::Initrd, Role::Options] {
            let found: Vec<_> =
                list.iter().zip(&roles).filter(|(_, found)| **found == Some(role)).collect();
            if self.order == Order::Sequence && found.len() > 1 {
                let candidates = found.iter().map(|(entry, _)| entry.what.clone()).collect();
                return Err(GapReason::Ambiguous { candidates });
            }
        }
        Ok(roles)
    }

    /// Role of an event that has the digest of one of the old artifact's, or the words of one whose digest is unknown.
    fn role_in(&self, old: &[&Measured], entry: &Entry) -> Option<Role> {
        let by_digest = old.iter().find(|old| old.is(self.bank, &entry.digest));
        let by_words = || {
            let role = role_by_words(self.pcr, &entry.what)?;
            old.iter().find(|old| old.role == role && old.digest(self.bank).is_err())
        };
        by_digest.or_else(by_words).map(|old| old.role)
    }

    /// A record that shares some of its events with the old artifact is not for that a record of it: another image may
    /// have the same command line or the same kernel. And what the kernel was handed may have been merged with something
    /// that the artifacts do not have.
    fn all_found(
        &self,
        old: &[&Measured],
        list: &[Entry],
        roles: Vec<Option<Role>>,
    ) -> Result<Vec<Option<Role>>, GapReason> {
        if roles.iter().all(Option::is_none) {
            return Ok(roles);
        }
        let has = |role: Role| roles.contains(&Some(role));
        let is_told = |role: Role| {
            let mut unknown = list.iter().zip(&roles).filter(|(_, found)| found.is_none());
            unknown.any(|(entry, _)| role_by_words(self.pcr, &entry.what) == Some(role))
        };
        for event in old.iter().filter(|event| !has(event.role)) {
            let is_lost = match event.role {
                Role::Application(_) => true,
                Role::InnerKernel => is_told(event.role),
                // A boot loader that starts the kernel without its stub (GRUB before 2.12) leaves these out.
                Role::LoadOptions | Role::Initrd => is_told(event.role) || !has(Role::KernelFile),
                _ => false,
            };
            match event.role {
                Role::Application(_) if is_lost => return Err(GapReason::NotFound),
                _ if is_lost => {
                    let what = event.what.clone();
                    return Err(GapReason::Unknown { what, why: Unknown::Outside });
                }
                _ => {}
            }
        }
        let new_only = self.new_events().filter(|new| old.iter().all(|old| old.role != new.role));
        for event in new_only {
            if is_told(event.role) {
                let what = event.what.clone();
                return Err(GapReason::Unknown { what, why: Unknown::Outside });
            }
        }
        Ok(roles)
    }

    /// PCR 4 without the old artifact: only where as many images were measured as the update replaces.
    fn applications(&self, list: &[Entry]) -> Result<Vec<Option<Role>>, GapReason> {
        let constants = Constants::new(self.bank.into());
        let is_application = |entry: &&Entry| {
            constants.of(&entry.digest.into()).is_none() && !entry.what.contains(STUB_PAYLOAD)
        };
        let found: Vec<&Entry> = list.iter().filter(is_application).collect();
        let replaced = self.new_events().filter(|new| matches!(new.role, Role::Application(_)));
        if found.len() != replaced.count() {
            let candidates = found.iter().map(|entry| entry.what.clone()).collect();
            return Err(GapReason::Ambiguous { candidates });
        }
        let mut number = 0_usize;
        let roles = list.iter().map(|entry| {
            if is_application(&entry) {
                let role = Role::Application(number);
                number = number.saturating_add(1);
                return Some(role);
            }
            let replaces = self.new_events().any(|new| new.role == Role::InnerKernel);
            (replaces && entry.what.contains(STUB_PAYLOAD)).then_some(Role::InnerKernel)
        });
        Ok(roles.collect())
    }
}

/// What the kernel's stub and systemd-boot measure, by what this project calls it.
fn role_by_words(pcr: u8, what: &str) -> Option<Role> {
    match (pcr, what) {
        (APPLICATIONS_PCR, what) if what.contains(STUB_PAYLOAD) => Some(Role::InnerKernel),
        (INITRD_PCR, "kernel command line") => Some(Role::LoadOptions),
        (INITRD_PCR, "initial RAM disk") => Some(Role::Initrd),
        (OPTIONS_PCR, what) if what.starts_with("kernel command line") => Some(Role::Options),
        _ => None,
    }
}
