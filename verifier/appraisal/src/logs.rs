//! How the logs of one boot hang together: firmware and systemd first, tools and kernel go on from there.
//!
//! PCRs that only firmware and systemd extend are led to by their logs alone. The tool log continues the tool PCR from
//! where firmware left it, and IMA's first entry is a hash over firmware's PCRs.

use std::sync::Arc;

use proto::{
    digest::{Digest, PcrSet},
    evidence::{Evidence, LogKind},
    limits::MAX_IMA_SURPLUS_BYTES,
    reason::ReasonCode,
};

use crate::{
    boot::{Boot, BootLog},
    boot_log::{Later, ProvenBootLog, quoted_boot_pcrs},
    context::AppraisalContext,
    ima::{self, AnchoredImaList, BootPcrs, IMA_PCR, ImaEvidence, ImaPolicy, ImaState, Judgements},
    pcr::AttestedPcrs,
    policy::ReferenceValues,
    verdict::{Denial, Finding},
};

/// The logs of firmware and systemd, and where other logs go on from them.
pub(crate) struct BootLogs {
    pub(crate) log: BootLog,
    /// What firmware left in the tool PCR, where it extended it.
    pub(crate) tool_pcr_start: Option<Vec<Digest>>,
    /// What the kernel found in firmware's PCRs.
    pub(crate) boot_pcrs: BootPcrs,
}

impl BootLogs {
    /// Reads the logs of a new boot; of a known one they were read, and must still lead to what is quoted.
    pub(crate) fn read(
        known: Option<&Boot>,
        evidence: &Evidence,
        pcrs: &AttestedPcrs,
        context: &AppraisalContext<'_>,
    ) -> Result<Self, Denial> {
        let required =
            context.in_force.reference.map(ReferenceValues::log_pcrs).unwrap_or_default();
        let without = |log| Self { log, tool_pcr_start: None, boot_pcrs: quoted_boot_pcrs(pcrs) };
        if let Some(boot) = known {
            let mut out = without(boot.boot_log.clone());
            if let Some(log) = boot.boot_log.proven() {
                log.still_leads_to(pcrs)?;
                log.refuse_problems(required)?;
                out.boot_pcrs.know(&log.aggregates);
            }
            return Ok(out);
        }
        let Some(firmware) = evidence.log(LogKind::Uefi) else {
            return Ok(without(BootLog::Absent));
        };
        let systemd = evidence.log(LogKind::Systemd);
        let later = Later {
            systemd: None,
            continued: PcrSet::from_iter([context.tool_pcr, IMA_PCR]),
            kept: context.every_log_pcr(),
            // What is staged has no say in it: facts in another bank would be none to the rules in force.
            facts_bank: context.in_force.reference.and_then(ReferenceValues::facts_bank),
        };
        match ProvenBootLog::read(firmware, systemd, pcrs, required, later) {
            Ok(reading) => Ok(Self {
                tool_pcr_start: reading.start_of(context.tool_pcr).map(<[Digest]>::to_vec),
                boot_pcrs: reading.boot_pcrs,
                log: BootLog::Proven(Arc::new(reading.proven)),
            }),
            // Nothing that every alternative needs depends on it: values are judged as they were quoted, and the record says why there are no facts.
            Err(denial) if required.is_empty() => Ok(without(BootLog::Unread(denial.code()))),
            Err(denial) => Err(denial),
        }
    }
}

/// The kernel's list, judged by every policy of what is in force and of what is staged.
pub(crate) struct ImaReading {
    pub(crate) evidence: ImaEvidence,
    /// What a renewal continues from.
    pub(crate) state: Option<Arc<ImaState>>,
}

/// Judges the kernel's list, where a golden set has rules for it and the worker has one.
///
/// A list that cannot be used is refused here where every accepted alternative reads it, else by those that do.
pub(crate) fn judge_ima(
    known: Option<&Boot>,
    evidence: &Evidence,
    pcrs: &AttestedPcrs,
    boot_pcrs: &BootPcrs,
    context: &AppraisalContext<'_>,
) -> Result<ImaReading, Denial> {
    let policies = context.ima_policies();
    if policies.is_empty() {
        return Ok(ImaReading { evidence: ImaEvidence::Absent, state: None });
    }
    match read_ima(known, evidence, pcrs, boot_pcrs, &policies) {
        Ok(reading) => Ok(reading),
        Err(denial) if context.in_force.reference.is_some_and(ReferenceValues::needs_ima) => {
            Err(denial)
        }
        Err(denial) => Ok(ImaReading { evidence: ImaEvidence::Unusable(denial), state: None }),
    }
}

fn read_ima(
    known: Option<&Boot>,
    evidence: &Evidence,
    pcrs: &AttestedPcrs,
    boot_pcrs: &BootPcrs,
    policies: &[&Arc<ImaPolicy>],
) -> Result<ImaReading, Denial> {
    let known = known
        .and_then(|boot| boot.ima.as_deref())
        .filter(|state| policies.iter().all(|policy| state.is_judged_by(policy.digest())));
    let suffix = evidence.log(LogKind::Ima);
    if known.is_none() && suffix.is_none() {
        return Ok(ImaReading { evidence: ImaEvidence::Absent, state: None });
    }
    let list = AnchoredImaList::verify(known, suffix, pcrs, IMA_PCR, boot_pcrs)?;
    let surplus = list.surplus_bytes();
    if surplus > MAX_IMA_SURPLUS_BYTES {
        return Err(Finding::new(
            ReasonCode::EvidenceLimitExceeded,
            "IMA list",
            format!("at most {MAX_IMA_SURPLUS_BYTES} bytes beyond the quote"),
            format!("{surplus} bytes"),
        )
        .into());
    }
    let Judgements { findings, state } = ima::judge_by_all(&list, policies);
    Ok(ImaReading { evidence: ImaEvidence::Judged(findings), state: Some(Arc::new(state)) })
}
