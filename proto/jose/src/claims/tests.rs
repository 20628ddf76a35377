use serde_json::json;

use super::*;
use crate::{
    Algorithm,
    jwk::{JwkSet, KeyUse},
    jws::{KeyRules, UnverifiedToken},
    testing::{NOW, Signer},
};

const RULES: ClaimRules<'_> =
    ClaimRules { audience: AudienceRule::Only("assay"), leeway_s: 60, max_lifetime_s: 600 };

fn verified(claims: &Value) -> VerifiedToken {
    let signer = Signer::p256();
    let keys = JwkSet::new(vec![signer.jwk("k")]).expect("a set");
    let rules = KeyRules { algorithms: &[Algorithm::Es256], key_use: KeyUse::Signature };
    let token = signer.token(Algorithm::Es256, "k", claims);
    UnverifiedToken::parse(&token).and_then(|token| token.verify(&keys, &rules)).expect("verified")
}

fn code(claims: &Value, rules: &ClaimRules<'_>) -> &'static str {
    match verified(claims).current_at(rules, NOW) {
        Ok(_) => "accepted",
        Err(error) => error.code(),
    }
}

fn good() -> Value {
    json!({"aud": "assay", "exp": NOW + 300, "iat": NOW - 10, "nbf": NOW - 10})
}

#[test]
fn times_are_judged_to_the_second() {
    for (change, expected) in [
        (json!({}), "accepted"),
        (json!({"iat": null}), "JWT_CLAIM_MALFORMED"),
        (json!({"exp": NOW - 59}), "accepted at the end"),
        (json!({"exp": NOW - 60}), "JWT_EXPIRED"),
        (json!({"exp": 0}), "JWT_EXPIRED"),
        (json!({"nbf": NOW + 60}), "accepted"),
        (json!({"nbf": NOW + 61}), "JWT_NOT_YET_VALID"),
        (json!({"iat": NOW + 60}), "accepted"),
        (json!({"iat": NOW + 61}), "JWT_NOT_YET_VALID"),
        (json!({"iat": NOW - 300}), "accepted"),
        (json!({"iat": NOW - 301}), "JWT_LIFETIME_TOO_LONG"),
        (json!({"nbf": NOW - 301}), "accepted"),
        (json!({"nbf": NOW + 20, "exp": NOW + 19}), "JWT_LIFETIME_TOO_LONG"),
        (json!({"nbf": NOW + 20, "exp": NOW + 20}), "JWT_LIFETIME_TOO_LONG"),
        (json!({"iat": NOW + 20, "exp": NOW + 19}), "JWT_LIFETIME_TOO_LONG"),
        (json!({"exp": MAX_UNIX_S}), "JWT_LIFETIME_TOO_LONG"),
        (json!({"exp": MAX_UNIX_S + 1}), "JWT_CLAIM_MALFORMED"),
        (json!({"exp": -1}), "JWT_CLAIM_MALFORMED"),
        (json!({"exp": u64::MAX}), "JWT_CLAIM_MALFORMED"),
        (json!({"exp": 1.5}), "JWT_CLAIM_MALFORMED"),
        (json!({"exp": (NOW + 300).to_string()}), "JWT_CLAIM_MALFORMED"),
        (json!({"exp": true}), "JWT_CLAIM_MALFORMED"),
        (json!({"nbf": "0"}), "JWT_CLAIM_MALFORMED"),
    ] {
        let mut claims = good();
        for (name, value) in change.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        if expected == "accepted at the end" {
            // Issued long enough before to have lived at all.
            claims["iat"] = (NOW - 300).into();
            claims["nbf"] = (NOW - 300).into();
            assert_eq!(code(&claims, &RULES), "accepted", "{change}");
            continue;
        }
        assert_eq!(code(&claims, &RULES), expected, "{change}");
    }
}

#[test]
fn a_lifetime_is_bounded_also_where_no_beginning_is_said() {
    let until = |exp: i64| code(&json!({"aud": "assay", "exp": exp}), &RULES);
    assert_eq!(until(NOW + 660), "accepted");
    assert_eq!(until(NOW + 661), "JWT_LIFETIME_TOO_LONG");
    let from = |nbf: i64| code(&json!({"aud": "assay", "exp": NOW + 300, "nbf": nbf}), &RULES);
    assert_eq!(from(NOW - 300), "accepted");
    assert_eq!(from(NOW - 301), "JWT_LIFETIME_TOO_LONG");
    assert_eq!(code(&json!({"aud": "assay", "iat": NOW}), &RULES), "JWT_CLAIM_MISSING");
}

#[test]
fn audiences_are_compared_byte_for_byte() {
    let among = ClaimRules { audience: AudienceRule::Among("assay"), ..RULES };
    for (audience, only, any) in [
        (json!("assay"), "accepted", "accepted"),
        (json!(["assay"]), "accepted", "accepted"),
        (json!(["assay", "b"]), "JWT_AUDIENCE_MISMATCH", "accepted"),
        (json!(["b", "assay"]), "JWT_AUDIENCE_MISMATCH", "accepted"),
        (json!("Assay"), "JWT_AUDIENCE_MISMATCH", "JWT_AUDIENCE_MISMATCH"),
        (json!("assay "), "JWT_AUDIENCE_MISMATCH", "JWT_AUDIENCE_MISMATCH"),
        (json!(""), "JWT_AUDIENCE_MISMATCH", "JWT_AUDIENCE_MISMATCH"),
        (json!([]), "JWT_CLAIM_MALFORMED", "JWT_CLAIM_MALFORMED"),
        (json!(vec!["assay"; 17]), "JWT_CLAIM_MALFORMED", "JWT_CLAIM_MALFORMED"),
        (json!(["assay", 1]), "JWT_CLAIM_MALFORMED", "JWT_CLAIM_MALFORMED"),
        (json!({"assay": 1}), "JWT_CLAIM_MALFORMED", "JWT_CLAIM_MALFORMED"),
        (json!(null), "JWT_CLAIM_MALFORMED", "JWT_CLAIM_MALFORMED"),
    ] {
        let mut claims = good();
        claims["aud"] = audience.clone();
        assert_eq!(code(&claims, &RULES), only, "only: {audience}");
        assert_eq!(code(&claims, &among), any, "among: {audience}");
    }
    let mut claims = good();
    claims.as_object_mut().expect("an object").remove("aud");
    assert_eq!(code(&claims, &RULES), "JWT_CLAIM_MISSING");
}

#[test]
fn a_token_in_force_says_what_it_was_judged_by() {
    let token = verified(&good()).current_at(&RULES, NOW).expect("in force");
    assert_eq!(token.expires_unix_s(), NOW + 300);
    assert_eq!(token.issued_unix_s(), Some(NOW - 10));
    assert_eq!(token.key_id(), "k");
    assert_eq!(token.claims().raw("aud"), Some(&json!("assay")));
    // The extremes of the clock are times like others.
    for now in [i64::MIN, i64::MAX] {
        verified(&good()).current_at(&RULES, now).expect_err("not in force");
    }
}
