//! The protocol spoken by hand: any message at any time.

use std::{io, path::Path, sync::Arc, time::Duration};

use attestor::trust::{Learned, Trust};
use hyper_util::rt::TokioIo;
use proto::pb::{
    self, attest_request::Message as Outgoing, attest_response::Message as Incoming,
    attestation_client::AttestationClient,
};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
        sign::{CertifiedKey, SigningKey, SingleCertAndKey},
    },
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint, Uri},
};

use crate::cluster::AnyError;

/// Messages that may wait: the attacker never blocks on a verifier that stopped listening.
const OUTGOING: usize = 256;
/// No attack takes longer to be answered.
const ANSWER_BY: Duration = Duration::from_secs(90);

/// A client certificate with its key, wherever that key is.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    chain: Vec<CertificateDer<'static>>,
    key: Arc<dyn SigningKey>,
}

impl ClientCertificate {
    /// A certificate chain, DER, for a key of the caller's.
    #[must_use]
    pub fn new(chain: Vec<Vec<u8>>, key: Arc<dyn SigningKey>) -> Self {
        Self { chain: chain.into_iter().map(CertificateDer::from).collect(), key }
    }

    /// Certificate and key from PEM files.
    ///
    /// # Errors
    /// A file is not there, or is not what it should be.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, AnyError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate)?.collect();
        let key = PrivateKeyDer::from_pem_file(key)?;
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)?;
        Ok(Self { chain: chain?, key })
    }
}

/// A connection to the verifier that trusts `bundle`, with a client certificate or without.
///
/// # Errors
/// No connection.
pub async fn connect(
    port: u16,
    bundle: &Path,
    client: Option<ClientCertificate>,
) -> Result<Channel, AnyError> {
    let mut config = Trust::CaFile(bundle.to_owned()).read()?.client_config(&Learned::default())?;
    if let Some(client) = client {
        let certified = CertifiedKey::new(client.chain, client.key);
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
    }
    let tls = TlsConnector::from(Arc::new(config));
    let connector = tower::service_fn(move |_: Uri| {
        let tls = tls.clone();
        async move {
            let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from("127.0.0.1").map_err(io::Error::other)?;
            Ok::<_, io::Error>(TokioIo::new(tls.connect(name, tcp).await?))
        }
    });
    let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{port}"))?;
    Ok(endpoint.connect_with_connector(connector).await?)
}

/// One stream.
#[derive(Debug)]
pub struct Stream {
    outgoing: Option<mpsc::Sender<pb::AttestRequest>>,
    incoming: Streaming<pb::AttestResponse>,
}

impl Stream {
    /// Opens a stream and says nothing.
    ///
    /// # Errors
    /// The verifier refuses it.
    pub async fn open(channel: &Channel) -> Result<Self, Status> {
        let (outgoing, queue) = mpsc::channel(OUTGOING);
        let mut client = AttestationClient::new(channel.clone());
        let incoming = client.attest(ReceiverStream::new(queue)).await?.into_inner();
        Ok(Self { outgoing: Some(outgoing), incoming })
    }

    /// Sends a message; a verifier that stopped listening is no error.
    pub async fn send(&self, message: Outgoing) {
        self.send_raw(pb::AttestRequest { message: Some(message) }).await;
    }

    /// Sends a request as it is.
    pub async fn send_raw(&self, request: pb::AttestRequest) {
        if let Some(outgoing) = &self.outgoing {
            let _ = outgoing.send(request).await;
        }
    }

    /// Ends the sending side.
    pub fn close(&mut self) {
        self.outgoing = None;
    }

    /// The next answer.
    ///
    /// # Errors
    /// The status that the verifier ended the stream with.
    pub async fn next(&mut self) -> Result<Incoming, Status> {
        let next = tokio::time::timeout(ANSWER_BY, self.incoming.message()).await;
        let message = next.map_err(|_| Status::unknown("the verifier never answered"))??;
        message
            .and_then(|response| response.message)
            .ok_or_else(|| Status::unknown("the verifier ended the stream without an answer"))
    }
}
