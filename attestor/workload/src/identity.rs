//! What a job is given: X.509-SVIDs with keys, a source of JWT-SVIDs, bundles.

use std::{collections::BTreeMap, fmt, future::Future, pin::Pin, sync::Arc};

use jose::spiffe_bundle::Bundle;
use proto::spiffe::{SpiffeId, TrustDomain};
use zeroize::Zeroizing;

use crate::selector::Selector;

/// Name of a job in logs, refusals and requests to the [`JwtSource`]; 1 to 128 visible ASCII
/// characters, unique among the jobs that are admitted at a time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(String);

/// Longest name of a job.
const MAX_JOB_ID_BYTES: usize = 128;

/// No name of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a job's name has 1 to {MAX_JOB_ID_BYTES} visible ASCII characters")]
pub struct NotAJobId;

impl JobId {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for JobId {
    type Err = NotAJobId;

    fn from_str(text: &str) -> Result<Self, NotAJobId> {
        let is_good = (1..=MAX_JOB_ID_BYTES).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_good { Ok(Self(text.to_owned())) } else { Err(NotAJobId) }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An X.509-SVID with its private key, not checked yet.
#[derive(Clone)]
pub struct X509Svid {
    /// The identity.
    pub spiffe_id: SpiffeId,
    /// DER certificates: the leaf, then intermediates; without the root.
    pub chain: Vec<Vec<u8>>,
    /// Unencrypted PKCS#8 DER; wiped when the last copy goes.
    pub key_pkcs8: Zeroizing<Vec<u8>>,
    /// What the identity is meant for, such as `signing`; empty for nothing. Up to 128 bytes, unique
    /// within the job.
    pub hint: String,
}

/// Without the key.
impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Svid")
            .field("spiffe_id", &self.spiffe_id)
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

/// What identities are verified with: X.509 roots, 1 to 32, and keys of JWT-SVIDs, by trust domain.
///
/// A SPIFFE bundle document as the verifier publishes it is read by [`Bundle::parse`].
pub type Bundles = BTreeMap<TrustDomain, Bundle>;

/// A JWT-SVID, as the issuer returned it.
#[derive(Clone)]
pub struct JwtSvid {
    /// The token's subject.
    pub spiffe_id: SpiffeId,
    /// The token, compact form.
    pub token: String,
    /// As in [`X509Svid`].
    pub hint: String,
}

/// Without the token.
impl fmt::Debug for JwtSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSvid")
            .field("spiffe_id", &self.spiffe_id)
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

/// What a job's process asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtRequest {
    /// The job.
    pub job: JobId,
    /// 1 to [`proto::limits::MAX_AUDIENCES`] names, none empty, in the order asked.
    pub audiences: Vec<String>,
    /// The identity asked for, one of the job's; `None` for all that the job has.
    pub spiffe_id: Option<SpiffeId>,
}

/// Why there is no JWT-SVID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwtRefusal {
    /// The issuer decided: asking again will not help. The text goes to the job.
    #[error("{0}")]
    Denied(String),
    /// The issuer could not be asked, or not in time. The text goes to the job.
    #[error("{0}")]
    Unavailable(String),
}

/// The answer of a [`JwtSource`], to be waited for.
pub type JwtAnswer = Pin<Box<dyn Future<Output = Result<Vec<JwtSvid>, JwtRefusal>> + Send>>;

/// Asks the issuer for a job's JWT-SVIDs. Implemented for async closures over [`JwtRequest`].
///
/// The server gives up waiting after [`crate::Limits::request_timeout`] and when the caller goes away:
/// the future is dropped then.
pub trait JwtSource: Send + Sync + 'static {
    /// Fetches; every token returned is for an identity of the job and for exactly these audiences.
    fn fetch(&self, request: JwtRequest) -> JwtAnswer;
}

impl<F, A> JwtSource for F
where
    F: Fn(JwtRequest) -> A + Send + Sync + 'static,
    A: Future<Output = Result<Vec<JwtSvid>, JwtRefusal>> + Send + 'static,
{
    fn fetch(&self, request: JwtRequest) -> JwtAnswer {
        Box::pin(self(request))
    }
}

/// JWT-SVIDs a job may have.
#[derive(Clone)]
pub struct JwtGrant {
    /// The identities a token may be for.
    pub spiffe_ids: Vec<SpiffeId>,
    /// Who is asked.
    pub source: Arc<dyn JwtSource>,
}

impl fmt::Debug for JwtGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtGrant").field("spiffe_ids", &self.spiffe_ids).finish_non_exhaustive()
    }
}

/// Everything a job is given at a time; a rotation replaces all of it.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// X.509-SVIDs, the default one first; at most 16. None: the job has no X.509 identity.
    pub x509: Vec<X509Svid>,
    /// JWT-SVIDs. `None`: the job gets no tokens.
    pub jwt: Option<JwtGrant>,
    /// The bundle of the trust domain that all identities are of; there is no other, as federation
    /// is not served.
    pub bundles: Bundles,
}

/// A job, its processes and what they are given.
#[derive(Clone, Debug)]
pub struct JobIdentity {
    /// The job's name.
    pub id: JobId,
    /// A process that any of these selects is the job's; at least one, at most 16.
    pub selectors: Vec<Selector>,
    /// What its processes are given.
    pub credentials: Credentials,
}
