//! docs/RESULTS.md says what the code does.
mod support;

use results::{
    Code, Sha256Digest,
    admit::AdmitPolicy,
    statement::{Dispatch, Predicate, Vsa},
};
use support::chain::{Chain, without_lists};

const DOCUMENT: &str = include_str!("../../../docs/RESULTS.md");

#[test]
fn every_code_is_documented() {
    let documented: Vec<&str> = DOCUMENT
        .lines()
        .filter(|line| line.starts_with("| `RESULT_") || line.starts_with("| `ADMIT_"))
        .collect();
    let mut expected: Vec<_> =
        Code::ALL.iter().map(|code| format!("| `{code}` | {} |", code.meaning())).collect();
    expected.sort_by_key(|row| !row.contains("RESULT_"));
    assert_eq!(documented, expected, "the table should be:\n{}", expected.join("\n"));
}

/// The example that is explained line by line.
#[test]
fn the_example_of_a_policy_can_be_used() {
    let text = include_str!("../../../docs/examples/admit/release.toml");
    let policy: AdmitPolicy = toml::from_str(text).expect("a policy");
    assert_eq!(policy.check(), Ok(()));
    // It shows every field that there is.
    let serde_json::Value::Object(fields) = serde_json::to_value(&policy).expect("JSON") else {
        panic!("an object");
    };
    assert_eq!(fields.len(), 10, "{fields:?}");
    let unknown = text.replace("levels =", "level =");
    assert!(toml::from_str::<AdmitPolicy>(&unknown).is_err(), "a field that is not known");
}

/// `cargo xtask demo --write-examples` writes them.
#[test]
fn the_examples_are_one_real_chain() {
    let vsa_json = compact(block("vsa", "json"));
    let dispatch_json = compact(block("dispatch", "json"));
    let vsa = Vsa::parse(vsa_json.as_bytes()).expect("a VSA");
    let dispatch = Dispatch::parse(dispatch_json.as_bytes()).expect("a dispatch");
    assert_eq!(dispatch.vsa, Sha256Digest::of(vsa_json.as_bytes()), "the VSA's digest");
    assert_eq!((dispatch.quote, &dispatch.node), (vsa.quote, &vsa.node));
    let (_, job) = dispatch_json.split_once("\"job\":").expect("the job");
    let (job, _) = job.split_once(",\"nodeId\"").expect("its end");
    assert_eq!(dispatch.job.build_id(), Sha256Digest::of(job.as_bytes()), "the build's subject");
    assert!(
        dispatch_json.contains(&format!(r#"{{"name":"build","digest":{{"sha256":"{}"}}}}"#, {
            dispatch.job.build_id()
        }))
    );
    // The trees are of this chain.
    for tree in [block("admitted", "text"), block("not admitted", "text")] {
        for said in [vsa.quote.to_string(), vsa.ak_public.to_string(), dispatch.permit_id.clone()] {
            assert!(tree.contains(&said), "{said} in:\n{tree}");
        }
    }
    for shown in [vsa_json.as_str(), &dispatch_json, block("admitted", "text")] {
        for place in ["/tmp", "/home", "/root", "/var", "localhost"] {
            assert!(!shown.contains(place), "{place} is of the machine that wrote it: {shown}");
        }
    }
}

/// What stands in the document is what is printed of such a chain: every line but for its digests, times and names.
#[test]
fn the_trees_are_printed_so() {
    let mut chain = Chain::new();
    let vsa = Vsa::parse(compact(block("vsa", "json")).as_bytes()).expect("a VSA");
    let shown = compact(block("dispatch", "json"));
    let shown = Dispatch::parse(shown.as_bytes()).expect("a dispatch");
    chain.vsa.levels = vsa.levels;
    chain.dispatch.job = shown.job;
    chain.dispatch.git_commit = shown.git_commit;
    chain.dispatch.tools = shown.tools;
    chain.policy = without_lists(chain.policy);
    let admitted = format!("admitted\n\n{}", chain.admit().expect("it is admitted"));
    assert_eq!(shape(block("admitted", "text")), shape(&admitted));
    let examined = chain.examine_artifact(b"another one").expect("a policy");
    let tree = examined.to_string();
    let first = examined.admitted().expect_err("another artifact");
    let refused = format!("NOT admitted: {}\n{}\n\n{tree}", first.code(), first.code().meaning());
    assert_eq!(shape(block("not admitted", "text")), shape(&refused));
}

/// A block of the document.
fn block(name: &str, language: &str) -> &'static str {
    let begin = format!("<!-- example: {name} -->\n```{language}\n");
    let (_, rest) = DOCUMENT.split_once(&begin).unwrap_or_else(|| panic!("no {begin}"));
    rest.split_once("\n```\n").expect("its end").0
}

/// JSON without its white space, members in the order in which they stand.
fn compact(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let kept = |character: &char| {
        let is_kept = in_string || !character.is_whitespace();
        if in_string {
            in_string = escaped || *character != '"';
            escaped = *character == '\\' && !escaped;
        } else {
            in_string = *character == '"';
        }
        is_kept
    };
    json.chars().filter(kept).collect()
}

/// Its words but for what differs between chains: digests, times, identities, permit, pool and system.
fn shape(tree: &str) -> String {
    let word = |word: &str| {
        let value = word.trim_start_matches("sha256:");
        let is_digest = value.len() >= 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_time = word.len() == 20 && word.ends_with('Z');
        let is_uri = word.contains("://");
        if is_digest || is_time || is_uri { "…".to_owned() } else { word.to_owned() }
    };
    let line = |line: &str| {
        let words: Vec<String> = line.split(' ').map(word).collect();
        let is_named = |at: usize| {
            let before = at.checked_sub(1).and_then(|before| words.get(before));
            before.is_some_and(|before| ["permit", "pool", "system"].contains(&before.as_str()))
        };
        let named = words.iter().enumerate().map(|(at, word)| {
            if is_named(at) && word != "←" && !word.ends_with(':') { "…" } else { word }
        });
        named.collect::<Vec<_>>().join(" ")
    };
    tree.trim_end().lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_policy_in_the_document_is_one() {
    let section = DOCUMENT.find("\n## Admission\n").expect("the section");
    let begin = section + DOCUMENT[section..].find("```toml\n").expect("a policy") + 8;
    let text = &DOCUMENT[begin..begin + DOCUMENT[begin..].find("```").expect("an end")];
    let policy: AdmitPolicy = toml::from_str(text).expect("a policy");
    assert_eq!(policy.tools.len(), 2);
    assert_eq!(policy.pools, ["release"]);
}
