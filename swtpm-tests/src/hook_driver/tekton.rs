//! Tekton's part: it fills a StepAction's parameters in, puts its script into a file, and runs that with its environment.
//!
//! # Source
//! Tekton, "StepActions" and "Tasks" (running scripts within steps).

use super::{Agent, End, Ran};
use crate::{cluster::AnyError, job_site::JobSite};

/// Runs the StepAction with this `script`.
///
/// # Errors
/// The StepAction cannot be read or its script not started.
pub async fn run(site: &JobSite, script: &str) -> Result<Ran, AnyError> {
    let mut agent = Agent::new(site)?;
    let file = agent.root("usr/lib/assay/hooks/tekton/stepaction.yaml");
    let yaml = std::fs::read_to_string(file)?;
    let parameters = [
        ("script", script),
        ("task-run-uid", "task-run-1"),
        ("pipeline-run-uid", "pipeline-run-1"),
        ("retry-count", "0"),
        ("pipeline", ""),
        ("repository", "acme/app"),
        ("commit", ""),
    ];
    // No parameter is named in a script: it would be run.
    let (head, step) = yaml.split_once("  script: |\n").ok_or("no script")?;
    if step.contains("$(params.") {
        return Err("a parameter stands in the script".into());
    }
    let step: Vec<&str> = step.lines().map(|line| line.trim_start()).collect();
    let step = agent.program("step", &step.join("\n"))?;
    let mut command = agent.command(&step);
    let (_, environment) = head.split_once("  env:\n").ok_or("no environment")?;
    let lines: Vec<&str> = environment.lines().map(str::trim).collect();
    for pair in lines.windows(2) {
        if let [name, value] = pair
            && let Some(name) = name.strip_prefix("- name: ")
            && let Some(value) = value.strip_prefix("value: $(params.")
        {
            let wanted = value.trim_end_matches(')');
            let given = parameters.iter().find(|(name, _)| *name == wanted);
            command.env(name, given.ok_or("a parameter that is not declared")?.1);
        }
    }
    let output = agent.run(command).await?;
    let end = match output.status.code() {
        Some(0) => End::Passed,
        // Any other than 0 fails the task, and its other steps are skipped.
        Some(3) => End::Refused,
        Some(code) => End::Failed(code),
        None => End::Refused,
    };
    Ok(agent.ran(end))
}
