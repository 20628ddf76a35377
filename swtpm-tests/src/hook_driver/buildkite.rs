//! Buildkite's agent: it writes the job's variables to two files, runs pre-bootstrap with its own environment and those files'
//! names, rejects the job on any failure, and else starts the bootstrap with the job's variables.
//!
//! # Source
//! "Buildkite agent hooks", "Securing your Buildkite agent" (strict checks using a pre-bootstrap hook); buildkite/agent,
//! agent/job_runner.go.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, process::Command};

use super::{Agent, End, Ran, unit_values, write_program};
use crate::{cluster::AnyError, job_site::JobSite};

/// Identifier of the job.
pub(super) const JOB: &str = "018ffd7a-3b1c-4c6e-9d1e-0123456789ab";

/// What of `buildkite-agent` matters: `oidc request-token`, `annotate`, and `bootstrap`: the command and then the agent's pre-exit hook.
const BOOTSTRAP: &str = r#"#!/bin/bash
if [ "$1 $2" = "oidc request-token" ]; then
    [ "$BUILDKITE_AGENT_ACCESS_TOKEN" = hush ] && [ -s "$HOME/token" ] && cat "$HOME/token"
    exit
fi
if [ "$1" = annotate ]; then
    [ "$BUILDKITE_AGENT_ACCESS_TOKEN" = hush ] && cat >>"$HOME/annotations"
    exit
fi
[ "$1" = bootstrap ] || exit 64
sh -ec "$BUILDKITE_COMMAND"
code=$?
. "$BUILDKITE_HOOKS_PATH/pre-exit"
exit "$code"
"#;

/// Runs a job of this command; `between` happens after pre-bootstrap, before the bootstrap, and gets the folder of permits.
///
/// # Errors
/// A program cannot be started.
pub async fn run(
    site: &JobSite,
    script: &str,
    between: impl AsyncFnOnce(&Path) -> Result<(), AnyError>,
) -> Result<Ran, AnyError> {
    run_where(site, script, None, &[], between).await
}

/// As [`run`], where Buildkite gives this token when it is asked.
///
/// # Errors
/// A program cannot be started.
pub async fn run_with(
    site: &JobSite,
    script: &str,
    token: Option<&str>,
    between: impl AsyncFnOnce(&Path) -> Result<(), AnyError>,
) -> Result<Ran, AnyError> {
    run_where(site, script, token, &[], between).await
}

/// As [`run_with`], where the job's author set these variables too. A name in lower case is the agent's own, `bootstrap_script`: what
/// its unit says in place of the installed one.
///
/// # Errors
/// A program cannot be started.
pub async fn run_where(
    site: &JobSite,
    script: &str,
    token: Option<&str>,
    besides: &[(&str, &str)],
    between: impl AsyncFnOnce(&Path) -> Result<(), AnyError>,
) -> Result<Ran, AnyError> {
    let mut agent = Agent::new(site)?;
    agent.program("token", token.unwrap_or_default())?;
    let permits = agent.root("run/assay-buildkite");
    super::make_folder(&permits)?;
    write_program(&agent.root("usr/bin/buildkite-agent"), BOOTSTRAP)?;
    let hooks = agent.root("etc/buildkite-agent/hooks");
    let drop_in = agent.root("etc/systemd/system/buildkite-agent.service.d/50-assay.conf");
    // The last word of each of its variables.
    let mut environment: BTreeMap<String, String> = unit_values(&drop_in, "Environment")?
        .iter()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let (of_the_agent, of_the_author): (Vec<_>, Vec<_>) =
        besides.iter().copied().partition(|(name, _)| *name == "bootstrap_script");
    for (_, path) in of_the_agent {
        environment.insert("BUILDKITE_BOOTSTRAP_SCRIPT_PATH".to_owned(), path.to_owned());
    }
    let bootstrap = environment.get("BUILDKITE_BOOTSTRAP_SCRIPT_PATH").ok_or("no bootstrap")?;
    let mut job: BTreeMap<&str, &str> = BTreeMap::from([
        ("BUILDKITE", "true"),
        ("BUILDKITE_BUILD_ID", "018ffd7a-0000-4c6e-9d1e-0123456789ab"),
        ("BUILDKITE_COMMAND", script),
        ("BUILDKITE_COMMIT", "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"),
        ("BUILDKITE_JOB_ID", JOB),
        ("BUILDKITE_MESSAGE", "two lines\nof \"message\" $(touch sourced)"),
        ("BUILDKITE_PIPELINE_SLUG", "app"),
        ("BUILDKITE_REPO", "git@example.org:acme/app.git"),
        ("BUILDKITE_RETRY_COUNT", "0"),
    ]);
    job.extend(of_the_author);
    let (text, json) = (agent.home.join("job-env"), agent.home.join("job-env.json"));
    std::fs::write(&text, quoted(&job)?)?;
    std::fs::write(&json, serde_json::to_vec(&job)?)?;
    let files = |command: &mut Command| {
        command.env("BUILDKITE_ENV_FILE", &text).env("BUILDKITE_ENV_JSON_FILE", &json);
    };
    let mut hook = agent.command(&hooks.join("pre-bootstrap"));
    hook.envs(&environment)
        .env("BUILDKITE_JOB_ID", JOB)
        .env("BUILDKITE_AGENT_ACCESS_TOKEN", "hush");
    files(&mut hook);
    let annotations = agent.home.join("annotations");
    let _ = std::fs::remove_file(&annotations);
    let passed = agent.run(hook).await?.status.success();
    // What it said is in the agent's log, not in the job's.
    agent.log.clear();
    if !passed {
        agent.log = "pre-bootstrap hook rejected this job, see the buildkite-agent logs".to_owned();
        agent.log.push_str(&std::fs::read_to_string(&annotations).unwrap_or_default());
        return Ok(agent.ran(End::Refused));
    }
    between(&permits).await?;
    let mut command = agent.command(Path::new(bootstrap));
    command.envs(&environment).envs(&job).env("BUILDKITE_HOOKS_PATH", &hooks);
    files(&mut command);
    let output = agent.run(command).await?;
    if agent.home.join("sourced").exists() {
        return Err("a variable was run as a command".into());
    }
    let end = match output.status.code() {
        Some(0) => End::Passed,
        // Buildkite has no code for "not the job's fault"; the wrapper's own is 3, and its log says why.
        Some(3) => End::Refused,
        Some(code) => End::Failed(code),
        None => End::Refused,
    };
    Ok(agent.ran(end))
}

/// Runs the bootstrap alone, for a job that no pre-bootstrap was run for, with these variables of the author's.
///
/// # Errors
/// It cannot be started.
pub async fn bootstrap_alone(site: &JobSite, besides: &[(&str, &str)]) -> Result<Ran, AnyError> {
    let mut agent = Agent::new(site)?;
    write_program(&agent.root("usr/bin/buildkite-agent"), BOOTSTRAP)?;
    let mut command = agent.command(&agent.root("usr/lib/assay/hooks/buildkite/bootstrap.sh"));
    command.env("BUILDKITE_JOB_ID", JOB).env("BUILDKITE_COMMAND", "echo here is the job");
    command.envs(besides.iter().copied());
    let output = agent.run(command).await?;
    let end = if output.status.code() == Some(3) { End::Refused } else { End::Passed };
    Ok(agent.ran(end))
}

/// `NAME=%q`, as the agent writes it.
fn quoted(job: &BTreeMap<&str, &str>) -> Result<String, AnyError> {
    let mut text = String::new();
    for (name, value) in job {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        writeln!(text, "{name}=\"{value}\"")?;
    }
    // Names without a value, of newer agents.
    text.push_str("BUILDKITE_AGENT_ACCESS_TOKEN\n");
    Ok(text)
}
