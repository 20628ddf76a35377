//! Who validates JWT-SVIDs for `ValidateJWTSVID`.

use serde_json::{Map, Value};

use crate::{
    identity::{Bundles, JobId},
    spiffe_id::SpiffeId,
};

/// A token to validate for one of a job's processes.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct JwtToValidate<'a> {
    /// The job that asks.
    pub job: &'a JobId,
    /// Not validated: 1 to [`crate::Limits::token_bytes`] bytes from the job.
    pub untrusted_token: &'a str,
    /// Must be among the token's audiences; 1 to [`crate::Limits::audience_bytes`] bytes.
    pub audience: &'a str,
    /// What the job may verify with.
    pub bundles: &'a Bundles,
    /// The time to judge at.
    pub now_unix_s: u64,
}

/// Without the token.
impl std::fmt::Debug for JwtToValidate<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JwtToValidate")
            .field("job", &self.job)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

/// What a valid token says.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidJwt {
    /// Its subject.
    pub spiffe_id: SpiffeId,
    /// All of its claims.
    pub claims: Map<String, Value>,
}

/// Why a token is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {what}")]
pub struct JwtRejection {
    /// A stable code.
    pub code: &'static str,
    /// What is wrong, for the job; nothing of the token itself.
    pub what: String,
}

/// Validates JWT-SVIDs: signature by a key of the subject's trust domain's bundle, form, time and
/// audience, as "The JWT SPIFFE Verifiable Identity Document" demands. Without I/O.
pub trait JwtValidator: Send + Sync + 'static {
    /// Validates one token.
    ///
    /// # Errors
    /// [`JwtRejection`] for whatever is not proved.
    fn validate(&self, request: &JwtToValidate<'_>) -> Result<ValidJwt, JwtRejection>;
}
