//! What a site has done when a job must not run: a command of its own, as the daemon's user; few at once, none left out.

use std::{
    collections::HashMap,
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{
    process::Command,
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

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
    turns: Semaphore,
    by_user: HashMap<u32, Semaphore>,
    /// Whose turn has not come.
    waiting: AtomicUsize,
    is_ending: watch::Sender<bool>,
    share: Duration,
}

impl Actions {
    /// What the configuration names, for jobs of these users and of root.
    pub(super) fn new(command: Vec<String>, users: &[u32]) -> Self {
        let each = users.iter().copied().chain([0]);
        let by_user = each.map(|uid| (uid, Semaphore::new(PER_USER))).collect();
        Self {
            command,
            turns: Semaphore::new(AT_ONCE),
            by_user,
            waiting: AtomicUsize::new(0),
            is_ending: watch::Sender::new(false),
            share: SHARE_AT_THE_END,
        }
    }

    /// The daemon stops: more run at once, and none takes others' time.
    pub(super) fn end_soon(&self) {
        if !self.is_ending.send_replace(true) {
            self.turns.add_permits(MORE_AT_THE_END);
            self.by_user.values().for_each(|own| own.add_permits(MORE_AT_THE_END));
        }
    }

    /// Resolves when a command has run for long enough.
    async fn is_late(&self) {
        let at_the_end = async {
            let mut is_ending = self.is_ending.subscribe();
            let _ = is_ending.wait_for(|is_ending| *is_ending).await;
            sleep(self.share).await;
            while self.waiting.load(Ordering::Relaxed) == 0 {
                sleep(LOOK_EVERY).await;
            }
        };
        let _ = timeout(DEADLINE, at_the_end).await;
    }

    /// Runs the command about a job of this user when it is its turn, with what it is about in its environment; nothing if
    /// nothing is named.
    pub(super) async fn act(&self, uid: u32, about: &[(&str, &str)]) {
        let Some((program, arguments)) = self.command.split_first() else { return };
        let mut waiting = Waiting::of(self, program, uid);
        // Semaphores that are never closed.
        let _own = match self.by_user.get(&uid) {
            Some(own) => own.acquire().await.ok(),
            None => None,
        };
        let _turn = self.turns.acquire().await.ok();
        waiting.is_over = true;
        drop(waiting);
        let mut command = Command::new(program);
        command.args(arguments).envs(about.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
        let ran = tokio::select! {
            biased;
            ran = command.status() => Some(ran),
            () = self.is_late() => None,
        };
        match ran {
            Some(Ok(status)) if status.success() => {
                tracing::info!(program, "ran what ends the job");
            }
            Some(Ok(status)) => tracing::error!(program, %status, "what should end the job failed"),
            Some(Err(error)) => {
                tracing::error!(program, %error, "what should end the job did not start");
            }
            None => tracing::error!(program, "what should end the job took too long"),
        }
    }
}

/// A command whose turn has not come.
struct Waiting<'a> {
    actions: &'a Actions,
    program: &'a str,
    uid: u32,
    is_over: bool,
}

impl<'a> Waiting<'a> {
    fn of(actions: &'a Actions, program: &'a str, uid: u32) -> Self {
        actions.waiting.fetch_add(1, Ordering::Relaxed);
        Self { actions, program, uid, is_over: false }
    }
}

impl Drop for Waiting<'_> {
    /// Only a daemon that stops and could not wait any longer gives one up.
    fn drop(&mut self) {
        let Self { actions, program, uid, is_over } = *self;
        actions.waiting.fetch_sub(1, Ordering::Relaxed);
        if !is_over {
            tracing::error!(
                program,
                uid,
                "what should end the job was not run: the daemon stopped before its turn"
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
            "echo \"+ $ASSAY_UID $ASSAY_N\" >>{note}; {takes}; echo \"- $ASSAY_UID $ASSAY_N\" >>{note}"
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
            let (uid_text, number) = (uid.to_string(), number.to_string());
            actions.act(uid, &[("ASSAY_UID", &uid_text), ("ASSAY_N", &number)]).await;
        });
    }

    #[tokio::test]
    async fn many_ends_at_once_run_few_at_a_time_and_none_is_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let actions = Arc::new(noting(folder.path(), "sleep 0.05"));
        let mut all = JoinSet::new();
        for number in 0..20 {
            for uid in [BUSY, OTHER, THIRD] {
                start(&actions, &mut all, uid, number);
            }
        }
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

    /// More of one user than can run at once, none of which comes to an end, and one of another user at last.
    #[tokio::test]
    async fn when_the_daemon_stops_none_is_left_out_and_none_takes_the_others_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let slow = format!("test $ASSAY_UID = {BUSY} && exec sleep 300");
        let mut actions = noting(folder.path(), &slow);
        actions.share = Duration::from_millis(400);
        let actions = Arc::new(actions);
        let mut all = JoinSet::new();
        let count = 3 * (PER_USER + MORE_AT_THE_END);
        for number in 0..count {
            start(&actions, &mut all, BUSY, number);
        }
        start(&actions, &mut all, OTHER, 0);
        let noted = |text: &str| notes(folder.path()).matches(text).count();
        while noted(&format!("+ {BUSY}")) < PER_USER || noted(&format!("- {OTHER}")) < 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Nobody is hurried before.
        tokio::time::sleep(2 * actions.share).await;
        assert_eq!(noted(&format!("+ {BUSY}")), PER_USER);
        actions.end_soon();
        actions.end_soon();
        let begun = async {
            while noted(&format!("+ {BUSY}")) < count {
                assert!(actions.turns.available_permits() > 0, "another user finds a turn");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(DEADLINE / 2, begun).await.expect("each one begins");
        // The last ones have all the time that there is.
        tokio::time::sleep(2 * actions.share).await;
        assert_eq!(all.len() - count + noted(&format!("- {BUSY}")), 1);
        assert_eq!(actions.waiting.load(Ordering::Relaxed), 0);
        assert!(actions.turns.available_permits() < AT_ONCE + MORE_AT_THE_END);
        all.shutdown().await;
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
