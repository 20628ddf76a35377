//! The built program, run as an operator runs it, and administrators at a running verifier.

mod site;

use std::path::Path;

use proto::{pb, reason::ReasonCode};
use site::*;
use tempfile::TempDir;
use tonic::Code;
use verifier::{
    ca::CaDir,
    clock::{Clock as _, SystemClock},
    run,
    store::ALLOW_LISTED,
};

#[test]
fn init_twice_changes_nothing_and_says_so() {
    let site = Site::new();
    let key = std::fs::read(site.state().join("ca/root.key")).expect("key");
    // What the configuration answers need not be said again.
    let again = site.run(&["init"]);
    assert_eq!(code(&again), 0, "{}", stderr(&again));
    assert!(stdout(&again).contains("nothing was changed"), "{}", stdout(&again));
    assert_eq!(std::fs::read(site.state().join("ca/root.key")).expect("key"), key);
    let again = site.run(&["init", "--json"]);
    assert_eq!(json(&again)["changed"], false);
    let other = site.run(&["init", "--trust-domain", "other.example", "--name", "localhost"]);
    assert_eq!(code(&other), 1);
    assert!(stderr(&other).contains("init never changes a configuration"), "{}", stderr(&other));
}

#[test]
fn init_without_a_trust_domain_says_what_is_needed() {
    let folder = TempDir::new().expect("folder");
    let config = folder.path().join("verifier.toml");
    let output = verifier(&["init"], Some((&config, &folder.path().join("state"))));
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("--trust-domain"), "{}", stderr(&output));
    assert!(!config.exists());
}

#[test]
fn wrong_arguments_are_usage_errors() {
    for args in [
        &["frobnicate"][..],
        &["nodes", "add", "n"],
        &["nodes", "add", "n", "--pool", "p", "--ek-digest", "d", "--ek-certificate", "f"],
        &["ca", "rotate", "everything"],
        &["replay"],
        &["nodes", "list", "--ca", "f", "--pin", "sha256:00"],
        &["nodes", "list", "--server", "host:port"],
        &["nodes", "list", "--log", "a=b=c"],
    ] {
        let output = verifier(args, None);
        assert_eq!(code(&output), 2, "{args:?}: {}", stderr(&output));
        assert!(!stderr(&output).is_empty(), "{args:?}");
    }
}

#[test]
fn check_config_names_every_problem() {
    let site = Site::new();
    let good = site.run(&["check-config"]);
    assert_eq!(code(&good), 0, "{}", stdout(&good));
    let text = std::fs::read_to_string(site.config_path()).expect("configuration");
    let text = text.replace("lifetime = \"1h\"", "lifetime = \"9h\"\ncolour = \"red\"");
    let text = text.replace("tool_pcr = 14", "tool_pcr = 16");
    let bad = site.folder.path().join("bad.toml");
    std::fs::write(&bad, text).expect("written");
    let bad = bad.to_str().expect("path");
    let output = site.run(&["check-config", bad]);
    assert_eq!(code(&output), 3);
    for key in ["colour", "tool_pcr"] {
        assert!(stdout(&output).contains(key), "{key}: {}", stdout(&output));
    }
    let output = site.run(&["check-config", bad, "--json"]);
    assert_eq!(code(&output), 3);
    assert_eq!(json(&output)["usable"], false);
    let absent = site.run(&["serve", "--config", "/nonexistent/verifier.toml"]);
    assert_eq!(code(&absent), 1);
    assert!(stderr(&absent).contains("verifier init"), "{}", stderr(&absent));
}

const GOLDEN: &str = r#"
schema = "assay.golden/v1"
name = "linux"
pool = "linux"
version = 1

[[pcr]]
bank = "sha256"
index = 0
accept = [{ value = "1111111111111111111111111111111111111111111111111111111111111111" }]
"#;

#[test]
fn golden_check_works_without_a_server() {
    let folder = TempDir::new().expect("folder");
    let file = folder.path().join("set.toml");
    std::fs::write(&file, GOLDEN).expect("written");
    let path = file.to_str().expect("path");
    // Somewhere without a configuration.
    let config = folder.path().join("none.toml");
    let check = |args: &[&str]| verifier(args, Some((&config, folder.path())));
    let good = check(&["golden", "check", path, "--tool-pcr", "14"]);
    assert_eq!(code(&good), 0, "{}{}", stdout(&good), stderr(&good));
    assert!(stdout(&good).contains("linux version 1"), "{}", stdout(&good));
    // The tool PCR is judged tool by tool, never as a value.
    let bad = check(&["golden", "check", path, "--tool-pcr", "0", "--json"]);
    assert_eq!(code(&bad), 3);
    assert_eq!(json(&bad)["problems"][0]["at"], "pcr[0].index");
    std::fs::write(&file, "schema = ").expect("written");
    let broken = check(&["golden", "check", path, "--tool-pcr", "14"]);
    assert_eq!(code(&broken), 3);
    assert!(stdout(&broken).contains("line 1"), "{}", stdout(&broken));
    let absent = check(&["golden", "check", "/nonexistent", "--tool-pcr", "14"]);
    assert_eq!(code(&absent), 1);
    assert!(stderr(&absent).contains("/nonexistent"), "{}", stderr(&absent));
}

/// A file that somebody sent is read to be judged: it must not write on the terminal of whoever does.
#[test]
fn no_file_moves_the_cursor_of_who_reads_it() {
    let folder = TempDir::new().expect("folder");
    let file = folder.path().join("set.toml");
    let key = r#""\u001b[2J\u009b1A\u202egpj" = 1"#;
    std::fs::write(&file, GOLDEN.replacen('\n', &format!("\n{key}\n"), 1)).expect("written");
    let (path, config) = (file.to_str().expect("path"), folder.path().join("none.toml"));
    for args in [
        &["golden", "diff", path, path][..],
        &["golden", "check", path, "--tool-pcr", "14"],
        &["golden", "sign", path, "--key", "none.key"],
        &["golden", "predict", "--from", path, "--uki", path],
        &["golden", "apply", path, "--plan"],
    ] {
        let output = verifier(args, Some((&config, folder.path())));
        assert_eq!(code(&output), 3, "{args:?}");
        let said = stdout(&output) + &stderr(&output);
        assert!(said.contains("\\u{1b}[2J"), "{args:?}: {said:?}");
        let is_raw = |char: char| (char.is_control() && char != '\n') || char == '\u{202e}';
        assert!(!said.contains(is_raw), "{args:?}: {said:?}");
    }
}

#[test]
fn the_audit_trail_of_a_fresh_site_is_whole_and_backs_up() {
    let site = Site::new();
    let verified = site.run(&["audit", "verify", "--json"]);
    assert_eq!(code(&verified), 0, "{}", stderr(&verified));
    assert_eq!(json(&verified)["broken"], serde_json::Value::Null);
    let listed = site.run(&["audit", "list", "--json"]);
    let subjects = [&json(&listed)[0]["subject"], &json(&listed)[1]["subject"]];
    assert_eq!(subjects, ["security@1", "admin"], "newest first");
    let unknown = site.run(&["replay", "nothing"]);
    assert_eq!(code(&unknown), 1);
    let backup = site.folder.path().join("backup");
    let made = site.run(&["backup", "--with-keys", backup.to_str().expect("path")]);
    assert_eq!(code(&made), 0, "{}", stderr(&made));
    // Nothing is overwritten.
    let taken = site.run(&["restore", backup.to_str().expect("path")]);
    assert_eq!(code(&taken), 1);
    let elsewhere = site.folder.path().join("elsewhere");
    let restored = verifier(
        &["restore", backup.to_str().expect("path")],
        Some((&site.config_path(), &elsewhere)),
    );
    assert_eq!(code(&restored), 0, "{}", stderr(&restored));
    for name in ["ca/root.key", "ca/nodes.pem", "tls/server.pem", "bundle.pem", "fleet-id"] {
        let read = |folder: &Path| std::fs::read(folder.join(name)).expect(name);
        assert_eq!(read(&elsewhere), read(&site.state()), "{name}");
    }
    let shown = verifier(&["ca", "show"], Some((&site.config_path(), &elsewhere)));
    assert_eq!(code(&shown), 0, "{}", stderr(&shown));
    assert!(stdout(&shown).contains("servers"), "{}", stdout(&shown));
}

#[test]
fn completions_and_manual_pages_are_made() {
    let folder = TempDir::new().expect("folder");
    let output = verifier(&["completions", "bash"], None);
    assert_eq!(code(&output), 0);
    assert!(stdout(&output).contains("_verifier"));
    let dir = folder.path().join("man1");
    let output = verifier(&["man", dir.to_str().expect("path")], None);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(dir.join("verifier.1").exists());
    assert!(dir.join("verifier-nodes-add.1").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_no_administrator_calls_nothing() {
    use ReasonCode::AdminCertificateRequired as Required;
    let site = Site::new();
    let running = site.start().await;
    let mut nobody = client(&site, &running, None).await;
    let answer = nobody.list_nodes(pb::ListNodesRequest::default()).await;
    assert_refused(answer, Code::Unauthenticated, Required);
    let mut judging = reference(&site, &running, None).await;
    let text = pb::ProposeRequest { toml: GOLDEN.to_owned(), ..Default::default() };
    assert_refused(judging.propose(text).await, Code::Unauthenticated, Required);
    // A good certificate of a name that the store does not know.
    let now = u64::try_from(SystemClock.now_unix_s()).expect("after 1970");
    let stranger = "stranger".parse().expect("name");
    site.ca().write_admin(&site.state().join("admin"), &stranger, now).expect("certificate");
    let mut stranger = client(&site, &running, Some("stranger")).await;
    let answer = stranger.list_nodes(pb::ListNodesRequest::default()).await;
    assert_refused(answer, Code::Unauthenticated, Required);
    running.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_bound_what_an_administrator_does() {
    let site = Site::new();
    let running = site.start().await;
    let mut security = client(&site, &running, Some("admin")).await;
    let now = u64::try_from(SystemClock.now_unix_s()).expect("after 1970");
    for role in ["viewer", "operator"] {
        let dir = site.state().join("admin");
        site.ca().write_admin(&dir, &role.parse().expect("name"), now).expect("certificate");
        let spki = run::spki_digest(&dir.join(format!("{role}.pem"))).expect("digest");
        let record = pb::AdminRecord {
            name: role.to_owned(),
            role: role.to_owned(),
            spki_sha256: spki.to_string(),
            revoked: false,
        };
        security.add_admin(record).await.expect("added");
    }
    // Who reads, who proposes, who puts in force: the signatures are a matter of their own.
    let insufficient = ReasonCode::AdminRoleInsufficient;
    let text = pb::ProposeRequest { toml: GOLDEN.to_owned(), ..Default::default() };
    let named = pb::DocumentRef { kind: "golden".to_owned(), name: "linux".to_owned(), version: 1 };
    let mut judging = reference(&site, &running, Some("viewer")).await;
    assert_refused(judging.propose(text.clone()).await, Code::PermissionDenied, insufficient);
    judging.list(pb::ListDocumentsRequest::default()).await.expect("every role reads");
    let mut judging = reference(&site, &running, Some("operator")).await;
    judging.propose(text).await.expect("an operator proposes");
    assert_refused(judging.stage(named.clone()).await, Code::PermissionDenied, insufficient);
    let activation = pb::ActivateRequest { document: Some(named.clone()), ..Default::default() };
    let answer = judging.activate(activation.clone()).await;
    assert_refused(answer, Code::PermissionDenied, insufficient);
    let mut judging = reference(&site, &running, Some("admin")).await;
    let unsigned = ReasonCode::GoldenSignaturesMissing;
    assert_refused(judging.activate(activation).await, Code::FailedPrecondition, unsigned);
    // Revoked, the certificate is worth nothing at once.
    let mut viewer = client(&site, &running, Some("viewer")).await;
    let name = pb::AdminName { name: "viewer".to_owned() };
    security.revoke_admin(name).await.expect("revoked");
    let answer = viewer.list_rules(pb::Empty {}).await;
    assert_refused(answer, Code::Unauthenticated, ReasonCode::AdminCertificateRequired);
    running.stop().await.expect("stopped");
}

/// A certificate of the node CA verifies up to the same root as an administrator's.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_the_node_ca_is_no_administrators() {
    let site = Site::new();
    let running = site.start().await;
    // The worst case: an administrator's very profile and name, issued by the node CA.
    let folder = TempDir::new().expect("folder");
    let admin = site.state().join("admin");
    let ca = site.state().join("ca");
    let copy = folder.path().join("ca");
    std::fs::create_dir(&copy).expect("folder");
    std::fs::copy(ca.join("nodes.pem"), copy.join("admins.pem")).expect("copied");
    let forger = CaDir::new(folder.path(), "builds.example".parse().expect("trust domain"));
    let now = u64::try_from(SystemClock.now_unix_s()).expect("after 1970");
    let name = "admin".parse().expect("name");
    forger.write_admin(&folder.path().join("out"), &name, now).expect("certificate");
    for ending in ["pem", "key"] {
        let from = folder.path().join("out").join(format!("admin.{ending}"));
        std::fs::copy(from, admin.join(format!("forged.{ending}"))).expect("copied");
    }
    let mut forged = client(&site, &running, Some("forged")).await;
    let answer = forged.list_nodes(pb::ListNodesRequest::default()).await;
    assert_refused(answer, Code::Unauthenticated, ReasonCode::AdminCertificateRequired);
    running.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_publishes_a_new_list_at_once() {
    let site = Site::new();
    let running = site.start().await;
    let list = site.state().join("public").join("crl.der");
    let before = std::fs::read(&list).expect("published at the start");
    let mut admin = client(&site, &running, Some("admin")).await;
    let add = pb::AddNodeRequest {
        name: "n1".to_owned(),
        pool: "linux".to_owned(),
        ek: Some(pb::add_node_request::Ek::EkDigest(format!("sha256:{}", "ab".repeat(32)))),
        allow_listed: true,
        note: String::new(),
    };
    admin.add_node(add).await.expect("added");
    let reason = pb::NodeReason { name: "n1".to_owned(), reason: "key-compromise".to_owned() };
    admin.revoke_node(reason).await.expect("revoked");
    let mut after = before.clone();
    for _ in 0..100 {
        after = std::fs::read(&list).expect("always complete");
        if after != before {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_ne!(after, before, "no new list");
    running.reload().await.expect("reloaded");
    running.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_administers_a_running_verifier() {
    let site = Site::new();
    let running = site.start().await;
    let server = format!("localhost:{}", running.address.port());
    let call = |args: &[&str]| {
        let mut all = vec!["--server", server.as_str()];
        all.extend_from_slice(args);
        site.run(&all)
    };
    let digest = format!("sha256:{}", "cd".repeat(32));
    let added = call(&["nodes", "add", "n1", "--pool", "p", "--ek-digest", &digest, "--json"]);
    assert_eq!(code(&added), 0, "{}", stderr(&added));
    assert_eq!(json(&added)["status"], "active");
    let twice = call(&["nodes", "add", "n1", "--pool", "p", "--ek-digest", &digest]);
    assert_eq!(code(&twice), 3, "{}", stderr(&twice));
    assert!(stderr(&twice).contains("[ADMIN_REQUEST_INVALID]"), "{}", stderr(&twice));
    assert!(stderr(&twice).contains("exists already"), "{}", stderr(&twice));
    let listed = call(&["nodes", "list"]);
    assert!(stdout(&listed).starts_with("NODE\tPOOL\tSTATUS"), "{}", stdout(&listed));
    let shown = call(&["nodes", "show", "n2"]);
    assert_eq!(code(&shown), 3);
    assert!(stderr(&shown).contains("[ADMIN_NOT_FOUND]"), "{}", stderr(&shown));
    let viewer = call(&["admins", "add", "vera", "--role", "viewer"]);
    assert_eq!(code(&viewer), 0, "{}", stderr(&viewer));
    let cert = site.state().join("admin/vera.pem");
    let cert = cert.to_str().expect("path");
    let set = site.folder.path().join("set.toml");
    std::fs::write(&set, GOLDEN).expect("written");
    let set = set.to_str().expect("path");
    let refused = call(&["--admin-cert", cert, "golden", "propose", set]);
    assert_eq!(code(&refused), 3);
    assert!(stderr(&refused).contains("[ADMIN_ROLE_INSUFFICIENT]"), "{}", stderr(&refused));
    let unsigned = call(&["golden", "apply", set, "--yes"]);
    assert_eq!(code(&unsigned), 3);
    assert!(stderr(&unsigned).contains("[GOLDEN_SIGNATURES_MISSING]"), "{}", stderr(&unsigned));
    let key = site.state().join("admin/security.key");
    let key = key.to_str().expect("path");
    let unasked = call(&["golden", "apply", set, "--key", key]);
    assert_eq!(code(&unasked), 2, "{}", stderr(&unasked));
    let applied = call(&["golden", "apply", set, "--key", key, "--yes"]);
    assert_eq!(code(&applied), 0, "{}", stderr(&applied));
    assert_eq!(stdout(&call(&["golden", "show", "linux"])), GOLDEN);
    // Beside the running verifier.
    assert_eq!(code(&call(&["audit", "verify"])), 0);
    assert_eq!(code(&call(&["retention", "run", "--dry-run"])), 0);
    let locked = call(&["retention", "run"]);
    assert_eq!(code(&locked), 1);
    assert!(stderr(&locked).contains("in use"), "{}", stderr(&locked));
    running.stop().await.expect("stopped");
    let gone = call(&["nodes", "list"]);
    assert_eq!(code(&gone), 1);
    assert!(stderr(&gone).contains("connect to the verifier localhost"), "{}", stderr(&gone));
}

/// Old results go as old evidence does, and the audit trail says so.
#[test]
fn old_results_are_dropped_and_said_to_be() {
    let site = Site::new();
    let folder = site.state().join("results");
    std::fs::create_dir(&folder).expect("made");
    let day = std::time::Duration::from_secs(24 * 3600);
    let now = u64::try_from(SystemClock.now_unix_s()).expect("after 1970");
    let now = std::time::UNIX_EPOCH + std::time::Duration::from_secs(now);
    let written = |name: &str, days: u32| {
        let path = folder.join(name);
        std::fs::write(&path, "{}").expect("written");
        let file = std::fs::File::options().write(true).open(&path).expect("there");
        file.set_modified(now - day * days).expect("set");
        path
    };
    let old = written(&format!("{}.json", "5a".repeat(32)), 401);
    let new = written(&format!("{}.json", "5b".repeat(32)), 399);
    let foreign = written("notes.json", 4000);
    let run = |args: &[&str]| {
        let output = site.run(&[&["retention", "run", "--json"], args].concat());
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        json(&output)["results"].clone()
    };
    let one = serde_json::json!({ "results": 1, "bytes": 2 });
    assert_eq!(run(&["--dry-run"]), one);
    assert!(old.exists());
    assert_eq!(run(&[]), one);
    assert!(!old.exists() && new.exists() && foreign.exists());
    let listed = site.run(&["audit", "list", "--json"]);
    let newest = &json(&listed)[0];
    assert_eq!((&newest["kind"], &newest["subject"]), (&"retention".into(), &"results".into()));
    // Nothing more to drop, nothing more to say.
    assert_eq!(run(&[])["results"], 0);
    assert_eq!(&json(&site.run(&["audit", "list", "--json"]))[0], newest);
    assert_eq!(code(&site.run(&["audit", "verify"])), 0);
}

/// What is agreed to was shown; with `--json` nothing is, and the script has to mean it.
#[tokio::test(flavor = "multi_thread")]
async fn with_json_nobody_is_asked_about_what_was_not_shown() {
    let site = Site::new();
    let running = site.start().await;
    let server = format!("localhost:{}", running.address.port());
    let call = |args: &[&str]| {
        let mut all = vec!["--server", server.as_str(), "--json", "golden"];
        all.extend_from_slice(args);
        site.run(&all)
    };
    let set = site.folder.path().join("set.toml");
    std::fs::write(&set, GOLDEN).expect("written");
    let (set, key) = (set.to_str().expect("path"), site.state().join("admin/security.key"));
    let key = key.to_str().expect("path");
    assert_eq!(json(&call(&["apply", set, "--key", key, "--plan"]))[0]["step"], "propose");
    assert_eq!(json(&call(&["propose", set]))["state"], "proposed");
    for args in [
        &["sign", "linux@1", "--key", key][..],
        &["apply", set, "--key", key],
        &["activate", "linux@1"],
        &["retire", "linux@1", "--reason", "why"],
        &["revert", "linux@1", "--key", key],
    ] {
        let output = call(args);
        assert_eq!(code(&output), 2, "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("nothing is shown"), "{args:?}: {}", stderr(&output));
        let state = json(&call(&["list"]))[0]["state"].clone();
        assert_eq!(state, "proposed", "{args:?}");
    }
    assert_eq!(json(&call(&["sign", "linux@1", "--key", key, "--yes"]))["state"], "signed");
    let activated = json(&call(&["activate", "linux@1", "--yes"]));
    assert_eq!(activated["document"]["state"], "active");
    assert_eq!(activated["dry_run"]["newly_denied"], 0, "{activated}");
    // A file's signatures go into a file: nothing of the verifier is agreed to.
    let signed = call(&["sign", set, "--key", key]);
    assert_eq!(code(&signed), 0, "{}", stderr(&signed));
    running.stop().await.expect("stopped");
}

/// Nodes remember by name what admitted them: this one means that the site itself vouches.
#[tokio::test(flavor = "multi_thread")]
async fn no_rule_may_have_the_name_of_the_allow_list() {
    let site = Site::new();
    let running = site.start().await;
    let mut admin = client(&site, &running, Some("admin")).await;
    let rule = |name: &str| pb::Rule {
        name: name.to_owned(),
        root: format!("sha256:{}", "ab".repeat(32)),
        manufacturer: String::new(),
        pool: "linux".to_owned(),
        name_prefix: "w-".to_owned(),
    };
    let answer = admin.add_rule(rule(ALLOW_LISTED)).await;
    assert_refused(answer, Code::InvalidArgument, ReasonCode::AdminRequestInvalid);
    assert!(admin.list_rules(pb::Empty {}).await.expect("listed").into_inner().rules.is_empty());
    admin.add_rule(rule("fleet")).await.expect("another name is fine");
    running.stop().await.expect("stopped");
}

/// The name alone makes no administrator: another key under it, certified by the same CA, is nobody.
#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_is_name_and_key() {
    let site = Site::new();
    let running = site.start().await;
    let now = u64::try_from(SystemClock.now_unix_s()).expect("after 1970");
    let elsewhere = site.folder.path().join("elsewhere");
    site.ca().write_admin(&elsewhere, &"admin".parse().expect("name"), now).expect("certificate");
    for ending in ["pem", "key"] {
        let from = elsewhere.join(format!("admin.{ending}"));
        let to = site.state().join("admin").join(format!("twin.{ending}"));
        std::fs::copy(from, to).expect("copied");
    }
    let mut twin = client(&site, &running, Some("twin")).await;
    let answer = twin.list_rules(pb::Empty {}).await;
    assert_refused(answer, Code::Unauthenticated, ReasonCode::AdminCertificateRequired);
    let mut admin = client(&site, &running, Some("admin")).await;
    admin.list_rules(pb::Empty {}).await.expect("the registered key");
    running.stop().await.expect("stopped");
}
