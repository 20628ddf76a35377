//! What relying parties fetch over HTTPS: the trust domain's bundle, attestation results by digest, revocation lists.
//!
//! | path | what |
//! |---|---|
//! | `/spiffe/bundle.json` | SPIFFE bundle document: roots and keys of JWT-SVIDs |
//! | `/results/trusted_root.json` | what results and signatures of jobs are verified with |
//! | `/results/sha256/HEX` | one attestation result, by the digest of its bundle |
//! | `/bundle.pem`, `/crl.pem`, `/crl.der`, `/crl-jobs.der` | as in the public folder |
//!
//! Everything here is public: nobody is asked who he is, and nothing is written.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use crate::{
    attestation::Verifier,
    ca::CaDir,
    results_files::ResultFiles,
    results_service::trusted_root,
    server::{Connection, Peer},
    service::status::chain,
};

/// Relying parties may keep an answer that changes seldom for so long, seconds.
const MAX_AGE_S: u32 = 60;
/// A connection lasts for so long, whoever is slow: places are few, and a verifier that stops waits for no one.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(30);
/// A result never changes.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// What the pages are made of.
#[derive(Clone)]
pub(crate) struct Pages {
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) results: ResultFiles,
    /// The public folder.
    pub(crate) public: PathBuf,
    pub(crate) ca: CaDir,
}

/// The pages.
pub(crate) fn router(pages: Pages) -> Router {
    Router::new()
        .route("/spiffe/bundle.json", get(spiffe_bundle))
        .route("/results/trusted_root.json", get(trusted))
        .route("/results/sha256/{digest}", get(result))
        .route("/{file}", get(public_file))
        .with_state(pages)
}

fn answer(content_type: &'static str, cache: String, body: Vec<u8>) -> Response {
    let headers = [(header::CONTENT_TYPE, content_type.to_owned()), (header::CACHE_CONTROL, cache)];
    (headers, body).into_response()
}

fn fresh() -> String {
    format!("public, max-age={MAX_AGE_S}")
}

async fn spiffe_bundle(State(pages): State<Pages>) -> Response {
    match pages.verifier.spiffe_bundle() {
        Ok(bundle) => answer("application/json", fresh(), bundle.into_bytes()),
        Err(why) => {
            tracing::error!(why, "the trust domain's bundle cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn trusted(State(pages): State<Pages>) -> Response {
    let root = tokio::task::spawn_blocking(move || {
        trusted_root(&pages.ca, pages.verifier.results().0.external())
    })
    .await;
    match root {
        Ok(Ok(root)) => answer("application/json", fresh(), root.to_json().into_bytes()),
        Ok(Err(error)) => {
            tracing::error!("the trusted root cannot be written: {}", chain(&error));
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn result(State(pages): State<Pages>, Path(digest): Path<String>) -> Response {
    let Some(digest) = digest.strip_suffix(".json").or(Some(&digest)).map(str::to_owned) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let read = tokio::task::spawn_blocking(move || pages.results.read(&digest)).await;
    match read {
        Ok(Ok(Some(bytes))) => {
            answer("application/vnd.dev.sigstore.bundle.v0.3+json", IMMUTABLE.to_owned(), bytes)
        }
        Ok(Ok(None)) => (StatusCode::NOT_FOUND, "no such result\n").into_response(),
        Ok(Err(error)) => {
            tracing::error!(%error, "a result cannot be read");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn public_file(State(pages): State<Pages>, Path(file): Path<String>) -> Response {
    let content_type = match file.as_str() {
        "bundle.pem" | "crl.pem" => "application/x-pem-file",
        "crl.der" | "crl-jobs.der" => "application/pkix-crl",
        _ => return (StatusCode::NOT_FOUND, "no such file\n").into_response(),
    };
    match tokio::fs::read(pages.public.join(&file)).await {
        Ok(bytes) => answer(content_type, fresh(), bytes),
        Err(error) => {
            tracing::error!(file, %error, "a public file cannot be read");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// TLS connections for the pages.
pub(crate) struct TlsListener {
    connections: ReceiverStream<io::Result<Connection>>,
    address: SocketAddr,
}

impl TlsListener {
    pub(crate) const fn new(
        connections: ReceiverStream<io::Result<Connection>>,
        address: SocketAddr,
    ) -> Self {
        Self { connections, address }
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = Bounded<Connection>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.connections.next().await {
                Some(Ok(connection)) => {
                    let Peer { address, .. } =
                        tonic::transport::server::Connected::connect_info(&connection);
                    return (Bounded::new(connection), address);
                }
                Some(Err(error)) => tracing::warn!(%error, "accepting a connection failed"),
                // Nobody connects any more; the shutdown ends the wait.
                None => tokio::time::sleep(Duration::from_secs(3600)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}

/// A connection that ends in time.
pub(crate) struct Bounded<C> {
    connection: C,
    ends: Pin<Box<Sleep>>,
}

impl<C> Bounded<C> {
    fn new(connection: C) -> Self {
        Self { connection, ends: Box::pin(sleep(CONNECTION_LIFETIME)) }
    }

    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.ends.as_mut().poll(cx).is_ready()
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Bounded<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.connection).poll_read(cx, buf)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Bounded<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_over(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.connection).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

/// The TLS configuration of the pages: that of the service, for HTTP/1.1.
pub(crate) fn tls_config(of_the_service: &ArcSwap<rustls::ServerConfig>) -> rustls::ServerConfig {
    let mut config = rustls::ServerConfig::clone(&of_the_service.load());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        time::Instant,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_in_time_whoever_is_slow() {
        let began = Instant::now();
        let (ours, mut theirs) = duplex(4);
        let mut ours = Bounded::new(ours);
        theirs.write_all(b"GET").await.expect("written");
        let mut request = [0; 3];
        ours.read_exact(&mut request).await.expect("read");
        // They read slowly, or not at all.
        let error = ours.write_all(b"an answer").await.expect_err("it ends");
        assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, CONNECTION_LIFETIME));
        let error = ours.read(&mut request).await.expect_err("for reading as well");
        assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, CONNECTION_LIFETIME));
        // The rest of a request that never comes.
        let (ours, _theirs) = duplex(4);
        let (began, mut ours) = (Instant::now(), Bounded::new(ours));
        let error = ours.read(&mut request).await.expect_err("it ends");
        assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, CONNECTION_LIFETIME));
    }
}
