//! Who stamps the time: the verifier, through the worker's daemon, or an authority of the site's own.

use std::{fmt, path::Path, str::FromStr, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use proto::pb::{self, job_gate_client::JobGateClient};
use results::{bundle::MessageSignature, timestamp::MAX_RESPONSE_BYTES};
use tokio::{net::TcpStream, time::timeout};
use tonic::transport::{Channel, Uri};

use super::{ANSWER_WITHIN, SignError, connect};

/// Most headers of an answer: authorities send a handful.
const MAX_HEADERS: usize = 64;
/// Largest head of an answer, bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Longest wait for an authority that is not the verifier.
const WITHIN: Duration = Duration::from_secs(30);

/// `http://HOST[:PORT]/PATH` of an authority. What it answers proves itself and is no secret, so that there is no TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct AuthorityUrl {
    host: String,
    port: u16,
    /// As the `Host` header has it.
    authority: String,
    path: String,
}

impl FromStr for AuthorityUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|error| format!("no URL: {error}"))?;
        if uri.scheme_str() != Some("http") {
            return Err(
                "must begin with http://: a time stamp is signed, and needs no TLS".to_owned()
            );
        }
        let authority = uri.authority().ok_or("has no host")?;
        if authority.as_str().contains('@') {
            return Err("must not have a user".to_owned());
        }
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Ok(Self {
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(80),
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

/// Whom to ask.
pub(super) enum Authority {
    Verifier(JobGateClient<Channel>),
    Own(AuthorityUrl),
}

impl Authority {
    pub(super) async fn new(socket: &Path, own: Option<&AuthorityUrl>) -> Result<Self, SignError> {
        match own {
            Some(url) => Ok(Self::Own(url.clone())),
            None => Ok(Self::Verifier(JobGateClient::new(connect(socket).await?))),
        }
    }

    /// DER of a `TimeStampResp`, believed by nobody.
    pub(super) async fn ask(
        &mut self,
        request: Vec<u8>,
        signed: &MessageSignature,
    ) -> Result<Vec<u8>, SignError> {
        match self {
            Self::Verifier(gate) => {
                let sent = pb::StampRequest {
                    request,
                    content_sha256: signed.untrusted_digest.as_bytes().to_vec(),
                    content_signature: signed.signature.clone(),
                };
                let reply = timeout(ANSWER_WITHIN, gate.timestamp(sent)).await;
                let late = |_| SignError::failed("the worker's daemon did not answer in time");
                let reply = reply.map_err(late)?;
                let reply = reply.map_err(|status| SignError::of("no time stamp", &status))?;
                Ok(reply.into_inner().response)
            }
            Self::Own(url) => {
                let failed =
                    |why: String| SignError::failed(format!("no time stamp of {url}: {why}"));
                let answered = timeout(WITHIN, post(url, request)).await;
                answered
                    .map_err(|_| failed(format!("no answer within {} s", WITHIN.as_secs())))?
                    .map_err(failed)
            }
        }
    }
}

/// # Source
/// RFC 3161, section 3.4: POST, `application/timestamp-query` and `application/timestamp-reply`.
async fn post(url: &AuthorityUrl, body: Vec<u8>) -> Result<Vec<u8>, String> {
    let said = |error: hyper::Error| attestor::chain(&error);
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await;
    let stream = TokioIo::new(stream.map_err(|error| error.to_string())?);
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .handshake(stream)
        .await
        .map_err(said)?;
    let request = Request::post(url.path.as_str())
        .header(HOST, url.authority.as_str())
        .header(CONTENT_TYPE, "application/timestamp-query")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(said)?;
        if response.status() != StatusCode::OK {
            return Err(format!("it answered {}", response.status()));
        }
        let kind = response.headers().get(CONTENT_TYPE);
        if kind.map(HeaderValue::as_bytes) != Some(b"application/timestamp-reply") {
            return Err("its answer is no application/timestamp-reply".to_owned());
        }
        let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await;
        Ok(body.map_err(|error| error.to_string())?.to_bytes().to_vec())
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => match ended {
            // Closed after its answer: what was read is there.
            Ok(()) => answer.await,
            Err(error) => Err(said(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::AuthorityUrl;

    #[test]
    fn an_authority_is_asked_where_its_url_says_and_nowhere_else() {
        let url = |text: &str| text.parse::<AuthorityUrl>();
        let tsa = url("http://tsa.example.org/rfc3161?v=1").expect("a URL");
        assert_eq!((tsa.host.as_str(), tsa.port), ("tsa.example.org", 80));
        assert_eq!(tsa.path, "/rfc3161?v=1");
        assert_eq!(tsa.to_string(), "http://tsa.example.org/rfc3161?v=1");
        let tsa = url("http://[::1]:3161").expect("a URL");
        assert_eq!((tsa.host.as_str(), tsa.port, tsa.path.as_str()), ("::1", 3161, "/"));
        for (wrong, why) in [
            ("https://tsa.example.org/", "must begin with http://"),
            ("tsa.example.org", "must begin with http://"),
            ("http://eve@tsa.example.org/", "must not have a user"),
            ("", "no URL"),
        ] {
            let said = url(wrong).expect_err(wrong);
            assert!(said.starts_with(why), "{wrong}: {said}");
        }
    }
}
