use std::collections::BTreeMap;

use jose::{
    Algorithm,
    testing::{NOW, Signer},
};
use proto::job::{CiSystem, from_environment};
use serde_json::Value;

use super::*;
use crate::{
    testing::{COMMIT, claims, issuer, keys_of},
    verify,
};

fn identity(system: CiSystem, change: impl FnOnce(&mut Value)) -> PlatformIdentity {
    let signer = Signer::rsa();
    let mut claims = claims(system);
    change(&mut claims);
    let token = signer.token(Algorithm::Rs256, "k", &claims);
    verify(&token, &issuer(system), &keys_of(&[("k", &signer)]), NOW).expect("accepted")
}

fn environment(system: CiSystem) -> BTreeMap<String, String> {
    let variables: &[(&str, &str)] = match system {
        CiSystem::GitHub => &[
            ("GITHUB_RUN_ID", "22259804324"),
            ("GITHUB_RUN_ATTEMPT", "1"),
            ("GITHUB_JOB", "build"),
            ("GITHUB_REPOSITORY", "acme/app"),
            ("GITHUB_SHA", COMMIT),
            ("GITHUB_WORKFLOW_REF", "acme/app/.github/workflows/ci.yml@refs/heads/main"),
        ],
        CiSystem::GitLab => &[
            ("CI_PIPELINE_ID", "1519139981"),
            ("CI_JOB_ID", "8222997048"),
            ("CI_PROJECT_PATH", "acme/app"),
            ("CI_COMMIT_SHA", COMMIT),
            ("CI_CONFIG_PATH", ".gitlab-ci.yml"),
        ],
        _ => &[
            ("BUILDKITE_BUILD_ID", "b1"),
            ("BUILDKITE_JOB_ID", "01945ecf-80f0-41e8-9b83-a2970a9305a1"),
            ("BUILDKITE_RETRY_COUNT", "0"),
            ("BUILDKITE_REPO", "git@git.example.org:acme/app.git"),
            ("BUILDKITE_COMMIT", COMMIT),
            ("BUILDKITE_PIPELINE_SLUG", "app"),
        ],
    };
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn sources(claims: &JobClaims) -> Vec<(JobClaim, Source)> {
    claims.iter().map(|(claim, found)| (claim, found.source())).collect()
}

#[test]
fn what_both_say_is_the_platforms() {
    use JobClaim::{Attempt, Commit, Job, Repository, RunId, Workflow};
    use Source::{Environment as E, PlatformToken as T};
    for (system, expected) in [
        (
            CiSystem::GitHub,
            vec![(Attempt, T), (Commit, T), (Job, E), (Repository, T), (RunId, T), (Workflow, T)],
        ),
        (CiSystem::GitLab, vec![(Commit, T), (Job, T), (Repository, T), (RunId, T), (Workflow, T)]),
        (
            CiSystem::Buildkite,
            vec![(Attempt, E), (Commit, T), (Job, T), (Repository, E), (RunId, E), (Workflow, T)],
        ),
    ] {
        let claimed = from_environment(system, &environment(system)).expect("claims");
        let merged = merge(&claimed, Some(&identity(system, |_| {}))).expect("no conflict");
        assert_eq!(sources(&merged), expected, "{system}");
        assert_eq!(merged.digest(), claimed.digest(), "{system}: the same values");
        assert_eq!(merge(&claimed, None).expect("no token"), claimed);
    }
}

#[test]
fn any_claim_that_both_make_differently_is_refused() {
    for system in [CiSystem::GitHub, CiSystem::GitLab, CiSystem::Buildkite] {
        let identity = identity(system, |_| {});
        for variable in proto::job::variables(system) {
            let mut changed = environment(system);
            let other = match variable.claim {
                JobClaim::Commit => "0".repeat(40),
                JobClaim::Attempt => "7".to_owned(),
                _ => "other".to_owned(),
            };
            let before = changed.insert(variable.name.to_owned(), other.clone()).expect("a value");
            let claimed = from_environment(system, &changed).expect("claims");
            let merged = merge(&claimed, Some(&identity));
            if identity.job_claims().contains_key(&variable.claim) {
                let refused = merged.expect_err(variable.name);
                assert_eq!(refused.code(), "PLATFORM_CLAIM_MISMATCH");
                let Refusal::ClaimMismatch { claim, expected, observed } = refused else {
                    unreachable!("the code says so")
                };
                assert_eq!(
                    (claim, expected, observed),
                    (variable.claim.as_str(), before, other),
                    "{system}"
                );
            } else {
                let merged = merged.expect("only the environment makes this claim");
                let claim = merged.claim(variable.claim).expect("a claim");
                assert_eq!(claim.source(), Source::Environment, "{system} {}", variable.name);
            }
        }
    }
}

#[test]
fn systems_are_not_mixed() {
    let claimed = from_environment(CiSystem::GitLab, &environment(CiSystem::GitLab));
    let refused = merge(&claimed.expect("claims"), Some(&identity(CiSystem::GitHub, |_| {})));
    let Err(Refusal::ClaimMismatch { claim, expected, observed }) = refused else {
        unreachable!("{refused:?}")
    };
    assert_eq!((claim, &*expected, &*observed), ("system", "github", "gitlab"));
}

#[test]
fn what_only_the_token_says_is_added() {
    let mut some = environment(CiSystem::GitLab);
    some.remove("CI_CONFIG_PATH");
    let claimed = from_environment(CiSystem::GitLab, &some).expect("claims");
    let merged = merge(&claimed, Some(&identity(CiSystem::GitLab, |_| {}))).expect("no conflict");
    let workflow = merged.claim(JobClaim::Workflow).expect("added");
    assert_eq!((workflow.value(), workflow.source()), (".gitlab-ci.yml", Source::PlatformToken));
    assert_ne!(merged.digest(), claimed.digest());
}

#[test]
fn gitlab_names_a_pipelines_definition_in_two_ways() {
    for (uri, path, expected) in [
        ("gitlab.com/acme/app//.gitlab-ci.yml@refs/heads/main", ".gitlab-ci.yml", "agreed"),
        ("gitlab.com/acme/app//ci/a.yml@refs/tags/v@1", "ci/a.yml", "agreed"),
        ("host:8443/gitlab/acme/app//a@b.yml@refs/heads/x", "a@b.yml", "agreed"),
        ("gitlab.com/acme/ci//a.yml@refs/heads/main", "a.yml@acme/ci", "agreed"),
        ("gitlab.com/acme/ci//a.yml@refs/heads/main", "a.yml@acme/ci:main", "agreed"),
        ("gitlab.com/acme/ci//a.yml@refs/heads/main", "a.yml", "workflow"),
        ("gitlab.com/acme/ci//a.yml@refs/heads/main", "a.yml@acme/other", "workflow"),
        ("gitlab.com/x-acme/app//a.yml@refs/heads/main", "a.yml", "workflow"),
        ("gitlab.com/acme/app//a.yml@refs/heads/main", "b.yml", "workflow"),
    ] {
        let mut variables = environment(CiSystem::GitLab);
        variables.insert("CI_CONFIG_PATH".to_owned(), path.to_owned());
        let claimed = from_environment(CiSystem::GitLab, &variables).expect("claims");
        let signed = identity(CiSystem::GitLab, |claims| claims["ci_config_ref_uri"] = uri.into());
        let found = match merge(&claimed, Some(&signed)) {
            Ok(_) => "agreed",
            Err(Refusal::ClaimMismatch { claim, .. }) => claim,
            Err(other) => unreachable!("{other}"),
        };
        assert_eq!(found, expected, "{uri} {path}");
    }
    // A definition that is not in the instance has no such claim.
    for uri in [Value::Null, "".into(), "https://a.example/ci.yml".into()] {
        let signed = identity(CiSystem::GitLab, |claims| claims["ci_config_ref_uri"] = uri);
        assert!(!signed.job_claims().contains_key(&JobClaim::Workflow));
    }
    // The project that runs the job counts where it is said.
    let signed = identity(CiSystem::GitLab, |claims| {
        claims["project_path"] = "fork/app".into();
        claims["job_project_path"] = "acme/app".into();
    });
    assert_eq!(signed.job_claims()[&JobClaim::Repository], "acme/app");
    assert_eq!(signed.other["project_path"], "fork/app");
}
