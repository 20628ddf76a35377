//! Why a platform's word is not taken.

use jose::{ClaimError, jws::JwsError};

/// The code of a refusal: never renamed, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RefusalCode {
    /// The token is signed with an algorithm that is not allowed for its issuer.
    AlgorithmNotAllowed,
    /// The token is for another audience, or for others as well.
    AudienceMismatch,
    /// The worker claims one thing about its job, the token another.
    ClaimMismatch,
    /// The token lacks a claim.
    ClaimMissing,
    /// The token names an issuer that is not configured.
    IssuerUnknown,
    /// The issuer's keys were never loaded, or are older than `max_age`.
    KeysUnavailable,
    /// The issuer has no key of this name that is for such signatures.
    KeyUnknown,
    /// The key that the token names did not sign it.
    SignatureInvalid,
    /// The token is not in force any more.
    TokenExpired,
    /// The token lives for longer than `max_lifetime`, or not at all.
    TokenLifetime,
    /// The token, or a claim in it, does not have the form that it must have.
    TokenMalformed,
    /// The token is not in force yet.
    TokenNotYetValid,
}

impl RefusalCode {
    /// All of them, by their texts.
    pub const ALL: [Self; 12] = [
        Self::AlgorithmNotAllowed,
        Self::AudienceMismatch,
        Self::ClaimMismatch,
        Self::ClaimMissing,
        Self::IssuerUnknown,
        Self::KeysUnavailable,
        Self::KeyUnknown,
        Self::SignatureInvalid,
        Self::TokenExpired,
        Self::TokenLifetime,
        Self::TokenMalformed,
        Self::TokenNotYetValid,
    ];

    /// The stable text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AlgorithmNotAllowed => "PLATFORM_ALGORITHM_NOT_ALLOWED",
            Self::AudienceMismatch => "PLATFORM_AUDIENCE_MISMATCH",
            Self::ClaimMismatch => "PLATFORM_CLAIM_MISMATCH",
            Self::ClaimMissing => "PLATFORM_CLAIM_MISSING",
            Self::IssuerUnknown => "PLATFORM_ISSUER_UNKNOWN",
            Self::KeysUnavailable => "PLATFORM_KEYS_UNAVAILABLE",
            Self::KeyUnknown => "PLATFORM_KEY_UNKNOWN",
            Self::SignatureInvalid => "PLATFORM_SIGNATURE_INVALID",
            Self::TokenExpired => "PLATFORM_TOKEN_EXPIRED",
            Self::TokenLifetime => "PLATFORM_TOKEN_LIFETIME_TOO_LONG",
            Self::TokenMalformed => "PLATFORM_TOKEN_MALFORMED",
            Self::TokenNotYetValid => "PLATFORM_TOKEN_NOT_YET_VALID",
        }
    }
}

/// Why there are no keys of an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeysMissing {
    /// None were ever loaded.
    NeverLoaded,
    /// Those that were loaded are too old to be believed.
    Stale {
        /// When they were loaded.
        loaded_unix_s: i64,
    },
}

/// A token, or claims that do not agree with it, are refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The token's algorithm is not among the issuer's.
    #[error("the token is not signed with an algorithm that is allowed for {issuer}")]
    AlgorithmNotAllowed {
        /// The issuer.
        issuer: String,
    },
    /// The token is for another audience.
    #[error("the token is for {observed:?}, not for {expected:?} alone")]
    AudienceMismatch {
        /// The audience configured.
        expected: String,
        /// Those of the token.
        observed: Vec<String>,
    },
    /// The worker claims one thing, the token another.
    #[error("the job's `{claim}` is {expected:?} by its token, {observed:?} by its environment")]
    ClaimMismatch {
        /// Which claim.
        claim: &'static str,
        /// What the platform signed.
        expected: String,
        /// What the worker claims.
        observed: String,
    },
    /// The token lacks a claim.
    #[error("the token has no `{0}`")]
    ClaimMissing(&'static str),
    /// The token says that another issuer made it than whose keys are configured, or none is named.
    #[error("no platform with the issuer {0:?} is configured")]
    IssuerUnknown(String),
    /// The issuer has no such key for signatures.
    #[error("{issuer} has no key {key_id:?} for this token")]
    KeyUnknown {
        /// The issuer.
        issuer: String,
        /// The key that the token names.
        key_id: String,
    },
    /// There are no keys to judge by.
    #[error("there are no current keys of {issuer}")]
    KeysUnavailable {
        /// The issuer.
        issuer: String,
        /// Why.
        why: KeysMissing,
    },
    /// The key did not sign this.
    #[error("the token is not signed by the key of {issuer} that it names")]
    SignatureInvalid {
        /// The issuer.
        issuer: String,
    },
    /// The token's time is over.
    #[error("the token is not in force any more")]
    TokenExpired(#[source] ClaimError),
    /// The token lives for longer than is accepted.
    #[error("the token lives for longer than is accepted")]
    TokenLifetime(#[source] ClaimError),
    /// Not a token.
    #[error("the token is malformed")]
    TokenMalformed(#[source] JwsError),
    /// A claim of the token has another type or form.
    #[error("`{0}` in the token is not what it must be")]
    TokenClaimMalformed(&'static str),
    /// The token's time has not come.
    #[error("the token is not in force yet")]
    TokenNotYetValid(#[source] ClaimError),
}

impl Refusal {
    /// The stable code's text.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.reason().as_str()
    }

    /// The stable code.
    #[must_use]
    pub const fn reason(&self) -> RefusalCode {
        match self {
            Self::AlgorithmNotAllowed { .. } => RefusalCode::AlgorithmNotAllowed,
            Self::AudienceMismatch { .. } => RefusalCode::AudienceMismatch,
            Self::ClaimMismatch { .. } => RefusalCode::ClaimMismatch,
            Self::ClaimMissing(_) => RefusalCode::ClaimMissing,
            Self::IssuerUnknown(_) => RefusalCode::IssuerUnknown,
            Self::KeyUnknown { .. } => RefusalCode::KeyUnknown,
            Self::KeysUnavailable { .. } => RefusalCode::KeysUnavailable,
            Self::SignatureInvalid { .. } => RefusalCode::SignatureInvalid,
            Self::TokenExpired(_) => RefusalCode::TokenExpired,
            Self::TokenLifetime(_) => RefusalCode::TokenLifetime,
            Self::TokenMalformed(_) | Self::TokenClaimMalformed(_) => RefusalCode::TokenMalformed,
            Self::TokenNotYetValid(_) => RefusalCode::TokenNotYetValid,
        }
    }
}

impl From<ClaimError> for Refusal {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::Missing(name) => Self::ClaimMissing(name),
            ClaimError::Type(name) => Self::TokenClaimMalformed(name),
            ClaimError::Audience { expected, found } => {
                Self::AudienceMismatch { expected, observed: found }
            }
            ClaimError::Expired { .. } => Self::TokenExpired(error),
            ClaimError::NotYetValid { .. } => Self::TokenNotYetValid(error),
            // Also whatever may be added there: a bound that was not kept.
            _ => Self::TokenLifetime(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_documented() {
        let text = include_str!("../../../docs/JOBS.md");
        let documented: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("| `PLATFORM_")?.split_once('`'))
            .map(|(name, _)| format!("PLATFORM_{name}"))
            .collect();
        assert_eq!(documented, RefusalCode::ALL.map(RefusalCode::as_str));
    }
}
