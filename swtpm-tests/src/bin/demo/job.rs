//! A CI job on the worker: what it signs is admitted wherever it is used, and what was changed is not.

use std::fs;

use swtpm_tests::{
    cluster::AnyError,
    hook_driver::platform::{COMMIT, Platform},
    process::Ended,
};

use crate::{
    examples::Examples,
    site::{Site, expect, finish, shown},
};

const BUILD: &str = "tar -czf app.tar.gz hello.c && attestor sign app.tar.gz";
/// What whoever uses the artifact accepts.
const RELEASE: &str = r#"job_identities = ["spiffe://demo.example/pool/linux"]
results_identities = ["spiffe://demo.example/verifier/results"]
pools = ["linux"]
max_vsa_age_s = 60
repositories = ["acme/app"]
platform_claims = ["repository", "workflow"]
levels = ["ASSAY_NODE_ATTESTED"]
tools.cc = {}
"#;
/// `verifier admit` with these.
const ADMIT: [&str; 8] = [
    "admit",
    "app.tar.gz",
    "--results",
    "results",
    "--trusted-root",
    "trusted_root.json",
    "--policy",
    "release.toml",
];

/// A job, its artifact, and what is wrong with others; what docs/RESULTS.md shows of them.
pub(crate) fn run(site: &Site, platform: &Platform) -> Result<Examples, AnyError> {
    site.say(
        "The worker takes CI jobs. One builds and signs: its worker proves itself for it first",
    );
    let _daemon = daemon(site)?;
    fs::write(site.path("hello.c"), "int main(void) { return 0; }\n")?;
    let log = exec(site, platform, "1", 0)?;
    for line in [
        "identity   spiffe://demo.example/pool/linux\n",
        "repository acme/app (signed by the platform)",
    ] {
        expect(&log, line)?;
    }

    say_who_admits(site)?;
    let admitted = site.show("verifier", &ADMIT, 0)?;
    expect(&admitted, "admitted\n\nartifact sha256:")?;

    site.say("The artifact is changed after it was signed: not admitted");
    site.show("sh", &["-c", "echo a gift >>app.tar.gz"], 0)?;
    let refused = site.show("verifier", &ADMIT, 3)?;
    expect(&refused, "NOT admitted: RESULT_ARTIFACT_MISMATCH\n")?;

    site.say("A compiler is tampered with: no permit, and the job does not start");
    fs::remove_file(site.path("app.tar.gz"))?;
    site.tools.write("cc1", b"compiler proper 12.2.0 with a gift")?;
    let log = exec(site, platform, "2", 3)?;
    expect(&log, "POLICY_TOOL_NOT_ALLOWED")?;
    expect(&log, "/cc1")?;
    if site.path("app.tar.gz").exists() {
        return Err("a job ran on a worker whose compiler was changed".into());
    }
    Examples::of(site, admitted, refused)
}

/// The daemon, once it has been admitted.
fn daemon(site: &Site) -> Result<Ended, AnyError> {
    let status = site.path("output/status.json");
    // Of `attestor once`.
    fs::remove_file(&status)?;
    let is_admitted = || {
        let status = fs::read(&status).unwrap_or_default();
        let status: Option<serde_json::Value> = serde_json::from_slice(&status).ok();
        status.is_some_and(|status| status["outcome"] == "admitted")
            && site.path("output/job.sock").exists()
    };
    site.background("attestor", &["run", "--config", "attestor.toml"], is_admitted)
}

/// Runs the job, as a runner of GitHub's does; its log.
fn exec(site: &Site, platform: &Platform, run: &str, code: i32) -> Result<String, AnyError> {
    let arguments = ["exec", "--job", "github", "--token-env", "ID_TOKEN", "--out", "results"];
    let arguments = [&arguments[..], &["--", "sh", "-c", BUILD]].concat();
    site.tell(&format!("$ attestor {}", shown(&arguments)));
    let mut command = site.command("attestor", &arguments);
    for (name, value) in [
        ("GITHUB_RUN_ID", "42"),
        ("GITHUB_RUN_ATTEMPT", "1"),
        ("GITHUB_JOB", "build"),
        ("GITHUB_REPOSITORY", "acme/app"),
        ("GITHUB_SHA", COMMIT),
        ("GITHUB_WORKFLOW_REF", "acme/app/.github/workflows/ci.yml@refs/heads/main"),
        ("ID_TOKEN", &platform.token("app", run)?),
    ] {
        command.env(name, value);
    }
    let (out, err) = finish(command, &[code])?;
    site.tell(&format!("{err}{out}"));
    Ok(err)
}

fn say_who_admits(site: &Site) -> Result<(), AnyError> {
    site.say(
        "Whoever uses the artifact follows it to the TPM, offline, and accepts what it chose to",
    );
    site.show("verifier", &["results", "trusted-root", "--out", "trusted_root.json"], 0)?;
    fs::write(site.path("release.toml"), RELEASE)?;
    site.show("cat", &["release.toml"], 0)?;
    Ok(())
}
