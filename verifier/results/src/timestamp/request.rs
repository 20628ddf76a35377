//! What an authority is asked.

use const_oid::ObjectIdentifier;
use der::{
    Decode as _, Encode as _,
    asn1::{Int, OctetString},
};

use super::asn1::{MessageImprint, SHA_256, TimeStampReq, algorithm, is_digest};
use crate::{
    Sha256Digest, json,
    refusal::{Code, Refusal, within},
};

/// Largest request, bytes: ours have 70.
pub const MAX_REQUEST_BYTES: usize = 1024;
/// Longest nonce, bytes: 128 bits and a sign byte are more than enough.
pub const MAX_NONCE_BYTES: usize = 32;

/// A request for a time stamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// SHA-256 of what is to be stamped.
    pub imprint: Sha256Digest,
    /// The policy wanted, if any.
    pub policy: Option<ObjectIdentifier>,
    /// Content bytes of an INTEGER that the answer must repeat: minimal, see [`Request::new`].
    nonce: Option<Int>,
    /// Whether the answer shall bring the authority's certificate.
    pub wants_certificate: bool,
}

impl Request {
    /// A request, with certificate. `nonce` is random; 16 bytes are usual.
    ///
    /// # Errors
    /// `RESULT_TOO_LARGE` for a nonce beyond [`MAX_NONCE_BYTES`] less one.
    pub fn new(imprint: Sha256Digest, nonce: &[u8]) -> Result<Self, Refusal> {
        // Below one byte that cannot be stripped, so that every nonce is a minimal positive INTEGER.
        let nonce = [&[1], nonce].concat();
        within("nonce", nonce.len(), MAX_NONCE_BYTES, "bytes")?;
        let nonce = Int::new(&nonce).map_err(|error| malformed(&error))?;
        Ok(Self { imprint, policy: None, nonce: Some(nonce), wants_certificate: true })
    }

    /// The nonce's content bytes.
    #[must_use]
    pub fn nonce(&self) -> Option<&[u8]> {
        self.nonce.as_ref().map(Int::as_bytes)
    }

    pub(super) fn without_nonce(mut self) -> Self {
        self.nonce = None;
        self
    }

    pub(super) const fn nonce_integer(&self) -> Option<&Int> {
        self.nonce.as_ref()
    }

    /// Decodes a request.
    ///
    /// # Errors
    /// `RESULT_TOO_LARGE`; `RESULT_MALFORMED`, also for another version, another hash than SHA-256 and
    /// for extensions, none of which is known.
    pub fn parse(der: &[u8]) -> Result<Self, Refusal> {
        within("time-stamp request", der.len(), MAX_REQUEST_BYTES, "bytes")?;
        let request = TimeStampReq::from_der(der).map_err(|error| malformed(&error))?;
        let refused = |expected: &str, observed: &str| {
            json::malformed("time-stamp request", expected, observed)
        };
        if request.version != 1 {
            return Err(refused("version 1", "another"));
        }
        if request.extensions.is_some() {
            return Err(refused("no extensions", "extensions"));
        }
        let imprint = imprint(&request.message_imprint)
            .ok_or_else(|| refused("a SHA-256 imprint", "another"))?;
        let nonce = request.nonce;
        within(
            "nonce",
            nonce.as_ref().map_or(0, |n| n.as_bytes().len()),
            MAX_NONCE_BYTES,
            "bytes",
        )?;
        let (policy, wants_certificate) = (request.req_policy, request.cert_req);
        Ok(Self { imprint, policy, nonce, wants_certificate })
    }

    /// DER, for `application/timestamp-query`.
    ///
    /// # Errors
    /// `RESULT_MALFORMED`, never in practice.
    pub fn to_der(&self) -> Result<Vec<u8>, Refusal> {
        let request = TimeStampReq {
            version: 1,
            message_imprint: message_imprint(&self.imprint).map_err(|error| malformed(&error))?,
            req_policy: self.policy,
            nonce: self.nonce.clone(),
            cert_req: self.wants_certificate,
            extensions: None,
        };
        request.to_der().map_err(|error| malformed(&error))
    }
}

/// The digest of a SHA-256 imprint.
pub(super) fn imprint(imprint: &MessageImprint) -> Option<Sha256Digest> {
    let digest = imprint.hashed_message.as_bytes().try_into().ok()?;
    is_digest(&imprint.hash_algorithm, SHA_256).then(|| Sha256Digest::from_bytes(digest))
}

pub(super) fn message_imprint(digest: &Sha256Digest) -> Result<MessageImprint, der::Error> {
    Ok(MessageImprint {
        hash_algorithm: algorithm(SHA_256),
        hashed_message: OctetString::new(*digest.as_bytes())?,
    })
}

fn malformed(error: &der::Error) -> Refusal {
    Refusal::new(Code::Malformed, "time-stamp request", "DER of RFC 3161", error.to_string())
}
