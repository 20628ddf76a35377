//! What either side of a connection can make the other hold or await: real sockets, TLS and HTTP/2.

use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};

use attestor::{
    client::{ClientError, Conversation, DEADLINES, Deadlines, connect},
    trust::{Given, Learned, Trust},
};
use proto::{
    evidence::PROTOCOL_VERSION,
    limits::{
        CONNECTION_WINDOW_BYTES, MAX_HEADER_BYTES, MAX_LOG_CHUNK_BYTES, MAX_PCR_VALUES,
        MAX_STREAMS_PER_CONNECTION, MAX_UEFI_LOG_BYTES, STREAM_WINDOW_BYTES,
    },
    pb::{
        self, attest_request::Message as Outgoing, attest_response::Message as Incoming,
        attestation_client::AttestationClient, jobs_client::JobsClient,
    },
    reason::ReasonCode,
    spki::ek_digest,
};
use swtpm_tests::{
    attacker::{
        machine::Machine,
        stream::{self, Stream},
        tpm::{self, SoftKey},
    },
    cluster::Cluster,
    impostor,
    swtpm::{Swtpm, SwtpmOptions},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming, service::Routes, transport::Channel};
use verifier::{run::MAX_ADMIN_MESSAGE_BYTES, service::status::reason_of};

/// Nothing here takes this long unless somebody waits for ever.
const FOR_EVER: Duration = Duration::from_secs(90);

async fn ends<T>(what: impl Future<Output = T>) -> T {
    timeout(FOR_EVER, what).await.expect("somebody waits for ever")
}

/// A verifier with these limits.
async fn limited(limits: &[(&str, i64)]) -> Cluster {
    let mut cluster = Cluster::start().await.expect("verifier");
    cluster.stop_verifier().await.expect("stopped");
    let path = cluster.folder().join("verifier.toml");
    let text = std::fs::read_to_string(&path).expect("configuration");
    let mut text: toml::Table = toml::from_str(&text).expect("TOML");
    let table = text.entry("limits").or_insert_with(|| toml::Table::new().into());
    for (key, value) in limits {
        table.as_table_mut().expect("a table").insert((*key).to_owned(), (*value).into());
    }
    std::fs::write(&path, toml::to_string(&text).expect("TOML")).expect("written");
    cluster.start_verifier().await.expect("started");
    cluster
}

fn bundle(cluster: &Cluster) -> PathBuf {
    cluster.folder().join("state/bundle.pem")
}

fn port(cluster: &Cluster) -> u16 {
    cluster.running().address.port()
}

fn given(cluster: &Cluster) -> Given {
    Trust::CaFile(bundle(cluster)).read().expect("roots")
}

async fn channel(cluster: &Cluster) -> Channel {
    stream::connect(port(cluster), &bundle(cluster), None).await.expect("connected")
}

/// A TLS connection by hand.
async fn tls(cluster: &Cluster, port: u16) -> tokio_rustls::client::TlsStream<TcpStream> {
    let config = given(cluster).client_config(&Learned::default()).expect("configuration");
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.expect("TCP");
    let name = ServerName::try_from("127.0.0.1").expect("name");
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("TLS")
}

#[track_caller]
fn assert_status(status: &Status, code: Code, reason: ReasonCode) {
    assert_eq!((status.code(), reason_of(status)), (code, Some(reason)), "{status:?}");
}

// The verifier's side.

/// SETTINGS and the first WINDOW_UPDATE of the connection say what a caller may send unread.
#[tokio::test(flavor = "multi_thread")]
async fn the_windows_that_the_limits_count_are_those_that_are_announced() {
    let cluster = Cluster::start().await.expect("verifier");
    let mut tls = tls(&cluster, port(&cluster)).await;
    tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("preface");
    tls.flush().await.expect("sent");
    let (mut settings, mut window) = (Vec::new(), 65_535);
    while settings.is_empty() || window == 65_535 {
        let mut head = [0; 9];
        ends(tls.read_exact(&mut head)).await.expect("a frame");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut body = vec![0; length as usize];
        ends(tls.read_exact(&mut body)).await.expect("its content");
        match (head[3], head[4]) {
            (0x4, 1) => {}
            (0x4, _) => settings.extend(body.chunks_exact(6).map(|entry| {
                let id = u16::from_be_bytes([entry[0], entry[1]]);
                (id, u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]))
            })),
            (0x8, _) => window += u32::from_be_bytes([body[0], body[1], body[2], body[3]]),
            (other, _) => panic!("frame {other}"),
        }
    }
    let setting = |id: u16| settings.iter().find(|(known, _)| *known == id).map(|(_, v)| *v);
    assert_eq!(setting(3), u32::try_from(MAX_STREAMS_PER_CONNECTION).ok(), "streams");
    assert_eq!(setting(4), u32::try_from(STREAM_WINDOW_BYTES).ok(), "stream window");
    assert_eq!(setting(6), u32::try_from(MAX_HEADER_BYTES).ok(), "headers");
    assert_eq!(window as usize, CONNECTION_WINDOW_BYTES, "connection window");
}

/// Beyond what administration takes: who may not call it must not have it read first.
#[tokio::test(flavor = "multi_thread")]
async fn no_byte_of_administration_is_read_without_a_certificate() {
    let cluster = Cluster::start().await.expect("verifier");
    let mut client = pb::reference_client::ReferenceClient::new(channel(&cluster).await);
    let toml = "#".repeat(MAX_ADMIN_MESSAGE_BYTES + 1);
    let request = pb::ProposeRequest { toml, ..Default::default() };
    let status = ends(client.propose(request)).await.expect_err("refused");
    assert_status(&status, Code::Unauthenticated, ReasonCode::AdminCertificateRequired);
}

/// Places of connections are not held by whoever never finishes the handshake.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_handshake_is_ended_and_its_place_given_back() {
    const PLACES: i64 = 4;
    let cluster = limited(&[("connections", PLACES)]).await;
    let mut slow = Vec::new();
    for bytes in [0, 1, 5, 40] {
        let mut tcp = TcpStream::connect(("127.0.0.1", port(&cluster))).await.expect("TCP");
        // A record that announces 512 bytes of ClientHello, and a part of them.
        let hello = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(), &[7; 40]].concat();
        tcp.write_all(&hello[..bytes]).await.expect("sent");
        slow.push(tcp);
    }
    // All places are taken, so that one more is closed at once, as soon as all were accepted.
    let turned_away = async {
        loop {
            if stream::connect(port(&cluster), &bundle(&cluster), None).await.is_err() {
                return;
            }
        }
    };
    ends(turned_away).await;
    for mut tcp in slow {
        let mut rest = Vec::new();
        // Closed, orderly or not: what matters is that the verifier let go.
        let _ = ends(tcp.read_to_end(&mut rest)).await;
    }
    let served = async {
        while stream::connect(port(&cluster), &bundle(&cluster), None).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    ends(served).await;
}

/// A stream of a node that is in the inventory, up to its challenge; nothing is proven yet.
struct Strangers {
    cluster: Cluster,
    hello: pb::Hello,
    _machine: Machine,
}

impl Strangers {
    async fn new(limits: &[(&str, i64)]) -> Self {
        let cluster = limited(limits).await;
        let pcr = cluster.verifier().settings().tool_pcr;
        let tpm = Swtpm::start(SwtpmOptions::default()).expect("swtpm");
        let machine = Machine::new(tpm, pcr).expect("machine");
        cluster.trust(machine.tpm.manufacturer()).await.expect("root");
        cluster.add_node("w1", "linux", ek_digest(&machine.ek)).await.expect("node");
        let scheme = Some((tpm::ALG_ECDSA, tpm::ALG_SHA256));
        let hello = pb::Hello {
            protocol_version: PROTOCOL_VERSION,
            ek_public: machine.ek.as_bytes().to_vec(),
            ek_certificate: machine.certificate.clone(),
            ak_public: SoftKey::new(tpm::AK, scheme).expect("key").public,
            ..Default::default()
        };
        Self { cluster, hello, _machine: machine }
    }

    /// Challenged, and answered with evidence.
    async fn answering(&self, evidence: pb::Evidence) -> Stream {
        let channel = channel(&self.cluster).await;
        let mut stream = Stream::open(&channel).await.expect("a stream");
        stream.send(Outgoing::Hello(self.hello.clone())).await;
        let answer = stream.next().await.expect("an answer");
        assert!(matches!(answer, Incoming::Challenge(_)), "{answer:?}");
        stream.send(Outgoing::Evidence(evidence)).await;
        stream
    }
}

async fn send_log(stream: &Stream, from: usize, sizes: &[usize]) -> usize {
    let mut offset = from;
    for size in sizes {
        let offset_bytes = offset as u64;
        let (kind, data) = (pb::LogKind::Tools.into(), vec![0; *size]);
        stream.send(Outgoing::LogChunk(pb::LogChunk { kind, offset_bytes, data })).await;
        offset += size;
    }
    offset
}

/// Evidence is kept while its logs come: a list of empty elements would take sixteen times its bytes.
#[tokio::test(flavor = "multi_thread")]
async fn evidence_that_is_large_in_memory_is_refused_before_its_logs() {
    let strangers = Strangers::new(&[]).await;
    let many = pb::Evidence {
        pcr_values: vec![pb::PcrValue::default(); MAX_PCR_VALUES + 1],
        ..Default::default()
    };
    let long = pb::Evidence { activation_secret: vec![0; 40_000], ..Default::default() };
    for evidence in [many, long] {
        // Neither logs nor End follow.
        let mut stream = strangers.answering(evidence).await;
        let status = ends(stream.next()).await.expect_err("refused");
        assert_status(&status, Code::ResourceExhausted, ReasonCode::EvidenceLimitExceeded);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_bytes_of_all_streams_are_bounded_together_and_given_back() {
    // The least that can be configured: 4 MiB, and half of it for one peer.
    let least = i64::try_from(2 * MAX_UEFI_LOG_BYTES).expect("fits");
    let strangers = Strangers::new(&[("pending_log_bytes", least)]).await;
    let full = MAX_UEFI_LOG_BYTES / MAX_LOG_CHUNK_BYTES;
    let busy =
        |status: &Status| assert_status(status, Code::ResourceExhausted, ReasonCode::ServiceBusy);

    // One stream alone.
    let mut stream = strangers.answering(pb::Evidence::default()).await;
    send_log(&stream, 0, &vec![MAX_LOG_CHUNK_BYTES; full + 1]).await;
    busy(&ends(stream.next()).await.expect_err("busy"));

    // By bytes, not by pieces: a thousand small ones take what one of their size would. The evidence
    // itself is worth nothing, which is said only after the logs were held.
    let mut stream = strangers.answering(pb::Evidence::default()).await;
    let end = send_log(&stream, 0, &[1; 1000]).await;
    send_log(&stream, end, &vec![MAX_LOG_CHUNK_BYTES; full - 1]).await;
    stream.send(Outgoing::End(pb::End {})).await;
    let status = ends(stream.next()).await.expect_err("no evidence");
    assert_eq!(reason_of(&status), Some(ReasonCode::EvidenceFieldMissing), "{status:?}");

    // Together: while one holds nearly all, another is turned away; afterwards it is not.
    let other = async || {
        let mut stream = strangers.answering(pb::Evidence::default()).await;
        send_log(&stream, 0, &[MAX_LOG_CHUNK_BYTES; 2]).await;
        stream.send(Outgoing::End(pb::End {})).await;
        reason_of(&stream.next().await.expect_err("no evidence"))
    };
    let hold = async || loop {
        let held = strangers.answering(pb::Evidence::default()).await;
        send_log(&held, 0, &vec![MAX_LOG_CHUNK_BYTES; full - 1]).await;
        for _ in 0..100 {
            if other().await == Some(ReasonCode::ServiceBusy) {
                return held;
            }
        }
        // What the streams before it held was given back a moment too late, and it was turned away itself.
    };
    let held = ends(hold()).await;
    drop(held);
    ends(async { while other().await != Some(ReasonCode::EvidenceFieldMissing) {} }).await;
}

// The worker's side.

/// How a verifier behaves that is none.
#[derive(Clone, Copy)]
enum Habit {
    /// TLS, then nothing: no HTTP/2, no answer to a ping.
    Dead,
    /// Takes the call and the pings, and never answers.
    Silent,
    /// Sends a challenge and reads nothing after it.
    Deaf,
}

struct Fake(Habit);

#[tonic::async_trait]
impl pb::attestation_server::Attestation for Fake {
    type AttestStream = ReceiverStream<Result<pb::AttestResponse, Status>>;

    async fn attest(
        &self,
        request: Request<Streaming<pb::AttestRequest>>,
    ) -> Result<Response<Self::AttestStream>, Status> {
        let (sender, receiver) = mpsc::channel(1);
        let habit = self.0;
        tokio::spawn(async move {
            let _unread = request.into_inner();
            if let Habit::Deaf = habit {
                let message = Some(Incoming::Challenge(pb::Challenge::default()));
                let _ = sender.send(Ok(pb::AttestResponse { message })).await;
            }
            sender.closed().await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// A server with the verifier's certificate and this habit; the URL of it.
async fn fake(cluster: &Cluster, habit: Habit) -> String {
    let service = pb::attestation_server::AttestationServer::new(Fake(habit));
    let routes = (!matches!(habit, Habit::Dead)).then(|| Routes::new(service));
    impostor::serve(cluster, routes).await.expect("served")
}

/// Says Hello on a connection with the first deadlines, and waits for an answer by the second.
async fn say_hello(
    cluster: &Cluster,
    habit: Habit,
    [connection, answer]: [&Deadlines; 2],
) -> Result<Conversation, ClientError> {
    let url = fake(cluster, habit).await;
    let channel = connect(&url, &given(cluster), &Learned::default(), connection).await?;
    let (conversation, _) = Conversation::begin(channel, pb::Hello::default(), answer).await?;
    Ok(conversation)
}

/// Pings and their answers end the wait, long before the call's own deadline.
#[tokio::test(flavor = "multi_thread")]
async fn the_worker_gives_up_a_dead_verifier_by_its_pings() {
    let cluster = Cluster::start().await.expect("verifier");
    let short = Duration::from_millis(300);
    let deadlines =
        Deadlines { ping_every: short, ping_within: short, call: 10 * FOR_EVER, ..DEADLINES };
    let deadlines = [&deadlines; 2];
    let error = ends(say_hello(&cluster, Habit::Dead, deadlines)).await.expect_err("dead");
    assert!(matches!(error, ClientError::Status(_)), "{error:?}");
}

/// A verifier that lives and does not answer: the call's deadline, though every ping is answered.
#[tokio::test(flavor = "multi_thread")]
async fn the_worker_gives_up_a_silent_verifier_and_one_that_reads_nothing() {
    let cluster = Cluster::start().await.expect("verifier");
    let call = Duration::from_millis(700);
    let short = Deadlines { call, ..DEADLINES };
    let pinged = Deadlines { ping_every: Duration::from_millis(100), ..DEADLINES };
    let deadlines = [&pinged, &short];
    let error = ends(say_hello(&cluster, Habit::Silent, deadlines)).await.expect_err("silent");
    assert!(matches!(error, ClientError::Silent(within) if within == call), "{error:?}");

    let deadlines = [&pinged, &DEADLINES];
    let conversation = ends(say_hello(&cluster, Habit::Deaf, deadlines)).await.expect("challenged");
    // More than every window and buffer between.
    let logs = vec![(pb::LogKind::Tools, 0, vec![0; 32 << 20])];
    let ended = ends(conversation.finish(pb::Evidence::default(), logs, &short)).await;
    let error = ended.expect_err("deaf");
    assert!(matches!(error, ClientError::Silent(within) if within == call), "{error:?}");
}

/// Time stamps take the places of attestations, of which there are some, before anything is looked at.
#[tokio::test(flavor = "multi_thread")]
async fn time_stamps_pass_the_gate_of_attestations() {
    let cluster = limited(&[("streams_per_peer", 1)]).await;
    let mut jobs = JobsClient::new(channel(&cluster).await);
    let mut stamp = async || {
        let request = pb::TimestampRequest { request: vec![0; 70], ..Default::default() };
        ends(jobs.timestamp(request)).await
    };
    // Nobody's: there is no permit of that secret.
    let unknown = |status: &Status| status.code() == Code::NotFound;
    let status = stamp().await.expect_err("refused");
    assert_status(&status, Code::NotFound, ReasonCode::PermitUnknown);
    let attestation = AttestationClient::new(channel(&cluster).await);
    let attest = || {
        let (hold, queue) = mpsc::channel::<pb::AttestRequest>(1);
        let mut attestation = attestation.clone();
        let attest = async move { attestation.attest(ReceiverStream::new(queue)).await };
        (hold, tokio::spawn(attest))
    };
    let (mut hold, mut held) = attest();
    let busy = async {
        loop {
            // A stamp had the place when it came.
            if held.is_finished() {
                (hold, held) = attest();
            }
            match stamp().await {
                Err(status) if !unknown(&status) => break status,
                Ok(_) | Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let busy = ends(busy).await;
    assert_status(&busy, Code::ResourceExhausted, ReasonCode::ServiceBusy);
    drop(hold);
    let _ = ends(held).await;
    ends(async { while stamp().await.is_err_and(|status| !unknown(&status)) {} }).await;
}
