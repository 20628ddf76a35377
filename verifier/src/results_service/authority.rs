//! The time stamp authority: a clock that others can prove to have been read.

use std::sync::Arc;

use results::{
    Sha256Digest, UnixTime,
    signer::SoftwareKey,
    timestamp::{Answer, Authority, DEFAULT_POLICY, Request},
};

use super::{
    ResultsError,
    leaf::{Issuing, Renewed, instant},
};
use crate::{ca::TimestampSubject, credential::random_bytes};

/// Bytes of a time stamp's serial number: random, so that no two are alike.
const SERIAL_BYTES: usize = 16;

/// Stamps the verifier's time.
#[derive(Debug)]
pub struct TimestampAuthority {
    issuing: Arc<Issuing>,
    authority: Renewed<Authority<SoftwareKey>>,
}

impl TimestampAuthority {
    pub(super) const fn new(issuing: Arc<Issuing>) -> Self {
        Self { issuing, authority: Renewed::new() }
    }

    /// Answers a request with this time, unix seconds, and what is none (`None`) with a rejection: DER of a `TimeStampResp`.
    ///
    /// # Errors
    /// [`ResultsError`]: there is no answer.
    pub fn answer_at(
        &self,
        request: Option<&Request>,
        now_unix_s: i64,
    ) -> Result<Vec<u8>, ResultsError> {
        let now = instant(now_unix_s)?;
        let answer = match request {
            Some(request) => self.authority(now)?.answer_to(request, &serial()?, now),
            None => Answer::bad_request(),
        };
        if let Some(failure) = answer.failure {
            tracing::info!(?failure, "refused a time stamp");
        }
        Ok(answer.der)
    }

    /// Stamps a SHA-256 imprint of the verifier's own.
    pub(super) fn stamp(
        &self,
        imprint: Sha256Digest,
        now: UnixTime,
    ) -> Result<Vec<u8>, ResultsError> {
        Ok(self.authority(now)?.stamp(imprint, &serial()?, now)?)
    }

    pub(super) fn forget(&self) {
        self.authority.forget();
    }

    fn authority(&self, now: UnixTime) -> Result<Arc<Authority<SoftwareKey>>, ResultsError> {
        self.authority.get(now, || {
            let leaf = self.issuing.leaf(TimestampSubject::new, now)?;
            let renew_at = leaf.renew_at(now);
            let authority = Authority::new(leaf.key, &leaf.certificate_der, DEFAULT_POLICY)?;
            Ok((authority, renew_at))
        })
    }
}

fn serial() -> Result<[u8; SERIAL_BYTES], ResultsError> {
    let mut serial = [0; SERIAL_BYTES];
    serial.copy_from_slice(&random_bytes()?[..SERIAL_BYTES]);
    Ok(serial)
}
