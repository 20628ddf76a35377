//! The golden set as a person writes it.

use std::collections::BTreeMap;

mod boot;

use proto::digest::{Digest, HashAlg};
use serde::{Deserialize, Serialize};

pub use self::boot::{
    AcceptedCommandLine, AcceptedDigest, AcceptedEvent, BootRules, EventRule, ImaKey, ImaSection,
    KeyRules, RecordedEvent, SectionRule,
};

/// Value of `schema` in a golden set of this version.
pub const SCHEMA: &str = "assay.golden/v1";

/// A golden set: what the nodes of one pool are expected to be, or a part that other sets include. TOML.
///
/// Every rule narrows: the mandatory checks are code and cannot be written away here. A node is accepted if it meets the
/// rules of the set, those of every included part, and, where a document has groups, all rules of one of its groups. Each of
/// them is judged by itself, so that none can widen another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GoldenDocument {
    /// Always `assay.golden/v1`.
    pub schema: String,
    /// Name of the set; lower-case letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Pool whose nodes it judges; a part, for other sets to include, has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Rises with every change; a name's lower version is never taken after a higher one.
    pub version: u64,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Names of parts (platform, operating system, tools) that must be met too, each in one of its active versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Which TPMs.
    #[serde(default, skip_serializing_if = "TpmRules::is_empty")]
    pub tpm: TpmRules,
    /// What must have booted.
    #[serde(default, skip_serializing_if = "BootRules::is_empty")]
    pub boot: BootRules,
    /// Accepted PCR values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pcr: Vec<PcrRule>,
    /// PCRs that are judged event by event.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventRule>,
    /// What the kernel may have run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ima: Option<ImaSection>,
    /// Rules for the tool set as a whole.
    #[serde(default, skip_serializing_if = "ToolSetRules::is_default")]
    pub tools: ToolSetRules,
    /// Accepted tools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool: Vec<ToolRule>,
    /// Alternatives: a node must meet every rule of one of them. Old kernel with old initrd, new with new, never a mix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group: Vec<Group>,
}

/// What belongs together: one of the alternatives of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Name, unique in the set; as a set's.
    pub name: String,
    /// What it is and where it comes from, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What must have booted.
    #[serde(default, skip_serializing_if = "BootRules::is_empty")]
    pub boot: BootRules,
    /// Accepted PCR values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pcr: Vec<PcrRule>,
    /// PCRs that are judged event by event.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventRule>,
    /// What the kernel may have run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ima: Option<ImaSection>,
    /// Accepted tools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool: Vec<ToolRule>,
}

/// The rules of a set or of one of its groups, wherever they stand.
#[derive(Clone, Copy, Debug)]
pub struct RulesOf<'d> {
    /// Which TPMs; a group says nothing of them.
    pub tpm: Option<&'d TpmRules>,
    /// What must have booted.
    pub boot: &'d BootRules,
    /// Accepted PCR values.
    pub pcr: &'d [PcrRule],
    /// PCRs that are judged event by event.
    pub events: &'d [EventRule],
    /// What the kernel may have run.
    pub ima: Option<&'d ImaSection>,
    /// Rules for the tool set as a whole; a group has none.
    pub tools: Option<&'d ToolSetRules>,
    /// Accepted tools.
    pub tool: &'d [ToolRule],
}

impl GoldenDocument {
    /// A document without any rule.
    #[must_use]
    pub fn new(name: String, pool: Option<String>, version: u64) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            name,
            pool,
            version,
            description: None,
            include: Vec::new(),
            tpm: TpmRules::default(),
            boot: BootRules::default(),
            pcr: Vec::new(),
            events: Vec::new(),
            ima: None,
            tools: ToolSetRules::default(),
            tool: Vec::new(),
            group: Vec::new(),
        }
    }

    /// The rules that hold whatever the groups say.
    #[must_use]
    pub fn rules(&self) -> RulesOf<'_> {
        RulesOf {
            tpm: Some(&self.tpm),
            boot: &self.boot,
            pcr: &self.pcr,
            events: &self.events,
            ima: self.ima.as_ref(),
            tools: Some(&self.tools),
            tool: &self.tool,
        }
    }
}

impl Group {
    /// The rules of this alternative.
    #[must_use]
    pub fn rules(&self) -> RulesOf<'_> {
        RulesOf {
            tpm: None,
            boot: &self.boot,
            pcr: &self.pcr,
            events: &self.events,
            ima: self.ima.as_ref(),
            tools: None,
            tool: &self.tool,
        }
    }
}

impl RulesOf<'_> {
    /// Whether there is no rule at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tpm.is_none_or(TpmRules::is_empty)
            && self.boot.is_empty()
            && self.pcr.is_empty()
            && self.events.is_empty()
            && self.ima.is_none()
            && self.tools.is_none_or(ToolSetRules::is_default)
            && self.tool.is_empty()
    }
}

/// Which TPMs are accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TpmRules {
    /// `TPMManufacturer` values of EK certificates, for example `id:49465800`; empty accepts any
    /// manufacturer whose roots were imported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manufacturers: Vec<String>,
    /// Least firmware version by manufacturer (or `*`), 16 hexadecimal digits as `nodes show` prints it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub firmware_floor: BTreeMap<String, String>,
    /// Refuse quotes whose TPM clock is not safe.
    #[serde(default, skip_serializing_if = "is_false")]
    pub require_safe_clock: bool,
}

impl TpmRules {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Accepted values of one PCR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PcrRule {
    /// `sha256`, `sha384` or `sha512`.
    #[cfg_attr(feature = "schema", schemars(with = "crate::policy::json_schema::Bank"))]
    pub bank: HashAlg,
    /// 0–23, but none that a running system can reset (16, 23), nor 10 (IMA), nor the tool PCR.
    pub index: u8,
    /// At least one.
    pub accept: Vec<AcceptedValue>,
}

/// One accepted PCR value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AcceptedValue {
    /// Hexadecimal, as long as the bank's digest.
    pub value: String,
    /// Where the value comes from: the node and its decision, or the artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Who put it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When, as RFC 3339 writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// The events that led to it, in their order: they name what differs, and decide nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<RecordedEvent>,
}

/// Rules for the tool set as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ToolSetRules {
    /// Refuse tools that the set does not name.
    #[serde(default, skip_serializing_if = "is_false")]
    pub closed: bool,
    /// Tool digests that deny wherever they stood in the boot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<crate::policy::json_schema::DigestText>"))]
    pub deny: Vec<Digest>,
    /// Values that the tool PCR may have before the first tool event, where firmware extends it (shim extends 14);
    /// without any, only its reset value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<crate::policy::json_schema::DigestText>"))]
    pub start: Vec<Digest>,
}

impl ToolSetRules {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Accepted states of one tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ToolRule {
    /// Name in the workers' tool lists.
    pub name: String,
    /// Whether a node without the tool is denied; `true` unless said otherwise.
    #[serde(default = "yes")]
    pub required: bool,
    /// At least one.
    pub accept: Vec<AcceptedTool>,
}

/// One accepted state of a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AcceptedTool {
    /// Tool digest, `sha256:…`, as `attestor measure` prints it.
    #[cfg_attr(feature = "schema", schemars(with = "crate::policy::json_schema::DigestText"))]
    pub digest: Digest,
    /// For people and for results; the digest decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Package URL, for people and for results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purl: Option<String>,
    /// Where the digest comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Path to `sha256:…`, or to `-> target` for a link: lets a denial name the file that differs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_false(value: &bool) -> bool {
    !*value
}
