//! The kernel's IMA list: what it measured in this boot, entry by entry, as extended into one PCR.
//!
//! # Format
//! `/sys/kernel/security/ima/binary_runtime_measurements`; numbers in the machine's byte order, or
//! little-endian with `ima_canonical_fmt`. Per entry:
//!
//! | field | bytes |
//! |---|---|
//! | PCR | 4 |
//! | template digest | 20 (SHA-1), or 32, 48, 64 in the newer lists of one algorithm each |
//! | length, template name | 4, then the name, or its fields (`d-ng\|n-ng`) where it has none |
//! | length, template data | 4, then for each field of the template a length (4) and a value |
//!
//! The template `ima` has neither the length of its data nor that of its digest.
//!
//! ```text
//! bytes ─ListFormat::detect─▶ ListFormat ─ImaListReader─▶ ImaEntry* + ListEnd
//! ```
//!
//! The text form `ascii_runtime_measurements` is not read: in it a newline in a file's name makes a
//! line of its own.
//!
//! # Untrusted
//! An entry that decodes says nothing. It counts once the list replays to a quoted PCR; what is not
//! under the digest even then (the template's name, a violation's fields) is called `untrusted`.
//!
//! # Source
//! Linux `security/integrity/ima/ima_fs.c`, `ima_measurements_show`;
//! `Documentation/security/IMA-templates.rst`.

mod algorithm;
mod entry;
mod fields;
mod reader;
mod signature;
mod template;

#[cfg(test)]
mod tests;

pub use self::{
    algorithm::{BankAlg, BankDigest, ImaHashAlg},
    entry::{BOOT_AGGREGATE, ImaEntry},
    fields::{ByteOrder, DigestKind, Fields, FileDigest, MAX_SHORT_NAME_BYTES},
    reader::{ImaListReader, ListEnd, ListFormat},
    signature::{FileSignature, SignatureForm, SignatureFormError},
    template::{FieldKind, MAX_FIELDS, Template},
};

use crate::reason::ReasonCode;

/// Why bytes are not the list they should be, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("IMA list, entry {entry} at byte {at}: {kind}")]
pub struct ImaError {
    /// Offset of the entry from the start of the bytes given to the reader.
    pub at: usize,
    /// Number of the entry, from 0, likewise.
    pub entry: u64,
    /// What is wrong there.
    pub kind: ImaErrorKind,
}

/// What is wrong in a list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImaErrorKind {
    /// Not `algorithm:`, NUL, digest.
    #[error("a digest is not written as algorithm, colon, NUL, bytes")]
    DigestForm,
    /// A digest has not its algorithm's size.
    #[error("a digest has {found} bytes, expected {expected}")]
    DigestLength {
        /// The algorithm's size.
        expected: usize,
        /// Bytes found.
        found: usize,
    },
    /// The template data ends within a field.
    #[error("the template data ends within the field {0}")]
    FieldTruncated(&'static str),
    /// Two fields say the same thing.
    #[error("the field {0} repeats what another says")]
    FieldTwice(&'static str),
    /// A name without a byte.
    #[error("the name is empty")]
    NameEmpty,
    /// A name with a NUL before its end.
    #[error("the name has a NUL within")]
    NameHasNul,
    /// A name without a NUL at its end.
    #[error("the name does not end with a NUL")]
    NameNotTerminated,
    /// A name that the kernel cannot have written.
    #[error("the name has {found} bytes, at most {max} are possible")]
    NameTooLong {
        /// The kernel's limit.
        max: usize,
        /// Bytes found.
        found: usize,
    },
    /// A number of a size that it cannot have.
    #[error("a number has {found} bytes, expected 2 or 4")]
    NumberLength {
        /// Bytes found.
        found: usize,
    },
    /// No such PCR.
    #[error("PCR {0} does not exist")]
    PcrIndex(u32),
    /// Neither a known template nor a list of known fields.
    #[error("template \"{0}\" is not known")]
    Template(String),
    /// More than the limits allow.
    #[error("{what} of {found} bytes, at most {max} are allowed")]
    TooLong {
        /// The field.
        what: &'static str,
        /// The limit.
        max: usize,
        /// Bytes declared.
        found: usize,
    },
    /// Template data after the last field.
    #[error("{left} bytes after the template's last field")]
    TrailingData {
        /// Bytes left.
        left: usize,
    },
}

impl ImaError {
    /// The reason code that this error leaves the service with.
    #[must_use]
    pub const fn code(&self) -> ReasonCode {
        match &self.kind {
            ImaErrorKind::NameEmpty
            | ImaErrorKind::NameHasNul
            | ImaErrorKind::NameNotTerminated
            | ImaErrorKind::NameTooLong { .. } => ReasonCode::ImaNameInvalid,
            ImaErrorKind::Template(_) => ReasonCode::ImaTemplateUnsupported,
            ImaErrorKind::TooLong { .. } => ReasonCode::EvidenceLimitExceeded,
            ImaErrorKind::DigestForm
            | ImaErrorKind::DigestLength { .. }
            | ImaErrorKind::FieldTruncated(_)
            | ImaErrorKind::FieldTwice(_)
            | ImaErrorKind::NumberLength { .. }
            | ImaErrorKind::PcrIndex(_)
            | ImaErrorKind::TrailingData { .. } => ReasonCode::ImaLogMalformed,
        }
    }
}
