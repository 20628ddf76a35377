//! A TPM manufacturer for tests: root, intermediate, EK certificates after the TCG profile, CRLs.
//!
//! Every field of an EK certificate and of its issuers can be forged with [`EkProfile`], so that
//! each refusal of the chain's appraisal has a certificate that provokes exactly it.
//!
//! # Source
//! TCG EK Credential Profile for TPM Family 2.0: certificate fields, default templates (annex B) and
//! NV indexes; RFC 5280 for the chain and the CRLs.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use aws_lc_rs::rand;
use der::{
    Any, Decode, Encode, EncodePem, Sequence, Tag,
    asn1::{BitString, ObjectIdentifier, OctetString, Uint, UintRef},
    flagset::FlagSet,
    pem::LineEnding,
};
use p256::{
    ecdsa::{DerSignature, SigningKey, signature::Signer},
    pkcs8::EncodePrivateKey,
};
use proto::tpm::public::{Curve, KeyKind, Public};
use x509_cert::{
    Certificate,
    attr::AttributeTypeAndValue,
    builder::{Builder, CertificateBuilder, profile::BuilderProfile},
    certificate::{TbsCertificate, Version},
    crl::{CertificateList, RevokedCert, TbsCertList},
    ext::{
        Extension, ToExtension,
        pkix::{
            AuthorityKeyIdentifier, BasicConstraints, CrlNumber, ExtendedKeyUsage, KeyUsage,
            KeyUsages, SubjectAltName, SubjectKeyIdentifier, name::GeneralName,
        },
    },
    name::{Name, RdnSequence, RelativeDistinguishedName},
    serial_number::SerialNumber,
    spki::{AlgorithmIdentifier, SubjectPublicKeyInfo, SubjectPublicKeyInfoRef},
    time::{Time, Validity},
};

use crate::{
    raw::{RH_ENDORSEMENT, RawTpm, sized},
    swtpm::HarnessError,
};

/// `tcg-kp-EKCertificate`.
pub const EKU_EK_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.1");
/// `tcg-kp-AIKCertificate`.
pub const EKU_AK_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.3");
/// `tcg-at-tpmManufacturer`.
const AT_MANUFACTURER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.2.1");
/// `tcg-at-tpmModel`.
const AT_MODEL: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.2.2");
/// `tcg-at-tpmVersion`.
const AT_VERSION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.2.3");
/// An extension that nobody knows, under the arc reserved for documentation.
const UNKNOWN_EXTENSION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.32473.7");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSAES_OAEP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.7");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// First NV index of the EK certificate chain (intermediates, DER, one after the other).
pub const NV_CHAIN_FIRST: u32 = 0x01c0_0100;

/// A day.
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A default template of the TCG EK profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EkTemplate {
    /// L-1: RSA-2048, certificate at 0x01c00002.
    Rsa2048,
    /// L-2: P-256, certificate at 0x01c0000a.
    EccP256,
    /// H-3: P-384, certificate at 0x01c00016.
    EccP384,
    /// H-6: RSA-3072, certificate at 0x01c0001c.
    Rsa3072,
}

/// `PolicySecret(TPM_RH_ENDORSEMENT)`, SHA-256: authPolicy of the L- templates.
const POLICY_A_SHA256: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24,
    0xfd, 0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];

/// PolicyB of the EK profile, SHA-384: authPolicy of H-3 and H-6.
const POLICY_B_SHA384: [u8; 48] = [
    0xb2, 0x6e, 0x7d, 0x28, 0xd1, 0x1a, 0x50, 0xbc, 0x53, 0xd8, 0x82, 0xbc, 0xf5, 0xfd, 0x3a, 0x1a,
    0x07, 0x41, 0x48, 0xbb, 0x35, 0xd3, 0xb4, 0xe4, 0xcb, 0x1c, 0x0a, 0xd9, 0xbd, 0xe4, 0x19, 0xca,
    0xcb, 0x47, 0xba, 0x09, 0x69, 0x96, 0x46, 0x15, 0x0f, 0x9f, 0xc0, 0x00, 0xf3, 0xf8, 0x0e, 0x12,
];

impl EkTemplate {
    /// All templates that this project accepts.
    pub const ALL: [Self; 4] = [Self::Rsa2048, Self::EccP256, Self::EccP384, Self::Rsa3072];

    /// NV index of the certificate.
    #[must_use]
    pub const fn certificate_index(self) -> u32 {
        match self {
            Self::Rsa2048 => 0x01c0_0002,
            Self::EccP256 => 0x01c0_000a,
            Self::EccP384 => 0x01c0_0016,
            Self::Rsa3072 => 0x01c0_001c,
        }
    }

    /// The template, a `TPMT_PUBLIC`.
    #[must_use]
    pub fn template(self) -> Vec<u8> {
        // fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt;
        // the H- templates set userWithAuth too.
        const LOW: u32 = 0x0003_00b2;
        const HIGH: u32 = 0x0003_00f2;
        let mut out = Vec::new();
        let (kind, name_alg, attributes, policy): (u16, u16, u32, &[u8]) = match self {
            Self::Rsa2048 => (0x0001, 0x000B, LOW, &POLICY_A_SHA256),
            Self::EccP256 => (0x0023, 0x000B, LOW, &POLICY_A_SHA256),
            Self::EccP384 => (0x0023, 0x000C, HIGH, &POLICY_B_SHA384),
            Self::Rsa3072 => (0x0001, 0x000C, HIGH, &POLICY_B_SHA384),
        };
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&name_alg.to_be_bytes());
        out.extend_from_slice(&attributes.to_be_bytes());
        out.extend_from_slice(&sized(policy));
        // AES-128-CFB or AES-256-CFB, scheme TPM_ALG_NULL.
        let aes_bits: u16 = if attributes == LOW { 128 } else { 256 };
        out.extend_from_slice(&0x0006u16.to_be_bytes());
        out.extend_from_slice(&aes_bits.to_be_bytes());
        out.extend_from_slice(&[0x00, 0x43, 0x00, 0x10]);
        match self {
            Self::Rsa2048 => {
                out.extend_from_slice(&[0x08, 0x00, 0, 0, 0, 0]);
                out.extend_from_slice(&sized(&[0; 256]));
            }
            Self::Rsa3072 => out.extend_from_slice(&[0x0c, 0x00, 0, 0, 0, 0, 0, 0]),
            Self::EccP256 => {
                out.extend_from_slice(&[0x00, 0x03, 0x00, 0x10]);
                out.extend_from_slice(&sized(&[0; 32]));
                out.extend_from_slice(&sized(&[0; 32]));
            }
            Self::EccP384 => out.extend_from_slice(&[0x00, 0x04, 0x00, 0x10, 0, 0, 0, 0]),
        }
        out
    }
}

/// Who signs an EK certificate, and what is wrong with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Issuer {
    /// The manufacturer's intermediate.
    #[default]
    Intermediate,
    /// The root itself.
    Root,
    /// A certificate under the root that is no CA.
    NotCa,
    /// A CA under the root whose key usage lacks keyCertSign.
    WithoutCertSign,
    /// An intermediate under the root that has expired.
    Expired,
    /// An intermediate under the root that is not valid yet.
    NotYetValid,
    /// A CA under the intermediate, whose path length is 0.
    BelowPathLength,
    /// As many intermediates as given, each signed by the one before.
    Deep(u8),
    /// Another root and intermediate with the same names and other keys.
    Impostor,
    /// Two CAs that certify each other.
    Loop,
}

/// What goes into an EK certificate. The default is a good one.
#[derive(Clone, Debug)]
pub struct EkProfile {
    /// Who signs.
    pub issuer: Issuer,
    /// notBefore.
    pub not_before: SystemTime,
    /// notAfter; `None` is the year 9999, as manufacturers write it.
    pub not_after: Option<SystemTime>,
    /// Extended key usages; empty leaves the extension out.
    pub extended_key_usage: Vec<ObjectIdentifier>,
    /// Key usage; `None` is what the profile wants for the key's type.
    pub key_usage: Option<FlagSet<KeyUsages>>,
    /// `TPMManufacturer`, `TPMModel`, `TPMVersion`; `None` leaves the SAN out.
    pub tpm: Option<(String, String, String)>,
    /// BasicConstraints cA.
    pub ca: bool,
    /// Certify this `SubjectPublicKeyInfo` instead of the EK.
    pub other_key: Option<SubjectPublicKeyInfo<Any, BitString>>,
    /// Name the RSA key's algorithm id-RSAES-OAEP, as one manufacturer does.
    pub rsaes_oaep: bool,
    /// Add a critical extension that nobody knows.
    pub unknown_critical_extension: bool,
    /// Flip a bit of the signature.
    pub broken_signature: bool,
}

impl Default for EkProfile {
    fn default() -> Self {
        Self {
            issuer: Issuer::Intermediate,
            not_before: now() - DAY,
            not_after: Some(now() + 3650 * DAY),
            extended_key_usage: vec![EKU_EK_CERTIFICATE],
            key_usage: None,
            tpm: Some(("id:00001014".into(), "swtpm".into(), "id:20191023".into())),
            ca: false,
            other_key: None,
            rsaes_oaep: false,
            unknown_critical_extension: false,
            broken_signature: false,
        }
    }
}

/// An issued EK certificate.
#[derive(Clone, Debug)]
pub struct EkCertificate {
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// Its issuers below the root, nearest first, DER.
    pub chain: Vec<Vec<u8>>,
    /// Its serial number, for CRLs.
    pub serial: SerialNumber,
}

/// A key with its certificate.
#[derive(Clone)]
struct Authority {
    key: SigningKey,
    certificate: Certificate,
}

/// A manufacturer with a P-256 root and a P-256 intermediate.
#[derive(Clone)]
pub struct Manufacturer {
    name: String,
    root: Authority,
    intermediate: Authority,
}

impl std::fmt::Debug for Manufacturer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manufacturer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Manufacturer {
    /// A manufacturer of this name with fresh keys.
    ///
    /// # Errors
    /// [`HarnessError::Certificate`].
    pub fn new(name: &str) -> Result<Self, HarnessError> {
        let root_name = ca_name(name, "EK root")?;
        let root = Authority::issue(&CaProfile::root(root_name), None)?;
        let intermediate_name = ca_name(name, "EK intermediate")?;
        let intermediate = Authority::issue(&CaProfile::below(intermediate_name), Some(&root))?;
        Ok(Self { name: name.to_owned(), root, intermediate })
    }

    /// One manufacturer for all tests of this process that do not need their own.
    ///
    /// # Panics
    /// Its certificates cannot be made.
    #[must_use]
    #[expect(clippy::panic, reason = "without a manufacturer no test can run")]
    pub fn shared() -> Arc<Self> {
        static SHARED: OnceLock<Arc<Manufacturer>> = OnceLock::new();
        let make = || match Self::new("Assay Test TPMs") {
            Ok(made) => Arc::new(made),
            Err(error) => panic!("test manufacturer: {error}"),
        };
        Arc::clone(SHARED.get_or_init(make))
    }

    /// The root, PEM.
    ///
    /// # Errors
    /// [`HarnessError::Certificate`].
    pub fn root_pem(&self) -> Result<String, HarnessError> {
        Ok(self.root.certificate.to_pem(LineEnding::LF)?)
    }

    /// The root, DER.
    ///
    /// # Errors
    /// [`HarnessError::Certificate`].
    pub fn root_der(&self) -> Result<Vec<u8>, HarnessError> {
        Ok(self.root.certificate.to_der()?)
    }

    /// The intermediate, PEM.
    ///
    /// # Errors
    /// [`HarnessError::Certificate`].
    pub fn intermediate_pem(&self) -> Result<String, HarnessError> {
        Ok(self.intermediate.certificate.to_pem(LineEnding::LF)?)
    }

    /// The intermediate, DER.
    ///
    /// # Errors
    /// [`HarnessError::Certificate`].
    pub fn intermediate_der(&self) -> Result<Vec<u8>, HarnessError> {
        Ok(self.intermediate.certificate.to_der()?)
    }

    /// The intermediate's private key, PKCS#8 PEM, for `swtpm_localca`.
    pub(crate) fn intermediate_key_pem(&self) -> Result<String, HarnessError> {
        let pem = self.intermediate.key.to_pkcs8_pem(LineEnding::LF);
        let pem = pem.map_err(|error| HarnessError::Certificate(error.to_string()))?;
        Ok(pem.to_string())
    }

    /// Issues a certificate for an EK.
    ///
    /// # Errors
    /// [`HarnessError::Certificate`].
    pub fn issue(&self, ek: &Public, profile: &EkProfile) -> Result<EkCertificate, HarnessError> {
        let (issuer, chain) = self.issuer(profile.issuer)?;
        let mut spki = match &profile.other_key {
            Some(other) => other.clone(),
            None => spki(ek)?,
        };
        let is_rsa = spki.algorithm.oid == RSA_ENCRYPTION;
        if profile.rsaes_oaep && is_rsa {
            spki.algorithm = AlgorithmIdentifier { oid: RSAES_OAEP, parameters: None };
        }
        let key_usage = profile.key_usage.unwrap_or_else(|| {
            if is_rsa { KeyUsages::KeyEncipherment.into() } else { KeyUsages::KeyAgreement.into() }
        });
        let serial = serial()?;
        let not_after = match profile.not_after {
            Some(time) => Time::try_from(time)?,
            None => Time::INFINITY,
        };
        let validity = Validity::new(Time::try_from(profile.not_before)?, not_after);
        let leaf = LeafProfile {
            issuer: issuer.certificate.tbs_certificate().subject().clone(),
            profile,
            key_usage,
        };
        let builder = CertificateBuilder::new(leaf, serial.clone(), validity, spki)?;
        let certificate = builder.build::<_, DerSignature>(&issuer.key)?;
        let mut der = certificate.to_der()?;
        if profile.broken_signature
            && let Some(last) = der.last_mut()
        {
            *last ^= 1;
        }
        let chain = chain.iter().map(Encode::to_der).collect::<Result<_, _>>()?;
        Ok(EkCertificate { der, chain, serial })
    }

    /// Makes the EK of `template` in `tpm`, certifies it and stores the certificate where the TCG
    /// profile says. `endorsement_auth` is the endorsement hierarchy's password.
    ///
    /// # Errors
    /// The TPM refuses, or [`HarnessError::Certificate`].
    pub fn provision(
        &self,
        tpm: RawTpm,
        template: EkTemplate,
        profile: &EkProfile,
        endorsement_auth: &[u8],
    ) -> Result<EkCertificate, HarnessError> {
        let public = read_ek(tpm, template, endorsement_auth)?;
        let issued = self.issue(&public, profile)?;
        tpm.nv_store(template.certificate_index(), &issued.der)?;
        Ok(issued)
    }

    /// Stores the chain below the root in NV, as some manufacturers do.
    ///
    /// # Errors
    /// The TPM refuses.
    pub fn store_chain(tpm: RawTpm, chain: &[Vec<u8>]) -> Result<(), HarnessError> {
        // One index holds up to 1024 bytes here, so that a chain spans several, as on real parts.
        for (index, piece) in (NV_CHAIN_FIRST..).zip(chain.concat().chunks(1024)) {
            tpm.nv_store(index, piece)?;
        }
        Ok(())
    }

    /// The intermediate's CRL, DER.
    ///
    /// # Errors
    /// [`HarnessError::Certificate`].
    pub fn crl(
        &self,
        revoked: &[SerialNumber],
        this_update: SystemTime,
        next_update: SystemTime,
    ) -> Result<Vec<u8>, HarnessError> {
        self.intermediate.crl(revoked, this_update, next_update)
    }

    /// The root's CRL, DER; with `revoke_intermediate` it lists the intermediate.
    ///
    /// # Errors
    /// [`HarnessError::Certificate`].
    pub fn root_crl(
        &self,
        revoke_intermediate: bool,
        this_update: SystemTime,
        next_update: SystemTime,
    ) -> Result<Vec<u8>, HarnessError> {
        let serial = self.intermediate.certificate.tbs_certificate().serial_number().clone();
        let revoked = if revoke_intermediate { vec![serial] } else { Vec::new() };
        self.root.crl(&revoked, this_update, next_update)
    }

    /// The signer and the certificates from it up to, not including, the root.
    fn issuer(&self, kind: Issuer) -> Result<(Authority, Vec<Certificate>), HarnessError> {
        let named = |role: &str| ca_name(&self.name, role);
        let one = |profile: &CaProfile| -> Result<(Authority, Vec<Certificate>), HarnessError> {
            let made = Authority::issue(profile, Some(&self.root))?;
            let chain = vec![made.certificate.clone()];
            Ok((made, chain))
        };
        match kind {
            Issuer::Intermediate => {
                Ok((self.intermediate.clone(), vec![self.intermediate.certificate.clone()]))
            }
            Issuer::Root => Ok((self.root.clone(), Vec::new())),
            Issuer::NotCa => {
                one(&CaProfile { ca: false, path_len: None, ..CaProfile::below(named("no CA")?) })
            }
            Issuer::WithoutCertSign => one(&CaProfile {
                key_usage: KeyUsages::CRLSign.into(),
                ..CaProfile::below(named("CRL signer")?)
            }),
            Issuer::Expired => one(&CaProfile {
                not_before: now() - 30 * DAY,
                not_after: now() - DAY,
                ..CaProfile::below(named("expired intermediate")?)
            }),
            Issuer::NotYetValid => one(&CaProfile {
                not_before: now() + DAY,
                ..CaProfile::below(named("future intermediate")?)
            }),
            Issuer::BelowPathLength => {
                let profile = CaProfile::below(named("intermediate below the limit")?);
                let made = Authority::issue(&profile, Some(&self.intermediate))?;
                let chain = vec![made.certificate.clone(), self.intermediate.certificate.clone()];
                Ok((made, chain))
            }
            Issuer::Deep(depth) => {
                let mut signer = self.root.clone();
                let mut chain = Vec::new();
                for level in 1..=depth {
                    let profile = CaProfile {
                        path_len: None,
                        ..CaProfile::below(named(&format!("intermediate {level}"))?)
                    };
                    signer = Authority::issue(&profile, Some(&signer))?;
                    chain.insert(0, signer.certificate.clone());
                }
                Ok((signer, chain))
            }
            Issuer::Impostor => {
                let impostor = Self::new(&self.name)?;
                let chain = vec![impostor.intermediate.certificate.clone()];
                Ok((impostor.intermediate, chain))
            }
            Issuer::Loop => {
                let profile = |role| -> Result<CaProfile, HarnessError> {
                    Ok(CaProfile { path_len: None, ..CaProfile::below(named(role)?) })
                };
                let egg = Authority::issue(&CaProfile::root(named("egg")?), None)?;
                let hen = Authority::issue(&profile("hen")?, Some(&egg))?;
                let egg_by_hen = egg.certified_by(&profile("egg")?, &hen)?;
                Ok((hen.clone(), vec![hen.certificate, egg_by_hen]))
            }
        }
    }
}

/// Makes the EK of `template`, reads its public area and flushes it.
///
/// # Errors
/// The TPM refuses, or its public area does not decode.
pub fn read_ek(
    tpm: RawTpm,
    template: EkTemplate,
    endorsement_auth: &[u8],
) -> Result<Public, HarnessError> {
    let ek = tpm.create_primary(RH_ENDORSEMENT, endorsement_auth, &[], &template.template())?;
    tpm.flush(ek.handle)?;
    Public::decode(&ek.public).map_err(|error| HarnessError::Certificate(error.to_string()))
}

/// `SubjectPublicKeyInfo` of a TPM public key: rsaEncryption with NULL, or id-ecPublicKey with the
/// named curve and the uncompressed point.
///
/// # Errors
/// [`HarnessError::Certificate`].
pub fn spki(public: &Public) -> Result<SubjectPublicKeyInfo<Any, BitString>, HarnessError> {
    #[derive(Sequence)]
    struct RsaPublicKey<'a> {
        modulus: UintRef<'a>,
        public_exponent: UintRef<'a>,
    }
    match public.key() {
        KeyKind::Rsa { exponent, modulus, .. } => {
            let exponent = if *exponent == 0 { 65_537 } else { *exponent }.to_be_bytes();
            let key = RsaPublicKey {
                modulus: UintRef::new(modulus)?,
                public_exponent: UintRef::new(&exponent)?,
            };
            Ok(SubjectPublicKeyInfo {
                algorithm: AlgorithmIdentifier {
                    oid: RSA_ENCRYPTION,
                    parameters: Some(Any::null()),
                },
                subject_public_key: BitString::from_bytes(&key.to_der()?)?,
            })
        }
        KeyKind::Ecc { curve, x, y } => {
            let oid = match curve {
                Curve::P256 => SECP256R1,
                Curve::P384 => SECP384R1,
            };
            let mut point = vec![0x04];
            for coordinate in [x, y] {
                let padding = curve.field_bytes().saturating_sub(coordinate.len());
                point.resize(point.len() + padding, 0);
                point.extend_from_slice(coordinate);
            }
            Ok(SubjectPublicKeyInfo {
                algorithm: AlgorithmIdentifier {
                    oid: EC_PUBLIC_KEY,
                    parameters: Some(Any::encode_from(&oid)?),
                },
                subject_public_key: BitString::from_bytes(&point)?,
            })
        }
        _ => Err(HarnessError::Certificate("neither RSA nor ECC".into())),
    }
}

impl Authority {
    /// A fresh key, certified by `issuer`, or by itself where there is none.
    fn issue(profile: &CaProfile, issuer: Option<&Self>) -> Result<Self, HarnessError> {
        let key = signing_key()?;
        let signer = issuer.map_or(&key, |issuer| &issuer.key);
        let issuer_name =
            issuer.map(|issuer| issuer.certificate.tbs_certificate().subject().clone());
        let certificate = profile.sign(&key, signer, issuer_name)?;
        Ok(Self { key, certificate })
    }

    /// Another certificate for this authority's key.
    fn certified_by(
        &self,
        profile: &CaProfile,
        issuer: &Self,
    ) -> Result<Certificate, HarnessError> {
        let issuer_name = issuer.certificate.tbs_certificate().subject().clone();
        profile.sign(&self.key, &issuer.key, Some(issuer_name))
    }

    fn crl(
        &self,
        revoked: &[SerialNumber],
        this_update: SystemTime,
        next_update: SystemTime,
    ) -> Result<Vec<u8>, HarnessError> {
        let issuer = self.certificate.tbs_certificate().subject().clone();
        let algorithm = self.certificate_algorithm()?;
        let this_update = Time::try_from(this_update)?;
        let mut entries = Vec::new();
        for serial in revoked {
            entries.push(RevokedCert {
                serial_number: serial.clone(),
                revocation_date: this_update,
                crl_entry_extensions: None,
            });
        }
        let key_info = SubjectPublicKeyInfo::from_key(self.key.verifying_key())?;
        let aki = AuthorityKeyIdentifier::try_from(key_info_ref(&key_info.to_der()?)?)?;
        let mut extensions = vec![aki.to_extension(&issuer, &[])?];
        extensions.push(CrlNumber(Uint::new(&[1])?).to_extension(&issuer, &[])?);
        let tbs_cert_list = TbsCertList {
            version: Version::V2,
            signature: algorithm.clone(),
            issuer,
            this_update,
            next_update: Some(Time::try_from(next_update)?),
            revoked_certificates: (!entries.is_empty()).then_some(entries),
            crl_extensions: Some(extensions),
        };
        let signature: DerSignature = self.key.sign(&tbs_cert_list.to_der()?);
        let list = CertificateList {
            tbs_cert_list,
            signature_algorithm: algorithm,
            signature: BitString::from_bytes(signature.as_bytes())?,
        };
        Ok(list.to_der()?)
    }

    fn certificate_algorithm(&self) -> Result<AlgorithmIdentifier<Any>, HarnessError> {
        Ok(self.certificate.signature_algorithm().clone())
    }
}

/// What goes into a CA certificate.
struct CaProfile {
    subject: Name,
    ca: bool,
    path_len: Option<u8>,
    key_usage: FlagSet<KeyUsages>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl CaProfile {
    fn root(subject: Name) -> Self {
        Self { path_len: None, ..Self::below(subject) }
    }

    fn below(subject: Name) -> Self {
        Self {
            subject,
            ca: true,
            path_len: Some(0),
            key_usage: KeyUsages::KeyCertSign | KeyUsages::CRLSign,
            not_before: now() - 2 * DAY,
            not_after: now() + 7300 * DAY,
        }
    }

    fn sign(
        &self,
        key: &SigningKey,
        signer: &SigningKey,
        issuer: Option<Name>,
    ) -> Result<Certificate, HarnessError> {
        let validity =
            Validity::new(Time::try_from(self.not_before)?, Time::try_from(self.not_after)?);
        let spki = SubjectPublicKeyInfo::from_key(key.verifying_key())?;
        let profile = CaBuilderProfile { ca: self, issuer };
        let builder = CertificateBuilder::new(profile, serial()?, validity, spki)?;
        Ok(builder.build::<_, DerSignature>(signer)?)
    }
}

struct CaBuilderProfile<'a> {
    ca: &'a CaProfile,
    issuer: Option<Name>,
}

impl BuilderProfile for CaBuilderProfile<'_> {
    fn get_issuer(&self, subject: &Name) -> Name {
        self.issuer.clone().unwrap_or_else(|| subject.clone())
    }

    fn get_subject(&self) -> Name {
        self.ca.subject.clone()
    }

    fn build_extensions(
        &self,
        spk: SubjectPublicKeyInfoRef<'_>,
        issuer_spk: SubjectPublicKeyInfoRef<'_>,
        tbs: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        let subject = tbs.subject();
        let constraints =
            BasicConstraints { ca: self.ca.ca, path_len_constraint: self.ca.path_len };
        Ok(vec![
            constraints.to_extension(subject, &[])?,
            KeyUsage(self.ca.key_usage).to_extension(subject, &[])?,
            SubjectKeyIdentifier::try_from(spk)?.to_extension(subject, &[])?,
            AuthorityKeyIdentifier::try_from(issuer_spk)?.to_extension(subject, &[])?,
        ])
    }
}

struct LeafProfile<'a> {
    issuer: Name,
    profile: &'a EkProfile,
    key_usage: FlagSet<KeyUsages>,
}

impl BuilderProfile for LeafProfile<'_> {
    fn get_issuer(&self, _subject: &Name) -> Name {
        self.issuer.clone()
    }

    /// Empty, as the TCG profile recommends: the SAN names the TPM.
    fn get_subject(&self) -> Name {
        Name::default()
    }

    fn build_extensions(
        &self,
        _spk: SubjectPublicKeyInfoRef<'_>,
        issuer_spk: SubjectPublicKeyInfoRef<'_>,
        tbs: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        let subject = tbs.subject();
        let mut out = Vec::new();
        if let Some((manufacturer, model, version)) = &self.profile.tpm {
            let mut rdns = RdnSequence::default();
            let attributes =
                [(AT_MANUFACTURER, manufacturer), (AT_MODEL, model), (AT_VERSION, version)];
            for (oid, text) in attributes {
                let value = Any::new(Tag::Utf8String, text.as_bytes())?;
                let attribute = AttributeTypeAndValue { oid, value };
                rdns.push(RelativeDistinguishedName::try_from(vec![attribute])?);
            }
            let name = GeneralName::DirectoryName(Name::from_der(&rdns.to_der()?)?);
            // Critical, because the subject is empty (RFC 5280, 4.2.1.6).
            out.push((true, &SubjectAltName(vec![name])).to_extension(subject, &out)?);
        }
        let constraints = BasicConstraints { ca: self.profile.ca, path_len_constraint: None };
        out.push(constraints.to_extension(subject, &out)?);
        out.push(KeyUsage(self.key_usage).to_extension(subject, &out)?);
        if !self.profile.extended_key_usage.is_empty() {
            let usages = ExtendedKeyUsage(self.profile.extended_key_usage.clone());
            out.push((false, &usages).to_extension(subject, &out)?);
        }
        out.push(AuthorityKeyIdentifier::try_from(issuer_spk)?.to_extension(subject, &out)?);
        if self.profile.unknown_critical_extension {
            out.push(Extension {
                extn_id: UNKNOWN_EXTENSION,
                critical: true,
                extn_value: OctetString::new([0x05, 0x00])?,
            });
        }
        Ok(out)
    }
}

fn key_info_ref(der: &[u8]) -> Result<SubjectPublicKeyInfoRef<'_>, HarnessError> {
    Ok(SubjectPublicKeyInfoRef::from_der(der)?)
}

fn ca_name(manufacturer: &str, role: &str) -> Result<Name, HarnessError> {
    Ok(format!("CN={manufacturer} {role},O={manufacturer},C=DE").parse()?)
}

fn signing_key() -> Result<SigningKey, HarnessError> {
    // A random scalar is out of range once in 2^32 times.
    for _ in 0..8 {
        let mut scalar = [0; 32];
        fill_random(&mut scalar)?;
        if let Ok(key) = SigningKey::from_slice(&scalar) {
            return Ok(key);
        }
    }
    Err(HarnessError::Certificate("no valid P-256 scalar".into()))
}

fn serial() -> Result<SerialNumber, HarnessError> {
    let mut bytes = [0; 16];
    fill_random(&mut bytes)?;
    // Positive, and of the same length every time.
    bytes[0] = (bytes[0] & 0x3f) | 0x40;
    Ok(SerialNumber::new(&bytes)?)
}

fn fill_random(bytes: &mut [u8]) -> Result<(), HarnessError> {
    rand::fill(bytes).map_err(|_| HarnessError::Certificate("no randomness".into()))
}

/// Now: certificates of the harness are judged by a real clock.
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}
