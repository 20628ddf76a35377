//! Bounded JSON, and base64 with one spelling.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Serialize, de::DeserializeOwned};

use crate::refusal::{Code, Refusal, quoted, within};

/// Decodes JSON of at most `max` bytes. Nesting is bounded by the types, and by `serde_json` at 128.
pub(crate) fn parse<T: DeserializeOwned>(
    what: &str,
    bytes: &[u8],
    max: usize,
) -> Result<T, Refusal> {
    within(what, bytes.len(), max, "bytes")?;
    serde_json::from_slice(bytes)
        .map_err(|error| malformed(what, "the documented JSON", &error.to_string()))
}

/// JSON in one line. Fields stand in the order of their declaration and maps in that of their keys,
/// so that equal values give equal bytes.
pub(crate) fn write<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("structures of strings, lists and string maps are JSON")
}

/// Base64 of the standard alphabet with padding and without left-over bits: one spelling each.
pub(crate) fn decode_base64(what: &str, text: &str, max: usize) -> Result<Vec<u8>, Refusal> {
    within(what, text.len(), max.div_ceil(3).saturating_mul(4), "characters of base64")?;
    let bytes = STANDARD
        .decode(text)
        .map_err(|error| malformed(what, "standard base64 with padding", &error.to_string()))?;
    within(what, bytes.len(), max, "bytes")?;
    Ok(bytes)
}

pub(crate) fn encode_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(crate) fn malformed(what: &str, expected: &str, observed: &str) -> Refusal {
    Refusal::new(Code::Malformed, what, expected, quoted(observed))
}
