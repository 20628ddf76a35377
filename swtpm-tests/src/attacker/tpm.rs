//! What an attacker does with a TPM of their own: keys of any shape, certified and quoted at will.
//!
//! # Source
//! TPM 2.0 Library, Part 3: "TPM2_Create", "TPM2_Load", "TPM2_LoadExternal",
//! "TPM2_ActivateCredential"; Part 2: "TPMT_PUBLIC", "TPMS_ATTEST".

use p256::ecdsa::{Signature, SigningKey, signature::Signer};
use proto::tpm::{credential::sized, public::ObjectAttributes as A};

use crate::{
    cluster::AnyError,
    manufacturer::EkTemplate,
    raw::{CommandCode, RH_ENDORSEMENT, RH_NULL, RawTpm, TRANSIENT_FIRST},
};

/// `TPM_ALG_ECDSA`.
pub const ALG_ECDSA: u16 = 0x0018;
/// `TPM_ALG_SHA1`.
pub const ALG_SHA1: u16 = 0x0004;
/// `TPM_ALG_SHA256`.
pub const ALG_SHA256: u16 = 0x000B;
/// `TPM_ALG_SHA384`.
pub const ALG_SHA384: u16 = 0x000C;
const ALG_NULL: u16 = 0x0010;
/// `TPM_ECC_NIST_P256`.
pub const P256: u16 = 0x0003;
/// `TPM_ECC_NIST_P384`.
pub const P384: u16 = 0x0004;

/// What an honest AK has.
pub const AK: u32 = A::FIXED_TPM
    | A::ST_CLEAR
    | A::FIXED_PARENT
    | A::SENSITIVE_DATA_ORIGIN
    | A::USER_WITH_AUTH
    | A::NO_DA
    | A::RESTRICTED
    | A::SIGN;
/// What an honest node key has.
pub const NODE_KEY: u32 = A::FIXED_TPM
    | A::FIXED_PARENT
    | A::SENSITIVE_DATA_ORIGIN
    | A::USER_WITH_AUTH
    | A::NO_DA
    | A::SIGN;
/// What a storage primary has.
const STORAGE: u32 = A::FIXED_TPM
    | A::FIXED_PARENT
    | A::SENSITIVE_DATA_ORIGIN
    | A::USER_WITH_AUTH
    | A::NO_DA
    | A::RESTRICTED
    | A::DECRYPT;
/// What an EK of the low range has.
pub const EK: u32 = A::FIXED_TPM
    | A::FIXED_PARENT
    | A::SENSITIVE_DATA_ORIGIN
    | A::ADMIN_WITH_POLICY
    | A::RESTRICTED
    | A::DECRYPT;

fn head(kind: u16, attributes: u32, aes_bits: Option<u16>, scheme: Option<(u16, u16)>) -> Vec<u8> {
    let mut out = Vec::from(kind.to_be_bytes());
    out.extend(ALG_SHA256.to_be_bytes());
    out.extend(attributes.to_be_bytes());
    out.extend(sized(&[]));
    match aes_bits {
        // AES in CFB mode.
        Some(bits) => [0x0006, bits, 0x0043].iter().for_each(|w| out.extend(w.to_be_bytes())),
        None => out.extend(ALG_NULL.to_be_bytes()),
    }
    match scheme {
        Some((alg, hash)) => [alg, hash].iter().for_each(|word| out.extend(word.to_be_bytes())),
        None => out.extend(ALG_NULL.to_be_bytes()),
    }
    out
}

/// An ECC `TPMT_PUBLIC`, SHA-256, no policy.
#[must_use]
pub fn ecc_public(
    attributes: u32,
    aes_bits: Option<u16>,
    scheme: Option<(u16, u16)>,
    curve: u16,
    point: (&[u8], &[u8]),
) -> Vec<u8> {
    let mut out = head(0x0023, attributes, aes_bits, scheme);
    out.extend(curve.to_be_bytes());
    out.extend(ALG_NULL.to_be_bytes());
    out.extend(sized(point.0));
    out.extend(sized(point.1));
    out
}

/// An RSA `TPMT_PUBLIC`, SHA-256, no policy.
#[must_use]
pub fn rsa_public(
    attributes: u32,
    aes_bits: Option<u16>,
    scheme: Option<(u16, u16)>,
    bits: u16,
    exponent: u32,
    modulus: &[u8],
) -> Vec<u8> {
    let mut out = head(0x0001, attributes, aes_bits, scheme);
    out.extend(bits.to_be_bytes());
    out.extend(exponent.to_be_bytes());
    out.extend(sized(modulus));
    out
}

/// Template of an AK: P-256, ECDSA with SHA-256.
#[must_use]
pub fn ak_template(attributes: u32) -> Vec<u8> {
    ecc_public(attributes, None, Some((ALG_ECDSA, ALG_SHA256)), P256, (&[], &[]))
}

/// Template of a node key on `curve`.
#[must_use]
pub fn node_key_template(attributes: u32, curve: u16) -> Vec<u8> {
    // A restricted key must have a scheme.
    let restricted = attributes & A::RESTRICTED != 0;
    let scheme = restricted.then_some((ALG_ECDSA, ALG_SHA256));
    ecc_public(attributes, None, scheme, curve, (&[], &[]))
}

/// Template of a storage primary.
#[must_use]
pub fn storage_template() -> Vec<u8> {
    ecc_public(STORAGE, Some(128), None, P256, (&[], &[]))
}

/// A key in a TPM: loaded, and as a blob.
#[derive(Clone, Debug)]
pub struct Key {
    /// Transient handle.
    pub handle: u32,
    /// `TPMT_PUBLIC`.
    pub public: Vec<u8>,
    /// Content of `TPM2B_PRIVATE`; empty for a primary.
    pub private: Vec<u8>,
}

/// A signed structure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signed {
    /// `TPMS_ATTEST`.
    pub attest: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub signature: Vec<u8>,
}

impl From<(Vec<u8>, Vec<u8>)> for Signed {
    fn from((attest, signature): (Vec<u8>, Vec<u8>)) -> Self {
        Self { attest, signature }
    }
}

fn take_sized(bytes: &[u8]) -> Result<(&[u8], &[u8]), AnyError> {
    let (size, rest) = bytes.split_first_chunk::<2>().ok_or("a TPM answer is too short")?;
    let size = usize::from(u16::from_be_bytes(*size));
    rest.split_at_checked(size).ok_or_else(|| "a TPM answer is too short".into())
}

fn take_handle(bytes: &[u8]) -> Result<u32, AnyError> {
    let handle = bytes.first_chunk::<4>().ok_or("no handle in a TPM answer")?;
    Ok(u32::from_be_bytes(*handle))
}

/// Flushes every transient object: the attacker is alone on the TPM.
///
/// # Errors
/// The TPM refuses.
pub fn flush_all(tpm: RawTpm) -> Result<(), AnyError> {
    for handle in tpm.handles(TRANSIENT_FIRST)? {
        tpm.flush(handle)?;
    }
    Ok(())
}

/// The EK of `template`, which must take a password (high range).
///
/// # Errors
/// The TPM refuses.
pub fn endorsement_key(tpm: RawTpm, template: EkTemplate) -> Result<Key, AnyError> {
    primary(tpm, RH_ENDORSEMENT, &template.template())
}

/// A primary.
///
/// # Errors
/// The TPM refuses.
pub fn primary(tpm: RawTpm, hierarchy: u32, template: &[u8]) -> Result<Key, AnyError> {
    let made = tpm.create_primary(hierarchy, &[], &[], template)?;
    Ok(Key { handle: made.handle, public: made.public, private: Vec::new() })
}

/// `TPM2_Create` and `TPM2_Load` under a parent with an empty password.
///
/// # Errors
/// The TPM refuses.
pub fn child(tpm: RawTpm, parent: u32, template: &[u8]) -> Result<Key, AnyError> {
    // Empty password, empty data.
    let mut parameters = sized(&[0, 0, 0, 0]);
    parameters.extend(sized(template));
    parameters.extend([0, 0, 0, 0, 0, 0]);
    let (_, answer) = tpm.with_password(CommandCode::CREATE, &[parent], &[], &parameters, 0)?;
    let (private, rest) = take_sized(&answer)?;
    let (public, _) = take_sized(rest)?;
    let mut key = Key { handle: 0, public: public.to_vec(), private: private.to_vec() };
    load(tpm, parent, &mut key)?;
    Ok(key)
}

/// `TPM2_Load` of a blob.
///
/// # Errors
/// The TPM refuses.
pub fn load(tpm: RawTpm, parent: u32, key: &mut Key) -> Result<(), AnyError> {
    let mut parameters = sized(&key.private);
    parameters.extend(sized(&key.public));
    let (handle, _) = tpm.with_password(CommandCode::LOAD, &[parent], &[], &parameters, 1)?;
    key.handle = take_handle(&handle)?;
    Ok(())
}

/// `TPM2_LoadExternal` of a public area alone.
///
/// # Errors
/// The TPM refuses.
pub fn load_public(tpm: RawTpm, public: &[u8]) -> Result<u32, AnyError> {
    let mut body = vec![0, 0];
    body.extend(sized(public));
    body.extend(RH_NULL.to_be_bytes());
    take_handle(&tpm.plain(CommandCode::LOAD_EXTERNAL, &body)?)
}

/// `TPM2_ActivateCredential`, both keys with empty passwords.
///
/// # Errors
/// The TPM refuses.
pub fn activate(
    tpm: RawTpm,
    ak: u32,
    ek: u32,
    credential: &(Vec<u8>, Vec<u8>),
) -> Result<Vec<u8>, AnyError> {
    let mut parameters = credential.0.clone();
    parameters.extend(&credential.1);
    let command = CommandCode::ACTIVATE_CREDENTIAL;
    let (_, answer) = tpm.with_passwords(command, &[ak, ek], &[&[], &[]], &parameters, 0)?;
    Ok(take_sized(&answer)?.0.to_vec())
}

/// A signing key in the attacker's memory.
#[derive(Debug)]
pub struct SoftKey {
    key: SigningKey,
    /// `TPMT_PUBLIC` that claims what an AK has.
    pub public: Vec<u8>,
}

impl SoftKey {
    /// A fresh key that claims `attributes`.
    ///
    /// # Errors
    /// No randomness.
    pub fn new(attributes: u32, scheme: Option<(u16, u16)>) -> Result<Self, AnyError> {
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| "no randomness")?;
        let key = SigningKey::from_slice(&secret)?;
        let point = key.verifying_key().to_sec1_point(false);
        let (x, y) = (point.x().ok_or("no x")?, point.y().ok_or("no y")?);
        let public = ecc_public(attributes, None, scheme, P256, (x, y));
        Ok(Self { key, public })
    }

    /// Signs what no restricted key would sign.
    #[must_use]
    pub fn sign(&self, attest: Vec<u8>) -> Signed {
        let signature: Signature = self.key.sign(&attest);
        let (r, s) = signature.split_bytes();
        let mut out = Vec::from(ALG_ECDSA.to_be_bytes());
        out.extend(ALG_SHA256.to_be_bytes());
        out.extend(sized(&r));
        out.extend(sized(&s));
        Signed { attest, signature: out }
    }
}

/// A quote as an attacker writes it: `TPMS_ATTEST` of type quote.
#[derive(Clone, Debug)]
pub struct ForgedQuote {
    /// `TPM_GENERATED`, or not.
    pub magic: u32,
    /// `TPM_ST_ATTEST_QUOTE`, or not.
    pub kind: u16,
    /// Qualified Name.
    pub signer: Vec<u8>,
    /// qualifyingData.
    pub extra_data: Vec<u8>,
    /// resetCount and restartCount.
    pub counters: (u32, u32),
    /// firmwareVersion.
    pub firmware: u64,
    /// Banks: algorithm, sizeofSelect, bits.
    pub selection: Vec<(u16, u8, u32)>,
    /// pcrDigest.
    pub digest: Vec<u8>,
    /// What follows.
    pub tail: Vec<u8>,
}

impl ForgedQuote {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::from(self.magic.to_be_bytes());
        out.extend(self.kind.to_be_bytes());
        out.extend(sized(&self.signer));
        out.extend(sized(&self.extra_data));
        out.extend(7_u64.to_be_bytes());
        out.extend(self.counters.0.to_be_bytes());
        out.extend(self.counters.1.to_be_bytes());
        out.push(1);
        out.extend(self.firmware.to_be_bytes());
        out.extend(u32::try_from(self.selection.len()).unwrap_or(u32::MAX).to_be_bytes());
        for (alg, size, bits) in &self.selection {
            out.extend(alg.to_be_bytes());
            out.push(*size);
            let bytes = bits.to_le_bytes();
            out.extend(bytes.iter().chain([0; 8].iter()).take(usize::from(*size)));
        }
        out.extend(sized(&self.digest));
        out.extend(&self.tail);
        out
    }
}
