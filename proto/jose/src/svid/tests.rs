use serde_json::json;

use super::*;
use crate::{
    jwk::Jwk,
    sign::Es256Key,
    testing::{NOW, Signer},
};

const AUDIENCE: &str = "spiffe://builds.example.org/service/sink";

fn domain() -> TrustDomain {
    "builds.example.org".parse().expect("a trust domain")
}

fn claims() -> SvidClaims {
    SvidClaims {
        subject: "spiffe://builds.example.org/node/w1".parse().expect("an ID"),
        audiences: vec![AUDIENCE.to_owned(), "other".to_owned()],
        issued_unix_s: NOW,
        expires_unix_s: NOW + 300,
        token_id: "0f1e".to_owned(),
    }
}

fn bundle(keys: Vec<Jwk>) -> Bundle {
    Bundle::new(Vec::new(), keys).expect("a bundle")
}

fn judged(token: &str, bundle: &Bundle) -> Result<JwtSvid, SvidError> {
    let rules = SvidRules { trust_domain: &domain(), audience: AUDIENCE, leeway_s: 10 };
    validate(token, bundle, &rules, NOW)
}

fn code(token: &str, bundle: &Bundle) -> &'static str {
    judged(token, bundle).map_or_else(|error| error.code(), |_| "accepted")
}

#[test]
fn what_is_minted_is_accepted_and_says_the_same() {
    let key = Es256Key::generate().expect("a key");
    let bundle = bundle(vec![key.jwk(KeyUse::JwtSvid).expect("a JWK")]);
    let token = mint(&key, &claims()).expect("a token");
    let svid = judged(&token, &bundle).expect("accepted");
    assert_eq!(*svid.id(), claims().subject);
    assert_eq!(svid.audiences(), claims().audiences);
    assert_eq!(svid.issued_unix_s(), Some(NOW));
    assert_eq!(svid.expires_unix_s(), NOW + 300);
    assert_eq!(svid.token_id(), Some("0f1e"));
    assert_eq!(svid.key_id(), key.key_id());
    let header = token.split('.').next().and_then(crate::base64url::decode).expect("a header");
    let expected = format!(r#"{{"alg":"ES256","kid":"{}","typ":"JWT"}}"#, key.key_id());
    assert_eq!(String::from_utf8(header), Ok(expected));
    // Whoever has the bundle as a document gets the same.
    let read = Bundle::parse(bundle.to_json().expect("JSON").as_bytes()).expect("a bundle");
    assert_eq!(code(&token, &read), "accepted");
    assert_eq!(code(&token, &Bundle::default()), "JWS_KEY_UNKNOWN");
}

#[test]
fn a_key_read_again_signs_under_the_same_name() {
    let key = Es256Key::generate().expect("a key").with_id("2026-11").expect("an ID");
    let der = key.to_pkcs8_der().expect("DER");
    let again = Es256Key::from_pkcs8_der(&der).expect("the key");
    assert_eq!(again.public(), key.public());
    assert_eq!(again.key_id(), key.public().thumbprint());
    let again = again.with_id("2026-11").expect("an ID");
    let bundle = bundle(vec![key.jwk(KeyUse::JwtSvid).expect("a JWK")]);
    assert_eq!(code(&mint(&again, &claims()).expect("a token"), &bundle), "accepted");
    let error = Es256Key::from_pkcs8_der(&der[1..]).expect_err("cut");
    assert_eq!(error.code(), "JWS_SIGNING_KEY_INVALID");
    let error = again.with_id("").expect_err("no name");
    assert_eq!(error.code(), "JWS_SIGNING_KEY_INVALID");
}

#[test]
fn nothing_is_minted_that_would_be_refused() {
    let key = Es256Key::generate().expect("a key");
    let code = |change: &dyn Fn(&mut SvidClaims)| {
        let mut claims = claims();
        change(&mut claims);
        mint(&key, &claims).map_or_else(|error| error.code(), |_| "minted")
    };
    assert_eq!(code(&|_| {}), "minted");
    assert_eq!(code(&|c| c.expires_unix_s = NOW + 3600), "minted");
    let root = "spiffe://builds.example.org";
    assert_eq!(code(&|c| c.subject = root.parse().expect("an ID")), "SVID_PATH_EMPTY");
    let invalid: [&dyn Fn(&mut SvidClaims); 10] = [
        &|c| c.expires_unix_s = NOW,
        &|c| c.expires_unix_s = NOW + 3601,
        &|c| c.issued_unix_s = -1,
        &|c| c.audiences.clear(),
        &|c| c.audiences = vec!["a".into(), "a".into()],
        &|c| c.audiences = (0..17).map(|n: u8| n.to_string()).collect(),
        &|c| c.audiences.push(String::new()),
        &|c| c.audiences.push("a\nb".into()),
        &|c| c.token_id.clear(),
        &|c| c.token_id = "t".repeat(2049),
    ];
    for (at, change) in invalid.into_iter().enumerate() {
        assert_eq!(code(change), "SVID_CLAIM_INVALID", "change {at}");
    }
    let many = |c: &mut SvidClaims| {
        c.audiences = (10..26).map(|n: u8| n.to_string().repeat(1000)).collect();
    };
    assert_eq!(code(&many), "JWS_TOO_LARGE");
}

#[test]
fn accepts_the_algorithms_of_other_issuers() {
    for (algorithm, signer) in [
        (Algorithm::Es256, Signer::p256()),
        (Algorithm::Es384, Signer::p384()),
        (Algorithm::Rs256, Signer::rsa()),
        (Algorithm::Ps256, Signer::rsa()),
    ] {
        let bundle = bundle(vec![signer.jwk("k")]);
        let payload = json!({
            "sub": "spiffe://builds.example.org/a/b", "aud": AUDIENCE, "exp": NOW + 60,
        });
        let token = signer.token(algorithm, "k", &payload);
        let svid = judged(&token, &bundle).expect("accepted");
        assert_eq!((svid.issued_unix_s(), svid.token_id()), (None, None));
    }
}

#[test]
fn the_header_has_nothing_else() {
    let signer = Signer::p256();
    let bundle = bundle(vec![signer.jwk("k")]);
    let payload = json!({
        "sub": "spiffe://builds.example.org/a", "aud": [AUDIENCE], "exp": NOW + 60,
    })
    .to_string();
    for (header, expected) in [
        (r#"{"alg":"ES256","kid":"k","typ":"JWT"}"#, "accepted"),
        (r#"{"alg":"ES256","kid":"k","typ":"JOSE"}"#, "accepted"),
        (r#"{"alg":"ES256","kid":"k"}"#, "accepted"),
        (r#"{"alg":"ES256","kid":"k","typ":"SVID"}"#, "JWS_HEADER_INVALID"),
        (r#"{"alg":"ES256","kid":"k","x5t":"AA"}"#, "JWS_HEADER_MEMBER_REFUSED"),
        (r#"{"alg":"ES256","kid":"k","own":1}"#, "JWS_HEADER_MEMBER_REFUSED"),
        (r#"{"alg":"ES256","kid":"k","jku":"https://x.example"}"#, "JWS_HEADER_MEMBER_REFUSED"),
        (r#"{"alg":"HS256","kid":"k"}"#, "JWS_ALGORITHM_NOT_ALLOWED"),
        (r#"{"alg":"ES256"}"#, "JWS_HEADER_INVALID"),
    ] {
        let token = signer.token_of(Algorithm::Es256, header, payload.as_bytes());
        assert_eq!(code(&token, &bundle), expected, "{header}");
    }
}

#[test]
fn claims_are_required_and_exact() {
    let signer = Signer::p256();
    let bundle = bundle(vec![signer.jwk("k")]);
    let good = json!({
        "sub": "spiffe://builds.example.org/a", "aud": [AUDIENCE], "exp": NOW + 60, "iat": NOW,
        "jti": "1", "own": {"is": "ignored"},
    });
    assert_eq!(code(&signer.token(Algorithm::Es256, "k", &good), &bundle), "accepted");
    for (name, value, expected) in [
        ("sub", json!(null), "JWT_CLAIM_MALFORMED"),
        ("sub", json!(""), "JWT_CLAIM_MISSING"),
        ("sub", json!("w1"), "SVID_SUBJECT_INVALID"),
        ("sub", json!("spiffe://Builds.example.org/a"), "SVID_SUBJECT_INVALID"),
        ("sub", json!("spiffe://builds.example.org/a/"), "SVID_SUBJECT_INVALID"),
        ("sub", json!("spiffe://builds.example.org/a?b"), "SVID_SUBJECT_INVALID"),
        ("sub", json!("spiffe://builds.example.org"), "SVID_PATH_EMPTY"),
        ("sub", json!("spiffe://other.example.org/a"), "SVID_TRUST_DOMAIN_MISMATCH"),
        ("aud", json!("other"), "JWT_AUDIENCE_MISMATCH"),
        ("exp", json!(NOW - 10), "JWT_EXPIRED"),
        ("exp", json!(NOW + 3601), "JWT_LIFETIME_TOO_LONG"),
        ("iat", json!(NOW + 11), "JWT_NOT_YET_VALID"),
        ("nbf", json!(NOW + 11), "JWT_NOT_YET_VALID"),
        ("jti", json!(1), "JWT_CLAIM_MALFORMED"),
    ] {
        let mut claims = good.clone();
        claims[name] = value.clone();
        let token = signer.token(Algorithm::Es256, "k", &claims);
        assert_eq!(code(&token, &bundle), expected, "{name}: {value}");
    }
    for name in ["sub", "aud", "exp"] {
        let mut claims = good.clone();
        claims.as_object_mut().expect("an object").remove(name);
        let token = signer.token(Algorithm::Es256, "k", &claims);
        assert_eq!(code(&token, &bundle), "JWT_CLAIM_MISSING", "{name}");
    }
}

#[test]
fn only_jwt_svid_keys_of_the_bundle_count() {
    let key = Es256Key::generate().expect("a key");
    let token = mint(&key, &claims()).expect("a token");
    let other = |key_use: KeyUse| {
        let set = crate::jwk::JwkSet::new(vec![key.jwk(key_use).expect("a JWK")]).expect("a set");
        Bundle::parse(set.to_json().as_bytes()).expect("a bundle")
    };
    assert_eq!(code(&token, &other(KeyUse::JwtSvid)), "accepted");
    assert_eq!(code(&token, &other(KeyUse::Signature)), "JWS_KEY_UNKNOWN");
    let stranger = Es256Key::generate().expect("a key").with_id(key.key_id()).expect("an ID");
    let forged = mint(&stranger, &claims()).expect("a token");
    assert_eq!(code(&forged, &other(KeyUse::JwtSvid)), "JWS_SIGNATURE_INVALID");
}
