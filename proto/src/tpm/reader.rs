//! Bounds-checked big-endian cursor; the only file of this crate that does offset arithmetic on TPM structures.

use super::{DecodeError, DecodeErrorKind};

/// Reads TPM structures from a byte slice, front to back.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from its first byte on.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, offset: 0 }
    }

    /// Offset of the next byte from the start.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// Bytes not read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] if fewer are left.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let Some((head, rest)) = self.rest.split_at_checked(count) else {
            return Err(
                self.error(DecodeErrorKind::Truncated { wanted: count, left: self.rest.len() })
            );
        };
        self.rest = rest;
        self.offset = self.offset.saturating_add(count);
        Ok(head)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// As [`Reader::bytes`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N)?);
        Ok(out)
    }

    /// `BYTE`.
    ///
    /// # Errors
    /// As [`Reader::bytes`].
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    /// `UINT16`.
    ///
    /// # Errors
    /// As [`Reader::bytes`].
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// `UINT32`.
    ///
    /// # Errors
    /// As [`Reader::bytes`].
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// `UINT64`.
    ///
    /// # Errors
    /// As [`Reader::bytes`].
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A `TPM2B_*` buffer: `UINT16` size, then that many bytes, at most `max`.
    ///
    /// # Errors
    /// Truncation, or [`DecodeErrorKind::TooLong`].
    pub fn sized(&mut self, what: &'static str, max: usize) -> Result<&'a [u8], DecodeError> {
        let at = self.offset;
        let len = usize::from(self.u16()?);
        if len > max {
            return Err(DecodeError {
                at,
                kind: DecodeErrorKind::TooLong { what, max, found: len },
            });
        }
        self.bytes(len)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Trailing`] if bytes are left: structures are consumed exactly.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.error(DecodeErrorKind::Trailing { left: self.rest.len() }))
        }
    }

    /// An error at the next byte.
    #[must_use]
    pub const fn error(&self, kind: DecodeErrorKind) -> DecodeError {
        DecodeError { at: self.offset, kind }
    }
}
