//! The connection to the verifier: one stream is one attestation.

use std::{io, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use proto::{
    limits::{MAX_LOG_CHUNK_BYTES, MAX_MESSAGE_BYTES},
    pb::{
        self, attest_request::Message as Outgoing, attest_response::Message as Incoming,
        attestation_client::AttestationClient,
    },
};
use rustls::pki_types::ServerName;
use tokio::{net::TcpStream, sync::mpsc};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint, Uri},
};

use crate::trust::{Given, Learned, TrustError};

/// How long the worker waits for a verifier.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Connecting and the TLS handshake.
    pub connect: Duration,
    /// The answer to a Hello; then all of the evidence and the result: the verifier's own deadlines
    /// are shorter.
    pub call: Duration,
    /// Pings while an answer is awaited: a dead network is noticed.
    pub ping_every: Duration,
    /// How long the answer to a ping may take.
    pub ping_within: Duration,
}

/// Those of the daemon.
pub const DEADLINES: Deadlines = Deadlines {
    connect: Duration::from_secs(10),
    call: Duration::from_secs(120),
    ping_every: Duration::from_secs(20),
    ping_within: Duration::from_secs(10),
};
/// Messages that wait to be sent.
const OUTGOING: usize = 4;

/// Why the verifier could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address is not usable.
    #[error("verifier address {url:?}: {why}")]
    Address {
        /// As configured.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// Trust.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// No connection.
    #[error("cannot reach the verifier at {url}")]
    Connect {
        /// As configured.
        url: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The verifier answered with an error instead of a verdict.
    #[error("the verifier gave no verdict: {}", describe(.0))]
    Status(Box<tonic::Status>),
    /// The verifier said nothing any more.
    #[error("the verifier did not answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// The verifier broke the protocol.
    #[error("the verifier sent {found} where {expected} was expected")]
    Protocol {
        /// What came.
        found: &'static str,
        /// What should have come.
        expected: &'static str,
    },
}

fn describe(status: &tonic::Status) -> String {
    format!("{} ({:?})", status.message(), status.code())
}

impl From<tonic::Status> for ClientError {
    fn from(status: tonic::Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// Answer to a Hello.
#[derive(Debug)]
pub enum Answer {
    /// Go on.
    Challenge(Box<pb::Challenge>),
    /// Refused already.
    Result(Box<pb::AttestationResult>),
}

/// One attestation's stream.
#[derive(Debug)]
pub struct Conversation {
    outgoing: mpsc::Sender<pb::AttestRequest>,
    incoming: Streaming<pb::AttestResponse>,
}

/// Connects, trusting what was given and what was learned under it.
///
/// # Errors
/// [`ClientError::Address`], [`ClientError::Trust`], [`ClientError::Connect`].
pub async fn connect(
    url: &str,
    given: &Given,
    learned: &Learned,
    deadlines: &Deadlines,
) -> Result<Channel, ClientError> {
    let bad = |why: String| ClientError::Address { url: url.to_owned(), why };
    let uri: Uri = url.parse().map_err(|error| bad(format!("{error}")))?;
    if uri.scheme_str() != Some("https") {
        return Err(bad("must begin with https://".to_owned()));
    }
    let host = uri.host().ok_or_else(|| bad("has no host".to_owned()))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().unwrap_or(8443);
    let name = ServerName::try_from(host.clone()).map_err(|error| bad(error.to_string()))?;
    let tls = TlsConnector::from(Arc::new(given.client_config(learned)?));
    let connector = tower::service_fn(move |_: Uri| {
        let (tls, host, name) = (tls.clone(), host.clone(), name.clone());
        async move {
            let tcp = TcpStream::connect((host.as_str(), port)).await?;
            tcp.set_nodelay(true)?;
            Ok::<_, io::Error>(TokioIo::new(tls.connect(name, tcp).await?))
        }
    });
    Endpoint::from(uri)
        .connect_timeout(deadlines.connect)
        .timeout(deadlines.call)
        .http2_keep_alive_interval(deadlines.ping_every)
        .keep_alive_timeout(deadlines.ping_within)
        .connect_with_connector(connector)
        .await
        .map_err(|source| ClientError::Connect { url: url.to_owned(), source })
}

impl Conversation {
    /// Says Hello. The answer may take [`Deadlines::call`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn begin(
        channel: Channel,
        hello: pb::Hello,
        deadlines: &Deadlines,
    ) -> Result<(Self, Answer), ClientError> {
        let (outgoing, queue) = mpsc::channel(OUTGOING);
        let mut client =
            AttestationClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let first = pb::AttestRequest { message: Some(Outgoing::Hello(hello)) };
        outgoing.send(first).await.map_err(|_| closed())?;
        let incoming = client.attest(ReceiverStream::new(queue)).await?.into_inner();
        let mut conversation = Self { outgoing, incoming };
        let answer = match awaited(deadlines.call, conversation.next()).await? {
            Incoming::Challenge(challenge) => Answer::Challenge(Box::new(challenge)),
            Incoming::Result(result) => Answer::Result(Box::new(result)),
        };
        Ok((conversation, answer))
    }

    /// Answers the challenge and waits for the result: all of it may take [`Deadlines::call`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn finish(
        mut self,
        evidence: pb::Evidence,
        logs: Vec<(pb::LogKind, u64, Vec<u8>)>,
        deadlines: &Deadlines,
    ) -> Result<pb::AttestationResult, ClientError> {
        let conversation = &mut self;
        let answer = async move {
            // The verifier may refuse in the middle: its answer says more than a closed channel.
            if conversation.send_all(evidence, logs).await.is_err() {
                tracing::debug!("the verifier stopped listening before everything was sent");
            }
            conversation.next().await
        };
        match awaited(deadlines.call, answer).await? {
            Incoming::Result(result) => Ok(result),
            Incoming::Challenge(_) => {
                Err(ClientError::Protocol { found: "a challenge", expected: "the result" })
            }
        }
    }

    async fn send_all(
        &self,
        evidence: pb::Evidence,
        logs: Vec<(pb::LogKind, u64, Vec<u8>)>,
    ) -> Result<(), ClientError> {
        self.send(Outgoing::Evidence(evidence)).await?;
        for (kind, from, bytes) in logs {
            let mut offset_bytes = from;
            for data in bytes.chunks(MAX_LOG_CHUNK_BYTES) {
                let chunk = pb::LogChunk { kind: kind.into(), offset_bytes, data: data.to_vec() };
                self.send(Outgoing::LogChunk(chunk)).await?;
                offset_bytes += data.len() as u64;
            }
        }
        self.send(Outgoing::End(pb::End {})).await
    }

    async fn send(&self, message: Outgoing) -> Result<(), ClientError> {
        let message = pb::AttestRequest { message: Some(message) };
        self.outgoing.send(message).await.map_err(|_| closed())
    }

    async fn next(&mut self) -> Result<Incoming, ClientError> {
        let message = self.incoming.message().await?;
        message
            .and_then(|response| response.message)
            .ok_or(ClientError::Protocol { found: "the end of the stream", expected: "an answer" })
    }
}

/// The call's own deadline ends with the response's headers, which come at once; and a verifier that
/// reads nothing lets the sender wait as long as it likes.
async fn awaited<T>(
    within: Duration,
    answer: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    tokio::time::timeout(within, answer).await.map_err(|_| ClientError::Silent(within))?
}

const fn closed() -> ClientError {
    ClientError::Protocol { found: "a closed stream", expected: "an open one" }
}
