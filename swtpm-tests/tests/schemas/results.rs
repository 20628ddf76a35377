//! The schemas of statements and of the policy of admission: written by hand, and held against what reads them.

use std::collections::{BTreeMap, BTreeSet};

use results::{
    Sha256Digest, UnixTime,
    admit::AdmitPolicy,
    statement::{
        Claim, ClaimSource, Dispatch, JobClaims, PolicyRef, Predicate, Tool, Verdict, VerifierId,
        Vsa,
    },
};
use serde_json::Value;
use swtpm_tests::documented::block;

use super::{each_object_schema, problem, variants};

const DOCUMENT: &str = include_str!("../../../docs/RESULTS.md");
const EXAMPLE: &str = include_str!("../../../docs/examples/admit/release.toml");

/// A published schema, and an example with every field that there is.
fn published(name: &str) -> (Value, Value) {
    let schema = match name {
        "vsa" => include_str!("../../../docs/schemas/vsa.v1.json"),
        "dispatch" => include_str!("../../../docs/schemas/dispatch.v1.json"),
        _ => include_str!("../../../docs/schemas/admit-policy.v1.json"),
    };
    let example = match name {
        "admit-policy" => toml::from_str(EXAMPLE).expect("TOML"),
        "vsa" => of_statement(&vsa()),
        _ => of_statement(&dispatch()),
    };
    (serde_json::from_str(schema).expect("JSON"), example)
}

fn of_statement(statement: &impl Predicate) -> Value {
    serde_json::from_slice(&statement.to_json().expect("a statement")).expect("JSON")
}

fn digest(text: &str) -> Sha256Digest {
    Sha256Digest::of(text.as_bytes())
}

fn vsa() -> Vsa {
    let reference = |text: &str| PolicyRef {
        uri: format!("https://build.example/{text}"),
        digest: digest(text),
    };
    Vsa {
        ak_public: digest("ak"),
        quote: digest("quote"),
        node: "spiffe://build.example/node/n1".parse().expect("an ID"),
        verifier: VerifierId {
            id: "spiffe://build.example/verifier/results".to_owned(),
            version: BTreeMap::from([("assay".to_owned(), "0.1.0".to_owned())]),
        },
        time_verified: UnixTime::from_unix_s(1_790_000_000).expect("a time"),
        policy: reference("golden"),
        input_attestations: vec![reference("case"), reference("set")],
        result: Verdict::Passed,
        levels: vec!["ASSAY_NODE_ATTESTED".to_owned()],
    }
}

fn dispatch() -> Dispatch {
    let claim =
        |name: &str, source| (name.to_owned(), Claim { source, value: format!("the {name}") });
    let claims = BTreeMap::from([
        claim("repository", ClaimSource::PlatformToken),
        claim("run_id", ClaimSource::PlatformToken),
        claim("runner_name", ClaimSource::Environment),
        claim("workflow", ClaimSource::PlatformToken),
    ]);
    let tool = |name: &str| Tool {
        name: name.to_owned(),
        version: "12.2.0".to_owned(),
        purl: format!("pkg:generic/{name}"),
        digest: digest(name),
    };
    Dispatch {
        job: JobClaims { claims, system: "github".to_owned() },
        git_commit: Some("5a".repeat(20)),
        job_key: digest("key"),
        quote: digest("quote"),
        vsa: digest("vsa"),
        tools: vec![tool("gcc"), tool("make")],
        producer: "spiffe://build.example/verifier/results".to_owned(),
        permit_id: "p-0001".to_owned(),
        node: "spiffe://build.example/node/n1".parse().expect("an ID"),
        pool: "release".to_owned(),
        expires: UnixTime::from_unix_s(1_790_000_300).expect("a time"),
    }
}

/// What docs/RESULTS.md shows; a test of the results' crate holds it against what reads it.
#[test]
fn the_documented_statements_are_of_the_schemas() {
    for name in ["vsa", "dispatch"] {
        let (schema, _) = published(name);
        let shown = block(DOCUMENT, &format!("example: {name}"), "json").expect("the example");
        let shown: Value = serde_json::from_str(shown).expect("JSON");
        assert_eq!(problem(&schema, &schema, &shown), None, "{name}");
    }
}

const NAMES: [&str; 3] = ["vsa", "dispatch", "admit-policy"];

#[test]
fn the_examples_are_of_the_schemas_and_every_field_is_explained() {
    for name in NAMES {
        let (schema, example) = published(name);
        assert_eq!(problem(&schema, &schema, &example), None, "{name}");
        let mut fields = 0;
        each_object_schema(&schema, &mut |object| {
            assert_eq!(object["additionalProperties"], false, "{name}: {object}");
            for (field, of_field) in object["properties"].as_object().into_iter().flatten() {
                let words = of_field["description"].as_str().unwrap_or_default();
                assert!(words.len() > 8, "{name}: {field}: {words:?}");
                fields += 1;
            }
        });
        assert!(fields > 5, "{name}: the schema was read");
    }
}

#[test]
fn the_schema_of_the_policy_and_its_reader_take_and_refuse_the_same() {
    let (schema, example) = published("admit-policy");
    let is_read = |policy: &Value| {
        serde_json::from_value::<AdmitPolicy>(policy.clone())
            .is_ok_and(|policy| policy.check().is_ok())
    };
    assert!(is_read(&example));
    let all = variants(&example);
    let mut refused = 0;
    for (what, variant) in &all {
        let problem = problem(&schema, &schema, variant);
        assert_eq!(problem.is_none(), is_read(variant), "{what}: {problem:?}");
        refused += usize::from(problem.is_some());
    }
    assert!(refused > 5 && refused < all.len(), "{refused} of {}", all.len());
}

/// A statement has one sequence of bytes, so that its reader takes nothing that is written anew; what may be left out is
/// named here instead.
#[test]
fn statements_have_no_other_fields_and_lack_none() {
    for (name, may_be_left_out) in [
        ("vsa", &["assay", "version"][..]),
        ("dispatch", &["repository", "run_id", "runner_name", "workflow"]),
    ] {
        let (schema, example) = published(name);
        let mut left_out = BTreeSet::new();
        for (what, variant) in variants(&example) {
            let problem = problem(&schema, &schema, &variant);
            let change = what.rsplit(": ").next().unwrap_or_default();
            if let (Some(field), None) = (change.strip_prefix("without "), &problem) {
                left_out.insert(field.to_owned());
            }
            let is_map = ["/claims", "/version"].iter().any(|map| what.contains(map));
            if change == "with an unknown field" && !is_map {
                assert!(problem.is_some(), "{name}: {what}");
            }
        }
        assert_eq!(left_out.into_iter().collect::<Vec<_>>(), may_be_left_out, "{name}");
    }
}
