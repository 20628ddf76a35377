//! Hash algorithms, digests, PCR indexes, banks and selections.

use std::{cmp::Ordering, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Sha256, Sha384, Sha512};

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
            Self::Sha256 => Digest::of::<Sha256>(self, parts),
            Self::Sha384 => Digest::of::<Sha384>(self, parts),
            Self::Sha512 => Digest::of::<Sha512>(self, parts),
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

impl fmt::Display for HashAlg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for HashAlg {
    type Err = DigestParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|alg| alg.name() == text)
            .ok_or_else(|| DigestParseError::Algorithm(text.to_owned()))
    }
}

/// A digest with its algorithm; no allocation, so that replaying a log never allocates.
#[derive(Clone, Copy)]
pub struct Digest {
    alg: HashAlg,
    bytes: [u8; 64],
}

impl Digest {
    /// All zeros: the reset value of PCR 0–16 and 23.
    #[must_use]
    pub const fn zero(alg: HashAlg) -> Self {
        Self { alg, bytes: [0; 64] }
    }

    /// All ones: the reset value of PCR 17–22.
    #[must_use]
    pub fn ones(alg: HashAlg) -> Self {
        let mut bytes = [0; 64];
        bytes[..alg.len_bytes()].fill(0xff);
        Self { alg, bytes }
    }

    /// A digest from exactly `alg.len_bytes()` bytes.
    ///
    /// # Errors
    /// [`DigestParseError::Length`] for any other length: nothing is padded or cut.
    pub fn new(alg: HashAlg, bytes: &[u8]) -> Result<Self, DigestParseError> {
        if bytes.len() != alg.len_bytes() {
            return Err(DigestParseError::Length { alg, found: bytes.len() });
        }
        let mut out = Self::zero(alg);
        out.bytes[..bytes.len()].copy_from_slice(bytes);
        Ok(out)
    }

    fn of<D: sha2::Digest>(alg: HashAlg, parts: &[&[u8]]) -> Self {
        let mut hasher = D::new();
        for part in parts {
            hasher.update(part);
        }
        let mut out = Self::zero(alg);
        out.bytes[..alg.len_bytes()].copy_from_slice(&hasher.finalize());
        out
    }

    /// The algorithm.
    #[must_use]
    pub const fn alg(&self) -> HashAlg {
        self.alg
    }

    /// The digest's bytes, `alg().len_bytes()` of them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.alg.len_bytes()]
    }

    /// The value of a PCR with this value after `TPM2_PCR_Extend` with `event`.
    ///
    /// # Source
    /// TPM 2.0 Library Part 1, "PCR operations": `new = H(old ‖ event)`.
    #[must_use]
    pub fn extended(&self, event: &Self) -> Self {
        self.alg.hash(&[self.as_bytes(), event.as_bytes()])
    }

    /// True for all zeros or all ones: a PCR that nothing was extended into.
    #[must_use]
    pub fn is_reset_value(&self) -> bool {
        self.as_bytes().iter().all(|byte| *byte == 0)
            || self.as_bytes().iter().all(|byte| *byte == 0xff)
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.alg == other.alg && self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Digest {}

impl PartialOrd for Digest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Digest {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.alg, self.as_bytes()).cmp(&(other.alg, other.as_bytes()))
    }
}

impl std::hash::Hash for Digest {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        std::hash::Hash::hash(&self.alg, state);
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// `sha256:<hex>`.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.alg, hex::encode(self.as_bytes()))
    }
}

impl FromStr for Digest {
    type Err = DigestParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (alg, hex_text) = text.split_once(':').ok_or(DigestParseError::NoAlgorithm)?;
        let bytes = hex::decode(hex_text).map_err(|_| DigestParseError::Hex)?;
        Self::new(alg.parse()?, &bytes)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a text or a byte string is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestParseError {
    /// Not one of the algorithms that are appraised.
    #[error("hash algorithm {0:?} is not one of sha256, sha384, sha512")]
    Algorithm(String),
    /// Not hexadecimal.
    #[error("digest is not hexadecimal")]
    Hex,
    /// Wrong number of bytes for the algorithm.
    #[error("a {alg} digest has {} bytes, found {found}", alg.len_bytes())]
    Length {
        /// The algorithm.
        alg: HashAlg,
        /// Bytes found.
        found: usize,
    },
    /// No `alg:` prefix.
    #[error("digest must be written as alg:hex, for example sha256:00…")]
    NoAlgorithm,
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
