//! Which node a TPM is, or may become: the inventory's answer, never the worker's.

use appraisal::{
    boot::Counters,
    claims::{EkClaims, EkTrust},
    context::{NodeRecord, Standing},
    ek::TrustedEk,
    verdict::{Denial, Finding},
};
use proto::{evidence::Hello, reason::ReasonCode};

use crate::store::{self, ALLOW_LISTED, AdmissionRule, NewNode, NodeStatus};

/// Hexadecimal digits of the EK digest in names that the verifier gives.
const NAME_DIGITS: usize = 12;

/// A node as the inventory knows it, or as a rule would make it.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) record: NodeRecord,
    /// Version of the inventory's record; `None` for a node that is not in it yet.
    pub(super) version: Option<u64>,
    /// To be added to the inventory once the worker proved itself.
    pub(super) new: Option<Box<NewNode>>,
    pub(super) allow_listed: bool,
}

impl Candidate {
    /// A node of the inventory.
    pub(super) fn of(node: &store::Node) -> Self {
        Self {
            record: NodeRecord {
                name: node.name.clone(),
                pool: node.pool.clone(),
                standing: standing(node.status),
                ek_digest: node.ek_digest,
                highest_counters: node.counters.map(|counters| Counters {
                    reset_count: counters.reset_count,
                    restart_count: counters.restart_count,
                }),
            },
            version: Some(node.version),
            new: None,
            allow_listed: is_allow_listed(node),
        }
    }

    /// What an unknown TPM may become: a node by rule, a pending node, or (`NODE_UNKNOWN`) nothing.
    pub(super) fn unknown(
        hello: &Hello,
        ek: &TrustedEk,
        rules: &[AdmissionRule],
        allow_pending: bool,
    ) -> Result<Self, Denial> {
        let claims = ek.claims();
        let rule = rules.iter().find(|rule| matches(rule, &claims));
        let digits = hex::encode(claims.digest.as_bytes());
        let short = digits.get(..NAME_DIGITS).unwrap_or(&digits);
        let (name, pool, status, admitted_by) = match rule {
            Some(rule) => (
                format!("{}{short}", rule.name_template),
                rule.pool.clone(),
                NodeStatus::Active,
                Some(rule.name.clone()),
            ),
            None if allow_pending => {
                (format!("pending-{short}"), "pending".to_owned(), NodeStatus::Pending, None)
            }
            None => {
                return Err(Finding::new(
                    ReasonCode::NodeUnknown,
                    "node",
                    "a TPM in the inventory, or one that an admission rule matches",
                    format!("EK {}", claims.digest),
                )
                .into());
            }
        };
        Ok(Self {
            record: NodeRecord {
                name: name.clone(),
                pool: pool.clone(),
                standing: standing(status),
                ek_digest: claims.digest,
                highest_counters: None,
            },
            version: None,
            new: Some(Box::new(NewNode {
                name,
                ek_digest: claims.digest,
                pool,
                status,
                ek_certificate: hello.ek_certificate.clone(),
                ek_chain: hello.ek_chain.clone(),
                manufacturer: claims.manufacturer,
                admitted_by,
                note: String::new(),
            })),
            allow_listed: false,
        })
    }
}

/// Whether the site itself vouches for the node's EK.
pub(super) fn is_allow_listed(node: &store::Node) -> bool {
    node.admitted_by.as_deref() == Some(ALLOW_LISTED)
}

const fn standing(status: NodeStatus) -> Standing {
    match status {
        NodeStatus::Active => Standing::Active,
        NodeStatus::Pending => Standing::Pending,
        NodeStatus::Revoked => Standing::Revoked,
    }
}

fn matches(rule: &AdmissionRule, ek: &EkClaims) -> bool {
    let root = match &ek.trust {
        EkTrust::Certificate { root, .. } => root,
        EkTrust::AllowListed => return false,
    };
    rule.root_sha256.is_none_or(|wanted| wanted == *root)
        && rule.manufacturer.as_deref().is_none_or(|wanted| {
            ek.manufacturer.as_deref().is_some_and(|found| found.eq_ignore_ascii_case(wanted))
        })
}
