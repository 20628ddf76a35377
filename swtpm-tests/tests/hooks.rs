//! Hooks of CI systems, as they are installed, called as each system calls them: real swtpm, daemon, sockets and verifier.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "hooks/ends.rs"]
mod ends;
#[path = "hooks/tokens.rs"]
mod tokens;

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use attestor::hooks::HookSystem;
use swtpm_tests::{
    hook_driver::{
        End, NOBODY, Ran, buildkite, github, gitlab, jenkins,
        platform::{AUDIENCE, Platform},
        tekton, write_program,
    },
    job_site::{JobSite, JobSiteOptions, finish},
};
use verifier::store::PermitState;

/// The site kills all processes of a runner, as its unit's control group, and notes what it was told.
const GITHUB_ACTIONS: &str = "verifier_silence_s = 2\non_end = [\"/bin/sh\", \"-c\", \"echo $ASSAY_END_CODE >>@FOLDER@/ended; kill -s KILL -- -$(cat \
                              @FOLDER@/home/worker.pid)\"]\non_refused = [\"/bin/sh\", \"-c\", \"echo $ASSAY_REFUSED_CODE \
                              >>@FOLDER@/refused\"]\n";

/// A site with a system's hooks, whose agent runs as `nobody`; `None` where this is not root, who alone may become somebody else.
async fn site(system: HookSystem) -> Option<JobSite> {
    site_where(system, SOON).await
}

/// The verifier is asked often, and a permit that waits does not wait long.
const SOON: &str = "check_every = \"1s\"\nredeem_within = \"10s\"\n";

/// As [`site`], with a platform whose tokens every job must have.
async fn site_with(system: HookSystem, platform: &Platform) -> Option<JobSite> {
    let verifier_jobs = format!("{SOON}{}", platform.verifier_jobs());
    site_of(system, &verifier_jobs, Some(AUDIENCE)).await
}

/// As [`site`], with these lines of the verifier's `[jobs]`.
async fn site_where(system: HookSystem, verifier_jobs: &str) -> Option<JobSite> {
    site_of(system, verifier_jobs, None).await
}

async fn site_of(
    system: HookSystem,
    verifier_jobs: &str,
    audience: Option<&str>,
) -> Option<JobSite> {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI runs these tests as root");
        eprintln!("skipped: only root can run jobs as another user");
        return None;
    }
    let jobs = match system {
        HookSystem::GitHub => GITHUB_ACTIONS.to_owned(),
        _ => JobSiteOptions::default().jobs,
    };
    let options = JobSiteOptions {
        jobs,
        verifier_jobs: verifier_jobs.to_owned(),
        users: vec!["nobody".to_owned()],
        hooks: Some(system),
        audience: audience.map(str::to_owned),
        ..JobSiteOptions::default()
    };
    Some(JobSite::start_with(options).await.unwrap())
}

#[track_caller]
fn assert_refused(ran: &Ran, code: &str) {
    assert_eq!(ran.end, End::Refused, "{}", ran.log);
    assert!(!ran.log.contains("here is the job"), "{}", ran.log);
    assert!(ran.log.contains(code), "{code}: {}", ran.log);
}

/// The one screen that says who vouches for what.
#[track_caller]
fn assert_summary(log: &str, system: &str) {
    for line in [
        "attestor: this worker has proved itself for this job",
        "node       spiffe://test.example/node/w1",
        "identity   spiffe://test.example/pool/linux\n",
        "permit     ",
        "decision   ",
        &format!("system     {system}\n"),
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    let screen = log.lines().skip_while(|line| !line.starts_with("attestor: this worker"));
    assert!(screen.take_while(|line| !line.contains("SPIFFE ")).count() < 24, "{log}");
}

/// Waits for a job that says so by a file in the agent's folder.
async fn begun(site: &JobSite) {
    wait_for(&site.path("home/begun")).await;
}

async fn wait_for(path: &Path) {
    for _ in 0..600 {
        if path.exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} never came", path.display());
}

/// Whether a process is there and no zombie.
fn runs(id: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// A job that would take a minute.
const LONG: &str = "echo the job begins; : >$HOME/begun; sleep 60; echo here is the job";

/// Somebody adds a line to a hook: nothing that would do anything.
fn change(hook: &Path) {
    let mut text = std::fs::read_to_string(hook).unwrap();
    text.push_str("# a gift\n");
    std::fs::write(hook, text).unwrap();
}

fn hook(site: &JobSite, path: &str) -> PathBuf {
    site.path("root").join(path)
}

/// No job holds a permit any more.
async fn all_permits_ended(site: &JobSite) {
    for _ in 0..200 {
        let permits = site.cluster.store().permits("w1", 50).await.unwrap();
        if !permits.is_empty() && permits.iter().all(|permit| permit.state != PermitState::Redeemed)
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("a permit outlived its job: {}", site.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn github_steps_run_only_on_a_worker_that_proves_itself_and_always_steps_too() {
    let Some(mut site) = site(HookSystem::GitHub).await else { return };
    // Steps are processes of the job: they get its identities, and cannot start another job.
    let attestor = hook(&site, "usr/bin/attestor").display().to_string();
    let step = format!(
        "echo here is the job\ntest -S \"${{SPIFFE_ENDPOINT_SOCKET#unix://}}\"\n{attestor} permit --job github --socket {} || true\n",
        site.path("output/job.sock").display()
    );
    let ran = github::run(&site, &step).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    assert_summary(&ran.log, "github");
    assert!(ran.log.contains("repository acme/app (from the environment, unproven)"));
    assert!(ran.log.contains("GATE_CALLER_IS_A_JOB"), "{}", ran.log);
    assert!(ran.log.contains("always ran"), "{}", ran.log);
    // No hook says that the job is over: the permit ends with the worker's process, and that is no reason to stop a runner.
    all_permits_ended(&site).await;
    assert!(!site.path("ended").exists(), "an end by itself ran on_end");
    let failed = github::run(&site, "exit 7").await.unwrap();
    assert_eq!(failed.end, End::Failed(7), "{}", failed.log);
    // The runner registers with a configuration that was asked for under a permit, with the hooks in its .env.
    let ran = github::register(&site).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    assert!(ran.log.contains("the runner got 0 arguments, and a-jit-config\n"), "{}", ran.log);
    assert!(ran.log.contains("ACTIONS_RUNNER_HOOK_JOB_STARTED=/"), "{}", ran.log);
    all_permits_ended(&site).await;
    assert!(!site.path("refused").exists());

    // Users who may not ask cause nothing.
    let mut stranger = site.attestor(&["permit", "--job", "generic"]);
    stranger.uid(NOBODY - 1).gid(NOBODY);
    let output = finish(stranger).await.unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("GATE_USER_NOT_ALLOWED"));

    // A hook that is changed while a job runs ends it, the steps with `if: always()` too.
    let job = github::run(&site, LONG);
    let meddle = async {
        begun(&site).await;
        change(&hook(&site, "usr/lib/assay/hooks/github/jit-runner.sh"));
    };
    let (ran, ()) = tokio::join!(job, meddle);
    let ran = ran.unwrap();
    assert_eq!(ran.end, End::Refused, "{}", ran.log);
    assert!(
        ran.log.contains("the job begins") && !ran.log.contains("here is the job"),
        "{}",
        ran.log
    );
    assert!(!ran.log.contains("always ran"), "{}", ran.log);
    let ended = std::fs::read_to_string(site.path("ended")).unwrap();
    assert_eq!(ended, "GATE_TOOL_CHANGED\n", "no other job's end was acted upon");
    assert!(!site.path("refused").exists(), "the stranger caused something");

    // It is a measured tool: now no job starts, and nobody registers.
    let ran = github::run(&site, "echo here is the job").await.unwrap();
    assert_refused(&ran, "POLICY_TOOL_NOT_ALLOWED");
    assert!(ran.log.contains("jit-runner.sh") && !ran.log.contains("always ran"), "{}", ran.log);
    assert!(ran.log.contains("::error title=attestor::"), "{}", ran.log);
    wait_for(&site.path("refused")).await;
    site.wait_for("denied").await.unwrap();
    let ran = github::register(&site).await.unwrap();
    assert_refused(&ran, "POLICY_TOOL_NOT_ALLOWED");
    assert!(!ran.log.contains("the runner got"), "{}", ran.log);

    site.cluster.stop_verifier().await.unwrap();
    let ran = github::run(&site, "echo here is the job").await.unwrap();
    assert_refused(&ran, "GATE_NO_VERDICT");
    assert!(!ran.log.contains("always ran"), "{}", ran.log);
    let refused = std::fs::read_to_string(site.path("refused")).unwrap();
    assert!(refused.starts_with("POLICY_TOOL_NOT_ALLOWED\n"), "{refused}");

    // Nor where the program ends before it can ask anything.
    let besides = [("ASSAY_LOG", "a=b=c")];
    let ran = github::run_where(&site, "echo here is the job", None, &besides).await.unwrap();
    assert_refused(&ran, "attestor: --log: ");
    assert!(!ran.log.contains("always ran"), "{}", ran.log);

    // Nor without the program that asks.
    std::fs::write(hook(&site, "usr/bin/attestor.new"), "#!/no/such/interpreter\n").unwrap();
    std::fs::rename(hook(&site, "usr/bin/attestor.new"), hook(&site, "usr/bin/attestor")).unwrap();
    let ran = github::run(&site, "echo here is the job").await.unwrap();
    assert_refused(&ran, "GATE_HOOK_FAILED");
    assert!(!ran.log.contains("always ran"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn gitlab_stages_of_the_author_run_under_permits_and_system_failures_are_told_from_builds() {
    let Some(mut site) = site(HookSystem::GitLab).await else { return };
    let nothing = async |_: &str| Ok(());
    let step = "echo here is the job\ntest -S \"${SPIFFE_ENDPOINT_SOCKET#unix://}\"\n";
    let ran = gitlab::run(&site, step, nothing).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    assert_summary(&ran.log, "gitlab");
    // One permit for all stages of the job.
    assert_eq!(
        ran.log.matches("attestor: this worker has proved itself").count(),
        1,
        "{}",
        ran.log
    );
    all_permits_ended(&site).await;
    // What a stage leaves behind goes with the job.
    let left = "sleep 300 >/dev/null 2>&1 &\necho $! >$HOME/left\necho here is the job\n";
    let ran = gitlab::run(&site, left, nothing).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    let left = std::fs::read_to_string(site.path("home/left")).unwrap();
    assert!(!runs(left.trim()), "a process outlived its job");
    // A job that writes a result of its own, where run.sh reads one, ends with its own code nevertheless.
    let folders = hook(&site, "run/assay-gitlab").display().to_string();
    let forge = format!(
        "test -z \"${{ASSAY_HOOK_DIR:-}}\"\nfor folder in {folders}/job.*; do echo 0 >$folder/result.new\n\
         echo '0 0' >$folder/result; done\nsleep 1; exit 7\n"
    );
    let ran = gitlab::run(&site, &forge, nothing).await.unwrap();
    assert_eq!(ran.end, End::Failed(7), "{}", ran.log);
    // One that hides its permit's name is ended too, with what it left behind.
    let hide = format!(
        "rm {folders}/job.*/used.json\n\
         sleep 300 >/dev/null 2>&1 &\necho $! >$HOME/left\n"
    );
    let ran = gitlab::run(&site, &hide, nothing).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    let left = std::fs::read_to_string(site.path("home/left")).unwrap();
    assert!(!runs(left.trim()), "a process outlived its job");
    all_permits_ended(&site).await;
    let left = std::fs::read_dir(hook(&site, "run/assay-gitlab")).unwrap().count();
    assert_eq!(left, 0, "files of jobs");
    // The code of the system failure is a build's like any other.
    for code in [1, 2, 3, 77] {
        let ran = gitlab::run(&site, &format!("exit {code}"), nothing).await.unwrap();
        assert_eq!(ran.end, End::Failed(code), "{}", ran.log);
        assert!(ran.log.contains("after_script ran"), "{}", ran.log);
        assert!(ran.log.contains("uploaded of a failure"), "{}", ran.log);
    }
    let replay = async |folder: &str| {
        std::fs::copy(format!("{folder}/permit.json"), site.path("home/stolen.json"))?;
        std::os::unix::fs::chown(site.path("home/stolen.json"), Some(NOBODY), Some(NOBODY))?;
        Ok(())
    };
    let ran = gitlab::run(&site, step, replay).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    let again = async |folder: &str| {
        let permit = format!("{folder}/permit.json");
        std::fs::remove_file(&permit)?;
        Ok(std::fs::rename(site.path("home/stolen.json"), permit)?)
    };
    let ran = gitlab::run(&site, step, again).await.unwrap();
    assert_refused(&ran, "PERMIT_ALREADY_REDEEMED");
    assert!(!ran.log.contains("after_script ran") && ran.log.contains("variables cleaned"));
    let late = async |_: &str| {
        tokio::time::sleep(Duration::from_secs(12)).await;
        Ok(())
    };
    assert_refused(&gitlab::run(&site, step, late).await.unwrap(), "PERMIT_EXPIRED");

    let job = gitlab::run(&site, LONG, nothing);
    let meddle = async {
        begun(&site).await;
        change(&hook(&site, "usr/lib/assay/hooks/gitlab/prepare.sh"));
    };
    let (ran, ()) = tokio::join!(job, meddle);
    let ran = ran.unwrap();
    assert_refused(&ran, "GATE_TOOL_CHANGED");
    assert!(!ran.log.contains("uploaded") && ran.log.contains("variables cleaned"), "{}", ran.log);
    assert!(ran.log.contains("the job begins") && !ran.log.contains("after_script ran"));
    let ran = gitlab::run(&site, step, nothing).await.unwrap();
    assert_refused(&ran, "POLICY_TOOL_NOT_ALLOWED");
    assert!(ran.log.contains("gitlab/prepare.sh"), "it names the file: {}", ran.log);
    site.cluster.stop_verifier().await.unwrap();
    assert_refused(&gitlab::run(&site, step, nothing).await.unwrap(), "GATE_NO_VERDICT");
}

#[tokio::test(flavor = "multi_thread")]
async fn buildkite_jobs_are_rejected_before_they_begin_or_run_under_their_permit() {
    let Some(mut site) = site(HookSystem::Buildkite).await else { return };
    let nothing = async |_: &Path| Ok(());
    let step = "echo here is the job\ntest -S \"${SPIFFE_ENDPOINT_SOCKET#unix://}\"\n";
    let ran = buildkite::run(&site, step, nothing).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    assert_summary(&ran.log, "buildkite");
    assert!(ran.log.contains("repository git@example.org:acme/app.git"), "{}", ran.log);
    let left = std::fs::read_dir(hook(&site, "run/assay-buildkite")).unwrap().count();
    assert_eq!(left, 0, "files of permits");
    all_permits_ended(&site).await;
    let failed = buildkite::run(&site, "exit 7", nothing).await.unwrap();
    assert_eq!(failed.end, End::Failed(7), "{}", failed.log);

    let ran = buildkite::bootstrap_alone(&site, &[]).await.unwrap();
    assert_refused(&ran, "this job has no permit");

    // Programs of the author's, by a PATH of the author's: none runs before the permit is redeemed.
    let theirs = site.path("home/theirs");
    for name in ["sh", "mv", "sed", "tr", "timeout", "attestor"] {
        let program = format!("#!/bin/sh\n: >{}/ran-{name}\n", site.path("home").display());
        write_program(&theirs.join(name), &program).unwrap();
    }
    let path = format!("{}:/usr/bin:/bin", theirs.display());
    let ran = buildkite::bootstrap_alone(&site, &[("PATH", path.as_str())]).await.unwrap();
    assert_refused(&ran, "this job has no permit");
    let of_the_author: [(&str, &str); 4] = [
        ("PATH", path.as_str()),
        ("LD_PRELOAD", "/home/theirs/lib.so"),
        ("BASH_ENV", "/home/theirs/env"),
        ("GCONV_PATH", "/home/theirs"),
    ];
    for besides in of_the_author {
        let ran = buildkite::run_where(&site, step, None, &[besides], nothing).await.unwrap();
        assert_refused(&ran, &format!("{} is not for a job to set", besides.0));
    }
    for entry in std::fs::read_dir(site.path("home")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.starts_with("ran-"), "{name}: the author's program ran");
    }
    // The agent's own PATH is fine, and an agent of another bootstrap is not.
    let own = [("PATH", "/usr/local/bin:/usr/bin:/bin")];
    let ran = buildkite::run_where(&site, step, None, &own, nothing).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    let other = [("bootstrap_script", "/bin/true")];
    let ran = buildkite::run_where(&site, step, None, &other, nothing).await.unwrap();
    assert_refused(&ran, "the agent's bootstrap script is /bin/true");
    let find = |folder: &Path| {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.into_iter().find(|path| path.extension().is_some_and(|end| end == "json")).unwrap()
    };
    let stolen = site.path("stolen.json");
    let steal = async |folder: &Path| {
        std::fs::copy(find(folder), &stolen)?;
        std::os::unix::fs::chown(&stolen, Some(NOBODY), Some(NOBODY))?;
        Ok(())
    };
    let ran = buildkite::run(&site, step, steal).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    let again = async |folder: &Path| {
        let permit = find(folder);
        std::fs::remove_file(&permit)?;
        Ok(std::fs::rename(&stolen, permit)?)
    };
    let ran = buildkite::run(&site, step, again).await.unwrap();
    assert_refused(&ran, "PERMIT_ALREADY_REDEEMED");
    let late = async |_: &Path| {
        tokio::time::sleep(Duration::from_secs(12)).await;
        Ok(())
    };
    assert_refused(&buildkite::run(&site, step, late).await.unwrap(), "PERMIT_EXPIRED");

    let job = buildkite::run(&site, LONG, nothing);
    let meddle = async {
        begun(&site).await;
        change(&hook(&site, "etc/buildkite-agent/hooks/pre-bootstrap"));
    };
    let (ran, ()) = tokio::join!(job, meddle);
    assert_refused(&ran.unwrap(), "GATE_TOOL_CHANGED");
    let ran = buildkite::run(&site, step, nothing).await.unwrap();
    assert_refused(&ran, "POLICY_TOOL_NOT_ALLOWED");
    assert!(ran.log.contains("hooks/pre-bootstrap"), "it names the file: {}", ran.log);
    site.cluster.stop_verifier().await.unwrap();
    assert_refused(&buildkite::run(&site, step, nothing).await.unwrap(), "GATE_NO_VERDICT");
}

#[tokio::test(flavor = "multi_thread")]
async fn jenkins_agents_connect_only_from_a_worker_that_proves_itself() {
    let Some(site) = site(HookSystem::Jenkins).await else { return };
    let step = "echo here is the job; test -S \"${SPIFFE_ENDPOINT_SOCKET#unix://}\"";
    let ran = jenkins::run(&site, step, 60).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    assert_summary(&ran.log, "generic");
    let arguments = "-url https://jenkins.example.org/ -name w1 -secret @";
    assert!(ran.log.contains(arguments) && !ran.log.contains("hush"), "{}", ran.log);
    all_permits_ended(&site).await;

    let job = jenkins::run(&site, LONG, 60);
    let meddle = async {
        begun(&site).await;
        change(&hook(&site, "etc/systemd/system/assay-jenkins-agent.service"));
    };
    let (ran, ()) = tokio::join!(job, meddle);
    assert_refused(&ran.unwrap(), "GATE_TOOL_CHANGED");
    site.wait_for("denied").await.unwrap();
    let ran = jenkins::run(&site, step, 1).await.unwrap();
    assert_refused(&ran, "POLICY_TOOL_NOT_ALLOWED");
    assert!(ran.log.contains("assay-jenkins-agent.service"), "it names the file: {}", ran.log);

    // A worker that is admitted still, whose verifier is silent.
    let Some(mut site) = self::site(HookSystem::Jenkins).await else { return };
    assert_eq!(jenkins::run(&site, step, 60).await.unwrap().end, End::Passed);
    site.cluster.stop_verifier().await.unwrap();
    assert_refused(&jenkins::run(&site, step, 1).await.unwrap(), "GATE_NO_VERDICT");
}

#[tokio::test(flavor = "multi_thread")]
async fn tekton_steps_run_only_on_a_node_that_proves_itself() {
    let Some(mut site) = site(HookSystem::Tekton).await else { return };
    let step = "echo here is the job; test -S \"${SPIFFE_ENDPOINT_SOCKET#unix://}\"";
    let ran = tekton::run(&site, step).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    assert_summary(&ran.log, "tekton");
    assert!(ran.log.contains("repository acme/app (from the environment, unproven)"));
    all_permits_ended(&site).await;
    let failed = tekton::run(&site, "false; echo here is the job").await.unwrap();
    assert_eq!(failed.end, End::Failed(1), "{}", failed.log);
    let job = tekton::run(&site, LONG);
    let meddle = async {
        begun(&site).await;
        site.tools.write("cc1", b"compiler proper 12.2.0 with a gift").unwrap();
    };
    let (ran, ()) = tokio::join!(job, meddle);
    assert_refused(&ran.unwrap(), "GATE_TOOL_CHANGED");
    assert_refused(&tekton::run(&site, step).await.unwrap(), "POLICY_TOOL_NOT_ALLOWED");
    site.cluster.stop_verifier().await.unwrap();
    assert_refused(&tekton::run(&site, step).await.unwrap(), "GATE_NO_VERDICT");
}

/// A hook whose program is ended by a signal, the first time by itself, then with the shell that stands around it.
#[tokio::test(flavor = "multi_thread")]
async fn github_workers_end_with_a_hook_that_a_signal_ended() {
    let Some(site) = site(HookSystem::GitHub).await else { return };
    let attestor = hook(&site, "usr/bin/attestor");
    let real = hook(&site, "usr/bin/attestor-itself");
    std::fs::rename(&attestor, &real).unwrap();
    // While it waits for the daemon, that never answers.
    let socket = site.path("output/job.sock");
    std::fs::rename(&socket, site.path("output/real.sock")).unwrap();
    let silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::os::unix::fs::chown(&socket, Some(NOBODY), Some(NOBODY)).unwrap();
    for name in ["TERM", "INT", "HUP", "KILL"] {
        let _ = std::fs::remove_file(site.path("home/asks"));
        write_program(
            &attestor,
            &format!(
                "#!/bin/bash\n[ \"$*\" = 'permit --help' ] && exit\necho $$ >$HOME/asks\nexec {} \"$@\"\n",
                real.display()
            ),
        )
        .unwrap();
        let job = github::run(&site, "echo here is the job");
        let end = async {
            wait_for(&site.path("home/asks")).await;
            let (asked, _) = silent.accept().unwrap();
            let hook = std::fs::read_to_string(site.path("home/asks")).unwrap();
            let kill = std::process::Command::new("kill").args(["-s", name, hook.trim()]).status();
            assert!(kill.unwrap().success());
            asked
        };
        let (ran, _) = tokio::join!(job, end);
        let ran = ran.unwrap();
        assert_eq!(ran.end, End::Refused, "{name}: {}", ran.log);
        assert!(!ran.log.contains("here is the job"), "{name}: {}", ran.log);
        assert!(!ran.log.contains("always ran"), "{name}: {}", ran.log);
        let is_told = ran.log.contains(&format!("SIG{name} before there was a permit"));
        assert_eq!(is_told, name != "KILL", "{name}: {}", ran.log);
    }
}
