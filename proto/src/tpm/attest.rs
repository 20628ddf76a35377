//! `TPMS_ATTEST`: what a TPM says in a quote and in a certification.

use super::{
    DecodeError, DecodeErrorKind,
    constants::{ST_ATTEST_CERTIFY, ST_ATTEST_QUOTE, TPM_GENERATED},
    reader::Reader,
};
use crate::{digest::PcrSet, limits::MAX_PCR_BANKS};

/// `TPMS_CLOCK_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockInfo {
    /// Milliseconds the TPM has been powered.
    pub clock_ms: u64,
    /// `TPM2_Startup(CLEAR)` after `TPM2_Shutdown(CLEAR)` or power loss, since `TPM2_Clear`.
    pub reset_count: u32,
    /// Resumes and restarts since the last reset.
    pub restart_count: u32,
    /// No greater clock value was ever reported.
    pub safe: bool,
}

/// One bank of a signed selection, in signed order. `hash_alg` may be one we do not compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotedBank {
    /// `TPM_ALG_ID`.
    pub hash_alg: u16,
    /// The PCRs.
    pub pcrs: PcrSet,
}

/// `TPMS_ATTEST`.
///
/// Decoded only after the signature over its bytes was verified. `magic` and type are kept, not
/// refused here, so that each has its own reason code.
///
/// # Source
/// TPM 2.0 Library Part 2, "TPMS_ATTEST".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attest<'a> {
    /// Must be [`TPM_GENERATED`].
    pub magic: u32,
    /// `qualifiedSigner`.
    pub qualified_signer: &'a [u8],
    /// `extraData`: the caller's qualifyingData.
    pub extra_data: &'a [u8],
    /// `clockInfo`.
    pub clock_info: ClockInfo,
    /// `firmwareVersion`.
    pub firmware_version: u64,
    /// `attested`, by type.
    pub attested: Attested<'a>,
}

/// `TPMU_ATTEST`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Attested<'a> {
    /// `TPMS_QUOTE_INFO`.
    Quote {
        /// `pcrSelect`, in signed order, at most one entry a bank.
        selection: Vec<QuotedBank>,
        /// `pcrDigest`.
        pcr_digest: &'a [u8],
    },
    /// `TPMS_CERTIFY_INFO`.
    Certify {
        /// Name of the certified object.
        name: &'a [u8],
        /// Qualified Name of the certified object.
        qualified_name: &'a [u8],
    },
    /// Any other `TPMI_ST_ATTEST`: not looked into.
    Other(u16),
}

/// Longest Name: SHA-512 with its algorithm identifier.
const MAX_NAME_BYTES: usize = 66;
/// Longest extraData: `TPM2B_DATA` holds a `TPMT_HA`.
const MAX_EXTRA_DATA_BYTES: usize = 66;

impl<'a> Attest<'a> {
    /// Decodes one `TPMS_ATTEST`, consuming all of `bytes` (for [`Attested::Other`]: its header).
    ///
    /// # Errors
    /// [`DecodeError`] with the offset.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let magic = reader.u32()?;
        let kind = reader.u16()?;
        if magic != TPM_GENERATED {
            // Nothing after the magic can be believed or even parsed.
            return Ok(Self {
                magic,
                qualified_signer: &[],
                extra_data: &[],
                clock_info: ClockInfo {
                    clock_ms: 0,
                    reset_count: 0,
                    restart_count: 0,
                    safe: false,
                },
                firmware_version: 0,
                attested: Attested::Other(kind),
            });
        }
        let qualified_signer = reader.sized("qualifiedSigner", MAX_NAME_BYTES)?;
        let extra_data = reader.sized("extraData", MAX_EXTRA_DATA_BYTES)?;
        let clock_info = ClockInfo {
            clock_ms: reader.u64()?,
            reset_count: reader.u32()?,
            restart_count: reader.u32()?,
            safe: yes_no(&mut reader)?,
        };
        let firmware_version = reader.u64()?;
        let attested = match kind {
            ST_ATTEST_QUOTE => {
                let selection = pcr_selection(&mut reader)?;
                let pcr_digest = reader.sized("pcrDigest", 64)?;
                Attested::Quote { selection, pcr_digest }
            }
            ST_ATTEST_CERTIFY => Attested::Certify {
                name: reader.sized("name", MAX_NAME_BYTES)?,
                qualified_name: reader.sized("qualifiedName", MAX_NAME_BYTES)?,
            },
            other => {
                return Ok(Self {
                    magic,
                    qualified_signer,
                    extra_data,
                    clock_info,
                    firmware_version,
                    attested: Attested::Other(other),
                });
            }
        };
        reader.finish()?;
        Ok(Self { magic, qualified_signer, extra_data, clock_info, firmware_version, attested })
    }
}

/// `TPMI_YES_NO`.
fn yes_no(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    let at = reader.offset();
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(DecodeError {
            at,
            kind: DecodeErrorKind::Unsupported { what: "TPMI_YES_NO", found: found.into() },
        }),
    }
}

/// `TPML_PCR_SELECTION`: bounded, one entry a bank, `sizeofSelect` 3.
fn pcr_selection(reader: &mut Reader<'_>) -> Result<Vec<QuotedBank>, DecodeError> {
    let at = reader.offset();
    let count = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
    if count > MAX_PCR_BANKS {
        return Err(DecodeError {
            at,
            kind: DecodeErrorKind::TooLong {
                what: "pcrSelections",
                max: MAX_PCR_BANKS,
                found: count,
            },
        });
    }
    let mut banks: Vec<QuotedBank> = Vec::with_capacity(count);
    for _ in 0..count {
        let at = reader.offset();
        let hash_alg = reader.u16()?;
        if banks.iter().any(|bank| bank.hash_alg == hash_alg) {
            return Err(DecodeError { at, kind: DecodeErrorKind::BankRepeated(hash_alg) });
        }
        let at = reader.offset();
        let size = reader.u8()?;
        if size != 3 {
            return Err(DecodeError { at, kind: DecodeErrorKind::SelectSize(size) });
        }
        let [b0, b1, b2] = reader.array()?;
        let bits = u32::from_le_bytes([b0, b1, b2, 0]);
        let pcrs = PcrSet::from_bits(bits).unwrap_or_default();
        banks.push(QuotedBank { hash_alg, pcrs });
    }
    Ok(banks)
}
