//! `EFI_SIGNATURE_LIST`: contents of PK, KEK, db, dbx and MokList.

use super::{
    guid::Guid,
    reader::{DataError, LeReader},
};

/// Type, list size, header size, entry size.
const HEADER_BYTES: u32 = 28;
/// Owner of an entry.
const OWNER_BYTES: u32 = 16;

/// One list: entries of one type and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignatureList<'a> {
    /// Type of the entries, such as [`Guid::CERT_X509`].
    pub kind: Guid,
    entry_bytes: usize,
    entries: &'a [u8],
}

/// One entry, `EFI_SIGNATURE_DATA`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignatureEntry<'a> {
    /// Who enrolled it.
    pub owner: Guid,
    /// Certificate, hash, …
    pub data: &'a [u8],
}

impl<'a> SignatureEntry<'a> {
    /// Reads one `EFI_SIGNATURE_DATA` that fills `bytes`, as an authority event carries it.
    ///
    /// # Errors
    /// [`DataError`] if there is no owner.
    pub fn read(bytes: &'a [u8]) -> Result<Self, DataError> {
        let mut reader = LeReader::new(bytes);
        let owner = reader.guid("signature owner")?;
        Ok(Self { owner, data: reader.rest() })
    }
}

impl<'a> SignatureList<'a> {
    /// Entries, in order. Sizes were checked: the list is a whole number of entries.
    pub fn entries(&self) -> impl Iterator<Item = SignatureEntry<'a>> + use<'a> {
        self.entries
            .chunks_exact(self.entry_bytes)
            .filter_map(|entry| SignatureEntry::read(entry).ok())
    }
}

/// Lists front to back; ends after an error. A list is at least its header, so the reading always advances.
#[derive(Clone, Debug)]
pub struct SignatureLists<'a> {
    reader: LeReader<'a>,
    failed: bool,
}

impl<'a> SignatureLists<'a> {
    /// Reads a variable's content.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { reader: LeReader::new(bytes), failed: false }
    }

    fn list(&mut self) -> Result<SignatureList<'a>, DataError> {
        let kind = self.reader.guid("signature type")?;
        let list_bytes = self.reader.u32("signature list size")?;
        let header_bytes = self.reader.u32("signature header size")?;
        let entry_bytes = self.reader.u32("signature size")?;
        let body = list_bytes
            .checked_sub(HEADER_BYTES)
            .and_then(|rest| rest.checked_sub(header_bytes))
            .ok_or_else(|| self.reader.error("a signature list is smaller than its headers"))?;
        if entry_bytes < OWNER_BYTES {
            return Err(self.reader.error("a signature is smaller than its owner"));
        }
        if !body.is_multiple_of(entry_bytes) {
            return Err(self.reader.error("a signature list is not a whole number of signatures"));
        }
        self.reader.bytes_u64(header_bytes.into(), "signature header")?;
        let entries = self.reader.bytes_u64(body.into(), "signature list")?;
        let entry_bytes =
            usize::try_from(entry_bytes).map_err(|_| self.reader.error("signature size"))?;
        Ok(SignatureList { kind, entry_bytes, entries })
    }
}

impl<'a> Iterator for SignatureLists<'a> {
    type Item = Result<SignatureList<'a>, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.reader.rest().is_empty() {
            return None;
        }
        let list = self.list();
        self.failed = list.is_err();
        Some(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(list_bytes: u32, header_bytes: u32, entry_bytes: u32, body: &[u8]) -> Vec<u8> {
        let mut out = Guid::CERT_SHA256.as_bytes().to_vec();
        for field in [list_bytes, header_bytes, entry_bytes] {
            out.extend(field.to_le_bytes());
        }
        out.extend(body);
        out
    }

    #[test]
    fn lists_follow_each_other() {
        let mut bytes = list(28 + 96, 0, 48, &[7; 96]);
        bytes.extend(list(28 + 4 + 48, 4, 48, &[9; 52]));
        let lists: Vec<_> =
            SignatureLists::new(&bytes).collect::<Result<_, _>>().expect("well-formed");
        let counts: Vec<_> = lists.iter().map(|list| list.entries().count()).collect();
        assert_eq!(counts, [2, 1]);
        assert!(lists.iter().flat_map(SignatureList::entries).all(|entry| entry.data.len() == 32));
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        for (bytes, what) in [
            (list(27, 0, 48, &[]), "a signature list is smaller than its headers"),
            (list(0, 0, 48, &[]), "a signature list is smaller than its headers"),
            (list(28, 1, 48, &[]), "a signature list is smaller than its headers"),
            (list(28, u32::MAX, 48, &[]), "a signature list is smaller than its headers"),
            (list(28, 0, 0, &[]), "a signature is smaller than its owner"),
            (list(28 + 48, 0, 15, &[0; 48]), "a signature is smaller than its owner"),
            (
                list(28 + 49, 0, 48, &[0; 49]),
                "a signature list is not a whole number of signatures",
            ),
            (list(28 + 48, 0, 48, &[0; 47]), "signature list"),
        ] {
            let mut lists = SignatureLists::new(&bytes);
            assert_eq!(lists.next().map(|list| list.map_err(|e| e.what).err()), Some(Some(what)));
            assert!(lists.next().is_none(), "nothing after an error");
        }
    }
}
