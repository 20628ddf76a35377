//! Security keys as a key ring has them: a public key and the name of its holder.

use std::{fmt, str::FromStr};

use proto::digest::Digest;

use super::{Algorithm, Pae, PublicKey};

/// Longest name, bytes; names of golden sets have the same rule.
const MAX_NAME_BYTES: usize = 63;

/// Name of a key's holder, or of a key ring.
///
/// # Format
/// 1..=63 bytes of `a-z`, `0-9`, `-`, `_`, `.`; not `.` first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(String);

/// The text is no such name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?}: lower-case letters, digits, '-', '_' and '.', at most {MAX_NAME_BYTES}")]
pub struct KeyNameError(String);

impl KeyName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = KeyNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_allowed =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
        let is_name = (1..=MAX_NAME_BYTES).contains(&text.len())
            && text.bytes().all(is_allowed)
            && !text.starts_with('.');
        if is_name {
            return Ok(Self(text.to_owned()));
        }
        // An error is for a line on a screen.
        let start: String = text.chars().take(MAX_NAME_BYTES).collect();
        Err(KeyNameError(start))
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A public key and who holds its private half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityKey {
    name: KeyName,
    public: PublicKey,
}

impl SecurityKey {
    /// A public key and its holder's name.
    #[must_use]
    pub const fn new(name: KeyName, public: PublicKey) -> Self {
        Self { name, public }
    }

    /// Who holds it.
    #[must_use]
    pub const fn name(&self) -> &KeyName {
        &self.name
    }

    /// SHA-256 of the SPKI DER.
    #[must_use]
    pub const fn id(&self) -> &Digest {
        self.public.id()
    }

    /// Kind of the key.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.public.algorithm()
    }

    /// The key itself.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Who signed, if this key did.
    pub(super) fn verify(&self, pae: &Pae, signature: &[u8]) -> Option<Signer> {
        self.public
            .verifies(pae.as_bytes(), signature)
            .then(|| Signer { id: *self.id(), name: self.name.clone() })
    }
}

/// A key that signed.
///
/// # Proves
/// A signature of the key verified, over the content that it was asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    id: Digest,
    name: KeyName,
}

impl Signer {
    /// The key's identifier.
    #[must_use]
    pub const fn id(&self) -> &Digest {
        &self.id
    }

    /// Who holds it.
    #[must_use]
    pub const fn name(&self) -> &KeyName {
        &self.name
    }
}
