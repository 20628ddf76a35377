//! Reads a list entry by entry; the only file of this module that does offset arithmetic.

use super::{
    BankAlg, BankDigest, ByteOrder, FieldKind, Fields, ImaEntry, ImaError, ImaErrorKind, Template,
    fields::{Context, MAX_SHORT_NAME_BYTES, bare_digest, plain_name},
};
use crate::limits::{MAX_IMA_TEMPLATE_DATA_BYTES, MAX_IMA_TEMPLATE_NAME_BYTES};

/// How a list is written; one form for the whole list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListFormat {
    /// Byte order of its numbers.
    pub order: ByteOrder,
    /// Algorithm of the template digest that each entry carries: SHA-1 in
    /// `binary_runtime_measurements`, the one named in the newer `binary_runtime_measurements_sha256`.
    pub recorded: BankAlg,
}

impl ListFormat {
    /// Every form, the most frequent first.
    pub const ALL: [Self; 8] = {
        const fn of(order: ByteOrder, recorded: BankAlg) -> ListFormat {
            ListFormat { order, recorded }
        }
        [
            of(ByteOrder::Little, BankAlg::Sha1),
            of(ByteOrder::Little, BankAlg::Sha256),
            of(ByteOrder::Little, BankAlg::Sha384),
            of(ByteOrder::Little, BankAlg::Sha512),
            of(ByteOrder::Big, BankAlg::Sha1),
            of(ByteOrder::Big, BankAlg::Sha256),
            of(ByteOrder::Big, BankAlg::Sha384),
            of(ByteOrder::Big, BankAlg::Sha512),
        ]
    };

    /// The form of a list that begins here.
    ///
    /// The one whose first entry carries the digest of its own fields; else the first in which an
    /// entry can be read at all. `None` if there is none: too short, or not a list.
    #[must_use]
    pub fn detect(list: &[u8]) -> Option<Self> {
        let mut readable = None;
        for format in Self::ALL {
            let Some(Ok(entry)) = ImaListReader::new(list, format).next() else { continue };
            if entry.has_right_digest() {
                return Some(format);
            }
            readable = readable.or(Some(format));
        }
        readable
    }
}

/// How a list ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListEnd {
    /// With its last entry.
    Complete,
    /// Within an entry, as it does when it is read while the kernel adds to it. The entry is not part
    /// of what was read.
    Partial {
        /// Offset of the entry's first byte.
        at: usize,
        /// Bytes there are of it.
        left: usize,
    },
}

/// Entries of a list, in order.
///
/// Ends after the last whole entry, after an error, or when what is left is only the beginning of an
/// entry; [`ImaListReader::end`] says which.
#[derive(Clone, Debug)]
pub struct ImaListReader<'a> {
    rest: &'a [u8],
    at: usize,
    index: u64,
    format: ListFormat,
    is_done: bool,
}

impl<'a> ImaListReader<'a> {
    /// Reads from the first byte of `bytes`, where an entry must begin.
    #[must_use]
    pub const fn new(bytes: &'a [u8], format: ListFormat) -> Self {
        Self { rest: bytes, at: 0, index: 0, format, is_done: false }
    }

    /// Offset of the next entry from the start.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.at
    }

    /// Entries read so far.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.index
    }

    /// How what was read ends. Only said once the iterator is at its end.
    #[must_use]
    pub const fn end(&self) -> ListEnd {
        if self.rest.is_empty() {
            ListEnd::Complete
        } else {
            ListEnd::Partial { at: self.at, left: self.rest.len() }
        }
    }

    const fn error(&self, kind: ImaErrorKind) -> ImaError {
        ImaError { at: self.at, entry: self.index, kind }
    }
}

impl<'a> Iterator for ImaListReader<'a> {
    type Item = Result<ImaEntry<'a>, ImaError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done || self.rest.is_empty() {
            return None;
        }
        let mut cursor = Cursor { rest: self.rest, order: self.format.order };
        match entry(&mut cursor, self.format) {
            Ok(entry) => {
                let used = self.rest.len().saturating_sub(cursor.rest.len());
                self.at = self.at.saturating_add(used);
                self.rest = cursor.rest;
                self.index = self.index.saturating_add(1);
                Some(Ok(entry))
            }
            Err(Stop::Short) => {
                self.is_done = true;
                None
            }
            Err(Stop::Refused(kind)) => {
                self.is_done = true;
                Some(Err(self.error(kind)))
            }
        }
    }
}

/// Why an entry was not read.
enum Stop {
    /// The bytes end within it, and were fine so far.
    Short,
    Refused(ImaErrorKind),
}

impl From<ImaErrorKind> for Stop {
    fn from(kind: ImaErrorKind) -> Self {
        Self::Refused(kind)
    }
}

#[inline]
fn entry<'a>(cursor: &mut Cursor<'a>, format: ListFormat) -> Result<ImaEntry<'a>, Stop> {
    let untrusted_pcr = cursor.u32()?;
    if untrusted_pcr > 23 {
        return Err(ImaErrorKind::PcrIndex(untrusted_pcr).into());
    }
    let recorded = cursor.bytes(format.recorded.len_bytes())?;
    let recorded = BankDigest::new(format.recorded, recorded).map_err(|_| Stop::Short)?;
    let is_violation = recorded == BankDigest::zero(format.recorded);
    let name = cursor.sized("template name", MAX_IMA_TEMPLATE_NAME_BYTES)?;
    let template =
        Template::from_name(name).ok_or_else(|| ImaErrorKind::Template(printable(name)))?;
    let context = Context { order: format.order, is_violation };
    let mut fields = Fields::default();
    let data = if template.is_original() {
        original(cursor, &mut fields)?
    } else {
        let data = cursor.sized("template data", MAX_IMA_TEMPLATE_DATA_BYTES)?;
        let mut inner = Cursor { rest: data, order: format.order };
        for kind in template.fields() {
            fields.set(*kind, inner.field(*kind)?, context)?;
        }
        if !inner.rest.is_empty() {
            return Err(ImaErrorKind::TrailingData { left: inner.rest.len() }.into());
        }
        data
    };
    Ok(ImaEntry { untrusted_pcr, recorded, is_violation, template, data, fields })
}

/// Data of the template `ima`: a bare digest, then a name with its length and without its NUL.
fn original<'a>(cursor: &mut Cursor<'a>, fields: &mut Fields<'a>) -> Result<&'a [u8], Stop> {
    let whole = cursor.rest;
    let digest = cursor.bytes(BankAlg::Sha1.len_bytes())?;
    let length = cursor.u32()?;
    // The name's own error: longer ones cannot be hashed as this template is.
    let max = MAX_SHORT_NAME_BYTES;
    let found = usize::try_from(length).unwrap_or(usize::MAX);
    if found > max {
        return Err(ImaErrorKind::NameTooLong { max, found }.into());
    }
    let name = cursor.bytes(found)?;
    fields.digest = Some(bare_digest(digest)?);
    fields.name = Some(plain_name(name, max)?);
    let used = whole.len().saturating_sub(cursor.rest.len());
    Ok(whole.get(..used).unwrap_or_default())
}

struct Cursor<'a> {
    rest: &'a [u8],
    order: ByteOrder,
}

impl<'a> Cursor<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Stop> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(Stop::Short)?;
        self.rest = rest;
        Ok(head)
    }

    fn u32(&mut self) -> Result<u32, Stop> {
        let (head, rest) = self.rest.split_first_chunk::<4>().ok_or(Stop::Short)?;
        self.rest = rest;
        Ok(self.order.u32(*head))
    }

    /// A length, then that many bytes. A length beyond `max` is refused even if the bytes are not
    /// there: no list that is merely cut has it.
    fn sized(&mut self, what: &'static str, max: usize) -> Result<&'a [u8], Stop> {
        let found = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        if found > max {
            return Err(ImaErrorKind::TooLong { what, max, found }.into());
        }
        self.bytes(found)
    }

    /// A field within template data, where too few bytes are an error.
    fn field(&mut self, kind: FieldKind) -> Result<&'a [u8], ImaErrorKind> {
        let short = |_| ImaErrorKind::FieldTruncated(kind.id());
        let length = self.u32().map_err(short)?;
        self.bytes(usize::try_from(length).unwrap_or(usize::MAX)).map_err(short)
    }
}

/// A name for an error text: what is not printable ASCII is escaped.
fn printable(name: &[u8]) -> String {
    name.escape_ascii().take(64).map(char::from).collect()
}
