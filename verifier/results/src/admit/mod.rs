//! Admission: whether an artifact may be used, from its signature back to the TPM's quote.
//!
//! ```text
//! artifact ◀─signed by─ job key ◀─named by─ dispatch ◀─names─▶ VSA ◀─about─ quote, AK, node
//!                       (leaf)              (verifier)         (verifier)
//! ```

mod chain;
mod examine;
mod policy;

use crate::{
    Sha256Digest, SpiffeId, UnixTime,
    bundle::{Bundle, TrustedRoot},
    refusal::Refusal,
    statement::{Dispatch, Vsa},
    verify::{VerifiedArtifact, VerifiedStatement},
};

pub use self::{
    examine::{Examined, Link, examine},
    policy::{AdmitPolicy, MAX_POLICY_ENTRIES, RequiredTool},
};

/// What is to be admitted, and what is said for it. Nothing of it is believed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// SHA-256 of the artifact.
    pub artifact: &'a Sha256Digest,
    /// The job's signature of the artifact.
    pub job: &'a Bundle,
    /// The verifier's statement about the job.
    pub dispatch: &'a Bundle,
    /// The verifier's statement about the node.
    pub vsa: &'a Bundle,
}

/// An artifact that may be used.
///
/// # Proves
/// Every link of the chain was verified, and the policy accepts what they say. `Display` prints the
/// chain as a tree.
#[derive(Clone, Debug)]
#[must_use]
pub struct Admitted {
    artifact: VerifiedArtifact,
    dispatch: VerifiedStatement<Dispatch>,
    vsa: VerifiedStatement<Vsa>,
}

/// Verifies the chain and applies the policy; the refusal names the first link that is broken,
/// [`examine`] all.
///
/// # Errors
/// `RESULT_*` of a bundle, whose name (`artifact`, `dispatch`, `vsa`) begins the subject; `ADMIT_*`
/// of what they say to each other or to the policy; `ADMIT_POLICY_INVALID`.
pub fn admit(
    request: Request<'_>,
    policy: &AdmitPolicy,
    root: &TrustedRoot,
    now: UnixTime,
) -> Result<Admitted, Refusal> {
    examine(request, policy, root, now)?.admitted()
}

/// Whether a job's dispatch rests on this statement about its node: by its digest, `PASSED`, the same
/// node, the same quote. The policy and the times are for [`admit`].
///
/// # Errors
/// `ADMIT_VSA_MISMATCH`, `ADMIT_VSA_NOT_PASSED`, `ADMIT_VSA_NODE_MISMATCH`, `ADMIT_QUOTE_MISMATCH`:
/// the first of them.
pub fn rests_on(
    dispatch: &VerifiedStatement<Dispatch>,
    vsa: &VerifiedStatement<Vsa>,
) -> Result<(), Refusal> {
    chain::rests_on(dispatch.statement(), vsa)
}

impl Admitted {
    /// The artifact and the job's signature.
    #[must_use]
    pub const fn artifact(&self) -> &VerifiedArtifact {
        &self.artifact
    }

    /// What the verifier said of the job.
    #[must_use]
    pub const fn dispatch(&self) -> &VerifiedStatement<Dispatch> {
        &self.dispatch
    }

    /// What the verifier said of the node.
    #[must_use]
    pub const fn vsa(&self) -> &VerifiedStatement<Vsa> {
        &self.vsa
    }

    /// The node.
    #[must_use]
    pub const fn node(&self) -> &SpiffeId {
        &self.vsa.statement().node
    }
}
