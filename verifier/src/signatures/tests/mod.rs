//! Tests of signatures: approvals here, keys, rings and other programs beside.

mod approvals;
mod documented;
mod keys;
mod openssl;
mod rings;
mod securesystemslib;

use super::{
    Algorithm, Envelope, KeyRing, PayloadType, SecurityPrivateKey, Signature, to_canonical_json,
};

/// A holder of a private key.
struct Holder {
    name: &'static str,
    key: SecurityPrivateKey,
}

fn holder(name: &'static str, algorithm: Algorithm) -> Holder {
    let pem = SecurityPrivateKey::generate(algorithm).expect("a key");
    Holder { name, key: SecurityPrivateKey::from_pem(&pem).expect("it loads") }
}

/// Alice and Bob with Ed25519, Carol with P-256.
fn holders() -> [Holder; 3] {
    [
        holder("alice", Algorithm::Ed25519),
        holder("bob", Algorithm::Ed25519),
        holder("carol", Algorithm::P256),
    ]
}

/// TOML of a ring of these keys.
fn ring_text<'a>(
    version: u64,
    threshold: usize,
    keys: impl IntoIterator<Item = &'a Holder>,
) -> String {
    let keys: String = keys
        .into_iter()
        .map(|holder| {
            let pem = holder.key.public().to_pem();
            format!("[[key]]\nname = {:?}\npem = \"\"\"\n{pem}\"\"\"\n", holder.name)
        })
        .collect();
    format!(
        "schema = \"assay.keys/v1\"\nname = \"security\"\nversion = {version}\n\
         threshold = {threshold}\n{keys}"
    )
}

fn ring<'a>(version: u64, threshold: usize, keys: impl IntoIterator<Item = &'a Holder>) -> KeyRing {
    KeyRing::parse(&ring_text(version, threshold, keys)).expect("a ring")
}

/// The canonical form of a small golden set.
fn golden() -> Vec<u8> {
    let document = serde_json::json!({"schema": "assay.golden/v0", "version": 3, "pool": "linux"});
    to_canonical_json(&document).expect("a canonical form")
}

fn signed<'a>(
    payload_type: PayloadType,
    payload: &[u8],
    by: impl IntoIterator<Item = &'a Holder>,
) -> Envelope {
    let mut envelope = Envelope::new(payload_type, payload).expect("an envelope");
    for holder in by {
        let signature = holder.key.sign(&envelope.pae()).expect("a signature");
        envelope.add(signature).expect("there is room");
    }
    envelope
}

/// The same envelope with other signatures.
fn with_signatures(
    envelope: &Envelope,
    signatures: impl IntoIterator<Item = Signature>,
) -> Envelope {
    let mut json: serde_json::Value = serde_json::from_str(&envelope.to_json()).expect("JSON");
    json["signatures"] = serde_json::json!([]);
    let mut out = Envelope::parse(json.to_string().as_bytes()).expect("an envelope");
    for signature in signatures {
        out.add(signature).expect("there is room");
    }
    out
}
