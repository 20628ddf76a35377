//! OpenSSL reads and verifies what is made here, and the other way round.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use super::{
    super::{KeyError, PublicKey},
    *,
};

fn openssl(arguments: &[&str]) -> Output {
    Command::new("openssl").args(arguments).output().expect("openssl runs")
}

fn ok(arguments: &[&str]) -> String {
    let output = openssl(arguments);
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{arguments:?}: {text}");
    text
}

fn write(dir: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, content).expect("a file is written");
    path
}

fn arg(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

fn text_of(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a file is read")
}

/// OpenSSL's command that makes a key.
fn generate(path: &Path, arguments: &[&str]) -> String {
    let mut all = arguments.to_vec();
    all.extend(["-out", arg(path)]);
    ok(&all);
    text_of(path)
}

const ED25519: &[&str] = &["genpkey", "-algorithm", "ed25519"];
const P256: &[&str] = &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];

/// `openssl … -verify` over the bytes that are signed.
fn verify_arguments<'a>(
    algorithm: Algorithm,
    public: &'a Path,
    signature: &'a Path,
    message: &'a Path,
) -> Vec<&'a str> {
    match algorithm {
        Algorithm::P256 => vec![
            "dgst",
            "-sha256",
            "-verify",
            arg(public),
            "-signature",
            arg(signature),
            arg(message),
        ],
        Algorithm::Ed25519 => vec![
            "pkeyutl",
            "-verify",
            "-pubin",
            "-inkey",
            arg(public),
            "-rawin",
            "-in",
            arg(message),
            "-sigfile",
            arg(signature),
        ],
    }
}

#[test]
fn openssl_verifies_what_is_signed_here() {
    let dir = tempfile::tempdir().expect("a directory");
    for algorithm in [Algorithm::P256, Algorithm::Ed25519] {
        let alice = holder("alice", algorithm);
        let envelope = signed(PayloadType::Golden, &golden(), [&alice]);
        let public = write(dir.path(), "public.pem", alice.key.public().to_pem().as_bytes());
        let message = write(dir.path(), "pae", envelope.pae().as_bytes());
        let signature = write(dir.path(), "sig", envelope.signatures()[0].as_bytes());
        ok(&verify_arguments(algorithm, &public, &signature, &message));
        let other = write(dir.path(), "other", &[envelope.pae().as_bytes(), b" "].concat());
        let refused = openssl(&verify_arguments(algorithm, &public, &signature, &other));
        assert!(!refused.status.success(), "{algorithm}");
    }
}

#[test]
fn what_openssl_signs_is_approved() {
    let dir = tempfile::tempdir().expect("a directory");
    for (algorithm, arguments) in [(Algorithm::P256, P256), (Algorithm::Ed25519, ED25519)] {
        let path = dir.path().join("key.pem");
        let pem = generate(&path, arguments);
        let alice =
            Holder { name: "alice", key: SecurityPrivateKey::from_pem(&pem).expect("it loads") };
        let mut envelope = Envelope::new(PayloadType::Golden, golden()).expect("an envelope");
        let message = write(dir.path(), "pae", envelope.pae().as_bytes());
        let signature = dir.path().join("sig");
        match algorithm {
            Algorithm::P256 => ok(&[
                "dgst",
                "-sha256",
                "-sign",
                arg(&path),
                "-out",
                arg(&signature),
                arg(&message),
            ]),
            Algorithm::Ed25519 => ok(&[
                "pkeyutl",
                "-sign",
                "-inkey",
                arg(&path),
                "-rawin",
                "-in",
                arg(&message),
                "-out",
                arg(&signature),
            ]),
        };
        let signature = std::fs::read(&signature).expect("a signature");
        envelope.add(Signature::new(None, signature).expect("a signature")).expect("room");
        let approval = ring(1, 1, [&alice]).verify(&envelope, PayloadType::Golden, &golden());
        assert_eq!(approval.expect("approved").signers()[0].name().as_str(), "alice");
    }
}

#[test]
fn keys_of_openssl_load_and_have_the_identifier_that_openssl_gives() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("key.pem");
    for (algorithm, arguments) in [
        (Algorithm::Ed25519, ED25519),
        (Algorithm::P256, P256),
        // With the curve's block before the key, and without.
        (Algorithm::P256, &["ecparam", "-name", "prime256v1", "-genkey"]),
        (Algorithm::P256, &["ecparam", "-name", "prime256v1", "-genkey", "-noout"]),
    ] {
        let key = SecurityPrivateKey::from_pem(&generate(&path, arguments)).expect("it loads");
        assert_eq!(key.public().algorithm(), algorithm, "{arguments:?}");
        let public = ok(&["pkey", "-in", arg(&path), "-pubout"]);
        assert_eq!(PublicKey::from_pem(&public).expect("it parses"), *key.public());
        assert_eq!(key.public().to_pem(), public);
        let spki = dir.path().join("spki");
        ok(&["pkey", "-in", arg(&path), "-pubout", "-outform", "DER", "-out", arg(&spki)]);
        let digest = ok(&["dgst", "-sha256", "-r", arg(&spki)]);
        let digest = digest.split(' ').next().expect("a digest");
        assert_eq!(key.public().id().to_string(), format!("sha256:{digest}"));
    }
}

#[test]
fn keys_made_here_are_read_by_openssl() {
    let dir = tempfile::tempdir().expect("a directory");
    for algorithm in [Algorithm::P256, Algorithm::Ed25519] {
        let path = dir.path().join(algorithm.as_str());
        let public = SecurityPrivateKey::create(&path, algorithm).expect("made").expect("new");
        assert_eq!(ok(&["pkey", "-in", arg(&path), "-pubout"]), public.to_pem());
    }
}

#[test]
fn encrypted_and_foreign_keys_are_refused_with_their_cause() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("key.pem");
    let encrypted = ["-aes-256-cbc", "-pass", "pass:secret"];
    for arguments in [[ED25519, &encrypted].concat(), [P256, &encrypted].concat()] {
        let error = SecurityPrivateKey::from_pem(&generate(&path, &arguments)).expect_err("no");
        assert!(matches!(error, KeyError::Encrypted), "{error}");
        assert!(error.to_string().contains("openssl pkey -in FILE -out PLAIN"), "{error}");
    }
    // The older form, with its headers.
    let plain = dir.path().join("plain.pem");
    generate(&plain, P256);
    let older = ["ec", "-in", arg(&plain), "-aes256", "-passout", "pass:secret"];
    let older = generate(&path, &older);
    assert!(older.contains("Proc-Type"), "{older}");
    assert!(matches!(SecurityPrivateKey::from_pem(&older), Err(KeyError::Encrypted)));

    for (arguments, cause) in [
        (&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"][..], "RSA"),
        (&["genpkey", "-algorithm", "ed448"], "Ed448"),
        (&["genpkey", "-algorithm", "x25519"], "X25519"),
        (&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"], "P-256"),
        (&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"], "P-256"),
        (&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-224"], "P-256"),
        (
            &[
                "genpkey",
                "-algorithm",
                "EC",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-pkeyopt",
                "ec_param_enc:explicit",
            ],
            "P-256",
        ),
    ] {
        let error = SecurityPrivateKey::from_pem(&generate(&path, arguments)).expect_err("no");
        assert!(matches!(&error, KeyError::Algorithm(_)), "{arguments:?}: {error}");
        assert!(error.to_string().contains(cause), "{arguments:?}: {error}");
        let public = ok(&["pkey", "-in", arg(&path), "-pubout"]);
        let error = PublicKey::from_pem(&public).expect_err("no");
        assert!(matches!(&error, KeyError::Algorithm(_)), "{arguments:?}: {error}");
    }
    // Another curve in the older form, and a compressed point.
    let p384 = generate(&path, &["ecparam", "-name", "secp384r1", "-genkey", "-noout"]);
    assert!(matches!(SecurityPrivateKey::from_pem(&p384), Err(KeyError::Rejected(_))));
    let compressed = ok(&["ec", "-in", arg(&plain), "-pubout", "-conv_form", "compressed"]);
    let compressed = &compressed[compressed.find("-----BEGIN").expect("PEM")..];
    let compressed = compressed.replace("read EC key\nwriting EC key\n", "");
    let error = PublicKey::from_pem(&compressed).expect_err("no");
    assert!(matches!(error, KeyError::PointForm), "{error}");
}
