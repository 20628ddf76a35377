//! Behaviour of the store as a whole.

use std::{sync::Arc, time::Duration};

use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{testing::*, *};
use crate::audit::BreakKind;
use proto::digest::HashAlg;

async fn raw(store: &Store) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(store.folder().join(DATABASE_FILE));
    options.busy_timeout(BUSY_TIMEOUT).connect().await.expect("raw connection")
}

async fn sql(conn: &mut SqliteConnection, text: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(text.to_owned())).execute(conn).await.expect("raw SQL");
}

fn full(id: &str, node: &str, ak: u8, expected: Option<u64>) -> Appraisal {
    Appraisal {
        boot: Some(PutBoot { boot: boot(ak, node), expected_version: expected }),
        renewed_ak: None,
        certificate: Some(intent(&format!("00{id}"), node)),
        ..appraisal(id, node)
    }
}

#[tokio::test]
async fn an_appraisal_comes_back_whole() {
    let (_folder, store) = store().await;
    let recorded = store.record(full("d1", "n1", 1, None)).await.expect("record");
    assert_eq!(recorded.boot_version, Some(1));
    let found = store.decision("d1").await.expect("read").expect("there");
    assert_eq!((found.seq, found.entry_hash), (recorded.seq, recorded.entry_hash));
    assert_eq!(found.decision.outcome, Outcome::Admitted);
    assert_eq!(store.verdict("d1").await.expect("read"), Some(br#"{"decision":"d1"}"#.to_vec()));
    assert_eq!(store.case("d1").await.expect("read"), Some(b"case of d1".to_vec()));
    let known = store.boot(&boot(1, "n1").ak_name).await.expect("read").expect("there");
    assert_eq!((&known.boot, known.version), (&boot(1, "n1"), 1));
    assert_eq!(known.node.counters, Some(Counters { reset_count: 1, restart_count: 0 }));
    let certificate = store.certificate("00d1").await.expect("read").expect("there");
    assert_eq!(certificate.status, CertificateStatus::Intent);
    store.certificate_signed("00d1", digest("cert"), by()).await.expect("signed");
    let error = store.certificate_signed("00d1", digest("cert"), by()).await.expect_err("twice");
    assert!(matches!(error, StoreError::InvalidTransition { from: "signed", .. }));
    assert_eq!(store.decisions(&DecisionFilter::default()).await.expect("list"), vec![found]);
}

#[tokio::test]
async fn a_big_case_is_an_object_and_its_damage_is_named() {
    let (_folder, store) = store().await;
    let big = vec![7_u8; 200_000];
    let mut appraisal = appraisal("d1", "n1");
    appraisal.decision.case = big.clone();
    store.record(appraisal).await.expect("record");
    assert_eq!(store.case("d1").await.expect("read"), Some(big.clone()));
    let listed = store.objects().list().expect("list");
    assert_eq!(listed.len(), 1);
    let path = store.folder().join(OBJECTS_FOLDER).join(Objects::relative_path(&listed[0].0));
    fs::write(&path, b"other").expect("tamper");
    let error = store.case("d1").await.expect_err("tampered");
    assert!(matches!(error, StoreError::DigestMismatch { .. }));
}

#[tokio::test]
async fn a_boot_written_by_somebody_else_is_a_conflict_and_nothing_stays() {
    let (_folder, store) = store().await;
    store.record(full("d1", "n1", 1, None)).await.expect("record");
    let cases = [(None, Some(1)), (Some(7), Some(1))];
    for (expected, found) in cases {
        let error = store.record(full("d2", "n1", 1, expected)).await.expect_err("conflict");
        match error {
            StoreError::Conflict { what: "boot", expected: e, found: f, .. } => {
                assert_eq!((e, f), (expected, found));
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(store.decision("d2").await.expect("read"), None);
    assert_eq!(store.certificate("00d2").await.expect("read"), None);
    assert_eq!(store.put_boot(boot(1, "n1"), Some(1)).await.expect("put"), 2);
    let error = store.put_boot(boot(9, "n1"), Some(1)).await.expect_err("no record");
    assert!(matches!(error, StoreError::Conflict { found: None, .. }));
    let report = store.verify_chain(|_, _| {}).await.expect("walk");
    assert_eq!((report.broken, report.entries), (None, 3));
}

/// Who judged by what is retired writes nothing.
#[tokio::test]
async fn what_rests_on_a_retired_ground_is_refused_and_nothing_stays() {
    let (_folder, store) = store().await;
    let rule = AdmissionRule {
        name: "r".into(),
        root_sha256: None,
        manufacturer: None,
        pool: "linux".into(),
        name_template: "w-".into(),
    };
    let root = b"a root".to_vec();
    let sha256 = HashAlg::Sha256.hash(&[&root]);
    activated(&store, "linux", 1).await;
    let mut tries = 0_u8;
    for (ground, what) in [
        (Ground::ReferenceDocuments, "the golden sets and policies"),
        (Ground::Endorsements, "the endorsements"),
        (Ground::AdmissionRules, "the admission rules"),
    ] {
        for change in 0..2 {
            let seen = store.seen();
            match (&ground, change) {
                (Ground::ReferenceDocuments, 0) => activated(&store, "linux", 2).await,
                (Ground::ReferenceDocuments, _) => {
                    let (id, active) = (golden_id("linux", 2), DocumentState::Active);
                    store.retire_document(id, active, "", by()).await.expect("retire");
                }
                (Ground::Endorsements, 0) => {
                    let kind = EndorsementKind::Root;
                    store.import_endorsement(kind, root.clone(), "", by()).await.expect("import");
                }
                (Ground::Endorsements, _) => {
                    let kind = EndorsementKind::Root;
                    store.remove_endorsement(kind, sha256, by()).await.expect("remove");
                }
                (Ground::AdmissionRules, 0) => {
                    store.add_admission_rule(rule.clone(), by()).await.expect("add");
                }
                (Ground::AdmissionRules, _) => {
                    store.remove_admission_rule("r", by()).await.expect("remove");
                }
            }
            tries += 1;
            let id = format!("d{tries}");
            let judged = |seen| Appraisal {
                grounds: vec![ground.clone()],
                seen,
                ..full(&id, "n1", tries, None)
            };
            match store.record(judged(seen)).await.expect_err("superseded") {
                StoreError::Superseded { what: found } => assert_eq!(found, what),
                other => panic!("{other}"),
            }
            assert_eq!(store.decision(&id).await.expect("read"), None);
            assert_eq!(store.boot(&boot(tries, "n1").ak_name).await.expect("read"), None);
            assert_eq!(store.certificate(&format!("00{id}")).await.expect("read"), None);
            store.record(judged(store.seen())).await.expect("judged again");
        }
    }
}

/// In the transaction that is open, too.
#[tokio::test]
async fn a_change_counts_before_its_commit() {
    let (_folder, store) = store().await;
    let seen = store.seen();
    let root = b"a root".to_vec();
    let imported = store.import_endorsement(EndorsementKind::Root, root, "", by());
    let appraisal =
        Appraisal { grounds: vec![Ground::Endorsements], seen, ..full("d1", "n1", 1, None) };
    // Queued in this order, before the writer task runs: one group.
    let (imported, recorded) = tokio::join!(imported, store.record(appraisal));
    assert!(imported.expect("import"));
    assert!(matches!(recorded, Err(StoreError::Superseded { .. })), "{recorded:?}");
}

#[tokio::test]
async fn only_the_latest_boots_of_a_node_are_kept() {
    let (_folder, store) = store().await;
    for ak in 1..=9 {
        store.put_boot(boot(ak, "n1"), None).await.expect("put");
    }
    let kept: Vec<_> = store.boots("n1").await.expect("list");
    let resets: Vec<_> = kept.iter().map(|(boot, _)| boot.counters.reset_count).collect();
    assert_eq!(resets, [9, 8, 7, 6]);
    assert_eq!(store.boot(&boot(1, "n1").ak_name).await.expect("read"), None);
}

#[tokio::test]
async fn a_revoked_node_gets_no_certificate_and_loses_what_it_has() {
    let (_folder, store) = store().await;
    store.record(full("d1", "n1", 1, None)).await.expect("record");
    store.record(full("d2", "n1", 1, Some(1))).await.expect("record");
    store.certificate_signed("00d1", digest("cert"), by()).await.expect("signed");
    // Another TPM stands in the record since the appraisal began: nothing is written, nothing signed.
    let stale = Appraisal { node_version: Some(9), ..full("d9", "n1", 1, Some(2)) };
    let error = store.record(stale).await.expect_err("stale");
    assert!(matches!(error, StoreError::Conflict { what: "node", .. }), "{error}");
    assert!(store.decision("d9").await.expect("read").is_none());
    let revoke = NodeChange::Revoke { reason: "stolen".into() };
    store.change_node("n1", Some(1), revoke.clone(), by()).await.expect("revoke");
    let revoked = store.revoked_certificates(NOW).await.expect("list");
    let serials: Vec<_> = revoked.iter().map(|found| found.intent.serial.as_str()).collect();
    assert_eq!(serials, ["00d1", "00d2"]);
    assert_eq!(store.revoked_certificates(NOW + 3601).await.expect("list"), vec![]);
    let error = store.certificate_signed("00d2", digest("c"), by()).await.expect_err("revoked");
    assert!(matches!(error, StoreError::InvalidTransition { from: "revoked", .. }));
    assert_eq!(store.boot(&boot(1, "n1").ak_name).await.expect("read"), None);
    let error = store.record(full("d3", "n1", 1, None)).await.expect_err("revoked");
    assert!(matches!(error, StoreError::NodeNotActive { status: "revoked", .. }));
    let error = store.change_node("n1", None, revoke, by()).await.expect_err("twice");
    assert!(matches!(error, StoreError::InvalidTransition { .. }));
    let history = store.audit_entries(Some("n1"), 10).await.expect("history");
    assert_eq!(history.len(), 2);
    assert_eq!(history[0].body, br#"{"change":"revoke","reason":"stolen"}"#);
}

#[tokio::test]
async fn the_cache_sees_every_change_of_a_node() {
    let (_folder, store) = store().await;
    store.put_boot(boot(1, "n1"), None).await.expect("put");
    let ak = boot(1, "n1").ak_name;
    let first = store.boot(&ak).await.expect("read").expect("there");
    assert!(Arc::ptr_eq(&first, &store.boot(&ak).await.expect("read").expect("there")));
    let change = NodeChange::MoveTo { pool: "arm".into() };
    store.change_node("n1", None, change, by()).await.expect("move");
    assert_eq!(store.boot(&ak).await.expect("read").expect("there").node.pool, "arm");
    store.put_boot(boot(2, "n1"), None).await.expect("next boot");
    let counters = store.boot(&ak).await.expect("read").expect("there").node.counters;
    assert_eq!(counters, Some(Counters { reset_count: 2, restart_count: 0 }));
    store
        .change_node("n1", None, NodeChange::ForgetCounters { reason: "cleared".into() }, by())
        .await
        .expect("forget");
    assert_eq!(store.boot(&ak).await.expect("read"), None);
    assert_eq!(store.node("n1").await.expect("read").expect("there").counters, None);
}

#[tokio::test]
async fn names_and_endorsement_keys_are_unique() {
    let (_folder, store) = store().await;
    let mut same_key = new_node("n2");
    same_key.ek_digest = digest("n1");
    let error = store.add_node(same_key, by()).await.expect_err("known EK");
    assert!(matches!(error, StoreError::AlreadyExists { what: "node with this EK:", .. }));
    let mut same_name = new_node("n1");
    same_name.ek_digest = digest("other");
    let error = store.add_node(same_name, by()).await.expect_err("known name");
    assert!(matches!(error, StoreError::AlreadyExists { what: "node", .. }));
    let error = store
        .change_node(
            "n1",
            Some(9),
            NodeChange::Approve { name: "n1".into(), pool: "x86".into() },
            by(),
        )
        .await;
    assert!(matches!(error, Err(StoreError::Conflict { found: Some(1), .. })));
    assert_eq!(store.node("n1").await.expect("read"), Some(node("n1")));
    store.remove_node("n1", "scrapped", by()).await.expect("remove");
    assert_eq!(store.node_by_ek(&digest("n1")).await.expect("read"), None);
}

#[tokio::test]
async fn reference_records_come_back() {
    let (_folder, store) = store().await;
    let empty = store.endorsements().await.expect("list").digest();
    let import =
        |der: &[u8]| store.import_endorsement(EndorsementKind::Root, der.to_vec(), "vendor", by());
    assert!(import(b"root").await.expect("import"));
    assert!(!import(b"root").await.expect("again"));
    let set = store.endorsements().await.expect("list");
    assert_ne!(set.digest(), empty);
    let sha256 = set.items[0].sha256;
    store.remove_endorsement(EndorsementKind::Root, sha256, by()).await.expect("remove");
    assert_eq!(store.endorsements().await.expect("list").digest(), empty);
    let again = store.remove_endorsement(EndorsementKind::Root, sha256, by()).await;
    assert!(matches!(again, Err(StoreError::NotFound { what: "root", .. })));

    let rule = AdmissionRule {
        name: "cloud".into(),
        root_sha256: Some(digest("root")),
        manufacturer: None,
        pool: "linux".into(),
        name_template: "w-{ek}".into(),
    };
    store.add_admission_rule(rule.clone(), by()).await.expect("add");
    let error = store.add_admission_rule(rule.clone(), by()).await.expect_err("twice");
    assert!(matches!(error, StoreError::AlreadyExists { what: "admission rule", .. }));
    assert_eq!(store.admission_rules().await.expect("list"), vec![(rule, by())]);
    store.remove_admission_rule("cloud", by()).await.expect("remove");

    let admin = Admin {
        name: "eve".into(),
        role: Role::Security,
        spki_sha256: digest("eve"),
        created: by(),
        revoked_at: None,
    };
    store.add_admin(admin.clone()).await.expect("add");
    assert_eq!(store.admin_by_spki(&digest("eve")).await.expect("read"), Some(admin));
    store.revoke_admin("eve", by()).await.expect("revoke");
    let found = store.admins().await.expect("list");
    assert_eq!(found[0].revoked_at, Some(NOW));
    let again = store.revoke_admin("eve", by()).await;
    assert!(matches!(again, Err(StoreError::NotFound { what: "administrator", .. })));

    assert_eq!(store.setting_or_insert("id", vec![1]).await.expect("set"), [1]);
    assert_eq!(store.setting_or_insert("id", vec![2]).await.expect("set"), [1]);
    assert_eq!(store.setting("id").await.expect("get"), Some(vec![1]));
    assert_eq!(store.next_number("crl").await.expect("number"), 1);
    assert_eq!(store.next_number("crl").await.expect("number"), 2);
    let report = store.verify_chain(|_, _| {}).await.expect("walk");
    assert_eq!(report.broken, None);
}

/// Changes one thing behind the store's back and says what the walk finds.
async fn broken_by(tampering: &str) -> ChainBreak {
    let (_folder, store) = store().await;
    for id in ["d1", "d2", "d3"] {
        let expected = (id != "d1").then(|| u64::from(id.as_bytes()[1] - b'1'));
        store.record(full(id, "n1", 1, expected)).await.expect("record");
    }
    // Entries: 1 node, then decision and certificate intent of d1, d2 and d3.
    let mut conn = raw(&store).await;
    sql(
        &mut conn,
        "PRAGMA foreign_keys = OFF; DROP TRIGGER audit_entries_no_update; DROP TRIGGER \
         audit_entries_no_delete; DROP TRIGGER decisions_no_update; DROP TRIGGER \
         decisions_no_delete; DROP TRIGGER certificates_no_rewrite; DROP TRIGGER \
         certificates_no_delete",
    )
    .await;
    sql(&mut conn, tampering).await;
    let report = store.verify_chain(|_, _| {}).await.expect("walk");
    report.broken.unwrap_or_else(|| panic!("not found: {tampering}"))
}

#[tokio::test]
async fn every_changed_column_of_an_entry_is_found() {
    use BreakKind::{EntryHash, PreviousHash, Sequence};
    let cases = [
        ("UPDATE audit_entries SET at = at + 1 WHERE seq = 4", 4, EntryHash),
        ("UPDATE audit_entries SET kind = 'action' WHERE seq = 4", 4, EntryHash),
        ("UPDATE audit_entries SET actor = 'admin/mallory' WHERE seq = 4", 4, EntryHash),
        ("UPDATE audit_entries SET subject = 'd9' WHERE seq = 4", 4, EntryHash),
        ("UPDATE audit_entries SET body = x'7b7d' WHERE seq = 4", 4, EntryHash),
        ("UPDATE audit_entries SET prev_hash = zeroblob(32) WHERE seq = 4", 4, PreviousHash),
        ("UPDATE audit_entries SET entry_hash = zeroblob(32) WHERE seq = 4", 4, EntryHash),
        ("UPDATE audit_entries SET seq = 40 WHERE seq = 4", 4, Sequence),
        ("UPDATE audit_entries SET replica = 'r9' WHERE seq = 4", 4, Sequence),
        ("DELETE FROM audit_entries WHERE seq = 4", 4, Sequence),
        ("DELETE FROM audit_entries WHERE seq = 1", 1, Sequence),
        ("UPDATE audit_entries SET at = 'noon' WHERE seq = 4", 4, EntryHash),
    ];
    for (tampering, seq, kind) in cases {
        let broken = broken_by(tampering).await;
        assert_eq!((broken.seq, broken.kind), (seq, kind), "{tampering}: {broken}");
        assert_eq!(broken.replica, "r1", "{tampering}");
    }
}

#[tokio::test]
async fn every_changed_column_of_a_record_is_found() {
    let columns = [
        "id = 'd9'",
        "at = 1",
        "node = 'n2'",
        "ek_digest = NULL",
        "purpose = 'permit'",
        "outcome = 'denied'",
        "codes = '[\"EK_REVOKED\"]'",
        "codes = 'x'",
        "verdict_sha256 = case_sha256",
        "case_sha256 = verdict_sha256",
        "policy_version = 'linux/2'",
    ];
    for column in columns {
        let broken = broken_by(&format!("UPDATE decisions SET {column} WHERE id = 'd2'")).await;
        assert_eq!((broken.seq, broken.kind), (4, BreakKind::RecordDiffers), "{column}: {broken}");
    }
    for moved in ["seq = 99", "replica = 'r9'"] {
        let broken = broken_by(&format!("UPDATE decisions SET {moved} WHERE id = 'd2'")).await;
        assert_eq!((broken.seq, broken.kind), (4, BreakKind::RecordMissing), "{moved}: {broken}");
    }
    let broken = broken_by("DELETE FROM decisions WHERE id = 'd2'").await;
    assert_eq!((broken.seq, broken.kind), (4, BreakKind::RecordMissing));
    let forged = "INSERT INTO decisions SELECT 'd9', replica, 99, at, node, ek_digest, purpose, \
                  outcome, codes, verdict_sha256, case_sha256, policy_version FROM decisions \
                  WHERE id = 'd2'";
    let broken = broken_by(forged).await;
    assert_eq!((broken.seq, broken.kind), (99, BreakKind::RecordWithoutEntry));
    assert_eq!(broken.observed, "d9");
    let columns = ["node = 'n2'", "decision_id = 'd1'", "not_before = 1", "not_after = 1"];
    for column in columns {
        let change = format!("UPDATE certificates SET {column} WHERE serial = '00d2'");
        let broken = broken_by(&change).await;
        assert_eq!((broken.seq, broken.kind), (5, BreakKind::RecordDiffers), "{column}: {broken}");
    }
    let broken = broken_by("DELETE FROM certificates WHERE serial = '00d2'").await;
    assert_eq!((broken.seq, broken.kind), (5, BreakKind::RecordMissing));
}

#[tokio::test]
async fn the_database_refuses_to_change_what_is_append_only() {
    let (_folder, store) = store().await;
    store.record(full("d1", "n1", 1, None)).await.expect("record");
    let mut conn = raw(&store).await;
    for attempt in [
        "UPDATE audit_entries SET at = 0",
        "DELETE FROM audit_entries",
        "UPDATE decisions SET outcome = 'denied'",
        "DELETE FROM decisions",
        "UPDATE certificates SET node = 'n2'",
        "DELETE FROM certificates",
    ] {
        let done = sqlx::raw_sql(sqlx::AssertSqlSafe(attempt)).execute(&mut conn).await;
        assert!(done.expect_err("refused").to_string().contains(" never "), "{attempt}");
    }
}

#[tokio::test]
async fn a_cut_tail_is_found_by_the_anchor_and_not_opened() {
    let (folder, store) = store().await;
    store.record(full("d1", "n1", 1, None)).await.expect("record");
    store.close().await.expect("close");
    assert!(matches!(store.node("n1").await, Err(StoreError::Closed)));
    assert!(matches!(store.add_node(new_node("n2"), by()).await, Err(StoreError::Closed)));
    let mut conn = raw(&store).await;
    sql(
        &mut conn,
        "DROP TRIGGER audit_entries_no_delete; DROP TRIGGER certificates_no_delete; DELETE FROM \
         certificates; DELETE FROM audit_entries WHERE seq = 3",
    )
    .await;
    conn.close().await.expect("close");
    let options = StoreOptions::new(folder.path().join("state"));
    let looking = Store::open(options.clone().read_only(), NOW).await.expect("read");
    let broken = looking.verify_chain(|_, _| {}).await.expect("walk").broken.expect("cut");
    assert_eq!((broken.seq, broken.kind), (3, BreakKind::AnchoredEntryMissing));
    let error = Store::open(options, NOW).await.expect_err("cut");
    assert!(matches!(error, StoreError::RolledBack { seq: 3, .. }), "{error}");
}

#[tokio::test]
async fn a_failing_piece_of_a_group_is_rolled_back_alone() {
    let (_folder, store) = store().await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..400_u32 {
        let store = store.clone();
        tasks.spawn(async move {
            let node = if number % 4 == 0 { "absent" } else { "n1" };
            let id = format!("d{number}");
            let mut appraisal = appraisal(&id, node);
            appraisal.certificate = Some(intent(&id, node));
            (number, store.record(appraisal).await)
        });
    }
    let mut good = 0;
    while let Some(done) = tasks.join_next().await {
        match done.expect("task") {
            (number, Err(StoreError::NotFound { what: "node", .. })) => assert_eq!(number % 4, 0),
            (number, Ok(_)) => {
                assert_ne!(number % 4, 0);
                good += 1;
            }
            (_, Err(other)) => panic!("{other}"),
        }
    }
    assert_eq!(good, 300);
    let mut seen = Vec::new();
    let report = store.verify_chain(|done, all| seen.push((done, all))).await.expect("walk");
    assert_eq!((report.broken, report.entries), (None, 601));
    assert_eq!(seen.last(), Some(&(601, 601)));
}

/// Whoever starts programs while a store is closed must not find it locked afterwards.
#[tokio::test]
async fn a_copy_of_the_descriptor_does_not_keep_the_folder_locked() {
    let (folder, store) = store().await;
    let lock = store.folder().join("lock").canonicalize().expect("lock file");
    // What a child has between fork and exec.
    let copies: Vec<_> = std::fs::read_dir("/proc/self/fd")
        .expect("descriptors")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|fd| {
            std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok_and(|path| path == lock)
        })
        .map(|fd| {
            let pid = rustix::process::getpid();
            let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
            let flags = rustix::process::PidfdGetfdFlags::empty();
            rustix::process::pidfd_getfd(process.expect("this process"), fd, flags).expect("copy")
        })
        .collect();
    assert_eq!(copies.len(), 1, "the lock's descriptor was found");
    store.close().await.expect("closed");
    open(&folder).await.close().await.expect("opened while a copy lives");
}

#[tokio::test]
async fn a_second_writer_is_refused_and_a_reader_is_not() {
    let (folder, store) = store().await;
    let options = StoreOptions::new(folder.path().join("state"));
    let error = Store::open(options.clone(), NOW).await.expect_err("locked");
    let process = std::process::id();
    assert!(matches!(error, StoreError::Locked { holder: Some(pid), .. } if pid == process));
    let reader = Store::open(options.clone().read_only(), NOW).await.expect("read");
    assert_eq!(reader.node("n1").await.expect("read"), Some(node("n1")));
    let error = reader.add_node(new_node("n2"), by()).await.expect_err("read-only");
    assert!(matches!(error, StoreError::ReadOnly));
    reader.close().await.expect("close");
    store.close().await.expect("close");
    let again = Store::open(options, NOW).await.expect("free again");
    assert_eq!(again.node("n1").await.expect("read"), Some(node("n1")));
}

#[tokio::test]
async fn foreign_newer_and_changed_databases_are_refused_untouched() {
    let open = async |folder: &tempfile::TempDir| {
        Store::open(StoreOptions::new(folder.path()), NOW).await.map(drop)
    };
    let folder = tempfile::tempdir().expect("temporary folder");
    let database = folder.path().join(DATABASE_FILE);
    fs::write(&database, b"#!/bin/sh\necho not a database\n").expect("write");
    let error = open(&folder).await.expect_err("text");
    assert!(matches!(error, StoreError::NotAssay { why: "not an SQLite file", .. }));

    let folder = tempfile::tempdir().expect("temporary folder");
    let database = folder.path().join(DATABASE_FILE);
    let options = SqliteConnectOptions::new().filename(&database).create_if_missing(true);
    let mut conn = options.connect().await.expect("create");
    sql(&mut conn, "CREATE TABLE t (x)").await;
    conn.close().await.expect("close");
    let before = fs::read(&database).expect("read");
    let error = open(&folder).await.expect_err("foreign");
    assert!(matches!(error, StoreError::NotAssay { .. }), "{error}");
    assert_eq!(fs::read(&database).expect("read"), before);

    for (change, newer) in [
        ("INSERT INTO schema_migrations VALUES (99, 'later', '', 0)", true),
        ("UPDATE schema_migrations SET sha256 = 'other'", false),
    ] {
        let (folder, store) = store().await;
        store.close().await.expect("close");
        let mut conn = raw(&store).await;
        sql(&mut conn, change).await;
        conn.close().await.expect("close");
        let options = StoreOptions::new(folder.path().join("state"));
        match Store::open(options, NOW).await.expect_err("refused") {
            StoreError::SchemaTooNew { found: 99, supported, .. } => {
                assert!(newer);
                assert_eq!(supported, super::SCHEMA_VERSION);
            }
            StoreError::MigrationChanged { version: 1 } => assert!(!newer),
            other => panic!("{other}"),
        }
    }
    let folder = tempfile::tempdir().expect("temporary folder");
    let reading = StoreOptions::new(folder.path().join("absent")).read_only();
    let error = Store::open(reading, NOW).await.expect_err("nothing to read");
    assert!(matches!(error, StoreError::NotFound { what: "database", .. }));
    assert!(!folder.path().join("absent").exists());
}

#[tokio::test]
async fn files_are_private_and_open_ones_are_warned_about() {
    let (folder, store) = store().await;
    assert_eq!(store.warnings(), &[] as &[String]);
    let state = folder.path().join("state");
    for file in ["assay.db", "assay.db-wal", "lock"] {
        let mode = fs::metadata(state.join(file)).expect(file).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    store.close().await.expect("close");
    let database = state.join(DATABASE_FILE);
    fs::set_permissions(&database, fs::Permissions::from_mode(0o644)).expect("chmod");
    let store = open(&folder).await;
    assert_eq!(store.warnings().len(), 1);
    assert!(store.warnings()[0].contains("mode 0644") && store.warnings()[0].contains("chmod 600"));
}

#[tokio::test]
async fn retention_drops_evidence_by_age_and_count_and_leaves_the_chain() {
    let (_folder, store) = store().await;
    let shared = store.put_object(vec![1; 50_000]).await.expect("put").digest();
    let lonely = store.put_object(vec![2; 40_000]).await.expect("put").digest();
    for (number, bytes) in [(0_i64, vec![1; 50_000]), (1, vec![2; 40_000]), (2, vec![1; 50_000])] {
        let mut appraisal = appraisal(&format!("d{number}"), "n1");
        appraisal.decision.at = NOW + number;
        appraisal.decision.objects = vec![store.put_object(bytes).await.expect("put")];
        store.record(appraisal).await.expect("record");
    }
    let limits = Retention { before: None, keep_newest: Some(1), dry_run: true };
    let planned = store.retain(limits, by()).await.expect("plan");
    assert_eq!((planned.decisions, planned.objects, planned.object_bytes), (2, 1, 40_000));
    assert_eq!(store.object(lonely).await.expect("still there").len(), 40_000);
    let done = store.retain(Retention { dry_run: false, ..limits }, by()).await.expect("drop");
    assert_eq!(done, planned);
    let error = store.object(lonely).await.expect_err("dropped");
    assert!(matches!(error, StoreError::NotFound { what: "evidence object", .. }));
    assert_eq!(store.object(shared).await.expect("needed by d2").len(), 50_000);
    assert_eq!(store.verdict("d0").await.expect("read"), None);
    assert_eq!(store.case("d1").await.expect("read"), None);
    assert!(store.case("d2").await.expect("read").is_some());
    assert!(store.decision("d0").await.expect("read").is_some());
    let all = Retention { before: Some(NOW + 3), keep_newest: None, dry_run: false };
    let held = store.put_object(vec![3; 60_000]).await.expect("put");
    let done = store.retain(all, by()).await.expect("drop");
    assert_eq!((done.decisions, done.objects), (1, 1));
    assert_eq!(store.object(held.digest()).await.expect("in use").len(), 60_000);
    assert_eq!(store.verify_chain(|_, _| {}).await.expect("walk").broken, None);
}

#[tokio::test]
async fn a_full_database_is_named_and_the_store_works_on_afterwards() {
    let (folder, store) = store().await;
    store.close().await.expect("close");
    let store = open(&folder).await;
    // The limit is a property of the writer's connection: set it there.
    store
        .write(|tx| {
            Box::pin(async move {
                let pages: i64 = sqlx::query_scalar("PRAGMA page_count")
                    .fetch_one(&mut tx.conn)
                    .await
                    .map_err(StoreError::database("test"))?;
                let limit = format!("PRAGMA max_page_count = {}", pages + 2);
                sqlx::raw_sql(sqlx::AssertSqlSafe(limit))
                    .execute(&mut tx.conn)
                    .await
                    .map(drop)
                    .map_err(StoreError::database("test"))
            })
        })
        .await
        .expect("limit");
    let mut appraisal = appraisal("d1", "n1");
    appraisal.decision.verdict = vec![b' '; 100_000];
    let error = store.record(appraisal).await.expect_err("full");
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    // The connection was opened again, without the test's limit.
    store.record(full("d2", "n1", 1, None)).await.expect("works on");
    assert_eq!(store.decision("d1").await.expect("read"), None);
    assert_eq!(store.verify_chain(|_, _| {}).await.expect("walk").broken, None);
}

#[tokio::test]
async fn the_anchor_follows_within_its_interval() {
    let (_folder, store) = store().await;
    store.record(appraisal("d1", "n1")).await.expect("record");
    let heads = store.chain_heads().await.expect("heads");
    for _ in 0..100 {
        if crate::audit::read_anchor(store.folder()).expect("anchor").as_ref() == Some(&heads) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no anchor of {heads:?}");
}

#[tokio::test]
async fn a_database_of_the_first_schema_is_migrated_with_what_it_holds() {
    let (folder, store) = store().await;
    store.close().await.expect("close");
    // What later migrations did is taken back.
    let mut conn = raw(&store).await;
    sql(&mut conn, "DROP TABLE manifests; DROP TABLE reference_signatures").await;
    sql(&mut conn, "DROP TABLE reference_documents; DROP TABLE permits").await;
    sql(&mut conn, "DROP INDEX decisions_not_admitted; DROP INDEX audit_entries_of_grounds").await;
    let first = include_str!("migrations/0001_initial.sql");
    let table = first.split("CREATE TABLE golden_sets").nth(1).expect("the table");
    let table = table.split_inclusive(";").next().expect("its end");
    sql(&mut conn, &format!("CREATE TABLE golden_sets{table}")).await;
    let old = digest("an old set");
    sql(
        &mut conn,
        &format!(
            "INSERT INTO golden_sets VALUES ('linux', 4, 'base', CAST('an old set' AS BLOB), \
             '{old}', NULL, 'active', 'admin/eve', 1)"
        ),
    )
    .await;
    sql(&mut conn, "DELETE FROM schema_migrations WHERE version > 1").await;
    conn.close().await.expect("close");
    let store = open(&folder).await;
    assert!(store.node("n1").await.expect("read").is_some());
    // Nobody signed it: it is kept, and judges no more.
    let kept = store.document(&golden_id("base", 4)).await.expect("read").expect("kept");
    assert_eq!((kept.state, kept.sha256), (DocumentState::Retired, old));
    assert!(store.documents_in_force().await.expect("read").is_empty());
    let document = b"a manifest".to_vec();
    let sha256 = HashAlg::Sha256.hash(&[&document]);
    let manifest = NewManifest { name: "m".into(), files: 1, document: document.clone() };
    assert!(store.import_manifest(manifest.clone(), by()).await.expect("imported"));
    assert!(!store.import_manifest(manifest, by()).await.expect("known"), "imported once");
    assert_eq!(store.manifest(&sha256).await.expect("read"), Some(document));
    let listed = store.manifests().await.expect("listed");
    assert_eq!(listed.iter().map(|m| (m.sha256, m.files)).collect::<Vec<_>>(), [(sha256, 1)]);
    assert_eq!(store.verify_chain(|_, _| ()).await.expect("walked").broken, None);
}
