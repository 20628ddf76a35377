//! The attestation service: one stream is one attestation, bounded in time, bytes and number.

use std::{net::IpAddr, sync::Arc, time::Duration};

use proto::{
    evidence::{LogCollector, LogKind, LogSuffix, may_be_held},
    limits::HELLO_DEADLINE,
    pb::{self, attest_request::Message as Incoming, attest_response::Message as Outgoing},
    reason::ReasonCode,
};
use tokio::{sync::mpsc, time::timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{
    gate::{Gate, HeldLogs},
    status,
};
use crate::{
    attestation::{Begun, Outcome, Verifier, denied},
    metrics,
    server::Peer,
};

/// Implements `assay.attest.v1.Attestation`.
#[derive(Debug)]
pub struct AttestationService {
    verifier: Arc<Verifier>,
    gate: Arc<Gate>,
}

impl AttestationService {
    /// The service of a verifier, behind a gate.
    #[must_use]
    pub const fn new(verifier: Arc<Verifier>, gate: Arc<Gate>) -> Self {
        Self { verifier, gate }
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
            let held = gate.hold_logs(peer);
            let answer = converse(&verifier, held, incoming, &sender).await;
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
    mut held: HeldLogs,
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
    let logs = logs(&mut incoming, &mut held, session.logs_wanted(), answer_by).await?;
    verifier.finish(*session, evidence, logs).await.map_err(|error| status::attest(&error))
}

/// Log chunks until End, under the budget that all streams share.
async fn logs(
    incoming: &mut Streaming<pb::AttestRequest>,
    held: &mut HeldLogs,
    wanted: &[(LogKind, u64)],
    by: tokio::time::Instant,
) -> Result<Vec<LogSuffix>, Status> {
    let mut collector = LogCollector::default();
    loop {
        match next(incoming, by).await? {
            Incoming::LogChunk(chunk) => {
                held.add(chunk.data.len())?;
                collector.take(chunk, wanted).map_err(|error| status::evidence(&error))?;
            }
            Incoming::End(_) => return Ok(collector.finish()),
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
