//! The way of all jobs of a worker to the verifier: one connection, few requests at a time; over real sockets and TLS.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use attestor::{
    jobs::{Line, LineError, Link},
    trust::{Learned, Trust},
};
use pb::jobs_server;
use swtpm_tests::{impostor, road::Road};
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tonic::{Request, Response, Status, service::Routes};

use super::*;

const JOBS: usize = 100;
/// A quarter of what the verifier lets one address have.
const AT_ONCE: usize = 16;
/// Of those, for jobs that start.
const STARTS_AT_ONCE: usize = 8;

/// In which one request more than there may be would come.
const MOMENT: Duration = Duration::from_millis(50);

/// Requests of jobs that ask whether they may go on.
#[derive(Debug, Default)]
struct Asking {
    now: usize,
    most: usize,
    /// Of those that were told of, how many have not come yet.
    to_come: usize,
}

/// Lets every job go on: once as many ask as may at once, or nobody else is to come, and after a moment more. Lets none begin.
#[derive(Clone, Debug, Default)]
struct Counting {
    asking: watch::Sender<Asking>,
    /// Whether redemptions wait for ever, and how many came.
    keeps_redemptions: Arc<AtomicBool>,
    redemptions: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl jobs_server::Jobs for Counting {
    async fn redeem(
        &self,
        _request: Request<pb::RedeemRequest>,
    ) -> Result<Response<pb::JobIdentity>, Status> {
        self.redemptions.fetch_add(1, Ordering::SeqCst);
        if self.keeps_redemptions.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        // Of the transport: no verifier refuses without a reason.
        Err(Status::unavailable("a proxy has no way on"))
    }

    async fn r#continue(
        &self,
        _request: Request<pb::ContinueRequest>,
    ) -> Result<Response<pb::JobIdentity>, Status> {
        self.asking.send_modify(|asking| {
            asking.now += 1;
            asking.most = asking.most.max(asking.now);
            asking.to_come = asking.to_come.saturating_sub(1);
        });
        // Whoever looks too late, when one has gone on already, sees the next that comes in its place.
        let is_full = |asking: &Asking| asking.now >= AT_ONCE || asking.to_come == 0;
        self.asking.subscribe().wait_for(is_full).await.unwrap();
        tokio::time::sleep(MOMENT).await;
        self.asking.send_modify(|asking| asking.now -= 1);
        Ok(Response::new(pb::JobIdentity::default()))
    }

    async fn end(&self, _request: Request<pb::EndRequest>) -> Result<Response<pb::Ended>, Status> {
        std::future::pending().await
    }

    async fn timestamp(
        &self,
        _request: Request<pb::TimestampRequest>,
    ) -> Result<Response<pb::TimestampReply>, Status> {
        Err(Status::unimplemented("nobody asks here"))
    }
}

/// A worker with many jobs, and the road to whoever counts.
struct Busy {
    counting: Counting,
    road: Road,
    trust: Trust,
    learned: watch::Sender<Learned>,
    lines: Vec<Arc<Line>>,
    _cluster: Cluster,
}

impl Busy {
    async fn start(jobs: usize) -> Self {
        let (cluster, counting) = (Cluster::start().await.unwrap(), Counting::default());
        let service = jobs_server::JobsServer::new(counting.clone());
        let url = impostor::serve(&cluster, Some(Routes::new(service))).await.unwrap();
        let road = Road::to(url.strip_prefix("https://").unwrap().parse().unwrap()).await.unwrap();
        let trust = Trust::CaFile(cluster.folder().join("state/bundle.pem"));
        let (learned, bundle) = watch::channel(Learned::default());
        let link = Link::new(format!("https://{}", road.address()), trust.clone(), bundle);
        let line = |number: usize| {
            let key = JobKeyPair::generate().unwrap();
            let id = VerifierId::new([0; 32]);
            Arc::new(Line::new(link.clone(), key, id, number.to_string(), vec![1; 32]))
        };
        let lines = (0..jobs).map(line).collect();
        Self { counting, road, trust, learned, lines, _cluster: cluster }
    }

    /// Every job asks whether it may go on, all at once.
    async fn all_proceed(&self) {
        self.counting.asking.send_modify(|asking| asking.to_come = self.lines.len());
        let mut asking = JoinSet::new();
        for line in &self.lines {
            let line = Arc::clone(line);
            asking.spawn(async move { line.proceed(false, Vec::new()).await });
        }
        let answers = timeout(Duration::from_secs(60), asking.join_all()).await;
        for answer in answers.expect("as many ask at once as may") {
            answer.unwrap();
        }
    }

    async fn proceeds(&self) {
        self.lines[0].proceed(false, Vec::new()).await.unwrap();
    }

    async fn has_no_connection(&self) {
        let closed = timeout(Duration::from_secs(30), self.road.is_empty()).await;
        closed.expect("it is closed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_are_checked_at_once_share_a_connection_and_take_few_places() {
    let busy = Busy::start(JOBS).await;
    busy.all_proceed().await;
    assert_eq!(busy.counting.asking.borrow().most, AT_ONCE);
    assert_eq!(busy.road.connections(), 1);
    // Not kept for nothing.
    busy.has_no_connection().await;
    busy.all_proceed().await;
    assert_eq!(busy.road.connections(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_made_again_when_trust_changes_or_it_gives_no_answer() {
    let busy = Busy::start(1).await;
    let mut made = 0;
    let mut proceeds = async |new: usize, why: &str| {
        busy.proceeds().await;
        made += new;
        assert_eq!(busy.road.connections(), made, "{why}");
    };
    proceeds(1, "the first").await;
    proceeds(0, "the same").await;
    let given = busy.trust.read().unwrap();
    busy.learned.send_replace(given.learned(Vec::new()));
    proceeds(1, "another bundle").await;
    let Trust::CaFile(file) = &busy.trust else { unreachable!() };
    let before = std::fs::read_to_string(file).unwrap();
    let more = Cluster::start().await.unwrap();
    let of_more = std::fs::read_to_string(more.folder().join("state/bundle.pem")).unwrap();
    std::fs::write(file, format!("{before}{of_more}")).unwrap();
    proceeds(1, "another file of roots").await;
    // One that vouches for somebody else.
    std::fs::write(file, of_more).unwrap();
    let refused = busy.lines[0].proceed(false, Vec::new()).await;
    assert!(matches!(refused, Err(LineError::Client(_))), "{refused:?}");
    std::fs::write(file, before).unwrap();
    proceeds(2, "roots that do not vouch, and those that do").await;
    let unavailable = busy.lines[0].redeem(Vec::new()).await;
    assert!(matches!(unavailable, Err(LineError::Client(_))), "{unavailable:?}");
    // It was asked twice, each time on a connection of its own.
    proceeds(2, "no answer of a verifier").await;
    // A request that is given up: soon, by a job that went away, or after a while.
    for (after_ms, new) in [(50, 0), (300, 0), (4000, 1)] {
        let given_up = busy.lines[0].end("over");
        assert!(timeout(Duration::from_millis(after_ms), given_up).await.is_err());
        proceeds(new, "given up").await;
    }
    // Between requests.
    busy.road.cut();
    busy.has_no_connection().await;
    // Noticed by the first request at the latest, which fails then.
    if busy.lines[0].proceed(false, Vec::new()).await.is_err() {
        busy.proceeds().await;
    }
    assert_eq!(busy.road.connections(), made + 1, "cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_wait_to_begin_keep_none_that_runs_from_being_checked() {
    let busy = Busy::start(AT_ONCE + 1).await;
    busy.counting.keeps_redemptions.store(true, Ordering::SeqCst);
    let mut starting = JoinSet::new();
    for line in &busy.lines[1..] {
        let line = Arc::clone(line);
        starting.spawn(async move { line.redeem(Vec::new()).await.map(drop) });
    }
    let came = || busy.counting.redemptions.load(Ordering::SeqCst);
    let all_came = async {
        while came() < STARTS_AT_ONCE {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(30), all_came).await.expect("they have turns");
    for _ in 0..10 {
        timeout(Duration::from_secs(10), busy.proceeds()).await.expect("there is a turn");
    }
    assert_eq!(came(), STARTS_AT_ONCE, "the others wait");
    assert_eq!(busy.road.connections(), 1);
    starting.shutdown().await;
}
