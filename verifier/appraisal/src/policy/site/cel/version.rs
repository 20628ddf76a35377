//! Dotted versions, compared.
//!
//! # Format
//! Numbers with dots between them, at most eight: `13.2`, `6.12.9`. A version may go on with what a packager adds,
//! after `-` or `+` (`6.12.9-amd64`, `13.2.0-5+deb12`): that is not compared. What comes *before* the version it names
//! would count as that version: a `~`, and words such as `rc` or `beta` anywhere in the addition, make it nonsense.
//! Missing components are zero.

use super::limits::MAX_VERSION_COMPONENTS;

const EARLIER: [&str; 6] = ["rc", "pre", "alpha", "beta", "dev", "git"];

/// Components of a version; `None` for nonsense.
pub(super) fn parse(text: &str) -> Option<[u64; MAX_VERSION_COMPONENTS]> {
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (numbers, addition) = text.split_at_checked(end)?;
    let lower = addition.to_ascii_lowercase();
    if addition.contains('~') || EARLIER.iter().any(|word| lower.contains(word)) {
        return None;
    }
    numbers_of(numbers)
}

/// Components of a floor, which has no addition.
pub(super) fn parse_floor(text: &str) -> Option<[u64; MAX_VERSION_COMPONENTS]> {
    numbers_of(text)
}

fn numbers_of(text: &str) -> Option<[u64; MAX_VERSION_COMPONENTS]> {
    let mut out = [0; MAX_VERSION_COMPONENTS];
    let mut slots = out.iter_mut();
    for part in text.split('.') {
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *slots.next()? = part.parse().ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::{parse, parse_floor};

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        let ascending =
            ["0", "1", "1.0.1", "1.9", "1.10", "6.1.0-18-amd64", "6.12.9+bpo", "13.2.0-5"];
        for pair in ascending.windows(2) {
            assert!(parse(pair[0]) < parse(pair[1]), "{pair:?}");
        }
        assert_eq!(parse("1"), parse("1.0.0-anything"));
    }

    #[test]
    fn nonsense_has_no_order() {
        for text in [
            "",
            ".",
            "1.",
            ".1",
            "1..2",
            "v1",
            "1.x",
            "4:12.2",
            " 1",
            "1 ",
            "-1",
            "+1",
            "1.2.3.4.5.6.7.8.9",
            "99999999999999999999",
            "6.12-rc1",
            "6.12.0+git20260101",
            "6.12-1~bpo12",
            "6.12~rc1",
            "1_2",
            "\u{0661}",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert_eq!(parse_floor("6.12-1"), None);
    }
}
