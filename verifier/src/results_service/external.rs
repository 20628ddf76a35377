//! Time stamp authorities of others: whom relying parties shall trust, and who stamps what the verifier states.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use results::{
    Refusal, Sha256Digest, UnixTime,
    bundle::CertificateAuthority,
    certificate::Certificate,
    timestamp::{
        Request, Response,
        ask::{AskError, AuthorityUrl},
    },
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};

use super::leaf::instant;
use crate::{
    ca::{
        BACKDATE,
        files::{self, FileError},
    },
    clock::Clock,
    config,
    credential::{RandomError, random_bytes},
    metrics,
    service::status::chain,
};

/// Longest wait for a time stamp, all in all: a job waits for it before it starts.
const WITHIN: Duration = Duration::from_secs(5);
/// Longest wait for one answer: one that was lost is not to cost the job.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Pause before it is asked again.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// How far the authority's clock may be from the verifier's, seconds, and be waited for.
const MAX_SKEW_S: u64 = 3;
// What is stamped lies in the time of a certificate that was made just now.
const _: () = assert!(MAX_SKEW_S < BACKDATE.as_secs());
/// Requests that are under way at once; each is a connection. No node has more than an eighth of them: see `jobs::redeeming`.
const MAX_REQUESTS: usize = 256;
/// Look-ups of its name that are under way at once: each has a thread, of those that the store uses as well.
const MAX_LOOKUPS: usize = 8;
/// Bytes of a request's nonce.
const NONCE_BYTES: usize = 16;

/// The certificates of an authority cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("results.timestamp_authority[{index}].ca of {url}")]
pub struct AuthorityError {
    index: usize,
    url: String,
    source: Box<ChainError>,
}

impl AuthorityError {
    /// The key of the configuration.
    #[must_use]
    pub fn key(&self) -> String {
        format!("results.timestamp_authority[{}].ca", self.index)
    }

    /// Which of the authorities, from 0.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index
    }

    /// What is wrong there.
    #[must_use]
    pub fn why(&self) -> String {
        chain(self.source.as_ref())
    }
}

#[derive(Debug, thiserror::Error)]
enum ChainError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path}: {why}")]
    Content { path: PathBuf, why: String },
}

/// Why there is no time stamp.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StampError {
    /// It did not answer.
    #[error("no answer")]
    Ask(#[from] AskError),
    /// What it answered is not good.
    #[error("its answer is refused")]
    Refused(#[from] Refusal),
    /// Its clock is not the verifier's.
    #[error("its clock is {seconds} s {side} the verifier's: one of them is wrong")]
    Clock {
        /// How far.
        seconds: u64,
        /// Behind or ahead of.
        side: &'static str,
    },
    /// The verifier's own clock went back since what is stated was found.
    #[error("the verifier's clock went back: it is {seconds} s before what is to be stamped")]
    WentBack {
        /// How far.
        seconds: u64,
    },
    /// The verifier's own clock.
    #[error("the verifier's clock shows no time")]
    NoTime,
    /// Too many are asked for at once.
    #[error("as many as may be are asked for already")]
    Busy,
    /// It was waited for in vain.
    #[error("none within {} s", WITHIN.as_secs())]
    Late,
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// The authorities that the configuration names.
#[derive(Debug, Default)]
pub struct ExternalAuthorities {
    trusted: Vec<CertificateAuthority>,
    stamping: Option<ExternalAuthority>,
}

/// An authority that stamps in place of the verifier's own.
#[derive(Debug)]
pub struct ExternalAuthority {
    url: AuthorityUrl,
    trusted: CertificateAuthority,
    places: Semaphore,
    lookups: Arc<Semaphore>,
}

impl StampError {
    /// As it is counted.
    const fn outcome(&self) -> &'static str {
        match self {
            Self::Ask(_) | Self::Late => "no_answer",
            Self::Refused(_) => "refused",
            Self::Clock { .. } | Self::WentBack { .. } => "clock",
            Self::Busy => "busy",
            Self::NoTime | Self::Random(_) => "error",
        }
    }
}

impl ExternalAuthorities {
    /// Reads the certificates of the authorities.
    ///
    /// # Errors
    /// [`AuthorityError`]: the first that cannot be used.
    pub fn read(config: &config::Results) -> Result<Self, AuthorityError> {
        let (all, problems) = Self::read_all(config);
        problems.into_iter().next().map_or(Ok(all), Err)
    }

    /// As [`ExternalAuthorities::read`]: those that can be used, and what is wrong with each of the others.
    pub(crate) fn read_all(config: &config::Results) -> (Self, Vec<AuthorityError>) {
        let (mut all, mut problems) = (Self::default(), Vec::new());
        for (index, authority) in config.timestamp_authorities.iter().enumerate() {
            let url = authority.url.clone();
            let trusted = match trusted(authority) {
                Ok(trusted) => trusted,
                Err(source) => {
                    let (url, source) = (url.to_string(), Box::new(source));
                    problems.push(AuthorityError { index, url, source });
                    continue;
                }
            };
            if authority.stamps {
                all.stamping = Some(ExternalAuthority {
                    url,
                    trusted: trusted.clone(),
                    places: Semaphore::new(MAX_REQUESTS),
                    lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
                });
            }
            all.trusted.push(trusted);
        }
        (all, problems)
    }

    /// Those that relying parties shall trust.
    #[must_use]
    pub fn trusted(&self) -> &[CertificateAuthority] {
        &self.trusted
    }

    /// The one that stamps the verifier's statements, if it is not the verifier's own.
    #[must_use]
    pub const fn stamping(&self) -> Option<&ExternalAuthority> {
        self.stamping.as_ref()
    }
}

/// What is trusted of an authority: its certificates, as long as the root is valid.
fn trusted(authority: &config::TimestampAuthority) -> Result<CertificateAuthority, ChainError> {
    let path = &authority.ca;
    let fail = |why: String| ChainError::Content { path: path.clone(), why };
    let refused = |refusal: Refusal| fail(refusal.to_string());
    let chain = files::certificates_of(path, &files::read_text(path)?)?;
    let root = chain.last().map(Vec::as_slice).unwrap_or_default();
    let root = Certificate::parse("the last certificate", root).map_err(refused)?;
    let url = authority.url.to_string();
    let (from, until) = (root.not_before(), Some(root.not_after()));
    let trusted = CertificateAuthority::new(&url, ["", &url], &chain, from, until);
    let trusted = trusted.map_err(refused)?;
    trusted.check_order().map_err(refused)?;
    Ok(trusted)
}

impl ExternalAuthority {
    /// Where it is asked.
    #[must_use]
    pub const fn url(&self) -> &AuthorityUrl {
        &self.url
    }

    /// A time stamp over an imprint: not of before `earliest`, not of the future by the verifier's clock, and at most
    /// [`MAX_SKEW_S`] before it. An authority whose clock is a little off is waited for, so that what rests on the order of
    /// instants stays in order; one that does not answer is asked again.
    pub(super) async fn stamp(
        &self,
        imprint: Sha256Digest,
        earliest: UnixTime,
        clock: &Arc<dyn Clock>,
    ) -> Result<Vec<u8>, StampError> {
        let began = Instant::now();
        let mut last = StampError::Busy;
        let stamped = timeout(WITHIN, self.try_stamp(imprint, earliest, clock, &mut last)).await;
        let stamped = stamped.unwrap_or(Err(last));
        let outcome = stamped.as_ref().map_or_else(StampError::outcome, |_| "stamped");
        metrics::external_stamp(outcome, began.elapsed());
        stamped
    }

    /// `last` is why there is none if the time is up.
    async fn try_stamp(
        &self,
        imprint: Sha256Digest,
        earliest: UnixTime,
        clock: &Arc<dyn Clock>,
        last: &mut StampError,
    ) -> Result<Vec<u8>, StampError> {
        let _place = self.places.acquire().await.map_err(|_| StampError::Busy)?;
        *last = StampError::Late;
        loop {
            let request = Request::new(imprint, &random_bytes()?[..NONCE_BYTES])?;
            let asked = time_of(clock)?;
            let went_back = earliest.seconds_since(asked);
            if went_back > MAX_SKEW_S {
                return Err(StampError::WentBack { seconds: went_back });
            }
            let answer = match self.ask(request.to_der()?).await {
                Ok(answer) => answer,
                Err(error) if error.may_pass() => {
                    *last = error.into();
                    sleep(RETRY_AFTER).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let now = time_of(clock)?;
            let trusted = std::slice::from_ref(&self.trusted);
            let at = Response::parse(&answer)?.verify_answer(&request, trusted, now)?.at();
            let (behind, ahead) = (asked.seconds_since(at), at.seconds_since(now));
            if behind > MAX_SKEW_S || ahead > MAX_SKEW_S {
                return Err(off(behind, ahead));
            }
            if at < earliest {
                *last = match went_back {
                    0 => off(behind, ahead),
                    seconds => StampError::WentBack { seconds },
                };
                sleep(Duration::from_secs(earliest.seconds_since(at))).await;
                continue;
            }
            sleep(Duration::from_secs(ahead)).await;
            return Ok(answer);
        }
    }

    async fn ask(&self, request: Vec<u8>) -> Result<Vec<u8>, AskError> {
        let late = |_| AskError::Late(ANSWER_WITHIN);
        let addresses = timeout(ANSWER_WITHIN, self.addresses()).await.map_err(late)??;
        self.url.ask_at(&addresses, request, ANSWER_WITHIN).await
    }

    /// Its addresses; whoever stops waiting leaves the look-up its place until it ends.
    async fn addresses(&self) -> Result<Vec<SocketAddr>, AskError> {
        let place = Arc::clone(&self.lookups).acquire_owned().await;
        let place = place.map_err(|error| AskError::Unreachable(io::Error::other(error)))?;
        let url = self.url.clone();
        let found = tokio::spawn(async move {
            let found = url.addresses().await;
            drop(place);
            found
        });
        found.await.map_err(|error| AskError::Unreachable(io::Error::other(error)))?
    }
}

fn time_of(clock: &Arc<dyn Clock>) -> Result<UnixTime, StampError> {
    instant(clock.now_unix_s()).map_err(|_| StampError::NoTime)
}

fn off(behind: u64, ahead: u64) -> StampError {
    match ahead {
        0 => StampError::Clock { seconds: behind, side: "behind" },
        ahead => StampError::Clock { seconds: ahead, side: "ahead of" },
    }
}
