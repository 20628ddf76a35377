//! A bounded DER reader that knows absolute offsets, and the few writers that canonical keys need.

use std::ops::Range;

/// Why bytes are not the DER they should be, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}, {what}: {kind}")]
pub struct DerError {
    /// Offset from the start of the document.
    pub at: usize,
    /// The element that was being read.
    pub what: &'static str,
    /// What is wrong with it.
    pub kind: DerErrorKind,
}

/// What is wrong in a DER document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DerErrorKind {
    /// A length that is indefinite, not minimal, or of more than four bytes.
    #[error("length is not in DER form")]
    Length,
    /// More bytes or items than is allowed.
    #[error("more than {0} bytes or items")]
    Limit(usize),
    /// Another element than the structure has here.
    #[error("tag {expected:#04x} expected, {found:#04x} found")]
    Tag {
        /// The tag the structure demands.
        expected: u8,
        /// The tag there is.
        found: u8,
    },
    /// Bytes follow the end of the element.
    #[error("{0} bytes follow its end")]
    Trailing(usize),
    /// The bytes end too soon.
    #[error("the bytes end too soon")]
    Truncated,
    /// A value that the structure does not allow.
    #[error("{0}")]
    Value(&'static str),
}

/// A byte range of a document that is shorter than 4 GiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The bytes of `document` in this range; empty if the span is of another document.
    pub(crate) fn of(self, document: &[u8]) -> &[u8] {
        document.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    pub(crate) const fn start(self) -> usize {
        self.start as usize
    }

    /// The range without its first `count` bytes.
    pub(crate) fn skip(self, count: usize) -> Self {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Self { start: self.start.saturating_add(count).min(self.end), end: self.end }
    }
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        let clamp = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Self { start: clamp(range.start), end: clamp(range.end) }
    }
}

/// Universal and context tags used by certificates and CRLs.
pub(crate) mod tag {
    pub(crate) const BOOLEAN: u8 = 0x01;
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const BIT_STRING: u8 = 0x03;
    pub(crate) const OCTET_STRING: u8 = 0x04;
    pub(crate) const NULL: u8 = 0x05;
    pub(crate) const OID: u8 = 0x06;
    pub(crate) const UTF8_STRING: u8 = 0x0c;
    pub(crate) const PRINTABLE_STRING: u8 = 0x13;
    pub(crate) const TELETEX_STRING: u8 = 0x14;
    pub(crate) const IA5_STRING: u8 = 0x16;
    pub(crate) const UTC_TIME: u8 = 0x17;
    pub(crate) const GENERALIZED_TIME: u8 = 0x18;
    pub(crate) const BMP_STRING: u8 = 0x1e;
    pub(crate) const SEQUENCE: u8 = 0x30;
    pub(crate) const SET: u8 = 0x31;
    /// `[n]`, primitive.
    pub(crate) const fn context(n: u8) -> u8 {
        0x80 | n
    }
    /// `[n]`, constructed.
    pub(crate) const fn explicit(n: u8) -> u8 {
        0xa0 | n
    }
}

/// One element: its tag, where its header begins and where its content lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element {
    pub(crate) tag: u8,
    /// Header and content.
    pub(crate) whole: Span,
    /// Content.
    pub(crate) body: Span,
}

/// A cursor over a part of a document; every offset is absolute.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    document: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    /// A reader over all of `document`.
    pub(crate) const fn new(document: &'a [u8]) -> Self {
        Self { document, at: 0, end: document.len() }
    }

    /// A reader over the content of `element`.
    pub(crate) const fn inside(&self, element: Element) -> Self {
        self.within(element.body)
    }

    /// A reader over `span`, which an element of this document gave.
    pub(crate) const fn within(&self, span: Span) -> Self {
        Self { document: self.document, at: span.start as usize, end: span.end as usize }
    }

    pub(crate) const fn offset(&self) -> usize {
        self.at
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.at >= self.end
    }

    /// The bytes that are left.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.document.get(self.at..self.end).unwrap_or_default()
    }

    pub(crate) fn bytes(&self, span: Span) -> &'a [u8] {
        span.of(self.document)
    }

    /// The next element, whatever it is.
    pub(crate) fn element(&mut self, what: &'static str) -> Result<Element, DerError> {
        let rest = self.rest();
        let fail = |kind| DerError { at: self.at, what, kind };
        let [tag, first, ..] = *rest else {
            return Err(fail(DerErrorKind::Truncated));
        };
        if tag & 0x1f == 0x1f {
            return Err(fail(DerErrorKind::Value("tags above 30 are not used here")));
        }
        let (header, length) = if first < 0x80 {
            (2, usize::from(first))
        } else {
            let count = usize::from(first & 0x7f);
            if count == 0 || count > 4 {
                return Err(fail(DerErrorKind::Length));
            }
            let Some(octets) = rest.get(2..2 + count) else {
                return Err(fail(DerErrorKind::Truncated));
            };
            let length = octets.iter().fold(0_u64, |sum, octet| sum << 8 | u64::from(*octet));
            // Minimal: no leading zero octet, and no long form for what fits the short one.
            if octets.first() == Some(&0) || length < 0x80 {
                return Err(fail(DerErrorKind::Length));
            }
            let length = usize::try_from(length).map_err(|_| fail(DerErrorKind::Truncated))?;
            (2 + count, length)
        };
        if rest.len() - header < length {
            return Err(fail(DerErrorKind::Truncated));
        }
        let body = self.at + header..self.at + header + length;
        let whole = Span::from(self.at..body.end);
        self.at = body.end;
        Ok(Element { tag, whole, body: body.into() })
    }

    /// The next element, which must have `tag`.
    pub(crate) fn expect(&mut self, tag: u8, what: &'static str) -> Result<Element, DerError> {
        let at = self.at;
        let element = self.element(what)?;
        if element.tag != tag {
            let kind = DerErrorKind::Tag { expected: tag, found: element.tag };
            return Err(DerError { at, what, kind });
        }
        Ok(element)
    }

    /// The next element if it has `tag`.
    pub(crate) fn optional(
        &mut self,
        tag: u8,
        what: &'static str,
    ) -> Result<Option<Element>, DerError> {
        if self.rest().first() == Some(&tag) { self.element(what).map(Some) } else { Ok(None) }
    }

    /// A reader over the content of the next element, which must have `tag`.
    pub(crate) fn enter(&mut self, tag: u8, what: &'static str) -> Result<Self, DerError> {
        let element = self.expect(tag, what)?;
        Ok(self.inside(element))
    }

    /// Content of an OBJECT IDENTIFIER.
    pub(crate) fn oid(&mut self, what: &'static str) -> Result<&'a [u8], DerError> {
        let element = self.expect(tag::OID, what)?;
        let body = self.bytes(element.body);
        // Every arc ends with a byte below 0x80 and none begins with 0x80.
        let mut arc_starts = true;
        for byte in body {
            if arc_starts && *byte == 0x80 {
                return Err(self.error_at(element, what, "object identifier arc is not minimal"));
            }
            arc_starts = *byte < 0x80;
        }
        if body.is_empty() || !arc_starts {
            return Err(self.error_at(element, what, "object identifier is cut off"));
        }
        Ok(body)
    }

    /// A BOOLEAN in DER form.
    pub(crate) fn boolean(&mut self, what: &'static str) -> Result<bool, DerError> {
        let element = self.expect(tag::BOOLEAN, what)?;
        match self.bytes(element.body) {
            [0x00] => Ok(false),
            [0xff] => Ok(true),
            _ => Err(self.error_at(element, what, "boolean is neither 0x00 nor 0xff")),
        }
    }

    /// A BIT STRING whose unused bits are zero: content without the count, and the count.
    pub(crate) fn bit_string(&mut self, what: &'static str) -> Result<(Span, u8), DerError> {
        let element = self.expect(tag::BIT_STRING, what)?;
        let body = self.bytes(element.body);
        let valid = match body {
            [0] => true,
            [unused @ 0..=7, .., last] => last & ((1_u8 << unused) - 1) == 0,
            _ => false,
        };
        match body.first() {
            Some(unused) if valid => Ok((element.body.skip(1), *unused)),
            _ => Err(self.error_at(element, what, "bit string is not in DER form")),
        }
    }

    /// A BIT STRING of whole bytes.
    pub(crate) fn octet_bits(&mut self, what: &'static str) -> Result<Span, DerError> {
        let at = self.at;
        match self.bit_string(what)? {
            (span, 0) => Ok(span),
            _ => Err(DerError { at, what, kind: DerErrorKind::Value("has unused bits") }),
        }
    }

    /// An INTEGER from 0 to `u32::MAX`, minimal.
    pub(crate) fn small_integer(&mut self, what: &'static str) -> Result<u32, DerError> {
        let element = self.expect(tag::INTEGER, what)?;
        let body = self.bytes(element.body);
        let value = match body {
            [0, second, ..] if *second < 0x80 => None,
            [first, ..] if *first < 0x80 && body.len() <= 5 => {
                let value = body.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
                u32::try_from(value).ok()
            }
            _ => None,
        };
        value.ok_or_else(|| self.error_at(element, what, "integer is out of range or not minimal"))
    }

    /// Ends the reading of a part.
    pub(crate) fn finish(&self, what: &'static str) -> Result<(), DerError> {
        if self.is_empty() {
            Ok(())
        } else {
            let kind = DerErrorKind::Trailing(self.end - self.at);
            Err(DerError { at: self.at, what, kind })
        }
    }

    /// An error at the start of `element`.
    pub(crate) const fn error_at(
        &self,
        element: Element,
        what: &'static str,
        reason: &'static str,
    ) -> DerError {
        DerError { at: element.whole.start as usize, what, kind: DerErrorKind::Value(reason) }
    }

    /// An error at the next byte.
    pub(crate) const fn error(&self, what: &'static str, kind: DerErrorKind) -> DerError {
        DerError { at: self.at, what, kind }
    }
}

/// An object identifier's content in dotted form.
pub(crate) fn dotted(oid: &[u8]) -> String {
    let mut out = String::new();
    let mut arc = 0_u64;
    for byte in oid.iter().take(64) {
        arc = arc.checked_shl(7).unwrap_or(0) | u64::from(byte & 0x7f);
        if *byte >= 0x80 {
            continue;
        }
        if out.is_empty() {
            let first = (arc / 40).min(2);
            out = format!("{first}.{}", arc - first * 40);
        } else {
            out.push('.');
            out.push_str(&arc.to_string());
        }
        arc = 0;
    }
    out
}

/// `value` without leading zero bytes.
pub(crate) fn strip_leading_zeros(value: &[u8]) -> &[u8] {
    let zeros = value.iter().take_while(|byte| **byte == 0).count();
    value.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(bytes: &[u8]) -> DerErrorKind {
        Reader::new(bytes).element("test").expect_err("must be refused").kind
    }

    #[test]
    fn lengths_must_be_minimal_and_inside_the_document() {
        assert_eq!(kind_of(&[]), DerErrorKind::Truncated);
        assert_eq!(kind_of(&[0x30]), DerErrorKind::Truncated);
        assert_eq!(kind_of(&[0x30, 1]), DerErrorKind::Truncated);
        assert_eq!(kind_of(&[0x30, 0x80, 0, 0]), DerErrorKind::Length);
        assert_eq!(kind_of(&[0x30, 0x81, 0x7f]), DerErrorKind::Length);
        assert_eq!(kind_of(&[0x30, 0x82, 0, 0x80]), DerErrorKind::Length);
        assert_eq!(kind_of(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), DerErrorKind::Truncated);
        assert_eq!(kind_of(&[0x30, 0x85, 1, 0, 0, 0, 0]), DerErrorKind::Length);
        assert!(matches!(kind_of(&[0x1f, 0]), DerErrorKind::Value(_)));
    }

    #[test]
    fn object_identifiers_are_checked_and_shown() {
        let mut reader = Reader::new(&[6, 5, 0x67, 0x81, 0x05, 0x08, 0x01]);
        assert_eq!(dotted(reader.oid("test").expect("well-formed")), "2.23.133.8.1");
        for bad in
            [&[6, 0][..], &[6, 2, 0x55, 0x80], &[6, 3, 0x55, 0x80, 0x01], &[6, 2, 0x55, 0x9d]]
        {
            let error = Reader::new(bad).oid("test").expect_err("must be refused");
            assert!(matches!(error.kind, DerErrorKind::Value(_)), "{bad:x?}");
        }
    }

    #[test]
    fn bit_strings_need_zero_padding() {
        assert!(Reader::new(&[3, 2, 7, 0x80]).bit_string("test").is_ok());
        for bad in [&[3, 0][..], &[3, 1, 1], &[3, 2, 8, 0], &[3, 2, 7, 0x81]] {
            let error = Reader::new(bad).bit_string("test").expect_err("must be refused");
            assert!(matches!(error.kind, DerErrorKind::Value(_)), "{bad:x?}");
        }
    }

    #[test]
    fn written_lengths_read_back() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000] {
            let mut out = Vec::new();
            write(&mut out, tag::OCTET_STRING, &[&vec![7; length]]);
            let mut reader = Reader::new(&out);
            let element = reader.expect(tag::OCTET_STRING, "test").expect("own writing");
            assert_eq!(reader.bytes(element.body).len(), length);
            assert_eq!(reader.finish("test"), Ok(()));
        }
    }

    #[test]
    fn integers_are_written_minimal_and_positive() {
        for (value, expected) in [
            (&[][..], &[2, 1, 0][..]),
            (&[0, 0], &[2, 1, 0]),
            (&[0, 0x7f], &[2, 1, 0x7f]),
            (&[0x80], &[2, 2, 0, 0x80]),
        ] {
            let mut out = Vec::new();
            write_unsigned(&mut out, value);
            assert_eq!(out, expected);
        }
    }

    /// Appends one element with `tag` around the concatenation of `parts`.
    fn write(out: &mut Vec<u8>, tag: u8, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        out.push(tag);
        match u8::try_from(length) {
            Ok(short) if short < 0x80 => out.push(short),
            _ => {
                let octets = length.to_be_bytes();
                let leading = octets.iter().take_while(|octet| **octet == 0).count();
                let octets = octets.get(leading..).unwrap_or_default();
                // At most eight length octets, so the count fits seven bits.
                out.push(0x80 | u8::try_from(octets.len()).unwrap_or(0));
                out.extend_from_slice(octets);
            }
        }
        for part in parts {
            out.extend_from_slice(part);
        }
    }

    /// Appends a non-negative INTEGER with the big-endian magnitude `value`.
    fn write_unsigned(out: &mut Vec<u8>, value: &[u8]) {
        let value = strip_leading_zeros(value);
        match value.first() {
            Some(first) if *first < 0x80 => write(out, tag::INTEGER, &[value]),
            _ => write(out, tag::INTEGER, &[&[0], value]),
        }
    }
}
