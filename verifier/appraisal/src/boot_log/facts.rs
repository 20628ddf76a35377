//! Facts about a boot, each with the event and PCR that vouch for it. A deterministic document.

use proto::{
    digest::Digest,
    eventlog::{LogAlg, LogDigest, guid::Guid},
};
use serde::{Deserialize, Serialize};

use super::{hints::Hints, replay::EventSource, vouch::Vouch};

/// What vouches for a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The event's place in the firmware log.
    pub event: u32,
    /// The PCR that the event was extended into.
    pub pcr: u8,
    /// What of the event the digest is over.
    pub vouch: Vouch,
}

/// What a log proves about a boot, once its replay equals quoted values.
///
/// # Proves
/// Each value was read from bytes that hash to a digest which was extended into the PCR named with it, or is such a
/// digest. Lists are in the order of their PCR.
///
/// # Does not prove
/// Fields that begin with `untrusted_`, and [`Self::hints`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFacts {
    /// The bank whose digests vouch.
    pub bank: LogAlg,
    /// Whether Secure Boot is on; `None` where the log does not prove either.
    pub secure_boot: Option<bool>,
    /// What proves it.
    pub secure_boot_source: Option<Source>,
    /// Whether no platform key is enrolled.
    pub setup_mode: Option<bool>,
    /// `AuditMode`: images are logged and not refused.
    pub audit_mode: Option<bool>,
    /// `DeployedMode`.
    pub deployed_mode: Option<bool>,
    /// Whether PCR 7 says that firmware was in debug mode.
    pub debug_mode: bool,
    /// Whether PCR 7 says that protection against DMA was off.
    pub dma_protection_disabled: bool,
    /// Platform key.
    pub pk: Option<KeyDatabase>,
    /// Key exchange keys.
    pub kek: Option<KeyDatabase>,
    /// What may boot.
    pub db: Option<KeyDatabase>,
    /// What must not boot.
    pub dbx: Option<KeyDatabase>,
    /// Timestamp authorities.
    pub dbt: Option<KeyDatabase>,
    /// Recovery keys.
    pub dbr: Option<KeyDatabase>,
    /// Entries that authorised images (db), and shim's variables measured beside them.
    pub authorities: Vec<Authority>,
    /// Events of PCR 7, 11 and 12 that are not told by data that a digest covers: each may be a key, an authority, a section
    /// or a command line that somebody hides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untold: Vec<Untold>,
    /// shim's `SbatLevel`.
    pub sbat_level: Option<String>,
    /// What was measured into PCR 4 and is no action that is known: boot applications, by Authenticode digest.
    pub boot_applications: Vec<Application>,
    /// What was measured into PCR 2: option ROMs and drivers, by Authenticode digest.
    pub drivers: Vec<Driver>,
    /// What PCR 0 says of the firmware and whose data is vouched for, its version among them.
    pub firmware: Vec<FirmwareInfo>,
    /// Boot order, where its name is vouched for; else a hint.
    pub boot_order: Option<Vec<u16>>,
    /// Variables measured into PCR 1.
    pub boot_variables: Vec<BootVariable>,
    /// The boot disk's partitions.
    pub partition_tables: Vec<PartitionTable>,
    /// Separators of PCR 0 to 7.
    pub separators: Vec<Separator>,
    /// How the operating system left the firmware.
    pub exit_boot_services: ExitBootServices,
    /// Sections of the unified kernel image.
    pub uki_sections: Vec<Section>,
    /// Kernel command lines that are proven to be such.
    pub command_lines: Vec<CommandLine>,
    /// What systemd measured from userspace.
    pub userspace: Vec<UserspaceMeasurement>,
    /// What nobody vouches for.
    pub hints: Hints,
}

impl BootFacts {
    pub(super) fn none(bank: LogAlg) -> Self {
        Self {
            bank,
            secure_boot: None,
            secure_boot_source: None,
            setup_mode: None,
            audit_mode: None,
            deployed_mode: None,
            debug_mode: false,
            dma_protection_disabled: false,
            pk: None,
            kek: None,
            db: None,
            dbx: None,
            dbt: None,
            dbr: None,
            authorities: Vec::new(),
            untold: Vec::new(),
            sbat_level: None,
            boot_applications: Vec::new(),
            drivers: Vec::new(),
            firmware: Vec::new(),
            boot_order: None,
            boot_variables: Vec::new(),
            partition_tables: Vec::new(),
            separators: Vec::new(),
            exit_boot_services: ExitBootServices::default(),
            uki_sections: Vec::new(),
            command_lines: Vec::new(),
            userspace: Vec::new(),
            hints: Hints::default(),
        }
    }
}

/// An event of which nothing but its digest is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Untold {
    /// Which event.
    pub source: Source,
    /// What was extended.
    pub digest: LogDigest,
}

/// A Secure Boot variable that holds signature lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyDatabase {
    /// What vouches for it.
    pub source: Source,
    /// SHA-256 of the variable's content.
    pub digest: Digest,
    /// Its entries.
    pub entries: Vec<KeyEntry>,
}

/// Kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeyKind {
    /// A certificate.
    X509,
    /// The Authenticode SHA-256 of an image.
    Sha256,
    /// The Authenticode SHA-384 of an image.
    Sha384,
    /// The Authenticode SHA-512 of an image.
    Sha512,
    /// The SHA-256 of a certificate's signed part, with a time.
    X509Sha256,
    /// An RSA-2048 key.
    Rsa2048,
    /// Anything else.
    Other,
}

/// One entry of a signature list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyEntry {
    /// What it is.
    pub kind: KeyKind,
    /// Who enrolled it.
    pub owner: Guid,
    /// SHA-256 of the entry's data; of an image hash the hash itself.
    pub digest: String,
    /// The certificate.
    #[serde(flatten)]
    pub certificate: Option<KeySubject>,
}

/// Of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySubject {
    /// Subject, for people: compare the digest.
    pub subject: String,
    /// Issuer, for people.
    pub issuer: String,
}

/// An entry that authorised an image, or a variable of shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// What vouches for it.
    pub source: Source,
    /// Vendor of the variable.
    pub vendor: Guid,
    /// Name of the variable: db, MokList, Shim, …
    pub variable: String,
    /// The entry's digest, as in [`KeyEntry::digest`].
    pub digest: String,
    /// The certificate, where it is one.
    #[serde(flatten)]
    pub certificate: Option<KeySubject>,
    /// Whether the proven db has this very entry; `None` where db is not proven.
    pub in_db: Option<bool>,
}

/// Something measured into PCR 4.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// What vouches for it.
    pub source: Source,
    /// Authenticode digest of the image.
    pub digest: LogDigest,
    /// The text that was measured instead, where it was one.
    pub text: Option<String>,
    /// Whether firmware had called the boot option before, as PCR 4 tells.
    pub after_call: bool,
    /// Device path, as the log claims.
    pub untrusted_path: Option<String>,
    /// Event of the authority that stands before it in the log. Nothing proves the order between PCR 4 and 7.
    pub untrusted_authority: Option<u32>,
}

/// Something measured into PCR 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driver {
    /// What vouches for it.
    pub source: Source,
    /// Authenticode digest of the image.
    pub digest: LogDigest,
    /// Device path, as the log claims.
    pub untrusted_path: Option<String>,
}

/// Something that PCR 0 says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirmwareInfo {
    /// What vouches for it.
    pub source: Source,
    /// The data as text, where it is text.
    pub text: Option<String>,
    /// The data, hexadecimal.
    pub data: String,
    /// What the log says that this is.
    pub untrusted_type: String,
}

/// A variable of PCR 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootVariable {
    /// What vouches for it.
    pub source: Source,
    /// Its name, where that is vouched for.
    pub name: Option<String>,
    /// SHA-256 of its content.
    pub digest: Digest,
    /// Its description, where the content is a boot entry.
    pub description: Option<String>,
    /// Its device path, where the content is a boot entry.
    pub path: Option<String>,
    /// Its name, as the log claims.
    pub untrusted_name: String,
}

/// A partition table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionTable {
    /// What vouches for it.
    pub source: Source,
    /// The disk.
    pub disk: Guid,
    /// Its partitions.
    pub partitions: Vec<PartitionFact>,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionFact {
    /// What it is for.
    #[serde(rename = "type")]
    pub kind: Guid,
    /// Its identifier.
    pub id: Guid,
    /// Its name.
    pub name: String,
}

/// A separator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Separator {
    /// What vouches for it.
    pub source: Source,
    /// What it says.
    pub value: SeparatorValue,
}

/// What a separator says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeparatorValue {
    /// All zeros.
    Zeros,
    /// All ones.
    Ones,
    /// An error.
    Error,
}

/// How the operating system left the firmware, in order of the events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitBootServices {
    /// Calls.
    pub calls: Vec<Source>,
    /// Calls that failed.
    pub failures: Vec<Source>,
    /// The call that succeeded.
    pub success: Option<Source>,
    /// The log ends before, and a call that succeeds explains PCR 5.
    pub inferred: bool,
}

/// A section of a unified kernel image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// What vouches for it: the content's event; its name is proven by the event before.
    pub source: Source,
    /// `.linux`, `.cmdline`, `.initrd`, …
    pub name: String,
    /// Digest of its content.
    pub digest: LogDigest,
}

/// A kernel command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandLine {
    /// What vouches for it.
    pub source: Source,
    /// Its digest: of a kernel image's section over UTF-8, of options handed over over UCS-2.
    pub digest: LogDigest,
    /// Its text; the one in a kernel image is not in the log.
    pub text: Option<String>,
}

/// A measurement made by systemd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserspaceMeasurement {
    /// The log, or that none was needed.
    pub source: EventSource,
    /// Place in systemd's log.
    pub record: u32,
    /// The PCR.
    pub pcr: u8,
    /// Its digest.
    pub digest: LogDigest,
    /// The text, where the digest is its hash.
    pub text: Option<String>,
    /// What systemd says that this is.
    pub untrusted_type: Option<String>,
    /// What systemd says was measured, where the digest does not prove it.
    pub untrusted_text: Option<String>,
}
