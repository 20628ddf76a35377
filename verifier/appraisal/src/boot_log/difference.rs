//! Where a boot leaves the one that was recorded.

use proto::{
    digest::{PcrIndex, PcrSet},
    eventlog::LogDigest,
};
use serde::{Deserialize, Serialize};

use super::{
    replay::{Replay, ReplayedEvent},
    words,
};

/// One event of a recorded boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceEvent {
    /// The PCR.
    pub pcr: PcrIndex,
    /// Its digest.
    pub digest: LogDigest,
    /// The event in words, as it was when it was recorded: for people, never compared.
    pub words: String,
}

/// The first event that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The PCR.
    pub pcr: PcrIndex,
    /// The event's place among those of its PCR, from 0.
    pub position: usize,
    /// The event's place in its log; `None` where the boot has fewer events than were recorded.
    pub index: Option<u32>,
    /// What was recorded there; `None` where the boot has more events.
    pub expected: Option<ReferenceEvent>,
    /// What this boot extended there.
    pub observed: Option<LogDigest>,
    /// The observed event in words, else the recorded one.
    pub words: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.index {
            Some(index) => write!(f, "event {index} (PCR {}): {}", self.pcr, self.words),
            None => write!(f, "PCR {}: no event where there was: {}", self.pcr, self.words),
        }
    }
}

/// Compares a boot with the recorded events, in the bank of the records and in their PCRs.
///
/// Each PCR is compared by itself, since nothing proves an order between PCRs. Of several PCRs that differ the one
/// whose first differing event comes first in the log is told: what comes later is often its consequence. Events that
/// are not there any more come after all that are.
#[must_use]
pub fn first_difference(expected: &[ReferenceEvent], observed: &Replay<'_>) -> Option<Difference> {
    let pcrs: PcrSet = expected.iter().map(|event| event.pcr).collect();
    pcrs.iter()
        .filter_map(|pcr| difference_in(pcr, expected, observed))
        .min_by_key(|(order, difference)| (order.is_none(), *order, difference.pcr))
        .map(|(_, difference)| difference)
}

/// The first difference in one PCR, with the observed event's place in the replay.
fn difference_in(
    pcr: PcrIndex,
    expected: &[ReferenceEvent],
    observed: &Replay<'_>,
) -> Option<(Option<usize>, Difference)> {
    let mut recorded = expected.iter().filter(|event| event.pcr == pcr);
    let bank = recorded.clone().next()?.digest.alg();
    let mut seen = observed.events().iter().enumerate().filter(|(_, event)| event.pcr == pcr);
    let mut position = 0_usize;
    loop {
        match (recorded.next(), seen.next()) {
            (None, None) => return None,
            (wanted, found) => {
                let digest = found.and_then(|(order, _)| observed.digest(order, bank));
                if wanted.is_none() || digest.is_none() || wanted.map(|w| w.digest) != digest {
                    let difference = Difference {
                        pcr,
                        position,
                        index: found.map(|(_, event)| event.index),
                        expected: wanted.cloned(),
                        observed: digest,
                        words: words_of(found.map(|(_, event)| event), wanted),
                    };
                    return Some((found.map(|(order, _)| order), difference));
                }
            }
        }
        position = position.saturating_add(1);
    }
}

/// The observed event's words; the kind of the recorded one where the two are of one kind reads better with it.
fn words_of(found: Option<&ReplayedEvent<'_>>, wanted: Option<&ReferenceEvent>) -> String {
    match (found, wanted) {
        (Some(event), _) => event.words(),
        (None, Some(event)) => event.words.clone(),
        (None, None) => words::UNKNOWN.to_owned(),
    }
}
