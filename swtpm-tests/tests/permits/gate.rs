//! The gate of a worker, over its real sockets, where what comes from the verifier cannot be used, or comes too late.

use std::{
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use attestor::{
    jobs::{JobSettings, JobSockets, Link, NodeState, Permitted, desk},
    trust::{Learned, Trust},
};
use hyper_util::rt::TokioIo;
use pb::{job_event::Event, job_gate_client::JobGateClient, jobs_server};
use swtpm_tests::impostor;
use tokio::{
    net::UnixStream,
    sync::{Notify, watch},
};
use tonic::{
    Code, Request, Response, Status, Streaming,
    service::Routes,
    transport::{Channel, Endpoint, Uri},
};
use tonic_types::{ErrorDetails, StatusExt as _};
use verifier::{
    clock::Clock as _,
    config::Limits,
    jwt_key::rotate,
    service::{gate::Gate, jobs::JobService},
    store::{Permit, PermitState},
};
use workload::pb::{JwtBundlesRequest, spiffe_workload_api_client::SpiffeWorkloadApiClient};

use super::*;

/// What whoever stands between does to what the verifier says.
#[derive(Debug)]
enum Habit {
    /// A redemption gives no certificates.
    RedeemsNothing,
    /// A redemption is done, and its answer lost, or a refusal.
    RedeemsUnheard,
    RedeemsRefused,
    /// A redemption takes until something has happened; told when it begins.
    RedeemsLate {
        begun: Arc<Notify>,
        go_on: Arc<Notify>,
    },
    /// Certificates are to be renewed at once, and then there are none.
    RenewsNothing,
    /// An end is never answered; told when the worker gave up to wait.
    HearsNoEnd(Arc<AtomicBool>),
    /// The first check is never answered; those after it are counted.
    HearsNoCheck {
        asked: AtomicUsize,
        answered: Arc<AtomicUsize>,
    },
    /// None; counts how often certificates were renewed.
    Honest {
        renewals: Arc<AtomicUsize>,
    },
}

/// Notes that whoever waited does not any more.
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Passes everything on to the verifier's own service; its answers as its habit wants them.
struct Between {
    service: JobService,
    habit: Habit,
}

#[tonic::async_trait]
impl jobs_server::Jobs for Between {
    async fn redeem(
        &self,
        request: Request<pb::RedeemRequest>,
    ) -> Result<Response<pb::JobIdentity>, Status> {
        let mut response = self.service.redeem(request).await?;
        let identity = response.get_mut();
        match &self.habit {
            Habit::RedeemsNothing => identity.x509.clear(),
            Habit::RedeemsRefused => {
                let info = ErrorDetails::with_error_info("EVIDENCE_FIELD_INVALID", "", []);
                let code = Code::InvalidArgument;
                return Err(Status::with_error_details(code, "no token can be for that", info));
            }
            Habit::RedeemsUnheard => return Err(Status::unavailable("a proxy lost the answer")),
            Habit::RedeemsLate { begun, go_on } => {
                begun.notify_one();
                go_on.notified().await;
            }
            Habit::RenewsNothing => identity.x509.iter_mut().for_each(|svid| svid.lifetime_s = 0),
            Habit::HearsNoEnd(_) | Habit::HearsNoCheck { .. } | Habit::Honest { .. } => {}
        }
        Ok(response)
    }

    async fn r#continue(
        &self,
        request: Request<pb::ContinueRequest>,
    ) -> Result<Response<pb::JobIdentity>, Status> {
        if let Habit::HearsNoCheck { asked, answered } = &self.habit {
            if asked.fetch_add(1, Ordering::SeqCst) == 0 {
                return std::future::pending().await;
            }
            answered.fetch_add(1, Ordering::SeqCst);
        }
        let mut response = self.service.r#continue(request).await?;
        let identity = response.get_mut();
        match &self.habit {
            Habit::RenewsNothing => {
                assert!(!identity.x509.is_empty(), "the certificates' time was up");
                identity.x509.clear();
            }
            Habit::Honest { renewals } => {
                renewals.fetch_add(usize::from(!identity.x509.is_empty()), Ordering::SeqCst);
            }
            _ => {}
        }
        Ok(response)
    }

    async fn end(&self, request: Request<pb::EndRequest>) -> Result<Response<pb::Ended>, Status> {
        if let Habit::HearsNoEnd(given_up) = &self.habit {
            let _waiting = GivenUp(Arc::clone(given_up));
            return std::future::pending().await;
        }
        self.service.end(request).await
    }

    async fn timestamp(
        &self,
        request: Request<pb::TimestampRequest>,
    ) -> Result<Response<pb::TimestampReply>, Status> {
        self.service.timestamp(request).await
    }
}

/// A gate whose permits are the verifier's, with somebody between the two.
struct Worker {
    site: Site,
    node: watch::Sender<NodeState>,
    events: Streaming<pb::JobEvent>,
    folder: tempfile::TempDir,
}

impl Worker {
    /// A worker that was asked for a job by this process.
    async fn asked(habit: Habit) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let mut site = Site::start_at(i64::try_from(now.as_secs()).unwrap()).await;
        let places = Arc::new(Gate::new(&Limits::default()));
        let service = JobService::new(Arc::clone(site.cluster.verifier()), places);
        let service = jobs_server::JobsServer::new(Between { service, habit });
        let url = impostor::serve(&site.cluster, Some(Routes::new(service))).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let settings = JobSettings {
            directory: folder.path().to_owned(),
            users: vec![std::fs::metadata(folder.path()).unwrap().uid()],
            systems: Vec::new(),
            max_jobs: 1,
            start_within: Duration::from_secs(30),
            detached_callers: false,
            silence: Duration::from_secs(30),
            on_end: vec!["touch".to_owned(), folder.path().join("acted").display().to_string()],
            on_refused: Vec::new(),
        };
        let (desk, (mut asks, node)) = desk();
        let trust = Trust::CaFile(site.cluster.folder().join("state/bundle.pem"));
        let link = Link::new(url, trust, watch::channel(Learned::default()).1);
        let sockets = JobSockets::bind(settings).unwrap();
        tokio::spawn(sockets.serve(desk, link, std::future::pending()));
        let mut gate = JobGateClient::new(dial(&folder.path().join("job.sock")).await);
        let start = tokio::spawn(async move {
            let processes = pb::JobProcesses::Caller.into();
            let claims = CLAIMS.to_vec();
            gate.start(pb::StartRequest { claims, processes, hold: true, ..Default::default() })
                .await
        });
        let ask = asks.next().await;
        let result = site.ask(&ask.job).await;
        let permitted = Permitted {
            permit: result.permit.unwrap(),
            decision_id: result.decision_id,
            verifier_id: site.verifier_id(),
            bundle: Learned::default(),
            tools: 1,
            tool_events: 0,
        };
        ask.answer(Ok(permitted));
        let events = start.await.unwrap().unwrap().into_inner();
        Self { site, node, events, folder }
    }

    async fn next(&mut self) -> Option<Event> {
        let event = tokio::time::timeout(Duration::from_secs(30), self.events.message()).await;
        event.expect("something happens").unwrap().and_then(|event| event.event)
    }

    /// As [`ended_permit`].
    async fn ended_permit(&self) -> Permit {
        ended_permit(&self.site).await
    }
}

/// The only permit, which the verifier knows to be over.
async fn ended_permit(site: &Site) -> Permit {
    for _ in 0..200 {
        let mut permits = site.cluster.store().permits("w1", 2).await.unwrap();
        if permits.len() == 1 && permits[0].state == PermitState::Ended {
            return permits.remove(0);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the verifier was not told");
}

async fn dial(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_certificates_does_not_start_and_its_permit_is_given_back() {
    let mut worker = Worker::asked(Habit::RedeemsNothing).await;
    let refused = worker.next().await;
    let Some(Event::Refused(refused)) = refused else { panic!("{refused:?}") };
    assert_eq!(refused.code, "GATE_IDENTITY_UNUSABLE");
    let reason = worker.ended_permit().await.end_reason.unwrap_or_default();
    assert!(reason.contains("no identity"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_is_given_back_whatever_became_of_its_redemption() {
    let cases = [
        (Habit::RedeemsUnheard, "GATE_NO_VERDICT"),
        (Habit::RedeemsRefused, "EVIDENCE_FIELD_INVALID"),
    ];
    for (habit, code) in cases {
        let mut worker = Worker::asked(habit).await;
        let refused = worker.next().await;
        let Some(Event::Refused(refused)) = refused else { panic!("{refused:?}") };
        assert_eq!(refused.code, code);
        let permit = worker.ended_permit().await;
        assert!(permit.redeemed_at.is_some(), "{permit:?}");
        assert_eq!(permit.end_reason, Some(refused.why));
    }
}

/// What comes of the redemption is not waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_stops_while_a_permit_is_redeemed_gives_it_back() {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let habit = Habit::RedeemsLate { begun: Arc::clone(&begun), go_on };
    let mut worker = Worker::asked(habit).await;
    begun.notified().await;
    worker.node = watch::channel(NodeState::default()).0;
    let refused = worker.next().await;
    let Some(Event::Refused(refused)) = refused else { panic!("{refused:?}") };
    assert_eq!(refused.code, "GATE_STOPPING");
    let permit = worker.ended_permit().await;
    assert!(permit.redeemed_at.is_some(), "{permit:?}");
    assert!(worker.next().await.is_none());
}

/// Nobody is there to run a job: there is none, and nothing to be done about its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_permit_whose_caller_goes_away_while_it_is_redeemed_is_given_back() {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let habit = Habit::RedeemsLate { begun: Arc::clone(&begun), go_on };
    let Worker { site, node, events, folder } = Worker::asked(habit).await;
    begun.notified().await;
    drop(events);
    let permit = ended_permit(&site).await;
    assert!(permit.redeemed_at.is_some(), "{permit:?}");
    let reason = permit.end_reason.unwrap_or_default();
    assert!(reason.contains("whoever asked for it is gone"), "{reason}");
    assert!(!folder.path().join("acted").exists(), "a job that never was has no early end");
    drop(node);
}

/// One request that gets no answer is asked again within the silence that is borne of the verifier.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_is_never_answered_ends_no_job() {
    let answered = Arc::<AtomicUsize>::default();
    let habit = Habit::HearsNoCheck { asked: AtomicUsize::new(0), answered: Arc::clone(&answered) };
    let mut worker = Worker::asked(habit).await;
    let started = worker.next().await;
    assert!(matches!(started, Some(Event::Started(_))), "{started:?}");
    let goes_on = async {
        while answered.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        biased;
        ended = worker.events.message() => panic!("{ended:?}"),
        gone_on = tokio::time::timeout(Duration::from_secs(90), goes_on) => gone_on.unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_changes_while_a_permit_is_redeemed_starts_no_job() {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let habit = Habit::RedeemsLate { begun: Arc::clone(&begun), go_on };
    let mut worker = Worker::asked(habit).await;
    begun.notified().await;
    worker.node.send_modify(|node| node.tool_events += 1);
    let refused = worker.next().await;
    let Some(Event::Refused(refused)) = refused else { panic!("{refused:?}") };
    assert_eq!(refused.code, "GATE_TOOL_CHANGED");
    worker.ended_permit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_ends_where_its_certificates_cannot_be_renewed() {
    let mut worker = Worker::asked(Habit::RenewsNothing).await;
    let started = worker.next().await;
    assert!(matches!(started, Some(Event::Started(_))), "{started:?}");
    let ended = worker.next().await;
    let Some(Event::Ended(ended)) = ended else { panic!("{ended:?}") };
    assert_eq!(ended.code, "GATE_IDENTITY_UNUSABLE");
    let reason = worker.ended_permit().await.end_reason.unwrap_or_default();
    assert!(reason.contains("new certificates cannot be used"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_told_and_acted_upon_while_the_verifier_does_not_answer() {
    let given_up = Arc::new(AtomicBool::new(false));
    let mut worker = Worker::asked(Habit::HearsNoEnd(Arc::clone(&given_up))).await;
    let started = worker.next().await;
    assert!(matches!(started, Some(Event::Started(_))), "{started:?}");
    worker.node.send_modify(|node| node.tool_events += 1);
    let ended = worker.next().await;
    let Some(Event::Ended(ended)) = ended else { panic!("{ended:?}") };
    assert_eq!(ended.code, "GATE_TOOL_CHANGED");
    while !worker.folder.path().join("acted").exists() {
        assert!(!given_up.load(Ordering::SeqCst), "the action waited for the verifier");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!given_up.load(Ordering::SeqCst), "the job's end waited for the verifier");
}

/// A key that others know is worth nothing to a job that runs as soon as the verifier is asked next.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_runs_learns_of_other_keys_with_the_next_check() {
    let renewals = Arc::<AtomicUsize>::default();
    let mut worker = Worker::asked(Habit::Honest { renewals: Arc::clone(&renewals) }).await;
    let started = worker.next().await;
    assert!(matches!(started, Some(Event::Started(_))), "{started:?}");
    let channel = dial(&worker.folder.path().join("workload.sock")).await;
    let mut client = SpiffeWorkloadApiClient::new(channel);
    let mut request = Request::new(JwtBundlesRequest {});
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
    let mut bundles = client.fetch_jwt_bundles(request).await.unwrap().into_inner();
    let mut served = async || {
        let next = tokio::time::timeout(Duration::from_secs(60), bundles.message()).await;
        let bundle = next.expect("the job learns of it").unwrap().unwrap().bundles;
        let set = jose::jwk::JwkSet::parse(&bundle["spiffe://test.example"]).unwrap();
        set.keys().iter().map(|key| key.id().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let before = served().await;
    let state = worker.site.cluster.folder().join("state");
    let rotation = rotate(&state, worker.site.clock.now_unix_s(), true).unwrap();
    worker.site.cluster.running().reload().await.unwrap();
    assert_eq!(before, [rotation.former]);
    assert_eq!(served().await, [rotation.current]);
    assert_eq!(renewals.load(Ordering::SeqCst), 1);
}
