//! How many connections there may be, in all and for each user.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Counts open connections; clones count together.
#[derive(Clone)]
pub(crate) struct Admissions {
    shared: Arc<Mutex<Counts>>,
}

#[derive(Default)]
struct Counts {
    total: usize,
    by_uid: HashMap<u32, usize>,
    max_total: usize,
    max_by_uid: usize,
}

/// A place for one connection, given back when it goes.
pub(crate) struct Place {
    admissions: Admissions,
    uid: u32,
}

/// Which bound was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Total,
    User,
}

impl Admissions {
    pub(crate) fn new(max_total: usize, max_by_uid: usize) -> Self {
        let counts = Counts { max_total, max_by_uid, ..Counts::default() };
        Self { shared: Arc::new(Mutex::new(counts)) }
    }

    pub(crate) fn take(&self, uid: u32) -> Result<Place, Full> {
        let mut counts = self.counts();
        if counts.total >= counts.max_total {
            return Err(Full::Total);
        }
        let max = counts.max_by_uid;
        let own = counts.by_uid.entry(uid).or_insert(0);
        if *own >= max {
            return Err(Full::User);
        }
        *own += 1;
        counts.total += 1;
        Ok(Place { admissions: self.clone(), uid })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Nothing in here panics between two changes that belong together.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.admissions.counts();
        counts.total = counts.total.saturating_sub(1);
        if let Some(own) = counts.by_uid.get_mut(&self.uid) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                counts.by_uid.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_at_its_bound_leaves_room_for_others() {
        let admissions = Admissions::new(4, 2);
        let first: Vec<_> = (0..2).map(|_| admissions.take(7).unwrap()).collect();
        assert_eq!(admissions.take(7).err(), Some(Full::User));
        let other = admissions.take(8).unwrap();
        assert_eq!(first.len(), 2);
        let last = admissions.take(9).unwrap();
        assert_eq!(admissions.take(10).err(), Some(Full::Total));
        drop(first);
        let again = admissions.take(7).unwrap();
        drop((other, last, again));
        let counts = admissions.counts();
        assert_eq!((counts.total, counts.by_uid.len()), (0, 0));
    }
}
