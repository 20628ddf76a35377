//! Whether what an issuer of JWT-SVIDs answered is what was asked for.
//!
//! Signatures are not looked at: whoever gets the token does that. What is looked at is that a job is
//! never handed a token that speaks for another, or to others, than it asked for.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proto::spiffe::SpiffeId;
use serde_json::Value;

use crate::{
    conformance::{MAX_SVIDS, check_hints},
    identity::{JwtRequest, JwtSvid},
};

/// Bytes of one token; as much as is taken for validation by default.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Checks an answer, naming what is wrong with it.
pub(crate) fn check(
    tokens: &[JwtSvid],
    request: &JwtRequest,
    granted: &[SpiffeId],
) -> Result<(), &'static str> {
    if tokens.is_empty() || tokens.len() > MAX_SVIDS {
        return Err("the issuer returned no token, or too many");
    }
    check_hints(tokens.iter().map(|token| token.hint.as_str()))
        .map_err(|_| "the issuer returned hints that are too long or alike")?;
    for token in tokens {
        let is_asked = request.spiffe_id.as_ref().is_none_or(|id| *id == token.spiffe_id);
        if !is_asked || !granted.contains(&token.spiffe_id) {
            return Err("the issuer returned a token of another identity");
        }
        let (subject, audiences) = claims(&token.token).ok_or("the issuer returned no JWT")?;
        if subject != token.spiffe_id.to_string() {
            return Err("the issuer returned a token whose subject is another");
        }
        if audiences != request.audiences.iter().cloned().collect() {
            return Err("the issuer returned a token for other audiences");
        }
    }
    Ok(())
}

/// Subject and audiences of a token in compact form.
fn claims(token: &str) -> Option<(String, BTreeSet<String>)> {
    if token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    let mut parts = token.split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let audiences = match claims.get("aud")? {
        Value::Array(values) => values.iter().map(text).collect::<Option<_>>()?,
        one => BTreeSet::from([text(one)?]),
    };
    Some((text(claims.get("sub")?)?, audiences))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> SpiffeId {
        format!("spiffe://td/{name}").parse().unwrap()
    }

    fn token(subject: &str, payload: &str) -> JwtSvid {
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload));
        JwtSvid { spiffe_id: id(subject), token, hint: String::new() }
    }

    #[test]
    fn only_tokens_that_were_asked_for_are_handed_over() {
        let request = |spiffe_id: Option<&str>| JwtRequest {
            job: "7".parse().unwrap(),
            audiences: vec!["one".to_owned(), "two".to_owned()],
            spiffe_id: spiffe_id.map(id),
        };
        let granted = [id("a"), id("b")];
        let both = r#"{"sub":"spiffe://td/a","aud":["two","one"]}"#;
        let check_one =
            |token: JwtSvid, asked: Option<&str>| check(&[token], &request(asked), &granted);
        assert_eq!(check_one(token("a", both), None), Ok(()));
        assert_eq!(check_one(token("a", both), Some("a")), Ok(()));
        let other = Err("the issuer returned a token of another identity");
        assert_eq!(check_one(token("a", both), Some("b")), other);
        assert_eq!(check_one(token("c", both), None), other);
        let subject = Err("the issuer returned a token whose subject is another");
        assert_eq!(check_one(token("b", both), None), subject);
        let audience = Err("the issuer returned a token for other audiences");
        for aud in [r#""one""#, r#"["one"]"#, r#"["one","two","three"]"#, "[]"] {
            let payload = format!(r#"{{"sub":"spiffe://td/a","aud":{aud}}}"#);
            assert_eq!(check_one(token("a", &payload), None), audience, "{aud}");
        }
        let none = Err("the issuer returned no JWT");
        for payload in ["", "[]", r#"{"sub":1,"aud":["one","two"]}"#, r#"{"sub":"spiffe://td/a"}"#]
        {
            assert_eq!(check_one(token("a", payload), None), none, "{payload}");
        }
        let long = JwtSvid { token: "a".repeat(MAX_TOKEN_BYTES + 1), ..token("a", both) };
        assert_eq!(check_one(long, None), none);
        let count = Err("the issuer returned no token, or too many");
        assert_eq!(check(&[], &request(None), &granted), count);
        let many = vec![token("a", both); MAX_SVIDS + 1];
        assert_eq!(check(&many, &request(None), &granted), count);
        let hinted = |hint: &str| JwtSvid { hint: hint.to_owned(), ..token("a", both) };
        let hints = Err("the issuer returned hints that are too long or alike");
        assert_eq!(check(&[hinted("x"), hinted("x")], &request(None), &granted), hints);
        assert_eq!(check(&[hinted("x"), hinted("y")], &request(None), &granted), Ok(()));
    }
}
