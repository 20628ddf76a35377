//! What firmware says about code and tables that it measured. The digest is over the code: none of this is vouched
//! for.

use super::{
    guid::Guid,
    reader::{DataError, LeReader},
};

/// Tables that are read from one event.
pub const MAX_TABLES: usize = 64;

/// `UEFI_PLATFORM_FIRMWARE_BLOB`, with a description where it is the second version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirmwareBlob<'a> {
    /// Description; empty in the first version.
    pub description: &'a [u8],
    /// Physical address.
    pub base: u64,
    /// Size, bytes.
    pub len_bytes: u64,
}

impl<'a> FirmwareBlob<'a> {
    /// Reads the data of `EV_EFI_PLATFORM_FIRMWARE_BLOB` (also `EV_POST_CODE`).
    ///
    /// # Errors
    /// [`DataError`] for any other size than 16 bytes.
    pub fn read(bytes: &'a [u8]) -> Result<Self, DataError> {
        Self::body(LeReader::new(bytes), &[])
    }

    /// Reads the data of `EV_EFI_PLATFORM_FIRMWARE_BLOB2`.
    ///
    /// # Errors
    /// [`DataError`] if the description leaves the data.
    pub fn read2(bytes: &'a [u8]) -> Result<Self, DataError> {
        let mut reader = LeReader::new(bytes);
        let size = reader.u8("blob description")?;
        let description = reader.bytes(size.into(), "blob description")?;
        Self::body(reader, description)
    }

    fn body(mut reader: LeReader<'a>, description: &'a [u8]) -> Result<Self, DataError> {
        let base = reader.u64("blob base")?;
        let len_bytes = reader.u64("blob length")?;
        if reader.rest().is_empty() {
            Ok(Self { description, base, len_bytes })
        } else {
            Err(reader.error("bytes follow the blob"))
        }
    }
}

/// `UEFI_HANDOFF_TABLE_POINTERS`, with a description where it is the second version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandoffTables<'a> {
    /// Description; empty in the first version.
    pub description: &'a [u8],
    /// Kind and physical address of each table.
    pub tables: Vec<(Guid, u64)>,
}

impl<'a> HandoffTables<'a> {
    /// Reads the data of `EV_EFI_HANDOFF_TABLES`.
    ///
    /// # Errors
    /// [`DataError`] if there are fewer tables than declared, or more than [`MAX_TABLES`].
    pub fn read(bytes: &'a [u8]) -> Result<Self, DataError> {
        Self::body(LeReader::new(bytes), &[])
    }

    /// Reads the data of `EV_EFI_HANDOFF_TABLES2`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read2(bytes: &'a [u8]) -> Result<Self, DataError> {
        let mut reader = LeReader::new(bytes);
        let size = reader.u8("tables description")?;
        let description = reader.bytes(size.into(), "tables description")?;
        Self::body(reader, description)
    }

    fn body(mut reader: LeReader<'a>, description: &'a [u8]) -> Result<Self, DataError> {
        let count = reader.u64("table count")?;
        if !usize::try_from(count).is_ok_and(|count| count <= MAX_TABLES) {
            return Err(reader.error("table count"));
        }
        let mut tables = Vec::new();
        for _ in 0..count {
            tables.push((reader.guid("table")?, reader.u64("table")?));
        }
        Ok(Self { description, tables })
    }
}

/// `UEFI_IMAGE_LOAD_EVENT`. The digest is the image's Authenticode hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLoad<'a> {
    /// Where it was loaded.
    pub location: u64,
    /// Its size, bytes.
    pub len_bytes: u64,
    /// Where it was linked for.
    pub link_time_address: u64,
    /// Device path; what is there, where the declared length leaves the data.
    pub path: &'a [u8],
}

impl<'a> ImageLoad<'a> {
    /// Reads an event's data.
    ///
    /// # Errors
    /// [`DataError`] if the fixed part is not there.
    pub fn read(bytes: &'a [u8]) -> Result<Self, DataError> {
        let mut reader = LeReader::new(bytes);
        let location = reader.u64("image location")?;
        let len_bytes = reader.u64("image length")?;
        let link_time_address = reader.u64("image link address")?;
        let path_bytes = reader.u64("image path length")?;
        let rest = reader.rest();
        let path =
            usize::try_from(path_bytes).ok().and_then(|size| rest.get(..size)).unwrap_or(rest);
        Ok(Self { location, len_bytes, link_time_address, path })
    }
}
