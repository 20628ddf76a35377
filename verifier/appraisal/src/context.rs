//! Everything an appraisal reads besides the evidence: explicit, so that a recorded case can be judged again.

use std::{collections::BTreeMap, sync::Arc};

use proto::{
    binding::{Challenge, Purpose, VerifierId},
    digest::{Digest, PcrIndex, PcrSelection, PcrSet},
};
use serde::{Deserialize, Serialize};

use crate::{
    activation::ActivationChallenge,
    boot::{Boot, Counters},
    ek::TrustedEk,
    ima::ImaPolicy,
    policy::{ReferenceValues, site::SitePolicy},
    verdict::Finding,
};

/// What the inventory says of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// May be admitted.
    Active,
    /// Genuine, waits for approval.
    Pending,
    /// Refused until approved again.
    Revoked,
}

/// The inventory's record of a node, as far as an appraisal reads it.
///
/// Name and pool come from the inventory alone; nothing in them was said by the worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRecord {
    /// Name: the last segment of the SPIFFE ID.
    pub name: String,
    /// Pool: which golden set judges it.
    pub pool: String,
    /// Standing.
    pub standing: Standing,
    /// The EK that the record is pinned to.
    pub ek_digest: Digest,
    /// The highest counters seen from this TPM since it was last cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highest_counters: Option<Counters>,
}

/// The challenge that the evidence answers.
#[derive(Clone, Debug)]
pub struct IssuedChallenge {
    /// The challenge.
    pub challenge: Challenge,
    /// The fleet it was issued for.
    pub verifier_id: VerifierId,
    /// PCRs asked for.
    pub selection: PcrSelection,
    /// Those among them that a quote must cover: the others are for rules that may be met otherwise, or are staged.
    pub required: PcrSelection,
    /// After this second the answer is refused.
    pub expires_unix_s: i64,
    /// What for: the quote is bound to it.
    pub purpose: Purpose,
}

/// Who signed the quote, as far as is known before the evidence is read.
#[derive(Debug)]
pub enum Signer {
    /// A new boot: the EK was verified, the AK judged, a secret wrapped for both.
    Activating {
        /// The endorsement key.
        ek: TrustedEk,
        /// The wrapped secret.
        activation: ActivationChallenge,
    },
    /// A boot that was proven before.
    Known(Boot),
}

/// What the nodes of a pool are judged by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected<'a> {
    /// The golden sets of the pool; `None`: nothing is accepted.
    pub reference: Option<&'a ReferenceValues>,
    /// Policies of the site: each narrows what the golden sets accept.
    pub site: &'a [Arc<SitePolicy>],
}

/// The job that asks for a permit, as the verifier knows it before the evidence is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobContext {
    /// What the job is taken for: canonical JSON, each claim with where it comes from.
    pub claims: String,
    /// What the CI system signed besides: issuer, subject and others, by name. Empty without a token.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub token: BTreeMap<String, String>,
    /// What stands against the job, whatever its node proves.
    pub findings: Vec<Finding>,
}

/// Inputs of [`crate::appraise`] besides evidence and signer.
#[derive(Debug)]
pub struct AppraisalContext<'a> {
    /// Seconds since 1970 by the verifier's clock; the worker's never decides.
    pub now_unix_s: i64,
    /// The challenge that was issued on this stream.
    pub challenge: &'a IssuedChallenge,
    /// The inventory's record.
    pub node: &'a NodeRecord,
    /// Digest of the endorsement roots, CRLs and EK policy in force.
    pub endorsements: Digest,
    /// The PCR of the tool log.
    pub tool_pcr: PcrIndex,
    /// What is in force for the node's pool.
    pub in_force: Expected<'a>,
    /// What would be in force if all that is staged were activated: judged and reported, never enforced.
    pub staged: Option<Expected<'a>>,
    /// The job, where the challenge is for a permit.
    pub job: Option<&'a JobContext>,
    /// SHA-256 of the recorded case: evidence and every input here.
    pub case_digest: Digest,
}

impl AppraisalContext<'_> {
    /// PCRs that any rule reads from firmware's log, in force or staged.
    pub(crate) fn every_log_pcr(&self) -> PcrSet {
        let staged = self.staged.and_then(|staged| staged.reference);
        let references = self.in_force.reference.into_iter().chain(staged);
        references
            .flat_map(|reference| reference.every_log_pcr().iter().collect::<Vec<_>>())
            .collect()
    }

    /// How the kernel's list is judged by what is in force and by what is staged: each policy once.
    pub(crate) fn ima_policies(&self) -> Vec<&Arc<ImaPolicy>> {
        let mut out: Vec<&Arc<ImaPolicy>> = Vec::new();
        let staged = self.staged.and_then(|staged| staged.reference);
        for reference in self.in_force.reference.iter().chain(&staged) {
            for policy in reference.ima_policies() {
                if !out.iter().any(|known| known.digest() == policy.digest()) {
                    out.push(policy);
                }
            }
        }
        out
    }
}
