//! Configuration: which issuers are believed, and where their keys come from.

#[cfg(test)]
mod tests;

use std::{fmt, path::PathBuf, time::Duration};

use jose::Algorithm;
use proto::job::CiSystem;
use serde::Deserialize;

use crate::url::HttpsUrl;

/// Issuers replace keys weeks ahead of using them, and withdraw one within hours of losing it.
pub const DEFAULT_REFRESH: Duration = Duration::from_secs(3600);
/// Shortest time between two loads: more often is a burden on the issuer.
pub const MIN_REFRESH: Duration = Duration::from_secs(60);
/// Longest time between two loads.
pub const MAX_REFRESH: Duration = Duration::from_secs(24 * 3600);
/// How long keys are believed that could not be loaded again: an issuer's outage over night.
pub const DEFAULT_MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// Longest of that: a month.
pub const LONGEST_MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// GitHub's and Buildkite's tokens live for five minutes; GitLab's for as long as the job may take,
/// one hour unless set.
pub const DEFAULT_MAX_LIFETIME: Duration = Duration::from_secs(3600);
/// Longest life that can be accepted.
pub const LONGEST_MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// What GitHub, GitLab and Buildkite sign with.
pub const DEFAULT_ALGORITHMS: [Algorithm; 1] = [Algorithm::Rs256];
/// Longest issuer or audience, bytes.
pub const MAX_NAME_BYTES: usize = 512;

/// `[[platform]]` as it is written.
///
/// ```toml
/// [[platform]]
/// system = "github"
/// audience = "https://assay.example.org"
///
/// [[platform]]
/// system = "gitlab"
/// issuer = "https://gitlab.example.org"
/// audience = "https://assay.example.org"
/// jwks_url = "https://gitlab.example.org/oauth/discovery/keys"
/// ca_file = "/etc/assay/site-ca.pem"
/// refresh = "1h"
/// max_age = "24h"
/// max_lifetime = "2h"
/// algorithms = ["RS256"]
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlatformConfig {
    /// `github`, `gitlab` or `buildkite`: what the claims are called.
    pub system: CiSystem,
    /// `iss` of the tokens, byte for byte; that of the public service if absent.
    #[serde(default)]
    pub issuer: Option<String>,
    /// `aud` of the tokens: that and no other.
    pub audience: String,
    /// Key set as a file, read again when it changes.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// Key set over HTTPS; that of the public service if the issuer is.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// Certificates, PEM, that the server of `jwks_url` must chain to, in place of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// How often keys are loaded.
    #[serde(default)]
    pub refresh: Option<String>,
    /// How long loaded keys are believed.
    #[serde(default)]
    pub max_age: Option<String>,
    /// Longest life of a token.
    #[serde(default)]
    pub max_lifetime: Option<String>,
    /// Algorithms that tokens may be signed with.
    #[serde(default)]
    pub algorithms: Option<Vec<String>>,
}

impl PlatformConfig {
    /// A platform of which only what has no default is said.
    #[must_use]
    pub fn new(system: CiSystem, audience: impl Into<String>) -> Self {
        Self {
            system,
            issuer: None,
            audience: audience.into(),
            jwks_file: None,
            jwks_url: None,
            ca_file: None,
            refresh: None,
            max_age: None,
            max_lifetime: None,
            algorithms: None,
        }
    }
}

/// What is wrong with one `[[platform]]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("platform.{key}: {what}")]
pub struct ConfigProblem {
    /// The key.
    pub key: &'static str,
    /// What is wrong, and what to do.
    pub what: String,
}

fn problem<T>(key: &'static str, what: impl Into<String>) -> Result<T, ConfigProblem> {
    Err(ConfigProblem { key, what: what.into() })
}

/// Where an issuer's keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file.
    File(PathBuf),
    /// A document over HTTPS.
    Https {
        /// Its URL.
        url: HttpsUrl,
        /// Roots to trust in place of the system's, PEM.
        ca_file: Option<PathBuf>,
    },
}

/// One issuer that is believed, checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Issuer {
    system: CiSystem,
    issuer: String,
    audience: String,
    keys: KeySource,
    refresh: Duration,
    max_age: Duration,
    max_lifetime_s: u32,
    algorithms: Vec<Algorithm>,
}

impl Issuer {
    /// The CI system.
    #[must_use]
    pub const fn system(&self) -> CiSystem {
        self.system
    }

    /// `iss` of its tokens.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// `aud` of its tokens.
    #[must_use]
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// Where its keys come from.
    #[must_use]
    pub const fn key_source(&self) -> &KeySource {
        &self.keys
    }

    /// How often its keys are loaded.
    #[must_use]
    pub const fn refresh(&self) -> Duration {
        self.refresh
    }

    /// How long loaded keys are believed.
    #[must_use]
    pub const fn max_age(&self) -> Duration {
        self.max_age
    }

    /// Longest life of its tokens, seconds.
    #[must_use]
    pub const fn max_lifetime_s(&self) -> u32 {
        self.max_lifetime_s
    }

    /// Algorithms that its tokens may be signed with.
    #[must_use]
    pub fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("issuer", &self.issuer)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// Issuer and key set of the public service.
///
/// # Source
/// GitHub "OpenID Connect reference"; GitLab "ID tokens"; Buildkite "buildkite-agent oidc".
const fn public_service(system: CiSystem) -> Option<(&'static str, &'static str)> {
    match system {
        CiSystem::GitHub => Some((
            "https://token.actions.githubusercontent.com",
            "https://token.actions.githubusercontent.com/.well-known/jwks",
        )),
        CiSystem::GitLab => Some(("https://gitlab.com", "https://gitlab.com/oauth/discovery/keys")),
        CiSystem::Buildkite => {
            Some(("https://agent.buildkite.com", "https://agent.buildkite.com/.well-known/jwks"))
        }
        CiSystem::Generic | CiSystem::Jenkins | CiSystem::Tekton => None,
    }
}

impl TryFrom<PlatformConfig> for Issuer {
    type Error = ConfigProblem;

    fn try_from(config: PlatformConfig) -> Result<Self, Self::Error> {
        let Some((public_issuer, public_keys)) = public_service(config.system) else {
            return problem("system", "must be github, gitlab or buildkite: others sign no tokens");
        };
        let issuer = config.issuer.unwrap_or_else(|| public_issuer.to_owned());
        if !is_name(&issuer) || !issuer.starts_with("https://") {
            return problem("issuer", "must begin with https://, as `iss` of the tokens does");
        }
        if !is_name(&config.audience) {
            return problem("audience", "must be the text that jobs ask their token for");
        }
        let url = match (config.jwks_url, &config.jwks_file) {
            (Some(_), Some(_)) => {
                return problem(
                    "jwks_url",
                    "must not stand beside jwks_file: keys have one source",
                );
            }
            (None, None) if issuer == public_issuer => Some(public_keys.to_owned()),
            (None, None) => {
                return problem("jwks_url", "is needed for this issuer, or jwks_file");
            }
            (url, _) => url,
        };
        let keys = match (url, config.jwks_file, config.ca_file) {
            (Some(url), _, ca_file) => match url.parse() {
                Ok(url) => KeySource::Https { url, ca_file },
                Err(error) => return problem("jwks_url", format!("{error}")),
            },
            (None, Some(_), Some(_)) => {
                return problem(
                    "ca_file",
                    "says whom jwks_url trusts and means nothing for a file",
                );
            }
            (None, Some(file), None) => KeySource::File(file),
            // Not reached: without a file there is a URL.
            (None, None, _) => return problem("jwks_url", "is needed, or jwks_file"),
        };
        let refresh =
            duration("refresh", config.refresh, DEFAULT_REFRESH, MIN_REFRESH, MAX_REFRESH)?;
        let max_age =
            duration("max_age", config.max_age, DEFAULT_MAX_AGE, refresh, LONGEST_MAX_AGE)?;
        let max_lifetime = duration(
            "max_lifetime",
            config.max_lifetime,
            DEFAULT_MAX_LIFETIME,
            Duration::from_secs(60),
            LONGEST_MAX_LIFETIME,
        )?;
        Ok(Self {
            system: config.system,
            issuer,
            audience: config.audience,
            keys,
            refresh,
            max_age,
            max_lifetime_s: u32::try_from(max_lifetime.as_secs()).unwrap_or(u32::MAX),
            algorithms: algorithms(config.algorithms)?,
        })
    }
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn algorithms(names: Option<Vec<String>>) -> Result<Vec<Algorithm>, ConfigProblem> {
    let Some(names) = names else { return Ok(DEFAULT_ALGORITHMS.to_vec()) };
    if names.is_empty() {
        return problem("algorithms", "must name one at least");
    }
    let mut out: Vec<Algorithm> = Vec::new();
    for name in names {
        match name.parse() {
            Ok(algorithm) if !out.contains(&algorithm) => out.push(algorithm),
            Ok(_) => return problem("algorithms", format!("{name} stands twice")),
            Err(error) => return problem("algorithms", format!("{name:?}: {error}")),
        }
    }
    Ok(out)
}

fn duration(
    key: &'static str,
    text: Option<String>,
    default: Duration,
    min: Duration,
    max: Duration,
) -> Result<Duration, ConfigProblem> {
    let Some(text) = text else { return Ok(default) };
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 24 * 3600,
        _ => 0,
    };
    let digits = text.get(..text.len().saturating_sub(1)).unwrap_or_default();
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = digits.parse::<u64>().ok().filter(|_| is_number && unit != 0);
    match seconds.and_then(|count| count.checked_mul(unit)).map(Duration::from_secs) {
        Some(found) if (min..=max).contains(&found) => Ok(found),
        Some(_) => problem(key, format!("must be from {} s to {} s", min.as_secs(), max.as_secs())),
        None => {
            problem(key, "must be a whole number with a unit s, m, h or d, as \"15m\" or \"24h\"")
        }
    }
}
