use std::{path::Path, process::Command};

use serde_json::json;

use super::*;
use crate::testing::Signer;

/// A self-signed certificate by OpenSSL, DER.
fn certificate(dir: &Path, key: &[&str]) -> Vec<u8> {
    let file = |name: &str| dir.join(name).display().to_string();
    let (private, der) = (file("key.pem"), file("ca.der"));
    let subject = "/CN=spiffe root";
    let tail = ["-nodes", "-keyout", &private, "-outform", "DER", "-out", &der, "-subj", subject];
    let output = Command::new("openssl")
        .args(["req", "-x509", "-days", "2"])
        .args(key)
        .args(tail)
        .output()
        .expect("openssl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(der).expect("a certificate")
}

const P256: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
const P384: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"];
const P521: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"];
const RSA: [&str; 2] = ["-newkey", "rsa:2048"];

#[test]
fn writes_and_reads_the_same_bundle() {
    let dir = tempfile::tempdir().expect("a directory");
    let x509: Vec<_> = [&P256[..], &P384, &RSA].map(|key| certificate(dir.path(), key)).into();
    let bundle = Bundle::new(x509.clone(), vec![Signer::p256().jwk("a"), Signer::rsa().jwk("b")])
        .expect("a bundle")
        .with_sequence(7)
        .with_refresh_hint_s(300)
        .expect("a hint");
    let text = bundle.to_json().expect("JSON");
    let read = Bundle::parse(text.as_bytes()).expect("what was written");
    assert_eq!(read, bundle);
    assert_eq!(read.x509_authorities(), x509);
    assert_eq!((read.sequence(), read.refresh_hint_s(), read.skipped()), (Some(7), Some(300), 0));
    assert_eq!(read.to_json().expect("JSON"), text, "one text for one bundle");
    let value: Value = serde_json::from_str(&text).expect("JSON");
    let keys = value["keys"].as_array().expect("an array");
    for (key, expected) in keys.iter().zip([
        vec!["crv", "kty", "use", "x", "x5c", "y"],
        vec!["crv", "kty", "use", "x", "x5c", "y"],
        vec!["e", "kty", "n", "use", "x5c"],
        vec!["crv", "kid", "kty", "use", "x", "y"],
        vec!["e", "kid", "kty", "n", "use"],
    ]) {
        let members: Vec<_> = key.as_object().expect("an object").keys().collect();
        assert_eq!(members, expected);
    }
    assert_eq!(keys[4]["use"], "jwt-svid");
    let empty = Bundle::default().to_json().expect("JSON");
    assert_eq!(empty, r#"{"keys":[]}"#);
    assert_eq!(Bundle::parse(empty.as_bytes()).expect("an empty bundle"), Bundle::default());
}

#[test]
fn each_authority_has_what_its_use_needs_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let der = certificate(dir.path(), &P256);
    let jwt = Signer::p256().jwk("a");
    let written = Bundle::new(vec![der], vec![jwt]).expect("a bundle").to_json().expect("JSON");
    let good: Value = serde_json::from_str(&written).expect("JSON");
    let other: Value = serde_json::from_str(
        &Bundle::new(vec![certificate(dir.path(), &P256)], Vec::new())
            .expect("a bundle")
            .to_json()
            .expect("JSON"),
    )
    .expect("JSON");
    let own = good["keys"][0]["x5c"][0].clone();
    let foreign = other["keys"][0]["x5c"][0].clone();
    let code = |change: &dyn Fn(&mut Value)| {
        let mut value = good.clone();
        change(&mut value);
        Bundle::parse(value.to_string().as_bytes())
            .map_or_else(|error| error.code(), |_| "accepted")
    };
    let drop = |value: &mut Value, index: usize, name: &str| {
        value["keys"][index].as_object_mut().expect("an object").remove(name);
    };
    assert_eq!(code(&|_| {}), "accepted");
    assert_eq!(code(&|v| v["keys"][0]["kid"] = "x".into()), "BUNDLE_KEY_INVALID");
    assert_eq!(code(&|v| v["keys"][0]["x5c"] = json!([own, own])), "BUNDLE_KEY_INVALID");
    assert_eq!(code(&|v| drop(v, 0, "x5c")), "BUNDLE_KEY_INVALID");
    assert_eq!(code(&|v| drop(v, 1, "kid")), "BUNDLE_KEY_INVALID");
    assert_eq!(
        code(&|v| v["keys"][0]["x5c"] = json!([foreign])),
        "BUNDLE_CERTIFICATE_KEY_MISMATCH"
    );
    assert_eq!(code(&|v| v["keys"][0]["x5c"] = json!(["MAA="])), "BUNDLE_CERTIFICATE_INVALID");
    for (name, value) in [
        ("spiffe_sequence", json!("7")),
        ("spiffe_sequence", json!(-1)),
        ("spiffe_sequence", json!(1.5)),
        ("spiffe_sequence", json!(null)),
        ("spiffe_refresh_hint", json!(0)),
        ("spiffe_refresh_hint", json!(86_401)),
    ] {
        assert_eq!(code(&|v| v[name] = value.clone()), "BUNDLE_NUMBER_INVALID", "{name} {value}");
    }
    assert_eq!(code(&|v| v["spiffe_refresh_hint"] = 86_400.into()), "accepted");
    assert_eq!(code(&|v| v["keys"][1]["d"] = "AA".into()), "JWK_PRIVATE_MEMBER");
    assert_eq!(code(&|v| v["keys"][1]["x"] = "AA".into()), "JWK_KEY_MALFORMED");
    assert_eq!(code(&|v| v["keys"] = Value::Null), "JWK_SET_MALFORMED");
}

#[test]
fn entries_of_another_use_or_none_are_skipped() {
    let mut keys = crate::jwk::JwkSet::new(vec![
        Signer::p256().jwk("a").with_use(KeyUse::Signature),
        Signer::p256().jwk("b"),
        Signer::p256().jwk("c").with_use(KeyUse::JwtSvid),
    ])
    .expect("a set")
    .values();
    keys.push(json!({"kty": "OKP", "use": "jwt-svid", "kid": "d"}));
    let bundle = Bundle::parse(json!({ "keys": keys }).to_string().as_bytes()).expect("a bundle");
    assert_eq!(bundle.skipped(), 3);
    assert_eq!(bundle.jwt_authorities().keys().len(), 1);
    assert!(bundle.jwt_authorities().find("c").is_some());
}

#[test]
fn nothing_is_made_that_would_be_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let code = |x509: Vec<Vec<u8>>, jwt: Vec<Jwk>| {
        Bundle::new(x509, jwt).map_or_else(|error| error.code(), |_| "made")
    };
    let der = certificate(dir.path(), &P256);
    let key = || Signer::p256().jwk("a");
    assert_eq!(code(vec![der.clone()], vec![key()]), "made");
    assert_eq!(code(vec![der[1..].to_vec()], vec![]), "BUNDLE_CERTIFICATE_INVALID");
    assert_eq!(code(vec![[&der[..], &[0]].concat()], vec![]), "BUNDLE_CERTIFICATE_INVALID");
    assert_eq!(code(vec![vec![0; 9000]], vec![]), "BUNDLE_CERTIFICATE_INVALID");
    let p521 = certificate(dir.path(), &P521);
    assert_eq!(code(vec![p521], vec![]), "BUNDLE_CERTIFICATE_INVALID");
    assert_eq!(code(vec![], vec![Jwk::new(Signer::p256().public())]), "BUNDLE_KEY_INVALID");
    assert_eq!(code(vec![], vec![key(), key()]), "JWK_KEY_ID_DUPLICATE");
    assert_eq!(code(vec![der; 64], vec![key()]), "JWK_SET_TOO_MANY_KEYS");
    let hint = |seconds| {
        let bundle = Bundle::default().with_refresh_hint_s(seconds);
        bundle.map_or_else(|error| error.code(), |_| "made")
    };
    assert_eq!((hint(1), hint(86_400)), ("made", "made"));
    assert_eq!((hint(0), hint(86_401)), ("BUNDLE_NUMBER_INVALID", "BUNDLE_NUMBER_INVALID"));
}
