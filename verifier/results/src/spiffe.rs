//! SPIFFE IDs, as text that is compared byte for byte.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Longest SPIFFE ID, bytes.
///
/// # Source
/// SPIFFE-ID, "Maximum SPIFFE ID Length".
pub const MAX_SPIFFE_ID_BYTES: usize = 2048;
/// Longest trust domain, bytes.
const MAX_TRUST_DOMAIN_BYTES: usize = 255;

/// The SPIFFE ID of a workload: trust domain and path. Nothing is normalised.
///
/// # Source
/// SPIFFE-ID, "SPIFFE Identity".
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId(String);

/// Not a SPIFFE ID with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a workload's SPIFFE ID is spiffe://TRUST-DOMAIN/PATH in lower-case ASCII, without dots as segments"
)]
pub struct SpiffeIdError;

impl SpiffeId {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// SPIFFE ID of the trust domain, `spiffe://TD`.
    #[must_use]
    pub fn trust_domain_id(&self) -> &str {
        let path: usize = self.segments().map(|segment| segment.len().saturating_add(1)).sum();
        self.0.get(..self.0.len().saturating_sub(path)).unwrap_or_default()
    }

    /// The segments of the path.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        let rest = self.0.strip_prefix("spiffe://").unwrap_or_default();
        rest.split('/').skip(1)
    }

    /// NAME of `spiffe://TD/pool/NAME` and of what stands below it.
    #[must_use]
    pub fn pool(&self) -> Option<&str> {
        self.after("pool")
    }

    /// NAME of `spiffe://TD/node/NAME` and of what stands below it.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        self.after("node")
    }

    /// PERMIT of `spiffe://TD/pool/NAME/job/SYSTEM/PERMIT`.
    #[must_use]
    pub fn permit(&self) -> Option<&str> {
        let mut segments = self.segments().skip(2);
        (self.pool().is_some() && segments.next() == Some("job")).then(|| segments.nth(1))?
    }

    fn after(&self, kind: &str) -> Option<&str> {
        let mut segments = self.segments();
        (segments.next() == Some(kind)).then(|| segments.next())?
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("spiffe://").ok_or(SpiffeIdError)?;
        let (domain, path) = rest.split_once('/').ok_or(SpiffeIdError)?;
        let is_domain = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
        };
        let is_segment = |segment: &str| {
            let is_allowed =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            !matches!(segment, "" | "." | "..") && segment.bytes().all(is_allowed)
        };
        let is_good = text.len() <= MAX_SPIFFE_ID_BYTES
            && (1..=MAX_TRUST_DOMAIN_BYTES).contains(&domain.len())
            && domain.bytes().all(is_domain)
            && path.split('/').all(is_segment);
        if is_good { Ok(Self(text.to_owned())) } else { Err(SpiffeIdError) }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for SpiffeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SpiffeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_taken_as_it_stands_or_refused() {
        let id = |text: &str| text.parse::<SpiffeId>();
        let job = id("spiffe://build.example/pool/release/job/github/p-1").expect("an ID");
        assert_eq!((job.pool(), job.permit(), job.node()), (Some("release"), Some("p-1"), None));
        let node = id("spiffe://build.example/node/n1").expect("an ID");
        assert_eq!((node.pool(), node.permit(), node.node()), (None, None, Some("n1")));
        for wrong in [
            "spiffe://build.example",
            "spiffe://build.example/",
            "spiffe://Build.example/a",
            "spiffe:///a",
            "spiffe://a/b/../c",
            "spiffe://a/b//c",
            "spiffe://a/b%20c",
            "spiffe://a:1/b",
            "spiffe://a/b?c",
            "SPIFFE://a/b",
            "https://a/b",
        ] {
            assert_eq!(id(wrong), Err(SpiffeIdError), "{wrong}");
        }
        assert_eq!(id(&format!("spiffe://a/{}", "b".repeat(2048))), Err(SpiffeIdError));
    }
}
