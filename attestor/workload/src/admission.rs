//! Places that users share: how many there are, how many one user may hold, and how many are kept for whom.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Places; clones count together.
///
/// Some are kept for users that are known: another user takes a place only while enough are left for each of them to reach
/// what is kept for it. So however many users work together, each known one finds its places.
#[derive(Clone, Debug)]
pub struct Places {
    shared: Arc<Mutex<Counts>>,
}

#[derive(Debug)]
struct Counts {
    total: usize,
    by_uid: HashMap<u32, usize>,
    max_total: usize,
    max_by_uid: usize,
    kept_for: Vec<u32>,
    kept_each: usize,
}

/// A place, given back on drop.
#[derive(Debug)]
pub struct Place {
    places: Places,
    uid: u32,
}

/// Which bound was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// All places are taken.
    Total,
    /// The user holds as many as one may.
    User,
    /// What is left is kept for other users.
    Kept,
}

impl Places {
    /// So many, and so many for one user at most; of them `kept_each` kept for each of these users, as far as they reach.
    #[must_use]
    pub fn new(max_total: usize, max_by_uid: usize, kept_for: &[u32], kept_each: usize) -> Self {
        let mut kept_for = kept_for.to_vec();
        kept_for.sort_unstable();
        kept_for.dedup();
        let kept_each = max_total.checked_div(kept_for.len()).unwrap_or(0).min(kept_each);
        let (total, by_uid) = (0, HashMap::new());
        let counts = Counts { total, by_uid, max_total, max_by_uid, kept_for, kept_each };
        Self { shared: Arc::new(Mutex::new(counts)) }
    }

    /// Takes one.
    ///
    /// # Errors
    /// [`Full`].
    pub fn take(&self, uid: u32) -> Result<Place, Full> {
        let mut counts = self.counts();
        let own = counts.held(uid);
        let left = counts.max_total.saturating_sub(counts.total);
        if left == 0 {
            return Err(Full::Total);
        }
        if own >= counts.max_by_uid {
            return Err(Full::User);
        }
        let is_kept = own < counts.kept_each && counts.kept_for.contains(&uid);
        if !is_kept && left <= counts.owed_to_others(uid) {
            return Err(Full::Kept);
        }
        counts.by_uid.insert(uid, own + 1);
        counts.total += 1;
        Ok(Place { places: self.clone(), uid })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Nothing in here panics between two changes that belong together.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn held(&self, uid: u32) -> usize {
        self.by_uid.get(&uid).copied().unwrap_or(0)
    }

    /// Places that users but this one have not taken of what is kept for them.
    fn owed_to_others(&self, uid: u32) -> usize {
        let others = self.kept_for.iter().filter(|other| **other != uid);
        others.map(|other| self.kept_each.saturating_sub(self.held(*other))).sum()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.places.counts();
        counts.total = counts.total.saturating_sub(1);
        let own = counts.held(self.uid).saturating_sub(1);
        match own {
            0 => counts.by_uid.remove(&self.uid),
            own => counts.by_uid.insert(self.uid, own),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_at_its_bound_leaves_room_for_others() {
        let places = Places::new(4, 2, &[], 0);
        let first: Vec<_> = (0..2).map(|_| places.take(7).unwrap()).collect();
        assert_eq!(places.take(7).err(), Some(Full::User));
        let other = places.take(8).unwrap();
        assert_eq!(first.len(), 2);
        let last = places.take(9).unwrap();
        assert_eq!(places.take(10).err(), Some(Full::Total));
        drop(first);
        let again = places.take(7).unwrap();
        drop((other, last, again));
        let counts = places.counts();
        assert_eq!((counts.total, counts.by_uid.len()), (0, 0));
    }

    #[test]
    fn what_is_kept_for_a_user_is_there_whatever_all_others_take() {
        let places = Places::new(8, 8, &[1, 2, 3, 3], 2);
        // A known user, then strangers, however many.
        let mut held = Vec::new();
        while let Ok(place) = places.take(1) {
            held.push(place);
        }
        assert_eq!((held.len(), places.take(1).err()), (4, Some(Full::Kept)));
        assert!((100..120).all(|uid| places.take(uid).err() == Some(Full::Kept)));
        for uid in [2, 3] {
            held.extend((0..2).map(|_| places.take(uid).unwrap()));
        }
        assert_eq!(places.take(2).err(), Some(Full::Total));
        drop(held);
        // Strangers first.
        let strangers: Vec<_> = (100..120).filter_map(|uid| places.take(uid).ok()).collect();
        assert_eq!(strangers.len(), 2);
        assert!([1, 1, 2, 2, 3, 3].map(|uid| places.take(uid)).iter().all(Result::is_ok));
    }

    #[test]
    fn a_user_alone_gets_all_and_too_many_users_get_none_kept() {
        let alone = Places::new(8, 8, &[1], 4);
        let all: Vec<_> = (0..8).map(|_| alone.take(1).unwrap()).collect();
        assert_eq!(all.len(), 8);
        let crowded = Places::new(1, 1, &[1, 2], 1);
        let first = crowded.take(2).unwrap();
        assert_eq!(crowded.take(1).err(), Some(Full::Total));
        drop(first);
        crowded.take(1).unwrap();
    }
}
