//! Which processes belong to a job.

use crate::{peer::Observation, proc_fs::ProcessKey};

/// How closely a selector names processes; the closest job wins. Ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Closeness {
    /// By user alone.
    User,
    /// By control group.
    Cgroup,
    /// By an ancestor: the process itself, its parent, and so on.
    Ancestor,
}

/// A condition on a process; all parts that are present must hold.
///
/// Built from [`SelectorParts`], which refuses what would select too much.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Selector {
    uid: Option<u32>,
    gid: Option<u32>,
    cgroup: Option<Vec<String>>,
    ancestor: Option<ProcessKey>,
}

/// A selector that would select too much, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectorError {
    /// PID 0 or 1, whose descendants are all processes.
    #[error("an ancestor must be a process of the job, not the init process")]
    AncestorTooHigh,
    /// A control group that is no absolute path below the root, or has empty or dotted segments.
    #[error("a control group must be an absolute path below the root, without `.` and `..`")]
    CgroupInvalid,
    /// Nothing but a group, or nothing at all.
    #[error("a selector needs an ancestor, a control group or a user")]
    TooWide,
}

impl SelectorError {
    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::AncestorTooHigh => "SELECTOR_ANCESTOR_TOO_HIGH",
            Self::CgroupInvalid => "SELECTOR_CGROUP_INVALID",
            Self::TooWide => "SELECTOR_TOO_WIDE",
        }
    }
}

/// The parts of a [`Selector`], as a caller names them.
#[derive(Clone, Debug, Default)]
pub struct SelectorParts {
    /// Effective user ID at the time the process connected.
    pub uid: Option<u32>,
    /// Effective group ID at the time the process connected.
    pub gid: Option<u32>,
    /// Path in the unified control group hierarchy, as in `/proc/PID/cgroup`; selects the group and
    /// everything below it, by whole segments (`/jobs/7` does not select `/jobs/70`).
    pub cgroup: Option<String>,
    /// A process of the job: selects it and its descendants as long as the chain of parents holds.
    pub ancestor: Option<ProcessKey>,
}

impl TryFrom<SelectorParts> for Selector {
    type Error = SelectorError;

    fn try_from(parts: SelectorParts) -> Result<Self, SelectorError> {
        let SelectorParts { uid, gid, cgroup, ancestor } = parts;
        if uid.is_none() && cgroup.is_none() && ancestor.is_none() {
            return Err(SelectorError::TooWide);
        }
        if ancestor.is_some_and(|key| key.pid <= 1) {
            return Err(SelectorError::AncestorTooHigh);
        }
        let cgroup = match cgroup {
            Some(path) => Some(segments(&path).ok_or(SelectorError::CgroupInvalid)?),
            None => None,
        };
        Ok(Self { uid, gid, cgroup, ancestor })
    }
}

impl Selector {
    /// Selects a user's processes.
    #[must_use]
    pub fn user(uid: u32) -> Self {
        Self { uid: Some(uid), ..Self::default() }
    }

    /// Selects a control group with all below it.
    ///
    /// # Errors
    /// [`SelectorError::CgroupInvalid`].
    pub fn cgroup(path: &str) -> Result<Self, SelectorError> {
        SelectorParts { cgroup: Some(path.to_owned()), ..SelectorParts::default() }.try_into()
    }

    /// Selects a process with its descendants.
    ///
    /// # Errors
    /// [`SelectorError::AncestorTooHigh`].
    pub fn ancestor(key: ProcessKey) -> Result<Self, SelectorError> {
        SelectorParts { ancestor: Some(key), ..SelectorParts::default() }.try_into()
    }

    /// How closely it names processes: its closest part counts.
    #[must_use]
    pub fn closeness(&self) -> Closeness {
        if self.ancestor.is_some() {
            Closeness::Ancestor
        } else if self.cgroup.is_some() {
            Closeness::Cgroup
        } else {
            Closeness::User
        }
    }

    pub(crate) fn selects(&self, process: &Observation) -> bool {
        self.uid.is_none_or(|uid| uid == process.uid)
            && self.gid.is_none_or(|gid| gid == process.gid)
            && self.cgroup.as_ref().is_none_or(|prefix| is_below(process.cgroup.as_deref(), prefix))
            && self.ancestor.is_none_or(|key| process.ancestry.contains(&key))
    }
}

/// Segments of an absolute path below the root; `None` for anything that could mean another.
fn segments(path: &str) -> Option<Vec<String>> {
    let is_plain = |segment: &&str| !segment.is_empty() && *segment != "." && *segment != "..";
    let rest = path.strip_prefix('/')?;
    let segments: Vec<_> = rest.split('/').collect();
    segments.iter().all(is_plain).then(|| segments.into_iter().map(str::to_owned).collect())
}

fn is_below(path: Option<&str>, prefix: &[String]) -> bool {
    // A path that leaves the server's own cgroup namespace has `..` and is nobody's.
    let Some(path) = path.and_then(segments) else { return false };
    path.len() >= prefix.len() && path.iter().zip(prefix).all(|(one, other)| one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(uid: u32, gid: u32, cgroup: &str, ancestry: &[(u32, u64)]) -> Observation {
        let key = |&(pid, start_time): &(u32, u64)| ProcessKey { pid, start_time };
        Observation {
            uid,
            gid,
            cgroup: Some(cgroup.to_owned()),
            ancestry: ancestry.iter().map(key).collect(),
        }
    }

    #[test]
    fn every_part_that_is_present_must_hold() {
        let parts = SelectorParts {
            uid: Some(10),
            gid: Some(20),
            cgroup: Some("/jobs/7".to_owned()),
            ancestor: Some(ProcessKey { pid: 500, start_time: 9 }),
        };
        let selector = Selector::try_from(parts).unwrap();
        assert_eq!(selector.closeness(), Closeness::Ancestor);
        assert!(selector.selects(&process(10, 20, "/jobs/7/step", &[(501, 10), (500, 9)])));
        assert!(!selector.selects(&process(11, 20, "/jobs/7/step", &[(501, 10), (500, 9)])));
        assert!(!selector.selects(&process(10, 21, "/jobs/7/step", &[(501, 10), (500, 9)])));
        assert!(!selector.selects(&process(10, 20, "/jobs/8/step", &[(501, 10), (500, 9)])));
        // The same number that began later is another process.
        assert!(!selector.selects(&process(10, 20, "/jobs/7/step", &[(501, 10), (500, 10)])));
    }

    #[test]
    fn a_control_group_is_matched_by_whole_segments() {
        let selector = Selector::cgroup("/jobs/7").unwrap();
        let selects = |path: &str| selector.selects(&process(0, 0, path, &[]));
        assert!(selects("/jobs/7"));
        assert!(selects("/jobs/7/a/b"));
        for other in
            ["/jobs/70", "/jobs", "/", "/x/jobs/7", "/../jobs/7", "/jobs/7/../8", "/jobs//7"]
        {
            assert!(!selects(other), "{other}");
        }
        // A group that was removed under its process keeps its name with this suffix.
        assert!(!selects("/jobs/7 (deleted)"));
        let nowhere = Observation { cgroup: None, ..process(0, 0, "/", &[]) };
        assert!(!selector.selects(&nowhere));
    }

    #[test]
    fn what_selects_too_much_is_refused() {
        let code = |parts: SelectorParts| Selector::try_from(parts).map_err(SelectorError::code);
        let none = SelectorParts::default();
        assert_eq!(code(none.clone()), Err("SELECTOR_TOO_WIDE"));
        assert_eq!(code(SelectorParts { gid: Some(5), ..none }), Err("SELECTOR_TOO_WIDE"));
        for path in ["", "/", "jobs", "/jobs/", "//jobs", "/jobs/..", "/./jobs"] {
            let refused = Selector::cgroup(path).map_err(SelectorError::code);
            assert_eq!(refused, Err("SELECTOR_CGROUP_INVALID"), "{path}");
        }
        for pid in [0, 1] {
            let refused = Selector::ancestor(ProcessKey { pid, start_time: 1 });
            assert_eq!(refused.map_err(SelectorError::code), Err("SELECTOR_ANCESTOR_TOO_HIGH"));
        }
        assert_eq!(Selector::user(0).closeness(), Closeness::User);
        assert!(Selector::user(0).selects(&process(0, 5, "/", &[])));
    }
}
