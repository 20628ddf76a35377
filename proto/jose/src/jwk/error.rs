//! Why a key set is refused.

use crate::{Algorithm, json::JsonError, public_key::KeyProblem};

use super::{MAX_CERTIFICATES, MAX_KEY_ID_BYTES, MAX_KEYS, MAX_SET_BYTES};

/// What is wrong with one key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Not an object.
    #[error("it is not an object")]
    NotAnObject,
    /// A required member is absent.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A member has another JSON type than it must have.
    #[error("`{0}` has another type than it must have")]
    Type(&'static str),
    /// A member is not base64url without padding (`x5c`: base64 with it).
    #[error("`{0}` is not in the one base64 form it must have")]
    Base64(&'static str),
    /// `kid` is empty, too long or has control characters.
    #[error("`kid` has not 1 to {MAX_KEY_ID_BYTES} bytes without control characters")]
    KeyId,
    /// `alg` needs a key of another type or curve.
    #[error("`alg` is {0}, which needs another type of key")]
    AlgorithmUnfit(Algorithm),
    /// Too many certificates, none, or one that is too large.
    #[error("`x5c` has not 1 to {MAX_CERTIFICATES} certificates of an accepted size")]
    Certificates,
    /// The numbers are not a key.
    #[error(transparent)]
    Key(#[from] KeyProblem),
}

/// A key set cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwkError {
    /// Larger than a set may be.
    #[error("the key set has {found} bytes, more than {MAX_SET_BYTES}")]
    TooLarge {
        /// Its size.
        found: usize,
    },
    /// Not a JSON object.
    #[error("the key set does not decode")]
    Json(#[source] JsonError),
    /// No array `keys`.
    #[error("the key set has no array `keys`")]
    NoKeys,
    /// More keys than a set may have.
    #[error("the key set has {found} keys, more than {MAX_KEYS}")]
    TooManyKeys {
        /// How many it has.
        found: usize,
    },
    /// A key of a type that is understood is wrong, or an entry is none.
    #[error("key {index} is malformed")]
    Key {
        /// Position in `keys`, from 0.
        index: usize,
        /// What is wrong.
        #[source]
        source: Malformed,
    },
    /// Two keys have the same `kid`.
    #[error("key {index} has the `kid` of key {first}")]
    KeyIdTwice {
        /// Position of the second, from 0.
        index: usize,
        /// Position of the first, from 0.
        first: usize,
    },
    /// An entry has members of a private or symmetric key.
    #[error("key {index} has `{member}`, which nobody but its holder may have: replace this key")]
    Private {
        /// Position in `keys`, from 0.
        index: usize,
        /// The member; its value is never shown.
        member: &'static str,
    },
}

impl JwkError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "JWK_SET_TOO_LARGE",
            Self::Json(_) | Self::NoKeys => "JWK_SET_MALFORMED",
            Self::TooManyKeys { .. } => "JWK_SET_TOO_MANY_KEYS",
            Self::Key { .. } => "JWK_KEY_MALFORMED",
            Self::KeyIdTwice { .. } => "JWK_KEY_ID_DUPLICATE",
            Self::Private { .. } => "JWK_PRIVATE_MEMBER",
        }
    }
}
