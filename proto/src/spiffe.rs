//! SPIFFE identifiers: trust domain, path segment, ID.
//!
//! Text is accepted as it stands or refused. Nothing is lower-cased, percent-decoded or otherwise
//! normalised: two texts that differ are two identities.

use std::{fmt, str::FromStr};

/// Longest trust domain, bytes.
///
/// # Source
/// SPIFFE-ID, "Maximum SPIFFE ID Length": 255.
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;
/// Longest SPIFFE ID, bytes.
///
/// # Source
/// SPIFFE-ID, "Maximum SPIFFE ID Length": 2048.
pub const MAX_SPIFFE_ID_BYTES: usize = 2048;
/// Longest name of a node, pool or administrator: it must fit in a common name (`ub-common-name`,
/// 64).
pub const MAX_SEGMENT_BYTES: usize = 64;

/// Why a text is not a trust domain, a name or a SPIFFE ID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpiffeError {
    /// A character outside the allowed set.
    #[error("{text:?} has the character {found:?} at byte {at}; allowed are {allowed}")]
    Character {
        /// The text.
        text: String,
        /// The character.
        found: char,
        /// Its byte offset.
        at: usize,
        /// The allowed set, in words.
        allowed: &'static str,
    },
    /// `.` or `..` as a path segment.
    #[error("{0:?} is a relative path segment")]
    DotSegment(String),
    /// Nothing, or nothing between two slashes.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// Over its length bound.
    #[error("{what} has {found} bytes, more than {max}")]
    Length {
        /// What was too long.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The bound.
        max: usize,
    },
    /// Does not begin with `spiffe://`.
    #[error("{0:?} does not begin with spiffe://")]
    Scheme(String),
}

fn check(
    text: &str,
    what: &'static str,
    max: usize,
    allowed: &'static str,
    is_allowed: impl Fn(char) -> bool,
) -> Result<(), SpiffeError> {
    if text.is_empty() {
        return Err(SpiffeError::Empty(what));
    }
    if text.len() > max {
        return Err(SpiffeError::Length { what, found: text.len(), max });
    }
    match text.char_indices().find(|(_, found)| !is_allowed(*found)) {
        Some((at, found)) => {
            Err(SpiffeError::Character { text: text.to_owned(), found, at, allowed })
        }
        None => Ok(()),
    }
}

/// A trust domain, for example `builds.example.org`.
///
/// # Format
/// 1..=255 bytes of `a-z`, `0-9`, `.`, `-`, `_`.
///
/// # Source
/// SPIFFE-ID, "Trust Domain".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `spiffe://TD`, the ID of the trust domain itself: only signing certificates carry it.
    #[must_use]
    pub fn id(&self) -> String {
        format!("spiffe://{}", self.0)
    }

    /// `spiffe://TD/node/NAME`.
    #[must_use]
    pub fn node_id(&self, name: &Segment) -> SpiffeId {
        SpiffeId { trust_domain: self.clone(), path: format!("/node/{name}") }
    }

    /// `spiffe://TD/admin/NAME`.
    #[must_use]
    pub fn admin_id(&self, name: &Segment) -> SpiffeId {
        SpiffeId { trust_domain: self.clone(), path: format!("/admin/{name}") }
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        check(
            text,
            "trust domain",
            MAX_TRUST_DOMAIN_BYTES,
            "a-z, 0-9, '.', '-' and '_'",
            |c| matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_'),
        )?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One path segment: the name of a node, a pool or an administrator.
///
/// # Format
/// 1..=64 bytes of `A-Z`, `a-z`, `0-9`, `.`, `-`, `_`; not `.` and not `..`.
///
/// # Source
/// SPIFFE-ID, "Path".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment(String);

impl Segment {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Segment {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        check(text, "name", MAX_SEGMENT_BYTES, "A-Z, a-z, 0-9, '.', '-' and '_'", |c| {
            c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')
        })?;
        if matches!(text, "." | "..") {
            return Err(SpiffeError::DotSegment(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SPIFFE ID, with or without a path.
///
/// # Format
/// `spiffe://TRUST-DOMAIN[/SEGMENT]…`, at most 2048 bytes; no port, user, query, fragment, empty
/// segment, trailing slash or percent-encoding.
///
/// # Source
/// SPIFFE-ID, "SPIFFE Identity".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    /// Empty, or `/SEGMENT…`.
    path: String,
}

impl SpiffeId {
    /// The trust domain.
    #[must_use]
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path: empty, or beginning with a slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Path segments, none for the trust domain's own ID.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.path.split('/').skip(1)
    }

    /// `NAME` of `spiffe://TD/KIND/NAME`, if it has exactly that shape.
    #[must_use]
    pub fn name_under(&self, kind: &str) -> Option<Segment> {
        let mut segments = self.segments();
        match (segments.next(), segments.next(), segments.next()) {
            (Some(first), Some(name), None) if first == kind => name.parse().ok(),
            _ => None,
        }
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_SPIFFE_ID_BYTES {
            return Err(SpiffeError::Length {
                what: "SPIFFE ID",
                found: text.len(),
                max: MAX_SPIFFE_ID_BYTES,
            });
        }
        let rest =
            text.strip_prefix("spiffe://").ok_or_else(|| SpiffeError::Scheme(text.to_owned()))?;
        let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let trust_domain = domain.parse()?;
        for segment in path.split('/').skip(1) {
            check(
                segment,
                "path segment",
                MAX_SPIFFE_ID_BYTES,
                "A-Z, a-z, 0-9, '.', '-' and '_'",
                |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'),
            )?;
            if matches!(segment, "." | "..") {
                return Err(SpiffeError::DotSegment(segment.to_owned()));
            }
        }
        Ok(Self { trust_domain, path: path.to_owned() })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}{}", self.trust_domain, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_the_specification_allows_and_keeps_it_as_it_stands() {
        for text in [
            "spiffe://example.org",
            "spiffe://example.org/node/worker-01",
            "spiffe://a_b-c.1/node/A.b_C-9",
            "spiffe://example.org/a/b/c/d",
            "spiffe://example.org/...",
        ] {
            let id: SpiffeId = text.parse().expect(text);
            assert_eq!(id.to_string(), text);
        }
        let id: SpiffeId = "spiffe://example.org/admin/ada".parse().expect("an admin ID");
        assert_eq!(id.name_under("admin").as_ref().map(Segment::as_str), Some("ada"));
        assert_eq!(id.name_under("node"), None);
        let deep: SpiffeId = "spiffe://example.org/admin/ada/x".parse().expect("a longer path");
        assert_eq!(deep.name_under("admin"), None);
    }

    #[test]
    fn refuses_and_never_normalises() {
        use SpiffeError as E;
        let kind = |text: &str| match text.parse::<SpiffeId>() {
            Ok(_) => "accepted",
            Err(E::Character { .. }) => "character",
            Err(E::DotSegment(_)) => "dot",
            Err(E::Empty(_)) => "empty",
            Err(E::Length { .. }) => "length",
            Err(E::Scheme(_)) => "scheme",
        };
        for (text, expected) in [
            ("", "scheme"),
            ("SPIFFE://example.org/x", "scheme"),
            ("https://example.org/x", "scheme"),
            ("spiffe://", "empty"),
            ("spiffe:///x", "empty"),
            ("spiffe://Example.org/x", "character"),
            ("spiffe://example.org:80/x", "character"),
            ("spiffe://u@example.org/x", "character"),
            ("spiffe://example.org/", "empty"),
            ("spiffe://example.org/x/", "empty"),
            ("spiffe://example.org//x", "empty"),
            ("spiffe://example.org/./x", "dot"),
            ("spiffe://example.org/x/../y", "dot"),
            ("spiffe://example.org/%2e%2e", "character"),
            ("spiffe://example.org/x?y", "character"),
            ("spiffe://example.org/x#y", "character"),
            ("spiffe://example.org/x y", "character"),
            ("spiffe://example.org/é", "character"),
            ("spiffe://example.org/x\0", "character"),
            ("spiffe://еxample.org/x", "character"),
        ] {
            assert_eq!(kind(text), expected, "{text:?}");
        }
        let long = format!("spiffe://{}/x", "a".repeat(MAX_TRUST_DOMAIN_BYTES + 1));
        assert_eq!(kind(&long), "length");
        let long = format!("spiffe://a/{}", "a".repeat(MAX_SPIFFE_ID_BYTES));
        assert_eq!(kind(&long), "length");
    }

    #[test]
    fn names_are_one_segment() {
        assert!("worker-01".parse::<Segment>().is_ok());
        assert_eq!("..".parse::<Segment>(), Err(SpiffeError::DotSegment("..".into())));
        assert_eq!("".parse::<Segment>(), Err(SpiffeError::Empty("name")));
        assert!(matches!("a/b".parse::<Segment>(), Err(SpiffeError::Character { at: 1, .. })));
        assert!(matches!("a".repeat(65).parse::<Segment>(), Err(SpiffeError::Length { .. })));
    }
}
