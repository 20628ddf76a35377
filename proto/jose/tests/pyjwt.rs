//! PyJWT, an implementation of these formats by others, reads our documents and tokens, and we its.

use std::{fs, path::Path, process::Command};

use jose::{
    Algorithm,
    jwk::KeyUse,
    sign::Es256Key,
    spiffe_bundle::Bundle,
    svid::{SvidClaims, SvidRules, mint, validate},
};
use serde_json::{Value, json};

const NOW: i64 = 1_790_000_000;
const AUDIENCE: &str = "https://sink.example.org";

#[test]
fn pyjwt_reads_what_is_written_here_and_writes_what_is_read_here() {
    let Some(python) = independent::python("import jwt, cryptography; jwt.PyJWKSet") else {
        return;
    };
    let key = Es256Key::generate().expect("a key");
    let bundle = Bundle::new(Vec::new(), vec![key.jwk(KeyUse::JwtSvid).expect("a JWK")]);
    let claims = SvidClaims {
        subject: "spiffe://builds.example.org/node/w1".parse().expect("an ID"),
        audiences: vec![AUDIENCE.to_owned()],
        issued_unix_s: NOW,
        expires_unix_s: NOW + 300,
        token_id: "1".to_owned(),
    };
    let token = mint(&key, &claims).expect("a token");
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        fs::write(&path, content).expect("a file is written");
        path
    };
    let bundle = bundle.and_then(|bundle| bundle.to_json()).expect("JSON");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pyjwt.py");
    let run = |token: &str| {
        Command::new(&python)
            .arg(&script)
            .arg(AUDIENCE)
            .args([file("bundle.json", &bundle), file("token", token)])
            .output()
            .expect("python runs")
    };
    let output = run(&token);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        said["claims"],
        json!({
            "aud": [AUDIENCE], "exp": NOW + 300, "iat": NOW, "jti": "1",
            "sub": "spiffe://builds.example.org/node/w1",
        })
    );
    let stranger = Es256Key::generate().and_then(|other| other.with_id(key_id(&key)));
    let forged = mint(&stranger.expect("a key"), &claims).expect("a token");
    let output = run(&forged);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("InvalidSignatureError"), "{error}");

    let made = &said["made"];
    let bundle = Bundle::parse(json!({ "keys": made["keys"] }).to_string().as_bytes());
    let bundle = bundle.expect("a bundle");
    assert_eq!((bundle.jwt_authorities().keys().len(), bundle.skipped()), (6, 0));
    let domain = "builds.example.org".parse().expect("a trust domain");
    let rules = SvidRules { trust_domain: &domain, audience: AUDIENCE, leeway_s: 30 };
    for algorithm in Algorithm::ALL {
        let token = made["tokens"][algorithm.as_str()].as_str().expect("a token");
        let svid = validate(token, &bundle, &rules, NOW).expect("accepted");
        assert_eq!(svid.id().to_string(), "spiffe://builds.example.org/python");
        assert_eq!(svid.expires_unix_s(), NOW + 60);
    }
}

fn key_id(key: &Es256Key) -> &str {
    jose::sign::Sign::key_id(key)
}
