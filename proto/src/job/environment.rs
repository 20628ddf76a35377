//! Claims out of a job's environment variables, by CI system.

use std::collections::BTreeMap;

use super::{CiSystem, JobClaim, JobClaims, JobError, Source};

/// What GitLab's custom executor puts before the names of a job's variables.
const CUSTOM_EXECUTOR_PREFIX: &str = "CUSTOM_ENV_";

/// One variable and the claim that it gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// The claim.
    pub claim: JobClaim,
    /// Name of the variable; for GitLab without the prefix of its custom executor.
    pub name: &'static str,
    /// Whether the system always sets it: without it the claims are refused.
    pub is_required: bool,
}

const fn required(claim: JobClaim, name: &'static str) -> Variable {
    Variable { claim, name, is_required: true }
}

const fn optional(claim: JobClaim, name: &'static str) -> Variable {
    Variable { claim, name, is_required: false }
}

const GITHUB: &[Variable] = &[
    required(JobClaim::Attempt, "GITHUB_RUN_ATTEMPT"),
    required(JobClaim::Commit, "GITHUB_SHA"),
    required(JobClaim::Job, "GITHUB_JOB"),
    required(JobClaim::Repository, "GITHUB_REPOSITORY"),
    required(JobClaim::RunId, "GITHUB_RUN_ID"),
    required(JobClaim::Workflow, "GITHUB_WORKFLOW_REF"),
];
const GITLAB: &[Variable] = &[
    required(JobClaim::Commit, "CI_COMMIT_SHA"),
    required(JobClaim::Job, "CI_JOB_ID"),
    required(JobClaim::Repository, "CI_PROJECT_PATH"),
    required(JobClaim::RunId, "CI_PIPELINE_ID"),
    optional(JobClaim::Workflow, "CI_CONFIG_PATH"),
];
const BUILDKITE: &[Variable] = &[
    optional(JobClaim::Attempt, "BUILDKITE_RETRY_COUNT"),
    required(JobClaim::Commit, "BUILDKITE_COMMIT"),
    required(JobClaim::Job, "BUILDKITE_JOB_ID"),
    required(JobClaim::Repository, "BUILDKITE_REPO"),
    required(JobClaim::RunId, "BUILDKITE_BUILD_ID"),
    required(JobClaim::Workflow, "BUILDKITE_PIPELINE_SLUG"),
];
const JENKINS: &[Variable] = &[
    optional(JobClaim::Commit, "GIT_COMMIT"),
    required(JobClaim::Job, "BUILD_TAG"),
    optional(JobClaim::Repository, "GIT_URL"),
    required(JobClaim::RunId, "BUILD_NUMBER"),
    required(JobClaim::Workflow, "JOB_NAME"),
];
const TEKTON: &[Variable] = &[
    optional(JobClaim::Attempt, "ASSAY_TEKTON_RETRY_COUNT"),
    optional(JobClaim::Commit, "ASSAY_TEKTON_COMMIT"),
    required(JobClaim::Job, "ASSAY_TEKTON_TASK_RUN_UID"),
    optional(JobClaim::Repository, "ASSAY_TEKTON_REPOSITORY"),
    required(JobClaim::RunId, "ASSAY_TEKTON_PIPELINE_RUN_UID"),
    optional(JobClaim::Workflow, "ASSAY_TEKTON_PIPELINE"),
];
const GENERIC: &[Variable] = &[
    optional(JobClaim::Attempt, "ASSAY_JOB_ATTEMPT"),
    optional(JobClaim::Commit, "ASSAY_JOB_COMMIT"),
    required(JobClaim::Job, "ASSAY_JOB_ID"),
    optional(JobClaim::Repository, "ASSAY_JOB_REPOSITORY"),
    required(JobClaim::RunId, "ASSAY_JOB_RUN_ID"),
    optional(JobClaim::Workflow, "ASSAY_JOB_WORKFLOW"),
];

/// The variables that are read for a CI system, and no others.
///
/// # Source
/// GitHub Actions "Variables reference"; GitLab "Predefined CI/CD variables" and "Custom executor";
/// Buildkite "Environment variables"; Jenkins "Using environment variables" and its Git plugin.
/// Tekton sets none: a task hands its context over (`$(context.pipelineRun.uid)`,
/// `$(context.taskRun.uid)`, `$(context.task.retry-count)`), as other systems do.
#[must_use]
pub const fn variables(system: CiSystem) -> &'static [Variable] {
    match system {
        CiSystem::GitHub => GITHUB,
        CiSystem::GitLab => GITLAB,
        CiSystem::Buildkite => BUILDKITE,
        CiSystem::Jenkins => JENKINS,
        CiSystem::Tekton => TEKTON,
        CiSystem::Generic => GENERIC,
    }
}

/// Claims out of a job's environment.
///
/// An optional variable that is empty is one that is not set. For GitLab, the variables of the
/// custom executor are taken where there is `CUSTOM_ENV_CI_JOB_ID`, all of them or none: without
/// their prefix, they would be the executor's own.
///
/// # Errors
/// [`JobError::Missing`] names the variable; [`JobError::Value`] names the claim.
pub fn from_environment(
    system: CiSystem,
    environment: &BTreeMap<String, String>,
) -> Result<JobClaims, JobError> {
    let is_custom = system == CiSystem::GitLab
        && environment.contains_key(&format!("{CUSTOM_EXECUTOR_PREFIX}CI_JOB_ID"));
    let prefix = if is_custom { CUSTOM_EXECUTOR_PREFIX } else { "" };
    let mut claims = Vec::new();
    for variable in variables(system) {
        let value = environment
            .get(&format!("{prefix}{}", variable.name))
            .filter(|value| !value.is_empty());
        match value {
            Some(value) => claims.push((variable.claim, value.clone(), Source::Environment)),
            None if variable.is_required => {
                return Err(JobError::Missing {
                    claim: variable.claim,
                    variable: Some(variable.name),
                });
            }
            None => {}
        }
    }
    JobClaims::new(system, claims)
}
