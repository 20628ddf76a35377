//! Logs of what firmware, boot loaders and systemd measured, decoded and believed by nobody.
//!
//! A log is a claim about PCRs. Of an event only the digest is bound to a PCR, and only once the log has been
//! replayed to a quoted value. The event's type is never under the digest, and its data only where the digest is the
//! hash of that data: both are therefore named `untrusted_*` here, and `appraisal::boot_log` says which of them a
//! digest vouches for.
//!
//! Every decoder is bounded and iterative, borrows from its input and allocates nothing from a declared size.
//!
//! # Source
//! TCG PC Client Platform Firmware Profile Specification (event log, event types); TCG EFI Platform Specification for
//! TPM 1.2 (SHA-1 logs); UEFI Specification (device paths, variables, signature lists, GPT).

pub mod alg;
pub mod device_path;
pub mod event;
pub mod event_type;
pub mod firmware;
pub mod gpt;
pub mod guid;
pub mod load_option;
pub mod log;
pub mod no_action;
pub mod reader;
pub mod signature_list;
pub mod spdm;
pub mod spec_id;
pub mod systemd;
pub mod tagged;
pub mod text;
pub mod variable;

pub use alg::{LogAlg, LogDigest};
pub use event::Event;
pub use event_type::EventType;
pub use log::{EventLog, LogFormat};
pub use reader::DataError;

use crate::reason::ReasonCode;

/// Why bytes are not a firmware log, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event {event} at byte {at}: {kind}")]
pub struct EventLogError {
    /// Offset from the start of the log.
    pub at: usize,
    /// The event, counted from 0.
    pub event: u32,
    /// What is wrong there.
    pub kind: EventLogErrorKind,
}

/// What is wrong in a firmware log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventLogErrorKind {
    /// An event has two digests of one bank.
    #[error("two digests of bank {0:#06x}")]
    AlgorithmRepeated(u16),
    /// An event has a digest of a bank that the Spec ID event does not declare.
    #[error("a digest of bank {0:#06x}, which the Spec ID event does not declare")]
    AlgorithmUndeclared(u16),
    /// More than is allowed.
    #[error("{what}: {found}, at most {max} are allowed")]
    Limit {
        /// Of what.
        what: &'static str,
        /// The bound.
        max: usize,
        /// What there is, or is declared.
        found: usize,
    },
    /// The event names a PCR that does not exist.
    #[error("PCR {0:#x} does not exist")]
    Pcr(u32),
    /// The first event is not a Spec ID event that is understood.
    #[error("Spec ID event: {0}")]
    SpecId(&'static str),
    /// The log ends inside an event.
    #[error("{what}: {wanted} bytes expected, {left} left")]
    Truncated {
        /// The field.
        what: &'static str,
        /// Bytes the log declares.
        wanted: usize,
        /// Bytes there are.
        left: usize,
    },
}

impl EventLogError {
    /// The reason code that this error leaves the service with.
    #[must_use]
    pub const fn code(&self) -> ReasonCode {
        match self.kind {
            EventLogErrorKind::AlgorithmRepeated(_) | EventLogErrorKind::AlgorithmUndeclared(_) => {
                ReasonCode::EventLogAlgorithmInvalid
            }
            EventLogErrorKind::Limit { .. } => ReasonCode::EventLogLimitExceeded,
            EventLogErrorKind::Pcr(_) => ReasonCode::EventLogPcrInvalid,
            EventLogErrorKind::SpecId(_) => ReasonCode::EventLogSpecIdInvalid,
            EventLogErrorKind::Truncated { .. } => ReasonCode::EventLogMalformed,
        }
    }
}
