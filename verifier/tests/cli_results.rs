//! `verifier results` and `verifier admit` where nothing has been signed: arguments, files, schemas.

mod site;

use site::*;

#[test]
fn the_trusted_root_is_of_the_ca_s_files_and_grows_with_a_rotation() {
    let site = Site::new();
    let count = |root: &serde_json::Value, kind: &str| root[kind].as_array().expect("a list").len();
    let printed = site.run(&["results", "trusted-root"]);
    assert_eq!(code(&printed), 0, "{}", stderr(&printed));
    let root = json(&printed);
    assert_eq!(count(&root, "certificateAuthorities"), 2);
    assert_eq!(count(&root, "timestampAuthorities"), 1);
    assert_eq!(root["timestampAuthorities"][0]["uri"], "spiffe://builds.example");
    let path = site.folder.path().join("trusted_root.json");
    let path = path.to_str().expect("a path");
    let written = site.run(&["results", "trusted-root", "--out", path, "--json"]);
    assert_eq!(code(&written), 0, "{}", stderr(&written));
    assert_eq!(json(&written)["certificate_authorities"], 2);
    assert_eq!(std::fs::read_to_string(path).expect("written").trim(), stdout(&printed).trim());
    for role in ["jobs", "results"] {
        let rotated = site.run(&["ca", "rotate", role]);
        assert_eq!(code(&rotated), 0, "{}", stderr(&rotated));
        assert!(stdout(&rotated).contains("verifier results trusted-root"), "{}", stdout(&rotated));
    }
    let root = json(&site.run(&["results", "trusted-root"]));
    assert_eq!(count(&root, "certificateAuthorities"), 4);
    assert_eq!(count(&root, "timestampAuthorities"), 2);
    // Without the CA's files there is nobody to be trusted.
    std::fs::remove_file(site.state().join("ca/results.pem")).expect("removed");
    assert_eq!(code(&site.run(&["results", "trusted-root"])), 1);
}

#[test]
fn schemas_are_printed_and_arguments_checked() {
    for kind in ["vsa", "dispatch", "admit-policy"] {
        let printed = verifier(&["results", "schema", kind], None);
        assert_eq!(code(&printed), 0, "{}", stderr(&printed));
        assert_eq!(json(&printed)["type"], "object", "{kind}");
    }
    let verify = ["results", "verify", "b.json", "--trusted-root", "r.json"];
    for more in [
        &["--digest", "5a"][..],
        &["--digest", "sha256:5a"],
        &["--digest", "sha1:5a"],
        &["--identity", "node/w1"],
        &["--identity", "spiffe://builds.example"],
        &["--artifact", "a", "--digest", &format!("sha256:{}", "5a".repeat(32))],
        &["--no-timestamp"],
    ] {
        let output = verifier(&[&verify[..], more].concat(), None);
        assert_eq!(code(&output), 2, "{more:?}: {}", stderr(&output));
    }
    for args in [
        &["results", "verify", "b.json"][..],
        &["results", "verify", "--trusted-root", "r.json"],
        &["results", "schema", "everything"],
        &["admit", "a", "--results", "r", "--policy", "p.toml"],
        &["admit", "a", "--results", "r", "--trusted-root", "r.json"],
        &["admit", "a", "--policy", "p.toml", "--trusted-root", "r.json"],
    ] {
        assert_eq!(code(&verifier(args, None)), 2, "{args:?}");
    }
}

#[test]
fn what_cannot_be_read_is_told_from_what_is_refused() {
    let site = Site::new();
    let at = |name: &str| site.folder.path().join(name).to_str().expect("a path").to_owned();
    let (root, other, bundle) = (at("root.json"), at("other.json"), at("bundle.json"));
    std::fs::write(&root, stdout(&site.run(&["results", "trusted-root"]))).expect("written");
    std::fs::write(&other, "{}").expect("written");
    std::fs::write(&bundle, "{}").expect("written");
    let verify = |bundle: &str, root: &str| {
        verifier(&["results", "verify", bundle, "--trusted-root", root], None)
    };
    assert_eq!(code(&verify(&at("absent"), &root)), 1);
    assert_eq!(code(&verify(&bundle, &at("absent"))), 1);
    let refused = verify(&bundle, &root);
    assert_eq!(code(&refused), 3);
    assert!(stdout(&refused).contains("refused: RESULT_MALFORMED"), "{}", stdout(&refused));
    // The list itself: nothing is verified by it.
    let refused = verify(&bundle, &other);
    assert_eq!(code(&refused), 3);
    assert!(stderr(&refused).contains("RESULT_MALFORMED"), "{}", stderr(&refused));
    let shown = verifier(&["results", "show", &bundle], None);
    assert_eq!(code(&shown), 3);
    assert!(stderr(&shown).contains("RESULT_MALFORMED"), "{}", stderr(&shown));
    // One after the other, also where one is refused.
    let both =
        verifier(&["results", "verify", &bundle, &bundle, "--trusted-root", &root, "--json"], None);
    assert_eq!(code(&both), 3);
    assert_eq!(json(&both).as_array().expect("a list").len(), 2);
}
