//! The worker's TPM, in the words of RFC 9334 and the TPM 2.0 Library.
//!
//! [`Tpm`] is what the rest of this program knows of a TPM. [`esapi::EsapiTpm`] is the one
//! implementation, over libtss2; [`TpmHandle`] is how async code uses it: one thread owns the
//! connection and does one call after the other.
//!
//! # Discipline
//! Between calls only the attestation key is loaded. Everything else that a call loads, it flushes on
//! every path, errors and panics included, because TPMs have as few as three slots and no resource
//! manager may be there to hide it. No object is made persistent, nothing is written to NV.
//!
//! # Keys
//! See DESIGN: endorsement key (manufacturer's template), attestation key (its child, one a boot),
//! node key (child of a primary of the NULL hierarchy, so that a TPM reset ends it).

pub mod bridge;
pub(crate) mod certificate;
pub mod error;
pub mod esapi;
pub mod key_file;
pub mod quiet;
pub mod tcti;
pub mod template;
pub mod worker;

use std::fmt;

use proto::{
    digest::{Digest, HashAlg, PcrIndex, PcrSelection},
    tpm::public::Public,
};
use serde::Serialize;
use zeroize::Zeroizing;

pub use error::TpmError;
pub use key_file::NodeKey;
pub use tcti::{Tcti, TctiError};
pub use template::{EkAlgorithm, EkPreference, EkTemplate};
pub use worker::{TpmHandle, TpmThread};

/// How to reach and use the TPM.
#[derive(Clone, Default)]
pub struct TpmConfig {
    /// Where it is.
    pub tcti: Tcti,
    /// Which endorsement key.
    pub ek: EkPreference,
    /// A certificate for the endorsement key (DER) in place of the one in NV.
    pub ek_certificate: Option<Vec<u8>>,
    /// Intermediates (DER) in addition to those in NV.
    pub ek_chain: Vec<Vec<u8>>,
    /// Which attestation key.
    pub ak: AkAlgorithm,
    /// Password of the endorsement hierarchy; empty on almost every machine.
    pub endorsement_auth: Zeroizing<Vec<u8>>,
    /// Password of the owner hierarchy; used only for NV indexes that nobody else may read.
    pub owner_auth: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for TpmConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TpmConfig")
            .field("tcti", &self.tcti)
            .field("ek", &self.ek)
            .field("ek_certificate", &self.ek_certificate.is_some())
            .field("ek_chain", &self.ek_chain.len())
            .field("ak", &self.ak)
            .finish_non_exhaustive()
    }
}

/// Key type of the attestation key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AkAlgorithm {
    /// P-256 where the TPM has it, else RSA-2048.
    #[default]
    Auto,
    /// RSA-2048.
    Rsa2048,
}

/// What a TPM says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TpmFacts {
    /// `TPM_PT_MANUFACTURER` as text: `IFX`, `INTC`, `AMD`.
    pub manufacturer: String,
    /// `TPM_PT_VENDOR_STRING_1` to `_4`, joined.
    pub vendor: String,
    /// `TPM_PT_FIRMWARE_VERSION_1` and `_2`.
    pub firmware_version: u64,
    /// `TPM_PT_FAMILY_INDICATOR`: `2.0`.
    pub family: String,
    /// `TPM_PT_REVISION` as the specification writes it: `1.59`.
    pub revision: String,
    /// Year and day of the year of the specification.
    pub spec_date: (u32, u32),
    /// Algorithms, by the registry's names.
    pub algorithms: Vec<String>,
    /// Elliptic curves.
    pub curves: Vec<String>,
    /// PCR banks with at least one PCR allocated.
    pub banks: Vec<BankFacts>,
    /// Dictionary attack protection.
    pub lockout: LockoutFacts,
    /// Transient objects loaded now, as this connection sees them.
    pub loaded_objects: u32,
    /// Sessions loaded now, as this connection sees them.
    pub loaded_sessions: u32,
    /// Persistent objects.
    pub persistent_objects: u32,
    /// Objects that fit at least besides those loaded (`TPM_PT_HR_TRANSIENT_AVAIL`).
    pub free_objects: u32,
    /// Whether the endorsement hierarchy is enabled.
    pub endorsement_enabled: bool,
    /// Whether the endorsement hierarchy has a password.
    pub endorsement_auth_set: bool,
    /// Whether the owner hierarchy has a password.
    pub owner_auth_set: bool,
}

impl TpmFacts {
    /// Banks whose algorithm this project appraises.
    pub fn appraised_banks(&self) -> impl Iterator<Item = HashAlg> {
        self.banks.iter().filter_map(|bank| HashAlg::from_tpm(bank.tpm_id))
    }

    /// The firmware version as four numbers: `7.2.3.1`.
    #[must_use]
    pub fn firmware_version_text(&self) -> String {
        let [a, b, c, d, e, f, g, h] = self.firmware_version.to_be_bytes();
        let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
        format!("{}.{}.{}.{}", pair(a, b), pair(c, d), pair(e, f), pair(g, h))
    }
}

/// One PCR bank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BankFacts {
    /// `TPM_ALG_ID`.
    #[serde(skip)]
    pub tpm_id: u16,
    /// Name of the hash.
    pub alg: String,
    /// Bit i set means PCR i is allocated.
    pub pcrs: u32,
}

/// Dictionary attack protection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LockoutFacts {
    /// In lockout now.
    pub locked: bool,
    /// Failed authorizations that count.
    pub failures: u32,
    /// Failures that lead to lockout.
    pub max_failures: u32,
    /// Seconds after which one failure is forgiven.
    pub interval_s: u32,
}

/// One endorsement key of the TPM, found by its template.
#[derive(Clone, Debug)]
pub struct EndorsementKey {
    /// The template.
    pub template: EkTemplate,
    /// Its public area.
    pub public: Public,
    /// Certificate as it stands in NV or in the configured file (padding after the DER is possible).
    pub certificate: Option<Vec<u8>>,
    /// The persistent handle that holds this very key, if one does.
    pub persistent: Option<u32>,
}

/// All that the TPM shows of its endorsement, for `attestor inspect`.
#[derive(Clone, Debug, Default)]
pub struct EndorsementSurvey {
    /// Keys that were made or found, best first.
    pub keys: Vec<EndorsementKey>,
    /// Intermediates from NV, DER.
    pub chain: Vec<Vec<u8>>,
    /// Platform certificates from NV: index and DER.
    pub platform_certificates: Vec<(u32, Vec<u8>)>,
    /// Certificate indexes of templates that this program does not use, for example P-521.
    pub unknown_certificates: Vec<u32>,
    /// What could not be done, in words.
    pub problems: Vec<String>,
}

/// Who this worker is for one boot: what Hello shows.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The endorsement key, with its certificate where there is one.
    pub ek: EndorsementKey,
    /// Intermediates, DER.
    pub ek_chain: Vec<Vec<u8>>,
    /// Public area of the attestation key.
    pub ak_public: Public,
}

/// A `TPMS_ATTEST` with its `TPMT_SIGNATURE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedAttest {
    /// `TPMS_ATTEST`.
    pub attest: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub signature: Vec<u8>,
}

/// One PCR's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcrValue {
    /// Bank.
    pub bank: HashAlg,
    /// Index.
    pub index: PcrIndex,
    /// Value.
    pub digest: Digest,
}

/// A TPM 2.0.
pub trait Tpm: Send {
    /// What it says of itself.
    ///
    /// # Errors
    /// As every call: [`TpmError`].
    fn facts(&mut self) -> Result<TpmFacts, TpmError>;

    /// Every endorsement key it can make, with certificates. Slow on hardware (RSA keys are made
    /// anew): for `inspect` only.
    ///
    /// # Errors
    /// Only where nothing at all could be asked; the rest is in [`EndorsementSurvey::problems`].
    fn survey_endorsement(&mut self) -> Result<EndorsementSurvey, TpmError>;

    /// Chooses the endorsement key and makes a new attestation key under it, which stays loaded. An
    /// earlier one is flushed.
    ///
    /// # Errors
    /// [`TpmError::NoEndorsementKey`], [`TpmError::WrongAuth`] and the like.
    fn enroll(&mut self) -> Result<Identity, TpmError>;

    /// `TPM2_ActivateCredential` with both keys of the last [`Tpm::enroll`].
    ///
    /// `id_object` and `encrypted_secret` are `TPM2B_ID_OBJECT` and `TPM2B_ENCRYPTED_SECRET`, size
    /// prefixes included.
    ///
    /// # Errors
    /// [`TpmError::CredentialRejected`] where the credential is not for these keys.
    fn activate_credential(
        &mut self,
        id_object: &[u8],
        encrypted_secret: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, TpmError>;

    /// Makes a new node key under a primary of the NULL hierarchy; nothing of it stays loaded.
    ///
    /// # Errors
    /// [`TpmError::Unsupported`] where the TPM lacks P-256.
    fn create_node_key(&mut self) -> Result<NodeKey, TpmError>;

    /// `TPM2_Certify` of this node key by the attestation key.
    ///
    /// # Errors
    /// [`TpmError::NotEnrolled`]; [`TpmError::NodeKeyLost`] for a key of an earlier boot.
    fn certify_node_key(
        &mut self,
        node_key: &NodeKey,
        qualifying_data: &[u8],
    ) -> Result<SignedAttest, TpmError>;

    /// `TPM2_Quote` by the attestation key: exactly one TPM command.
    ///
    /// # Errors
    /// [`TpmError::NotEnrolled`], [`TpmError::KeyLost`].
    fn quote(
        &mut self,
        qualifying_data: &[u8],
        selection: &PcrSelection,
    ) -> Result<SignedAttest, TpmError>;

    /// PCR values, ascending by (bank, index), all of one moment.
    ///
    /// # Errors
    /// [`TpmError::Unsupported`] where a bank or PCR is not allocated.
    fn read_pcrs(&mut self, selection: &PcrSelection) -> Result<Vec<PcrValue>, TpmError>;

    /// Extends one PCR in several banks at once; banks not allocated are left out by the TPM.
    ///
    /// # Errors
    /// [`TpmError::Response`] where this locality may not extend that PCR.
    fn extend(&mut self, index: PcrIndex, digests: &[Digest]) -> Result<(), TpmError>;
}
