//! Signatures of golden sets, policies and key rings by the site's security keys.

mod canonical;
mod dsse;

use std::fmt;

pub use self::{
    canonical::{CanonicalError, MAX_INTEGER, to_canonical_json},
    dsse::{
        Envelope, EnvelopeError, MAX_ENVELOPE_BYTES, MAX_PAYLOAD_BYTES, MAX_SIGNATURES, Pae,
        Signature,
    },
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
