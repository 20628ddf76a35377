//! Asks an authority over HTTP.
//!
//! Nothing that comes back is believed: [`Response::verify_answer`](super::Response::verify_answer) does that.

use std::{fmt, io, net::SocketAddr, str::FromStr, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

use super::MAX_RESPONSE_BYTES;

/// Longest URL, bytes.
pub const MAX_URL_BYTES: usize = 512;
/// Most headers of an answer: authorities send a handful.
const MAX_HEADERS: usize = 64;
/// Largest head of an answer, bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// `http://HOST[:PORT]/PATH` of an authority. What it answers proves itself and is no secret, so that there is no TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityUrl {
    host: String,
    port: u16,
    /// As the `Host` header has it.
    authority: String,
    path: String,
}

/// Why a text is no URL of an authority.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// RFC 3986.
    #[error("is no URL: {0}")]
    Syntax(String),
    /// More than [`MAX_URL_BYTES`].
    #[error("must have at most {MAX_URL_BYTES} bytes")]
    TooLong,
    /// Another scheme.
    #[error("must begin with http://: a time stamp is signed, and needs no TLS")]
    Scheme,
    /// Nobody to ask.
    #[error("must have a host")]
    Host,
    /// 1 to 65535.
    #[error("must have a port from 1 to 65535, or none")]
    Port,
    /// Names and passwords are not sent.
    #[error("must not have a user")]
    User,
}

/// Why an authority gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nobody listens there.
    #[error("it cannot be reached")]
    Unreachable(#[source] io::Error),
    /// HTTP went wrong.
    #[error("it does not speak HTTP as it should")]
    Http(#[source] hyper::Error),
    /// A status other than 200.
    #[error("it answered {0}")]
    Status(StatusCode),
    /// Another content type.
    #[error("its answer is no application/timestamp-reply")]
    ContentType,
    /// The body ended early, or has more than [`MAX_RESPONSE_BYTES`].
    #[error("its answer cannot be read: {0}")]
    Body(String),
    /// Nothing came.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
}

impl AskError {
    /// Whether asking again may give an answer.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Http(_) | Self::Body(_) | Self::Late(_) => true,
            Self::Status(status) => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::ContentType => false,
        }
    }
}

impl FromStr for AuthorityUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text.len() > MAX_URL_BYTES {
            return Err(UrlError::TooLong);
        }
        let uri: Uri = text
            .parse()
            .map_err(|error: hyper::http::uri::InvalidUri| UrlError::Syntax(error.to_string()))?;
        if uri.scheme_str() != Some("http") {
            return Err(UrlError::Scheme);
        }
        let authority = uri.authority().ok_or(UrlError::Host)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::User);
        }
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(UrlError::Host);
        }
        // A port that is none reads as if there were none.
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => 80,
            _ => authority.port_u16().filter(|port| *port != 0).ok_or(UrlError::Port)?,
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            authority: authority.to_string(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }
}

impl fmt::Display for AuthorityUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

impl AuthorityUrl {
    /// Sends a request, DER of a `TimeStampReq`; the answer, DER of a `TimeStampResp`, is at most [`MAX_RESPONSE_BYTES`] long.
    ///
    /// # Errors
    /// [`AskError`]; none takes longer than `within`.
    ///
    /// # Source
    /// RFC 3161, section 3.4: POST, `application/timestamp-query` and `application/timestamp-reply`.
    pub async fn ask(&self, request: Vec<u8>, within: Duration) -> Result<Vec<u8>, AskError> {
        let answer = async { self.post(&self.addresses().await?, request).await };
        timeout(within, answer).await.map_err(|_| AskError::Late(within))?
    }

    /// Its addresses. A look-up takes a thread until it ends, also where nobody waits for it any more.
    ///
    /// # Errors
    /// [`AskError::Unreachable`].
    pub async fn addresses(&self) -> Result<Vec<SocketAddr>, AskError> {
        let found = lookup_host((self.host.as_str(), self.port)).await;
        Ok(found.map_err(AskError::Unreachable)?.collect())
    }

    /// As [`AuthorityUrl::ask`], at one of these addresses.
    ///
    /// # Errors
    /// [`AskError`]; none takes longer than `within`.
    pub async fn ask_at(
        &self,
        addresses: &[SocketAddr],
        request: Vec<u8>,
        within: Duration,
    ) -> Result<Vec<u8>, AskError> {
        let answer = self.post(addresses, request);
        timeout(within, answer).await.map_err(|_| AskError::Late(within))?
    }

    async fn post(&self, addresses: &[SocketAddr], body: Vec<u8>) -> Result<Vec<u8>, AskError> {
        let stream = TcpStream::connect(addresses).await;
        let stream = TokioIo::new(stream.map_err(AskError::Unreachable)?);
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEADERS)
            .handshake(stream)
            .await
            .map_err(AskError::Http)?;
        let request = Request::post(self.path.as_str())
            .header(HOST, self.authority.as_str())
            .header(CONTENT_TYPE, "application/timestamp-query")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| AskError::Body(error.to_string()))?;
        let answer = async move {
            let response = sender.send_request(request).await.map_err(AskError::Http)?;
            if response.status() != StatusCode::OK {
                return Err(AskError::Status(response.status()));
            }
            let kind = response.headers().get(CONTENT_TYPE);
            if kind.map(HeaderValue::as_bytes) != Some(b"application/timestamp-reply") {
                return Err(AskError::ContentType);
            }
            let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await;
            let body = body.map_err(|error| AskError::Body(error.to_string()))?;
            Ok(body.to_bytes().to_vec())
        };
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            ended = connection => match ended {
                // Closed after its answer: what was read is there.
                Ok(()) => answer.await,
                Err(error) => Err(AskError::Http(error)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_asked_where_its_url_says_and_nowhere_else() {
        let url = |text: &str| text.parse::<AuthorityUrl>();
        let tsa = url("http://tsa.example.org/rfc3161?v=1").expect("a URL");
        assert_eq!((tsa.host.as_str(), tsa.port), ("tsa.example.org", 80));
        assert_eq!(tsa.path, "/rfc3161?v=1");
        assert_eq!(tsa.to_string(), "http://tsa.example.org/rfc3161?v=1");
        let tsa = url("http://[::1]:3161").expect("a URL");
        assert_eq!((tsa.host.as_str(), tsa.port, tsa.path.as_str()), ("::1", 3161, "/"));
        let long = format!("http://tsa.example.org/{}", "a".repeat(MAX_URL_BYTES));
        for (wrong, why) in [
            ("https://tsa.example.org/", UrlError::Scheme),
            ("tsa.example.org", UrlError::Scheme),
            ("http://eve@tsa.example.org/", UrlError::User),
            (long.as_str(), UrlError::TooLong),
        ] {
            assert_eq!(url(wrong), Err(why), "{wrong}");
        }
        for port in ["99999", "0", "", "x"] {
            let said = url(&format!("http://tsa.example.org:{port}/"));
            assert!(matches!(said, Err(UrlError::Port | UrlError::Syntax(_))), "{port}: {said:?}");
        }
        for wrong in ["", "http://", "http:///tsa"] {
            assert!(matches!(url(wrong), Err(UrlError::Syntax(_) | UrlError::Host)), "{wrong}");
        }
    }
}
