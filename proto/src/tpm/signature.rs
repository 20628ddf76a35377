//! `TPMT_SIGNATURE`.

use super::{
    DecodeError, DecodeErrorKind,
    constants::{ALG_ECDSA, ALG_RSAPSS, ALG_RSASSA},
    public::{SigningScheme, hash_alg},
    reader::Reader,
};

/// A signature with the scheme it claims.
///
/// # Source
/// TPM 2.0 Library Part 2, "TPMT_SIGNATURE".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// `sigAlg` and `hash`: must equal the key's own scheme.
    pub untrusted_scheme: SigningScheme,
    /// The value.
    pub value: SignatureValue,
}

/// The value of a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignatureValue {
    /// `TPM2B_PUBLIC_KEY_RSA`.
    Rsa(Vec<u8>),
    /// `TPMS_SIGNATURE_ECC`: r and s as they stand, leading zeros may be stripped.
    Ecc {
        /// r, big-endian.
        r: Vec<u8>,
        /// s, big-endian.
        s: Vec<u8>,
    },
}

impl Signature {
    /// Decodes one `TPMT_SIGNATURE`, consuming all of `bytes`.
    ///
    /// # Errors
    /// [`DecodeError`]; a null or unknown scheme is `Unsupported`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let out = match reader.u16()? {
            ALG_RSASSA => {
                let hash = hash_alg(&mut reader, "signature hash")?;
                let value = SignatureValue::Rsa(reader.sized("RSA signature", 512)?.to_vec());
                Self { untrusted_scheme: SigningScheme::RsaSsa(hash), value }
            }
            ALG_RSAPSS => {
                let hash = hash_alg(&mut reader, "signature hash")?;
                let value = SignatureValue::Rsa(reader.sized("RSA signature", 512)?.to_vec());
                Self { untrusted_scheme: SigningScheme::RsaPss(hash), value }
            }
            ALG_ECDSA => {
                let hash = hash_alg(&mut reader, "signature hash")?;
                let r = reader.sized("ECDSA r", 48)?.to_vec();
                let s = reader.sized("ECDSA s", 48)?.to_vec();
                Self {
                    untrusted_scheme: SigningScheme::Ecdsa(hash),
                    value: SignatureValue::Ecc { r, s },
                }
            }
            found => {
                return Err(DecodeError {
                    at: 0,
                    kind: DecodeErrorKind::Unsupported { what: "sigAlg", found: found.into() },
                });
            }
        };
        reader.finish()?;
        Ok(out)
    }
}
