//! SPIFFE IDs and trust domains, read strictly.

use std::{fmt, str::FromStr};

/// Bytes of a trust domain's name.
const MAX_TRUST_DOMAIN_BYTES: usize = 255;
/// Bytes of a whole ID.
const MAX_ID_BYTES: usize = 2048;
const SCHEME: &str = "spiffe://";

/// The name of a trust domain: lower-case letters, digits, `.`, `-`, `_`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

/// A SPIFFE ID with a path: an identity of a workload, never of a trust domain itself.
///
/// # Source
/// SPIFFE "The SPIFFE Identity and Verifiable Identity Document": section on the SPIFFE identity.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: String,
    trust_domain: TrustDomain,
}

/// No SPIFFE ID of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a SPIFFE ID with a path, in its normal form")]
pub struct NotASpiffeId;

impl TrustDomain {
    /// The name, without scheme.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain's own ID, `spiffe://NAME`: the key of bundle maps.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{SCHEME}{}", self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = NotASpiffeId;

    fn from_str(name: &str) -> Result<Self, NotASpiffeId> {
        let is_allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        let is_good = !name.is_empty()
            && name.len() <= MAX_TRUST_DOMAIN_BYTES
            && name.bytes().all(is_allowed);
        if is_good { Ok(Self(name.to_owned())) } else { Err(NotASpiffeId) }
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SpiffeId {
    /// The whole ID.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its trust domain.
    #[must_use]
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }
}

impl FromStr for SpiffeId {
    type Err = NotASpiffeId;

    fn from_str(text: &str) -> Result<Self, NotASpiffeId> {
        if text.len() > MAX_ID_BYTES {
            return Err(NotASpiffeId);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(NotASpiffeId)?;
        let (name, path) = rest.split_once('/').ok_or(NotASpiffeId)?;
        let trust_domain = name.parse()?;
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let is_segment = |segment: &str| {
            !segment.is_empty()
                && segment != "."
                && segment != ".."
                && segment.bytes().all(is_allowed)
        };
        if !path.split('/').all(is_segment) {
            return Err(NotASpiffeId);
        }
        Ok(Self { text: text.to_owned(), trust_domain })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_in_its_normal_form_only() {
        let good: SpiffeId = "spiffe://td.example/pool/a-B_c.9/job".parse().unwrap();
        assert_eq!(good.as_str(), "spiffe://td.example/pool/a-B_c.9/job");
        assert_eq!(good.trust_domain().as_str(), "td.example");
        assert_eq!(good.trust_domain().id(), "spiffe://td.example");
        let long = format!("spiffe://td/{}", "a".repeat(MAX_ID_BYTES));
        let domain = format!("spiffe://{}/a", "a".repeat(256));
        for bad in [
            "",
            "spiffe://",
            "spiffe://td",
            "spiffe://td/",
            "spiffe:///a",
            "SPIFFE://td/a",
            "https://td/a",
            "spiffe://TD/a",
            "spiffe://td:80/a",
            "spiffe://u@td/a",
            "spiffe://td//a",
            "spiffe://td/a/",
            "spiffe://td/./a",
            "spiffe://td/../a",
            "spiffe://td/a%20b",
            "spiffe://td/a?b",
            "spiffe://td/a#b",
            "spiffe://td/ä",
            " spiffe://td/a",
            &long,
            &domain,
        ] {
            assert_eq!(bad.parse::<SpiffeId>(), Err(NotASpiffeId), "{bad}");
        }
        let longest = format!("spiffe://{}/a", "a".repeat(255));
        assert!(longest.parse::<SpiffeId>().is_ok());
    }
}
