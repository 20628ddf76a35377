//! GitLab Runner's custom executor: config, prepare, a run of each stage's script, cleanup; the job's variables under the prefix
//! CUSTOM_ENV_, and exit codes that tell a failed build from a failed worker.
//!
//! # Source
//! "The Custom executor", sections "Stages" and "Error handling".

use std::process::Command;

use super::{Agent, End, Ran};
use crate::{cluster::AnyError, job_site::JobSite};

const BUILD_FAILURE: i32 = 1;
const SYSTEM_FAILURE: i32 = 2;

/// The runner's own stages begin with the author's variables.
const UNDER_PERMIT: &str = "test -S \"${SPIFFE_ENDPOINT_SOCKET#unix://}\"\n";
const UPLOAD: &str = "test -S \"${SPIFFE_ENDPOINT_SOCKET#unix://}\"; echo uploaded\n";

/// Variables of a job.
const VARIABLES: [(&str, &str); 5] = [
    ("CI_JOB_ID", "4711"),
    ("CI_PIPELINE_ID", "42"),
    ("CI_PROJECT_PATH", "acme/app"),
    ("CI_COMMIT_SHA", "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"),
    ("CI_CONFIG_PATH", ".gitlab-ci.yml"),
];

/// Runs a job whose `script` is this; `between` happens after prepare, before the first stage.
///
/// # Errors
/// A script cannot be started.
pub async fn run(
    site: &JobSite,
    script: &str,
    between: impl AsyncFnOnce(&str) -> Result<(), AnyError>,
) -> Result<Ran, AnyError> {
    run_with(site, script, None, between).await
}

/// As [`run`], of a job whose `id_tokens` give this one as ASSAY_ID_TOKEN.
///
/// # Errors
/// A script cannot be started.
pub async fn run_with(
    site: &JobSite,
    script: &str,
    token: Option<&str>,
    between: impl AsyncFnOnce(&str) -> Result<(), AnyError>,
) -> Result<Ran, AnyError> {
    let mut agent = Agent::new(site)?;
    agent.token = token.map(str::to_owned);
    super::make_folder(&agent.root("run/assay-gitlab"))?;
    let config = command(&agent, "config.sh");
    let output = agent.run(config).await?;
    if !output.status.success() {
        return Ok(agent.ran(End::Refused));
    }
    let told: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let folder = told["job_env"]["ASSAY_HOOK_DIR"].as_str().ok_or("no folder")?.to_owned();
    let end = stages(&mut agent, &folder, script, between).await?;
    // Whatever came before.
    let mut cleanup = command(&agent, "cleanup.sh");
    cleanup.env("ASSAY_HOOK_DIR", &folder);
    agent.run(cleanup).await?;
    if std::path::Path::new(&folder).exists() {
        return Err("cleanup left the job's folder".into());
    }
    Ok(agent.ran(end))
}

async fn stages(
    agent: &mut Agent<'_>,
    folder: &str,
    script: &str,
    between: impl AsyncFnOnce(&str) -> Result<(), AnyError>,
) -> Result<End, AnyError> {
    let mut prepare = command(agent, "prepare.sh");
    prepare.env("ASSAY_HOOK_DIR", folder);
    let prepared = agent.run(prepare).await?;
    if !prepared.status.success() {
        return end_of(prepared.status.code(), None);
    }
    between(folder).await?;
    let mut end = End::Passed;
    let codes = agent.home.join("build-code");
    for (stage, text) in [
        ("prepare_script", "echo Running on w1\n"),
        ("get_sources", "echo sources\n"),
        ("restore_cache", UNDER_PERMIT),
        ("step_script", script),
        ("after_script", "echo after_script ran\n"),
        ("upload_artifacts_on_success", UPLOAD),
        ("upload_artifacts_on_failure", "echo uploaded of a failure\n"),
        ("cleanup_file_variables", "echo variables cleaned\n"),
    ] {
        // After a failure the runner goes on with the author's after_script, artifacts for a failure, and what cleans up.
        let is_wanted = match stage {
            "after_script" | "cleanup_file_variables" => true,
            "upload_artifacts_on_failure" => end != End::Passed,
            _ => end == End::Passed,
        };
        if !is_wanted {
            continue;
        }
        let file = agent.program(&format!("{stage}.sh"), &format!("set -eo pipefail\n{text}"))?;
        let _ = std::fs::remove_file(&codes);
        let mut run = command(agent, "run.sh");
        run.arg(&file).arg(stage);
        run.env("ASSAY_HOOK_DIR", folder).env("BUILD_EXIT_CODE_FILE", &codes);
        let output = agent.run(run).await?;
        let of_the_build = std::fs::read_to_string(&codes).ok();
        let this = end_of(output.status.code(), of_the_build.as_deref())?;
        if end == End::Passed {
            end = this;
        }
    }
    Ok(end)
}

/// What the runner makes of an exit code.
fn end_of(code: Option<i32>, of_the_build: Option<&str>) -> Result<End, AnyError> {
    Ok(match code {
        Some(0) => End::Passed,
        Some(BUILD_FAILURE) => match of_the_build {
            Some(text) => End::Failed(text.trim().parse()?),
            None => End::Failed(BUILD_FAILURE),
        },
        Some(SYSTEM_FAILURE) => End::Refused,
        other => {
            return Err(format!("unknown Custom executor executable exit code {other:?}").into());
        }
    })
}

fn command(agent: &Agent<'_>, script: &str) -> Command {
    let mut command = agent.command(&agent.root("usr/lib/assay/hooks/gitlab").join(script));
    command
        .env("BUILD_FAILURE_EXIT_CODE", BUILD_FAILURE.to_string())
        .env("SYSTEM_FAILURE_EXIT_CODE", SYSTEM_FAILURE.to_string())
        .env("JOB_RESPONSE_FILE", agent.home.join("response.json"));
    for (name, value) in VARIABLES {
        command.env(format!("CUSTOM_ENV_{name}"), value);
    }
    if let Some(token) = &agent.token {
        command.env("CUSTOM_ENV_ASSAY_ID_TOKEN", token);
    }
    command
}
