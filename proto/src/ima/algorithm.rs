//! Hash algorithms as the kernel names them, and the few that template digests are made with.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

use crate::digest::{Algorithm, Digest, DigestOf, DigestParseError, HashAlg, named};

macro_rules! kernel_algorithms {
    ($($variant:ident $id:literal $name:literal $len:literal;)*) => {
        /// A hash algorithm of the kernel, as it stands in an entry or in a signature's header.
        ///
        /// Wider than [`HashAlg`] on purpose: a list is read as it is, and what is too weak to decide
        /// anything is refused by name.
        ///
        /// # Source
        /// Linux `include/uapi/linux/hash_info.h`, `crypto/hash_info.c`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum ImaHashAlg {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl ImaHashAlg {
            /// The kernel's name: `sha256`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Size of a digest, bytes.
            #[must_use]
            pub const fn len_bytes(self) -> usize {
                match self { $(Self::$variant => $len,)* }
            }

            /// The kernel's number, as in signatures.
            #[must_use]
            pub const fn kernel_id(self) -> u8 {
                match self { $(Self::$variant => $id,)* }
            }

            /// The algorithm with this number.
            #[must_use]
            pub const fn from_kernel_id(id: u8) -> Option<Self> {
                match id { $($id => Some(Self::$variant),)* _ => None }
            }

            /// The algorithm with this name.
            #[must_use]
            pub fn from_name(name: &[u8]) -> Option<Self> {
                $(if name == $name.as_bytes() { return Some(Self::$variant); })*
                // Until 5.18 the kernel wrote SM3 so.
                if name == b"sm3-256" { Some(Self::Sm3) } else { None }
            }
        }
    };
}

kernel_algorithms! {
    // The first is by far the most frequent.
    Sha256 4 "sha256" 32;
    Sha512 6 "sha512" 64;
    Sha1 2 "sha1" 20;
    Sha384 5 "sha384" 48;
    Md4 0 "md4" 16;
    Md5 1 "md5" 16;
    Rmd160 3 "rmd160" 20;
    Sha224 7 "sha224" 28;
    Rmd128 8 "rmd128" 16;
    Rmd256 9 "rmd256" 32;
    Rmd320 10 "rmd320" 40;
    Wp256 11 "wp256" 32;
    Wp384 12 "wp384" 48;
    Wp512 13 "wp512" 64;
    Tgr128 14 "tgr128" 16;
    Tgr160 15 "tgr160" 20;
    Tgr192 16 "tgr192" 24;
    Sm3 17 "sm3" 32;
    Streebog256 18 "streebog256" 32;
    Streebog512 19 "streebog512" 64;
    Sha3x256 20 "sha3-256" 32;
    Sha3x384 21 "sha3-384" 48;
    Sha3x512 22 "sha3-512" 64;
}

impl ImaHashAlg {
    /// The same algorithm among those that may decide something.
    #[must_use]
    pub const fn appraised(self) -> Option<HashAlg> {
        match self {
            Self::Sha256 => Some(HashAlg::Sha256),
            Self::Sha384 => Some(HashAlg::Sha384),
            Self::Sha512 => Some(HashAlg::Sha512),
            _ => None,
        }
    }

    /// The same algorithm among those of PCR banks.
    #[must_use]
    pub const fn bank(self) -> Option<BankAlg> {
        match self {
            Self::Sha1 => Some(BankAlg::Sha1),
            Self::Sha256 => Some(BankAlg::Sha256),
            Self::Sha384 => Some(BankAlg::Sha384),
            Self::Sha512 => Some(BankAlg::Sha512),
            _ => None,
        }
    }
}

impl fmt::Display for ImaHashAlg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An algorithm of PCR banks and template digests, SHA-1 included.
///
/// SHA-1 is needed to follow what kernels do (they pad it into banks that they cannot hash for); a
/// SHA-1 bank is never appraised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BankAlg {
    /// 20 bytes.
    Sha1,
    /// 32 bytes.
    Sha256,
    /// 48 bytes.
    Sha384,
    /// 64 bytes.
    Sha512,
}

impl BankAlg {
    /// All, ascending by size.
    pub const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// Size of a digest, bytes.
    #[must_use]
    pub const fn len_bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Lower-case name: `sha1`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// The same algorithm by the kernel's names.
    #[must_use]
    pub const fn kernel(self) -> ImaHashAlg {
        match self {
            Self::Sha1 => ImaHashAlg::Sha1,
            Self::Sha256 => ImaHashAlg::Sha256,
            Self::Sha384 => ImaHashAlg::Sha384,
            Self::Sha512 => ImaHashAlg::Sha512,
        }
    }

    /// Hash of the concatenation of `parts`.
    #[must_use]
    pub fn hash(self, parts: &[&[u8]]) -> BankDigest {
        match self {
            Self::Sha1 => BankDigest::hashed::<Sha1>(self, parts),
            Self::Sha256 => BankDigest::hashed::<Sha256>(self, parts),
            Self::Sha384 => BankDigest::hashed::<Sha384>(self, parts),
            Self::Sha512 => BankDigest::hashed::<Sha512>(self, parts),
        }
    }
}

impl From<HashAlg> for BankAlg {
    fn from(alg: HashAlg) -> Self {
        match alg {
            HashAlg::Sha256 => Self::Sha256,
            HashAlg::Sha384 => Self::Sha384,
            HashAlg::Sha512 => Self::Sha512,
        }
    }
}

impl Algorithm for BankAlg {
    fn len_bytes(self) -> usize {
        self.len_bytes()
    }

    fn name(self) -> &'static str {
        self.name()
    }
}

impl FromStr for BankAlg {
    type Err = DigestParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        named(&Self::ALL, text)
    }
}

impl fmt::Display for BankAlg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A digest of a [`BankAlg`].
pub type BankDigest = DigestOf<BankAlg>;

impl BankDigest {
    /// The digest padded with zeros, or cut, to another bank's size: how a kernel extends a bank
    /// whose algorithm it cannot compute.
    #[must_use]
    pub fn padded_to(&self, alg: BankAlg) -> Self {
        Self::cut(alg, self.as_bytes())
    }

    /// The value of a PCR with this value after `TPM2_PCR_Extend` with `event`.
    #[must_use]
    pub fn extended(&self, event: &Self) -> Self {
        self.alg().hash(&[self.as_bytes(), event.as_bytes()])
    }

    /// The same digest, where its algorithm is one that is appraised.
    #[must_use]
    pub fn appraised(&self) -> Option<Digest> {
        Digest::new(self.alg().kernel().appraised()?, self.as_bytes()).ok()
    }
}

impl From<&Digest> for BankDigest {
    fn from(digest: &Digest) -> Self {
        Self::cut(digest.alg().into(), digest.as_bytes())
    }
}
