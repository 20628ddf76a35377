//! Certificates of jobs: for whom, and what they say about the permit that they rest on.

use const_oid::ObjectIdentifier;
use der::{Decode, Encode, Sequence, asn1::OctetString};
use p256::{PublicKey, pkcs8::DecodePublicKey as _};
use proto::{job::JobClaims, permit::JobKey};
use spki::SubjectPublicKeyInfoOwned;

use super::{Profile, Subject, order::Terms, subject::name};
use crate::{
    ca::{CaCertificate, CaError, LintedTbs, Segment, SpiffeId, TrustDomain, signer::spki_of},
    store::Permit,
};

/// The permit extension.
///
/// # Source
/// docs/adr/0001-oid-arc.md.
pub const PERMIT_EXTENSION: ObjectIdentifier = ObjectIdentifier::new_unwrap(
    "1.2.840.113556.1.8000.2554.48499.12167.14529.20271.40369.9916843.2229550.2",
);

/// For whom a certificate of a job speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobScope {
    /// The pool: what consumers of artifacts name, because it stays the same.
    Pool,
    /// This job alone.
    Job,
}

impl JobScope {
    /// Both, as a job gets them: clients call the first the default.
    pub const ALL: [Self; 2] = [Self::Job, Self::Pool];

    /// Name, as workloads tell identities apart by.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Job => "job",
        }
    }

    /// The identity.
    #[must_use]
    pub fn spiffe_id(self, trust_domain: &TrustDomain, facts: &JobFacts) -> SpiffeId {
        match self {
            Self::Pool => trust_domain.pool_id(&facts.pool),
            Self::Job => trust_domain.job_id(&facts.pool, &facts.system, &facts.permit),
        }
    }
}

/// What a certificate says about the permit that it rests on.
///
/// # Format
/// `AssayPermit` of docs/adr/0001-oid-arc.md, version 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFacts {
    /// Identifier of the permit.
    pub permit: Segment,
    /// CI system.
    pub system: Segment,
    /// Pool of the node.
    pub pool: Segment,
    /// Node that the job runs on.
    pub node: Segment,
    /// SHA-256 of the job's claims: `JobClaims::digest`.
    pub claims_digest: [u8; 32],
    /// Identifier of the decision, for `verifier replay`.
    pub decision_id: String,
}

#[derive(Sequence)]
struct PermitValue {
    version: u8,
    permit: String,
    system: String,
    pool: String,
    node: String,
    claims_digest: OctetString,
    decision_id: String,
}

impl JobFacts {
    /// DER of the extension's value.
    ///
    /// # Errors
    /// [`der::Error`] if a text is longer than DER can say, never in practice.
    pub fn to_der(&self) -> Result<Vec<u8>, der::Error> {
        PermitValue {
            version: 1,
            permit: self.permit.to_string(),
            system: self.system.to_string(),
            pool: self.pool.to_string(),
            node: self.node.to_string(),
            claims_digest: OctetString::new(self.claims_digest)?,
            decision_id: self.decision_id.clone(),
        }
        .to_der()
    }

    /// Decodes the extension's value.
    ///
    /// # Errors
    /// [`der::Error`] for another version, a digest that is not 32 bytes, a name that is none, or anything not DER.
    pub fn from_der(der: &[u8]) -> Result<Self, der::Error> {
        let value = PermitValue::from_der(der)?;
        if value.version != 1 {
            return Err(der::Tag::Integer.value_error().into());
        }
        let segment = |text: &str| {
            text.parse().map_err(|_| der::Error::from(der::Tag::Utf8String.value_error()))
        };
        Ok(Self {
            permit: segment(&value.permit)?,
            system: segment(&value.system)?,
            pool: segment(&value.pool)?,
            node: segment(&value.node)?,
            claims_digest: value
                .claims_digest
                .as_bytes()
                .try_into()
                .map_err(|_| der::Error::from(der::Tag::OctetString.length_error()))?,
            decision_id: value.decision_id,
        })
    }
}

/// A job with a permit: what a job's certificate is prepared from.
#[derive(Debug)]
pub struct JobSubject {
    scope: JobScope,
    facts: JobFacts,
    key: SubjectPublicKeyInfoOwned,
}

impl JobSubject {
    /// The job of a permit, as the store has it. What is prepared for it is signed only after the store let the permit be
    /// used: see `Store::use_permit`.
    ///
    /// # Errors
    /// [`CaError::JobKey`] if the key is not a point on P-256; [`CaError::JobClaims`]; [`CaError::Name`] if a recorded name cannot stand in a SPIFFE
    /// ID.
    pub fn assert_from_store(permit: &Permit, scope: JobScope) -> Result<Self, CaError> {
        let new = &permit.new;
        let claims = JobClaims::from_json_with_sources(&new.claims).map_err(CaError::JobClaims)?;
        let facts = JobFacts {
            permit: new.id.parse()?,
            system: claims.system().as_str().parse()?,
            pool: new.pool.parse()?,
            node: new.node.parse()?,
            claims_digest: claims.digest().as_bytes().try_into().map_err(|_| CaError::JobKey)?,
            decision_id: permit.decision_id.clone(),
        };
        Ok(Self { scope, facts, key: job_spki(&new.job_key)? })
    }

    /// A job of nobody, to try a CA with.
    pub(in crate::ca) fn probe(name: &Segment, key: SubjectPublicKeyInfoOwned) -> Self {
        let facts = JobFacts {
            permit: name.clone(),
            system: name.clone(),
            pool: name.clone(),
            node: name.clone(),
            claims_digest: [0; 32],
            decision_id: name.to_string(),
        };
        Self { scope: JobScope::Job, facts, key }
    }

    /// The identity that its certificate will carry.
    #[must_use]
    pub fn spiffe_id(&self, trust_domain: &TrustDomain) -> SpiffeId {
        self.scope.spiffe_id(trust_domain, &self.facts)
    }
}

/// The key of a job, if its point is on the curve.
fn job_spki(der: &[u8]) -> Result<SubjectPublicKeyInfoOwned, CaError> {
    let key = JobKey::from_der(der).ok_or(CaError::JobKey)?;
    let key = PublicKey::from_public_key_der(key.as_der()).map_err(|_| CaError::JobKey)?;
    Ok(spki_of(&key)?)
}

impl Subject for JobSubject {
    fn prepare(
        self,
        issuer: &CaCertificate,
        terms: &Terms<'_>,
    ) -> Result<LintedTbs<Self>, CaError> {
        let subject = name(&format!("CN={},OU={}", self.facts.permit, self.facts.pool))?;
        let profile = Profile::Job { scope: self.scope, facts: self.facts };
        terms.order(profile, subject, self.key, issuer.into())?.linted()
    }
}
