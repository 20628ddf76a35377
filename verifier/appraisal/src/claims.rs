//! Claims: what integrity-verified evidence says, and nothing else.

use std::{collections::BTreeMap, sync::Arc};

use proto::{
    digest::{Digest, HashAlg, PcrIndex},
    eventlog::LogDigest,
    evidence::PcrValue,
    reason::ReasonCode,
    tool_log::{ToolLogState, ToolState},
};
use serde::{Deserialize, Serialize};

use crate::{
    boot::BootLog,
    boot_log::{BootFacts, ProblemCode},
    ima::{ImaCounts, ImaState},
    measurement::AttestedMeasurements,
    pcr::AttestedPcrs,
    policy::{is_image_authority, key_digest},
    quote::VerifiedQuote,
};

/// Who the endorsement key is, from its certificate or from the site's allow-list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EkClaims {
    /// SHA-256 of the canonical SubjectPublicKeyInfo.
    pub digest: Digest,
    /// How the EK came to be trusted.
    pub trust: EkTrust,
    /// `TPMManufacturer` of the certificate's SAN, for example `id:49465800`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    /// `TPMModel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// `TPMVersion` at manufacture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// How an EK came to be trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case", deny_unknown_fields)]
pub enum EkTrust {
    /// A certificate path to an imported root.
    Certificate {
        /// SHA-256 of the root certificate.
        root: Digest,
        /// Named departures from the TCG profile that were tolerated on the path.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        oddities: Vec<String>,
    },
    /// The site's own allow-list.
    AllowListed,
}

/// Facts about the TPM in this quote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TpmClaims {
    /// Vendor-defined firmware version, as 16 hexadecimal digits.
    pub firmware_version: String,
    /// Resets since the TPM was cleared.
    pub reset_count: u32,
    /// Resumes and restarts since the last reset.
    pub restart_count: u32,
    /// Milliseconds of power since the TPM was cleared.
    pub clock_ms: u64,
    /// Whether the clock is sure never to have been higher.
    pub clock_safe: bool,
}

/// Latest measurement of one tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolClaims {
    /// Present or absent.
    pub state: ToolState,
    /// Digest over its files, links and libraries.
    pub digest: Digest,
    /// What the worker says its version is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What the worker says its package is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
}

/// What the evidence says, after every integrity stage passed.
///
/// Only the appraisal builds it, from proofs alone:
/// ```compile_fail,E0624
/// use appraisal::{
///     boot::BootLog,
///     claims::{Claims, EkClaims},
///     measurement::AttestedMeasurements,
///     pcr::AttestedPcrs,
///     quote::VerifiedQuote,
/// };
///
/// fn forge(
///     ek: EkClaims,
///     quote: &VerifiedQuote<'_>,
///     pcrs: AttestedPcrs,
///     measurements: &AttestedMeasurements,
/// ) -> Claims {
///     Claims::new(ek, quote, pcrs, measurements, BootLog::Absent)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Claims {
    ek: EkClaims,
    tpm: TpmClaims,
    pcrs: AttestedPcrs,
    tools: Arc<ToolLogState>,
    boot_log: BootLog,
    ima: Option<Arc<ImaState>>,
    ima_judges: Vec<Digest>,
}

impl Claims {
    pub(crate) fn new(
        ek: EkClaims,
        quote: &VerifiedQuote<'_>,
        pcrs: AttestedPcrs,
        measurements: &AttestedMeasurements,
        boot_log: BootLog,
    ) -> Self {
        let clock = quote.clock_info();
        Self {
            ek,
            tpm: TpmClaims {
                firmware_version: format!("{:016x}", quote.firmware_version()),
                reset_count: clock.reset_count,
                restart_count: clock.restart_count,
                clock_ms: clock.clock_ms,
                clock_safe: clock.safe,
            },
            pcrs,
            tools: Arc::clone(measurements.state()),
            boot_log,
            ima: None,
            ima_judges: Vec::new(),
        }
    }

    /// With the kernel's list, as it was judged.
    pub(crate) fn with_ima(mut self, ima: Option<Arc<ImaState>>) -> Self {
        self.ima = ima;
        self
    }

    /// With the policies whose judgement of the list counts: see [`ImaClaims::judges`].
    pub(crate) fn with_ima_judges(mut self, judges: Vec<Digest>) -> Self {
        self.ima_judges = judges;
        self
    }

    /// The endorsement key.
    #[must_use]
    pub const fn ek(&self) -> &EkClaims {
        &self.ek
    }

    /// The TPM.
    #[must_use]
    pub const fn tpm(&self) -> &TpmClaims {
        &self.tpm
    }

    /// One PCR.
    #[must_use]
    pub fn pcr(&self, bank: HashAlg, index: PcrIndex) -> Option<&Digest> {
        self.pcrs.value(bank, index)
    }

    /// Every quoted PCR, ascending by (bank, index).
    #[must_use]
    pub fn pcrs(&self) -> &[PcrValue] {
        self.pcrs.values()
    }

    /// The boot's tools.
    #[must_use]
    pub const fn tools(&self) -> &Arc<ToolLogState> {
        &self.tools
    }

    /// The logs of firmware and systemd.
    #[must_use]
    pub const fn boot_log(&self) -> &BootLog {
        &self.boot_log
    }

    /// The kernel's IMA list, if a golden set judges it, in force or staged.
    #[must_use]
    pub const fn ima(&self) -> Option<&Arc<ImaState>> {
        self.ima.as_ref()
    }

    /// The claims as a document: deterministic, for the record and for capture.
    #[must_use]
    pub fn document(&self) -> ClaimsDocument {
        let mut pcrs: BTreeMap<HashAlg, BTreeMap<PcrIndex, Digest>> = BTreeMap::new();
        for value in self.pcrs.values() {
            pcrs.entry(value.value.alg()).or_default().insert(value.index, value.value);
        }
        ClaimsDocument {
            ek: self.ek.clone(),
            tpm: self.tpm.clone(),
            pcrs,
            tools: self
                .tools
                .latest
                .iter()
                .map(|(name, tool)| {
                    (
                        name.clone(),
                        ToolClaims {
                            state: tool.state,
                            digest: tool.digest,
                            version: tool.version.clone(),
                            package: tool.package.clone(),
                        },
                    )
                })
                .collect(),
            tool_pcr_start: self.tools.start_values.clone(),
            boot: BootClaims::of(&self.boot_log),
            ima: self.ima.as_deref().map(|state| ImaClaims::of(state, &self.ima_judges)),
        }
    }
}

/// What is recorded of the boot: the facts themselves stand in the boot's record, which the decision's case names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootClaims {
    /// Why the log was not read; then nothing else is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<ReasonCode>,
    /// SHA-256 of the firmware's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Digest>,
    /// PCRs that the logs lead to in the bank that the facts are read from: of these alone there are facts. What only
    /// another bank's replay leads to is not among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub explained: Vec<PcrIndex>,
    /// Whether Secure Boot is on; absent where the log does not prove either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<bool>,
    /// Whether no platform key is enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_mode: Option<bool>,
    /// Whether images are logged and not refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_mode: Option<bool>,
    /// `DeployedMode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployed_mode: Option<bool>,
    /// Whether firmware was in debug mode; absent where no log leads to PCR 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debug_mode: Option<bool>,
    /// Whether protection against DMA was off; absent where no log leads to PCR 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dma_protection_off: Option<bool>,
    /// Entries that authorised images; absent where PCR 7 has an event that is not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signers: Option<Vec<String>>,
    /// Boot applications, by Authenticode digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applications: Vec<LogDigest>,
    /// Kernel command lines: text where the log has it, else the digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command_lines: Vec<String>,
    /// Their digests; absent where there is none, or PCR 11 or 12 has an event that is not told: it may be another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_line_digests: Option<Vec<LogDigest>>,
    /// Whether every one of [`Self::command_lines`] is a text.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub command_lines_told: bool,
    /// Sections of the unified kernel image; absent where PCR 11 has an event that is not told, or one section stands
    /// twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sections: Option<BTreeMap<String, LogDigest>>,
    /// Codes of oddities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ProblemCode>,
}

impl BootClaims {
    fn of(log: &BootLog) -> Option<Self> {
        let none = Self {
            unread: None,
            log: None,
            explained: Vec::new(),
            secure_boot: None,
            setup_mode: None,
            audit_mode: None,
            deployed_mode: None,
            debug_mode: None,
            dma_protection_off: None,
            signers: None,
            applications: Vec::new(),
            command_lines: Vec::new(),
            command_line_digests: None,
            command_lines_told: false,
            sections: None,
            problems: Vec::new(),
        };
        match log {
            BootLog::Absent => None,
            BootLog::Unread(code) => Some(Self { unread: Some(*code), ..none }),
            BootLog::Proven(log) => {
                let facts = &log.facts;
                let mut problems: Vec<_> =
                    log.problems.iter().map(|problem| problem.code).collect();
                problems.sort_unstable();
                problems.dedup();
                let bank = HashAlg::from_tpm(facts.bank.tpm_id());
                let values = bank.and_then(|bank| log.values.get(&bank));
                let explained: Vec<_> =
                    values.into_iter().flat_map(BTreeMap::keys).copied().collect();
                let leads_to_pcr_7 = explained.iter().any(|pcr| pcr.get() == 7);
                Some(Self {
                    unread: None,
                    log: Some(log.log),
                    explained,
                    secure_boot: facts.secure_boot,
                    setup_mode: facts.setup_mode,
                    audit_mode: facts.audit_mode,
                    deployed_mode: facts.deployed_mode,
                    debug_mode: leads_to_pcr_7.then_some(facts.debug_mode),
                    dma_protection_off: leads_to_pcr_7.then_some(facts.dma_protection_disabled),
                    signers: told(facts, &[7]).then(|| signers(facts)),
                    applications: facts.boot_applications.iter().map(|app| app.digest).collect(),
                    command_lines: facts
                        .command_lines
                        .iter()
                        .map(|line| line.text.clone().unwrap_or_else(|| line.digest.to_string()))
                        .collect(),
                    command_line_digests: (told(facts, &[11, 12])
                        && !facts.command_lines.is_empty())
                    .then(|| facts.command_lines.iter().map(|line| line.digest).collect()),
                    command_lines_told: facts.command_lines.iter().all(|line| line.text.is_some()),
                    sections: sections(facts).filter(|_| told(facts, &[11])),
                    problems,
                })
            }
        }
    }
}

/// Whether nothing in these PCRs is known by its digest alone.
fn told(facts: &BootFacts, pcrs: &[u8]) -> bool {
    facts.untold.iter().all(|untold| !pcrs.contains(&untold.source.pcr))
}

fn signers(facts: &BootFacts) -> Vec<String> {
    facts
        .authorities
        .iter()
        .filter(|authority| is_image_authority(&authority.variable))
        .map(|authority| key_digest(&authority.digest))
        .collect()
}

/// By name; `None` where one name stands twice.
fn sections(facts: &BootFacts) -> Option<BTreeMap<String, LogDigest>> {
    let sections: BTreeMap<_, _> =
        facts.uki_sections.iter().map(|section| (section.name.clone(), section.digest)).collect();
    (sections.len() == facts.uki_sections.len()).then_some(sections)
}

/// What is recorded of the kernel's list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImaClaims {
    /// Entries, as far as the quote covers them.
    pub entries: u64,
    /// Violations among them.
    pub violations: u64,
    /// How they were judged, by digest of the policy.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub judged: BTreeMap<Digest, ImaCounts>,
    /// Of these the policies whose word counts: those of the alternative in force that accepts the node, or is nearest.
    /// Others belong to other alternatives, or are only staged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub judges: Vec<Digest>,
}

impl ImaClaims {
    fn of(state: &ImaState, judges: &[Digest]) -> Self {
        Self {
            entries: state.entries,
            violations: state.violations,
            judged: state.judged.iter().map(|judged| (judged.policy, judged.counts)).collect(),
            judges: judges.to_vec(),
        }
    }
}

/// [`Claims`] as they are recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimsDocument {
    /// The endorsement key.
    pub ek: EkClaims,
    /// The TPM.
    pub tpm: TpmClaims,
    /// PCR values by bank and index.
    pub pcrs: BTreeMap<HashAlg, BTreeMap<PcrIndex, Digest>>,
    /// Latest state of each tool.
    pub tools: BTreeMap<String, ToolClaims>,
    /// Value of the tool PCR before the first tool event, one a bank.
    pub tool_pcr_start: Vec<Digest>,
    /// The logs of firmware and systemd; absent where the worker sent none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootClaims>,
    /// The kernel's IMA list; absent where no golden set judges it, in force or staged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ima: Option<ImaClaims>,
}
