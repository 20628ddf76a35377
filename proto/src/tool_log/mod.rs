//! The tool log: what a worker measured of its build tools, in order, as extended into one PCR.
//!
//! # Format
//! A sequence of TCG Canonical Event Log records in the TLV encoding (`T` one byte, `L` four bytes
//! big-endian, `V`), each with exactly these elements in this order:
//!
//! | T | V |
//! |---|---|
//! | `0x00` record number | 8 bytes big-endian; 0 for a boot's first event, then without a gap |
//! | `0x01` PCR | 1 byte, 0–23 |
//! | `0x03` digests | one TLV a bank, ascending; `T` = low byte of `TPM_ALG_ID`, `V` = hash of the content TLV |
//! | `0xA5` content | a tool measurement, below |
//!
//! `0xA5` lies above the content types that the TCG assigned (4 to 8) and that public projects use.
//! The content is again TLVs, ascending, optional ones left out when absent:
//!
//! | T | V |
//! |---|---|
//! | `0x00` domain | `assay/v1/tool` |
//! | `0x01` name | 1–256 bytes of UTF-8 without control characters |
//! | `0x02` state | `01` present, `00` absent |
//! | `0x03` version (optional) | text as in name; a claim of the worker |
//! | `0x04` package (optional) | text as in name; a claim of the worker |
//! | `0x05` entry (repeated) | path `0x00`, then for a file role `0x01`, size `0x02` (8 bytes), SHA-256 `0x03`, for a link target `0x04` |
//!
//! Entries ascend strictly by path bytes, so no path stands twice. A present tool has at least one
//! entry, an absent one has neither entries, version nor package.
//!
//! There is one encoding of a measurement and the decoder accepts no other: lengths have a fixed
//! size, the order is checked, and every field is either required or meaningful by its presence. A
//! property test holds the decoder to it: what it accepts encodes to the bytes that were read.
//!
//! The event's digest in each bank is the hash of the whole content TLV, header included. The log's
//! head, which a quote's qualifying data binds, is `head_0` = 32 zero bytes,
//! `head_n = SHA-256(head_{n-1} ‖ SHA-256(content TLV of event n))`.
//!
//! # Untrusted
//! A log that decodes says nothing. What it says counts once [`ToolLogState::pcr_values`] equal the
//! quoted values of the PCR, and even then it is the worker's user space that measured.
//!
//! # Source
//! TCG "Canonical Event Log Format" 1.0, CEL-TLV; top-level types as in its table of fields.

mod event;
mod measurement;
mod state;
mod tlv;

#[cfg(test)]
mod tests;

pub use self::{
    event::{ToolEvent, ToolLogReader, encode_event},
    measurement::{
        EntryKind, FileRole, MeasurementError, ToolEntry, ToolMeasurement, ToolState, path_text,
    },
    state::{ToolLogState, ToolSummary},
};

use crate::{
    digest::{HashAlg, PcrIndex},
    reason::ReasonCode,
};

/// Why bytes are not the tool log they should be, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tool log, byte {at}: {kind}")]
pub struct ToolLogError {
    /// Offset from the start of the bytes given to the decoder (a suffix's own start).
    pub at: usize,
    /// What is wrong there.
    pub kind: ToolLogErrorKind,
}

/// What is wrong in a tool log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ToolLogErrorKind {
    /// An event names other banks than the log's.
    #[error("event has digests for the wrong set of banks")]
    Banks,
    /// A digest is not the hash of the content beside it.
    #[error("the {0} digest is not the hash of the event's content")]
    Digest(HashAlg),
    /// The content is not a tool measurement of this version.
    #[error("content does not start with the domain of a tool measurement")]
    Domain,
    /// A field has a length that its type does not have.
    #[error("{what} has {found} bytes, expected {expected}")]
    Length {
        /// The field.
        what: &'static str,
        /// Bytes it must have.
        expected: usize,
        /// Bytes it has.
        found: usize,
    },
    /// The fields do not form a measurement.
    #[error("{0}")]
    Measurement(MeasurementError),
    /// Banks or entries are not strictly ascending.
    #[error("{0} are not strictly ascending")]
    Order(&'static str),
    /// An event names another PCR than the log's.
    #[error("event names PCR {found}, the log belongs to PCR {expected}")]
    Pcr {
        /// The log's PCR.
        expected: PcrIndex,
        /// The event's, as written.
        found: u8,
    },
    /// A record number is not the next one.
    #[error("record number is {found}, expected {expected}")]
    Sequence {
        /// The next number.
        expected: u64,
        /// The number read.
        found: u64,
    },
    /// More than the limits allow.
    #[error("more than {max} {what}")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// The log ends within an element.
    #[error("{wanted} bytes expected, {left} left")]
    Truncated {
        /// Bytes that the element declares.
        wanted: usize,
        /// Bytes there are.
        left: usize,
    },
    /// Another element than the one that must stand here.
    #[error("{what} expected, found element type {found:#04x}")]
    Type {
        /// The element that must stand here.
        what: &'static str,
        /// Type found.
        found: u8,
    },
    /// A selector has a value without meaning.
    #[error("{what} has the undefined value {found:#04x}")]
    Value {
        /// The field.
        what: &'static str,
        /// Its value.
        found: u8,
    },
}

impl ToolLogError {
    /// The reason code that this error leaves the service with.
    #[must_use]
    pub const fn code(&self) -> ReasonCode {
        match &self.kind {
            ToolLogErrorKind::Digest(_) => ReasonCode::ToolLogDigestMismatch,
            ToolLogErrorKind::Order(_) => ReasonCode::ToolLogNotCanonical,
            ToolLogErrorKind::Banks | ToolLogErrorKind::Pcr { .. } => ReasonCode::ToolLogWrongPcr,
            ToolLogErrorKind::Sequence { .. } => ReasonCode::ToolLogOutOfSequence,
            ToolLogErrorKind::TooMany { .. }
            | ToolLogErrorKind::Measurement(MeasurementError::TooLong { .. }) => {
                ReasonCode::EvidenceLimitExceeded
            }
            ToolLogErrorKind::Domain
            | ToolLogErrorKind::Length { .. }
            | ToolLogErrorKind::Measurement(_)
            | ToolLogErrorKind::Truncated { .. }
            | ToolLogErrorKind::Type { .. }
            | ToolLogErrorKind::Value { .. } => ReasonCode::ToolLogMalformed,
        }
    }

    /// Whether the log merely ends too soon, as it does after a crash in the middle of a write.
    #[must_use]
    pub const fn is_truncation(&self) -> bool {
        matches!(self.kind, ToolLogErrorKind::Truncated { .. })
    }
}
