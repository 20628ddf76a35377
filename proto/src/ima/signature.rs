//! Signatures as extended attributes have them and the field `sig` repeats them.

use super::ImaHashAlg;

/// What a signature is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignatureForm {
    /// Version 2: over the file's digest.
    V2,
    /// Version 3: over the hash of type, algorithm and digest (`ima_file_id`), of a file or of its
    /// fs-verity digest.
    V3 {
        /// Whether it is of an fs-verity digest.
        is_verity: bool,
    },
}

/// The value of `security.ima` where that is a signature.
///
/// # Format
/// Type (3 file, 6 fs-verity), version (2, 3), hash algorithm, key identifier (4 bytes), length (2
/// bytes, big-endian), signature.
///
/// # Source
/// Linux `security/integrity/integrity.h`, `struct signature_v2_hdr`, `struct ima_file_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSignature<'a> {
    /// What it is over.
    pub form: SignatureForm,
    /// The algorithm of the digest and of the signature.
    pub algorithm: ImaHashAlg,
    /// The last four bytes of the signing key's identifier.
    pub key_id: [u8; 4],
    /// The signature: PKCS #1, or ECDSA in DER.
    pub value: &'a [u8],
}

/// Why a value is not a signature that can be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureFormError {
    /// Hash algorithm not known.
    #[error("hash algorithm {0} is not known")]
    Algorithm(u8),
    /// Its length is not that of what follows.
    #[error("the length does not fit the value")]
    Length,
    /// Type and version that are not judged here.
    #[error("type {kind} version {version} is not a signature that can be checked")]
    Version {
        /// Type of the attribute.
        kind: u8,
        /// Version.
        version: u8,
    },
}

impl<'a> FileSignature<'a> {
    /// Reads a value, whole.
    ///
    /// # Errors
    /// [`SignatureFormError`].
    pub fn parse(value: &'a [u8]) -> Result<Self, SignatureFormError> {
        let Some(([kind, version, hash, k0, k1, k2, k3, l0, l1], rest)) =
            value.split_first_chunk::<9>()
        else {
            return Err(SignatureFormError::Length);
        };
        let form = match (kind, version) {
            (3, 2) => SignatureForm::V2,
            (3, 3) => SignatureForm::V3 { is_verity: false },
            (6, 3) => SignatureForm::V3 { is_verity: true },
            _ => {
                return Err(SignatureFormError::Version { kind: *kind, version: *version });
            }
        };
        if usize::from(u16::from_be_bytes([*l0, *l1])) != rest.len() || rest.is_empty() {
            return Err(SignatureFormError::Length);
        }
        let algorithm =
            ImaHashAlg::from_kernel_id(*hash).ok_or(SignatureFormError::Algorithm(*hash))?;
        Ok(Self { form, algorithm, key_id: [*k0, *k1, *k2, *k3], value: rest })
    }

    /// Type and algorithm as version 3 hashes them before the digest; `None` for version 2.
    #[must_use]
    pub const fn file_id_prefix(&self) -> Option<[u8; 2]> {
        match self.form {
            SignatureForm::V2 => None,
            SignatureForm::V3 { is_verity } => {
                Some([if is_verity { 6 } else { 3 }, self.algorithm.kernel_id()])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_exactly() {
        let value = |kind: u8, version: u8, hash: u8, length: u8| {
            [&[kind, version, hash, 0xaa, 0xbb, 0xcc, 0xdd, 0, length][..], &[9; 4]].concat()
        };
        let good = value(3, 2, 4, 4);
        let read = FileSignature::parse(&good);
        let key_id = [0xaa, 0xbb, 0xcc, 0xdd];
        let algorithm = ImaHashAlg::Sha256;
        let expected = FileSignature { form: SignatureForm::V2, algorithm, key_id, value: &[9; 4] };
        assert_eq!(read, Ok(expected));
        let prefix = |bytes: &[u8]| FileSignature::parse(bytes).map(|s| s.file_id_prefix());
        assert_eq!(prefix(&value(6, 3, 6, 4)), Ok(Some([6, 6])));
        assert_eq!(prefix(&value(3, 3, 4, 4)), Ok(Some([3, 4])));
        assert_eq!(prefix(&good), Ok(None));
        let error = |bytes: &[u8]| FileSignature::parse(bytes).map(|_| ());
        assert_eq!(error(&value(3, 2, 4, 3)), Err(SignatureFormError::Length));
        assert_eq!(error(&value(3, 2, 4, 5)), Err(SignatureFormError::Length));
        assert_eq!(error(&value(3, 2, 200, 4)), Err(SignatureFormError::Algorithm(200)));
        for (kind, version) in [(3, 1), (5, 2), (6, 2), (1, 2), (3, 4)] {
            let expected = Err(SignatureFormError::Version { kind, version });
            assert_eq!(error(&value(kind, version, 4, 4)), expected);
        }
        assert_eq!(error(&[3, 2, 4, 0, 0, 0, 0, 0]), Err(SignatureFormError::Length));
        assert_eq!(error(&[3, 2, 4, 0, 0, 0, 0, 0, 0]), Err(SignatureFormError::Length));
    }
}
