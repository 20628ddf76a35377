//! The daemon's sockets, from a job's side.

use std::{io, path::Path, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::{
    net::UnixStream,
    time::{Instant, sleep},
};
use tonic::transport::{Channel, Endpoint, Uri};

/// Where the daemon listens for jobs.
pub(super) const DEFAULT_SOCKET: &str = "/run/assay/job.sock";
/// Longest wait for room before a socket.
const ROOM_WITHIN: Duration = Duration::from_secs(30);
/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(5);

/// A channel to one of the daemon's sockets.
///
/// # Errors
/// In words: which socket, why, and what may be missing.
pub(super) async fn connect(socket: &Path) -> Result<Channel, String> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { dial(&path).await }
    });
    // The address only satisfies the protocol: the connector knows where to go.
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await;
    channel.map_err(|error| {
        format!(
            "{}: the worker's daemon does not answer: {}; is `attestor run` running with [jobs] in its configuration?",
            socket.display(),
            attestor::chain(&error)
        )
    })
}

/// Connects. While as many connections wait to be accepted as the kernel lets, since somebody floods the socket, it comes
/// again: whoever got into the line is accepted, or turned away, in its order.
///
/// # Errors
/// What the kernel says; `WouldBlock` where there was no room for too long.
async fn dial(path: &Path) -> io::Result<TokioIo<UnixStream>> {
    let start = Instant::now();
    loop {
        match UnixStream::connect(path).await {
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && start.elapsed() < ROOM_WITHIN =>
            {
                sleep(AGAIN).await;
            }
            connected => return connected.map(TokioIo::new),
        }
    }
}
