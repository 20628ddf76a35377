//! What is stated of a job is stamped before its permit is used: by an authority of the site here, which may not answer.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use attestor::{
    jobs::{JobKeyPair, Line, Link},
    trust::{Learned, Trust},
};
use proto::reason::ReasonCode;
use results::{Sha256Digest, timestamp::Request};
use swtpm_tests::timestamp_server;
use tokio::{sync::watch, time::timeout};
use verifier::{
    attestation::AttestError,
    ca::{CaDir, CaRole, TrustDomain},
    clock::{Clock, FixedClock},
    jobs::JobError,
    results_service::{ExternalAuthorities, ResultsSigner},
    store::{NodeChange, PermitState},
};

use super::{Site, refused};

/// Nothing that is awaited here takes this long.
const FOR_EVER: Duration = Duration::from_secs(60);

/// What an authority does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    Answers,
    HangsUp,
    /// Does neither, until it has another habit: to be over soon, as the verifier waits for seconds.
    Keeps,
}

/// An authority with the verifier's clock.
struct Authority {
    folder: tempfile::TempDir,
    url: String,
    /// How often it was asked for the time stamp of each statement: one that gets no answer is asked for again.
    asked: watch::Sender<HashMap<Sha256Digest, usize>>,
    told: Mutex<HashSet<Sha256Digest>>,
    habit: watch::Sender<Habit>,
}

impl Authority {
    async fn start(clock: &FixedClock) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let domain: TrustDomain = "tsa.example".parse().unwrap();
        let ca = CaDir::new(folder.path(), domain.clone());
        ca.create(u64::try_from(clock.now_unix_s()).unwrap()).unwrap();
        let chain = ca.chains(CaRole::Results).unwrap().remove(0);
        std::fs::write(folder.path().join("tsa.pem"), pem(&chain)).unwrap();
        let issuer = ca.issuer(CaRole::Results).unwrap();
        let (own, others) = (Arc::new(clock.clone()), ExternalAuthorities::default());
        let signer = Arc::new(ResultsSigner::new(issuer, domain, own, others).unwrap());
        let (asked, habit) = (watch::Sender::default(), watch::Sender::new(Habit::Answers));
        let (clock, counted, habits) = (clock.clone(), asked.clone(), habit.subscribe());
        let address = timestamp_server::serve(move |body| {
            let request = Request::parse(&body).unwrap();
            counted.send_modify(|asked: &mut HashMap<_, _>| {
                *asked.entry(request.imprint).or_default() += 1;
            });
            let (signer, clock, mut habits) = (Arc::clone(&signer), clock.clone(), habits.clone());
            async move {
                let habit = *habits.wait_for(|habit| *habit != Habit::Keeps).await.ok()?;
                if habit == Habit::HangsUp {
                    return None;
                }
                let reply = signer.authority().answer_at(Some(&request), clock.now_unix_s());
                Some((timestamp_server::HEAD.to_owned(), reply.unwrap()))
            }
        });
        let url = format!("http://{}/", address.await.unwrap());
        Self { folder, url, asked, told: Mutex::default(), habit }
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("tsa.pem")
    }

    fn does(&self, habit: Habit) {
        self.habit.send_replace(habit);
    }

    /// How often it was asked for the time stamp of each statement that it was not asked about before the last call.
    fn asked(&self) -> Vec<usize> {
        let (asked, mut told) = (self.asked.borrow(), self.told.lock().unwrap());
        let new = asked.iter().filter(|(imprint, _)| told.insert(**imprint));
        new.map(|(_, times)| *times).collect()
    }

    /// Waits until it was asked about so many statements since that call.
    async fn is_asked_about(&self, count: usize) {
        let told = self.told.lock().unwrap().clone();
        let is_new = |imprint: &&Sha256Digest| !told.contains(*imprint);
        let mut asked = self.asked.subscribe();
        let came = asked.wait_for(|asked| asked.keys().filter(is_new).count() >= count);
        timeout(FOR_EVER, came).await.expect("it is asked").unwrap();
    }
}

fn pem(chain: &[Vec<u8>]) -> String {
    use der::{Decode as _, EncodePem as _, pem::LineEnding};
    let encode = |der: &Vec<u8>| {
        x509_cert::Certificate::from_der(der).unwrap().to_pem(LineEnding::LF).unwrap()
    };
    chain.iter().map(encode).collect()
}

/// A site whose verifier has its statements stamped there.
async fn site() -> (Site, Authority) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut site = Site::start_at(i64::try_from(now.as_secs()).unwrap()).await;
    let authority = Authority::start(&site.clock).await;
    let lines = format!(
        "[[timestamp_authority]]\nurl = \"{}\"\nca = \"{}\"\nstamps = true\n",
        authority.url,
        authority.ca().display()
    );
    site.cluster.configure("results", &lines).await.unwrap();
    // The verifier asks once when it starts.
    authority.is_asked_about(1).await;
    authority.asked();
    (site, authority)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_that_was_not_stamped_for_can_be_redeemed_again_and_one_that_may_not_begin_costs_nothing()
 {
    let (mut site, authority) = site().await;
    let key = JobKeyPair::generate().unwrap();
    let permit = site.permit(&key).await;
    authority.does(Habit::HangsUp);
    let failed = site.redeem(&permit, &key).await;
    assert!(matches!(failed, Err(JobError::Failed(AttestError::Result(_)))), "{failed:?}");
    authority.is_asked_about(2).await;
    assert!(authority.asked().iter().any(|times| *times > 1), "it is asked again");
    let recorded = site.cluster.store().permit(&permit.id).await.unwrap().unwrap();
    assert_eq!((recorded.state, recorded.redeemed_at), (PermitState::Issued, None));
    authority.does(Habit::Answers);
    let identity = site.redeem(&permit, &key).await.unwrap();
    assert_eq!((identity.statements.len(), authority.asked().len()), (2, 2));
    // From here on nobody is asked: redeemed, late, of a node that was revoked.
    refused(site.redeem(&permit, &key).await, ReasonCode::PermitAlreadyRedeemed);
    let [late, revoked] = [(); 2].map(|()| JobKeyPair::generate().unwrap());
    let permit = site.permit(&late).await;
    site.clock.set(site.clock.now_unix_s() + 121);
    refused(site.redeem(&permit, &late).await, ReasonCode::PermitExpired);
    let permit = site.permit(&revoked).await;
    let (revoke, by) = (NodeChange::Revoke { reason: "a test".to_owned() }, site.cluster.by());
    site.cluster.store().change_node("w1", None, revoke, by).await.unwrap();
    refused(site.redeem(&permit, &revoked).await, ReasonCode::PermitEnded);
    assert!(authority.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redemption_is_one_and_goes_on_where_its_caller_hangs_up() {
    let (mut site, authority) = site().await;
    let key = JobKeyPair::generate().unwrap();
    let permit = site.permit(&key).await;
    authority.does(Habit::Keeps);
    // Over the wire, by somebody who does not wait; then again, and again.
    let address = site.cluster.running().address;
    let trust = Trust::CaFile(site.cluster.folder().join("state/bundle.pem"));
    let learned = watch::channel(Learned::default()).1;
    let link = Link::new(format!("https://{address}"), trust, learned);
    let id = site.verifier_id();
    let line = Line::new(link, key, id, permit.id.clone(), permit.secret.clone());
    tokio::select! {
        answer = line.redeem(Vec::new()) => panic!("{answer:?}"),
        () = authority.is_asked_about(1) => {}
    }
    // Hung up; yet it is under way, also when it is asked once more.
    let busy = line.redeem(Vec::new()).await.unwrap_err().to_string();
    assert!(busy.contains("being redeemed already"), "{busy}");
    authority.does(Habit::Answers);
    let ended = async {
        loop {
            let recorded = site.cluster.store().permit(&permit.id).await.unwrap().unwrap();
            if recorded.state != PermitState::Issued {
                break recorded.state;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let state = timeout(FOR_EVER, ended).await.expect("it goes on");
    assert_eq!((state, authority.asked().len()), (PermitState::Redeemed, 2));
    let again = line.redeem(Vec::new()).await.unwrap_err().to_string();
    assert!(again.contains("redeemed before") || again.contains("already"), "{again}");
    assert!(authority.asked().is_empty());
}

/// As a worker does that gave the redemption up: whichever comes first, no job has the permit.
#[tokio::test(flavor = "multi_thread")]
async fn a_permit_that_ends_while_its_statements_are_stamped_is_not_redeemed() {
    let (mut site, authority) = site().await;
    let key = JobKeyPair::generate().unwrap();
    let permit = site.permit(&key).await;
    authority.does(Habit::Keeps);
    let end = async {
        authority.is_asked_about(2).await;
        site.end(&permit, &key, 1).await.unwrap();
        authority.does(Habit::Answers);
    };
    let (redeemed, ()) = tokio::join!(site.redeem(&permit, &key), end);
    let why = refused(redeemed, ReasonCode::PermitEnded);
    assert!(why.contains("over"), "{why}");
    let certificates = site.cluster.store().certificates("w1", 10).await.unwrap();
    let recorded = site.cluster.store().permit(&permit.id).await.unwrap().unwrap();
    assert_eq!(recorded.redeemed_at, None);
    assert!(certificates.iter().all(|one| one.decision_id != recorded.decision_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_in_time_is_not_late_because_of_the_authority() {
    let (mut site, authority) = site().await;
    let key = JobKeyPair::generate().unwrap();
    let permit = site.permit(&key).await;
    let clock = site.clock.clone();
    let now = clock.now_unix_s();
    clock.set(now + 120);
    authority.does(Habit::Keeps);
    let passes = async {
        authority.is_asked_about(2).await;
        clock.set(now + 122);
        authority.does(Habit::Answers);
    };
    let (identity, ()) = tokio::join!(site.redeem(&permit, &key), passes);
    assert_eq!(identity.unwrap().permit_id, permit.id);
    let recorded = site.cluster.store().permit(&permit.id).await.unwrap().unwrap();
    assert_eq!(recorded.redeemed_at, Some(now + 122));
}
