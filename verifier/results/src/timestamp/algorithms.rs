//! Signatures that a time stamp may have: ECDSA, and RSA with PKCS #1 v1.5, both with SHA-2.

use const_oid::{ObjectIdentifier, db::rfc5912};
use der::Any;
use rustls_pki_types::SignatureVerificationAlgorithm;
use webpki::aws_lc_rs as known;

use super::asn1::{SHA_256, SHA_384, SHA_512, SignerInfo, is_digest};

type Algorithms = Vec<&'static dyn SignatureVerificationAlgorithm>;

/// The algorithms of a signer, one for each curve where it does not name one.
///
/// # Source
/// RFC 5754, sections 3.2 and 3.3: RSA by the name of the key or of the signature, in CMS both are in use; ECDSA by the name of
/// the signature, without parameters. RFC 4055, section 5: parameters of RSA are NULL, and may be absent.
pub(super) fn of(signer: &SignerInfo) -> Option<Algorithms> {
    let algorithm = &signer.signature_algorithm;
    let is_absent = algorithm.parameters.is_none();
    let is_null = algorithm.parameters.as_ref().is_none_or(Any::is_null);
    Some(match algorithm.oid {
        rfc5912::RSA_ENCRYPTION if is_null => {
            let known = [SHA_256, SHA_384, SHA_512];
            rsa(known.into_iter().find(|oid| is_digest(&signer.digest_algorithm, *oid))?)
        }
        rfc5912::SHA_256_WITH_RSA_ENCRYPTION if is_null => rsa(SHA_256),
        rfc5912::SHA_384_WITH_RSA_ENCRYPTION if is_null => rsa(SHA_384),
        rfc5912::SHA_512_WITH_RSA_ENCRYPTION if is_null => rsa(SHA_512),
        rfc5912::ECDSA_WITH_SHA_256 if is_absent => ecdsa(SHA_256),
        rfc5912::ECDSA_WITH_SHA_384 if is_absent => ecdsa(SHA_384),
        rfc5912::ECDSA_WITH_SHA_512 if is_absent => ecdsa(SHA_512),
        _ => return None,
    })
}

fn rsa(hash: ObjectIdentifier) -> Algorithms {
    match hash {
        SHA_256 => vec![known::RSA_PKCS1_2048_8192_SHA256],
        SHA_384 => vec![known::RSA_PKCS1_2048_8192_SHA384],
        _ => vec![known::RSA_PKCS1_2048_8192_SHA512],
    }
}

fn ecdsa(hash: ObjectIdentifier) -> Algorithms {
    match hash {
        SHA_256 => vec![known::ECDSA_P256_SHA256, known::ECDSA_P384_SHA256],
        SHA_384 => vec![known::ECDSA_P256_SHA384, known::ECDSA_P384_SHA384],
        _ => vec![known::ECDSA_P256_SHA512, known::ECDSA_P384_SHA512],
    }
}
