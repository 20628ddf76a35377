//! JWT-SVIDs: a SPIFFE ID as a short-lived token for one audience.
//!
//! # Source
//! SPIFFE JWT-SVID.

#[cfg(test)]
mod tests;

use proto::spiffe::{SpiffeError, SpiffeId, TrustDomain};
use serde_json::{Map, Value};

use crate::{
    Algorithm, AudienceRule, ClaimError, ClaimRules, MAX_AUDIENCES, MAX_UNIX_S,
    jwk::KeyUse,
    jws::{JwsError, KeyRules, UnverifiedToken},
    sign::{self, Sign, SignError},
    spiffe_bundle::Bundle,
};

/// Longest life of a JWT-SVID that is minted or accepted, seconds: issuers use five minutes; a stolen
/// one is good for as long as it lives.
pub const MAX_LIFETIME_S: u32 = 3600;
/// Longest audience or `jti`, bytes: a SPIFFE ID or an https URL.
pub const MAX_TEXT_BYTES: usize = 2048;
/// Header members of a JWT-SVID, all there may be.
const HEADER: [&str; 3] = ["alg", "kid", "typ"];

/// Why a JWT-SVID is refused or not minted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SvidError {
    /// Not a token that the trust domain signed.
    #[error("the JWT-SVID is not one that its trust domain signed")]
    Token(#[source] JwsError),
    /// The header has another member.
    #[error("the JWT-SVID's header has a member that is not alg, kid or typ")]
    HeaderMember,
    /// Claims are missing, malformed, for another audience or not in force.
    #[error("the JWT-SVID's claims are refused")]
    Claims(#[source] ClaimError),
    /// `sub` is no SPIFFE ID.
    #[error("`sub` is not a SPIFFE ID")]
    Subject(#[source] SpiffeError),
    /// The ID is of another trust domain.
    #[error("the ID is of the trust domain {found}, not of {expected}")]
    TrustDomain {
        /// The trust domain whose keys were asked.
        expected: TrustDomain,
        /// That of the ID.
        found: TrustDomain,
    },
    /// The ID is the trust domain's own.
    #[error("the ID has no path: it is a trust domain's, not a workload's")]
    NoPath,
    /// Asked to mint what would be refused.
    #[error("`{0}` of a JWT-SVID to be minted is not what it may be")]
    Mint(&'static str),
    /// No signature.
    #[error("the JWT-SVID could not be signed")]
    Sign(#[source] SignError),
}

impl SvidError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Token(error) => error.code(),
            Self::HeaderMember => "JWS_HEADER_MEMBER_REFUSED",
            Self::Claims(error) => error.code(),
            Self::Subject(_) => "SVID_SUBJECT_INVALID",
            Self::TrustDomain { .. } => "SVID_TRUST_DOMAIN_MISMATCH",
            Self::NoPath => "SVID_PATH_EMPTY",
            Self::Mint(_) => "SVID_CLAIM_INVALID",
            Self::Sign(error) => error.code(),
        }
    }
}

/// What a JWT-SVID is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SvidClaims {
    /// `sub`: the workload.
    pub subject: SpiffeId,
    /// `aud`: 1 to [`MAX_AUDIENCES`], none twice.
    pub audiences: Vec<String>,
    /// `iat`.
    pub issued_unix_s: i64,
    /// `exp`: at most [`MAX_LIFETIME_S`] after `iat`.
    pub expires_unix_s: i64,
    /// `jti`: random, never used before.
    pub token_id: String,
}

/// A signed JWT-SVID: header exactly `alg` (ES256), `kid` and `typ` (JWT).
///
/// # Errors
/// [`SvidError::NoPath`], [`SvidError::Mint`] for claims that [`validate`] would refuse,
/// [`SvidError::Sign`].
pub fn mint(signer: &dyn Sign, claims: &SvidClaims) -> Result<String, SvidError> {
    if claims.subject.path().is_empty() {
        return Err(SvidError::NoPath);
    }
    let mut audiences = claims.audiences.clone();
    audiences.sort_unstable();
    audiences.dedup();
    if audiences.len() != claims.audiences.len()
        || !(1..=MAX_AUDIENCES).contains(&audiences.len())
        || !audiences.iter().all(|audience| is_text(audience))
    {
        return Err(SvidError::Mint("aud"));
    }
    if !is_text(&claims.token_id) {
        return Err(SvidError::Mint("jti"));
    }
    if claims.issued_unix_s < 0 || claims.expires_unix_s > MAX_UNIX_S {
        return Err(SvidError::Mint("iat"));
    }
    let lifetime = claims.expires_unix_s.saturating_sub(claims.issued_unix_s);
    if !(1..=i64::from(MAX_LIFETIME_S)).contains(&lifetime) {
        return Err(SvidError::Mint("exp"));
    }
    let mut out = Map::new();
    out.insert("aud".to_owned(), claims.audiences.clone().into());
    out.insert("exp".to_owned(), claims.expires_unix_s.into());
    out.insert("iat".to_owned(), claims.issued_unix_s.into());
    out.insert("jti".to_owned(), claims.token_id.clone().into());
    out.insert("sub".to_owned(), Value::String(claims.subject.to_string()));
    sign::token(signer, out).map_err(SvidError::Sign)
}

fn is_text(text: &str) -> bool {
    (1..=MAX_TEXT_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// What a JWT-SVID must be to be accepted.
#[derive(Clone, Copy, Debug)]
pub struct SvidRules<'a> {
    /// The trust domain whose bundle is asked.
    pub trust_domain: &'a TrustDomain,
    /// Who accepts the token: must be among its audiences.
    pub audience: &'a str,
    /// How far the issuer's clock may be from ours, seconds.
    pub leeway_s: u32,
}

/// A JWT-SVID that its trust domain signed, for this audience, in force when it was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct JwtSvid {
    id: SpiffeId,
    audiences: Vec<String>,
    issued_unix_s: Option<i64>,
    expires_unix_s: i64,
    token_id: Option<String>,
    key_id: String,
}

impl JwtSvid {
    /// `sub`.
    #[must_use]
    pub const fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// `aud`.
    #[must_use]
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// `iat`.
    #[must_use]
    pub const fn issued_unix_s(&self) -> Option<i64> {
        self.issued_unix_s
    }

    /// `exp`.
    #[must_use]
    pub const fn expires_unix_s(&self) -> i64 {
        self.expires_unix_s
    }

    /// `jti`.
    #[must_use]
    pub fn token_id(&self) -> Option<&str> {
        self.token_id.as_deref()
    }

    /// The key that signed.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }
}

/// Judges a JWT-SVID by the keys of its trust domain.
///
/// # Errors
/// [`SvidError`]: header members other than `alg`, `kid`, `typ`; not signed by a `jwt-svid` key of
/// the bundle; `aud`, `exp` or `sub` missing; another audience; not in force; longer-lived than
/// [`MAX_LIFETIME_S`]; `sub` no SPIFFE ID of the trust domain with a path.
pub fn validate(
    token: &str,
    bundle: &Bundle,
    rules: &SvidRules<'_>,
    now_unix_s: i64,
) -> Result<JwtSvid, SvidError> {
    let token = UnverifiedToken::parse(token).map_err(SvidError::Token)?;
    if !token.untrusted_header().keys().all(|name| HEADER.contains(&name.as_str())) {
        return Err(SvidError::HeaderMember);
    }
    let keys = KeyRules { algorithms: &Algorithm::ALL, key_use: KeyUse::JwtSvid };
    let token = token.verify(bundle.jwt_authorities(), &keys).map_err(SvidError::Token)?;
    let claim_rules = ClaimRules {
        audience: AudienceRule::Among(rules.audience),
        leeway_s: rules.leeway_s,
        max_lifetime_s: MAX_LIFETIME_S,
    };
    let token = token.current_at(&claim_rules, now_unix_s).map_err(SvidError::Claims)?;
    let claims = token.claims();
    let subject = claims.required_text("sub").map_err(SvidError::Claims)?;
    let id: SpiffeId = subject.parse().map_err(SvidError::Subject)?;
    if id.trust_domain() != rules.trust_domain {
        return Err(SvidError::TrustDomain {
            expected: rules.trust_domain.clone(),
            found: id.trust_domain().clone(),
        });
    }
    if id.path().is_empty() {
        return Err(SvidError::NoPath);
    }
    let audiences = claims.audiences().map_err(SvidError::Claims)?;
    Ok(JwtSvid {
        audiences: audiences.into_iter().map(str::to_owned).collect(),
        issued_unix_s: token.issued_unix_s(),
        expires_unix_s: token.expires_unix_s(),
        token_id: claims.text("jti").map_err(SvidError::Claims)?.map(str::to_owned),
        key_id: token.key_id().to_owned(),
        id,
    })
}
