//! What ends a permit that waits or goes on: another set in force, and a denial of its node, whoever asked and recorded or not.

use super::*;

impl Site {
    /// Another content of the compiler, in the same boot.
    fn change_compiler(&mut self, content: &str) {
        self.worker.tpm.measure(&tool("cc", content.as_bytes()).unwrap());
    }
}

/// The set that denies the compiler comes into force between the permit and its redemption.
#[tokio::test(flavor = "multi_thread")]
async fn a_permit_that_waits_is_worth_nothing_once_another_set_is_in_force() {
    let mut site = Site::start().await;
    let [key, other] = [0; 2].map(|_| JobKeyPair::generate().unwrap());
    let permit = site.permit(&key).await;
    let [good, another] = [b"compiler".as_slice(), b"another"]
        .map(|content| tool("cc", content).unwrap().digest().to_string());
    let edit = |text: String| {
        let edited = text.replace(&good, &another);
        assert_ne!(edited, text);
        edited
    };
    site.cluster.golden_from("w1", edit).await.unwrap();
    let why = refused(site.redeem(&permit, &key).await, ReasonCode::PermitGroundsChanged);
    assert!(why.contains("golden sets changed") && why.contains("ask for another"), "{why}");
    let recorded = site.cluster.store().permit(&permit.id).await.unwrap().unwrap();
    assert_eq!(recorded.redeemed_at, None);
    let certificates = site.cluster.store().certificates("w1", 10).await.unwrap();
    assert!(certificates.iter().all(|one| one.decision_id != recorded.decision_id));
    refused(site.redeem(&permit, &key).await, ReasonCode::PermitEnded);
    let denied = site.ask(&job(&other)).await;
    assert!(codes(&denied).contains(&"POLICY_TOOL_NOT_ALLOWED"), "{denied:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_runs_goes_on_until_its_node_should_have_been_judged_by_another_set() {
    let mut site = Site::start().await;
    let key = JobKeyPair::generate().unwrap();
    let permit = site.permit(&key).await;
    site.redeem(&permit, &key).await.unwrap();
    site.cluster.golden_from("w1", |text| text).await.unwrap();
    site.clock.set(NOW + RENEWED_BY - 1);
    site.proceed(&permit, &key, 1).await.unwrap();
    site.is_admitted().await;
    site.clock.set(NOW + RENEWED_BY);
    site.proceed(&permit, &key, 2).await.unwrap();
    // It was judged by that, and is not by what follows.
    site.cluster.golden_from("w1", |text| text).await.unwrap();
    site.clock.set(NOW + 2 * RENEWED_BY);
    let ended = site.proceed(&permit, &key, 3).await;
    refused(ended, ReasonCode::PermitGroundsChanged);
    refused(site.proceed(&permit, &key, 4).await, ReasonCode::PermitEnded);
}

/// A job's quote is its node's too.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_denied_for_its_node_ends_the_others_and_one_denied_for_itself_does_not() {
    let mut site = Site::start().await;
    let rule = "schema = \"assay.policy/v1\"\nname = \"jobs\"\nversion = 1\npools = [\"linux\"]\n[[rule]]\nname = \
                \"r\"\nat = \"job\"\nmessage = \"m\"\nexpr = 'job.claims[\"run_id\"] == \"42\"'\n";
    site.cluster.put_in_force(rule).await.unwrap();
    let [runs, waits, other] = [0; 3].map(|_| JobKeyPair::generate().unwrap());
    let (running, waiting) = (site.permit(&runs).await, site.permit(&waits).await);
    site.redeem(&running, &runs).await.unwrap();
    let claims = String::from_utf8(CLAIMS.to_vec()).unwrap().replace("42", "43");
    let against_the_rule = pb::JobRequest { claims: claims.into_bytes(), ..job(&other) };
    assert_denied(&site.ask(&against_the_rule).await, "POLICY_RULE_FALSE");
    let none = pb::JobRequest { claims: b"{}".to_vec(), ..job(&other) };
    assert!(codes(&site.ask(&none).await).contains(&"JOB_CLAIMS_INVALID"));
    site.proceed(&running, &runs, 1).await.unwrap();
    site.change_compiler("another compiler");
    let denied = site.ask(&job(&other)).await;
    assert!(codes(&denied).contains(&"POLICY_TOOL_NOT_ALLOWED"), "{denied:?}");
    for refusal in [site.proceed(&running, &runs, 2).await, site.redeem(&waiting, &waits).await] {
        let why = refused(refusal, ReasonCode::PermitEnded);
        assert!(why.contains("was denied since"), "{why}");
    }
}

/// What bounds the record does not bound what a denial ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_denial_that_is_not_recorded_ends_permits_too() {
    let mut site = Site::start().await;
    let mut number = 0;
    let denied = async |site: &mut Site, number: u32| {
        site.change_compiler(&format!("compiler {number}"));
        let denied = site.worker.attest(site.cluster.verifier()).await.unwrap();
        assert!(codes(&denied).contains(&"POLICY_TOOL_NOT_ALLOWED"), "{denied:?}");
        denied.decision_id
    };
    while !denied(&mut site, number).await.is_empty() {
        number += 1;
        assert!(number < 100, "denials of one node are recorded without a bound");
    }
    site.boot_again().await;
    let [runs, waits] = [0; 2].map(|_| JobKeyPair::generate().unwrap());
    let (running, waiting) = (site.permit(&runs).await, site.permit(&waits).await);
    site.redeem(&running, &runs).await.unwrap();
    assert_eq!(denied(&mut site, number).await, "", "it is not recorded");
    for refusal in [site.proceed(&running, &runs, 1).await, site.redeem(&waiting, &waits).await] {
        let why = refused(refusal, ReasonCode::PermitEnded);
        assert!(why.contains("was denied since"), "{why}");
    }
}
