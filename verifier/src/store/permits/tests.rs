use proto::digest::HashAlg;

use super::*;
use crate::{
    audit::BreakKind,
    store::{
        Appraisal, DocumentId, DocumentKind, DocumentState, EndorsementKind, NewDecision,
        NewDocument, NodeChange, Outcome, testing::*,
    },
};

const SECRET: &str = "secret";

fn permit(id: u8) -> NewPermit {
    NewPermit {
        id: format!("{id:032x}"),
        secret_sha256: digest(&format!("{SECRET} {id}")),
        node: "n1".to_owned(),
        pool: "linux".to_owned(),
        ak_name: boot(1, "n1").ak_name,
        job_key: vec![0x30, id],
        claims: b"{\"system\":\"generic\"}".to_vec(),
        basis: b"{}".to_vec(),
        token_id: None,
        redeem_by: NOW + 120,
        ends_at: NOW + 3600,
    }
}

/// A store with a node that proved its boot, and a permit of it.
async fn with_permit(new: NewPermit) -> (tempfile::TempDir, Store) {
    let (folder, store) = store().await;
    store.put_boot(boot(1, "n1"), None).await.expect("a boot");
    issue(&store, "d1", new).await.expect("issued");
    (folder, store)
}

async fn issue(store: &Store, decision_id: &str, new: NewPermit) -> Result<(), StoreError> {
    let decision = NewDecision { purpose: "permit".into(), ..decision(decision_id, "n1", NOW) };
    store.record(Appraisal { permit: Some(new), ..Appraisal::of(decision) }).await.map(drop)
}

/// Of a node that must have proved itself since, and been judged by whatever changed an hour ago.
fn renewal(proven_since: i64) -> Renewal {
    Renewal { proven_since, judged_since: NOW - 3600 }
}

fn request(sequence: u64) -> PermitUse {
    let id = format!("{:032x}", 1);
    PermitUse {
        id,
        sequence,
        asked_at: NOW,
        renewal: renewal(NOW - 60),
        is_stated: true,
        certificates: Vec::new(),
    }
}

fn at(seconds: i64) -> By {
    By::new("job/1", NOW + seconds)
}

async fn used(store: &Store, sequence: u64, seconds: i64) -> PermitAnswer {
    let request = PermitUse { asked_at: NOW + seconds, ..request(sequence) };
    store.use_permit(request, at(seconds)).await.expect("an answer")
}

fn ended(answer: PermitAnswer, words: &str) {
    match answer {
        PermitAnswer::Ended(why) if why.contains(words) => {}
        other => panic!("{other:?}, expected {words:?}"),
    }
}

#[tokio::test]
async fn a_permit_is_redeemed_once_and_then_goes_on_by_rising_numbers() {
    let (_folder, store) = with_permit(permit(1)).await;
    assert_eq!(used(&store, 1, 1).await, PermitAnswer::NotRedeemed);
    let found = store.permit_by_secret(&digest("secret 1")).await.expect("read").expect("there");
    assert_eq!((found.state, found.new.clone()), (PermitState::Issued, permit(1)));
    let intent = CertificateIntent { not_after: NOW + 3600, ..intent("41", "n1") };
    let redemption = PermitUse { certificates: vec![intent], ..request(0) };
    let answer = store.use_permit(redemption.clone(), at(2)).await.expect("an answer");
    let PermitAnswer::Good(redeemed) = answer else { panic!("{answer:?}") };
    assert_eq!((redeemed.state, redeemed.redeemed_at), (PermitState::Redeemed, Some(NOW + 2)));
    let certificate = store.certificate("41").await.expect("read").expect("intended");
    assert_eq!(certificate.decision_id, "d1");
    assert_eq!(used(&store, 0, 3).await, PermitAnswer::AlreadyRedeemed);
    assert!(matches!(used(&store, 1, 4).await, PermitAnswer::Good(_)));
    for replayed in [0, 1] {
        let answer = used(&store, replayed, 5).await;
        let expected =
            if replayed == 0 { PermitAnswer::AlreadyRedeemed } else { PermitAnswer::Replayed };
        assert_eq!(answer, expected);
    }
    assert!(matches!(used(&store, 7, 6).await, PermitAnswer::Good(_)));
    let error = store.end_permit(&permit(1).id, 7, "over", at(7)).await.expect_err("replayed");
    assert!(matches!(error, StoreError::InvalidTransition { from: "redeemed", .. }), "{error}");
    assert!(store.end_permit(&permit(1).id, 8, "over", at(7)).await.expect("ended"));
    assert!(!store.end_permit(&permit(1).id, 9, "again", at(8)).await.expect("as it was"));
    ended(used(&store, 10, 9).await, "over");
    ended(used(&store, 0, 9).await, "over");
    assert_eq!(store.verify_chain(|_, _| {}).await.expect("walk").broken, None);
}

#[tokio::test]
async fn a_permit_lapses() {
    let (_folder, store) = with_permit(permit(1)).await;
    assert_eq!(used(&store, 0, 121).await, PermitAnswer::Expired);
    ended(used(&store, 0, 122).await, "in time");
    issue(&store, "d2", NewPermit { id: format!("{:032x}", 2), ..permit(2) })
        .await
        .expect("issued");
    let request = |sequence| PermitUse {
        id: format!("{:032x}", 2),
        renewal: renewal(0),
        ..request(sequence)
    };
    let good = store.use_permit(request(0), at(10)).await.expect("an answer");
    assert!(matches!(good, PermitAnswer::Good(_)));
    // To its last second, and not at its end: nothing that it gives would live.
    let good = store.use_permit(request(1), at(3599)).await.expect("an answer");
    assert!(matches!(good, PermitAnswer::Good(_)));
    ended(store.use_permit(request(2), at(3600)).await.expect("an answer"), "time is up");
}

#[tokio::test]
async fn whether_a_permit_may_begin_is_what_its_use_would_find() {
    let (_folder, store) = with_permit(permit(1)).await;
    let id = format!("{:032x}", 1);
    let may = async |since: i64, seconds: i64| {
        store.permit_may_begin(&id, renewal(since), NOW + seconds).await.expect("an answer")
    };
    assert!(may(NOW - 60, 0).await);
    assert!(may(NOW - 60, 120).await, "the last second");
    assert!(!may(NOW - 60, 121).await, "late");
    assert!(!may(NOW + 60, 0).await, "its node has not renewed its proof");
    // It was asked for in time: what came between is not held against it.
    let asked = PermitUse { asked_at: NOW + 120, ..request(0) };
    let good = store.use_permit(asked, at(125)).await.expect("an answer");
    assert!(matches!(good, PermitAnswer::Good(_)), "{good:?}");
    assert!(!may(NOW - 60, 1).await, "redeemed");
    let unknown = store.permit_may_begin("none", renewal(NOW), NOW).await;
    assert!(matches!(unknown, Err(StoreError::NotFound { .. })));
}

/// Between a look that found that a permit may not begin, and its use, it may come to stand: nobody stated anything then.
#[tokio::test]
async fn a_redemption_of_which_nothing_was_stated_records_nothing_unless_it_is_refused() {
    let (_folder, store) = with_permit(permit(1)).await;
    let unstated = PermitUse { is_stated: false, ..request(0) };
    let answer = store.use_permit(unstated.clone(), at(1)).await.expect("an answer");
    assert_eq!(answer, PermitAnswer::NotStated);
    let found = store.permit(&unstated.id).await.expect("read").expect("there");
    assert_eq!((found.state, found.redeemed_at), (PermitState::Issued, None));
    assert!(matches!(used(&store, 0, 2).await, PermitAnswer::Good(_)));
    let again = store.use_permit(unstated.clone(), at(3)).await.expect("an answer");
    assert_eq!(again, PermitAnswer::AlreadyRedeemed);
    // What goes on gives nothing that has to be at hand.
    let goes_on = PermitUse { sequence: 1, ..unstated.clone() };
    let good = store.use_permit(goes_on, at(4)).await.expect("an answer");
    assert!(matches!(good, PermitAnswer::Good(_)), "{good:?}");
    issue(&store, "d2", permit(2)).await.expect("issued");
    let silent = PermitUse { id: permit(2).id, renewal: renewal(NOW + 9), ..unstated };
    ended(store.use_permit(silent, at(5)).await.expect("an answer"), "has not renewed");
    assert_eq!(store.verify_chain(|_, _| {}).await.expect("walk").broken, None);
}

/// What the node proved must still hold whenever its permit is used; what the job got is revoked then.
#[tokio::test]
async fn a_permit_ends_with_what_its_node_proved() {
    let denied = || NewDecision { outcome: Outcome::Denied, ..decision("d9", "n1", NOW + 1) };
    let renewed = || decision("d8", "n1", NOW + 1);
    let refused_job = || NewDecision { purpose: "permit".into(), ..denied() };
    let record = async |store: &Store, decision: NewDecision| {
        store.record(Appraisal::of(decision)).await.map(drop).expect("recorded");
    };
    let change = async |store: &Store, what: NodeChange| {
        store.change_node("n1", None, what, at(1)).await.map(drop).expect("changed");
    };
    for (name, words) in [
        ("nothing", ""),
        ("another job was refused", ""),
        ("renewed", ""),
        ("denied", "denied since"),
        ("denied and admitted again", "denied since"),
        ("denied before", ""),
        ("revoked", "is revoked"),
        ("moved", "pool other now"),
        ("replaced", "another TPM or boot"),
        ("removed", "was removed"),
        ("silent", "has not renewed"),
    ] {
        let (_folder, store) = store().await;
        store.put_boot(boot(1, "n1"), None).await.expect("a boot");
        if name == "denied before" {
            // In the same second: what counts is what was recorded first.
            record(&store, NewDecision { at: NOW, ..denied() }).await;
        }
        issue(&store, "d1", permit(1)).await.expect("issued");
        let intent = CertificateIntent { not_after: NOW + 3600, ..intent("41", "n1") };
        let redemption = PermitUse { certificates: vec![intent], ..request(0) };
        store.use_permit(redemption, at(0)).await.expect("redeemed");
        let reason = "a test".to_owned();
        match name {
            "another job was refused" => record(&store, refused_job()).await,
            "renewed" => record(&store, renewed()).await,
            "denied" => record(&store, denied()).await,
            "denied and admitted again" => {
                record(&store, denied()).await;
                record(&store, renewed()).await;
            }
            "revoked" => change(&store, NodeChange::Revoke { reason }).await,
            "moved" => change(&store, NodeChange::MoveTo { pool: "other".to_owned() }).await,
            "replaced" => {
                let ek_digest = digest("another");
                change(&store, NodeChange::ReplaceEk { ek_digest, allow_listed: true, reason })
                    .await;
            }
            "removed" => store.remove_node("n1", "a test", at(1)).await.expect("removed"),
            _ => {}
        }
        let renewal = renewal(if name == "silent" { NOW + 1 } else { NOW });
        let answer = store.use_permit(PermitUse { renewal, ..request(1) }, at(2)).await;
        let answer = answer.expect("an answer");
        if words.is_empty() {
            assert!(matches!(answer, PermitAnswer::Good(_)), "{name}: {answer:?}");
            continue;
        }
        match &answer {
            PermitAnswer::Ended(why) if why.contains(words) => {}
            other => panic!("{name}: {other:?}"),
        }
        let revoked = store.revoked_certificates(NOW + 2).await.expect("read");
        assert_eq!(revoked.len(), 1, "{name}");
        ended(
            store.use_permit(PermitUse { renewal, ..request(2) }, at(3)).await.expect("an answer"),
            words,
        );
    }
}

/// What a permit waits with is what its node was judged by: nothing of it is stated under anything else.
#[tokio::test]
async fn a_permit_is_not_redeemed_after_what_it_was_decided_by_changed() {
    let root = || b"a root".to_vec();
    let sha256 = HashAlg::Sha256.hash(&[&root()]);
    let kind = EndorsementKind::Root;
    for (name, words) in [
        ("nothing", ""),
        ("a set was proposed", ""),
        ("a set was retired that was never in force", ""),
        ("a set came into force", "golden sets changed"),
        ("a set was retired", "golden sets changed"),
        ("a policy came into force", "site policies changed"),
        ("a ring of keys came into force", "security keys changed"),
        ("a CRL was imported", "endorsements changed"),
        ("a root was imported", "endorsements changed"),
        ("a root was removed", "endorsements changed"),
    ] {
        let (_folder, store) = store().await;
        store.put_boot(boot(1, "n1"), None).await.expect("a boot");
        activated(&store, "linux", 1).await;
        store.import_endorsement(kind, root(), "", by()).await.expect("imported");
        issue(&store, "d1", permit(1)).await.expect("issued");
        let (id, next) = (golden_id("linux", 1), golden("linux", 2, "another"));
        let retire = async |id: DocumentId, state| {
            store.retire_document(id, state, "a test", by()).await.expect("retired");
        };
        let comes_into_force = async |kind, name: &str, version| {
            let id = DocumentId { kind, ..golden_id(name, version) };
            let new = NewDocument { id: id.clone(), pool: None, ..golden(name, version, "text") };
            store.propose_document(new, by()).await.expect("proposed");
            let key = digest("a key");
            store.sign_document(id.clone(), key, vec![1], true, by()).await.expect("signed");
            store.activate_document(id, false, 1, by()).await.expect("activated");
        };
        match name {
            "a set was proposed" => {
                store.propose_document(next, by()).await.expect("proposed");
            }
            "a set was retired that was never in force" => {
                store.propose_document(next, by()).await.expect("proposed");
                retire(golden_id("linux", 2), DocumentState::Proposed).await;
            }
            "a set came into force" => activated(&store, "other", 1).await,
            "a set was retired" => retire(id, DocumentState::Active).await,
            "a policy came into force" => comes_into_force(DocumentKind::Policy, "site", 1).await,
            "a ring of keys came into force" => {
                comes_into_force(DocumentKind::Keys, "security", 2).await;
            }
            "a CRL was imported" => {
                let (kind, crl) = (EndorsementKind::Crl, b"a CRL".to_vec());
                store.import_endorsement(kind, crl, "", by()).await.expect("imported");
            }
            "a root was imported" => {
                let another = b"another root".to_vec();
                store.import_endorsement(kind, another, "", by()).await.expect("imported");
            }
            "a root was removed" => {
                store.remove_endorsement(kind, sha256, by()).await.expect("removed");
            }
            _ => {}
        }
        // Who renewed meanwhile is judged by what is in force; the permit was not.
        let renewed = Appraisal::of(decision("d2", "n1", NOW));
        store.record(renewed).await.expect("recorded");
        let may_begin = store.permit_may_begin(&permit(1).id, renewal(0), NOW + 1).await;
        assert_eq!(may_begin.expect("an answer"), words.is_empty(), "{name}");
        let intent = CertificateIntent { not_after: NOW + 3600, ..intent("41", "n1") };
        let redemption = PermitUse { certificates: vec![intent], ..request(0) };
        let answer = store.use_permit(redemption, at(1)).await.expect("an answer");
        if words.is_empty() {
            assert!(matches!(answer, PermitAnswer::Good(_)), "{name}: {answer:?}");
            continue;
        }
        match answer {
            PermitAnswer::GroundsChanged(why) if why.contains(words) => {}
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(store.certificate("41").await.expect("read"), None, "{name}");
        ended(used(&store, 0, 2).await, words);
        assert_eq!(store.verify_chain(|_, _| {}).await.expect("walk").broken, None);
    }
}

/// A job that runs goes on under what changed until its node would have come to be judged by it.
#[tokio::test]
async fn a_job_goes_on_until_its_node_is_late_to_be_judged_by_what_changed() {
    let (_folder, store) = with_permit(permit(1)).await;
    assert!(matches!(used(&store, 0, 1).await, PermitAnswer::Good(_)));
    activated(&store, "linux", 1).await;
    let stands = async |judged_since| {
        let renewal = Renewal { judged_since, ..renewal(0) };
        store.permit_stands(&permit(1).id, renewal, NOW + 2).await.expect("an answer")
    };
    let goes_on = async |sequence, judged_since| {
        let renewal = Renewal { judged_since, ..renewal(0) };
        let request = PermitUse { renewal, ..request(sequence) };
        store.use_permit(request, at(2)).await.expect("an answer")
    };
    let changed = "golden sets changed";
    // The set came into force at NOW.
    assert!(matches!(goes_on(1, NOW - 1).await, PermitAnswer::Good(_)));
    assert!(matches!(stands(NOW - 1).await, PermitAnswer::Good(_)));
    match stands(NOW).await {
        PermitAnswer::GroundsChanged(why) if why.contains(changed) => {}
        other => panic!("{other:?}"),
    }
    // Judged by it, and then not by what changed after that.
    store.record(Appraisal::of(decision("d2", "n1", NOW))).await.expect("recorded");
    assert!(matches!(goes_on(2, NOW).await, PermitAnswer::Good(_)));
    assert!(matches!(stands(NOW).await, PermitAnswer::Good(_)));
    activated(&store, "linux", 2).await;
    match goes_on(3, NOW).await {
        PermitAnswer::GroundsChanged(why) if why.contains(changed) => {}
        other => panic!("{other:?}"),
    }
    ended(goes_on(4, NOW - 1).await, changed);
    ended(stands(NOW - 1).await, changed);
}

#[tokio::test]
async fn every_permit_of_a_denied_node_ends_with_what_its_job_got_and_nobody_elses() {
    let (_folder, store) = with_permit(permit(1)).await;
    store.add_node(new_node("n2"), by()).await.expect("another node");
    store.put_boot(boot(2, "n2"), None).await.expect("its boot");
    let other = NewPermit { node: "n2".to_owned(), ak_name: boot(2, "n2").ak_name, ..permit(2) };
    let of_n2 = NewDecision { purpose: "permit".into(), ..decision("d2", "n2", NOW) };
    let of_n2 = Appraisal { permit: Some(other), ..Appraisal::of(of_n2) };
    store.record(of_n2).await.expect("issued");
    let many = 3..=u8::try_from(ENDED_TOGETHER).expect("few") + 4;
    for id in many.clone() {
        issue(&store, &format!("d{id}"), permit(id)).await.expect("issued");
    }
    let intent = CertificateIntent { not_after: NOW + 3600, ..intent("41", "n1") };
    let redemption = PermitUse { certificates: vec![intent], ..request(0) };
    store.use_permit(redemption, at(1)).await.expect("redeemed");
    let over = permit(3).id;
    assert!(store.end_permit(&over, 1, "over", at(1)).await.expect("ended"));
    let entries = async || store.verify_chain(|_, _| {}).await.expect("walk").entries;
    let before = entries().await;
    assert_eq!(store.end_permits_of("n3", at(2)).await.expect("nothing"), 0);
    assert_eq!(entries().await, before, "nothing is written");
    let ended_now = store.end_permits_of("n1", at(2)).await.expect("ended");
    assert_eq!(ended_now, many.count());
    ended(used(&store, 1, 3).await, "denied since");
    let waits = PermitUse { id: permit(9).id, ..request(0) };
    ended(store.use_permit(waits, at(3)).await.expect("an answer"), "denied since");
    assert_eq!(store.revoked_certificates(NOW + 2).await.expect("read").len(), 1);
    let ended_before = store.permit(&over).await.expect("read").expect("there");
    assert_eq!(ended_before.end_reason.as_deref(), Some("over"));
    let of_n2 = PermitUse { id: permit(2).id, ..request(0) };
    let good = store.use_permit(of_n2, at(3)).await.expect("an answer");
    assert!(matches!(good, PermitAnswer::Good(_)), "{good:?}");
    assert_eq!(store.end_permits_of("n1", at(4)).await.expect("nothing"), 0);
    assert_eq!(store.verify_chain(|_, _| {}).await.expect("walk").broken, None);
}

#[tokio::test]
async fn a_token_gives_one_permit() {
    let token_id = Some("issuer jti".to_owned());
    let (_folder, store) = with_permit(NewPermit { token_id: token_id.clone(), ..permit(1) }).await;
    let again = issue(&store, "d2", NewPermit { token_id, ..permit(2) }).await;
    assert!(matches!(again, Err(StoreError::AlreadyExists { what: "permit", .. })), "{again:?}");
    assert!(store.decision("d2").await.expect("read").is_none(), "nothing was recorded");
    issue(&store, "d3", permit(2)).await.expect("without a token");
}

#[tokio::test]
async fn a_node_that_is_not_active_gets_none() {
    let (_folder, store) = store().await;
    store.put_boot(boot(1, "n1"), None).await.expect("a boot");
    let revoke = NodeChange::Revoke { reason: "a test".to_owned() };
    store.change_node("n1", None, revoke, by()).await.expect("revoked");
    let refused = issue(&store, "d1", permit(1)).await;
    assert!(matches!(refused, Err(StoreError::NodeNotActive { .. })), "{refused:?}");
}

/// A permit that somebody wrote into the database, or changed, shows in the chain; and none is used twice there.
#[tokio::test]
async fn the_chain_holds_permits() {
    use sqlx::{ConnectOptions as _, sqlite::SqliteConnectOptions};
    let (_folder, store) = with_permit(permit(1)).await;
    used(&store, 0, 1).await;
    let options =
        SqliteConnectOptions::new().filename(store.folder().join(crate::store::DATABASE_FILE));
    let mut conn = options.connect().await.expect("raw connection");
    for attempt in [
        "UPDATE permits SET state = 'issued'",
        "UPDATE permits SET job_key = x'00'",
        "UPDATE permits SET redeem_by = 9",
        "DELETE FROM permits",
    ] {
        let done = sqlx::raw_sql(sqlx::AssertSqlSafe(attempt)).execute(&mut conn).await;
        let error = done.expect_err(attempt).to_string();
        assert!(error.contains("is never") || error.contains("one use"), "{attempt}: {error}");
    }
    let tamper = "DROP TRIGGER permits_no_rewrite; UPDATE permits SET job_key = x'00'";
    sqlx::raw_sql(sqlx::AssertSqlSafe(tamper)).execute(&mut conn).await.expect("tampered");
    let broken = store.verify_chain(|_, _| {}).await.expect("walk").broken.expect("broken");
    assert_eq!(broken.kind, BreakKind::RecordDiffers);
    let insert = "INSERT INTO permits SELECT '00000000000000000000000000000009', 'sha256:' || \
                  substr(secret_sha256, 8, 63) || 'x', 'd0', node, pool, ak_name, job_key, claims, basis, token_id, \
                  issued_at, redeem_by, ends_at, 'issued', 0, NULL, NULL, NULL FROM permits; UPDATE permits SET \
                  job_key = x'3001' WHERE id LIKE '%1'";
    store.record(Appraisal::of(decision("d0", "n1", NOW))).await.expect("recorded");
    sqlx::raw_sql(sqlx::AssertSqlSafe(insert)).execute(&mut conn).await.expect("inserted");
    let broken = store.verify_chain(|_, _| {}).await.expect("walk").broken.expect("broken");
    assert_eq!(broken.kind, BreakKind::RecordWithoutEntry);
}
