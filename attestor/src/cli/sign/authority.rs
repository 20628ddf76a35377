//! Who stamps the time: the verifier, through the worker's daemon, or an authority of the site's own.

use std::{path::Path, time::Duration};

use attestor::chain;
use proto::pb::{self, job_gate_client::JobGateClient};
use results::{bundle::MessageSignature, timestamp::ask::AuthorityUrl};
use tokio::time::timeout;
use tonic::transport::Channel;

use super::{super::socket::connect, ANSWER_WITHIN, SignError};

/// Longest wait for an authority that is not the verifier.
const WITHIN: Duration = Duration::from_secs(30);

/// Whom to ask.
pub(super) enum Authority {
    Verifier(JobGateClient<Channel>),
    Own(AuthorityUrl),
}

impl Authority {
    pub(super) async fn new(socket: &Path, own: Option<&AuthorityUrl>) -> Result<Self, SignError> {
        match own {
            Some(url) => Ok(Self::Own(url.clone())),
            None => {
                let channel = connect(socket).await.map_err(SignError::Failed)?;
                Ok(Self::Verifier(JobGateClient::new(channel)))
            }
        }
    }

    /// DER of a `TimeStampResp`, believed by nobody.
    pub(super) async fn ask(
        &mut self,
        request: Vec<u8>,
        signed: &MessageSignature,
    ) -> Result<Vec<u8>, SignError> {
        match self {
            Self::Verifier(gate) => {
                let sent = pb::StampRequest {
                    request,
                    content_sha256: signed.untrusted_digest.as_bytes().to_vec(),
                    content_signature: signed.signature.clone(),
                };
                let reply = timeout(ANSWER_WITHIN, gate.timestamp(sent)).await;
                let late = |_| SignError::failed("the worker's daemon did not answer in time");
                let reply = reply.map_err(late)?;
                let reply = reply.map_err(|status| SignError::of("no time stamp", &status))?;
                Ok(reply.into_inner().response)
            }
            Self::Own(url) => url.ask(request, WITHIN).await.map_err(|error| {
                SignError::failed(format!("no time stamp of {url}: {}", chain(&error)))
            }),
        }
    }
}
