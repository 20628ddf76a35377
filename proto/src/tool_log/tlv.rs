//! Reading and writing of one TLV: `T` one byte, `L` four bytes big-endian, `V`.

use super::{ToolLogError, ToolLogErrorKind};

/// Bytes before a value.
const HEADER_BYTES: usize = 5;

/// One element.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tlv<'a> {
    /// Type.
    pub(super) tag: u8,
    /// Value.
    pub(super) value: &'a [u8],
    /// Type, length and value as received.
    pub(super) whole: &'a [u8],
    /// Offset of the type from the start of the log.
    pub(super) at: usize,
}

impl<'a> Tlv<'a> {
    /// The elements inside this one.
    pub(super) fn inner(&self) -> Cursor<'a> {
        Cursor { rest: self.value, at: self.value_at() }
    }

    /// Offset of the value from the start of the log.
    pub(super) const fn value_at(&self) -> usize {
        self.at.saturating_add(HEADER_BYTES)
    }

    /// The value, if it has exactly `N` bytes.
    pub(super) fn array<const N: usize>(
        &self,
        what: &'static str,
    ) -> Result<[u8; N], ToolLogError> {
        self.value.try_into().map_err(|_| {
            self.error(ToolLogErrorKind::Length { what, expected: N, found: self.value.len() })
        })
    }

    /// An error in this element's value.
    pub(super) const fn error(&self, kind: ToolLogErrorKind) -> ToolLogError {
        ToolLogError { at: self.value_at(), kind }
    }
}

/// Reads elements front to back, within bounds.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, at: 0 }
    }

    /// Offset of the next byte from the start of the log.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next element, of any type.
    pub(super) fn next(&mut self) -> Result<Tlv<'a>, ToolLogError> {
        let truncated = |wanted| ToolLogError {
            at: self.at,
            kind: ToolLogErrorKind::Truncated { wanted, left: self.rest.len() },
        };
        let Some(([tag, length @ ..], body)) = self.rest.split_first_chunk::<HEADER_BYTES>() else {
            return Err(truncated(HEADER_BYTES));
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let total = length.saturating_add(HEADER_BYTES);
        let (Some(value), Some((whole, rest))) =
            (body.get(..length), self.rest.split_at_checked(total))
        else {
            return Err(truncated(total));
        };
        let tlv = Tlv { tag: *tag, value, whole, at: self.at };
        self.rest = rest;
        self.at = self.at.saturating_add(total);
        Ok(tlv)
    }

    /// The next element, which must have this type.
    pub(super) fn expect(&mut self, tag: u8, what: &'static str) -> Result<Tlv<'a>, ToolLogError> {
        let tlv = self.next()?;
        if tlv.tag == tag {
            Ok(tlv)
        } else {
            Err(ToolLogError { at: tlv.at, kind: ToolLogErrorKind::Type { what, found: tlv.tag } })
        }
    }

    /// The next element if it has this type.
    pub(super) fn take_if(&mut self, tag: u8) -> Result<Option<Tlv<'a>>, ToolLogError> {
        if self.rest.first() == Some(&tag) { self.next().map(Some) } else { Ok(None) }
    }

    /// Ends the reading: no element may be left.
    pub(super) fn finish(&self, what: &'static str) -> Result<(), ToolLogError> {
        match self.rest.first() {
            None => Ok(()),
            Some(found) => Err(ToolLogError {
                at: self.at,
                kind: ToolLogErrorKind::Type { what, found: *found },
            }),
        }
    }
}

/// Appends one element whose value `fill` writes.
pub(super) fn put(out: &mut Vec<u8>, tag: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    let value_at = out.len();
    fill(out);
    let length = u32::try_from(out.len().saturating_sub(value_at))
        .expect("limits keep every element far below 4 GiB");
    if let Some(slot) = out.get_mut(length_at..value_at) {
        slot.copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends one element with this value.
pub(super) fn put_bytes(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    put(out, tag, |out| out.extend_from_slice(value));
}
