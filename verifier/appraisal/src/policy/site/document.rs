//! A site policy as a person writes it.

use proto::eventlog::LogDigest;
use serde::{Deserialize, Serialize};

/// Value of `schema` in a policy of this version.
pub const SCHEMA: &str = "assay.policy/v1";

/// A site policy: rules that every node of its pools must meet, beside the golden set. TOML.
///
/// It only narrows: nothing in it admits what another check refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SitePolicyDocument {
    /// Always `assay.policy/v1`.
    pub schema: String,
    /// Name; lower-case letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Rises with every change.
    pub version: u64,
    /// Pools whose nodes it judges; every pool where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Kernels that the site knows: what `boot.kernel_version` stands on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernel: Vec<KernelDocument>,
    /// Rules; each must be true. Without any it judges nobody, and lifts what the version before it demanded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rule: Vec<RuleDocument>,
}

/// A kernel that the site knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KernelDocument {
    /// Its version.
    pub version: String,
    /// Authenticode digests of its image, or digests of its section `.linux`.
    #[cfg_attr(
        feature = "schema",
        schemars(with = "Vec<crate::policy::json_schema::LogDigestText>")
    )]
    pub digests: Vec<LogDigest>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RuleDocument {
    /// Name; as the policy's.
    pub name: String,
    /// What it means and what to do, for people.
    pub message: String,
    /// CEL; must be true.
    pub expr: String,
    /// When it is asked.
    #[serde(default, skip_serializing_if = "RuleScope::is_always")]
    pub at: RuleScope,
}

/// When a rule is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum RuleScope {
    /// Whenever a node is judged, also for a job.
    #[default]
    Always,
    /// Only where a job asks for a permit: the rule may read `job`.
    Job,
}

impl RuleScope {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls takes a reference")]
    fn is_always(&self) -> bool {
        *self == Self::Always
    }
}
