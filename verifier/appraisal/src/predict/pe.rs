//! PE/COFF images: Authenticode digest and sections. Bounded, and every malformed input is an error that says where.
//!
//! # Source
//! Microsoft, "PE Format"; "Windows Authenticode Portable Executable Signature Format", "Calculating the PE Image Hash";
//! UEFI Specification, "Images and Firmware Management" (the digest that firmware measures).

use proto::digest::{Digest, HashAlg};

/// Largest image: a unified kernel image with all firmware in its initrd has some 500 MB.
pub const MAX_IMAGE_BYTES: usize = 2 * 1024 * 1024 * 1024;
/// Most sections: an image with 34 device trees has some 60.
pub const MAX_SECTIONS: usize = 256;
/// Most zeros that loading adds to one section (`VirtualSize` above `SizeOfRawData`): programs of a boot chain have up
/// to some 100 kB, and a header must not make us hash 4 GB of nothing.
pub const MAX_ZERO_FILL_BYTES: usize = 1024 * 1024;

const PE_OFFSET_AT: usize = 0x3c;
const FILE_HEADER_BYTES: usize = 20;
const SECTION_HEADER_BYTES: usize = 40;
/// Directory 4: the certificate table.
const CERTIFICATES: usize = 4;
const DIRECTORY_BYTES: usize = 8;
const PE32: u16 = 0x10b;
const PE32_PLUS: u16 = 0x20b;
/// In the optional header, for both kinds.
const IMAGE_VERSION_AT: usize = 44;
const HEADERS_LEN_AT: usize = 60;
const CHECKSUM_AT: usize = 64;
const CHECKSUM_BYTES: usize = 4;

/// Why bytes are no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeError {
    /// Above [`MAX_IMAGE_BYTES`].
    #[error("{len} bytes, at most {MAX_IMAGE_BYTES} are read")]
    TooLarge {
        /// Size of the input.
        len: usize,
    },
    /// A structure leaves the file.
    #[error("{what} at {at:#x} has {len} bytes and leaves the file")]
    Truncated {
        /// Which structure.
        what: &'static str,
        /// Where it begins.
        at: usize,
        /// Its size.
        len: usize,
    },
    /// A signature or a magic number is another.
    #[error("{what} at {at:#x} is {found:#x}")]
    Magic {
        /// Which.
        what: &'static str,
        /// Where it stands.
        at: usize,
        /// What stands there.
        found: u32,
    },
    /// `SizeOfHeaders` ends before the headers do.
    #[error("SizeOfHeaders is {found:#x}, and the headers end at {least:#x}")]
    Headers {
        /// What it says.
        found: usize,
        /// Where the headers end.
        least: usize,
    },
    /// Above [`MAX_SECTIONS`].
    #[error("{count} sections, at most {MAX_SECTIONS} are read")]
    TooManySections {
        /// How many.
        count: usize,
    },
    /// Sections have more bytes than the file: some stand in each other.
    #[error("the sections overlap")]
    Overlap,
    /// The certificate table is not the end of the file, where Authenticode has it.
    #[error("the certificate table at {at:#x} with {len} bytes is not the end of the file")]
    CertificateTable {
        /// Where it begins.
        at: usize,
        /// Its size.
        len: usize,
    },
    /// Two sections of a name of which one is expected.
    #[error("more than one section {name}")]
    Repeated {
        /// The name.
        name: String,
    },
    /// Loading adds more zeros to a section than [`MAX_ZERO_FILL_BYTES`].
    #[error("section {name} is {zeros} bytes longer in memory than in the file")]
    ZeroFill {
        /// The section.
        name: String,
        /// How many zeros.
        zeros: usize,
    },
}

/// A section of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    name: [u8; 8],
    virtual_len: usize,
    file_at: usize,
    file: &'a [u8],
}

impl<'a> Section<'a> {
    /// Its name without the zeros that pad it.
    #[must_use]
    pub fn name(&self) -> String {
        String::from_utf8_lossy(self.name.split(|byte| *byte == 0).next().unwrap_or_default())
            .into_owned()
    }

    fn is(&self, name: &str) -> bool {
        self.name.split(|byte| *byte == 0).next() == Some(name.as_bytes())
    }

    /// What stands in memory once the image is loaded: the file's bytes up to `VirtualSize`, then zeros up to it.
    ///
    /// # Errors
    /// [`PeError::ZeroFill`].
    pub fn loaded(&self) -> Result<Content<'a>, PeError> {
        let file = self.file.get(..self.virtual_len).unwrap_or(self.file);
        let zeros = self.virtual_len.saturating_sub(file.len());
        if zeros > MAX_ZERO_FILL_BYTES {
            return Err(PeError::ZeroFill { name: self.name(), zeros });
        }
        Ok(Content { file, zeros })
    }
}

/// Bytes of a file with zeros behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content<'a> {
    file: &'a [u8],
    zeros: usize,
}

impl Content<'_> {
    /// How many bytes there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.file.len().saturating_add(self.zeros)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, in one piece.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = self.file.to_vec();
        out.resize(self.len(), 0);
        out
    }
}

/// A PE/COFF image, with every structure inside of the file.
///
/// # Format
/// PE32 or PE32+; sections do not overlap; a certificate table is the end of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image<'a> {
    bytes: &'a [u8],
    machine: u16,
    major_version: u16,
    checksum_at: usize,
    /// The certificate table's entry, where the image has that directory.
    directory_at: Option<usize>,
    headers_len: usize,
    certificates_len: usize,
    /// In the order of the section table.
    sections: Vec<Section<'a>>,
}

impl<'a> Image<'a> {
    /// Reads an image.
    ///
    /// # Errors
    /// [`PeError`], which says what is malformed and where.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PeError> {
        if bytes.len() > MAX_IMAGE_BYTES {
            return Err(PeError::TooLarge { len: bytes.len() });
        }
        let reader = Reader(bytes);
        expect("the DOS signature", 0, u32::from(reader.u16("the DOS header", 0)?), 0x5a4d)?;
        let pe_at = reader.offset("the DOS header", PE_OFFSET_AT)?;
        expect("the PE signature", pe_at, reader.u32("the PE signature", pe_at)?, 0x4550)?;
        let file_header = pe_at.saturating_add(4);
        let header = |at: usize| file_header.saturating_add(at);
        let machine = reader.u16("the file header", file_header)?;
        let count = usize::from(reader.u16("the file header", header(2))?);
        if count > MAX_SECTIONS {
            return Err(PeError::TooManySections { count });
        }
        let optional_len = usize::from(reader.u16("the file header", header(16))?);
        let optional = header(FILE_HEADER_BYTES);
        let _ = reader.slice("the optional header", optional, optional_len)?;
        let field = |at: usize| optional.saturating_add(at);
        let directories_at = match reader.u16("the optional header", optional)? {
            PE32 => 96,
            PE32_PLUS => 112,
            found => {
                let what = "the optional header's magic number";
                return Err(PeError::Magic { what, at: optional, found: u32::from(found) });
            }
        };
        let major_version = reader.u16("the optional header", field(IMAGE_VERSION_AT))?;
        let headers_len = reader.offset("the optional header", field(HEADERS_LEN_AT))?;
        let directories =
            reader.offset("the optional header", field(directories_at).saturating_sub(4))?;
        let table = optional.saturating_add(optional_len);
        let least = table.saturating_add(count.saturating_mul(SECTION_HEADER_BYTES));
        if headers_len < least {
            return Err(PeError::Headers { found: headers_len, least });
        }
        let _ = reader.slice("the headers", 0, headers_len)?;
        let directory_at = field(directories_at.saturating_add(CERTIFICATES * DIRECTORY_BYTES));
        let is_there =
            directories > CERTIFICATES && directory_at.saturating_add(DIRECTORY_BYTES) <= table;
        let directory_at = is_there.then_some(directory_at);
        let certificates_len = match directory_at {
            Some(at) => reader.certificates(at)?,
            None => 0,
        };
        let sections = reader.sections(table, count)?;
        let hashed = sections.iter().map(|section| section.file.len()).sum::<usize>();
        if headers_len.saturating_add(hashed).saturating_add(certificates_len) > bytes.len() {
            return Err(PeError::Overlap);
        }
        let checksum_at = field(CHECKSUM_AT);
        Ok(Self {
            bytes,
            machine,
            major_version,
            checksum_at,
            directory_at,
            headers_len,
            certificates_len,
            sections,
        })
    }

    /// `Machine`: 0x8664 for x86-64, 0xaa64 for 64-bit Arm.
    #[must_use]
    pub const fn machine(&self) -> u16 {
        self.machine
    }

    /// `MajorImageVersion`: of a Linux kernel with an EFI stub, the version of the stub's interface.
    #[must_use]
    pub const fn major_version(&self) -> u16 {
        self.major_version
    }

    /// Whether there is a certificate table, and so a signature.
    #[must_use]
    pub const fn is_signed(&self) -> bool {
        self.certificates_len > 0
    }

    /// Sections, in the order of the section table.
    #[must_use]
    pub fn sections(&self) -> &[Section<'a>] {
        &self.sections
    }

    /// The section with this name.
    ///
    /// # Errors
    /// [`PeError::Repeated`]: which of them is used depends on who reads.
    pub fn section(&self, name: &str) -> Result<Option<&Section<'a>>, PeError> {
        let mut found = self.sections.iter().filter(|section| section.is(name));
        let first = found.next();
        match found.next() {
            Some(_) => Err(PeError::Repeated { name: name.to_owned() }),
            None => Ok(first),
        }
    }

    /// Authenticode digest: what firmware measures into PCR 4, the same with and without a signature.
    ///
    /// The headers without `CheckSum` and without the certificate table's directory, the sections by their place in the
    /// file, then what else the file has before the certificate table.
    #[must_use]
    pub fn authenticode(&self, alg: HashAlg) -> Digest {
        let piece = |from: usize, to: usize| self.bytes.get(from..to).unwrap_or_default();
        let mut pieces = vec![piece(0, self.checksum_at)];
        let after = self.checksum_at.saturating_add(CHECKSUM_BYTES);
        match self.directory_at {
            Some(at) => pieces.extend([
                piece(after, at),
                piece(at.saturating_add(DIRECTORY_BYTES), self.headers_len),
            ]),
            None => pieces.push(piece(after, self.headers_len)),
        }
        let mut sections: Vec<_> =
            self.sections.iter().filter(|section| !section.file.is_empty()).collect();
        sections.sort_by_key(|section| section.file_at);
        pieces.extend(sections.iter().map(|section| section.file));
        // The specification counts what was hashed and takes the rest of the file from there, gaps or not.
        let hashed = sections.iter().map(|section| section.file.len()).sum::<usize>();
        let hashed = hashed.saturating_add(self.headers_len);
        pieces.push(piece(hashed, self.bytes.len().saturating_sub(self.certificates_len)));
        alg.hash(&pieces)
    }
}

/// Little-endian fields at offsets that the file itself names.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn slice(&self, what: &'static str, at: usize, len: usize) -> Result<&'a [u8], PeError> {
        let end = at.checked_add(len);
        let slice = end.and_then(|end| self.0.get(at..end));
        slice.ok_or(PeError::Truncated { what, at, len })
    }

    fn array<const N: usize>(&self, what: &'static str, at: usize) -> Result<[u8; N], PeError> {
        let bytes = self.slice(what, at, N)?;
        bytes.try_into().map_err(|_| PeError::Truncated { what, at, len: N })
    }

    fn u16(&self, what: &'static str, at: usize) -> Result<u16, PeError> {
        Ok(u16::from_le_bytes(self.array(what, at)?))
    }

    fn u32(&self, what: &'static str, at: usize) -> Result<u32, PeError> {
        Ok(u32::from_le_bytes(self.array(what, at)?))
    }

    /// A 32-bit size or place.
    fn offset(&self, what: &'static str, at: usize) -> Result<usize, PeError> {
        Ok(usize::try_from(self.u32(what, at)?).unwrap_or(usize::MAX))
    }

    /// Size of the certificate table that a directory entry names by its place in the file.
    fn certificates(&self, directory_at: usize) -> Result<usize, PeError> {
        let what = "the certificate table's directory";
        let at = self.offset(what, directory_at)?;
        let len = self.offset(what, directory_at.saturating_add(4))?;
        if len == 0 {
            return Ok(0);
        }
        if at.checked_add(len) != Some(self.0.len()) {
            return Err(PeError::CertificateTable { at, len });
        }
        Ok(len)
    }

    fn sections(&self, table: usize, count: usize) -> Result<Vec<Section<'a>>, PeError> {
        let what = "a section header";
        let mut sections = Vec::with_capacity(count);
        for index in 0..count {
            let header = table.saturating_add(index.saturating_mul(SECTION_HEADER_BYTES));
            let field = |at: usize| self.offset(what, header.saturating_add(at));
            let name = self.array(what, header)?;
            let (virtual_len, len, file_at) = (field(8)?, field(16)?, field(20)?);
            // Without bytes in the file the place means nothing.
            let file = match len {
                0 => &[],
                _ => self.slice("a section", file_at, len)?,
            };
            sections.push(Section { name, virtual_len, file_at, file });
        }
        Ok(sections)
    }
}

fn expect(what: &'static str, at: usize, found: u32, expected: u32) -> Result<(), PeError> {
    if found == expected { Ok(()) } else { Err(PeError::Magic { what, at, found }) }
}

#[cfg(test)]
mod tests;
