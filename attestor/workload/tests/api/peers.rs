//! Whose process a peer is: by user, control group, ancestor, and never by a number alone.

use std::{fs, path::PathBuf, time::Duration};

use workload::Selector;

use crate::{
    process::{Process, fetch},
    world::{World, id},
};

/// Two users that own nothing.
const USERS: [u32; 2] = [64_998, 64_999];

const HOUR: Duration = Duration::from_secs(3600);

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_another_job_gets_its_own_identity_only() {
    let world = World::start().await;
    let mut first = Process::start(&world.endpoint, None);
    let mut second = Process::start(&world.endpoint, None);
    let mut third = Process::start(&world.endpoint, None);
    let one = world.admit("first", vec![Selector::ancestor(first.key()).unwrap()]);
    let two = world.admit("second", vec![Selector::ancestor(second.key()).unwrap()]);
    assert_eq!(first.ask("fetch").await, id("/job/first").to_string());
    assert_eq!(second.ask("fetch").await, id("/job/second").to_string());
    assert_eq!(third.ask("fetch").await, "WORKLOAD_IDENTITY_NONE");
    one.end("over");
    assert_eq!(first.ask("fetch").await, "WORKLOAD_IDENTITY_NONE");
    assert_eq!(second.ask("fetch").await, id("/job/second").to_string());
    drop(two);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ancestor_of_another_start_time_is_another_process() {
    let world = World::start().await;
    let mut process = Process::start(&world.endpoint, None);
    let mut key = process.key();
    key.start_time -= 1;
    let earlier = world.admit("earlier", vec![Selector::ancestor(key).unwrap()]);
    assert_eq!(process.ask("fetch").await, "WORKLOAD_IDENTITY_NONE");
    let now = world.admit("now", vec![Selector::ancestor(process.key()).unwrap()]);
    assert_eq!(process.ask("fetch").await, id("/job/now").to_string());
    drop((earlier, now));
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_told_apart_by_what_the_kernel_says() {
    if !is_root() {
        eprintln!("skipped: only root can start processes of other users");
        return;
    }
    let world = World::start().await;
    let start = |uid| Process::start(&world.endpoint, Some((uid, world.directory.path())));
    let [mut first, mut second] = USERS.map(start);
    let one = world.admit("first", vec![Selector::user(USERS[0])]);
    assert_eq!(first.ask("fetch").await, id("/job/first").to_string());
    assert_eq!(second.ask("fetch").await, "WORKLOAD_IDENTITY_NONE");
    assert_eq!(fetch(world.client().await).await, "WORKLOAD_IDENTITY_NONE");
    drop(one);
}

/// A control group below our own in the unified hierarchy, removed at the end.
struct Cgroup {
    folder: PathBuf,
    path: String,
}

impl Cgroup {
    /// `None` where we may not make one.
    fn make(name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
        let mount_point = mount.split(' ').nth(4)?;
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
        let own = own.trim_end_matches('/');
        let path = format!("{own}/assay-test-{}-{name}", std::process::id());
        let folder = PathBuf::from(format!("{mount_point}{path}"));
        fs::create_dir(&folder).ok()?;
        Some(Self { folder, path })
    }

    fn take_in(&self, pid: u32) -> bool {
        fs::write(self.folder.join("cgroup.procs"), pid.to_string()).is_ok()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What was in it has just been killed, and may take a moment to be gone.
        for _ in 0..1000 {
            let members = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
            for pid in members.lines().filter_map(|line| line.parse().ok()) {
                if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            if fs::remove_dir(&self.folder).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// A child that outlives its parent is still in the job's control group, and has the parent as an
/// ancestor no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_child_whose_parent_ended_is_selected_by_control_group_and_not_by_ancestor() {
    let world = World::start().await;
    let mut shell = Process::start_below_a_shell(&world.endpoint);
    let key = shell.key();
    let by_ancestor = world.admit("by-ancestor", vec![Selector::ancestor(key).unwrap()]);
    assert_eq!(shell.ask("fetch").await, id("/job/by-ancestor").to_string());
    let cgroup = Cgroup::make("daemon");
    let child = only_child(shell.id());
    let group = cgroup.as_ref().filter(|group| group.take_in(child));
    let by_cgroup =
        group.map(|group| world.admit("by-cgroup", vec![Selector::cgroup(&group.path).unwrap()]));
    // Ancestor is closer, as long as it is one.
    assert_eq!(shell.ask("fetch").await, id("/job/by-ancestor").to_string());
    shell.kill();
    let said = shell.ask("fetch").await;
    if by_cgroup.is_some() {
        assert_eq!(said, id("/job/by-cgroup").to_string());
        let outside = Selector::cgroup(&format!("{}x", group.unwrap().path)).unwrap();
        drop((by_cgroup, by_ancestor));
        let outside = world.admit("outside", vec![outside]);
        assert_eq!(shell.ask("fetch").await, "WORKLOAD_IDENTITY_NONE");
        drop(outside);
    } else {
        eprintln!("without the control group: this user may not make one here");
        assert_eq!(said, "WORKLOAD_IDENTITY_NONE");
    }
    // Its standard input ends with the test.
    drop(shell);
    drop(cgroup);
}

fn only_child(pid: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.trim().parse().unwrap()
}

/// A descriptor that was passed on speaks for nobody once its opener is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_over_a_connection_whose_opener_ended_is_refused() {
    // The connection is not closed before the request comes.
    let world = World::start_with_limits(|limits| limits.peer_interval = HOUR).await;
    let mut opener = Process::start(&world.endpoint, None);
    // Whoever is below this test has the identity, so that only the opener's end can refuse.
    let handle = world.admit("7", crate::world::own_process());
    assert_eq!(opener.ask("fetch").await, id("/job/7").to_string());
    assert_eq!(opener.ask("hand-over").await, "WORKLOAD_PEER_GONE");
    drop(handle);
}

/// And it is closed, so that a place is not taken for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_opener_ended_is_closed() {
    let world = World::start_with_limits(|limits| {
        limits.peer_interval = Duration::from_millis(5);
        limits.header_timeout = HOUR;
    })
    .await;
    let mut opener = Process::start(&world.endpoint, None);
    assert_eq!(opener.ask("hand-over-silently").await, "closed");
}
