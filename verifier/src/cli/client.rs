//! The administrator's connection to a running verifier.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use hyper_util::rt::TokioIo;
use proto::{
    pb::{admin_client::AdminClient, reference_client::ReferenceClient as Reference},
    reason::{ReasonCode, Stage},
};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};

use super::{Failure, Global};
use crate::{
    ca::{PrivateKey, files},
    run::MAX_ADMIN_MESSAGE_BYTES,
    service::status::{chain, reason_of},
    tls::{ServerTrust, client_config},
};

/// Port where none is given.
const DEFAULT_PORT: u16 = 8443;
/// A verifier that does not answer is not waited for.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Listing a large inventory, importing a large golden set.
const CALL_DEADLINE: Duration = Duration::from_secs(120);

/// A connected administrator.
pub(super) type Client = AdminClient<Channel>;

/// How to reach a verifier, and as whom.
#[derive(Args, Debug)]
pub(super) struct ServerArgs {
    /// The verifier; by default the one that the configuration describes.
    #[arg(
        long,
        global = true,
        value_name = "HOST[:PORT]",
        env = "ASSAY_SERVER",
        hide_env_values = true,
        help_heading = "Connection options"
    )]
    server: Option<String>,
    /// Client certificate of the administrator; by default STATE/admin/admin.pem.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "ASSAY_ADMIN_CERT",
        hide_env_values = true,
        help_heading = "Connection options"
    )]
    admin_cert: Option<PathBuf>,
    /// Its private key; by default beside the certificate, with the ending .key.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "ASSAY_ADMIN_KEY",
        hide_env_values = true,
        help_heading = "Connection options"
    )]
    admin_key: Option<PathBuf>,
    /// Root certificates to know the verifier by; by default STATE/bundle.pem.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "ASSAY_CA",
        hide_env_values = true,
        conflicts_with = "pin",
        help_heading = "Connection options"
    )]
    ca: Option<PathBuf>,
    /// Digest of the root's key to know the verifier by, instead of --ca: `sha256:…`, as `init`
    /// prints it.
    #[arg(
        long,
        global = true,
        value_name = "DIGEST",
        env = "ASSAY_PIN",
        hide_env_values = true,
        help_heading = "Connection options"
    )]
    pin: Option<String>,
}

/// Where to connect, and the name that the server must prove.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    host: String,
    port: u16,
    name: String,
}

impl Target {
    /// `HOST`, `HOST:PORT`, `[V6]:PORT`, each perhaps after `https://`.
    fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']')?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        } else if text.parse::<IpAddr>().is_ok() {
            (text, None)
        } else {
            text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
        };
        let port = port.map_or(Some(DEFAULT_PORT), |port| port.parse().ok())?;
        if host.is_empty() {
            return None;
        }
        Some(Self { host: host.to_owned(), port, name: host.to_owned() })
    }
}

fn target(global: &Global) -> Result<Target, Failure> {
    if let Some(server) = &global.server.server {
        return Target::parse(server).ok_or_else(|| {
            Failure::usage(format!("--server {server:?} is not HOST, HOST:PORT or [ADDRESS]:PORT"))
        });
    }
    let config = global.config().map_err(|failure| {
        failure.with_help("give --server HOST:PORT, or the verifier's configuration by --config")
    })?;
    // On the verifier's own machine: its own address, and one of its names.
    let address = config.listen.ip();
    let host = match address {
        IpAddr::V4(v4) if v4.is_unspecified() => "127.0.0.1".to_owned(),
        IpAddr::V6(v6) if v6.is_unspecified() => "::1".to_owned(),
        address => address.to_string(),
    };
    let name = config.names.first().map(ToString::to_string).unwrap_or_else(|| host.clone());
    Ok(Target { host, port: config.listen.port(), name })
}

/// A connected administrator, for what nodes are judged by.
pub(super) type ReferenceClient = Reference<Channel>;

/// Connects for administration.
pub(super) async fn connect(global: &Global) -> Result<Client, Failure> {
    Ok(AdminClient::new(channel(global).await?)
        .max_decoding_message_size(MAX_ADMIN_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_ADMIN_MESSAGE_BYTES))
}

/// Connects for golden sets, policies and keys.
pub(super) async fn connect_reference(global: &Global) -> Result<ReferenceClient, Failure> {
    Ok(ReferenceClient::new(channel(global).await?)
        .max_decoding_message_size(MAX_ADMIN_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_ADMIN_MESSAGE_BYTES))
}

/// Connects; the administrator's certificate is presented, the verifier's is checked.
async fn channel(global: &Global) -> Result<Channel, Failure> {
    let target = target(global)?;
    let tls = Arc::new(tls_config(global)?);
    let name = ServerName::try_from(target.name.clone())
        .map_err(|_| Failure::usage(format!("{:?} is not a host name", target.name)))?;
    let shown = format!("{} at {}, port {}", target.name, target.host, target.port);
    // The scheme only keeps tonic from adding TLS of its own.
    let authority = if target.name.contains(':') {
        format!("http://[{}]:{}", target.name, target.port)
    } else {
        format!("http://{}:{}", target.name, target.port)
    };
    let endpoint =
        Endpoint::from_shared(authority)?.connect_timeout(CONNECT_DEADLINE).timeout(CALL_DEADLINE);
    let (host, port) = (target.host, target.port);
    let connector = tower::service_fn(move |_| {
        let (host, name) = (host.clone(), name.clone());
        let tls = TlsConnector::from(Arc::clone(&tls));
        async move {
            let tcp = TcpStream::connect((host.as_str(), port)).await?;
            tcp.set_nodelay(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, tcp).await?))
        }
    });
    endpoint.connect_with_connector(connector).await.map_err(|error| {
        Failure::of(&error)
            .while_doing(&format!("connect to the verifier {shown}"))
            .with_help("is it running (`systemctl status assay-verifier`)? --server names another")
    })
}

fn tls_config(global: &Global) -> Result<rustls::ClientConfig, Failure> {
    let args = &global.server;
    let trust = match (&args.pin, &args.ca) {
        (Some(pin), _) => ServerTrust::parse_pin(pin)?,
        (None, Some(ca)) => ServerTrust::Roots(certificates(ca)?),
        (None, None) => {
            let bundle = global.state()?.join("bundle.pem");
            ServerTrust::Roots(certificates(&bundle).map_err(|failure| {
                failure
                    .with_help("give the verifier's roots by --ca FILE, or their digest by --pin")
            })?)
        }
    };
    let certificate = match &args.admin_cert {
        Some(path) => path.clone(),
        None => global.state()?.join("admin").join("admin.pem"),
    };
    let key = args.admin_key.clone().unwrap_or_else(|| certificate.with_extension("key"));
    let help = "give your administrator's certificate by --admin-cert and --admin-key; \
                `verifier admins add` makes them";
    let chain = certificates(&certificate).map_err(|failure| failure.with_help(help))?;
    let key = files::read_secret(&key).map_err(|error| Failure::of(&error).with_help(help))?;
    let key = PrivateKey::from_pem(&key)?;
    Ok(client_config(&trust, Some((&chain, &key)))?)
}

fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    Ok(files::certificates_of(path, &files::read_text(path)?)?)
}

/// The content of an answer, or what the verifier said against it.
pub(super) fn answer<T>(answer: Result<Response<T>, Status>) -> Result<T, Failure> {
    answer.map(Response::into_inner).map_err(|status| refused(&status))
}

pub(super) fn refused(status: &Status) -> Failure {
    match reason_of(status) {
        Some(reason) => coded(reason, status.message()),
        // Without a code it is not our verifier that speaks, or the connection broke.
        None => {
            let mut message = if status.message().is_empty() {
                status.code().to_string()
            } else {
                status.message().to_owned()
            };
            if let Some(source) = std::error::Error::source(status) {
                message = format!("{message}: {}", chain(source));
            }
            Failure::failed(message).while_doing("get an answer from the verifier")
        }
    }
}

fn coded(reason: ReasonCode, message: &str) -> Failure {
    let failure = if reason.stage() == Stage::Service {
        Failure::failed(message)
    } else {
        Failure::refused(message)
    };
    failure.with_reason(reason.as_str()).with_help(reason.remedy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_given_in_the_usual_ways() {
        let target =
            |host: &str, port| Some(Target { host: host.to_owned(), port, name: host.to_owned() });
        assert_eq!(Target::parse("v.example"), target("v.example", 8443));
        assert_eq!(Target::parse("https://v.example:1/"), target("v.example", 1));
        assert_eq!(Target::parse("[2001:db8::1]:77"), target("2001:db8::1", 77));
        assert_eq!(Target::parse("2001:db8::1"), target("2001:db8::1", 8443));
        assert_eq!(Target::parse("192.0.2.1"), target("192.0.2.1", 8443));
        for bad in ["", ":1", "v.example:", "v.example:70000", "[::1", "[::1]8"] {
            assert_eq!(Target::parse(bad), None, "{bad:?}");
        }
    }
}
