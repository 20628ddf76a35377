//! A job is its processes: none outlives the permit, and what ends them cannot be got away from.

use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// Starts processes that leave the job's process group in every way there is: a session of its own, a parent that ends, both
/// without an ear for SIGTERM, and a shell with job control. Each writes its number into `pids`.
const RUN_AWAY: &str = r#"exec >/dev/null 2>&1
export note='echo $$ >>pids; exec sleep 300'
setsid sh -c "$note" &
(sh -c "$note" &)
(setsid sh -c "trap '' TERM; $note" &)
bash -mc 'sh -c "$note" & disown' &
until [ "$(wc -l <pids)" -ge 4 ]; do sleep 0.1; done"#;

fn is_alive(pid: &str) -> bool {
    std::path::Path::new("/proc").join(pid).exists()
}

/// Waits until something is so.
pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..400 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

/// Numbers in a file that the job writes, once there are so many.
async fn pids(site: &JobSite, count: usize) -> Vec<String> {
    let read = || std::fs::read_to_string(site.path("pids")).unwrap_or_default();
    until("the job wrote its numbers", || read().lines().count() >= count).await;
    read().lines().map(str::to_owned).collect()
}

pub(super) fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

pub(super) fn state(pid: &str) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().unwrap().split_whitespace().next().unwrap_or("gone").to_owned()
}

/// A program in the folder and environment of [`JobSite::attestor`].
pub(super) fn as_in(site: &JobSite, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    let like = site.attestor(&[]);
    let variables = like.get_envs().filter_map(|(name, value)| Some((name, value?)));
    command.args(arguments).envs(variables).current_dir(site.path("")).stdin(Stdio::null());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_ran_away_end_with_the_permit_or_with_the_command() {
    let site = JobSite::start().await.unwrap();
    // By itself: the command's own code, and nothing is left when it is told.
    let script = format!("({RUN_AWAY}); xargs kill -0 <pids && echo the job ran; exit 7");
    let output = site.run(&exec(&["sh", "-c", &script])).await.unwrap();
    let (out, err) = text(&output);
    assert_eq!((output.status.code(), out.as_str()), (Some(7), "the job ran\n"), "{err}");
    let left = pids(&site, 4).await;
    assert!(!left.iter().any(|pid| is_alive(pid)), "{left:?}");
    let ended = permit_in(&site, PermitState::Ended).await;
    assert_eq!(ended.end_reason.as_deref(), Some("the job is over"));
    // What the caller had before is no part of the job.
    let me = swtpm_tests::job_site::program("attestor").display().to_string();
    let script = format!(
        "sleep 300 >/dev/null 2>&1 & echo $! >earlier; exec {me} exec --job generic -- sh -c 'setsid sleep 300 & echo $!'"
    );
    let output = finish(as_in(&site, "sh", &["-c", &script])).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output).1);
    assert!(!is_alive(text(&output).0.trim()), "what the job left behind");
    let earlier = std::fs::read_to_string(site.path("earlier")).unwrap();
    assert!(is_alive(earlier.trim()));
    send(earlier.trim().parse().unwrap(), Signal::KILL);
    // With the permit.
    std::fs::remove_file(site.path("pids")).unwrap();
    let script = format!("echo the job begins; ({RUN_AWAY}); sleep 60; echo the job ran");
    let mut command = site.attestor(&exec(&["sh", "-c", &script]));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let running = pids(&site, 4).await;
    assert!(running.iter().all(|pid| is_alive(pid)), "{running:?}");
    site.tools.write("cc1", b"compiler proper 12.2.0 with a gift").unwrap();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await;
    assert_ended(&output.unwrap().unwrap(), "GATE_TOOL_CHANGED");
    assert!(!running.iter().any(|pid| is_alive(pid)), "{running:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kills_the_holder_of_its_permit_kills_itself() {
    let site = JobSite::start().await.unwrap();
    let mut command = site.attestor(&exec(&["sh", "-c", "echo $$ >pids; exec sleep 300"]));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let main = pids(&site, 1).await.remove(0);
    assert!(is_alive(&main));
    child.kill().unwrap();
    child.wait().unwrap();
    // Whoever inherits it may leave it a zombie.
    until("the command ended", || ["gone", "Z", "X"].contains(&state(&main).as_str())).await;
    // A holder that is gone before its command begins starts none.
    let me = swtpm_tests::job_site::program("attestor");
    let begin = |holder: u32| {
        let mut begin = Command::new(&me);
        begin.args(["__job", "--holder", &holder.to_string(), "--", "echo", "the job ran"]);
        finish(begin)
    };
    let output = begin(std::process::id()).await.unwrap();
    assert_eq!(text(&output).0, "the job ran\n", "{}", text(&output).1);
    let output = begin(child.id()).await.unwrap();
    assert_eq!((output.status.code(), text(&output).0.as_str()), (Some(1), ""));
    assert!(text(&output).1.contains("whoever held this job's permit is gone"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_ends_exec_ends_the_job() {
    let site = JobSite::start().await.unwrap();
    let me = swtpm_tests::job_site::program("attestor").display().to_string();
    let start = |env: &str| {
        let _ = std::fs::remove_file(site.path("pids"));
        let job = "setsid sh -c 'echo $$ >>pids; exec sleep 300' & wait";
        let mut command = as_in(&site, "env", &[env, &me]);
        command.args(exec(&["sh", "-c", job]));
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    for signal in [Signal::HUP, Signal::QUIT, Signal::TERM] {
        let mut child = start("--default-signal=HUP,QUIT,TERM");
        let job = pids(&site, 1).await;
        assert!(is_alive(&job[0]));
        send(child.id(), signal);
        let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(128 + signal.as_raw()));
        assert!(!is_alive(&job[0]), "{signal:?}");
    }
    // As `nohup` has it.
    let mut child = start("--ignore-signal=HUP");
    let job = pids(&site, 1).await;
    send(child.id(), Signal::HUP);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(is_alive(&job[0]));
    send(child.id(), Signal::TERM);
    let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(143));
}

/// The daemon is told that the job is over, and does not say that it heard.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_slow_to_take_a_permit_back_fails_no_job() {
    let site = JobSite::start().await.unwrap();
    let script = "echo $$ >pids; until [ -e go ]; do sleep 0.1; done; echo the job ran; exit 7";
    let mut command = site.attestor(&exec(&["sh", "-c", script]));
    let said = site.path("said");
    command.stdout(Stdio::piped()).stderr(std::fs::File::create(&said).unwrap());
    let child = command.spawn().unwrap();
    let (main, daemon) = (pids(&site, 1).await.remove(0), site.daemon_id());
    send(daemon, Signal::STOP);
    until("the daemon stands still", || state(&daemon.to_string()) == "T").await;
    std::fs::write(site.path("go"), "").unwrap();
    until("the command ended", || !is_alive(&main)).await;
    // An answer is not waited for any more, and its last word is.
    let said = || std::fs::read_to_string(&said).unwrap();
    until("it is given up", || said().contains("it does not answer")).await;
    send(daemon, Signal::CONT);
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await;
    let output = output.unwrap().unwrap();
    let out = text(&output).0;
    assert_eq!((output.status.code(), out.as_str()), (Some(7), "the job ran\n"), "{}", said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_that_ended_while_nobody_looked_is_no_success() {
    let site = JobSite::start().await.unwrap();
    let script = "echo $$ >pids; until [ -e go ]; do sleep 0.1; done; echo the job ran";
    // First the control.
    for does_daemon_end in [false, true] {
        let _ = std::fs::remove_file(site.path("pids"));
        let _ = std::fs::remove_file(site.path("go"));
        let mut command = site.attestor(&exec(&["sh", "-c", script]));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (main, holder) = (pids(&site, 1).await.remove(0), child.id());
        send(holder, Signal::STOP);
        until("exec stands still", || state(&holder.to_string()) == "T").await;
        std::fs::write(site.path("go"), "").unwrap();
        until("the command ended", || state(&main) == "Z").await;
        if does_daemon_end {
            send(site.daemon_id(), Signal::TERM);
            until("the daemon ended", || state(&site.daemon_id().to_string()) == "Z").await;
        }
        send(holder, Signal::CONT);
        let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await;
        let output = output.unwrap().unwrap();
        let (out, err) = text(&output);
        assert_eq!(out, "the job ran\n", "{err}");
        let code = if does_daemon_end { 3 } else { 0 };
        assert_eq!(output.status.code(), Some(code), "{err}");
        assert_eq!(err.contains("the permit of this job ended"), does_daemon_end, "{err}");
    }
}
