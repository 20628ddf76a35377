//! Job permits: what a worker asks for, and the bytes that a job's key signs.
//!
//! ```text
//! Hello { job: JobRequest } ─▶ challenge ─▶ quote over Purpose::Permit ─▶ Permit { secret }
//! secret + signature by the job's key ─▶ Redeem ─▶ identities of the job, once
//! ```

use crate::{
    binding::{JobBinding, VerifierId},
    digest::{Digest, HashAlg},
    evidence::EvidenceError,
    job::MAX_JOB_CLAIMS_BYTES,
    limits::{MAX_AUDIENCE_BYTES, MAX_AUDIENCES, MAX_JOB_TOKEN_BYTES},
    pb,
    reason::ReasonCode,
};

/// DER of a P-256 `SubjectPublicKeyInfo` up to the point: named curve, uncompressed.
const P256_HEAD: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
/// Bytes of such a key: both coordinates follow.
const P256_BYTES: usize = P256_HEAD.len() + 64;

/// The public key of a job: P-256, in the one DER form of it.
///
/// # Does not prove
/// That the point is on the curve, or that anybody holds the private key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct JobKey([u8; P256_BYTES]);

impl JobKey {
    /// From a DER `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let key: [u8; P256_BYTES] = der.try_into().ok()?;
        key.starts_with(&P256_HEAD).then_some(Self(key))
    }

    /// DER `SubjectPublicKeyInfo`, 91 bytes.
    #[must_use]
    pub const fn as_der(&self) -> &[u8] {
        &self.0
    }

    /// SHA-256 of the DER.
    #[must_use]
    pub fn digest(&self) -> Digest {
        HashAlg::Sha256.hash(&[&self.0])
    }
}

impl std::fmt::Debug for JobKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JobKey({})", self.digest())
    }
}

/// What a job asks a permit for, well-formed and believed by nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct JobRequest {
    /// The job's key.
    pub key: JobKey,
    /// What the worker knows of the job: JSON, not parsed here.
    pub untrusted_claims: Vec<u8>,
    /// The CI system's token, verified by nobody; empty: none.
    pub untrusted_token: String,
}

impl JobRequest {
    /// What the quote has to be bound to.
    #[must_use]
    pub fn binding(&self) -> JobBinding {
        JobBinding {
            key: self.key.digest(),
            claims: HashAlg::Sha256.hash(&[&self.untrusted_claims]),
            token: HashAlg::Sha256.hash(&[self.untrusted_token.as_bytes()]),
        }
    }
}

/// Without the token: whoever has it can act as the job at the CI system.
impl std::fmt::Debug for JobRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobRequest")
            .field("key", &self.key)
            .field("claims", &String::from_utf8_lossy(&self.untrusted_claims))
            .field("has_token", &!self.untrusted_token.is_empty())
            .finish()
    }
}

impl TryFrom<pb::JobRequest> for JobRequest {
    type Error = EvidenceError;

    fn try_from(message: pb::JobRequest) -> Result<Self, EvidenceError> {
        let limit = |at: &str, found: usize, max: usize| match found > max {
            true => Err(EvidenceError::new(
                ReasonCode::EvidenceLimitExceeded,
                at,
                format!("{found} bytes, at most {max} are allowed"),
            )),
            false => Ok(()),
        };
        limit("hello.job.claims", message.claims.len(), MAX_JOB_CLAIMS_BYTES)?;
        limit("hello.job.token", message.token.len(), MAX_JOB_TOKEN_BYTES)?;
        let key = JobKey::from_der(&message.key).ok_or_else(|| {
            EvidenceError::new(
                ReasonCode::JobKeyInvalid,
                "hello.job.key",
                format!("{} bytes that are not a P-256 SubjectPublicKeyInfo", message.key.len()),
            )
        })?;
        Ok(Self { key, untrusted_claims: message.claims, untrusted_token: message.token })
    }
}

/// Audiences that nothing may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AudiencesError {
    /// Too many, or one that is empty or too long.
    #[error("at most {MAX_AUDIENCES} audiences, of 1 to {MAX_AUDIENCE_BYTES} bytes each")]
    Unbounded,
    /// One twice, or with what nobody could read.
    #[error("no audience is named twice, and none has control characters")]
    Form,
}

impl AudiencesError {
    /// The stable code.
    #[must_use]
    pub const fn code(self) -> ReasonCode {
        match self {
            Self::Unbounded => ReasonCode::EvidenceLimitExceeded,
            Self::Form => ReasonCode::EvidenceFieldInvalid,
        }
    }
}

/// Whether these audiences may be asked for: a few, none empty, too long or named twice. What passes here, a JWT-SVID can be for.
///
/// # Errors
/// [`AudiencesError`].
pub fn check_audiences(audiences: &[String]) -> Result<(), AudiencesError> {
    let is_bounded = |audience: &String| (1..=MAX_AUDIENCE_BYTES).contains(&audience.len());
    if audiences.len() > MAX_AUDIENCES || !audiences.iter().all(is_bounded) {
        return Err(AudiencesError::Unbounded);
    }
    let is_new = |(at, audience): (usize, &String)| !audiences[..at].contains(audience);
    let is_text = audiences.iter().all(|audience| !audience.chars().any(char::is_control));
    match is_text && audiences.iter().enumerate().all(is_new) {
        true => Ok(()),
        false => Err(AudiencesError::Form),
    }
}

/// What the job's key signs to redeem a permit.
///
/// # Format
/// Fields, each with a `UINT32` big-endian length before it: `assay/v1/redeem`, verifier id, SHA-256 of the secret, and the
/// audiences.
#[must_use]
pub fn redeem_message(verifier: &VerifierId, secret: &[u8], audiences: &[String]) -> Vec<u8> {
    let secret = HashAlg::Sha256.hash(&[secret]);
    let mut fields: Vec<&[u8]> = vec![b"assay/v1/redeem", verifier.as_bytes(), secret.as_bytes()];
    fields.extend(audiences.iter().map(String::as_bytes));
    framed(&fields)
}

/// What the job's key signs to ask whether the job may go on.
///
/// # Format
/// As [`redeem_message`]: `assay/v1/continue`, verifier id, SHA-256 of the secret, permit id, sequence (`UINT64`), rotate (one
/// byte), audiences.
#[must_use]
pub fn continue_message(verifier: &VerifierId, request: &pb::ContinueRequest) -> Vec<u8> {
    let (sequence, rotate) = (request.sequence.to_be_bytes(), [u8::from(request.rotate)]);
    let secret = HashAlg::Sha256.hash(&[&request.secret]);
    let mut fields: Vec<&[u8]> = vec![
        b"assay/v1/continue",
        verifier.as_bytes(),
        secret.as_bytes(),
        request.permit_id.as_bytes(),
        &sequence,
        &rotate,
    ];
    fields.extend(request.audiences.iter().map(String::as_bytes));
    framed(&fields)
}

/// What the job's key signs to end its permit.
///
/// # Format
/// As [`redeem_message`]: `assay/v1/end`, verifier id, SHA-256 of the secret, permit id, sequence (`UINT64`), reason.
#[must_use]
pub fn end_message(verifier: &VerifierId, request: &pb::EndRequest) -> Vec<u8> {
    let sequence = request.sequence.to_be_bytes();
    let secret = HashAlg::Sha256.hash(&[&request.secret]);
    framed(&[
        b"assay/v1/end",
        verifier.as_bytes(),
        secret.as_bytes(),
        request.permit_id.as_bytes(),
        &sequence,
        request.reason.as_bytes(),
    ])
}

/// What the job's key signs to have a signature of its own stamped.
///
/// # Format
/// As [`redeem_message`]: `assay/v1/timestamp`, verifier id, SHA-256 of the secret, permit id, the request in DER, SHA-256 of what
/// was signed, the signature.
#[must_use]
pub fn timestamp_message(verifier: &VerifierId, request: &pb::TimestampRequest) -> Vec<u8> {
    let secret = HashAlg::Sha256.hash(&[&request.secret]);
    framed(&[
        b"assay/v1/timestamp",
        verifier.as_bytes(),
        secret.as_bytes(),
        request.permit_id.as_bytes(),
        &request.request,
        &request.content_sha256,
        &request.content_signature,
    ])
}

fn framed(fields: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in fields {
        // Bounded far below by the size of a message.
        let len = u32::try_from(field.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(field);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> pb::JobRequest {
        pb::JobRequest {
            key: [P256_HEAD.as_slice(), &[7; 64]].concat(),
            claims: b"{}".to_vec(),
            token: "a.b.c".to_owned(),
        }
    }

    fn refused(request: pb::JobRequest) -> (ReasonCode, String) {
        let error = JobRequest::try_from(request).expect_err("refused");
        (error.code, error.at)
    }

    #[test]
    fn a_request_is_bounded_and_its_key_has_one_form() {
        JobRequest::try_from(request()).expect("good");
        let key = |key: Vec<u8>| refused(pb::JobRequest { key, ..request() });
        let good = request().key;
        let mut other_curve = good.clone();
        other_curve[22] = 8;
        for key_bytes in
            [Vec::new(), good[..90].to_vec(), [good.as_slice(), &[0]].concat(), other_curve]
        {
            assert_eq!(key(key_bytes), (ReasonCode::JobKeyInvalid, "hello.job.key".to_owned()));
        }
        let claims = vec![b' '; MAX_JOB_CLAIMS_BYTES + 1];
        let too_large = refused(pb::JobRequest { claims, ..request() });
        assert_eq!(too_large, (ReasonCode::EvidenceLimitExceeded, "hello.job.claims".to_owned()));
        let token = " ".repeat(MAX_JOB_TOKEN_BYTES + 1);
        let too_large = refused(pb::JobRequest { token, ..request() });
        assert_eq!(too_large, (ReasonCode::EvidenceLimitExceeded, "hello.job.token".to_owned()));
    }

    #[test]
    fn a_token_is_not_printed() {
        let request = JobRequest::try_from(request()).expect("good");
        assert!(!format!("{request:?}").contains("a.b.c"));
    }

    /// Whatever differs in a request differs in what is signed; no two requests give the same bytes.
    #[test]
    fn what_is_signed_is_told_apart() {
        let verifier = VerifierId::new([1; 32]);
        let words =
            |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let mut seen = vec![
            redeem_message(&verifier, &[1; 32], &[]),
            redeem_message(&verifier, &[2; 32], &[]),
            redeem_message(&VerifierId::new([2; 32]), &[1; 32], &[]),
            redeem_message(&verifier, &[1; 32], &words(&["ab"])),
            redeem_message(&verifier, &[1; 32], &words(&["a", "b"])),
        ];
        let base =
            pb::ContinueRequest { permit_id: "p".to_owned(), sequence: 1, ..Default::default() };
        for request in [
            base.clone(),
            pb::ContinueRequest { sequence: 2, ..base.clone() },
            pb::ContinueRequest { rotate: true, ..base.clone() },
            pb::ContinueRequest { permit_id: "q".to_owned(), ..base.clone() },
            pb::ContinueRequest { secret: vec![1], ..base.clone() },
            pb::ContinueRequest { audiences: words(&["a"]), ..base },
        ] {
            seen.push(continue_message(&verifier, &request));
        }
        let end = pb::EndRequest { permit_id: "p".to_owned(), sequence: 1, ..Default::default() };
        seen.push(end_message(&verifier, &end));
        seen.push(end_message(&verifier, &pb::EndRequest { secret: vec![1], ..end.clone() }));
        seen.push(end_message(&verifier, &pb::EndRequest { reason: "a".to_owned(), ..end }));
        let stamp = pb::TimestampRequest { permit_id: "p".to_owned(), ..Default::default() };
        for request in [
            stamp.clone(),
            pb::TimestampRequest { secret: vec![1], ..stamp.clone() },
            pb::TimestampRequest { request: vec![1], ..stamp.clone() },
            pb::TimestampRequest { content_sha256: vec![1], ..stamp.clone() },
            pb::TimestampRequest { content_signature: vec![1], ..stamp },
        ] {
            seen.push(timestamp_message(&verifier, &request));
        }
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }
}
