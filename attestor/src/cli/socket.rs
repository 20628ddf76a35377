//! The daemon's sockets, from a job's side.

use std::{io, path::Path, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::{
    net::UnixStream,
    time::{Instant, sleep},
};

/// Longest wait for room before a socket.
const ROOM_WITHIN: Duration = Duration::from_secs(30);
/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(5);

/// Connects. While as many connections wait to be accepted as the kernel lets, since somebody floods the socket, it comes
/// again: whoever got into the line is accepted, or turned away, in its order.
///
/// # Errors
/// What the kernel says; `WouldBlock` where there was no room for too long.
pub(super) async fn dial(path: &Path) -> io::Result<TokioIo<UnixStream>> {
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
