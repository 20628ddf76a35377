//! Boots with their nodes in memory, for renewals.
//!
//! Bounded by bytes. All writes go through the writer task, which applies them here after the
//! commit and before it answers: whoever has got the answer of a write sees it. A reader that
//! fills a miss may have read before a commit that is applied in the meantime; each shard counts
//! what is applied to it, and a fill that began under an older count is not kept.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{types::KnownBoot, writer::Touched};

const SHARDS: usize = 16;
/// Rough cost of an entry besides its byte strings.
const ENTRY_BYTES: usize = 512;

#[derive(Debug)]
pub(super) struct BootCache {
    hasher: RandomState,
    shards: Vec<Mutex<Shard>>,
    shard_bytes: usize,
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Vec<u8>, Entry>,
    bytes: usize,
    applied: u64,
    tick: u64,
}

#[derive(Debug)]
struct Entry {
    boot: Arc<KnownBoot>,
    bytes: usize,
    used: u64,
}

/// Says which state of the cache a read of the database started from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fill(u64);

impl BootCache {
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(),
            shard_bytes: bytes / SHARDS,
        }
    }

    fn shard(&self, ak_name: &[u8]) -> MutexGuard<'_, Shard> {
        let index = self.hasher.hash_one(ak_name) as usize % SHARDS;
        lock(&self.shards[index])
    }

    /// The boot, or a ticket to fill it in.
    pub(super) fn find(&self, ak_name: &[u8]) -> Result<Arc<KnownBoot>, Fill> {
        let mut shard = self.shard(ak_name);
        shard.tick += 1;
        let (tick, applied) = (shard.tick, shard.applied);
        let entry = shard.entries.get_mut(ak_name).ok_or(Fill(applied))?;
        entry.used = tick;
        Ok(Arc::clone(&entry.boot))
    }

    pub(super) fn fill(&self, ticket: Fill, boot: Arc<KnownBoot>) {
        let mut shard = self.shard(&boot.boot.ak_name);
        if shard.applied == ticket.0 {
            shard.insert(boot, self.shard_bytes);
        }
    }

    /// Applies committed changes in order.
    pub(super) fn apply(&self, changes: impl Iterator<Item = Touched>) {
        for change in changes {
            match change {
                Touched::Boot(known) => {
                    // Older boots of the node may have been dropped with this write; one that
                    // stays here is refused by the compare-and-swap of the next write.
                    let mut shard = self.shard(&known.boot.ak_name);
                    shard.applied += 1;
                    shard.insert(Arc::new(known), self.shard_bytes);
                }
                Touched::Ground(_) => {}
                Touched::Node(name) => self.remove(|known| known.node.name == name),
            }
        }
    }

    pub(super) fn clear(&self) {
        self.remove(|_| true);
    }

    fn remove(&self, gone: impl Fn(&KnownBoot) -> bool) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.applied += 1;
            shard.entries.retain(|_, entry| !gone(&entry.boot));
            shard.bytes = shard.entries.values().map(|entry| entry.bytes).sum();
        }
    }
}

impl Shard {
    fn insert(&mut self, boot: Arc<KnownBoot>, limit: usize) {
        if let Some(old) = self.entries.remove(&boot.boot.ak_name) {
            self.bytes -= old.bytes;
        }
        let bytes = size(&boot);
        if bytes > limit / 4 {
            return;
        }
        while self.bytes + bytes > limit {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
            let Some(name) = oldest.map(|(name, _)| name.clone()) else { break };
            if let Some(old) = self.entries.remove(&name) {
                self.bytes -= old.bytes;
            }
        }
        self.tick += 1;
        self.bytes += bytes;
        let entry = Entry { bytes, used: self.tick, boot };
        self.entries.insert(entry.boot.boot.ak_name.clone(), entry);
    }
}

fn size(known: &KnownBoot) -> usize {
    let (boot, node) = (&known.boot, &known.node);
    let chain: usize = node.ek_chain.iter().map(Vec::len).sum();
    ENTRY_BYTES
        + 2 * boot.ak_name.len()
        + boot.record.len()
        + node.ek_certificate.as_ref().map_or(0, Vec::len)
        + chain
}

/// Every method leaves a shard consistent, so a poisoned lock is as good as another.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{boot, node};

    fn known(ak: u8, state_bytes: usize) -> KnownBoot {
        let mut boot = boot(ak, "n1");
        boot.record = vec![0; state_bytes];
        KnownBoot { boot, version: 1, node: Arc::new(node("n1")) }
    }

    #[test]
    fn a_fill_that_began_before_a_change_is_not_kept() {
        let cache = BootCache::new(1 << 20);
        let old = known(1, 10);
        let ticket = cache.find(&old.boot.ak_name).expect_err("empty");
        cache.apply([Touched::Node("n1".into())].into_iter());
        cache.fill(ticket, Arc::new(old.clone()));
        let ticket = cache.find(&old.boot.ak_name).expect_err("stale fill was dropped");
        cache.fill(ticket, Arc::new(old.clone()));
        assert_eq!(*cache.find(&old.boot.ak_name).expect("filled"), old);
    }

    #[test]
    fn memory_is_bounded_and_the_longest_unused_goes_first() {
        let mut shard = Shard::default();
        let limit = 8 * (ENTRY_BYTES + 1100);
        for ak in 0..=255 {
            shard.insert(Arc::new(known(ak, 1000)), limit);
            assert!(shard.bytes <= limit);
        }
        assert!(shard.entries.contains_key(&known(255, 0).boot.ak_name));
        assert!(!shard.entries.contains_key(&known(0, 0).boot.ak_name));
        assert_eq!(shard.bytes, shard.entries.values().map(|entry| entry.bytes).sum::<usize>());
    }

    #[test]
    fn an_entry_of_more_than_its_share_is_not_kept() {
        let cache = BootCache::new(SHARDS * 4096);
        let big = known(1, 4096);
        cache.apply([Touched::Boot(big.clone())].into_iter());
        assert!(cache.find(&big.boot.ak_name).is_err());
    }
}
