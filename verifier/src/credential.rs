//! The random half of `TPM2_MakeCredential`, in software: seed, its encryption to the EK, challenge bytes.
//!
//! The deterministic half is [`appraisal::activation`].

use appraisal::{
    activation::{ActivationChallenge, CredentialError, kdfe},
    verification_key::uncompressed_point,
};
use aws_lc_rs::{
    agreement::{self, ECDH_P256, ECDH_P384, PrivateKey, UnparsedPublicKey},
    rsa::{
        OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OAEP_SHA512_MGF1SHA512,
        OaepPublicEncryptingKey, PublicEncryptingKey, PublicKeyComponents,
    },
};
use proto::{
    digest::HashAlg,
    pb,
    tpm::{
        credential::sized,
        public::{Curve, KeyKind, Public},
    },
};
use zeroize::Zeroizing;

/// Label of identity credentials; the terminating zero is part of it for OAEP.
const LABEL: &[u8] = b"IDENTITY";
const OAEP_LABEL: &[u8] = b"IDENTITY\0";

/// 32 bytes from the operating system's generator.
///
/// # Errors
/// [`RandomError`] if it gives none: nothing is issued then.
pub fn random_bytes() -> Result<[u8; 32], RandomError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| RandomError)?;
    Ok(bytes)
}

/// The operating system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct RandomError;

/// Wraps the activation's secret for the EK: what `TPM2_ActivateCredential` opens.
///
/// # Errors
/// [`CredentialError`] if the library refuses the key; a [`TrustedEk`](appraisal::ek::TrustedEk) was parsed before, so that
/// this is a failure and never an answer about the worker.
///
/// # Source
/// TPM 2.0 Library Part 1, "Credential Protection" and "Secret Sharing": the seed has the size of the EK's nameAlg.
pub fn make_credential(
    ek: &Public,
    activation: &ActivationChallenge,
) -> Result<pb::Credential, CredentialError> {
    let (seed, encrypted_secret) = wrap_seed(ek)?;
    let id_object = activation.id_object(ek, &seed)?;
    Ok(pb::Credential {
        id_object: id_object.as_bytes().to_vec(),
        encrypted_secret: sized(&encrypted_secret),
    })
}

/// A fresh seed and the inner bytes of `TPM2B_ENCRYPTED_SECRET`.
fn wrap_seed(ek: &Public) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), CredentialError> {
    match ek.key() {
        KeyKind::Rsa { modulus, .. } => {
            let mut seed = Zeroizing::new(vec![0; ek.name_alg().len_bytes()]);
            getrandom::fill(&mut seed).map_err(|_| CredentialError)?;
            let oaep = match ek.name_alg() {
                HashAlg::Sha256 => &OAEP_SHA256_MGF1SHA256,
                HashAlg::Sha384 => &OAEP_SHA384_MGF1SHA384,
                HashAlg::Sha512 => &OAEP_SHA512_MGF1SHA512,
            };
            let key: PublicEncryptingKey =
                PublicKeyComponents { n: modulus.clone(), e: vec![1, 0, 1] }
                    .try_into()
                    .map_err(|_| CredentialError)?;
            let key = OaepPublicEncryptingKey::new(key).map_err(|_| CredentialError)?;
            let mut out = vec![0; key.ciphertext_size()];
            let len = key
                .encrypt(oaep, &seed, &mut out, Some(OAEP_LABEL))
                .map_err(|_| CredentialError)?
                .len();
            out.truncate(len);
            Ok((seed, out))
        }
        KeyKind::Ecc { curve, x, y } => {
            let (algorithm, size) = match curve {
                Curve::P256 => (&ECDH_P256, 32),
                Curve::P384 => (&ECDH_P384, 48),
            };
            let peer = uncompressed_point(*curve, x, y).ok_or(CredentialError)?;
            let peer_x = peer.get(1..=size).ok_or(CredentialError)?;
            let ephemeral = PrivateKey::generate(algorithm).map_err(|_| CredentialError)?;
            let public = ephemeral.compute_public_key().map_err(|_| CredentialError)?;
            let (own_x, own_y) = public
                .as_ref()
                .get(1..)
                .and_then(|point| point.split_at_checked(size))
                .ok_or(CredentialError)?;
            let bits = u32::try_from(ek.name_alg().len_bytes() * 8).unwrap_or(256);
            let seed = agreement::agree(
                &ephemeral,
                UnparsedPublicKey::new(algorithm, &peer),
                CredentialError,
                // Z is the x coordinate at full field size, leading zeros kept.
                |z| Ok(kdfe(ek.name_alg(), z, LABEL, own_x, peer_x, bits)),
            )?;
            let mut point = sized(own_x);
            point.extend_from_slice(&sized(own_y));
            Ok((seed, point))
        }
        _ => Err(CredentialError),
    }
}
