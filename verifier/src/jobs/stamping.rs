//! Time stamps for what jobs sign: over a signature of the permit's own key, while the permit stands, and over nothing else.

use proto::{pb, permit::timestamp_message, reason::ReasonCode};
use results::{
    Sha256Digest,
    bundle::MessageSignature,
    timestamp::{MAX_REQUEST_BYTES, Request},
};

use super::{JobError, refusal, signed};
use crate::{
    attestation::{AttestError, Verifier},
    store::{Permit, PermitAnswer},
};

impl Verifier {
    /// Stamps a signature of a job, while its permit stands.
    ///
    /// The clock is read first: a permit that is found to stand after that stood at the stamped instant.
    ///
    /// # Errors
    /// [`JobError`].
    pub async fn stamp(&self, asked: pb::TimestampRequest) -> Result<Vec<u8>, JobError> {
        let now_unix_s = self.now()?;
        if asked.request.len() > MAX_REQUEST_BYTES {
            return Err(JobError::refused(
                ReasonCode::EvidenceLimitExceeded,
                format!("a request has at most {MAX_REQUEST_BYTES} bytes"),
            ));
        }
        let permit = self.known(&asked.permit_id, &asked.secret).await?;
        let message = timestamp_message(&self.settings().verifier_id, &asked);
        signed(&permit, &message, &asked.signature)?;
        let own = OwnSignature::of(&permit, &asked)?;
        let renewal = self.renewal(now_unix_s);
        match self.store().permit_stands(&permit.new.id, renewal, now_unix_s).await? {
            PermitAnswer::Good(_) => {}
            refused => return Err(refusal(refused)),
        }
        let request = own.as_ref().map(|OwnSignature(request)| request);
        let answer = self.results().0.authority().answer_at(request, now_unix_s);
        answer.map_err(|error| JobError::Failed(AttestError::Result(error.into())))
    }
}

/// A request for a time stamp over a signature of the permit's own key: a permit says nothing about what others sign.
struct OwnSignature(Request);

impl OwnSignature {
    /// The request, if it is one: what is none is answered as RFC 3161 has it.
    fn of(permit: &Permit, asked: &pb::TimestampRequest) -> Result<Option<Self>, JobError> {
        let foreign = |why: &str| JobError::refused(ReasonCode::PermitTimestampForeign, why);
        let digest = <[u8; 32]>::try_from(asked.content_sha256.as_slice())
            .map_err(|_| foreign("the digest of what was signed has other than 32 bytes"))?;
        let untrusted_digest = Sha256Digest::from_bytes(digest);
        let signature = asked.content_signature.clone();
        if !(MessageSignature { untrusted_digest, signature }.is_of(&permit.new.job_key)) {
            return Err(foreign("the key under the permit's quote did not make the signature"));
        }
        let Ok(request) = Request::parse(&asked.request) else { return Ok(None) };
        if request.imprint != Sha256Digest::of(&asked.content_signature) {
            return Err(foreign(
                "the request for a time stamp is about other bytes than the signature",
            ));
        }
        Ok(Some(Self(request)))
    }
}
