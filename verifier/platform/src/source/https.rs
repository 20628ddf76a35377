//! Key sets over HTTPS: one request, one answer, nothing followed.

mod trust;

use std::{path::Path, sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::{
    Request, StatusCode,
    body::{Body as _, Bytes},
    client::conn::http1,
    header::{ACCEPT, CONTENT_ENCODING, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use jose::jwk::MAX_SET_BYTES;
use rustls::{
    ClientConfig,
    crypto::aws_lc_rs,
    pki_types::{InvalidDnsNameError, ServerName},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub use self::trust::{SYSTEM_BUNDLES, TrustError};
use crate::url::HttpsUrl;

/// The whole of a fetch, from the name's resolution to the last byte.
pub const FETCH_DEADLINE: Duration = Duration::from_secs(20);
/// Header of an answer, bytes.
const MAX_HEADER_BYTES: usize = 32 * 1024;

/// A key set could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// There is nothing to trust the server by.
    #[error("there are no roots to trust the server by")]
    Trust(#[source] TrustError),
    /// The TLS client cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// The host is neither a DNS name nor an address.
    #[error("the host's name is not one")]
    Name(#[source] InvalidDnsNameError),
    /// No connection, or none that is trusted.
    #[error("no trusted connection to the server")]
    Connect(#[source] std::io::Error),
    /// The request cannot be written.
    #[error("the request cannot be written")]
    Request(#[source] hyper::http::Error),
    /// The server does not speak HTTP as expected.
    #[error("the server does not answer as it should")]
    Http(#[source] hyper::Error),
    /// Another status than 200; redirects are not followed.
    #[error("the server answered with status {0}; only 200 is accepted, nothing is followed")]
    Status(u16),
    /// The answer is encoded.
    #[error("the server sent a content encoding, which was not asked for")]
    Encoded,
    /// The answer is larger than a key set may be.
    #[error("the answer has more than {MAX_SET_BYTES} bytes")]
    TooLarge,
    /// The answer broke off.
    #[error("the answer broke off")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It took too long.
    #[error("no whole answer within {} s", FETCH_DEADLINE.as_secs())]
    Deadline,
}

impl FetchError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Trust(_) | Self::Tls(_) => "PLATFORM_FETCH_TRUST_UNUSABLE",
            Self::Name(_) | Self::Connect(_) => "PLATFORM_FETCH_CONNECT_FAILED",
            Self::Request(_) | Self::Http(_) | Self::Encoded | Self::Body(_) => {
                "PLATFORM_FETCH_ANSWER_INVALID"
            }
            Self::Status(_) => "PLATFORM_FETCH_STATUS",
            Self::TooLarge => "PLATFORM_FETCH_TOO_LARGE",
            Self::Deadline => "PLATFORM_FETCH_DEADLINE",
        }
    }
}

/// The document at `url`, at most [`MAX_SET_BYTES`].
///
/// TLS 1.2 or 1.3; the server's certificate must be for the host and chain to a root of `ca_file`, or
/// of the system's bundle where there is none. Roots are read at every fetch: a renewed bundle is
/// used without a restart.
///
/// # Errors
/// [`FetchError`].
pub async fn fetch(url: &HttpsUrl, ca_file: Option<&Path>) -> Result<Vec<u8>, FetchError> {
    let ca_file = ca_file.map(Path::to_owned);
    // Files are read off the reactor's threads.
    let roots = tokio::task::spawn_blocking(move || trust::roots(ca_file.as_deref()))
        .await
        .map_err(|error| FetchError::Connect(error.into()))?
        .map_err(FetchError::Trust)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(FetchError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    tokio::time::timeout(FETCH_DEADLINE, exchange(url, Arc::new(config)))
        .await
        .map_err(|_| FetchError::Deadline)?
}

async fn exchange(url: &HttpsUrl, config: Arc<ClientConfig>) -> Result<Vec<u8>, FetchError> {
    let name = ServerName::try_from(url.host().to_owned()).map_err(FetchError::Name)?;
    let stream = TcpStream::connect((url.host(), url.port())).await.map_err(FetchError::Connect)?;
    let stream =
        TlsConnector::from(config).connect(name, stream).await.map_err(FetchError::Connect)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEADER_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(FetchError::Http)?;
    let request = Request::get(url.path())
        .header(HOST, url.authority())
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("assay/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(FetchError::Request)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(FetchError::Http)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        if response.headers().contains_key(CONTENT_ENCODING) {
            return Err(FetchError::Encoded);
        }
        let body = response.into_body();
        let is_too_large = |bytes: u64| usize::try_from(bytes).map_or(true, |n| n > MAX_SET_BYTES);
        if body.size_hint().exact().is_some_and(is_too_large) {
            return Err(FetchError::TooLarge);
        }
        match Limited::new(body, MAX_SET_BYTES).collect().await {
            Ok(body) => Ok(body.to_bytes().to_vec()),
            Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge),
            Err(error) => Err(FetchError::Body(error)),
        }
    };
    // The connection lives and dies with the request: no task of it is left behind.
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // All was read, or the answer says why not: a server that hangs up after its last byte is
        // one that answered.
        _ = connection => answer.await,
    }
}
