//! What is stated of a job is stamped before its permit is used: by an authority of the site here, which may not answer.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use attestor::{
    jobs::{JobKeyPair, Line, Link},
    trust::{Learned, Trust},
};
use proto::reason::ReasonCode;
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

/// An authority with the verifier's clock.
struct Authority {
    folder: tempfile::TempDir,
    url: String,
    /// Requests that came.
    asked: Arc<AtomicUsize>,
    /// Milliseconds until it answers; more than any for never.
    delay: Arc<AtomicU64>,
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
        let signer = ResultsSigner::new(issuer, domain, own, others).unwrap();
        let (asked, delay) = (Arc::<AtomicUsize>::default(), Arc::<AtomicU64>::default());
        let (count, wait, clock) = (Arc::clone(&asked), Arc::clone(&delay), clock.clone());
        let address = timestamp_server::serve(move |body| {
            count.fetch_add(1, Ordering::SeqCst);
            match wait.load(Ordering::SeqCst) {
                u64::MAX => return None,
                delay => std::thread::sleep(Duration::from_millis(delay)),
            }
            let request = results::timestamp::Request::parse(&body).unwrap();
            let reply = signer.authority().answer_at(Some(&request), clock.now_unix_s()).unwrap();
            Some((timestamp_server::HEAD.to_owned(), reply))
        });
        let url = format!("http://{}/", address.await.unwrap());
        Self { folder, url, asked, delay }
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("tsa.pem")
    }

    /// How often it was asked since the last call.
    fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::SeqCst)
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
    while authority.asked.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    authority.asked();
    (site, authority)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_that_was_not_stamped_for_can_be_redeemed_again_and_one_that_may_not_begin_costs_nothing()
 {
    let (mut site, authority) = site().await;
    let key = JobKeyPair::generate().unwrap();
    let permit = site.permit(&key).await;
    authority.delay.store(u64::MAX, Ordering::SeqCst);
    let failed = site.redeem(&permit, &key).await;
    assert!(matches!(failed, Err(JobError::Failed(AttestError::Result(_)))), "{failed:?}");
    assert!(authority.asked() > 2, "it is asked again");
    let recorded = site.cluster.store().permit(&permit.id).await.unwrap().unwrap();
    assert_eq!((recorded.state, recorded.redeemed_at), (PermitState::Issued, None));
    authority.delay.store(0, Ordering::SeqCst);
    let identity = site.redeem(&permit, &key).await.unwrap();
    assert_eq!((identity.statements.len(), authority.asked()), (2, 2));
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
    assert_eq!(authority.asked(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redemption_is_one_and_goes_on_where_its_caller_hangs_up() {
    let (mut site, authority) = site().await;
    let key = JobKeyPair::generate().unwrap();
    let permit = site.permit(&key).await;
    authority.delay.store(400, Ordering::SeqCst);
    // Over the wire, by somebody who does not wait; then again, and again.
    let address = site.cluster.running().address;
    let trust = Trust::CaFile(site.cluster.folder().join("state/bundle.pem"));
    let learned = watch::channel(Learned::default()).1;
    let link = Link::new(format!("https://{address}"), trust, learned);
    let id = site.verifier_id();
    let line = Line::new(link, key, id, permit.id.clone(), permit.secret.clone());
    let hung_up = timeout(Duration::from_millis(300), line.redeem(Vec::new())).await;
    assert!(hung_up.is_err(), "{hung_up:?}");
    // Meanwhile it is under way; it is asked once more, and used by then.
    let busy = line.redeem(Vec::new()).await.unwrap_err().to_string();
    assert!(busy.contains("being redeemed already"), "{busy}");
    let mut state = PermitState::Issued;
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        state = site.cluster.store().permit(&permit.id).await.unwrap().unwrap().state;
        if state != PermitState::Issued {
            break;
        }
    }
    assert_eq!((state, authority.asked()), (PermitState::Redeemed, 2));
    let again = line.redeem(Vec::new()).await.unwrap_err().to_string();
    assert!(again.contains("redeemed before") || again.contains("already"), "{again}");
    assert_eq!(authority.asked(), 0);
}

/// As a worker does that gave the redemption up: whichever comes first, no job has the permit.
#[tokio::test(flavor = "multi_thread")]
async fn a_permit_that_ends_while_its_statements_are_stamped_is_not_redeemed() {
    let (mut site, authority) = site().await;
    let key = JobKeyPair::generate().unwrap();
    let permit = site.permit(&key).await;
    authority.delay.store(1500, Ordering::SeqCst);
    let end = async {
        while authority.asked.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        site.end(&permit, &key, 1).await.unwrap();
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
    authority.delay.store(600, Ordering::SeqCst);
    let passes = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        clock.set(now + 122);
    });
    let identity = site.redeem(&permit, &key).await.unwrap();
    passes.await.unwrap();
    assert_eq!(identity.permit_id, permit.id);
    let recorded = site.cluster.store().permit(&permit.id).await.unwrap().unwrap();
    assert_eq!(recorded.redeemed_at, Some(now + 122));
}
