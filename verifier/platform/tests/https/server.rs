//! An HTTPS server on loopback that answers as it is told.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// A CA by OpenSSL and a certificate of it for `127.0.0.1`.
#[derive(Debug)]
pub struct Pki {
    dir: tempfile::TempDir,
}

impl Pki {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let openssl = |args: &[&str]| {
            let output = Command::new("openssl").current_dir(dir.path()).args(args).output();
            let output = output.expect("openssl runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
        let ca = ["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test CA"];
        openssl(&[&["req", "-x509"], &key[..], &ca].concat());
        let leaf = [
            "-keyout",
            "leaf.key",
            "-out",
            "leaf.pem",
            "-subj",
            "/CN=test server",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ];
        openssl(&[&["req", "-x509"], &key[..], &leaf].concat());
        Self { dir }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn ca(&self) -> PathBuf {
        self.file("ca.pem")
    }

    fn server_config(&self) -> ServerConfig {
        let chain = vec![pem(&self.file("leaf.pem"))];
        let key = PrivateKeyDer::from_pem_file(self.file("leaf.key")).expect("a key");
        ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate")
    }
}

fn pem(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).expect("a certificate")
}

/// What the server does with a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// These bytes, and the connection's end.
    Bytes(Vec<u8>),
    /// Bytes without end.
    Endless(Vec<u8>),
    /// Nothing.
    Silence,
}

impl Answer {
    /// A document with status 200.
    pub fn document(body: &str) -> Self {
        Self::of("200 OK", "", body)
    }

    /// A status, more header lines, and a body.
    pub fn of(status: &str, header: &str, body: &str) -> Self {
        let length = body.len();
        let text = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{header}\r\n{body}");
        Self::Bytes(text.into_bytes())
    }
}

#[derive(Debug)]
pub struct Server {
    pub port: u16,
    answer: Arc<Mutex<Answer>>,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub async fn start(pki: &Pki, answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let acceptor = TlsAcceptor::from(Arc::new(pki.server_config()));
        let answer = Arc::new(Mutex::new(answer));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (answers, log) = (Arc::clone(&answer), Arc::clone(&requests));
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (acceptor, answers, log) =
                    (acceptor.clone(), Arc::clone(&answers), Arc::clone(&log));
                tokio::spawn(async move {
                    // A client that does not trust us ends here.
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => request.push(byte),
                            Err(_) => return,
                        }
                    }
                    log.lock().expect("a lock").push(String::from_utf8(request).expect("text"));
                    let answer = answers.lock().expect("a lock").clone();
                    match answer {
                        Answer::Bytes(bytes) => {
                            let _ = stream.write_all(&bytes).await;
                            let _ = stream.shutdown().await;
                        }
                        Answer::Endless(bytes) => {
                            let _ = stream.write_all(&bytes).await;
                            let block = format!("1000\r\n{}\r\n", " ".repeat(4096));
                            while stream.write_all(block.as_bytes()).await.is_ok() {}
                        }
                        Answer::Silence => std::future::pending().await,
                    }
                });
            }
        });
        Self { port, answer, requests, task }
    }

    pub fn answers(&self, answer: Answer) {
        *self.answer.lock().expect("a lock") = answer;
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("a lock").clone()
    }
}
