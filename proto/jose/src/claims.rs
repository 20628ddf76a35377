//! Claims: what they may look like, and whether they are in force.

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use crate::jws::VerifiedToken;

/// Last second that a time claim may name: the end of the year 9999.
pub const MAX_UNIX_S: i64 = 253_402_300_799;
/// Most audiences of one token.
pub const MAX_AUDIENCES: usize = 16;

/// Why claims are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// A claim is absent.
    #[error("the claim `{0}` is missing")]
    Missing(&'static str),
    /// A claim has another JSON type, or a value that it can never have.
    #[error("the claim `{0}` has another type than it must have")]
    Type(&'static str),
    /// The token is for another audience.
    #[error("the token is for {found:?}, not for {expected:?}")]
    Audience {
        /// Who it must be for.
        expected: String,
        /// Who it is for.
        found: Vec<String>,
    },
    /// `exp` has passed.
    #[error("the token expired at {expires_unix_s} (seconds since 1970; now {now_unix_s})")]
    Expired {
        /// `exp`.
        expires_unix_s: i64,
        /// The time it was judged at.
        now_unix_s: i64,
    },
    /// `nbf` or `iat` is ahead.
    #[error("the token's `{claim}` is {at_unix_s} (seconds since 1970; now {now_unix_s})")]
    NotYetValid {
        /// Which claim.
        claim: &'static str,
        /// Its value.
        at_unix_s: i64,
        /// The time it was judged at.
        now_unix_s: i64,
    },
    /// `exp` is not after `iat` and `nbf`, or too long after them or after now.
    #[error("the token lives for {found_s} s; more than 0 and at most {max_s} are accepted")]
    Lifetime {
        /// From `iat`, `nbf` or now to `exp`, seconds.
        found_s: i64,
        /// The bound.
        max_s: i64,
    },
}

impl ClaimError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing(_) => "JWT_CLAIM_MISSING",
            Self::Type(_) => "JWT_CLAIM_MALFORMED",
            Self::Audience { .. } => "JWT_AUDIENCE_MISMATCH",
            Self::Expired { .. } => "JWT_EXPIRED",
            Self::NotYetValid { .. } => "JWT_NOT_YET_VALID",
            Self::Lifetime { .. } => "JWT_LIFETIME_TOO_LONG",
        }
    }
}

/// The claims of a token.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims(Map<String, Value>);

impl Claims {
    pub(crate) const fn new(members: Map<String, Value>) -> Self {
        Self(members)
    }

    /// A claim as it was written.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// All claims.
    #[must_use]
    pub const fn members(&self) -> &Map<String, Value> {
        &self.0
    }

    /// A claim that is text, if it is there.
    ///
    /// # Errors
    /// [`ClaimError::Type`], also for `null`: a claim is absent or has its type.
    pub fn text(&self, name: &'static str) -> Result<Option<&str>, ClaimError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(ClaimError::Type(name)),
        }
    }

    /// A claim that must be there and be text that is not empty.
    ///
    /// # Errors
    /// [`ClaimError::Missing`], [`ClaimError::Type`].
    pub fn required_text(&self, name: &'static str) -> Result<&str, ClaimError> {
        self.text(name)?.filter(|text| !text.is_empty()).ok_or(ClaimError::Missing(name))
    }

    /// A claim that is a time: whole seconds since 1970 up to the year 9999.
    ///
    /// # Errors
    /// [`ClaimError::Type`], also for a fraction and for a number in quotes.
    ///
    /// # Source
    /// RFC 7519, "Terminology" (NumericDate), without its fractions, which no issuer writes.
    pub fn time_unix_s(&self, name: &'static str) -> Result<Option<i64>, ClaimError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => match value.as_i64() {
                Some(at) if (0..=MAX_UNIX_S).contains(&at) => Ok(Some(at)),
                _ => Err(ClaimError::Type(name)),
            },
        }
    }

    /// `aud`: text, or a list of 1 to [`MAX_AUDIENCES`] texts.
    ///
    /// # Errors
    /// [`ClaimError::Missing`], [`ClaimError::Type`].
    pub fn audiences(&self) -> Result<Vec<&str>, ClaimError> {
        const NAME: &str = "aud";
        match self.0.get(NAME) {
            None => Err(ClaimError::Missing(NAME)),
            Some(Value::String(one)) => Ok(vec![one]),
            Some(Value::Array(all)) if (1..=MAX_AUDIENCES).contains(&all.len()) => {
                all.iter().map(|one| one.as_str().ok_or(ClaimError::Type(NAME))).collect()
            }
            Some(_) => Err(ClaimError::Type(NAME)),
        }
    }
}

/// Who a token must be for. Texts are compared byte for byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AudienceRule<'a> {
    /// This audience is among the token's.
    Among(&'a str),
    /// This audience, and no other.
    Only(&'a str),
}

/// What claims must be to be in force.
#[derive(Clone, Copy, Debug)]
pub struct ClaimRules<'a> {
    /// The audience.
    pub audience: AudienceRule<'a>,
    /// How far the issuer's clock may be from ours, seconds.
    pub leeway_s: u32,
    /// Longest life of a token, seconds: from `iat` to `exp`, and from now to `exp`.
    pub max_lifetime_s: u32,
}

impl VerifiedToken {
    /// Judges audience and times.
    ///
    /// `exp` must be there and be ahead of `now - leeway`; `nbf` and `iat`, where there, must not be
    /// ahead of `now + leeway`, and before `exp`. No token is accepted for longer than
    /// `max_lifetime_s`, whatever it says: from `iat`, or `nbf` where there is no `iat`, and from now
    /// with the leeway.
    ///
    /// # Errors
    /// [`ClaimError`].
    ///
    /// # Source
    /// RFC 7519, "Registered Claim Names"; the bound on the lifetime is our own.
    pub fn current_at(
        self,
        rules: &ClaimRules<'_>,
        now_unix_s: i64,
    ) -> Result<CurrentToken, ClaimError> {
        let claims = self.claims();
        let audiences = claims.audiences()?;
        let (expected, is_for_us) = match rules.audience {
            AudienceRule::Among(expected) => (expected, audiences.contains(&expected)),
            AudienceRule::Only(expected) => (expected, audiences == [expected]),
        };
        if !is_for_us {
            return Err(ClaimError::Audience {
                expected: expected.to_owned(),
                found: audiences.into_iter().map(str::to_owned).collect(),
            });
        }
        let leeway = i64::from(rules.leeway_s);
        let max_s = i64::from(rules.max_lifetime_s);
        let expires = claims.time_unix_s("exp")?.ok_or(ClaimError::Missing("exp"))?;
        let issued = claims.time_unix_s("iat")?;
        let not_before = claims.time_unix_s("nbf")?;
        if expires <= now_unix_s.saturating_sub(leeway) {
            return Err(ClaimError::Expired { expires_unix_s: expires, now_unix_s });
        }
        for (claim, at) in [("nbf", not_before), ("iat", issued)] {
            let Some(at_unix_s) = at else { continue };
            if at_unix_s > now_unix_s.saturating_add(leeway) {
                return Err(ClaimError::NotYetValid { claim, at_unix_s, now_unix_s });
            }
            let found_s = expires.saturating_sub(at_unix_s);
            if found_s < 1 {
                return Err(ClaimError::Lifetime { found_s, max_s });
            }
        }
        // Issuers set `nbf` minutes back for clocks that are late: a life begins where it is issued.
        if let Some(begin) = issued.or(not_before) {
            let found_s = expires.saturating_sub(begin);
            if found_s > max_s {
                return Err(ClaimError::Lifetime { found_s, max_s });
            }
        }
        let left_s = expires.saturating_sub(now_unix_s);
        if left_s > max_s.saturating_add(leeway) {
            return Err(ClaimError::Lifetime { found_s: left_s, max_s });
        }
        Ok(CurrentToken {
            expires_unix_s: expires,
            issued_unix_s: issued,
            key_id: self.key_id().to_owned(),
            claims: self.into_claims(),
        })
    }
}

/// Claims that one of the caller's keys signed, for this audience, in force when they were judged.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct CurrentToken {
    claims: Claims,
    expires_unix_s: i64,
    issued_unix_s: Option<i64>,
    key_id: String,
}

impl CurrentToken {
    /// The claims.
    #[must_use]
    pub const fn claims(&self) -> &Claims {
        &self.claims
    }

    /// `exp`.
    #[must_use]
    pub const fn expires_unix_s(&self) -> i64 {
        self.expires_unix_s
    }

    /// `iat`.
    #[must_use]
    pub const fn issued_unix_s(&self) -> Option<i64> {
        self.issued_unix_s
    }

    /// The key that signed.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }
}
