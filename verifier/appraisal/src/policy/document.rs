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
pub const SCHEMA: &str = "assay.golden/v0";

/// A golden set: what the nodes of one pool are expected to be. TOML.
///
/// Every list narrows: the mandatory checks are code and cannot be written away here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenDocument {
    /// Always `assay.golden/v0`.
    pub schema: String,
    /// Name of the set; lower-case letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Pool whose nodes it judges.
    pub pool: String,
    /// Rises with every change; an active version is never replaced by a lower one.
    pub version: u64,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Which TPMs.
    #[serde(default, skip_serializing_if = "TpmRules::is_empty")]
    pub tpm: TpmRules,
    /// What must have booted.
    #[serde(default, skip_serializing_if = "BootRules::is_empty")]
    pub boot: BootRules,
    /// Accepted PCR values.
    #[serde(default)]
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
}

/// Which TPMs are accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[serde(deny_unknown_fields)]
pub struct PcrRule {
    /// `sha256` or `sha384`.
    pub bank: HashAlg,
    /// 0–23, but none that a running system can reset (16, 23), nor 10 (IMA), nor the tool PCR.
    pub index: u8,
    /// At least one.
    pub accept: Vec<AcceptedValue>,
}

/// One accepted PCR value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptedValue {
    /// Hexadecimal, as long as the bank's digest.
    pub value: String,
    /// Where the value comes from: node, date, reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The events that led to it, in their order: they name what differs, and decide nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<RecordedEvent>,
}

/// Rules for the tool set as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolSetRules {
    /// Refuse tools that the set does not name.
    #[serde(default, skip_serializing_if = "is_false")]
    pub closed: bool,
    /// Tool digests that deny wherever they stood in the boot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Digest>,
    /// Values that the tool PCR may have before the first tool event, where firmware extends it (shim extends 14);
    /// without any, only its reset value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub start: Vec<Digest>,
}

impl ToolSetRules {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Accepted states of one tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[serde(deny_unknown_fields)]
pub struct AcceptedTool {
    /// Tool digest, `sha256:…`, as `attestor measure` prints it.
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
