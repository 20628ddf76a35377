//! Records for tests.

use proto::digest::{Digest, HashAlg};

use super::{
    Appraisal, Boot, By, CertificateIntent, Counters, DocumentId, DocumentKind, NewDecision,
    NewDocument, NewNode, Node, NodeStatus, Outcome, Store, StoreOptions,
};

pub(crate) const NOW: i64 = 1_800_000_000;

pub(crate) fn digest(text: &str) -> Digest {
    HashAlg::Sha256.hash(&[text.as_bytes()])
}

pub(crate) fn by() -> By {
    By::new("admin/eve", NOW)
}

pub(crate) fn new_node(name: &str) -> NewNode {
    NewNode {
        name: name.into(),
        ek_digest: digest(name),
        pool: "linux".into(),
        status: NodeStatus::Active,
        ek_certificate: Some(vec![0x30, 0x00]),
        ek_chain: vec![vec![0x30, 0x01], vec![0x30, 0x02]],
        manufacturer: Some("IFX".into()),
        admitted_by: None,
        note: "rack 4".into(),
    }
}

pub(crate) fn node(name: &str) -> Node {
    let new = new_node(name);
    Node {
        name: new.name,
        ek_digest: new.ek_digest,
        pool: new.pool,
        status: new.status,
        ek_certificate: new.ek_certificate,
        ek_chain: new.ek_chain,
        manufacturer: new.manufacturer,
        counters: None,
        admitted_by: None,
        note: new.note,
        created: by(),
        approved: Some(by()),
        version: 1,
    }
}

pub(crate) fn boot(ak: u8, node: &str) -> Boot {
    Boot {
        ak_name: [&[0, 11], [ak; 32].as_slice()].concat(),
        node: node.into(),
        counters: Counters { reset_count: u32::from(ak), restart_count: 0 },
        record: b"{}".to_vec(),
        created_at: NOW + i64::from(ak),
        updated_at: NOW,
    }
}

pub(crate) fn decision(id: &str, node: &str, at: i64) -> NewDecision {
    NewDecision {
        id: id.into(),
        at,
        node: Some(node.into()),
        ek_digest: Some(digest(node)),
        purpose: "node".into(),
        outcome: Outcome::Admitted,
        codes: vec![],
        verdict: format!("{{\"decision\":\"{id}\"}}").into_bytes(),
        case: format!("case of {id}").into_bytes(),
        objects: vec![],
        policy_version: "linux/1".into(),
    }
}

pub(crate) fn appraisal(id: &str, node: &str) -> Appraisal {
    Appraisal::of(decision(id, node, NOW))
}

pub(crate) fn intent(serial: &str, node: &str) -> CertificateIntent {
    CertificateIntent {
        serial: serial.into(),
        node: node.into(),
        not_before: NOW,
        not_after: NOW + 3600,
        spki_sha256: digest("key"),
    }
}

/// A store in its own folder, with node `n1`.
pub(crate) async fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(&folder).await;
    store.add_node(new_node("n1"), by()).await.expect("add n1");
    (folder, store)
}

pub(crate) async fn open(folder: &tempfile::TempDir) -> Store {
    let options = StoreOptions::new(folder.path().join("state"));
    Store::open(options, NOW).await.expect("open the store")
}

pub(crate) fn golden_id(name: &str, version: u64) -> DocumentId {
    DocumentId { kind: DocumentKind::Golden, name: name.to_owned(), version }
}

pub(crate) fn golden(name: &str, version: u64, text: &str) -> NewDocument {
    NewDocument {
        id: golden_id(name, version),
        pool: Some("linux".to_owned()),
        document: text.as_bytes().to_vec(),
        payload: b"{}".to_vec(),
        is_observed: false,
        origin: "a test".to_owned(),
    }
}

/// A ring of keys in force, of this version; nothing happens where there is one.
pub(crate) async fn with_ring(store: &Store, version: u64) {
    let id = DocumentId { kind: DocumentKind::Keys, name: "security".to_owned(), version };
    let ring = NewDocument { id, pool: None, ..golden("security", version, "a ring") };
    store.adopt_keys(ring, by()).await.expect("adopted");
}

/// Takes a set through its life, until it is in force.
pub(crate) async fn activated(store: &Store, name: &str, version: u64) {
    with_ring(store, 1).await;
    let id = golden_id(name, version);
    store.propose_document(golden(name, version, "a set"), by()).await.expect("proposed");
    let key = digest("a key");
    store.sign_document(id.clone(), key, b"s".to_vec(), true, by()).await.expect("signed");
    store.activate_document(id, false, 1, by()).await.expect("activated");
}
