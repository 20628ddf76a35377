//! The server: accepts connections, within bounds, and hands each to a task.

use std::{fmt, future::Future, path::PathBuf, pin::pin, sync::Arc};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use crate::{
    admission::{Full, Place, Places},
    connection::{self, Answers, Guarded},
    door::Door,
    limits::Limits,
    pb::spiffe_workload_api_server::SpiffeWorkloadApiServer,
    peer::Peer,
    registry::Registry,
    service::Service,
    socket::{BoundSocket, SocketError, SocketOptions},
    validation::JwtValidator,
};

/// The metadata that a program which was tricked into connecting cannot set.
const HEADER: &str = "workload.spiffe.io";

/// The Workload API on a socket that exists already; it answers once [`WorkloadServer::serve`] runs.
pub struct WorkloadServer {
    socket: PeerSocket,
    registry: Registry,
    validator: Arc<dyn JwtValidator>,
}

/// A socket that exists already, within bounds: each request of whatever is served on it comes with the [`Peer`] that
/// connected, as an extension of type `Arc<Peer>`.
pub struct PeerSocket {
    socket: BoundSocket,
    path: PathBuf,
    limits: Limits,
}

impl WorkloadServer {
    /// Makes the socket. Do this before giving up privileges where the directory is root's; the
    /// file's removal at the end needs the right to write to it.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn bind(
        options: &SocketOptions,
        registry: Registry,
        validator: Arc<dyn JwtValidator>,
        limits: Limits,
    ) -> Result<Self, SocketError> {
        Ok(Self { socket: PeerSocket::bind(options, limits)?, registry, validator })
    }

    /// For clients, the value of `SPIFFE_ENDPOINT_SOCKET`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.path.display())
    }

    /// Serves until `shutdown` is ready; then streams end with `UNAVAILABLE`, the file is removed,
    /// and what does not end by itself is cut off after [`Limits::shutdown_grace`].
    ///
    /// # Errors
    /// [`SocketError::Io`] where the socket cannot be watched.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), SocketError> {
        let Self { socket, registry, validator } = self;
        let is_stopping = watch::Sender::new(false);
        let limits = socket.limits.clone();
        let (request_bytes, stopping) = (limits.request_bytes, is_stopping.subscribe());
        let service = Service { registry, validator, limits, stopping };
        let service =
            SpiffeWorkloadApiServer::new(service).max_decoding_message_size(request_bytes);
        let guarded = Guarded { service, header: Some(HEADER) };
        socket.serve_guarded(guarded, is_stopping, shutdown).await
    }
}

impl PeerSocket {
    /// Makes the socket; see [`WorkloadServer::bind`].
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn bind(options: &SocketOptions, limits: Limits) -> Result<Self, SocketError> {
        let socket = BoundSocket::bind(options)?;
        Ok(Self { socket, path: options.path(), limits })
    }

    /// Serves a gRPC service until `shutdown` is ready; see [`WorkloadServer::serve`].
    ///
    /// # Errors
    /// [`SocketError::Io`] where the socket cannot be watched.
    pub async fn serve<S: Answers>(
        self,
        service: S,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), SocketError> {
        let guarded = Guarded { service, header: None };
        self.serve_guarded(guarded, watch::Sender::new(false), shutdown).await
    }

    async fn serve_guarded<S: Answers>(
        self,
        guarded: Guarded<S>,
        is_stopping: watch::Sender<bool>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), SocketError> {
        let Self { socket, path, limits } = self;
        let io = |error| SocketError::Io(path.clone(), "cannot be watched", error);
        let listener = socket.listener().and_then(UnixListener::from_std).map_err(io)?;
        let mut door = Door::new(listener, &path);
        let Limits { connections, connections_per_uid, ref kept_for, kept_connections, .. } =
            limits;
        let places = Places::new(connections, connections_per_uid, kept_for, kept_connections);
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => {}
                stream = door.next() => {
                    let Some((place, peer)) = receive(&stream, &places) else { continue };
                    let (guarded, limits) = (guarded.clone(), limits.clone());
                    let stopping = is_stopping.subscribe();
                    connections.spawn(async move {
                        let _place = place;
                        connection::serve(stream, peer, guarded, limits, stopping).await;
                    });
                }
            }
        }
        drop(door);
        drop(socket);
        is_stopping.send_replace(true);
        let all = async { while connections.join_next().await.is_some() {} };
        // Each connection keeps to the grace itself; a moment more is for those that begin late.
        let _ = timeout(limits.shutdown_grace * 2, all).await;
        connections.abort_all();
        Ok(())
    }
}

impl fmt::Debug for WorkloadServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadServer").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl fmt::Debug for PeerSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerSocket").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Looks at who connected; `None` closes the connection at once.
fn receive(stream: &UnixStream, places: &Places) -> Option<(Place, Arc<Peer>)> {
    let uid = stream.peer_cred().ok()?.uid();
    let place = match places.take(uid) {
        Ok(place) => place,
        Err(full) => {
            let why = match full {
                Full::User => "the user's connections are in use",
                Full::Kept => "what is left is kept for other users",
                Full::Total => "all connections are in use",
            };
            tracing::debug!(uid, "closed a connection: {why}");
            return None;
        }
    };
    match Peer::of(stream) {
        Ok(peer) => Some((place, Arc::new(peer))),
        Err(error) => {
            tracing::debug!(uid, %error, "closed a connection");
            None
        }
    }
}
