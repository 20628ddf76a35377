//! Public keys and signatures of certificates and CRLs.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA256_ASN1,
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA512_ASN1, ECDSA_P521_SHA256_ASN1, ECDSA_P521_SHA384_ASN1,
    ECDSA_P521_SHA512_ASN1, EcdsaVerificationAlgorithm,
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use proto::{
    limits::MAX_CERTIFICATE_BYTES,
    spki::{ecc_spki, rsa_public_key, rsa_spki},
    tpm::public::Curve,
};

use super::{
    der::{DerError, DerErrorKind, Reader, Span, dotted, strip_leading_zeros, tag},
    oddity::{Oddities, Oddity},
};

/// rsaEncryption, 1.2.840.113549.1.1.1.
const OID_RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// id-RSAES-OAEP, 1.2.840.113549.1.1.7.
const OID_RSAES_OAEP: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07];
/// The arc of PKCS #1, without its last part.
const OID_PKCS1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
/// id-ecPublicKey, 1.2.840.10045.2.1.
const OID_EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// ecdsa-with-SHA2, 1.2.840.10045.4.3, without its last part.
const OID_ECDSA_SHA2: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];

/// A named curve of certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EcCurve {
    /// secp256r1.
    P256,
    /// secp384r1.
    P384,
    /// secp521r1: manufacturer CAs only, never an EK.
    P521,
}

impl EcCurve {
    const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    /// Content of the curve's object identifier.
    #[must_use]
    pub const fn oid(self) -> &'static [u8] {
        match self {
            Self::P256 => &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
            Self::P384 => &[0x2b, 0x81, 0x04, 0x00, 0x22],
            Self::P521 => &[0x2b, 0x81, 0x04, 0x00, 0x23],
        }
    }

    /// Size of a coordinate, bytes.
    #[must_use]
    pub const fn field_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

impl fmt::Display for EcCurve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        })
    }
}

/// The key of a `SubjectPublicKeyInfo`, borrowed from its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubjectKey<'a> {
    /// An elliptic curve key.
    Ec {
        /// Its curve.
        curve: EcCurve,
        /// `04 ‖ x ‖ y`, of the curve's size; not proven to be on the curve.
        point: &'a [u8],
    },
    /// An RSA key.
    Rsa {
        /// Big-endian, without leading zeros.
        modulus: &'a [u8],
        /// Big-endian, without leading zeros.
        exponent: &'a [u8],
    },
    /// A key that cannot be used here: object identifier of its algorithm, dotted.
    Unsupported(String),
}

impl SubjectKey<'_> {
    /// `SubjectPublicKeyInfo` in the one form that this project compares and hashes; `None` for
    /// unsupported keys and for P-521, which no EK has.
    #[must_use]
    pub fn canonical_spki(&self) -> Option<Vec<u8>> {
        match self {
            Self::Ec { curve, point } => {
                let curve = match curve {
                    EcCurve::P256 => Curve::P256,
                    EcCurve::P384 => Curve::P384,
                    EcCurve::P521 => return None,
                };
                let (x, y) = point.strip_prefix(&[4])?.split_at_checked(curve.field_bytes())?;
                Some(ecc_spki(curve, x, y))
            }
            Self::Rsa { modulus, exponent } => Some(rsa_spki(modulus, exponent)),
            Self::Unsupported(_) => None,
        }
    }

    /// Content of the `subjectPublicKey`: what key identifiers are a hash of; `None` for unsupported
    /// keys.
    #[must_use]
    pub(crate) fn public_key_bits(&self) -> Option<Vec<u8>> {
        match self {
            Self::Ec { point, .. } => Some(point.to_vec()),
            Self::Rsa { modulus, exponent } => Some(rsa_public_key(modulus, exponent)),
            Self::Unsupported(_) => None,
        }
    }
}

/// For listings: `RSA-2048`, `P-384`.
impl fmt::Display for SubjectKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ec { curve, .. } => curve.fmt(f),
            Self::Rsa { modulus, .. } => write!(f, "RSA-{}", bit_length(modulus)),
            Self::Unsupported(oid) => write!(f, "unsupported ({oid})"),
        }
    }
}

/// Where a key's parts lie in its certificate.
#[derive(Clone, Debug)]
pub(crate) enum KeySpans {
    Ec { curve: EcCurve, point: Span },
    Rsa { modulus: Span, exponent: Span },
    Unsupported(String),
}

impl KeySpans {
    pub(crate) fn key<'a>(&self, document: &'a [u8]) -> SubjectKey<'a> {
        match self {
            Self::Ec { curve, point } => {
                SubjectKey::Ec { curve: *curve, point: point.of(document) }
            }
            Self::Rsa { modulus, exponent } => SubjectKey::Rsa {
                modulus: strip_leading_zeros(modulus.of(document)),
                exponent: strip_leading_zeros(exponent.of(document)),
            },
            Self::Unsupported(oid) => SubjectKey::Unsupported(oid.clone()),
        }
    }
}

/// Reads a document that is a `SubjectPublicKeyInfo` and nothing else.
pub(crate) fn parse_spki(document: &[u8]) -> Result<KeySpans, DerError> {
    if document.len() > MAX_CERTIFICATE_BYTES {
        let kind = DerErrorKind::Limit(MAX_CERTIFICATE_BYTES);
        return Err(DerError { at: 0, what: "public key", kind });
    }
    let mut reader = Reader::new(document);
    let spans = read_spki(&mut reader, &mut Oddities::default())?;
    reader.finish("public key")?;
    Ok(spans)
}

/// Reads a `SubjectPublicKeyInfo`.
pub(super) fn read_spki(
    outer: &mut Reader<'_>,
    oddities: &mut Oddities,
) -> Result<KeySpans, DerError> {
    const WHAT: &str = "subjectPublicKeyInfo";
    let mut spki = outer.enter(tag::SEQUENCE, WHAT)?;
    let mut algorithm = spki.enter(tag::SEQUENCE, "subjectPublicKeyInfo.algorithm")?;
    let oid = algorithm.oid("subjectPublicKeyInfo.algorithm")?;
    let bits = spki.octet_bits("subjectPublicKey")?;
    spki.finish(WHAT)?;
    match oid {
        OID_RSA_ENCRYPTION | OID_RSAES_OAEP => {
            if oid == OID_RSAES_OAEP {
                // Its parameters, if any, choose hashes for encryption; the TPM's EK decides those.
                oddities.add(Oddity::RsaesOaepKey);
                if !algorithm.is_empty() {
                    algorithm.expect(tag::SEQUENCE, "RSAES-OAEP parameters")?;
                }
            } else {
                read_null(&mut algorithm, "rsaEncryption parameters")?;
            }
            algorithm.finish("subjectPublicKeyInfo.algorithm")?;
            let mut bits = outer.within(bits);
            let mut key = bits.enter(tag::SEQUENCE, "RSAPublicKey")?;
            bits.finish("RSAPublicKey")?;
            let modulus = unsigned(&mut key, "RSA modulus")?;
            let exponent = unsigned(&mut key, "RSA exponent")?;
            key.finish("RSAPublicKey")?;
            Ok(KeySpans::Rsa { modulus, exponent })
        }
        OID_EC_PUBLIC_KEY => {
            let Some(named) = algorithm.optional(tag::OID, "namedCurve")? else {
                return Ok(KeySpans::Unsupported(format!(
                    "{}, curve not named",
                    dotted(OID_EC_PUBLIC_KEY)
                )));
            };
            algorithm.finish("subjectPublicKeyInfo.algorithm")?;
            let named = outer.bytes(named.body);
            let Some(curve) = EcCurve::ALL.into_iter().find(|curve| curve.oid() == named) else {
                return Ok(KeySpans::Unsupported(format!("curve {}", dotted(named))));
            };
            let point = outer.bytes(bits);
            if point.len() != 1 + 2 * curve.field_bytes() || point.first() != Some(&4) {
                return Err(DerError {
                    at: bits.start(),
                    what: "subjectPublicKey",
                    kind: DerErrorKind::Value("point is not uncompressed or of another curve"),
                });
            }
            Ok(KeySpans::Ec { curve, point: bits })
        }
        other => Ok(KeySpans::Unsupported(dotted(other))),
    }
}

/// A non-negative INTEGER; surplus leading zeros are the reader's to strip.
fn unsigned(reader: &mut Reader<'_>, what: &'static str) -> Result<Span, DerError> {
    let element = reader.expect(tag::INTEGER, what)?;
    match reader.bytes(element.body) {
        [first, ..] if *first < 0x80 => Ok(element.body),
        _ => Err(reader.error_at(element, what, "integer is empty or negative")),
    }
}

/// NULL or nothing.
fn read_null(reader: &mut Reader<'_>, what: &'static str) -> Result<bool, DerError> {
    match reader.optional(tag::NULL, what)? {
        Some(null) if reader.bytes(null.body).is_empty() => Ok(true),
        Some(null) => Err(reader.error_at(null, what, "NULL is not empty")),
        None => Ok(false),
    }
}

/// How a certificate or CRL is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignatureAlgorithm {
    /// ecdsa-with-SHA256.
    EcdsaSha256,
    /// ecdsa-with-SHA384.
    EcdsaSha384,
    /// ecdsa-with-SHA512.
    EcdsaSha512,
    /// sha1WithRSAEncryption.
    RsaSha1,
    /// sha256WithRSAEncryption.
    RsaSha256,
    /// sha384WithRSAEncryption.
    RsaSha384,
    /// sha512WithRSAEncryption.
    RsaSha512,
    /// Anything else: its object identifier, dotted.
    Unsupported(String),
}

impl SignatureAlgorithm {
    /// Reads an `AlgorithmIdentifier`.
    pub(super) fn read(
        outer: &mut Reader<'_>,
        oddities: &mut Oddities,
    ) -> Result<(Self, Span), DerError> {
        const WHAT: &str = "signature algorithm";
        let element = outer.expect(tag::SEQUENCE, WHAT)?;
        let mut reader = outer.inside(element);
        let oid = reader.oid(WHAT)?;
        let known = match oid.split_last() {
            Some((last, OID_PKCS1)) => match last {
                5 => Some(Self::RsaSha1),
                11 => Some(Self::RsaSha256),
                12 => Some(Self::RsaSha384),
                13 => Some(Self::RsaSha512),
                _ => None,
            },
            Some((last, OID_ECDSA_SHA2)) => match last {
                2 => Some(Self::EcdsaSha256),
                3 => Some(Self::EcdsaSha384),
                4 => Some(Self::EcdsaSha512),
                _ => None,
            },
            _ => None,
        };
        let Some(known) = known else {
            return Ok((Self::Unsupported(dotted(oid)), element.whole));
        };
        let null = read_null(&mut reader, "signature algorithm parameters")?;
        reader.finish(WHAT)?;
        let ecdsa = matches!(known, Self::EcdsaSha256 | Self::EcdsaSha384 | Self::EcdsaSha512);
        if ecdsa && null {
            oddities.add(Oddity::EcdsaNullParameters);
        }
        Ok((known, element.whole))
    }

    /// Checks `signature` of `message` by `key`.
    ///
    /// RSA keys of less than 2048 or more than 8192 bits are unsupported. SHA-1 is checked here
    /// like the others; where it may stand is path validation's to say.
    ///
    /// # Errors
    /// [`SignatureFailure`].
    pub fn verify(
        &self,
        key: &SubjectKey<'_>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureFailure> {
        match (key, self.scheme()) {
            (SubjectKey::Rsa { modulus, exponent }, Some(Scheme::Rsa(parameters))) => {
                if !(2048..=8192).contains(&bit_length(modulus)) {
                    return Err(SignatureFailure::Unsupported);
                }
                RsaPublicKeyComponents { n: *modulus, e: *exponent }
                    .verify(parameters, message, signature)
                    .map_err(|_| SignatureFailure::Invalid)
            }
            (SubjectKey::Ec { curve, point }, Some(Scheme::Ecdsa(algorithms))) => {
                let algorithm = match curve {
                    EcCurve::P256 => algorithms[0],
                    EcCurve::P384 => algorithms[1],
                    EcCurve::P521 => algorithms[2],
                };
                UnparsedPublicKey::new(algorithm, point)
                    .verify(message, signature)
                    .map_err(|_| SignatureFailure::Invalid)
            }
            (SubjectKey::Unsupported(_), _) | (_, None) => Err(SignatureFailure::Unsupported),
            // An RSA signature cannot be of an EC key, nor the other way round.
            (SubjectKey::Rsa { .. }, Some(Scheme::Ecdsa(_)))
            | (SubjectKey::Ec { .. }, Some(Scheme::Rsa(_))) => Err(SignatureFailure::Invalid),
        }
    }

    const fn scheme(&self) -> Option<Scheme> {
        Some(match self {
            Self::EcdsaSha256 => Scheme::Ecdsa([
                &ECDSA_P256_SHA256_ASN1,
                &ECDSA_P384_SHA256_ASN1,
                &ECDSA_P521_SHA256_ASN1,
            ]),
            Self::EcdsaSha384 => Scheme::Ecdsa([
                &ECDSA_P256_SHA384_ASN1,
                &ECDSA_P384_SHA384_ASN1,
                &ECDSA_P521_SHA384_ASN1,
            ]),
            Self::EcdsaSha512 => Scheme::Ecdsa([
                &ECDSA_P256_SHA512_ASN1,
                &ECDSA_P384_SHA512_ASN1,
                &ECDSA_P521_SHA512_ASN1,
            ]),
            Self::RsaSha1 => Scheme::Rsa(&RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY),
            Self::RsaSha256 => Scheme::Rsa(&RSA_PKCS1_2048_8192_SHA256),
            Self::RsaSha384 => Scheme::Rsa(&RSA_PKCS1_2048_8192_SHA384),
            Self::RsaSha512 => Scheme::Rsa(&RSA_PKCS1_2048_8192_SHA512),
            Self::Unsupported(_) => return None,
        })
    }
}

/// OpenSSL's and RFC 5758's names.
impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EcdsaSha256 => f.write_str("ecdsa-with-SHA256"),
            Self::EcdsaSha384 => f.write_str("ecdsa-with-SHA384"),
            Self::EcdsaSha512 => f.write_str("ecdsa-with-SHA512"),
            Self::RsaSha1 => f.write_str("sha1WithRSAEncryption"),
            Self::RsaSha256 => f.write_str("sha256WithRSAEncryption"),
            Self::RsaSha384 => f.write_str("sha384WithRSAEncryption"),
            Self::RsaSha512 => f.write_str("sha512WithRSAEncryption"),
            Self::Unsupported(oid) => write!(f, "unsupported ({oid})"),
        }
    }
}

/// The library's algorithm; for ECDSA one for each of P-256, P-384, P-521.
enum Scheme {
    Ecdsa([&'static EcdsaVerificationAlgorithm; 3]),
    Rsa(&'static RsaParameters),
}

/// Why a signature is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFailure {
    /// It was not made by this key over these bytes.
    #[error("the signature does not verify")]
    Invalid,
    /// The algorithm, or the key's type or size, is not accepted.
    #[error("the algorithm, key type or key size is not supported")]
    Unsupported,
}

/// Bits of a big-endian number without leading zeros.
pub(crate) fn bit_length(value: &[u8]) -> usize {
    match value.first() {
        Some(first) => value.len() * 8 - first.leading_zeros() as usize,
        None => 0,
    }
}
