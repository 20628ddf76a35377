//! Signatures of files, made here with real keys.

use std::sync::Arc;

use appraisal::ima::{
    ImaPolicy, ImaRules, Keyring, Manifest, ManifestBuilder, Require, SignatureCheck, judge,
};
use aws_lc_rs::{
    digest::{self as awslc_digest, Digest as AwsDigest},
    encoding::AsDer,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
        RsaEncoding, RsaKeyPair,
    },
};
use proto::{
    digest::HashAlg,
    ima::{BankAlg, DigestKind, FileDigest, ImaHashAlg},
    reason::ReasonCode,
};
use soft_tpm::ima::{ImaKernel, ImaList};

use crate::support::{anchored, booted, quoted, sha256};

/// A key that signs files as `evmctl` does.
pub enum Signer {
    Ecdsa(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
}

impl Signer {
    pub fn p256() -> Self {
        Self::ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING)
    }

    pub fn p384() -> Self {
        Self::ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING)
    }

    fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm) -> Self {
        Self::Ecdsa(EcdsaKeyPair::generate(algorithm).expect("a key"))
    }

    pub fn rsa() -> Self {
        Self::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key")))
    }

    pub fn spki(&self) -> Vec<u8> {
        match self {
            Self::Ecdsa(key) => key.public_key().as_der().expect("DER").as_ref().to_vec(),
            Self::Rsa(key) => key.public_key().as_der().expect("DER").as_ref().to_vec(),
        }
    }

    /// The last four bytes of the SHA-1 of the public key.
    fn key_id(&self) -> [u8; 4] {
        let bits = match self {
            Self::Ecdsa(key) => key.public_key().as_ref().to_vec(),
            // An RSAPublicKey already.
            Self::Rsa(key) => key.public_key().as_ref().to_vec(),
        };
        *BankAlg::Sha1.hash(&[&bits]).as_bytes().last_chunk().expect("20 bytes")
    }

    pub fn keyring(&self) -> Arc<Keyring> {
        Arc::new(Keyring::new([("key", self.spki().as_slice())]).expect("a keyring"))
    }

    fn sign(&self, digest: &AwsDigest) -> Vec<u8> {
        match self {
            Self::Ecdsa(key) => key.sign_digest(digest).expect("signed").as_ref().to_vec(),
            Self::Rsa(key) => {
                let encoding: &'static dyn RsaEncoding = match digest.as_ref().len() {
                    32 => &RSA_PKCS1_SHA256,
                    48 => &RSA_PKCS1_SHA384,
                    _ => &RSA_PKCS1_SHA512,
                };
                let mut out = vec![0; key.public_modulus_len()];
                key.sign_digest(encoding, digest, &mut out).expect("signed");
                out
            }
        }
    }

    /// Version 2, over the file's digest.
    pub fn v2(&self, file: &proto::digest::Digest) -> Vec<u8> {
        let algorithm = algorithm_of(file.alg());
        let digest = AwsDigest::import_less_safe(file.as_bytes(), algorithm).expect("its size");
        self.framed(3, 2, file.alg(), &self.sign(&digest))
    }

    /// Version 3, over type, algorithm and digest.
    pub fn v3(&self, kind: u8, file: &proto::digest::Digest) -> Vec<u8> {
        let algorithm = algorithm_of(file.alg());
        let id = [&[kind, kernel_id(file.alg())], file.as_bytes()].concat();
        self.framed(kind, 3, file.alg(), &self.sign(&awslc_digest::digest(algorithm, &id)))
    }

    fn framed(&self, kind: u8, version: u8, alg: HashAlg, signature: &[u8]) -> Vec<u8> {
        let length = u16::try_from(signature.len()).expect("short").to_be_bytes();
        [&[kind, version, kernel_id(alg)][..], &self.key_id(), &length, signature].concat()
    }
}

fn algorithm_of(alg: HashAlg) -> &'static awslc_digest::Algorithm {
    match alg {
        HashAlg::Sha256 => &awslc_digest::SHA256,
        HashAlg::Sha384 => &awslc_digest::SHA384,
        HashAlg::Sha512 => &awslc_digest::SHA512,
    }
}

const fn kernel_id(alg: HashAlg) -> u8 {
    match alg {
        HashAlg::Sha256 => 4,
        HashAlg::Sha384 => 5,
        HashAlg::Sha512 => 6,
    }
}

fn measured(digest: &proto::digest::Digest, kind: DigestKind) -> FileDigest<'_> {
    let algorithm = ImaHashAlg::from_kernel_id(kernel_id(digest.alg()));
    FileDigest { kind, algorithm, algorithm_name: "", bytes: digest.as_bytes() }
}

fn is_good(check: &SignatureCheck) -> bool {
    matches!(check, SignatureCheck::Good { .. })
}

fn is_bad(check: &SignatureCheck) -> bool {
    matches!(check, SignatureCheck::Bad(_))
}

#[test]
fn signatures_of_every_kind_of_key_and_hash_verify() {
    // aws-lc signs with a curve's own hash alone; the others are checked against OpenSSL below.
    let signers: [(Signer, &[HashAlg]); 3] = [
        (Signer::p256(), &[HashAlg::Sha256]),
        (Signer::p384(), &[HashAlg::Sha384]),
        (Signer::rsa(), &HashAlg::ALL),
    ];
    for (signer, algs) in signers {
        let keyring = signer.keyring();
        for alg in algs {
            let file = alg.hash(&[b"a file"]);
            let other = alg.hash(&[b"another"]);
            let check = |value: &[u8], of: &proto::digest::Digest, kind| {
                keyring.check(value, &measured(of, kind))
            };
            let v2 = signer.v2(&file);
            assert!(is_good(&check(&v2, &file, DigestKind::File)), "{alg}");
            assert!(is_bad(&check(&v2, &other, DigestKind::File)));
            assert!(is_bad(&check(&v2, &file, DigestKind::Verity)));
            let verity = signer.v3(6, &file);
            assert!(is_good(&check(&verity, &file, DigestKind::Verity)));
            assert!(is_bad(&check(&verity, &file, DigestKind::File)));
            let plain = signer.v3(3, &file);
            assert!(is_good(&check(&plain, &file, DigestKind::File)));
            assert!(is_bad(&check(&plain, &file, DigestKind::Verity)));
        }
    }
}

/// Each bit of header and signature: never good, and bad rather than ignored unless the key is another.
#[test]
fn a_changed_signature_is_never_good() {
    let signer = Signer::p256();
    let keyring = signer.keyring();
    let file = sha256(b"a file");
    let good = signer.v2(&file);
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut changed = good.clone();
            changed[at] ^= 1 << bit;
            let check = keyring.check(&changed, &measured(&file, DigestKind::File));
            assert!(!is_good(&check), "bit {bit} of byte {at}: {check:?}");
        }
    }
    assert!(!is_good(&keyring.check(&[], &measured(&file, DigestKind::File))));
}

#[test]
fn the_hash_is_never_taken_from_the_signature() {
    let signer = Signer::rsa();
    let keyring = signer.keyring();
    let of_512 = HashAlg::Sha512.hash(&[b"a file"]);
    let of_256 = sha256(b"a file");
    let check = keyring.check(&signer.v2(&of_512), &measured(&of_256, DigestKind::File));
    assert!(is_bad(&check), "{check:?}");
    let sha1 = FileDigest {
        kind: DigestKind::File,
        algorithm: Some(ImaHashAlg::Sha1),
        algorithm_name: "",
        bytes: &[0; 20],
    };
    let mut value = signer.v2(&of_256);
    value[2] = 2;
    assert!(is_bad(&keyring.check(&value, &sha1)), "SHA-1 proves nothing");
}

#[test]
fn keys_are_selected_by_their_identifier() {
    let (ours, theirs) = (Signer::p256(), Signer::p256());
    let keyring = ours.keyring();
    let file = sha256(b"a file");
    let check = keyring.check(&theirs.v2(&file), &measured(&file, DigestKind::File));
    assert!(matches!(check, SignatureCheck::NotOurs(_)), "{check:?}");
    // Theirs, that says it is ours.
    let mut forged = theirs.v2(&file);
    forged[3..7].copy_from_slice(&ours.key_id());
    assert!(is_bad(&keyring.check(&forged, &measured(&file, DigestKind::File))));
    let spkis = [ours.spki(), theirs.spki(), ours.spki()];
    let both = Keyring::new(spkis.iter().map(|spki| ("k", spki.as_slice()))).expect("a keyring");
    assert_eq!(both.keys().count(), 2);
    for signer in [ours, theirs] {
        assert!(is_good(&both.check(&signer.v2(&file), &measured(&file, DigestKind::File))));
    }
}

#[test]
fn what_is_no_key_or_too_weak_makes_no_keyring() {
    assert!(Keyring::new([]).is_err());
    assert!(Keyring::new([("x", b"not a key".as_slice())]).is_err());
    let spki = Signer::p256().spki();
    assert!(Keyring::new([("x", &spki[..spki.len() - 1])]).is_err());
    assert!(Keyring::new([("x", [spki.as_slice(), &[0]].concat().as_slice())]).is_err());
    let mut off_curve = spki.clone();
    *off_curve.last_mut().expect("bytes") ^= 1;
    assert!(Keyring::new([("x", off_curve.as_slice())]).is_err());
    let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(Keyring::new([("x", private.as_bytes())]).is_err());
}

fn signed_list(file: &[u8], value: &[u8]) -> ImaList {
    let mut list = booted(ImaKernel::default());
    list.file("ima-sig", "sha256", sha256(file).as_bytes(), "/usr/bin/a", value);
    list
}

fn codes(list: &ImaList, policy: &ImaPolicy) -> Vec<ReasonCode> {
    let quote = quoted(list, &[HashAlg::Sha256]);
    let judgement = judge(&anchored(list.bytes(), &quote).expect("replays"), policy);
    judgement.findings.iter().map(|finding| finding.code).collect()
}

fn manifest(file: &[u8]) -> Arc<Manifest> {
    let mut builder = ManifestBuilder::new();
    builder.file(&sha256(file), b"/usr/bin/a");
    Arc::new(Manifest::parse(builder.to_text("m", 0).as_bytes()).expect("a manifest"))
}

#[test]
fn a_policy_accepts_signed_files() {
    let signer = Signer::rsa();
    let stranger = Signer::p256();
    let good = signed_list(b"a", &signer.v2(&sha256(b"a")));
    let wrong = signed_list(b"b", &signer.v2(&sha256(b"a")));
    let foreign = signed_list(b"a", &stranger.v2(&sha256(b"a")));
    let bare = signed_list(b"a", &[]);
    let either = ImaRules::default();
    let by_key = ImaPolicy::new(&either, None, Some(signer.keyring())).expect("a policy");
    assert_eq!(codes(&good, &by_key), []);
    assert_eq!(codes(&wrong, &by_key), [ReasonCode::PolicyImaSignatureInvalid]);
    assert_eq!(codes(&foreign, &by_key), [ReasonCode::PolicyImaFileNotAllowed]);
    assert_eq!(codes(&bare, &by_key), [ReasonCode::PolicyImaFileNotAllowed]);

    let with = |require, file: &[u8]| {
        let rules = ImaRules { require, ..ImaRules::default() };
        ImaPolicy::new(&rules, Some(manifest(file)), Some(signer.keyring())).expect("a policy")
    };
    let listed = with(Require::Either, b"b");
    assert_eq!(codes(&good, &listed), []);
    assert_eq!(codes(&wrong, &listed), [], "its digest is in the manifest");
    let both = with(Require::Both, b"a");
    assert_eq!(codes(&good, &both), []);
    assert_eq!(codes(&foreign, &both), [ReasonCode::PolicyImaSignatureMissing]);
    assert_eq!(codes(&bare, &both), [ReasonCode::PolicyImaSignatureMissing]);
    assert_eq!(codes(&wrong, &both), [ReasonCode::PolicyImaSignatureInvalid]);
    let others = with(Require::Both, b"c");
    assert_eq!(codes(&good, &others), [ReasonCode::PolicyImaFileNotAllowed]);
}

/// See tests/data/evmctl/README.md.
#[test]
fn signatures_that_evmctl_made_verify() {
    let payload = include_bytes!("../data/evmctl/payload");
    let rsa = ("rsa", include_bytes!("../data/evmctl/rsa-cert.der").as_slice());
    let p256 = ("p256", include_bytes!("../data/evmctl/p256-cert.pem").as_slice());
    let p384 = ("p384", include_bytes!("../data/evmctl/p384-pub.pem").as_slice());
    let keyring = Keyring::new([rsa, p256, p384]).expect("a keyring");
    let made: [(&str, HashAlg, &[u8]); 6] = [
        ("rsa", HashAlg::Sha256, include_bytes!("../data/evmctl/rsa-sha256.sig")),
        ("rsa", HashAlg::Sha512, include_bytes!("../data/evmctl/rsa-sha512.sig")),
        ("p256", HashAlg::Sha256, include_bytes!("../data/evmctl/p256-sha256.sig")),
        ("p256", HashAlg::Sha512, include_bytes!("../data/evmctl/p256-sha512.sig")),
        ("p384", HashAlg::Sha256, include_bytes!("../data/evmctl/p384-sha256.sig")),
        ("p384", HashAlg::Sha512, include_bytes!("../data/evmctl/p384-sha512.sig")),
    ];
    for (name, alg, value) in made {
        let check = |of: &[u8]| keyring.check(value, &measured(&alg.hash(&[of]), DigestKind::File));
        assert_eq!(check(payload), SignatureCheck::Good { key: name.to_owned() }, "{name} {alg}");
        assert!(is_bad(&check(b"another file")), "{name} {alg}");
    }
    let renamed = include_bytes!("../data/evmctl/rsa-sha256-keyid.sig");
    let check = keyring.check(renamed, &measured(&sha256(payload), DigestKind::File));
    assert_eq!(check, SignatureCheck::NotOurs("key deadbeef is not in the keyring".to_owned()));
    // A bundle, as distributions ship their keys.
    let bundle = [p256.1, p384.1].concat();
    let bundle = Keyring::new([("bundle", bundle.as_slice())]).expect("a keyring");
    assert_eq!(bundle.keys().count(), 2);
}
