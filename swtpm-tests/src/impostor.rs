//! A server with the verifier's own certificate that is not the verifier: what workers do with answers that no verifier gives.

use std::{io, sync::Arc};

use tokio::{
    io::{DuplexStream, copy_bidirectional, sink},
    net::TcpListener,
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{service::Routes, transport::Server};
use verifier::{
    ca::CaDir,
    tls::{ServerCertificate, server_config},
};

use crate::cluster::{AnyError, Cluster};

/// Bytes between TLS and HTTP/2.
const BUFFER_BYTES: usize = 64 * 1024;

/// Serves `routes`; the URL of it. Without routes, TLS and then nothing: what comes is read and not answered.
///
/// # Errors
/// The cluster's files cannot be read, or there is no port.
pub async fn serve(cluster: &Cluster, routes: Option<Routes>) -> Result<String, AnyError> {
    let ca = CaDir::new(cluster.folder().join("state"), "test.example".parse()?);
    let (chain, key) = ca.server()?;
    let config = server_config(ServerCertificate::new(&chain, &key)?, &ca.bundle()?)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let (sender, receiver) = mpsc::channel::<io::Result<DuplexStream>>(1);
    let answers = routes.is_some();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
            if !answers {
                tokio::spawn(async move { tokio::io::copy(&mut tls, &mut sink()).await });
                continue;
            }
            let (mut near, far) = tokio::io::duplex(BUFFER_BYTES);
            let _ = sender.send(Ok(far)).await;
            tokio::spawn(async move { copy_bidirectional(&mut tls, &mut near).await });
        }
    });
    if let Some(routes) = routes {
        let incoming = ReceiverStream::new(receiver);
        tokio::spawn(Server::builder().add_routes(routes).serve_with_incoming(incoming));
    }
    Ok(format!("https://127.0.0.1:{port}"))
}
