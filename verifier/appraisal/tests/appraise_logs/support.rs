//! A worker whose firmware left a log, and golden sets that read it.

use appraisal::{
    Proven,
    context::Signer,
    policy::{Manifests, ReferenceValues},
    verdict::{Denial, Finding},
};
use proto::{
    digest::{HashAlg, PcrIndex, PcrSelection},
    evidence::{Evidence, LogKind, LogSuffix},
    reason::ReasonCode,
};
use soft_tpm::{Algorithm, EkKind};

use crate::{
    log_support::{Boot, values_of},
    site::{Site, admitted, cc, denied, evidence, golden, index, ld, set, sha256, tool_pcr},
};

/// PCRs that are quoted.
pub const QUOTED: [u8; 14] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14];
/// Locality that [`Boot`] names.
const LOCALITY: u8 = 3;

/// A boot that leaves the tool PCR alone.
pub fn plain() -> Boot {
    Boot { mok: false, ..Boot::default() }
}

/// A machine that booted this, and measured its tools after it.
pub fn booted(log: &[u8]) -> Site {
    let mut site = Site::with(EkKind::P256, Algorithm::EcdsaP256, &[(HashAlg::Sha256, set(&[0]))]);
    site.issued.selection = PcrSelection::new([(HashAlg::Sha256, set(&QUOTED))]);
    site.issued.required = site.issued.selection.clone();
    boot(&mut site, log);
    site
}

/// The machine's PCRs as this log leaves them, then its tools.
pub fn boot(site: &mut Site, log: &[u8]) {
    for alg in [HashAlg::Sha256, HashAlg::Sha384] {
        for value in values_of(log, alg, LOCALITY) {
            site.tpm.pcrs.insert((alg, value.index), value.value);
        }
    }
    site.tpm.log.clear();
    site.tpm.events = 0;
    site.tpm.head = proto::digest::Digest::zero(HashAlg::Sha256);
    site.tpm.measure(&cc());
    site.tpm.measure(&ld());
}

/// The golden set of these rules, beside the values of PCR 0 and 2 and the tools.
pub fn judge_by(site: &mut Site, rules: &str) {
    let text = site.golden_text(&[(HashAlg::Sha256, set(&[0, 2]))]);
    site.golden = Some(golden(&format!("{text}{rules}")));
}

/// The same, with manifests.
pub fn judge_by_manifests(site: &mut Site, rules: &str, manifests: &Manifests) {
    let text = site.golden_text(&[(HashAlg::Sha256, set(&[0, 2]))]);
    let parsed = ReferenceValues::parse(&format!("{text}{rules}"), tool_pcr(), manifests);
    site.golden = Some(parsed.expect("a golden set"));
}

pub fn suffix(kind: LogKind, from_bytes: u64, bytes: &[u8]) -> LogSuffix {
    LogSuffix { kind, from_bytes, bytes: bytes.to_vec() }
}

/// Evidence of a new boot, with these logs after the tool log.
pub fn evidence_with(site: &Site, logs: &[(LogKind, &[u8])]) -> Evidence {
    let mut out = evidence(&site.answer());
    out.logs.extend(logs.iter().map(|(kind, bytes)| suffix(*kind, 0, bytes)));
    out
}

/// A new boot that shows this firmware log and is admitted.
#[track_caller]
pub fn admit(site: &Site, log: &[u8]) -> Proven {
    let evidence = evidence_with(site, &[(LogKind::Uefi, log)]);
    admitted(site.judge(&evidence, site.activating()))
}

/// A new boot that shows these logs and is denied.
#[track_caller]
pub fn deny(site: &Site, logs: &[(LogKind, &[u8])]) -> Denial {
    denied(site.judge(&evidence_with(site, logs), site.activating()))
}

/// A new boot that shows this firmware log and is denied.
#[track_caller]
pub fn deny_log(site: &Site, log: &[u8]) -> Denial {
    deny(site, &[(LogKind::Uefi, log)])
}

/// A renewal with nothing new but these suffixes.
pub fn renewal_with(
    site: &Site,
    boot: &appraisal::boot::Boot,
    logs: Vec<LogSuffix>,
) -> appraisal::Appraisal {
    let mut out = evidence(&site.renewal(boot));
    out.logs.extend(logs);
    site.judge(&out, Signer::Known(boot.clone()))
}

/// Exactly this one finding, word by word.
#[track_caller]
pub fn assert_finding(
    denial: &Denial,
    code: ReasonCode,
    subject: &str,
    expected: &str,
    observed: &str,
) {
    let findings: Vec<&Finding> = denial.findings().collect();
    assert_eq!(findings, [&Finding::new(code, subject, expected, observed)]);
}

/// The codes, in their order.
pub fn codes(denial: &Denial) -> Vec<ReasonCode> {
    denial.findings().map(|finding| finding.code).collect()
}

/// The value of a PCR in the SHA-256 bank.
pub fn value(site: &Site, pcr: u8) -> proto::digest::Digest {
    site.tpm.pcrs[&(HashAlg::Sha256, index(pcr))]
}

/// Extends a PCR in both banks.
pub fn extend(site: &mut Site, pcr: u8, measured: &[u8]) {
    let at: PcrIndex = index(pcr);
    for alg in [HashAlg::Sha256, HashAlg::Sha384] {
        site.tpm.extend(alg, at, &alg.hash(&[measured]));
    }
}

/// `{ digest = "sha256:…" }`.
pub fn of(bytes: &[u8]) -> String {
    format!("{{ digest = \"{}\" }}", sha256(bytes))
}
