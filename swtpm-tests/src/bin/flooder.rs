//! A job that asks its worker's daemon for all that it can get. `tests/jobs/floods.rs` runs it, and its opposite.
//!
//! Floods until the file STOP is there, then prints as JSON what it got and how often. It prints `begun` as soon as it is
//! refused something, or holds all that it gets.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use proto::pb::{self, job_gate_client::JobGateClient};
use results::{
    Sha256Digest, bundle::MessageSignature, signer::SoftwareKey, timestamp::Request as StampRequest,
};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with},
};
use swtpm_tests::cluster::AnyError;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    task::JoinSet,
    time::timeout,
};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    metadata::MetadataValue,
    transport::{Channel, Endpoint, Uri},
};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;
use workload::pb::{
    JwtBundlesRequest, JwtsvidRequest, JwtsvidResponse, X509BundlesRequest, X509svidRequest,
    X509svidResponse, spiffe_workload_api_client::SpiffeWorkloadApiClient,
};

/// Connections of one flooder, each with as many requests that wait for their answer as it may have.
const FLOODED: usize = 4;
/// Of each kind of half a request, on each socket.
const HALVES: usize = 6;
/// Connections that are tried for: more than any bound of one user.
const CONNECTIONS: usize = 1000;
/// Streams of one connection.
const STREAMS: usize = 16;
/// Longest wait for an answer on a connection that may have been refused.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);
/// Longest wait for the end of half a request.
const HALF_ENDS_WITHIN: Duration = Duration::from_secs(60);
const AUDIENCE: &str = "registry.example.org";

/// How often what came of a request.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<BTreeMap<String, u64>>>);

impl Counts {
    fn add(&self, what: &str) {
        *self.lock().entry(what.to_owned()).or_insert(0) += 1;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first refusal is told at once.
    fn answered<T>(&self, answer: &Result<T, Status>) -> Result<(), AnyError> {
        let Err(status) = answer else {
            self.add("OK");
            return Ok(());
        };
        let is_first = self.lock().keys().all(|known| known == "OK");
        self.add(&code(status));
        if is_first { say("begun") } else { Ok(()) }
    }
}

fn code(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map_or_else(|| format!("{:?}: {}", status.code(), status.message()), |info| info.reason)
}

fn say(line: &str) -> Result<(), AnyError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let counts = Counts::default();
    match arguments[..] {
        ["fetch"] => return fetch().await,
        ["tokens", stop] => tokens(Path::new(stop), &counts).await?,
        ["stamps", stop] => stamps(Path::new(stop), &counts).await?,
        ["streams", stop] => streams(Path::new(stop), &counts).await?,
        ["halves", stop] => halves(Path::new(stop), &counts).await?,
        ["churn", stop] => churn(Path::new(stop), &counts).await?,
        _ => return Err("fetch, or tokens, stamps, streams, halves, churn with STOP".into()),
    }
    say(&serde_json::to_string(&*counts.lock())?)
}

fn gate_socket() -> Result<PathBuf, AnyError> {
    Ok(std::env::var_os("ASSAY_JOB_SOCKET").ok_or("ASSAY_JOB_SOCKET is not set")?.into())
}

fn workload_socket() -> Result<PathBuf, AnyError> {
    let endpoint = std::env::var("SPIFFE_ENDPOINT_SOCKET")?;
    Ok(endpoint.strip_prefix("unix://").ok_or("no unix:// socket")?.into())
}

async fn connect(socket: &Path) -> Result<Channel, AnyError> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { dial(&path).await }
    });
    Ok(Endpoint::from_static("http://localhost").connect_with_connector(connector).await?)
}

/// Comes again where no room is left before the socket, as libraries do.
async fn dial(path: &Path) -> io::Result<TokioIo<UnixStream>> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            connected => return connected.map(TokioIo::new),
        }
    }
}

fn marked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    request
}

fn token_request() -> JwtsvidRequest {
    JwtsvidRequest { audience: vec![AUDIENCE.to_owned()], spiffe_id: String::new() }
}

async fn x509(client: &mut SpiffeWorkloadApiClient<Channel>) -> Result<X509svidResponse, AnyError> {
    let mut stream = client.fetch_x509svid(marked(X509svidRequest {})).await?.into_inner();
    Ok(stream.message().await?.ok_or("the stream ended")?)
}

/// What an honest job does.
async fn fetch() -> Result<(), AnyError> {
    let mut client = SpiffeWorkloadApiClient::new(connect(&workload_socket()?).await?);
    let id = x509(&mut client).await?.svids.first().ok_or("no identity")?.spiffe_id.clone();
    let tokens = client.fetch_jwtsvid(marked(token_request())).await?.into_inner().svids;
    say(&format!("{id} and {} tokens", tokens.len()))
}

/// Asks each of these over and over, so often at once, until it is to stop.
///
/// No client is asked more often than its connection's bound: one that has not heard of it yet would send more, and they
/// would be refused by HTTP/2, not by the daemon.
async fn over_and_over<C, F>(
    stop: &Path,
    counts: &Counts,
    clients: Vec<C>,
    ask: impl Fn(C) -> F,
) -> Result<(), AnyError>
where
    C: Clone + Send + 'static,
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let mut asked = JoinSet::new();
    let spawn = |asked: &mut JoinSet<_>, client: C| {
        let answer = ask(client.clone());
        asked.spawn(async move { (client, answer.await) });
    };
    for client in clients {
        for _ in 0..STREAMS {
            spawn(&mut asked, client.clone());
        }
    }
    while !stop.exists() {
        if let Some(answered) = asked.join_next().await {
            let (client, answer) = answered?;
            counts.answered(&answer)?;
            spawn(&mut asked, client);
        }
    }
    Ok(())
}

async fn tokens(stop: &Path, counts: &Counts) -> Result<(), AnyError> {
    let socket = workload_socket()?;
    let mut clients = Vec::new();
    for _ in 0..FLOODED {
        clients.push(SpiffeWorkloadApiClient::new(connect(&socket).await?));
    }
    over_and_over(stop, counts, clients, |mut client| async move {
        client.fetch_jwtsvid(marked(token_request())).await.map(drop)
    })
    .await
}

async fn stamps(stop: &Path, counts: &Counts) -> Result<(), AnyError> {
    let mut client = SpiffeWorkloadApiClient::new(connect(&workload_socket()?).await?);
    let found = x509(&mut client).await?;
    let key = &found.svids.first().ok_or("no identity")?.x509_svid_key;
    let key = SoftwareKey::from_pkcs8_der(key)?;
    let signature = MessageSignature::sign(Sha256Digest::of(b"artifact"), &key)?;
    let request = StampRequest::new(Sha256Digest::of(&signature.signature), &[7; 16])?;
    let request = pb::StampRequest {
        request: request.to_der()?,
        content_sha256: signature.untrusted_digest.as_bytes().to_vec(),
        content_signature: signature.signature,
    };
    let mut gates = Vec::new();
    for _ in 0..FLOODED {
        gates.push(JobGateClient::new(connect(&gate_socket()?).await?));
    }
    over_and_over(stop, counts, gates, |mut gate| {
        let request = request.clone();
        async move { gate.timestamp(request).await.map(drop) }
    })
    .await
}

/// Waits until the flood is to stop.
async fn stopped(stop: &Path) {
    while !stop.exists() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// As many connections as there are to have, each with as many streams.
async fn streams(stop: &Path, counts: &Counts) -> Result<(), AnyError> {
    let socket = workload_socket()?;
    let mut held = Vec::new();
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        let Ok(channel) = connect(&socket).await else {
            counts.add("connections refused");
            continue;
        };
        let mut client = SpiffeWorkloadApiClient::new(channel);
        // The client may not notice that the connection was closed while it was being made, and waits then: once in
        // thousands.
        let asked = client.fetch_x509svid(marked(X509svidRequest {}));
        let Ok(Ok(stream)) = timeout(NOTICED_WITHIN, asked).await else {
            counts.add("connections refused");
            continue;
        };
        counts.add("connections");
        counts.add("streams");
        held.push(stream.into_inner());
        open.push(client);
    }
    let (mut x509_bundles, mut jwt_bundles) = (Vec::new(), Vec::new());
    for client in &mut open {
        for at in 1..STREAMS {
            let mut certificates = client.clone();
            if at % 2 == 0 {
                let stream = certificates.fetch_x509_bundles(marked(X509BundlesRequest {})).await?;
                x509_bundles.push(stream.into_inner());
            } else {
                let stream = client.fetch_jwt_bundles(marked(JwtBundlesRequest {})).await?;
                jwt_bundles.push(stream.into_inner());
            }
            counts.add("streams");
        }
        // One more waits in the client, and is not answered.
        let more = client.fetch_x509_bundles(marked(X509BundlesRequest {}));
        if timeout(Duration::from_millis(50), more).await.is_ok() {
            counts.add("streams above the bound");
        }
    }
    say("begun")?;
    stopped(stop).await;
    drop((held, x509_bundles, jwt_bundles));
    Ok(())
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
/// HEADERS of stream 1 without END_HEADERS, `:method POST` in it.
const HALF_HEADERS: &[u8] = b"\0\0\x01\x01\0\0\0\0\x01\x83";

/// What never becomes a request, by name.
fn half_requests() -> [(&'static str, Vec<u8>); 5] {
    [
        ("nothing", Vec::new()),
        ("half a preface", PREFACE[..11].to_vec()),
        ("half a frame header", [PREFACE, &SETTINGS[..5]].concat()),
        ("half a frame", [PREFACE, SETTINGS, &HALF_HEADERS[..9]].concat()),
        ("headers without an end", [PREFACE, SETTINGS, HALF_HEADERS].concat()),
    ]
}

/// Half requests on both sockets; each is waited for until the daemon ends it.
async fn halves(stop: &Path, counts: &Counts) -> Result<(), AnyError> {
    let mut waiting = JoinSet::new();
    // A body that never comes: of one connection, before there is none left.
    let slow = Grpc::new(connect(&workload_socket()?).await?);
    let of_slow = counts.clone();
    waiting.spawn(async move { of_slow.add(&format!("slow body: {}", slow_body(slow).await)) });
    for socket in [gate_socket()?, workload_socket()?] {
        for (name, bytes) in half_requests() {
            for _ in 0..HALVES {
                let (counts, socket, bytes) = (counts.clone(), socket.clone(), bytes.clone());
                waiting.spawn(async move {
                    let ended = timeout(HALF_ENDS_WITHIN, half(&socket, &bytes)).await;
                    counts
                        .add(&format!("{name}: {}", if ended.is_ok() { "closed" } else { "open" }));
                });
            }
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    say("begun")?;
    while waiting.join_next().await.is_some() {}
    say("ended")?;
    stopped(stop).await;
    Ok(())
}

async fn half(socket: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(bytes).await?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await?;
    Ok(())
}

async fn slow_body(mut grpc: Grpc<Channel>) -> String {
    let asked = async {
        grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
        let path = "/SpiffeWorkloadAPI/FetchJWTSVID".parse();
        let path = path.map_err(|_| Status::new(Code::Internal, "no path"))?;
        let codec = ProstCodec::<JwtsvidRequest, JwtsvidResponse>::default();
        let never = tokio_stream::pending::<JwtsvidRequest>();
        grpc.client_streaming(marked(never), path, codec).await.map(drop)
    };
    match timeout(HALF_ENDS_WITHIN, asked).await {
        Ok(Ok(())) => "OK".to_owned(),
        Ok(Err(status)) => code(&status),
        Err(_) => "open".to_owned(),
    }
}

/// Connects and hangs up, as fast as it can, so that as many wait to be accepted as may.
async fn churn(stop: &Path, counts: &Counts) -> Result<(), AnyError> {
    let mut churning = JoinSet::new();
    for socket in [gate_socket()?, workload_socket()?] {
        let (stop, counts) = (stop.to_owned(), counts.clone());
        churning.spawn_blocking(move || -> io::Result<()> {
            let address = SocketAddrUnix::new(&socket)?;
            while !stop.exists() {
                for _ in 0..CONNECTIONS {
                    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                    let one = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
                    match rustix::net::connect(&one, &address) {
                        Ok(()) => counts.add("connections"),
                        Err(Errno::AGAIN) => counts.add("no room"),
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            Ok(())
        });
    }
    while !counts.lock().contains_key("no room") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    say("begun")?;
    while let Some(churned) = churning.join_next().await {
        churned??;
    }
    Ok(())
}
