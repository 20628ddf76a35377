//! The worker's configuration: TOML, parsed once into types.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use proto::{digest::PcrIndex, job::CiSystem};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::{
    jobs::{DEFAULT_MAX_JOBS, DEFAULT_SILENCE, DEFAULT_START_WITHIN, JobSettings},
    logs::LogPaths,
    privilege::uid_of,
    tpm::{AkAlgorithm, EkAlgorithm, EkPreference, Tcti, TpmConfig},
    trust::{Trust, certificates},
};

/// Where the configuration is looked for.
pub const DEFAULT_CONFIG_PATH: &str = "/etc/assay/attestor.toml";
/// Where the tool log and the last trust bundle live; survives reboots.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/assay-attestor";
/// Where certificate, key and status are written; a tmpfs on systemd machines.
pub const DEFAULT_OUTPUT_DIR: &str = "/run/assay";
/// The tool list.
pub const DEFAULT_TOOLS: &str = "/etc/assay/tools.toml";
/// Cannot be reset before a reboot, and no firmware but shim writes into it.
pub const DEFAULT_TOOL_PCR: u8 = 14;
/// A change that no file event told of is found at the latest after this.
pub const DEFAULT_MEASURE_INTERVAL: Duration = Duration::from_secs(600);
/// Longest that a job may wait for its permit: whoever asks waits for 90 s in all.
const MAX_START_WITHIN_S: u64 = 75;
/// Shorter would keep a small machine busy hashing.
const MIN_MEASURE_INTERVAL_S: u64 = 10;
/// Largest configuration or secret file, bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Everything the worker is told.
#[derive(Debug)]
pub struct Config {
    /// `https://host:port` of the verifier.
    pub url: String,
    /// What it is trusted by.
    pub trust: Trust,
    /// The TPM.
    pub tpm: TpmConfig,
    /// The tool list.
    pub tools: PathBuf,
    /// PCR of the tool log.
    pub tool_pcr: PcrIndex,
    /// Tool log and trust bundle.
    pub state_dir: PathBuf,
    /// Certificate, key, status.
    pub output_dir: PathBuf,
    /// Time between measurements that nothing else asked for.
    pub measure_interval: Duration,
    /// User to become once the TPM is open.
    pub user: Option<String>,
    /// Logs that others write.
    pub logs: LogPaths,
    /// Jobs that may ask for permits; `None`: none.
    pub jobs: Option<JobSettings>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    verifier: VerifierSection,
    #[serde(default)]
    tpm: TpmSection,
    #[serde(default)]
    tools: ToolsSection,
    #[serde(default)]
    logs: LogsSection,
    #[serde(default)]
    daemon: DaemonSection,
    jobs: Option<JobsSection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JobsSection {
    users: Vec<String>,
    #[serde(default)]
    systems: Vec<CiSystem>,
    socket_dir: Option<PathBuf>,
    max_jobs: Option<usize>,
    start_within_s: Option<u64>,
    #[serde(default)]
    detached_callers: bool,
    verifier_silence_s: Option<u64>,
    #[serde(default)]
    on_end: Vec<String>,
    #[serde(default)]
    on_refused: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifierSection {
    url: String,
    ca_file: Option<PathBuf>,
    pin: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TpmSection {
    tcti: Option<String>,
    ek: Option<String>,
    ak: Option<String>,
    ek_certificate: Option<PathBuf>,
    ek_chain: Option<PathBuf>,
    endorsement_auth_file: Option<PathBuf>,
    owner_auth_file: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ToolsSection {
    list: Option<PathBuf>,
    pcr: Option<u8>,
    measure_interval_s: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LogsSection {
    uefi: Option<PathBuf>,
    ima: Option<PathBuf>,
    systemd: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DaemonSection {
    state_dir: Option<PathBuf>,
    output_dir: Option<PathBuf>,
    user: Option<String>,
}

/// What is wrong with the configuration, where, and what is expected.
#[derive(Debug, thiserror::Error)]
#[error("{}: {at}: {what}", path.display())]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// Key, or line and column.
    pub at: String,
    /// What is wrong and what is expected.
    pub what: String,
}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let fail =
            |at: &str, what: String| ConfigError { path: path.to_owned(), at: at.to_owned(), what };
        let text = read_bounded(path).map_err(|what| fail("file", what))?;
        let text = std::str::from_utf8(&text).map_err(|error| fail("file", error.to_string()))?;
        Self::parse(text).map_err(|(at, what)| fail(&at, what))
    }

    /// Parses a configuration; paths in it are read.
    fn parse(text: &str) -> Result<Self, (String, String)> {
        let document: Document = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or_else(
                || "file".to_owned(),
                |span| {
                    let before = text.get(..span.start).unwrap_or(text);
                    let line = before.matches('\n').count() + 1;
                    format!("line {line}")
                },
            );
            (at, error.message().to_owned())
        })?;
        let key = |key: &'static str| move |what: String| (key.to_owned(), what);
        let VerifierSection { url, ca_file, pin } = document.verifier;
        if !url.starts_with("https://") {
            return Err(key("verifier.url")(format!("{url:?} must begin with https://")));
        }
        let trust = match (ca_file, pin) {
            (Some(path), None) => Trust::CaFile(path),
            (None, Some(pin)) => Trust::parse_pin(&pin).map_err(key("verifier.pin"))?,
            _ => {
                return Err(key("verifier")(
                    "exactly one of ca_file and pin says what the verifier is trusted by; copy \
                     bundle.pem from the verifier, or the pin that `verifier init` printed"
                        .to_owned(),
                ));
            }
        };
        let tool_pcr = document.tools.pcr.unwrap_or(DEFAULT_TOOL_PCR);
        let tool_pcr = PcrIndex::new(tool_pcr)
            .filter(|pcr| !matches!(pcr.get(), 0..=7 | 10 | 16 | 23))
            .ok_or_else(|| {
                key("tools.pcr")(format!(
                    "{tool_pcr}: choose 8, 9, 11 to 15 or 17 to 22 (0-7 are the firmware's, 10 is IMA's, \
                     16 and 23 can be reset by anybody)"
                ))
            })?;
        let interval = document.tools.measure_interval_s;
        if interval.is_some_and(|seconds| seconds < MIN_MEASURE_INTERVAL_S) {
            return Err(key("tools.measure_interval_s")(format!(
                "at least {MIN_MEASURE_INTERVAL_S} seconds"
            )));
        }
        Ok(Self {
            url,
            trust,
            tpm: tpm_config(&document.tpm)?,
            tools: document.tools.list.unwrap_or_else(|| DEFAULT_TOOLS.into()),
            tool_pcr,
            state_dir: document.daemon.state_dir.unwrap_or_else(|| DEFAULT_STATE_DIR.into()),
            output_dir: document.daemon.output_dir.unwrap_or_else(|| DEFAULT_OUTPUT_DIR.into()),
            measure_interval: interval.map_or(DEFAULT_MEASURE_INTERVAL, Duration::from_secs),
            user: document.daemon.user,
            jobs: document.jobs.map(job_settings).transpose()?,
            logs: log_paths(document.logs)?,
        })
    }
}

fn job_settings(section: JobsSection) -> Result<JobSettings, (String, String)> {
    let bounded = |key: &str, given: Option<u64>, default: u64, min: u64, max: u64| {
        let value = given.unwrap_or(default);
        match (min..=max).contains(&value) {
            true => Ok(value),
            false => Err((key.to_owned(), format!("{value}: must be {min} to {max}"))),
        }
    };
    let seconds = |key, given, default: Duration, min, max| {
        bounded(key, given, default.as_secs(), min, max).map(Duration::from_secs)
    };
    let mut users = Vec::with_capacity(section.users.len());
    for user in &section.users {
        let uid = user.parse().or_else(|_| uid_of(user).map_err(|error| error.to_string()));
        users.push(uid.map_err(|what| ("jobs.users".to_owned(), what))?);
    }
    let directory = section.socket_dir.unwrap_or_else(|| DEFAULT_OUTPUT_DIR.into());
    if !directory.is_absolute() {
        let what = format!("{}: must be an absolute path", directory.display());
        return Err(("jobs.socket_dir".to_owned(), what));
    }
    let max_jobs = section.max_jobs.map(|jobs| jobs as u64);
    let max_jobs = bounded("jobs.max_jobs", max_jobs, DEFAULT_MAX_JOBS as u64, 1, 1024)?;
    Ok(JobSettings {
        directory,
        users,
        systems: section.systems,
        max_jobs: usize::try_from(max_jobs).unwrap_or(DEFAULT_MAX_JOBS),
        start_within: seconds(
            "jobs.start_within_s",
            section.start_within_s,
            DEFAULT_START_WITHIN,
            5,
            MAX_START_WITHIN_S,
        )?,
        silence: seconds(
            "jobs.verifier_silence_s",
            section.verifier_silence_s,
            DEFAULT_SILENCE,
            1,
            3600,
        )?,
        detached_callers: section.detached_callers,
        on_end: section.on_end,
        on_refused: section.on_refused,
    })
}

/// Each log's path: the usual one, another one, or `none` for a log that is not to be sent.
fn log_paths(section: LogsSection) -> Result<LogPaths, (String, String)> {
    let usual = LogPaths::default();
    let choose = |key: &str, given: Option<PathBuf>, usual: Option<PathBuf>| match given {
        None => Ok(usual),
        Some(path) if path.as_os_str() == "none" => Ok(None),
        Some(path) if path.is_absolute() => Ok(Some(path)),
        Some(path) => {
            Err((key.to_owned(), format!("{}: an absolute path, or \"none\"", path.display())))
        }
    };
    Ok(LogPaths {
        uefi: choose("logs.uefi", section.uefi, usual.uefi)?,
        ima: choose("logs.ima", section.ima, usual.ima)?,
        systemd: choose("logs.systemd", section.systemd, usual.systemd)?,
    })
}

fn tpm_config(section: &TpmSection) -> Result<TpmConfig, (String, String)> {
    let key = |key: &'static str| move |what: String| (key.to_owned(), what);
    let mut config = TpmConfig::default();
    if let Some(text) = &section.tcti {
        config.tcti = Tcti::from_str(text).map_err(|error| key("tpm.tcti")(error.to_string()))?;
    }
    if let Some(text) = &section.ek {
        config.ek = parse_ek(text).map_err(key("tpm.ek"))?;
    }
    config.ak = match section.ak.as_deref() {
        None | Some("auto") => AkAlgorithm::Auto,
        Some("rsa-2048") => AkAlgorithm::Rsa2048,
        Some(other) => return Err(key("tpm.ak")(format!("{other:?} is not auto or rsa-2048"))),
    };
    if let Some(path) = &section.ek_certificate {
        let ders = read_certificates(path).map_err(key("tpm.ek_certificate"))?;
        config.ek_certificate = ders.into_iter().next();
    }
    if let Some(path) = &section.ek_chain {
        config.ek_chain = read_certificates(path).map_err(key("tpm.ek_chain"))?;
    }
    if let Some(path) = &section.endorsement_auth_file {
        config.endorsement_auth = read_auth(path).map_err(key("tpm.endorsement_auth_file"))?;
    }
    if let Some(path) = &section.owner_auth_file {
        config.owner_auth = read_auth(path).map_err(key("tpm.owner_auth_file"))?;
    }
    Ok(config)
}

/// `auto`, or one algorithm by name.
///
/// # Errors
/// What is wrong, in words.
pub fn parse_ek(text: &str) -> Result<EkPreference, String> {
    if text == "auto" {
        return Ok(EkPreference::Auto);
    }
    EkAlgorithm::ALL
        .into_iter()
        .find(|algorithm| algorithm.name() == text)
        .map(EkPreference::Only)
        .ok_or_else(|| {
            let names: Vec<&str> = EkAlgorithm::ALL.iter().map(|a| a.name()).collect();
            format!("{text:?} is not auto, {}", names.join(", "))
        })
}

fn read_certificates(path: &Path) -> Result<Vec<Vec<u8>>, String> {
    let bytes = read_bounded(path)?;
    if bytes.first() == Some(&0x30) {
        return Ok(vec![bytes]);
    }
    let text = String::from_utf8(bytes).map_err(|_| "neither DER nor PEM".to_owned())?;
    certificates(&text)
}

/// A password: the file's content without a final newline.
fn read_auth(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut bytes = Zeroizing::new(read_bounded(path)?);
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(bytes)
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let length = std::fs::metadata(path).map_err(|error| format!("{shown}: {error}"))?.len();
    if length > MAX_FILE_BYTES {
        return Err(format!("{shown}: {length} bytes, at most {MAX_FILE_BYTES} are read"));
    }
    std::fs::read(path).map_err(|error| format!("{shown}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::Config;

    const GOOD: &str = "[verifier]\nurl = \"https://v:8443\"\nca_file = \"/x\"\n";

    fn problem(text: &str) -> String {
        let (at, what) = Config::parse(text).expect_err("refused");
        format!("{at}: {what}")
    }

    #[test]
    fn a_short_configuration_has_defaults() {
        let config = Config::parse(GOOD).expect("good");
        assert_eq!(config.tool_pcr.get(), 14);
        assert_eq!(config.output_dir.to_str(), Some("/run/assay"));
        assert_eq!(config.logs.iter().count(), 3);
    }

    #[test]
    fn a_log_is_elsewhere_or_not_sent() {
        let text = format!("{GOOD}[logs]\nuefi = \"/log\"\nima = \"none\"\n");
        let logs = Config::parse(&text).expect("good").logs;
        assert_eq!(logs.uefi.as_deref(), Some(std::path::Path::new("/log")));
        assert_eq!(logs.ima, None);
        assert!(logs.systemd.is_some());
    }

    #[test]
    fn each_problem_names_its_key() {
        assert!(
            problem(&format!("{GOOD}[tools]\npcrs = 3\n")).starts_with("line 5: unknown field")
        );
        assert!(
            problem(&format!("{GOOD}pin = \"sha256:00\"\n")).starts_with("verifier: exactly one")
        );
        assert!(problem("[verifier]\nurl = \"http://v\"\n").starts_with("verifier.url: "));
        assert!(problem(&format!("{GOOD}[tools]\npcr = 16\n")).starts_with("tools.pcr: 16"));
        assert!(
            problem(&format!("{GOOD}[tpm]\ntcti = \"swtpm:path=/x\"\n")).starts_with("tpm.tcti: ")
        );
        assert!(problem(&format!("{GOOD}[tpm]\nek = \"rsa\"\n")).starts_with("tpm.ek: "));
        assert!(
            problem(&format!("{GOOD}[logs]\nima = \"x\"\n")).starts_with("logs.ima: x: an abs")
        );
        let jobs = |more: &str| {
            let text = format!("{GOOD}[jobs]\nusers = [\"0\"]\n{more}");
            Config::parse(&text).expect("a configuration").jobs.expect("jobs").detached_callers
        };
        assert!(!jobs("") && jobs("detached_callers = true\n"));
        for seconds in [4, 76] {
            let text = format!("{GOOD}[jobs]\nusers = [\"0\"]\nstart_within_s = {seconds}\n");
            assert!(problem(&text).starts_with("jobs.start_within_s: "), "{}", problem(&text));
        }
        assert!(
            problem(&format!("{GOOD}[tpm]\nendorsement_auth_file = \"/no/such\"\n"))
                .starts_with("tpm.endorsement_auth_file: /no/such")
        );
    }
}
