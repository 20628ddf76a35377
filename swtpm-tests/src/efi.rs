//! EFI programs for the synthetic firmware: tiny PE/COFF files with everything that is measured of a real one.
//!
//! The digest and the sections are read here once more, without the code that predicts: a prediction that holds on the
//! synthetic firmware agrees with two readers of the format.
//!
//! # Source
//! Microsoft, "PE Format" and "Windows Authenticode Portable Executable Signature Format"; systemd's `systemd-stub(7)`.

use std::ops::Range;

/// Where the PE header of a built file begins.
const PE_AT: usize = 0x40;
/// A PE32+ optional header with 16 directories.
const OPTIONAL_LEN: usize = 112 + 16 * 8;
/// Room for 20 sections.
const HEADERS_LEN: usize = 0x400;
const FILE_ALIGNMENT: usize = 0x200;
const SECTION_HEADER_LEN: usize = 40;
const CHECKSUM_AT: usize = 64;
/// Directory 4, the certificate table, of a PE32+ header.
const CERTIFICATES_AT: usize = 112 + 4 * 8;
/// What a stub says of itself: the version of Debian 12, the first that measures sections.
const STUB: &[u8] = b"#### LoaderInfo: systemd-stub 252.39-1 ####\0";
/// In the place of a signature: firmware here does not check it.
const SIGNATURE: &[u8] = b"synthetic signature     ";

/// Why a file cannot be booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no EFI program: {0}")]
pub struct NotAProgram(&'static str);

/// A PE/COFF file whose structures are all inside of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    bytes: Vec<u8>,
    hashed: Vec<Range<usize>>,
    sections: Vec<(String, Range<usize>)>,
}

impl Program {
    /// Reads a PE32+ file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, NotAProgram> {
        let parsed = read(&bytes).ok_or(NotAProgram("a structure leaves the file"))?;
        let (hashed, sections) = parsed?;
        Ok(Self { bytes, hashed, sections })
    }

    /// The file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the Authenticode digest is over: the file without its checksum and without its signature.
    #[must_use]
    pub fn hashed(&self) -> Vec<u8> {
        self.hashed
            .iter()
            .filter_map(|range| self.bytes.get(range.clone()))
            .flatten()
            .copied()
            .collect()
    }

    /// A section, as it is in memory.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&[u8]> {
        let (_, range) = self.sections.iter().find(|(known, _)| known == name)?;
        self.bytes.get(range.clone())
    }
}

/// A program of these sections, signed as far as anybody looks here.
#[must_use]
pub fn program(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = vec![0; HEADERS_LEN];
    let optional = PE_AT + 24;
    put(&mut out, 0, b"MZ");
    put(&mut out, 0x3c, &word(PE_AT));
    put(&mut out, PE_AT, b"PE\0\0");
    put(&mut out, PE_AT + 4, &0x8664_u16.to_le_bytes());
    put(&mut out, PE_AT + 6, &half(sections.len()));
    put(&mut out, PE_AT + 20, &half(OPTIONAL_LEN));
    put(&mut out, optional, &0x20b_u16.to_le_bytes());
    put(&mut out, optional + 60, &word(HEADERS_LEN));
    put(&mut out, optional + 108, &word(16));
    for (index, (name, content)) in sections.iter().enumerate() {
        let header = optional + OPTIONAL_LEN + index * SECTION_HEADER_LEN;
        let start = out.len();
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(FILE_ALIGNMENT), 0);
        let len = out.len() - start;
        put(&mut out, header, name.as_bytes());
        put(&mut out, header + 8, &word(content.len()));
        put(&mut out, header + 16, &word(len));
        put(&mut out, header + 20, &word(start));
    }
    let certificates = word(out.len());
    put(&mut out, optional + CERTIFICATES_AT, &certificates);
    put(&mut out, optional + CERTIFICATES_AT + 4, &word(SIGNATURE.len()));
    out.extend_from_slice(SIGNATURE);
    out
}

/// A unified kernel image: systemd's stub with kernel, command line and initrd as sections.
#[must_use]
pub fn unified_kernel_image(release: &str, command_line: &str, initrd: &[u8]) -> Vec<u8> {
    let kernel = program(&[(".text", format!("linux {release}").as_bytes())]);
    program(&[
        (".text", b"stub"),
        (".sdmagic", STUB),
        (".osrel", b"ID=debian\nVERSION_ID=12\n"),
        (".uname", release.as_bytes()),
        (".cmdline", command_line.as_bytes()),
        (".initrd", initrd),
        (".linux", &kernel),
    ])
}

type Parsed = (Vec<Range<usize>>, Vec<(String, Range<usize>)>);

/// `None` where a structure leaves the file.
fn read(bytes: &[u8]) -> Option<Result<Parsed, NotAProgram>> {
    let header = number(bytes, 0x3c, 4)?;
    if bytes.get(..2)? != b"MZ" || bytes.get(header..header.checked_add(4)?)? != b"PE\0\0" {
        return Some(Err(NotAProgram("the magic numbers are others")));
    }
    let optional = header.checked_add(24)?;
    if number(bytes, optional, 2)? != 0x20b {
        return Some(Err(NotAProgram("only PE32+ is booted here")));
    }
    let count = number(bytes, header + 6, 2)?;
    let table = optional.checked_add(number(bytes, header + 20, 2)?)?;
    let headers_len = number(bytes, optional + 60, 4)?;
    let certificates = optional + CERTIFICATES_AT;
    let certificates_len = number(bytes, certificates + 4, 4)?;
    let mut hashed = vec![
        0..optional + CHECKSUM_AT,
        optional + CHECKSUM_AT + 4..certificates,
        certificates + 8..headers_len,
    ];
    let mut sections = Vec::new();
    let mut in_file = Vec::new();
    for index in 0..count {
        let header = table.checked_add(index * SECTION_HEADER_LEN)?;
        let name = bytes.get(header..header + 8)?.split(|byte| *byte == 0).next()?;
        let (virtual_len, len) = (number(bytes, header + 8, 4)?, number(bytes, header + 16, 4)?);
        let at = number(bytes, header + 20, 4)?;
        let _ = bytes.get(at..at.checked_add(len)?)?;
        in_file.push(at..at + len);
        sections.push((String::from_utf8_lossy(name).into_owned(), at..at + len.min(virtual_len)));
    }
    in_file.sort_by_key(|range| range.start);
    let end = headers_len + in_file.iter().map(ExactSizeIterator::len).sum::<usize>();
    hashed.extend(in_file);
    hashed.push(end..bytes.len().checked_sub(certificates_len)?);
    Some(Ok((hashed, sections)))
}

fn number(bytes: &[u8], at: usize, len: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte)))
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(field) = out.get_mut(at..at + bytes.len()) {
        field.copy_from_slice(bytes);
    }
}

fn word(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}

fn half(value: usize) -> [u8; 2] {
    u16::try_from(value).unwrap_or(u16::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use appraisal::predict::pe::Image;
    use proto::digest::HashAlg;

    use super::*;

    #[test]
    fn two_readers_agree_on_what_is_measured() {
        let file = unified_kernel_image("6.1.0-28-amd64", "root=/dev/vda2 ro", b"initrd");
        let ours = Program::parse(file.clone()).expect("a program");
        let theirs = Image::parse(&file).expect("an image");
        let digest = HashAlg::Sha256.hash(&[&ours.hashed()]);
        assert_eq!(digest, theirs.authenticode(HashAlg::Sha256));
        assert!(theirs.is_signed());
        for name in [".linux", ".osrel", ".cmdline", ".initrd", ".uname"] {
            let section = theirs.section(name).expect("once").expect("there");
            let loaded = section.loaded().expect("small").to_vec();
            assert_eq!(ours.section(name), Some(loaded.as_slice()), "{name}");
        }
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert_eq!(Program::parse(vec![0; 16]), Err(NotAProgram("a structure leaves the file")));
        let mut other = program(&[]);
        other[PE_AT] = b'N';
        assert_eq!(Program::parse(other), Err(NotAProgram("the magic numbers are others")));
        let mut cut = program(&[(".text", b"stub")]);
        cut.truncate(HEADERS_LEN + 1);
        assert_eq!(Program::parse(cut), Err(NotAProgram("a structure leaves the file")));
    }
}
