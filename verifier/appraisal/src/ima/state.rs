//! What is known of one boot's list, so that a renewal reads only what is new.

use proto::{
    digest::{Digest, PcrIndex},
    ima::{BankAlg, ByteOrder, ListFormat},
};
use serde::{Deserialize, Serialize};

use super::boot_aggregate::BootAggregate;
use crate::verdict::Finding;

/// How a kernel made the digests that it extended into a bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TemplateHashing {
    /// With the bank's own algorithm.
    PerBank,
    /// With SHA-1, zeros after it: kernels before 5.8, and later ones that lack the bank's algorithm.
    PaddedSha1,
}

/// One bank of the list's PCR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImaBank {
    /// Value of the PCR after the entries known.
    pub value: Digest,
    /// How this kernel extends this bank.
    pub hashing: TemplateHashing,
}

/// A list, replayed to a quote, as far as it then went: continues with the bytes that follow.
///
/// # Invariants
/// Made by [`super::AnchoredImaList`] and [`super::judge()`] alone, or read back from a store that the reader
/// trusts and keeps for one boot only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImaState {
    /// The PCR of the list.
    pub pcr: PcrIndex,
    /// Byte order of its numbers.
    pub order: ByteOrder,
    /// Algorithm of the digests that its entries carry.
    pub recorded: BankAlg,
    /// Entries so far.
    pub entries: u64,
    /// Bytes so far; the next suffix starts here.
    pub bytes: u64,
    /// Violations among the entries.
    pub violations: u64,
    /// The quoted banks, ascending by `TPM_ALG_ID`.
    pub banks: Vec<ImaBank>,
    /// The first entry, as it was checked.
    pub boot_aggregate: BootAggregate,
    /// How the entries were judged, by each policy that judged all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub judged: Vec<ImaJudged>,
}

impl ImaState {
    /// How the list is written.
    #[must_use]
    pub const fn format(&self) -> ListFormat {
        ListFormat { order: self.order, recorded: self.recorded }
    }

    /// How a policy judged the entries so far.
    #[must_use]
    pub fn judged_by(&self, policy: &Digest) -> Option<&ImaJudged> {
        self.judged.iter().find(|judged| judged.policy == *policy)
    }

    /// Whether the entries so far were judged by this policy. If not, the whole list must be asked
    /// for again: entries that nobody kept cannot be judged.
    #[must_use]
    pub fn is_judged_by(&self, policy: &Digest) -> bool {
        self.judged_by(policy).is_some()
    }
}

/// How the entries of a boot were judged so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImaJudged {
    /// [`super::ImaPolicy::digest`] of the policy.
    pub policy: Digest,
    /// What was counted.
    pub counts: ImaCounts,
    /// What was found, by entry; at most [`MAX_IMA_FINDINGS`](super::judge::MAX_IMA_FINDINGS).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// Entries that were not judged any more, because there were as many findings as are kept.
    #[serde(default)]
    pub unjudged: u64,
}

/// Entries by what decided about them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImaCounts {
    /// `boot_aggregate`, once and after each kexec.
    pub boot_aggregates: u64,
    /// By an exclusion.
    pub excluded: u64,
    /// By the manifest.
    pub by_manifest: u64,
    /// By a signature (also where the manifest was demanded too).
    pub by_signature: u64,
    /// Violations that the policy allows.
    pub violations: u64,
    /// Entries with a finding.
    pub refused: u64,
}
