//! One call for a job: from a permit to its start, and to its end where the call holds it.

use std::{sync::Arc, time::Duration};

use proto::{pb, pb::job_event::Event, permit::check_audiences};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout, timeout_at},
};
use tonic::Status;
use workload::{JobHandle, JobIdentity, Observation, Selector};

use super::{
    super::{
        Line, NodeState,
        life::{End, FAREWELL, Life, by_the_node, credentials},
    },
    Deferred, Gate, Origin, Processes, Refusal, Running, Slot, remember, send,
};

/// How long a call takes to start its job: whoever calls waits for 90 s.
const STARTS_WITHIN: Duration = Duration::from_secs(80);

/// A job whose identities are served.
struct Begun {
    started: pb::JobStarted,
    life: Life,
    stop: watch::Sender<Option<End>>,
    slot: Slot,
}

/// A job's entry among those that run, removed on drop.
struct Entry {
    gate: Gate,
    id: String,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.gate.jobs().running.remove(&self.id);
    }
}

impl Gate {
    pub(super) async fn start(
        &self,
        request: pb::StartRequest,
        caller: &Observation,
        events: &mpsc::Sender<Result<pb::JobEvent, Status>>,
    ) -> Result<(), Refusal> {
        let deadline = Instant::now() + STARTS_WITHIN;
        self.admits(caller)?;
        check_audiences(&request.audiences)
            .map_err(|error| Refusal::new(error.code().as_str(), error.to_string()))?;
        let permit = match request.permit_id.as_str() {
            "" => tokio::select! {
                biased;
                // Nobody is there to hear of it: neither a place nor the TPM is for them.
                () = events.closed() => return Ok(()),
                permit = self.permit(&request, caller.uid) => permit?,
            },
            waiting => self.take(waiting, caller)?,
        };
        if request.defer {
            let told = pb::JobDeferred {
                permit_id: permit.line.permit_id().to_owned(),
                decision_id: permit.decision_id.clone(),
                redeem_within_s: permit.redeem_within.as_secs(),
                claims: permit.claims.clone(),
            };
            self.keep(permit);
            send(events, Event::Deferred(told)).await;
            return Ok(());
        }
        let line = Arc::clone(&permit.line);
        let begun = tokio::select! {
            biased;
            () = events.closed() => None,
            begun = timeout_at(deadline, self.begin(permit, &request, caller)) => Some(begun),
        };
        let begun = match begun {
            Some(Ok(begun)) => begun?,
            late => {
                let why = "its redemption took too long, or whoever asked for it is gone";
                let _ = timeout(FAREWELL, line.end(why)).await;
                return match late {
                    Some(_) => {
                        Err(Refusal::new("GATE_LATE", "the permit was not redeemed in time"))
                    }
                    None => Ok(()),
                };
            }
        };
        let (started, stop) = (begun.started.clone(), begun.stop.clone());
        let mut running = self.run(begun);
        let told = send(events, Event::Started(started)).await;
        if !told {
            // Nobody heard that a job may start: there is none.
            let why = "whoever asked was gone before it heard that its job may start";
            end_first(&stop, End::over(why));
            return Ok(());
        }
        if !request.hold {
            return Ok(());
        }
        // Held by the call: whichever ends first ends the other. An end that comes before the job's is told at once, for
        // whoever runs it to end it, not after the verifier was told and the site's action ran.
        let mut ends = stop.subscribe();
        let early = async {
            let end = ends.wait_for(|end| end.as_ref().is_some_and(|end| !end.is_over())).await;
            end.ok().and_then(|end| end.clone())
        };
        let end = tokio::select! {
            biased;
            end = early => end,
            end = &mut running => end.ok(),
            () = events.closed() => {
                // One that ends its job says so before it goes.
                let why = "whoever held the permit is gone, and did not say that its job is over";
                end_first(&stop, End::new("GATE_HOLDER_GONE", why));
                return Ok(());
            }
        };
        let End { code, why } =
            end.unwrap_or_else(|| End::new("GATE_STOPPING", "the job's task ended"));
        send(events, Event::Ended(pb::JobEnded { code, why })).await;
        Ok(())
    }

    /// Redeems a permit and gives the job's processes its identities.
    async fn begin(
        &self,
        deferred: Deferred,
        request: &pb::StartRequest,
        caller: &Observation,
    ) -> Result<Begun, Refusal> {
        let Deferred { line, tool_events, tools, decision_id, claims, slot, .. } = deferred;
        let node = self.desk.node();
        // One that was not deferred is used as well: its number stands in logs and environments.
        remember(&mut self.used(), line.permit_id());
        let served = async {
            let processes = Processes::of(request.processes(), caller)?;
            let identity = redeemed(&line, request, &node, tool_events).await?;
            let handle = self.serve(&line, &identity, &processes, caller)?;
            Ok((processes, identity, handle))
        };
        let (processes, identity, handle) = match served.await {
            Ok(served) => served,
            // Redeemed or not, or nobody knows: the answer may have been lost. No job will use it.
            Err(refusal) => {
                let Refusal(pb::JobRefused { why, .. }) = &refusal;
                let _ = timeout(FAREWELL, line.end(why)).await;
                return Err(refusal);
            }
        };
        let first = processes.first().filter(|_| !request.hold);
        let holder = caller.ancestry.first().copied().filter(|_| request.hold);
        let (stop, _) = watch::channel(None);
        let job = Running {
            uid: caller.uid,
            origin: Origin::of(&processes, caller),
            processes,
            holder,
            line: Arc::clone(&line),
            tool_events,
            stop: stop.clone(),
        };
        self.jobs().running.insert(line.permit_id().to_owned(), job);
        let started = pb::JobStarted {
            permit_id: line.permit_id().to_owned(),
            decision_id,
            node: node.borrow().spiffe_id.clone(),
            spiffe_ids: identity.x509.iter().map(|svid| svid.spiffe_id.clone()).collect(),
            claims,
            ends_within_s: identity.ends_within_s,
            workload_endpoint: self.endpoint.clone(),
            jwt: identity.jwt.clone(),
            statements: identity.statements.clone(),
            tools,
        };
        let life = Life {
            line,
            handle,
            node,
            tool_events,
            first,
            silence: self.settings.silence,
            on_end: Arc::clone(&self.on_end),
            uid: caller.uid,
            identity,
            stop: stop.clone(),
        };
        Ok(Begun { started, life, stop, slot })
    }

    /// Has the Workload API serve what a redemption gave.
    fn serve(
        &self,
        line: &Arc<Line>,
        identity: &pb::JobIdentity,
        processes: &Processes,
        caller: &Observation,
    ) -> Result<JobHandle, Refusal> {
        let unusable = |why: String| Refusal::new("GATE_IDENTITY_UNUSABLE", why);
        let credentials =
            credentials(line, identity).map_err(|error| unusable(error.to_string()))?;
        let id =
            line.permit_id().parse().map_err(|_| unusable("the permit's identifier".to_owned()))?;
        let selectors: Vec<Selector> = processes.selector(caller.uid).into_iter().collect();
        let job = JobIdentity { id, selectors, credentials };
        self.registry.admit(job).map_err(|error| unusable(error.to_string()))
    }

    /// Runs a job to its end in a task of its own.
    fn run(&self, begun: Begun) -> tokio::task::JoinHandle<End> {
        let (gate, id) = (self.clone(), begun.started.permit_id.clone());
        let Begun { life, slot, .. } = begun;
        tokio::spawn(async move {
            // In this order, whatever becomes of the task.
            let _slot = slot;
            let _entry = Entry { gate, id };
            life.run().await
        })
    }
}

/// Ends a job, unless something else does already.
fn end_first(stop: &watch::Sender<Option<End>>, end: End) {
    stop.send_if_modified(|stop| {
        let is_first = stop.is_none();
        if is_first {
            *stop = Some(end);
        }
        is_first
    });
}

/// What a redemption gives, unless the worker itself knows better by then: before and after it, and while it is waited for.
async fn redeemed(
    line: &Line,
    request: &pb::StartRequest,
    node: &watch::Receiver<NodeState>,
    tool_events: u64,
) -> Result<pb::JobIdentity, Refusal> {
    let stopping = || Refusal::new("GATE_STOPPING", "the worker's daemon stops");
    let stands = || match by_the_node(&node.borrow(), tool_events) {
        Some(End { code, why }) => Err(Refusal::new(&code, why)),
        None if node.has_changed().is_err() => Err(stopping()),
        None => Ok(()),
    };
    stands()?;
    let mut changes = node.clone();
    let changed = async {
        while changes.changed().await.is_ok() {
            stands()?;
        }
        Err(stopping())
    };
    let identity = tokio::select! {
        biased;
        redeemed = line.redeem(request.audiences.clone()) => redeemed?,
        ended = changed => return ended,
    };
    stands()?;
    Ok(identity)
}
