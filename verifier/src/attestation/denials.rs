//! Which denials are recorded: what a caller can make the verifier write is bounded in number and bytes.
//!
//! | caller | recorded |
//! |---|---|
//! | proved nothing | a burst, then a steady rate, all callers together |
//! | a TPM that proved itself, denied as before | a few, then one in ten minutes; half of the bytes |
//! | the same, and something differs: node, findings, PCR values, counters, golden set | sixty, then one a minute |
//!
//! The first denial of a TPM, and the first after an admission, is one that differs. What is not
//! recorded is answered all the same, counted here, and summed up in the audit chain by
//! [`Verifier::report_unrecorded`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use appraisal::{Proven, verdict::Denial};
use proto::digest::{Digest, HashAlg};

use super::{AttestError, Verifier, answer::codes};
use crate::{
    metrics,
    store::By,
    throttle::{Bucket, Rate, Throttle},
};

/// Denials of callers that proved nothing.
const UNPROVEN: Rate = Rate { burst: 200, refill: 5, every_s: 1 };
/// Denials of one TPM that say what its last recorded one says. A daemon comes each minute.
const REPEATED: Rate = Rate { burst: 10, refill: 1, every_s: 600 };
/// Denials of one TPM that say something else.
const CHANGED: Rate = Rate { burst: 60, refill: 1, every_s: 60 };
/// Bytes of one TPM's denials: eight of the longest tool logs at once, and a day to have them again.
/// One denial may go beyond; the next ones wait for it.
const BYTES: Rate = Rate { burst: 64 << 20, refill: 1 << 20, every_s: 1350 };
/// Bytes of logs that admissions of one TPM store as objects: four of the longest IMA lists at once, and a day to have
/// them again. Beyond, the worker is told to come later.
const ADMITTED_BYTES: Rate = Rate { burst: 256 << 20, refill: 1 << 20, every_s: 337 };
/// TPMs that are remembered; beyond it the half that was denied longest ago is forgotten.
const MAX_TPMS: usize = 20_000;
/// TPMs that one audit entry names; the others are counted.
const MAX_NAMED: usize = 100;
/// Distinct reason codes kept of what was not recorded.
const MAX_CODES: usize = 16;

/// Bounds on recorded denials.
#[derive(Debug)]
pub(super) struct Denials {
    unproven: Throttle,
    tpms: Mutex<BTreeMap<Digest, Tpm>>,
    unrecorded: Mutex<Unrecorded>,
}

/// What one TPM may still write.
#[derive(Debug)]
struct Tpm {
    /// What its last recorded denial said; `None` after an admission.
    last: Option<Digest>,
    denied_unix_s: i64,
    repeated: Bucket,
    changed: Bucket,
    bytes: Bucket,
    admitted_bytes: Bucket,
}

/// What was not recorded since the last report.
#[derive(Debug, Default)]
struct Unrecorded {
    unproven: u64,
    /// Of TPMs that do not fit into one report.
    others: u64,
    tpms: BTreeMap<Digest, Dropped>,
}

#[derive(Debug)]
struct Dropped {
    node: String,
    denials: u64,
    bytes: u64,
    first_unix_s: i64,
    last_unix_s: i64,
    codes: BTreeSet<String>,
}

/// What a decision is about besides its findings.
pub(super) struct About<'a> {
    pub(super) node: &'a str,
    pub(super) policy_version: &'a str,
    /// What recording it would write.
    pub(super) bytes: usize,
}

impl Default for Denials {
    fn default() -> Self {
        Self {
            unproven: Throttle::new(UNPROVEN),
            tpms: Mutex::default(),
            unrecorded: Mutex::default(),
        }
    }
}

impl Denials {
    /// Whether a decision is recorded. Every admission is (`denial` absent), and makes the TPM's next
    /// denial news.
    pub(super) fn records(
        &self,
        denial: Option<&Denial>,
        proven: Option<&Proven>,
        about: &About<'_>,
        now_unix_s: i64,
    ) -> bool {
        match (denial, proven) {
            (None, None) => true,
            (None, Some(proven)) => {
                if let Some(tpm) = lock(&self.tpms).get_mut(&proven.boot.ek().digest) {
                    tpm.last = None;
                }
                true
            }
            // Whoever proved nothing may fill the record only slowly, and never a node's history.
            (Some(_), None) => {
                let recorded = self.unproven.allow(now_unix_s);
                if !recorded {
                    metrics::denial_unrecorded(false);
                    let mut unrecorded = lock(&self.unrecorded);
                    unrecorded.unproven = unrecorded.unproven.saturating_add(1);
                }
                recorded
            }
            (Some(denial), Some(proven)) => self.records_proven(denial, proven, about, now_unix_s),
        }
    }

    /// Whether an admission of this TPM may store logs of so many bytes: admissions are always recorded, so that one
    /// that would fill the disk is not made.
    pub(super) fn admits(&self, ek: Digest, log_bytes: usize, now_unix_s: i64) -> bool {
        let mut tpms = lock(&self.tpms);
        if tpms.len() >= MAX_TPMS && !tpms.contains_key(&ek) {
            forget_half(&mut tpms);
        }
        tpms.entry(ek).or_insert_with(|| Tpm::new(now_unix_s)).stores(log_bytes, now_unix_s)
    }

    fn records_proven(
        &self,
        denial: &Denial,
        proven: &Proven,
        about: &About<'_>,
        now_unix_s: i64,
    ) -> bool {
        let ek = proven.boot.ek().digest;
        let says = says(denial, proven, about);
        let recorded = {
            let mut tpms = lock(&self.tpms);
            if tpms.len() >= MAX_TPMS && !tpms.contains_key(&ek) {
                forget_half(&mut tpms);
            }
            let tpm = tpms.entry(ek).or_insert_with(|| Tpm::new(now_unix_s));
            tpm.takes(says, about.bytes, now_unix_s)
        };
        if !recorded {
            metrics::denial_unrecorded(true);
            lock(&self.unrecorded).add(ek, denial, about, now_unix_s);
        }
        recorded
    }
}

/// Equal for denials that say the same of the same state.
fn says(denial: &Denial, proven: &Proven, about: &About<'_>) -> Digest {
    let tpm = proven.claims.tpm();
    let counters = (tpm.reset_count, tpm.restart_count);
    let findings: Vec<_> =
        denial.findings().map(|found| (found.code, &found.subject, &found.observed)).collect();
    let state = (about.node, about.policy_version, counters, findings, proven.claims.pcrs());
    // Only compared within this process: the form is nobody else's business.
    HashAlg::Sha256.hash(&[format!("{state:?}").as_bytes()])
}

impl Tpm {
    fn new(now_unix_s: i64) -> Self {
        Self {
            last: None,
            denied_unix_s: now_unix_s,
            repeated: Bucket::full(REPEATED, now_unix_s),
            changed: Bucket::full(CHANGED, now_unix_s),
            bytes: Bucket::full(BYTES, now_unix_s),
            admitted_bytes: Bucket::full(ADMITTED_BYTES, now_unix_s),
        }
    }

    /// Whether an admission may store logs of so many bytes. One may go beyond; the next ones wait for it.
    fn stores(&mut self, bytes: usize, now_unix_s: i64) -> bool {
        if self.admitted_bytes.left(now_unix_s) <= 0 {
            return false;
        }
        self.admitted_bytes.take(i64::try_from(bytes).unwrap_or(i64::MAX));
        true
    }

    fn takes(&mut self, says: Digest, bytes: usize, now_unix_s: i64) -> bool {
        self.denied_unix_s = now_unix_s;
        let repeated = self.last == Some(says);
        // Repetitions leave half of the bytes to what is new.
        let floor = if repeated { BYTES.burst / 2 } else { 0 };
        if self.bytes.left(now_unix_s) <= floor {
            return false;
        }
        let number = if repeated { &mut self.repeated } else { &mut self.changed };
        if number.left(now_unix_s) <= 0 {
            return false;
        }
        number.take(1);
        self.bytes.take(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.last = Some(says);
        true
    }
}

/// Seldom enough: each time half of the room is free again.
fn forget_half(tpms: &mut BTreeMap<Digest, Tpm>) {
    let mut times: Vec<i64> = tpms.values().map(|tpm| tpm.denied_unix_s).collect();
    let middle = times.len() / 2;
    let (_, median, _) = times.select_nth_unstable(middle);
    let (median, mut ties) = (*median, 0);
    tpms.retain(|_, tpm| {
        if tpm.denied_unix_s == median {
            ties += 1;
        }
        // Of those denied in the same second every other one stays.
        tpm.denied_unix_s > median || (tpm.denied_unix_s == median && ties % 2 == 0)
    });
}

impl Unrecorded {
    fn add(&mut self, ek: Digest, denial: &Denial, about: &About<'_>, now_unix_s: i64) {
        if self.tpms.len() >= MAX_NAMED && !self.tpms.contains_key(&ek) {
            self.others = self.others.saturating_add(1);
            return;
        }
        let dropped = self.tpms.entry(ek).or_insert_with(|| Dropped {
            node: about.node.to_owned(),
            denials: 0,
            bytes: 0,
            first_unix_s: now_unix_s,
            last_unix_s: now_unix_s,
            codes: BTreeSet::new(),
        });
        dropped.denials = dropped.denials.saturating_add(1);
        dropped.bytes = dropped.bytes.saturating_add(about.bytes as u64);
        dropped.last_unix_s = now_unix_s;
        for code in codes(denial) {
            if dropped.codes.len() < MAX_CODES {
                dropped.codes.insert(code);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.unproven == 0 && self.others == 0 && self.tpms.is_empty()
    }

    /// As the audit entry tells it.
    fn details(&self) -> serde_json::Value {
        let tpms: Vec<_> = self
            .tpms
            .iter()
            .map(|(ek, dropped)| {
                serde_json::json!({
                    "ek": ek,
                    "node": dropped.node,
                    "denials": dropped.denials,
                    "bytes": dropped.bytes,
                    "first": dropped.first_unix_s,
                    "last": dropped.last_unix_s,
                    "codes": dropped.codes,
                })
            })
            .collect();
        serde_json::json!({ "tpms": tpms, "others": self.others, "unproven": self.unproven })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Verifier {
    /// Records, as one audit entry, how many denials were answered and not recorded since the last
    /// time; nothing if there were none.
    ///
    /// # Errors
    /// [`AttestError`]; the counts are then lost to the chain, not to the metrics.
    pub async fn report_unrecorded(&self) -> Result<(), AttestError> {
        let unrecorded = std::mem::take(&mut *lock(&self.denials.unrecorded));
        if unrecorded.is_empty() {
            return Ok(());
        }
        let by = By::new("verifier", self.now()?);
        self.store.record_action("denials not recorded", unrecorded.details(), by).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proto::digest::{Digest, HashAlg};

    use super::{BYTES, MAX_TPMS, Tpm, forget_half};

    const NOW: i64 = 1_800_000_000;

    fn says(text: &str) -> Digest {
        HashAlg::Sha256.hash(&[text.as_bytes()])
    }

    /// How many of `count` such denials are recorded.
    fn taken(tpm: &mut Tpm, count: usize, bytes: usize, at: i64) -> usize {
        (0..count).filter(|_| tpm.takes(says("a"), bytes, at)).count()
    }

    #[test]
    fn the_same_denial_again_and_again_is_recorded_now_and_then() {
        let mut tpm = Tpm::new(NOW);
        // The first is news, ten repeat it.
        assert_eq!(taken(&mut tpm, 1000, 100, NOW), 11);
        assert_eq!(taken(&mut tpm, 1000, 100, NOW + 599), 0);
        assert_eq!(taken(&mut tpm, 1000, 100, NOW + 600), 1);
        // A clock that goes back gives nothing.
        assert_eq!(taken(&mut tpm, 1000, 100, NOW), 0);
    }

    #[test]
    fn admissions_store_logs_within_a_budget_of_their_tpm() {
        let mut tpm = Tpm::new(NOW);
        let list = 64 << 20;
        assert_eq!((0..9).filter(|_| tpm.stores(list, NOW)).count(), 4);
        assert!(!tpm.stores(1, NOW + 336));
        assert!(tpm.stores(list, NOW + 337), "what came back is enough to begin with");
        assert!(!tpm.stores(1, NOW + 337 * 63));
        assert!(tpm.stores(1, NOW + 337 * 65));
    }

    #[test]
    fn what_differs_is_recorded_though_repetitions_are_not() {
        let mut tpm = Tpm::new(NOW);
        assert_eq!(taken(&mut tpm, 1000, 100, NOW), 11);
        assert!(tpm.takes(says("b"), 100, NOW));
        assert!(tpm.takes(says("a"), 100, NOW), "and back");
        // After an admission the same denial is news again.
        tpm.last = None;
        assert!(tpm.takes(says("a"), 100, NOW));
        // News have their own end: who alternates is bounded too.
        let alternating = (0..1000).filter(|n| tpm.takes(says(&n.to_string()), 100, NOW)).count();
        assert_eq!(alternating, 60 - 4);
        assert!(!tpm.takes(says("c"), 100, NOW + 59));
        assert!(tpm.takes(says("c"), 100, NOW + 60));
    }

    #[test]
    fn bytes_are_bounded_and_repetitions_leave_half_of_them() {
        let mib = 1 << 20;
        let mut tpm = Tpm::new(NOW);
        // One however large, then none until it is made good.
        assert!(tpm.takes(says("huge"), 100 * mib, NOW));
        assert!(!tpm.takes(says("small"), 1, NOW));
        assert!(!tpm.takes(says("small"), 1, NOW + 36 * 1350));
        assert!(tpm.takes(says("small"), 1, NOW + 37 * 1350));

        let mut tpm = Tpm::new(NOW);
        assert_eq!(taken(&mut tpm, 1000, 8 * mib, NOW), 4, "half of 64 MiB");
        let news = (0..1000).filter(|n| tpm.takes(says(&n.to_string()), 8 * mib, NOW)).count();
        assert_eq!(news, 4);
        assert_eq!(tpm.bytes.left(NOW), 0);
        assert_eq!(BYTES.burst, 64 << 20);
    }

    #[test]
    fn the_memory_for_tpms_is_bounded_and_keeps_the_latest() {
        let tpm = |n: usize| (says(&n.to_string()), Tpm::new(NOW + n as i64 / 4));
        let mut tpms = (0..MAX_TPMS).map(tpm).collect();
        forget_half(&mut tpms);
        assert!((MAX_TPMS / 2 - 2..=MAX_TPMS / 2).contains(&tpms.len()), "{}", tpms.len());
        assert!(tpms.contains_key(&says(&(MAX_TPMS - 1).to_string())));
        assert!(!tpms.contains_key(&says("0")));
        // All in one second.
        let mut tpms = (0..MAX_TPMS).map(|n| (says(&n.to_string()), Tpm::new(NOW))).collect();
        forget_half(&mut tpms);
        assert_eq!(tpms.len(), MAX_TPMS / 2);
    }
}
