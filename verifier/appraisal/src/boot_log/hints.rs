//! What a log tells and nobody vouches for: for people, never for policy.

use proto::eventlog::LogDigest;
use serde::{Deserialize, Serialize};

/// Hints. An attacker who can change the log can change every one of them without changing a PCR.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hints {
    /// Locality of the TPM's start. A wrong one leads to a wrong PCR 0; 0 and absent are the same.
    pub startup_locality: u8,
    /// The firmware's version: what the log calls that.
    pub crtm_version: Option<String>,
    /// The boot order, where its name is not vouched for.
    pub boot_order: Option<Vec<u16>>,
    /// What GRUB and the EFI stub call the kernel command line.
    pub command_lines: Vec<CommandLineHint>,
    /// What GRUB calls its commands; the text is vouched for, that it is a command is not.
    pub loader_commands: Vec<TextHint>,
    /// Files that the boot loader read, by digest; their names are not vouched for.
    pub loader_files: Vec<FileHint>,
    /// Initial RAM disks, as the EFI stub measures them.
    pub initrds: Vec<FileHint>,
    /// Variables of shim in PCR 14.
    pub shim_variables: Vec<FileHint>,
}

/// A command line whose meaning is not vouched for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandLineHint {
    /// The event.
    pub event: u32,
    /// The PCR.
    pub pcr: u8,
    /// Its digest.
    pub digest: LogDigest,
    /// Its text, where the log has it.
    pub text: Option<String>,
}

/// A text whose meaning is not vouched for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextHint {
    /// The event.
    pub event: u32,
    /// The PCR.
    pub pcr: u8,
    /// The text.
    pub text: String,
}

/// Something measured under a name that is not vouched for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHint {
    /// The event.
    pub event: u32,
    /// The PCR.
    pub pcr: u8,
    /// Digest of the content.
    pub digest: LogDigest,
    /// Its name, as the log claims.
    pub name: String,
}
