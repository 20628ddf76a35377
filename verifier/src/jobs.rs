//! Permits of jobs: judged with their quote, redeemed once, continued while their node stays what it proved to be.
//!
//! ```text
//! JobRequest ─▶ AskingJob ─┐
//! quote over Purpose::Permit ─▶ Admission ─▶ permit(): NewPermit in the decision's transaction
//! secret + signature ─▶ redeem() ─▶ certificates of the job      (once)
//! number + signature ─▶ proceed() ─▶ goes on, or has ended and why
//! what its key signed ─▶ stamp() ─▶ that it did while the permit stood
//! ```
//! Statements are stamped and certificates prepared first, then the store lets the permit be used and records their intents in
//! one transaction, then they are signed: what ended or was used before gets nothing.

mod asking;
mod redeeming;
mod stamping;
mod statements;
mod stating;

use std::time::Duration;

use appraisal::verdict::{Admission, MatchedTool};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use jose::svid::{SvidClaims, SvidError};
use proto::{
    binding::Purpose,
    digest::{Digest, HashAlg},
    limits::MAX_TEXT_BYTES,
    pb,
    permit::{check_audiences, continue_message, end_message, redeem_message},
    reason::ReasonCode,
};

use serde::{Deserialize, Serialize};

pub use self::asking::AskingJob;
pub(crate) use self::redeeming::Redeeming;
use self::stating::Stated;
use crate::{
    attestation::{AttestError, Verifier},
    ca::{self, CaError, Issued, JOB_LIFETIME, JobScope, JobSubject, LintedTbs, Terms},
    credential::random_bytes,
    store::{
        By, CertificateIntent, NewPermit, Permit, PermitAnswer, PermitUse, Renewal, StoreError,
    },
};

/// Longest wait for a node's renewal beyond the life of its certificate: one that is late comes at once when it can.
const RENEWAL_GRACE: Duration = Duration::from_secs(60);

/// When the last workers begin to renew, in percent of their certificate's life: they do at its half, a tenth earlier or
/// later.
const LATEST_RENEWAL_PERCENT: u32 = 55;
/// How long that may take a worker that builds, with a verifier that is busy: as long as it waits for answers, and once more.
const JUDGED_GRACE: Duration = Duration::from_secs(600);

/// Issuers in the field use five minutes.
pub(crate) const JWT_LIFETIME: Duration = Duration::from_secs(300);

/// The key that vouches for a job, and its quote.
#[derive(Clone, Debug)]
pub struct Vouching {
    /// Name of the AK.
    pub ak_name: Vec<u8>,
    /// SHA-256 of its public area, as the worker sent it.
    pub ak_public: Digest,
    /// SHA-256 of the quote, as it was signed.
    pub quote: Digest,
}

/// What of its node a permit rests on: recorded with it, told in results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Basis {
    /// SHA-256 of the AK's public area.
    pub ak_public: Digest,
    /// SHA-256 of the quote.
    pub quote: Digest,
    /// SHA-256 of the recorded case.
    pub case: Digest,
    /// Digest over the golden sets that were asked.
    pub reference: Digest,
    /// What of them was met.
    pub judged_by: String,
    /// When, unix seconds.
    pub appraised_unix_s: i64,
    /// Tools that they name and accept.
    pub tools: Vec<MatchedTool>,
}

/// Why a request about a permit is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// By what is known of the permit.
    #[error("{why}")]
    Refused {
        /// Stable code.
        code: ReasonCode,
        /// In words.
        why: String,
    },
    /// The verifier failed to answer.
    #[error(transparent)]
    Failed(#[from] AttestError),
}

impl JobError {
    fn refused(code: ReasonCode, why: impl Into<String>) -> Self {
        Self::Refused { code, why: why.into() }
    }
}

impl From<StoreError> for JobError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<CaError> for JobError {
    fn from(error: CaError) -> Self {
        Self::Failed(error.into())
    }
}

/// A certificate that is ready to be signed once the store let the permit be used.
struct Prepared {
    tbs: LintedTbs<JobSubject>,
    scope: JobScope,
    spiffe_id: String,
}

/// A request about a permit, whose caller proved that it has the job's key.
struct Use {
    /// 0 for the redemption.
    sequence: u64,
    /// When it came, unix seconds.
    asked_at: i64,
    with_certificates: bool,
    /// Of a permit that may begin.
    stated: Option<Stated>,
}

impl Verifier {
    /// Uses the one-shot admission of a job: the permit to be recorded, and what the worker is told.
    pub(crate) fn permit(
        &self,
        admission: Admission,
        job: AskingJob,
        vouching: Vouching,
        now_unix_s: i64,
    ) -> Result<(NewPermit, pb::Permit), AttestError> {
        let grant = admission.redeem();
        // The admission is for this job's key, or for none.
        if !matches!(&grant.purpose, Purpose::Permit(bound) if bound.key == job.key.digest()) {
            return Err(CaError::Purpose.into());
        }
        let (id, secret) = (random_bytes()?, random_bytes()?);
        let jobs = &self.settings().jobs;
        let Vouching { ak_name, ak_public, quote } = vouching;
        let basis = Basis {
            ak_public,
            quote,
            case: grant.case_digest,
            reference: grant.reference_digest,
            judged_by: grant.policy_version,
            appraised_unix_s: grant.appraised_unix_s,
            tools: grant.tools,
        };
        let permit = NewPermit {
            basis: serde_json::to_vec(&basis).unwrap_or_default(),
            id: hex::encode(&id[..16]),
            secret_sha256: HashAlg::Sha256.hash(&[&secret]),
            node: grant.node,
            pool: grant.pool,
            ak_name,
            job_key: job.key.as_der().to_vec(),
            claims: job.context.claims.clone().into_bytes(),
            token_id: job.token_id,
            redeem_by: later(now_unix_s, jobs.redeem_within),
            ends_at: later(now_unix_s, jobs.max_duration),
        };
        let told = pb::Permit {
            id: permit.id.clone(),
            secret: secret.to_vec(),
            redeem_within_s: jobs.redeem_within.as_secs(),
            claims: permit.claims.clone(),
        };
        Ok((permit, told))
    }

    /// Redeems a permit: certificates of the job, once.
    ///
    /// # Errors
    /// [`JobError`].
    pub async fn redeem(&self, request: pb::RedeemRequest) -> Result<pb::JobIdentity, JobError> {
        let asked_at = self.now()?;
        checked(&request.audiences)?;
        let secret = HashAlg::Sha256.hash(&[&request.secret]);
        let permit = self.store().permit_by_secret(&secret).await?;
        let permit = permit.ok_or_else(|| unknown("this secret"))?;
        let verifier_id = &self.settings().verifier_id;
        let message = redeem_message(verifier_id, &request.secret, &request.audiences);
        signed(&permit, &message, &request.signature)?;
        let under_way = self.redeeming().begin(&permit.new.id, &permit.new.node);
        let _under_way = under_way.ok_or(JobError::Failed(AttestError::RedemptionUnderWay))?;
        // The store says below what is wrong with a permit that may not begin, and nobody is to stamp for that.
        let (id, renewal) = (&permit.new.id, self.renewal(asked_at));
        let stated = match self.store().permit_may_begin(id, renewal, asked_at).await? {
            true => Some(self.state(&permit).await?),
            false => None,
        };
        let used = Use { sequence: 0, asked_at, with_certificates: true, stated };
        self.answer(permit, used, &request.audiences).await
    }

    /// Whether a job may go on; new certificates where they are asked for.
    ///
    /// # Errors
    /// [`JobError`]: `PERMIT_ENDED` and `PERMIT_GROUNDS_CHANGED` say that it may not.
    pub async fn proceed(&self, request: pb::ContinueRequest) -> Result<pb::JobIdentity, JobError> {
        let asked_at = self.now()?;
        checked(&request.audiences)?;
        let permit = self.known(&request.permit_id, &request.secret).await?;
        let message = continue_message(&self.settings().verifier_id, &request);
        signed(&permit, &message, &request.signature)?;
        let pb::ContinueRequest { sequence, rotate, audiences, .. } = request;
        if sequence == 0 {
            return Err(JobError::refused(
                ReasonCode::PermitRequestReplayed,
                "requests about a permit are numbered from 1",
            ));
        }
        let used = Use { sequence, asked_at, with_certificates: rotate, stated: None };
        self.answer(permit, used, &audiences).await
    }

    /// Ends a permit for the worker that has it.
    ///
    /// # Errors
    /// [`JobError`].
    pub async fn end_job(&self, request: pb::EndRequest) -> Result<(), JobError> {
        let now_unix_s = self.now()?;
        if request.reason.len() > MAX_TEXT_BYTES {
            return Err(JobError::refused(
                ReasonCode::EvidenceLimitExceeded,
                format!("a reason has at most {MAX_TEXT_BYTES} bytes"),
            ));
        }
        let permit = self.known(&request.permit_id, &request.secret).await?;
        let message = end_message(&self.settings().verifier_id, &request);
        signed(&permit, &message, &request.signature)?;
        let by = By::new(format!("node/{}", permit.new.node), now_unix_s);
        let pb::EndRequest { permit_id, sequence, reason, .. } = request;
        match self.store().end_permit(&permit_id, sequence, &reason, by).await {
            Ok(ended) => {
                if ended {
                    self.tell_of_an_end();
                }
                Ok(())
            }
            Err(StoreError::InvalidTransition { .. }) => Err(replayed()),
            Err(other) => Err(other.into()),
        }
    }

    /// A node that has not proved itself for as long as its certificate lives has no jobs; nor has one that has not come to
    /// be judged by what is in force, when any would have renewed.
    fn renewal(&self, now_unix_s: i64) -> Renewal {
        let lifetime = self.settings().certificate_lifetime;
        let ago = |time: Duration| now_unix_s.saturating_sub(seconds(time));
        let latest = lifetime.saturating_mul(LATEST_RENEWAL_PERCENT) / 100;
        Renewal {
            proven_since: ago(lifetime.saturating_add(RENEWAL_GRACE)),
            judged_since: ago(latest.saturating_add(JUDGED_GRACE)),
        }
    }

    pub(crate) fn tell_of_an_end(&self) {
        self.ended_permits().notify_one();
    }

    /// Resolves after a permit has ended since the last call.
    pub(crate) async fn permit_ended(&self) {
        self.ended_permits().notified().await;
    }

    /// The permit that this secret goes with: the key is the job's too, and a job does not command its own permit.
    async fn known(&self, permit_id: &str, secret: &[u8]) -> Result<Permit, JobError> {
        let secret = HashAlg::Sha256.hash(&[secret]);
        let permit = self.store().permit_by_secret(&secret).await?;
        let permit = permit.filter(|permit| permit.new.id == permit_id);
        permit.ok_or_else(|| unknown("this identifier and secret"))
    }

    /// Lets the store decide whether the permit may be used, and signs what was prepared for it.
    async fn answer(
        &self,
        permit: Permit,
        Use { sequence, asked_at, with_certificates, stated }: Use,
        audiences: &[String],
    ) -> Result<pb::JobIdentity, JobError> {
        let now_unix_s = self.now()?;
        let issuers = self.issuers();
        let prepared = match with_certificates {
            true => self.prepare_job(&permit, now_unix_s)?,
            false => Vec::new(),
        };
        let certificates = prepared.iter().map(|one| intent(one, &permit, now_unix_s)).collect();
        let request = PermitUse {
            id: permit.new.id.clone(),
            sequence,
            asked_at,
            renewal: self.renewal(now_unix_s),
            // A permit that came to stand since it was looked at is not redeemed: nothing was stated of it.
            is_stated: stated.is_some(),
            certificates,
        };
        let by = By::new(format!("node/{}", permit.new.node), now_unix_s);
        let permit = match self.store().use_permit(request, by).await? {
            PermitAnswer::Good(permit) => permit,
            refused => {
                if matches!(
                    refused,
                    PermitAnswer::Ended(_)
                        | PermitAnswer::Expired
                        | PermitAnswer::GroundsChanged(_)
                ) {
                    self.tell_of_an_end();
                }
                return Err(refusal(refused));
            }
        };
        let mut x509 = Vec::with_capacity(prepared.len());
        for Prepared { tbs, scope, spiffe_id } in prepared {
            let serial = tbs.serial().to_string();
            let not_after = i64::try_from(tbs.not_after_unix_s()).unwrap_or(i64::MAX);
            let issued: Issued<JobSubject> =
                ca::sign(tbs, issuers.jobs.key()).map_err(CaError::from)?;
            self.mark_signed(&serial, issued.fingerprint(), now_unix_s).await;
            let mut chain = vec![issued.der().to_vec()];
            chain.extend(issuers.jobs.chain().iter().cloned());
            x509.push(pb::X509Svid {
                spiffe_id,
                chain,
                hint: scope.hint().to_owned(),
                lifetime_s: left(now_unix_s, not_after),
            });
        }
        let statements = match stated {
            Some(stated) => stated.tell(self.results().1)?,
            None => Vec::new(),
        };
        Ok(pb::JobIdentity {
            permit_id: permit.new.id.clone(),
            x509,
            jwt: self.tokens(&permit, audiences, now_unix_s)?,
            statements,
            trust_bundle: self.trust_bundle(),
            jwt_bundle: self.jwt_key().jwk_set(),
            check_within_s: self.settings().jobs.check_every.as_secs(),
            ends_within_s: left(now_unix_s, permit.new.ends_at),
        })
    }

    /// JWT-SVIDs of both identities for these audiences; none where none is named.
    fn tokens(
        &self,
        permit: &Permit,
        audiences: &[String],
        now_unix_s: i64,
    ) -> Result<Vec<pb::JwtSvid>, JobError> {
        if audiences.is_empty() {
            return Ok(Vec::new());
        }
        let ends = permit.new.ends_at.min(later(now_unix_s, JWT_LIFETIME));
        let mut tokens = Vec::with_capacity(JobScope::ALL.len());
        for scope in JobScope::ALL {
            let subject = JobSubject::assert_from_store(permit, scope)?;
            let subject = subject.spiffe_id(&self.settings().trust_domain);
            let spiffe_id = subject.to_string();
            let claims = SvidClaims {
                subject,
                audiences: audiences.to_vec(),
                issued_unix_s: now_unix_s,
                expires_unix_s: ends,
                token_id: hex::encode(random_bytes().map_err(AttestError::from)?),
            };
            let token = self.jwt_key().mint(&claims).map_err(|error| match error {
                SvidError::Mint(what) => JobError::refused(
                    ReasonCode::EvidenceFieldInvalid,
                    format!("{what} of a JWT-SVID cannot be that"),
                ),
                other => JobError::Failed(AttestError::Token(other)),
            })?;
            tokens.push(pb::JwtSvid { spiffe_id, token, hint: scope.hint().to_owned() });
        }
        Ok(tokens)
    }

    /// Certificates for the pool and for the job alone.
    fn prepare_job(&self, permit: &Permit, now_unix_s: i64) -> Result<Vec<Prepared>, JobError> {
        let issuers = self.issuers();
        let left = Duration::from_secs(left(now_unix_s, permit.new.ends_at));
        // Whoever comes after the end is refused by the store, which says why.
        let lifetime = left.clamp(Duration::from_secs(1), JOB_LIFETIME);
        let terms = Terms {
            trust_domain: &self.settings().trust_domain,
            now_unix_s: u64::try_from(now_unix_s).unwrap_or(0),
            lifetime,
        };
        let mut prepared = Vec::with_capacity(JobScope::ALL.len());
        for scope in JobScope::ALL {
            let subject = JobSubject::assert_from_store(permit, scope)?;
            let spiffe_id = subject.spiffe_id(terms.trust_domain).to_string();
            let tbs = ca::prepare(subject, issuers.jobs.certificate(), &terms)?;
            prepared.push(Prepared { tbs, scope, spiffe_id });
        }
        Ok(prepared)
    }
}

fn intent(prepared: &Prepared, permit: &Permit, now_unix_s: i64) -> CertificateIntent {
    CertificateIntent {
        serial: prepared.tbs.serial().to_string(),
        node: permit.new.node.clone(),
        not_before: now_unix_s,
        not_after: i64::try_from(prepared.tbs.not_after_unix_s()).unwrap_or(i64::MAX),
        spki_sha256: HashAlg::Sha256.hash(&[&permit.new.job_key]),
    }
}

/// Whether the key under the permit's quote signed this.
fn signed(permit: &Permit, message: &[u8], signature: &[u8]) -> Result<(), JobError> {
    // The last 65 bytes of the one DER form are the point.
    let point = permit.new.job_key.iter().skip(permit.new.job_key.len().saturating_sub(65));
    let point: Vec<u8> = point.copied().collect();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &point).verify(message, signature).map_err(
        |_| {
            JobError::refused(
                ReasonCode::PermitSignatureInvalid,
                ReasonCode::PermitSignatureInvalid.meaning(),
            )
        },
    )
}

fn checked(audiences: &[String]) -> Result<(), JobError> {
    check_audiences(audiences).map_err(|error| JobError::refused(error.code(), error.to_string()))
}

fn unknown(what: &str) -> JobError {
    JobError::refused(ReasonCode::PermitUnknown, format!("no permit has {what}"))
}

fn replayed() -> JobError {
    let code = ReasonCode::PermitRequestReplayed;
    JobError::refused(code, code.meaning())
}

fn refusal(answer: PermitAnswer) -> JobError {
    let by_code = |code: ReasonCode| JobError::refused(code, code.meaning());
    match answer {
        PermitAnswer::AlreadyRedeemed => by_code(ReasonCode::PermitAlreadyRedeemed),
        PermitAnswer::Expired => by_code(ReasonCode::PermitExpired),
        PermitAnswer::NotRedeemed => {
            JobError::refused(ReasonCode::PermitUnknown, "the permit was not redeemed yet")
        }
        PermitAnswer::Ended(why) => {
            JobError::refused(ReasonCode::PermitEnded, format!("the permit ended: {why}"))
        }
        PermitAnswer::GroundsChanged(why) => JobError::refused(
            ReasonCode::PermitGroundsChanged,
            format!(
                "the permit ended: {why}; ask for another, and the worker is judged by what is in \
                 force now"
            ),
        ),
        PermitAnswer::NotStated => JobError::Failed(AttestError::PermitCameToStand),
        PermitAnswer::Replayed | PermitAnswer::Good(_) => replayed(),
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn later(now_unix_s: i64, by: Duration) -> i64 {
    now_unix_s.saturating_add(seconds(by))
}

/// Seconds from now, 0 for what is past.
fn left(now_unix_s: i64, until_unix_s: i64) -> u64 {
    u64::try_from(until_unix_s.saturating_sub(now_unix_s)).unwrap_or(0)
}
