//! What a job that asks for a permit is taken for, before its node proved anything: its key, its claims, its platform's token.

use std::collections::BTreeMap;

use appraisal::{context::JobContext, verdict::Finding};
use proto::{
    job::{JobClaims, Source},
    permit::{JobKey, JobRequest},
    reason::ReasonCode,
};

use crate::{attestation::Verifier, service::status::chain};

/// A job that asks for a permit: what it is taken for, before its node proved anything.
#[derive(Clone, Debug)]
pub struct AskingJob {
    /// What is judged and recorded.
    pub context: JobContext,
    /// Its key.
    pub(super) key: JobKey,
    /// Issuer and identifier of its token.
    pub(super) token_id: Option<String>,
}

impl Verifier {
    /// What a job is taken for, with all that stands against it.
    pub(crate) fn judge_job(&self, request: &JobRequest, now_unix_s: i64) -> AskingJob {
        let mut findings = Vec::new();
        let mut against = |code, subject: &str, expected: &str, observed: String| {
            findings.push(Finding::new(code, subject, expected, observed));
        };
        if p256_key(&request.key).is_none() {
            let observed = request.key.digest().to_string();
            against(ReasonCode::JobKeyInvalid, "job key", "a point on P-256", observed);
        }
        let environment =
            JobClaims::from_canonical_json(&request.untrusted_claims, Source::Environment);
        if let Err(error) = &environment {
            let expected = "claims in their canonical encoding";
            against(ReasonCode::JobClaimsInvalid, "job", expected, error.to_string());
        }
        let identity = match request.untrusted_token.as_str() {
            "" => Ok(None),
            token => self.platforms().verify(token, now_unix_s).map(Some),
        };
        let merged = match (&environment, &identity) {
            (Ok(environment), Ok(identity)) => {
                platform::merge(environment, identity.as_ref()).map(Some)
            }
            _ => Ok(None),
        };
        for refusal in [identity.as_ref().err(), merged.as_ref().err()].into_iter().flatten() {
            let (expected, observed) = in_words(refusal);
            let code = ReasonCode::from_wire(refusal.code());
            let code = code.unwrap_or(ReasonCode::PlatformTokenMalformed);
            findings.push(Finding::new(code, "the job's token", expected, observed));
        }
        let identity = identity.ok().flatten();
        let claims = merged.ok().flatten().map(|claims| claims.json_with_sources());
        let claims = claims.unwrap_or_default();
        let token = identity.as_ref().map(signed_besides).unwrap_or_default();
        AskingJob {
            context: JobContext { claims, token, findings },
            key: request.key,
            token_id: identity.map(|identity| format!("{} {}", identity.issuer, identity.token_id)),
        }
    }
}

/// What the worker may know of a refused token, and what only operators do.
fn in_words(refusal: &platform::Refusal) -> (String, String) {
    match refusal {
        platform::Refusal::ClaimMismatch { claim, expected, observed } => (
            format!("{claim} {expected}, as the platform signed it"),
            format!("{claim} {observed}"),
        ),
        other => ("a token of a configured issuer for this job".to_owned(), chain(other)),
    }
}

/// What a token says that claims have no word for.
fn signed_besides(identity: &platform::PlatformIdentity) -> BTreeMap<String, String> {
    let named = [
        ("issuer", Some(identity.issuer.clone())),
        ("subject", Some(identity.subject.clone())),
        ("reference", Some(identity.reference.clone())),
        ("actor", identity.actor.clone()),
        ("environment", identity.environment.clone()),
    ];
    let other = identity.other.iter().map(|(name, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        ((*name).to_owned(), text)
    });
    let named = named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    // What has a name of its own goes before what is only passed on.
    other.chain(named).collect()
}

/// The key as the library that verifies takes it: the uncompressed point, if it is one of the curve.
fn p256_key(key: &JobKey) -> Option<p256::PublicKey> {
    use p256::pkcs8::DecodePublicKey as _;
    p256::PublicKey::from_public_key_der(key.as_der()).ok()
}

#[cfg(test)]
mod tests {
    use platform::RefusalCode;
    use proto::reason::ReasonCode;

    #[test]
    fn every_refusal_of_a_platform_has_its_reason_code() {
        for code in RefusalCode::ALL {
            assert!(ReasonCode::from_wire(code.as_str()).is_some(), "{}", code.as_str());
        }
    }
}
