//! Microsoft cabinets: the container read here, bounded; decompression by the `cab` crate.
//!
//! That crate unpacks a folder from its start for every file and indexes past its block table for
//! files that a damaged directory places outside of their folder. So the directory is read and
//! checked here, and the crate is given a cabinet of the same data whose only files are the whole
//! folders: each is unpacked once.
//!
//! # Source
//! Microsoft Cabinet Format, [MS-CAB].

use std::{
    io::{Cursor, Read as _},
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::{MAX_FILES, read::Item};

/// Largest cabinet: Microsoft's list has about 2 MB.
pub const MAX_CABINET_BYTES: u64 = 32 * 1024 * 1024;
/// Bytes of all folders, unpacked: Microsoft's list has about 3 MB.
const MAX_UNPACKED_BYTES: usize = 64 * 1024 * 1024;
/// Folders (runs of compressed data) of one cabinet.
const MAX_FOLDERS: usize = 256;
/// Longest name of a file, bytes; the format's own limit.
const MAX_NAME_BYTES: usize = 256;

const SIGNATURE: &[u8; 4] = b"MSCF";
/// cfhdrPREV_CABINET, cfhdrNEXT_CABINET, cfhdrRESERVE_PRESENT.
const FLAG_PREVIOUS: u16 = 1;
const FLAG_NEXT: u16 = 2;
const FLAG_RESERVE: u16 = 4;
/// _A_NAME_IS_UTF.
const ATTRIBUTE_UTF: u16 = 0x80;
/// Size of CFHEADER without optional fields.
const HEADER_BYTES: usize = 36;

/// Why a cabinet cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CabinetError {
    /// A field points outside of the file, or contradicts another.
    #[error("the cabinet is damaged: {0}")]
    Damaged(&'static str),
    /// Decompression failed.
    #[error("the cabinet does not unpack")]
    Unpack(#[source] std::io::Error),
    /// It exceeds a bound.
    #[error("the cabinet has more than {limit} {what}")]
    TooLarge {
        /// What is too many.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// A cabinet that is one of several.
    #[error("the cabinet continues in another one")]
    Continued,
}

/// Whether `bytes` begin like a cabinet.
pub(super) fn is_cabinet(bytes: &[u8]) -> bool {
    bytes.starts_with(SIGNATURE)
}

/// The files of a cabinet, in their order there; labels use `/`.
pub(super) fn extract(bytes: &[u8]) -> Result<Vec<Item>, CabinetError> {
    let directory = Directory::read(bytes)?;
    let folders = unpack(&directory.whole_folders(bytes)?, &directory.folders)?;
    let mut items = Vec::with_capacity(directory.files.len());
    for file in directory.files {
        let content = folders
            .get(file.folder)
            .and_then(|folder| folder.get(file.offset..file.offset.checked_add(file.size)?))
            .ok_or(CabinetError::Damaged("a file lies outside of its folder"))?;
        items.push(Item { label: file.name, bytes: content.to_vec() });
    }
    Ok(items)
}

struct Folder {
    /// Compressed data blocks, headers included, in the original.
    data: std::ops::Range<usize>,
    blocks: u16,
    compression: u16,
    unpacked: usize,
}

struct FileEntry {
    name: String,
    folder: usize,
    offset: usize,
    size: usize,
}

struct Directory {
    folders: Vec<Folder>,
    files: Vec<FileEntry>,
    data_reserve: u8,
}

impl Directory {
    fn read(bytes: &[u8]) -> Result<Self, CabinetError> {
        let mut header = Bytes { bytes, at: 8 };
        let size = header.u32()?;
        if bytes.len() < size {
            return Err(CabinetError::Damaged("it ends too soon"));
        }
        header.at = 16;
        let first_file = header.u32()?;
        header.at = 26;
        let folder_count = usize::from(header.u16()?);
        let file_count = usize::from(header.u16()?);
        let flags = header.u16()?;
        if flags & (FLAG_PREVIOUS | FLAG_NEXT) != 0 {
            return Err(CabinetError::Continued);
        }
        if folder_count > MAX_FOLDERS {
            return Err(CabinetError::TooLarge { what: "folders", limit: MAX_FOLDERS });
        }
        if file_count > MAX_FILES {
            return Err(CabinetError::TooLarge { what: "files", limit: MAX_FILES });
        }
        header.at = HEADER_BYTES;
        let (mut folder_reserve, mut data_reserve) = (0, 0);
        if flags & FLAG_RESERVE != 0 {
            let header_reserve = usize::from(header.u16()?);
            folder_reserve = usize::from(header.u8()?);
            data_reserve = header.u8()?;
            header.skip(header_reserve)?;
        }
        let mut folders = Vec::with_capacity(folder_count);
        let mut unpacked = 0_usize;
        for _ in 0..folder_count {
            let folder = Folder::read(&mut header, folder_reserve, data_reserve)?;
            unpacked = unpacked.saturating_add(folder.unpacked);
            folders.push(folder);
        }
        if unpacked > MAX_UNPACKED_BYTES {
            let what = "unpacked bytes";
            return Err(CabinetError::TooLarge { what, limit: MAX_UNPACKED_BYTES });
        }
        let mut reader = Bytes { bytes, at: first_file };
        let files =
            (0..file_count).map(|_| FileEntry::read(&mut reader)).collect::<Result<_, _>>()?;
        Ok(Self { folders, files, data_reserve })
    }

    /// A cabinet of the same folders, each holding one file that is all of it.
    fn whole_folders(&self, original: &[u8]) -> Result<Vec<u8>, CabinetError> {
        const FOLDER_BYTES: usize = 8;
        const FILE_BYTES: usize = 16 + 4;
        let count = u16::try_from(self.folders.len()).map_err(|_| CabinetError::Continued)?;
        let too_large = |_| CabinetError::Damaged("an offset does not fit");
        let files_at = HEADER_BYTES + 4 + self.folders.len() * FOLDER_BYTES;
        let mut data_at = files_at + self.folders.len() * FILE_BYTES;
        let data_bytes: usize = self.folders.iter().map(|folder| folder.data.len()).sum();
        let size = u32::try_from(data_at + data_bytes).map_err(too_large)?;

        let mut out = Vec::with_capacity(data_at + data_bytes);
        out.extend_from_slice(SIGNATURE);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&size.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&u32::try_from(files_at).map_err(too_large)?.to_le_bytes());
        // Reserved, version 1.3.
        out.extend_from_slice(&[0, 0, 0, 0, 3, 1]);
        for field in [count, count, FLAG_RESERVE, 0, 0, 0] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        // No reserve per folder; that per data block stays, for it is part of the data.
        out.extend_from_slice(&[0, self.data_reserve]);
        for folder in &self.folders {
            out.extend_from_slice(&u32::try_from(data_at).map_err(too_large)?.to_le_bytes());
            out.extend_from_slice(&folder.blocks.to_le_bytes());
            out.extend_from_slice(&folder.compression.to_le_bytes());
            data_at += folder.data.len();
        }
        for (index, folder) in (0_u16..).zip(&self.folders) {
            let unpacked = u32::try_from(folder.unpacked).map_err(too_large)?;
            out.extend_from_slice(&unpacked.to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&index.to_le_bytes());
            // Date (1980-01-01), time and attributes; then the name.
            out.extend_from_slice(&[0x21, 0, 0, 0, 0, 0]);
            out.extend_from_slice(format!("{index:03}\0").as_bytes());
        }
        for folder in &self.folders {
            let data = original.get(folder.data.clone());
            out.extend_from_slice(data.ok_or(CabinetError::Damaged("data is missing"))?);
        }
        Ok(out)
    }
}

impl Folder {
    fn read(
        header: &mut Bytes<'_>,
        folder_reserve: usize,
        data_reserve: u8,
    ) -> Result<Self, CabinetError> {
        let start = header.u32()?;
        let blocks = header.u16()?;
        let compression = header.u16()?;
        header.skip(folder_reserve)?;
        let mut data = Bytes { bytes: header.bytes, at: start };
        let mut unpacked = 0_usize;
        for _ in 0..blocks {
            data.skip(4)?;
            let packed_bytes = usize::from(data.u16()?);
            unpacked += usize::from(data.u16()?);
            data.skip(usize::from(data_reserve) + packed_bytes)?;
        }
        Ok(Self { data: start..data.at, blocks, compression, unpacked })
    }
}

impl FileEntry {
    fn read(reader: &mut Bytes<'_>) -> Result<Self, CabinetError> {
        let size = reader.u32()?;
        let offset = reader.u32()?;
        let folder = usize::from(reader.u16()?);
        reader.skip(4)?;
        let attributes = reader.u16()?;
        let rest = reader.bytes.get(reader.at..).unwrap_or_default();
        let length = rest
            .iter()
            .take(MAX_NAME_BYTES)
            .position(|byte| *byte == 0)
            .ok_or(CabinetError::Damaged("a file name does not end"))?;
        let name = rest.get(..length).unwrap_or_default();
        let name = if attributes & ATTRIBUTE_UTF != 0 {
            String::from_utf8_lossy(name).into_owned()
        } else {
            // The code page is the maker's secret: beyond ASCII a name is only a label anyway.
            name.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '?' }).collect()
        };
        reader.skip(length + 1)?;
        // Continuation markers are 0xfffd to 0xffff.
        if folder >= 0xfffd {
            return Err(CabinetError::Continued);
        }
        Ok(Self { name: name.replace('\\', "/"), folder, offset, size })
    }
}

/// Unpacks each folder of a cabinet made by [`Directory::whole_folders`].
fn unpack(cabinet: &[u8], folders: &[Folder]) -> Result<Vec<Vec<u8>>, CabinetError> {
    // The decompressors are other people's and meet whatever a file holds: a panic in them is a
    // damaged cabinet, not the end of this process.
    catch_unwind(AssertUnwindSafe(|| {
        let mut cabinet = cab::Cabinet::new(Cursor::new(cabinet)).map_err(CabinetError::Unpack)?;
        let mut out = Vec::with_capacity(folders.len());
        for (index, folder) in folders.iter().enumerate() {
            let mut content = Vec::new();
            if folder.blocks > 0 {
                let reader =
                    cabinet.read_file(&format!("{index:03}")).map_err(CabinetError::Unpack)?;
                let limit = folder.unpacked as u64;
                reader.take(limit).read_to_end(&mut content).map_err(CabinetError::Unpack)?;
            }
            out.push(content);
        }
        Ok(out)
    }))
    .unwrap_or(Err(CabinetError::Damaged("its data does not unpack")))
}

/// Little-endian cursor.
struct Bytes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bytes<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], CabinetError> {
        let value = self
            .bytes
            .get(self.at..)
            .and_then(|rest| rest.first_chunk())
            .copied()
            .ok_or(CabinetError::Damaged("it ends too soon"))?;
        self.at += N;
        Ok(value)
    }

    fn u8(&mut self) -> Result<u8, CabinetError> {
        let [value] = self.array()?;
        Ok(value)
    }

    fn u16(&mut self) -> Result<u16, CabinetError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// A 32-bit field: all of them are sizes or offsets.
    fn u32(&mut self) -> Result<usize, CabinetError> {
        usize::try_from(u32::from_le_bytes(self.array()?))
            .map_err(|_| CabinetError::Damaged("a size does not fit"))
    }

    fn skip(&mut self, count: usize) -> Result<(), CabinetError> {
        let at = self.at.checked_add(count).filter(|at| *at <= self.bytes.len());
        self.at = at.ok_or(CabinetError::Damaged("it ends too soon"))?;
        Ok(())
    }
}
