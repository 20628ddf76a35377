//! The node key outside the TPM: wrapped by its parent, as a `TSS2 PRIVATE KEY` file.
//!
//! # Source
//! "ASN.1 Specification for TPM 2.0 Key Files" (`TPMKey`), as tpm2-openssl, tpm2-tools and
//! openssl_tpm2_engine read it.

use der::{
    DecodePem as _, EncodePem as _, Sequence,
    asn1::{ObjectIdentifier, OctetString},
    oid::AssociatedOid,
    pem::{LineEnding, PemLabel},
};
use proto::tpm::{constants::RH_NULL, credential, public::Public};

use super::TpmError;

/// `TPM2B_PUBLIC` and `TPM2B_PRIVATE` are far below this.
const MAX_BLOB_BYTES: usize = 2048;
/// Largest key file that is read: two blobs in base64 and some frame.
pub const MAX_KEY_FILE_BYTES: usize = 8 * 1024;

/// A key that lives in this TPM under its NULL-hierarchy primary, for this boot.
///
/// The private part is encrypted by the TPM and useless elsewhere and after a TPM reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeKey {
    public: Public,
    parent_public: Public,
    /// Content of `TPM2B_PRIVATE`, without its size.
    private: Vec<u8>,
}

impl NodeKey {
    pub(crate) const fn new(public: Public, parent_public: Public, private: Vec<u8>) -> Self {
        Self { public, parent_public, private }
    }

    /// Public area of the node key.
    #[must_use]
    pub const fn public(&self) -> &Public {
        &self.public
    }

    /// Public area of its parent, the primary of the NULL hierarchy.
    #[must_use]
    pub const fn parent_public(&self) -> &Public {
        &self.parent_public
    }

    /// The wrapped private area: the content of `TPM2B_PRIVATE`.
    pub(crate) fn private(&self) -> &[u8] {
        &self.private
    }

    /// The key as PEM, label `TSS2 PRIVATE KEY`: loadable key, empty password, parent
    /// `TPM_RH_NULL`.
    ///
    /// # Errors
    /// [`TpmError::Input`] where a blob does not fit DER; those of a TPM do.
    pub fn to_pem(&self) -> Result<String, TpmError> {
        let blob = |bytes: &[u8]| OctetString::new(credential::sized(bytes)).map_err(key_file);
        TpmKey {
            kind: TpmKey::OID,
            empty_auth: Some(true),
            parent: RH_NULL,
            public: blob(self.public.as_bytes())?,
            private: blob(&self.private)?,
        }
        .to_pem(LineEnding::LF)
        .map_err(key_file)
    }

    /// Reads a key written by [`NodeKey::to_pem`]. The parent's public area is not in the file: it
    /// comes from where this program keeps it.
    ///
    /// # Errors
    /// [`TpmError::Input`] for anything that is not such a key.
    pub fn from_pem(pem: &str, parent_public: Public) -> Result<Self, TpmError> {
        if pem.len() > MAX_KEY_FILE_BYTES {
            return Err(key_file(format!("{} bytes, at most {MAX_KEY_FILE_BYTES}", pem.len())));
        }
        let key = TpmKey::from_pem(pem).map_err(key_file)?;
        if key.kind != TpmKey::OID {
            return Err(key_file(format!("type {} is not a loadable key", key.kind)));
        }
        if key.parent != RH_NULL {
            return Err(key_file(format!("parent {:#010x} is not TPM_RH_NULL", key.parent)));
        }
        if key.empty_auth != Some(true) {
            return Err(key_file("the key has a password"));
        }
        let public = credential::unsized_bytes(key.public.as_bytes(), "pubkey", MAX_BLOB_BYTES)
            .map_err(key_file)?;
        let private = credential::unsized_bytes(key.private.as_bytes(), "privkey", MAX_BLOB_BYTES)
            .map_err(key_file)?;
        let public = Public::decode(public).map_err(key_file)?;
        Ok(Self { public, parent_public, private: private.to_vec() })
    }
}

fn key_file(error: impl std::fmt::Display) -> TpmError {
    TpmError::Input { what: "the node key file", detail: error.to_string() }
}

/// `TPMKey`, without the policy and secret fields that a node key never has.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
struct TpmKey {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    empty_auth: Option<bool>,
    parent: u32,
    public: OctetString,
    private: OctetString,
}

impl AssociatedOid for TpmKey {
    /// `id-loadablekey`.
    const OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.10.1.3");
}

impl PemLabel for TpmKey {
    const PEM_LABEL: &'static str = "TSS2 PRIVATE KEY";
}

#[cfg(test)]
mod tests {
    use der::{Decode as _, Encode as _};

    use super::*;
    use crate::tpm::template;

    fn key() -> NodeKey {
        NodeKey::new(
            Public::decode(&template::node_key()).expect("a template"),
            Public::decode(&template::null_primary()).expect("a template"),
            vec![0x5a; 126],
        )
    }

    fn refused(key: &TpmKey) -> String {
        let pem = key.to_pem(LineEnding::LF).expect("encodes");
        let parent = Public::decode(&template::null_primary()).expect("a template");
        NodeKey::from_pem(&pem, parent).expect_err("refused").to_string()
    }

    fn raw() -> TpmKey {
        TpmKey::from_pem(key().to_pem().expect("encodes")).expect("decodes")
    }

    #[test]
    fn a_key_survives_its_file() {
        let pem = key().to_pem().expect("encodes");
        assert!(pem.starts_with("-----BEGIN TSS2 PRIVATE KEY-----\n"));
        let parent = key().parent_public().clone();
        assert_eq!(NodeKey::from_pem(&pem, parent), Ok(key()));
        // emptyAuth and a parent with its high bit clear, as the other readers expect them.
        let der = raw().to_der().expect("encodes");
        let frame: Vec<u8> = der.iter().copied().skip(3).take(19).collect();
        assert_eq!(
            frame,
            [6, 6, 0x67, 0x81, 0x05, 0x0a, 1, 3, 0xa0, 3, 1, 1, 0xff, 2, 4, 0x40, 0, 0, 7]
        );
        assert_eq!(TpmKey::from_der(&der), Ok(raw()));
    }

    #[test]
    fn other_keys_are_refused() {
        assert!(refused(&TpmKey { parent: 0x4000_0001, ..raw() }).contains("not TPM_RH_NULL"));
        assert!(refused(&TpmKey { empty_auth: None, ..raw() }).contains("has a password"));
        let importable = ObjectIdentifier::new_unwrap("2.23.133.10.1.4");
        assert!(refused(&TpmKey { kind: importable, ..raw() }).contains("not a loadable key"));
        let short = OctetString::new([0, 9, 1]).expect("an octet string");
        assert!(refused(&TpmKey { public: short, ..raw() }).contains("9 bytes expected"));
        let parent = key().parent_public().clone();
        assert!(NodeKey::from_pem("-----BEGIN PRIVATE KEY-----", parent.clone()).is_err());
        assert!(NodeKey::from_pem(&"-".repeat(MAX_KEY_FILE_BYTES + 1), parent).is_err());
    }
}
