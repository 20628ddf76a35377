//! `TPMT_PUBLIC` with any field.

use proto::{
    digest::HashAlg,
    tpm::{
        credential::sized,
        public::{ObjectAttributes, Public},
    },
};

use crate::key::{Algorithm, SigningKey};

const ALG_NULL: u16 = 0x0010;

/// Attributes of an honest AK.
pub const AK_ATTRIBUTES: u32 = ObjectAttributes::FIXED_TPM
    | ObjectAttributes::FIXED_PARENT
    | ObjectAttributes::SENSITIVE_DATA_ORIGIN
    | ObjectAttributes::USER_WITH_AUTH
    | ObjectAttributes::NO_DA
    | ObjectAttributes::RESTRICTED
    | ObjectAttributes::SIGN
    | ObjectAttributes::ST_CLEAR;

/// Attributes of an honest node key.
pub const NODE_KEY_ATTRIBUTES: u32 = ObjectAttributes::FIXED_TPM
    | ObjectAttributes::FIXED_PARENT
    | ObjectAttributes::SENSITIVE_DATA_ORIGIN
    | ObjectAttributes::USER_WITH_AUTH
    | ObjectAttributes::NO_DA
    | ObjectAttributes::SIGN;

/// Attributes of a storage key: an EK by TCG's L templates.
pub const EK_ATTRIBUTES: u32 = 0x0003_00b2;

/// A public area in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicTemplate {
    /// `TPM_ALG_RSA` (1) or `TPM_ALG_ECC` (0x23).
    pub kind: u16,
    /// `TPM_ALG_ID`.
    pub name_alg: u16,
    /// `TPMA_OBJECT`.
    pub attributes: u32,
    /// `authPolicy`.
    pub auth_policy: Vec<u8>,
    /// AES key bits of a storage key; `None` for a signing key.
    pub aes_bits: Option<u16>,
    /// `TPM_ALG_ID` of the scheme, and of its hash where it has one.
    pub scheme: (u16, Option<u16>),
    /// RSA: keyBits and exponent. ECC: curve and kdf.
    pub parameters: Parameters,
    /// Modulus, or x and y.
    pub unique: Vec<Vec<u8>>,
}

/// Parameters after the scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameters {
    /// Size and exponent.
    Rsa {
        /// Bits.
        key_bits: u16,
        /// 0 for 65537.
        exponent: u32,
    },
    /// Curve; the kdf scheme is null.
    Ecc {
        /// `TPM_ECC_CURVE`.
        curve: u16,
    },
}

impl PublicTemplate {
    /// An AK.
    #[must_use]
    pub fn ak(key: &SigningKey) -> Self {
        let (scheme, hash) = key.algorithm().scheme();
        Self::signing(key, AK_ATTRIBUTES, (scheme, Some(hash)))
    }

    /// A node key: its scheme is left open.
    #[must_use]
    pub fn node_key(key: &SigningKey) -> Self {
        Self::signing(key, NODE_KEY_ATTRIBUTES, (ALG_NULL, None))
    }

    fn signing(key: &SigningKey, attributes: u32, scheme: (u16, Option<u16>)) -> Self {
        let parameters = match key.algorithm() {
            Algorithm::EcdsaP256 => Parameters::Ecc { curve: 3 },
            Algorithm::EcdsaP384 => Parameters::Ecc { curve: 4 },
            Algorithm::RsaSsa(key_bits, _) | Algorithm::RsaPss(key_bits, _) => {
                Parameters::Rsa { key_bits, exponent: 0 }
            }
        };
        Self {
            kind: if matches!(parameters, Parameters::Rsa { .. }) { 1 } else { 0x23 },
            name_alg: HashAlg::Sha256.tpm_id(),
            attributes,
            auth_policy: Vec::new(),
            aes_bits: None,
            scheme,
            parameters,
            unique: key.unique(),
        }
    }

    /// The structure's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.kind.to_be_bytes().to_vec();
        out.extend(self.name_alg.to_be_bytes());
        out.extend(self.attributes.to_be_bytes());
        out.extend(sized(&self.auth_policy));
        match self.aes_bits {
            Some(bits) => {
                out.extend(0x0006_u16.to_be_bytes());
                out.extend(bits.to_be_bytes());
                out.extend(0x0043_u16.to_be_bytes());
            }
            None => out.extend(ALG_NULL.to_be_bytes()),
        }
        let (scheme, hash) = self.scheme;
        out.extend(scheme.to_be_bytes());
        out.extend(hash.iter().flat_map(|hash| hash.to_be_bytes()));
        match self.parameters {
            Parameters::Rsa { key_bits, exponent } => {
                out.extend(key_bits.to_be_bytes());
                out.extend(exponent.to_be_bytes());
            }
            Parameters::Ecc { curve } => {
                out.extend(curve.to_be_bytes());
                out.extend(ALG_NULL.to_be_bytes());
            }
        }
        for part in &self.unique {
            out.extend(sized(part));
        }
        out
    }

    /// Decoded.
    ///
    /// # Panics
    /// If it does not decode.
    #[must_use]
    pub fn public(&self) -> Public {
        Public::decode(&self.encode()).expect("a public area that decodes")
    }
}
