//! Permits whose time is up: before their job begins, where a system redeems them later, and while it runs.

use std::{path::Path, time::Duration};

use attestor::hooks::HookSystem;
use swtpm_tests::{
    hook_driver::{End, Ran, buildkite, github, gitlab, jenkins, tekton},
    job_site::{JobSite, JobSiteOptions},
};
use verifier::store::PermitState;

use super::{all_permits_ended, assert_refused, options, runs, start};

/// The shortest time that a permit can be given; nothing but the worker's own clock is to end it.
const PERMITS: &str = "check_every = \"50s\"\nmax_duration = \"60s\"\n";

/// A job that outlives its permit, with a process besides.
const ENDLESS: &str = "echo the job begins; sleep 300 >/dev/null 2>&1 & echo $! >$HOME/left; sleep 300; echo here is the job";

async fn run(site: &JobSite, system: HookSystem) -> Ran {
    let ran = match system {
        HookSystem::Buildkite => buildkite::run(site, ENDLESS, async |_: &Path| Ok(())).await,
        HookSystem::GitHub => github::run(site, ENDLESS).await,
        HookSystem::GitLab => gitlab::run(site, ENDLESS, async |_: &str| Ok(())).await,
        HookSystem::Jenkins => jenkins::run(site, ENDLESS, 60).await,
        HookSystem::Tekton => tekton::run(site, ENDLESS).await,
    };
    ran.unwrap()
}

async fn outlives_its_permit((system, site): &(HookSystem, JobSite)) {
    let system = *system;
    let ran = run(site, system).await;
    assert_eq!(ran.end, End::Refused, "{system}: {}", ran.log);
    assert!(ran.log.contains("the job begins"), "{system}: {}", ran.log);
    assert!(!ran.log.contains("here is the job"), "{system}: {}", ran.log);
    if system == HookSystem::GitHub {
        // The log ends with the runner, which the site stops: it was told why.
        let told = std::fs::read_to_string(site.path("ended")).unwrap();
        assert_eq!(told, "PERMIT_ENDED\n");
        assert!(!ran.log.contains("always ran"), "{}", ran.log);
    } else {
        let why = "the permit of this job ended, and so does the job: PERMIT_ENDED ";
        assert!(ran.log.contains(why), "{system}: {}", ran.log);
        assert!(ran.log.contains("its time is up"), "{system}: {}", ran.log);
    }
    let left = std::fs::read_to_string(site.path("home/left")).unwrap();
    assert!(!runs(left.trim()), "{system}: a process outlived its permit");
    all_permits_ended(site).await;
    let permits = site.cluster.store().permits("w1", 10).await.unwrap();
    let [permit] = permits.as_slice() else { panic!("{system}: one permit: {permits:?}") };
    assert_eq!(permit.state, PermitState::Ended);
    assert_eq!(permit.end_reason.as_deref(), Some("its time is up"));
}

/// One test for all, since each takes the shortest time that a permit may last.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_every_system_end_with_the_time_of_their_permit() {
    let mut sites = Vec::new();
    for system in HookSystem::ALL {
        let verifier_jobs = PERMITS.to_owned();
        let options = JobSiteOptions { verifier_jobs, ..options(system) };
        let Some(site) = start(options).await else { return };
        sites.push((system, site));
    }
    let [a, b, c, d, e] = sites.as_slice() else { panic!("five systems") };
    tokio::join!(
        outlives_its_permit(a),
        outlives_its_permit(b),
        outlives_its_permit(c),
        outlives_its_permit(d),
        outlives_its_permit(e),
    );
}

/// The others redeem a permit in the call that asks for it.
#[tokio::test(flavor = "multi_thread")]
async fn gitlab_and_buildkite_redeem_no_permit_too_late() {
    const STEP: &str = "echo here is the job";
    let verifier_jobs = "check_every = \"1s\"\nredeem_within = \"10s\"\n".to_owned();
    let late = async || {
        tokio::time::sleep(Duration::from_secs(12)).await;
        Ok(())
    };
    let site =
        |system| start(JobSiteOptions { verifier_jobs: verifier_jobs.clone(), ..options(system) });
    let Some(site_of_gitlab) = site(HookSystem::GitLab).await else { return };
    let Some(site_of_buildkite) = site(HookSystem::Buildkite).await else { return };
    let (of_gitlab, of_buildkite) = tokio::join!(
        gitlab::run(&site_of_gitlab, STEP, async |_: &str| late().await),
        buildkite::run(&site_of_buildkite, STEP, async |_: &Path| late().await),
    );
    assert_refused(&of_gitlab.unwrap(), "PERMIT_EXPIRED");
    assert_refused(&of_buildkite.unwrap(), "PERMIT_EXPIRED");
}
