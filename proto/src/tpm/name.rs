//! Names and Qualified Names.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use crate::digest::HashAlg;

/// `nameAlg ‖ H(TPMT_PUBLIC)`, or the same form for a Qualified Name: how a TPM names a key.
///
/// Compared as a whole, algorithm included.
///
/// # Source
/// TPM 2.0 Library Part 1, "Names"; Part 2, `TPM2B_NAME`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Vec<u8>);

impl Name {
    /// The Name of an object with this public area.
    #[must_use]
    pub fn of(name_alg: HashAlg, public: &[u8]) -> Self {
        Self::from_digest(name_alg, name_alg.hash(&[public]).as_bytes())
    }

    fn from_digest(alg: HashAlg, digest: &[u8]) -> Self {
        let mut out = Vec::with_capacity(2 + digest.len());
        out.extend_from_slice(&alg.tpm_id().to_be_bytes());
        out.extend_from_slice(digest);
        Self(out)
    }

    /// A Name as recorded: algorithm identifier and a digest of exactly its size.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (alg, digest) = bytes.split_first_chunk::<2>()?;
        let alg = HashAlg::from_tpm(u16::from_be_bytes(*alg))?;
        (digest.len() == alg.len_bytes()).then(|| Self(bytes.to_vec()))
    }

    /// Qualified Name of a primary key of `hierarchy` (a `TPM_RH_*` handle).
    ///
    /// `QN = nameAlg ‖ H(handle ‖ Name)`
    #[must_use]
    pub fn qualified_primary(hierarchy: u32, name_alg: HashAlg, name: &Self) -> Self {
        let digest = name_alg.hash(&[&hierarchy.to_be_bytes(), &name.0]);
        Self::from_digest(name_alg, digest.as_bytes())
    }

    /// Qualified Name of a child: `nameAlg ‖ H(QN(parent) ‖ Name)`, `nameAlg` the child's.
    #[must_use]
    pub fn qualified_child(parent: &Self, name_alg: HashAlg, name: &Self) -> Self {
        let digest = name_alg.hash(&[&parent.0, &name.0]);
        Self::from_digest(name_alg, digest.as_bytes())
    }

    /// The bytes of `TPM2B_NAME.name`.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        hex::decode(text.as_bytes())
            .ok()
            .and_then(|bytes| Self::from_bytes(&bytes))
            .ok_or_else(|| serde::de::Error::custom("not a TPM object Name in hexadecimal"))
    }
}
