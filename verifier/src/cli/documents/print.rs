//! Printing documents: one, its history, a row of the list, what a step did.

use std::collections::BTreeMap;

use proto::pb;
use serde_json::{Value, json};

use super::Reference;
use crate::{
    cli::{
        Done,
        client::ReferenceClient,
        output::{Output, printable, time},
    },
    init::RING_NAME,
    signatures::KeyRing,
    store::DocumentKind,
};

/// A document, or what is signed of it, or its signatures.
pub(super) fn show(
    output: Output,
    detail: pb::DocumentDetail,
    envelope: bool,
    payload: bool,
) -> Done {
    let as_text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if envelope {
        return output.line(as_text(detail.envelope).trim_end());
    }
    if payload {
        return output.text(&as_text(detail.payload));
    }
    if output.is_json() {
        let mut value = document_json(&detail.document.unwrap_or_default());
        if let Some(object) = value.as_object_mut() {
            object.insert("toml".to_owned(), detail.toml.into());
        }
        return output.json(&value);
    }
    output.text(&detail.toml)
}

/// Names of the keys of the ring in force, by identifier; none where the ring cannot be had.
pub(super) async fn key_names(client: &mut ReferenceClient) -> BTreeMap<String, String> {
    let ring = Reference { name: RING_NAME.to_owned(), version: 0 };
    let shown = client.show(ring.message(DocumentKind::Keys)).await;
    let ring = shown.ok().and_then(|shown| KeyRing::parse(&shown.into_inner().toml).ok());
    ring.iter()
        .flat_map(KeyRing::keys)
        .map(|key| (key.id().to_string(), key.name().to_string()))
        .collect()
}

/// What was done to a document.
pub(super) fn history(
    output: Output,
    detail: pb::DocumentDetail,
    names: &BTreeMap<String, String>,
) -> Done {
    if output.is_json() {
        let steps: Vec<Value> = detail
            .steps
            .iter()
            .map(|step| {
                let what: Value = serde_json::from_str(&step.what).unwrap_or_default();
                json!({ "at_unix_s": step.at_unix_s, "by": step.by, "what": what })
            })
            .collect();
        return output.json(&steps);
    }
    let rows: Vec<_> = detail
        .steps
        .into_iter()
        .map(|step| vec![time(step.at_unix_s), step.by, in_words(&step.what, names)])
        .collect();
    output.table(&["AT", "BY", "WHAT"], &rows, "Nothing was done to it yet.")
}

/// A step's JSON in words.
fn in_words(what: &str, names: &BTreeMap<String, String>) -> String {
    let value: Value = serde_json::from_str(what).unwrap_or_default();
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let yes = |key: &str| value.get(key).and_then(Value::as_bool).unwrap_or(false);
    match text("change").as_str() {
        "sign" => {
            let enough = if yes("approved") { ", approved by that" } else { "" };
            let key = text("key");
            // A key that left the ring has only its identifier.
            format!("signed by {}{enough}", names.get(&key).unwrap_or(&key))
        }
        "activate" if yes("alongside") => "put in force, beside what was".to_owned(),
        "activate" => "put in force".to_owned(),
        "stage" => "staged".to_owned(),
        "retire" => format!("retired: {}", text("reason")),
        "adopt" => format!("adopted: {}", text("origin")),
        other => format!("{other}: {}", text("origin")),
    }
}

/// What is missing until a document is approved.
pub(super) fn missing(document: &pb::Document) -> String {
    if document.threshold == 0 {
        return "there is no ring of security keys".to_owned();
    }
    format!("{} of {} signatures", document.signed_by.len(), document.threshold)
}

/// What a step did, and how many signatures there are.
pub(super) fn said(output: Output, verb: &str, document: &pb::Document) -> Done {
    // The verb alone where it tells the state: "staged: …, staged" would not say more.
    let state =
        if verb == document.state { String::new() } else { format!(", {}", document.state) };
    let mut signed = missing(document);
    if !document.signed_by.is_empty() {
        signed.push_str(&format!(" ({})", document.signed_by.join(", ")));
    }
    if document.kind == DocumentKind::Keys.as_str() && document.state == "proposed" {
        signed.push_str(" of the ring in force; enough of its own keys must sign too");
    }
    output.either(
        &document_json(document),
        printable(&format!(
            "{verb}: {} {}@{}{state}, {signed}",
            document.kind, document.name, document.version
        )),
    )
}

/// A row of the list.
pub(super) fn row(document: pb::Document) -> Vec<String> {
    let signed = format!(
        "{}/{} {}",
        document.signed_by.len(),
        document.threshold,
        document.signed_by.join(",")
    );
    vec![
        document.name,
        document.version.to_string(),
        if document.pool.is_empty() { "-".to_owned() } else { document.pool },
        document.state,
        signed.trim_end().to_owned(),
        time(document.proposed_unix_s),
        printable(&document.proposed_by),
        document.sha256,
    ]
}

/// A document, for programs.
pub(super) fn document_json(document: &pb::Document) -> Value {
    json!({
        "kind": document.kind, "name": document.name, "version": document.version,
        "pool": document.pool, "state": document.state, "sha256": document.sha256,
        "origin": document.origin, "proposed_unix_s": document.proposed_unix_s,
        "proposed_by": document.proposed_by, "signed_by": document.signed_by,
        "threshold": document.threshold,
    })
}
