//! The few URLs that keys may come from.

use std::{fmt, str::FromStr};

/// Longest URL, bytes.
pub const MAX_URL_BYTES: usize = 512;

/// Why a text is not such a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be https://HOST[:PORT]/PATH: a lower-case host or an address, no user, query or fragment, \
     at most {MAX_URL_BYTES} bytes"
)]
pub struct UrlError;

/// An `https` URL with a host, without user, query and fragment.
///
/// # Format
/// `https://HOST[:PORT]/PATH`. HOST: a DNS name of `a-z`, `0-9`, `-` and `.`, an IPv4 address, or an
/// IPv6 address in brackets. PATH: visible ASCII without `?`, `#`, `\` and quotes. Nothing is decoded
/// or normalised.
///
/// # Source
/// RFC 3986, "Syntax Components"; RFC 9110, "https URI Scheme".
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HttpsUrl {
    text: String,
    host: String,
    port: u16,
    /// Where the path begins in `text`.
    path_at: usize,
}

impl HttpsUrl {
    /// The URL as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Host name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port, 443 unless written.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as they were written, as the `Host` field of a request has them.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.text.get(SCHEME.len()..self.path_at).unwrap_or_default()
    }

    /// The path, beginning with a slash.
    #[must_use]
    pub fn path(&self) -> &str {
        self.text.get(self.path_at..).unwrap_or_default()
    }
}

const SCHEME: &str = "https://";

impl FromStr for HttpsUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_URL_BYTES {
            return Err(UrlError);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(UrlError)?;
        let at = rest.find('/').ok_or(UrlError)?;
        let (authority, path) = rest.split_at(at);
        let is_path = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '\\' | '"' | '\'');
        if !path.chars().all(is_path) {
            return Err(UrlError);
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(UrlError)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| UrlError)?;
                let port = match port {
                    "" => None,
                    port => Some(port.strip_prefix(':').ok_or(UrlError)?),
                };
                (host, port)
            }
            None => {
                let (host, port) = match authority.split_once(':') {
                    Some((host, port)) => (host, Some(port)),
                    None => (authority, None),
                };
                let is_host = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '-');
                if host.is_empty() || host.len() > 253 || !host.chars().all(is_host) {
                    return Err(UrlError);
                }
                (host, port)
            }
        };
        let port = match port {
            None => 443,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| UrlError)?
            }
            Some(_) => return Err(UrlError),
        };
        if port == 0 {
            return Err(UrlError);
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            path_at: SCHEME.len().saturating_add(at),
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for HttpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for HttpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_host_port_and_path() {
        for (text, host, port, authority, path) in [
            ("https://gitlab.com/oauth/keys", "gitlab.com", 443, "gitlab.com", "/oauth/keys"),
            ("https://a.example:8443/", "a.example", 8443, "a.example:8443", "/"),
            ("https://127.0.0.1:1/k", "127.0.0.1", 1, "127.0.0.1:1", "/k"),
            ("https://[::1]/k", "::1", 443, "[::1]", "/k"),
            ("https://[::1]:65535/k", "::1", 65535, "[::1]:65535", "/k"),
        ] {
            let url: HttpsUrl = text.parse().expect(text);
            assert_eq!(
                (url.host(), url.port(), url.authority(), url.path(), url.as_str()),
                (host, port, authority, path, text)
            );
        }
    }

    #[test]
    fn refuses_all_else() {
        let long = format!("https://a/{}", "a".repeat(MAX_URL_BYTES));
        for text in [
            "",
            "http://a.example/k",
            "HTTPS://a.example/k",
            "https://a.example",
            "https:///k",
            "https://A.example/k",
            "https://user@a.example/k",
            "https://a.example:/k",
            "https://a.example:0/k",
            "https://a.example:65536/k",
            "https://a.example:+1/k",
            "https://a.example:443:443/k",
            "https://a.example/k?x",
            "https://a.example/k#x",
            "https://a.example/k k",
            "https://a.example/k\r\nHost: b",
            "https://a.example/é",
            "https://[::1/k",
            "https://[::1]x/k",
            "https://[a.example]/k",
            long.as_str(),
        ] {
            assert_eq!(text.parse::<HttpsUrl>(), Err(UrlError), "{text:?}");
        }
    }
}
