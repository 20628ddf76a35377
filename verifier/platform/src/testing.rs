//! Issuers and tokens for tests.

use jose::{
    jwk::JwkSet,
    testing::{NOW, Signer},
};
use proto::job::CiSystem;
use serde_json::{Value, json};

use crate::config::{Issuer, PlatformConfig};

pub(crate) const AUDIENCE: &str = "https://assay.example.org";
pub(crate) const COMMIT: &str = "9f3182061f1e2cca4702c368cbc039b7dc9d4485";

pub(crate) fn config(system: CiSystem) -> PlatformConfig {
    PlatformConfig::new(system, AUDIENCE)
}

pub(crate) fn issuer(system: CiSystem) -> Issuer {
    Issuer::try_from(config(system)).expect("an issuer")
}

pub(crate) fn keys_of(keys: &[(&str, &Signer)]) -> JwkSet {
    JwkSet::new(keys.iter().map(|(id, signer)| signer.jwk(id)).collect()).expect("a set")
}

/// Claims as the system's documentation shows them.
pub(crate) fn claims(system: CiSystem) -> Value {
    let mut out = match system {
        CiSystem::GitHub => json!({
            "iss": "https://token.actions.githubusercontent.com",
            "sub": "repo:acme/app:ref:refs/heads/main",
            "actor": "ada",
            "actor_id": "1001",
            "base_ref": "",
            "check_run_id": "90000001",
            "event_name": "push",
            "head_ref": "",
            "job_workflow_ref": "acme/shared/.github/workflows/build.yml@refs/heads/main",
            "ref": "refs/heads/main",
            "ref_protected": "true",
            "ref_type": "branch",
            "repository": "acme/app",
            "repository_id": "424242",
            "repository_owner": "acme",
            "repository_visibility": "private",
            "run_attempt": "1",
            "run_id": "22259804324",
            "run_number": "42",
            "runner_environment": "self-hosted",
            "sha": COMMIT,
            "workflow": "ci",
            "workflow_ref": "acme/app/.github/workflows/ci.yml@refs/heads/main",
        }),
        CiSystem::GitLab => json!({
            "iss": "https://gitlab.com",
            "sub": "project_path:acme/app:ref_type:branch:ref:main",
            "ci_config_ref_uri": "gitlab.com/acme/app//.gitlab-ci.yml@refs/heads/main",
            "ci_config_sha": COMMIT,
            "environment": "production",
            "job_id": "8222997048",
            "namespace_path": "acme",
            "pipeline_id": "1519139981",
            "pipeline_source": "push",
            "project_id": "46573356",
            "project_path": "acme/app",
            "ref": "main",
            "ref_path": "refs/heads/main",
            "ref_protected": "true",
            "ref_type": "branch",
            "runner_environment": "self-hosted",
            "runner_id": 1,
            "sha": COMMIT,
            "user_login": "ada",
        }),
        _ => json!({
            "iss": "https://agent.buildkite.com",
            "sub": format!("organization:acme:pipeline:app:ref:refs/heads/main:commit:{COMMIT}:step:"),
            "agent_id": "01945ecf-8bcf-40a6-9d70-a765db9a0928",
            "build_branch": "main",
            "build_commit": COMMIT,
            "build_number": 5,
            "build_source": "ui",
            "build_tag": null,
            "job_id": "01945ecf-80f0-41e8-9b83-a2970a9305a1",
            "organization_slug": "acme",
            "pipeline_slug": "app",
            "runner_environment": "self-hosted",
            "step_key": null,
        }),
    };
    for (name, value) in [
        ("aud", json!(AUDIENCE)),
        ("jti", json!("t-1")),
        ("iat", json!(NOW)),
        ("nbf", json!(NOW - 5)),
        ("exp", json!(NOW + 300)),
    ] {
        out[name] = value;
    }
    out
}
