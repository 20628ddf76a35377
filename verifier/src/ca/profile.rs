//! What each kind of certificate contains, and its encoding.
//!
//! | subject | issuer | pathLen | key usage | extended key usage | names |
//! |---|---|---|---|---|---|
//! | root | itself | 1 | keyCertSign, cRLSign | – | `spiffe://TD` |
//! | node CA | root | 0 | keyCertSign, cRLSign | serverAuth, clientAuth | `spiffe://TD` |
//! | admin CA | root | 0 | keyCertSign, cRLSign | clientAuth | `spiffe://TD` |
//! | server CA | root | 0 | keyCertSign, cRLSign | serverAuth | – |
//! | node | node CA | – | digitalSignature | serverAuth, clientAuth | `spiffe://TD/node/NAME` |
//! | administrator | admin CA | – | digitalSignature | clientAuth | `spiffe://TD/admin/NAME` |
//! | server | server CA | – | digitalSignature | serverAuth | DNS names, IP addresses |
//!
//! The extended key usages of the CAs keep a stolen server CA from making client certificates, in
//! every verifier that honours them (RFC 5280 path validation as OpenSSL, Go and webpki do it).
//!
//! # Source
//! RFC 5280; SPIFFE X509-SVID, "Hierarchy", "Key Usage", "Extended Key Usage".

use std::{net::IpAddr, str::FromStr, time::Duration};

use appraisal::verdict::Admission;
use const_oid::{
    AssociatedOid,
    db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH},
};
use der::{
    DateTime, Decode, Encode, Sequence,
    asn1::{GeneralizedTime, Ia5String, Int, OctetString, UtcTime},
    flagset::FlagSet,
};
use p256::PublicKey;
use proto::tpm::public::{Curve, KeyKind, Public};
use spki::{AlgorithmIdentifierOwned, ObjectIdentifier, SubjectPublicKeyInfoOwned};
use x509_cert::{
    ext::{
        Extension,
        pkix::{
            AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages,
            SubjectAltName, SubjectKeyIdentifier, name::GeneralName,
        },
    },
    name::Name,
    time::Time,
};

use super::{
    CaCertificate, CaError,
    lint::{self, LintedTbs},
    signer::{KeyId, Serial, SignerError, key_id_octets, signature_algorithm, spki_of},
    spiffe::{Segment, TrustDomain},
};

/// How far `notBefore` lies in the past: clocks of relying parties differ by seconds.
pub const BACKDATE: Duration = Duration::from_secs(10);
/// Longest life of a node certificate: longer would outlive a day's change of golden set.
pub const MAX_NODE_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Shortest life of a node certificate: workers renew at half-life, and a renewal may need retries.
pub const MIN_NODE_LIFETIME: Duration = Duration::from_secs(60);
/// Life of an administrator's certificate: a year, so that a forgotten laptop loses access.
pub const ADMIN_LIFETIME: Duration = Duration::from_secs(365 * DAY_S);
/// Life of the verifier's server certificate; `verifier ca renew-server` needs no root key.
pub const SERVER_LIFETIME: Duration = Duration::from_secs(365 * DAY_S);
/// Life of the node CA: a year; what it issues lives for hours.
pub const NODE_CA_LIFETIME: Duration = Duration::from_secs(365 * DAY_S);
/// Life of the admin and server CAs: two years, longer by one than what they issue.
pub const LONG_CA_LIFETIME: Duration = Duration::from_secs(730 * DAY_S);
/// Life of a root: ten years.
pub const ROOT_LIFETIME: Duration = Duration::from_secs(3652 * DAY_S);

const DAY_S: u64 = 24 * 3600;

/// The node attestation extension.
///
/// # Source
/// docs/adr/0001-oid-arc.md.
pub const ATTESTATION_EXTENSION: ObjectIdentifier = ObjectIdentifier::new_unwrap(
    "1.2.840.113556.1.8000.2554.48499.12167.14529.20271.40369.9916843.2229550.1",
);

/// What the certificate says about the appraisal that it rests on.
///
/// # Format
/// `AssayAttestation` of docs/adr/0001-oid-arc.md, version 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// SHA-256 of the evidence as recorded.
    pub evidence_digest: [u8; 32],
    /// Version of the active golden set.
    pub policy_version: String,
    /// SHA-256 of the golden set.
    pub reference_set_digest: [u8; 32],
    /// `resetCount` of the quote.
    pub reset_count: u32,
    /// `restartCount` of the quote.
    pub restart_count: u32,
    /// Identifier of the decision, for `verifier replay`.
    pub decision_id: String,
}

#[derive(Sequence)]
struct AttestationValue {
    version: u8,
    evidence_digest: OctetString,
    policy_version: String,
    reference_set_digest: OctetString,
    reset_count: u32,
    restart_count: u32,
    decision_id: String,
}

impl NodeFacts {
    /// DER of the extension's value.
    ///
    /// # Errors
    /// [`der::Error`] if a text is longer than DER can say, never in practice.
    pub fn to_der(&self) -> Result<Vec<u8>, der::Error> {
        AttestationValue {
            version: 1,
            evidence_digest: OctetString::new(self.evidence_digest)?,
            policy_version: self.policy_version.clone(),
            reference_set_digest: OctetString::new(self.reference_set_digest)?,
            reset_count: self.reset_count,
            restart_count: self.restart_count,
            decision_id: self.decision_id.clone(),
        }
        .to_der()
    }

    /// Decodes the extension's value.
    ///
    /// # Errors
    /// [`der::Error`] for another version, a digest that is not 32 bytes, or anything not DER.
    pub fn from_der(der: &[u8]) -> Result<Self, der::Error> {
        let value = AttestationValue::from_der(der)?;
        let digest = |octets: &OctetString| {
            <[u8; 32]>::try_from(octets.as_bytes())
                .map_err(|_| der::Error::from(der::Tag::OctetString.length_error()))
        };
        if value.version != 1 {
            return Err(der::Tag::Integer.value_error().into());
        }
        Ok(Self {
            evidence_digest: digest(&value.evidence_digest)?,
            policy_version: value.policy_version,
            reference_set_digest: digest(&value.reference_set_digest)?,
            reset_count: value.reset_count,
            restart_count: value.restart_count,
            decision_id: value.decision_id,
        })
    }

    /// The facts in a certificate, if it has them.
    ///
    /// # Errors
    /// [`der::Error`] if the certificate or the extension does not decode.
    pub fn from_certificate(der: &[u8]) -> Result<Option<Self>, der::Error> {
        let certificate = x509_cert::Certificate::from_der(der)?;
        certificate
            .tbs_certificate()
            .extensions()
            .into_iter()
            .flatten()
            .find(|extension| extension.extn_id == ATTESTATION_EXTENSION)
            .map(|extension| Self::from_der(extension.extn_value.as_bytes()))
            .transpose()
    }
}

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
    pub(super) name: Segment,
    pub(super) pool: Segment,
    pub(super) key: SubjectPublicKeyInfoOwned,
    pub(super) facts: NodeFacts,
    pub(super) expires_unix_s: u64,
}

/// An admission not used within this time lapses: recording the intent takes milliseconds, and what
/// was appraised may change.
pub const ADMISSION_LIFETIME: Duration = Duration::from_secs(60);

impl NodeSubject {
    /// Redeems an admission: the only way to a node certificate.
    ///
    /// # Errors
    /// [`CaError::NodeKey`] if the key is not a point on P-256; [`CaError::Name`] if the
    /// inventory's name or pool cannot stand in a SPIFFE ID.
    pub fn admitted(admission: Admission, decision_id: &str) -> Result<Self, CaError> {
        let grant = admission.redeem();
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
    pub(super) fn new(
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
    pub(super) name: Segment,
    pub(super) key: SubjectPublicKeyInfoOwned,
}

impl AdminSubject {
    /// The administrator `name`, holder of `key`.
    #[must_use]
    pub const fn new(name: Segment, key: SubjectPublicKeyInfoOwned) -> Self {
        Self { name, key }
    }
}

/// Name under which clients reach the verifier.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServerName {
    /// A DNS name: lower-case letters, digits, `-`, dots; no wildcard.
    Dns(String),
    /// An IP address.
    Ip(IpAddr),
}

/// The text is neither a DNS name nor an IP address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a DNS name (a-z, 0-9, '-', '.') nor an IP address")]
pub struct ServerNameError(String);

impl FromStr for ServerName {
    type Err = ServerNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        let label_ok = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // A name whose last label is a number would be read as an IPv4 address by some.
        let numeric =
            text.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
        if text.len() <= 253 && text.split('.').all(label_ok) && !numeric {
            Ok(Self::Dns(text.to_owned()))
        } else {
            Err(ServerNameError(text.to_owned()))
        }
    }
}

impl std::fmt::Display for ServerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

impl ServerName {
    pub(super) fn general_name(&self) -> Result<GeneralName, der::Error> {
        Ok(match self {
            Self::Dns(name) => GeneralName::DnsName(Ia5String::new(name)?),
            Self::Ip(IpAddr::V4(ip)) => GeneralName::IpAddress(OctetString::new(ip.octets())?),
            Self::Ip(IpAddr::V6(ip)) => GeneralName::IpAddress(OctetString::new(ip.octets())?),
        })
    }
}

/// The verifier's own TLS certificate.
#[derive(Debug)]
pub struct ServerSubject {
    pub(super) names: Vec<ServerName>,
    pub(super) key: SubjectPublicKeyInfoOwned,
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

/// What an issuing CA is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CaRole {
    /// Issues node certificates.
    Nodes,
    /// Issues administrators' client certificates.
    Admins,
    /// Issues the verifier's server certificates.
    Servers,
}

impl CaRole {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Nodes, Self::Admins, Self::Servers];

    /// Name in files, commands and subjects.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Admins => "admins",
            Self::Servers => "servers",
        }
    }

    /// Life of the CA's own certificate.
    #[must_use]
    pub const fn lifetime(self) -> Duration {
        match self {
            Self::Nodes => NODE_CA_LIFETIME,
            Self::Admins | Self::Servers => LONG_CA_LIFETIME,
        }
    }

    /// Extended key usages that the CA may pass on.
    pub(super) fn usages(self) -> &'static [ObjectIdentifier] {
        match self {
            Self::Nodes => &[ID_KP_SERVER_AUTH, ID_KP_CLIENT_AUTH],
            Self::Admins => &[ID_KP_CLIENT_AUTH],
            Self::Servers => &[ID_KP_SERVER_AUTH],
        }
    }
}

impl FromStr for CaRole {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| format!("{text:?} is not one of nodes, admins, servers"))
    }
}

impl std::fmt::Display for CaRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A CA certificate to be made: the root itself, or an issuing CA under it.
#[derive(Debug)]
pub struct CaSubject {
    pub(super) role: Option<CaRole>,
    pub(super) key: SubjectPublicKeyInfoOwned,
}

impl CaSubject {
    /// The self-signed root.
    pub(super) const fn root(key: SubjectPublicKeyInfoOwned) -> Self {
        Self { role: None, key }
    }

    /// An issuing CA.
    pub(super) const fn issuing(role: CaRole, key: SubjectPublicKeyInfoOwned) -> Self {
        Self { role: Some(role), key }
    }

    /// Subject of such a CA; the key's identifier keeps two generations apart.
    pub(super) fn subject(&self, trust_domain: &TrustDomain) -> Result<Name, der::Error> {
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

/// Issuer as the encoder and the lint need it.
#[derive(Clone, Debug)]
pub(super) struct IssuerFacts {
    pub(super) name: Name,
    pub(super) key_id: KeyId,
    /// What the issuer's own certificate names as its key: goes into the authority key identifier.
    pub(super) subject_key_id: Vec<u8>,
    pub(super) not_before_unix_s: u64,
    pub(super) not_after_unix_s: u64,
}

impl From<&CaCertificate> for IssuerFacts {
    fn from(certificate: &CaCertificate) -> Self {
        Self {
            name: certificate.subject().clone(),
            key_id: certificate.key_id(),
            subject_key_id: certificate.subject_key_id().to_vec(),
            not_before_unix_s: certificate.not_before_unix_s(),
            not_after_unix_s: certificate.not_after_unix_s(),
        }
    }
}

/// Everything that a `TBSCertificate` is encoded from. Tests break it field by field.
#[derive(Clone, Debug, Sequence)]
pub(super) struct Template {
    #[asn1(context_specific = "0", default = "version_1")]
    pub(super) version: u8,
    pub(super) serial: Int,
    pub(super) signature: AlgorithmIdentifierOwned,
    pub(super) issuer: Name,
    pub(super) validity: Validity,
    pub(super) subject: Name,
    pub(super) key: SubjectPublicKeyInfoOwned,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) extensions: Option<Vec<Extension>>,
}

const fn version_1() -> u8 {
    0
}

/// `Validity`.
#[derive(Clone, Debug, Sequence)]
pub(super) struct Validity {
    pub(super) not_before: Time,
    pub(super) not_after: Time,
}

/// RFC 5280 time: UTCTime through 2049, GeneralizedTime from 2050.
pub(super) fn time(unix_s: u64) -> Result<Time, der::Error> {
    let date = DateTime::from_unix_duration(Duration::from_secs(unix_s))?;
    Ok(if date.year() < 2050 {
        Time::UtcTime(UtcTime::from_date_time(date)?)
    } else {
        Time::GeneralTime(GeneralizedTime::from_date_time(date))
    })
}

/// An extension.
pub(super) fn extension(
    id: ObjectIdentifier,
    critical: bool,
    value: &impl Encode,
) -> Result<Extension, der::Error> {
    Ok(Extension { extn_id: id, critical, extn_value: OctetString::new(value.to_der()?)? })
}

/// Window of validity, seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) not_before_unix_s: u64,
    pub(super) not_after_unix_s: u64,
}

impl Window {
    /// From `BACKDATE` before now for `lifetime`, cut to the issuer's own window.
    fn new(now_unix_s: u64, lifetime: Duration, issuer: Option<&IssuerFacts>) -> Self {
        let not_before = now_unix_s.saturating_sub(BACKDATE.as_secs());
        let not_after = now_unix_s.saturating_add(lifetime.as_secs());
        Self {
            not_before_unix_s: issuer.map_or(not_before, |i| not_before.max(i.not_before_unix_s)),
            not_after_unix_s: issuer.map_or(not_after, |i| not_after.min(i.not_after_unix_s)),
        }
    }
}

/// Kind of certificate, with the identity it must carry.
#[derive(Clone, Debug)]
pub(super) enum Profile {
    Root,
    Ca(CaRole),
    Node { name: Segment, facts: NodeFacts },
    Admin { name: Segment },
    Server { names: Vec<ServerName> },
}

impl Profile {
    pub(super) const fn is_ca(&self) -> bool {
        matches!(self, Self::Root | Self::Ca(_))
    }

    pub(super) fn usages(&self) -> &'static [ObjectIdentifier] {
        match self {
            Self::Root => &[],
            Self::Ca(role) => role.usages(),
            Self::Node { .. } => CaRole::Nodes.usages(),
            Self::Admin { .. } => CaRole::Admins.usages(),
            Self::Server { .. } => CaRole::Servers.usages(),
        }
    }

    pub(super) fn key_usage(&self) -> FlagSet<KeyUsages> {
        if self.is_ca() {
            KeyUsages::KeyCertSign | KeyUsages::CRLSign
        } else {
            KeyUsages::DigitalSignature.into()
        }
    }

    pub(super) const fn path_length(&self) -> Option<u8> {
        match self {
            Self::Root => Some(1),
            Self::Ca(_) => Some(0),
            _ => None,
        }
    }

    pub(super) const fn max_lifetime(&self) -> Duration {
        match self {
            Self::Root => ROOT_LIFETIME,
            Self::Ca(role) => role.lifetime(),
            Self::Node { .. } => MAX_NODE_LIFETIME,
            Self::Admin { .. } => ADMIN_LIFETIME,
            Self::Server { .. } => SERVER_LIFETIME,
        }
    }

    pub(super) fn names(&self, trust_domain: &TrustDomain) -> Result<Vec<GeneralName>, der::Error> {
        let uri =
            |text: String| Ok(vec![GeneralName::UniformResourceIdentifier(Ia5String::new(&text)?)]);
        match self {
            Self::Root | Self::Ca(CaRole::Nodes | CaRole::Admins) => uri(trust_domain.id()),
            Self::Ca(CaRole::Servers) => Ok(Vec::new()),
            Self::Node { name, .. } => uri(trust_domain.node_id(name).to_string()),
            Self::Admin { name } => uri(trust_domain.admin_id(name).to_string()),
            Self::Server { names } => names.iter().map(ServerName::general_name).collect(),
        }
    }
}

/// What a certificate must be: input of the encoder and, separately, of the lint.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) profile: Profile,
    pub(super) trust_domain: TrustDomain,
    pub(super) issuer: IssuerFacts,
    pub(super) subject: Name,
    pub(super) key: SubjectPublicKeyInfoOwned,
    pub(super) serial: Serial,
    pub(super) window: Window,
    pub(super) now_unix_s: u64,
}

impl Order {
    /// The certificate's fields as the profile wants them.
    pub(super) fn template(&self) -> Result<Template, der::Error> {
        let subject_key = SubjectKeyIdentifier(key_id_octets(KeyId::of(&self.key))?);
        let authority_key = AuthorityKeyIdentifier {
            key_identifier: Some(OctetString::new(self.issuer.subject_key_id.as_slice())?),
            ..AuthorityKeyIdentifier::default()
        };
        let basic = BasicConstraints {
            ca: self.profile.is_ca(),
            path_len_constraint: self.profile.path_length(),
        };
        let key_usage = KeyUsage(self.profile.key_usage());
        let mut extensions = vec![
            extension(BasicConstraints::OID, true, &basic)?,
            extension(KeyUsage::OID, true, &key_usage)?,
        ];
        let usages = self.profile.usages();
        if !usages.is_empty() {
            let usages = ExtendedKeyUsage(usages.to_vec());
            extensions.push(extension(ExtendedKeyUsage::OID, false, &usages)?);
        }
        let names = self.profile.names(&self.trust_domain)?;
        if !names.is_empty() {
            extensions.push(extension(SubjectAltName::OID, false, &SubjectAltName(names))?);
        }
        extensions.push(extension(SubjectKeyIdentifier::OID, false, &subject_key)?);
        extensions.push(extension(AuthorityKeyIdentifier::OID, false, &authority_key)?);
        if let Profile::Node { facts, .. } = &self.profile {
            extensions.push(Extension {
                extn_id: ATTESTATION_EXTENSION,
                critical: false,
                extn_value: OctetString::new(facts.to_der()?)?,
            });
        }
        Ok(Template {
            version: 2,
            serial: Int::new(self.serial.as_bytes())?,
            signature: signature_algorithm(),
            issuer: self.issuer.name.clone(),
            validity: Validity {
                not_before: time(self.window.not_before_unix_s)?,
                not_after: time(self.window.not_after_unix_s)?,
            },
            subject: self.subject.clone(),
            key: self.key.clone(),
            extensions: Some(extensions),
        })
    }

    fn linted<S>(&self) -> Result<LintedTbs<S>, CaError> {
        let tbs = self.template().and_then(|t| t.to_der()).map_err(SignerError::from)?;
        Ok(lint::lint(tbs, self)?)
    }
}

/// Terms under which a certificate is prepared.
#[derive(Clone, Debug)]
pub struct Terms<'a> {
    /// The trust domain.
    pub trust_domain: &'a TrustDomain,
    /// Time of preparation, seconds since 1970.
    pub now_unix_s: u64,
    /// Wanted life from now; cut to the issuer's own end, refused above the profile's bound.
    pub lifetime: Duration,
}

impl Terms<'_> {
    fn order(
        &self,
        profile: Profile,
        subject: Name,
        key: SubjectPublicKeyInfoOwned,
        issuer: IssuerFacts,
    ) -> Result<Order, CaError> {
        Ok(Order {
            profile,
            trust_domain: self.trust_domain.clone(),
            window: Window::new(self.now_unix_s, self.lifetime, Some(&issuer)),
            issuer,
            subject,
            key,
            serial: Serial::random()?,
            now_unix_s: self.now_unix_s,
        })
    }
}

fn name(text: &str) -> Result<Name, CaError> {
    Ok(Name::from_str(text).map_err(SignerError::from)?)
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::NodeSubject {}
    impl Sealed for super::AdminSubject {}
    impl Sealed for super::ServerSubject {}
    impl Sealed for super::CaSubject {}
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
pub(super) fn prepare_root(
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
