//! Public keys: P-256, P-384 and RSA, proven to be keys.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use const_oid::db::rfc5912::{ID_EC_PUBLIC_KEY, RSA_ENCRYPTION, SECP_256_R_1, SECP_384_R_1};
use der::{
    Decode as _,
    asn1::{ObjectIdentifier, UintRef},
};
use sha2::{Digest as _, Sha256};
use spki::SubjectPublicKeyInfoOwned;

use crate::base64url;

/// Shortest RSA modulus, bits.
///
/// # Source
/// RFC 7518, "Digital Signature with RSASSA-PKCS1-v1_5": 2048 or more.
pub const MIN_RSA_BITS: usize = 2048;
/// Longest RSA modulus, bits: what the library that verifies accepts; verifying takes longer with
/// the square of it.
pub const MAX_RSA_BITS: usize = 8192;
/// 65537, as a JWK writes it: the only exponent accepted.
const EXPONENT: [u8; 3] = [1, 0, 1];

/// Named curve of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curve {
    /// secp256r1.
    P256,
    /// secp384r1.
    P384,
}

impl Curve {
    /// The name, as `crv` has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
        }
    }

    /// Size of a coordinate, bytes.
    #[must_use]
    pub const fn field_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED,
            Self::P384 => &ECDSA_P384_SHA384_FIXED,
        }
    }
}

/// Why numbers are not a public key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyProblem {
    /// A coordinate does not have its curve's size.
    #[error("a coordinate of {curve} has {found} bytes", curve = .curve.as_str())]
    Coordinate {
        /// The curve.
        curve: Curve,
        /// The coordinate's size, bytes.
        found: usize,
    },
    /// No point of the curve.
    #[error("the point is not on {curve}", curve = .0.as_str())]
    Point(Curve),
    /// An RSA modulus with a leading zero, even, too short or too long.
    #[error(
        "the RSA modulus is not an odd number of {MIN_RSA_BITS} to {MAX_RSA_BITS} bits without \
         leading zeros"
    )]
    Modulus,
    /// Another exponent than 65537.
    #[error("the RSA exponent is not 65537")]
    Exponent,
    /// A certificate's key that does not decode, or of another type.
    #[error("the certificate's key is neither RSA nor on P-256 or P-384 in uncompressed form")]
    Encoding,
}

/// A public key that signatures can be verified with.
///
/// # Proves
/// A point is on its curve; an RSA modulus has an accepted size, is odd, and the exponent is 65537.
///
/// # Does not prove
/// Whose key it is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey(Kind);

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Ec {
        curve: Curve,
        /// `04 ‖ x ‖ y`.
        point: Vec<u8>,
    },
    /// The exponent is [`EXPONENT`].
    Rsa { modulus: Vec<u8> },
}

impl PublicKey {
    /// A key on a named curve; big-endian coordinates of exactly the curve's size.
    ///
    /// # Errors
    /// [`KeyProblem::Coordinate`], [`KeyProblem::Point`].
    pub fn ec(curve: Curve, x: &[u8], y: &[u8]) -> Result<Self, KeyProblem> {
        for coordinate in [x, y] {
            if coordinate.len() != curve.field_bytes() {
                return Err(KeyProblem::Coordinate { curve, found: coordinate.len() });
            }
        }
        let point = [&[0x04], x, y].concat();
        UnparsedPublicKey::new(curve.verification(), &point)
            .parse()
            .map_err(|_| KeyProblem::Point(curve))?;
        Ok(Self(Kind::Ec { curve, point }))
    }

    /// An RSA key; big-endian numbers without leading zeros.
    ///
    /// # Errors
    /// [`KeyProblem::Modulus`], [`KeyProblem::Exponent`].
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyProblem> {
        if exponent != EXPONENT {
            return Err(KeyProblem::Exponent);
        }
        let (Some(first), Some(last)) = (modulus.first(), modulus.last()) else {
            return Err(KeyProblem::Modulus);
        };
        if *first == 0 || last % 2 == 0 || modulus.len() > MAX_RSA_BITS / 8 {
            return Err(KeyProblem::Modulus);
        }
        // At most 7 of the first byte's bits are zero, and the length is bounded.
        let bits = modulus.len() * 8 - first.leading_zeros() as usize;
        if bits < MIN_RSA_BITS {
            return Err(KeyProblem::Modulus);
        }
        RsaPublicKeyComponents { n: modulus, e: &EXPONENT }
            .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
            .map_err(|_| KeyProblem::Modulus)?;
        Ok(Self(Kind::Rsa { modulus: modulus.to_vec() }))
    }

    /// The key of a `SubjectPublicKeyInfo`, DER.
    ///
    /// # Errors
    /// [`KeyProblem`].
    pub fn from_spki_der(der: &[u8]) -> Result<Self, KeyProblem> {
        let spki = SubjectPublicKeyInfoOwned::from_der(der).map_err(|_| KeyProblem::Encoding)?;
        Self::from_spki(&spki)
    }

    pub(crate) fn from_spki(spki: &SubjectPublicKeyInfoOwned) -> Result<Self, KeyProblem> {
        let bits = spki.subject_public_key.as_bytes().ok_or(KeyProblem::Encoding)?;
        let parameters = spki.algorithm.parameters.as_ref().ok_or(KeyProblem::Encoding)?;
        if spki.algorithm.oid == ID_EC_PUBLIC_KEY {
            let curve: ObjectIdentifier =
                parameters.decode_as().map_err(|_| KeyProblem::Encoding)?;
            let curve = match curve {
                SECP_256_R_1 => Curve::P256,
                SECP_384_R_1 => Curve::P384,
                _ => return Err(KeyProblem::Encoding),
            };
            let point = bits.strip_prefix(&[0x04]).ok_or(KeyProblem::Encoding)?;
            let (x, y) = point.split_at_checked(curve.field_bytes()).ok_or(KeyProblem::Encoding)?;
            return Self::ec(curve, x, y);
        }
        if spki.algorithm.oid != RSA_ENCRYPTION || !parameters.is_null() {
            return Err(KeyProblem::Encoding);
        }
        let numbers = RsaNumbers::from_der(bits).map_err(|_| KeyProblem::Encoding)?;
        Self::rsa(numbers.modulus.as_bytes(), numbers.exponent.as_bytes())
    }

    /// The key as `SubjectPublicKeyInfo`, DER.
    #[must_use]
    pub fn to_spki_der(&self) -> Vec<u8> {
        match &self.0 {
            Kind::Ec { curve, point } => {
                let size = curve.field_bytes();
                // A point is a byte 04 and two coordinates of this size.
                let (x, y) =
                    point.get(1..).and_then(|rest| rest.split_at_checked(size)).unwrap_or_default();
                let curve = match curve {
                    Curve::P256 => proto::tpm::public::Curve::P256,
                    Curve::P384 => proto::tpm::public::Curve::P384,
                };
                proto::spki::ecc_spki(curve, x, y)
            }
            Kind::Rsa { modulus } => proto::spki::rsa_spki(modulus, &EXPONENT),
        }
    }

    /// The curve; `None` for RSA.
    #[must_use]
    pub const fn curve(&self) -> Option<Curve> {
        match &self.0 {
            Kind::Ec { curve, .. } => Some(*curve),
            Kind::Rsa { .. } => None,
        }
    }

    /// SHA-256 of the key's required members, in base64url: a `kid` that nobody has to think up.
    ///
    /// # Source
    /// RFC 7638.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        let text = match &self.0 {
            Kind::Ec { curve, .. } => {
                let [x, y] = self.coordinates().unwrap_or_default();
                format!(r#"{{"crv":"{}","kty":"EC","x":"{x}","y":"{y}"}}"#, curve.as_str())
            }
            Kind::Rsa { modulus } => {
                format!(r#"{{"e":"AQAB","kty":"RSA","n":"{}"}}"#, base64url::encode(modulus))
            }
        };
        base64url::encode(&Sha256::digest(text.as_bytes()))
    }

    pub(crate) const fn kind(&self) -> &Kind {
        &self.0
    }

    /// `x` and `y` in base64url; `None` for RSA.
    pub(crate) fn coordinates(&self) -> Option<[String; 2]> {
        let Kind::Ec { curve, point } = &self.0 else { return None };
        let (x, y) = point.get(1..)?.split_at_checked(curve.field_bytes())?;
        Some([base64url::encode(x), base64url::encode(y)])
    }

    pub(crate) fn rsa_components(&self) -> Option<RsaPublicKeyComponents<&[u8]>> {
        match &self.0 {
            Kind::Rsa { modulus } => Some(RsaPublicKeyComponents { n: modulus, e: &EXPONENT }),
            Kind::Ec { .. } => None,
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.curve().map_or("RSA", Curve::as_str);
        f.debug_tuple("PublicKey").field(&kind).field(&self.thumbprint()).finish()
    }
}

/// Corresponds to `RSAPublicKey` of RFC 8017.
#[derive(der::Sequence)]
struct RsaNumbers<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}
