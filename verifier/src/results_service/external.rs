//! Time stamp authorities of others: whom relying parties shall trust, and who stamps what the verifier states.

use std::{path::PathBuf, sync::Arc, time::Duration};

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
    ca::files::{self, FileError},
    clock::Clock,
    config,
    credential::{RandomError, random_bytes},
    metrics,
    service::status::chain,
};

/// Longest wait for a time stamp, all in all: a job waits for it before it starts.
const WITHIN: Duration = Duration::from_secs(5);
/// How far the authority's clock may be from the verifier's, seconds, and be waited for.
const MAX_SKEW_S: u64 = 3;
/// Requests that are under way at once; each is a connection.
const MAX_REQUESTS: usize = 128;
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
    /// The verifier's own clock.
    #[error("the verifier's clock shows no time")]
    NoTime,
    /// Too many are asked for, or it was waited for in vain.
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
}

impl ExternalAuthorities {
    /// Reads the certificates of the authorities.
    ///
    /// # Errors
    /// [`AuthorityError`]: the first that cannot be used.
    pub fn read(config: &config::Results) -> Result<Self, AuthorityError> {
        let mut all = Self::default();
        for (index, authority) in config.timestamp_authorities.iter().enumerate() {
            let url = authority.url.clone();
            let trusted = trusted(authority).map_err(|source| AuthorityError {
                index,
                url: url.to_string(),
                source: Box::new(source),
            })?;
            if authority.stamps {
                let (trusted, places) = (trusted.clone(), Semaphore::new(MAX_REQUESTS));
                all.stamping = Some(ExternalAuthority { url, trusted, places });
            }
            all.trusted.push(trusted);
        }
        Ok(all)
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
    if !root.is_ca() {
        return Err(fail(
            "the last certificate must be a CA, the root of the authority".to_owned(),
        ));
    }
    let url = authority.url.to_string();
    let (from, until) = (root.not_before(), Some(root.not_after()));
    CertificateAuthority::new(&url, ["", &url], &chain, from, until).map_err(refused)
}

impl ExternalAuthority {
    /// Where it is asked.
    #[must_use]
    pub const fn url(&self) -> &AuthorityUrl {
        &self.url
    }

    /// A time stamp over an imprint, not of before `earliest` and not of the future by the verifier's clock: an authority whose
    /// clock is a little off is waited for, so that what rests on the order of instants stays in order.
    pub(super) async fn stamp(
        &self,
        imprint: Sha256Digest,
        earliest: UnixTime,
        clock: &Arc<dyn Clock>,
    ) -> Result<Vec<u8>, StampError> {
        let began = Instant::now();
        let stamped = timeout(WITHIN, self.try_stamp(imprint, earliest, clock)).await;
        let stamped = stamped.unwrap_or(Err(StampError::Late));
        metrics::external_stamp(stamped.is_ok(), began.elapsed());
        stamped
    }

    async fn try_stamp(
        &self,
        imprint: Sha256Digest,
        earliest: UnixTime,
        clock: &Arc<dyn Clock>,
    ) -> Result<Vec<u8>, StampError> {
        let _place = self.places.acquire().await.map_err(|_| StampError::Late)?;
        loop {
            let request = Request::new(imprint, &random_bytes()?[..NONCE_BYTES])?;
            let answer = self.url.ask(request.to_der()?, WITHIN).await?;
            let now = instant(clock.now_unix_s()).map_err(|_| StampError::NoTime)?;
            let trusted = std::slice::from_ref(&self.trusted);
            let at = Response::parse(&answer)?.verify_answer(&request, trusted, now)?.at();
            if at < earliest {
                wait(earliest.seconds_since(at), "behind").await?;
                continue;
            }
            wait(at.seconds_since(now), "ahead of").await?;
            return Ok(answer);
        }
    }
}

/// Waits for the clock that is behind, if it is not far.
async fn wait(seconds: u64, side: &'static str) -> Result<(), StampError> {
    if seconds > MAX_SKEW_S {
        return Err(StampError::Clock { seconds, side });
    }
    sleep(Duration::from_secs(seconds)).await;
    Ok(())
}
