//! No user takes the last place from another, and no flood the daemon's own descriptors.

use std::time::Instant;

use rustix::process::Signal;

use super::{
    processes::{send, state},
    *,
};

/// The user `daemon`.
pub(super) const OTHER: u32 = 1;

/// As another user; root alone may become one.
pub(super) fn as_user(mut command: Command, uid: u32) -> Command {
    command.uid(uid).gid(uid);
    command
}

pub(super) fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    assert!(is_root || std::env::var_os("CI").is_none(), "CI runs these tests as root");
    is_root
}

async fn assert_served(site: &JobSite, uid: u32) {
    let start = Instant::now();
    let honest = as_user(site.attestor(&exec(&["echo", "the job ran"])), uid);
    let output = finish(honest).await.unwrap();
    assert_eq!(text(&output).0, "the job ran\n", "{}", text(&output).1);
    // Far below `start_within_s`: nobody's time had to run out.
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn permits_that_one_user_hoards_leave_another_ones_jobs_their_share() {
    if !is_root() {
        return;
    }
    let site = JobSite::start_with(JobSiteOptions {
        jobs: "max_jobs = 4\n".to_owned(),
        users: vec![NOBODY.to_string(), OTHER.to_string()],
        ..JobSiteOptions::default()
    });
    let site = site.await.unwrap();
    let hoard = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(hoard.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let defer = async |number: usize| {
        let file = hoard.path().join(number.to_string()).display().to_string();
        let permit = site.attestor(&["permit", "--job", "generic", "--defer", &file]);
        finish(as_user(permit, NOBODY)).await.unwrap()
    };
    for number in 0..3 {
        let output = defer(number).await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output).1);
    }
    // Half of four is shared out: one place each is kept.
    assert_refused(&defer(3).await, "GATE_USER_BUSY");
    let more = as_user(site.attestor(&exec(&["echo", "the job ran"])), NOBODY);
    assert_refused(&finish(more).await.unwrap(), "GATE_USER_BUSY");
    // One job after the other of the other user.
    for _ in 0..2 {
        assert_served(&site, OTHER).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_leaves_a_daemon_with_few_descriptors_its_own() {
    if !is_root() {
        return;
    }
    let site = JobSite::start_with(JobSiteOptions {
        users: vec![NOBODY.to_string(), OTHER.to_string()],
        descriptors: Some(160),
        ..JobSiteOptions::default()
    });
    let site = site.await.unwrap();
    assert!(site.log().contains("LimitNOFILE"), "{}", site.log());
    // Many users, listed or not, on both sockets.
    let sockets = ["output/job.sock", "output/workload.sock"].map(|name| site.path(name));
    let flood = format!(
        "import os,socket,time\nheld=[]\nfor uid in [1000,1001,1002,{NOBODY}]:\n os.seteuid(0); os.seteuid(uid)\n for path in {sockets:?}:\n  \
         for _ in range(200):\n   s=socket.socket(socket.AF_UNIX); s.setblocking(False)\n   try:\n    s.connect(path); held.append(s)\n   \
         except OSError:\n    pass\nprint(len(held),flush=True)\ntime.sleep(120)\n"
    );
    let mut command = Command::new("python3");
    command.args(["-c", &flood]).stdout(Stdio::piped());
    let mut flooding = command.spawn().unwrap();
    let mut line = String::new();
    let mut out = std::io::BufReader::new(flooding.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    let before = site.daemon().cpu_s().unwrap();
    let start = Instant::now();
    assert_served(&site, OTHER).await;
    // A renewal, asked for by a tool that changes: the verifier denies it, so it was heard.
    site.tools.write("cc1", b"compiler proper 12.2.1").unwrap();
    site.wait_for("denied").await.unwrap();
    let (spent, passed) = (site.daemon().cpu_s().unwrap() - before, start.elapsed().as_secs_f64());
    assert!(spent < passed * 0.75, "{spent} of {passed} s");
    flooding.kill().unwrap();
    flooding.wait().unwrap();
    site.tools.write("cc1", b"compiler proper 12.2.0").unwrap();
    site.wait_for("admitted").await.unwrap();
    assert_served(&site, NOBODY).await;
    assert!(!site.log().contains("cannot accept connections"), "{}", site.log());
}

/// Jobs of one user that end together.
const ENDING: usize = 10;

/// Such jobs, each of which notes when what is done about its end begins and when it is done.
struct EndingJobs {
    site: JobSite,
    shells: Vec<std::process::Child>,
    start: Instant,
}

impl EndingJobs {
    /// They run; what is done about an end takes so many seconds.
    async fn start(takes_s: &str) -> Self {
        let script = format!(
            "echo \"+ $ASSAY_PERMIT_ID\" >>@FOLDER@/ends; sleep {takes_s}; echo \"- $ASSAY_PERMIT_ID\" >>@FOLDER@/ends"
        );
        let on_end = ["/bin/sh", "-c", &script];
        let jobs = format!("verifier_silence_s = 60\nmax_jobs = 16\non_end = {on_end:?}\n");
        let site = JobSite::start_with(JobSiteOptions { jobs, ..JobSiteOptions::default() }).await;
        let site = site.unwrap();
        let mut shells = Vec::new();
        for number in 0..ENDING {
            let script = format!("touch begun-{number}; sleep 120");
            shells.push(below_a_shell(&site, &script).spawn().unwrap());
        }
        let ending = Self { site, shells, start: Instant::now() };
        let begun = |number: usize| ending.site.path(&format!("begun-{number}")).exists();
        ending.until(&|| (0..ENDING).all(begun)).await;
        ending
    }

    fn notes(&self) -> String {
        std::fs::read_to_string(self.site.path("ends")).unwrap_or_default()
    }

    async fn until(&self, is_so: &dyn Fn() -> bool) {
        while !is_so() {
            let passed = self.start.elapsed();
            assert!(passed < Duration::from_secs(90), "{}{}", self.notes(), self.site.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// When all is done about every end: how much of it at once.
    async fn are_acted_upon(mut self) -> usize {
        self.until(&|| self.notes().matches("- ").count() == ENDING).await;
        let (mut now, mut most) = (0, 0);
        let mut permits = std::collections::BTreeSet::new();
        for line in self.notes().lines() {
            match line.split_once(' ').unwrap() {
                ("+", permit) => {
                    now += 1;
                    permits.insert(permit.to_owned());
                }
                (_, _) => now -= 1,
            }
            most = most.max(now);
        }
        assert_eq!(permits.len(), ENDING, "{}", self.notes());
        for shell in &mut self.shells {
            shell.kill().unwrap();
            shell.wait().unwrap();
        }
        most
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_end_together_are_all_acted_upon_two_of_a_user_at_a_time() {
    let ending = EndingJobs::start("0.2").await;
    ending.site.tools.write("cc1", b"compiler proper 12.2.1").unwrap();
    assert_eq!(ending.are_acted_upon().await, 2);
}

/// Two at a time would take 40 s; of more jobs, longer than a service manager waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_stops_sees_to_all_ends_of_a_user_at_once() {
    let ending = EndingJobs::start("8").await;
    let daemon = ending.site.daemon_id();
    let stopped = Instant::now();
    send(daemon, Signal::TERM);
    ending.until(&|| state(&daemon.to_string()) == "Z").await;
    assert!(stopped.elapsed() < Duration::from_secs(30), "{:?}", stopped.elapsed());
    assert_eq!(ending.are_acted_upon().await, ENDING);
}
