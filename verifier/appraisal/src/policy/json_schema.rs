//! JSON Schemas of golden sets and policies, for editors and for programs that write them.
//!
//! What a schema accepts is well-formed. Whether a document can be used is checked after that, with words that a schema
//! does not have.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Map, Value};

use super::{document::GoldenDocument, site::SitePolicyDocument};

/// Schema of a golden set, or a part.
#[must_use]
pub fn golden_set() -> Value {
    of::<GoldenDocument>(super::document::SCHEMA)
}

/// Schema of a policy of the site.
#[must_use]
pub fn site_policy() -> Value {
    of::<SitePolicyDocument>(super::site::SCHEMA)
}

/// Schema of a document whose `schema` has this value.
#[must_use]
pub fn of<T: JsonSchema>(name: &str) -> Value {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    let mut schema = schema.to_value();
    schema["title"] = name.into();
    schema["properties"]["schema"]["const"] = name.into();
    for_each_object(&mut schema, &|object| {
        flow(object);
        without_null(object);
    });
    schema
}

fn for_each_object(value: &mut Value, change: &impl Fn(&mut Map<String, Value>)) {
    match value {
        Value::Object(fields) => {
            change(fields);
            fields.values_mut().for_each(|value| for_each_object(value, change));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| for_each_object(value, change)),
        _ => {}
    }
}

/// Lines of a comment end where a source file's lines end: a reader of the schema has other lines.
fn flow(object: &mut Map<String, Value>) {
    if let Some(Value::String(text)) = object.get_mut("description") {
        let paragraphs = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
        *text = paragraphs.collect::<Vec<_>>().join("\n\n");
    }
}

/// TOML has no null: what is not there is left out.
fn without_null(object: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(alternatives)) = object.get_mut("anyOf") {
        alternatives.retain(|schema| schema.get("type").is_none_or(|name| name != "null"));
        if let [Value::Object(only)] = alternatives.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            object.extend(only);
        }
    }
}

/// A digest as text.
#[derive(Debug)]
pub struct DigestText;

/// A digest of a firmware log as text.
#[derive(Debug)]
pub struct LogDigestText;

/// A PCR bank by its algorithm.
#[derive(Debug)]
pub struct Bank;

/// `sha256:` and 64 hexadecimal digits, and so on.
fn digests(algorithms: &[(&str, usize)]) -> String {
    let forms: Vec<String> =
        algorithms.iter().map(|(name, digits)| format!("{name}:[0-9A-Fa-f]{{{digits}}}")).collect();
    format!("^({})$", forms.join("|"))
}

impl JsonSchema for DigestText {
    fn schema_name() -> Cow<'static, str> {
        "Digest".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let algorithms = proto::digest::HashAlg::ALL.map(|alg| (alg.name(), alg.len_bytes() * 2));
        json_schema!({
            "description": "Algorithm and hexadecimal digits: `sha256:…`.",
            "type": "string",
            "pattern": digests(&algorithms),
        })
    }
}

impl JsonSchema for LogDigestText {
    fn schema_name() -> Cow<'static, str> {
        "LogDigest".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let algorithms = proto::eventlog::LogAlg::ALL.map(|alg| (alg.name(), alg.len_bytes() * 2));
        json_schema!({
            "description": "Algorithm of the firmware's log and hexadecimal digits: `sha256:…`.",
            "type": "string",
            "pattern": digests(&algorithms),
        })
    }
}

impl JsonSchema for Bank {
    fn schema_name() -> Cow<'static, str> {
        "Bank".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A PCR bank by its algorithm.",
            "enum": proto::digest::HashAlg::ALL.map(proto::digest::HashAlg::name),
        })
    }
}
