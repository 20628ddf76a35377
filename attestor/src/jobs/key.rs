//! The key of one job: P-256, in memory alone.

use std::fmt;

use aws_lc_rs::{
    encoding::AsDer as _,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use zeroize::Zeroizing;

/// No key could be made or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random numbers, or the key cannot be used")]
pub struct KeyError;

/// A job's key pair. Not `Clone`; the copy for the job's processes is wiped with their identity.
pub struct JobKeyPair {
    pair: EcdsaKeyPair,
}

impl JobKeyPair {
    /// A new key.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn generate() -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| KeyError)?;
        Ok(Self { pair })
    }

    /// DER `SubjectPublicKeyInfo`, named curve, uncompressed point.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn public(&self) -> Result<Vec<u8>, KeyError> {
        Ok(self.pair.public_key().as_der().map_err(|_| KeyError)?.as_ref().to_vec())
    }

    /// Unencrypted PKCS#8 DER: what the Workload API hands to the job.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let der = self.pair.to_pkcs8v1().map_err(|_| KeyError)?;
        Ok(Zeroizing::new(der.as_ref().to_vec()))
    }

    /// ECDSA with SHA-256, DER.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = self.pair.sign(&SystemRandom::new(), message).map_err(|_| KeyError)?;
        Ok(signature.as_ref().to_vec())
    }
}

impl fmt::Debug for JobKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JobKeyPair")
    }
}

#[cfg(test)]
mod tests {
    use proto::permit::JobKey;

    use super::JobKeyPair;

    #[test]
    fn a_key_has_the_form_that_the_contract_demands_and_is_not_printed() {
        let key = JobKeyPair::generate().expect("a key");
        let public = key.public().expect("it encodes");
        assert!(JobKey::from_der(&public).is_some(), "{}", hex::encode(&public));
        let pkcs8 = key.pkcs8().expect("it encodes");
        let again = super::EcdsaKeyPair::from_pkcs8(&super::ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8);
        assert!(again.is_ok());
        assert_eq!(format!("{key:?}"), "JobKeyPair");
    }
}
