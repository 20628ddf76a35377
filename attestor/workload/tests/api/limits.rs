//! Bounds: on connections, streams, sizes and waiting; and what every request must carry.

use std::time::Duration;

use tokio::{
    io::AsyncReadExt as _,
    net::{UnixListener, UnixStream},
    sync::mpsc,
    time::timeout,
};
use tonic::{Code, Request, client::Grpc, metadata::MetadataValue};
use tonic_prost::ProstCodec;
use workload::{
    Limits,
    pb::{
        JwtsvidRequest, X509svidRequest, X509svidResponse,
        spiffe_workload_api_client::SpiffeWorkloadApiClient,
    },
};

use crate::{
    process::{Process, fetch},
    world::{World, channel, client as client_of, id, own_process, refusal},
};

/// Nothing that comes soon takes this long; no other bound closes a connection before.
const SOON: Duration = Duration::from_secs(25);

#[tokio::test]
async fn every_request_needs_the_header_exactly_once() {
    let world = World::start().await;
    let handle = world.admit("7", own_process());
    let channel = channel(&world.endpoint).await;
    let missing = (Code::InvalidArgument, "WORKLOAD_HEADER_MISSING".to_owned());
    let methods = [
        "FetchX509SVID",
        "FetchX509Bundles",
        "FetchJWTSVID",
        "FetchJWTBundles",
        "ValidateJWTSVID",
        "Unknown",
    ];
    for method in methods {
        for values in [&[][..], &["false"], &["True"], &[""], &["true", "true"], &["true, true"]] {
            let mut request = Request::new(X509svidRequest {});
            for &value in values {
                let value: MetadataValue<_> = value.parse().unwrap();
                request.metadata_mut().append("workload.spiffe.io", value);
            }
            let mut grpc = Grpc::new(channel.clone());
            grpc.ready().await.unwrap();
            let path = format!("/SpiffeWorkloadAPI/{method}").parse().unwrap();
            let codec = ProstCodec::<X509svidRequest, X509svidResponse>::default();
            let result = grpc.server_streaming(request, path, codec).await;
            let status = result.map(drop).expect_err("refused");
            assert_eq!(refusal(&status), missing, "{method} {values:?}");
        }
    }
    let mut plain = SpiffeWorkloadApiClient::new(channel);
    let mut request = Request::new(X509svidRequest {});
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    plain.fetch_x509svid(request).await.unwrap();
    drop(handle);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_of_one_user_leave_others_served() {
    let bound = Limits::default().connections_per_uid;
    let world = World::start().await;
    let handle = world.admit("7", own_process());
    let is_root = rustix::process::geteuid().is_root();
    let user = is_root.then_some((64_997, world.directory.path()));
    let mut flooder = Process::start(&world.endpoint, user);
    assert_eq!(flooder.ask("flood 1000").await, bound.to_string());
    if is_root {
        // Another user, while the flooder holds what it got.
        assert_eq!(fetch(world.client().await).await, id("/job/7").to_string());
        // The flooder is at its bound still.
        assert_eq!(flooder.ask("flood 1").await, "0");
    } else {
        eprintln!("only the bound of one user: this is not root");
    }
    drop(flooder);
    // Its places are free again.
    let mut again = Process::start(&world.endpoint, user);
    loop {
        let open: usize = again.ask("flood 1").await.parse().unwrap();
        if open > 0 {
            break;
        }
    }
    drop(handle);
}

#[tokio::test]
async fn there_are_no_more_connections_than_the_total() {
    let world = World::start_with_limits(|limits| limits.connections = 3).await;
    let handle = world.admit("7", own_process());
    let mut kept = Vec::new();
    for _ in 0..3 {
        let mut client = world.client().await;
        client.fetch_x509svid(X509svidRequest {}).await.unwrap();
        kept.push(client);
    }
    let mut fourth = UnixStream::connect(world.socket()).await.unwrap();
    assert_eq!(fourth.read(&mut [0]).await.unwrap(), 0, "closed at once");
    kept.pop();
    // Its place is given to the next.
    loop {
        let Ok(channel) = tonic::transport::Endpoint::from_shared(world.endpoint.clone())
            .unwrap()
            .connect()
            .await
        else {
            continue;
        };
        if crate::world::marked(channel).fetch_x509svid(X509svidRequest {}).await.is_ok() {
            break;
        }
    }
    drop(handle);
}

#[tokio::test]
async fn a_connection_that_asks_nothing_is_closed() {
    let world =
        World::start_with_limits(|limits| limits.header_timeout = Duration::from_millis(500)).await;
    // One that says nothing, and one that only greets.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for greeting in [&[][..], preface] {
        let mut silent = UnixStream::connect(world.socket()).await.unwrap();
        // A machine that stood still for so long has it closed before it greets, which is told by an error.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut silent, greeting).await;
        let mut rest = Vec::new();
        let _ = timeout(SOON, silent.read_to_end(&mut rest)).await.expect("it is closed");
    }
}

#[tokio::test]
async fn a_connection_that_asks_nothing_more_is_closed_and_a_stream_is_not() {
    // Whoever asks has all the time for its first request.
    let world = World::start_with_limits(|limits| {
        limits.header_timeout = 2 * SOON;
        limits.idle_timeout = Duration::from_millis(50);
    })
    .await;
    let handle = world.admit("7", own_process());
    let mut client = world.client().await;
    let mut stream = client.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    // One that asked once, and comes again after it was closed.
    let (way, mut closed) = way_to(&world);
    let mut idle = client_of(&way).await;
    let request = || JwtsvidRequest { audience: vec!["one".to_owned()], spiffe_id: String::new() };
    idle.fetch_jwtsvid(request()).await.unwrap();
    timeout(SOON, closed.recv()).await.expect("it is closed");
    idle.fetch_jwtsvid(request()).await.unwrap();
    // The stream was open all the time without a word.
    handle.update(world.authority.credentials("/job/7")).unwrap();
    stream.message().await.unwrap().unwrap();
    drop(handle);
}

/// An endpoint that leads to the server, for one connection at a time, and tells of each when both of its ends hung up.
fn way_to(world: &World) -> (String, mpsc::UnboundedReceiver<()>) {
    let (way, socket) = (world.directory.path().join("way.sock"), world.socket());
    let listener = UnixListener::bind(&way).unwrap();
    let (tell, closed) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = UnixStream::connect(&socket).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            let _ = tell.send(());
        }
    });
    (format!("unix://{}", way.display()), closed)
}

#[tokio::test]
async fn streams_of_one_connection_are_bounded() {
    let world = World::start_with_limits(|limits| limits.streams_per_connection = 2).await;
    let handle = world.admit("7", own_process());
    let client = world.client().await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let stream = client.clone().fetch_x509svid(X509svidRequest {}).await.unwrap();
        streams.push(stream.into_inner());
    }
    let mut third = client.clone();
    let mut third = std::pin::pin!(third.fetch_x509svid(X509svidRequest {}));
    let wait = tokio::time::timeout(Duration::from_millis(100), third.as_mut()).await;
    assert!(wait.is_err(), "the third waits in its client");
    assert_eq!(world.registry.open_streams(), 2);
    streams.pop();
    third.await.unwrap();
    drop(handle);
}

#[tokio::test]
async fn a_request_larger_than_the_limit_is_refused() {
    let world = World::start().await;
    let handle = world.admit("7", own_process());
    let mut client = world.client().await;
    let request =
        |bytes| JwtsvidRequest { audience: vec!["a".repeat(bytes)], spiffe_id: String::new() };
    let large = client.fetch_jwtsvid(request(64 * 1024)).await.expect_err("too large");
    assert_eq!(large.code(), Code::OutOfRange, "{large:?}");
    // Within the size it is the audience that is too long.
    let long = client.fetch_jwtsvid(request(60 * 1024)).await.expect_err("too long");
    assert_eq!(refusal(&long).1, "WORKLOAD_AUDIENCE_INVALID");
    drop(handle);
}

/// gRPC's C core names a socket by its percent-encoded path, which HTTP libraries refuse.
#[tokio::test]
async fn an_authority_that_is_an_encoded_path_is_let_in() {
    let world = World::start().await;
    let handle = world.admit("7", own_process());
    let mut stream = UnixStream::connect(world.socket()).await.unwrap();
    let mut block = vec![0x83, 0x86];
    for (name, value) in [
        (":path", "/SpiffeWorkloadAPI/FetchX509SVID"),
        (":authority", "tmp%2Fworkload.sock"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("workload.spiffe.io", "true"),
    ] {
        for text in [name, value] {
            if text == name {
                block.push(0x40);
            }
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    bytes.extend([0, 0, u8::try_from(block.len()).unwrap(), 1, 4, 0, 0, 0, 1]);
    bytes.extend(block);
    bytes.extend(b"\0\0\x05\0\x01\0\0\0\x01\0\0\0\0\0");
    tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes).await.unwrap();
    // Frames until one of the request's: data with the answer, or the stream's reset.
    loop {
        let mut header = [0; 9];
        stream.read_exact(&mut header).await.unwrap();
        let length = usize::from(header[1]) << 8 | usize::from(header[2]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.unwrap();
        assert_ne!(header[3], 3, "the stream was reset: {payload:?}");
        if header[3] == 0 {
            let wanted = id("/job/7").to_string().into_bytes();
            assert!(payload.windows(wanted.len()).any(|part| part == wanted));
            break;
        }
    }
    drop(handle);
}
