//! Text that others wrote, on its way to a terminal or into a report.

/// One line of printable characters: what could move a cursor, hide or turn text around is escaped.
///
/// Control characters, but also those that Unicode has for writing from right to left: a name that reads as another one
/// would mislead whoever approves it. A backslash stays as it is, because firmware's paths are full of them.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\\' | '"' | '\'' => out.push(char),
            _ => out.extend(char.escape_debug()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_a_cursor_or_turns_text_around_is_escaped() {
        for (text, shown) in [
            ("quiet splash", "quiet splash"),
            ("Zoë's \"größte\" \\EFI\\shim.efi", "Zoë's \"größte\" \\EFI\\shim.efi"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("\u{1b}[2J\u{9b}1A\u{7f}", "\\u{1b}[2J\\u{9b}1A\\u{7f}"),
            ("\u{202e}gpj\u{2066}x\u{2069}", "\\u{202e}gpj\\u{2066}x\\u{2069}"),
            ("a\u{200b}b\u{2028}c\u{feff}", "a\\u{200b}b\\u{2028}c\\u{feff}"),
        ] {
            assert_eq!(printable(text), shown);
        }
    }
}
