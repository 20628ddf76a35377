//! What each kind of certificate contains, and its encoding.
//!
//! | subject | issuer | pathLen | key usage | extended key usage | names |
//! |---|---|---|---|---|---|
//! | root | itself | 1 | keyCertSign, cRLSign | – | `spiffe://TD` |
//! | node CA | root | 0 | keyCertSign, cRLSign | serverAuth, clientAuth | `spiffe://TD` |
//! | admin CA | root | 0 | keyCertSign, cRLSign | clientAuth | `spiffe://TD` |
//! | server CA | root | 0 | keyCertSign, cRLSign | serverAuth | – |
//! | job CA | root | 0 | keyCertSign, cRLSign | serverAuth, clientAuth, codeSigning | `spiffe://TD` |
//! | result CA | root | 0 | keyCertSign, cRLSign | serverAuth, clientAuth, codeSigning, timeStamping | `spiffe://TD` |
//! | node | node CA | – | digitalSignature | serverAuth, clientAuth | `spiffe://TD/node/NAME` |
//! | administrator | admin CA | – | digitalSignature | clientAuth | `spiffe://TD/admin/NAME` |
//! | server | server CA | – | digitalSignature | serverAuth | DNS names, IP addresses |
//! | job, for its pool | job CA | – | digitalSignature | serverAuth, clientAuth, codeSigning | `spiffe://TD/pool/POOL` |
//! | job, for itself | job CA | – | digitalSignature | serverAuth, clientAuth, codeSigning | `spiffe://TD/pool/POOL/job/SYSTEM/PERMIT` |
//! | results | result CA | – | digitalSignature | serverAuth, clientAuth, codeSigning | `spiffe://TD/verifier/results` |
//! | time stamps | result CA | – | digitalSignature | timeStamping, critical | – |
//!
//! The extended key usages of the CAs keep a stolen server CA from making client certificates, in
//! every verifier that honours them (RFC 5280 path validation as OpenSSL, Go and webpki do it).
//!
//! # Source
//! RFC 5280; SPIFFE X509-SVID, "Hierarchy", "Key Usage", "Extended Key Usage".

mod facts;
mod job;
mod order;
mod results;
mod server_name;
mod subject;

use std::{str::FromStr, time::Duration};

use const_oid::{
    ObjectIdentifier,
    db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_CODE_SIGNING, ID_KP_SERVER_AUTH, ID_KP_TIME_STAMPING},
};
use der::{asn1::Ia5String, flagset::FlagSet};
use proto::spiffe::{Segment, TrustDomain};
use x509_cert::ext::pkix::{KeyUsages, name::GeneralName};

#[cfg(test)]
pub(super) use self::order::{IssuerFacts, Template, Window};
pub use self::{
    facts::{ATTESTATION_EXTENSION, NodeFacts},
    job::{JobFacts, JobScope, JobSubject, PERMIT_EXTENSION},
    order::Terms,
    results::{ResultsSubject, TimestampSubject},
    server_name::{ServerName, ServerNameError},
    subject::{
        ADMISSION_LIFETIME, AdminSubject, CaSubject, NodeSubject, ServerSubject, Subject, prepare,
    },
};
pub(super) use self::{
    order::{Order, extension, time},
    subject::prepare_root,
};

/// How far `notBefore` lies in the past: clocks of relying parties differ by seconds.
pub const BACKDATE: Duration = Duration::from_secs(10);
/// Longest life of a node certificate: longer would outlive a day's change of golden set.
pub const MAX_NODE_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Shortest life of a node certificate: workers renew at half-life, and a renewal may need retries.
pub const MIN_NODE_LIFETIME: Duration = Duration::from_secs(60);
/// Longest life of a job's certificate: longer jobs get another one while their node stays what it proved to be.
pub const JOB_LIFETIME: Duration = Duration::from_secs(600);
/// Life of the certificates that sign results and time stamps: their keys live in memory, and every start makes others.
pub const RESULTS_LIFETIME: Duration = Duration::from_secs(24 * 3600);
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

/// What an issuing CA is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CaRole {
    /// Issues node certificates.
    Nodes,
    /// Issues administrators' client certificates.
    Admins,
    /// Issues the verifier's server certificates.
    Servers,
    /// Issues certificates of jobs.
    Jobs,
    /// Issues the certificates that sign attestation results and time stamps.
    Results,
}

impl CaRole {
    /// All roles.
    pub const ALL: [Self; 5] =
        [Self::Nodes, Self::Admins, Self::Servers, Self::Jobs, Self::Results];

    /// Name in files, commands and subjects.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Admins => "admins",
            Self::Servers => "servers",
            Self::Jobs => "jobs",
            Self::Results => "results",
        }
    }

    /// Life of the CA's own certificate.
    #[must_use]
    pub const fn lifetime(self) -> Duration {
        match self {
            Self::Nodes | Self::Jobs => NODE_CA_LIFETIME,
            Self::Admins | Self::Servers | Self::Results => LONG_CA_LIFETIME,
        }
    }

    /// Extended key usages that the CA may pass on.
    pub(super) fn usages(self) -> &'static [ObjectIdentifier] {
        match self {
            Self::Nodes => &[ID_KP_SERVER_AUTH, ID_KP_CLIENT_AUTH],
            Self::Admins => &[ID_KP_CLIENT_AUTH],
            Self::Servers => &[ID_KP_SERVER_AUTH],
            Self::Jobs => &SIGNER_USAGES,
            Self::Results => {
                &[ID_KP_SERVER_AUTH, ID_KP_CLIENT_AUTH, ID_KP_CODE_SIGNING, ID_KP_TIME_STAMPING]
            }
        }
    }
}

/// Usages of whoever signs artifacts or results: code signing is what verifiers of signatures look for, the other two
/// what those do that take the identity for a TLS peer's.
const SIGNER_USAGES: [ObjectIdentifier; 3] =
    [ID_KP_SERVER_AUTH, ID_KP_CLIENT_AUTH, ID_KP_CODE_SIGNING];

impl FromStr for CaRole {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| format!("{text:?} is not one of nodes, admins, servers, jobs, results"))
    }
}

impl std::fmt::Display for CaRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
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
    Job { scope: JobScope, facts: JobFacts },
    Results,
    Timestamp,
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
            Self::Job { .. } | Self::Results => &SIGNER_USAGES,
            Self::Timestamp => &[ID_KP_TIME_STAMPING],
        }
    }

    pub(super) fn key_usage(&self) -> FlagSet<KeyUsages> {
        if self.is_ca() {
            KeyUsages::KeyCertSign | KeyUsages::CRLSign
        } else {
            KeyUsages::DigitalSignature.into()
        }
    }

    /// Whether the extended key usages are critical: those of a time stamp authority must be (RFC 3161, 2.3).
    pub(super) const fn usages_are_critical(&self) -> bool {
        matches!(self, Self::Timestamp)
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
            Self::Job { .. } => JOB_LIFETIME,
            Self::Results | Self::Timestamp => RESULTS_LIFETIME,
        }
    }

    pub(super) fn names(&self, trust_domain: &TrustDomain) -> Result<Vec<GeneralName>, der::Error> {
        let uri =
            |text: String| Ok(vec![GeneralName::UniformResourceIdentifier(Ia5String::new(&text)?)]);
        match self {
            Self::Ca(CaRole::Servers) | Self::Timestamp => Ok(Vec::new()),
            Self::Root | Self::Ca(_) => uri(trust_domain.id()),
            Self::Node { name, .. } => uri(trust_domain.node_id(name).to_string()),
            Self::Admin { name } => uri(trust_domain.admin_id(name).to_string()),
            Self::Job { scope, facts } => uri(scope.spiffe_id(trust_domain, facts).to_string()),
            Self::Results => uri(trust_domain.results_id().to_string()),
            Self::Server { names } => names.iter().map(ServerName::general_name).collect(),
        }
    }
}
