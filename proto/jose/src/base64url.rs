//! Base64url as JOSE writes it: no padding, no line breaks, no spare bits.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// One text for `bytes`.
pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of `text`; `None` for padding, foreign characters, or bits of the last character that
/// no byte takes. One sequence of bytes thus has one text, so that a signed text cannot be changed
/// where its signature does not notice.
///
/// # Source
/// RFC 7515, "Terminology" (Base64url Encoding); RFC 4648, "Canonical Encoding".
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_for_one_sequence_of_bytes() {
        assert_eq!(decode("_-8"), Some(vec![0xff, 0xef]));
        assert_eq!(encode(&[0xff, 0xef]), "_-8");
        for (text, what) in [
            ("_-8=", "padding"),
            ("_-9", "spare bits"),
            ("/+8", "the other alphabet"),
            ("_-8\n", "a line break"),
            ("_ -8", "a space"),
            ("_", "half a byte"),
        ] {
            assert_eq!(decode(text), None, "{what}");
        }
    }
}
