//! What a difference is about.

use serde::Serialize;

/// What a difference is about; in this order they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// A kernel command line.
    CommandLine,
    /// A boot application.
    BootApplication,
    /// A section of a unified kernel image: kernel, initrd and others.
    Section,
    /// Whether Secure Boot must be on.
    SecureBoot,
    /// A key that Secure Boot may trust, or an entry that dbx must have.
    SecureBootKey,
    /// Who may have signed what booted.
    Signer,
    /// Whether the log is judged at all, and which of its oddities are accepted.
    BootLog,
    /// A PCR's values.
    Pcr,
    /// A PCR that is judged event by event.
    EventRule,
    /// A tool.
    Tool,
    /// Tools as a whole: closed, denied digests, the tool PCR's start.
    ToolSet,
    /// The kernel's IMA list.
    Ima,
    /// Which TPMs.
    Tpm,
    /// A part that is included.
    Include,
    /// An alternative.
    Group,
    /// Whose nodes are judged.
    Pool,
    /// Name of the set.
    Name,
    /// Version.
    Version,
    /// Words for people.
    Description,
    /// Format of the document.
    Schema,
    /// Order, repetition or spelling, and nothing else.
    Form,
}
