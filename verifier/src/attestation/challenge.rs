//! What a worker is asked for: a quote over all that will be read, and the logs that explain it.

use std::sync::Arc;

use appraisal::{
    boot::Boot,
    context::IssuedChallenge,
    ima::{IMA_PCR, ImaPolicy},
    policy::ReferenceValues,
};
use proto::{
    binding::{Challenge, Purpose},
    digest::{HashAlg, PcrIndex, PcrSelection, PcrSet},
    evidence::{Hello, LogKind},
};

use super::{AttestError, Verifier};
use crate::{credential::random_bytes, expectations::PoolExpectations};

impl Verifier {
    /// A fresh challenge over everything that will be read.
    pub(super) fn issue(
        &self,
        now_unix_s: i64,
        purpose: Purpose,
        expected: &PoolExpectations,
    ) -> Result<IssuedChallenge, AttestError> {
        let base = self.settings.selection.banks().iter().copied();
        let in_force = expected.in_force.reference.as_ref();
        let everything = expected.references().map(ReferenceValues::selection);
        let everything = everything.flat_map(|read| read.banks().to_vec());
        let needed = in_force.map(ReferenceValues::required_selection);
        let needed = needed.iter().flat_map(|read| read.banks().to_vec());
        let ima = |is_read: bool| is_read.then_some(IMA_PCR);
        let has_ima = expected.ima_policies().next().is_some();
        let needs_ima = in_force.is_some_and(ReferenceValues::needs_ima);
        // Asked for is what any rule reads, also a staged one; a quote has to cover what every alternative reads.
        let selection = self.with_tools(base.clone().chain(everything), ima(has_ima));
        let required = self.with_tools(base.chain(needed), ima(needs_ima));
        let lifetime = i64::try_from(self.settings.challenge_lifetime.as_secs()).unwrap_or(60);
        Ok(IssuedChallenge {
            challenge: Challenge::new(random_bytes()?),
            verifier_id: self.settings.verifier_id,
            selection,
            required,
            expires_unix_s: now_unix_s.saturating_add(lifetime),
            purpose,
        })
    }

    /// The banks with the PCRs that other logs continue, in each of them.
    fn with_tools(
        &self,
        banks: impl Iterator<Item = (HashAlg, PcrSet)>,
        ima: Option<PcrIndex>,
    ) -> PcrSelection {
        let continued: PcrSet = std::iter::once(self.settings.tool_pcr).chain(ima).collect();
        PcrSelection::new(banks.flat_map(|(alg, set)| [(alg, set), (alg, continued)]))
    }
}

/// Logs to ask for, and from which byte on: the tool log always, those of firmware and systemd to prove a boot, the
/// kernel's where the golden set judges it.
pub(super) fn logs_wanted(
    hello: &Hello,
    known: Option<&Boot>,
    expected: &PoolExpectations,
) -> Vec<(LogKind, u64)> {
    let has = |kind| hello.logs.iter().any(|(known, _)| *known == kind);
    let mut wanted = vec![(LogKind::Tools, known.map_or(0, |boot| boot.tool_log().bytes))];
    if known.is_none() && has(LogKind::Uefi) {
        wanted.push((LogKind::Uefi, 0));
        wanted.extend(has(LogKind::Systemd).then_some((LogKind::Systemd, 0)));
    }
    let policies: Vec<&Arc<ImaPolicy>> = expected.ima_policies().collect();
    if !policies.is_empty() && has(LogKind::Ima) {
        // Entries that another policy judged were not kept: they are wanted again.
        let judged = known
            .and_then(|boot| boot.ima())
            .filter(|state| policies.iter().all(|policy| state.is_judged_by(policy.digest())));
        wanted.push((LogKind::Ima, judged.map_or(0, |state| state.bytes)));
    }
    wanted
}
