//! A listed user asks for all that it can get; another one's job is served meanwhile, and the daemon forgets the flood.

use std::{collections::BTreeMap, path::PathBuf, time::Instant};

use swtpm_tests::job_site::program;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout},
    time::timeout,
};

use super::{
    shares::{OTHER, as_user, is_root},
    *,
};

/// The user `bin`, who has one honest job.
const HONEST: u32 = 2;
/// Jobs of the flooder: one place is kept for each of the two others.
const JOBS: usize = 4;
/// Bound of what the honest job takes, start to end: far below every deadline of the daemon.
const SERVED_WITHIN: Duration = Duration::from_secs(40);
/// Longest wait for a flood to be refused, or to be at its height.
const SAYS_WITHIN: Duration = Duration::from_secs(90);
/// What a flood may leave behind in a heap that it made larger.
const LEFT_MIB: f64 = 4.0;

/// A site for three users, with a folder to which all may write.
struct Flooded {
    site: JobSite,
    folder: tempfile::TempDir,
}

/// What the daemon has at a moment.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    threads: f64,
    memory_mib: f64,
}

impl Held {
    fn by(site: &JobSite) -> Self {
        let daemon = site.daemon();
        Self {
            descriptors: daemon.descriptors().unwrap().len(),
            threads: daemon.threads().unwrap(),
            memory_mib: daemon.memory_mib("RssAnon").unwrap(),
        }
    }

    fn is_no_more_than(&self, before: &Self) -> bool {
        self.descriptors <= before.descriptors
            && self.threads <= before.threads
            && self.memory_mib <= before.memory_mib + LEFT_MIB
    }
}

impl Flooded {
    async fn start() -> Self {
        let users = [NOBODY, OTHER, HONEST].map(|user| user.to_string()).to_vec();
        let jobs = "verifier_silence_s = 30\nmax_jobs = 6\n".to_owned();
        let verifier_jobs = "check_every = \"1s\"\n".to_owned();
        let options = JobSiteOptions { jobs, verifier_jobs, users, ..JobSiteOptions::default() };
        let site = JobSite::start_with(options).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
        std::fs::set_permissions(folder.path(), mode).unwrap();
        std::fs::write(folder.path().join("app.bin"), "artifact").unwrap();
        Self { site, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A whole job of the honest user: a permit, its identities, a token, a signature.
    async fn serves_the_honest(&self) {
        let start = Instant::now();
        let (attestor, flooder) = (program("attestor"), program("flooder"));
        let (attestor, flooder) = (attestor.display(), flooder.display());
        let script = format!(
            "{flooder} fetch && {attestor} sign app.bin --out honest.sigstore.json && echo the job ran"
        );
        let mut job = self.site.attestor(&exec(&["sh", "-c", &script]));
        job.current_dir(self.folder.path());
        let output = finish(as_user(job, HONEST)).await.unwrap();
        let (out, err) = text(&output);
        assert!(out.ends_with("the job ran\n"), "{out}{err}{}", self.site.log());
        assert!(
            out.contains("spiffe://test.example/pool/linux") && out.contains(" 2 tokens"),
            "{out}"
        );
        assert!(start.elapsed() < SERVED_WITHIN, "{:?}", start.elapsed());
    }

    /// Waits until the daemon holds no more than before.
    async fn holds_no_more_than(&self, before: &Held) {
        let start = Instant::now();
        // Threads of the blocking pool end after ten idle seconds.
        while start.elapsed() < Duration::from_secs(60) {
            if Held::by(&self.site).is_no_more_than(before) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{before:?} became {:?}", Held::by(&self.site));
    }

    /// Starts a flood in a job of `nobody`.
    fn floods(&self, kind: &str) -> Flood {
        let stop = self.path("stop");
        let (flooder, stop_at) = (program("flooder"), stop.display().to_string());
        let job = self.site.attestor(&exec(&[&flooder.display().to_string(), kind, &stop_at]));
        let mut job = tokio::process::Command::from(as_user(job, NOBODY));
        let mut child = job.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Flood { child, lines, stop }
    }

    /// A flood by so many jobs with an honest job in it, whose end leaves nothing behind; judges what the flooder got and how
    /// long it took.
    async fn survives(
        &self,
        kind: &str,
        jobs: usize,
        judge: impl Fn(BTreeMap<String, u64>, Duration),
    ) {
        let mut before = Held::by(&self.site);
        for is_first in [true, false] {
            let _ = std::fs::remove_file(self.path("stop"));
            let start = Instant::now();
            let mut floods: Vec<_> = (0..jobs).map(|_| self.floods(kind)).collect();
            for flood in &mut floods {
                flood.says("begun").await;
            }
            self.serves_the_honest().await;
            let mut got = BTreeMap::new();
            for flood in floods {
                for (what, count) in flood.stop().await {
                    *got.entry(what).or_default() += count;
                }
            }
            judge(got, start.elapsed());
            // The first one makes the heap what it is.
            if is_first {
                before.memory_mib = Held::by(&self.site).memory_mib;
            }
            self.holds_no_more_than(&before).await;
        }
    }
}

/// A flood that goes on.
struct Flood {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    stop: PathBuf,
}

impl Flood {
    async fn says(&mut self, what: &str) {
        let line = timeout(SAYS_WITHIN, self.lines.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("the flooder never: {what}")).unwrap();
        assert_eq!(line.as_deref(), Some(what));
    }

    /// Ends it: what it got, and how often.
    async fn stop(mut self) -> BTreeMap<String, u64> {
        std::fs::write(&self.stop, "").unwrap();
        let mut last = String::new();
        while let Some(line) = self.lines.next_line().await.unwrap() {
            last = line;
        }
        assert!(self.child.wait().await.unwrap().success(), "{last}");
        serde_json::from_str(&last).unwrap()
    }
}

fn codes(counts: &BTreeMap<String, u64>) -> Vec<&str> {
    counts.keys().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_requests_for_tokens_is_refused_and_delays_no_other_job() {
    if !is_root() {
        return;
    }
    let judge = |counts: BTreeMap<String, u64>, passed: Duration| {
        assert_eq!(codes(&counts), ["OK", "WORKLOAD_JWT_TOO_MANY"], "{counts:?}");
        // Of each job 64 at once, and one a second.
        assert!(counts["OK"] <= JOBS as u64 * (64 + passed.as_secs() + 1), "{counts:?}");
    };
    Flooded::start().await.survives("tokens", JOBS, judge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_requests_for_time_stamps_is_refused_and_delays_no_other_job() {
    if !is_root() {
        return;
    }
    let judge = |counts: BTreeMap<String, u64>, _| {
        assert_eq!(codes(&counts), ["GATE_BUSY", "OK"], "{counts:?}");
        assert!(counts["GATE_BUSY"] > counts["OK"], "{counts:?}");
    };
    Flooded::start().await.survives("stamps", JOBS, judge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_streams_of_one_user_are_bounded_and_leave_another_ones_job_its_own() {
    if !is_root() {
        return;
    }
    let judge = |counts: BTreeMap<String, u64>, _| {
        let expected = [("connections", 32), ("connections refused", 968), ("streams", 32 * 16)];
        assert_eq!(counts, expected.map(|(what, count)| (what.to_owned(), count)).into());
    };
    Flooded::start().await.survives("streams", 1, judge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_come_and_go_leave_room_for_another_ones_job() {
    if !is_root() {
        return;
    }
    let judge = |counts: BTreeMap<String, u64>, _| {
        assert_eq!(codes(&counts), ["connections", "no room"], "{counts:?}");
    };
    Flooded::start().await.survives("churn", 1, judge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_request_is_ended_in_time_and_keeps_no_other_job_waiting() {
    if !is_root() {
        return;
    }
    let flooded = Flooded::start().await;
    flooded.serves_the_honest().await;
    let mut flood = flooded.floods("halves");
    flood.says("begun").await;
    let before = Held::by(&flooded.site);
    assert!(before.descriptors > 120, "{before:?}");
    flooded.serves_the_honest().await;
    // By the daemon, not by the flooder, who is still there.
    flood.says("ended").await;
    let start = Instant::now();
    while Held::by(&flooded.site).descriptors > before.descriptors - 2 * 60 {
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", Held::by(&flooded.site));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let counts = flood.stop().await;
    let halves = [
        "nothing",
        "half a preface",
        "half a frame header",
        "half a frame",
        "headers without an end",
    ];
    let mut expected: BTreeMap<String, u64> =
        halves.iter().map(|half| (format!("{half}: closed"), 12)).collect();
    expected.insert("slow body: WORKLOAD_REQUEST_TIMEOUT".to_owned(), 1);
    assert_eq!(counts, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn permits_that_two_users_ask_for_in_parallel_leave_a_third_one_its_turn() {
    if !is_root() {
        return;
    }
    let flooded = Flooded::start().await;
    let ask = |uid: u32, number: usize| {
        let file = flooded.path(&format!("{uid}-{number}")).display().to_string();
        let permit = flooded.site.attestor(&["permit", "--job", "generic", "--defer", &file]);
        tokio::spawn(async move { finish(as_user(permit, uid)).await.unwrap() })
    };
    let asked: Vec<_> =
        (0..12).flat_map(|number| [ask(NOBODY, number), ask(OTHER, number)]).collect();
    flooded.serves_the_honest().await;
    let mut got = 0;
    for answer in asked {
        let output = answer.await.unwrap();
        if output.status.success() {
            got += 1;
        } else {
            // The last place may be the honest one's at that moment.
            let code =
                if text(&output).1.contains("GATE_BUSY") { "GATE_BUSY" } else { "GATE_USER_BUSY" };
            assert_refused(&output, code);
        }
    }
    // Of six places one is kept for each of three users.
    assert_eq!(got, 5);
    for uid in [NOBODY, OTHER] {
        assert_refused(&ask(uid, 99).await.unwrap(), "GATE_USER_BUSY");
    }
    flooded.serves_the_honest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_descriptor_the_sockets_neither_spin_nor_end_and_say_so_once() {
    if !is_root() {
        return;
    }
    let flooded = Flooded::start().await;
    let daemon = flooded.site.daemon_id().to_string();
    let limit = |most: u32| {
        let limit = format!("--nofile={most}:");
        let mut command = Command::new("prlimit");
        assert!(command.args(["--pid", &daemon, &limit]).status().unwrap().success());
    };
    let before = flooded.site.daemon().cpu_s().unwrap();
    let start = Instant::now();
    // Not one more than there are.
    limit(3);
    let sockets = ["output/job.sock", "output/workload.sock"].map(|name| flooded.site.path(name));
    let waiting = sockets.each_ref().map(|path| UnixStream::connect(path).unwrap());
    let said = || flooded.site.log().matches("cannot accept connections").count();
    while said() < 2 {
        assert!(start.elapsed() < Duration::from_secs(30), "{}", flooded.site.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(said(), 2, "once for each socket: {}", flooded.site.log());
    let (spent, passed) =
        (flooded.site.daemon().cpu_s().unwrap() - before, start.elapsed().as_secs_f64());
    assert!(spent < passed * 0.25, "{spent} of {passed} s");
    limit(1024);
    // Whoever waited is served, or told to come again by a closed connection; whoever comes then is served.
    drop(waiting);
    flooded.serves_the_honest().await;
}
