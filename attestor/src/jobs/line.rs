//! The line of one job to the verifier: every request signed by the job's key and numbered.

use std::time::Duration;

use proto::{
    binding::VerifierId,
    pb::{self, jobs_client::JobsClient},
    permit::{continue_message, end_message, redeem_message, timestamp_message},
    reason::ReasonCode,
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};
use tonic::{Code, Status, transport::Channel};
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

/// A redemption that got no answer is tried once more if that was known this soon after it was sent: a job that waits is to
/// learn that it waits in vain. A connection that died is noticed earlier.
const AGAIN_WITHIN: Duration = Duration::from_secs(15);
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
        ask_once_more(|| self.ask_to_redeem(request.clone())).await
    }

    async fn ask_to_redeem(&self, request: pb::RedeemRequest) -> Attempt<pb::JobIdentity> {
        let turn = self.link.turn_to_start().await;
        let mut sent = None;
        let call = async |verifier: &mut JobsClient<Channel>| {
            // Waiting for a turn is no silence of the verifier.
            sent = Some(Instant::now());
            verifier.redeem(request).await
        };
        let came = match turn {
            Ok(_turn) => self.link.ask(call).await,
            Err(stopping) => Err(stopping),
        };
        Attempt { sent, came }
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

/// One request for a redemption.
struct Attempt<T> {
    /// When it was sent; `None`: it was not.
    sent: Option<Instant>,
    came: Result<T, LineError>,
}

async fn ask_once_more<T, A: Future<Output = Attempt<T>>>(
    ask: impl Fn() -> A,
) -> Result<T, LineError> {
    let Attempt { sent, came } = ask().await;
    let is_soon = sent.is_none_or(|sent| sent.elapsed() <= AGAIN_WITHIN);
    let first = match came {
        Err(LineError::Client(first)) if is_soon => first,
        answered => return answered,
    };
    sleep(AGAIN_AFTER).await;
    match ask().await.came {
        Err(LineError::Refused { code, .. })
            if code == ReasonCode::PermitAlreadyRedeemed.as_str() =>
        {
            Err(first.into())
        }
        answered => answered,
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("permit_id", &self.permit_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// What comes of a request, after it waited and was sent, seconds.
    #[derive(Clone, Copy)]
    struct Try {
        waits: u64,
        is_sent: bool,
        takes: u64,
        gives: Result<u32, &'static str>,
    }

    const fn no_answer(takes: u64) -> Try {
        Try { waits: 0, is_sent: true, takes, gives: Err("") }
    }

    const fn gives(gives: Result<u32, &'static str>) -> Try {
        Try { waits: 0, is_sent: true, takes: 0, gives }
    }

    /// What a redemption gives, and how often it asked.
    async fn redeemed(tries: &[Try]) -> (Result<u32, String>, usize) {
        let asked = Cell::new(0);
        let ask = async || {
            let one = tries[asked.replace(asked.get() + 1)];
            sleep(Duration::from_secs(one.waits)).await;
            let sent = one.is_sent.then(Instant::now);
            sleep(Duration::from_secs(one.takes)).await;
            let came = one.gives.map_err(|code| match code {
                "" => ClientError::Silent(Duration::from_secs(one.takes)).into(),
                code => LineError::Refused { code: code.to_owned(), why: code.to_owned() },
            });
            Attempt { sent, came }
        };
        let given = ask_once_more(ask).await.map_err(|error| error.to_string());
        (given, asked.get())
    }

    #[tokio::test(start_paused = true)]
    async fn a_redemption_without_an_answer_is_asked_for_once_more_where_that_was_soon_known() {
        let good = gives(Ok(1));
        assert_eq!(redeemed(&[good]).await, (Ok(1), 1));
        for first in [
            no_answer(0),
            no_answer(15),
            Try { waits: 600, ..no_answer(15) },
            Try { is_sent: false, ..no_answer(20) },
        ] {
            assert_eq!(redeemed(&[first, good]).await, (Ok(1), 2));
        }
        let (late, asked) = redeemed(&[no_answer(16), good]).await;
        assert!(late.is_err_and(|why| why.contains("16")) && asked == 1);
        // Not a third time.
        let (silent, asked) = redeemed(&[no_answer(3), no_answer(4), good]).await;
        assert!(silent.is_err_and(|why| why.contains('4')) && asked == 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_verifier_refuses_is_refused() {
        let refuses = |code| gives(Err(code));
        let [used, ended] = ["PERMIT_ALREADY_REDEEMED", "PERMIT_ENDED"];
        for code in [used, ended] {
            assert_eq!(redeemed(&[refuses(code)]).await, (Err(code.to_owned()), 1));
        }
        let (refused, asked) = redeemed(&[no_answer(3), refuses(ended)]).await;
        assert_eq!((refused, asked), (Err(ended.to_owned()), 2));
        // By the first request, whose answer was lost: what came of it is not known.
        let (lost, asked) = redeemed(&[no_answer(3), refuses(used)]).await;
        assert!(lost.is_err_and(|why| why.contains('3')) && asked == 2);
    }
}
