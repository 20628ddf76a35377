//! What the worker claims about a job, held against what its platform signed.

#[cfg(test)]
mod tests;

use proto::job::{Claim, JobClaim, JobClaims, Source};

use crate::{
    identity::{PlatformIdentity, environment_form},
    refusal::Refusal,
};

/// The claims of the environment, with those that the token also makes marked as the platform's, and
/// those that only the token makes added.
///
/// Without a token they are the environment's, every one. The result's digest differs from the
/// worker's where the token adds a claim: hold the quote against the claims that the worker sent.
///
/// # Errors
/// [`Refusal::ClaimMismatch`] for the first claim, in the order of the encoding, that the two make
/// differently.
pub fn merge(
    environment: &JobClaims,
    identity: Option<&PlatformIdentity>,
) -> Result<JobClaims, Refusal> {
    let Some(identity) = identity else { return Ok(environment.clone()) };
    if environment.system() != identity.system {
        return Err(Refusal::ClaimMismatch {
            claim: "system",
            expected: identity.system.to_string(),
            observed: environment.system().to_string(),
        });
    }
    let mut signed = identity.job_claims();
    let mut merged = Vec::new();
    for claim in JobClaim::ALL {
        match (signed.remove(&claim), environment.claim(claim).map(Claim::value)) {
            (Some(expected), Some(observed)) => {
                if environment_form(environment.system(), claim, observed) != expected {
                    return Err(Refusal::ClaimMismatch {
                        claim: claim.as_str(),
                        expected,
                        observed: observed.to_owned(),
                    });
                }
                merged.push((claim, expected, Source::PlatformToken));
            }
            (Some(expected), None) => merged.push((claim, expected, Source::PlatformToken)),
            (None, Some(observed)) => {
                merged.push((claim, observed.to_owned(), Source::Environment));
            }
            (None, None) => {}
        }
    }
    // The environment's claims were good, and those of the token are bounded as they are.
    JobClaims::new(environment.system(), merged).map_err(|error| match error {
        proto::job::JobError::Value { claim } => Refusal::TokenClaimMalformed(claim.as_str()),
        _ => Refusal::TokenClaimMalformed("system"),
    })
}
