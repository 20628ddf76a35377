//! Text in event data: ASCII or UCS-2, with or without a terminator.

/// Longest text that is taken out of an event.
pub const MAX_TEXT_UNITS: usize = 64 * 1024;

/// UCS-2 text, little-endian, up to the first terminator or the end; a character that is none becomes U+FFFD.
#[must_use]
pub fn utf16(bytes: &[u8]) -> String {
    let units = bytes
        .chunks_exact(2)
        .take(MAX_TEXT_UNITS)
        .map(|pair| match pair {
            [low, high] => u16::from_le_bytes([*low, *high]),
            _ => 0,
        })
        .take_while(|unit| *unit != 0);
    char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// UCS-2 text that is nothing but text: an even number of bytes, printable, terminators only at its end.
#[must_use]
pub fn printable_utf16(bytes: &[u8]) -> Option<String> {
    let mut body = bytes;
    while let Some(rest) = body.strip_suffix(&[0, 0]) {
        body = rest;
    }
    if body.is_empty() || !body.len().is_multiple_of(2) || body.len() / 2 > MAX_TEXT_UNITS {
        return None;
    }
    let text = utf16(body);
    let whole = text.encode_utf16().count() == body.len() / 2;
    (whole && text.chars().all(is_text)).then_some(text)
}

/// UTF-8 text that is nothing but text: printable, terminators only at its end.
#[must_use]
pub fn printable(bytes: &[u8]) -> Option<&str> {
    let mut body = bytes;
    while let Some(rest) = body.strip_suffix(&[0]) {
        body = rest;
    }
    let text = std::str::from_utf8(body).ok()?;
    (!text.is_empty() && text.chars().all(is_text)).then_some(text)
}

/// Either of the two; UTF-8 first.
#[must_use]
pub fn any_printable(bytes: &[u8]) -> Option<String> {
    printable(bytes).map(str::to_owned).or_else(|| printable_utf16(bytes))
}

/// The ASCII text in UCS-2, without terminator.
#[must_use]
pub fn to_utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Menu entries have line breaks in them.
fn is_text(character: char) -> bool {
    !character.is_control() && character != char::REPLACEMENT_CHARACTER
        || matches!(character, '\n' | '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_told_from_bytes() {
        assert_eq!(utf16(b"a\0b\0\0\0c\0"), "ab");
        assert_eq!(printable_utf16(b"a\0b\0\0\0").as_deref(), Some("ab"));
        assert_eq!(printable_utf16(b"a\0b\0\0\0c\0"), None);
        assert_eq!(printable_utf16(b"a\0b"), None);
        assert_eq!(printable(b"linux /vmlinuz\0"), Some("linux /vmlinuz"));
        assert_eq!(printable(b"a\x01"), None);
        assert_eq!(printable(b"\0\0"), None);
        assert_eq!(any_printable(&to_utf16("quiet")).as_deref(), Some("quiet"));
    }
}
