//! What a quote and a certification are bound to: domain-separated qualifyingData.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::{digest::Digest, tpm::name::Name};

/// 32 fresh random bytes from the verifier, used once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Challenge([u8; 32]);

impl Challenge {
    /// A challenge from bytes that the operating system's generator just gave, or that were recorded.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Challenge({})", hex::encode(self.0))
    }
}

/// Names a fleet of verifiers: a quote made for one fleet is worthless to another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VerifierId([u8; 32]);

impl VerifierId {
    /// An identifier from its 32 bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for VerifierId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierId({})", hex::encode(self.0))
    }
}

/// The job that a permit's quote is made for. Each digest is SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobBinding {
    /// Of the DER `SubjectPublicKeyInfo` of the job's key.
    pub key: Digest,
    /// Of the job's claims as the worker sent them.
    pub claims: Digest,
    /// Of the CI system's token as the worker sent it; of nothing where there is none.
    pub token: Digest,
}

/// What a quote is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A node certificate.
    Node,
    /// A permit for one job.
    Permit(JobBinding),
}

/// `qualifyingData` of a TPM command: 32 bytes, returned by the TPM as `extraData`.
///
/// # Format
/// SHA-256 over fields, each with a `UINT16` big-endian length before it, in this order:
/// domain string, challenge, verifier id, node key Name, for a quote the tool log's head, and for a permit's quote the digests
/// of job key, job claims and token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct QualifyingData([u8; 32]);

/// Domain of a node's quote.
const DOMAIN_NODE: &[u8] = b"assay/v1/node";
/// Domain of a permit's quote.
const DOMAIN_PERMIT: &[u8] = b"assay/v1/permit";
/// Domain of the node key's certification.
const DOMAIN_NODE_KEY: &[u8] = b"assay/v1/node-key";

impl QualifyingData {
    /// For `TPM2_Quote`.
    #[must_use]
    pub fn for_quote(
        purpose: &Purpose,
        challenge: &Challenge,
        verifier: &VerifierId,
        node_key: &Name,
        tool_log_head: &Digest,
    ) -> Self {
        let (key, head) = (node_key.as_bytes(), tool_log_head.as_bytes());
        match purpose {
            Purpose::Node => Self::hash(&[DOMAIN_NODE, &challenge.0, &verifier.0, key, head]),
            Purpose::Permit(job) => Self::hash(&[
                DOMAIN_PERMIT,
                &challenge.0,
                &verifier.0,
                key,
                head,
                job.key.as_bytes(),
                job.claims.as_bytes(),
                job.token.as_bytes(),
            ]),
        }
    }

    /// For `TPM2_Certify` of the node key.
    #[must_use]
    pub fn for_node_key(challenge: &Challenge, verifier: &VerifierId, node_key: &Name) -> Self {
        Self::hash(&[DOMAIN_NODE_KEY, &challenge.0, &verifier.0, node_key.as_bytes()])
    }

    fn hash(fields: &[&[u8]]) -> Self {
        let mut hasher = Sha256::new();
        for field in fields {
            // Every field is shorter than 128 bytes; a longer one could only come from a Name, which
            // is at most 66.
            let len = u16::try_from(field.len()).unwrap_or(u16::MAX);
            hasher.update(len.to_be_bytes());
            hasher.update(field);
        }
        Self(hasher.finalize().into())
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for QualifyingData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QualifyingData({})", hex::encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::HashAlg;

    #[test]
    fn purposes_and_fields_are_separated() {
        let challenge = Challenge::new([1; 32]);
        let verifier = VerifierId::new([2; 32]);
        let key = Name::of(HashAlg::Sha256, b"key");
        let head = Digest::zero(HashAlg::Sha256);
        let node = Purpose::Node;
        let quote = QualifyingData::for_quote(&node, &challenge, &verifier, &key, &head);
        assert_ne!(quote, QualifyingData::for_node_key(&challenge, &verifier, &key));
        let swapped = QualifyingData::for_quote(
            &node,
            &Challenge::new([2; 32]),
            &VerifierId::new([1; 32]),
            &key,
            &head,
        );
        assert_ne!(quote, swapped);
        let of = |text: &str| HashAlg::Sha256.hash(&[text.as_bytes()]);
        let job = JobBinding { key: of("key"), claims: of("claims"), token: of("token") };
        let others = [
            job,
            JobBinding { key: of("another"), ..job },
            JobBinding { claims: of("another"), ..job },
            JobBinding { token: of("another"), ..job },
            JobBinding { key: job.claims, claims: job.key, ..job },
        ];
        let mut seen = vec![quote];
        for job in others {
            let purpose = Purpose::Permit(job);
            let permit = QualifyingData::for_quote(&purpose, &challenge, &verifier, &key, &head);
            assert!(!seen.contains(&permit), "{job:?}");
            seen.push(permit);
        }
    }

    /// Fixed by docs/PROTOCOL.md: a change here breaks every worker.
    #[test]
    fn known_answer() {
        let name = Name::of(HashAlg::Sha256, b"");
        let data = QualifyingData::for_quote(
            &Purpose::Node,
            &Challenge::new([0; 32]),
            &VerifierId::new([0; 32]),
            &name,
            &Digest::zero(HashAlg::Sha256),
        );
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&[0, 13]);
        bytes.extend_from_slice(b"assay/v1/node");
        for _ in 0..2 {
            bytes.extend_from_slice(&[0, 32]);
            bytes.extend_from_slice(&[0; 32]);
        }
        bytes.extend_from_slice(&[0, 34, 0x00, 0x0b]);
        bytes.extend_from_slice(HashAlg::Sha256.hash(&[b""]).as_bytes());
        bytes.extend_from_slice(&[0, 32]);
        bytes.extend_from_slice(&[0; 32]);
        assert_eq!(data.as_bytes(), HashAlg::Sha256.hash(&[&bytes]).as_bytes());
    }
}
