//! The verifier's configuration: one TOML file, read once into types.
//!
//! The whole file is read before anything is said about it, so that one run of `verifier
//! check-config` names every problem, each with its line, its key and what to do. Keys that are not
//! known are problems. No key turns a check off: what a site accepts is policy.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use proto::{
    digest::{HashAlg, PcrIndex, PcrSelection, PcrSet},
    limits,
};
use sha2::{Digest, Sha256};

use crate::ca::{
    MAX_NODE_LIFETIME, MIN_NODE_LIFETIME, ServerName, TrustDomain,
    files::{self, FileError},
};

mod check;
mod reader;
mod results;

pub use check::check_config;
use reader::{Document, Table};
pub use results::{Results, TimestampAuthority};

/// Where `verifier init` puts the configuration.
pub const DEFAULT_CONFIG_PATH: &str = "/etc/assay/verifier.toml";
/// State of the service, after the Filesystem Hierarchy Standard.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/assay";
/// All interfaces; 8443 needs no privilege.
pub const DEFAULT_LISTEN: &str = "0.0.0.0:8443";
/// Metrics and health tell who is denied and why: loopback unless the site says otherwise.
pub const DEFAULT_METRICS_LISTEN: &str = "127.0.0.1:9464";
/// Issuers in the field use one hour; the worker renews at half of it.
pub const DEFAULT_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(3600);
/// Firmware and boot (0–7), boot loader and its commands (8, 9), unified kernel image, its command
/// line and extensions (11–13), tools (14). PCR 10 is IMA's and changes with every file; 15 is the
/// site's own.
pub const DEFAULT_PCRS: [u8; 14] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14];
/// Cannot be reset before a reboot, unlike 16 and 23, and firmware hardly uses it.
pub const DEFAULT_TOOL_PCR: u8 = 14;
/// One node in ten: a bad set is noticed before it empties a pool.
pub const DEFAULT_MAX_DENIED_PERCENT: u64 = 10;
/// A quarter of a year: an incident found at the end of a quarter can still be traced back.
pub const DEFAULT_EVIDENCE_AGE: Duration = Duration::from_secs(90 * 24 * 3600);
/// Evidence of a renewal takes about 4 kB beyond logs that are stored once: 4 GB at this count.
pub const DEFAULT_EVIDENCE_COUNT: u64 = 1_000_000;
/// A job redeems its permit as it starts; two minutes let a slow one check out its sources first.
pub const DEFAULT_REDEEM_WITHIN: Duration = Duration::from_secs(120);
/// The longest that hosted CI systems let a job run.
pub const DEFAULT_JOB_DURATION: Duration = Duration::from_secs(6 * 3600);
/// A revocation reaches a running job within this.
pub const DEFAULT_JOB_CHECK: Duration = Duration::from_secs(15);
/// A year and a month: what a yearly audit or a release of last year is checked with is still there. Consumers have results
/// beside the artifact; these copies are for those that lost theirs.
pub const DEFAULT_RESULTS_AGE: Duration = Duration::from_secs(400 * 24 * 3600);
/// Half a million jobs, two each. A file has about 4 kB, more with many tools: up to 8 GB of blocks at this count.
pub const DEFAULT_RESULTS_COUNT: u64 = 1_000_000;
/// Shortest retention of results: the longest job lasts seven days, and whoever looks at it next day still finds them.
pub const MIN_RESULTS_AGE: Duration = Duration::from_secs(8 * 24 * 3600);
/// Shortest retention of evidence: replaying yesterday's denial must be possible.
pub const MIN_EVIDENCE_AGE: Duration = Duration::from_secs(24 * 3600);

/// How strictly EK certificates are held to the TCG profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EkProfile {
    /// The TCG EK Credential Profile to the letter.
    Strict,
    /// Also the deviations that manufacturers really shipped, each by name.
    Manufacturers,
}

/// What must be known of an EK certificate's revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// A current CRL must cover every certificate of the chain.
    Required,
    /// A revoked certificate is refused; where no current CRL covers one, that is recorded.
    IfKnown,
}

/// Service limits: at most those of [`proto::limits`], lower where the site wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once.
    pub connections: usize,
    /// Attestations under way at once.
    pub streams: usize,
    /// Attestations under way at once from one address.
    pub streams_per_peer: usize,
    /// Log bytes held for all of them; for those of one peer no more than is left for others.
    pub pending_log_bytes: usize,
    /// Life of a challenge.
    pub challenge_lifetime: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: limits::MAX_CONNECTIONS,
            streams: limits::MAX_STREAMS,
            streams_per_peer: limits::MAX_STREAMS_PER_PEER,
            pending_log_bytes: limits::MAX_PENDING_LOG_BYTES,
            challenge_lifetime: limits::CHALLENGE_LIFETIME,
        }
    }
}

/// How long recorded evidence and results are kept. Decisions themselves are never removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Evidence older than this may go.
    pub evidence_age: Duration,
    /// Beyond this many the oldest may go.
    pub evidence_count: u64,
    /// Attestation results older than this may go.
    pub results_age: Duration,
    /// Beyond this many the oldest may go.
    pub results_count: u64,
}

/// Permits of jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jobs {
    /// A permit that is not redeemed by then is worth nothing.
    pub redeem_within: Duration,
    /// No permit lasts longer, whatever its node proves.
    pub max_duration: Duration,
    /// How often a worker asks whether its jobs may go on.
    pub check_every: Duration,
    /// Issuers whose tokens are believed: a file with `[[platform]]` tables. `None`: no token is.
    pub platforms: Option<PathBuf>,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            redeem_within: DEFAULT_REDEEM_WITHIN,
            max_duration: DEFAULT_JOB_DURATION,
            check_every: DEFAULT_JOB_CHECK,
            platforms: None,
        }
    }
}

/// Random identity of one verifier fleet, made by `verifier init`; replicas share it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FleetId([u8; 32]);

impl FleetId {
    /// A fleet identity from its bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Debug for FleetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

/// The verifier's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The trust domain of every identity issued.
    pub trust_domain: TrustDomain,
    /// The fleet's random identity.
    pub fleet_id: FleetId,
    /// Directory of the CA, the database and the evidence.
    pub state_dir: PathBuf,
    /// Address of attestation and administration.
    pub listen: SocketAddr,
    /// Names and addresses under which clients reach it.
    pub names: Vec<ServerName>,
    /// Address of metrics and health; plain HTTP.
    pub metrics_listen: SocketAddr,
    /// Address of what relying parties fetch over HTTPS; `None`: not served.
    pub web_listen: Option<SocketAddr>,
    /// Life of node certificates.
    pub certificate_lifetime: Duration,
    /// PCRs that every quote must cover.
    pub pcrs: PcrSelection,
    /// PCR that tool events extend.
    pub tool_pcr: PcrIndex,
    /// EK certificate profile.
    pub ek_profile: EkProfile,
    /// Revocation state demanded of EK chains.
    pub revocation: Revocation,
    /// Whether an unknown TPM that proved itself is kept as pending; it is denied either way.
    pub allow_pending: bool,
    /// Share of the admitted nodes, percent, that a golden set or policy may turn away without somebody saying that it is
    /// meant.
    pub max_denied_percent: u8,
    /// Permits of jobs.
    pub jobs: Jobs,
    /// Attestation results.
    pub results: Results,
    /// Retention of evidence and results.
    pub retention: Retention,
    /// Service limits.
    pub limits: Limits,
}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem found.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = files::read_text(path).map_err(|error| {
            let text = match &error {
                FileError::Io { source, .. } => format!("{error}: {source}"),
                _ => error.to_string(),
            };
            ConfigError {
                path: path.to_owned(),
                problems: vec![Problem {
                    line: 0,
                    key: String::new(),
                    what: format!("{text}; run `verifier init` or pass --config"),
                }],
            }
        })?;
        Self::parse(&text).map_err(|problems| ConfigError { path: path.to_owned(), problems })
    }

    /// Checks the text of a configuration.
    ///
    /// # Errors
    /// Every problem, by line.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let mut document = Document::parse(text)?;
        let config = read(&mut document);
        let problems = document.finish();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems),
        }
    }

    /// Identity of this verifier in what TPMs sign: the same for every replica of a fleet, another
    /// for every other fleet, and bound to the trust domain.
    ///
    /// # Format
    /// SHA-256 over `assay/v1/verifier-id`, the trust domain and the fleet identity, each after its
    /// length as 16 bits, big-endian.
    #[must_use]
    pub fn verifier_id(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let domain = self.trust_domain.as_str().as_bytes();
        for field in [b"assay/v1/verifier-id".as_slice(), domain, &self.fleet_id.0] {
            // A trust domain has at most 255 bytes.
            hash.update(u16::try_from(field.len()).unwrap_or(u16::MAX).to_be_bytes());
            hash.update(field);
        }
        hash.finalize().into()
    }
}

/// One problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// Key, with its table; empty for the file as a whole.
    pub key: String,
    /// What is wrong and what to do.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

/// A configuration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// Every problem, by line.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be used:", self.path.display())?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

fn read(document: &mut Document<'_>) -> Option<Config> {
    let mut root = document.root();
    let trust_domain = root.required("trust_domain", "the name of your trust domain", |text| {
        text.parse::<TrustDomain>().map_err(|error| error.to_string())
    });
    let fleet_id = root.required("fleet_id", "what `verifier init` wrote", |text| {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| "must be 64 hexadecimal digits; `verifier init` makes one".to_owned())?;
        if bytes == [0; 32] {
            return Err("must be random; `verifier init` makes one".to_owned());
        }
        Ok(FleetId(bytes))
    });
    let state_dir = root.text("state_dir", DEFAULT_STATE_DIR, |text| {
        let path = PathBuf::from(text);
        if path.is_absolute() { Ok(path) } else { Err("must be an absolute path".to_owned()) }
    });
    let service = service(root.table("service"));
    let certificate_lifetime = certificate(root.table("certificate"));
    let (pcrs, tool_pcr) = pcr(root.table("pcr"));
    let mut ek = root.table("ek");
    let ek_profile = ek.text("profile", "manufacturers", |text| match text {
        "strict" => Ok(EkProfile::Strict),
        "manufacturers" => Ok(EkProfile::Manufacturers),
        _ => Err("must be \"strict\" or \"manufacturers\"".to_owned()),
    });
    let revocation = ek.text("revocation", "if-known", |text| match text {
        "required" => Ok(Revocation::Required),
        "if-known" => Ok(Revocation::IfKnown),
        _ => Err("must be \"required\" or \"if-known\"".to_owned()),
    });
    let mut inventory = root.table("inventory");
    let allow_pending = inventory.boolean("allow_pending", true);
    let mut golden = root.table("golden");
    let max_denied_percent =
        golden.integer("max_denied_percent", DEFAULT_MAX_DENIED_PERCENT, 0, 100);
    let max_denied_percent = max_denied_percent.and_then(|percent| u8::try_from(percent).ok());
    let jobs = jobs(root.table("jobs"));
    let results = results::read(root.table("results"));
    let retention = retention(root.table("retention"));
    let limits = service_limits(root.table("limits"));
    let Service { listen, names, metrics_listen, web_listen } = service;
    Some(Config {
        trust_domain: trust_domain?,
        fleet_id: fleet_id?,
        state_dir: state_dir?,
        listen: listen?,
        names: names?,
        metrics_listen: metrics_listen?,
        web_listen: web_listen?,
        certificate_lifetime: certificate_lifetime?,
        pcrs: pcrs?,
        tool_pcr: tool_pcr?,
        ek_profile: ek_profile?,
        revocation: revocation?,
        allow_pending: allow_pending?,
        max_denied_percent: max_denied_percent?,
        jobs: jobs?,
        results: results?,
        retention: retention?,
        limits: limits?,
    })
}

/// What `[service]` says; `None` for what cannot be used.
struct Service {
    listen: Option<SocketAddr>,
    names: Option<Vec<ServerName>>,
    metrics_listen: Option<SocketAddr>,
    web_listen: Option<Option<SocketAddr>>,
}

fn service(mut table: Table<'_, '_>) -> Service {
    let address = |text: &str| {
        text.parse::<SocketAddr>().map_err(|_| {
            "must be an address and a port, as \"0.0.0.0:8443\" or \"[::]:8443\"".into()
        })
    };
    let listen = table.text("listen", DEFAULT_LISTEN, address);
    let metrics = table.text("metrics_listen", DEFAULT_METRICS_LISTEN, address);
    let names =
        table.texts("names", |text| text.parse::<ServerName>().map_err(|error| error.to_string()));
    let names = match names {
        Some(names) if names.is_empty() => {
            table.problem(
                "names",
                "must list the DNS names or addresses under which workers reach the verifier",
            );
            None
        }
        other => other,
    };
    if let (Some(listen), Some(metrics)) = (listen, metrics)
        && listen == metrics
        && listen.port() != 0
    {
        table.problem("metrics_listen", "must differ from listen: metrics are not behind TLS");
    }
    let web_listen = table.text("web_listen", "none", |text| match text {
        "none" => Ok(None),
        other => address(other).map(Some),
    });
    Service { listen, names, metrics_listen: metrics, web_listen }
}

fn certificate(mut table: Table<'_, '_>) -> Option<Duration> {
    table.duration("lifetime", DEFAULT_CERTIFICATE_LIFETIME, MIN_NODE_LIFETIME, MAX_NODE_LIFETIME)
}

fn pcr(mut table: Table<'_, '_>) -> (Option<PcrSelection>, Option<PcrIndex>) {
    let tool = table.integer("tool_pcr", u64::from(DEFAULT_TOOL_PCR), 0, 23);
    let tool = match tool.and_then(|tool| u8::try_from(tool).ok()).and_then(PcrIndex::new) {
        Some(tool) if !(8..=15).contains(&tool.get()) || tool.get() == 10 => {
            table.problem(
                "tool_pcr",
                "must be 8, 9 or 11 to 15: 0 to 7 are the firmware's, 10 is IMA's, and 16 to 23 can \
                 be reset without a reboot",
            );
            None
        }
        other => other,
    };
    let mut banks = Vec::new();
    let mut named = false;
    for alg in HashAlg::ALL {
        if let Some(indexes) = table.integers(alg.name(), 0, 23) {
            named = true;
            let set: PcrSet = indexes
                .iter()
                .filter_map(|index| u8::try_from(*index).ok().and_then(PcrIndex::new))
                .collect();
            if set.is_empty() {
                table.problem(alg.name(), "must name at least one PCR; leave the bank out instead");
            }
            banks.push((alg, set));
        }
    }
    if table.has("sha1") {
        table.known("sha1");
        table.problem("sha1", "SHA-1 banks are never appraised; name sha256 or sha384");
    }
    if !named {
        let set = DEFAULT_PCRS.iter().filter_map(|index| PcrIndex::new(*index)).collect();
        banks.push((HashAlg::Sha256, set));
    }
    if let Some(tool) = tool {
        for (alg, set) in &banks {
            if !set.is_empty() && !set.contains(tool) {
                let key = if named { alg.name() } else { "tool_pcr" };
                table.problem(key, format!("must include the tool PCR, {tool}"));
            }
        }
    }
    (Some(PcrSelection::new(banks)), tool)
}

fn jobs(mut table: Table<'_, '_>) -> Option<Jobs> {
    let all = Jobs::default();
    let (second, hour, day) = (1, 3600, 24 * 3600);
    let mut duration = |key, default, min, max| {
        table.duration(key, default, Duration::from_secs(min), Duration::from_secs(max))
    };
    let redeem_within = duration("redeem_within", all.redeem_within, 10 * second, hour);
    let max_duration = duration("max_duration", all.max_duration, 60 * second, 7 * day);
    let check_every = duration("check_every", all.check_every, second, hour);
    let platforms = table.text("platforms", "", |text| match Path::new(text) {
        path if text.is_empty() || path.is_absolute() => Ok(path.to_owned()),
        _ => Err("must be an absolute path".to_owned()),
    });
    Some(Jobs {
        redeem_within: redeem_within?,
        max_duration: max_duration?,
        check_every: check_every?,
        platforms: platforms.filter(|path| !path.as_os_str().is_empty()),
    })
}

fn retention(mut table: Table<'_, '_>) -> Option<Retention> {
    const TEN_YEARS: Duration = Duration::from_secs(3653 * 24 * 3600);
    let age = table.duration("evidence_age", DEFAULT_EVIDENCE_AGE, MIN_EVIDENCE_AGE, TEN_YEARS);
    let count = table.integer("evidence_count", DEFAULT_EVIDENCE_COUNT, 1000, 1_000_000_000);
    let results_age =
        table.duration("results_age", DEFAULT_RESULTS_AGE, MIN_RESULTS_AGE, TEN_YEARS);
    let results_count = table.integer("results_count", DEFAULT_RESULTS_COUNT, 1000, 1_000_000_000);
    Some(Retention {
        evidence_age: age?,
        evidence_count: count?,
        results_age: results_age?,
        results_count: results_count?,
    })
}

fn service_limits(mut table: Table<'_, '_>) -> Option<Limits> {
    let all = Limits::default();
    let mut count = |key: &'static str, max: usize, min: u64| {
        let max = u64::try_from(max).unwrap_or(u64::MAX);
        table.integer(key, max, min, max).and_then(|count| usize::try_from(count).ok())
    };
    let connections = count("connections", all.connections, 1);
    let streams = count("streams", all.streams, 1);
    let streams_per_peer = count("streams_per_peer", all.streams_per_peer, 1);
    // Below one firmware log nobody could attest, and one peer has half.
    let least = u64::try_from(2 * limits::MAX_UEFI_LOG_BYTES).unwrap_or(u64::MAX);
    let pending_log_bytes = count("pending_log_bytes", all.pending_log_bytes, least);
    let challenge_lifetime = table.duration(
        "challenge_lifetime",
        all.challenge_lifetime,
        // Hardware TPMs need up to ten seconds.
        Duration::from_secs(15),
        all.challenge_lifetime,
    );
    Some(Limits {
        connections: connections?,
        streams: streams?,
        streams_per_peer: streams_per_peer?,
        pending_log_bytes: pending_log_bytes?,
        challenge_lifetime: challenge_lifetime?,
    })
}

#[cfg(test)]
mod tests;
