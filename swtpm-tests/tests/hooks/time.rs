//! Permits whose time is up: before their job begins, and while it runs.
//!
//! Between the grant of a permit and its redemption the verifier's clock moves on. GitLab and Buildkite redeem later anyway; the
//! others at once, so there the worker's request to redeem is kept on its way.

use std::path::Path;

use attestor::hooks::HookSystem;
use swtpm_tests::{
    hook_driver::{End, Ran, buildkite, github, gitlab, jenkins, tekton},
    job_site::{JobSite, JobSiteOptions},
};
use verifier::store::PermitState;

use super::{all_permits_ended, assert_refused, options, runs, start};

/// The shortest time that a job can be given is a minute: most of it passes before the job begins.
const PERMITS: &str = "check_every = \"1s\"\nredeem_within = \"55s\"\nmax_duration = \"60s\"\n";
/// Later than `redeem_within`.
const TOO_LATE_S: i64 = 56;
/// In time, and what is left for the job are seconds.
const ALMOST_S: i64 = 54;

/// A job that would outlive its permit, with a process besides.
const ENDLESS: &str = "echo the job begins; sleep 300 >/dev/null 2>&1 & echo $! >$HOME/left; sleep 300; echo here is the job";

/// `run` gets the site, what the job does, and how many seconds pass between grant and redemption.
async fn both_ends(system: HookSystem, run: impl AsyncFn(&JobSite, &str, i64) -> Ran) {
    let verifier_jobs = PERMITS.to_owned();
    let Some(site) = start(JobSiteOptions { verifier_jobs, ..options(system) }).await else {
        return;
    };
    let refused = run(&site, "echo here is the job", TOO_LATE_S).await;
    assert_refused(&refused, "PERMIT_EXPIRED");
    let permits = site.cluster.store().permits("w1", 10).await.unwrap();
    let [late] = permits.as_slice() else { panic!("one permit was given: {permits:?}") };
    assert_eq!(late.state, PermitState::Ended);
    assert_eq!(late.end_reason.as_deref(), Some("it was not redeemed in time"));
    assert_eq!(late.redeemed_at, None);
    let late = late.new.id.clone();

    let ended = run(&site, ENDLESS, ALMOST_S).await;
    assert_eq!(ended.end, End::Refused, "{}", ended.log);
    assert!(ended.log.contains("the job begins"), "{}", ended.log);
    assert!(!ended.log.contains("here is the job"), "{}", ended.log);
    if system == HookSystem::GitHub {
        // The log ends with the runner, which the site stops: it was told why.
        let told = std::fs::read_to_string(site.path("ended")).unwrap();
        assert_eq!(told, "PERMIT_ENDED\n");
        assert!(!ended.log.contains("always ran"), "{}", ended.log);
    } else {
        let why = "the permit of this job ended, and so does the job: PERMIT_ENDED ";
        assert!(ended.log.contains(why), "{}", ended.log);
        assert!(ended.log.contains("its time is up"), "{}", ended.log);
    }
    let left = std::fs::read_to_string(site.path("home/left")).unwrap();
    assert!(!runs(left.trim()), "a process outlived its permit");
    all_permits_ended(&site).await;
    let permits = site.cluster.store().permits("w1", 10).await.unwrap();
    let permit = permits.iter().find(|permit| permit.new.id != late).unwrap();
    assert_eq!(permit.state, PermitState::Ended);
    assert_eq!(permit.end_reason.as_deref(), Some("its time is up"));
}

/// The worker asks for the permit over one connection, and redeems it over the next: that one waits until time has passed.
async fn on_its_way(site: &JobSite, seconds: i64, job: impl Future<Output = Ran>) -> Ran {
    let pass = async || {
        let permits = site.cluster.store().permits("w1", 10).await.unwrap();
        let waiting = permits.iter().filter(|permit| permit.state == PermitState::Issued);
        assert_eq!(waiting.count(), 1, "granted, and not redeemed yet");
        site.clock.skip(seconds);
    };
    tokio::join!(job, site.road.hold(2, pass)).0
}

#[tokio::test(flavor = "multi_thread")]
async fn github_permits_end_in_time() {
    both_ends(HookSystem::GitHub, async |site, step, seconds| {
        on_its_way(site, seconds, async { github::run(site, step).await.unwrap() }).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gitlab_permits_end_in_time() {
    both_ends(HookSystem::GitLab, async |site, step, seconds| {
        let between = async |_: &str| {
            site.clock.skip(seconds);
            Ok(())
        };
        gitlab::run(site, step, between).await.unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn buildkite_permits_end_in_time() {
    both_ends(HookSystem::Buildkite, async |site, step, seconds| {
        let between = async |_: &Path| {
            site.clock.skip(seconds);
            Ok(())
        };
        buildkite::run(site, step, between).await.unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jenkins_permits_end_in_time() {
    both_ends(HookSystem::Jenkins, async |site, step, seconds| {
        on_its_way(site, seconds, async { jenkins::run(site, step, 60).await.unwrap() }).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tekton_permits_end_in_time() {
    both_ends(HookSystem::Tekton, async |site, step, seconds| {
        on_its_way(site, seconds, async { tekton::run(site, step).await.unwrap() }).await
    })
    .await;
}
