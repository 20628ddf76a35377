use sqlx::{ConnectOptions as _, sqlite::SqliteConnectOptions};

use super::*;
use crate::store::{DATABASE_FILE, testing::*};

async fn state(store: &Store, name: &str, version: u64) -> DocumentState {
    store.document(&golden_id(name, version)).await.expect("read").expect("there").state
}

fn changes(steps: &[DocumentStep]) -> Vec<String> {
    let change = |step: &DocumentStep| {
        let body: serde_json::Value = serde_json::from_str(&step.what).expect("JSON");
        body["change"].as_str().expect("a change").to_owned()
    };
    steps.iter().map(change).collect()
}

#[tokio::test]
async fn versions_only_rise_and_offering_the_same_twice_is_no_mistake() {
    let (_folder, store) = store().await;
    assert!(store.propose_document(golden("linux", 3, "a"), by()).await.expect("first"));
    assert!(!store.propose_document(golden("linux", 3, "a"), by()).await.expect("the same"));
    for (version, text) in [(1, "b"), (3, "b"), (2, "a")] {
        let error = store.propose_document(golden("linux", version, text), by()).await;
        assert!(matches!(error, Err(StoreError::VersionNotNewer { newest: 3, .. })), "{error:?}");
    }
    store.propose_document(golden("windows", 1, "b"), by()).await.expect("another name");
    let (id, proposed) = (golden_id("linux", 3), DocumentState::Proposed);
    store.retire_document(id, proposed, "wrong", by()).await.expect("retired");
    // Not even once nothing of the name is in force.
    let error = store.propose_document(golden("linux", 2, "b"), by()).await;
    assert!(matches!(error, Err(StoreError::VersionNotNewer { .. })));
}

#[tokio::test]
async fn steps_are_taken_in_order_and_recorded_with_who_took_them() {
    let (_folder, store) = store().await;
    with_ring(&store, 7).await;
    let id = golden_id("linux", 1);
    let observed = NewDocument { is_observed: true, ..golden("linux", 1, "a") };
    store.propose_document(observed, by()).await.expect("observed");
    assert_eq!(state(&store, "linux", 1).await, DocumentState::Observed);
    store.propose_document(golden("linux", 1, "a"), by()).await.expect("proposed");
    assert_eq!(state(&store, "linux", 1).await, DocumentState::Proposed);
    let unsigned = [
        store.stage_document(id.clone(), 1, by()).await,
        store.activate_document(id.clone(), false, 1, by()).await.map(drop),
    ];
    for refused in unsigned {
        assert!(matches!(refused, Err(StoreError::InvalidTransition { from: "proposed", .. })));
    }
    let sign = |key: &str, is_approved| {
        store.sign_document(id.clone(), digest(key), key.into(), is_approved, by())
    };
    sign("alice", false).await.expect("one of two");
    assert_eq!(state(&store, "linux", 1).await, DocumentState::Proposed);
    sign("alice", false).await.expect("again");
    sign("bob", true).await.expect("two of two");
    assert_eq!(state(&store, "linux", 1).await, DocumentState::Signed);
    assert_eq!(store.document_signatures(&id).await.expect("read").len(), 2);
    // Approved by a ring that is not in force: somebody else took its place meanwhile.
    let former = store.stage_document(id.clone(), 6, by()).await;
    assert!(matches!(former, Err(StoreError::Conflict { found: Some(7), .. })), "{former:?}");
    store.stage_document(id.clone(), 7, by()).await.expect("staged");
    let former = store.activate_document(id.clone(), false, 6, by()).await;
    assert!(matches!(former, Err(StoreError::Conflict { found: Some(7), .. })), "{former:?}");
    store.activate_document(id.clone(), false, 7, by()).await.expect("active");
    let document = store.document(&id).await.expect("read").expect("there");
    assert_eq!((document.state, document.approved_under), (DocumentState::Active, Some(7)));
    store.retire_document(id.clone(), DocumentState::Active, "old", by()).await.expect("retired");
    let again = store.activate_document(id.clone(), false, 8, by()).await;
    assert!(matches!(again, Err(StoreError::InvalidTransition { from: "retired", .. })));
    let steps = store.document_history(&id).await.expect("read");
    assert_eq!(
        changes(&steps),
        ["observed", "proposed", "sign", "sign", "stage", "activate", "retire"]
    );
    assert!(steps.iter().all(|step| step.by == by()));
    assert_eq!(store.verify_chain(|_, _| {}).await.expect("walk").broken, None);
}

/// Whoever decided to retire saw a state; what happened since is not undone by it.
#[tokio::test]
async fn a_document_is_retired_only_from_the_state_that_was_seen() {
    let (_folder, store) = store().await;
    activated(&store, "linux", 1).await;
    let id = golden_id("linux", 1);
    for seen in [DocumentState::Proposed, DocumentState::Staged, DocumentState::Retired] {
        let refused = store.retire_document(id.clone(), seen, "old", by()).await;
        assert!(matches!(refused, Err(StoreError::InvalidTransition { from: "active", .. })));
    }
    assert_eq!(state(&store, "linux", 1).await, DocumentState::Active);
    let ring = store.documents(DocumentKind::Keys).await.expect("read").remove(0).id.clone();
    for seen in [DocumentState::Signed, DocumentState::Active] {
        let refused = store.retire_document(ring.clone(), seen, "old", by()).await;
        assert!(matches!(refused, Err(StoreError::InvalidTransition { from: "active", .. })));
    }
    let seen = DocumentState::Active;
    store.retire_document(id, seen, "old", by()).await.expect("as it was seen");
}

#[tokio::test]
async fn two_versions_are_active_only_where_that_is_said() {
    let (_folder, store) = store().await;
    activated(&store, "linux", 1).await;
    let id = golden_id("linux", 2);
    store.propose_document(golden("linux", 2, "b"), by()).await.expect("proposed");
    store.sign_document(id.clone(), digest("k"), vec![1], true, by()).await.expect("signed");
    let retired = store.activate_document(id, true, 1, by()).await.expect("beside");
    assert!(retired.is_empty());
    let in_force = store.documents_in_force().await.expect("read");
    assert_eq!(in_force.iter().filter(|one| one.id.kind == DocumentKind::Golden).count(), 2);
    store.propose_document(golden("linux", 3, "c"), by()).await.expect("proposed");
    let id = golden_id("linux", 3);
    store.sign_document(id.clone(), digest("k"), vec![1], true, by()).await.expect("signed");
    let mut retired = store.activate_document(id, false, 1, by()).await.expect("alone");
    retired.sort_unstable();
    assert_eq!(retired, [1, 2]);
}

/// What was overtaken does not come into force later: versions only rise, also those that judge.
#[tokio::test]
async fn a_version_that_was_overtaken_is_retired() {
    let (_folder, store) = store().await;
    with_ring(&store, 1).await;
    for version in [1, 2, 3] {
        store.propose_document(golden("linux", version, "a"), by()).await.expect("proposed");
        let id = golden_id("linux", version);
        store.sign_document(id, digest("k"), vec![1], true, by()).await.expect("signed");
    }
    let retired = store.activate_document(golden_id("linux", 3), true, 1, by()).await;
    assert_eq!(retired.expect("active"), [1, 2]);
    let late = store.activate_document(golden_id("linux", 2), false, 1, by()).await;
    assert!(matches!(late, Err(StoreError::InvalidTransition { from: "retired", .. })));
}

/// Nobody can use up the versions of a name.
#[tokio::test]
async fn a_version_far_above_the_newest_is_refused() {
    let (_folder, store) = store().await;
    store.propose_document(golden("linux", 20_261_231, "a"), by()).await.expect("a date");
    store.propose_document(golden("linux", 20_270_101, "a"), by()).await.expect("the next");
    let far = golden("linux", 9_007_199_254_740_991, "a");
    let error = store.propose_document(far, by()).await.expect_err("far above");
    assert!(matches!(error, StoreError::Invalid { what: "version", .. }), "{error}");
}

#[tokio::test]
async fn the_first_ring_is_taken_once() {
    let (_folder, store) = store().await;
    let ring = |version, text: &str| {
        let id = DocumentId { kind: DocumentKind::Keys, name: "security".to_owned(), version };
        NewDocument { id, pool: None, ..golden("security", version, text) }
    };
    assert!(store.adopt_keys(ring(1, "a"), by()).await.expect("the first"));
    assert!(!store.adopt_keys(ring(2, "b"), by()).await.expect("no second"));
    let rings = store.documents(DocumentKind::Keys).await.expect("read");
    assert_eq!((rings.len(), rings[0].state), (1, DocumentState::Active));
}

#[tokio::test]
async fn what_was_proposed_is_never_rewritten() {
    let (_folder, store) = store().await;
    activated(&store, "linux", 1).await;
    let id = golden_id("linux", 1);
    let options = SqliteConnectOptions::new().filename(store.folder().join(DATABASE_FILE));
    let mut conn = options.connect().await.expect("raw connection");
    for attempt in [
        "UPDATE reference_documents SET document = x'00'",
        "UPDATE reference_documents SET payload = x'00'",
        "UPDATE reference_documents SET version = 9",
        "DELETE FROM reference_documents",
        "UPDATE reference_signatures SET signature = x'00'",
        "DELETE FROM reference_signatures",
    ] {
        let done = sqlx::raw_sql(sqlx::AssertSqlSafe(attempt)).execute(&mut conn).await;
        let error = done.expect_err(attempt).to_string();
        assert!(error.contains("is never"), "{attempt}: {error}");
    }
    store.retire_document(id.clone(), DocumentState::Active, "old", by()).await.expect("retired");
    let revive = "UPDATE reference_documents SET state = 'active'";
    let done = sqlx::raw_sql(sqlx::AssertSqlSafe(revive)).execute(&mut conn).await;
    assert!(done.expect_err("retired").to_string().contains("never used again"));
    // Whoever drops the triggers is found out by the digest.
    let tamper = "DROP TRIGGER reference_documents_no_rewrite; UPDATE reference_documents SET document = x'00'";
    sqlx::raw_sql(sqlx::AssertSqlSafe(tamper)).execute(&mut conn).await.expect("tampered");
    let error = store.document(&id).await.expect_err("changed");
    assert!(matches!(error, StoreError::Corrupt { what: "reference document", .. }));
}
