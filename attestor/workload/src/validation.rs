//! Who validates JWT-SVIDs for `ValidateJWTSVID`.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jose::svid::{SvidRules, validate};
use proto::spiffe::SpiffeId;
use serde_json::{Map, Value};

use crate::identity::{Bundles, JobId};

/// A token to validate for one of a job's processes.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct JwtToValidate<'a> {
    /// The job that asks.
    pub job: &'a JobId,
    /// Not validated: 1 to [`crate::Limits::token_bytes`] bytes from the job.
    pub untrusted_token: &'a str,
    /// Must be among the token's audiences; 1 to [`proto::limits::MAX_AUDIENCE_BYTES`] bytes.
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

/// Validates by the bundles that the job was given, and nothing else.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct BundleValidator;

/// How far the issuer's clock may be from ours, seconds: both are kept by NTP.
const LEEWAY_S: u32 = 10;

impl BundleValidator {
    /// A validator.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl JwtValidator for BundleValidator {
    fn validate(&self, request: &JwtToValidate<'_>) -> Result<ValidJwt, JwtRejection> {
        let now = i64::try_from(request.now_unix_s).unwrap_or(i64::MAX);
        let mut refused = JwtRejection {
            code: "SVID_TRUST_DOMAIN_MISMATCH",
            what: "no bundle of the job is of the token's trust domain".to_owned(),
        };
        // One bundle, as the registry admits no more; the token does not choose whose keys are asked.
        for (trust_domain, bundle) in request.bundles {
            let rules = SvidRules { trust_domain, audience: request.audience, leeway_s: LEEWAY_S };
            match validate(request.untrusted_token, bundle, &rules, now) {
                Ok(svid) => {
                    let claims = claims(request.untrusted_token).ok_or_else(|| JwtRejection {
                        code: "JWT_CLAIMS_UNREADABLE",
                        what: "the claims cannot be read".to_owned(),
                    })?;
                    return Ok(ValidJwt { spiffe_id: svid.id().clone(), claims });
                }
                Err(error) => {
                    refused = JwtRejection { code: error.code(), what: with_causes(&error) };
                }
            }
        }
        Err(refused)
    }
}

/// The claims of a token that was validated just now: its signature covers these bytes.
fn claims(token: &str) -> Option<Map<String, Value>> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    jose::json::object(&payload).ok()
}

/// An error with what caused it, on one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
