//! The GitHub Actions runner: Runner.Worker runs the job-started hook, the steps, those with `if: always()` whatever came before
//! them, each as a child of its own, and ends.
//!
//! # Source
//! "Running scripts before or after a job"; actions/runner, ADR 1751 and src/Runner.Worker/JobHookProvider.cs.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    time::Duration,
};

use super::{Agent, End, Ran, platform::AUDIENCE};
use crate::{cluster::AnyError, job_site::JobSite, process::Process};

/// TimeoutStopSec of systemd, by default.
const UNIT_ENDS_WITHIN: Duration = Duration::from_secs(90);

/// What of Runner.Worker matters to a hook.
const WORKER: &str = r#"#!/bin/bash
echo $$ >worker.pid
: >env.txt
export GITHUB_ENV=$PWD/env.txt
# It goes on once the process has ended and its output has: Runner.Sdk/ProcessInvoker.cs.
bash -e "$ACTIONS_RUNNER_HOOK_JOB_STARTED" 2>&1 | cat
result=${PIPESTATUS[0]}
while IFS= read -r line; do export "$line"; done <env.txt
[ "$result" -eq 0 ] && { bash -e ./step.sh; result=$?; }
# `if: always()`
bash -e ./always.sh
exit "$result"
"#;

/// Runs a job of one step, and one with `if: always()` that says "always ran".
///
/// # Errors
/// The worker cannot be started.
pub async fn run(site: &JobSite, step: &str) -> Result<Ran, AnyError> {
    run_with(site, step, None).await
}

/// As [`run`], of a job with `permissions: id-token: write` that gets this token when it asks.
///
/// # Errors
/// The worker cannot be started.
pub async fn run_with(site: &JobSite, step: &str, token: Option<&str>) -> Result<Ran, AnyError> {
    run_where(site, step, token, &[]).await
}

/// As [`run_with`], of a runner with these variables besides.
///
/// # Errors
/// The worker cannot be started.
pub async fn run_where(
    site: &JobSite,
    step: &str,
    token: Option<&str>,
    besides: &[(&str, &str)],
) -> Result<Ran, AnyError> {
    let mut agent = Agent::new(site)?;
    let worker = agent.program("worker.sh", WORKER)?;
    agent.program("step.sh", step)?;
    agent.program("always.sh", "echo always ran\n")?;
    let hooks = agent.root("usr/lib/assay/hooks/github");
    let mut command = agent.command(&worker);
    // A group stands for the unit's control group.
    command
        .process_group(0)
        .env("ACTIONS_RUNNER_HOOK_JOB_STARTED", hooks.join("job-started.sh"))
        .envs(besides.iter().copied())
        .env("CI", "true")
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_JOB", "build")
        .env("GITHUB_REPOSITORY", "acme/app")
        .env("GITHUB_RUN_ID", "42")
        .env("GITHUB_RUN_ATTEMPT", "1")
        .env("GITHUB_SHA", "5a".repeat(20))
        .env("GITHUB_WORKFLOW_REF", "acme/app/.github/workflows/ci.yml@refs/heads/main");
    if let Some(token) = token {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}/token?api-version=2.0", listener.local_addr()?);
        let token = token.to_owned();
        // Ends with its one request, or with this process.
        std::thread::spawn(move || answer(&listener, &token));
        command.env("ACTIONS_ID_TOKEN_REQUEST_URL", url);
        command.env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "hush");
    }
    let output = agent.run(command).await?;
    let end = match (output.status.code(), output.status.signal()) {
        (Some(0), _) => End::Passed,
        (Some(code), _) => End::Failed(code),
        // The listener reports a worker that is gone as a job that was lost.
        (None, _) => {
            unit_ended(&agent).await?;
            End::Refused
        }
    };
    Ok(agent.ran(end))
}

/// A unit is down, and starts again, once nothing of its control group runs.
async fn unit_ended(agent: &Agent<'_>) -> Result<(), AnyError> {
    let group = std::fs::read_to_string(agent.home.join("worker.pid"))?.trim().parse()?;
    let all_ended = async {
        while !Process::of_group(group)?.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    };
    tokio::time::timeout(UNIT_ENDS_WITHIN, all_ended).await?
}

/// Answers one request as GitHub does.
fn answer(listener: &TcpListener, token: &str) -> std::io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    let mut head = String::new();
    let mut reader = BufReader::new(stream.try_clone()?);
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    let is_right = head.starts_with(&format!("GET /token?api-version=2.0&audience={AUDIENCE} "))
        && head.contains("\r\nAuthorization: bearer hush\r\n");
    let (status, body) = match is_right {
        true => ("200 OK", format!("{{\"count\":1,\"value\":\"{token}\"}}")),
        false => ("403 Forbidden", String::new()),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// Runs the unit's start once: registration just in time, and the runner that takes one job.
///
/// # Errors
/// It cannot be started.
pub async fn register(site: &JobSite) -> Result<Ran, AnyError> {
    let mut agent = Agent::new(site)?;
    // What a job leaves in its HOME cannot be removed just so: Go keeps modules in folders that nobody may write to.
    let runner = "#!/bin/sh\necho \"the runner got $# arguments, and $ACTIONS_RUNNER_INPUT_JITCONFIG\"\ncat .env\n\
                  echo \"it has $(ls -A \"$HOME\" | wc -l) files in $HOME\"; : >\"$HOME/.netrc\"\n\
                  mkdir -p \"$HOME/go/pkg\"; : >\"$HOME/go/pkg/module\"; chmod -R a-w \"$HOME/go\"\n";
    agent.program("runner/run.sh", runner)?;
    let ask = "#!/bin/sh\ntest -S \"${SPIFFE_ENDPOINT_SOCKET#unix://}\" && echo a-jit-config\n\
               echo \"asked with $(ls -A \"$HOME\" | wc -l) files in $HOME\" >&2; : >\"$HOME/.netrc\"\n";
    let ask = agent.program("ask", ask)?;
    let mut command = agent.command(&agent.root("usr/lib/assay/hooks/github/jit-runner.sh"));
    command
        .env("ASSAY_RUNNER_DIR", agent.home.join("runner"))
        .env("ASSAY_JIT_COMMAND", ask)
        .env("STATE_DIRECTORY", &agent.home)
        .env("INVOCATION_ID", "0123456789abcdef0123456789abcdef");
    let output = agent.run(command).await?;
    let end = match output.status.code() {
        Some(0) => End::Passed,
        _ => End::Refused,
    };
    Ok(agent.ran(end))
}
