//! Why a token is refused before its claims are looked at.

use super::{MAX_HEADER_BYTES, MAX_TOKEN_BYTES};
use crate::{Algorithm, json::JsonError};

/// A token is not one, or is not signed as it must be. No variant holds content of the token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwsError {
    /// Longer than a token may be.
    #[error("the token has {found} bytes, more than {MAX_TOKEN_BYTES}")]
    TooLarge {
        /// Its length.
        found: usize,
    },
    /// Not three parts.
    #[error("the token has not exactly three parts")]
    Parts,
    /// A part is empty or not base64url.
    #[error("the token's {0} is empty or not base64url without padding")]
    Base64(&'static str),
    /// The header is larger than one may be.
    #[error("the token's header has {found} bytes, more than {MAX_HEADER_BYTES}")]
    HeaderTooLarge {
        /// Its size.
        found: usize,
    },
    /// The header is no JSON object.
    #[error("the token's header does not decode")]
    Header(#[source] JsonError),
    /// The header lacks a member.
    #[error("the token's header has no `{0}`")]
    HeaderMissing(&'static str),
    /// A member of the header has another type or size.
    #[error("`{0}` in the token's header has another type or size than it must have")]
    HeaderType(&'static str),
    /// The header has a member that is refused.
    #[error("the token's header has `{0}`, which is refused")]
    HeaderMember(&'static str),
    /// `typ` is another than `JWT` and `JOSE`.
    #[error("`typ` in the token's header is neither JWT nor JOSE")]
    Type,
    /// `alg` is none that can be allowed: `none`, a symmetric one, or unknown.
    #[error("the token's algorithm is none that can be allowed")]
    AlgorithmUnknown,
    /// `alg` is not among those allowed.
    #[error("the algorithm {0} is not allowed here")]
    AlgorithmNotAllowed(Algorithm),
    /// No key has this `kid`.
    #[error("no key of the issuer has the token's `kid`")]
    KeyUnknown,
    /// The key has another type, use or algorithm.
    #[error("the key that the token names is not for such signatures")]
    KeyUnfit,
    /// The signature is not the key's over this header and payload.
    #[error("the token's signature is not by the key it names")]
    SignatureInvalid,
    /// The payload is no JSON object.
    #[error("the token's payload does not decode")]
    Payload(#[source] JsonError),
    /// The payload has no `iss` that is text.
    #[error("the token does not say who has issued it")]
    NoIssuer,
}

impl JwsError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } | Self::HeaderTooLarge { .. } => "JWS_TOO_LARGE",
            Self::Parts | Self::Base64(_) => "JWS_MALFORMED",
            Self::Header(_) | Self::HeaderMissing(_) | Self::HeaderType(_) | Self::Type => {
                "JWS_HEADER_INVALID"
            }
            Self::HeaderMember(_) => "JWS_HEADER_MEMBER_REFUSED",
            Self::AlgorithmUnknown | Self::AlgorithmNotAllowed(_) => "JWS_ALGORITHM_NOT_ALLOWED",
            Self::KeyUnknown => "JWS_KEY_UNKNOWN",
            Self::KeyUnfit => "JWS_KEY_UNFIT",
            Self::SignatureInvalid => "JWS_SIGNATURE_INVALID",
            Self::Payload(_) | Self::NoIssuer => "JWS_PAYLOAD_INVALID",
        }
    }
}
