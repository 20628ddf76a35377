//! The attestation service: one stream is one attestation, bounded in time, bytes and number.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use proto::{
    evidence::{LogCollector, LogKind, LogSuffix, may_be_held},
    limits::HELLO_DEADLINE,
    pb::{self, attest_request::Message as Incoming, attest_response::Message as Outgoing},
    reason::ReasonCode,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout_at,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::status;
use crate::{
    attestation::{Begun, Outcome, Verifier, denied},
    config::Limits,
    metrics,
    server::Peer,
};

/// One permit of the pending-log budget, bytes.
const LOG_PERMIT_BYTES: usize = 4096;

/// Bounds on streams; [`Limits`] has the numbers.
#[derive(Debug)]
pub struct Gate {
    streams: Arc<Semaphore>,
    log_bytes: Arc<Semaphore>,
    streams_per_peer: usize,
    peers: Mutex<HashMap<IpAddr, usize>>,
}

/// A place at the gate, given back on drop.
struct Place {
    gate: Arc<Gate>,
    peer: Option<IpAddr>,
    _stream: OwnedSemaphorePermit,
}

impl Gate {
    fn new(limits: &Limits) -> Self {
        Self {
            streams: Arc::new(Semaphore::new(limits.streams)),
            log_bytes: Arc::new(Semaphore::new(limits.pending_log_bytes / LOG_PERMIT_BYTES)),
            streams_per_peer: limits.streams_per_peer,
            peers: Mutex::new(HashMap::new()),
        }
    }

    fn enter(self: &Arc<Self>, peer: Option<IpAddr>) -> Result<Place, Status> {
        let busy = || {
            status::with_reason(
                Code::ResourceExhausted,
                ReasonCode::ServiceBusy,
                ReasonCode::ServiceBusy.meaning(),
            )
        };
        let stream = Arc::clone(&self.streams).try_acquire_owned().map_err(|_| busy())?;
        if let Some(peer) = peer {
            let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
            let count = peers.entry(peer).or_insert(0);
            if *count >= self.streams_per_peer {
                return Err(busy());
            }
            *count += 1;
        }
        Ok(Place { gate: Arc::clone(self), peer, _stream: stream })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(peer) = self.peer else { return };
        let mut peers = self.gate.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = peers.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                peers.remove(&peer);
            }
        }
    }
}

/// Implements `assay.attest.v1.Attestation`.
#[derive(Debug)]
pub struct AttestationService {
    verifier: Arc<Verifier>,
    gate: Arc<Gate>,
}

impl AttestationService {
    /// The service of a verifier, within `limits`.
    #[must_use]
    pub fn new(verifier: Arc<Verifier>, limits: &Limits) -> Self {
        Self { verifier, gate: Arc::new(Gate::new(limits)) }
    }
}

#[tonic::async_trait]
impl pb::attestation_server::Attestation for AttestationService {
    type AttestStream = ReceiverStream<Result<pb::AttestResponse, Status>>;

    async fn attest(
        &self,
        request: Request<Streaming<pb::AttestRequest>>,
    ) -> Result<Response<Self::AttestStream>, Status> {
        let peer = request.extensions().get::<Peer>().map(|peer| peer.address.ip());
        let place = self.gate.enter(peer).inspect_err(|_| metrics::refused_busy())?;
        let (sender, receiver) = mpsc::channel(2);
        let verifier = Arc::clone(&self.verifier);
        let gate = Arc::clone(&self.gate);
        let incoming = request.into_inner();
        tokio::spawn(async move {
            let _place = place;
            let started = tokio::time::Instant::now();
            let answer = converse(&verifier, &gate, incoming, &sender).await;
            metrics::attestation(&answer, started.elapsed());
            let message = match answer {
                Ok(outcome) => {
                    log_outcome(peer, &outcome);
                    Ok(pb::AttestResponse { message: Some(Outgoing::Result(outcome.result)) })
                }
                Err(status) => {
                    tracing::info!(?peer, code = ?status.code(), message = status.message(), "attestation ended without a verdict");
                    Err(status)
                }
            };
            // The worker may be gone; the decision is recorded all the same.
            let _ = sender.send(message).await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

fn log_outcome(peer: Option<IpAddr>, outcome: &Outcome) {
    let result = &outcome.result;
    match outcome.code {
        None => tracing::info!(
            ?peer,
            decision = result.decision_id,
            spiffe_id = result.spiffe_id,
            "admitted"
        ),
        Some(code) => tracing::info!(?peer, decision = result.decision_id, %code, "denied"),
    }
}

type Sender = mpsc::Sender<Result<pb::AttestResponse, Status>>;

/// Hello, challenge, evidence, result.
async fn converse(
    verifier: &Arc<Verifier>,
    gate: &Gate,
    mut incoming: Streaming<pb::AttestRequest>,
    sender: &Sender,
) -> Result<Outcome, Status> {
    let hello_by = deadline(HELLO_DEADLINE);
    let hello = match next(&mut incoming, hello_by).await? {
        Incoming::Hello(hello) => hello,
        other => return Err(out_of_order("hello", &other)),
    };
    let session = match verifier.begin(hello).await.map_err(|error| status::attest(&error))? {
        Begun::Challenge(session) => session,
        Begun::Refused(denial) => return Ok(denied(&denial, String::new())),
    };
    let answer_by = deadline(verifier.settings().challenge_lifetime);
    let challenge = pb::AttestResponse { message: Some(Outgoing::Challenge(session.challenge())) };
    if sender.send(Ok(challenge)).await.is_err() {
        return Err(Status::cancelled("the worker went away"));
    }
    let evidence = match next(&mut incoming, answer_by).await? {
        Incoming::Evidence(evidence) => evidence,
        other => return Err(out_of_order("evidence", &other)),
    };
    may_be_held(&evidence).map_err(|error| status::evidence(&error))?;
    let (logs, _held) = logs(&mut incoming, gate, session.logs_wanted(), answer_by).await?;
    verifier.finish(*session, evidence, logs).await.map_err(|error| status::attest(&error))
}

/// Log chunks until End, under the budget that all streams share.
async fn logs(
    incoming: &mut Streaming<pb::AttestRequest>,
    gate: &Gate,
    wanted: &[(LogKind, u64)],
    by: tokio::time::Instant,
) -> Result<(Vec<LogSuffix>, Option<OwnedSemaphorePermit>), Status> {
    let mut collector = LogCollector::default();
    let mut bytes = 0_usize;
    let mut held: Option<OwnedSemaphorePermit> = None;
    loop {
        match next(incoming, by).await? {
            Incoming::LogChunk(chunk) => {
                // By bytes of the whole stream: many small pieces cost what one large one does.
                bytes += chunk.data.len();
                let have = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
                let permits = bytes.div_ceil(LOG_PERMIT_BYTES).saturating_sub(have);
                let permits = u32::try_from(permits).unwrap_or(u32::MAX);
                let permit = Arc::clone(&gate.log_bytes).try_acquire_many_owned(permits);
                let permit = permit.map_err(|_| {
                    status::with_reason(
                        Code::ResourceExhausted,
                        ReasonCode::ServiceBusy,
                        "as many log bytes are under way as the verifier holds",
                    )
                })?;
                match &mut held {
                    Some(held) => held.merge(permit),
                    None => held = Some(permit),
                }
                collector.take(chunk, wanted).map_err(|error| status::evidence(&error))?;
            }
            Incoming::End(_) => return Ok((collector.finish(), held)),
            other => return Err(out_of_order("log_chunk or end", &other)),
        }
    }
}

fn deadline(after: Duration) -> tokio::time::Instant {
    tokio::time::Instant::now() + after
}

async fn next(
    incoming: &mut Streaming<pb::AttestRequest>,
    by: tokio::time::Instant,
) -> Result<Incoming, Status> {
    let message = timeout_at(by, incoming.message()).await.map_err(|_| {
        status::with_reason(
            Code::DeadlineExceeded,
            ReasonCode::ServiceDeadlineExceeded,
            ReasonCode::ServiceDeadlineExceeded.meaning(),
        )
    })?;
    let message = message.map_err(|status| match status.code() {
        // What tonic says of a message beyond MAX_MESSAGE_BYTES.
        Code::OutOfRange => status::with_reason(
            Code::ResourceExhausted,
            ReasonCode::EvidenceLimitExceeded,
            status.message(),
        ),
        _ => status,
    })?;
    message.and_then(|request| request.message).ok_or_else(|| {
        status::with_reason(
            Code::FailedPrecondition,
            ReasonCode::EvidenceOutOfOrder,
            "the stream ended, or a message was empty, before the attestation was complete",
        )
    })
}

fn out_of_order(expected: &str, found: &Incoming) -> Status {
    let found = match found {
        Incoming::Hello(_) => "hello",
        Incoming::Evidence(_) => "evidence",
        Incoming::LogChunk(_) => "log_chunk",
        Incoming::End(_) => "end",
    };
    status::with_reason(
        Code::FailedPrecondition,
        ReasonCode::EvidenceOutOfOrder,
        format!("{found} came where {expected} was expected"),
    )
}
