//! What must have booted, as a person writes it.

use proto::{
    digest::{Digest, HashAlg},
    eventlog::LogDigest,
};
use serde::{Deserialize, Serialize};

use crate::boot_log::ProblemCode;

/// What must have booted, read from bytes of the firmware's event log that the quoted PCRs vouch for.
///
/// With this section the log is needed, and every oddity in it that `tolerate` does not name is refused. An
/// empty list is not judged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct BootRules {
    /// Whether Secure Boot must be on (`true`) or off (`false`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<bool>,
    /// Codes of oddities that are accepted, for example `EXIT_BOOT_SERVICES_MISSING`: see docs/EVIDENCE.md.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerate: Vec<ProblemCode>,
    /// Boot applications (PCR 4), by Authenticode digest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub applications: Vec<AcceptedDigest>,
    /// Who may have signed what booted: digests of the entries of db or MOK that authorised an image (PCR 7).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signers: Vec<AcceptedDigest>,
    /// Kernel command lines: options (PCR 12) and sections of unified kernel images (PCR 11). What else is in PCR 12 has to
    /// be listed by its digest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command_lines: Vec<AcceptedCommandLine>,
    /// Sections of a unified kernel image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sections: Vec<SectionRule>,
    /// Keys that Secure Boot may trust.
    #[serde(skip_serializing_if = "KeyRules::is_empty")]
    pub keys: KeyRules,
}

impl BootRules {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An accepted digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AcceptedDigest {
    /// `sha256:…`; of an Authenticode image, of a certificate, of a section.
    #[cfg_attr(feature = "schema", schemars(with = "crate::policy::json_schema::LogDigestText"))]
    pub digest: LogDigest,
    /// What it is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
}

/// An accepted kernel command line: its text, its shape or its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, untagged)]
pub enum AcceptedCommandLine {
    /// Exactly this text, without the terminator.
    Text {
        /// The text.
        text: String,
    },
    /// A text of this shape, from its first character to its last: `*` stands, in the value of an option, for a run of
    /// characters without a space.
    Pattern {
        /// The pattern.
        pattern: String,
    },
    /// The digest of the measured bytes, where the log has no text (a section of a unified kernel image).
    Digest(AcceptedDigest),
}

/// Accepted contents of one section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SectionRule {
    /// `.linux`, `.initrd`, `.cmdline`, `.osrel`, …
    pub name: String,
    /// At least one.
    pub accept: Vec<AcceptedDigest>,
}

/// Keys that Secure Boot may trust, by digest of the entry; an empty list is not judged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct KeyRules {
    /// Every entry of PK must be listed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pk: Vec<AcceptedDigest>,
    /// Every entry of KEK must be listed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kek: Vec<AcceptedDigest>,
    /// Every entry of db must be listed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub db: Vec<AcceptedDigest>,
    /// Each of these must be in dbx; more may be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dbx: Vec<AcceptedDigest>,
}

impl KeyRules {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A PCR that is judged event by event, for one whose value differs between good boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EventRule {
    /// `sha256`, `sha384` or `sha512`.
    #[cfg_attr(feature = "schema", schemars(with = "crate::policy::json_schema::Bank"))]
    pub bank: HashAlg,
    /// 0–15, but not 10 (IMA) nor the tool PCR.
    pub index: u8,
    /// Why it is judged so, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Every event of the PCR must be one of these, in any order.
    pub accept: Vec<AcceptedEvent>,
}

/// An event that may be in a PCR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AcceptedEvent {
    /// Hexadecimal, as long as the bank's digest.
    pub digest: String,
    /// What it is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// Refuse a boot without this event.
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub required: bool,
}

/// One event of the boot that left an accepted PCR value.
///
/// With the events of each accepted value, a denial can name the first event that differs. They decide nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RecordedEvent {
    /// Hexadecimal, as long as the bank's digest.
    pub digest: String,
    /// What it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub what: String,
}

/// The kernel's IMA list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ImaSection {
    /// Manifest of allowed files, by its SHA-256; imported with `verifier ima import`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "schema",
        schemars(with = "Option<crate::policy::json_schema::DigestText>")
    )]
    pub manifest: Option<Digest>,
    /// Keys that sign files, PEM.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<ImaKey>,
    /// What of the list is judged, and how.
    #[serde(default)]
    pub rules: crate::ima::ImaRules,
}

/// A key that signs files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ImaKey {
    /// For findings.
    pub name: String,
    /// Certificate or public key, PEM.
    pub pem: String,
}
