use std::error::Error as _;

use serde_json::{Value, json};

use super::*;
use crate::testing::Signer;

fn entry(key: &PublicKey) -> Value {
    Jwk::new(key.clone()).to_value()
}

fn parse(keys: Value) -> Result<JwkSet, JwkError> {
    JwkSet::parse(json!({ "keys": keys }).to_string().as_bytes())
}

#[test]
fn writes_and_reads_the_same_keys() {
    let keys = vec![
        Signer::p256()
            .jwk("a")
            .with_use(KeyUse::Signature)
            .with_algorithm(Algorithm::Es256)
            .expect("it fits"),
        Signer::p384().jwk("b").with_use(KeyUse::Encryption),
        Signer::rsa().jwk("c").with_algorithm(Algorithm::Ps256).expect("it fits"),
        Jwk::new(Signer::p256().public()).with_certificates(vec![vec![0x30, 0], vec![0x30, 1, 0]]),
    ];
    let set = JwkSet::new(keys.clone()).expect("a set");
    let read = JwkSet::parse(set.to_json().as_bytes()).expect("what was written");
    assert_eq!(read, set);
    assert_eq!(read.keys(), keys);
    assert_eq!(read.find("b"), Some(&keys[1]));
    assert_eq!(read.find(""), None);
}

/// The key and thumbprint of RFC 7638, "Example JWK Thumbprint Computation".
#[test]
fn the_thumbprint_is_that_of_the_specification() {
    let document = json!({"keys": [{
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB",
        "alg": "RS256",
        "kid": "2011-04-29"
    }]});
    let set = JwkSet::parse(document.to_string().as_bytes()).expect("the example");
    assert_eq!(set.keys()[0].key().thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
}

#[test]
fn skips_and_counts_what_has_no_meaning_here() {
    let key = Signer::p256();
    let mut good = entry(&key.public());
    good["kid"] = "good".into();
    good["x-own"] = json!({"is": "ignored"});
    let mut other_use = entry(&key.public());
    other_use["use"] = "tls".into();
    let set = parse(json!([
        {"kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": "o"},
        {"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"},
        {"kty": "AKP"},
        other_use,
        good,
    ]))
    .expect("a set");
    assert_eq!(set.skipped(), 4);
    assert_eq!(set.keys().len(), 1);
    assert_eq!(set.keys()[0].id(), Some("good"));
}

#[test]
fn refuses_a_malformed_key_of_a_known_type_with_its_index() {
    let ec = entry(&Signer::p256().public());
    let rsa = entry(&Signer::rsa().public());
    let with = |base: &Value, name: &str, value: Value| {
        let mut out = base.clone();
        out[name] = value;
        out
    };
    let without = |base: &Value, name: &str| {
        let mut out = base.clone();
        out.as_object_mut().expect("an object").remove(name);
        out
    };
    let x = ec["x"].as_str().expect("text");
    let short_coordinate = base64url::encode(&base64url::decode(x).expect("base64url")[1..]);
    let n = base64url::decode(rsa["n"].as_str().expect("text")).expect("base64url");
    let modulus = |bytes: &[u8]| with(&rsa, "n", base64url::encode(bytes).into());
    let mut even = n.clone();
    even[255] &= 0xfe;
    let mut short = n.clone();
    short[0] &= 0x7f;
    let long = [&n[..], &[1; 800]].concat();
    let chain = |count: usize| Value::Array(vec!["MAA=".into(); count]);
    for (what, key, expected) in [
        ("a text", "key".into(), Malformed::NotAnObject),
        ("no kty", without(&ec, "kty"), Malformed::Missing("kty")),
        ("kty a number", with(&ec, "kty", 1.into()), Malformed::Type("kty")),
        ("no crv", without(&ec, "crv"), Malformed::Missing("crv")),
        ("no x", without(&ec, "x"), Malformed::Missing("x")),
        ("no y", without(&ec, "y"), Malformed::Missing("y")),
        ("x padded", with(&ec, "x", format!("{x}=").into()), Malformed::Base64("x")),
        (
            "x short",
            with(&ec, "x", short_coordinate.into()),
            Malformed::Key(crate::KeyProblem::Coordinate { curve: Curve::P256, found: 31 }),
        ),
        (
            "off the curve",
            with(&ec, "y", x.into()),
            Malformed::Key(crate::KeyProblem::Point(Curve::P256)),
        ),
        ("no n", without(&rsa, "n"), Malformed::Missing("n")),
        ("no e", without(&rsa, "e"), Malformed::Missing("e")),
        ("e = 3", with(&rsa, "e", "Aw".into()), crate::KeyProblem::Exponent.into()),
        ("e with a zero", with(&rsa, "e", "AAEAAQ".into()), crate::KeyProblem::Exponent.into()),
        ("n empty", modulus(&[]), crate::KeyProblem::Modulus.into()),
        ("n with a zero", modulus(&[&[0], &n[..]].concat()), crate::KeyProblem::Modulus.into()),
        ("n even", modulus(&even), crate::KeyProblem::Modulus.into()),
        ("n of 2047 bits", modulus(&short), crate::KeyProblem::Modulus.into()),
        ("n too long", modulus(&long), crate::KeyProblem::Modulus.into()),
        ("kid empty", with(&ec, "kid", "".into()), Malformed::KeyId),
        ("kid long", with(&ec, "kid", "k".repeat(257).into()), Malformed::KeyId),
        ("kid with a control", with(&ec, "kid", "a\nb".into()), Malformed::KeyId),
        ("kid a number", with(&ec, "kid", 1.into()), Malformed::Type("kid")),
        ("use a list", with(&ec, "use", json!(["sig"])), Malformed::Type("use")),
        ("alg a number", with(&ec, "alg", 1.into()), Malformed::Type("alg")),
        (
            "alg of another type",
            with(&ec, "alg", "RS256".into()),
            Malformed::AlgorithmUnfit(Algorithm::Rs256),
        ),
        (
            "alg of another curve",
            with(&ec, "alg", "ES384".into()),
            Malformed::AlgorithmUnfit(Algorithm::Es384),
        ),
        ("key_ops a text", with(&ec, "key_ops", "verify".into()), Malformed::Type("key_ops")),
        ("key_ops of numbers", with(&ec, "key_ops", json!([1])), Malformed::Type("key_ops")),
        ("x5c a text", with(&ec, "x5c", "MAA=".into()), Malformed::Type("x5c")),
        ("x5c of numbers", with(&ec, "x5c", json!([1])), Malformed::Type("x5c")),
        ("x5c base64url", with(&ec, "x5c", json!(["MAA"])), Malformed::Base64("x5c")),
        ("x5c empty", with(&ec, "x5c", chain(0)), Malformed::Certificates),
        ("x5c of nine", with(&ec, "x5c", chain(9)), Malformed::Certificates),
        ("x5c of nothing", with(&ec, "x5c", json!([""])), Malformed::Certificates),
    ] {
        let error = parse(json!([rsa, key])).expect_err(what);
        assert_eq!(error.code(), "JWK_KEY_MALFORMED", "{what}");
        let JwkError::Key { index: 1, source } = error else { unreachable!("{what}: {error:?}") };
        assert_eq!(source, expected, "{what}");
    }
    let accepted = parse(json!([rsa, with(&ec, "x5c", chain(8))])).expect("the bounds");
    assert_eq!(accepted.keys()[1].certificates().len(), 8);
}

#[test]
fn refuses_private_numbers_of_whatever_type() {
    let key = entry(&Signer::p256().public());
    for member in ["d", "dp", "dq", "k", "oth", "p", "q", "qi"] {
        let mut bad = key.clone();
        bad[member] = "c2VjcmV0".into();
        for bad in [bad, json!({"kty": "oct", member: "c2VjcmV0"})] {
            let error = parse(json!([key, bad])).expect_err(member);
            assert_eq!(error.code(), "JWK_PRIVATE_MEMBER");
            assert!(
                matches!(error, JwkError::Private { index: 1, member: found } if found == member)
            );
            assert!(!format!("{error} {error:?}").contains("c2VjcmV0"), "{error}");
        }
    }
}

#[test]
fn refuses_a_kid_that_stands_twice() {
    let named = |id: &str| {
        let mut key = entry(&Signer::p256().public());
        key["kid"] = id.into();
        key
    };
    let nameless = || entry(&Signer::p256().public());
    let same = named("a");
    for keys in [
        json!([named("a"), nameless(), named("a")]),
        json!([same, nameless(), same]),
        json!([named("a"), nameless(), {"kty": "OKP", "kid": "a"}]),
    ] {
        let error = parse(keys).expect_err("twice");
        assert_eq!(error.code(), "JWK_KEY_ID_DUPLICATE");
        assert!(matches!(error, JwkError::KeyIdTwice { index: 2, first: 0 }), "{error:?}");
    }
    parse(json!([named("a"), named("A"), nameless(), nameless()])).expect("four keys");
    let key = Signer::p256();
    let error = JwkSet::new(vec![key.jwk("a"), key.jwk("a")]).expect_err("twice");
    assert!(matches!(error, JwkError::KeyIdTwice { index: 1, first: 0 }));
}

#[test]
fn is_bounded() {
    let padded = |len: usize| {
        let text = "{\"keys\":[]}";
        format!("{text}{}", " ".repeat(len - text.len()))
    };
    JwkSet::parse(padded(MAX_SET_BYTES).as_bytes()).expect("the bound");
    let error = JwkSet::parse(padded(MAX_SET_BYTES + 1).as_bytes()).expect_err("too large");
    assert_eq!(error.code(), "JWK_SET_TOO_LARGE");
    let many = |count: usize| parse(Value::Array(vec![json!({"kty": "OKP"}); count]));
    assert_eq!(many(MAX_KEYS).expect("the bound").skipped(), MAX_KEYS);
    let error = many(MAX_KEYS + 1).expect_err("too many");
    assert_eq!(error.code(), "JWK_SET_TOO_MANY_KEYS");
    let key = Jwk::new(Signer::p256().public());
    let error = JwkSet::new(vec![key; MAX_KEYS + 1]).expect_err("too many");
    assert_eq!(error.code(), "JWK_SET_TOO_MANY_KEYS");
}

#[test]
fn is_one_json_object_with_an_array() {
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":null}"#, r#"{"keys":[],"keys":[]}"#] {
        let error = JwkSet::parse(text.as_bytes()).expect_err(text);
        assert_eq!(error.code(), "JWK_SET_MALFORMED", "{text}");
    }
    let twice = r#"{"keys":[{"kty":"EC","kty":"RSA"}]}"#;
    let error = JwkSet::parse(twice.as_bytes()).expect_err("twice");
    assert_eq!(error.code(), "JWK_SET_MALFORMED");
    assert!(error.source().is_some());
    assert_eq!(JwkSet::parse(br#"{"keys":[]}"#).expect("an empty set").keys(), []);
}

#[test]
fn keys_say_what_they_are_for() {
    let key = Signer::rsa().public();
    let allows = |change: &dyn Fn(&mut Value)| {
        let mut value = entry(&key);
        change(&mut value);
        let set = parse(json!([value])).expect("a set");
        Algorithm::ALL.into_iter().filter(|alg| set.keys()[0].allows(*alg)).collect::<Vec<_>>()
    };
    let rsa = [Algorithm::Ps256, Algorithm::Rs256, Algorithm::Rs384, Algorithm::Rs512];
    assert_eq!(allows(&|_| {}), rsa);
    assert_eq!(allows(&|key| key["alg"] = "PS256".into()), [Algorithm::Ps256]);
    assert_eq!(allows(&|key| key["alg"] = "RSA-OAEP".into()), []);
    assert_eq!(allows(&|key| key["key_ops"] = json!(["verify"])), rsa);
    assert_eq!(allows(&|key| key["key_ops"] = json!(["encrypt"])), []);
    let algorithms = |key: Signer| {
        let key = Jwk::new(key.public());
        Algorithm::ALL.into_iter().filter(|alg| key.allows(*alg)).collect::<Vec<_>>()
    };
    assert_eq!(algorithms(Signer::p256()), [Algorithm::Es256]);
    assert_eq!(algorithms(Signer::p384()), [Algorithm::Es384]);
}
