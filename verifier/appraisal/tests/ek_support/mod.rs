//! A forge: keys, certificates and CRLs with any fault that a test wants, and EK public areas.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::panic,
    clippy::new_without_default,
    reason = "shared by several test binaries, each of which uses its own part"
)]

use appraisal::{
    ek::{AllowListed, EkPolicy, EkPresented, Profile, TrustedEk, verify_ek},
    verdict::Denial,
    x509::{
        Certificate, Crl, EndorsementRoots, ExpiredIntermediates, RevocationRequirement,
        RootsBuilder, SubjectKey,
    },
};
use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
        ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use proto::{
    reason::ReasonCode,
    tpm::{credential::sized, public::Public},
};

/// 2027-01-15, when every test appraises unless it says otherwise.
pub const NOW: i64 = 1_800_000_000;

pub const SEQUENCE: u8 = 0x30;
pub const OID_BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
pub const OID_KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
pub const OID_EXT_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37];
pub const OID_ALT_NAME: &[u8] = &[0x55, 0x1d, 17];
pub const OID_POLICIES: &[u8] = &[0x55, 0x1d, 32];
pub const OID_NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 30];
pub const OID_AKI: &[u8] = &[0x55, 0x1d, 35];
pub const OID_SKI: &[u8] = &[0x55, 0x1d, 14];
pub const EKU_EK: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x01];
pub const EKU_PLATFORM: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x02];
pub const EKU_AK: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x03];
pub const EKU_SERVER: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];

/// keyCertSign, cRLSign; keyAgreement; keyEncipherment; digitalSignature: BIT STRING contents.
pub const KU_CA: &[u8] = &[1, 0b0000_0110];
pub const KU_CRL_ONLY: &[u8] = &[1, 0b0000_0010];
pub const KU_AGREEMENT: &[u8] = &[3, 0b0000_1000];
pub const KU_ENCIPHERMENT: &[u8] = &[5, 0b0010_0000];
pub const KU_SIGNATURE: &[u8] = &[7, 0b1000_0000];

pub fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body: Vec<u8> = parts.concat();
    let mut out = vec![tag];
    match body.len() {
        short @ 0..=0x7f => out.push(short as u8),
        long @ 0x80..=0xff => out.extend([0x81, long as u8]),
        long @ 0x100..=0xffff => out.extend([0x82, (long >> 8) as u8, long as u8]),
        long => out.extend([0x83, (long >> 16) as u8, (long >> 8) as u8, long as u8]),
    }
    out.extend(body);
    out
}

fn algorithm(oid: &[u8], null: bool) -> Vec<u8> {
    let null: &[u8] = if null { &[5, 0] } else { &[] };
    tlv(SEQUENCE, &[&tlv(6, &[oid]), null])
}

/// A name of one common name.
pub fn name(text: &str) -> Vec<u8> {
    let attribute = tlv(SEQUENCE, &[&tlv(6, &[&[0x55, 0x04, 3]]), &tlv(0x0c, &[text.as_bytes()])]);
    tlv(SEQUENCE, &[&tlv(0x31, &[&attribute])])
}

/// A key that signs certificates, or an EK's.
pub enum Key {
    Ec { pair: EcdsaKeyPair, curve: &'static [u8], sig: &'static [u8] },
    Rsa(RsaKeyPair),
}

impl Key {
    pub fn p256() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("key");
        Self::Ec {
            pair,
            curve: &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
            sig: &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
        }
    }

    pub fn p384() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).expect("key");
        Self::Ec {
            pair,
            curve: &[0x2b, 0x81, 0x04, 0x00, 0x22],
            sig: &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03],
        }
    }

    pub fn p521() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P521_SHA512_ASN1_SIGNING).expect("key");
        Self::Ec {
            pair,
            curve: &[0x2b, 0x81, 0x04, 0x00, 0x23],
            sig: &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04],
        }
    }

    pub fn rsa(size: KeySize) -> Self {
        Self::Rsa(RsaKeyPair::generate(size).expect("key"))
    }

    pub fn point(&self) -> &[u8] {
        match self {
            Self::Ec { pair, .. } => pair.public_key().as_ref(),
            Self::Rsa(_) => panic!("an RSA key has no point"),
        }
    }

    pub fn modulus(&self) -> Vec<u8> {
        match self {
            Self::Rsa(pair) => {
                // … INTEGER modulus, INTEGER 65537 (02 03 01 00 01).
                let der = pair.public_key().as_ref();
                let end = der.len() - 5;
                der[end - pair.public_modulus_len()..end].to_vec()
            }
            Self::Ec { .. } => panic!("an EC key has no modulus"),
        }
    }

    pub fn spki(&self) -> Vec<u8> {
        match self {
            Self::Ec { curve, .. } => ec_spki(curve, self.point()),
            Self::Rsa(pair) => rsa_spki(0x01, pair.public_key().as_ref()),
        }
    }

    pub fn signature_algorithm(&self) -> Vec<u8> {
        match self {
            Self::Ec { sig, .. } => algorithm(sig, false),
            Self::Rsa(_) => {
                algorithm(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b], true)
            }
        }
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let rng = SystemRandom::new();
        match self {
            Self::Ec { pair, .. } => pair.sign(&rng, message).expect("signature").as_ref().to_vec(),
            Self::Rsa(pair) => {
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &rng, message, &mut out).expect("signature");
                out
            }
        }
    }
}

pub fn ec_spki(curve: &[u8], point: &[u8]) -> Vec<u8> {
    let oid = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    let algorithm = tlv(SEQUENCE, &[&tlv(6, &[&oid]), &tlv(6, &[curve])]);
    tlv(SEQUENCE, &[&algorithm, &tlv(3, &[&[0], point])])
}

/// `last`: 1 for rsaEncryption, 7 for id-RSAES-OAEP.
pub fn rsa_spki(last: u8, rsa_public_key: &[u8]) -> Vec<u8> {
    let oid = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, last];
    let parameters = if last == 1 { tlv(5, &[]) } else { tlv(SEQUENCE, &[]) };
    let algorithm = tlv(SEQUENCE, &[&tlv(6, &[&oid]), &parameters]);
    tlv(SEQUENCE, &[&algorithm, &tlv(3, &[&[0], rsa_public_key])])
}

/// One extension; `critical` as it is encoded.
#[derive(Clone)]
pub struct Extension {
    pub oid: Vec<u8>,
    pub critical: Option<bool>,
    pub value: Vec<u8>,
}

pub fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Extension {
    Extension { oid: oid.to_vec(), critical: critical.then_some(true), value: value.to_vec() }
}

pub fn basic_constraints(ca: bool, path_len: Option<u8>) -> Extension {
    let ca: &[u8] = if ca { &[1, 1, 0xff] } else { &[] };
    let path_len = path_len.map(|n| vec![2, 1, n]).unwrap_or_default();
    extension(OID_BASIC_CONSTRAINTS, true, &tlv(SEQUENCE, &[ca, &path_len]))
}

pub fn key_usage(bits: &[u8]) -> Extension {
    extension(OID_KEY_USAGE, true, &tlv(3, &[bits]))
}

pub fn extended_key_usage(purposes: &[&[u8]]) -> Extension {
    let list: Vec<u8> = purposes.iter().flat_map(|oid| tlv(6, &[oid])).collect();
    extension(OID_EXT_KEY_USAGE, false, &tlv(SEQUENCE, &[&list]))
}

pub fn authority_key_id(id: &[u8]) -> Extension {
    extension(OID_AKI, false, &tlv(SEQUENCE, &[&tlv(0x80, &[id])]))
}

pub fn subject_key_id(id: &[u8]) -> Extension {
    extension(OID_SKI, false, &tlv(4, &[id]))
}

pub fn tpm_alt_name(attributes: &[(u8, &str)]) -> Extension {
    let sets: Vec<u8> = attributes
        .iter()
        .flat_map(|(kind, text)| {
            let oid = tlv(6, &[&[0x67, 0x81, 0x05, 0x02, *kind]]);
            tlv(0x31, &[&tlv(SEQUENCE, &[&oid, &tlv(0x0c, &[text.as_bytes()])])])
        })
        .collect();
    let directory = tlv(0xa4, &[&tlv(SEQUENCE, &[&sets])]);
    extension(OID_ALT_NAME, true, &tlv(SEQUENCE, &[&directory]))
}

/// A change that makes a specification faulty.
pub type Fault<T> = fn(&mut T);

/// A certificate to be.
#[derive(Clone)]
pub struct Spec {
    /// Content of the version INTEGER; `None` for version 1.
    pub version: Option<u8>,
    pub serial: Vec<u8>,
    pub issuer: Vec<u8>,
    pub subject: Vec<u8>,
    /// UTCTime (13 characters) or GeneralizedTime.
    pub not_before: String,
    pub not_after: String,
    pub spki: Vec<u8>,
    pub extensions: Vec<Extension>,
    /// Instead of the signing key's.
    pub signature_algorithm: Option<Vec<u8>>,
}

impl Spec {
    pub fn sign(&self, key: &Key) -> Vec<u8> {
        let algorithm = self.signature_algorithm.clone().unwrap_or(key.signature_algorithm());
        let version = self.version.map(|v| tlv(0xa0, &[&[2, 1, v]])).unwrap_or_default();
        let time = |text: &str| tlv(if text.len() == 13 { 0x17 } else { 0x18 }, &[text.as_bytes()]);
        let validity = tlv(SEQUENCE, &[&time(&self.not_before), &time(&self.not_after)]);
        let list: Vec<u8> = self.extensions.iter().flat_map(encode_extension).collect();
        let extensions =
            if list.is_empty() { Vec::new() } else { tlv(0xa3, &[&tlv(SEQUENCE, &[&list])]) };
        let tbs = tlv(
            SEQUENCE,
            &[
                &version,
                &tlv(2, &[&self.serial]),
                &algorithm,
                &self.issuer,
                &validity,
                &self.subject,
                &self.spki,
                &extensions,
            ],
        );
        let signature = tlv(3, &[&[0], &key.sign(&tbs)]);
        tlv(SEQUENCE, &[&tbs, &algorithm, &signature])
    }

    pub fn drop_extension(&mut self, oid: &[u8]) {
        self.extensions.retain(|extension| extension.oid != oid);
    }

    /// Replaces the extension of the same kind, or adds it.
    pub fn set(&mut self, new: Extension) {
        self.drop_extension(&new.oid);
        self.extensions.push(new);
    }
}

fn encode_extension(extension: &Extension) -> Vec<u8> {
    let critical = match extension.critical {
        None => Vec::new(),
        Some(value) => vec![1, 1, if value { 0xff } else { 0 }],
    };
    let oid = tlv(6, &[&extension.oid]);
    tlv(SEQUENCE, &[&oid, &critical, &tlv(4, &[&extension.value])])
}

/// A CA certificate of `subject`'s key, named and issued as given, valid 2020 to 2040.
pub fn ca(subject: &str, issuer: &str, serial: u8, key: &Key) -> Spec {
    Spec {
        version: Some(2),
        serial: vec![serial],
        issuer: name(issuer),
        subject: name(subject),
        not_before: "200101000000Z".to_owned(),
        not_after: "400101000000Z".to_owned(),
        spki: key.spki(),
        extensions: vec![
            basic_constraints(true, None),
            key_usage(KU_CA),
            subject_key_id(subject.as_bytes()),
            authority_key_id(issuer.as_bytes()),
        ],
        signature_algorithm: None,
    }
}

/// An EK certificate as the TCG profile wants it, valid 2020 to 2040.
pub fn ek_certificate(issuer: &str, key: &Key) -> Spec {
    let usage = if matches!(key, Key::Rsa(_)) { KU_ENCIPHERMENT } else { KU_AGREEMENT };
    Spec {
        version: Some(2),
        serial: vec![0x11],
        issuer: name(issuer),
        subject: tlv(SEQUENCE, &[]),
        not_before: "200101000000Z".to_owned(),
        not_after: "400101000000Z".to_owned(),
        spki: key.spki(),
        extensions: vec![
            basic_constraints(false, None),
            key_usage(usage),
            extended_key_usage(&[EKU_EK]),
            authority_key_id(issuer.as_bytes()),
            tpm_alt_name(&[(1, "id:54455354"), (2, "Forged"), (3, "id:00010002")]),
        ],
        signature_algorithm: None,
    }
}

/// A CRL of `issuer`.
pub struct CrlSpec {
    pub issuer: Vec<u8>,
    pub this_update: String,
    pub next_update: Option<String>,
    pub revoked: Vec<Vec<u8>>,
    pub extensions: Vec<Extension>,
    pub entry_extensions: Vec<Extension>,
}

/// Issued 2026, next one due 2028.
pub fn crl(issuer: &str, revoked: &[&[u8]]) -> CrlSpec {
    CrlSpec {
        issuer: name(issuer),
        this_update: "260101000000Z".to_owned(),
        next_update: Some("280101000000Z".to_owned()),
        revoked: revoked.iter().map(|serial| serial.to_vec()).collect(),
        extensions: Vec::new(),
        entry_extensions: Vec::new(),
    }
}

impl CrlSpec {
    pub fn sign(&self, key: &Key) -> Vec<u8> {
        let time = |text: &str| tlv(0x17, &[text.as_bytes()]);
        let entry_list: Vec<u8> = self.entry_extensions.iter().flat_map(encode_extension).collect();
        let entry_extensions =
            if entry_list.is_empty() { Vec::new() } else { tlv(SEQUENCE, &[&entry_list]) };
        let entries: Vec<u8> = self
            .revoked
            .iter()
            .flat_map(|serial| {
                let date = time("260101000000Z");
                tlv(SEQUENCE, &[&tlv(2, &[serial]), &date, &entry_extensions])
            })
            .collect();
        let revoked = if entries.is_empty() { Vec::new() } else { tlv(SEQUENCE, &[&entries]) };
        let list: Vec<u8> = self.extensions.iter().flat_map(encode_extension).collect();
        let extensions =
            if list.is_empty() { Vec::new() } else { tlv(0xa0, &[&tlv(SEQUENCE, &[&list])]) };
        let next = self.next_update.as_deref().map(time).unwrap_or_default();
        let tbs = tlv(
            SEQUENCE,
            &[
                &[2, 1, 1],
                &key.signature_algorithm(),
                &self.issuer,
                &time(&self.this_update),
                &next,
                &revoked,
                &extensions,
            ],
        );
        let signature = tlv(3, &[&[0], &key.sign(&tbs)]);
        tlv(SEQUENCE, &[&tbs, &key.signature_algorithm(), &signature])
    }
}

/// fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt (L templates).
pub const EK_ATTRIBUTES: u32 = 0x0003_00b2;

/// `TPMT_PUBLIC` of an EK, up to the unique part's parameters.
pub fn public_bytes(kind: u16, attributes: u32, symmetric: &[u8], tail: &[&[u8]]) -> Vec<u8> {
    let mut out = kind.to_be_bytes().to_vec();
    out.extend(0x000b_u16.to_be_bytes());
    out.extend(attributes.to_be_bytes());
    out.extend(sized(&[0x5a; 32]));
    out.extend(symmetric);
    out.extend(0x0010_u16.to_be_bytes());
    for part in tail {
        out.extend(*part);
    }
    out
}

/// AES-128-CFB.
pub const AES_128_CFB: &[u8] = &[0, 6, 0, 128, 0, 0x43];

pub fn rsa_public(bits: u16, exponent: u32, modulus: &[u8], attributes: u32) -> Public {
    let tail = [&bits.to_be_bytes()[..], &exponent.to_be_bytes(), &sized(modulus)];
    Public::decode(&public_bytes(1, attributes, AES_128_CFB, &tail)).expect("test structure")
}

pub fn ecc_public(curve: u16, x: &[u8], y: &[u8], attributes: u32) -> Public {
    let tail = [&curve.to_be_bytes()[..], &[0, 0x10], &sized(x), &sized(y)];
    Public::decode(&public_bytes(0x23, attributes, AES_128_CFB, &tail)).expect("test structure")
}

/// The public area of an EK with this key.
pub fn ek_public(key: &Key) -> Public {
    match key {
        Key::Rsa(_) => {
            let modulus = key.modulus();
            let bits = u16::try_from(modulus.len() * 8).expect("small");
            rsa_public(bits, 0, &modulus, EK_ATTRIBUTES)
        }
        Key::Ec { .. } => {
            let (_, coordinates) = key.point().split_first().expect("a point");
            let (x, y) = coordinates.split_at(coordinates.len() / 2);
            ecc_public(if x.len() == 32 { 3 } else { 4 }, x, y, EK_ATTRIBUTES)
        }
    }
}

/// The public area of an EK by TCG's L templates, for the key of a certificate.
pub fn public_of(certificate: &Certificate) -> Public {
    match certificate.key() {
        SubjectKey::Rsa { modulus, .. } => rsa_public(2048, 0, modulus, EK_ATTRIBUTES),
        SubjectKey::Ec { point, .. } => {
            let (x, y) = point[1..].split_at(32);
            ecc_public(3, x, y, EK_ATTRIBUTES)
        }
        other => panic!("{other}"),
    }
}

/// What the verifier holds and what a worker presents.
#[derive(Clone)]
pub struct World {
    pub anchors: Vec<Vec<u8>>,
    pub intermediates: Vec<Vec<u8>>,
    pub crls: Vec<Vec<u8>>,
    pub expired_intermediates: ExpiredIntermediates,
    pub public: Public,
    pub certificate: Option<Vec<u8>>,
    pub chain: Vec<Vec<u8>>,
    pub allow_listed: AllowListed,
    pub now: i64,
    pub profile: Profile,
    pub revocation: RevocationRequirement,
}

impl World {
    /// A world of one anchor and one EK certificate.
    pub fn new(anchor: Vec<u8>, certificate: Vec<u8>, ek: &Key) -> Self {
        Self {
            anchors: vec![anchor],
            intermediates: Vec::new(),
            crls: Vec::new(),
            expired_intermediates: ExpiredIntermediates::Refuse,
            public: ek_public(ek),
            certificate: Some(certificate),
            chain: Vec::new(),
            allow_listed: AllowListed::No,
            now: NOW,
            profile: Profile::AsShipped,
            revocation: RevocationRequirement::IfKnown,
        }
    }

    pub fn roots(&self) -> EndorsementRoots {
        let mut builder = RootsBuilder::new();
        builder.expired_intermediates(self.expired_intermediates);
        for der in &self.anchors {
            builder.anchor(Certificate::parse(der).expect("anchor")).expect("anchor");
        }
        for der in &self.intermediates {
            let certificate = Certificate::parse(der).expect("intermediate");
            builder.intermediate(certificate).expect("intermediate");
        }
        for der in &self.crls {
            builder.crl(Crl::parse(der).expect("CRL")).expect("CRL");
        }
        let (roots, refused) = builder.build();
        assert!(refused.is_empty(), "{refused:?}");
        roots
    }

    pub fn judge(&self) -> Result<TrustedEk, Denial> {
        self.judge_with(&self.roots())
    }

    pub fn judge_with(&self, roots: &EndorsementRoots) -> Result<TrustedEk, Denial> {
        let chain: Vec<&[u8]> = self.chain.iter().map(Vec::as_slice).collect();
        let presented = EkPresented {
            public: &self.public,
            certificate: self.certificate.as_deref(),
            chain: &chain,
        };
        let policy = EkPolicy {
            roots,
            allow_listed: self.allow_listed,
            now_unix_s: self.now,
            profile: self.profile,
            revocation: self.revocation,
        };
        verify_ek(&presented, &policy)
    }

    pub fn trusted(&self) -> TrustedEk {
        self.judge().unwrap_or_else(|denial| panic!("refused: {denial:?}"))
    }

    /// The one code that this world is refused with.
    #[track_caller]
    pub fn assert_refused(&self, code: ReasonCode) {
        match self.judge() {
            Ok(_) => panic!("accepted, {code} expected"),
            Err(denial) => {
                assert_eq!(denial.findings().count(), 1);
                assert_eq!(denial.code(), code, "{denial:?}");
            }
        }
    }
}

/// Root, one intermediate, one P-256 EK; the intermediate is imported.
pub struct Pki {
    pub root_key: Key,
    pub ca_key: Key,
    pub ek_key: Key,
}

impl Pki {
    pub fn new() -> Self {
        Self { root_key: Key::p384(), ca_key: Key::p256(), ek_key: Key::p256() }
    }

    pub fn root(&self) -> Spec {
        ca("Root", "Root", 1, &self.root_key)
    }

    pub fn ca(&self) -> Spec {
        ca("CA", "Root", 2, &self.ca_key)
    }

    pub fn leaf(&self) -> Spec {
        ek_certificate("CA", &self.ek_key)
    }

    pub fn world(&self) -> World {
        self.world_of(&self.ca(), &self.leaf())
    }

    /// With another intermediate and EK certificate, properly signed.
    pub fn world_of(&self, ca: &Spec, leaf: &Spec) -> World {
        let anchor = self.root().sign(&self.root_key);
        let mut world = World::new(anchor, leaf.sign(&self.ca_key), &self.ek_key);
        world.intermediates.push(ca.sign(&self.root_key));
        world
    }
}

/// DER of a file with one PEM block, or DER itself.
pub fn read_der(path: &std::path::Path) -> Vec<u8> {
    use base64::{Engine as _, prelude::BASE64_STANDARD};

    let bytes = std::fs::read(path).expect("readable");
    let Ok(text) = std::str::from_utf8(&bytes) else { return bytes };
    let Some((_, rest)) = text.split_once("-----BEGIN CERTIFICATE-----") else { return bytes };
    let (body, _) = rest.split_once("-----END CERTIFICATE-----").expect("an end line");
    let body: String = body.chars().filter(|c| !c.is_whitespace()).collect();
    BASE64_STANDARD.decode(body).expect("base64")
}

/// The DER of an RSA key pair's `RSAPublicKey`, for certificates with other algorithm identifiers.
pub fn rsa_public_key(key: &Key) -> Vec<u8> {
    match key {
        Key::Rsa(pair) => pair.public_key().as_ref().to_vec(),
        Key::Ec { .. } => panic!("an EC key is no RSA key"),
    }
}
