//! The schemas of statements and of the policy of admission: written by hand, and held against what reads them.

use std::collections::BTreeSet;

use results::admit::AdmitPolicy;
use serde_json::Value;

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
        // A test of the results' crate holds these against what it writes.
        _ => {
            let begin = format!("<!-- example: {name} -->\n```json\n");
            let example = DOCUMENT.split(&begin).nth(1).expect("the example");
            let json = example.split("\n```").next().expect("its end");
            serde_json::from_str(json).expect("JSON")
        }
    };
    (serde_json::from_str(schema).expect("JSON"), example)
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
