//! Systems whose platform signs a token for each job.

use std::path::Path;

use attestor::hooks::HookSystem;
use swtpm_tests::{
    hook_driver::{End, Ran, buildkite, github, gitlab, platform::Platform},
    job_site::JobSite,
};

use super::{assert_refused, site_with};

/// Each row: a token, and what becomes of its job, in this order on one site.
async fn with_tokens(
    system: HookSystem,
    signed: &str,
    run: impl AsyncFn(&JobSite, Option<&str>) -> Ran,
) {
    let (platform, other) = (Platform::new(system).unwrap(), Platform::new(system).unwrap());
    let Some(site) = site_with(system, &platform).await else { return };
    let good = platform.token("app", "1").unwrap();
    let ran = run(&site, Some(&good)).await;
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    assert!(ran.log.contains("here is the job") && ran.log.contains(signed), "{}", ran.log);
    let another = platform.token("other", "2").unwrap();
    let forged = other.token("app", "3").unwrap();
    let late = platform.token("app", "4").unwrap();
    for (token, code) in [
        (Some(good.as_str()), "PLATFORM_TOKEN_REPLAYED"),
        (Some(another.as_str()), "PLATFORM_CLAIM_MISMATCH"),
        (Some(forged.as_str()), "PLATFORM_KEY_UNKNOWN"),
        (Some("a.b.c"), "PLATFORM_TOKEN_MALFORMED"),
        (None, "no token"),
    ] {
        assert_refused(&run(&site, token).await, code);
    }
    let ran = run(&site, Some(&late)).await;
    assert_eq!(ran.end, End::Passed, "a good one passes still: {}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn github_jobs_are_those_that_their_token_says() {
    with_tokens(HookSystem::GitHub, "repository acme/app (signed by the platform)", {
        async |site, token| github::run_with(site, "echo here is the job", token).await.unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gitlab_jobs_are_those_that_their_token_says() {
    with_tokens(HookSystem::GitLab, "repository acme/app (signed by the platform)", {
        async |site, token| {
            let nothing = async |_: &str| Ok(());
            gitlab::run_with(site, "echo here is the job", token, nothing).await.unwrap()
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn buildkite_jobs_are_those_that_their_token_says() {
    with_tokens(HookSystem::Buildkite, "workflow   app (signed by the platform)", {
        async |site, token| {
            let nothing = async |_: &Path| Ok(());
            buildkite::run_with(site, "echo here is the job", token, nothing).await.unwrap()
        }
    })
    .await;
}
