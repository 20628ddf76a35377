//! One event of a firmware log.

use super::{LogAlg, LogDigest, event_type::EventType};
use crate::digest::PcrIndex;

/// An event, borrowed from its log and believed by nobody.
///
/// # Does not prove
/// Anything. PCR and digests are bound by a replay that reaches a quoted value; type and data are bound by nothing
/// here.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// Place in the log, from 0; the Spec ID event counts.
    pub index: u32,
    /// Offset of the event in the log, bytes.
    pub offset: usize,
    /// The PCR; `None` for PCR 0xffffffff, which only information has that is not extended.
    pub pcr: Option<PcrIndex>,
    /// What the log says that this is.
    pub untrusted_type: EventType,
    pub(super) digests: Digests<'a>,
    /// The event's data.
    pub untrusted_data: &'a [u8],
}

/// One digest for each algorithm at most.
#[derive(Clone, Debug, Default)]
pub(super) struct Digests<'a>([Option<&'a [u8]>; LogAlg::ALL.len()]);

impl<'a> Digests<'a> {
    /// Adds a digest; false if there is one already.
    pub(super) fn insert(&mut self, alg: LogAlg, digest: &'a [u8]) -> bool {
        match self.0.get_mut(alg.slot()) {
            Some(slot @ None) => {
                *slot = Some(digest);
                true
            }
            _ => false,
        }
    }
}

impl<'a> Event<'a> {
    /// The digest in one bank, if the event has one.
    #[must_use]
    pub fn digest_bytes(&self, alg: LogAlg) -> Option<&'a [u8]> {
        self.digests.0.get(alg.slot()).copied().flatten()
    }

    /// [`Self::digest_bytes`], as a value of its own.
    #[must_use]
    pub fn digest(&self, alg: LogAlg) -> Option<LogDigest> {
        LogDigest::new(alg, self.digest_bytes(alg)?).ok()
    }

    /// Digests, ascending by algorithm.
    pub fn digests(&self) -> impl Iterator<Item = LogDigest> + use<'a, '_> {
        LogAlg::ALL.into_iter().filter_map(|alg| self.digest(alg))
    }

    /// Whether a replay extends the event. Calling an extended event "no action", or the other way round, changes
    /// the replay.
    #[must_use]
    pub fn is_extended(&self) -> bool {
        self.untrusted_type != EventType::NO_ACTION
    }
}
