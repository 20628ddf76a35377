//! `TPMT_SIGNATURE`: decoding is total, and values stay within their algorithm's size.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::tpm::signature::{Signature, SignatureValue};

fuzz_target!(|data: &[u8]| {
    let Ok(signature) = Signature::decode(data) else { return };
    let size = match &signature.value {
        SignatureValue::Rsa(value) => value.len(),
        SignatureValue::Ecc { r, s } => r.len() + s.len(),
    };
    assert!(size < data.len());
});
