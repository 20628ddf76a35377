//! Which processes are a job's.

use proto::pb;
use workload::{Observation, ProcessKey, Selector, SelectorParts};

use super::Refusal;

/// Whose identities a job's are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Processes {
    Below(ProcessKey),
    Cgroup(String),
    User(u32),
}

impl Processes {
    pub(super) fn of(wanted: pb::JobProcesses, caller: &Observation) -> Result<Self, Refusal> {
        let missing = |what: &str| Refusal::new("GATE_PROCESSES_UNKNOWN", what);
        match wanted {
            pb::JobProcesses::Caller => {
                let own = caller.ancestry.first().copied();
                own.map(Self::Below).ok_or_else(|| missing("the caller is gone"))
            }
            pb::JobProcesses::Parent => {
                let parent = caller.ancestry.get(1).copied().filter(|parent| parent.pid > 1);
                parent.map(Self::Below).ok_or_else(|| {
                    missing("the caller has no parent but init: choose cgroup or user")
                })
            }
            pb::JobProcesses::Cgroup => {
                let cgroup = caller.cgroup.clone().filter(|path| path != "/");
                cgroup.map(Self::Cgroup).ok_or_else(|| {
                    missing("the caller has no control group of its own: choose parent or user")
                })
            }
            pb::JobProcesses::User => Ok(Self::User(caller.uid)),
            pb::JobProcesses::Unspecified => Err(missing("no processes are named")),
        }
    }

    /// Whether this process is one of them, where a job of this user has them. Processes of other users that have come below
    /// it are not, unless root started it: a user does not name what others run.
    pub(super) fn have(&self, process: &Observation, uid: u32) -> bool {
        if uid != 0 && process.uid != uid {
            return false;
        }
        match self {
            Self::Below(key) => process.ancestry.contains(key),
            Self::Cgroup(path) => process.cgroup.as_ref().is_some_and(|other| {
                other
                    .strip_prefix(path.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }),
            Self::User(uid) => process.uid == *uid,
        }
    }

    /// As [`Processes::have`].
    pub(super) fn selector(&self, uid: u32) -> Option<Selector> {
        let parts = SelectorParts { uid: Some(uid).filter(|uid| *uid != 0), ..Default::default() };
        match self {
            Self::Below(key) => SelectorParts { ancestor: Some(*key), ..parts }.try_into().ok(),
            Self::Cgroup(path) => {
                SelectorParts { cgroup: Some(path.clone()), ..parts }.try_into().ok()
            }
            Self::User(uid) => Some(Selector::user(*uid)),
        }
    }

    /// The process whose end is the job's.
    pub(super) const fn first(&self) -> Option<ProcessKey> {
        match self {
            Self::Below(key) => Some(*key),
            Self::Cgroup(_) | Self::User(_) => None,
        }
    }
}
