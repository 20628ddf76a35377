//! `TPMT_PUBLIC`: public areas of EK, AK, node key and the NULL primary.

use super::{
    DecodeError, DecodeErrorKind,
    constants::{
        ALG_AES, ALG_CFB, ALG_ECC, ALG_ECDSA, ALG_NULL, ALG_OAEP, ALG_RSA, ALG_RSAES, ALG_RSAPSS,
        ALG_RSASSA, ECC_NIST_P256, ECC_NIST_P384,
    },
    name::Name,
    reader::Reader,
};
use crate::digest::HashAlg;

/// `TPMA_OBJECT`.
///
/// # Source
/// TPM 2.0 Library Part 2, "TPMA_OBJECT".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectAttributes(pub u32);

impl ObjectAttributes {
    /// The hierarchy, and this TPM, cannot change.
    pub const FIXED_TPM: u32 = 1 << 1;
    /// Saved contexts end with `TPM2_Startup(CLEAR)`.
    pub const ST_CLEAR: u32 = 1 << 2;
    /// The parent cannot change.
    pub const FIXED_PARENT: u32 = 1 << 4;
    /// The TPM made the sensitive part.
    pub const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
    /// USER role by authValue.
    pub const USER_WITH_AUTH: u32 = 1 << 6;
    /// ADMIN role by policy only.
    pub const ADMIN_WITH_POLICY: u32 = 1 << 7;
    /// Not subject to dictionary attack protection.
    pub const NO_DA: u32 = 1 << 10;
    /// Duplicable only with encryption.
    pub const ENCRYPTED_DUPLICATION: u32 = 1 << 11;
    /// Operates only on TPM-generated structures.
    pub const RESTRICTED: u32 = 1 << 16;
    /// May decrypt.
    pub const DECRYPT: u32 = 1 << 17;
    /// May sign (or encrypt).
    pub const SIGN: u32 = 1 << 18;

    /// Whether every bit of `mask` is set.
    #[must_use]
    pub const fn has(self, mask: u32) -> bool {
        self.0 & mask == mask
    }
}

/// An elliptic curve that this project accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curve {
    /// `TPM_ECC_NIST_P256`.
    P256,
    /// `TPM_ECC_NIST_P384`.
    P384,
}

impl Curve {
    /// Size of a coordinate, bytes.
    #[must_use]
    pub const fn field_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }
}

/// `TPMT_SYM_DEF_OBJECT` of a storage key; only AES-CFB is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AesCfb {
    /// 128 or 256.
    pub key_bits: u16,
}

/// Signing scheme in a public area or a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningScheme {
    /// `TPM_ALG_RSASSA`: RSASSA-PKCS1-v1_5.
    RsaSsa(HashAlg),
    /// `TPM_ALG_RSAPSS`.
    RsaPss(HashAlg),
    /// `TPM_ALG_ECDSA`.
    Ecdsa(HashAlg),
}

impl SigningScheme {
    /// The scheme's hash.
    #[must_use]
    pub const fn hash_alg(self) -> HashAlg {
        match self {
            Self::RsaSsa(alg) | Self::RsaPss(alg) | Self::Ecdsa(alg) => alg,
        }
    }
}

/// What a public area says of the use of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme {
    /// `TPM_ALG_NULL`.
    Null,
    /// A signing scheme.
    Signing(SigningScheme),
    /// A decryption scheme (`RSAES`, `OAEP`).
    Decryption(u16),
}

/// Type-specific parameters and the public key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyKind {
    /// `TPM_ALG_RSA`.
    Rsa {
        /// Modulus size, bits, as declared.
        key_bits: u16,
        /// Public exponent; 0 stands for 65537.
        exponent: u32,
        /// `TPM2B_PUBLIC_KEY_RSA`: the modulus, big-endian.
        modulus: Vec<u8>,
    },
    /// `TPM_ALG_ECC`.
    Ecc {
        /// The curve.
        curve: Curve,
        /// x as it stands in the structure (leading zeros may be stripped).
        x: Vec<u8>,
        /// y as it stands in the structure.
        y: Vec<u8>,
    },
}

/// A decoded public area that remembers its bytes.
///
/// # Format
/// `TPMT_PUBLIC`, RSA or ECC on P-256/P-384, nameAlg SHA-256/384/512.
///
/// # Does not prove
/// Anything: attributes and key are judged by the appraisal.
///
/// # Source
/// TPM 2.0 Library Part 2, "TPMT_PUBLIC".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Public {
    raw: Vec<u8>,
    name_alg: HashAlg,
    attributes: ObjectAttributes,
    auth_policy: Vec<u8>,
    symmetric: Option<AesCfb>,
    scheme: Scheme,
    key: KeyKind,
}

/// Modulus of RSA-4096.
const MAX_RSA_BYTES: usize = 512;

impl Public {
    /// Decodes one `TPMT_PUBLIC`, consuming all of `bytes`.
    ///
    /// # Errors
    /// [`DecodeError`] with the offset; key types other than RSA and ECC, other curves and hash
    /// algorithms are `Unsupported`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u16()?;
        let name_alg = hash_alg(&mut reader, "nameAlg")?;
        let attributes = ObjectAttributes(reader.u32()?);
        let auth_policy = reader.sized("authPolicy", 64)?.to_vec();
        let (symmetric, scheme, key) = match kind {
            ALG_RSA => rsa(&mut reader)?,
            ALG_ECC => ecc(&mut reader)?,
            found => {
                return Err(DecodeError {
                    at: 0,
                    kind: DecodeErrorKind::Unsupported { what: "type", found: found.into() },
                });
            }
        };
        reader.finish()?;
        Ok(Self { raw: bytes.to_vec(), name_alg, attributes, auth_policy, symmetric, scheme, key })
    }

    /// The structure's bytes, as received.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.raw
    }

    /// The Name: `nameAlg ‖ H(TPMT_PUBLIC)`.
    #[must_use]
    pub fn name(&self) -> Name {
        Name::of(self.name_alg, &self.raw)
    }

    /// `nameAlg`.
    #[must_use]
    pub const fn name_alg(&self) -> HashAlg {
        self.name_alg
    }

    /// `objectAttributes`.
    #[must_use]
    pub const fn attributes(&self) -> ObjectAttributes {
        self.attributes
    }

    /// `authPolicy`, empty where there is none.
    #[must_use]
    pub fn auth_policy(&self) -> &[u8] {
        &self.auth_policy
    }

    /// Symmetric algorithm of a storage key.
    #[must_use]
    pub const fn symmetric(&self) -> Option<AesCfb> {
        self.symmetric
    }

    /// Scheme.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Type and key.
    #[must_use]
    pub const fn key(&self) -> &KeyKind {
        &self.key
    }
}

/// A hash algorithm identifier, one of those that are appraised.
pub(super) fn hash_alg(
    reader: &mut Reader<'_>,
    what: &'static str,
) -> Result<HashAlg, DecodeError> {
    let at = reader.offset();
    let found = reader.u16()?;
    HashAlg::from_tpm(found)
        .ok_or(DecodeError { at, kind: DecodeErrorKind::Unsupported { what, found: found.into() } })
}

type Parts = (Option<AesCfb>, Scheme, KeyKind);

fn rsa(reader: &mut Reader<'_>) -> Result<Parts, DecodeError> {
    let symmetric = symmetric(reader)?;
    let scheme = scheme(reader)?;
    let key_bits = reader.u16()?;
    let exponent = reader.u32()?;
    let modulus = reader.sized("RSA modulus", MAX_RSA_BYTES)?.to_vec();
    Ok((symmetric, scheme, KeyKind::Rsa { key_bits, exponent, modulus }))
}

fn ecc(reader: &mut Reader<'_>) -> Result<Parts, DecodeError> {
    let symmetric = symmetric(reader)?;
    let scheme = scheme(reader)?;
    let at = reader.offset();
    let curve = match reader.u16()? {
        ECC_NIST_P256 => Curve::P256,
        ECC_NIST_P384 => Curve::P384,
        found => {
            return Err(DecodeError {
                at,
                kind: DecodeErrorKind::Unsupported { what: "curveID", found: found.into() },
            });
        }
    };
    let at = reader.offset();
    // kdf: no key that is appraised uses one.
    match reader.u16()? {
        ALG_NULL => {}
        found => {
            return Err(DecodeError {
                at,
                kind: DecodeErrorKind::Unsupported { what: "kdf scheme", found: found.into() },
            });
        }
    }
    let x = reader.sized("ECC x", curve.field_bytes())?.to_vec();
    let y = reader.sized("ECC y", curve.field_bytes())?.to_vec();
    Ok((symmetric, scheme, KeyKind::Ecc { curve, x, y }))
}

fn symmetric(reader: &mut Reader<'_>) -> Result<Option<AesCfb>, DecodeError> {
    let at = reader.offset();
    match reader.u16()? {
        ALG_NULL => Ok(None),
        ALG_AES => {
            let at = reader.offset();
            let key_bits = reader.u16()?;
            if !matches!(key_bits, 128 | 256) {
                return Err(DecodeError {
                    at,
                    kind: DecodeErrorKind::Unsupported {
                        what: "AES keyBits",
                        found: key_bits.into(),
                    },
                });
            }
            let at = reader.offset();
            match reader.u16()? {
                ALG_CFB => Ok(Some(AesCfb { key_bits })),
                found => Err(DecodeError {
                    at,
                    kind: DecodeErrorKind::Unsupported { what: "AES mode", found: found.into() },
                }),
            }
        }
        found => Err(DecodeError {
            at,
            kind: DecodeErrorKind::Unsupported { what: "symmetric algorithm", found: found.into() },
        }),
    }
}

fn scheme(reader: &mut Reader<'_>) -> Result<Scheme, DecodeError> {
    let at = reader.offset();
    Ok(match reader.u16()? {
        ALG_NULL => Scheme::Null,
        ALG_RSAES => Scheme::Decryption(ALG_RSAES),
        ALG_OAEP => {
            hash_alg(reader, "OAEP hash")?;
            Scheme::Decryption(ALG_OAEP)
        }
        ALG_RSASSA => Scheme::Signing(SigningScheme::RsaSsa(hash_alg(reader, "RSASSA hash")?)),
        ALG_RSAPSS => Scheme::Signing(SigningScheme::RsaPss(hash_alg(reader, "RSAPSS hash")?)),
        ALG_ECDSA => Scheme::Signing(SigningScheme::Ecdsa(hash_alg(reader, "ECDSA hash")?)),
        found => {
            return Err(DecodeError {
                at,
                kind: DecodeErrorKind::Unsupported { what: "scheme", found: found.into() },
            });
        }
    })
}
