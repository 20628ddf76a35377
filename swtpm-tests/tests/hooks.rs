//! Hooks of CI systems, as they are installed, called as each system calls them: real swtpm, daemon, sockets and verifier.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "hooks/buildkite.rs"]
mod buildkite_jobs;
#[path = "hooks/github.rs"]
mod github_jobs;
#[path = "hooks/gitlab.rs"]
mod gitlab_jobs;
#[path = "hooks/jenkins.rs"]
mod jenkins_jobs;
#[path = "hooks/matrix.rs"]
mod matrix;
#[path = "hooks/replays.rs"]
mod replays;
#[path = "hooks/tekton.rs"]
mod tekton_jobs;
#[path = "hooks/time.rs"]
mod time;
#[path = "hooks/tokens.rs"]
mod tokens;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use attestor::hooks::HookSystem;
use swtpm_tests::{
    hook_driver::{End, Ran},
    job_site::{JobSite, JobSiteOptions},
    process::Process,
};
use verifier::store::PermitState;

/// The site kills all processes of a runner, as its unit's control group, and notes what it was told.
const GITHUB_ACTIONS: &str = "on_end = [\"/bin/sh\", \"-c\", \"echo $ASSAY_END_CODE >>@FOLDER@/ended; kill -s KILL -- -$(cat \
                              @FOLDER@/home/worker.pid)\"]\non_refused = [\"/bin/sh\", \"-c\", \"echo $ASSAY_REFUSED_CODE \
                              >>@FOLDER@/refused\"]\n";

/// A site with a system's hooks, whose agent runs as `nobody`; `None` where this is not root, who alone may become somebody else.
async fn site(system: HookSystem) -> Option<JobSite> {
    start(options(system)).await
}

/// What its section of the guide says for `[jobs]`; checks of running jobs are more frequent.
fn options(system: HookSystem) -> JobSiteOptions {
    let jobs = match system {
        HookSystem::GitHub => GITHUB_ACTIONS.to_owned(),
        HookSystem::Jenkins => "systems = [\"generic\", \"jenkins\"]\n".to_owned(),
        HookSystem::Tekton => "systems = [\"tekton\"]\n".to_owned(),
        HookSystem::Buildkite | HookSystem::GitLab => String::new(),
    };
    JobSiteOptions {
        jobs,
        users: vec!["nobody".to_owned()],
        hooks: Some(system),
        ..JobSiteOptions::default()
    }
}

async fn start(options: JobSiteOptions) -> Option<JobSite> {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI runs these tests as root");
        eprintln!("skipped: only root can run jobs as another user");
        return None;
    }
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

fn runs(id: &str) -> bool {
    Process::numbered(id.parse().unwrap()).group_while_it_runs().is_some()
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
