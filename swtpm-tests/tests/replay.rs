//! Every recorded decision is judged again from the record alone, and gives the same bytes.

use std::{collections::HashMap, sync::Arc};

use appraisal::{ima::Manifest, policy::Manifests};
use attestor::{jobs::JobKeyPair, tpm::EkPreference};
use proto::{digest::Digest, pb};
use swtpm_tests::{
    cluster::{AnyError, Cluster, Tools, Worker, assert_denied, booted, ek_of},
    firmware::Firmware,
    raw::Bank,
    swtpm::{Swtpm, SwtpmOptions},
};
use verifier::{
    case::{CaseObjects, ReplayError, replay},
    objects::Objects,
    store::{DecisionFilter, DocumentKind, RecordedDecision, Store},
};

/// Objects and reference documents of a store, read as an auditor reads a copy of it.
struct Recorded {
    objects: Objects,
    documents: HashMap<Digest, Vec<u8>>,
    manifests: Manifests,
}

impl Recorded {
    async fn of(store: &Store) -> Result<Self, AnyError> {
        let mut documents = HashMap::new();
        for kind in [DocumentKind::Golden, DocumentKind::Policy] {
            for known in store.documents(kind).await? {
                let digest = proto::digest::HashAlg::Sha256.hash(&[&known.document]);
                documents.insert(digest, known.document);
            }
        }
        let mut manifests = Manifests::new();
        for listed in store.manifests().await? {
            let document = store.manifest(&listed.sha256).await?.ok_or("a listed manifest")?;
            manifests.insert(listed.sha256, Arc::new(Manifest::parse(&document)?));
        }
        Ok(Self { objects: store.objects().clone(), documents, manifests })
    }
}

impl CaseObjects for Recorded {
    fn object(&self, what: &'static str, digest: &Digest) -> Result<Vec<u8>, ReplayError> {
        self.objects.get(digest).map_err(|_| ReplayError::Missing { what, digest: *digest })
    }

    fn document(&self, digest: &Digest) -> Result<Vec<u8>, ReplayError> {
        let missing = ReplayError::Missing { what: "reference document", digest: *digest };
        self.documents.get(digest).cloned().ok_or(missing)
    }

    fn manifest(&self, digest: &Digest) -> Result<Arc<Manifest>, ReplayError> {
        let missing = ReplayError::Missing { what: "manifest", digest: *digest };
        self.manifests.get(digest).cloned().ok_or(missing)
    }
}

/// Replays all decisions, oldest first; returns their outcomes and codes.
async fn replay_all(store: &Store) -> Vec<(String, Vec<String>)> {
    let recorded = Recorded::of(store).await.expect("record");
    let mut decisions: Vec<RecordedDecision> =
        store.decisions(&DecisionFilter::default()).await.expect("decisions");
    decisions.reverse();
    let mut seen = Vec::new();
    for RecordedDecision { decision, .. } in decisions {
        let case = store.case(&decision.id).await.expect("case").expect("kept");
        let verdict = store.verdict(&decision.id).await.expect("verdict").expect("kept");
        let again = replay(&case, &recorded).expect("replays");
        assert_eq!(
            String::from_utf8_lossy(&again),
            String::from_utf8_lossy(&verdict),
            "decision {}",
            decision.id
        );
        seen.push((decision.outcome.as_str().to_owned(), decision.codes));
    }
    seen
}

/// A worker of pool `linux` that is in the inventory, and of which nothing is expected yet.
struct Site {
    tpm: Swtpm,
    cluster: Cluster,
    tools: Tools,
    worker: Worker,
}

async fn site() -> Site {
    let tpm = booted(Swtpm::start(SwtpmOptions::default()).expect("swtpm")).expect("boot");
    let cluster = Cluster::start().await.expect("verifier");
    cluster.trust(tpm.manufacturer()).await.expect("root");
    let ek = ek_of(&tpm.tcti(), EkPreference::Auto).await.expect("ek");
    cluster.add_node("w1", "linux", ek).await.expect("node");
    let tools = Tools::new().expect("tools");
    let worker = cluster.worker(&tpm.tcti(), &tools).await.expect("worker");
    Site { tpm, cluster, tools, worker }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_decision_of_a_site_re_derives_byte_for_byte() {
    let Site { tpm, cluster, tools, mut worker } = site().await;
    // No golden set.
    worker.denied(&["POLICY_NO_REFERENCE_VALUES"]).await;
    cluster.golden_from("w1", |text| text).await.expect("golden");
    // Admission, steady renewal, a tool that changes and comes back.
    worker.admitted().await;
    worker.admitted().await;
    tools.write("cc1", b"compiler proper 12.2.0 with a gift").expect("tamper");
    worker.denied(&["POLICY_TOOL_NOT_ALLOWED"]).await;
    tools.write("cc1", b"compiler proper 12.2.0").expect("restore");
    worker.admitted().await;
    // Somebody extends the tool PCR behind the log's back: an integrity denial.
    let pcr = cluster.verifier().settings().tool_pcr.get();
    tpm.raw().pcr_extend_data(pcr, &[Bank::Sha256], b"behind the log's back").expect("extend");
    worker.denied(&["TOOL_LOG_REPLAY_MISMATCH"]).await;
    // A new boot.
    tpm.reset().expect("reset");
    Firmware::default().boot_swtpm(&tpm).expect("boot");
    worker.admitted().await;
    let seen = replay_all(cluster.store()).await;
    let codes: Vec<String> = seen.iter().map(|(_, codes)| codes.join(" ")).collect();
    for wanted in
        ["", "POLICY_NO_REFERENCE_VALUES", "POLICY_TOOL_NOT_ALLOWED", "TOOL_LOG_REPLAY_MISMATCH"]
    {
        assert!(codes.iter().any(|code| code == wanted), "{wanted:?} in {seen:?}");
    }
    assert!(seen.iter().filter(|(outcome, _)| outcome == "admitted").count() >= 4, "{seen:?}");
    worker.stop().await;
}

/// A case that is damaged, or whose objects are gone, gives no verdict.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_gives_no_verdict() {
    let Site { tpm: _tpm, cluster, tools: _tools, mut worker } = site().await;
    worker.denied(&["POLICY_NO_REFERENCE_VALUES"]).await;
    cluster.golden_from("w1", |text| text).await.expect("golden");
    let admitted = worker.admitted().await.result.decision_id;
    let case = cluster.store().case(&admitted).await.expect("case").expect("kept");
    let mut recorded = Recorded::of(cluster.store()).await.expect("record");
    replay(&case, &recorded).expect("replays");
    recorded.documents.clear();
    let missing = replay(&case, &recorded).expect_err("no golden set");
    assert!(
        matches!(missing, ReplayError::Missing { what: "reference document", .. }),
        "{missing}"
    );
    let cut = replay(&case[..case.len() / 2], &recorded).expect_err("damaged");
    assert!(matches!(cut, ReplayError::Damaged(_)), "{cut}");
    assert!(matches!(replay(&[], &recorded), Err(ReplayError::Damaged(_))));
    worker.stop().await;
}

/// What a job was taken for, and what stood against it, is in the record; its token is not.
#[tokio::test(flavor = "multi_thread")]
async fn decisions_about_jobs_are_judged_again_without_their_tokens() {
    let Site { tpm: _tpm, cluster, tools: _tools, mut worker } = site().await;
    worker.denied(&["POLICY_NO_REFERENCE_VALUES"]).await;
    cluster.golden_from("w1", |text| text).await.expect("golden");
    worker.admitted().await;
    let key = JobKeyPair::generate().expect("a key");
    let claims = br#"{"job":"build","run_id":"42","system":"generic"}"#.to_vec();
    let job = |token: &str| pb::JobRequest {
        key: key.public().expect("a key"),
        claims: claims.clone(),
        token: token.to_owned(),
    };
    let admitted = worker.attester.permit(job("")).await.expect("a verdict");
    assert!(admitted.result.permit.is_some(), "{:?}", admitted.result);
    let denied = worker.attester.permit(job("a.secret.token")).await.expect("a verdict");
    assert_denied(&denied.result, &["PLATFORM_TOKEN_MALFORMED"]);
    let seen = replay_all(cluster.store()).await;
    let codes: Vec<&[String]> = seen.iter().map(|(_, codes)| codes.as_slice()).collect();
    assert_eq!(codes[2..], [&[][..], &["PLATFORM_TOKEN_MALFORMED".to_owned()][..]]);
    let case = cluster.store().case(&denied.result.decision_id).await.expect("case").expect("kept");
    let secret = b"a.secret.token";
    assert!(!case.windows(secret.len()).any(|window| window == secret), "the token is kept");
    worker.stop().await;
}
