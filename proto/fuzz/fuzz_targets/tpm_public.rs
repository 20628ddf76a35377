//! `TPMT_PUBLIC`: what decodes is kept byte for byte, and has one Name and one SPKI.
#![no_main]

use appraisal::{ak::RestrictedAk, verification_key::VerificationKey};
use libfuzzer_sys::fuzz_target;
use proto::{spki, tpm::public::Public};

fuzz_target!(|data: &[u8]| {
    let Ok(public) = Public::decode(data) else { return };
    assert_eq!(public.as_bytes(), data);
    assert_eq!(public.name(), public.name());
    assert_eq!(spki::ek_digest(&public), spki::ek_digest(&public));
    // Judging a hostile key must be safe, whatever it says.
    let _ = RestrictedAk::verify(&public);
    let _ = VerificationKey::from_public(&public);
});
