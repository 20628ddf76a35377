//! `EFI_LOAD_OPTION`: a boot entry.

use super::{
    reader::{DataError, LeReader},
    text,
};

/// A boot entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOption<'a> {
    /// Attributes; bit 0: active.
    pub attributes: u32,
    /// Description.
    pub description: String,
    /// Device path.
    pub path: &'a [u8],
    /// Optional data for the image.
    pub optional: &'a [u8],
}

impl<'a> LoadOption<'a> {
    /// Reads a variable's content.
    ///
    /// # Errors
    /// [`DataError`] if the description does not end or the path leaves the data.
    pub fn read(bytes: &'a [u8]) -> Result<Self, DataError> {
        let mut reader = LeReader::new(bytes);
        let attributes = reader.u32("load option attributes")?;
        let path_bytes = reader.u16("load option path length")?;
        let rest = reader.rest();
        let units = rest
            .chunks_exact(2)
            .position(|unit| unit == [0, 0])
            .ok_or_else(|| reader.error("load option description"))?;
        let description = text::utf16(reader.bytes(units.saturating_mul(2), "description")?);
        reader.bytes(2, "description")?;
        let path = reader.bytes(path_bytes.into(), "load option path")?;
        Ok(Self { attributes, description, path, optional: reader.rest() })
    }
}
