//! `verifier init`: everything a verifier needs before it can serve, but for the database.
//!
//! Run again it changes nothing and says so. It never overwrites; a run that was cut off is taken
//! up where it stopped. The configuration is written last: where it exists, the rest is complete.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::{
    ca::{
        CaDir, CaError, Segment, ServerName, Step, TrustDomain,
        files::{self, FileError, MODE_PUBLIC, MODE_SECRET, MODE_SECRET_DIR},
        random_32,
    },
    config::{Config, ConfigError, DEFAULT_LISTEN, FleetId, Problem},
    signatures::{
        Algorithm, KeyError, KeyName, KeyNameError, KeyRing, PublicKey, SecurityPrivateKey,
        ring_document,
    },
};

/// Name of the ring of security keys.
pub const RING_NAME: &str = "security";
/// File of the first ring in the state directory; later ones are in the database.
pub const RING_FILE: &str = "security-keys.toml";

/// The commented example doubles as the template of what is written.
const TEMPLATE: &str = include_str!("../examples/verifier.toml");

/// What to create.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// The configuration file.
    pub config_path: PathBuf,
    /// Directory of the CA, the database and the evidence; absolute.
    pub state_dir: PathBuf,
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// Names under which workers reach the verifier; at least one.
    pub names: Vec<ServerName>,
    /// Address to listen on, [`DEFAULT_LISTEN`] if none.
    pub listen: Option<SocketAddr>,
    /// Name of the first administrator.
    pub admin: Segment,
    /// Security keys whose signatures put golden sets and policies in force; none: one is made.
    pub security_keys: Vec<(KeyName, PublicKey)>,
    /// How many of them must sign; none: more than half.
    pub threshold: Option<usize>,
    /// Now, seconds since 1970.
    pub now_unix_s: u64,
}

/// Why nothing, or not all, was created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// The CA or a file.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The existing configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The existing configuration says something else than the command line.
    #[error("{} exists and says {key} = {found:?}, not {wanted:?}: init never changes a configuration; \
             edit it, or leave the option out", path.display())]
    Differs {
        /// The configuration.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What it says.
        found: String,
        /// What the command line says.
        wanted: String,
    },
    /// A security key cannot be made or read.
    #[error("the security key")]
    Key(#[from] KeyError),
    /// An option is not usable.
    #[error("{0}")]
    Option(String),
}

impl From<FileError> for InitError {
    fn from(error: FileError) -> Self {
        Self::Ca(error.into())
    }
}

/// What init did.
#[derive(Clone, Debug)]
#[must_use]
pub struct InitReport {
    /// Every file and directory, in order, created or found.
    pub steps: Vec<Step>,
    /// The configuration in force.
    pub config: Config,
    /// `sha256:…` of the root's public key: what workers may pin.
    pub root_pin: String,
    /// First administrator's certificate.
    pub admin_certificate: PathBuf,
    /// First administrator's private key.
    pub admin_key: PathBuf,
    /// The first ring of security keys.
    pub ring: PathBuf,
    /// The security key that was made, if it is here.
    pub security_key: Option<PathBuf>,
    /// What to do next, in words and in order.
    pub next: Vec<String>,
}

impl InitReport {
    /// Whether anything was created.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.steps.iter().any(|step| step.created)
    }
}

impl fmt::Display for InitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(
                f,
                "{} {:04o} {}  ({})",
                if step.created { "created" } else { "kept   " },
                step.mode,
                step.path.display(),
                step.what
            )?;
        }
        if !self.changed() {
            writeln!(f, "\nEverything was there already; nothing was changed.")?;
        }
        writeln!(f, "\nRoot key digest, for workers that pin it:\n  {}\n\nNext:", self.root_pin)?;
        for (index, next) in self.next.iter().enumerate() {
            writeln!(f, "  {}. {next}", index + 1)?;
        }
        Ok(())
    }
}

/// Creates the CA, the server certificate, the first administrator and the configuration.
///
/// # Errors
/// [`InitError`]; what was created before stays, and a further run goes on from there.
pub fn init(options: &InitOptions) -> Result<InitReport, InitError> {
    if options.names.is_empty() {
        return Err(InitError::Option(
            "give at least one name or address under which workers reach the verifier".to_owned(),
        ));
    }
    if !options.state_dir.is_absolute() {
        return Err(InitError::Option(format!(
            "the state directory {} must be an absolute path",
            options.state_dir.display()
        )));
    }
    if options.config_path.exists() {
        agree(&Config::load(&options.config_path)?, options)?;
    }
    let now = options.now_unix_s;
    let ca = CaDir::new(&options.state_dir, options.trust_domain.clone());
    let mut steps = ca.create(now)?;
    server(&ca, options, &mut steps)?;
    let admin_dir = options.state_dir.join("admin");
    let created = files::make_dir(&admin_dir, MODE_SECRET_DIR)?;
    let what = "administrators' credentials".to_owned();
    steps.push(Step { path: admin_dir.clone(), mode: MODE_SECRET_DIR, what, created });
    steps.extend(ca.write_admin(&admin_dir, &options.admin, now)?);
    let (ring, security_key) = ring(options, &admin_dir, &mut steps)?;
    let fleet_id = fleet_id(options, &mut steps)?;
    let config = configuration(options, fleet_id, &mut steps)?;
    let root_pin = format!("sha256:{}", hex::encode(ca.root().map_err(InitError::Ca)?.pin()));
    let admin_certificate = admin_dir.join(format!("{}.pem", options.admin));
    let admin_key = admin_dir.join(format!("{}.key", options.admin));
    let next = next(&ca, options, &config, security_key.as_deref());
    Ok(InitReport {
        steps,
        config,
        root_pin,
        admin_certificate,
        admin_key,
        ring,
        security_key,
        next,
    })
}

/// A configuration that exists must agree with what would have been written.
fn agree(config: &Config, options: &InitOptions) -> Result<(), InitError> {
    let differs = |key, found: String, wanted: String| {
        Err(InitError::Differs { path: options.config_path.clone(), key, found, wanted })
    };
    if config.trust_domain != options.trust_domain {
        let wanted = options.trust_domain.to_string();
        return differs("trust_domain", config.trust_domain.to_string(), wanted);
    }
    if config.state_dir != options.state_dir {
        let wanted = options.state_dir.display().to_string();
        return differs("state_dir", config.state_dir.display().to_string(), wanted);
    }
    Ok(())
}

fn server(ca: &CaDir, options: &InitOptions, steps: &mut Vec<Step>) -> Result<(), InitError> {
    let path = ca.server_path();
    let created = if path.exists() {
        // Readable, private, key and certificate there.
        ca.server()?;
        false
    } else {
        if let Some(dir) = path.parent() {
            files::make_dir(dir, MODE_SECRET_DIR)?;
        }
        let (_, pem) = ca.issue_server(options.names.clone(), options.now_unix_s)?;
        files::create(&path, pem.as_bytes(), MODE_SECRET)?
    };
    let what = "private key and certificate of the server".to_owned();
    steps.push(Step { path, mode: MODE_SECRET, what, created });
    Ok(())
}

/// The first ring of security keys, with a key of its own where none is given.
fn ring(
    options: &InitOptions,
    admin_dir: &Path,
    steps: &mut Vec<Step>,
) -> Result<(PathBuf, Option<PathBuf>), InitError> {
    let path = options.state_dir.join(RING_FILE);
    let mut keys = options.security_keys.clone();
    let mut made = None;
    if keys.is_empty() {
        let file = admin_dir.join("security.key");
        // A ring that exists names its keys: a key that was moved away is not made anew.
        if file.exists() || !path.exists() {
            let created = SecurityPrivateKey::create(&file, Algorithm::Ed25519)?.is_some();
            let name = "security"
                .parse()
                .map_err(|error: KeyNameError| InitError::Option(error.to_string()))?;
            keys.push((name, SecurityPrivateKey::read(&file)?.public().clone()));
            let what = "private key that signs golden sets and policies".to_owned();
            steps.push(Step { path: file.clone(), mode: MODE_SECRET, what, created });
            made = Some(file);
        }
    }
    let threshold = options.threshold.unwrap_or(keys.len() / 2 + 1);
    let created = if path.exists() {
        false
    } else {
        let text = ring_document(RING_NAME, 1, threshold, &keys);
        KeyRing::parse(&text).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            InitError::Option(format!("the security keys are no ring: {}", lines.join("; ")))
        })?;
        files::create(&path, text.as_bytes(), MODE_PUBLIC)?
    };
    let what = "first ring of security keys".to_owned();
    steps.push(Step { path: path.clone(), mode: MODE_PUBLIC, what, created });
    Ok((path, made))
}

/// The fleet identity has its own file too, so that a lost configuration can be written again.
fn fleet_id(options: &InitOptions, steps: &mut Vec<Step>) -> Result<FleetId, InitError> {
    let path = options.state_dir.join("fleet-id");
    let fresh = match options.config_path.exists() {
        true => Config::load(&options.config_path)?.fleet_id,
        false => FleetId::new(random_32().map_err(CaError::from)?),
    };
    let created = files::create(&path, format!("{}\n", fresh.to_hex()).as_bytes(), MODE_PUBLIC)?;
    let text = files::read_text(&path)?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(text.trim_end(), &mut bytes).map_err(|_| FileError::Content {
        path: path.clone(),
        what: "is not 64 hexadecimal digits".to_owned(),
    })?;
    let what = "identity of this fleet of verifiers".to_owned();
    steps.push(Step { path, mode: MODE_PUBLIC, what, created });
    Ok(FleetId::new(bytes))
}

fn configuration(
    options: &InitOptions,
    fleet_id: FleetId,
    steps: &mut Vec<Step>,
) -> Result<Config, InitError> {
    let path = &options.config_path;
    let text = render(options, fleet_id);
    // What is written must be accepted; else it is a bug and nothing is written.
    Config::parse(&text).map_err(|problems| ConfigError { path: path.clone(), problems })?;
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir).map_err(|source| FileError::Io {
            doing: "create",
            path: dir.to_owned(),
            source,
        })?;
    }
    let created = files::create(path, text.as_bytes(), MODE_PUBLIC)?;
    let config = Config::load(path)?;
    if config.fleet_id != fleet_id {
        return Err(ConfigError {
            path: path.clone(),
            problems: vec![Problem {
                line: 0,
                key: "fleet_id".to_owned(),
                what: format!(
                    "differs from {}: restore the one that workers know",
                    options.state_dir.join("fleet-id").display()
                ),
            }],
        }
        .into());
    }
    let what = "configuration".to_owned();
    steps.push(Step { path: path.clone(), mode: MODE_PUBLIC, what, created });
    Ok(config)
}

/// The commented template with this site's values.
fn render(options: &InitOptions, fleet_id: FleetId) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let names: Vec<String> = options.names.iter().map(|name| quoted(&name.to_string())).collect();
    let listen =
        options.listen.map_or_else(|| DEFAULT_LISTEN.to_owned(), |listen| listen.to_string());
    let values = [
        ("trust_domain", quoted(options.trust_domain.as_str())),
        ("fleet_id", quoted(&fleet_id.to_hex())),
        ("state_dir", quoted(&options.state_dir.display().to_string())),
        ("listen", quoted(&listen)),
        ("names", format!("[{}]", names.join(", "))),
    ];
    let mut out = String::with_capacity(TEMPLATE.len());
    for line in TEMPLATE.lines() {
        let key = line.split(" = ").next().unwrap_or_default();
        match values.iter().find(|(name, _)| *name == key) {
            Some((name, value)) => out.push_str(&format!("{name} = {value}\n")),
            None => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

fn next(
    ca: &CaDir,
    options: &InitOptions,
    config: &Config,
    security_key: Option<&Path>,
) -> Vec<String> {
    let mut next = Vec::new();
    if let Some(key) = security_key {
        next.push(format!(
            "move {} to whoever approves golden sets; it need not be on this machine",
            key.display()
        ));
    }
    if ca.root_key_path().exists() {
        next.push(format!(
            "move {} to where nobody reaches it over a network; only `verifier ca rotate` needs it",
            ca.root_key_path().display()
        ));
    }
    next.push(format!(
        "start the service: verifier --config {} serve",
        options.config_path.display()
    ));
    next.push(format!(
        "import the manufacturers' roots: verifier --config {} roots import DIR",
        options.config_path.display()
    ));
    let name = config.names.first().map(ToString::to_string).unwrap_or_default();
    next.push(format!(
        "give workers {} and the address {name}:{}",
        ca.bundle_path().display(),
        config.listen.port()
    ));
    next
}

#[cfg(test)]
mod tests;
