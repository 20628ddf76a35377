//! OpenSSL verifies what is signed here, and signs what is verified here.

use std::{fs, path::Path, process::Command};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use der::{Decode as _, Encode as _, asn1::UintRef};
use jose::{
    Algorithm, PublicKey,
    jwk::{Jwk, JwkSet, KeyUse},
    jws::{KeyRules, UnverifiedToken},
    sign::Es256Key,
    svid::{SvidClaims, mint},
};

/// Corresponds to `ECDSA-Sig-Value`, RFC 3279.
#[derive(der::Sequence)]
struct EcdsaSignature<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

fn openssl(dir: &Path, args: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").current_dir(dir).args(args).output().expect("it runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn openssl_verifies_a_jwt_svid() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = Es256Key::generate().expect("a key");
    let claims = SvidClaims {
        subject: "spiffe://builds.example.org/node/w1".parse().expect("an ID"),
        audiences: vec!["assay".to_owned()],
        issued_unix_s: 1_790_000_000,
        expires_unix_s: 1_790_000_300,
        token_id: "1".to_owned(),
    };
    let token = mint(&key, &claims).expect("a token");
    let (signed, signature) = token.rsplit_once('.').expect("a dot");
    let raw = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    let (r, s) = raw.split_at(32);
    let trimmed = |bytes: &[u8]| {
        let start = bytes.iter().position(|byte| *byte != 0).expect("not zero");
        bytes[start..].to_vec()
    };
    let (r, s) = (trimmed(r), trimmed(s));
    let (r, s) = (UintRef::new(&r).expect("a number"), UintRef::new(&s).expect("a number"));
    let der = EcdsaSignature { r, s }.to_der().expect("DER");
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        STANDARD.encode(key.public().to_spki_der())
    );
    for (name, content) in
        [("key.pem", pem.as_bytes()), ("signature", &der[..]), ("signed", signed.as_bytes())]
    {
        fs::write(dir.path().join(name), content).expect("a file is written");
    }
    let verify = ["dgst", "-sha256", "-verify", "key.pem", "-signature", "signature", "signed"];
    assert_eq!(openssl(dir.path(), &verify), b"Verified OK\n");
}

#[test]
fn what_openssl_signs_is_accepted() {
    let dir = tempfile::tempdir().expect("a directory");
    let p256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let p384: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
    let rsa: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"];
    // RFC 7518: the salt is as long as the hash.
    let pss: &[&str] = &["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"];
    for (algorithm, key, hash, options, coordinate) in [
        (Algorithm::Es256, p256, "-sha256", &[][..], 32),
        (Algorithm::Es384, p384, "-sha384", &[], 48),
        (Algorithm::Rs256, rsa, "-sha256", &[], 0),
        (Algorithm::Rs384, rsa, "-sha384", &[], 0),
        (Algorithm::Rs512, rsa, "-sha512", &[], 0),
        (Algorithm::Ps256, rsa, "-sha256", pss, 0),
    ] {
        openssl(dir.path(), &[&["genpkey", "-out", "key.pem"], key].concat());
        let export = ["pkey", "-in", "key.pem", "-pubout", "-outform", "DER"];
        let public = PublicKey::from_spki_der(&openssl(dir.path(), &export)).expect("a key");
        let header = format!(r#"{{"alg":"{algorithm}","kid":"k"}}"#);
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(r#"{"sub":"someone"}"#)
        );
        fs::write(dir.path().join("signed"), &signed).expect("a file is written");
        let sign = [&["dgst", hash, "-sign", "key.pem"], options, &["signed"]].concat();
        let mut signature = openssl(dir.path(), &sign);
        if coordinate != 0 {
            let numbers = EcdsaSignature::from_der(&signature).expect("a signature");
            let padded = |number: UintRef<'_>| {
                let bytes = number.as_bytes();
                [&vec![0; coordinate - bytes.len()], bytes].concat()
            };
            signature = [padded(numbers.r), padded(numbers.s)].concat();
        }
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&signature));
        let keys = JwkSet::new(vec![Jwk::new(public).with_id("k").expect("an ID")]);
        let rules = KeyRules { algorithms: &[algorithm], key_use: KeyUse::Signature };
        let token = UnverifiedToken::parse(&token)
            .and_then(|token| token.verify(&keys.expect("a set"), &rules))
            .expect("accepted");
        assert_eq!(token.claims().text("sub"), Ok(Some("someone")), "{algorithm}");
    }
}
