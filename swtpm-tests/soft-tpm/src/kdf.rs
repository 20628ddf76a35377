//! The specification's key derivation, once more and independently of the verifier's.

use aws_lc_rs::hmac;
use proto::digest::HashAlg;

/// HMAC over `message`.
pub(crate) fn mac(alg: HashAlg, key: &[u8], message: &[u8]) -> Vec<u8> {
    let algorithm = match alg {
        HashAlg::Sha256 => hmac::HMAC_SHA256,
        HashAlg::Sha384 => hmac::HMAC_SHA384,
        HashAlg::Sha512 => hmac::HMAC_SHA512,
    };
    hmac::sign(&hmac::Key::new(algorithm, key), message).as_ref().to_vec()
}

/// TPM 2.0 Library Part 1, "KDFa()", for whole bytes.
pub(crate) fn kdfa(alg: HashAlg, key: &[u8], label: &str, context: &[u8], bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for counter in 1_u32.. {
        if out.len() >= bytes {
            break;
        }
        let mut message = counter.to_be_bytes().to_vec();
        message.extend_from_slice(label.as_bytes());
        message.push(0);
        message.extend_from_slice(context);
        message.extend_from_slice(&(u32::try_from(bytes).unwrap_or(0) * 8).to_be_bytes());
        out.extend(mac(alg, key, &message));
    }
    out.truncate(bytes);
    out
}

/// TPM 2.0 Library Part 1, "KDFe for ECDH", for one block of the hash.
pub(crate) fn kdfe_block(alg: HashAlg, z: &[u8], label: &str, u: &[u8], v: &[u8]) -> Vec<u8> {
    let parts: [&[u8]; 6] = [&1_u32.to_be_bytes(), z, label.as_bytes(), &[0], u, v];
    alg.hash(&parts).as_bytes().to_vec()
}
