//! Key sets, bundles, tokens and jobs' claims: what is accepted is written as it was understood.
#![no_main]

use jose::{jwk::JwkSet, jws::UnverifiedToken, spiffe_bundle::Bundle};
use libfuzzer_sys::fuzz_target;
use proto::job::{JobClaims, Source};

fuzz_target!(|data: &[u8]| {
    if let Ok(set) = JwkSet::parse(data) {
        let again = JwkSet::parse(set.to_json().as_bytes()).expect("what was written is read");
        assert_eq!(again.keys(), set.keys());
        assert_eq!(again.skipped(), 0, "only what is understood is written");
    }
    if let Ok(bundle) = Bundle::parse(data) {
        let text = bundle.to_json().expect("what was read is not too large");
        let again = Bundle::parse(text.as_bytes()).expect("what was written is read");
        assert_eq!(again.jwt_authorities(), bundle.jwt_authorities());
        assert_eq!(again.x509_authorities(), bundle.x509_authorities());
    }
    if let Ok(claims) = JobClaims::from_canonical_json(data, Source::Environment) {
        assert_eq!(claims.canonical_json().as_bytes(), data, "one encoding only");
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(token) = UnverifiedToken::parse(text)
    {
        let _ = token.untrusted_issuer();
        assert!(token.verify(&JwkSet::default(), &RULES).is_err(), "nobody has signed it");
    }
});

const RULES: jose::jws::KeyRules<'static> = jose::jws::KeyRules {
    algorithms: &jose::Algorithm::ALL,
    key_use: jose::jwk::KeyUse::Signature,
};
