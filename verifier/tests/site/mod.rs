//! A site made by `verifier init`, the built program, and administrators at a running verifier.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::new_without_default,
    reason = "shared by several test binaries, each of which uses its own part"
)]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use hyper_util::rt::TokioIo;
use proto::{
    pb::{admin_client::AdminClient, reference_client::ReferenceClient},
    reason::ReasonCode,
};
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use verifier::{
    ca::{CaDir, PrivateKey, files},
    clock::SystemClock,
    config::Config,
    run::{self, Running},
    service::status::reason_of,
    tls::{ServerTrust, client_config},
};

/// A state directory made by `verifier init`.
pub struct Site {
    pub folder: TempDir,
}

impl Site {
    pub fn new() -> Self {
        let site = Self { folder: TempDir::new().expect("temporary folder") };
        let made = site.run(&[
            "init",
            "--trust-domain",
            "builds.example",
            "--name",
            "localhost",
            "--listen",
            "127.0.0.1:0",
        ]);
        assert_eq!(code(&made), 0, "{}", stderr(&made));
        site
    }

    pub fn config_path(&self) -> PathBuf {
        self.folder.path().join("verifier.toml")
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn run(&self, args: &[&str]) -> Output {
        verifier(args, Some((&self.config_path(), &self.state())))
    }

    pub async fn start(&self) -> Running {
        let mut config = Config::load(&self.config_path()).expect("configuration");
        config.metrics_listen = "127.0.0.1:0".parse().expect("address");
        run::start(config, Arc::new(SystemClock)).await.expect("started")
    }

    pub fn ca(&self) -> CaDir {
        CaDir::new(self.state(), "builds.example".parse().expect("trust domain"))
    }
}

pub fn verifier(args: &[&str], site: Option<(&Path, &Path)>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_verifier"));
    command.env_clear();
    if let Some((config, state)) = site {
        command.env("ASSAY_CONFIG", config).env("ASSAY_STATE", state);
    }
    command.args(args).output().expect("the program runs")
}

pub fn code(output: &Output) -> i32 {
    output.status.code().expect("not killed")
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

pub fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// A client with this certificate, or without one.
pub async fn client(site: &Site, running: &Running, name: Option<&str>) -> AdminClient<Channel> {
    AdminClient::new(channel(site, running, name).await)
}

/// The same, for what nodes are judged by.
pub async fn reference(
    site: &Site,
    running: &Running,
    name: Option<&str>,
) -> ReferenceClient<Channel> {
    ReferenceClient::new(channel(site, running, name).await)
}

async fn channel(site: &Site, running: &Running, name: Option<&str>) -> Channel {
    let pem = |path: &Path| {
        files::certificates_of(path, &files::read_text(path).expect("file")).expect("certificates")
    };
    let admin = site.state().join("admin");
    let identity = name.map(|name| {
        let key = files::read_secret(&admin.join(format!("{name}.key"))).expect("key");
        let key = PrivateKey::from_pem(&key).expect("key");
        (pem(&admin.join(format!("{name}.pem"))), key)
    });
    let roots = ServerTrust::Roots(pem(&site.state().join("bundle.pem")));
    let identity = identity.as_ref().map(|(chain, key)| (chain.as_slice(), key));
    let tls = TlsConnector::from(Arc::new(client_config(&roots, identity).expect("TLS")));
    let address = running.address;
    let connector = tower::service_fn(move |_| {
        let tls = tls.clone();
        async move {
            let name = ServerName::try_from("localhost").expect("name");
            let tcp = TcpStream::connect(address).await?;
            Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, tcp).await?))
        }
    });
    Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await
        .expect("connected")
}

#[track_caller]
pub fn assert_refused<T: std::fmt::Debug>(
    answer: Result<T, Status>,
    code: Code,
    reason: ReasonCode,
) {
    let status = answer.expect_err("refused");
    assert_eq!((status.code(), reason_of(&status)), (code, Some(reason)), "{status:?}");
}
