//! Compact JSON Web Signatures: nothing of a token but its key's name is readable before it is
//! verified.

mod error;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::{Map, Value};

pub use self::error::JwsError;
use crate::{
    Algorithm, Claims, base64url, json,
    jwk::{JwkSet, KeyUse, MAX_KEY_ID_BYTES},
};

/// Longest token, bytes: those of CI platforms have 1 to 4 kB.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Longest header, decoded, bytes: `alg`, `kid`, `typ` and a thumbprint take 200.
pub const MAX_HEADER_BYTES: usize = 2 * 1024;

/// Header members that are refused: they bring or point to a key, change what is signed, or demand
/// what is not done here.
///
/// # Source
/// RFC 7515, "JOSE Header"; RFC 7516 (`enc`, `zip`); RFC 7797 (`b64`); RFC 7519, "\"cty\"", which
/// says that a token is within the token; RFC 8725, "Use Appropriate Algorithms" and following.
const FORBIDDEN: [&str; 9] = ["b64", "crit", "cty", "enc", "jku", "jwk", "x5c", "x5u", "zip"];

/// A token that nobody has vouched for. Only what finding the key takes can be read: the key's name,
/// the algorithm and the issuer's.
#[derive(Clone, PartialEq, Eq)]
pub struct UnverifiedToken {
    algorithm: Algorithm,
    key_id: String,
    header: Map<String, Value>,
    /// What is signed: header and payload, encoded, with the dot between them.
    signed: String,
    /// Length of the encoded header in `signed`.
    header_len: usize,
    signature: Vec<u8>,
}

impl UnverifiedToken {
    /// Reads a token's form and header.
    ///
    /// # Format
    /// `HEADER.PAYLOAD.SIGNATURE`, each base64url without padding, none empty, together at most
    /// [`MAX_TOKEN_BYTES`]. Header: a JSON object of at most [`MAX_HEADER_BYTES`] with `alg` (an
    /// [`Algorithm`]), `kid` (1 to [`MAX_KEY_ID_BYTES`] bytes) and optionally `typ` (`JWT` or
    /// `JOSE`). Members that bring keys or change the signature are refused; others say nothing.
    ///
    /// # Errors
    /// [`JwsError`], before anything is decoded for a token that is too long.
    ///
    /// # Source
    /// RFC 7515, "JWS Compact Serialization" and "Message Signature or MAC Validation".
    pub fn parse(token: &str) -> Result<Self, JwsError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(JwsError::TooLarge { found: token.len() });
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JwsError::Parts);
        };
        let header_len = header.len();
        let header = decoded("header", header)?;
        // Read after verification only; its form is part of the token's.
        decoded("payload", payload)?;
        let signature = decoded("signature", signature)?;
        if header.len() > MAX_HEADER_BYTES {
            return Err(JwsError::HeaderTooLarge { found: header.len() });
        }
        let header = json::object(&header).map_err(JwsError::Header)?;
        if let Some(member) = FORBIDDEN.into_iter().find(|name| header.contains_key(*name)) {
            return Err(JwsError::HeaderMember(member));
        }
        if let Some(kind) = header.get("typ")
            && kind != "JWT"
            && kind != "JOSE"
        {
            return Err(JwsError::Type);
        }
        let named = match header.get("alg") {
            Some(Value::String(name)) => name,
            Some(_) => return Err(JwsError::HeaderType("alg")),
            None => return Err(JwsError::HeaderMissing("alg")),
        };
        let algorithm = named.parse().map_err(|_| JwsError::AlgorithmUnknown)?;
        let key_id = match header.get("kid") {
            Some(Value::String(id)) if (1..=MAX_KEY_ID_BYTES).contains(&id.len()) => id.clone(),
            Some(_) => return Err(JwsError::HeaderType("kid")),
            None => return Err(JwsError::HeaderMissing("kid")),
        };
        let signed = token.rsplit_once('.').map_or("", |(signed, _)| signed).to_owned();
        Ok(Self { algorithm, key_id, header, signed, header_len, signature })
    }

    /// `kid`: which key its sender says it is signed with.
    #[must_use]
    pub fn untrusted_key_id(&self) -> &str {
        &self.key_id
    }

    /// `alg`: the algorithm its sender says it is signed with.
    #[must_use]
    pub const fn untrusted_algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// `iss`: who its sender says has issued it. For one thing only: to find the issuer whose keys
    /// are then asked, as OpenID Connect has it.
    ///
    /// # Errors
    /// [`JwsError::Payload`], [`JwsError::NoIssuer`].
    pub fn untrusted_issuer(&self) -> Result<String, JwsError> {
        match self.payload()?.remove("iss") {
            Some(Value::String(issuer)) => Ok(issuer),
            _ => Err(JwsError::NoIssuer),
        }
    }

    fn payload(&self) -> Result<Map<String, Value>, JwsError> {
        let payload = self.signed.get(self.header_len.saturating_add(1)..).unwrap_or_default();
        json::object(&decoded("payload", payload)?).map_err(JwsError::Payload)
    }

    /// Members of the header.
    pub(crate) fn untrusted_header(&self) -> &Map<String, Value> {
        &self.header
    }

    /// Verifies the signature, and reads the payload after that.
    ///
    /// # Errors
    /// [`JwsError`]: the algorithm is not allowed; no key has this `kid`; the key is for something
    /// else; the signature is not the key's; the payload is not a JSON object.
    pub fn verify(self, keys: &JwkSet, rules: &KeyRules<'_>) -> Result<VerifiedToken, JwsError> {
        if !rules.algorithms.contains(&self.algorithm) {
            return Err(JwsError::AlgorithmNotAllowed(self.algorithm));
        }
        let key = keys.find(&self.key_id).ok_or(JwsError::KeyUnknown)?;
        let is_use = match (rules.key_use, key.key_use()) {
            // Of keys for signatures it is usual to say nothing; other uses must be said.
            (KeyUse::Signature, None) => true,
            (wanted, Some(found)) => wanted == found,
            (_, None) => false,
        };
        if !is_use || !key.allows(self.algorithm) {
            return Err(JwsError::KeyUnfit);
        }
        if !self.algorithm.verifies(key.key(), self.signed.as_bytes(), &self.signature) {
            return Err(JwsError::SignatureInvalid);
        }
        let claims = Claims::new(self.payload()?);
        Ok(VerifiedToken { algorithm: self.algorithm, key_id: self.key_id, claims })
    }
}

fn decoded(part: &'static str, text: &str) -> Result<Vec<u8>, JwsError> {
    base64url::decode(text).filter(|bytes| !bytes.is_empty()).ok_or(JwsError::Base64(part))
}

/// Neither claims nor signature: a log must not become a way to read or use a token.
impl fmt::Debug for UnverifiedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnverifiedToken")
            .field("algorithm", &self.algorithm)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// Which keys and algorithms may sign a token.
#[derive(Clone, Copy, Debug)]
pub struct KeyRules<'a> {
    /// Algorithms that are allowed; none if empty.
    pub algorithms: &'a [Algorithm],
    /// What the key must be for. [`KeyUse::Signature`] also takes keys without `use`.
    pub key_use: KeyUse,
}

/// A token that was signed by one of the caller's keys.
///
/// # Proves
/// The holder of the key `kid` of the set given signed these claims, with an allowed algorithm that
/// is the key's.
///
/// # Does not prove
/// That the claims are in force, or meant for anyone: see [`VerifiedToken::current_at`].
#[derive(Clone, Debug, PartialEq)]
pub struct VerifiedToken {
    algorithm: Algorithm,
    key_id: String,
    claims: Claims,
}

impl VerifiedToken {
    /// The key.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The claims.
    #[must_use]
    pub const fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The claims, without the token.
    pub(crate) fn into_claims(self) -> Claims {
        self.claims
    }
}
