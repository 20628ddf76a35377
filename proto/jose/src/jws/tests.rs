use serde_json::json;

use super::*;
use crate::{
    jwk::Jwk,
    testing::{NOW, Signer},
};

const ALL: KeyRules<'_> = KeyRules { algorithms: &Algorithm::ALL, key_use: KeyUse::Signature };

fn set(keys: Vec<Jwk>) -> JwkSet {
    JwkSet::new(keys).expect("a set")
}

fn code(token: &str, keys: &JwkSet, rules: &KeyRules<'_>) -> &'static str {
    match UnverifiedToken::parse(token).and_then(|token| token.verify(keys, rules)) {
        Ok(_) => "accepted",
        Err(error) => error.code(),
    }
}

#[test]
fn verifies_every_algorithm_with_its_key_and_no_other() {
    let signers = [("p256", Signer::p256()), ("p384", Signer::p384()), ("rsa", Signer::rsa())];
    let keys = set(signers.iter().map(|(name, signer)| signer.jwk(name)).collect());
    let claims = json!({"sub": "x", "exp": NOW});
    for algorithm in Algorithm::ALL {
        for (name, signer) in &signers {
            let token = signer.token(algorithm, name, &claims);
            let fits = algorithm.fits(&signer.public());
            let expected = if fits { "accepted" } else { "JWS_KEY_UNFIT" };
            assert_eq!(code(&token, &keys, &ALL), expected, "{algorithm} {name}");
            let none = KeyRules { algorithms: &[], ..ALL };
            assert_eq!(code(&token, &keys, &none), "JWS_ALGORITHM_NOT_ALLOWED");
            let others: Vec<_> =
                Algorithm::ALL.into_iter().filter(|other| *other != algorithm).collect();
            let others = KeyRules { algorithms: &others, ..ALL };
            assert_eq!(code(&token, &keys, &others), "JWS_ALGORITHM_NOT_ALLOWED");
            if fits {
                let token = UnverifiedToken::parse(&token).expect("a token");
                assert_eq!(token.untrusted_algorithm(), algorithm);
                assert_eq!(token.untrusted_key_id(), *name);
                let token = token.verify(&keys, &ALL).expect("verified");
                assert_eq!(token.algorithm(), algorithm);
                assert_eq!(token.key_id(), *name);
                assert_eq!(token.claims().text("sub"), Ok(Some("x")));
            }
        }
    }
}

#[test]
fn an_rsa_signature_is_good_for_its_own_algorithm_only() {
    let signer = Signer::rsa();
    let keys = set(vec![signer.jwk("k")]);
    let rsa = [Algorithm::Rs256, Algorithm::Rs384, Algorithm::Rs512, Algorithm::Ps256];
    for said in rsa {
        for done in rsa {
            let header = json!({"alg": said.as_str(), "kid": "k"}).to_string();
            let token = signer.token_of(done, &header, b"{}");
            let expected = if said == done { "accepted" } else { "JWS_SIGNATURE_INVALID" };
            assert_eq!(code(&token, &keys, &ALL), expected, "{said} {done}");
        }
    }
}

#[test]
fn refuses_headers_that_are_not_plain() {
    let signer = Signer::p256();
    let keys = set(vec![signer.jwk("k")]);
    let judged =
        |header: &str| code(&signer.token_of(Algorithm::Es256, header, b"{}"), &keys, &ALL);
    let jwk = signer.jwk("k");
    let jwk =
        serde_json::from_str::<Value>(&set(vec![jwk]).to_json()).expect("JSON")["keys"][0].clone();
    for (header, expected) in [
        (r#"{"alg":"ES256","kid":"k"}"#, "accepted"),
        (r#"{"alg":"ES256","kid":"k","typ":"JWT","x5t":"AA","own":[1]}"#, "accepted"),
        (r#"{"alg":"ES256","kid":"k","typ":"JOSE"}"#, "accepted"),
        (r#"{"alg":"ES256","kid":"k","typ":"jwt"}"#, "JWS_HEADER_INVALID"),
        (r#"{"alg":"ES256","kid":"k","typ":"at+jwt"}"#, "JWS_HEADER_INVALID"),
        (r#"{"alg":"ES256","kid":"k","typ":null}"#, "JWS_HEADER_INVALID"),
        (r#"{"alg":"ES256"}"#, "JWS_HEADER_INVALID"),
        (r#"{"alg":"ES256","kid":""}"#, "JWS_HEADER_INVALID"),
        (r#"{"alg":"ES256","kid":1}"#, "JWS_HEADER_INVALID"),
        (&format!(r#"{{"alg":"ES256","kid":"{}"}}"#, "k".repeat(257)), "JWS_HEADER_INVALID"),
        (r#"{"kid":"k"}"#, "JWS_HEADER_INVALID"),
        (r#"{"alg":["ES256"],"kid":"k"}"#, "JWS_HEADER_INVALID"),
        (r#"{"alg":"ES256","kid":"k","kid":"k"}"#, "JWS_HEADER_INVALID"),
        (r#"{"alg":"none","alg":"ES256","kid":"k"}"#, "JWS_HEADER_INVALID"),
        (r#"{"alg":"ES256","kid":"k"}x"#, "JWS_HEADER_INVALID"),
        (r#"["ES256"]"#, "JWS_HEADER_INVALID"),
        (r#"{"alg":"none","kid":"k"}"#, "JWS_ALGORITHM_NOT_ALLOWED"),
        (r#"{"alg":"None","kid":"k"}"#, "JWS_ALGORITHM_NOT_ALLOWED"),
        (r#"{"alg":"","kid":"k"}"#, "JWS_ALGORITHM_NOT_ALLOWED"),
        (r#"{"alg":"HS256","kid":"k"}"#, "JWS_ALGORITHM_NOT_ALLOWED"),
        (r#"{"alg":"es256","kid":"k"}"#, "JWS_ALGORITHM_NOT_ALLOWED"),
        (r#"{"alg":"ES512","kid":"k"}"#, "JWS_ALGORITHM_NOT_ALLOWED"),
        (r#"{"alg":"RS256","kid":"k"}"#, "JWS_KEY_UNFIT"),
        (r#"{"alg":"ES384","kid":"k"}"#, "JWS_KEY_UNFIT"),
        (r#"{"alg":"ES256","kid":"K"}"#, "JWS_KEY_UNKNOWN"),
        (r#"{"alg":"ES256","kid":"k "}"#, "JWS_KEY_UNKNOWN"),
        (r#"{"alg":"ES256","kid":"k","crit":[]}"#, "JWS_HEADER_MEMBER_REFUSED"),
        (r#"{"alg":"ES256","kid":"k","crit":["exp"]}"#, "JWS_HEADER_MEMBER_REFUSED"),
        (r#"{"alg":"ES256","kid":"k","b64":true}"#, "JWS_HEADER_MEMBER_REFUSED"),
        (r#"{"alg":"ES256","kid":"k","jku":"https://x.example"}"#, "JWS_HEADER_MEMBER_REFUSED"),
        (r#"{"alg":"ES256","kid":"k","x5u":"https://x.example"}"#, "JWS_HEADER_MEMBER_REFUSED"),
        (&json!({"alg": "ES256", "kid": "k", "jwk": jwk}).to_string(), "JWS_HEADER_MEMBER_REFUSED"),
        (r#"{"alg":"ES256","kid":"k","x5c":[]}"#, "JWS_HEADER_MEMBER_REFUSED"),
        (r#"{"alg":"ES256","kid":"k","cty":"JWT"}"#, "JWS_HEADER_MEMBER_REFUSED"),
        (r#"{"alg":"ES256","kid":"k","enc":"A128GCM"}"#, "JWS_HEADER_MEMBER_REFUSED"),
        (r#"{"alg":"ES256","kid":"k","zip":"DEF"}"#, "JWS_HEADER_MEMBER_REFUSED"),
        (&format!(r#"{{"alg":"ES256","kid":"k","p":"{}"}}"#, "p".repeat(2048)), "JWS_TOO_LARGE"),
    ] {
        assert_eq!(judged(header), expected, "{header}");
    }
}

#[test]
fn has_exactly_three_parts_in_one_spelling() {
    let signer = Signer::p256();
    let keys = set(vec![signer.jwk("k")]);
    let token = signer.token(Algorithm::Es256, "k", &json!({"a": 1}));
    assert_eq!(code(&token, &keys, &ALL), "accepted");
    let parts: Vec<_> = token.split('.').collect();
    let [header, payload, signature] = parts[..] else { unreachable!("three parts") };
    for (bad, what) in [
        (String::new(), "nothing"),
        (format!("{header}.{payload}"), "two parts"),
        (format!("{token}."), "four parts"),
        (format!("{token}.{signature}"), "four parts"),
        (format!("{header}.{payload}."), "no signature"),
        (format!("{header}..{signature}"), "no payload"),
        (format!(".{payload}.{signature}"), "no header"),
        (format!("{header}.{payload}.{signature}="), "padding"),
        (format!("{header}.{payload}.{signature}\n"), "a line's end"),
        (format!(" {token}"), "a space"),
        (format!("{header}.{payload}.{}", signature.replace(['-', '_'], "+") + "+"), "alphabet"),
    ] {
        assert_eq!(code(&bad, &keys, &ALL), "JWS_MALFORMED", "{what}: {bad}");
    }
    // 64 bytes end in a character with four spare bits.
    let last = signature.chars().last().expect("a character");
    for spare in ('A'..='Z').filter(|spare| *spare != last) {
        let bad = format!("{}{spare}", &token[..token.len() - 1]);
        let found = code(&bad, &keys, &ALL);
        assert!(matches!(found, "JWS_MALFORMED" | "JWS_SIGNATURE_INVALID"), "{found}");
    }
    let long = "a".repeat(MAX_TOKEN_BYTES + 1);
    assert_eq!(code(&long, &keys, &ALL), "JWS_TOO_LARGE");
    assert_eq!(code(&long[1..], &keys, &ALL), "JWS_MALFORMED");
}

#[test]
fn a_signature_is_over_this_header_and_payload_by_this_key() {
    let (signer, other) = (Signer::p256(), Signer::p256());
    let keys = set(vec![signer.jwk("k"), other.jwk("o")]);
    let token = signer.token(Algorithm::Es256, "k", &json!({"a": 1}));
    let second = signer.token(Algorithm::Es256, "k", &json!({"a": 2}));
    assert_eq!(code(&second, &keys, &ALL), "accepted");
    let (_, signature) = second.rsplit_once('.').expect("a dot");
    let (signed, own) = token.rsplit_once('.').expect("a dot");
    let grafted = format!("{signed}.{signature}");
    assert_eq!(code(&grafted, &keys, &ALL), "JWS_SIGNATURE_INVALID");
    let foreign = other.token(Algorithm::Es256, "k", &json!({"a": 1}));
    assert_eq!(code(&foreign, &keys, &ALL), "JWS_SIGNATURE_INVALID");
    let renamed = signer.token(Algorithm::Es256, "o", &json!({"a": 1}));
    assert_eq!(code(&renamed, &keys, &ALL), "JWS_SIGNATURE_INVALID");
    let cut = base64url::decode(own).expect("base64url");
    for bytes in [&cut[..63], &[&cut[..], &[0]].concat(), &[0; 64], &[0; 1]] {
        let bad = format!("{signed}.{}", base64url::encode(bytes));
        assert_eq!(code(&bad, &keys, &ALL), "JWS_SIGNATURE_INVALID");
    }
    let der = match &signer {
        Signer::P256(key) => {
            use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
            let pkcs8 = key.to_pkcs8_der().expect("DER");
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8);
            let random = aws_lc_rs::rand::SystemRandom::new();
            pair.expect("a key").sign(&random, signed.as_bytes()).expect("a signature")
        }
        _ => unreachable!("a P-256 key"),
    };
    let bad = format!("{signed}.{}", base64url::encode(der.as_ref()));
    assert_eq!(code(&bad, &keys, &ALL), "JWS_SIGNATURE_INVALID", "DER is not JWA's form");
}

#[test]
fn the_key_must_be_for_it() {
    let signer = Signer::rsa();
    let token = signer.token(Algorithm::Rs256, "k", &json!({}));
    let judged = |key: Jwk, key_use| {
        let rules = KeyRules { key_use, ..ALL };
        code(&token, &set(vec![key]), &rules)
    };
    let key = || signer.jwk("k");
    assert_eq!(judged(key(), KeyUse::Signature), "accepted");
    assert_eq!(judged(key().with_use(KeyUse::Signature), KeyUse::Signature), "accepted");
    assert_eq!(judged(key().with_use(KeyUse::JwtSvid), KeyUse::JwtSvid), "accepted");
    for (has, wanted) in [
        (Some(KeyUse::Encryption), KeyUse::Signature),
        (Some(KeyUse::JwtSvid), KeyUse::Signature),
        (Some(KeyUse::X509Svid), KeyUse::JwtSvid),
        (Some(KeyUse::Signature), KeyUse::JwtSvid),
        (None, KeyUse::JwtSvid),
    ] {
        let key = has.map_or(key(), |key_use| key().with_use(key_use));
        assert_eq!(judged(key, wanted), "JWS_KEY_UNFIT", "{has:?} {wanted:?}");
    }
    let named = |algorithm| key().with_algorithm(algorithm).expect("it fits");
    assert_eq!(judged(named(Algorithm::Rs256), KeyUse::Signature), "accepted");
    assert_eq!(judged(named(Algorithm::Rs512), KeyUse::Signature), "JWS_KEY_UNFIT");
    assert_eq!(judged(named(Algorithm::Ps256), KeyUse::Signature), "JWS_KEY_UNFIT");
    let nameless = set(vec![Jwk::new(signer.public())]);
    assert_eq!(code(&token, &nameless, &ALL), "JWS_KEY_UNKNOWN");
    assert_eq!(code(&token, &JwkSet::default(), &ALL), "JWS_KEY_UNKNOWN");
}

#[test]
fn the_payload_is_an_object_without_a_second_reading() {
    let signer = Signer::p256();
    let keys = set(vec![signer.jwk("k")]);
    let header = r#"{"alg":"ES256","kid":"k"}"#;
    let judged = |payload: &str| {
        code(&signer.token_of(Algorithm::Es256, header, payload.as_bytes()), &keys, &ALL)
    };
    assert_eq!(judged(r#"{"sub":"a"}"#), "accepted");
    for payload in [
        r#"{"sub":"a","sub":"b"}"#,
        r#"{"sub":"a","\u0073ub":"b"}"#,
        r#"{"o":{"a":1,"a":1}}"#,
        r#"["sub"]"#,
        "null",
        "text",
        r#"{"sub":"a"} {}"#,
    ] {
        assert_eq!(judged(payload), "JWS_PAYLOAD_INVALID", "{payload}");
    }
    // Not signed: what the payload is does not show.
    let unsigned = Signer::p256().token_of(Algorithm::Es256, header, b"null");
    assert_eq!(code(&unsigned, &keys, &ALL), "JWS_SIGNATURE_INVALID");
}

#[test]
fn nothing_of_a_token_is_printed() {
    let signer = Signer::p256();
    let token = signer.token(Algorithm::Es256, "k", &json!({"sub": "someone"}));
    let parsed = UnverifiedToken::parse(&token).expect("a token");
    let shown = format!("{parsed:?}");
    assert_eq!(shown, "UnverifiedToken { algorithm: Es256, key_id: \"k\", .. }");
}

#[test]
fn the_issuer_is_read_to_find_its_keys() {
    let signer = Signer::p256();
    let issuer = |payload: &str| {
        let header = r#"{"alg":"ES256","kid":"k"}"#;
        let token = signer.token_of(Algorithm::Es256, header, payload.as_bytes());
        let token = UnverifiedToken::parse(&token).expect("a token");
        token.untrusted_issuer().map_err(|error| error.code())
    };
    assert_eq!(issuer(r#"{"iss":"https://x.example"}"#), Ok("https://x.example".to_owned()));
    for payload in ["{}", r#"{"iss":1}"#, r#"{"iss":"a","iss":"a"}"#, "[]"] {
        assert_eq!(issuer(payload), Err("JWS_PAYLOAD_INVALID"), "{payload}");
    }
}
