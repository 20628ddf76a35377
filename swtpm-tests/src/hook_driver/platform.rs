//! A platform that signs tokens for its jobs: an issuer of the test's, and the verifier's configuration that believes it.

use attestor::hooks::HookSystem;
use jose::{
    jwk::{JwkSet, KeyUse},
    sign::Es256Key,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::buildkite;
use crate::cluster::AnyError;

/// Who tokens are for.
pub const AUDIENCE: &str = "https://assay.test.example";
const ISSUER: &str = "https://token.test.example";
/// The revision that every driver's job builds.
pub const COMMIT: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

/// A platform with one key.
#[derive(Debug)]
pub struct Platform {
    folder: TempDir,
    system: HookSystem,
    issuer: String,
    key: Es256Key,
}

impl Platform {
    /// A platform of this system's.
    ///
    /// # Errors
    /// The file system.
    pub fn new(system: HookSystem) -> Result<Self, AnyError> {
        Self::of(system, ISSUER)
    }

    /// GitHub's, of another issuer.
    ///
    /// # Errors
    /// The file system.
    pub fn at(issuer: &str) -> Result<Self, AnyError> {
        Self::of(HookSystem::GitHub, issuer)
    }

    fn of(system: HookSystem, issuer: &str) -> Result<Self, AnyError> {
        let (folder, key) = (tempfile::tempdir()?, Es256Key::generate()?);
        let set = JwkSet::new(vec![key.jwk(KeyUse::Signature)?])?.to_json();
        let keys = folder.path().join("keys.json");
        std::fs::write(&keys, set)?;
        let text = format!(
            "[[platform]]\nsystem = \"{system}\"\nissuer = \"{issuer}\"\naudience = \"{AUDIENCE}\"\njwks_file = \
             \"{}\"\nalgorithms = [\"ES256\"]\n",
            keys.display()
        );
        std::fs::write(folder.path().join("platforms.toml"), text)?;
        Ok(Self { folder, system, issuer: issuer.to_owned(), key })
    }

    /// Lines of the verifier's `[jobs]` that believe it.
    #[must_use]
    pub fn verifier_jobs(&self) -> String {
        format!("platforms = \"{}\"\n", self.folder.path().join("platforms.toml").display())
    }

    /// A token for the driver's job, if it were one of this project: `app` is what it is of.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn token(&self, project: &str, id: &str) -> Result<String, AnyError> {
        let now = i64::try_from(attestor::daemon::now_unix_s())?;
        let repository = format!("acme/{project}");
        let mut claims = match self.system {
            HookSystem::GitHub => json!({
                "sub": format!("repo:{repository}:ref:refs/heads/main"), "actor": "ada",
                "ref": "refs/heads/main", "repository": repository, "sha": COMMIT, "run_id": "42",
                "run_attempt": "1",
                "workflow_ref": format!("{repository}/.github/workflows/ci.yml@refs/heads/main"),
            }),
            HookSystem::GitLab => json!({
                "sub": format!("project_path:{repository}:ref_type:branch:ref:main"),
                "ci_config_ref_uri":
                    format!("gitlab.example.org/{repository}//.gitlab-ci.yml@refs/heads/main"),
                "job_id": "4711", "pipeline_id": "42", "project_path": repository, "ref": "main",
                "ref_type": "branch", "sha": COMMIT, "user_login": "ada",
            }),
            HookSystem::Buildkite => json!({
                "sub": format!("organization:acme:pipeline:{project}:ref:refs/heads/main:commit:{COMMIT}:step:"),
                "build_branch": "main", "build_commit": COMMIT, "build_number": 5,
                "build_source": "ui", "job_id": buildkite::JOB, "organization_slug": "acme",
                "pipeline_slug": project,
            }),
            other => return Err(format!("{other} signs no tokens").into()),
        };
        for (name, value) in [
            ("iss", json!(self.issuer)),
            ("aud", json!(AUDIENCE)),
            ("jti", json!(id)),
            ("iat", json!(now)),
            ("nbf", json!(now - 5)),
            ("exp", json!(now + 300)),
        ] {
            claims[name] = value;
        }
        let Value::Object(claims) = claims else { return Err("no claims".into()) };
        Ok(jose::sign::token(&self.key, claims)?)
    }
}
