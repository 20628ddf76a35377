//! Who a certificate can be prepared for: an admitted node, an administrator, a server, a CA.

use std::{str::FromStr as _, time::Duration};

use appraisal::verdict::Admission;
use p256::PublicKey;
use proto::{
    binding::Purpose,
    tpm::public::{Curve, KeyKind, Public},
};
use spki::SubjectPublicKeyInfoOwned;
use x509_cert::name::Name;

use super::{
    CaRole, NodeFacts, Profile, ServerName,
    order::{IssuerFacts, Order, Terms, Window},
};
use crate::ca::{
    CaCertificate, CaError, KeyId, LintedTbs, Segment, Serial, SignerError, TrustDomain,
    signer::spki_of,
};

/// A node that was admitted: the only thing a node certificate can be prepared from.
///
/// Not `Clone`, fields private; `prepare` consumes it, so that one admission gives one certificate:
/// ```
/// # use appraisal::verdict::{Admission, Denial};
/// # use verifier::ca::{CaError, NodeSubject};
/// fn subject(admission: Admission) -> Result<NodeSubject, CaError> {
///     NodeSubject::admitted(admission, "decision")
/// }
/// ```
/// A denial gives none, and one admission does not give two:
/// ```compile_fail,E0308
/// # use appraisal::verdict::{Admission, Denial};
/// # use verifier::ca::{CaError, NodeSubject};
/// fn subject(denial: Denial) -> Result<NodeSubject, CaError> {
///     NodeSubject::admitted(denial, "decision")
/// }
/// ```
/// ```compile_fail,E0382
/// # use appraisal::verdict::{Admission, Denial};
/// # use verifier::ca::{CaError, NodeSubject};
/// fn subjects(admission: Admission) -> [Result<NodeSubject, CaError>; 2] {
///     [NodeSubject::admitted(admission, "one"), NodeSubject::admitted(admission, "two")]
/// }
/// ```
#[derive(Debug)]
pub struct NodeSubject {
    pub(in crate::ca) name: Segment,
    pub(in crate::ca) pool: Segment,
    pub(in crate::ca) key: SubjectPublicKeyInfoOwned,
    pub(in crate::ca) facts: NodeFacts,
    pub(in crate::ca) expires_unix_s: u64,
}

/// An admission not used within this time lapses: recording the intent takes milliseconds, and what
/// was appraised may change.
pub const ADMISSION_LIFETIME: Duration = Duration::from_secs(60);

impl NodeSubject {
    /// Redeems an admission: the only way to a node certificate.
    ///
    /// # Errors
    /// [`CaError::Purpose`] for the admission of a job; [`CaError::NodeKey`] if the key is not a point on P-256;
    /// [`CaError::Name`] if the inventory's name or pool cannot stand in a SPIFFE ID.
    pub fn admitted(admission: Admission, decision_id: &str) -> Result<Self, CaError> {
        let grant = admission.redeem();
        if grant.purpose != Purpose::Node {
            return Err(CaError::Purpose);
        }
        let facts = NodeFacts {
            evidence_digest: sha256(&grant.case_digest)?,
            policy_version: grant.policy_version,
            reference_set_digest: sha256(&grant.reference_digest)?,
            reset_count: grant.counters.reset_count,
            restart_count: grant.counters.restart_count,
            decision_id: decision_id.to_owned(),
        };
        let appraised = u64::try_from(grant.appraised_unix_s).unwrap_or(0);
        let expires = appraised.saturating_add(ADMISSION_LIFETIME.as_secs());
        Self::new(grant.node.parse()?, grant.pool.parse()?, &grant.node_key, facts, expires)
    }

    /// The subject for an admission. `key` is the certified node key; the certificate is for
    /// exactly that key. `expires_unix_s` is when the admission lapses: nothing is prepared after
    /// it.
    ///
    /// # Errors
    /// [`CaError::NodeKey`] if the key is not a point on P-256.
    pub(in crate::ca) fn new(
        name: Segment,
        pool: Segment,
        key: &Public,
        facts: NodeFacts,
        expires_unix_s: u64,
    ) -> Result<Self, CaError> {
        Ok(Self { name, pool, key: spki_of_tpm(key)?, facts, expires_unix_s })
    }
}

/// The 32 bytes of a SHA-256 digest.
fn sha256(digest: &proto::digest::Digest) -> Result<[u8; 32], CaError> {
    <[u8; 32]>::try_from(digest.as_bytes())
        .map_err(|_| SignerError::from(der::Error::from(der::ErrorKind::Failed)).into())
}

/// `SubjectPublicKeyInfo` of a P-256 public area.
fn spki_of_tpm(key: &Public) -> Result<SubjectPublicKeyInfoOwned, CaError> {
    let KeyKind::Ecc { curve: Curve::P256, x, y } = key.key() else {
        return Err(CaError::NodeKey);
    };
    // Leading zeros may be stripped in the structure: coordinates are numbers.
    let mut point = [0; 65];
    point[0] = 4;
    for (coordinate, out) in [(x, 1..33), (y, 33..65)] {
        let out = &mut point[out];
        let start = out.len().checked_sub(coordinate.len()).ok_or(CaError::NodeKey)?;
        out[start..].copy_from_slice(coordinate);
    }
    // Checks that the point is on the curve.
    let key = PublicKey::from_sec1_bytes(&point).map_err(|_| CaError::NodeKey)?;
    Ok(spki_of(&key)?)
}

/// An administrator whose client certificate is to be made.
#[derive(Debug)]
pub struct AdminSubject {
    pub(in crate::ca) name: Segment,
    pub(in crate::ca) key: SubjectPublicKeyInfoOwned,
}

impl AdminSubject {
    /// The administrator `name`, holder of `key`.
    #[must_use]
    pub const fn new(name: Segment, key: SubjectPublicKeyInfoOwned) -> Self {
        Self { name, key }
    }
}

/// The verifier's own TLS certificate.
#[derive(Debug)]
pub struct ServerSubject {
    pub(in crate::ca) names: Vec<ServerName>,
    pub(in crate::ca) key: SubjectPublicKeyInfoOwned,
}

impl ServerSubject {
    /// A server reached under `names`.
    #[must_use]
    pub fn new(mut names: Vec<ServerName>, key: SubjectPublicKeyInfoOwned) -> Self {
        names.sort();
        names.dedup();
        Self { names, key }
    }
}

/// A CA certificate to be made: the root itself, or an issuing CA under it.
#[derive(Debug)]
pub struct CaSubject {
    pub(in crate::ca) role: Option<CaRole>,
    pub(in crate::ca) key: SubjectPublicKeyInfoOwned,
}

impl CaSubject {
    /// The self-signed root.
    pub(in crate::ca) const fn root(key: SubjectPublicKeyInfoOwned) -> Self {
        Self { role: None, key }
    }

    /// An issuing CA.
    pub(in crate::ca) const fn issuing(role: CaRole, key: SubjectPublicKeyInfoOwned) -> Self {
        Self { role: Some(role), key }
    }

    /// Subject of such a CA; the key's identifier keeps two generations apart.
    pub(in crate::ca) fn subject(&self, trust_domain: &TrustDomain) -> Result<Name, der::Error> {
        let kind = self.role.map_or("root", CaRole::name);
        let id = KeyId::of(&self.key).short();
        // RFC 4514 text; every character of a trust domain stands for itself in it. A common name
        // holds 64 characters, so that the domain goes into its own attribute when it is short
        // enough, else only its identifier in the URI tells it.
        let common_name = format!("CN=Assay {kind} CA {id}");
        if trust_domain.as_str().len() <= 64 {
            Name::from_str(&format!("{common_name},O={trust_domain}"))
        } else {
            Name::from_str(&common_name)
        }
    }
}

pub(super) fn name(text: &str) -> Result<Name, CaError> {
    Ok(Name::from_str(text).map_err(SignerError::from)?)
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::NodeSubject {}
    impl Sealed for super::AdminSubject {}
    impl Sealed for super::ServerSubject {}
    impl Sealed for super::CaSubject {}
    impl Sealed for crate::ca::JobSubject {}
    impl Sealed for crate::ca::ResultsSubject {}
    impl Sealed for crate::ca::TimestampSubject {}
}

/// A subject that [`prepare`] accepts.
pub trait Subject: sealed::Sealed + Sized {
    #[doc(hidden)]
    fn prepare(self, issuer: &CaCertificate, terms: &Terms<'_>)
    -> Result<LintedTbs<Self>, CaError>;
}

impl Subject for NodeSubject {
    fn prepare(
        self,
        issuer: &CaCertificate,
        terms: &Terms<'_>,
    ) -> Result<LintedTbs<Self>, CaError> {
        if terms.now_unix_s > self.expires_unix_s {
            return Err(CaError::AdmissionExpired { expired_unix_s: self.expires_unix_s });
        }
        let subject = name(&format!("CN={},OU={}", self.name, self.pool))?;
        let profile = Profile::Node { name: self.name, facts: self.facts };
        terms.order(profile, subject, self.key, issuer.into())?.linted()
    }
}

impl Subject for AdminSubject {
    fn prepare(
        self,
        issuer: &CaCertificate,
        terms: &Terms<'_>,
    ) -> Result<LintedTbs<Self>, CaError> {
        let subject = name(&format!("CN={},OU=admin", self.name))?;
        let profile = Profile::Admin { name: self.name };
        terms.order(profile, subject, self.key, issuer.into())?.linted()
    }
}

impl Subject for ServerSubject {
    fn prepare(
        self,
        issuer: &CaCertificate,
        terms: &Terms<'_>,
    ) -> Result<LintedTbs<Self>, CaError> {
        // Names stand in the alternative names; a common name would be a second, unread copy.
        let subject = name("CN=Assay verifier")?;
        let profile = Profile::Server { names: self.names };
        terms.order(profile, subject, self.key, issuer.into())?.linted()
    }
}

impl Subject for CaSubject {
    fn prepare(
        self,
        issuer: &CaCertificate,
        terms: &Terms<'_>,
    ) -> Result<LintedTbs<Self>, CaError> {
        let subject = self.subject(terms.trust_domain).map_err(SignerError::from)?;
        let profile = self.role.map_or(Profile::Root, Profile::Ca);
        terms.order(profile, subject, self.key, issuer.into())?.linted()
    }
}

/// Encodes the certificate for `subject` under `issuer` and checks it against its profile.
///
/// # Errors
/// [`CaError::Profile`] (`CERTIFICATE_PROFILE_VIOLATION`) naming the rule;
/// [`CaError::AdmissionExpired`].
pub fn prepare<S: Subject>(
    subject: S,
    issuer: &CaCertificate,
    terms: &Terms<'_>,
) -> Result<LintedTbs<S>, CaError> {
    subject.prepare(issuer, terms)
}

/// Encodes and checks a self-signed root.
pub(in crate::ca) fn prepare_root(
    key: SubjectPublicKeyInfoOwned,
    terms: &Terms<'_>,
) -> Result<LintedTbs<CaSubject>, CaError> {
    let subject = CaSubject::root(key.clone());
    let subject_name = subject.subject(terms.trust_domain).map_err(SignerError::from)?;
    let window = Window::new(terms.now_unix_s, terms.lifetime, None);
    let key_id = KeyId::of(&key);
    Order {
        profile: Profile::Root,
        trust_domain: terms.trust_domain.clone(),
        issuer: IssuerFacts {
            name: subject_name.clone(),
            key_id,
            subject_key_id: key_id.as_bytes().to_vec(),
            not_before_unix_s: window.not_before_unix_s,
            not_after_unix_s: window.not_after_unix_s,
        },
        subject: subject_name,
        key,
        serial: Serial::random()?,
        window,
        now_unix_s: terms.now_unix_s,
    }
    .linted()
}
