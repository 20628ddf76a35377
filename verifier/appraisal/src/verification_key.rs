//! Signature verification with a TPM key: one key, one scheme, one padding.

use std::sync::Arc;

use aws_lc_rs::{
    rsa::PublicKeyComponents,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ParsedPublicKey,
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PSS_2048_8192_SHA256,
        RSA_PSS_2048_8192_SHA384, RsaParameters,
    },
};
use proto::{
    digest::HashAlg,
    tpm::{
        public::{Curve, KeyKind, Public, Scheme, SigningScheme},
        signature::{Signature, SignatureValue},
    },
};

/// The modulus sizes of AKs that are accepted, bits.
const AK_RSA_BITS: [u16; 3] = [2048, 3072, 4096];

/// A parsed verification key with the one scheme its public area fixes.
///
/// Parsed once per boot and shared: verification is all that a renewal costs.
#[derive(Clone, Debug)]
pub struct VerificationKey {
    scheme: SigningScheme,
    key: Arc<ParsedPublicKey>,
    /// Signature size: coordinate size for ECDSA, modulus size for RSA; bytes.
    size_bytes: usize,
}

/// Why a public area is not a verification key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Type, size, curve or hash is not accepted.
    #[error("type, size, curve or hash is not accepted")]
    Algorithm,
    /// No fixed signing scheme.
    #[error("no fixed signing scheme")]
    Scheme,
    /// Exponent, modulus or point is bad.
    #[error("exponent, modulus or point is bad")]
    Weak,
}

/// Why a signature does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The signature's scheme or hash is not the key's.
    #[error("the signature's scheme or hash is not the key's")]
    SchemeMismatch,
    /// Wrong size or wrong value.
    #[error("the signature does not verify")]
    Invalid,
}

impl VerificationKey {
    /// The verification key in a signing key's public area.
    ///
    /// # Errors
    /// [`KeyError`]. RSA exponents other than 0 (65537) and 65537, even or short moduli, and points
    /// that are not on their curve are `Weak`.
    pub fn from_public(public: &Public) -> Result<Self, KeyError> {
        let Scheme::Signing(scheme) = public.scheme() else {
            return Err(KeyError::Scheme);
        };
        Self::with_scheme(public, scheme)
    }

    /// The key with a scheme of the caller's: for keys whose public area leaves it open.
    ///
    /// # Errors
    /// As [`VerificationKey::from_public`].
    pub fn with_scheme(public: &Public, scheme: SigningScheme) -> Result<Self, KeyError> {
        match public.key() {
            KeyKind::Ecc { curve, x, y } => {
                let algorithm = match (curve, scheme) {
                    (Curve::P256, SigningScheme::Ecdsa(HashAlg::Sha256)) => {
                        &ECDSA_P256_SHA256_FIXED
                    }
                    (Curve::P384, SigningScheme::Ecdsa(HashAlg::Sha384)) => {
                        &ECDSA_P384_SHA384_FIXED
                    }
                    _ => return Err(KeyError::Algorithm),
                };
                let point = uncompressed_point(*curve, x, y).ok_or(KeyError::Weak)?;
                let key = ParsedPublicKey::new(algorithm, point).map_err(|_| KeyError::Weak)?;
                Ok(Self { scheme, key: Arc::new(key), size_bytes: curve.field_bytes() })
            }
            KeyKind::Rsa { key_bits, exponent, modulus } => {
                let params: &'static RsaParameters = match scheme {
                    SigningScheme::RsaSsa(HashAlg::Sha256) => &RSA_PKCS1_2048_8192_SHA256,
                    SigningScheme::RsaSsa(HashAlg::Sha384) => &RSA_PKCS1_2048_8192_SHA384,
                    SigningScheme::RsaPss(HashAlg::Sha256) => &RSA_PSS_2048_8192_SHA256,
                    SigningScheme::RsaPss(HashAlg::Sha384) => &RSA_PSS_2048_8192_SHA384,
                    _ => return Err(KeyError::Algorithm),
                };
                if !AK_RSA_BITS.contains(key_bits) {
                    return Err(KeyError::Algorithm);
                }
                let size_bytes = usize::from(*key_bits) / 8;
                let full_size = modulus.len() == size_bytes
                    && modulus.first().is_some_and(|byte| *byte >= 0x80);
                let odd = modulus.last().is_some_and(|byte| byte & 1 == 1);
                if !matches!(exponent, 0 | 65_537) || !full_size || !odd {
                    return Err(KeyError::Weak);
                }
                let key = PublicKeyComponents { n: modulus.as_slice(), e: &[1, 0, 1] }
                    .to_parsed_public_key(params)
                    .map_err(|_| KeyError::Weak)?;
                Ok(Self { scheme, key: Arc::new(key), size_bytes })
            }
            _ => Err(KeyError::Algorithm),
        }
    }

    /// The scheme.
    #[must_use]
    pub const fn scheme(&self) -> SigningScheme {
        self.scheme
    }

    /// Verifies `signature` over `message`.
    ///
    /// # Errors
    /// [`SignatureError::SchemeMismatch`] before any arithmetic, else [`SignatureError::Invalid`].
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), SignatureError> {
        if signature.untrusted_scheme != self.scheme {
            return Err(SignatureError::SchemeMismatch);
        }
        match &signature.value {
            SignatureValue::Ecc { r, s } => {
                let mut fixed = [0_u8; 96];
                let size = self.size_bytes;
                let out = fixed.get_mut(..size * 2).ok_or(SignatureError::Invalid)?;
                let (r_out, s_out) = out.split_at_mut(size);
                pad_into(r_out, r).ok_or(SignatureError::Invalid)?;
                pad_into(s_out, s).ok_or(SignatureError::Invalid)?;
                self.key.verify_sig(message, out).map_err(|_| SignatureError::Invalid)
            }
            SignatureValue::Rsa(value) => {
                if value.len() != self.size_bytes {
                    return Err(SignatureError::Invalid);
                }
                self.key.verify_sig(message, value).map_err(|_| SignatureError::Invalid)
            }
        }
    }
}

/// `0x04 ‖ x ‖ y` with coordinates padded to the field size; `None` if one is too long.
#[must_use]
pub fn uncompressed_point(curve: Curve, x: &[u8], y: &[u8]) -> Option<Vec<u8>> {
    let size = curve.field_bytes();
    let mut point = vec![0; 1 + 2 * size];
    let (tag, coordinates) = point.split_first_mut()?;
    *tag = 0x04;
    let (x_out, y_out) = coordinates.split_at_mut(size);
    pad_into(x_out, x)?;
    pad_into(y_out, y)?;
    Some(point)
}

/// Copies a big-endian number right-aligned; `None` if it does not fit.
fn pad_into(out: &mut [u8], number: &[u8]) -> Option<()> {
    let start = out.len().checked_sub(number.len())?;
    let (zeros, value) = out.split_at_mut(start);
    zeros.fill(0);
    value.copy_from_slice(number);
    Some(())
}
