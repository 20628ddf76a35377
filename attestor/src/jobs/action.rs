//! What a site has done when a job must not run: a command of its own, as the daemon's user; few at once, none left out.

use std::{
    collections::HashMap,
    process::Stdio,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    process::{Child, Command},
    sync::{Semaphore, SemaphorePermit, watch},
    time::{sleep, timeout},
};
use workload::printable;

/// How long one may take, from its start.
const DEADLINE: Duration = Duration::from_secs(60);
/// Commands that run at once: each is a few processes, of which a service may have so many (`TasksMax`).
const AT_ONCE: usize = 4;
/// Commands of one user's jobs that run at once: a user whose many jobs end together leaves turns to others.
const PER_USER: usize = 2;
/// How many more run at once, of all and of one user, when the daemon stops: what waits then has little time.
const MORE_AT_THE_END: usize = 12;
/// How long one has when the daemon stops and others wait: the time that there is is for all.
const SHARE_AT_THE_END: Duration = Duration::from_secs(10);
/// Between looks at whether others wait.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Commands of one kind, and whose turn it is.
#[derive(Debug)]
pub(super) struct Actions {
    command: Vec<String>,
    all: Turns,
    by_user: HashMap<u32, Turns>,
    is_ending: watch::Sender<bool>,
    share: Duration,
}

/// Turns of many or of one, and who waits for them.
#[derive(Debug)]
struct Turns {
    left: Semaphore,
    queue: Mutex<Queue>,
}

/// How many wait for a turn, and for how many of them one is given up.
#[derive(Debug, Default)]
struct Queue {
    waiting: usize,
    promised: usize,
}

/// Somebody who waits for a turn, until this is dropped.
struct Waiting<'a>(&'a Turns);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.waiting = queue.waiting.saturating_sub(1);
        queue.promised = queue.promised.saturating_sub(1);
    }
}

impl Turns {
    fn new(count: usize) -> Self {
        Self { left: Semaphore::new(count), queue: Mutex::default() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A turn, when there is one.
    async fn take(&self) -> Option<SemaphorePermit<'_>> {
        self.queue().waiting += 1;
        let _waiting = Waiting(self);
        // Never closed.
        self.left.acquire().await.ok()
    }

    /// Promises a turn to somebody who waits and has no promise yet; whether there is one.
    fn promise(&self) -> bool {
        let mut queue = self.queue();
        let is_wanted = queue.waiting > queue.promised;
        queue.promised += usize::from(is_wanted);
        is_wanted
    }
}

impl Actions {
    /// What the configuration names, for jobs of these users and of root.
    pub(super) fn new(command: Vec<String>, users: &[u32]) -> Self {
        let each = users.iter().copied().chain([0]);
        Self {
            command,
            all: Turns::new(AT_ONCE),
            by_user: each.map(|uid| (uid, Turns::new(PER_USER))).collect(),
            is_ending: watch::Sender::new(false),
            share: SHARE_AT_THE_END,
        }
    }

    /// The daemon stops: more run at once, and none takes others' time.
    pub(super) fn end_soon(&self) {
        if !self.is_ending.send_replace(true) {
            let turns = self.by_user.values().chain([&self.all]);
            turns.for_each(|turns| turns.left.add_permits(MORE_AT_THE_END));
        }
    }

    /// Runs the command about a job of this user when it is its turn, with what it is about and the user in its environment;
    /// nothing if nothing is named.
    pub(super) async fn act(&self, uid: u32, about: &[(&str, &str)]) {
        let Some((program, arguments)) = self.command.split_first() else { return };
        let mut pending = Pending { program, uid, is_over: false };
        // Whoever waits for its own user's turn takes nobody else's.
        let own = self.by_user.get(&uid);
        let _own = match own {
            Some(own) => own.take().await,
            None => None,
        };
        let _turn = self.all.take().await;
        let mut command = Command::new(program);
        // Words may be a job's own, and a command with a NUL in its environment does not start.
        let about = about.iter().map(|(name, value)| (name, printable(value)));
        command.args(arguments).envs(about).env("ASSAY_UID", uid.to_string());
        command.stdin(Stdio::null());
        let ran = async {
            let mut group = Group(command.process_group(0).kill_on_drop(true).spawn()?);
            group.0.wait().await
        };
        let ran = tokio::select! {
            biased;
            ran = ran => Some(ran),
            () = self.is_late(own) => None,
        };
        pending.is_over = true;
        match ran {
            Some(Ok(status)) if status.success() => {
                tracing::info!(program, "ran what the site has for this");
            }
            Some(Ok(status)) => {
                tracing::error!(program, %status, "what the site has for this failed")
            }
            Some(Err(error)) => {
                tracing::error!(program, %error, "what the site has for this did not start");
            }
            None => tracing::error!(program, uid, "what the site has for this took too long"),
        }
    }

    /// Resolves when a command, which has one of these turns, has run for long enough; at the end, for one other that waits.
    async fn is_late(&self, own: Option<&Turns>) {
        let at_the_end = async {
            let mut is_ending = self.is_ending.subscribe();
            let _ = is_ending.wait_for(|is_ending| *is_ending).await;
            sleep(self.share).await;
            while !self.all.promise() && !own.is_some_and(Turns::promise) {
                sleep(LOOK_EVERY).await;
            }
        };
        let _ = timeout(DEADLINE, at_the_end).await;
    }
}

/// A command that runs, with what it started.
struct Group(Child);

impl Drop for Group {
    /// One that did not come to its end leaves nothing behind: what it waits for is a process as well.
    fn drop(&mut self) {
        let leader = self.0.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(leader) = leader {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// A command that did not come to its end.
struct Pending<'a> {
    program: &'a str,
    uid: u32,
    is_over: bool,
}

impl Drop for Pending<'_> {
    /// Only a daemon that stops and could not wait any longer gives one up.
    fn drop(&mut self) {
        if !self.is_over {
            let Self { program, uid, .. } = *self;
            tracing::error!(
                program,
                uid,
                "what the site has for this did not come to its end: the daemon stopped before"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use tokio::task::JoinSet;

    use super::*;

    const BUSY: u32 = 1001;
    const OTHER: u32 = 1002;
    const THIRD: u32 = 1003;

    /// Notes its begin and its end, with its user; what it does takes a moment, or for ever for some.
    fn noting(folder: &Path, takes: &str) -> Actions {
        let note = folder.join("notes").display().to_string();
        let script = format!(
            "export NOTES={note}; echo \"+ $ASSAY_UID $ASSAY_N\" >>$NOTES; {takes}; echo \"- $ASSAY_UID $ASSAY_N\" >>$NOTES"
        );
        let command = ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
        Actions::new(command, &[BUSY, OTHER, THIRD])
    }

    fn notes(folder: &Path) -> String {
        std::fs::read_to_string(folder.join("notes")).unwrap_or_default()
    }

    fn start(actions: &Arc<Actions>, all: &mut JoinSet<()>, uid: u32, number: usize) {
        let actions = Arc::clone(actions);
        all.spawn(async move {
            actions.act(uid, &[("ASSAY_N", &number.to_string())]).await;
        });
    }

    #[tokio::test]
    async fn words_that_no_environment_takes_keep_nothing_from_being_done() {
        let folder = tempfile::tempdir().expect("a folder");
        let actions = noting(folder.path(), "true");
        let long = "x".repeat(1 << 20);
        for words in ["a\0b\nc", &long] {
            actions.act(BUSY, &[("ASSAY_N", words)]).await;
        }
        let notes = notes(folder.path());
        let lines: Vec<_> = notes.lines().collect();
        assert_eq!(lines[..2], ["+ 1001 a b c", "- 1001 a b c"]);
        assert!(lines.len() == 4 && lines[3].len() == "- 1001 ".len() + 512, "{lines:?}");
    }

    #[tokio::test]
    async fn many_ends_at_once_run_few_at_a_time_and_none_is_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let takes = "until test -e $NOTES.go; do sleep 0.02; done; sleep 0.05";
        let actions = Arc::new(noting(folder.path(), takes));
        let mut all = JoinSet::new();
        for number in 0..20 {
            for uid in [BUSY, OTHER, THIRD] {
                start(&actions, &mut all, uid, number);
            }
        }
        while notes(folder.path()).lines().count() < AT_ONCE {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // In which one more would begin.
        tokio::time::sleep(Duration::from_millis(200)).await;
        std::fs::write(folder.path().join("notes.go"), "").expect("written");
        all.join_all().await;
        let (mut now, mut most, mut begun) = (HashMap::<String, usize>::new(), 0, Vec::new());
        for line in notes(folder.path()).lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [sign, uid, _] = words[..] else { panic!("{line}") };
            let own = now.entry(uid.to_owned()).or_default();
            if sign == "+" {
                *own += 1;
                assert!(*own <= PER_USER, "{line}");
                begun.push(line.to_owned());
            } else {
                *own -= 1;
            }
            most = most.max(now.values().sum());
        }
        assert_eq!(most, AT_ONCE);
        begun.sort_unstable();
        begun.dedup();
        assert_eq!(begun.len(), 60);
    }

    /// So many of one user, none of which comes to an end, and one of another user that takes a while.
    async fn stops_with(count: usize) {
        let folder = tempfile::tempdir().expect("a folder");
        // In a process of its own: what is cut leaves none behind.
        let slow = format!(
            "test $ASSAY_UID = {BUSY} && {{ sleep 301; true; }}; test $ASSAY_UID = {OTHER} && sleep 5"
        );
        let mut actions = noting(folder.path(), &slow);
        actions.share = Duration::from_secs(2);
        let actions = Arc::new(actions);
        let mut all = JoinSet::new();
        let at_once = PER_USER + MORE_AT_THE_END;
        for number in 0..count {
            start(&actions, &mut all, BUSY, number);
        }
        let noted = |text: String| notes(folder.path()).matches(&text).count();
        let until = async |what: &str, is_so: &dyn Fn() -> bool| {
            let so = async {
                while !is_so() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            timeout(DEADLINE, so).await.unwrap_or_else(|_| panic!("never: {what}"));
        };
        let waiting = |turns: &Turns| turns.queue().waiting;
        // Known before its shell notes it, which one that is cut may not come to.
        let begun = || count - waiting(&actions.by_user[&BUSY]) - waiting(&actions.all);
        until("two run", &|| begun() == PER_USER && noted(format!("+ {BUSY}")) == PER_USER).await;
        // Nobody is hurried before.
        tokio::time::sleep(actions.share * 3 / 2).await;
        assert_eq!(begun(), PER_USER);
        actions.end_soon();
        actions.end_soon();
        until("as many as may", &|| begun() >= at_once).await;
        // The other user's has turns that the busy one's do not want, and all its time.
        start(&actions, &mut all, OTHER, 0);
        until("each one begins", &|| begun() == count).await;
        until("the other's is done", &|| noted(format!("- {OTHER}")) == 1).await;
        // Only as many are cut as waited, and nothing of those is left; the others have all the time that there is.
        let sleepers = || sleepers(folder.path());
        until("those sleep that were not cut", &|| sleepers() == at_once).await;
        tokio::time::sleep(actions.share * 3 / 2).await;
        assert_eq!((begun(), sleepers()), (count, at_once));
        all.shutdown().await;
        until("none is left", &|| sleepers() == 0).await;
    }

    #[tokio::test]
    async fn when_the_daemon_stops_none_is_left_out() {
        stops_with(2 * (PER_USER + MORE_AT_THE_END)).await;
    }

    #[tokio::test]
    async fn when_the_daemon_stops_no_more_are_cut_than_wait() {
        stops_with(PER_USER + MORE_AT_THE_END + 1).await;
    }

    /// Processes that sleep for a command with its notes in this folder, whether that is still there or not.
    fn sleepers(folder: &Path) -> usize {
        let folder = folder.display().to_string();
        let all = std::fs::read_dir("/proc").expect("Linux").flatten();
        let has = |process: &Path, file: &str, what: &str| {
            let bytes = std::fs::read(process.join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).contains(what)
        };
        let is_one = |process: &std::path::PathBuf| {
            has(process, "cmdline", "sleep\u{0}301") && has(process, "environ", &folder)
        };
        all.map(|entry| entry.path()).filter(is_one).count()
    }

    #[tokio::test]
    async fn a_user_whose_ends_take_for_ever_leaves_others_their_turns() {
        let folder = tempfile::tempdir().expect("a folder");
        let slow = format!("test $ASSAY_UID = {BUSY} && sleep 300");
        let actions = Arc::new(noting(folder.path(), &slow));
        let mut all = JoinSet::new();
        for number in 0..10 {
            start(&actions, &mut all, BUSY, number);
        }
        while notes(folder.path()).lines().count() < PER_USER {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut others = JoinSet::new();
        start(&actions, &mut others, OTHER, 0);
        timeout(DEADLINE / 2, others.join_all()).await.expect("its turn comes");
        assert!(notes(folder.path()).ends_with("- 1002 0\n"), "{}", notes(folder.path()));
        all.shutdown().await;
    }
}
