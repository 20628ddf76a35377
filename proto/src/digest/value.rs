//! A digest with its algorithm: one type for what policy names, what logs name and what the kernel's banks have.

use std::{fmt, hash::Hash, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A set of hash algorithms that digests are made of.
pub trait Algorithm: Copy + Ord + Hash + fmt::Display + FromStr<Err = DigestParseError> {
    /// Size of a digest, bytes; at most 64.
    fn len_bytes(self) -> usize;

    /// Lower-case name, as in file formats: `sha256`.
    fn name(self) -> &'static str;
}

/// A digest of an algorithm of the set `A`; no allocation, so that replaying a log never allocates.
///
/// Written `sha256:<hex>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DigestOf<A> {
    alg: A,
    /// Zeros after the digest's end, so that comparing all of it compares the digests.
    bytes: [u8; 64],
}

impl<A: Algorithm> DigestOf<A> {
    /// All zeros: the reset value of PCR 0–16 and 23; in an IMA list, the mark of a violation.
    #[must_use]
    pub const fn zero(alg: A) -> Self {
        Self { alg, bytes: [0; 64] }
    }

    /// All ones: the reset value of PCR 17–22; what a kernel extends for a violation.
    #[must_use]
    pub fn ones(alg: A) -> Self {
        Self::cut(alg, &[0xff; 64])
    }

    /// A digest from exactly `alg.len_bytes()` bytes.
    ///
    /// # Errors
    /// [`DigestParseError::Length`] for any other length: nothing is padded or cut.
    pub fn new(alg: A, bytes: &[u8]) -> Result<Self, DigestParseError> {
        if bytes.len() != alg.len_bytes() {
            let (name, expected) = (alg.name(), alg.len_bytes());
            return Err(DigestParseError::Length { alg: name, expected, found: bytes.len() });
        }
        Ok(Self::cut(alg, bytes))
    }

    /// As many of `bytes` as the algorithm has, zeros where there are too few.
    pub(crate) fn cut(alg: A, bytes: &[u8]) -> Self {
        let mut out = Self::zero(alg);
        let count = alg.len_bytes().min(bytes.len());
        if let (Some(to), Some(from)) = (out.bytes.get_mut(..count), bytes.get(..count)) {
            to.copy_from_slice(from);
        }
        out
    }

    /// The hash `D`, which is the one of `alg`, of the concatenation of `parts`.
    pub(crate) fn hashed<D: sha2::Digest>(alg: A, parts: &[&[u8]]) -> Self {
        let mut hasher = D::new();
        for part in parts {
            hasher.update(part);
        }
        Self::cut(alg, &hasher.finalize())
    }

    /// The algorithm.
    #[must_use]
    pub const fn alg(&self) -> A {
        self.alg
    }

    /// The digest's bytes, `alg().len_bytes()` of them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.alg.len_bytes()).unwrap_or(&self.bytes)
    }

    /// Whether every byte is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.bytes.iter().all(|byte| *byte == 0)
    }
}

impl<A: Algorithm> fmt::Debug for DigestOf<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl<A: Algorithm> fmt::Display for DigestOf<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.alg, hex::encode(self.as_bytes()))
    }
}

impl<A: Algorithm> FromStr for DigestOf<A> {
    type Err = DigestParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (alg, hex_text) = text.split_once(':').ok_or(DigestParseError::NoAlgorithm)?;
        let bytes = hex::decode(hex_text).map_err(|_| DigestParseError::Hex)?;
        Self::new(alg.parse()?, &bytes)
    }
}

impl<A: Algorithm> Serialize for DigestOf<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, A: Algorithm> Deserialize<'de> for DigestOf<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The algorithm among `all` that has this name.
pub(crate) fn named<A: Algorithm>(all: &[A], text: &str) -> Result<A, DigestParseError> {
    all.iter().copied().find(|alg| alg.name() == text).ok_or_else(|| DigestParseError::Algorithm {
        found: text.to_owned(),
        known: all.iter().map(|alg| alg.name()).collect::<Vec<_>>().join(", "),
    })
}

/// Why a text or a byte string is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestParseError {
    /// Not one of the algorithms that may stand here.
    #[error("hash algorithm {found:?} is not one of {known}")]
    Algorithm {
        /// The name found.
        found: String,
        /// The names that may stand here.
        known: String,
    },
    /// Not hexadecimal.
    #[error("digest is not hexadecimal")]
    Hex,
    /// Wrong number of bytes for the algorithm.
    #[error("a {alg} digest has {expected} bytes, found {found}")]
    Length {
        /// The algorithm's name.
        alg: &'static str,
        /// Bytes that its digests have.
        expected: usize,
        /// Bytes found.
        found: usize,
    },
    /// No `alg:` prefix.
    #[error("digest must be written as alg:hex, for example sha256:00…")]
    NoAlgorithm,
}
