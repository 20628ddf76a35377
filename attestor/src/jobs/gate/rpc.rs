//! The gate's calls, as they come over the socket: `assay.attest.v1.JobGate`.

use std::sync::Arc;

use proto::pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use workload::{MAX_ANCESTORS, Observation, Peer, printable};

use super::{EVENTS, End, Event, Gate, Processes, Refusal, send};

/// Who calls; everything is refused where the kernel does not say.
fn caller<T>(request: &Request<T>) -> Result<Observation, Status> {
    let peer = request.extensions().get::<Arc<Peer>>();
    let peer = peer.ok_or_else(|| Status::internal("the caller is not known"))?;
    peer.observe().map_err(|error| Status::permission_denied(error.to_string()))
}

#[tonic::async_trait]
impl pb::job_gate_server::JobGate for Gate {
    type StartStream = ReceiverStream<Result<pb::JobEvent, Status>>;

    async fn start(
        &self,
        request: Request<pb::StartRequest>,
    ) -> Result<Response<Self::StartStream>, Status> {
        let caller = caller(&request)?;
        let (events, stream) = mpsc::channel(EVENTS);
        let (gate, request) = (self.clone(), request.into_inner());
        let call = self.call();
        tokio::spawn(async move {
            let _call = call;
            if let Err(Refusal(refused)) = gate.start(request, &caller, &events).await {
                tracing::warn!(
                    uid = caller.uid,
                    code = refused.code,
                    decision = refused.decision_id,
                    "no job starts: {}",
                    refused.why
                );
                send(&events, Event::Refused(refused.clone())).await;
                // The call is over; what is done about it may take its time.
                drop(events);
                gate.acts_on(&refused, &caller).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn stop(
        &self,
        request: Request<pb::StopRequest>,
    ) -> Result<Response<pb::Stopped>, Status> {
        let caller = caller(&request)?;
        let pb::StopRequest { permit_id, reason } = request.into_inner();
        let mut jobs = self.jobs();
        let may = |uid: u32| caller.uid == 0 || uid == caller.uid;
        // Nobody can redeem it any more.
        if jobs.waiting.get(&permit_id).is_some_and(|permit| may(permit.uid)) {
            jobs.waiting.remove(&permit_id);
            return Ok(Response::new(pb::Stopped { ended: true }));
        }
        let ended = match jobs.running.get(&permit_id).filter(|job| may(job.uid)) {
            Some(job) if job.stop.borrow().is_none() => {
                let why = if reason.is_empty() { "stopped".to_owned() } else { printable(&reason) };
                // A job that gives its own permit back may go on without it: what the site has for such an end is done.
                let holds = job.holder.is_some() && job.holder == caller.ancestry.first().copied();
                let is_its_own = match job.processes {
                    Processes::Below(_) => {
                        caller.ancestry.len() >= MAX_ANCESTORS
                            || job.has(&caller)
                            || job.may_have_lost(&caller)
                    }
                    // The agent itself is one of these.
                    Processes::Cgroup(_) | Processes::User(_) => false,
                };
                job.stop.send_replace(Some(match is_its_own && !holds {
                    true => End::new("GATE_ENDED_BY_ITS_JOB", why),
                    false => End::over(&why),
                }));
                true
            }
            Some(_) | None => false,
        };
        Ok(Response::new(pb::Stopped { ended }))
    }

    async fn timestamp(
        &self,
        request: Request<pb::StampRequest>,
    ) -> Result<Response<pb::TimestampReply>, Status> {
        let caller = caller(&request)?;
        let reply = self.stamp(request.into_inner(), &caller).await;
        reply.map(Response::new).map_err(Status::from)
    }
}
