//! A token cannot be changed, and no bytes make the readers panic.

use std::sync::LazyLock;

use jose::{
    json,
    jwk::{JwkSet, KeyUse},
    jws::UnverifiedToken,
    sign::Es256Key,
    spiffe_bundle::Bundle,
    svid::{SvidClaims, SvidRules, mint, validate},
};
use proptest::prelude::*;

const NOW: i64 = 1_790_000_000;

static SIGNED: LazyLock<(Bundle, String)> = LazyLock::new(|| {
    let key = Es256Key::generate().expect("a key");
    let claims = SvidClaims {
        subject: "spiffe://builds.example.org/node/w1".parse().expect("an ID"),
        audiences: vec!["assay".to_owned()],
        issued_unix_s: NOW,
        expires_unix_s: NOW + 300,
        token_id: "1".to_owned(),
    };
    let bundle = Bundle::new(Vec::new(), vec![key.jwk(KeyUse::JwtSvid).expect("a JWK")]);
    (bundle.expect("a bundle"), mint(&key, &claims).expect("a token"))
});

fn is_accepted(token: &str) -> bool {
    let domain = "builds.example.org".parse().expect("a trust domain");
    let rules = SvidRules { trust_domain: &domain, audience: "assay", leeway_s: 10 };
    validate(token, &SIGNED.0, &rules, NOW).is_ok()
}

/// All of them: a token has a few thousand bits.
#[test]
fn no_bit_of_an_accepted_token_can_be_flipped() {
    let token = &SIGNED.1;
    assert!(is_accepted(token));
    for at in 0..token.len() * 8 {
        let mut bytes = token.clone().into_bytes();
        bytes[at / 8] ^= 1 << (at % 8);
        // A byte above 127 leaves UTF-8, and with it what a token can be.
        let Ok(changed) = String::from_utf8(bytes) else { continue };
        assert!(!is_accepted(&changed), "bit {at} of {token}");
    }
}

proptest! {
    #[test]
    fn no_part_of_an_accepted_token_can_be_replaced(
        at in 0..400_usize, len in 0..9_usize, with in "[A-Za-z0-9_.=-]{0,9}",
    ) {
        let token = &SIGNED.1;
        let at = at.min(token.len());
        let end = (at + len).min(token.len());
        let changed = format!("{}{with}{}", &token[..at], &token[end..]);
        prop_assert_eq!(is_accepted(&changed), changed == *token);
    }

    #[test]
    fn any_text_is_answered(text in ".{0,300}", bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = UnverifiedToken::parse(&text);
        for bytes in [text.as_bytes(), &bytes] {
            let _ = json::object(bytes);
            let _ = JwkSet::parse(bytes);
            let _ = Bundle::parse(bytes);
        }
    }

    /// What is read is written and read again as the same.
    #[test]
    fn any_key_set_that_is_read_is_written_as_it_was_understood(
        ids in prop::collection::btree_set("[a-z]{1,8}", 0..5),
    ) {
        let keys = ids.iter().map(|id| {
            let key = Es256Key::generate().and_then(|key| key.with_id(id)).expect("a key");
            key.jwk(KeyUse::Signature).expect("a JWK")
        });
        let set = JwkSet::new(keys.collect()).expect("a set");
        prop_assert_eq!(JwkSet::parse(set.to_json().as_bytes()).expect("a set"), set);
    }
}
