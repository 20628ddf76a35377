//! What certificates rest on besides the node's own record, and whether it changed since it was read.
//!
//! Golden sets, endorsements and admission rules are read ahead and kept in memory by whoever
//! appraises. A change of one of them is committed by the writer task, as is every certificate's
//! intent: counting the changes here lets that task refuse an intent that was judged by what is no
//! longer in force, without a query.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
};

/// Something that a certificate rests on and an administrator may change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ground {
    /// The rules that admit unknown TPMs.
    AdmissionRules,
    /// Roots, intermediates and CRLs.
    Endorsements,
    /// Golden sets, site policies and the ring of keys. One ground for all pools: parts and policies are shared, and
    /// they change seldom.
    ReferenceDocuments,
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AdmissionRules => f.write_str("the admission rules"),
            Self::Endorsements => f.write_str("the endorsements"),
            Self::ReferenceDocuments => f.write_str("the golden sets and policies"),
        }
    }
}

/// How many changes had been committed when something was read. Take it before reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen(u64);

/// Changes committed by this process, which is the only one that writes.
#[derive(Debug, Default)]
pub(super) struct Changes(Mutex<Counted>);

/// One entry for each ground.
#[derive(Debug, Default)]
struct Counted {
    count: u64,
    last: HashMap<Ground, u64>,
    /// Last moment at which anything may have changed.
    unknown: u64,
}

impl Changes {
    pub(super) fn seen(&self) -> Seen {
        Seen(self.lock().count)
    }

    /// After the commit of a change, before it is answered.
    pub(super) fn committed(&self, ground: &Ground) {
        let mut counted = self.lock();
        counted.count += 1;
        let count = counted.count;
        counted.last.insert(ground.clone(), count);
    }

    /// After a commit that failed in a way that may have taken effect.
    pub(super) fn perhaps_everything(&self) {
        let mut counted = self.lock();
        counted.count += 1;
        counted.unknown = counted.count;
    }

    pub(super) fn since(&self, seen: Seen, ground: &Ground) -> bool {
        let counted = self.lock();
        let last = counted.last.get(ground).copied().unwrap_or(0).max(counted.unknown);
        last > seen.0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{Changes, Ground};

    #[test]
    fn each_ground_counts_alone_and_an_unknown_commit_for_all() {
        let changes = Changes::default();
        let before = changes.seen();
        let documents = Ground::ReferenceDocuments;
        assert!(!changes.since(before, &documents));
        changes.committed(&documents);
        assert!(changes.since(before, &documents));
        assert!(!changes.since(before, &Ground::Endorsements));
        let after = changes.seen();
        assert!(!changes.since(after, &documents));
        changes.perhaps_everything();
        assert!(changes.since(after, &Ground::AdmissionRules));
        assert!(!changes.since(changes.seen(), &Ground::AdmissionRules));
    }
}
