//! CA certificates as issuers.

use std::fmt;

use const_oid::AssociatedOid;
use der::{Decode, Encode};
use sha2::{Digest, Sha256};
use spki::SubjectPublicKeyInfoOwned;
use x509_cert::{
    Certificate,
    ext::{
        Extension,
        pkix::{
            BasicConstraints, KeyUsage, SubjectAltName, SubjectKeyIdentifier, name::GeneralName,
        },
    },
    name::Name,
};

use super::{CaError, KeyId};

/// A certificate that may issue certificates.
///
/// # Proves
/// That it says so itself: basic constraints with cA, key usage with keyCertSign.
/// # Does not prove
/// That anybody trustworthy signed it.
#[derive(Clone, PartialEq, Eq)]
pub struct CaCertificate {
    der: Vec<u8>,
    certificate: Certificate,
    subject_key_id: Vec<u8>,
    key_id: KeyId,
    path_length: Option<u8>,
    signs_crls: bool,
}

impl CaCertificate {
    /// Decodes a CA certificate.
    ///
    /// # Errors
    /// [`CaError::Certificate`] if it does not decode or may not issue.
    pub fn from_der(der: &[u8]) -> Result<Self, CaError> {
        let bad = |why: String| CaError::Certificate { what: "CA certificate".to_owned(), why };
        let certificate =
            Certificate::from_der(der).map_err(|error| bad(format!("not X.509: {error}")))?;
        let tbs = certificate.tbs_certificate();
        let extensions = tbs.extensions().map(Vec::as_slice).unwrap_or_default();
        let subject = tbs.subject();
        let basic: Option<BasicConstraints> =
            find(extensions).map_err(|error| bad(format!("basic constraints: {error}")))?;
        let Some(basic) = basic.filter(|basic| basic.ca) else {
            return Err(bad(format!("{subject} is not a CA certificate")));
        };
        let usage: Option<KeyUsage> =
            find(extensions).map_err(|error| bad(format!("key usage: {error}")))?;
        let Some(usage) = usage.filter(KeyUsage::key_cert_sign) else {
            return Err(bad(format!("{subject} may not sign certificates (key usage)")));
        };
        let key_id = KeyId::of(tbs.subject_public_key_info());
        let subject_key_id: Option<SubjectKeyIdentifier> =
            find(extensions).map_err(|error| bad(format!("subject key identifier: {error}")))?;
        Ok(Self {
            der: der.to_vec(),
            subject_key_id: subject_key_id
                .map_or_else(|| key_id.as_bytes().to_vec(), |id| id.0.as_bytes().to_vec()),
            key_id,
            path_length: basic.path_len_constraint,
            signs_crls: usage.crl_sign(),
            certificate,
        })
    }

    /// DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Subject.
    #[must_use]
    pub fn subject(&self) -> &Name {
        self.certificate.tbs_certificate().subject()
    }

    /// Issuer.
    #[must_use]
    pub fn issuer(&self) -> &Name {
        self.certificate.tbs_certificate().issuer()
    }

    /// Whether subject and issuer are the same.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.subject() == self.issuer()
    }

    /// Public key.
    #[must_use]
    pub fn key(&self) -> &SubjectPublicKeyInfoOwned {
        self.certificate.tbs_certificate().subject_public_key_info()
    }

    /// Identifier of the public key, computed.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Subject key identifier as the certificate has it.
    #[must_use]
    pub fn subject_key_id(&self) -> &[u8] {
        &self.subject_key_id
    }

    /// SHA-256 of the public key's `SubjectPublicKeyInfo`: what clients may pin.
    #[must_use]
    pub fn pin(&self) -> [u8; 32] {
        self.key().to_der().map(|der| Sha256::digest(der).into()).unwrap_or_default()
    }

    /// Start of validity, seconds since 1970.
    #[must_use]
    pub fn not_before_unix_s(&self) -> u64 {
        self.certificate.tbs_certificate().validity().not_before.to_unix_duration().as_secs()
    }

    /// End of validity, seconds since 1970.
    #[must_use]
    pub fn not_after_unix_s(&self) -> u64 {
        self.certificate.tbs_certificate().validity().not_after.to_unix_duration().as_secs()
    }

    /// Whether `now` lies in the validity.
    #[must_use]
    pub fn is_valid_at(&self, now_unix_s: u64) -> bool {
        (self.not_before_unix_s()..=self.not_after_unix_s()).contains(&now_unix_s)
    }

    /// CA certificates that may follow below this one; `None` for any number.
    #[must_use]
    pub const fn path_length(&self) -> Option<u8> {
        self.path_length
    }

    /// Whether it may sign revocation lists.
    #[must_use]
    pub const fn signs_crls(&self) -> bool {
        self.signs_crls
    }

    /// URI alternative names.
    #[must_use]
    pub fn uris(&self) -> Vec<String> {
        let extensions = self.certificate.tbs_certificate().extensions();
        let names = extensions.and_then(|e| find::<SubjectAltName>(e).ok().flatten());
        names
            .into_iter()
            .flat_map(|names| names.0)
            .filter_map(|name| match name {
                GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str().to_owned()),
                _ => None,
            })
            .collect()
    }
}

impl fmt::Debug for CaCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaCertificate")
            .field("subject", &self.subject().to_string())
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// The extension of type `T`, if there is exactly one.
pub(crate) fn find<'a, T>(extensions: &'a [Extension]) -> Result<Option<T>, der::Error>
where
    T: Decode<'a, Error = der::Error> + AssociatedOid,
{
    let mut found = extensions.iter().filter(|extension| extension.extn_id == T::OID);
    match (found.next(), found.next()) {
        (None, _) => Ok(None),
        (Some(extension), None) => T::from_der(extension.extn_value.as_bytes()).map(Some),
        (Some(_), Some(_)) => Err(der::ErrorKind::Failed.into()),
    }
}
