//! Public areas that this worker asks its TPM for, written byte by byte after the specifications.
//!
//! # Sources
//! TCG EK Credential Profile for TPM Family 2.0 (templates L-1, L-2 and H-1 to H-6); TPM 2.0 Library
//! Part 2, "TPMT_PUBLIC".

use std::{fmt, str::FromStr};

use proto::{
    digest::HashAlg,
    tpm::{
        constants::{
            ALG_AES, ALG_CFB, ALG_ECC, ALG_ECDSA, ALG_NULL, ALG_RSA, ALG_RSASSA, ECC_NIST_P256,
            ECC_NIST_P384,
        },
        credential::sized,
        public::{KeyKind, ObjectAttributes as A, Public},
    },
};
use serde::{Deserialize, Serialize};

/// PolicySecret(`TPM_RH_ENDORSEMENT`): PolicyA of the profile, SHA-256.
const POLICY_A_SHA256: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24,
    0xfd, 0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];
/// PolicySecret(`TPM_RH_ENDORSEMENT`), SHA-384.
const POLICY_A_SHA384: [u8; 48] = [
    0x8b, 0xbf, 0x22, 0x66, 0x53, 0x7c, 0x17, 0x1c, 0xb5, 0x6e, 0x40, 0x3c, 0x4d, 0xc1, 0xd4, 0xb6,
    0x4f, 0x43, 0x26, 0x11, 0xdc, 0x38, 0x6e, 0x6f, 0x53, 0x20, 0x50, 0xc3, 0x27, 0x8c, 0x93, 0x0e,
    0x14, 0x3e, 0x8b, 0xb1, 0x13, 0x38, 0x24, 0xcc, 0xb4, 0x31, 0x05, 0x38, 0x71, 0xc6, 0xdb, 0x53,
];
/// PolicyAuthorizeNV over index 0x01c07f01: PolicyC of the profile, SHA-256.
const POLICY_C_SHA256: [u8; 32] = [
    0x37, 0x67, 0xe2, 0xed, 0xd4, 0x3f, 0xf4, 0x5a, 0x3a, 0x7e, 0x1e, 0xae, 0xfc, 0xef, 0x78, 0x64,
    0x3d, 0xca, 0x96, 0x46, 0x32, 0xe7, 0xaa, 0xd8, 0x2c, 0x67, 0x3a, 0x30, 0xd8, 0x63, 0x3f, 0xde,
];
/// PolicyAuthorizeNV over index 0x01c07f02, SHA-384.
const POLICY_C_SHA384: [u8; 48] = [
    0xd6, 0x03, 0x2c, 0xe6, 0x1f, 0x2f, 0xb3, 0xc2, 0x40, 0xeb, 0x3c, 0xf6, 0xa3, 0x32, 0x37, 0xef,
    0x2b, 0x6a, 0x16, 0xf4, 0x29, 0x3c, 0x22, 0xb4, 0x55, 0xe2, 0x61, 0xcf, 0xfd, 0x21, 0x7a, 0xd5,
    0xb4, 0x94, 0x7c, 0x2d, 0x73, 0xe6, 0x30, 0x05, 0xee, 0xd2, 0xdc, 0x2b, 0x35, 0x93, 0xd1, 0x65,
];
/// PolicyOR(PolicyA, PolicyC): PolicyB of the profile, SHA-256.
const POLICY_B_SHA256: [u8; 32] = [
    0xca, 0x3d, 0x0a, 0x99, 0xa2, 0xb9, 0x39, 0x06, 0xf7, 0xa3, 0x34, 0x24, 0x14, 0xef, 0xcf, 0xb3,
    0xa3, 0x85, 0xd4, 0x4c, 0xd1, 0xfd, 0x45, 0x90, 0x89, 0xd1, 0x9b, 0x50, 0x71, 0xc0, 0xb7, 0xa0,
];
/// PolicyOR(PolicyA, PolicyC), SHA-384.
const POLICY_B_SHA384: [u8; 48] = [
    0xb2, 0x6e, 0x7d, 0x28, 0xd1, 0x1a, 0x50, 0xbc, 0x53, 0xd8, 0x82, 0xbc, 0xf5, 0xfd, 0x3a, 0x1a,
    0x07, 0x41, 0x48, 0xbb, 0x35, 0xd3, 0xb4, 0xe4, 0xcb, 0x1c, 0x0a, 0xd9, 0xbd, 0xe4, 0x19, 0xca,
    0xcb, 0x47, 0xba, 0x09, 0x69, 0x96, 0x46, 0x15, 0x0f, 0x9f, 0xc0, 0x00, 0xf3, 0xf8, 0x0e, 0x12,
];

/// Key type and size of an endorsement key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EkAlgorithm {
    /// ECC on NIST P-256.
    #[serde(rename = "ecc-p256")]
    EccP256,
    /// ECC on NIST P-384.
    #[serde(rename = "ecc-p384")]
    EccP384,
    /// RSA with 2048 bits.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
    /// RSA with 3072 bits.
    #[serde(rename = "rsa-3072")]
    Rsa3072,
}

/// Which endorsement key to use where the TPM has several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EkPreference {
    /// P-256, P-384, RSA-2048, RSA-3072: the first one whose certificate is there; without any
    /// certificate P-256, then RSA-2048.
    #[default]
    Auto,
    /// Only this one.
    Only(EkAlgorithm),
}

impl EkAlgorithm {
    /// All, in the order of preference.
    pub const ALL: [Self; 4] = [Self::EccP256, Self::EccP384, Self::Rsa2048, Self::Rsa3072];

    /// As written in configurations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EccP256 => "ecc-p256",
            Self::EccP384 => "ecc-p384",
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa3072 => "rsa-3072",
        }
    }

    /// Templates that make such a key, low range first.
    #[must_use]
    pub const fn templates(self) -> &'static [EkTemplate] {
        match self {
            Self::EccP256 => &[EkTemplate::L2, EkTemplate::H2],
            Self::EccP384 => &[EkTemplate::H3],
            Self::Rsa2048 => &[EkTemplate::L1, EkTemplate::H1],
            Self::Rsa3072 => &[EkTemplate::H6],
        }
    }
}

impl fmt::Display for EkAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An endorsement key preference that is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("endorsement key {0:?} is not one of auto, ecc-p256, ecc-p384, rsa-2048, rsa-3072")]
pub struct EkPreferenceError(String);

impl FromStr for EkPreference {
    type Err = EkPreferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        EkAlgorithm::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == text)
            .map(Self::Only)
            .ok_or_else(|| EkPreferenceError(text.to_owned()))
    }
}

impl fmt::Display for EkPreference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Only(algorithm) => algorithm.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for EkPreference {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl EkPreference {
    /// Templates to look at, best first.
    pub fn templates(self) -> impl Iterator<Item = EkTemplate> {
        EkAlgorithm::ALL
            .into_iter()
            .filter(move |algorithm| match self {
                Self::Auto => true,
                Self::Only(only) => only == *algorithm,
            })
            .flat_map(|algorithm| algorithm.templates().iter().copied())
    }
}

/// A default template of the EK Credential Profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum EkTemplate {
    /// RSA-2048, low range.
    #[serde(rename = "L-1")]
    L1,
    /// P-256, low range.
    #[serde(rename = "L-2")]
    L2,
    /// RSA-2048, high range.
    #[serde(rename = "H-1")]
    H1,
    /// P-256, high range.
    #[serde(rename = "H-2")]
    H2,
    /// P-384.
    #[serde(rename = "H-3")]
    H3,
    /// RSA-3072.
    #[serde(rename = "H-6")]
    H6,
}

/// How the endorsement key lets itself be used as a parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EkUse {
    /// Only by `TPM2_PolicySecret(TPM_RH_ENDORSEMENT)`.
    PolicySecret,
    /// By its (empty) password only.
    Password,
    /// By its (empty) password, or by PolicyOR over these two policies, the first of them being
    /// `TPM2_PolicySecret(TPM_RH_ENDORSEMENT)`.
    PasswordOrPolicy(&'static [u8], &'static [u8]),
}

impl EkTemplate {
    /// All that this program knows.
    pub const ALL: [Self; 6] = [Self::L1, Self::L2, Self::H1, Self::H2, Self::H3, Self::H6];

    /// The profile's name: `L-2`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::L1 => "L-1",
            Self::L2 => "L-2",
            Self::H1 => "H-1",
            Self::H2 => "H-2",
            Self::H3 => "H-3",
            Self::H6 => "H-6",
        }
    }

    /// Key type and size.
    #[must_use]
    pub const fn algorithm(self) -> EkAlgorithm {
        match self {
            Self::L1 | Self::H1 => EkAlgorithm::Rsa2048,
            Self::L2 | Self::H2 => EkAlgorithm::EccP256,
            Self::H3 => EkAlgorithm::EccP384,
            Self::H6 => EkAlgorithm::Rsa3072,
        }
    }

    /// NV index of the certificate.
    #[must_use]
    pub const fn certificate_index(self) -> u32 {
        match self {
            Self::L1 => 0x01c0_0002,
            Self::L2 => 0x01c0_000a,
            Self::H1 => 0x01c0_0012,
            Self::H2 => 0x01c0_0014,
            Self::H3 => 0x01c0_0016,
            Self::H6 => 0x01c0_001c,
        }
    }

    /// NV index of the manufacturer's nonce; the low range only.
    #[must_use]
    pub const fn nonce_index(self) -> Option<u32> {
        match self {
            Self::L1 => Some(0x01c0_0003),
            Self::L2 => Some(0x01c0_000b),
            _ => None,
        }
    }

    /// NV index of the manufacturer's own template, which replaces the default one.
    #[must_use]
    pub const fn template_index(self) -> u32 {
        match self {
            Self::L1 => 0x01c0_0004,
            Self::L2 => 0x01c0_000c,
            // High range: the odd index after the certificate.
            other => other.certificate_index() + 1,
        }
    }

    /// The default `TPMT_PUBLIC`.
    ///
    /// # Format
    /// Low range: unique is all zeros of the key's size (a nonce is written over its start);
    /// high range: unique is empty.
    #[must_use]
    pub fn public(self) -> Vec<u8> {
        const COMMON: u32 = A::FIXED_TPM
            | A::FIXED_PARENT
            | A::SENSITIVE_DATA_ORIGIN
            | A::ADMIN_WITH_POLICY
            | A::RESTRICTED
            | A::DECRYPT;
        const HIGH: u32 = COMMON | A::USER_WITH_AUTH;
        let storage = |aes_bits: u16| Symmetric::Aes(aes_bits);
        match self {
            Self::L1 => rsa(
                HashAlg::Sha256,
                COMMON,
                &POLICY_A_SHA256,
                storage(128),
                Scheme::Null,
                2048,
                &[0; 256],
            ),
            Self::H1 => {
                rsa(HashAlg::Sha256, HIGH, &POLICY_B_SHA256, storage(128), Scheme::Null, 2048, &[])
            }
            Self::H6 => {
                rsa(HashAlg::Sha384, HIGH, &POLICY_B_SHA384, storage(256), Scheme::Null, 3072, &[])
            }
            Self::L2 => ecc(
                HashAlg::Sha256,
                COMMON,
                &POLICY_A_SHA256,
                storage(128),
                Scheme::Null,
                ECC_NIST_P256,
                &[0; 32],
            ),
            Self::H2 => ecc(
                HashAlg::Sha256,
                HIGH,
                &POLICY_B_SHA256,
                storage(128),
                Scheme::Null,
                ECC_NIST_P256,
                &[],
            ),
            Self::H3 => ecc(
                HashAlg::Sha384,
                HIGH,
                &POLICY_B_SHA384,
                storage(256),
                Scheme::Null,
                ECC_NIST_P384,
                &[],
            ),
        }
    }
}

impl fmt::Display for EkTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl EkUse {
    /// How a key with this public area lets itself be used; `None` for a policy that is not one of
    /// the profile's and no password either.
    #[must_use]
    pub fn of(public: &Public) -> Option<Self> {
        let policy = public.auth_policy();
        if policy == POLICY_A_SHA256 || policy == POLICY_A_SHA384 {
            return Some(Self::PolicySecret);
        }
        let user_with_auth = public.attributes().has(A::USER_WITH_AUTH);
        match policy {
            _ if policy == POLICY_B_SHA256 => {
                Some(Self::PasswordOrPolicy(&POLICY_A_SHA256, &POLICY_C_SHA256))
            }
            _ if policy == POLICY_B_SHA384 => {
                Some(Self::PasswordOrPolicy(&POLICY_A_SHA384, &POLICY_C_SHA384))
            }
            _ if user_with_auth => Some(Self::Password),
            _ => None,
        }
    }
}

/// A template with the manufacturer's nonce at the start of unique, the rest of it zeros.
///
/// `None` where the nonce is longer than unique can be, or `template` is not a public area.
#[must_use]
pub fn with_nonce(template: &[u8], nonce: &[u8]) -> Option<Vec<u8>> {
    let public = Public::decode(template).ok()?;
    let (unique_bytes, len, coordinates) = match public.key() {
        KeyKind::Rsa { key_bits, modulus, .. } => {
            (2 + modulus.len(), usize::from(*key_bits) / 8, 1)
        }
        KeyKind::Ecc { curve, x, y } => (2 + x.len() + 2 + y.len(), curve.field_bytes(), 2),
        _ => return None,
    };
    if nonce.len() > len {
        return None;
    }
    let mut unique = nonce.to_vec();
    unique.resize(len, 0);
    let mut out = template.get(..template.len().checked_sub(unique_bytes)?)?.to_vec();
    out.extend(sized(&unique));
    if coordinates == 2 {
        out.extend(sized(&vec![0; len]));
    }
    Some(out)
}

/// Whether `public` was made from `template`, as far as a public area can show: everything but
/// unique is the same.
#[must_use]
pub fn fits(template: &[u8], public: &Public) -> bool {
    let Ok(template) = Public::decode(template) else { return false };
    let same_key = match (template.key(), public.key()) {
        (
            KeyKind::Rsa { key_bits: a, exponent: e, .. },
            KeyKind::Rsa { key_bits: b, exponent: f, .. },
        ) => a == b && e == f,
        (KeyKind::Ecc { curve: a, .. }, KeyKind::Ecc { curve: b, .. }) => a == b,
        _ => false,
    };
    same_key
        && template.name_alg() == public.name_alg()
        && template.attributes() == public.attributes()
        && template.auth_policy() == public.auth_policy()
        && template.symmetric() == public.symmetric()
        && template.scheme() == public.scheme()
}

/// Attributes of the attestation key: restricted signing, never leaves the TPM or its parent,
/// no dictionary attack protection (its password is empty), contexts end with the boot.
const AK_ATTRIBUTES: u32 = A::FIXED_TPM
    | A::ST_CLEAR
    | A::FIXED_PARENT
    | A::SENSITIVE_DATA_ORIGIN
    | A::USER_WITH_AUTH
    | A::NO_DA
    | A::RESTRICTED
    | A::SIGN;

/// Attestation key: P-256, ECDSA with SHA-256.
#[must_use]
pub fn ak_ecc() -> Vec<u8> {
    ecc(HashAlg::Sha256, AK_ATTRIBUTES, &[], Symmetric::Null, Scheme::Ecdsa, ECC_NIST_P256, &[])
}

/// Attestation key where the TPM lacks P-256: RSA-2048, RSASSA with SHA-256.
#[must_use]
pub fn ak_rsa() -> Vec<u8> {
    rsa(HashAlg::Sha256, AK_ATTRIBUTES, &[], Symmetric::Null, Scheme::RsaSsa, 2048, &[])
}

/// Storage primary over the node key, in the NULL hierarchy: the P-256 template that OpenSSL's tpm2
/// provider and tpm2-tss-engine use for a parent that is a hierarchy.
#[must_use]
pub fn null_primary() -> Vec<u8> {
    let attributes = A::FIXED_TPM
        | A::FIXED_PARENT
        | A::SENSITIVE_DATA_ORIGIN
        | A::USER_WITH_AUTH
        | A::NO_DA
        | A::RESTRICTED
        | A::DECRYPT;
    ecc(HashAlg::Sha256, attributes, &[], Symmetric::Aes(128), Scheme::Null, ECC_NIST_P256, &[])
}

/// Node key: P-256, unrestricted signing, scheme chosen at each signature; adminWithPolicy clear.
#[must_use]
pub fn node_key() -> Vec<u8> {
    let attributes = A::FIXED_TPM
        | A::FIXED_PARENT
        | A::SENSITIVE_DATA_ORIGIN
        | A::USER_WITH_AUTH
        | A::NO_DA
        | A::SIGN;
    ecc(HashAlg::Sha256, attributes, &[], Symmetric::Null, Scheme::Null, ECC_NIST_P256, &[])
}

/// `TPMT_SYM_DEF_OBJECT`.
enum Symmetric {
    Null,
    /// AES in CFB mode, key bits.
    Aes(u16),
}

/// `TPMT_*_SCHEME`, SHA-256 where one is named.
enum Scheme {
    Null,
    Ecdsa,
    RsaSsa,
}

fn head(
    kind: u16,
    alg: HashAlg,
    attributes: u32,
    policy: &[u8],
    sym: Symmetric,
    scheme: Scheme,
) -> Vec<u8> {
    let mut out = kind.to_be_bytes().to_vec();
    out.extend(alg.tpm_id().to_be_bytes());
    out.extend(attributes.to_be_bytes());
    out.extend(sized(policy));
    match sym {
        Symmetric::Null => out.extend(ALG_NULL.to_be_bytes()),
        Symmetric::Aes(bits) => {
            for field in [ALG_AES, bits, ALG_CFB] {
                out.extend(field.to_be_bytes());
            }
        }
    }
    let scheme = match scheme {
        Scheme::Null => None,
        Scheme::Ecdsa => Some(ALG_ECDSA),
        Scheme::RsaSsa => Some(ALG_RSASSA),
    };
    match scheme {
        None => out.extend(ALG_NULL.to_be_bytes()),
        Some(scheme) => {
            out.extend(scheme.to_be_bytes());
            out.extend(HashAlg::Sha256.tpm_id().to_be_bytes());
        }
    }
    out
}

fn rsa(
    alg: HashAlg,
    attributes: u32,
    policy: &[u8],
    sym: Symmetric,
    scheme: Scheme,
    bits: u16,
    unique: &[u8],
) -> Vec<u8> {
    let mut out = head(ALG_RSA, alg, attributes, policy, sym, scheme);
    out.extend(bits.to_be_bytes());
    // Exponent 0 stands for 65537.
    out.extend(0_u32.to_be_bytes());
    out.extend(sized(unique));
    out
}

fn ecc(
    alg: HashAlg,
    attributes: u32,
    policy: &[u8],
    sym: Symmetric,
    scheme: Scheme,
    curve: u16,
    coordinate: &[u8],
) -> Vec<u8> {
    let mut out = head(ALG_ECC, alg, attributes, policy, sym, scheme);
    out.extend(curve.to_be_bytes());
    out.extend(ALG_NULL.to_be_bytes());
    out.extend(sized(coordinate));
    out.extend(sized(coordinate));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `TPM_CC_PolicyOR`, `TPM_CC_PolicySecret`.
    const CC_POLICY_OR: u32 = 0x171;
    const CC_POLICY_SECRET: u32 = 0x151;

    #[test]
    fn policies_are_what_a_tpm_would_compute() {
        for (alg, a, b, c) in [
            (
                HashAlg::Sha256,
                POLICY_A_SHA256.as_slice(),
                POLICY_B_SHA256.as_slice(),
                POLICY_C_SHA256.as_slice(),
            ),
            (HashAlg::Sha384, &POLICY_A_SHA384, &POLICY_B_SHA384, &POLICY_C_SHA384),
        ] {
            let zeros = vec![0; alg.len_bytes()];
            // H(H(zeros ‖ CC ‖ Name(endorsement)) ‖ policyRef), policyRef empty.
            let secret = alg.hash(&[
                &zeros,
                &CC_POLICY_SECRET.to_be_bytes(),
                &proto::tpm::constants::RH_ENDORSEMENT.to_be_bytes(),
            ]);
            assert_eq!(alg.hash(&[secret.as_bytes()]).as_bytes(), a, "PolicyA {alg}");
            let or = alg.hash(&[&zeros, &CC_POLICY_OR.to_be_bytes(), a, c]);
            assert_eq!(or.as_bytes(), b, "PolicyB {alg}");
        }
    }

    #[test]
    fn templates_decode_as_what_they_say() {
        for template in EkTemplate::ALL {
            let public = Public::decode(&template.public()).expect("a public area");
            assert!(
                public.attributes().has(A::RESTRICTED | A::DECRYPT | A::FIXED_TPM),
                "{template}"
            );
            let low = matches!(template, EkTemplate::L1 | EkTemplate::L2);
            assert_eq!(public.attributes().has(A::USER_WITH_AUTH), !low, "{template}");
            let key = match public.key() {
                KeyKind::Rsa { key_bits: 2048, .. } => EkAlgorithm::Rsa2048,
                KeyKind::Rsa { .. } => EkAlgorithm::Rsa3072,
                KeyKind::Ecc { curve, .. } if curve.field_bytes() == 32 => EkAlgorithm::EccP256,
                _ => EkAlgorithm::EccP384,
            };
            assert_eq!(key, template.algorithm(), "{template}");
        }
        for public in [ak_ecc(), ak_rsa(), null_primary(), node_key()] {
            let public = Public::decode(&public).expect("a public area");
            assert!(!public.attributes().has(A::ADMIN_WITH_POLICY));
            assert!(public.auth_policy().is_empty());
        }
    }

    #[test]
    fn a_nonce_stands_at_the_start_of_unique() {
        let nonce = [0xab; 20];
        for (template, len) in [
            (EkTemplate::L1, 256),
            (EkTemplate::L2, 32),
            (EkTemplate::H3, 48),
            (EkTemplate::H6, 384),
        ] {
            let bytes = with_nonce(&template.public(), &nonce).expect("fits");
            let public = Public::decode(&bytes).expect("a public area");
            let (KeyKind::Rsa { modulus: unique, .. } | KeyKind::Ecc { x: unique, .. }) =
                public.key()
            else {
                panic!("RSA or ECC");
            };
            assert_eq!(unique.len(), len);
            assert_eq!(unique[..20], nonce);
            assert!(unique[20..].iter().all(|byte| *byte == 0));
            assert!(fits(&template.public(), &public));
            assert_eq!(with_nonce(&template.public(), &vec![0; len + 1]), None);
        }
        assert_eq!(with_nonce(&[], &nonce), None);
    }

    #[test]
    fn usage_follows_from_the_public_area() {
        for template in EkTemplate::ALL {
            let public = Public::decode(&template.public()).expect("a public area");
            let usage = EkUse::of(&public);
            match template {
                EkTemplate::L1 | EkTemplate::L2 => assert_eq!(usage, Some(EkUse::PolicySecret)),
                _ => assert!(matches!(usage, Some(EkUse::PasswordOrPolicy(..))), "{template}"),
            }
            for other in EkTemplate::ALL {
                assert_eq!(fits(&other.public(), &public), other == template, "{template} {other}");
            }
        }
        let password = Public::decode(&null_primary()).expect("a public area");
        assert_eq!(EkUse::of(&password), Some(EkUse::Password));
    }

    #[test]
    fn preferences_parse() {
        assert_eq!("auto".parse(), Ok(EkPreference::Auto));
        for algorithm in EkAlgorithm::ALL {
            assert_eq!(algorithm.name().parse(), Ok(EkPreference::Only(algorithm)));
        }
        assert_eq!(
            "rsa".parse::<EkPreference>().expect_err("refused").to_string(),
            "endorsement key \"rsa\" is not one of auto, ecc-p256, ecc-p384, rsa-2048, rsa-3072"
        );
        let order: Vec<_> = EkPreference::Auto.templates().map(EkTemplate::name).collect();
        assert_eq!(order, ["L-2", "H-2", "H-3", "L-1", "H-1", "H-6"]);
    }
}
