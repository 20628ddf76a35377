//! The life of documents through a verifier in this process: every refusal, and that none leaves anything half done.

use std::sync::Arc;

use proto::digest::HashAlg;

use super::*;
use crate::{
    attestation::{
        Verifier,
        testing::{verifier, verifier_after},
    },
    expectations::testing::{golden_text, policy_text},
    signatures::{
        Algorithm, ApprovalError, Envelope, PayloadType, SecurityPrivateKey, Signature,
        SuccessorError,
    },
    store::{
        DocumentId, DocumentKind, DocumentState, Store, StoreError,
        testing::{self, by},
    },
};

/// Whoever holds a key.
struct Holder {
    name: &'static str,
    key: SecurityPrivateKey,
}

fn holder(name: &'static str) -> Holder {
    let pem = SecurityPrivateKey::generate(Algorithm::Ed25519).expect("a key");
    Holder { name, key: SecurityPrivateKey::from_pem(&pem).expect("it loads") }
}

fn ring_text(version: u64, threshold: usize, holders: &[&Holder]) -> String {
    let keys: String = holders
        .iter()
        .map(|holder| {
            let pem = holder.key.public().to_pem();
            format!("[[key]]\nname = {:?}\npem = \"\"\"\n{pem}\"\"\"\n", holder.name)
        })
        .collect();
    format!(
        "schema = \"assay.keys/v1\"\nname = \"security\"\nversion = {version}\nthreshold = {threshold}\n{keys}"
    )
}

/// A verifier with a ring of 2 of 3.
struct Site {
    _folder: tempfile::TempDir,
    verifier: Arc<Verifier>,
    alice: Holder,
    bob: Holder,
    carol: Holder,
}

impl Site {
    async fn new() -> Self {
        let (alice, bob, carol) = (holder("alice"), holder("bob"), holder("carol"));
        let text = ring_text(1, 2, &[&alice, &bob, &carol]);
        let first = HashAlg::Sha256.hash(&[text.as_bytes()]);
        let (folder, store) = testing::store().await;
        let verifier = verifier_after(store, &folder.path().join("ca"), Some(first)).await;
        let site = Self { _folder: folder, verifier, alice, bob, carol };
        let ring = site.verifier.read_document(&text).await.expect("a ring");
        let adopted = site.store().adopt_keys(ring.into_new(false, "a test"), by()).await;
        assert!(adopted.expect("kept"));
        site
    }

    async fn without_ring() -> Self {
        let (folder, store) = testing::store().await;
        let verifier = verifier(store, &folder.path().join("ca")).await;
        let (alice, bob, carol) = (holder("alice"), holder("bob"), holder("carol"));
        Self { _folder: folder, verifier, alice, bob, carol }
    }

    fn store(&self) -> &Store {
        self.verifier.store()
    }

    /// Proposes a text with these signatures.
    async fn offer(&self, text: &str, signers: &[&Holder]) -> Result<DocumentId, DocumentError> {
        let envelope = match signers {
            [] => Vec::new(),
            _ => self.envelope(text, signers).await.to_json().into_bytes(),
        };
        self.offer_with(text, envelope).await
    }

    async fn offer_with(&self, text: &str, envelope: Vec<u8>) -> Result<DocumentId, DocumentError> {
        let text = text.to_owned();
        let origin = "a test".to_owned();
        let proposal = Proposal { text, envelope, origin, is_observed: false };
        self.verifier.propose(proposal, by()).await
    }

    async fn envelope(&self, text: &str, signers: &[&Holder]) -> Envelope {
        let read = self.verifier.read_document(text).await.expect("a document");
        let mut envelope = Envelope::new(read.payload_type(), read.payload()).expect("an envelope");
        for signer in signers {
            let signature = signer.key.sign(&envelope.pae()).expect("a signature");
            envelope.add(signature).expect("room");
        }
        envelope
    }

    /// A document with enough signatures.
    async fn signed(&self, text: &str) -> DocumentId {
        self.offer(text, &[&self.alice, &self.bob]).await.expect("signed")
    }

    /// Signs a document that is there.
    async fn sign(&self, id: &DocumentId, signers: &[&Holder]) -> Result<(), DocumentError> {
        let document = self.verifier.document(id).await?;
        let text = String::from_utf8(document.document).expect("UTF-8");
        let envelope = self.envelope(&text, signers).await.to_json().into_bytes();
        self.verifier.sign(id, &envelope, by()).await
    }

    async fn activate(&self, id: &DocumentId) -> Result<Activated, DocumentError> {
        self.verifier.activate(id, false, false, by()).await
    }

    async fn state(&self, id: &DocumentId) -> Option<DocumentState> {
        self.store().document(id).await.expect("read").map(|document| document.state)
    }

    /// Makes a ring of these keys the one in force.
    async fn next_ring(
        &self,
        version: u64,
        threshold: usize,
        keys: &[&Holder],
        signers: &[&Holder],
    ) {
        let id = self.offer(&ring_text(version, threshold, keys), signers).await.expect("signed");
        self.activate(&id).await.expect("in force");
    }
}

fn linux(version: u64) -> String {
    golden_text("linux", version, Some("linux"), "")
}

fn invalid<T: std::fmt::Debug>(result: Result<T, DocumentError>, words: &str) {
    match result {
        Err(DocumentError::Invalid(why)) if why.contains(words) => {}
        other => panic!("{other:?}, expected {words:?}"),
    }
}

fn below_threshold<T: std::fmt::Debug>(result: Result<T, DocumentError>, signed: usize) {
    match result {
        Err(DocumentError::NotApproved { why, .. })
            if matches!(&*why, ApprovalError::BelowThreshold { signers, .. }
                if signers.len() == signed) => {}
        other => panic!("{other:?}, expected {signed} signatures that do not suffice"),
    }
}

#[tokio::test]
async fn without_enough_signatures_nothing_is_staged_or_put_in_force() {
    let site = Site::new().await;
    let id = site.offer(&linux(1), &[]).await.expect("proposed");
    for (have, signer) in [&site.alice, &site.bob].into_iter().enumerate() {
        assert_eq!(site.state(&id).await, Some(DocumentState::Proposed));
        below_threshold(site.verifier.stage(&id, by()).await, have);
        below_threshold(site.activate(&id).await, have);
        site.sign(&id, &[signer]).await.expect("signed");
        // The same key again is no other signature.
        site.sign(&id, &[signer]).await.expect("signed");
    }
    assert_eq!(site.state(&id).await, Some(DocumentState::Signed));
    site.verifier.stage(&id, by()).await.expect("staged");
    assert_eq!(site.activate(&id).await.expect("in force").retired, [0; 0]);
}

#[tokio::test]
async fn a_signature_that_is_no_good_leaves_nothing_behind() {
    let site = Site::new().await;
    let stranger = holder("mallory");
    let (alice, bob) = (&site.alice, &site.bob);
    let good = site.envelope(&linux(1), &[alice]).await;
    let forged = {
        let signature = bob.key.sign(&good.pae()).expect("a signature");
        let mut bytes = signature.as_bytes().to_vec();
        bytes[7] ^= 1;
        let mut envelope = good.clone();
        let keyid = Some(bob.key.public().id().to_string());
        envelope.add(Signature::new(keyid, bytes).expect("a signature")).expect("room");
        envelope
    };
    let of_another = site.envelope(&linux(2), &[alice, bob]).await;
    let of_another_kind = {
        let payload =
            site.verifier.read_document(&linux(1)).await.expect("read").payload().to_vec();
        let mut envelope = Envelope::new(PayloadType::Policy, payload).expect("an envelope");
        envelope.add(alice.key.sign(&envelope.pae()).expect("a signature")).expect("room");
        envelope
    };
    let by_a_stranger = site.envelope(&linux(1), &[alice, &stranger]).await;
    let json = |envelope: Envelope| envelope.to_json().into_bytes();
    let bad: [(&str, Vec<u8>); 5] = [
        ("no envelope", b"{}".to_vec()),
        ("forged", json(forged)),
        ("of another document", json(of_another)),
        ("of another kind", json(of_another_kind)),
        ("of a stranger", json(by_a_stranger)),
    ];
    let id = testing::golden_id("linux", 1);
    for (name, envelope) in &bad {
        let refused = site.offer_with(&linux(1), envelope.clone()).await;
        assert_is_about_signature(name, refused.map(drop));
        // Its version is free still.
        assert_eq!(site.state(&id).await, None, "{name}");
    }
    let id = site.offer(&linux(1), &[]).await.expect("proposed");
    for (name, envelope) in bad {
        assert_is_about_signature(name, site.verifier.sign(&id, &envelope, by()).await);
        // Not even the good signature before the bad one.
        let kept = site.store().document_signatures(&id).await.expect("read");
        assert!(kept.is_empty(), "{name}: {kept:?}");
    }
}

fn assert_is_about_signature(name: &str, result: Result<(), DocumentError>) {
    let matches = match (name, &result) {
        ("no envelope", Err(DocumentError::Envelope(_))) => true,
        ("of a stranger", Err(DocumentError::UnknownSigner { position, .. })) => *position == 1,
        ("forged", Err(DocumentError::NotApproved { why, .. })) => {
            matches!(&**why, ApprovalError::SignatureInvalid { .. })
        }
        ("of another document", Err(DocumentError::NotApproved { why, .. })) => {
            matches!(&**why, ApprovalError::Payload { .. })
        }
        ("of another kind", Err(DocumentError::NotApproved { why, .. })) => {
            matches!(&**why, ApprovalError::PayloadType { .. })
        }
        _ => false,
    };
    assert!(matches, "{name}: {result:?}");
}

#[tokio::test]
async fn a_set_that_would_judge_nobody_is_refused_until_its_parts_are_there() {
    let site = Site::new().await;
    let text = golden_text("linux", 1, Some("linux"), "include = [\"platform\"]");
    let id = site.signed(&text).await;
    for refused in [site.verifier.stage(&id, by()).await, site.activate(&id).await.map(drop)] {
        assert!(matches!(&refused, Err(DocumentError::Unresolved { id: of, .. }) if *of == id));
    }
    let part = site.signed(&golden_text("platform", 1, None, "")).await;
    site.activate(&part).await.expect("a part");
    site.verifier.stage(&id, by()).await.expect("staged");
    site.activate(&id).await.expect("in force");
    let expected = site.verifier.compile_in_force().await.expect("read");
    assert_eq!(expected.len(), 2);
}

#[tokio::test]
async fn only_golden_sets_stand_beside_each_other() {
    let site = Site::new().await;
    let policy = site.signed(&policy_text("baseline", 1, &[])).await;
    invalid(site.verifier.activate(&policy, true, true, by()).await, "only golden sets");
    let ring = ring_text(2, 1, &[&site.alice]);
    let ring = site.signed(&ring).await;
    invalid(site.verifier.activate(&ring, true, true, by()).await, "only golden sets");
    for version in [1, 2] {
        let id = site.signed(&linux(version)).await;
        let activated = site.verifier.activate(&id, true, false, by()).await.expect("in force");
        assert!(activated.retired.is_empty(), "{activated:?}");
    }
    let id = site.signed(&linux(3)).await;
    let mut retired = site.activate(&id).await.expect("in force").retired;
    retired.sort_unstable();
    assert_eq!(retired, [1, 2]);
}

#[tokio::test]
async fn a_lower_version_never_takes_the_place_of_a_higher_one() {
    let site = Site::new().await;
    let (first, second) = (site.signed(&linux(1)).await, site.signed(&linux(2)).await);
    site.activate(&second).await.expect("in force");
    // It was overtaken, and is of the past.
    match site.activate(&first).await {
        Err(DocumentError::Store(StoreError::InvalidTransition { from: "retired", .. })) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(site.state(&second).await, Some(DocumentState::Active));
    assert_eq!(site.state(&first).await, Some(DocumentState::Retired));
}

/// A policy narrows: it ends when a signed successor takes its place, and not by whoever may retire.
#[tokio::test]
async fn a_policy_in_force_does_not_retire_by_itself() {
    let site = Site::new().await;
    let first = site.signed(&policy_text("baseline", 1, &[])).await;
    site.activate(&first).await.expect("in force");
    invalid(site.verifier.retire(&first, "old", true, by()).await, "successor");
    assert_eq!(site.state(&first).await, Some(DocumentState::Active));
    let next = site.signed(&policy_text("baseline", 2, &[])).await;
    assert_eq!(site.activate(&next).await.expect("in force").retired, [1]);
}

/// Two steps at once could each be harmless by its own dry run, and together deny everybody.
#[tokio::test(flavor = "multi_thread")]
async fn steps_wait_for_one_another() {
    let site = Site::new().await;
    let id = site.signed(&linux(1)).await;
    let under_way = site.verifier.one_change().await;
    let steps = [
        tokio::spawn({
            let (verifier, id) = (Arc::clone(&site.verifier), id.clone());
            async move { verifier.stage(&id, by()).await }
        }),
        tokio::spawn({
            let (verifier, id) = (Arc::clone(&site.verifier), id.clone());
            async move { verifier.activate(&id, false, false, by()).await.map(drop) }
        }),
        tokio::spawn({
            let (verifier, id) = (Arc::clone(&site.verifier), id.clone());
            async move { verifier.retire(&id, "over", true, by()).await }
        }),
    ];
    // Each takes a few milliseconds: one that did not wait would be over.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert!(steps.iter().all(|step| !step.is_finished()), "one did not wait");
    assert_eq!(site.state(&id).await, Some(DocumentState::Signed));
    drop(under_way);
    for step in steps {
        // In any order; a step that another one overtook is refused by the state.
        match step.await.expect("no panic") {
            Ok(()) | Err(DocumentError::Store(StoreError::InvalidTransition { .. })) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(site.state(&id).await, Some(DocumentState::Retired));
}

#[tokio::test]
async fn rings_are_not_staged_and_the_one_in_force_does_not_retire_by_itself() {
    let site = Site::new().await;
    let keys =
        |version| DocumentId { kind: DocumentKind::Keys, name: "security".to_owned(), version };
    invalid(site.verifier.retire(&keys(1), "old", true, by()).await, "its successor");
    let text = ring_text(2, 1, &[&site.alice]);
    let next = site.signed(&text).await;
    invalid(site.verifier.stage(&next, by()).await, "judges nobody");
    // One that is not in force may go.
    site.verifier.retire(&next, "a mistake", false, by()).await.expect("retired");
    let renamed = text.replace("\"security\"", "\"other\"").replace("version = 2", "version = 3");
    invalid(site.offer(&renamed, &[]).await, "keeps its name");
    assert_eq!(site.verifier.ring().await.expect("in force").version(), 1);
}

#[tokio::test]
async fn a_ring_follows_by_the_signatures_of_the_old_and_of_the_new_one() {
    let site = Site::new().await;
    let (alice, bob) = (&site.alice, &site.bob);
    let (dora, erik) = (holder("dora"), holder("erik"));
    let text = ring_text(2, 2, &[alice, &dora, &erik]);
    let id = site.offer(&text, &[]).await.expect("proposed");
    let not_yet = |result: Result<Activated, DocumentError>, of_current: bool| match result {
        Err(DocumentError::NoSuccessor { why, .. })
            if of_current && matches!(*why, SuccessorError::Current(_)) => {}
        Err(DocumentError::NoSuccessor { why, .. })
            if !of_current && matches!(*why, SuccessorError::Next(_)) => {}
        other => panic!("{other:?}"),
    };
    // The new one's keys alone are no approval.
    site.sign(&id, &[&dora, &erik]).await.expect("keys of the next ring sign for it");
    not_yet(site.activate(&id).await, true);
    site.sign(&id, &[alice]).await.expect("signed");
    not_yet(site.activate(&id).await, true);
    site.sign(&id, &[bob]).await.expect("signed");
    site.activate(&id).await.expect("in force");
    let ring = site.verifier.ring().await.expect("in force");
    assert_eq!((ring.version(), ring.threshold()), (2, 2));
    let first = DocumentId { version: 1, ..id };
    assert_eq!(site.state(&first).await, Some(DocumentState::Retired));
    // The old one's keys alone are none either: nobody may lock the site out.
    let id = site.offer(&ring_text(3, 1, &[bob]), &[alice, &dora]).await.expect("signed");
    not_yet(site.activate(&id).await, false);
}

#[tokio::test]
async fn signatures_of_a_former_ring_do_not_count_any_more() {
    let site = Site::new().await;
    let (alice, bob, carol) = (&site.alice, &site.bob, &site.carol);
    let dora = holder("dora");
    let (before, waiting) = (site.signed(&linux(1)).await, site.signed(&linux(2)).await);
    site.activate(&before).await.expect("in force");
    // Bob leaves.
    site.next_ring(2, 2, &[alice, carol, &dora], &[alice, bob, carol]).await;
    assert_eq!(site.state(&before).await, Some(DocumentState::Active), "approved when it came");
    assert_eq!(site.state(&waiting).await, Some(DocumentState::Signed));
    below_threshold(site.verifier.stage(&waiting, by()).await, 1);
    below_threshold(site.activate(&waiting).await, 1);
    let bob_again = site.sign(&waiting, &[bob]).await;
    assert!(
        matches!(bob_again, Err(DocumentError::UnknownSigner { ring, .. }) if ring.starts_with("security@2"))
    );
    // Alice's counts still, so one more suffices.
    site.sign(&waiting, &[&dora]).await.expect("signed");
    assert_eq!(site.activate(&waiting).await.expect("in force").retired, [1]);
}

#[tokio::test]
async fn a_signature_given_again_counts_under_a_ring_that_demands_less() {
    let site = Site::new().await;
    let (alice, bob, carol) = (&site.alice, &site.bob, &site.carol);
    let id = site.offer(&linux(1), &[alice]).await.expect("one of two");
    site.next_ring(2, 1, &[alice, bob, carol], &[alice, bob]).await;
    assert_eq!(site.state(&id).await, Some(DocumentState::Proposed));
    site.sign(&id, &[alice]).await.expect("the same signature");
    assert_eq!(site.state(&id).await, Some(DocumentState::Signed));
    site.activate(&id).await.expect("in force");
}

#[tokio::test]
async fn without_a_ring_nobody_approves() {
    let site = Site::without_ring().await;
    let id = site.offer(&linux(1), &[]).await.expect("proposed");
    let no_ring = |result: Result<(), DocumentError>| {
        assert!(matches!(result, Err(DocumentError::NoRing)), "{result:?}");
    };
    no_ring(site.sign(&id, &[&site.alice]).await);
    no_ring(site.verifier.stage(&id, by()).await);
    no_ring(site.activate(&id).await.map(drop));
    no_ring(site.offer(&linux(2), &[&site.alice]).await.map(drop));
    assert_eq!(site.state(&testing::golden_id("linux", 2)).await, None);
}

#[tokio::test]
async fn steps_that_the_state_does_not_allow_change_nothing() {
    let site = Site::new().await;
    let unknown = testing::golden_id("linux", 9);
    let missing = site.activate(&unknown).await;
    assert!(matches!(missing, Err(DocumentError::NotFound(id)) if id == unknown));
    let id = site.signed(&linux(1)).await;
    site.activate(&id).await.expect("in force");
    let not_from = |result: Result<(), DocumentError>, state: &str| match result {
        Err(DocumentError::Store(StoreError::InvalidTransition { from, .. })) if from == state => {}
        other => panic!("{other:?}, expected a refusal from {state}"),
    };
    not_from(site.activate(&id).await.map(drop), "active");
    not_from(site.verifier.stage(&id, by()).await, "active");
    site.verifier.retire(&id, "over", true, by()).await.expect("retired");
    not_from(site.activate(&id).await.map(drop), "retired");
    not_from(site.verifier.retire(&id, "again", true, by()).await, "retired");
    not_from(site.sign(&id, &[&site.carol]).await, "retired");
}

/// Of activations at the same time, one takes a document's place after the other, and the highest version stays.
#[tokio::test(flavor = "multi_thread")]
async fn activations_at_the_same_time_leave_one_version() {
    let site = Site::new().await;
    let mut ids = Vec::new();
    for version in 1..=4 {
        ids.push(site.signed(&linux(version)).await);
    }
    let mut racing = tokio::task::JoinSet::new();
    for id in ids.iter().chain(&ids) {
        let (verifier, id) = (Arc::clone(&site.verifier), id.clone());
        racing.spawn(async move { verifier.activate(&id, false, true, by()).await });
    }
    while let Some(done) = racing.join_next().await {
        match done.expect("no panic") {
            Ok(_)
            | Err(DocumentError::Store(
                StoreError::VersionNotNewer { .. } | StoreError::InvalidTransition { .. },
            )) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    let in_force = site.verifier.compile_in_force().await.expect("read");
    let versions: Vec<u64> = in_force.iter().map(crate::expectations::Compiled::version).collect();
    assert_eq!(versions, [4]);
}

/// A document that one ring approved is not put in force once another ring is: its keys may have been taken away for that.
#[tokio::test]
async fn an_approval_does_not_outlive_its_ring() {
    let site = Site::new().await;
    let (alice, bob, carol) = (&site.alice, &site.bob, &site.carol);
    let id = site.signed(&linux(1)).await;
    site.next_ring(2, 2, &[alice, bob, carol], &[alice, bob]).await;
    // As an activation does that looked at the signatures before.
    let stale = [
        site.store().stage_document(id.clone(), 1, by()).await,
        site.store().activate_document(id.clone(), false, 1, by()).await.map(drop),
    ];
    for refused in stale {
        let conflict = StoreError::Conflict {
            what: "ring of keys",
            key: "security".to_owned(),
            expected: Some(1),
            found: Some(2),
        };
        assert_eq!(refused.expect_err("refused").to_string(), conflict.to_string());
    }
    assert_eq!(site.state(&id).await, Some(DocumentState::Signed));
    site.activate(&id).await.expect("approved under the ring in force");
}

#[tokio::test]
async fn a_document_with_problems_is_not_kept() {
    let site = Site::new().await;
    let text = linux(1).replace("index = 4", "index = 16");
    let refused = site.offer(&text, &[]).await;
    assert!(matches!(&refused, Err(DocumentError::Problems(found)) if !found.is_empty()));
    assert_eq!(site.state(&testing::golden_id("linux", 1)).await, None);
    let refused = site.offer("schema = 1", &[]).await;
    assert!(matches!(refused, Err(DocumentError::Problems(_))), "{refused:?}");
}
