//! The published JSON Schemas: current, explained, and of the same opinion as what reads the documents.

use std::collections::BTreeSet;

use appraisal::policy::{document::GoldenDocument, site::SitePolicyDocument};
use serde_json::{Map, Value, json};
use verifier::{
    documents::schema::{generated, published},
    signatures::KeyRingDocument,
    store::DocumentKind,
};

#[path = "schemas/results.rs"]
mod of_results;

const KINDS: [DocumentKind; 3] = [DocumentKind::Golden, DocumentKind::Policy, DocumentKind::Keys];

fn schema(kind: DocumentKind) -> Value {
    serde_json::from_str(published(kind)).expect("JSON")
}

/// Whether what reads documents takes the form of this one.
fn is_read(kind: DocumentKind, document: &Value) -> bool {
    let document = document.clone();
    match kind {
        DocumentKind::Golden => serde_json::from_value::<GoldenDocument>(document).is_ok(),
        DocumentKind::Policy => serde_json::from_value::<SitePolicyDocument>(document).is_ok(),
        DocumentKind::Keys => serde_json::from_value::<KeyRingDocument>(document).is_ok(),
    }
}

/// A document with every field.
fn whole(kind: DocumentKind) -> Value {
    let sha256 = format!("sha256:{}", "5a".repeat(32));
    let digest = json!({ "digest": sha256, "what": "an image" });
    let keys = json!({ "pk": [digest], "kek": [digest], "db": [digest], "dbx": [digest] });
    let boot = json!({
        "secure_boot": true,
        "tolerate": ["EXIT_BOOT_SERVICES_MISSING"],
        "applications": [digest],
        "signers": [digest],
        "command_lines": [{ "text": "quiet" }, { "pattern": "root=*" }, digest],
        "sections": [{ "name": ".linux", "accept": [digest] }],
        "keys": keys,
    });
    let pcr = json!([{
        "bank": "sha256", "index": 4,
        "accept": [{
            "value": "5a".repeat(32), "from": "a node", "by": "eve", "at": "2026-08-01T00:00:00Z",
            "events": [{ "digest": "5a".repeat(32), "what": "an event" }],
        }],
    }]);
    let events = json!([{
        "bank": "sha384", "index": 5, "why": "it differs",
        "accept": [{ "digest": "5a".repeat(48), "what": "an event", "required": true }],
    }]);
    let ima = json!({
        "manifest": sha256,
        "key": [{ "name": "vendor", "pem": "PEM" }],
        "rules": {
            "require": "both", "bind_paths": true, "exclude": ["/var/tmp/**"], "deny": [sha256],
            "allow_violations": true, "allow_padded_sha1": true,
        },
    });
    let tool = json!([{
        "name": "cc", "required": false,
        "accept": [{
            "digest": sha256, "version": "12", "purl": "pkg:deb/gcc", "from": "a node",
            "files": { "/usr/bin/cc": sha256 },
        }],
    }]);
    match kind {
        DocumentKind::Golden => json!({
            "schema": "assay.golden/v1", "name": "linux", "pool": "linux", "version": 3,
            "description": "for people", "include": ["platform"],
            "tpm": {
                "manufacturers": ["id:49465800"],
                "firmware_floor": { "*": "0001000200030004" },
                "require_safe_clock": true,
            },
            "boot": boot, "pcr": pcr, "events": events, "ima": ima,
            "tools": { "closed": true, "deny": [sha256], "start": [sha256] },
            "tool": tool,
            "group": [{
                "name": "kernel-6.1", "description": "for people", "boot": boot, "pcr": pcr,
                "events": events, "ima": ima, "tool": tool,
            }],
        }),
        DocumentKind::Policy => json!({
            "schema": "assay.policy/v1", "name": "baseline", "version": 1, "pools": ["linux"],
            "description": "for people",
            "kernel": [{ "version": "6.1", "digests": [sha256] }],
            "rule": [{ "name": "r", "at": "job", "message": "m", "expr": "true" }],
        }),
        DocumentKind::Keys => json!({
            "schema": "assay.keys/v1", "name": "security", "version": 1, "threshold": 1,
            "key": [{ "name": "alice", "pem": "PEM" }],
        }),
    }
}

#[test]
fn what_is_published_is_current() {
    for kind in KINDS {
        let current: Value = serde_json::from_str(&generated(kind)).expect("JSON");
        assert_eq!(schema(kind), current, "{kind:?}: run `cargo xtask vectors`");
    }
}

#[test]
fn every_field_is_explained_in_words_that_need_no_source() {
    for kind in KINDS {
        let schema = schema(kind);
        let mut fields = 0;
        each_object_schema(&schema, &mut |object| {
            for (name, field) in object["properties"].as_object().into_iter().flatten() {
                let words = field["description"].as_str().unwrap_or_default();
                assert!(words.len() > 8 || words == "Name.", "{kind:?}: {name}: {words:?}");
                assert!(!words.contains("[`") && !words.contains("::"), "{name}: {words}");
                fields += 1;
            }
        });
        assert!(fields > 5, "{kind:?}: the schema was read");
    }
}

/// The example has every field that there is, so that what follows tries all of them.
#[test]
fn the_examples_are_whole() {
    for kind in KINDS {
        let schema = schema(kind);
        let mut known = BTreeSet::new();
        each_object_schema(&schema, &mut |object| {
            known.extend(
                object["properties"].as_object().into_iter().flatten().map(|(name, _)| name),
            );
        });
        let mut used = BTreeSet::new();
        let document = whole(kind);
        names(&document, &mut used);
        let unused: Vec<_> = known.iter().filter(|name| !used.contains(name.as_str())).collect();
        assert!(unused.is_empty(), "{kind:?}: {unused:?}");
    }
}

#[test]
fn the_schema_and_the_reader_take_and_refuse_the_same() {
    for kind in KINDS {
        let (schema, document) = (schema(kind), whole(kind));
        assert!(is_read(kind, &document), "{kind:?}");
        assert_eq!(problem(&schema, &schema, &document), None, "{kind:?}");
        let variants = variants(&document);
        let mut refused = 0;
        for (what, variant) in &variants {
            let problem = problem(&schema, &schema, variant);
            assert_eq!(problem.is_none(), is_read(kind, variant), "{kind:?}: {what}: {problem:?}");
            refused += usize::from(problem.is_some());
        }
        // Both kinds of variants are there: those that only leave something out that may be left out, and the others.
        assert!(
            refused > 5 && refused < variants.len(),
            "{kind:?}: {refused} of {}",
            variants.len()
        );
    }
}

/// What the reader refuses by its content, not by its form, is for the checks after it; but not what `schema` says.
#[test]
fn the_version_of_the_schema_is_part_of_it() {
    for kind in KINDS {
        let mut document = whole(kind);
        document["schema"] = "assay.golden/v9".into();
        let schema = schema(kind);
        assert!(problem(&schema, &schema, &document).is_some(), "{kind:?}");
    }
}

/// Every schema of an object, wherever it stands.
fn each_object_schema<'s>(schema: &'s Value, tell: &mut impl FnMut(&'s Value)) {
    match schema {
        Value::Object(fields) => {
            if fields.contains_key("properties") {
                tell(schema);
            }
            fields.values().for_each(|field| each_object_schema(field, tell));
        }
        Value::Array(items) => items.iter().for_each(|item| each_object_schema(item, tell)),
        _ => {}
    }
}

fn names<'v>(value: &'v Value, out: &mut BTreeSet<&'v str>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                out.insert(name);
                names(field, out);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| names(item, out)),
        _ => {}
    }
}

/// The document with one field less, with one more, or with a value of another type, at each place.
fn variants(document: &Value) -> Vec<(String, Value)> {
    let mut places = Vec::new();
    pointers(document, String::new(), &mut places);
    let mut out = Vec::new();
    for place in places {
        let value = document.pointer(&place).expect("it is there");
        for (what, other) in others(value) {
            let mut variant = document.clone();
            *variant.pointer_mut(&place).expect("it is there") = other;
            out.push((format!("{place}: {what}"), variant));
        }
    }
    out
}

fn pointers(value: &Value, at: String, out: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let name = name.replace('~', "~0").replace('/', "~1");
                pointers(field, format!("{at}/{name}"), out);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                pointers(item, format!("{at}/{index}"), out);
            }
        }
        _ => {}
    }
    out.push(at);
}

fn others(value: &Value) -> Vec<(String, Value)> {
    match value {
        Value::Object(fields) => {
            let without = fields.keys().map(|name| {
                let mut fewer = fields.clone();
                fewer.remove(name);
                (format!("without {name}"), Value::Object(fewer))
            });
            let mut more = fields.clone();
            more.insert("no_such_field".to_owned(), 1.into());
            let more = ("with an unknown field".to_owned(), Value::Object(more));
            without.chain([more, ("a text".to_owned(), "text".into())]).collect()
        }
        Value::Array(_) => vec![
            ("empty".to_owned(), json!([])),
            ("a number".to_owned(), 1.into()),
            ("a list of numbers".to_owned(), json!([1])),
        ],
        Value::String(_) => {
            vec![("a number".to_owned(), 1.into()), ("a list".to_owned(), json!([]))]
        }
        Value::Bool(_) | Value::Number(_) => {
            vec![("a text".to_owned(), "text".into()), ("below zero".to_owned(), (-1).into())]
        }
        Value::Null => Vec::new(),
    }
}

/// What is wrong with a value, by the words of JSON Schema that the published schemas use.
fn problem(root: &Value, schema: &Value, value: &Value) -> Option<String> {
    let Value::Object(schema) = schema else { return None };
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let target = root.pointer(reference.trim_start_matches('#')).expect("a definition");
        if let Some(problem) = problem(root, target, value) {
            return Some(problem);
        }
    }
    for word in ["anyOf", "oneOf"] {
        if let Some(Value::Array(alternatives)) = schema.get(word) {
            let problems: Vec<String> = alternatives
                .iter()
                .map_while(|alternative| problem(root, alternative, value))
                .collect();
            if problems.len() == alternatives.len() {
                return Some(problems.join(", or "));
            }
        }
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return Some(format!("{value} is not {}", schema["const"]));
    }
    if let Some(Value::Array(known)) = schema.get("enum")
        && !known.contains(value)
    {
        return Some(format!("{value} is none of {known:?}"));
    }
    if let Some(name) = schema.get("type").and_then(Value::as_str) {
        let is_it = match name {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            other => panic!("type {other} is not known here"),
        };
        if !is_it {
            return Some(format!("{value} is no {name}"));
        }
    }
    match value {
        Value::Object(fields) => of_object(root, schema, fields),
        Value::Array(items) => {
            let limit = |word: &str| schema.get(word).and_then(Value::as_u64);
            let count = items.len() as u64;
            if limit("minItems").is_some_and(|least| count < least)
                || limit("maxItems").is_some_and(|most| count > most)
            {
                return Some(format!("{count} items are too few or too many"));
            }
            let of_item = schema.get("items")?;
            items.iter().find_map(|item| problem(root, of_item, item))
        }
        Value::Number(number) => {
            let minimum = schema.get("minimum")?.as_i64()?;
            number
                .as_i64()
                .filter(|number| *number < minimum)
                .map(|number| format!("{number} is too low"))
        }
        _ => None,
    }
}

fn of_object(
    root: &Value,
    schema: &Map<String, Value>,
    fields: &Map<String, Value>,
) -> Option<String> {
    let required = schema.get("required").and_then(Value::as_array);
    for name in required.into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            return Some(format!("{name} is missing"));
        }
    }
    fields.iter().find_map(|(name, field)| {
        match schema.get("properties").and_then(|known| known.get(name)) {
            Some(known) => problem(root, known, field),
            None => match schema.get("additionalProperties") {
                Some(Value::Bool(false)) => Some(format!("{name} is not known")),
                Some(others) => problem(root, others, field),
                None => None,
            },
        }
    })
}
