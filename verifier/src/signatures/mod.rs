//! Signatures by the site's security keys: golden sets, policies and the key ring itself, m of n.
//!
//! ```text
//! sign    document ──to_canonical_json──▶ payload ─▶ Envelope::new ─▶ Pae ─▶ SecurityPrivateKey::sign
//!                                                        ▲                              │
//!                                                        └───────────── add ────────────┘
//! verify  KeyRing::verify(Envelope, type, payload made from the document at hand) ──▶ Approval
//! ```
//!
//! # Trust
//! An [`Envelope`] is what somebody handed in: its payload, its type and its key identifiers stay
//! `untrusted`. The only way to an [`Approval`] is [`KeyRing::verify`], which is given payload and
//! type by its caller and never takes them from the envelope.
//!
//! Private keys are files of people: the service has none of them, and verifies only. Formats and
//! commands: docs/SIGNATURES.md.

mod approval;
mod canonical;
mod dsse;
mod key;
mod keyring;
mod pem;
mod private_key;
mod public_key;
#[cfg(test)]
mod tests;

use std::fmt;

pub use self::{
    approval::{Approval, ApprovalError, SuccessorError, Uncounted},
    canonical::{CanonicalError, MAX_INTEGER, to_canonical_json},
    dsse::{
        Envelope, EnvelopeError, MAX_ENVELOPE_BYTES, MAX_PAYLOAD_BYTES, MAX_SIGNATURES, Pae,
        Signature,
    },
    key::{KeyName, KeyNameError, SecurityKey, Signer},
    keyring::{
        KeyEntry, KeyRing, KeyRingDocument, MAX_KEYS, MAX_RING_BYTES, SCHEMA as KEYS_SCHEMA,
        ring_document,
    },
    private_key::SecurityPrivateKey,
    public_key::{Algorithm, KeyError, PublicKey, UnknownAlgorithm},
};

/// What a signed document is. It is signed with the document, so that a signature for one kind is
/// none for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PayloadType {
    /// A golden set.
    Golden,
    /// A site policy.
    Policy,
    /// A key ring.
    Keys,
}

impl PayloadType {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Golden, Self::Policy, Self::Keys];

    /// The media type, as DSSE's `payloadType`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Golden => "application/vnd.assay.golden.v1+json",
            Self::Policy => "application/vnd.assay.policy.v1+json",
            Self::Keys => "application/vnd.assay.keys.v1+json",
        }
    }
}

impl fmt::Display for PayloadType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
