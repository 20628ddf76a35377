//! Reads key sets.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::limits::MAX_CERTIFICATE_BYTES;
use serde_json::{Map, Value};

use super::{
    Jwk, JwkError, JwkSet, KeyAlgorithm, KeyUse, MAX_CERTIFICATES, MAX_KEYS, MAX_SET_BYTES,
    Malformed, checked_id, curve,
};
use crate::{Algorithm, PublicKey, base64url, json};

/// Members that hold secrets, of all types of keys.
///
/// # Source
/// RFC 7518, "Cryptographic Algorithms for Keys"; RFC 8037.
const PRIVATE: [&str; 8] = ["d", "dp", "dq", "k", "oth", "p", "q", "qi"];

/// `x5c` is base64 with padding, unlike everything else (RFC 7517).
pub(super) fn standard(der: &[u8]) -> Value {
    STANDARD.encode(der).into()
}

/// The object of a key set or bundle, its size checked.
pub(crate) fn document(bytes: &[u8]) -> Result<Map<String, Value>, JwkError> {
    if bytes.len() > MAX_SET_BYTES {
        return Err(JwkError::TooLarge { found: bytes.len() });
    }
    json::object(bytes).map_err(JwkError::Json)
}

/// Key identifiers met so far, with their positions.
#[derive(Debug, Default)]
pub(super) struct Seen(BTreeMap<String, usize>);

impl Seen {
    pub(super) fn insert(&mut self, index: usize, id: &str) -> Result<(), JwkError> {
        match self.0.insert(id.to_owned(), index) {
            Some(first) => Err(JwkError::KeyIdTwice { index, first }),
            None => Ok(()),
        }
    }
}

/// The keys of a document.
pub(crate) fn set(document: &Map<String, Value>) -> Result<JwkSet, JwkError> {
    let Some(Value::Array(entries)) = document.get("keys") else { return Err(JwkError::NoKeys) };
    if entries.len() > MAX_KEYS {
        return Err(JwkError::TooManyKeys { found: entries.len() });
    }
    let mut set = JwkSet::default();
    let mut seen = Seen::default();
    for (index, entry) in entries.iter().enumerate() {
        let malformed = |source| JwkError::Key { index, source };
        let Value::Object(entry) = entry else { return Err(malformed(Malformed::NotAnObject)) };
        // A key whose secret went around is nobody's, whatever its type.
        if let Some(member) = PRIVATE.into_iter().find(|name| entry.contains_key(*name)) {
            return Err(JwkError::Private { index, member });
        }
        // Also of keys that are skipped: a `kid` that stands twice is one that two readers
        // understand differently.
        if let Some(id) = text(entry, "kid").map_err(malformed)? {
            seen.insert(index, checked_id(id).map_err(malformed)?)?;
        }
        match key(entry).map_err(malformed)? {
            Some(key) => set.keys.push(key),
            None => set.skipped += 1,
        }
    }
    Ok(set)
}

/// One key; `None` for a type, curve or use that has no meaning here.
fn key(entry: &Map<String, Value>) -> Result<Option<Jwk>, Malformed> {
    let key_use = match text(entry, "use")? {
        None => None,
        Some(name) => match KeyUse::ALL.into_iter().find(|key_use| key_use.as_str() == name) {
            Some(key_use) => Some(key_use),
            None => return Ok(None),
        },
    };
    let key = match required(entry, "kty")? {
        "EC" => {
            let Some(curve) = curve(required(entry, "crv")?) else { return Ok(None) };
            PublicKey::ec(curve, &bytes(entry, "x")?, &bytes(entry, "y")?)?
        }
        "RSA" => PublicKey::rsa(&bytes(entry, "n")?, &bytes(entry, "e")?)?,
        _ => return Ok(None),
    };
    let mut key = Jwk::new(key).with_certificates(certificates(entry)?);
    if let Some(id) = text(entry, "kid")? {
        key = key.with_id(id)?;
    }
    key.key_use = key_use;
    if let Some(name) = text(entry, "alg")? {
        key = match name.parse::<Algorithm>() {
            Ok(algorithm) => key.with_algorithm(algorithm)?,
            Err(_) => Jwk { algorithm: Some(KeyAlgorithm::Other(name.to_owned())), ..key },
        };
    }
    key.may_verify = may_verify(entry)?;
    Ok(Some(key))
}

fn text<'a>(
    entry: &'a Map<String, Value>,
    name: &'static str,
) -> Result<Option<&'a str>, Malformed> {
    match entry.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Malformed::Type(name)),
    }
}

fn required<'a>(entry: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, Malformed> {
    text(entry, name)?.ok_or(Malformed::Missing(name))
}

fn bytes(entry: &Map<String, Value>, name: &'static str) -> Result<Vec<u8>, Malformed> {
    base64url::decode(required(entry, name)?).ok_or(Malformed::Base64(name))
}

fn may_verify(entry: &Map<String, Value>) -> Result<bool, Malformed> {
    let Some(value) = entry.get("key_ops") else { return Ok(true) };
    let operations = value.as_array().ok_or(Malformed::Type("key_ops"))?;
    if !operations.iter().all(Value::is_string) {
        return Err(Malformed::Type("key_ops"));
    }
    Ok(operations.iter().any(|operation| operation == "verify"))
}

fn certificates(entry: &Map<String, Value>) -> Result<Vec<Vec<u8>>, Malformed> {
    let Some(value) = entry.get("x5c") else { return Ok(Vec::new()) };
    let encoded = value.as_array().ok_or(Malformed::Type("x5c"))?;
    if !(1..=MAX_CERTIFICATES).contains(&encoded.len()) {
        return Err(Malformed::Certificates);
    }
    let decode = |value: &Value| {
        let text = value.as_str().ok_or(Malformed::Type("x5c"))?;
        let der = STANDARD.decode(text).map_err(|_| Malformed::Base64("x5c"))?;
        let is_good = (1..=MAX_CERTIFICATE_BYTES).contains(&der.len());
        if is_good { Ok(der) } else { Err(Malformed::Certificates) }
    };
    encoded.iter().map(decode).collect()
}
