//! What the platforms call their claims.
//!
//! # Source
//! GitHub "OpenID Connect reference" (custom claims); GitLab "OpenID Connect (OIDC) authentication
//! using ID tokens" (token payload); Buildkite "buildkite-agent oidc" (claims).

use std::collections::BTreeMap;

use jose::{Claims, CurrentToken};
use proto::job::{CiSystem, JobClaim, MAX_CLAIM_BYTES};
use serde_json::Value;

use super::PlatformIdentity;
use crate::{config::Issuer, refusal::Refusal};

/// Claims that a policy may ask about.
const GITHUB: &[&str] = &[
    "actor_id",
    "base_ref",
    "event_name",
    "head_ref",
    "job_workflow_ref",
    "job_workflow_sha",
    "ref_protected",
    "ref_type",
    "repository_id",
    "repository_owner",
    "repository_owner_id",
    "repository_visibility",
    "run_number",
    "runner_environment",
    "workflow",
    "workflow_sha",
];
const GITLAB: &[&str] = &[
    "ci_config_sha",
    "deployment_tier",
    "environment_protected",
    "job_project_id",
    "namespace_id",
    "namespace_path",
    "pipeline_source",
    "project_id",
    "project_path",
    "project_visibility",
    "ref_path",
    "ref_protected",
    "ref_type",
    "runner_environment",
    "runner_id",
    "user_id",
];
const BUILDKITE: &[&str] = &[
    "agent_id",
    "build_number",
    "build_source",
    "cluster_id",
    "organization_id",
    "organization_slug",
    "pipeline_id",
    "pipeline_slug",
    "queue_id",
    "runner_environment",
    "step_key",
];

/// Reads claims by the names that the issuer's system gives them.
pub(super) fn identity(issuer: &Issuer, token: &CurrentToken) -> Result<PlatformIdentity, Refusal> {
    let read = Reader(token.claims());
    let mut out = PlatformIdentity {
        system: issuer.system(),
        issuer: issuer.issuer().to_owned(),
        subject: read.text("sub")?,
        repository: None,
        reference: String::new(),
        commit: String::new(),
        workflow: None,
        run_id: String::new(),
        attempt: None,
        job_id: None,
        actor: None,
        environment: None,
        token_id: read.text("jti")?,
        expires_unix_s: token.expires_unix_s(),
        key_id: token.key_id().to_owned(),
        other: BTreeMap::new(),
    };
    let other = match issuer.system() {
        CiSystem::GitHub => {
            out.repository = Some(read.text("repository")?);
            out.reference = read.text("ref")?;
            out.commit = read.claim("sha", JobClaim::Commit)?;
            out.workflow = Some(read.text("workflow_ref")?);
            out.run_id = read.text("run_id")?;
            out.attempt = Some(read.claim("run_attempt", JobClaim::Attempt)?);
            out.job_id = read.optional("check_run_id")?;
            out.actor = read.optional("actor")?;
            out.environment = read.optional("environment")?;
            GITHUB
        }
        CiSystem::GitLab => {
            // `project_path` is the source project for a merge request from a fork, since 18.4 the
            // project that runs the job has a claim of its own.
            let project = read.text("project_path")?;
            out.repository = Some(read.optional("job_project_path")?.unwrap_or(project));
            out.reference = read.text("ref")?;
            out.commit = read.claim("sha", JobClaim::Commit)?;
            out.workflow = read.optional("ci_config_ref_uri")?;
            out.run_id = read.text("pipeline_id")?;
            out.job_id = Some(read.text("job_id")?);
            out.actor = read.optional("user_login")?;
            out.environment = read.optional("environment")?;
            GITLAB
        }
        CiSystem::Buildkite => {
            read.text("organization_slug")?;
            out.workflow = Some(read.text("pipeline_slug")?);
            out.reference = match read.optional("build_tag")? {
                Some(tag) => format!("refs/tags/{tag}"),
                None => format!("refs/heads/{}", read.text("build_branch")?),
            };
            out.commit = read.claim("build_commit", JobClaim::Commit)?;
            out.run_id = read.number("build_number")?;
            out.job_id = Some(read.text("job_id")?);
            BUILDKITE
        }
        // No such issuer can be configured.
        CiSystem::Generic | CiSystem::Jenkins | CiSystem::Tekton => {
            return Err(Refusal::IssuerUnknown(out.issuer));
        }
    };
    for name in other {
        if let Some(value) = read.other(name)? {
            out.other.insert(name, value);
        }
    }
    Ok(out)
}

struct Reader<'a>(&'a Claims);

impl Reader<'_> {
    /// Text that is not empty, bounded, without control characters.
    fn text(&self, name: &'static str) -> Result<String, Refusal> {
        self.optional(name)?.ok_or(Refusal::ClaimMissing(name))
    }

    /// As [`Self::text`]; `null` and the empty text say that there is none, as these platforms do.
    fn optional(&self, name: &'static str) -> Result<Option<String>, Refusal> {
        match self.0.raw(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) if is_text(text) => Ok(Some(text.clone())),
            Some(_) => Err(Refusal::TokenClaimMalformed(name)),
        }
    }

    /// Text in the form of a job's claim.
    fn claim(&self, name: &'static str, claim: JobClaim) -> Result<String, Refusal> {
        let text = self.text(name)?;
        if claim.allows(&text) { Ok(text) } else { Err(Refusal::TokenClaimMalformed(name)) }
    }

    /// A number that is not negative, as text.
    fn number(&self, name: &'static str) -> Result<String, Refusal> {
        match self.0.raw(name) {
            None | Some(Value::Null) => Err(Refusal::ClaimMissing(name)),
            Some(value) => value
                .as_u64()
                .map(|number| number.to_string())
                .ok_or(Refusal::TokenClaimMalformed(name)),
        }
    }

    /// Text, a whole number or a truth value; `null` says that there is none.
    fn other(&self, name: &'static str) -> Result<Option<Value>, Refusal> {
        let Some(value) = self.0.raw(name) else { return Ok(None) };
        match value {
            Value::Null => Ok(None),
            Value::Bool(_) => Ok(Some(value.clone())),
            Value::Number(number) if !number.is_f64() => Ok(Some(value.clone())),
            Value::String(text) if text.is_empty() || is_text(text) => Ok(Some(value.clone())),
            _ => Err(Refusal::TokenClaimMalformed(name)),
        }
    }
}

fn is_text(text: &str) -> bool {
    text.len() <= MAX_CLAIM_BYTES && !text.chars().any(char::is_control)
}

/// See [`PlatformIdentity::job_claims`].
pub(super) fn comparable(identity: &PlatformIdentity) -> BTreeMap<JobClaim, String> {
    let mut out = BTreeMap::from([(JobClaim::Commit, identity.commit.clone())]);
    let mut add = |claim, value: Option<String>| out.extend(value.map(|value| (claim, value)));
    match identity.system {
        CiSystem::GitHub => {
            // GITHUB_JOB is the job's key in the workflow, which no claim has.
            add(JobClaim::Attempt, identity.attempt.clone());
            add(JobClaim::Repository, identity.repository.clone());
            add(JobClaim::RunId, Some(identity.run_id.clone()));
            add(JobClaim::Workflow, identity.workflow.clone());
        }
        CiSystem::GitLab => {
            add(JobClaim::Job, identity.job_id.clone());
            add(JobClaim::Repository, identity.repository.clone());
            add(JobClaim::RunId, Some(identity.run_id.clone()));
            let path = identity
                .workflow
                .as_deref()
                .and_then(|uri| gitlab_config_path(uri, identity.repository.as_deref()?));
            add(JobClaim::Workflow, path);
        }
        CiSystem::Buildkite => {
            // The environment has the build's UUID and the repository's URL, the token neither.
            add(JobClaim::Job, identity.job_id.clone());
            add(JobClaim::Workflow, identity.workflow.clone());
        }
        CiSystem::Generic | CiSystem::Jenkins | CiSystem::Tekton => {}
    }
    out
}

/// `HOST/PROJECT//PATH@refs/…` in the form of `CI_CONFIG_PATH`: `PATH`, or `PATH@PROJECT` where the
/// definition is another project's.
fn gitlab_config_path(uri: &str, repository: &str) -> Option<String> {
    let (home, rest) = uri.split_once("//")?;
    let (path, _) = rest.rsplit_once("@refs/")?;
    if home.strip_suffix(repository).is_some_and(|host| host.ends_with('/')) {
        return Some(path.to_owned());
    }
    let (_, project) = home.split_once('/')?;
    Some(format!("{path}@{project}"))
}

/// A claim of the environment in the form that the token's has: `CI_CONFIG_PATH` may name the
/// revision of another project, which the token does after its own fashion.
pub(crate) fn environment_form(system: CiSystem, claim: JobClaim, value: &str) -> &str {
    if system != CiSystem::GitLab || claim != JobClaim::Workflow {
        return value;
    }
    let Some(at) = value.rfind('@') else { return value };
    let end = value.get(at..).and_then(|project| project.find(':'));
    end.and_then(|end| value.get(..at.saturating_add(end))).unwrap_or(value)
}
