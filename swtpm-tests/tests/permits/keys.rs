//! JWT-SVIDs while the key that signs them is replaced: the service publishes, signs and drops, and every token verifies.

use jose::{
    jwk::JwkSet,
    spiffe_bundle::Bundle,
    svid::{JwtSvid, SvidError, SvidRules, validate},
};
use verifier::jwt_key::{KEPT, lead, rotate};

use super::{pages::fetched, *};

const AUDIENCE: &str = "https://registry.example";

/// A job at a verifier whose bundle anybody can fetch.
struct Job {
    site: Site,
    permit: pb::Permit,
    key: JobKeyPair,
    sequence: u64,
    now_unix_s: i64,
}

impl Job {
    async fn start() -> Self {
        let mut site = Site::start().await;
        site.cluster.configure("service", "web_listen = \"127.0.0.1:0\"").await.unwrap();
        let key = JobKeyPair::generate().unwrap();
        let permit = site.permit(&key).await;
        site.redeem(&permit, &key).await.unwrap();
        Self { site, permit, key, sequence: 0, now_unix_s: NOW }
    }

    fn at(&mut self, now_unix_s: i64) {
        self.now_unix_s = now_unix_s;
        self.site.clock.set(now_unix_s);
    }

    /// A new token, and the names of the keys that jobs are told of with it.
    async fn token(&mut self) -> (String, Vec<String>) {
        self.sequence += 1;
        let mut request = pb::ContinueRequest {
            permit_id: self.permit.id.clone(),
            sequence: self.sequence,
            secret: self.permit.secret.clone(),
            audiences: vec![AUDIENCE.to_owned()],
            ..Default::default()
        };
        let message = continue_message(&self.site.verifier_id(), &request);
        request.signature = self.key.sign(&message).unwrap();
        let identity = self.site.cluster.verifier().proceed(request).await.unwrap();
        (identity.jwt[0].token.clone(), names(&JwkSet::parse(&identity.jwt_bundle).unwrap()))
    }

    /// The bundle as relying parties fetch it.
    async fn bundle(&self) -> Bundle {
        let (status, _, body) = fetched(&self.site, "/spiffe/bundle.json").await;
        assert_eq!(status, 200);
        Bundle::parse(&body).unwrap()
    }

    fn judged(&self, token: &str, bundle: &Bundle) -> Result<JwtSvid, SvidError> {
        let trust_domain = &"test.example".parse().unwrap();
        let rules = SvidRules { trust_domain, audience: AUDIENCE, leeway_s: 0 };
        validate(token, bundle, &rules, self.now_unix_s)
    }

    /// The key that signed this token, by the bundle of now.
    async fn signer(&self, token: &str) -> String {
        self.judged(token, &self.bundle().await).unwrap().key_id().to_owned()
    }

    fn state(&self) -> std::path::PathBuf {
        self.site.cluster.folder().join("state")
    }
}

fn names(keys: &JwkSet) -> Vec<String> {
    keys.keys().iter().map(|key| key.id().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_verify_while_their_key_is_replaced() {
    let mut job = Job::start().await;
    let rotation = rotate(&job.state(), NOW, false).unwrap();
    job.site.cluster.running().reload().await.unwrap();
    // Published, to relying parties and to jobs, and not used.
    let fetched_early = job.bundle().await;
    let both = [rotation.former.clone(), rotation.current.clone()];
    assert_eq!(names(fetched_early.jwt_authorities()), both);
    let (token, told) = job.token().await;
    assert_eq!((job.signer(&token).await, told), (rotation.former.clone(), both.to_vec()));

    let lead_s = i64::try_from(lead(Duration::from_secs(15)).as_secs()).unwrap();
    job.at(NOW + lead_s - 1);
    job.site.cluster.running().reload().await.unwrap();
    let (last, _) = job.token().await;
    assert_eq!(job.signer(&last).await, rotation.former);
    // Without a reload, by the clock alone.
    job.at(NOW + lead_s);
    let mut first = job.token().await.0;
    for _ in 0..1200 {
        if job.signer(&first).await == rotation.current {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        first = job.token().await.0;
    }
    assert_eq!(job.signer(&first).await, rotation.current);
    // Who fetched the bundle before anything was signed needs no other.
    assert_eq!(job.judged(&first, &fetched_early).unwrap().key_id(), rotation.current);
    // To the last second of what the former key signed.
    job.at(NOW + lead_s - 1 + 299);
    assert_eq!(job.signer(&last).await, rotation.former);

    let kept_s = i64::try_from(KEPT.as_secs()).unwrap();
    job.at(NOW + lead_s + kept_s);
    assert_eq!(names(job.bundle().await.jwt_authorities()), [rotation.current.as_str()]);
    let (token, told) = job.token().await;
    assert_eq!(
        (job.signer(&token).await, told),
        (rotation.current.clone(), vec![rotation.current])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_compromised_is_trusted_no_more() {
    let mut job = Job::start().await;
    let (token, _) = job.token().await;
    let rotation = rotate(&job.state(), NOW, true).unwrap();
    assert_eq!(job.signer(&token).await, rotation.former);
    job.site.cluster.running().reload().await.unwrap();
    let bundle = job.bundle().await;
    assert_eq!(names(bundle.jwt_authorities()), [rotation.current.as_str()]);
    assert_eq!(job.judged(&token, &bundle).unwrap_err().code(), "JWS_KEY_UNKNOWN");
    let (token, told) = job.token().await;
    assert_eq!(
        (job.signer(&token).await, told),
        (rotation.current.clone(), vec![rotation.current])
    );
}

/// A file that cannot be used is told of, and what was in force goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_finds_no_keys_keeps_those_in_force() {
    let mut job = Job::start().await;
    let (_, told) = job.token().await;
    std::fs::write(job.state().join("jwt.key"), "signing nonsense\n").unwrap();
    let error = job.site.cluster.running().reload().await.unwrap_err();
    assert!(verifier::service::status::chain(&error).contains("jwt.key, line 1: "), "{error}");
    let (token, still) = job.token().await;
    assert_eq!((vec![job.signer(&token).await], still), (told.clone(), told));
}
