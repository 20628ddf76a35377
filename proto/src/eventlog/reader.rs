//! Bounds-checked little-endian cursor; the only file of this module that does offset arithmetic.

use super::guid::Guid;

/// Why an event's data is not the structure it should be. Never ends the reading of a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at} of the event data: {what}")]
pub struct DataError {
    /// Offset from the start of the data.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// Reads little-endian structures from a byte slice, front to back.
#[derive(Clone, Debug)]
pub struct LeReader<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> LeReader<'a> {
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
    /// `what`, if fewer are left.
    pub fn bytes(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], DataError> {
        let Some((head, rest)) = self.rest.split_at_checked(count) else {
            return Err(self.error(what));
        };
        self.rest = rest;
        self.offset = self.offset.saturating_add(count);
        Ok(head)
    }

    /// The next bytes, as many as a 64-bit length says.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn bytes_u64(&mut self, count: u64, what: &'static str) -> Result<&'a [u8], DataError> {
        // A length that no slice can have is one that is not there.
        let count = usize::try_from(count).map_err(|_| self.error(what))?;
        self.bytes(count, what)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DataError> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N, what)?);
        Ok(out)
    }

    /// `UINT8`.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn u8(&mut self, what: &'static str) -> Result<u8, DataError> {
        Ok(u8::from_le_bytes(self.array(what)?))
    }

    /// `UINT16`.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn u16(&mut self, what: &'static str) -> Result<u16, DataError> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    /// `UINT32`.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn u32(&mut self, what: &'static str) -> Result<u32, DataError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// `UINT64`.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn u64(&mut self, what: &'static str) -> Result<u64, DataError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// `EFI_GUID`.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn guid(&mut self, what: &'static str) -> Result<Guid, DataError> {
        Ok(Guid::from_bytes(self.array(what)?))
    }

    /// An error at the next byte.
    #[must_use]
    pub const fn error(&self, what: &'static str) -> DataError {
        DataError { at: self.offset, what }
    }
}
