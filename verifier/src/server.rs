//! TLS connections: accepted, shaken hands with under a deadline, handed to the gRPC server with who they are.

use std::{
    io, mem,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use proto::limits::HANDSHAKE_DEADLINE;
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// Connections whose handshake is done and that wait for the server to take them.
const READY: usize = 64;
/// Pause after accepting failed, for example because no file descriptor was left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Between two words about what anybody on the network can cause.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// What is said once a minute, however often it happens.
#[derive(Debug, Default)]
struct Seldom {
    said: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    /// Whether it is to be said now: then, how often it happened since and was not.
    fn say(&mut self, now: Instant) -> Option<u64> {
        if self.said.is_some_and(|said| now.duration_since(said) < SAY_EVERY) {
            self.unsaid = self.unsaid.saturating_add(1);
            return None;
        }
        self.said = Some(now);
        Some(mem::take(&mut self.unsaid))
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Network address.
    pub address: SocketAddr,
    /// Client certificates, leaf first, verified up to our root by the handshake; mostly empty.
    pub certificates: Arc<Vec<CertificateDer<'static>>>,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Accepts connections until the receiver is dropped.
///
/// Each handshake runs in its own task, so that a slow peer delays nobody; beyond `max_connections` new ones are
/// closed at once. Another configuration put into `tls` counts from the next connection on.
#[must_use]
pub fn accept(
    listener: TcpListener,
    tls: Arc<ArcSwap<rustls::ServerConfig>>,
    max_connections: usize,
) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(READY);
    let places = Arc::new(Semaphore::new(max_connections));
    let (mut failed, mut closed) = (Seldom::default(), Seldom::default());
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            let (tcp, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    if let Some(unsaid) = failed.say(Instant::now()) {
                        tracing::warn!(%error, unsaid, "accepting a connection failed");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                if let Some(unsaid) = closed.say(Instant::now()) {
                    let why = "closed a connection: as many are open as allowed";
                    tracing::warn!(%address, max_connections, unsaid, "{why}");
                }
                continue;
            };
            let acceptor = TlsAcceptor::from(tls.load_full());
            tokio::spawn(handshake(acceptor, tcp, address, place, sender.clone()));
        }
    });
    ReceiverStream::new(receiver)
}

async fn handshake(
    acceptor: TlsAcceptor,
    tcp: TcpStream,
    address: SocketAddr,
    place: OwnedSemaphorePermit,
    ready: mpsc::Sender<io::Result<Connection>>,
) {
    // Small messages go back and forth: waiting to fill segments only adds latency.
    let _ = tcp.set_nodelay(true);
    let stream = match timeout(HANDSHAKE_DEADLINE, acceptor.accept(tcp)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "TLS handshake failed");
            return;
        }
        Err(_) => {
            tracing::debug!(%address, "TLS handshake took too long");
            return;
        }
    };
    let certificates = stream
        .get_ref()
        .1
        .peer_certificates()
        .map(|chain| chain.iter().map(|der| der.clone().into_owned()).collect())
        .unwrap_or_default();
    let peer = Peer { address, certificates: Arc::new(certificates) };
    let _ = ready.send(Ok(Connection { stream, peer, _place: place })).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_often_is_said_once_a_minute_with_how_often() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(seldom.say(at(0)), Some(0));
        for second in 0..60 {
            assert_eq!(seldom.say(at(second)), None);
        }
        assert_eq!(seldom.say(at(60)), Some(60));
        assert_eq!(seldom.say(at(119)), None);
        assert_eq!(seldom.say(at(500)), Some(1));
    }
}
