//! What rules may read: every field, its type, who says it, when it is absent. docs/POLICY.md has the same table.

use std::fmt;

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Int,
    Text,
    List(&'static Type),
    Map(&'static Type),
    Record(&'static [Field]),
}

/// Who says what a field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The verifier's own record.
    Inventory,
    /// How the EK was verified, and its certificate.
    Endorsement,
    /// Signed by the TPM.
    Quote,
    /// Firmware's log and systemd's, replayed to the quote; only from bytes that a digest covers.
    BootLog,
    /// The tool log, replayed to the quote: what the attestor measured.
    ToolLog,
    /// The kernel's list, replayed to the quote.
    ImaList,
    /// Digests that the policy itself names.
    Policy,
    /// Nobody vouches for it: the worker says so.
    Claimed,
    /// A token that the job's CI system signed.
    Token,
}

/// A field of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Type,
    pub(super) source: Source,
    pub(super) what: &'static str,
    /// When it is absent; `None` if never, where its record is there.
    pub(super) absent: Option<&'static str>,
    /// It is a version, of numbers with dots between them: `version_at_least` takes it.
    pub(super) is_version: bool,
}

/// What rules read of a node.
pub(super) const INPUT: Type = Type::Record(&NODE_INPUT);
/// What rules read where a job asks for a permit: that, and the job.
pub(super) const JOB_INPUT: Type = Type::Record(&{
    let [node, ek, tpm, pcrs, boot, tools, ima] = NODE_INPUT;
    let absent = Some("no job asks for a permit");
    [node, ek, tpm, pcrs, boot, tools, ima, record("job", JOB, Source::Claimed, "The job.", absent)]
});

const NODE_INPUT: [Field; 7] = [
    record("node", NODE, Source::Inventory, "The inventory's record.", None),
    record("ek", EK, Source::Endorsement, "The endorsement key.", None),
    record("tpm", TPM, Source::Quote, "The TPM.", None),
    record("pcrs", PCRS, Source::Quote, "Quoted PCRs.", None),
    record("boot", BOOT, Source::BootLog, "The boot.", Some("no log leads to the quote")),
    field(
        "tools",
        Type::Map(&Type::Record(TOOL)),
        Source::ToolLog,
        "Latest state of each tool of this boot, by name.",
        None,
    ),
    record(
        "ima",
        IMA,
        Source::ImaList,
        "The kernel's list of files.",
        Some("the golden set does not judge it"),
    ),
];

const JOB: &[Field] = &[
    text("system", Source::Claimed, "CI system.", None),
    field(
        "claims",
        Type::Map(&Type::Text),
        Source::Claimed,
        "What is known of the job, by name: `run_id`, `job`, `attempt`, `repository`, `commit`, `workflow`.",
        None,
    ),
    field(
        "sources",
        Type::Map(&Type::Text),
        Source::Token,
        "Where each claim comes from: `platform_token` (signed, and the environment says the same) or `environment`.",
        None,
    ),
    field(
        "token",
        Type::Map(&Type::Text),
        Source::Token,
        "What the CI system signed besides, by name: `issuer`, `subject`, `reference`, and what its tokens have.",
        Some("the job has no token"),
    ),
];

const NODE: &[Field] = &[
    text("name", Source::Inventory, "Name.", None),
    text("pool", Source::Inventory, "Pool.", None),
];

const EK: &[Field] = &[
    text("digest", Source::Endorsement, "`sha256:…` of its public key.", None),
    text("trust", Source::Endorsement, "`certificate` or `allow-listed`.", None),
    text("root", Source::Endorsement, "`sha256:…` of the manufacturer's root.", NOT_CERTIFIED),
    texts(
        "oddities",
        Source::Endorsement,
        "Named departures from the TCG profile on its path.",
        NOT_CERTIFIED,
    ),
];

const NOT_CERTIFIED: Option<&str> = Some("allow-listed");
const NOT_NAMED: Option<&str> = Some("no certificate names it");

const TPM: &[Field] = &[
    text(
        "manufacturer",
        Source::Endorsement,
        "`id:` and the TCG vendor identifier in hexadecimal, lower case.",
        NOT_NAMED,
    ),
    text(
        "manufacturer_name",
        Source::Endorsement,
        "The same identifier as ASCII: `IFX`, `INTC`, `AMD`, `STM`, `NTC`.",
        Some("no certificate names it, or it is no ASCII"),
    ),
    text("model", Source::Endorsement, "Model.", NOT_NAMED),
    text(
        "version",
        Source::Endorsement,
        "Version at manufacture, as the certificate writes it.",
        NOT_NAMED,
    ),
    text(
        "firmware_version",
        Source::Quote,
        "Firmware version now: 16 hexadecimal digits that each manufacturer fills as it likes.",
        None,
    ),
    record(
        "firmware",
        FIRMWARE,
        Source::Quote,
        "The same as numbers, by the usual convention.",
        None,
    ),
    flag("clock_safe", Source::Quote, "The clock is sure never to have been higher.", None),
    int("reset_count", Source::Quote, "Resets since the TPM was cleared.", None),
    int("restart_count", Source::Quote, "Resumes and restarts since the last reset.", None),
];

const FIRMWARE: &[Field] = &[
    int("major", Source::Quote, "The first 16 bits.", None),
    int("minor", Source::Quote, "The next 16 bits.", None),
    int("build", Source::Quote, "The last 32 bits.", None),
    version("dotted", Source::Quote, "`major.minor.build`, for `version_at_least`.", None),
];

const PCRS: &[Field] = &[
    field(
        "sha256",
        Type::Map(&Type::Text),
        Source::Quote,
        "Values in hexadecimal, by index as text: `pcrs.sha256[\"7\"]`.",
        NO_BANK,
    ),
    field("sha384", Type::Map(&Type::Text), Source::Quote, "The same of this bank.", NO_BANK),
    field("sha512", Type::Map(&Type::Text), Source::Quote, "The same of this bank.", NO_BANK),
];

const NO_BANK: Option<&str> = Some("the bank is not quoted");
const NO_PCR_7: Option<&str> = Some("no log leads to PCR 7, or it does not prove it");
const NO_PCR_7_AT_ALL: Option<&str> = Some("no log leads to PCR 7");
const NO_PCR_11: Option<&str> =
    Some("no log leads to PCR 11, an event in it is not told, or a name stands twice");

const BOOT: &[Field] = &[
    flag("secure_boot", Source::BootLog, "Secure Boot is on.", NO_PCR_7),
    flag("setup_mode", Source::BootLog, "No platform key is enrolled.", NO_PCR_7),
    flag("audit_mode", Source::BootLog, "Images are logged and not refused.", NO_PCR_7),
    flag("deployed_mode", Source::BootLog, "`DeployedMode`.", NO_PCR_7),
    flag("debug_mode", Source::BootLog, "Firmware was in debug mode.", NO_PCR_7_AT_ALL),
    flag("dma_protection_off", Source::BootLog, "Protection against DMA was off.", NO_PCR_7_AT_ALL),
    texts(
        "signers",
        Source::BootLog,
        "Entries that authorised images, `sha256:…`.",
        Some("no log leads to PCR 7, none is in it, or an event in it is not told"),
    ),
    texts(
        "applications",
        Source::BootLog,
        "What booted, by Authenticode digest.",
        Some("no log leads to PCR 4, or nothing is in it"),
    ),
    field(
        "sections",
        Type::Map(&Type::Text),
        Source::BootLog,
        "Digests of the unified kernel image's sections, by name: `boot.sections[\".linux\"]`.",
        NO_PCR_11,
    ),
    texts(
        "command_lines",
        Source::BootLog,
        "Kernel command lines, where the text of every one is in the log.",
        Some(
            "none is proven, one is known by its digest alone (`.cmdline` of a unified kernel image, GRUB's), or PCR 11 or 12 has an event that is not told",
        ),
    ),
    texts(
        "command_line_digests",
        Source::BootLog,
        "Their digests: of a section over UTF-8, of options handed over over UCS-2.",
        Some("none is proven, or PCR 11 or 12 has an event that is not told"),
    ),
    version(
        "kernel_version",
        Source::Policy,
        "The version that the policy's `[[kernel]]` table gives to the digest of what booted.",
        Some(
            "no log leads to PCR 4, the table knows neither the last image that was started nor the section `.linux`, or it knows what was started by different versions",
        ),
    ),
    texts("problems", Source::BootLog, "Codes of oddities in the log.", None),
];

const TOOL: &[Field] = &[
    text("state", Source::ToolLog, "`present` or `absent`.", None),
    text("digest", Source::ToolLog, "`sha256:…` over its files, links and libraries.", None),
    version("version", Source::Claimed, "Version.", Some("the worker does not say")),
    text("purl", Source::Claimed, "Package URL.", Some("the worker does not say")),
];

const IMA: &[Field] = &[
    int("entries", Source::ImaList, "Entries that the quote covers.", None),
    int("violations", Source::ImaList, "Violations among them.", None),
    int("refused", Source::ImaList, "Entries with a finding.", NOT_JUDGED),
    int(
        "excluded",
        Source::ImaList,
        "Entries that an exclusion of the golden set lets pass.",
        NOT_JUDGED,
    ),
];

const NOT_JUDGED: Option<&str> = Some("the list was not judged");

const fn field(
    name: &'static str,
    kind: Type,
    source: Source,
    what: &'static str,
    absent: Option<&'static str>,
) -> Field {
    Field { name, kind, source, what, absent, is_version: false }
}

/// Text that has an order, by the numbers in it.
const fn version(
    name: &'static str,
    source: Source,
    what: &'static str,
    absent: Option<&'static str>,
) -> Field {
    Field { name, kind: Type::Text, source, what, absent, is_version: true }
}

const fn record(
    name: &'static str,
    fields: &'static [Field],
    source: Source,
    what: &'static str,
    absent: Option<&'static str>,
) -> Field {
    field(name, Type::Record(fields), source, what, absent)
}

const fn text(
    name: &'static str,
    source: Source,
    what: &'static str,
    absent: Option<&'static str>,
) -> Field {
    field(name, Type::Text, source, what, absent)
}

const fn texts(
    name: &'static str,
    source: Source,
    what: &'static str,
    absent: Option<&'static str>,
) -> Field {
    field(name, Type::List(&Type::Text), source, what, absent)
}

const fn flag(
    name: &'static str,
    source: Source,
    what: &'static str,
    absent: Option<&'static str>,
) -> Field {
    field(name, Type::Bool, source, what, absent)
}

const fn int(
    name: &'static str,
    source: Source,
    what: &'static str,
    absent: Option<&'static str>,
) -> Field {
    field(name, Type::Int, source, what, absent)
}

impl Type {
    /// A list of these: of what rules can compare.
    pub(super) const fn list(self) -> Option<Self> {
        match self {
            Self::Bool => Some(Self::List(&Self::Bool)),
            Self::Int => Some(Self::List(&Self::Int)),
            Self::Text => Some(Self::List(&Self::Text)),
            Self::List(_) | Self::Map(_) | Self::Record(_) => None,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Text => f.write_str("string"),
            Self::List(element) => write!(f, "list({element})"),
            Self::Map(value) => write!(f, "map(string, {value})"),
            Self::Record(_) => f.write_str("record"),
        }
    }
}

impl Source {
    /// In words, as in the table.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Inventory => "inventory",
            Self::Endorsement => "endorsement",
            Self::Quote => "quote",
            Self::BootLog => "boot log",
            Self::ToolLog => "tool log",
            Self::ImaList => "IMA list",
            Self::Policy => "policy",
            Self::Claimed => "**only claimed**",
            Self::Token => "platform's token",
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SchemaField {
    /// As rules write it; `NAME` stands for a key.
    pub path: String,
    /// Type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Who says it.
    pub source: &'static str,
    /// What it is.
    pub what: &'static str,
    /// When it is absent; reading it then denies.
    pub absent: Option<&'static str>,
}

/// Every field that a rule can read, in the order of the documentation.
#[must_use]
pub fn schema() -> Vec<SchemaField> {
    let mut out = Vec::new();
    list(JOB_INPUT, "", &mut out);
    out
}

fn list(kind: Type, prefix: &str, out: &mut Vec<SchemaField>) {
    let Type::Record(fields) = kind else { return };
    for field in fields {
        let path = format!("{prefix}{}", field.name);
        out.push(SchemaField {
            path: path.clone(),
            kind: field.kind.to_string(),
            source: field.source.words(),
            what: field.what,
            absent: field.absent,
        });
        match field.kind {
            Type::Map(value) => list(*value, &format!("{path}[NAME]."), out),
            record => list(record, &format!("{path}."), out),
        }
    }
}
