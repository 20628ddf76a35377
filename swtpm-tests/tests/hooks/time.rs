//! Permits whose time is up: before their job begins, and while it runs.
//!
//! `max_duration` passes in fact. `redeem_within` passes on the verifier's clock, between grant and redemption: GitLab and Buildkite
//! redeem later anyway; the others at once, so there the worker's request to redeem is kept on its way.

use std::path::Path;

use attestor::hooks::HookSystem;
use swtpm_tests::{
    hook_driver::{End, Ran, buildkite, github, gitlab, jenkins, tekton},
    job_site::{JobSite, JobSiteOptions},
};
use verifier::store::PermitState;

use super::{all_permits_ended, assert_refused, options, runs, start};

/// A minute is the shortest time that a job can be given.
const PERMITS: &str = "check_every = \"1s\"\nredeem_within = \"30s\"\nmax_duration = \"60s\"\n";
/// Later than `redeem_within`.
const TOO_LATE_S: i64 = 31;

/// A job that would outlive its permit, with a process besides.
const ENDLESS: &str = "echo the job begins; sleep 300 >/dev/null 2>&1 & echo $! >$HOME/left; sleep 300; echo here is the job";

/// `run` gets the site, what the job does, and how many seconds the verifier's clock skips between grant and redemption.
async fn both_ends(
    system: HookSystem,
    site: &JobSite,
    run: impl AsyncFn(&JobSite, &str, Option<i64>) -> Ran,
) {
    let ended = run(site, ENDLESS, None).await;
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
    all_permits_ended(site).await;
    let permits = site.cluster.store().permits("w1", 10).await.unwrap();
    let [permit] = permits.as_slice() else { panic!("one permit was given: {permits:?}") };
    assert_eq!(permit.state, PermitState::Ended);
    assert_eq!(permit.end_reason.as_deref(), Some("its time is up"));
    let ended = permit.new.id.clone();

    let refused = run(site, "echo here is the job", Some(TOO_LATE_S)).await;
    assert_refused(&refused, "PERMIT_EXPIRED");
    let permits = site.cluster.store().permits("w1", 10).await.unwrap();
    let late = permits.iter().find(|permit| permit.new.id != ended).unwrap();
    assert_eq!(late.state, PermitState::Ended);
    assert_eq!(late.end_reason.as_deref(), Some("it was not redeemed in time"));
    assert_eq!(late.redeemed_at, None);
}

/// The worker asks for the permit over one connection, and redeems it over the next, if none is open for its jobs: that one
/// waits until time has passed.
async fn on_its_way(site: &JobSite, late: Option<i64>, job: impl Future<Output = Ran>) -> Ran {
    let Some(seconds) = late else { return job.await };
    let pass = async || {
        let permits = site.cluster.store().permits("w1", 10).await.unwrap();
        let waiting = permits.iter().filter(|permit| permit.state == PermitState::Issued);
        assert_eq!(waiting.count(), 1, "granted, and not redeemed yet");
        site.clock.skip(seconds);
    };
    site.road.is_empty().await;
    let mut job = std::pin::pin!(job);
    tokio::select! {
        ran = &mut job => panic!("it never came to a redemption: {}", ran.log),
        () = site.road.hold(2, pass) => job.await,
    }
}

/// All jobs at once: a minute is long enough.
#[tokio::test(flavor = "multi_thread")]
async fn permits_end_in_time_before_a_job_begins_and_while_it_runs() {
    let mut sites = Vec::new();
    for system in HookSystem::ALL {
        let verifier_jobs = PERMITS.to_owned();
        let site = start(JobSiteOptions { verifier_jobs, ..options(system) }).await;
        let Some(site) = site else { return };
        sites.push((system, site));
    }
    let of = |wanted| &sites.iter().find(|(system, _)| *system == wanted).unwrap().1;
    let github = both_ends(HookSystem::GitHub, of(HookSystem::GitHub), async |site, step, late| {
        on_its_way(site, late, async { github::run(site, step).await.unwrap() }).await
    });
    let gitlab = both_ends(HookSystem::GitLab, of(HookSystem::GitLab), async |site, step, late| {
        let between = async |_: &str| {
            site.clock.skip(late.unwrap_or(0));
            Ok(())
        };
        gitlab::run(site, step, between).await.unwrap()
    });
    let buildkite =
        both_ends(HookSystem::Buildkite, of(HookSystem::Buildkite), async |site, step, late| {
            let between = async |_: &Path| {
                site.clock.skip(late.unwrap_or(0));
                Ok(())
            };
            buildkite::run(site, step, between).await.unwrap()
        });
    let jenkins =
        both_ends(HookSystem::Jenkins, of(HookSystem::Jenkins), async |site, step, late| {
            on_its_way(site, late, async { jenkins::run(site, step, 60).await.unwrap() }).await
        });
    let tekton = both_ends(HookSystem::Tekton, of(HookSystem::Tekton), async |site, step, late| {
        on_its_way(site, late, async { tekton::run(site, step).await.unwrap() }).await
    });
    tokio::join!(github, gitlab, buildkite, jenkins, tekton);
}
