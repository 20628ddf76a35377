//! A permit's end by its time, a permit used again, and claims that no platform signed: for each system, through its hook.

use std::path::Path;

use attestor::hooks::HookSystem;
use swtpm_tests::{
    hook_driver::{
        Agent, End, Ran, buildkite, github, gitlab, jenkins, platform::Platform, tekton,
    },
    job_site::{JobSite, finish},
};

use super::{all_permits_ended, assert_refused, assert_summary, hook, site, site_where};

/// Longer than any permit here.
const ENDLESS: &str = "echo the job begins; sleep 300; echo here is the job";

/// A job of this system with this step.
async fn run(site: &JobSite, system: HookSystem, step: &str) -> Ran {
    let ran = match system {
        HookSystem::Buildkite => buildkite::run(site, step, async |_: &Path| Ok(())).await,
        HookSystem::GitHub => github::run(site, step).await,
        HookSystem::GitLab => gitlab::run(site, step, async |_: &str| Ok(())).await,
        HookSystem::Jenkins => jenkins::run(site, step, 60).await,
        HookSystem::Tekton => tekton::run(site, step).await,
    };
    ran.unwrap()
}

async fn outlives_its_permit(system: HookSystem) {
    // Nothing but the worker's own clock is to end it.
    let verifier_jobs = "check_every = \"50s\"\nmax_duration = \"60s\"\n";
    let Some(site) = site_where(system, verifier_jobs).await else { return };
    let ran = run(&site, system, ENDLESS).await;
    assert_eq!(ran.end, End::Refused, "{system}: {}", ran.log);
    assert!(ran.log.contains("the job begins"), "{system}: {}", ran.log);
    assert!(!ran.log.contains("here is the job"), "{system}: {}", ran.log);
    let (code, why) = ("PERMIT_ENDED", "its time is up");
    // GitHub's hook is over by then: the daemon says why, and ends the runner's processes.
    let told = match system {
        HookSystem::GitHub => site.log() + &std::fs::read_to_string(site.path("ended")).unwrap(),
        _ => ran.log,
    };
    assert!(told.contains(code) && told.contains(why), "{system}: {told}");
    all_permits_ended(&site).await;
}

/// One test for all, since each takes the shortest time that a permit may last.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_every_system_end_with_the_time_of_their_permit() {
    tokio::join!(
        outlives_its_permit(HookSystem::Buildkite),
        outlives_its_permit(HookSystem::GitHub),
        outlives_its_permit(HookSystem::GitLab),
        outlives_its_permit(HookSystem::Jenkins),
        outlives_its_permit(HookSystem::Tekton),
    );
}

/// All that a job, its log and its environment have of a permit is the permit's number.
async fn starts_no_second_job(system: HookSystem, named: &str) {
    let Some(site) = site(system).await else { return };
    let attestor = hook(&site, "usr/bin/attestor");
    let socket = site.path("output/job.sock");
    let again = format!("exec --permit stolen.json --socket {} --", socket.display());
    // From inside of the job, that writes down what it knows.
    let step = format!(
        "echo here is the job\nprintf '{{\"permit_id\":\"%s\"}}' \"$ASSAY_PERMIT_ID\" >$HOME/stolen.json\n\
         chmod 600 $HOME/stolen.json\n{} {again} echo a second job || true\n",
        attestor.display()
    );
    let ran = run(&site, system, &step).await;
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    assert_summary(&ran.log, named);
    assert!(ran.log.contains("GATE_CALLER_IS_A_JOB"), "{}", ran.log);
    assert!(!ran.log.contains("a second job\n"), "{}", ran.log);
    all_permits_ended(&site).await;
    // And by another process of the agent's user, once it is over.
    let agent = Agent::new(&site).unwrap();
    let mut command = agent.command(&attestor);
    command.args(again.split(' ')).args(["echo", "a second job"]);
    let output = finish(command).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("PERMIT_ALREADY_REDEEMED") && output.stdout.is_empty(), "{said}");
    // On another worker nobody knows it.
    let other = self::site(system).await.expect("root, as before");
    let home = Agent::new(&other).unwrap().home;
    for name in ["stolen.json"] {
        std::fs::copy(site.path("home").join(name), home.join(name)).unwrap();
        std::os::unix::fs::chown(home.join(name), Some(super::NOBODY), Some(super::NOBODY))
            .unwrap();
    }
    let mut command = Agent::new(&other).unwrap().command(&hook(&other, "usr/bin/attestor"));
    let socket = other.path("output/job.sock");
    command.args(["exec", "--permit", "stolen.json", "--socket"]).arg(socket);
    command.args(["--", "echo", "a second job"]);
    let output = finish(command).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("PERMIT_UNKNOWN") && output.stdout.is_empty(), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_github_permit_starts_no_second_job() {
    starts_no_second_job(HookSystem::GitHub, "github").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jenkins_permit_starts_no_second_job() {
    starts_no_second_job(HookSystem::Jenkins, "generic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tekton_permit_starts_no_second_job() {
    starts_no_second_job(HookSystem::Tekton, "tekton").await;
}

/// Neither Jenkins nor Tekton signs a token: theirs is not believed to be another system's, and where the site wants a
/// platform's word there is no job.
async fn has_no_platform(system: HookSystem, named: &str) {
    let github = Platform::new(HookSystem::GitHub).unwrap();
    let Some(site) = site_where(system, &github.verifier_jobs()).await else { return };
    // Whoever runs jobs there tries with a token of a repository's job at GitHub.
    let agent = Agent::new(&site).unwrap();
    for (repository, id) in [("app", "1"), ("other", "2")] {
        let mut command = agent.command(&hook(&site, "usr/bin/attestor"));
        command
            .args(["exec", "--job", named, "--token-env", "TOKEN", "--socket"])
            .arg(site.path("output/job.sock"))
            .args(["--", "echo", "here is the job"])
            .env("TOKEN", github.token(repository, id).unwrap())
            .env("ASSAY_JOB_ID", "build")
            .env("ASSAY_JOB_RUN_ID", "42")
            .env("ASSAY_TEKTON_TASK_RUN_UID", "task-run-1")
            .env("ASSAY_TEKTON_PIPELINE_RUN_UID", "pipeline-run-1");
        let output = finish(command).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(3), 0), "{said}");
        assert!(said.contains("PLATFORM_CLAIM_MISMATCH"), "{said}");
        assert!(said.contains(&format!("system {named}")), "{said}");
    }
    let ran = run(&site, system, "echo here is the job").await;
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    site.cluster.put_in_force(SIGNED_ONLY).await.unwrap();
    assert_refused(&run(&site, system, "echo here is the job").await, "POLICY_RULE_FALSE");
}

/// A site whose jobs must be some that a platform vouches for.
const SIGNED_ONLY: &str = r#"schema = "assay.policy/v1"
name = "signed-only"
version = 1

[[rule]]
name = "the-platforms-word"
at = "job"
message = "Jobs here are of the repository that the platform says."
expr = 'has(job.sources.repository) && job.sources["repository"] == "platform_token"'
"#;

#[tokio::test(flavor = "multi_thread")]
async fn jenkins_agents_cannot_borrow_a_token() {
    has_no_platform(HookSystem::Jenkins, "generic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tekton_steps_cannot_borrow_a_token() {
    has_no_platform(HookSystem::Tekton, "tekton").await;
}
