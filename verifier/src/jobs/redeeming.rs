//! Redemptions that are under way: one of a permit, and a few of a node.
//!
//! A redemption may wait for another's time stamp, and costs that one work: a node takes no more of it than its share, and
//! asking again meanwhile costs nothing.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Redemptions of a node that are under way at once; each has two time stamps.
const MAX_OF_A_NODE: usize = 16;

/// Nodes of the permits that are being redeemed, by permit.
#[derive(Debug, Default)]
pub(crate) struct Redeeming(Mutex<HashMap<String, String>>);

/// A redemption that is under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay<'a> {
    all: &'a Redeeming,
    permit: String,
}

impl Redeeming {
    /// Begins a redemption; `None` where one of the permit, or too many of its node, are under way.
    pub(crate) fn begin(&self, permit: &str, node: &str) -> Option<UnderWay<'_>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_the_node = all.values().filter(|other| *other == node).count();
        if all.contains_key(permit) || of_the_node >= MAX_OF_A_NODE {
            return None;
        }
        all.insert(permit.to_owned(), node.to_owned());
        Some(UnderWay { all: self, permit: permit.to_owned() })
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.permit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_is_redeemed_once_at_a_time_and_no_node_takes_all() {
        let all = Redeeming::default();
        let first = all.begin("p0", "n1").expect("the first");
        assert!(all.begin("p0", "n1").is_none(), "the same permit");
        let rest: Vec<_> = (1..MAX_OF_A_NODE)
            .map(|number| all.begin(&format!("p{number}"), "n1").expect("a few"))
            .collect();
        assert!(all.begin("more", "n1").is_none(), "too many of a node");
        let _other = all.begin("other", "n2").expect("another node's");
        drop(first);
        let _again = all.begin("p0", "n1").expect("again, after it ended");
        drop(rest);
        assert_eq!(all.0.lock().expect("whole").len(), 2);
    }
}
