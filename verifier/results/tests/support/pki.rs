//! Keys and certificates.

use std::{str::FromStr, time::Duration};

use aws_lc_rs::{rand::SystemRandom, signature::ECDSA_P256_SHA256_ASN1_SIGNING};
use const_oid::{
    AssociatedOid, ObjectIdentifier,
    db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_CODE_SIGNING, ID_KP_SERVER_AUTH, ID_KP_TIME_STAMPING},
};
use der::{
    Decode, Encode, EncodePem,
    asn1::{GeneralizedTime, Ia5String, OctetString, UtcTime},
    flagset::FlagSet,
};
use p256::{ecdsa::DerSignature, pkcs8::DecodePrivateKey};
use results::{
    Sha256Digest, UnixTime,
    bundle::{Bundle, CertificateAuthority, Content, TrustedRoot},
    signer::{Signer, SoftwareKey},
    timestamp::{Authority, DEFAULT_POLICY},
};
use spki::{SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};
use x509_cert::{
    TbsCertificate,
    builder::{Builder, CertificateBuilder, profile::BuilderProfile},
    ext::{
        Extension,
        pkix::{
            AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages,
            SubjectAltName, SubjectKeyIdentifier, name::GeneralName,
        },
    },
    name::Name,
    serial_number::SerialNumber,
    time::{Time, Validity},
};

/// 2026-11-27T06:00:00Z: when artifacts are signed.
pub(crate) const NOW: u64 = 1_795_759_200;
pub(crate) const DAY: u64 = 24 * 3600;
pub(crate) const TSA_SERIAL: [u8; 16] = [7; 16];

pub(crate) fn at(unix_s: u64) -> UnixTime {
    UnixTime::from_unix_s(unix_s).expect("an instant")
}

/// A key, for certificates as well as for results.
pub(crate) struct Key {
    pub pkcs8: Vec<u8>,
    pub(crate) software: SoftwareKey,
    signing: p256::ecdsa::SigningKey,
}

impl Key {
    pub(crate) fn new() -> Self {
        let pkcs8 = aws_lc_rs::signature::EcdsaKeyPair::generate_pkcs8(
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            &SystemRandom::new(),
        )
        .expect("a key");
        Self::from_pkcs8(pkcs8.as_ref())
    }

    pub(crate) fn from_pkcs8(pkcs8: &[u8]) -> Self {
        let secret = p256::SecretKey::from_pkcs8_der(pkcs8).expect("a key");
        let software = SoftwareKey::from_pkcs8_der(pkcs8).expect("a key");
        Self { pkcs8: pkcs8.to_vec(), software, signing: secret.into() }
    }

    pub(crate) fn spki_digest(&self) -> Sha256Digest {
        Sha256Digest::of(self.software.spki_der())
    }
}

impl Signer for &Key {
    fn spki_der(&self) -> &[u8] {
        self.software.spki_der()
    }

    fn sign_digest(&self, digest: &Sha256Digest) -> Result<Vec<u8>, String> {
        self.software.sign_digest(digest)
    }
}

/// What a leaf says; `Default` is a job's.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) uris: Vec<String>,
    pub(crate) dns: Vec<String>,
    pub(crate) usages: Vec<ObjectIdentifier>,
    pub(crate) critical_usages: bool,
    pub(crate) key_usages: Option<FlagSet<KeyUsages>>,
    pub(crate) common_name: Option<String>,
    pub(crate) is_ca: bool,
    pub(crate) repeats_names: bool,
    pub(crate) from: u64,
    pub(crate) until: u64,
}

pub(crate) const JOB_ID: &str = "spiffe://build.example/pool/release";
pub(crate) const RESULTS_ID: &str = "spiffe://build.example/verifier/results";

impl Default for Leaf {
    fn default() -> Self {
        Self {
            uris: vec![JOB_ID.to_owned()],
            dns: Vec::new(),
            usages: vec![ID_KP_CODE_SIGNING, ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH],
            critical_usages: false,
            key_usages: Some(KeyUsages::DigitalSignature.into()),
            common_name: None,
            is_ca: false,
            repeats_names: false,
            from: NOW - 600,
            until: NOW + 600,
        }
    }
}

impl Leaf {
    pub(crate) fn results() -> Self {
        Self { uris: vec![RESULTS_ID.to_owned()], ..Self::default() }
    }

    pub(crate) fn tsa() -> Self {
        Self {
            uris: Vec::new(),
            usages: vec![ID_KP_TIME_STAMPING],
            critical_usages: true,
            common_name: Some("Test TSA".to_owned()),
            from: NOW - 30 * DAY,
            until: NOW + 30 * DAY,
            ..Self::default()
        }
    }
}

/// A CA with its certificate.
pub(crate) struct Ca {
    pub(crate) key: Key,
    pub(crate) name: Name,
    pub(crate) der: Vec<u8>,
}

impl Ca {
    pub(crate) fn root(common_name: &str) -> Self {
        let (key, name) = (Key::new(), name(common_name));
        let der = certificate(
            key.software.spki_der(),
            &name,
            &key,
            &name,
            ca_extensions(1),
            NOW - 900 * DAY,
            NOW + 20 * 365 * DAY,
        );
        Self { key, name, der }
    }

    pub(crate) fn intermediate(&self, common_name: &str, from: u64, until: u64) -> Self {
        let (key, own) = (Key::new(), name(common_name));
        let spki = key.software.spki_der();
        let der = certificate(spki, &own, &self.key, &self.name, ca_extensions(0), from, until);
        Self { key, name: own, der }
    }

    pub(crate) fn leaf(&self, key: &Key, leaf: &Leaf) -> Vec<u8> {
        self.leaf_of(key.software.spki_der(), leaf)
    }

    /// Of whatever public key.
    pub(crate) fn leaf_of(&self, spki_der: &[u8], leaf: &Leaf) -> Vec<u8> {
        let subject = leaf.common_name.as_deref().map_or_else(Name::default, name);
        let mut extensions = Vec::new();
        let constraints = BasicConstraints { ca: leaf.is_ca, path_len_constraint: None };
        extensions.push(extension(&constraints, true));
        if let Some(usages) = leaf.key_usages {
            extensions.push(extension(&KeyUsage(usages), true));
        }
        if !leaf.usages.is_empty() {
            extensions
                .push(extension(&ExtendedKeyUsage(leaf.usages.clone()), leaf.critical_usages));
        }
        let text = |text: &String| Ia5String::new(text).expect("ASCII");
        let uris = leaf.uris.iter().map(text).map(GeneralName::UniformResourceIdentifier);
        let names: Vec<_> =
            uris.chain(leaf.dns.iter().map(text).map(GeneralName::DnsName)).collect();
        if !names.is_empty() {
            let names = extension(&SubjectAltName(names), leaf.common_name.is_none());
            extensions.extend(vec![names; if leaf.repeats_names { 2 } else { 1 }]);
        }
        certificate(spki_der, &subject, &self.key, &self.name, extensions, leaf.from, leaf.until)
    }
}

fn name(common_name: &str) -> Name {
    Name::from_str(&format!("CN={common_name},O=Assay Test")).expect("a name")
}

fn ca_extensions(below: u8) -> Vec<Extension> {
    vec![
        extension(&BasicConstraints { ca: true, path_len_constraint: Some(below) }, true),
        extension(&KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign), true),
    ]
}

fn extension<T: AssociatedOid + Encode>(value: &T, critical: bool) -> Extension {
    let der = value.to_der().expect("DER");
    Extension { extn_id: T::OID, critical, extn_value: OctetString::new(der).expect("DER") }
}

struct Profile {
    subject: Name,
    issuer: Name,
    extensions: Vec<Extension>,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, _: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        key: SubjectPublicKeyInfoRef<'_>,
        issuer: SubjectPublicKeyInfoRef<'_>,
        _: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        let mut extensions = self.extensions.clone();
        extensions.push(extension(&SubjectKeyIdentifier::try_from(key)?, false));
        extensions.push(extension(&AuthorityKeyIdentifier::try_from(issuer)?, false));
        Ok(extensions)
    }
}

fn certificate(
    spki_der: &[u8],
    subject: &Name,
    issuer_key: &Key,
    issuer: &Name,
    extensions: Vec<Extension>,
    from: u64,
    until: u64,
) -> Vec<u8> {
    let profile = Profile { subject: subject.clone(), issuer: issuer.clone(), extensions };
    let spki = SubjectPublicKeyInfoOwned::from_der(spki_der).expect("a public key");
    let digest = Sha256Digest::of(spki_der);
    let serial = SerialNumber::new(&[&[0x41], &digest.as_bytes()[..15]].concat());
    let validity = Validity::new(time(from), time(until));
    let builder = CertificateBuilder::new(profile, serial.expect("a serial"), validity, spki)
        .expect("a builder");
    let certificate = builder.build::<_, DerSignature>(&issuer_key.signing).expect("a certificate");
    certificate.to_der().expect("DER")
}

fn time(unix_s: u64) -> Time {
    let since = Duration::from_secs(unix_s);
    UtcTime::from_unix_duration(since).map(Time::UtcTime).unwrap_or_else(|_| {
        Time::GeneralTime(GeneralizedTime::from_unix_duration(since).expect("a time"))
    })
}

/// Everything that stands before a job runs.
pub(crate) struct World {
    pub(crate) root: Ca,
    pub(crate) issuing: Ca,
    pub(crate) tsa_root: Ca,
    pub(crate) tsa_key: Key,
    pub(crate) tsa_der: Vec<u8>,
    /// As the list of trusted authorities names it: the trust domain's own.
    pub(crate) tsa_uri: &'static str,
}

impl World {
    pub(crate) fn new() -> Self {
        let root = Ca::root("Test Root");
        let issuing = root.intermediate("Test Job CA", NOW - 100 * DAY, NOW + 100 * DAY);
        let (tsa_root, tsa_key) = (Ca::root("Test TSA Root"), Key::new());
        let tsa_der = tsa_root.leaf(&tsa_key, &Leaf::tsa());
        Self { root, issuing, tsa_root, tsa_key, tsa_der, tsa_uri: "spiffe://build.example" }
    }

    pub(crate) fn authority(&self) -> Authority<&Key> {
        Authority::new(&self.tsa_key, &self.tsa_der, DEFAULT_POLICY).expect("an authority")
    }

    /// What a relying party of this world trusts.
    pub(crate) fn trusted_root(&self) -> TrustedRoot {
        TrustedRoot::new(vec![self.jobs_authority()], vec![self.tsa_authority()]).expect("a list")
    }

    pub(crate) fn jobs_authority(&self) -> CertificateAuthority {
        let chain = [self.issuing.der.clone(), self.root.der.clone()];
        authority("https://ca.build.example", &chain)
    }

    pub(crate) fn tsa_authority(&self) -> CertificateAuthority {
        let chain = [self.tsa_der.clone(), self.tsa_root.der.clone()];
        authority(self.tsa_uri, &chain)
    }

    /// A bundle that is stamped at `when`.
    pub(crate) fn bundle(&self, leaf_der: &[u8], content: Content, when: u64) -> Bundle {
        let stamp = self.stamp(content.signature(), when);
        Bundle::new(leaf_der, vec![stamp], content).expect("a bundle")
    }

    pub(crate) fn stamp(&self, signature: &[u8], when: u64) -> Vec<u8> {
        self.authority()
            .stamp(Sha256Digest::of(signature), &TSA_SERIAL, at(when))
            .expect("a time stamp")
    }
}

pub(crate) fn authority(uri: &str, chain: &[Vec<u8>]) -> CertificateAuthority {
    CertificateAuthority::new(uri, ["Assay Test", "test"], chain, at(NOW - 800 * DAY), None)
        .expect("an authority")
}

/// PEM of a certificate, for other programs.
pub(crate) fn pem(der: &[u8]) -> String {
    let certificate = x509_cert::Certificate::from_der(der).expect("a certificate");
    certificate.to_pem(der::pem::LineEnding::LF).expect("PEM")
}
