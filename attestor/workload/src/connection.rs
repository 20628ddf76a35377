//! One connection: every request passes here first, and the connection is closed when it is of no use.

use std::{
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::UnixStream,
    sync::watch,
    time::{sleep, timeout},
};
use tonic::Status;

use crate::{
    authority::Lenient,
    limits::Limits,
    peer::Peer,
    refusal::{Refusal, RefusalCode},
};

/// Reset streams that a client may have pending: the known cheap floods of HTTP/2 open and reset.
const MAX_PENDING_RESETS: usize = 20;

/// Requests of a connection: how many are open, how many there were.
#[derive(Clone, Copy, Default)]
struct Activity {
    open: usize,
    total: u64,
}

/// Serves one connection until it is closed, of no use, or the server stops.
pub(crate) async fn serve<S: Answers>(
    stream: UnixStream,
    peer: Arc<Peer>,
    Guarded { service, header }: Guarded<S>,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
) {
    let activity = watch::Sender::new(Activity::default());
    let watched = activity.subscribe();
    let gate = Gate { service, header, peer: Arc::clone(&peer), activity, limits: limits.clone() };
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection)
        .max_header_list_size(limits.header_bytes)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(Lenient::new(stream)), gate));
    let why = tokio::select! {
        result = connection.as_mut() => {
            if let Err(error) = result {
                tracing::debug!(uid = peer.uid(), pid = peer.key().pid, %error, "connection failed");
            }
            return;
        }
        why = useless(watched, &limits) => why,
        () = ended(&peer, limits.peer_interval) => "its process ended",
        _ = stopping.wait_for(|is_stopping| *is_stopping) => "the server stops",
    };
    tracing::debug!(uid = peer.uid(), pid = peer.key().pid, why, "connection closed");
    // Streams end with their own status, and a client that begins a request just now learns that it
    // must come again.
    connection.as_mut().graceful_shutdown();
    // Over after the grace in any case: dropping the connection closes it.
    let _ = timeout(limits.shutdown_grace, connection).await;
}

/// Waits until nothing was asked for too long.
async fn useless(mut activity: watch::Receiver<Activity>, limits: &Limits) -> &'static str {
    let first = activity.wait_for(|seen| seen.total > 0);
    if !matches!(timeout(limits.header_timeout, first).await, Ok(Ok(_))) {
        return "no request came";
    }
    loop {
        let Ok(total) = activity.wait_for(|seen| seen.open == 0).await.map(|seen| seen.total)
        else {
            return "no request can come";
        };
        let next = activity.wait_for(|seen| seen.total != total);
        if !matches!(timeout(limits.idle_timeout, next).await, Ok(Ok(_))) {
            return "no further request came";
        }
    }
}

/// Waits until the process that connected has ended.
async fn ended(peer: &Peer, interval: Duration) {
    while peer.is_running() {
        sleep(interval).await;
    }
}

/// A gRPC service, as tonic generates it.
pub trait Answers:
    tower::Service<
        Request<Incoming>,
        Response = Response<tonic::body::Body>,
        Error = Infallible,
        Future: Send,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Answers for S where
    S: tower::Service<
            Request<Incoming>,
            Response = Response<tonic::body::Body>,
            Error = Infallible,
            Future: Send,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

/// A service with what each of its requests must carry.
#[derive(Clone)]
pub(crate) struct Guarded<S> {
    pub(crate) service: S,
    /// Metadata whose value must be `true`.
    pub(crate) header: Option<&'static str>,
}

/// Looks at each request before the service does.
struct Gate<S> {
    service: S,
    header: Option<&'static str>,
    peer: Arc<Peer>,
    activity: watch::Sender<Activity>,
    limits: Limits,
}

impl<S: Answers> hyper::service::Service<Request<Incoming>> for Gate<S> {
    type Response = Response<Counted>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let counter = Counter::new(&self.activity);
        let counted = |response: Response<tonic::body::Body>| {
            response.map(|body| Counted { body, _counter: counter })
        };
        if let Err(refusal) = check_header(request.headers(), self.header) {
            let response = Status::from(refusal).into_http();
            return Box::pin(std::future::ready(Ok(counted(response))));
        }
        request.extensions_mut().insert(Arc::clone(&self.peer));
        let mut service = self.service.clone();
        let wait = self.limits.request_timeout;
        Box::pin(async move {
            let response = match timeout(wait, service.call(request)).await {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(_) => {
                    let what = "the request was not complete, or not answered, in time";
                    Status::from(Refusal::new(RefusalCode::RequestTimeout, what)).into_http()
                }
            };
            Ok(counted(response))
        })
    }
}

fn check_header(headers: &HeaderMap, wanted: Option<&'static str>) -> Result<(), Refusal> {
    let Some(wanted) = wanted else { return Ok(()) };
    let mut values = headers.get_all(wanted).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value == "true" => Ok(()),
        _ => {
            let what = format!("the metadata `{wanted}: true` is needed exactly once");
            Err(Refusal::new(RefusalCode::HeaderMissing, what))
        }
    }
}

/// Counts a request as open for as long as it lives.
struct Counter(watch::Sender<Activity>);

impl Counter {
    fn new(activity: &watch::Sender<Activity>) -> Self {
        activity.send_modify(|seen| {
            seen.open += 1;
            seen.total += 1;
        });
        Self(activity.clone())
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.0.send_modify(|seen| seen.open -= 1);
    }
}

/// An answer's body; the request is open until it is sent or given up.
struct Counted {
    body: tonic::body::Body,
    _counter: Counter,
}

impl Body for Counted {
    type Data = <tonic::body::Body as Body>::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
