//! Key derivation and real quotes against published vectors.

#[path = "ek_support/mod.rs"]
mod ek_support;

use appraisal::{
    activation::{kdfa, kdfe},
    verification_key::uncompressed_point,
};
use aws_lc_rs::{
    agreement::{self, ECDH_P256, ECDH_P384, PrivateKey, UnparsedPublicKey},
    digest::{Context, SHA1_FOR_LEGACY_USE_ONLY},
    rsa::PublicKeyComponents,
    signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use proto::{
    digest::HashAlg,
    reason::ReasonCode,
    tpm::{
        DecodeErrorKind,
        attest::{Attest, Attested},
        constants::{ALG_SHA1, TPM_GENERATED},
        credential::sized,
        public::{Curve, KeyKind, Public},
        signature::Signature,
    },
};
use serde_json::Value;
use soft_tpm::vectors_dir;

fn load(path: &str) -> Option<Value> {
    let file = vectors_dir()?.join(path);
    let bytes = std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    Some(serde_json::from_slice(&bytes).expect("JSON"))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

fn bytes(value: &Value, field: &str) -> Vec<u8> {
    hex::decode(text(value, field)).expect("hexadecimal")
}

fn base64(value: &Value, field: &str) -> Vec<u8> {
    BASE64_STANDARD.decode(text(value, field)).expect("base64")
}

/// The vector's hash, if it is one that is computed here; SHA-1 is not.
fn hash_of(vector: &Value) -> Option<HashAlg> {
    HashAlg::from_tpm(u16::try_from(vector["HashAlg"].as_u64()?).ok()?)
}

fn bits(vector: &Value) -> u32 {
    u32::try_from(vector["Bits"].as_u64().expect("a number")).expect("small")
}

#[test]
fn kdfa_gives_the_published_results() {
    let Some(vectors) = load("google+go-tpm/vectors/kdfa.json") else { return };
    let mut checked = 0;
    for vector in vectors.as_array().expect("a list") {
        let Some(alg) = hash_of(vector) else { continue };
        let (u, v) = (bytes(vector, "ContextU"), bytes(vector, "ContextV"));
        let label = text(vector, "Label").as_bytes();
        let found = kdfa(alg, &bytes(vector, "Key"), label, &u, &v, bits(vector));
        assert_eq!(hex::encode(&*found), text(vector, "Result"), "{}", text(vector, "Name"));
        checked += 1;
    }
    assert_eq!(checked, 73);
}

#[test]
fn kdfe_gives_the_published_results() {
    let Some(vectors) = load("google+go-tpm/vectors/kdfe.json") else { return };
    let mut checked = 0;
    for vector in vectors.as_array().expect("a list") {
        let Some(alg) = hash_of(vector) else { continue };
        let (u, v) = (bytes(vector, "ContextU"), bytes(vector, "ContextV"));
        let label = text(vector, "Label").as_bytes();
        let found = kdfe(alg, &bytes(vector, "Z"), label, &u, &v, bits(vector));
        assert_eq!(hex::encode(&*found), text(vector, "Result"), "{}", text(vector, "Name"));
        checked += 1;
    }
    assert_eq!(checked, 78);
}

/// Secret sharing with an elliptic EK: the seed and the encrypted secret for a given ephemeral key.
#[test]
fn an_elliptic_seed_is_the_published_one() {
    let Some(vectors) = load("google+go-tpm/vectors/ecc_labeled_encaps.json") else { return };
    let mut checked = 0;
    for vector in vectors.as_array().expect("a list") {
        // Other curves, SHA-1 names and unrestricted keys with a scheme of their own are no EKs.
        let Ok(public) = Public::decode(&bytes(vector, "PublicKey")) else { continue };
        let KeyKind::Ecc { curve, x, y } = public.key() else { panic!("an elliptic key") };
        let (algorithm, size) = match curve {
            Curve::P256 => (&ECDH_P256, 32),
            Curve::P384 => (&ECDH_P384, 48),
        };
        let peer = uncompressed_point(*curve, x, y).expect("a point");
        let mut private = bytes(vector, "EphemeralPrivate");
        private.splice(0..0, std::iter::repeat_n(0, size - private.len()));
        let ephemeral = PrivateKey::from_private_key(algorithm, &private).expect("a key");
        let point = ephemeral.compute_public_key().expect("a public key");
        let (own_x, own_y) = point.as_ref()[1..].split_at(size);
        let alg = public.name_alg();
        let bits = u32::try_from(alg.len_bytes() * 8).expect("small");
        let label = text(vector, "Label").as_bytes();
        let peer_key = UnparsedPublicKey::new(algorithm, &peer);
        let seed = agreement::agree(&ephemeral, peer_key, (), |z| {
            Ok(kdfe(alg, z, label, own_x, &peer[1..=size], bits))
        })
        .expect("agreement");
        assert_eq!(hex::encode(&*seed), text(vector, "Secret"), "{}", text(vector, "Name"));
        let secret = [sized(own_x), sized(own_y)].concat();
        assert_eq!(hex::encode(secret), text(vector, "Ciphertext"), "{}", text(vector, "Name"));
        checked += 1;
    }
    assert!(checked >= 25, "{checked}");
}

/// AKs of the field that sign with SHA-1 are refused where they are decoded.
#[test]
fn keys_that_sign_with_sha1_are_refused() {
    for (file, at, what) in [
        ("ak_creation_google_vtpm_ecc", 46, "ECDSA hash"),
        ("ak_creation_infineon_rsa", 46, "RSASSA hash"),
        ("windows_gcp_shielded_vm", 46, "RSASSA hash"),
    ] {
        let path = format!("google+go-attestation/quotes/{file}.json");
        let Some(vector) = load(&path) else { return };
        let ak = vector.get("AK").unwrap_or(&vector);
        let error = Public::decode(&base64(ak, "Public")).expect_err("refused");
        assert_eq!((error.at, error.code()), (at, ReasonCode::EvidenceStructureInvalid));
        let found = u32::from(ALG_SHA1);
        assert_eq!(error.kind, DecodeErrorKind::Unsupported { what, found });
        let signature = Signature::decode(&base64(ak, "CreateSignature")).expect_err("refused");
        assert_eq!(signature.code(), ReasonCode::EvidenceStructureInvalid);
        // What it signed at its creation is well-formed, and no quote.
        let created = base64(ak, "CreateAttestation");
        let attest = Attest::decode(&created).expect("well-formed");
        assert_eq!(attest.magic, TPM_GENERATED);
        assert_eq!(attest.attested, Attested::Other(0x801a));
    }
}

/// A quote of a cloud TPM: the decoder finds selection and digest, and the digest is over the values in that order.
#[test]
fn a_real_quote_decodes_to_its_pcr_values() {
    let Some(vector) = load("google+go-attestation/quotes/windows_gcp_shielded_vm.json") else {
        return;
    };
    let quoted = base64(&vector["Quote"], "Quote");
    let attest = Attest::decode(&quoted).expect("well-formed");
    let Attested::Quote { selection, pcr_digest } = &attest.attested else { panic!("a quote") };
    let [bank] = selection.as_slice() else { panic!("one bank") };
    assert_eq!((bank.hash_alg, bank.pcrs.bits()), (ALG_SHA1, 0x00ff_ffff));
    let mut values: Vec<(u64, Vec<u8>)> = vector["Log"]["PCRs"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|pcr| (pcr["Index"].as_u64().expect("a number"), base64(pcr, "Digest")))
        .collect();
    values.sort();
    let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    for (index, value) in &values {
        assert!(bank.pcrs.contains(proto::digest::PcrIndex::new(*index as u8).expect("a PCR")));
        hash.update(value);
    }
    assert_eq!(hash.finish().as_ref(), *pcr_digest);
    // And it is the AK's, by a library that still knows SHA-1: modulus last in the public area.
    let public = base64(&vector["AK"], "Public");
    let modulus = &public[public.len() - 256..];
    let signature = base64(&vector["Quote"], "Signature");
    let value = &signature[signature.len() - 256..];
    PublicKeyComponents { n: modulus, e: &[1, 0, 1] }
        .verify(&RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, &quoted, value)
        .expect("verifies");
}
