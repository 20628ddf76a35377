//! What a platform signed about a job.

mod claims;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jose::{
    AudienceRule, ClaimRules,
    jwk::{JwkSet, KeyUse},
    jws::{JwsError, KeyRules, UnverifiedToken},
};
use proto::job::{CiSystem, JobClaim};
use serde_json::Value;

pub(crate) use self::claims::environment_form;
use crate::{config::Issuer, platforms::malformed, refusal::Refusal};

/// How far an issuer's clock may be from ours, seconds.
pub const LEEWAY_S: u32 = 60;

/// What an issuer that is believed signed about one job.
///
/// # Proves
/// The holder of one of the issuer's keys signed these claims, for our audience, and they were in
/// force when they were judged.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PlatformIdentity {
    /// The CI system.
    pub system: CiSystem,
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
    /// `OWNER/NAME` or the path of a project; Buildkite's tokens do not have it.
    pub repository: Option<String>,
    /// Branch or tag; full (`refs/heads/main`) except of GitLab.
    pub reference: String,
    /// The revision: 40 or 64 hexadecimal digits.
    pub commit: String,
    /// The definition that the run follows: GitHub's `workflow_ref`, GitLab's `ci_config_ref_uri`,
    /// Buildkite's pipeline.
    pub workflow: Option<String>,
    /// The run: GitHub's run, GitLab's pipeline, the number of Buildkite's build.
    pub run_id: String,
    /// Which attempt at the run this is; GitHub alone says.
    pub attempt: Option<String>,
    /// The platform's name for the job: GitHub's check run, where it says.
    pub job_id: Option<String>,
    /// Who started it.
    pub actor: Option<String>,
    /// The deployment environment.
    pub environment: Option<String>,
    /// `jti`.
    pub token_id: String,
    /// `exp`.
    pub expires_unix_s: i64,
    /// The key that signed.
    pub key_id: String,
    /// Other claims that a policy may ask about: texts, whole numbers and truth values, as they were
    /// signed.
    pub other: BTreeMap<&'static str, Value>,
}

impl PlatformIdentity {
    /// The claims of a job that the token makes in the words of the job's environment, and that can
    /// thus be held against it.
    #[must_use]
    pub fn job_claims(&self) -> BTreeMap<JobClaim, String> {
        claims::comparable(self)
    }
}

/// Judges a token by these keys, which are the issuer's.
///
/// # Errors
/// [`Refusal`].
pub fn verify(
    token: &str,
    issuer: &Issuer,
    keys: &JwkSet,
    now_unix_s: i64,
) -> Result<PlatformIdentity, Refusal> {
    judge(UnverifiedToken::parse(token).map_err(malformed)?, issuer, keys, now_unix_s)
}

pub(crate) fn judge(
    token: UnverifiedToken,
    issuer: &Issuer,
    keys: &JwkSet,
    now_unix_s: i64,
) -> Result<PlatformIdentity, Refusal> {
    let key_id = token.untrusted_key_id().to_owned();
    let name = || issuer.issuer().to_owned();
    let rules = KeyRules { algorithms: issuer.algorithms(), key_use: KeyUse::Signature };
    let token = token.verify(keys, &rules).map_err(|error| match error {
        JwsError::AlgorithmNotAllowed(_) => Refusal::AlgorithmNotAllowed { issuer: name() },
        JwsError::KeyUnknown | JwsError::KeyUnfit => Refusal::KeyUnknown { issuer: name(), key_id },
        JwsError::SignatureInvalid => Refusal::SignatureInvalid { issuer: name() },
        other => malformed(other),
    })?;
    // Which keys were asked followed from `iss` before it was verified: now it is.
    let named = token.claims().required_text("iss")?;
    if named != issuer.issuer() {
        return Err(Refusal::IssuerUnknown(named.to_owned()));
    }
    let rules = ClaimRules {
        audience: AudienceRule::Only(issuer.audience()),
        leeway_s: LEEWAY_S,
        max_lifetime_s: issuer.max_lifetime_s(),
    };
    claims::identity(issuer, &token.current_at(&rules, now_unix_s)?)
}
