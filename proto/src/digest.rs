//! Hash algorithms, digests, PCR indexes, banks and selections.

mod value;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Sha256, Sha384, Sha512};

pub(crate) use self::value::named;
pub use self::value::{Algorithm, DigestOf, DigestParseError};
use crate::limits::PCR_COUNT;

/// A hash algorithm that this project computes.
///
/// SHA-1 banks are parsed and never appraised: no policy can name them.
///
/// # Source
/// TCG Algorithm Registry, `TPM_ALG_ID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashAlg {
    /// `TPM_ALG_SHA256`, 32 bytes.
    Sha256,
    /// `TPM_ALG_SHA384`, 48 bytes.
    Sha384,
    /// `TPM_ALG_SHA512`, 64 bytes.
    Sha512,
}

impl HashAlg {
    /// All algorithms, ascending by `TPM_ALG_ID`.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// The algorithm with this `TPM_ALG_ID`, if it is one that is appraised.
    #[must_use]
    pub const fn from_tpm(alg: u16) -> Option<Self> {
        match alg {
            0x000B => Some(Self::Sha256),
            0x000C => Some(Self::Sha384),
            0x000D => Some(Self::Sha512),
            _ => None,
        }
    }

    /// `TPM_ALG_ID`.
    #[must_use]
    pub const fn tpm_id(self) -> u16 {
        match self {
            Self::Sha256 => 0x000B,
            Self::Sha384 => 0x000C,
            Self::Sha512 => 0x000D,
        }
    }

    /// Size of a digest, bytes.
    #[must_use]
    pub const fn len_bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Hash of the concatenation of `parts`.
    #[must_use]
    pub fn hash(self, parts: &[&[u8]]) -> Digest {
        match self {
            Self::Sha256 => Digest::hashed::<Sha256>(self, parts),
            Self::Sha384 => Digest::hashed::<Sha384>(self, parts),
            Self::Sha512 => Digest::hashed::<Sha512>(self, parts),
        }
    }

    /// Lower-case name, as in file formats: `sha256`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }
}

impl Algorithm for HashAlg {
    fn len_bytes(self) -> usize {
        self.len_bytes()
    }

    fn name(self) -> &'static str {
        self.name()
    }
}

impl fmt::Display for HashAlg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for HashAlg {
    type Err = DigestParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        named(&Self::ALL, text)
    }
}

/// A digest of an algorithm that is appraised.
pub type Digest = DigestOf<HashAlg>;

impl Digest {
    /// The value of a PCR with this value after `TPM2_PCR_Extend` with `event`.
    ///
    /// # Source
    /// TPM 2.0 Library Part 1, "PCR operations": `new = H(old ‖ event)`.
    #[must_use]
    pub fn extended(&self, event: &Self) -> Self {
        self.alg().hash(&[self.as_bytes(), event.as_bytes()])
    }

    /// True for all zeros or all ones: a PCR that nothing was extended into.
    #[must_use]
    pub fn is_reset_value(&self) -> bool {
        self.as_bytes().iter().all(|byte| *byte == 0)
            || self.as_bytes().iter().all(|byte| *byte == 0xff)
    }
}

/// Index of a PCR, 0–23.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct PcrIndex(u8);

impl PcrIndex {
    /// The PCR with this index; `None` above 23.
    #[must_use]
    pub const fn new(index: u8) -> Option<Self> {
        if (index as usize) < PCR_COUNT { Some(Self(index)) } else { None }
    }

    /// The index.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Value after a TPM reset: ones for the D-RTM registers 17–22, zeros elsewhere.
    ///
    /// # Source
    /// PC Client Platform TPM Profile, "PCR initial and reset values".
    #[must_use]
    pub fn reset_value(self, alg: HashAlg) -> Digest {
        if (17..=22).contains(&self.0) { Digest::ones(alg) } else { Digest::zero(alg) }
    }
}

impl TryFrom<u8> for PcrIndex {
    type Error = PcrIndexError;

    fn try_from(index: u8) -> Result<Self, Self::Error> {
        Self::new(index).ok_or(PcrIndexError(u64::from(index)))
    }
}

impl From<PcrIndex> for u8 {
    fn from(index: PcrIndex) -> Self {
        index.0
    }
}

impl fmt::Display for PcrIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A PCR index above 23.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PCR index {0} is not in 0..=23")]
pub struct PcrIndexError(pub u64);

/// A set of PCRs in one bank, as 24 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PcrSet(u32);

impl PcrSet {
    /// Bits 0–23; `None` if a higher bit is set.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Option<Self> {
        if bits >> PCR_COUNT == 0 { Some(Self(bits)) } else { None }
    }

    /// Bit i set means PCR i.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether the set has this PCR.
    #[must_use]
    pub const fn contains(self, index: PcrIndex) -> bool {
        self.0 >> index.0 & 1 == 1
    }

    /// Adds a PCR.
    pub const fn insert(&mut self, index: PcrIndex) {
        self.0 |= 1 << index.0;
    }

    /// Whether the set has no PCR.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether every PCR of `other` is in this set.
    #[must_use]
    pub const fn is_superset(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// PCRs ascending.
    pub fn iter(self) -> impl Iterator<Item = PcrIndex> {
        (0..PCR_COUNT as u8).map(PcrIndex).filter(move |index| self.contains(*index))
    }
}

impl FromIterator<PcrIndex> for PcrSet {
    fn from_iter<I: IntoIterator<Item = PcrIndex>>(indexes: I) -> Self {
        let mut set = Self::default();
        indexes.into_iter().for_each(|index| set.insert(index));
        set
    }
}

/// PCRs of one or more banks, at most one entry a bank, ascending by `TPM_ALG_ID`.
///
/// Corresponds to `TPML_PCR_SELECTION` in the form that the verifier asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcrSelection(Vec<(HashAlg, PcrSet)>);

impl PcrSelection {
    /// A selection; banks are sorted, empty banks dropped, a bank named twice is united.
    #[must_use]
    pub fn new(banks: impl IntoIterator<Item = (HashAlg, PcrSet)>) -> Self {
        let mut out: Vec<(HashAlg, PcrSet)> = Vec::new();
        for (alg, set) in banks {
            match out.iter_mut().find(|(known, _)| *known == alg) {
                Some((_, known)) => known.0 |= set.0,
                None => out.push((alg, set)),
            }
        }
        out.retain(|(_, set)| !set.is_empty());
        out.sort_by_key(|(alg, _)| *alg);
        Self(out)
    }

    /// Banks, ascending.
    #[must_use]
    pub fn banks(&self) -> &[(HashAlg, PcrSet)] {
        &self.0
    }

    /// The set of one bank; empty where the bank is not selected.
    #[must_use]
    pub fn bank(&self, alg: HashAlg) -> PcrSet {
        self.0.iter().find(|(known, _)| *known == alg).map(|(_, set)| *set).unwrap_or_default()
    }

    /// Every (bank, PCR), ascending.
    pub fn iter(&self) -> impl Iterator<Item = (HashAlg, PcrIndex)> {
        self.0.iter().flat_map(|(alg, set)| set.iter().map(move |index| (*alg, index)))
    }
}
