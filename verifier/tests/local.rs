//! Commands that work on the files of the verifier's machine: CA, offline import, clock.

mod site;

use std::{path::Path, process::Command};

use proto::{pb, reason::ReasonCode};
use site::*;
use tonic::Code;
use verifier::{
    clock::{Clock as _, SystemClock},
    config::Config,
    run,
    store::{Appraisal, NewDecision, Outcome},
};

/// What `verifier ca show --json` says.
fn shown(site: &Site) -> serde_json::Value {
    let output = site.run(&["ca", "show", "--json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    json(&output)
}

/// Key identifier of the one certificate that is this.
#[track_caller]
fn key_id(shown: &serde_json::Value, what: &str) -> String {
    let rows = shown["certificates"].as_array().expect("rows");
    let mut ids = rows.iter().filter(|row| row["what"] == what).map(|row| &row["key_id"]);
    let id = ids.next().and_then(|id| id.as_str()).expect(what).to_owned();
    assert!(ids.next().is_none(), "{what} twice: {shown}");
    id
}

/// Issuing CA and root are exchanged with overlap while the verifier runs, and an administrator of
/// before is still one.
#[tokio::test(flavor = "multi_thread")]
async fn the_ca_is_rotated_beside_a_running_verifier() {
    let site = Site::new();
    let running = site.start().await;
    let before = shown(&site);
    let ok = |args: &[&str]| {
        let output = site.run(args);
        assert_eq!(code(&output), 0, "{args:?}: {}", stderr(&output));
        stdout(&output)
    };
    let said = ok(&["ca", "rotate", "nodes"]);
    assert!(said.contains(&key_id(&before, "nodes")) && said.contains("1. "), "{said}");
    let rotated = shown(&site);
    assert_eq!(key_id(&rotated, "nodes, retired"), key_id(&before, "nodes"));
    assert_ne!(key_id(&rotated, "nodes"), key_id(&before, "nodes"));
    assert_eq!(key_id(&rotated, "root"), key_id(&before, "root"));

    ok(&["ca", "rotate", "root"]);
    let two = shown(&site);
    assert_eq!(key_id(&two, "root, in the bundle"), key_id(&before, "root"));
    assert_ne!(two["root_pin"], before["root_pin"]);
    // The former root is in use until everything under it was exchanged.
    let former = key_id(&before, "root");
    let early = site.run(&["ca", "retire-root", &former]);
    assert_eq!(code(&early), 1, "{}", stdout(&early));
    for role in ["nodes", "admins", "servers"] {
        ok(&["ca", "rotate", role]);
    }
    ok(&["ca", "renew-server"]);
    running.reload().await.expect("reloaded");
    let mut admin = client(&site, &running, Some("admin")).await;
    admin.list_rules(pb::Empty {}).await.expect("the former admin CA still counts");
    running.stop().await.expect("stopped");

    // Without the root's key, which belongs elsewhere, nothing is rotated.
    let root_key = site.state().join("ca/root.key");
    std::fs::rename(&root_key, root_key.with_extension("away")).expect("moved");
    let without = site.run(&["ca", "rotate", "nodes"]);
    assert_eq!(code(&without), 1);
    assert!(stderr(&without).contains("root.key"), "{}", stderr(&without));
}

/// Names and states of the keys of JWT-SVIDs, as `verifier ca show --json` has them.
fn jwt_keys(site: &Site) -> Vec<(String, String)> {
    let shown = shown(site);
    let keys = shown["jwt_keys"].as_array().expect("keys").iter();
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    keys.map(|key| (text(&key["kid"]), text(&key["state"]))).collect()
}

/// The command adds a key, the running verifier publishes it with a reload, and a backup has it.
#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_jwt_svids_is_rotated_beside_a_running_verifier() {
    let site = Site::new();
    assert_eq!(jwt_keys(&site), []);
    let early = site.run(&["ca", "rotate-jwt-key"]);
    assert_eq!(code(&early), 1);
    assert!(stderr(&early).contains("there is no key yet"), "{}", stderr(&early));

    let running = site.start().await;
    let [(first, state)] = &jwt_keys(&site)[..] else { panic!("one key") };
    assert_eq!(state, "signing");
    let rotated = site.run(&["ca", "rotate-jwt-key", "--json"]);
    assert_eq!(code(&rotated), 0, "{}", stderr(&rotated));
    let rotated = json(&rotated);
    let second = rotated["current"].as_str().expect("a name").to_owned();
    assert_eq!(rotated["former"], first.as_str());
    let next = rotated["next"][0].as_str().expect("a step");
    assert!(next.contains("systemctl reload") && next.contains("15 minutes"), "{next}");
    let states = |first: &str, second: &str, state: &str| {
        vec![(first.to_owned(), "signing".to_owned()), (second.to_owned(), state.to_owned())]
    };
    assert_eq!(jwt_keys(&site), states(first, &second, "unpublished"));
    running.reload().await.expect("reloaded");
    assert_eq!(jwt_keys(&site), states(first, &second, "published"));
    let again = site.run(&["ca", "rotate-jwt-key"]);
    assert_eq!(code(&again), 3);
    let said = stderr(&again);
    assert!(
        said.contains(&second) && said.contains("signs from 20") && said.contains("--now"),
        "{said}"
    );
    let table = stdout(&site.run(&["ca", "show"]));
    assert!(table.contains("JWT-SVIDs, published\tsigns from 20"), "{table}");

    let backup = site.folder.path().join("backup");
    let made = site.run(&["backup", "--with-keys", backup.to_str().expect("path")]);
    assert_eq!(code(&made), 0, "{}", stderr(&made));

    let compromised = site.run(&["ca", "rotate-jwt-key", "--now"]);
    assert_eq!(code(&compromised), 0, "{}", stderr(&compromised));
    let [(third, state)] = &jwt_keys(&site)[..] else { panic!("one key") };
    assert_eq!(state, "signing");
    assert!(third != first && *third != second);
    assert!(stdout(&compromised).contains(third), "{}", stdout(&compromised));
    running.reload().await.expect("reloaded");
    running.stop().await.expect("stopped");

    let elsewhere = site.folder.path().join("elsewhere");
    let args = ["restore", backup.to_str().expect("path")];
    let restored = verifier(&args, Some((&site.config_path(), &elsewhere)));
    assert_eq!(code(&restored), 0, "{}", stderr(&restored));
    let kept = verifier::jwt_key::list(&elsewhere).expect("read");
    let kept: Vec<&str> = kept.iter().map(|key| key.id.as_str()).collect();
    assert_eq!(kept, [first.as_str(), second.as_str()]);

    std::fs::write(site.state().join("jwt.key"), "nonsense\n").expect("written");
    let bad = site.run(&["ca", "show"]);
    assert_eq!(code(&bad), 1);
    assert!(stderr(&bad).contains("jwt.key, line 1: "), "{}", stderr(&bad));
}

fn openssl(args: &[&str]) {
    let output = Command::new("openssl").args(args).output().expect("openssl runs");
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
}

/// A chain for a request, made by a PKI of the site's own.
fn signed_by_site(folder: &Path, csr: &Path) -> String {
    let at = |name: &str| folder.join(name).to_str().expect("path").to_owned();
    let extensions = "basicConstraints=critical,CA:TRUE,pathlen:0\n\
                      keyUsage=critical,keyCertSign,cRLSign\n\
                      subjectAltName=URI:spiffe://builds.example\n\
                      subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";
    std::fs::write(at("extensions"), extensions).expect("written");
    let (key, root, signed) = (at("site.key"), at("site.pem"), at("signed.pem"));
    openssl(&[
        "req",
        "-x509",
        "-nodes",
        "-days",
        "30",
        "-subj",
        "/CN=Site root",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-keyout",
        &key,
        "-out",
        &root,
    ]);
    openssl(&[
        "x509",
        "-req",
        "-in",
        csr.to_str().expect("path"),
        "-CA",
        &root,
        "-CAkey",
        &key,
        "-days",
        "20",
        "-set_serial",
        "0x1234567890abcdef",
        "-extfile",
        &at("extensions"),
        "-out",
        &signed,
    ]);
    let read = |path: &str| std::fs::read_to_string(path).expect("read");
    read(&signed) + &read(&root)
}

#[test]
fn an_issuing_ca_of_the_sites_own_pki_is_imported() {
    let site = Site::new();
    let before = shown(&site);
    let path = |name: &str| site.folder.path().join(name);
    let text = |name: &str| path(name).to_str().expect("path").to_owned();
    let made = site.run(&["ca", "csr", "nodes", "--out", &text("nodes.csr")]);
    assert_eq!(code(&made), 0, "{}", stderr(&made));
    let chain = signed_by_site(site.folder.path(), &path("nodes.csr"));
    std::fs::write(path("chain.pem"), &chain).expect("written");

    // For another role, or incomplete: refused, and nothing changes.
    let wrong = site.run(&["ca", "import", "admins", &text("chain.pem")]);
    assert_eq!(code(&wrong), 1, "{}", stdout(&wrong));
    let end = chain.find("-----END CERTIFICATE-----").expect("PEM") + 26;
    std::fs::write(path("leaf.pem"), &chain[..end]).expect("written");
    let cut = site.run(&["ca", "import", "nodes", &text("leaf.pem")]);
    assert_eq!(code(&cut), 1, "{}", stdout(&cut));
    assert_eq!(shown(&site), before);

    let imported = site.run(&["ca", "import", "nodes", &text("chain.pem"), "--json"]);
    assert_eq!(code(&imported), 0, "{}", stderr(&imported));
    let report = json(&imported);
    assert!(report["new_root"].is_string(), "{report}");
    let after = shown(&site);
    assert_ne!(key_id(&after, "nodes"), key_id(&before, "nodes"));
    assert_eq!(key_id(&after, "nodes, retired"), key_id(&before, "nodes"));
    assert_eq!(key_id(&after, "admins"), key_id(&before, "admins"));
    let roots = after["certificates"].as_array().expect("rows");
    assert!(roots.iter().any(|row| row["what"] == "root, in the bundle"), "{after}");
}

/// Any CA certificate may be imported as a manufacturer's root: here the site's own.
#[tokio::test(flavor = "multi_thread")]
async fn roots_are_imported_offline_while_nobody_else_writes() {
    let site = Site::new();
    let root = site.state().join("ca/root.pem");
    let root = root.to_str().expect("path");
    let import = || site.run(&["roots", "import", "--as", "roots", "--offline", root, "--json"]);
    let running = site.start().await;
    let beside = import();
    assert_eq!(code(&beside), 1, "{}", stdout(&beside));
    assert!(stderr(&beside).contains("without --offline"), "{}", stderr(&beside));
    running.stop().await.expect("stopped");
    let first = import();
    assert_eq!(code(&first), 0, "{}", stderr(&first));
    assert_eq!((&json(&first)["added"], &json(&first)["known"]), (&1.into(), &0.into()));
    let again = import();
    assert_eq!((&json(&again)["added"], &json(&again)["known"]), (&0.into(), &1.into()));
    let entries = json(&site.run(&["audit", "list", "--json"]));
    let imports =
        entries.as_array().expect("entries").iter().filter(|e| e["kind"] == "endorsement");
    let actors: Vec<_> = imports.map(|e| e["actor"].as_str().expect("actor").to_owned()).collect();
    assert!(matches!(&actors[..], [one] if one.starts_with("local/")), "{actors:?}");
    // In force at the next start.
    let running = site.start().await;
    let mut admin = client(&site, &running, Some("admin")).await;
    let roots = admin.list_roots(pb::Empty {}).await.expect("listed").into_inner().roots;
    assert_eq!(roots.len(), 1);
    running.stop().await.expect("stopped");
}

/// A decision of the future holds the service back until somebody says, for the record, that the clock is right.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_ahead_is_accepted_by_an_explicit_act() {
    let site = Site::new();
    let config = Config::load(&site.config_path()).expect("configuration");
    let future = SystemClock.now_unix_s() + 1_000_000_000;
    let store = run::open_store(&config, &SystemClock).await.expect("store");
    let decision = NewDecision {
        id: "d1".into(),
        at: future,
        node: None,
        ek_digest: None,
        purpose: "node".into(),
        outcome: Outcome::Denied,
        codes: vec!["NODE_UNKNOWN".into()],
        verdict: b"{}".to_vec(),
        case: Vec::new(),
        objects: Vec::new(),
        policy_version: String::new(),
    };
    store.record(Appraisal::of(decision)).await.expect("recorded");
    store.close().await.expect("closed");

    let running = site.start().await;
    let mut admin = client(&site, &running, Some("admin")).await;
    let answer = admin.list_rules(pb::Empty {}).await;
    assert_refused(answer, Code::Unavailable, ReasonCode::ServiceClockRegressed);
    let accept = |args: &[&str]| site.run(&[&["audit", "accept-clock"], args].concat());
    let recorded = future.to_string();
    let act = ["--recorded", recorded.as_str(), "--reason", "ticket 4711"];
    let beside = accept(&act);
    assert_eq!(code(&beside), 1, "{}", stdout(&beside));
    assert!(stderr(&beside).contains("stop the verifier"), "{}", stderr(&beside));
    running.stop().await.expect("stopped");

    let shown = accept(&[]);
    assert_eq!(code(&shown), 3, "{}", stderr(&shown));
    assert!(stdout(&shown).contains(&recorded), "{}", stdout(&shown));
    assert_eq!(code(&accept(&["--recorded", &recorded])), 2, "a reason is needed");
    assert_eq!(code(&accept(&["--recorded", &recorded, "--reason", " "])), 2);
    let other = accept(&["--recorded", "17", "--reason", "ticket 4711"]);
    assert_eq!(code(&other), 1);
    assert!(stderr(&other).contains("the last decision is of"), "{}", stderr(&other));
    let accepted = accept(&act);
    assert_eq!(code(&accepted), 0, "{}", stderr(&accepted));
    assert_eq!(code(&accept(&[])), 0);
    let listed = site.run(&["audit", "list", "--subject", "clock accepted", "--json"]);
    assert_eq!(json(&listed)[0]["body"]["reason"], "ticket 4711");
    assert_eq!(code(&site.run(&["audit", "verify"])), 0);

    let running = site.start().await;
    let mut admin = client(&site, &running, Some("admin")).await;
    admin.list_rules(pb::Empty {}).await.expect("served again");
    running.stop().await.expect("stopped");
}
