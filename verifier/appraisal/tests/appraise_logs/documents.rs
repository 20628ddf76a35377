//! What is wrong in a golden set that reads logs, and where.

use std::sync::Arc;

use appraisal::{
    ima::{Manifest, ManifestBuilder},
    policy::{GoldenSet, Manifests, ReferenceValues},
};

use crate::{
    site::{golden, sha256, tool_pcr},
    support::of,
};

const HEAD: &str = "schema = \"assay.golden/v1\"\nname = \"base\"\npool = \"linux\"\nversion = 1\n";

fn text(rules: &str) -> String {
    let value = hex::encode(sha256(b"PCR 0").as_bytes());
    format!(
        "{HEAD}[[pcr]]\nbank = \"sha256\"\nindex = 0\naccept = [{{ value = \"{value}\" }}]\n{rules}"
    )
}

fn problems_with(rules: &str, manifests: &Manifests) -> Vec<(String, String)> {
    match ReferenceValues::parse(&text(rules), tool_pcr(), manifests) {
        Ok(_) => Vec::new(),
        Err(found) => found.into_iter().map(|problem| (problem.at, problem.what)).collect(),
    }
}

/// The one problem of these rules.
#[track_caller]
fn assert_problem(rules: &str, at: &str, what: &str) {
    let found = problems_with(rules, &Manifests::new());
    assert_eq!(found, [(at.to_owned(), what.to_owned())], "{rules}");
}

/// The place of a syntax error, whatever its words.
#[track_caller]
fn assert_syntax(rules: &str, line: usize) {
    let found = problems_with(rules, &Manifests::new());
    let [(at, _)] = found.as_slice() else { panic!("{rules}: {found:?}") };
    let head = text("").lines().count();
    assert!(at.starts_with(&format!("line {}, column ", head + line)), "{at}: {found:?}");
}

fn events(index: u8, accept: &str) -> String {
    format!("[[events]]\nbank = \"sha256\"\nindex = {index}\naccept = [{accept}]\n")
}

fn digest(of: &[u8]) -> String {
    format!("{{ digest = \"{}\" }}", hex::encode(sha256(of).as_bytes()))
}

#[test]
fn every_section_at_once_is_accepted() {
    let everything = format!(
        "[boot]\nsecure_boot = true\ntolerate = [\"DEBUG_MODE\"]\napplications = [{0}]\n\
         signers = [{0}]\ncommand_lines = [{{ text = \"quiet\" }}, {0}]\n\
         sections = [{{ name = \".linux\", accept = [{0}] }}]\n\
         [boot.keys]\npk = [{0}]\nkek = [{0}]\ndb = [{0}]\ndbx = [{0}]\n\
         [tools]\nstart = [\"{1}\"]\n{2}",
        of(b"x"),
        sha256(b"start"),
        events(9, &digest(b"initrd"))
    );
    let set = golden(&text(&everything));
    let read: Vec<u8> = set.log_pcrs().iter().map(proto::digest::PcrIndex::get).collect();
    assert_eq!(read, [4, 7, 9, 11, 12]);
    // What booted is read from PCRs that the set may not list: they are asked for.
    let asked: Vec<_> = set.selection().iter().map(|(bank, pcr)| (bank, pcr.get())).collect();
    assert_eq!(asked, [0, 4, 7, 9, 11, 12].map(|pcr| (proto::digest::HashAlg::Sha256, pcr)));
    // Rules without a PCR of their own need the log and no PCR of it.
    let set = golden(&text("[boot]\ntolerate = [\"DEBUG_MODE\"]\n"));
    assert_eq!(set.log_pcrs().iter().count(), 0);
}

#[test]
fn a_set_may_read_every_pcr_by_event() {
    let set = golden(&format!("{HEAD}{}", events(9, &digest(b"initrd"))));
    assert_eq!(set.selection().iter().count(), 1);
    let found = ReferenceValues::parse(HEAD, tool_pcr(), &Manifests::new()).expect_err("no PCR");
    assert_eq!(found[0].at, "pcr");
    assert_eq!(found[0].what, "empty: a golden set lists at least one PCR");
}

#[test]
fn problems_of_boot_rules() {
    let empty = "[boot]\nsections = [{ name = \".linux\", accept = [] }]\n";
    assert_problem(empty, "boot.sections[0].accept", "empty: no content is accepted");
    let section = format!("{{ name = \".linux\", accept = [{}] }}", of(b"x"));
    let twice = format!("[boot]\nsections = [{section}, {section}]\n");
    assert_problem(&twice, "boot.sections[1]", "section \".linux\" is listed twice");
    for wrong in [
        "secure_boot = \"on\"\n",
        "tolerate = [\"DEBUG\"]\n",
        "applications = [\"sha256:00\"]\n",
        "applications = [{ digest = \"sha256:00\" }]\n",
        "applications = [{ digest = \"md5:00\" }]\n",
        "signers = [{ what = \"nobody\" }]\n",
        "command_lines = [\"quiet\"]\n",
        "command_lines = [{ text = \"quiet\", digest = \"sha256:00\" }]\n",
        "sections = [{ name = \".linux\" }]\n",
        "keys = { dbt = [] }\n",
        "secureboot = true\n",
    ] {
        assert_syntax(&format!("[boot]\n{wrong}"), 2);
    }
}

#[test]
fn problems_of_event_rules() {
    for index in [10, 14, 16, 23, 24] {
        let what = format!("{index}: 0 to 15, but not 10 (IMA) nor 14 (tools)");
        assert_problem(&events(index, &digest(b"x")), "events[0].index", &what);
    }
    let twice = format!("{}{}", events(9, &digest(b"x")), events(9, &digest(b"y")));
    assert_problem(&twice, "events[1]", "PCR 9 (sha256) is judged twice");
    assert_problem(&events(0, &digest(b"x")), "events[0]", "PCR 0 (sha256) is judged twice");
    assert_problem(&events(9, ""), "events[0].accept", "empty: no event would be accepted");
    let accept = "{ digest = \"zz\" }";
    let what = "\"zz\" is not hexadecimal";
    assert_problem(&events(9, accept), "events[0].accept[0].digest", what);
    let accept = format!("{}, {{ digest = \"00\" }}", digest(b"x"));
    let found = problems_with(&events(9, &accept), &Manifests::new());
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, "events[0].accept[1].digest");
    assert_syntax("[[events]]\nbank = \"sha1\"\nindex = 9\naccept = []\n", 2);
    assert_syntax(&format!("{}requires = true\n", events(9, &digest(b"x"))), 5);
}

#[test]
fn problems_of_recorded_events() {
    let value = hex::encode(sha256(b"PCR 1").as_bytes());
    let rules = format!(
        "[[pcr]]\nbank = \"sha256\"\nindex = 1\n\
         accept = [{{ value = \"{value}\", events = [{}, {{ digest = \"zz\", what = \"x\" }}] }}]\n",
        digest(b"x")
    );
    assert_problem(&rules, "pcr[1].accept[0].events[1].digest", "\"zz\" is not hexadecimal");
}

#[test]
fn problems_of_ima_sections() {
    let unknown = sha256(b"nobody's manifest");
    assert_problem(
        &format!("[ima]\nmanifest = \"{unknown}\"\n"),
        "ima.manifest",
        &format!("{unknown} is not imported; `verifier ima import FILE` does that"),
    );
    let neither = "neither a manifest nor a key says what is allowed";
    assert_problem("[ima]\n", "ima.rules.ima", neither);
    let found = problems_with("[[ima.key]]\nname = \"site\"\npem = \"x\"\n", &Manifests::new());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].0.starts_with("ima.key: "), "{found:?}");
    assert_syntax("[ima]\nmanifests = []\n", 2);
    assert_syntax("[ima.rules]\nrequire = \"neither\"\n", 2);
}

#[test]
fn problems_of_ima_rules_name_the_rule() {
    let mut builder = ManifestBuilder::new();
    builder.file(&sha256(b"x"), b"/usr/bin/x");
    let manifest = Manifest::parse(builder.to_text("base", 0).as_bytes()).expect("a manifest");
    let digest = *manifest.id();
    let manifests = Manifests::from([(digest, Arc::new(manifest))]);
    let section = |rules: &str| {
        problems_with(&format!("[ima]\nmanifest = \"{digest}\"\n[ima.rules]\n{rules}"), &manifests)
    };
    assert_eq!(section(""), []);
    let both = ("ima.rules.require".to_owned(), "\"both\" needs a manifest and keys".to_owned());
    assert_eq!(section("require = \"both\"\n"), [both]);
    let found = section("exclude = [\"/**\"]\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, "ima.rules.exclude \"/**\"");
}

/// The text alone says which manifest has to be at hand.
#[test]
fn a_set_names_its_manifest() {
    let digest = sha256(b"manifest");
    let named = text(&format!("[ima]\nmanifest = \"{digest}\"\n"));
    assert_eq!(GoldenSet::manifests_named_by(&named), [digest].into());
    assert!(GoldenSet::manifests_named_by(&text("")).is_empty());
    assert!(GoldenSet::manifests_named_by("not TOML").is_empty());
}
