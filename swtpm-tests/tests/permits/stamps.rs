//! Time stamps of a permit's job: over what its own key signed, while the permit stands.

use proto::permit::timestamp_message;
use results::{
    Sha256Digest,
    timestamp::{self, Response},
};

use super::*;

/// What jobs sign.
const CONTENT: &[u8] = b"artifact";

impl Site {
    /// Has what `signer` signs stamped by a permit of `key`; `change` spoils the request before it is signed.
    async fn stamp(
        &self,
        permit: &pb::Permit,
        key: &JobKeyPair,
        signer: &JobKeyPair,
        change: impl FnOnce(&mut pb::TimestampRequest),
    ) -> Result<Vec<u8>, JobError> {
        let signature = signer.sign(CONTENT).unwrap();
        let asked = timestamp::Request::new(Sha256Digest::of(&signature), &[7; 16]).unwrap();
        let mut request = pb::TimestampRequest {
            request: asked.to_der().unwrap(),
            permit_id: permit.id.clone(),
            secret: permit.secret.clone(),
            content_sha256: Sha256Digest::of(CONTENT).as_bytes().to_vec(),
            content_signature: signature,
            signature: Vec::new(),
        };
        change(&mut request);
        request.signature = key.sign(&timestamp_message(&self.verifier_id(), &request)).unwrap();
        self.cluster.verifier().stamp(request).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_are_stamped_while_their_permit_stands_and_not_after() {
    let mut site = Site::start().await;
    let [key, other, thief] = [0; 3].map(|_| JobKeyPair::generate().unwrap());
    let permit = site.permit(&key).await;
    let as_it_is = |_: &mut pb::TimestampRequest| {};
    // Not before a job began by it.
    let why = refused(site.stamp(&permit, &key, &key, as_it_is).await, ReasonCode::PermitUnknown);
    assert!(why.contains("not redeemed"), "{why}");
    site.redeem(&permit, &key).await.unwrap();
    let stamped = site.stamp(&permit, &key, &key, as_it_is).await.unwrap();
    Response::parse(&stamped).unwrap();
    // Signatures of others, over other content, requests about other bytes.
    let foreign = ReasonCode::PermitTimestampForeign;
    refused(site.stamp(&permit, &key, &thief, as_it_is).await, foreign);
    let digest = |request: &mut pb::TimestampRequest| request.content_sha256 = vec![0; 32];
    refused(site.stamp(&permit, &key, &key, digest).await, foreign);
    let short = |request: &mut pb::TimestampRequest| request.content_sha256.truncate(31);
    refused(site.stamp(&permit, &key, &key, short).await, foreign);
    let theirs = |request: &mut pb::TimestampRequest| {
        let theirs = timestamp::Request::new(Sha256Digest::of(b"theirs"), &[7; 16]).unwrap();
        request.request = theirs.to_der().unwrap();
    };
    refused(site.stamp(&permit, &key, &key, theirs).await, foreign);
    let long = |request: &mut pb::TimestampRequest| request.request = vec![0; 1025];
    let limit = ReasonCode::EvidenceLimitExceeded;
    refused(site.stamp(&permit, &key, &key, long).await, limit);
    // Nobody but who has secret and key commands the permit.
    let bare = pb::Permit { secret: Vec::new(), ..permit.clone() };
    refused(site.stamp(&bare, &key, &key, as_it_is).await, ReasonCode::PermitUnknown);
    let invalid = ReasonCode::PermitSignatureInvalid;
    refused(site.stamp(&permit, &thief, &key, as_it_is).await, invalid);
    // It ends, as for a changed tool, long before its certificate does.
    site.end(&permit, &key, 1).await.unwrap();
    let ended = ReasonCode::PermitEnded;
    let why = refused(site.stamp(&permit, &key, &key, as_it_is).await, ended);
    assert!(why.contains("over"), "{why}");
    // Another job's permit does not help its key.
    let another = site.permit(&other).await;
    site.redeem(&another, &other).await.unwrap();
    refused(site.stamp(&another, &other, &key, as_it_is).await, foreign);
    site.stamp(&another, &other, &other, as_it_is).await.unwrap();
    // Nobody said anything of the permit yet: a clock that went back before its redemption, its node that has not renewed, is
    // revoked, its time that is up.
    site.clock.set(NOW - 1);
    let why =
        refused(site.stamp(&another, &other, &other, as_it_is).await, ReasonCode::PermitUnknown);
    assert!(why.contains("not redeemed"), "{why}");
    site.clock.set(NOW + 3660);
    site.stamp(&another, &other, &other, as_it_is).await.unwrap();
    site.clock.set(NOW + 3661);
    let why = refused(site.stamp(&another, &other, &other, as_it_is).await, ended);
    assert!(why.contains("has not renewed its proof"), "{why}");
    let (revoke, by) = (NodeChange::Revoke { reason: "a test".to_owned() }, site.cluster.by());
    site.cluster.store().change_node("w1", None, revoke, by).await.unwrap();
    let why = refused(site.stamp(&another, &other, &other, as_it_is).await, ended);
    assert!(why.contains("is revoked"), "{why}");
    site.clock.set(NOW + 30 * 24 * 3600);
    let why = refused(site.stamp(&another, &other, &other, as_it_is).await, ended);
    assert!(why.contains("its time is up"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_stamped_after_a_denial_or_long_after_what_judges_changed() {
    let mut site = Site::start().await;
    let [key, other] = [0; 2].map(|_| JobKeyPair::generate().unwrap());
    let as_it_is = |_: &mut pb::TimestampRequest| {};
    let permit = site.permit(&key).await;
    site.redeem(&permit, &key).await.unwrap();
    site.cluster.golden_from("w1", |text| text).await.unwrap();
    site.clock.set(NOW + RENEWED_BY - 1);
    site.stamp(&permit, &key, &key, as_it_is).await.unwrap();
    site.clock.set(NOW + RENEWED_BY);
    let stamped = site.stamp(&permit, &key, &key, as_it_is).await;
    refused(stamped, ReasonCode::PermitGroundsChanged);
    let permit = site.permit(&other).await;
    site.redeem(&permit, &other).await.unwrap();
    site.worker.tpm.measure(&tool("cc", b"another compiler").unwrap());
    let denied = site.worker.attest(site.cluster.verifier()).await.unwrap();
    assert!(codes(&denied).contains(&"POLICY_TOOL_NOT_ALLOWED"), "{denied:?}");
    let stamped = site.stamp(&permit, &other, &other, as_it_is).await;
    let why = refused(stamped, ReasonCode::PermitEnded);
    assert!(why.contains("was denied"), "{why}");
}
