//! A platform's token cannot be changed, and no text makes the reader panic.

use std::sync::LazyLock;

use jose::{
    Algorithm,
    jwk::JwkSet,
    testing::{NOW, Signer},
};
use platform::{Issuer, PlatformConfig, Platforms};
use proptest::prelude::*;
use proto::job::CiSystem;
use serde_json::json;

static SIGNED: LazyLock<(Platforms, String)> = LazyLock::new(|| {
    let signer = Signer::rsa();
    let config = PlatformConfig::new(CiSystem::Buildkite, "assay");
    let issuer = Issuer::try_from(config).expect("an issuer");
    let platforms = Platforms::new(vec![issuer]).expect("one");
    let keys = JwkSet::new(vec![signer.jwk("k")]).expect("a set").to_json();
    platforms.all()[0].keys().replace(keys.as_bytes(), NOW).expect("keys");
    let claims = json!({
        "iss": "https://agent.buildkite.com", "aud": "assay", "sub": "organization:acme", "jti": "1",
        "iat": NOW, "nbf": NOW, "exp": NOW + 300, "organization_slug": "acme",
        "pipeline_slug": "app", "build_number": 5, "build_branch": "main",
        "build_commit": "9f3182061f1e2cca4702c368cbc039b7dc9d4485", "job_id": "j",
    });
    (platforms, signer.token(Algorithm::Rs256, "k", &claims))
});

fn code(token: &str) -> &'static str {
    SIGNED.0.verify(token, NOW).map_or_else(|refusal| refusal.code(), |_| "accepted")
}

#[test]
fn no_bit_of_an_accepted_token_can_be_flipped() {
    let token = &SIGNED.1;
    assert_eq!(code(token), "accepted");
    for at in 0..token.len() * 8 {
        let mut bytes = token.clone().into_bytes();
        bytes[at / 8] ^= 1 << (at % 8);
        // A byte above 127 leaves UTF-8, and with it what a token can be.
        let Ok(changed) = String::from_utf8(bytes) else { continue };
        assert_ne!(code(&changed), "accepted", "bit {at} of {token}");
    }
}

proptest! {
    #[test]
    fn no_part_of_an_accepted_token_can_be_replaced(
        at in 0..900_usize, len in 0..9_usize, with in "[A-Za-z0-9_.=-]{0,9}",
    ) {
        let token = &SIGNED.1;
        let at = at.min(token.len());
        let end = (at + len).min(token.len());
        let changed = format!("{}{with}{}", &token[..at], &token[end..]);
        prop_assert_eq!(code(&changed) == "accepted", changed == *token);
    }

    #[test]
    fn any_text_is_answered(text in ".{0,300}") {
        prop_assert_eq!(code(&text), "PLATFORM_TOKEN_MALFORMED");
    }
}
