//! Dotted versions, compared.
//!
//! # Format
//! Numbers with dots between them, at most eight: `13.2`, `6.12.9`. A version may go on with what a packager adds,
//! after `-` or `+` (`6.12.9-amd64`, `13.2.0-5+deb12`): that is not compared. What comes *before* the version it names
//! would count as that version: a `~`, and words such as `rc` or `beta` in the addition, make it nonsense. Words are
//! whole: `6.12.9-arch1` is no `rc`. Missing components are zero.

use super::limits::MAX_VERSION_COMPONENTS;

/// Words for what comes before a release, or from between two.
const EARLIER: [&str; 22] = [
    "alpha",
    "beta",
    "bzr",
    "canary",
    "cvs",
    "daily",
    "dev",
    "devel",
    "experimental",
    "git",
    "hg",
    "master",
    "next",
    "nightly",
    "pre",
    "prerelease",
    "preview",
    "rc",
    "snapshot",
    "svn",
    "trunk",
    "unstable",
];

/// Components of a version; `None` for nonsense.
pub(super) fn parse(text: &str) -> Option<[u64; MAX_VERSION_COMPONENTS]> {
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (numbers, addition) = text.split_at_checked(end)?;
    let is_earlier = |word: &str| EARLIER.iter().any(|earlier| word.eq_ignore_ascii_case(earlier));
    let mut words = addition.split(|letter: char| !letter.is_ascii_alphabetic());
    if addition.contains('~') || words.any(is_earlier) {
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

    /// A word is not found within another.
    #[test]
    fn additions_that_only_look_like_what_comes_earlier_have_an_order() {
        for text in [
            "6.12.9-arch1-1",
            "6.12.9-archlinux",
            "6.12.9-preempt",
            "6.12.9-source",
            "6.12.9-device",
            "6.12.9-digits",
            "6.12.9-context",
        ] {
            assert_eq!(parse(text), parse("6.12.9"), "{text:?}");
        }
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
            "6.12-RC1",
            "1.90.0-nightly",
            "1.90.0-nightly.20260101",
            "14.0.0+20260101-snapshot",
            "6.12.0-next-20260101",
            "6.12.0-0.rc1.20260101",
            "2.0.0-dev",
            "2.0-pre2",
            "6.12~rc1",
            "1_2",
            "\u{0661}",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert_eq!(parse_floor("6.12-1"), None);
    }
}
