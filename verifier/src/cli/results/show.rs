//! `verifier results show`: what a bundle claims, believed by nobody.

use std::path::Path;

use results::{
    bundle::{Bundle, Content},
    signer::key_id,
    statement::Statement,
};
use serde_json::{Value, json};

use super::{
    read_bundle, refusal_json, refused,
    verify::{facts, kind},
};
use crate::cli::{
    Done,
    output::{Output, printable},
};

/// Above and below everything, so that no screenful goes without.
const UNVERIFIED: &str = "UNVERIFIED: this is what the file claims, and anybody can write such a file. See `verifier results \
                          verify`.";

pub(super) fn run(output: Output, path: &Path) -> Done {
    let bundle = read_bundle(path)?.map_err(|refusal| refused(&refusal))?;
    let certificate = bundle.untrusted_certificate();
    let signer = certificate.spiffe_id();
    let signer =
        signer.map_or_else(|why| format!("not exactly one SPIFFE ID: {why}"), |id| id.to_string());
    if output.is_json() {
        return output.json(&json!({
            "verified": false,
            "warning": UNVERIFIED,
            "certificate": {
                "claims_to_be": signer, "key": key_id(certificate.spki_der()),
                "not_before": certificate.not_before(), "not_after": certificate.not_after(),
            },
            "content": content_json(&bundle),
        }));
    }
    let mut lines = vec![
        UNVERIFIED.to_owned(),
        String::new(),
        format!("certificate says  {}", printable(&signer)),
        format!("valid             {} to {}", certificate.not_before(), certificate.not_after()),
        format!("key               {}", key_id(certificate.spki_der())),
    ];
    match bundle.content() {
        Content::Artifact(message) => {
            lines.push("signs             an artifact".to_owned());
            lines.push(format!("digest            sha256:{}", message.untrusted_digest));
        }
        Content::Statement(envelope) => match Statement::parse(envelope.untrusted_payload()) {
            Ok(statement) => {
                lines.push(format!("signs             a statement: {}", kind(&statement)));
                for (name, value) in facts(&statement) {
                    lines.push(format!("{name:<17} {}", printable(&value)));
                }
            }
            Err(refusal) => {
                let why = printable(&refusal.to_string());
                lines.push(format!("signs             a statement that cannot be used: {why}"));
            }
        },
    }
    lines.extend([String::new(), UNVERIFIED.to_owned()]);
    output.line(lines.join("\n"))
}

fn content_json(bundle: &Bundle) -> Value {
    match bundle.content() {
        Content::Artifact(message) => {
            json!({ "kind": "artifact", "claimed_sha256": message.untrusted_digest })
        }
        Content::Statement(envelope) => {
            let payload = envelope.untrusted_payload();
            let problem = Statement::parse(payload).err().map(|refusal| refusal_json(&refusal));
            let claimed: Value = serde_json::from_slice(payload).unwrap_or(Value::Null);
            json!({ "kind": "statement", "claimed_statement": claimed, "problem": problem })
        }
    }
}
