//! Signature algorithms.

use std::{fmt, str::FromStr};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RsaParameters, VerificationAlgorithm,
};

use crate::public_key::{Curve, Kind, PublicKey};

/// A signature algorithm that can be allowed. There is no `none`, and nothing symmetric.
///
/// # Source
/// RFC 7518, "Digital Signatures and MACs".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256, 64 bytes.
    Es256,
    /// ECDSA on P-384 with SHA-384, 96 bytes.
    Es384,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Es256, Self::Es384, Self::Ps256, Self::Rs256, Self::Rs384, Self::Rs512];

    /// The name, as `alg` has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Ps256 => "PS256",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
        }
    }

    /// Whether a key of this type can make such signatures: the curve is part of the algorithm.
    #[must_use]
    pub const fn fits(self, key: &PublicKey) -> bool {
        match self {
            Self::Es256 => matches!(key.curve(), Some(Curve::P256)),
            Self::Es384 => matches!(key.curve(), Some(Curve::P384)),
            Self::Ps256 | Self::Rs256 | Self::Rs384 | Self::Rs512 => key.curve().is_none(),
        }
    }

    /// Whether `signature` over `message` is by `key`; never for a key that does not fit.
    #[must_use]
    pub(crate) fn verifies(self, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
        match (self, key.kind()) {
            (Self::Es256, Kind::Ec { curve: Curve::P256, point }) => {
                verifies_ec(&ECDSA_P256_SHA256_FIXED, point, message, signature)
            }
            (Self::Es384, Kind::Ec { curve: Curve::P384, point }) => {
                verifies_ec(&ECDSA_P384_SHA384_FIXED, point, message, signature)
            }
            (Self::Ps256, Kind::Rsa { .. }) => {
                verifies_rsa(&RSA_PSS_2048_8192_SHA256, key, message, signature)
            }
            (Self::Rs256, Kind::Rsa { .. }) => {
                verifies_rsa(&RSA_PKCS1_2048_8192_SHA256, key, message, signature)
            }
            (Self::Rs384, Kind::Rsa { .. }) => {
                verifies_rsa(&RSA_PKCS1_2048_8192_SHA384, key, message, signature)
            }
            (Self::Rs512, Kind::Rsa { .. }) => {
                verifies_rsa(&RSA_PKCS1_2048_8192_SHA512, key, message, signature)
            }
            _ => false,
        }
    }
}

fn verifies_ec(
    algorithm: &'static dyn VerificationAlgorithm,
    point: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    aws_lc_rs::signature::UnparsedPublicKey::new(algorithm, point)
        .verify(message, signature)
        .is_ok()
}

fn verifies_rsa(
    parameters: &'static RsaParameters,
    key: &PublicKey,
    message: &[u8],
    signature: &[u8],
) -> bool {
    key.rsa_components().is_some_and(|key| key.verify(parameters, message, signature).is_ok())
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no algorithm that can be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a signature algorithm is one of ES256, ES384, PS256, RS256, RS384 and RS512")]
pub struct UnknownAlgorithm;

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == text).ok_or(UnknownAlgorithm)
    }
}
