//! TPM 2.0 structures as the verifier needs them: decoded by us, without libtss2, without unsafe code.
//!
//! Every decoder consumes its input exactly, allocates nothing from a declared size and never panics.
//! Cross-checked against tss-esapi in `swtpm-tests`.
//!
//! # Source
//! TPM 2.0 Library Specification, Part 2: Structures.

pub mod attest;
pub mod credential;
pub mod name;
pub mod public;
pub mod reader;
pub mod signature;

use crate::reason::ReasonCode;

/// Constants of the TPM 2.0 Library, Part 2, and the TCG Algorithm Registry.
pub mod constants {
    /// `TPM_GENERATED_VALUE`, "\xffTCG".
    pub const TPM_GENERATED: u32 = 0xff54_4347;
    /// `TPM_ST_ATTEST_CERTIFY`.
    pub const ST_ATTEST_CERTIFY: u16 = 0x8017;
    /// `TPM_ST_ATTEST_QUOTE`.
    pub const ST_ATTEST_QUOTE: u16 = 0x8018;
    /// `TPM_ALG_RSA`.
    pub const ALG_RSA: u16 = 0x0001;
    /// `TPM_ALG_SHA1`.
    pub const ALG_SHA1: u16 = 0x0004;
    /// `TPM_ALG_AES`.
    pub const ALG_AES: u16 = 0x0006;
    /// `TPM_ALG_KEYEDHASH`.
    pub const ALG_KEYEDHASH: u16 = 0x0008;
    /// `TPM_ALG_NULL`.
    pub const ALG_NULL: u16 = 0x0010;
    /// `TPM_ALG_RSASSA`.
    pub const ALG_RSASSA: u16 = 0x0014;
    /// `TPM_ALG_RSAES`.
    pub const ALG_RSAES: u16 = 0x0015;
    /// `TPM_ALG_RSAPSS`.
    pub const ALG_RSAPSS: u16 = 0x0016;
    /// `TPM_ALG_OAEP`.
    pub const ALG_OAEP: u16 = 0x0017;
    /// `TPM_ALG_ECDSA`.
    pub const ALG_ECDSA: u16 = 0x0018;
    /// `TPM_ALG_ECC`.
    pub const ALG_ECC: u16 = 0x0023;
    /// `TPM_ALG_CFB`.
    pub const ALG_CFB: u16 = 0x0043;
    /// `TPM_ECC_NIST_P256`.
    pub const ECC_NIST_P256: u16 = 0x0003;
    /// `TPM_ECC_NIST_P384`.
    pub const ECC_NIST_P384: u16 = 0x0004;
    /// `TPM_RH_ENDORSEMENT`.
    pub const RH_ENDORSEMENT: u32 = 0x4000_000B;
    /// `TPM_RH_NULL`.
    pub const RH_NULL: u32 = 0x4000_0007;
}

/// Why bytes are not the TPM structure they should be, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: {kind}")]
pub struct DecodeError {
    /// Offset from the start of the structure.
    pub at: usize,
    /// What is wrong there.
    pub kind: DecodeErrorKind,
}

/// What is wrong in a TPM structure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// A selection names one bank twice.
    #[error("PCR bank {0:#06x} is selected twice")]
    BankRepeated(u16),
    /// `sizeofSelect` is not 3.
    #[error("sizeofSelect is {0}, expected 3")]
    SelectSize(u8),
    /// A buffer or list is longer than its bound.
    #[error("{what} has {found} bytes or items, at most {max} are allowed")]
    TooLong {
        /// The field.
        what: &'static str,
        /// The bound.
        max: usize,
        /// Declared length.
        found: usize,
    },
    /// Bytes follow the structure.
    #[error("{left} bytes follow the end of the structure")]
    Trailing {
        /// How many.
        left: usize,
    },
    /// The structure ends too soon.
    #[error("{wanted} bytes expected, {left} left")]
    Truncated {
        /// Bytes the structure declares.
        wanted: usize,
        /// Bytes there are.
        left: usize,
    },
    /// A selector has a value that this verifier does not know.
    #[error("{what} is {found:#06x}, which is not supported here")]
    Unsupported {
        /// The field.
        what: &'static str,
        /// Its value.
        found: u32,
    },
}

impl DecodeError {
    /// The reason code that this error leaves the service with.
    #[must_use]
    pub const fn code(&self) -> ReasonCode {
        match self.kind {
            DecodeErrorKind::Trailing { .. } => ReasonCode::EvidenceTrailingBytes,
            DecodeErrorKind::Truncated { .. } => ReasonCode::EvidenceTruncated,
            DecodeErrorKind::TooLong { .. } => ReasonCode::EvidenceLimitExceeded,
            DecodeErrorKind::BankRepeated(_) | DecodeErrorKind::SelectSize(_) => {
                ReasonCode::PcrSelectionInvalid
            }
            DecodeErrorKind::Unsupported { .. } => ReasonCode::EvidenceStructureInvalid,
        }
    }
}
