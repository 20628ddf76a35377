//! `attestor inspect`: what this machine's TPM is and has, what is missing, and what to do about it.
//!
//! Never fails: a machine without a TPM is a finding. Reads only, except that endorsement keys are
//! made (and flushed) to show their digests, which takes seconds for RSA keys on some TPMs.

use std::{
    fmt::{self, Write as _},
    fs::File,
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use der::Decode as _;
use proto::{
    digest::{Digest, HashAlg},
    evidence::LogKind,
    spki::ek_digest,
};
use serde::Serialize;
use x509_cert::Certificate;

use crate::{
    logs::LogPaths,
    tpm::{
        EkPreference, EndorsementKey, EndorsementSurvey, TpmConfig, TpmError, TpmFacts, TpmHandle,
        certificate::first_certificate,
    },
};

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// The TCTI that was used.
    pub tcti: String,
    /// The TPM, where there is one.
    pub tpm: Option<TpmFacts>,
    /// Endorsement keys; the first one is the one that attests.
    pub endorsement_keys: Vec<EkReport>,
    /// Intermediates from NV and from the configuration.
    pub ek_chain: Vec<CertificateReport>,
    /// Platform certificates.
    pub platform_certificates: Vec<CertificateReport>,
    /// Measurement logs.
    pub logs: Vec<LogReport>,
    /// What is missing or odd, worst first.
    pub advice: Vec<Advice>,
}

/// One endorsement key.
#[derive(Clone, Debug, Serialize)]
pub struct EkReport {
    /// Name of the template: `L-2`.
    pub template: &'static str,
    /// `ecc-p256`.
    pub algorithm: &'static str,
    /// What `verifier nodes add` takes: `sha256:<hex>`.
    pub ek_digest: Digest,
    /// The persistent handle that holds it.
    pub persistent: Option<String>,
    /// NV index of the certificate.
    pub certificate_index: String,
    /// The certificate, where there is one.
    pub certificate: Option<CertificateReport>,
}

/// A certificate as a reader wants it.
#[derive(Clone, Debug, Serialize)]
pub struct CertificateReport {
    /// Where it is from: an NV index or `configuration`.
    pub source: String,
    /// Subject, RFC 4514; EK certificates may leave it empty.
    pub subject: String,
    /// Issuer, RFC 4514.
    pub issuer: String,
    /// Last moment of validity, RFC 3339.
    pub not_after: String,
    /// SHA-256 over the DER, padding cut.
    pub sha256: Digest,
    /// Why it could not be read; the fields above are then empty.
    pub problem: Option<String>,
    #[serde(skip)]
    not_after_unix: Option<Duration>,
}

/// One measurement log.
#[derive(Clone, Debug, Serialize)]
pub struct LogReport {
    /// `uefi`, `ima` or `systemd`.
    pub name: &'static str,
    /// Its path.
    pub path: PathBuf,
    /// Whether it can be read.
    pub state: LogState,
}

/// Whether a log can be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogState {
    /// It opens for reading.
    Readable,
    /// There is no such file.
    Missing,
    /// This user may not read it.
    Forbidden,
    /// Another error.
    Failed(String),
}

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Attestation cannot work.
    Error,
    /// Attestation works with less evidence, or may fail.
    Warning,
    /// Good to know.
    Note,
}

/// A finding with its remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// How much it matters.
    pub level: Level,
    /// What is so.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Inspection {
    /// Whether anything stands in the way of attestation.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.advice.iter().any(|advice| advice.level == Level::Error)
    }
}

/// Looks at the TPM and the logs. `now` is compared with the certificates' validity.
pub async fn inspect(config: &TpmConfig, paths: &LogPaths, now: SystemTime) -> Inspection {
    let mut out = Inspection {
        tcti: config.tcti.to_string(),
        tpm: None,
        endorsement_keys: Vec::new(),
        ek_chain: Vec::new(),
        platform_certificates: Vec::new(),
        logs: logs(paths),
        advice: Vec::new(),
    };
    if let Err(error) = look(config, &mut out).await {
        out.advice.push(from_error(&error));
    }
    advise_on_tpm(&mut out, config);
    advise_on_certificates(&mut out, now);
    advise_on_logs(&mut out);
    out.advice.sort_by_key(|advice| advice.level);
    out
}

async fn look(config: &TpmConfig, out: &mut Inspection) -> Result<(), TpmError> {
    let (tpm, thread) = TpmHandle::start(config.clone()).await?;
    let facts = tpm.facts().await;
    let survey = match &facts {
        Ok(facts) if facts.endorsement_enabled => Some(tpm.survey_endorsement().await),
        _ => None,
    };
    drop(tpm);
    thread.ended().await;
    out.tpm = Some(facts?);
    if let Some(survey) = survey {
        report_endorsement(survey?, config, out);
    }
    Ok(())
}

fn report_endorsement(survey: EndorsementSurvey, config: &TpmConfig, out: &mut Inspection) {
    // As enrollment chooses: the configured algorithm, then the first key with a certificate.
    let mut keys = survey.keys;
    keys.sort_by_key(|key| {
        let is_other = match config.ek {
            EkPreference::Auto => false,
            EkPreference::Only(algorithm) => key.template.algorithm() != algorithm,
        };
        (is_other, key.certificate.is_none())
    });
    out.endorsement_keys = keys.iter().map(ek_report).collect();
    out.ek_chain = survey
        .chain
        .iter()
        .map(|der| certificate_report("NV 0x01c00100…".to_owned(), der))
        .chain(
            config.ek_chain.iter().map(|der| certificate_report("configuration".to_owned(), der)),
        )
        .collect();
    out.platform_certificates = survey
        .platform_certificates
        .iter()
        .map(|(index, der)| certificate_report(format!("NV {index:#010x}"), der))
        .collect();
    for problem in survey.problems {
        out.advice.push(Advice {
            level: Level::Warning,
            what: problem,
            remedy:
                "another endorsement key is used; tell the manufacturer if this one should work"
                    .to_owned(),
        });
    }
    if !survey.unknown_certificates.is_empty() {
        let indexes: Vec<String> =
            survey.unknown_certificates.iter().map(|index| format!("{index:#010x}")).collect();
        out.advice.push(Advice {
            level: Level::Note,
            what: format!("NV indexes of templates not used here: {}", indexes.join(", ")),
            remedy: "nothing: RSA-2048, RSA-3072, P-256 and P-384 keys are used".to_owned(),
        });
    }
}

fn ek_report(key: &EndorsementKey) -> EkReport {
    let index = format!("{:#010x}", key.template.certificate_index());
    EkReport {
        template: key.template.name(),
        algorithm: key.template.algorithm().name(),
        ek_digest: ek_digest(&key.public),
        persistent: key.persistent.map(|handle| format!("{handle:#010x}")),
        certificate: key
            .certificate
            .as_ref()
            .map(|bytes| certificate_report(format!("NV {index}"), bytes)),
        certificate_index: index,
    }
}

fn certificate_report(source: String, bytes: &[u8]) -> CertificateReport {
    let der = first_certificate(bytes).unwrap_or(bytes);
    let sha256 = HashAlg::Sha256.hash(&[der]);
    let empty = CertificateReport {
        source,
        subject: String::new(),
        issuer: String::new(),
        not_after: String::new(),
        sha256,
        problem: None,
        not_after_unix: None,
    };
    match Certificate::from_der(der) {
        Ok(certificate) => {
            let tbs = certificate.tbs_certificate();
            let not_after = tbs.validity().not_after;
            CertificateReport {
                subject: tbs.subject().to_string(),
                issuer: tbs.issuer().to_string(),
                not_after: not_after.to_date_time().to_string(),
                not_after_unix: Some(not_after.to_unix_duration()),
                ..empty
            }
        }
        Err(error) => CertificateReport { problem: Some(error.to_string()), ..empty },
    }
}

fn logs(paths: &LogPaths) -> Vec<LogReport> {
    paths
        .iter()
        .map(|(kind, path)| LogReport {
            name: match kind {
                LogKind::Uefi => "uefi",
                LogKind::Ima => "ima",
                LogKind::Systemd => "systemd",
                LogKind::Tools => "tools",
            },
            path: path.to_owned(),
            state: log_state(path),
        })
        .collect()
}

fn log_state(path: &Path) -> LogState {
    match File::open(path) {
        Ok(_) => LogState::Readable,
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => LogState::Missing,
            io::ErrorKind::PermissionDenied => LogState::Forbidden,
            _ => LogState::Failed(error.to_string()),
        },
    }
}

fn from_error(error: &TpmError) -> Advice {
    match error {
        TpmError::Absent { tcti, what, remedy } => Advice {
            level: Level::Error,
            what: format!("no TPM at {tcti}: {what}"),
            remedy: remedy.clone(),
        },
        // The others carry their remedy in their text, after the colon.
        other => {
            let text = other.to_string();
            let (what, remedy) = text.split_once(": ").unwrap_or((&text, "read the message"));
            Advice { level: Level::Error, what: what.to_owned(), remedy: remedy.to_owned() }
        }
    }
}

fn advise_on_tpm(out: &mut Inspection, config: &TpmConfig) {
    let Some(facts) = &out.tpm else { return };
    let mut add = |level, what: String, remedy: &str| {
        out.advice.push(Advice { level, what, remedy: remedy.to_owned() });
    };
    if !facts.endorsement_enabled {
        add(
            Level::Error,
            "the endorsement hierarchy is disabled".to_owned(),
            "enable it in the firmware setup (under TPM or security device)",
        );
    }
    if facts.endorsement_auth_set && config.endorsement_auth.is_empty() {
        add(
            Level::Error,
            "the endorsement hierarchy has a password and none is configured".to_owned(),
            "set endorsement_auth_file to a file that holds it",
        );
    }
    if facts.appraised_banks().next().is_none() {
        add(
            Level::Error,
            "no PCR bank with SHA-256, SHA-384 or SHA-512 is allocated".to_owned(),
            "enable the SHA-256 bank in the firmware setup, or: tpm2_pcrallocate sha256:all and reboot",
        );
    }
    if !facts.curves.iter().any(|curve| curve == "p256") {
        add(
            Level::Error,
            "the TPM lacks the curve P-256, which the node key needs".to_owned(),
            "use a TPM 2.0 with ECC",
        );
    }
    if facts.lockout.locked {
        add(
            Level::Warning,
            format!(
                "the TPM is in dictionary attack lockout ({} failures; one is forgiven every {} s)",
                facts.lockout.failures, facts.lockout.interval_s
            ),
            "attestation works meanwhile; wait, or: tpm2_dictionarylockout --clear-lockout with the \
             lockout password",
        );
    }
    if config.tcti.is_direct() && facts.loaded_objects > 0 {
        add(
            Level::Note,
            format!("{} objects of other processes are loaded", facts.loaded_objects),
            "use the resource-managed device:/dev/tpmrm0, so that processes don't take each other's \
             slots",
        );
    }
}

fn advise_on_certificates(out: &mut Inspection, now: SystemTime) {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let certificates = out.endorsement_keys.iter().filter_map(|key| key.certificate.as_ref());
    for certificate in certificates.chain(&out.ek_chain) {
        if let Some(problem) = &certificate.problem {
            out.advice.push(Advice {
                level: Level::Warning,
                what: format!(
                    "the certificate in {} does not parse: {problem}",
                    certificate.source
                ),
                remedy: "it is sent as it is; the verifier knows some oddities of manufacturers"
                    .to_owned(),
            });
        }
        if certificate.not_after_unix.is_some_and(|not_after| not_after < now) {
            out.advice.push(Advice {
                level: Level::Warning,
                what: format!(
                    "the certificate in {} has expired ({})",
                    certificate.source, certificate.not_after
                ),
                remedy: "check this machine's clock; otherwise enroll the node by its EK digest"
                    .to_owned(),
            });
        }
    }
    let Some(best) = out.endorsement_keys.first() else { return };
    if out.endorsement_keys.iter().all(|key| key.certificate.is_none()) {
        out.advice.push(Advice {
            level: Level::Warning,
            what: "the TPM holds no endorsement key certificate".to_owned(),
            remedy: format!(
                "set ek_certificate to the file from the manufacturer, or let an operator enroll the \
                 node by its digest: verifier nodes add --ek-digest {}",
                best.ek_digest
            ),
        });
    }
}

fn advise_on_logs(out: &mut Inspection) {
    for log in &out.logs {
        let (level, missing) = match log.name {
            "uefi" => (
                Level::Warning,
                "mount -t securityfs securityfs /sys/kernel/security; a legacy BIOS or a virtual \
                 machine without UEFI and vTPM has no such log",
            ),
            "ima" => (
                Level::Note,
                "optional: boot with ima_policy=tcb (or a policy of your own) to have files measured \
                 by the kernel",
            ),
            _ => (Level::Note, "optional: systemd 255 and newer write it when they measure"),
        };
        let path = log.path.display();
        let (level, what, remedy) = match &log.state {
            LogState::Readable => continue,
            LogState::Missing => (level, format!("{} log: {path} is not there", log.name), missing),
            LogState::Forbidden => (
                Level::Warning,
                format!("{} log: {path} may not be read by this user", log.name),
                "run as root: the daemon opens logs before it drops its rights",
            ),
            LogState::Failed(error) => (
                Level::Warning,
                format!("{} log: {path}: {error}", log.name),
                "read the kernel log (dmesg)",
            ),
        };
        out.advice.push(Advice { level, what, remedy: remedy.to_owned() });
    }
}

impl fmt::Display for Inspection {
    /// Text for a terminal; no colours, ends with a newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<24}{value}");
        line("TCTI", &self.tcti)?;
        if let Some(tpm) = &self.tpm {
            let banks: Vec<String> = tpm.banks.iter().map(bank_text).collect();
            let (year, day) = tpm.spec_date;
            line("Manufacturer", &format_args!("{} ({})", tpm.manufacturer, tpm.vendor))?;
            line("Firmware", &tpm.firmware_version_text())?;
            line(
                "Specification",
                &format_args!("TPM {} revision {} ({year}, day {day})", tpm.family, tpm.revision),
            )?;
            line("PCR banks", &banks.join(", "))?;
            line("Curves", &tpm.curves.join(", "))?;
            line("Algorithms", &tpm.algorithms.join(", "))?;
            let lockout = if tpm.lockout.locked { "locked" } else { "not locked" };
            line(
                "Dictionary attacks",
                &format_args!(
                    "{lockout}, {} of {} failures",
                    tpm.lockout.failures, tpm.lockout.max_failures
                ),
            )?;
            line(
                "Loaded",
                &format_args!(
                    "{} objects, {} sessions, {} persistent; room for {} more objects",
                    tpm.loaded_objects,
                    tpm.loaded_sessions,
                    tpm.persistent_objects,
                    tpm.free_objects
                ),
            )?;
        }
        for (position, key) in self.endorsement_keys.iter().enumerate() {
            writeln!(f)?;
            let persistent = key
                .persistent
                .as_ref()
                .map_or_else(String::new, |handle| format!(", persistent at {handle}"));
            let attests = if position == 0 { ", attests" } else { "" };
            writeln!(
                f,
                "Endorsement key {} ({}{persistent}{attests})",
                key.template, key.algorithm
            )?;
            writeln!(f, "  EK digest             {}", key.ek_digest)?;
            match &key.certificate {
                Some(certificate) => write_certificate(f, certificate)?,
                None => {
                    writeln!(f, "  certificate           none in NV {}", key.certificate_index)?
                }
            }
        }
        for (title, certificates) in [
            ("Endorsement chain", &self.ek_chain),
            ("Platform certificate", &self.platform_certificates),
        ] {
            for certificate in certificates {
                writeln!(f, "\n{title}")?;
                write_certificate(f, certificate)?;
            }
        }
        writeln!(f)?;
        for log in &self.logs {
            let state = match &log.state {
                LogState::Readable => "readable".to_owned(),
                LogState::Missing => "missing".to_owned(),
                LogState::Forbidden => "not readable by this user".to_owned(),
                LogState::Failed(error) => error.clone(),
            };
            writeln!(f, "{:<24}{} ({state})", format!("Log {}", log.name), log.path.display())?;
        }
        for advice in &self.advice {
            let level = match advice.level {
                Level::Error => "error",
                Level::Warning => "warning",
                Level::Note => "note",
            };
            write!(f, "\n{level}: {}\n  {}\n", advice.what, advice.remedy)?;
        }
        Ok(())
    }
}

fn bank_text(bank: &crate::tpm::BankFacts) -> String {
    const ALL: u32 = 0x00ff_ffff;
    if bank.pcrs == ALL {
        return bank.alg.clone();
    }
    let mut out = format!("{} (only", bank.alg);
    for index in (0..32).filter(|index| bank.pcrs >> index & 1 == 1) {
        // Writing to a String cannot fail.
        let _ = write!(out, " {index}");
    }
    out + ")"
}

fn write_certificate(f: &mut fmt::Formatter<'_>, certificate: &CertificateReport) -> fmt::Result {
    let CertificateReport { source, subject, issuer, not_after, sha256, problem, .. } = certificate;
    writeln!(f, "  certificate           {source}, {sha256}")?;
    match problem {
        Some(problem) => writeln!(f, "    not readable        {problem}"),
        None => {
            let subject = if subject.is_empty() { "(empty)" } else { subject };
            writeln!(f, "    subject             {subject}")?;
            writeln!(f, "    issuer              {issuer}")?;
            writeln!(f, "    valid until         {not_after}")
        }
    }
}
