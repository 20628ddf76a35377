//! What a relying party demands of an artifact.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Sha256Digest, SpiffeId,
    refusal::{Code, Refusal, one_of, quoted, within},
    statement::{ClaimSource, Dispatch, LEVEL_PREFIX, Vsa},
    verify::VerifiedSignature,
};

/// Most entries of any list.
pub const MAX_POLICY_ENTRIES: usize = 1024;
/// Longest age of a VSA that can be allowed, seconds: a node certificate's longest life.
const MAX_VSA_AGE_S: u64 = 24 * 3600;

/// A policy of admission. Every list is exact: texts are compared byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdmitPolicy {
    /// SPIFFE IDs of jobs that may sign, such as `spiffe://TD/pool/release`. Not empty.
    pub job_identities: Vec<SpiffeId>,
    /// SPIFFE IDs that may sign dispatches and VSAs: the verifier's. Not empty, and none of the
    /// jobs': a job must not vouch for itself.
    pub results_identities: Vec<SpiffeId>,
    /// Pools. Not empty.
    pub pools: Vec<String>,
    /// How old a VSA may be when the job that rests on it is dispatched, seconds, at most a day.
    pub max_vsa_age_s: u64,
    /// Systems that run jobs; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub systems: Option<Vec<String>>,
    /// Values of the claim `repository`; absent: any, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repositories: Option<Vec<String>>,
    /// Values of the claim `workflow`; absent: any, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflows: Option<Vec<String>>,
    /// Claims that must be there, out of a token that the platform signed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platform_claims: Vec<String>,
    /// Who may stamp artifacts: URIs of authorities, as `trusted_root.json` has them. Absent: the authority of the signer's
    /// trust domain alone, which stamps for jobs whose permit stands. Others stamp for everybody, for as long as a job's
    /// certificate is valid, also after its permit ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_timestamp_authorities: Option<Vec<String>>,
    /// Levels that the VSA must state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<String>,
    /// Tools that must have matched, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tools: BTreeMap<String, RequiredTool>,
}

/// A tool that must have matched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequiredTool {
    /// Digests that are accepted; absent: whatever the golden set accepted. Not empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Vec<Sha256Digest>>,
}

impl AdmitPolicy {
    /// Refuses a policy that accepts nothing, or what it should not. [`super::admit`] asks this first.
    ///
    /// # Errors
    /// `ADMIT_POLICY_INVALID`, `RESULT_TOO_LARGE`.
    pub fn check(&self) -> Result<(), Refusal> {
        let lists = [
            ("job_identities", Some(self.job_identities.len())),
            ("results_identities", Some(self.results_identities.len())),
            ("pools", Some(self.pools.len())),
            ("systems", self.systems.as_ref().map(Vec::len)),
            ("repositories", self.repositories.as_ref().map(Vec::len)),
            ("workflows", self.workflows.as_ref().map(Vec::len)),
            (
                "artifact_timestamp_authorities",
                self.artifact_timestamp_authorities.as_ref().map(Vec::len),
            ),
        ];
        for (name, count) in lists {
            // An empty list accepts nothing: whoever means "any" leaves it out.
            if count == Some(0) {
                return Err(invalid(name, "at least one entry", "none"));
            }
            within(name, count.unwrap_or_default(), MAX_POLICY_ENTRIES, "entries")?;
        }
        within("platform_claims", self.platform_claims.len(), MAX_POLICY_ENTRIES, "entries")?;
        within("levels", self.levels.len(), MAX_POLICY_ENTRIES, "entries")?;
        within("tools", self.tools.len(), MAX_POLICY_ENTRIES, "entries")?;
        if let Some(level) = self.levels.iter().find(|level| !level.starts_with(LEVEL_PREFIX)) {
            return Err(invalid("levels", &format!("{LEVEL_PREFIX}…"), &quoted(level)));
        }
        if let Some((name, _)) =
            self.tools.iter().find(|(_, tool)| tool.sha256.as_ref().is_some_and(Vec::is_empty))
        {
            return Err(invalid(&format!("tools.{name}"), "at least one digest", "none"));
        }
        let is_both = |id: &&SpiffeId| self.job_identities.contains(id);
        if let Some(id) = self.results_identities.iter().find(is_both) {
            let expected = "none of job_identities";
            return Err(invalid("results_identities", expected, id.as_str()));
        }
        if self.max_vsa_age_s > MAX_VSA_AGE_S {
            let found = self.max_vsa_age_s.to_string();
            return Err(invalid("max_vsa_age_s", &format!("at most {MAX_VSA_AGE_S}"), &found));
        }
        Ok(())
    }

    /// Whether the policy accepts who stamped the artifact's signature.
    pub(super) fn accept_authority(&self, signature: &VerifiedSignature) -> Result<(), Refusal> {
        let own = [signature.identity().trust_domain_id().to_owned()];
        let accepted = self.artifact_timestamp_authorities.as_deref().unwrap_or(&own);
        let found = signature.stamped_by();
        if accepted.iter().any(|accepted| accepted == found) {
            return Ok(());
        }
        let expected = one_of(accepted.iter().map(String::as_str));
        let code = Code::AdmitTimestampAuthorityNotAccepted;
        Err(Refusal::new(code, "artifact: time stamp authority", expected, quoted(found)))
    }

    /// All that the statements say and the policy does not accept.
    pub(super) fn refusals(&self, dispatch: &Dispatch, vsa: &Vsa) -> Vec<Refusal> {
        let job = &dispatch.job;
        let pools = Some(&self.pools);
        let system = Some(job.system.as_str());
        let lists = [
            accept_one(Code::AdmitPoolNotAccepted, "pool", pools, Some(&dispatch.pool)),
            accept_one(Code::AdmitSystemNotAccepted, "system", self.systems.as_ref(), system),
            accept_one(
                Code::AdmitRepositoryNotAccepted,
                "repository",
                self.repositories.as_ref(),
                job.value("repository"),
            ),
            accept_one(
                Code::AdmitWorkflowNotAccepted,
                "workflow",
                self.workflows.as_ref(),
                job.value("workflow"),
            ),
        ];
        let claims = self.platform_claims.iter().map(|name| {
            let Some(claim) = job.claims.get(name) else {
                return Err(demand(Code::AdmitClaimMissing, name, "a claim", "none"));
            };
            if claim.source != ClaimSource::PlatformToken {
                let (expected, found) = (ClaimSource::PlatformToken.name(), claim.source.name());
                return Err(demand(Code::AdmitClaimSource, name, expected, found));
            }
            Ok(())
        });
        let levels = self.levels.iter().filter(|level| !vsa.levels.contains(level)).map(|level| {
            let found = if vsa.levels.is_empty() { "none".into() } else { vsa.levels.join(", ") };
            Err(demand(Code::AdmitLevelMissing, "verifiedLevels", level, &found))
        });
        let tools = self.tools.iter().map(|(name, tool)| tool.accept(name, dispatch));
        let all = lists.into_iter().chain(claims).chain(levels).chain(tools);
        all.filter_map(Result::err).collect()
    }
}

impl RequiredTool {
    fn accept(&self, name: &str, dispatch: &Dispatch) -> Result<(), Refusal> {
        let Some(found) = dispatch.tools.iter().find(|tool| tool.name == name) else {
            return Err(demand(Code::AdmitToolMissing, name, "a tool that matched", "none"));
        };
        let Some(accepted) = self.sha256.as_ref().filter(|a| !a.contains(&found.digest)) else {
            return Ok(());
        };
        let accepted: Vec<_> = accepted.iter().map(ToString::to_string).collect();
        let expected = one_of(accepted.iter().map(String::as_str));
        let found = found.digest.to_string();
        Err(demand(Code::AdmitToolDigestNotAccepted, name, &expected, &found))
    }
}

/// Refuses a value that is not in the list, and none where there is a list.
fn accept_one(
    code: Code,
    name: &str,
    accepted: Option<&Vec<String>>,
    found: Option<&str>,
) -> Result<(), Refusal> {
    let Some(accepted) = accepted else { return Ok(()) };
    if found.is_some_and(|found| accepted.iter().any(|accepted| accepted == found)) {
        return Ok(());
    }
    let expected = one_of(accepted.iter().map(String::as_str));
    Err(demand(code, name, &expected, &found.map_or_else(|| "none".to_owned(), quoted)))
}

fn demand(code: Code, subject: &str, expected: &str, observed: &str) -> Refusal {
    Refusal::new(code, format!("dispatch: {subject}"), expected, observed)
}

fn invalid(at: &str, expected: &str, observed: &str) -> Refusal {
    Refusal::new(Code::AdmitPolicyInvalid, format!("policy: {at}"), expected, observed)
}
