//! The line of one job to the verifier: every request signed by the job's key and numbered.

use std::time::Duration;

use proto::{
    binding::VerifierId,
    pb,
    permit::{continue_message, end_message, redeem_message, timestamp_message},
    reason::ReasonCode,
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use zeroize::Zeroizing;

use super::{JobKeyPair, KeyError, Link};
use crate::client::ClientError;

/// Why a request about a permit gave nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The verifier refused: asking again gives the same.
    #[error("{why}")]
    Refused {
        /// Stable code.
        code: String,
        /// In words.
        why: String,
    },
    /// There was no answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The job's key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A redemption that got no answer is tried once more if that took no longer: a job that waits is to learn that it waits in
/// vain.
const AGAIN_WITHIN: Duration = Duration::from_secs(10);
/// Pause before that.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Codes that say that a permit is worth nothing: everything else may pass.
const FINAL: [Code; 5] = [
    Code::FailedPrecondition,
    Code::InvalidArgument,
    Code::NotFound,
    Code::PermissionDenied,
    Code::Unimplemented,
];

impl From<Status> for LineError {
    fn from(status: Status) -> Self {
        if !FINAL.contains(&status.code()) {
            return Self::Client(status.into());
        }
        let code = status.get_details_error_info().map(|info| info.reason);
        let why = status.message().to_owned();
        Self::Refused { code: code.unwrap_or_else(|| "SERVICE_UNAVAILABLE".to_owned()), why }
    }
}

/// A permit with the key and the secret that use it. The key is the job's as well; the secret never leaves this daemon.
pub struct Line {
    link: Link,
    key: JobKeyPair,
    verifier_id: VerifierId,
    permit_id: String,
    secret: Zeroizing<Vec<u8>>,
    /// Of the last request; requests go one after the other.
    sequence: Mutex<u64>,
}

impl Line {
    /// The line of a permit.
    #[must_use]
    pub fn new(
        link: Link,
        key: JobKeyPair,
        verifier_id: VerifierId,
        permit_id: String,
        secret: Vec<u8>,
    ) -> Self {
        let (secret, sequence) = (Zeroizing::new(secret), Mutex::new(0));
        Self { link, key, verifier_id, permit_id, secret, sequence }
    }

    /// Identifier of the permit.
    #[must_use]
    pub fn permit_id(&self) -> &str {
        &self.permit_id
    }

    /// The job's key.
    #[must_use]
    pub const fn key(&self) -> &JobKeyPair {
        &self.key
    }

    /// Redeems the permit. Where no answer was soon known to come, it is asked once more: a verifier that could not answer, as one that got
    /// no time stamp, has not used the permit.
    ///
    /// # Errors
    /// [`LineError`]; the first, where asking again told that the permit was used by it.
    pub async fn redeem(&self, audiences: Vec<String>) -> Result<pb::JobIdentity, LineError> {
        let _turn = self.sequence.lock().await;
        let message = redeem_message(&self.verifier_id, &self.secret, &audiences);
        let signature = self.key.sign(&message)?;
        let request = pb::RedeemRequest { secret: self.secret.to_vec(), audiences, signature };
        let ask = async |request: pb::RedeemRequest| {
            self.link.ask_to_start(async |verifier| verifier.redeem(request).await).await
        };
        let began = Instant::now();
        let first = match ask(request.clone()).await {
            Err(LineError::Client(first)) if began.elapsed() <= AGAIN_WITHIN => first,
            answered => return answered,
        };
        sleep(AGAIN_AFTER).await;
        match ask(request).await {
            Err(LineError::Refused { code, .. })
                if code == ReasonCode::PermitAlreadyRedeemed.as_str() =>
            {
                Err(first.into())
            }
            answered => answered,
        }
    }

    /// Asks whether the job may go on.
    ///
    /// # Errors
    /// [`LineError`].
    pub async fn proceed(
        &self,
        rotate: bool,
        audiences: Vec<String>,
    ) -> Result<pb::JobIdentity, LineError> {
        let mut sequence = self.sequence.lock().await;
        *sequence += 1;
        let permit_id = self.permit_id.clone();
        let mut request = pb::ContinueRequest {
            permit_id,
            sequence: *sequence,
            rotate,
            audiences,
            signature: Vec::new(),
            secret: self.secret.to_vec(),
        };
        request.signature = self.key.sign(&continue_message(&self.verifier_id, &request))?;
        self.link.ask(async |verifier| verifier.r#continue(request).await).await
    }

    /// Has a signature of the job's key stamped. Not numbered: it waits for no other request, and none waits for it.
    ///
    /// # Errors
    /// [`LineError`].
    pub async fn stamp(&self, asked: pb::StampRequest) -> Result<Vec<u8>, LineError> {
        let pb::StampRequest { request, content_sha256, content_signature } = asked;
        let mut request = pb::TimestampRequest {
            request,
            permit_id: self.permit_id.clone(),
            secret: self.secret.to_vec(),
            content_sha256,
            content_signature,
            signature: Vec::new(),
        };
        request.signature = self.key.sign(&timestamp_message(&self.verifier_id, &request))?;
        Ok(self.link.ask(async |verifier| verifier.timestamp(request).await).await?.response)
    }

    /// Tells the verifier that the permit is not used any more.
    ///
    /// # Errors
    /// [`LineError`]; the permit ends by itself then, in time.
    pub async fn end(&self, reason: &str) -> Result<(), LineError> {
        let mut sequence = self.sequence.lock().await;
        *sequence += 1;
        let mut reason = reason.to_owned();
        reason.truncate(reason.floor_char_boundary(proto::limits::MAX_TEXT_BYTES));
        let mut request = pb::EndRequest {
            permit_id: self.permit_id.clone(),
            sequence: *sequence,
            reason,
            signature: Vec::new(),
            secret: self.secret.to_vec(),
        };
        request.signature = self.key.sign(&end_message(&self.verifier_id, &request))?;
        self.link.ask(async |verifier| verifier.end(request).await).await?;
        Ok(())
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("permit_id", &self.permit_id).finish_non_exhaustive()
    }
}
