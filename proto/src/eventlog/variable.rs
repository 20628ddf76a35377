//! `UEFI_VARIABLE_DATA`.

use super::{
    guid::Guid,
    reader::{DataError, LeReader},
    text,
};

/// A variable as an event carries it.
///
/// # Source
/// PC Client Platform Firmware Profile, `UEFI_VARIABLE_DATA`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VariableData<'a> {
    /// The variable's vendor.
    pub vendor: Guid,
    /// Name in UCS-2, without terminator.
    pub name: &'a [u8],
    /// Content.
    pub data: &'a [u8],
    /// Bytes after the content: none in the specification; some boot loaders write six.
    pub trailing: &'a [u8],
}

impl<'a> VariableData<'a> {
    /// Reads an event's data.
    ///
    /// # Errors
    /// [`DataError`] if a declared length leaves the data.
    pub fn read(bytes: &'a [u8]) -> Result<Self, DataError> {
        let mut reader = LeReader::new(bytes);
        let vendor = reader.guid("variable vendor")?;
        let name_units = reader.u64("variable name length")?;
        let data_bytes = reader.u64("variable data length")?;
        let name_bytes =
            name_units.checked_mul(2).ok_or_else(|| reader.error("variable name length"))?;
        let name = reader.bytes_u64(name_bytes, "variable name")?;
        let data = reader.bytes_u64(data_bytes, "variable data")?;
        Ok(Self { vendor, name, data, trailing: reader.rest() })
    }

    /// Whether this is the variable `name` of `vendor`, exactly.
    #[must_use]
    pub fn is(&self, vendor: Guid, name: &str) -> bool {
        self.vendor == vendor
            && self.name.len() == name.encode_utf16().count().saturating_mul(2)
            && self.name.iter().copied().eq(name.encode_utf16().flat_map(u16::to_le_bytes))
    }

    /// The name as text.
    #[must_use]
    pub fn name_text(&self) -> String {
        text::utf16(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str, declared: u64, data: &[u8]) -> Vec<u8> {
        let mut out = Guid::GLOBAL_VARIABLE.as_bytes().to_vec();
        out.extend(u64::try_from(name.len()).expect("short").to_le_bytes());
        out.extend(declared.to_le_bytes());
        out.extend(text::to_utf16(name));
        out.extend(data);
        out
    }

    #[test]
    fn a_variable_is_read_and_known_by_name_and_vendor() {
        let bytes = variable("SecureBoot", 1, &[1]);
        let read = VariableData::read(&bytes).expect("well-formed");
        assert!(read.is(Guid::GLOBAL_VARIABLE, "SecureBoot"));
        assert!(!read.is(Guid::SECURITY_DATABASE, "SecureBoot"));
        assert!(!read.is(Guid::GLOBAL_VARIABLE, "SecureBoot2"));
        assert_eq!((read.data, read.trailing), (&[1][..], &[][..]));
    }

    #[test]
    fn lengths_beyond_the_data_are_refused() {
        for declared in [2, u64::from(u32::MAX), u64::MAX] {
            let bytes = variable("db", declared, &[1]);
            assert_eq!(VariableData::read(&bytes).map_err(|e| e.what), Err("variable data"));
        }
        let mut bytes = variable("db", 0, &[]);
        bytes.splice(16..24, u64::MAX.to_le_bytes());
        let what = VariableData::read(&bytes).map_err(|error| error.what);
        assert_eq!(what, Err("variable name length"));
    }
}
