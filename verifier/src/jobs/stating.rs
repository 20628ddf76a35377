//! What the verifier states of a job: made before the job may start, told and kept once it may.

use proto::pb;
use results::statement::Predicate;
use tokio::try_join;

use super::{Basis, JobError, statements};
use crate::{
    attestation::{AttestError, Verifier},
    results_files::ResultFiles,
    results_service::{ResultsSigner, Unstamped},
    store::Permit,
};

/// Bundles about a permit that is about to be redeemed, which nobody has yet.
pub(super) struct Stated {
    node: Vec<u8>,
    dispatch: Vec<u8>,
}

type Source = Box<dyn std::error::Error + Send + Sync>;

fn failed(error: impl Into<Source>) -> JobError {
    JobError::Failed(AttestError::Result(error.into()))
}

fn sign(signer: &ResultsSigner, statement: &impl Predicate) -> Result<Unstamped, JobError> {
    signer.sign(statement).map_err(failed)
}

impl Verifier {
    /// Says what the node proved and what is dispatched there, signed and stamped.
    ///
    /// A time stamp may be another authority's, which may not answer: the permit is not used yet, and can be redeemed again.
    pub(super) async fn state(&self, permit: &Permit) -> Result<Stated, JobError> {
        let basis: Basis = serde_json::from_slice(&permit.new.basis).map_err(failed)?;
        let (signer, _) = self.results();
        let trust_domain = &self.settings().trust_domain;
        let vsa = statements::of_the_node(permit, &basis, trust_domain).map_err(failed)?;
        let node = sign(signer, &vsa)?;
        let dispatch = statements::of_the_dispatch(permit, &basis, node.digest(), trust_domain);
        let dispatch = sign(signer, &dispatch.map_err(failed)?)?;
        // First the node was verified, then the job dispatched: whoever admits what it builds wants that order.
        let earliest = vsa.time_verified;
        let stamped = try_join!(signer.stamp(node, earliest), signer.stamp(dispatch, earliest));
        let (node, dispatch) = stamped.map_err(failed)?;
        Ok(Stated { node, dispatch })
    }
}

impl Stated {
    /// Keeps them for whoever has their digest, and gives them to the worker.
    pub(super) fn tell(self, files: &ResultFiles) -> Result<Vec<pb::ResultStatement>, JobError> {
        let told = [("node", self.node), ("dispatch", self.dispatch)].map(|(kind, bundle)| {
            files.keep(&bundle).map_err(failed)?;
            Ok(pb::ResultStatement { kind: kind.to_owned(), bundle })
        });
        told.into_iter().collect()
    }
}
