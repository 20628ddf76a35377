//! Permits over gRPC: whoever calls proves that it holds the job's key.

use std::{net::IpAddr, sync::Arc};

use proto::{pb, reason::ReasonCode};
use tonic::{Code, Request, Response};

use super::{answer::Answer, gate::Gate, status};
use crate::{
    attestation::{AttestError, Verifier},
    jobs::JobError,
    metrics,
    server::Peer,
};

/// Implements `assay.attest.v1.Jobs`.
#[derive(Debug)]
pub struct JobService {
    verifier: Arc<Verifier>,
    gate: Arc<Gate>,
}

impl JobService {
    /// The service of a verifier, behind the gate that attestations pass too.
    #[must_use]
    pub const fn new(verifier: Arc<Verifier>, gate: Arc<Gate>) -> Self {
        Self { verifier, gate }
    }
}

fn address<T>(request: &Request<T>) -> Option<IpAddr> {
    request.extensions().get::<Peer>().map(|peer| peer.address.ip())
}

fn told<T>(what: &str, peer: Option<IpAddr>, outcome: Result<T, JobError>) -> Answer<T> {
    outcome.map(Response::new).map_err(|error| match error {
        JobError::Refused { code, why } => {
            tracing::info!(?peer, %code, why, "refused to {what} a permit");
            metrics::permit_refused(code);
            let grpc = match code {
                ReasonCode::EvidenceLimitExceeded | ReasonCode::EvidenceFieldInvalid => {
                    Code::InvalidArgument
                }
                ReasonCode::PermitUnknown => Code::NotFound,
                ReasonCode::PermitSignatureInvalid | ReasonCode::PermitTimestampForeign => {
                    Code::PermissionDenied
                }
                _ => Code::FailedPrecondition,
            };
            status::with_reason(grpc, code, why)
        }
        JobError::Failed(error) => status::attest(&error),
    })
}

#[tonic::async_trait]
impl pb::jobs_server::Jobs for JobService {
    async fn redeem(&self, request: Request<pb::RedeemRequest>) -> Answer<pb::JobIdentity> {
        let peer = address(&request);
        let place = self.gate.enter(peer).inspect_err(|_| metrics::refused_busy())?;
        let verifier = Arc::clone(&self.verifier);
        // Goes on where the caller hangs up: what it cost is paid once, and the permit is used by it.
        let redeemed = tokio::spawn(async move {
            let _place = place;
            verifier.redeem(request.into_inner()).await
        });
        let redeemed = redeemed
            .await
            .unwrap_or_else(|error| Err(JobError::Failed(AttestError::Result(error.into()))));
        told("redeem", peer, redeemed)
    }

    async fn r#continue(&self, request: Request<pb::ContinueRequest>) -> Answer<pb::JobIdentity> {
        let peer = address(&request);
        let _place = self.gate.enter(peer).inspect_err(|_| metrics::refused_busy())?;
        told("continue", peer, self.verifier.proceed(request.into_inner()).await)
    }

    async fn end(&self, request: Request<pb::EndRequest>) -> Answer<pb::Ended> {
        let peer = address(&request);
        let _place = self.gate.enter(peer).inspect_err(|_| metrics::refused_busy())?;
        let ended = self.verifier.end_job(request.into_inner()).await;
        told("end", peer, ended.map(|()| pb::Ended {}))
    }

    async fn timestamp(
        &self,
        request: Request<pb::TimestampRequest>,
    ) -> Answer<pb::TimestampReply> {
        let peer = address(&request);
        let _place = self.gate.enter(peer).inspect_err(|_| metrics::refused_busy())?;
        let stamped = self.verifier.stamp(request.into_inner()).await;
        told("stamp for", peer, stamped.map(|response| pb::TimestampReply { response }))
    }
}
