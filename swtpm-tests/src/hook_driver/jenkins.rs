//! A Jenkins agent's unit: systemd runs ExecStartPre, and ExecStart only if that passed. And a build's step `sh` on any agent.
//!
//! # Source
//! systemd.service(5); Jenkins, "Launching inbound agents", "Using environment variables" of pipelines, and the step `sh`.

use std::path::Path;

use super::{Agent, End, Ran, unit_values};
use crate::{cluster::AnyError, job_site::JobSite};

/// Starts the unit once; `java` is a script that does `script`. Jobs are given `wait_s` seconds in place of the unit's.
///
/// # Errors
/// A program cannot be started.
pub async fn run(site: &JobSite, script: &str, wait_s: u64) -> Result<Ran, AnyError> {
    let mut agent = Agent::new(site)?;
    let java = agent.program("java", &format!("#!/bin/sh\necho \"java $*\"\n{script}\n"))?;
    agent.program("secret", "hush\n")?;
    let unit = agent.root("etc/systemd/system/assay-jenkins-agent.service");
    let steps = [unit_values(&unit, "ExecStartPre")?, unit_values(&unit, "ExecStart")?].concat();
    assert_eq!(steps.len(), 2, "one of each");
    for step in steps {
        let step = step.replace("--wait 600", &format!("--wait {wait_s}"));
        let mut words = step.split_whitespace();
        let mut command = agent.command(Path::new(words.next().ok_or("empty")?));
        command
            .args(words)
            .env("INVOCATION_ID", "0123456789abcdef0123456789abcdef")
            .env("JENKINS_AGENT_JAR", agent.home.join("agent.jar"))
            .env("JENKINS_AGENT_NAME", "w1")
            .env("JENKINS_JAVA", &java)
            .env("JENKINS_SECRET_FILE", agent.home.join("secret"))
            .env("JENKINS_URL", "https://jenkins.example.org/")
            .env("JENKINS_WORK_DIR", &agent.home);
        let output = agent.run(command).await?;
        match output.status.code() {
            Some(0) => {}
            Some(code @ (1 | 3)) if !agent.log.contains("java ") || code == 3 => {
                return Ok(agent.ran(End::Refused));
            }
            code => return Ok(agent.ran(End::Failed(code.unwrap_or(-1)))),
        }
    }
    Ok(agent.ran(End::Passed))
}

/// A pipeline's step `sh` on an agent that runs under no permit: `-xe`, with the variables of the build.
///
/// # Errors
/// It cannot be started.
pub async fn step(site: &JobSite, script: &str) -> Result<Ran, AnyError> {
    let mut agent = Agent::new(site)?;
    let file = agent.program("script.sh", script)?;
    let mut command = agent.command(Path::new("/bin/sh"));
    command.arg("-xe").arg(file).envs(BUILD);
    let output = agent.run(command).await?;
    // Any failure of a step fails its build.
    Ok(agent.ran(End::of(&output)))
}

/// What Jenkins gives a build of a pipeline that has checked its sources out.
pub const BUILD: [(&str, &str); 5] = [
    ("BUILD_NUMBER", "42"),
    ("BUILD_TAG", "jenkins-acme-app-42"),
    ("GIT_COMMIT", "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"),
    ("GIT_URL", "https://git.example.org/acme/app.git"),
    ("JOB_NAME", "acme/app"),
];
