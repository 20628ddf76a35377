//! What a job can take along, used again. The secret of a permit never leaves the daemon: its number is all there is, in a variable,
//! a file of `--defer`, a log. GitLab's and Buildkite's files are used twice in the tests of those systems.

use attestor::hooks::HookSystem;
use swtpm_tests::{
    hook_driver::{Agent, End, Ran, github, jenkins, tekton},
    job_site::{JobSite, finish},
};

use super::{all_permits_ended, assert_refused, site, wait_for};

/// A file as `--defer` writes it, of the permit that this job runs under.
const TAKE: &str = "printf '{\"permit_id\": \"%s\"}' \"$ASSAY_PERMIT_ID\" >$HOME/taken.json\n";

/// The command that starts a job by what was taken, in place of a hook's own.
fn again(site: &JobSite, command: &str) -> String {
    format!(
        "{} {command} --permit {} --socket {} --refused-code 3",
        site.path("root/usr/bin/attestor").display(),
        site.path("home/taken.json").display(),
        site.path("output/job.sock").display()
    )
}

/// A job of the agent's user by what was taken.
async fn exec_again(site: &JobSite) -> Ran {
    let agent = Agent::new(site).unwrap();
    let script = format!("exec {} -- echo here is the job", again(site, "exec"));
    let mut command = agent.command("/bin/sh".as_ref());
    command.args(["-c", &script]);
    Ran::of(&finish(command).await.unwrap())
}

/// A job that waits for a word of the test's.
fn waits(site: &JobSite) -> String {
    let go = site.path("home/go").display().to_string();
    let _ = std::fs::remove_file(&go);
    let _ = std::fs::remove_file(site.path("home/begun"));
    format!("{TAKE}: >$HOME/begun; until [ -e {go} ]; do sleep 0.1; done; echo here is the job")
}

/// While the job runs that a permit is of, and after it.
async fn replay_beside(site: &JobSite, job: impl Future<Output = Ran>) {
    let beside = async {
        wait_for(&site.path("home/begun")).await;
        assert_refused(&exec_again(site).await, "PERMIT_ALREADY_REDEEMED");
        std::fs::write(site.path("home/go"), "").unwrap();
    };
    let (ran, ()) = tokio::join!(job, beside);
    assert_eq!(ran.end, End::Passed, "the job itself goes on: {}", ran.log);
    assert!(ran.log.contains("here is the job"), "{}", ran.log);
    all_permits_ended(site).await;
    assert_refused(&exec_again(site).await, "PERMIT_ALREADY_REDEEMED");
    let permits = site.cluster.store().permits("w1", 10).await.unwrap();
    assert_eq!(permits.len(), 1, "no other permit was given");
}

#[tokio::test(flavor = "multi_thread")]
async fn github_permits_start_no_second_job() {
    let Some(site) = site(HookSystem::GitHub).await else { return };
    // Nor one inside of the job.
    let inside = format!("{} -- echo a job in a job || true\n", again(&site, "exec"));
    let ran = github::run(&site, &format!("{TAKE}{inside}echo here is the job\n")).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    assert!(ran.log.contains("GATE_CALLER_IS_A_JOB"), "{}", ran.log);
    assert!(!ran.log.contains("a job in a job"), "{}", ran.log);
    all_permits_ended(&site).await;
    // The runner's user writes the runner's `.env`, where no one else owns it: a hook of theirs in place of the installed one.
    let theirs = format!("exec {} --for parent --stop-parent\n", again(&site, "permit"));
    let theirs = Agent::new(&site).unwrap().program("their-hook", &theirs).unwrap();
    let besides = [("ACTIONS_RUNNER_HOOK_JOB_STARTED", theirs.to_str().unwrap())];
    let step = "echo here is the job";
    let ran = github::run_where(&site, step, None, &besides).await.unwrap();
    assert_refused(&ran, "PERMIT_ALREADY_REDEEMED");
    assert!(!ran.log.contains("always ran"), "{}", ran.log);
    // What the installed hook gives is of its own job, whatever a worker has in its environment.
    let id = std::fs::read_to_string(site.path("home/taken.json")).unwrap();
    let id = id.split('"').nth(3).unwrap().to_owned();
    let step = format!("test \"$ASSAY_PERMIT_ID\" != {id} && echo here is the job\n");
    let besides = [("ASSAY_PERMIT_ID", id.as_str())];
    let ran = github::run_where(&site, &step, None, &besides).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn jenkins_permits_start_no_second_session() {
    let Some(site) = site(HookSystem::Jenkins).await else { return };
    let job = waits(&site);
    replay_beside(&site, async { jenkins::run(&site, &job, 60).await.unwrap() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tekton_permits_start_no_second_step_here_or_on_another_node() {
    let Some(site) = site(HookSystem::Tekton).await else { return };
    let job = waits(&site);
    replay_beside(&site, async { tekton::run(&site, &job).await.unwrap() }).await;
    // A workspace goes along to another node, whose daemon does not have the permit's key.
    let Some(other) = super::site(HookSystem::Tekton).await else { return };
    Agent::new(&other).unwrap();
    std::fs::copy(site.path("home/taken.json"), other.path("home/taken.json")).unwrap();
    assert_refused(&exec_again(&other).await, "PERMIT_UNKNOWN");
    // And its own jobs are none the worse for it.
    let ran = tekton::run(&other, "echo here is the job").await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
}
