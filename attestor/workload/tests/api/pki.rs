//! Certificates for tests: a root, an intermediate, leaves with any fault.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use der::{Encode as _, asn1::Ia5String, asn1::ObjectIdentifier, asn1::UtcTime, flagset::FlagSet};
use p256::{
    ecdsa::{DerSignature, SigningKey},
    elliptic_curve::Generate as _,
    pkcs8::EncodePrivateKey as _,
};
use x509_cert::{
    builder::{Builder as _, CertificateBuilder, profile::BuilderProfile},
    certificate::TbsCertificate,
    ext::{
        Extension, ToExtension as _,
        pkix::{
            BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
            name::GeneralName,
        },
    },
    name::Name,
    serial_number::SerialNumber,
    spki::{SubjectPublicKeyInfo, SubjectPublicKeyInfoRef},
    time::{Time, Validity},
};

/// A key that signs certificates, with its certificate.
pub(crate) struct Ca {
    key: SigningKey,
    name: Name,
    pub(crate) der: Vec<u8>,
}

/// What a leaf says.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) uris: Vec<String>,
    pub(crate) constraints: Option<bool>,
    pub(crate) key_usage: Option<FlagSet<KeyUsages>>,
    pub(crate) key_usage_critical: bool,
    pub(crate) extended: Vec<ObjectIdentifier>,
    pub(crate) names_critical: bool,
    pub(crate) valid: (u64, u64),
}

/// A leaf with its key.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) der: Vec<u8>,
    pub(crate) key_pkcs8: Vec<u8>,
}

impl Leaf {
    /// A proper X.509-SVID for an hour around `now`.
    pub(crate) fn new(uri: &str, now_unix_s: u64) -> Self {
        Self {
            uris: vec![uri.to_owned()],
            constraints: Some(false),
            key_usage: Some(KeyUsages::DigitalSignature.into()),
            key_usage_critical: true,
            extended: [const_oid::db::rfc5280::ID_KP_SERVER_AUTH]
                .into_iter()
                .chain([const_oid::db::rfc5280::ID_KP_CLIENT_AUTH])
                .collect(),
            names_critical: true,
            valid: (now_unix_s - 10, now_unix_s + 3600),
        }
    }
}

impl Ca {
    pub(crate) fn root(trust_domain: &str, now_unix_s: u64) -> Self {
        Self::make(trust_domain, "root", None, now_unix_s)
    }

    pub(crate) fn intermediate(&self, trust_domain: &str, now_unix_s: u64) -> Self {
        Self::make(trust_domain, "intermediate", Some(self), now_unix_s)
    }

    fn make(trust_domain: &str, name: &str, issuer: Option<&Self>, now_unix_s: u64) -> Self {
        let key = SigningKey::generate();
        let name: Name = format!("CN={name}{},O={trust_domain}", serial()).parse().unwrap();
        let profile = Profile {
            issuer: issuer.map_or_else(|| name.clone(), |issuer| issuer.name.clone()),
            subject: name.clone(),
            leaf: Leaf {
                uris: vec![format!("spiffe://{trust_domain}")],
                constraints: Some(true),
                key_usage: Some(KeyUsages::KeyCertSign | KeyUsages::CRLSign),
                key_usage_critical: true,
                extended: Vec::new(),
                names_critical: false,
                valid: (now_unix_s - 3600, now_unix_s + 86_400),
            },
        };
        let der = build(profile, &key, issuer.map_or(&key, |issuer| &issuer.key));
        Self { key, name, der }
    }

    pub(crate) fn issue(&self, leaf: &Leaf) -> Issued {
        let key = SigningKey::generate();
        let profile =
            Profile { issuer: self.name.clone(), subject: Name::default(), leaf: leaf.clone() };
        let key_pkcs8 = key.to_pkcs8_der().unwrap().as_bytes().to_vec();
        Issued { der: build(profile, &key, &self.key), key_pkcs8 }
    }
}

struct Profile {
    issuer: Name,
    subject: Name,
    leaf: Leaf,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, _subject: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        _spk: SubjectPublicKeyInfoRef<'_>,
        _issuer_spk: SubjectPublicKeyInfoRef<'_>,
        tbs: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        let subject = tbs.subject();
        let leaf = &self.leaf;
        let mut out = Vec::new();
        if !leaf.uris.is_empty() {
            let uri =
                |text: &String| Ia5String::new(text).map(GeneralName::UniformResourceIdentifier);
            let names = leaf.uris.iter().map(uri).collect::<Result<_, _>>()?;
            let names = SubjectAltName(names);
            out.push((leaf.names_critical, &names).to_extension(subject, &[])?);
        }
        if let Some(ca) = leaf.constraints {
            let constraints = BasicConstraints { ca, path_len_constraint: None };
            out.push((true, &constraints).to_extension(subject, &[])?);
        }
        if let Some(usage) = leaf.key_usage {
            out.push((leaf.key_usage_critical, &KeyUsage(usage)).to_extension(subject, &[])?);
        }
        if !leaf.extended.is_empty() {
            let usage = ExtendedKeyUsage(leaf.extended.clone());
            out.push((false, &usage).to_extension(subject, &[])?);
        }
        Ok(out)
    }
}

fn build(profile: Profile, key: &SigningKey, signer: &SigningKey) -> Vec<u8> {
    let time =
        |unix_s| Time::from(UtcTime::from_unix_duration(Duration::from_secs(unix_s)).unwrap());
    let (from, to) = profile.leaf.valid;
    let validity = Validity::new(time(from), time(to));
    let public = SubjectPublicKeyInfo::from_key(key.verifying_key()).unwrap();
    let serial = SerialNumber::new(&serial().to_be_bytes()).unwrap();
    let builder = CertificateBuilder::new(profile, serial, validity, public).unwrap();
    builder.build::<_, DerSignature>(signer).unwrap().to_der().unwrap()
}

/// Positive, and never twice.
fn serial() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0x0100_0000_0000_0000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
