//! The first event of a log: which version, which banks.

use super::{EventLogErrorKind, LogAlg, reader::LeReader};
use crate::limits::MAX_LOG_BANKS;

/// Signature of a crypto-agile log.
pub(super) const SIGNATURE_AGILE: &[u8; 16] = b"Spec ID Event03\0";
/// What the signatures of all versions begin with.
pub(super) const SIGNATURE_PREFIX: &[u8] = b"Spec ID Event";
/// Signatures of logs in the TPM 1.2 format.
const SIGNATURES_TCG12: [&[u8; 16]; 2] = [b"Spec ID Event00\0", b"Spec ID Event02\0"];

/// `TCG_EfiSpecIDEvent`, or its TPM 1.2 relative.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecId<'a> {
    /// Platform class: 0 client, 1 server.
    pub platform_class: u32,
    /// Version of the specification: major, minor, errata.
    pub version: (u8, u8, u8),
    /// Size of UINTN in 32-bit words.
    pub uintn_size: u8,
    /// Banks, in the log's order: `TPM_ALG_ID` and digest size in bytes. Empty in a TPM 1.2 log.
    pub algorithms: Vec<(u16, u16)>,
    /// Whatever the vendor put there.
    pub vendor_info: &'a [u8],
}

impl<'a> SpecId<'a> {
    /// Decodes the data of a crypto-agile log's first event.
    ///
    /// # Errors
    /// [`EventLogErrorKind::SpecId`]: a field is missing, an algorithm repeats or has a wrong size, the vendor's
    /// information does not end with the data; [`EventLogErrorKind::Limit`]: too many algorithms.
    pub(super) fn decode(data: &'a [u8]) -> Result<Self, EventLogErrorKind> {
        let mut reader = LeReader::new(data);
        let short = |_| EventLogErrorKind::SpecId("it ends too soon");
        reader.bytes(SIGNATURE_AGILE.len(), "signature").map_err(short)?;
        let platform_class = reader.u32("platform class").map_err(short)?;
        let [minor, major, errata, uintn_size] = reader.array("version").map_err(short)?;
        let count = usize::try_from(reader.u32("algorithms").map_err(short)?).unwrap_or(usize::MAX);
        if count > MAX_LOG_BANKS {
            let what = "algorithms";
            return Err(EventLogErrorKind::Limit { what, max: MAX_LOG_BANKS, found: count });
        }
        let mut algorithms = Vec::new();
        for _ in 0..count {
            let id = reader.u16("algorithm").map_err(short)?;
            let size = reader.u16("digest size").map_err(short)?;
            if algorithms.iter().any(|(known, _)| *known == id) {
                return Err(EventLogErrorKind::AlgorithmRepeated(id));
            }
            let known = LogAlg::from_tpm(id).map(LogAlg::len_bytes);
            if known.is_some_and(|known| known != usize::from(size)) || size == 0 || size > 64 {
                return Err(EventLogErrorKind::SpecId("an algorithm has a wrong digest size"));
            }
            algorithms.push((id, size));
        }
        if algorithms.is_empty() {
            return Err(EventLogErrorKind::SpecId("it declares no algorithm"));
        }
        let vendor_info = vendor_info(&mut reader)?;
        let version = (major, minor, errata);
        Ok(Self { platform_class, version, uintn_size, algorithms, vendor_info })
    }

    /// Decodes the data of a TPM 1.2 log's first event, if it is a Spec ID event.
    ///
    /// # Errors
    /// [`EventLogErrorKind::SpecId`].
    pub(super) fn decode_tcg12(data: &'a [u8]) -> Result<Option<Self>, EventLogErrorKind> {
        if !data.starts_with(SIGNATURE_PREFIX) {
            return Ok(None);
        }
        if !SIGNATURES_TCG12.iter().any(|signature| data.starts_with(*signature)) {
            return Err(EventLogErrorKind::SpecId("its version is not known"));
        }
        let mut reader = LeReader::new(data);
        let short = |_| EventLogErrorKind::SpecId("it ends too soon");
        reader.bytes(SIGNATURE_AGILE.len(), "signature").map_err(short)?;
        let platform_class = reader.u32("platform class").map_err(short)?;
        let [minor, major, errata, uintn_size] = reader.array("version").map_err(short)?;
        let vendor_info = vendor_info(&mut reader)?;
        let version = (major, minor, errata);
        let algorithms = Vec::new();
        Ok(Some(Self { platform_class, version, uintn_size, algorithms, vendor_info }))
    }

    /// Size of a digest in one bank, if the log has it.
    pub(super) fn digest_size(&self, alg: u16) -> Option<usize> {
        self.algorithms.iter().find(|(id, _)| *id == alg).map(|(_, size)| usize::from(*size))
    }
}

/// The rest of the event: one byte of length and as many bytes.
fn vendor_info<'a>(reader: &mut LeReader<'a>) -> Result<&'a [u8], EventLogErrorKind> {
    let overrun = |_| EventLogErrorKind::SpecId("the vendor's information overruns it");
    let size = reader.u8("vendor information").map_err(overrun)?;
    let info = reader.bytes(size.into(), "vendor information").map_err(overrun)?;
    if reader.rest().is_empty() {
        Ok(info)
    } else {
        Err(EventLogErrorKind::SpecId("bytes follow the vendor's information"))
    }
}
