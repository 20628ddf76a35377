//! `UEFI_GPT_DATA`: the partition table of the boot disk.

use super::{
    guid::Guid,
    reader::{DataError, LeReader},
    text,
};

/// Partitions that are read; a default table has room for 128.
pub const MAX_PARTITIONS: usize = 256;
/// Size of a partition entry in the event.
const ENTRY_BYTES: usize = 128;

/// A partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpt {
    /// The disk.
    pub disk: Guid,
    /// Its partitions, those in use only.
    pub partitions: Vec<Partition>,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// What it is for.
    pub kind: Guid,
    /// Its identifier.
    pub id: Guid,
    /// First block.
    pub first_lba: u64,
    /// Last block.
    pub last_lba: u64,
    /// Name.
    pub name: String,
}

impl Gpt {
    /// Reads an event's data.
    ///
    /// # Errors
    /// [`DataError`] if it is not a GPT header, or declares more partitions than there are or than are read.
    pub fn read(bytes: &[u8]) -> Result<Self, DataError> {
        let mut reader = LeReader::new(bytes);
        if reader.bytes(8, "GPT signature")? != b"EFI PART" {
            return Err(reader.error("GPT signature"));
        }
        reader.bytes(48, "GPT header")?;
        let disk = reader.guid("GPT disk")?;
        reader.bytes(20, "GPT header")?;
        let count = reader.u64("GPT partition count")?;
        let fits = usize::try_from(count).is_ok_and(|count| count <= MAX_PARTITIONS);
        if !fits {
            return Err(reader.error("GPT partition count"));
        }
        let mut partitions = Vec::new();
        for _ in 0..count {
            let mut entry = LeReader::new(reader.bytes(ENTRY_BYTES, "GPT partition")?);
            let kind = entry.guid("GPT partition")?;
            let id = entry.guid("GPT partition")?;
            let (first_lba, last_lba) = (entry.u64("GPT partition")?, entry.u64("GPT partition")?);
            entry.u64("GPT partition")?;
            partitions.push(Partition {
                kind,
                id,
                first_lba,
                last_lba,
                name: text::utf16(entry.rest()),
            });
        }
        Ok(Self { disk, partitions })
    }
}
