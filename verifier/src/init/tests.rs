use std::{fs, path::Path};

use super::*;

/// 2026-06-01T00:00:00Z.
const NOW: u64 = 1_780_272_000;

fn options(dir: &Path) -> InitOptions {
    InitOptions {
        config_path: dir.join("etc/assay/verifier.toml"),
        state_dir: dir.join("state"),
        trust_domain: "builds.example.org".parse().expect("a trust domain"),
        names: vec!["localhost".parse().expect("a name"), "127.0.0.1".parse().expect("an address")],
        listen: Some("127.0.0.1:9443".parse().expect("an address")),
        admin: "ada".parse().expect("a name"),
        security_keys: Vec::new(),
        threshold: None,
        now_unix_s: NOW,
    }
}

fn contents(report: &InitReport) -> Vec<Vec<u8>> {
    let files = report.steps.iter().filter(|step| step.path.is_file());
    files.map(|step| fs::read(&step.path).expect("a file")).collect()
}

#[test]
fn a_second_run_changes_nothing_and_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = options(dir.path());
    let first = init(&options).expect("the first run");
    assert!(first.steps.iter().all(|step| step.created), "{first}");
    assert_eq!(first.config.trust_domain, options.trust_domain);
    assert_eq!(first.config.names, options.names);
    assert_eq!(first.config.state_dir, options.state_dir);
    assert_eq!(Some(first.config.listen), options.listen);
    assert!(first.admin_certificate.is_file() && first.admin_key.is_file());
    let shown = first.to_string();
    assert!(shown.contains("root.key") && shown.contains("0600"), "{shown}");
    let before = contents(&first);
    let later = InitOptions { now_unix_s: NOW + 5000, ..options };
    let second = init(&later).expect("the second run");
    assert!(!second.changed(), "{second}");
    assert!(second.to_string().contains("nothing was changed"), "{second}");
    assert_eq!(contents(&second), before);
    assert_eq!(second.root_pin, first.root_pin);
    assert_eq!(second.config, first.config);
}

#[test]
fn modes_are_as_reported() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let report = init(&options(dir.path())).expect("a run");
    for step in &report.steps {
        let mode = fs::metadata(&step.path).expect("it exists").permissions().mode() & 0o7777;
        assert_eq!(mode, step.mode, "{}", step.path.display());
    }
}

#[test]
fn a_run_that_was_cut_off_is_taken_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = options(dir.path());
    let first = init(&options).expect("the first run");
    let config = fs::read(&options.config_path).expect("the configuration");
    // In the order of creation, last first: remove one more each time.
    let removable: Vec<_> = first
        .steps
        .iter()
        .rev()
        .map(|step| step.path.clone())
        .filter(|path| path.is_file() && !path.ends_with("root.key") && !path.ends_with("root.pem"))
        .collect();
    for cut in 1..=removable.len() {
        for path in &removable[..cut] {
            let _ = fs::remove_file(path);
        }
        let again = init(&options).expect("it goes on");
        assert!(again.changed());
        for path in &removable {
            assert!(path.is_file(), "{}", path.display());
        }
        assert_eq!(again.root_pin, first.root_pin);
    }
    // The fleet identity outlives a lost configuration.
    fs::remove_file(&options.config_path).expect("removed");
    let kept = fs::read_to_string(options.state_dir.join("fleet-id")).expect("the identity");
    let again = init(&options).expect("it goes on");
    assert_eq!(format!("{}\n", again.config.fleet_id.to_hex()), kept);
    assert_ne!(fs::read(&options.config_path).expect("the configuration"), config);
}

#[test]
fn another_site_is_refused_and_nothing_changes() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = options(dir.path());
    let first = init(&options).expect("the first run");
    let before = contents(&first);
    let other = InitOptions {
        trust_domain: "other.example.org".parse().expect("a trust domain"),
        ..options.clone()
    };
    assert!(matches!(init(&other), Err(InitError::Differs { key: "trust_domain", .. })));
    let other = InitOptions { state_dir: dir.path().join("elsewhere"), ..options.clone() };
    assert!(matches!(init(&other), Err(InitError::Differs { key: "state_dir", .. })));
    assert!(!dir.path().join("elsewhere").exists());
    fs::write(&options.config_path, "trust_domain = 1\n").expect("written");
    assert!(matches!(init(&options), Err(InitError::Config(_))));
    assert_eq!(
        contents(&first)[..before.len() - 1],
        before[..before.len() - 1],
        "all but the configuration"
    );
}

#[test]
fn options_are_checked_before_anything_is_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let none = InitOptions { names: Vec::new(), ..options(dir.path()) };
    assert!(matches!(init(&none), Err(InitError::Option(_))));
    let relative = InitOptions { state_dir: "state".into(), ..options(dir.path()) };
    assert!(matches!(init(&relative), Err(InitError::Option(_))));
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
}

#[test]
fn a_directory_that_cannot_be_written_gives_its_name() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("state"), "a file").expect("written");
    let error = init(&options(dir.path())).expect_err("a file is in the way");
    assert!(error.to_string().contains("state"), "{error}");
}

#[test]
fn a_path_with_quotes_is_written_so_that_it_reads_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let odd = dir.path().join("a \"b\" \\c = d");
    let options = InitOptions { state_dir: odd.clone(), ..options(dir.path()) };
    assert_eq!(init(&options).expect("a run").config.state_dir, odd);
}

/// The ring that init makes is one that its own key approves for.
#[test]
fn a_ring_of_security_keys_is_made_or_taken() {
    let dir = tempfile::tempdir().expect("a directory");
    let report = init(&options(dir.path())).expect("init");
    let read = |report: &InitReport| {
        KeyRing::parse(&fs::read_to_string(&report.ring).expect("a file")).expect("a ring")
    };
    let ring = read(&report);
    assert_eq!((ring.name().as_str(), ring.version(), ring.threshold()), (RING_NAME, 1, 1));
    let key =
        SecurityPrivateKey::read(report.security_key.as_deref().expect("made")).expect("a key");
    assert_eq!(ring.keys()[0].id(), key.public().id());
    // A key that was moved away is not made anew: it would be in no ring.
    fs::remove_file(dir.path().join("state/admin/security.key")).expect("moved away");
    let again = init(&options(dir.path())).expect("again");
    assert!(again.security_key.is_none() && !again.changed(), "{again}");

    let dir = tempfile::tempdir().expect("a directory");
    let public = |name: &str| {
        let key = SecurityPrivateKey::create(&dir.path().join(name), Algorithm::P256);
        (name.parse().expect("a name"), key.expect("a key").expect("new"))
    };
    let given = InitOptions {
        security_keys: vec![public("alice"), public("bob"), public("carol")],
        ..options(dir.path())
    };
    let ring = read(&init(&given).expect("init"));
    assert_eq!((ring.threshold(), ring.keys().len()), (2, 3), "more than half");
    let dir = tempfile::tempdir().expect("a directory");
    let too_many = InitOptions { threshold: Some(4), ..options(dir.path()) };
    let error = init(&too_many).expect_err("four of one").to_string();
    assert!(error.contains("threshold"), "{error}");
}
