//! Hash algorithms as logs name them, SHA-1 and SM3 included, and digests in them.
//!
//! Separate from [`crate::digest::HashAlg`], which is what a policy may name: a log must be replayed in a SHA-1 bank to
//! be shown to a person, and must never be appraised in one.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

use crate::digest::{Algorithm, Digest, DigestOf, DigestParseError, HashAlg, named};

/// A hash algorithm that a log may name.
///
/// # Source
/// TCG Algorithm Registry, `TPM_ALG_ID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogAlg {
    /// `TPM_ALG_SHA1`, 20 bytes: replayed, never appraised.
    Sha1,
    /// `TPM_ALG_SHA256`, 32 bytes.
    Sha256,
    /// `TPM_ALG_SHA384`, 48 bytes.
    Sha384,
    /// `TPM_ALG_SHA512`, 64 bytes.
    Sha512,
    /// `TPM_ALG_SM3_256`, 32 bytes: carried, not computed.
    Sm3,
    /// `TPM_ALG_SHA3_256`, 32 bytes: carried, not computed.
    Sha3_256,
    /// `TPM_ALG_SHA3_384`, 48 bytes: carried, not computed.
    Sha3_384,
    /// `TPM_ALG_SHA3_512`, 64 bytes: carried, not computed.
    Sha3_512,
}

impl LogAlg {
    /// All algorithms, ascending by `TPM_ALG_ID`.
    pub const ALL: [Self; 8] = [
        Self::Sha1,
        Self::Sha256,
        Self::Sha384,
        Self::Sha512,
        Self::Sm3,
        Self::Sha3_256,
        Self::Sha3_384,
        Self::Sha3_512,
    ];

    /// The algorithm with this `TPM_ALG_ID`.
    #[must_use]
    pub const fn from_tpm(alg: u16) -> Option<Self> {
        match alg {
            0x0004 => Some(Self::Sha1),
            0x000B => Some(Self::Sha256),
            0x000C => Some(Self::Sha384),
            0x000D => Some(Self::Sha512),
            0x0012 => Some(Self::Sm3),
            0x0027 => Some(Self::Sha3_256),
            0x0028 => Some(Self::Sha3_384),
            0x0029 => Some(Self::Sha3_512),
            _ => None,
        }
    }

    /// `TPM_ALG_ID`.
    #[must_use]
    pub const fn tpm_id(self) -> u16 {
        match self {
            Self::Sha1 => 0x0004,
            Self::Sha256 => 0x000B,
            Self::Sha384 => 0x000C,
            Self::Sha512 => 0x000D,
            Self::Sm3 => 0x0012,
            Self::Sha3_256 => 0x0027,
            Self::Sha3_384 => 0x0028,
            Self::Sha3_512 => 0x0029,
        }
    }

    /// Size of a digest, bytes.
    #[must_use]
    pub const fn len_bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 | Self::Sm3 | Self::Sha3_256 => 32,
            Self::Sha384 | Self::Sha3_384 => 48,
            Self::Sha512 | Self::Sha3_512 => 64,
        }
    }

    /// Lower-case name, as in file formats: `sha256`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
            Self::Sm3 => "sm3_256",
            Self::Sha3_256 => "sha3_256",
            Self::Sha3_384 => "sha3_384",
            Self::Sha3_512 => "sha3_512",
        }
    }

    /// Whether digests of this algorithm are computed here; others are only carried.
    #[must_use]
    pub const fn is_computed(self) -> bool {
        matches!(self, Self::Sha1 | Self::Sha256 | Self::Sha384 | Self::Sha512)
    }

    /// Hash of the concatenation of `parts`; `None` where [`Self::is_computed`] is false.
    #[must_use]
    pub fn hash(self, parts: &[&[u8]]) -> Option<LogDigest> {
        match self {
            Self::Sha1 => Some(LogDigest::hashed::<Sha1>(self, parts)),
            Self::Sha256 => Some(LogDigest::hashed::<Sha256>(self, parts)),
            Self::Sha384 => Some(LogDigest::hashed::<Sha384>(self, parts)),
            Self::Sha512 => Some(LogDigest::hashed::<Sha512>(self, parts)),
            Self::Sm3 | Self::Sha3_256 | Self::Sha3_384 | Self::Sha3_512 => None,
        }
    }

    /// Place in a table with one entry for each algorithm.
    #[must_use]
    pub(super) const fn slot(self) -> usize {
        match self {
            Self::Sha1 => 0,
            Self::Sha256 => 1,
            Self::Sha384 => 2,
            Self::Sha512 => 3,
            Self::Sm3 => 4,
            Self::Sha3_256 => 5,
            Self::Sha3_384 => 6,
            Self::Sha3_512 => 7,
        }
    }
}

impl From<HashAlg> for LogAlg {
    fn from(alg: HashAlg) -> Self {
        match alg {
            HashAlg::Sha256 => Self::Sha256,
            HashAlg::Sha384 => Self::Sha384,
            HashAlg::Sha512 => Self::Sha512,
        }
    }
}

impl Algorithm for LogAlg {
    fn len_bytes(self) -> usize {
        self.len_bytes()
    }

    fn name(self) -> &'static str {
        self.name()
    }
}

impl fmt::Display for LogAlg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for LogAlg {
    type Err = DigestParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        named(&Self::ALL, text)
    }
}

impl Serialize for LogAlg {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for LogAlg {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A digest of a log, or the value of a PCR in a log's bank.
pub type LogDigest = DigestOf<LogAlg>;

impl LogDigest {
    /// Zeros that end in `last`: PCR 0 after a start from another locality than 0.
    #[must_use]
    pub fn ending_in(alg: LogAlg, last: u8) -> Self {
        let mut bytes = [0; 64];
        if let Some(byte) = bytes.iter_mut().take(alg.len_bytes()).next_back() {
            *byte = last;
        }
        Self::cut(alg, &bytes)
    }

    /// The value of a PCR with this value after an extend with `event`; `None` for an algorithm that is only carried.
    ///
    /// # Source
    /// TPM 2.0 Library Part 1, "PCR operations": `new = H(old ‖ event)`.
    #[must_use]
    pub fn extended(&self, event: &[u8]) -> Option<Self> {
        self.alg().hash(&[self.as_bytes(), event])
    }

    /// The digest as policy and quotes know it; `None` for an algorithm that is never appraised.
    #[must_use]
    pub fn to_digest(&self) -> Option<Digest> {
        let alg = HashAlg::from_tpm(self.alg().tpm_id())?;
        Digest::new(alg, self.as_bytes()).ok()
    }
}

impl From<Digest> for LogDigest {
    fn from(digest: Digest) -> Self {
        Self::cut(digest.alg().into(), digest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_names_and_digests_go_both_ways() {
        for alg in LogAlg::ALL {
            assert_eq!(LogAlg::from_tpm(alg.tpm_id()), Some(alg));
            assert_eq!(alg.name().parse::<LogAlg>(), Ok(alg));
            let digest = LogDigest::ending_in(alg, 3);
            assert_eq!(digest.to_string().parse::<LogDigest>(), Ok(digest));
            assert_eq!(LogDigest::new(alg, digest.as_bytes()), Ok(digest));
            assert_eq!(alg.hash(&[b"a"]).is_some(), alg.is_computed());
        }
        assert_eq!(LogAlg::from_tpm(0x10), None);
    }

    #[test]
    fn a_text_that_is_no_digest_is_told_why() {
        let said = |text: &str| text.parse::<LogDigest>().expect_err("no digest").to_string();
        assert_eq!(said("sha1:00"), "a sha1 digest has 20 bytes, found 1");
        assert_eq!(said("sha1:zz"), "digest is not hexadecimal");
        assert_eq!(
            said("md5:00"),
            "hash algorithm \"md5\" is not one of sha1, sha256, sha384, sha512, sm3_256, sha3_256, sha3_384, sha3_512"
        );
    }

    #[test]
    fn sha_1_is_computed_and_never_becomes_a_digest_of_policy() {
        let digest = LogAlg::Sha1.hash(&[b"a", b"bc"]).expect("computed");
        assert_eq!(digest.to_string(), "sha1:a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(digest.to_digest(), None);
        let sha256 = LogAlg::Sha256.hash(&[b"abc"]).expect("computed");
        assert_eq!(sha256.to_digest(), Some(HashAlg::Sha256.hash(&[b"abc"])));
        assert_eq!(LogDigest::from(HashAlg::Sha256.hash(&[b"abc"])), sha256);
    }
}
