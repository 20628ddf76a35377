//! Which processes are a job's.

use proto::pb;
use workload::{Observation, ProcessKey, Selector, SelectorParts};

use super::Refusal;

/// Number of the process that every other one comes from.
const INIT: u32 = 1;

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

    /// Whether this process, which is none of them as far as its parents tell, may have left them: it may come from whoever
    /// asked for the permit, or have lost its parents since. As with [`Processes::have`], root's are of any user.
    pub(super) fn may_have_lost(&self, process: &Observation, uid: u32, origin: &Origin) -> bool {
        (uid == 0 || process.uid == uid)
            && matches!(self, Self::Below(_))
            && origin.may_have_lost(process)
    }

    /// The process whose end is the job's.
    pub(super) const fn first(&self) -> Option<ProcessKey> {
        match self {
            Self::Below(key) => Some(*key),
            Self::Cgroup(_) | Self::User(_) => None,
        }
    }
}

/// Where a job's processes come from.
///
/// A process whose parents end becomes a child of init. It is told from others of its user by what it has not: a parent
/// that was there before the job, and a control group of its own.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    cgroup: Option<String>,
    /// Parents of the job's first process in its control group: what else they start is another job's.
    parents: Vec<ProcessKey>,
    /// Start of the first process.
    since: u64,
}

impl Origin {
    /// Of the processes for which this caller got a permit.
    pub(super) fn of(processes: &Processes, caller: &Observation) -> Self {
        let first = processes.first().or_else(|| caller.ancestry.first().copied());
        let above = caller.ancestry.iter().skip_while(|process| Some(**process) != first).skip(1);
        // One of another group, as a user's systemd, is a parent of whoever lost its own.
        let is_near = |process: &&ProcessKey| {
            process.pid != INIT && process.cgroup().is_ok_and(|cgroup| cgroup == caller.cgroup)
        };
        Self {
            cgroup: caller.cgroup.clone(),
            parents: above.filter(is_near).copied().collect(),
            since: first.map_or(0, |first| first.start_time),
        }
    }

    fn may_have_lost(&self, process: &Observation) -> bool {
        let is_within = |inner: &str, outer: &str| {
            inner
                .strip_prefix(outer.trim_end_matches('/'))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let is_in_its_group = match (&self.cgroup, &process.cgroup) {
            (Some(own), Some(other)) => is_within(other, own) || is_within(own, other),
            _ => true,
        };
        let oldest = process.ancestry.iter().rfind(|parent| parent.pid != INIT);
        is_in_its_group
            && !process.ancestry.iter().any(|parent| self.parents.contains(parent))
            && oldest.is_none_or(|oldest| oldest.start_time >= self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The job's first process began at 50.
    const FIRST: ProcessKey = ProcessKey { pid: 60, start_time: 50 };
    const INIT: ProcessKey = ProcessKey { pid: super::INIT, start_time: 1 };
    const UNIT: &str = "/system.slice/runner.service";

    fn process(cgroup: Option<&str>, ancestry: &[(u32, u64)]) -> Observation {
        let key =
            |(pid, start_time): &(u32, u64)| ProcessKey { pid: *pid, start_time: *start_time };
        let ancestry = ancestry.iter().map(key).chain([INIT]).collect();
        Observation { uid: 7, gid: 7, cgroup: cgroup.map(str::to_owned), ancestry }
    }

    #[test]
    fn a_process_that_lost_its_parents_is_told_from_those_of_others() {
        let agent = ProcessKey { pid: 30, start_time: 20 };
        let of = |cgroup: Option<&str>| Origin {
            cgroup: cgroup.map(str::to_owned),
            parents: vec![agent],
            since: FIRST.start_time,
        };
        let origin = of(Some(UNIT));
        let below = format!("{UNIT}/step");
        for (cgroup, ancestry, is_lost) in [
            (UNIT, &[(90, 80)][..], true),
            (UNIT, &[(91, 81), (90, 80)], true),
            (&below, &[(90, 80)], true),
            ("/", &[(90, 80)], true),
            // Another job of the same agent, which began later.
            (UNIT, &[(90, 80), (agent.pid, agent.start_time)], false),
            // Another agent with that number, later.
            (UNIT, &[(90, 80), (agent.pid, 70)], true),
            // One that was there before.
            (UNIT, &[(90, 80), (40, 49)], false),
            // Another unit, and one whose name only begins alike.
            ("/system.slice/other.service", &[(90, 80)], false),
            ("/system.slice/runner.service2", &[(90, 80)], false),
        ] {
            let process = process(Some(cgroup), ancestry);
            assert_eq!(origin.may_have_lost(&process), is_lost, "{process:?}");
            let below = Processes::Below(FIRST);
            assert_eq!(below.may_have_lost(&process, 7, &origin), is_lost);
            assert!(!below.may_have_lost(&process, 8, &origin), "another user's");
            assert_eq!(below.may_have_lost(&process, 0, &origin), is_lost, "root's");
        }
        // Where there are no groups to tell by.
        assert!(of(None).may_have_lost(&process(Some(UNIT), &[(90, 80)])));
        assert!(origin.may_have_lost(&process(None, &[(90, 80)])));
        assert!(of(Some("/")).may_have_lost(&process(Some(UNIT), &[(90, 80)])));
    }

    #[test]
    fn what_a_job_comes_from_is_its_own_parents_without_init() {
        let own = ProcessKey::of(std::process::id()).unwrap();
        let parent = ProcessKey::of(std::os::unix::process::parent_id()).unwrap();
        let cgroup = own.cgroup().unwrap();
        let caller = |ancestry: &[ProcessKey]| Observation {
            uid: 7,
            gid: 7,
            cgroup: cgroup.clone(),
            ancestry: ancestry.to_vec(),
        };
        let gone = ProcessKey { pid: parent.pid, start_time: parent.start_time + 1 };
        let origin = Origin::of(&Processes::Below(FIRST), &caller(&[FIRST, own, gone, INIT]));
        assert_eq!((origin.parents, origin.since), (vec![own], FIRST.start_time));
        // A hook's parent is the first; the hook itself is below it.
        let hook = ProcessKey { pid: 61, start_time: 51 };
        let origin = Origin::of(&Processes::Below(FIRST), &caller(&[hook, FIRST, own, INIT]));
        assert_eq!((origin.parents, origin.since), (vec![own], FIRST.start_time));
        // Parents in other groups are anybody's.
        let elsewhere =
            Observation { cgroup: Some("/elsewhere".to_owned()), ..caller(&[FIRST, own]) };
        assert_eq!(Origin::of(&Processes::Below(FIRST), &elsewhere).parents, []);
    }
}
