//! Permits of jobs against a real verifier: what a quote must be bound to, and who may redeem what, how often, until when.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "permits/ends.rs"]
mod ends;
#[path = "permits/gate.rs"]
mod gate;
#[path = "permits/keys.rs"]
mod keys;
#[path = "permits/link.rs"]
mod link;
#[path = "permits/pages.rs"]
mod pages;
#[path = "permits/stamps.rs"]
mod stamps;
#[path = "permits/stated.rs"]
mod stated;

use std::{cell::Cell, sync::Arc, time::Duration};

use attestor::jobs::JobKeyPair;
use proto::{
    binding::{JobBinding, Purpose, VerifierId},
    digest::{HashAlg, PcrIndex},
    evidence::EvidenceError,
    pb,
    permit::{JobRequest, continue_message, end_message, redeem_message},
    reason::ReasonCode,
};
use swtpm_tests::{
    cluster::Cluster,
    soft_worker::{SoftWorker, tool},
};
use verifier::{
    attestation::AttestError,
    clock::{Clock, FixedClock},
    jobs::JobError,
    service::status,
    store::{ALLOW_LISTED, CertificateStatus, NodeChange},
};

const NOW: i64 = 1_900_000_000;
/// Seconds by which every node has renewed whose certificate lives for an hour.
const RENEWED_BY: i64 = 3600 * 55 / 100 + 600;
const CLAIMS: &[u8] = b"{\"job\":\"build\",\"run_id\":\"42\",\"system\":\"generic\"}";

tokio::task_local! {
    /// What the clock is set to by this task's next reading of it, which has what it was.
    static THEN: Cell<Option<i64>>;
}

/// A clock that can be set when it is read.
#[derive(Clone, Debug)]
struct TestClock(FixedClock);

impl Clock for TestClock {
    fn now_unix_s(&self) -> i64 {
        let now = self.0.now_unix_s();
        if let Ok(Some(then)) = THEN.try_with(Cell::take) {
            self.0.set(then);
        }
        now
    }
}

/// A verifier on a clock of the test's, and a worker that it admits.
struct Site {
    cluster: Cluster,
    clock: FixedClock,
    worker: SoftWorker,
}

impl Site {
    async fn start() -> Self {
        Self::start_at(NOW).await
    }

    async fn start_at(now_unix_s: i64) -> Self {
        let clock = FixedClock::at(now_unix_s);
        let cluster = Cluster::start_at(Arc::new(TestClock(clock.clone()))).await.unwrap();
        let mut worker = SoftWorker::new("w1", PcrIndex::new(14).unwrap());
        worker.tpm.measure(&tool("cc", b"compiler").unwrap());
        let allowed = Some(ALLOW_LISTED);
        cluster.add_node_as("w1", "linux", worker.ek(), allowed).await.unwrap();
        let denied = worker.attest(cluster.verifier()).await.unwrap();
        assert_eq!(codes(&denied), ["POLICY_NO_REFERENCE_VALUES"]);
        cluster.golden_from("w1", |text| text).await.unwrap();
        let mut site = Self { cluster, clock, worker };
        site.is_admitted().await;
        site
    }

    /// The node proves itself.
    async fn is_admitted(&mut self) {
        let admitted = self.worker.attest(self.cluster.verifier()).await.unwrap();
        assert_eq!(admitted.outcome(), pb::Outcome::Admit, "{admitted:?}");
    }

    /// Boots again with the compiler that the golden set names, and is admitted.
    async fn boot_again(&mut self) {
        self.worker.tpm.reset();
        self.worker.tpm.measure(&tool("cc", b"compiler").unwrap());
        self.is_admitted().await;
    }

    fn verifier_id(&self) -> VerifierId {
        self.cluster.verifier().settings().verifier_id
    }

    /// Asks for a permit with a quote that is bound as it should be.
    async fn ask(&mut self, job: &pb::JobRequest) -> pb::AttestationResult {
        let bound = JobRequest::try_from(job.clone()).unwrap().binding();
        self.ask_bound(job, Purpose::Permit(bound)).await
    }

    /// Asks for a permit with a quote that is bound to this.
    async fn ask_bound(&mut self, job: &pb::JobRequest, bound: Purpose) -> pb::AttestationResult {
        self.worker.tpm.purpose = bound;
        let result = self.worker.attest_for(self.cluster.verifier(), Some(job.clone())).await;
        self.worker.tpm.purpose = Purpose::Node;
        result.unwrap()
    }

    async fn permit(&mut self, key: &JobKeyPair) -> pb::Permit {
        let result = self.ask(&job(key)).await;
        assert!(result.certificate_chain.is_empty(), "a permit is no node certificate");
        result.permit.unwrap_or_else(|| panic!("no permit: {:?}", result.findings))
    }

    async fn redeem(
        &self,
        permit: &pb::Permit,
        key: &JobKeyPair,
    ) -> Result<pb::JobIdentity, JobError> {
        let audiences = vec!["https://registry.example".to_owned()];
        let message = redeem_message(&self.verifier_id(), &permit.secret, &audiences);
        let signature = key.sign(&message).unwrap();
        let request = pb::RedeemRequest { secret: permit.secret.clone(), audiences, signature };
        self.cluster.verifier().redeem(request).await
    }

    async fn proceed(
        &self,
        permit: &pb::Permit,
        key: &JobKeyPair,
        sequence: u64,
    ) -> Result<pb::JobIdentity, JobError> {
        let mut request = pb::ContinueRequest {
            permit_id: permit.id.clone(),
            sequence,
            secret: permit.secret.clone(),
            ..Default::default()
        };
        request.signature = key.sign(&continue_message(&self.verifier_id(), &request)).unwrap();
        self.cluster.verifier().proceed(request).await
    }

    async fn end(
        &self,
        permit: &pb::Permit,
        key: &JobKeyPair,
        sequence: u64,
    ) -> Result<(), JobError> {
        let mut request = pb::EndRequest {
            permit_id: permit.id.clone(),
            sequence,
            reason: "over".to_owned(),
            signature: Vec::new(),
            secret: permit.secret.clone(),
        };
        request.signature = key.sign(&end_message(&self.verifier_id(), &request)).unwrap();
        self.cluster.verifier().end_job(request).await
    }
}

fn job(key: &JobKeyPair) -> pb::JobRequest {
    pb::JobRequest { key: key.public().unwrap(), claims: CLAIMS.to_vec(), token: String::new() }
}

fn codes(result: &pb::AttestationResult) -> Vec<&str> {
    result.findings.iter().map(|finding| finding.code.as_str()).collect()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, JobError>, expected: ReasonCode) -> String {
    match outcome {
        Err(JobError::Refused { code, why }) if code == expected => why,
        other => panic!("{other:?}, expected {expected}"),
    }
}

#[track_caller]
fn assert_denied(result: &pb::AttestationResult, code: &str) {
    assert_eq!(codes(result), [code]);
    assert!(result.permit.is_none() && result.certificate_chain.is_empty(), "{result:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_needs_a_quote_over_its_own_key_claims_and_token() {
    let mut site = Site::start().await;
    let (key, other) = (JobKeyPair::generate().unwrap(), JobKeyPair::generate().unwrap());
    let job = job(&key);
    let bound = JobRequest::try_from(job.clone()).unwrap().binding();
    let digest = |bytes: &[u8]| HashAlg::Sha256.hash(&[bytes]);
    let wrong = [
        ("the node's own quote", Purpose::Node),
        (
            "another key",
            Purpose::Permit(JobBinding { key: digest(&other.public().unwrap()), ..bound }),
        ),
        ("other claims", Purpose::Permit(JobBinding { claims: digest(b"{}"), ..bound })),
        ("another token", Purpose::Permit(JobBinding { token: digest(b"a.b.c"), ..bound })),
    ];
    for (what, wrong) in wrong {
        let result = site.ask_bound(&job, wrong).await;
        assert_eq!(codes(&result), ["QUOTE_QUALIFYING_DATA_MISMATCH"], "{what}");
        assert!(result.permit.is_none());
    }
    // Nor does a job's quote make a node certificate.
    site.worker.tpm.purpose = Purpose::Permit(bound);
    let result = site.worker.attest(site.cluster.verifier()).await.unwrap();
    site.worker.tpm.purpose = Purpose::Node;
    assert_denied(&result, "QUOTE_QUALIFYING_DATA_MISMATCH");
    site.permit(&key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_stands_on_a_boot_that_was_proven() {
    let mut site = Site::start().await;
    let key = JobKeyPair::generate().unwrap();
    site.worker.tpm.reset();
    site.worker.tpm.measure(&tool("cc", b"compiler").unwrap());
    assert_denied(&site.ask(&job(&key)).await, "JOB_BOOT_UNPROVEN");
    let admitted = site.worker.attest(site.cluster.verifier()).await.unwrap();
    assert_eq!(admitted.outcome(), pb::Outcome::Admit, "{admitted:?}");
    site.permit(&key).await;
    // What a node is denied for, its jobs are too.
    site.worker.tpm.measure(&tool("cc", b"another compiler").unwrap());
    let denied = site.ask(&job(&key)).await;
    assert!(codes(&denied).contains(&"POLICY_TOOL_NOT_ALLOWED"), "{denied:?}");
    assert!(denied.permit.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_and_keys_that_are_none_are_refused() {
    let mut site = Site::start().await;
    let key = JobKeyPair::generate().unwrap();
    for claims in ["", "{}", "[]", "{\"job\":\"b\",\"run_id\":\"4\",\"system\":\"none\"}"] {
        let job = pb::JobRequest { claims: claims.into(), ..job(&key) };
        assert_denied(&site.ask(&job).await, "JOB_CLAIMS_INVALID");
    }
    // A point that is not on the curve has the right form.
    let mut off = key.public().unwrap();
    *off.last_mut().unwrap() ^= 1;
    let job_off = pb::JobRequest { key: off, ..job(&key) };
    assert_denied(&site.ask(&job_off).await, "JOB_KEY_INVALID");
    let short = pb::JobRequest { key: vec![4; 65], ..job(&key) };
    let outcome = site
        .cluster
        .verifier()
        .begin(pb::Hello { job: Some(short), ..site.worker.tpm.hello() })
        .await;
    match outcome {
        Err(AttestError::Evidence(EvidenceError { code: ReasonCode::JobKeyInvalid, .. })) => {}
        other => panic!("{other:?}"),
    }
    // No platform is configured: no token is believed.
    let token = pb::JobRequest { token: "a.b.c".to_owned(), ..job(&key) };
    assert_denied(&site.ask(&token).await, "PLATFORM_TOKEN_MALFORMED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_is_redeemed_once_by_its_own_key() {
    let mut site = Site::start().await;
    let (key, thief) = (JobKeyPair::generate().unwrap(), JobKeyPair::generate().unwrap());
    let permit = site.permit(&key).await;
    let unknown = pb::Permit { secret: vec![0; 32], ..permit.clone() };
    refused(site.redeem(&unknown, &key).await, ReasonCode::PermitUnknown);
    refused(site.redeem(&permit, &thief).await, ReasonCode::PermitSignatureInvalid);
    refused(site.proceed(&permit, &key, 1).await, ReasonCode::PermitUnknown);
    // What was signed for one audience is not for another, nor for another fleet.
    let message = redeem_message(&site.verifier_id(), &permit.secret, &[]);
    let request = pb::RedeemRequest {
        secret: permit.secret.clone(),
        audiences: vec!["https://other.example".to_owned()],
        signature: key.sign(&message).unwrap(),
    };
    let outcome = site.cluster.verifier().redeem(request).await;
    refused(outcome, ReasonCode::PermitSignatureInvalid);
    // Nor for what no token can be for: nothing is used up by that.
    for (audiences, code) in [
        (vec!["a"; 9], ReasonCode::EvidenceLimitExceeded),
        (vec![""], ReasonCode::EvidenceLimitExceeded),
        (vec!["a", "a"], ReasonCode::EvidenceFieldInvalid),
        (vec!["a\u{7}"], ReasonCode::EvidenceFieldInvalid),
    ] {
        let audiences: Vec<String> = audiences.into_iter().map(str::to_owned).collect();
        let message = redeem_message(&site.verifier_id(), &permit.secret, &audiences);
        let signature = key.sign(&message).unwrap();
        let request = pb::RedeemRequest { secret: permit.secret.clone(), audiences, signature };
        refused(site.cluster.verifier().redeem(request).await, code);
    }
    let identity = site.redeem(&permit, &key).await.unwrap();
    let ids: Vec<&str> = identity.x509.iter().map(|svid| svid.spiffe_id.as_str()).collect();
    let of_the_job = format!("spiffe://test.example/pool/linux/job/generic/{}", permit.id);
    assert_eq!(ids, [&of_the_job, "spiffe://test.example/pool/linux"]);
    assert_eq!(identity.jwt.len(), 2);
    // Exactly the key under the quote is certified.
    for svid in &identity.x509 {
        let leaf = svid.chain.first().unwrap();
        let public = key.public().unwrap();
        assert!(leaf.windows(public.len()).any(|window| window == public), "another key");
    }
    refused(site.redeem(&permit, &key).await, ReasonCode::PermitAlreadyRedeemed);
    // Requests are numbered, and signed by the same key.
    refused(site.proceed(&permit, &thief, 1).await, ReasonCode::PermitSignatureInvalid);
    refused(site.proceed(&permit, &key, 0).await, ReasonCode::PermitRequestReplayed);
    site.proceed(&permit, &key, 1).await.unwrap();
    refused(site.proceed(&permit, &key, 1).await, ReasonCode::PermitRequestReplayed);
    // The job has its key, and by that alone commands nothing.
    let bare = pb::Permit { secret: Vec::new(), ..permit.clone() };
    refused(site.proceed(&bare, &key, 9).await, ReasonCode::PermitUnknown);
    refused(site.end(&bare, &key, 9).await, ReasonCode::PermitUnknown);
    let other = JobKeyPair::generate().unwrap();
    let another = site.permit(&other).await;
    let mixed = pb::Permit { secret: another.secret.clone(), ..permit.clone() };
    refused(site.proceed(&mixed, &key, 9).await, ReasonCode::PermitUnknown);
    refused(site.proceed(&another, &key, 2).await, ReasonCode::PermitSignatureInvalid);
    refused(site.end(&permit, &thief, 2).await, ReasonCode::PermitSignatureInvalid);
    refused(site.end(&permit, &key, 1).await, ReasonCode::PermitRequestReplayed);
    let recorded = site.cluster.store().permit(&permit.id).await.unwrap().unwrap();
    site.end(&permit, &key, 2).await.unwrap();
    let why = refused(site.proceed(&permit, &key, 3).await, ReasonCode::PermitEnded);
    assert!(why.contains("over"), "{why}");
    // What the job was given is worth nothing any more either.
    let certificates = site.cluster.store().certificates("w1", 10).await.unwrap();
    let its: Vec<_> =
        certificates.iter().filter(|one| one.decision_id == recorded.decision_id).collect();
    assert_eq!(its.len(), 2);
    assert!(its.iter().all(|one| one.status == CertificateStatus::Revoked), "{its:?}");
}

/// By a clock that went back a little: the verifier found that the permit had ended, stated nothing, and finds that it stands.
#[tokio::test(flavor = "multi_thread")]
async fn a_permit_that_comes_to_stand_while_it_is_redeemed_is_not_redeemed_without_statements() {
    let mut site = Site::start().await;
    site.cluster.configure("jobs", "max_duration = \"60s\"\n").await.unwrap();
    let key = JobKeyPair::generate().unwrap();
    let permit = site.permit(&key).await;
    site.clock.set(NOW + 60);
    // Read when the request comes, and again when the permit is about to be used.
    let then = Cell::new(Some(NOW + 57));
    let refused = THEN.scope(then, site.redeem(&permit, &key)).await;
    let came_to_stand = AttestError::PermitCameToStand;
    match &refused {
        Err(JobError::Failed(error)) if error.to_string() == came_to_stand.to_string() => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(status::attest(&came_to_stand).code(), tonic::Code::Aborted);
    let recorded = site.cluster.store().permit(&permit.id).await.unwrap().unwrap();
    assert_eq!(recorded.redeemed_at, None);
    let identity = site.redeem(&permit, &key).await.unwrap();
    assert_eq!(identity.statements.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_ends_with_the_boot_that_it_was_given_to() {
    let mut site = Site::start().await;
    let key = JobKeyPair::generate().unwrap();
    let permit = site.permit(&key).await;
    site.redeem(&permit, &key).await.unwrap();
    site.proceed(&permit, &key, 1).await.unwrap();
    site.boot_again().await;
    let why = refused(site.proceed(&permit, &key, 2).await, ReasonCode::PermitEnded);
    assert!(why.contains("another TPM or boot"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_ends_in_time_and_with_its_node() {
    let mut site = Site::start().await;
    let (late, long, revoked) = (
        JobKeyPair::generate().unwrap(),
        JobKeyPair::generate().unwrap(),
        JobKeyPair::generate().unwrap(),
    );
    let permit = site.permit(&late).await;
    site.clock.set(NOW + 121);
    refused(site.redeem(&permit, &late).await, ReasonCode::PermitExpired);
    let permit = site.permit(&long).await;
    site.redeem(&permit, &long).await.unwrap();
    // An hour and more without a renewal of the node.
    site.clock.set(NOW + 121 + 3661);
    let why = refused(site.proceed(&permit, &long, 1).await, ReasonCode::PermitEnded);
    assert!(why.contains("has not renewed"), "{why}");
    let permit = site.permit(&revoked).await;
    site.redeem(&permit, &revoked).await.unwrap();
    let (revoke, by) = (NodeChange::Revoke { reason: "a test".to_owned() }, site.cluster.by());
    site.cluster.store().change_node("w1", None, revoke, by).await.unwrap();
    let why = refused(site.proceed(&permit, &revoked, 1).await, ReasonCode::PermitEnded);
    assert!(why.contains("is revoked"), "{why}");
}
