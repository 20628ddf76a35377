//! A reader of tar streams as dpkg makes them: ustar with GNU and POSIX long names.
//!
//! # Source
//! POSIX.1, "pax"; GNU tar manual, "Basic Tar Format".

use std::io::{self, Read, Take};

/// Blocks of a stream, bytes.
const BLOCK: usize = 512;
/// Longest name or extended header that is read: PATH_MAX of Linux several times over.
const MAX_META_BYTES: u64 = 64 * 1024;

/// Why a stream is not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum TarError {
    #[error("reading its files failed")]
    Io(#[from] io::Error),
    #[error("a header of its tar stream has a wrong checksum")]
    Checksum,
    #[error("a number in its tar stream is none")]
    Number,
    #[error("a name in its tar stream is too long, or not a path")]
    Name,
    #[error("its tar stream has entries of another form ({0:?})")]
    Form(char),
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    /// Another name of an earlier file; absolute.
    HardLink(Vec<u8>),
    /// Directory, link, device: nothing to hash.
    Other,
}

/// One entry; its content is read, or skipped by the next one.
pub(super) struct TarEntry<'t, R> {
    /// Absolute.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) content: &'t mut Take<R>,
}

/// See the module.
pub(super) struct TarReader<R> {
    /// Limited to what is left of the current entry.
    from: Take<R>,
    padding: u64,
    is_done: bool,
}

impl<R: Read> TarReader<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from: from.take(0), padding: 0, is_done: false }
    }

    /// The next entry; `None` at the stream's end.
    pub(super) fn next_entry(&mut self) -> Result<Option<TarEntry<'_, R>>, TarError> {
        let (mut long_name, mut long_link) = (None, None);
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = number(header.get(124..136).unwrap_or_default())?;
            let form = header.get(156).copied().unwrap_or_default();
            let has_content = matches!(form, 0 | b'0' | b'7' | b'L' | b'K' | b'x' | b'g');
            let size = if has_content { size } else { 0 };
            self.from.set_limit(size);
            self.padding = size.next_multiple_of(BLOCK as u64).saturating_sub(size);
            match form {
                b'L' => long_name = Some(without_nul(self.meta(size)?)),
                b'K' => long_link = Some(without_nul(self.meta(size)?)),
                b'x' => {
                    let records = self.meta(size)?;
                    let (path, link) = pax_names(&records)?;
                    long_name = path.or(long_name);
                    long_link = link.or(long_link);
                }
                b'g' => {
                    self.meta(size)?;
                }
                0 | b'0' | b'7' | b'1' | b'2' | b'3' | b'4' | b'5' | b'6' => {
                    let path = absolute(&long_name.unwrap_or_else(|| ustar_name(&header)))?;
                    let kind = match form {
                        b'1' => {
                            let link = long_link.unwrap_or_else(|| field(&header, 157, 100));
                            Kind::HardLink(absolute(&link)?)
                        }
                        0 | b'0' | b'7' => Kind::File,
                        _ => Kind::Other,
                    };
                    let mode = number(header.get(100..108).unwrap_or_default())?;
                    let mode = u32::try_from(mode).map_err(|_| TarError::Number)?;
                    return Ok(Some(TarEntry { path, kind, mode, content: &mut self.from }));
                }
                other => return Err(TarError::Form(char::from(other))),
            }
        }
    }

    /// Reads what nobody read of the current entry, and its padding.
    fn skip_rest(&mut self) -> Result<(), TarError> {
        let all = self.from.limit().saturating_add(self.padding);
        self.padding = 0;
        self.from.set_limit(all);
        let skipped = io::copy(&mut self.from, &mut io::sink())?;
        if skipped == all { Ok(()) } else { Err(ends_too_soon()) }
    }

    /// The next header; `None` at a block of zeros or the stream's end.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        if self.is_done {
            return Ok(None);
        }
        self.from.set_limit(BLOCK as u64);
        let mut block = Vec::with_capacity(BLOCK);
        self.from.read_to_end(&mut block)?;
        let Ok(header) = <[u8; BLOCK]>::try_from(block.as_slice()) else {
            // A stream ends with zeros; one that just ends is cut.
            return Err(ends_too_soon());
        };
        if header.iter().all(|byte| *byte == 0) {
            self.is_done = true;
            self.from.set_limit(u64::MAX);
            io::copy(&mut self.from, &mut io::sink())?;
            return Ok(None);
        }
        let expected = number(header.get(148..156).unwrap_or_default())?;
        let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        let spaces = 8 * u64::from(b' ');
        let found = sum(header.get(..148).unwrap_or_default())
            .saturating_add(spaces)
            .saturating_add(sum(header.get(156..).unwrap_or_default()));
        if found == expected { Ok(Some(header)) } else { Err(TarError::Checksum) }
    }

    fn meta(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_META_BYTES {
            return Err(TarError::Name);
        }
        let mut out = Vec::new();
        self.from.read_to_end(&mut out)?;
        if out.len() as u64 == size { Ok(out) } else { Err(ends_too_soon()) }
    }
}

fn ends_too_soon() -> TarError {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ends too soon").into()
}

/// Octal digits between spaces and NULs, or GNU's binary form.
fn number(text: &[u8]) -> Result<u64, TarError> {
    if let [0x80, rest @ ..] = text {
        return rest.iter().try_fold(0_u64, |value, byte| {
            value
                .checked_mul(256)
                .and_then(|value| value.checked_add(u64::from(*byte)))
                .ok_or(TarError::Number)
        });
    }
    let text = text.trim_ascii_start();
    let end = text.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(text.len());
    let digits = text.get(..end).unwrap_or_default();
    digits.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'7' => value
            .checked_mul(8)
            .and_then(|value| value.checked_add(u64::from(digit.wrapping_sub(b'0'))))
            .ok_or(TarError::Number),
        _ => Err(TarError::Number),
    })
}

fn field(header: &[u8; BLOCK], start: usize, size: usize) -> Vec<u8> {
    without_nul(header.get(start..start.saturating_add(size)).unwrap_or_default().to_vec())
}

fn without_nul(mut text: Vec<u8>) -> Vec<u8> {
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    text.truncate(end);
    text
}

/// Name with its prefix, which only POSIX's own form has.
fn ustar_name(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = field(header, 0, 100);
    let is_posix = header.get(257..263) == Some(b"ustar\0");
    let prefix = if is_posix { field(header, 345, 155) } else { Vec::new() };
    if prefix.is_empty() { name } else { [prefix, b"/".to_vec(), name].concat() }
}

/// `/usr/bin/x` for `./usr/bin/x`; a path with `..` is none.
fn absolute(path: &[u8]) -> Result<Vec<u8>, TarError> {
    let mut out = Vec::with_capacity(path.len().saturating_add(1));
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err(TarError::Name),
            component => {
                out.push(b'/');
                out.extend_from_slice(component);
            }
        }
    }
    if out.is_empty() {
        out.push(b'/');
    }
    if out.contains(&0) || out.len() > proto::limits::MAX_PATH_BYTES {
        return Err(TarError::Name);
    }
    Ok(out)
}

/// A name, where an extended header has one.
type Name = Option<Vec<u8>>;

/// `path` and `linkpath` of an extended header: records of `LENGTH KEY=VALUE\n`.
fn pax_names(records: &[u8]) -> Result<(Name, Name), TarError> {
    let (mut path, mut link) = (None, None);
    let mut rest = records;
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ').ok_or(TarError::Number)?;
        let length: usize = std::str::from_utf8(rest.get(..space).unwrap_or_default())
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or(TarError::Number)?;
        let (record, after) = rest.split_at_checked(length).ok_or(TarError::Number)?;
        let record = record
            .get(space.saturating_add(1)..)
            .and_then(|record| record.strip_suffix(b"\n"))
            .ok_or(TarError::Number)?;
        if let Some(value) = record.strip_prefix(b"path=") {
            path = Some(value.to_vec());
        } else if let Some(value) = record.strip_prefix(b"linkpath=") {
            link = Some(value.to_vec());
        } else if record.starts_with(b"size=") {
            // Only for files of 8 GiB and more.
            return Err(TarError::Number);
        }
        rest = after;
    }
    Ok((path, link))
}
