//! `TPM2B_ID_OBJECT` and `TPM2B_ENCRYPTED_SECRET`: the two parts of a credential.

use super::{DecodeError, reader::Reader};

/// `TPM2B_DIGEST integrityHMAC ‖ encIdentity`, with its outer size prefix.
///
/// # Source
/// TPM 2.0 Library Part 2, "TPM2B_ID_OBJECT", `TPMS_ID_OBJECT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdObject {
    bytes: Vec<u8>,
}

impl IdObject {
    /// Joins the outer HMAC and the encrypted identity.
    #[must_use]
    pub fn new(integrity_hmac: &[u8], encrypted_identity: &[u8]) -> Self {
        let mut inner = sized(integrity_hmac);
        inner.extend_from_slice(encrypted_identity);
        Self { bytes: sized(&inner) }
    }

    /// With the outer size prefix, as the wire and the TPM want it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A `TPM2B`: `UINT16` size, then the bytes.
///
/// Callers pass buffers far below 64 KiB; a longer one is cut to nothing rather than wrapped.
#[must_use]
pub fn sized(bytes: &[u8]) -> Vec<u8> {
    let Ok(len) = u16::try_from(bytes.len()) else {
        return vec![0, 0];
    };
    let mut out = Vec::with_capacity(2 + bytes.len());
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
    out
}

/// The contents of one `TPM2B`, consuming all of `bytes`.
///
/// # Errors
/// [`DecodeError`] for a wrong size.
pub fn unsized_bytes<'a>(
    bytes: &'a [u8],
    what: &'static str,
    max: usize,
) -> Result<&'a [u8], DecodeError> {
    let mut reader = Reader::new(bytes);
    let inner = reader.sized(what, max)?;
    reader.finish()?;
    Ok(inner)
}
