//! What would be changed in what is in force.

use crate::{
    expectations::Compiled,
    store::{DocumentId, DocumentKind},
};

/// What would be changed.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Documents that would be active.
    pub put: Vec<Compiled>,
    /// Documents that would be retired.
    pub retire: Vec<DocumentId>,
    /// Whether versions of the same golden sets that are active stay so. Of a policy one version is active at most.
    pub alongside: bool,
}

impl Change {
    /// What would be in force, from what is. What is staged takes no part.
    #[must_use]
    pub fn applied_to(&self, now: &[Compiled]) -> Vec<Compiled> {
        let stays = now
            .iter()
            .filter(|one| !one.is_staged && !self.replaces(one) && !self.retires(one))
            .cloned();
        stays.chain(self.put.iter().cloned()).collect()
    }

    fn replaces(&self, one: &Compiled) -> bool {
        let stays_beside = self.alongside && one.kind() == DocumentKind::Golden;
        self.put
            .iter()
            .filter(|put| put.kind() == one.kind() && put.name() == one.name())
            .any(|put| !stays_beside || put.version() == one.version())
    }

    fn retires(&self, one: &Compiled) -> bool {
        self.retire.iter().any(|id| {
            (id.kind, id.name.as_str(), id.version) == (one.kind(), one.name(), one.version())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expectations::testing::{golden, policy};

    /// `linux@1 linux@2 baseline@1`, sorted, of what a change leaves.
    fn after(change: &Change, now: &[Compiled]) -> String {
        let mut names: Vec<String> = change
            .applied_to(now)
            .iter()
            .map(|one| format!("{}@{}", one.name(), one.version()))
            .collect();
        names.sort();
        names.join(" ")
    }

    fn id(kind: DocumentKind, name: &str, version: u64) -> DocumentId {
        DocumentId { kind, name: name.to_owned(), version }
    }

    #[test]
    fn a_version_takes_the_place_of_every_other_of_its_name_and_kind() {
        let now = [
            golden("linux", 1, Some("linux")),
            golden("linux", 2, Some("linux")),
            golden("mac", 1, Some("mac")),
            // A policy may have the name of a golden set: another document.
            policy("linux", 7, &[]),
        ];
        let put = vec![golden("linux", 3, Some("linux"))];
        let change = Change { put: put.clone(), ..Change::default() };
        assert_eq!(after(&change, &now), "linux@3 linux@7 mac@1");
        let change = Change { put, alongside: true, ..Change::default() };
        assert_eq!(after(&change, &now), "linux@1 linux@2 linux@3 linux@7 mac@1");
    }

    #[test]
    fn a_policy_is_never_active_in_two_versions() {
        let now = [policy("baseline", 1, &[]), golden("linux", 1, Some("linux"))];
        let put = vec![policy("baseline", 2, &[])];
        let change = Change { put, alongside: true, ..Change::default() };
        assert_eq!(after(&change, &now), "baseline@2 linux@1");
    }

    #[test]
    fn what_is_active_already_is_there_once() {
        let now = [golden("linux", 2, Some("linux"))];
        for alongside in [false, true] {
            let put = vec![golden("linux", 2, Some("linux"))];
            let change = Change { put, alongside, ..Change::default() };
            assert_eq!(after(&change, &now), "linux@2");
        }
    }

    #[test]
    fn what_retires_is_gone_by_kind_name_and_version() {
        let now = [
            golden("linux", 1, Some("linux")),
            golden("linux", 2, Some("linux")),
            policy("linux", 2, &[]),
        ];
        let retire = vec![id(DocumentKind::Golden, "linux", 2)];
        let change = Change { retire, ..Change::default() };
        assert_eq!(after(&change, &now), "linux@1 linux@2");
        assert!(change.applied_to(&now).iter().any(|one| one.kind() == DocumentKind::Policy));
        // Nothing of that name: nothing changes.
        let retire = vec![id(DocumentKind::Policy, "mac", 1)];
        let change = Change { retire, ..Change::default() };
        assert_eq!(after(&change, &now), "linux@1 linux@2 linux@2");
    }

    #[test]
    fn put_and_retired_together() {
        let now = [golden("linux", 1, Some("linux")), golden("linux", 2, Some("linux"))];
        let change = Change {
            put: vec![golden("linux", 3, Some("linux"))],
            retire: vec![id(DocumentKind::Golden, "linux", 1)],
            alongside: true,
        };
        assert_eq!(after(&change, &now), "linux@2 linux@3");
    }

    #[test]
    fn what_is_staged_takes_no_part() {
        let staged = Compiled { is_staged: true, ..golden("linux", 2, Some("linux")) };
        let now = [golden("linux", 1, Some("linux")), staged];
        assert_eq!(after(&Change::default(), &now), "linux@1");
        // Not even what would be put in force: the put one is.
        let change = Change { put: vec![golden("linux", 2, Some("linux"))], ..Change::default() };
        let then = change.applied_to(&now);
        assert!(then.len() == 1 && then.iter().all(|one| !one.is_staged), "{then:?}");
    }
}
