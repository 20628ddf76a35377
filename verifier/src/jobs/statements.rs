//! Attestation results of a dispatch: what the verifier says of the node, and of the job that it let start there.

use std::collections::BTreeMap;

use appraisal::verdict::MatchedTool;
use proto::{
    digest::Digest,
    job::{JobClaim, JobClaims, Source},
    spiffe::{Segment, TrustDomain},
};
use results::{
    Sha256Digest, SpiffeId, UnixTime,
    statement::{
        Claim, ClaimSource, Dispatch, JobClaims as ClaimedJob, PolicyRef, Tool, Verdict,
        VerifierId, Vsa,
    },
};

use super::Basis;
use crate::store::Permit;

/// What an attested node reached: its TPM, its boot and its tools are what golden sets in force accept.
pub(super) const NODE_ATTESTED: &str = "ASSAY_NODE_ATTESTED";
/// Version of a tool that the golden set gives none for.
const NO_VERSION: &str = "unspecified";

/// A result cannot be stated.
#[derive(Debug, thiserror::Error)]
#[error("an attestation result cannot be stated: {0}")]
pub(super) struct StatementError(String);

fn because(error: impl std::fmt::Display) -> StatementError {
    StatementError(error.to_string())
}

fn digest(digest: &Digest) -> Result<Sha256Digest, StatementError> {
    digest.to_string().strip_prefix("sha256:").unwrap_or_default().parse().map_err(because)
}

fn time(unix_s: i64) -> Result<UnixTime, StatementError> {
    UnixTime::from_unix_s(u64::try_from(unix_s).unwrap_or(0)).map_err(because)
}

fn node_id(trust_domain: &TrustDomain, node: &str) -> Result<SpiffeId, StatementError> {
    let node: Segment = node.parse().map_err(because)?;
    trust_domain.node_id(&node).to_string().parse().map_err(because)
}

/// What the verifier found about a permit's node.
///
/// # Errors
/// [`StatementError`] for a record that is not one of ours.
pub(super) fn of_the_node(
    permit: &Permit,
    basis: &Basis,
    trust_domain: &TrustDomain,
) -> Result<Vsa, StatementError> {
    let verifier = trust_domain.results_id().to_string();
    let golden_sets =
        PolicyRef { uri: format!("{verifier}/golden-sets"), digest: digest(&basis.reference)? };
    let case = PolicyRef {
        uri: format!("{verifier}/decision/{}", permit.decision_id),
        digest: digest(&basis.case)?,
    };
    let version = BTreeMap::from([("assay".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
    Ok(Vsa {
        ak_public: digest(&basis.ak_public)?,
        quote: digest(&basis.quote)?,
        node: node_id(trust_domain, &permit.new.node)?,
        verifier: VerifierId { id: verifier, version },
        time_verified: time(basis.appraised_unix_s)?,
        policy: golden_sets,
        input_attestations: vec![case],
        result: Verdict::Passed,
        levels: vec![NODE_ATTESTED.to_owned()],
    })
}

/// What the verifier says of the job that it let start: `vsa` is the digest of what it said of the node.
///
/// # Errors
/// [`StatementError`] for a record that is not one of ours.
pub(super) fn of_the_dispatch(
    permit: &Permit,
    basis: &Basis,
    vsa: Sha256Digest,
    trust_domain: &TrustDomain,
) -> Result<Dispatch, StatementError> {
    let claims = JobClaims::from_json_with_sources(&permit.new.claims).map_err(because)?;
    let claimed = claims.iter().map(|(claim, found)| {
        let source = match found.source() {
            Source::Environment => ClaimSource::Environment,
            Source::PlatformToken => ClaimSource::PlatformToken,
        };
        (claim.as_str().to_owned(), Claim { source, value: found.value().to_owned() })
    });
    Ok(Dispatch {
        job: ClaimedJob { claims: claimed.collect(), system: claims.system().to_string() },
        git_commit: claims.value(JobClaim::Commit).map(str::to_owned),
        job_key: Sha256Digest::of(&permit.new.job_key),
        quote: digest(&basis.quote)?,
        vsa,
        tools: basis.tools.iter().map(tool).collect::<Result<_, _>>()?,
        producer: trust_domain.results_id().to_string(),
        permit_id: permit.new.id.clone(),
        node: node_id(trust_domain, &permit.new.node)?,
        pool: permit.new.pool.clone(),
        expires: time(permit.new.ends_at)?,
    })
}

fn tool(tool: &MatchedTool) -> Result<Tool, StatementError> {
    Ok(Tool {
        name: tool.name.clone(),
        version: tool.version.clone().unwrap_or_else(|| NO_VERSION.to_owned()),
        purl: tool.purl.clone().unwrap_or_else(|| generic_purl(&tool.name)),
        digest: digest(&tool.digest)?,
    })
}

/// A package URL for a tool that the golden set gives none for.
///
/// # Source
/// Package URL specification, type `generic`; what is not unreserved is percent-encoded.
fn generic_purl(name: &str) -> String {
    let mut purl = String::from("pkg:generic/");
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~') {
            purl.push(char::from(byte));
        } else {
            purl.push_str(&format!("%{byte:02X}"));
        }
    }
    purl
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_without_a_package_has_a_name_of_its_own() {
        assert_eq!(generic_purl("gcc-12.2"), "pkg:generic/gcc-12.2");
        assert_eq!(generic_purl("g++ 12"), "pkg:generic/g%2B%2B%2012");
    }
}
