//! The CA on disk: modes, idempotence, resuming, rotation.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::super::{files::FileError, *};
use super::{NOW, created, facts, issue_node, node, nodes, segment, tpm_public, trust_domain};

fn snapshot(dir: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let mut out = Vec::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            let mode = fs::metadata(&path).expect("metadata").permissions().mode() & 0o7777;
            if path.is_dir() {
                out.push((path.clone(), mode, Vec::new()));
                pending.push(path);
            } else {
                out.push((path.clone(), mode, fs::read(&path).expect("content")));
            }
        }
    }
    out.sort();
    out
}

#[test]
fn creation_is_idempotent_and_private() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    let ca = created(&state, NOW);
    let before = snapshot(&state);
    for (path, mode, content) in &before {
        let secret = String::from_utf8_lossy(content).contains("PRIVATE KEY");
        if secret {
            assert_eq!(*mode, 0o600, "{}", path.display());
        }
        assert_eq!(mode & 0o022, 0, "{}", path.display());
    }
    let mode = fs::metadata(state.join("ca")).expect("metadata").permissions().mode() & 0o7777;
    assert_eq!(mode, 0o700);
    let steps = ca.create(NOW + 1000).expect("a second run");
    assert!(steps.iter().all(|step| !step.created), "{steps:?}");
    assert_eq!(snapshot(&state), before);
}

#[test]
fn a_run_that_was_cut_off_is_taken_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = created(dir.path(), NOW);
    let key = fs::read(ca.root_key_path()).expect("the root key");
    // After the root key; after the root; after one issuing CA; before the bundle.
    let issuing = CaRole::ALL.map(|role| format!("ca/{role}.pem")).into_iter().rev();
    let files: Vec<String> = std::iter::once("bundle.pem".to_owned())
        .chain(issuing)
        .chain(["ca/root.pem".to_owned()])
        .collect();
    for cut in 1..=files.len() {
        for name in &files[..cut] {
            fs::remove_file(dir.path().join(name)).expect(name);
        }
        let steps = ca.create(NOW).expect("it goes on");
        assert_eq!(steps.iter().filter(|step| step.created).count(), cut);
        assert_eq!(fs::read(ca.root_key_path()).expect("the root key"), key, "never made anew");
        issue_node(&nodes(&ca), "worker-01", NOW);
    }
}

#[test]
fn what_was_lost_is_not_silently_made_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = created(dir.path(), NOW);
    fs::remove_file(dir.path().join("ca/root.pem")).expect("removed");
    assert!(matches!(ca.create(NOW), Err(CaError::Partial { .. })));
    let dir = tempfile::tempdir().expect("a directory");
    let ca = created(dir.path(), NOW);
    fs::remove_file(ca.root_key_path()).expect("moved away");
    assert!(ca.create(NOW).expect("complete without the key").iter().all(|step| !step.created));
    fs::remove_file(dir.path().join("ca/nodes.pem")).expect("removed");
    assert!(matches!(ca.create(NOW), Err(CaError::RootKeyAbsent { .. })));
}

#[test]
fn serving_never_needs_the_root_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = created(dir.path(), NOW);
    fs::remove_file(ca.root_key_path()).expect("moved away");
    let issuer = nodes(&ca);
    issue_node(&issuer, "worker-01", NOW);
    issuer.crl(1, NOW, CRL_LIFETIME, Vec::new()).expect("a list");
    ca.renew_server(vec!["localhost".parse().expect("a name")], NOW).expect("a server");
    let key = PrivateKey::generate().expect("a key");
    ca.issue_admin(segment("ada"), &key, NOW).expect("an administrator");
    assert!(matches!(ca.rotate(CaRole::Nodes, NOW), Err(CaError::RootKeyAbsent { .. })));
}

#[test]
fn keys_that_others_can_read_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = created(dir.path(), NOW);
    let path = dir.path().join("ca/nodes.pem");
    for mode in [0o640, 0o604, 0o620, 0o660] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        match ca.issuer(CaRole::Nodes) {
            Err(CaError::File(error @ FileError::Exposed { .. })) => {
                assert!(error.to_string().contains("chmod 600"), "{error}");
            }
            other => panic!("{mode:o}: {other:?}"),
        }
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("a mode");
    nodes(&ca);
    let moved = dir.path().join("elsewhere.pem");
    fs::rename(&path, &moved).expect("moved");
    std::os::unix::fs::symlink(&moved, &path).expect("a link");
    assert!(matches!(ca.issuer(CaRole::Nodes), Err(CaError::File(FileError::Io { .. }))));
}

#[test]
fn damaged_files_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = created(dir.path(), NOW);
    let path = dir.path().join("ca/nodes.pem");
    let good = fs::read_to_string(&path).expect("content");
    let admins = fs::read_to_string(dir.path().join("ca/admins.pem")).expect("content");
    let certificate = good.find("-----BEGIN CERT").expect("a certificate");
    let foreign = admins.find("-----BEGIN CERT").expect("a certificate");
    for (content, expected) in [
        (String::new(), "exactly one PRIVATE KEY"),
        (good[certificate..].to_owned(), "exactly one PRIVATE KEY"),
        (good[..certificate].to_owned(), "no certificate"),
        (good[..good.len() - 30].to_owned(), "no end"),
        (good.replace("PRIVATE KEY-----\nM", "PRIVATE KEY-----\n!"), "not a PKCS#8"),
        (format!("{}{}", &good[..certificate], &admins[foreign..]), "another certificate"),
        ("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".repeat(33), "more than 32"),
    ] {
        fs::write(&path, &content).expect("written");
        let error = ca.issuer(CaRole::Nodes).expect_err(expected).to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn issuing_cas_rotate_with_overlap() {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = created(dir.path(), NOW);
    let old = nodes(&ca);
    let (issued, _) = issue_node(&old, "worker-01", NOW);
    let report = ca.rotate(CaRole::Nodes, NOW + 10).expect("rotated");
    let new = nodes(&ca);
    assert_ne!(old.certificate().key_id(), new.certificate().key_id());
    assert_eq!(report.former, old.certificate().key_id().short());
    assert_eq!(report.current, new.certificate().key_id().short());
    let retired = ca.retired_issuers(CaRole::Nodes, NOW + 10).expect("retired");
    assert_eq!(retired.len(), 1);
    let entry = Revoked {
        serial: issued.serial(),
        at_unix_s: NOW + 10,
        reason: RevocationReason::Superseded,
    };
    retired[0].crl(2, NOW + 10, CRL_LIFETIME, vec![entry]).expect("its last list");
    let end = old.certificate().not_after_unix_s();
    assert!(ca.retired_issuers(CaRole::Nodes, end + 1).expect("retired").is_empty());
    // The former admin CA stays acceptable, its key is gone.
    ca.rotate(CaRole::Admins, NOW + 10).expect("rotated");
    assert_eq!(ca.certificates(CaRole::Admins).expect("both").len(), 2);
    for entry in fs::read_dir(dir.path().join("ca/retired")).expect("a directory") {
        let path = entry.expect("an entry").path();
        let content = fs::read_to_string(&path).expect("content");
        let nodes = path.to_string_lossy().contains("nodes-");
        assert_eq!(content.contains("PRIVATE KEY"), nodes, "{}", path.display());
    }
}

#[test]
fn the_root_rotates_with_overlap() {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = created(dir.path(), NOW);
    let old = ca.root().expect("the root");
    // The old root's key may be offline: it is not needed.
    fs::remove_file(ca.root_key_path()).expect("moved away");
    let report = ca.rotate_root(NOW + 10).expect("rotated");
    let new = ca.root().expect("the root");
    assert_eq!(report.current, new.key_id().short());
    let bundle = ca.bundle().expect("the bundle");
    assert_eq!(bundle, vec![new.der().to_vec(), old.der().to_vec()]);
    let former = old.key_id().short();
    assert!(matches!(ca.retire_root(&former), Err(CaError::RootInUse { .. })));
    for role in CaRole::ALL {
        ca.rotate(role, NOW + 20).expect("rotated");
    }
    assert!(matches!(ca.retire_root(&new.key_id().short()), Err(CaError::RootInUse { .. })));
    ca.retire_root(&former).expect("retired");
    assert_eq!(ca.bundle().expect("the bundle"), vec![new.der().to_vec()]);
    assert!(matches!(ca.retire_root(&former), Err(CaError::Unknown(_))));
    assert!(matches!(ca.retire_root(""), Err(CaError::Unknown(_))));
}

#[test]
fn a_root_rotation_that_stopped_halfway_is_finished_or_undone() {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = created(dir.path(), NOW);
    let other = tempfile::tempdir().expect("a directory");
    let other_ca = created(other.path(), NOW);
    let old = ca.root().expect("the root");
    let new = dir.path().join("ca/root.pem.new");
    // Before the key was exchanged.
    fs::copy(other.path().join("ca/root.pem"), &new).expect("copied");
    assert_eq!(ca.root().expect("the root"), old);
    assert!(!new.exists());
    // After it.
    fs::copy(other.path().join("ca/root.pem"), &new).expect("copied");
    fs::copy(other_ca.root_key_path(), ca.root_key_path()).expect("copied");
    assert_eq!(ca.root().expect("the root"), other_ca.root().expect("the root"));
    assert!(!new.exists());
}

#[test]
fn admissions_lapse_and_issuers_do_not_mix() {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = created(dir.path(), NOW);
    let td = trust_domain();
    let hour = Duration::from_secs(3600);
    let issuer = nodes(&ca);
    let (subject, _) = node("worker-01", NOW);
    let late = Terms { trust_domain: &td, now_unix_s: NOW + 61, lifetime: hour };
    let error = prepare(subject, issuer.certificate(), &late).expect_err("lapsed");
    assert!(matches!(error, CaError::AdmissionExpired { .. }));
    let (subject, _) = node("worker-01", NOW);
    let terms = Terms { trust_domain: &td, now_unix_s: NOW, lifetime: hour };
    let linted = prepare(subject, issuer.certificate(), &terms).expect("linted");
    let admins = ca.issuer(CaRole::Admins).expect("the admin CA");
    assert!(matches!(sign(linted, admins.key()), Err(SignerError::WrongIssuer { .. })));
    // Longer than a day is refused, not cut.
    let (subject, _) = node("worker-01", NOW);
    let long = Terms { lifetime: MAX_NODE_LIFETIME + Duration::from_secs(1), ..terms.clone() };
    match prepare(subject, issuer.certificate(), &long) {
        Err(CaError::Profile(violation)) => assert_eq!(violation.rule, Rule::ValidityLength),
        other => panic!("{other:?}"),
    }
    // Beyond the issuer's end it is cut.
    let end = issuer.certificate().not_after_unix_s();
    let (subject, _) = node("worker-01", end - 100);
    let terms = Terms { now_unix_s: end - 100, ..terms };
    let linted = prepare(subject, issuer.certificate(), &terms).expect("linted");
    assert_eq!(linted.not_after_unix_s(), end);
    let (subject, _) = node("worker-01", end + 1);
    let terms = Terms { now_unix_s: end + 1, ..terms };
    match prepare(subject, issuer.certificate(), &terms) {
        Err(CaError::Profile(violation)) => assert_eq!(violation.rule, Rule::ValidityLength),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_certificate_is_for_exactly_the_tpms_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = created(dir.path(), NOW);
    let (issued, key) = issue_node(&nodes(&ca), "worker-01", NOW);
    let certificate =
        <x509_cert::Certificate as der::Decode>::from_der(issued.der()).expect("X.509");
    assert_eq!(certificate.tbs_certificate().subject_public_key_info(), key.public());
    assert_eq!(NodeFacts::from_certificate(issued.der()), Ok(Some(facts())));
    assert_eq!(NodeFacts::from_certificate(ca.root().expect("the root").der()), Ok(None));
    // Coordinates with leading zeros, stripped as TPMs may, give the same key.
    let short = loop {
        let key = PrivateKey::generate().expect("a key");
        let point = key.public().subject_public_key.raw_bytes();
        if point[1] == 0 || point[33] == 0 {
            break key;
        }
    };
    for strip in [false, true] {
        let public = tpm_public(&short, strip);
        let name = segment("worker-01");
        let subject =
            NodeSubject::new(name.clone(), name, &public, facts(), NOW).expect("a subject");
        assert_eq!(subject.key, *short.public());
    }
}

#[test]
fn private_keys_are_never_printed() {
    let key = PrivateKey::generate().expect("a key");
    let printed = format!("{key:?} {:?}", IssuingKey::new(&key).expect("a key made here"));
    assert!(printed.contains(&key.id().to_string()));
    let secret = key.to_der().expect("DER");
    assert!(!printed.contains(&hex::encode(&secret[36..68])), "{printed}");
}

#[test]
fn serial_numbers_survive_text() {
    for _ in 0..100 {
        let serial = signer::Serial::random().expect("a serial");
        assert_eq!(serial.to_string().parse(), Ok(serial));
        assert_eq!(serial.as_bytes()[0] & 0xc0, 0x40);
    }
    for text in ["", "00", &"f".repeat(32), &"0".repeat(32), &"4".repeat(31), &"4".repeat(33)] {
        assert_eq!(text.parse::<Serial>(), Err(SerialParseError), "{text}");
    }
}
