//! Credential activation: the secret that only the TPM with this EK and this AK can recover.
//!
//! The deterministic half of `TPM2_MakeCredential` is here; the random half (the secret, the seed and its
//! encryption to the EK) belongs to the service, which owns randomness.

use aws_lc_rs::{
    cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey},
    hmac,
    iv::FixedLength,
};
use proto::{
    digest::HashAlg,
    reason::ReasonCode,
    tpm::{
        credential::{IdObject, sized},
        name::Name,
        public::{AesCfb, Public},
    },
};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{
    ak::{BoundAk, RestrictedAk},
    ek::TrustedEk,
    verdict::{Denial, Finding},
};

/// A secret wrapped for one EK and one AK, used once.
///
/// Not `Clone`: redeeming consumes it.
#[derive(Debug)]
pub struct ActivationChallenge {
    ak: RestrictedAk,
    qualified_name: Name,
    secret: Secret,
}

struct Secret(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl ActivationChallenge {
    /// A challenge for an AK under a trusted EK, with 32 fresh random bytes.
    #[must_use]
    pub fn new(ek: &TrustedEk, ak: RestrictedAk, secret: [u8; 32]) -> Self {
        let qualified_name = ak.qualified_name(ek.public());
        Self { ak, qualified_name, secret: Secret(Zeroizing::new(secret)) }
    }

    /// The AK being activated.
    #[must_use]
    pub const fn ak(&self) -> &RestrictedAk {
        &self.ak
    }

    /// The credential blob for this challenge's secret under `seed`.
    ///
    /// # Errors
    /// [`CredentialError`] if the EK is no storage key or the library fails.
    pub fn id_object(&self, ek: &Public, seed: &[u8]) -> Result<IdObject, CredentialError> {
        let symmetric = ek.symmetric().ok_or(CredentialError)?;
        make_id_object(ek.name_alg(), symmetric, seed, self.ak.name(), self.secret.0.as_slice())
    }

    /// Compares the secret that came back, in constant time.
    ///
    /// # Errors
    /// `AK_ACTIVATION_FAILED` if it is absent or another.
    pub fn redeem(self, answer: Option<&[u8; 32]>) -> Result<BoundAk, Denial> {
        let same = answer.is_some_and(|answer| bool::from(answer.ct_eq(&*self.secret.0)));
        if same {
            Ok(BoundAk::activated(self.ak, self.qualified_name))
        } else {
            Err(Finding::new(
                ReasonCode::AkActivationFailed,
                "activation secret",
                "the secret wrapped for this EK and AK",
                if answer.is_some() { "another secret" } else { "no secret" },
            )
            .into())
        }
    }
}

/// The cryptographic library refused an operation on sound input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the credential could not be made")]
pub struct CredentialError;

/// `TPM2B_ID_OBJECT` for `secret`, protected by `seed`, bound to the object called `name`.
///
/// # Errors
/// [`CredentialError`] if the library refuses the key size.
///
/// # Source
/// TPM 2.0 Library Part 1, "Credential Protection": symmetric key by KDFa label `STORAGE`, HMAC key by label
/// `INTEGRITY`, AES-CFB with a zero IV.
pub fn make_id_object(
    name_alg: HashAlg,
    symmetric: AesCfb,
    seed: &[u8],
    name: &Name,
    secret: &[u8],
) -> Result<IdObject, CredentialError> {
    let key_bits = u32::from(symmetric.key_bits);
    let sym_key = kdfa(name_alg, seed, b"STORAGE", name.as_bytes(), &[], key_bits);
    let digest_bits = (name_alg.len_bytes() * 8) as u32;
    let mac_key = kdfa(name_alg, seed, b"INTEGRITY", &[], &[], digest_bits);
    let mut encrypted = sized(secret);
    let algorithm = if symmetric.key_bits == 256 { &AES_256 } else { &AES_128 };
    UnboundCipherKey::new(algorithm, &sym_key)
        .and_then(EncryptingKey::cfb128)
        .and_then(|key| {
            let context = EncryptionContext::Iv128(FixedLength::from([0; 16]));
            key.less_safe_encrypt(&mut encrypted, context)
        })
        .map_err(|_| CredentialError)?;
    let mac = hmac_parts(name_alg, &mac_key, &[&encrypted, name.as_bytes()]);
    Ok(IdObject::new(&mac, &encrypted))
}

/// KDFa: SP 800-108 counter mode with HMAC.
///
/// # Format
/// `HMAC(key, counter ‖ label ‖ 0x00 ‖ contextU ‖ contextV ‖ bits)`, counter from 1, both 32 bits; unused high
/// bits of the first byte are cleared.
///
/// # Source
/// TPM 2.0 Library Part 1, "KDFa()".
#[must_use]
pub fn kdfa(
    alg: HashAlg,
    key: &[u8],
    label: &[u8],
    context_u: &[u8],
    context_v: &[u8],
    bits: u32,
) -> Zeroizing<Vec<u8>> {
    expand(bits, |counter| {
        let parts: [&[u8]; 6] =
            [&counter.to_be_bytes(), label, &[0], context_u, context_v, &bits.to_be_bytes()];
        hmac_parts(alg, key, &parts)
    })
}

/// KDFe: SP 800-56A one-step KDF with a hash.
///
/// # Format
/// `H(counter ‖ Z ‖ label ‖ 0x00 ‖ partyU ‖ partyV)`, counter from 1.
///
/// # Source
/// TPM 2.0 Library Part 1, "KDFe for ECDH".
#[must_use]
pub fn kdfe(
    alg: HashAlg,
    z: &[u8],
    label: &[u8],
    party_u: &[u8],
    party_v: &[u8],
    bits: u32,
) -> Zeroizing<Vec<u8>> {
    expand(bits, |counter| {
        let parts: [&[u8]; 6] = [&counter.to_be_bytes(), z, label, &[0], party_u, party_v];
        alg.hash(&parts).as_bytes().to_vec()
    })
}

fn expand(bits: u32, block: impl Fn(u32) -> Vec<u8>) -> Zeroizing<Vec<u8>> {
    let bytes = bits.div_ceil(8) as usize;
    let mut out = Zeroizing::new(Vec::with_capacity(bytes + 64));
    let mut counter = 1_u32;
    while out.len() < bytes {
        out.extend_from_slice(&block(counter));
        counter = counter.saturating_add(1);
    }
    out.truncate(bytes);
    if let (Some(first), rest @ 1..) = (out.first_mut(), bits % 8) {
        *first &= (1_u8 << rest) - 1;
    }
    out
}

fn hmac_parts(alg: HashAlg, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let algorithm = match alg {
        HashAlg::Sha256 => hmac::HMAC_SHA256,
        HashAlg::Sha384 => hmac::HMAC_SHA384,
        HashAlg::Sha512 => hmac::HMAC_SHA512,
    };
    let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, key));
    for part in parts {
        context.update(part);
    }
    context.sign().as_ref().to_vec()
}
