//! Which job of a CI system a build belongs to: claims with their sources, one encoding, one digest.
//!
//! The worker collects the claims from its environment ([`from_environment`]) and has their digest
//! quoted; the verifier reads the same bytes, and where the platform gave the job a signed token,
//! holds the claims against it.
//!
//! # Does not prove
//! Claims from the environment are what the worker says: whoever controls the job's environment
//! controls them. [`Source`] says of each which kind it is.

pub mod agent_file;
mod environment;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::environment::{Variable, from_environment, variables};
use crate::digest::{Digest, HashAlg};

/// Longest value of a claim, bytes: paths and URLs of repositories stay below.
pub const MAX_CLAIM_BYTES: usize = 512;
/// Largest encoding of claims, bytes: six values, each of characters that take two.
pub const MAX_JOB_CLAIMS_BYTES: usize = 8 * 1024;
/// The member of the encoding that names the CI system.
const SYSTEM: &str = "system";

/// A CI system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CiSystem {
    /// Buildkite.
    Buildkite,
    /// Any other, through variables of our own.
    Generic,
    /// GitHub Actions.
    GitHub,
    /// GitLab CI.
    GitLab,
    /// Jenkins.
    Jenkins,
    /// Tekton Pipelines.
    Tekton,
}

impl CiSystem {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Buildkite, Self::Generic, Self::GitHub, Self::GitLab, Self::Jenkins, Self::Tekton];

    /// The name, as in configuration and encoding.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Buildkite => "buildkite",
            Self::Generic => "generic",
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Jenkins => "jenkins",
            Self::Tekton => "tekton",
        }
    }
}

impl fmt::Display for CiSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CiSystem {
    type Err = JobError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|system| system.as_str() == text).ok_or(JobError::System)
    }
}

/// A claim about a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobClaim {
    /// Which attempt at the run or job this is: a decimal number.
    Attempt,
    /// The revision that is built: 40 or 64 lower-case hexadecimal digits.
    Commit,
    /// The job within the run.
    Job,
    /// The repository that is built.
    Repository,
    /// The run: a workflow run, pipeline or build.
    RunId,
    /// The definition that the run follows.
    Workflow,
}

impl JobClaim {
    /// All of them, in the order of the encoding.
    pub const ALL: [Self; 6] =
        [Self::Attempt, Self::Commit, Self::Job, Self::Repository, Self::RunId, Self::Workflow];

    /// The name, as in the encoding.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attempt => "attempt",
            Self::Commit => "commit",
            Self::Job => "job",
            Self::Repository => "repository",
            Self::RunId => "run_id",
            Self::Workflow => "workflow",
        }
    }

    /// Whether a job must have this claim to be told from others.
    #[must_use]
    pub const fn is_required(self) -> bool {
        matches!(self, Self::Job | Self::RunId)
    }

    /// Whether `value` may be this claim's.
    ///
    /// # Format
    /// 1 to [`MAX_CLAIM_BYTES`] bytes without control characters; a commit 40 or 64 lower-case
    /// hexadecimal digits; an attempt a decimal number of at most ten digits without leading zeros.
    #[must_use]
    pub fn allows(self, value: &str) -> bool {
        if !(1..=MAX_CLAIM_BYTES).contains(&value.len()) || value.chars().any(char::is_control) {
            return false;
        }
        match self {
            Self::Attempt => {
                value.len() <= 10
                    && value.bytes().all(|byte| byte.is_ascii_digit())
                    && (value == "0" || !value.starts_with('0'))
            }
            Self::Commit => {
                matches!(value.len(), 40 | 64)
                    && value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            }
            Self::Job | Self::Repository | Self::RunId | Self::Workflow => true,
        }
    }
}

impl fmt::Display for JobClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a claim comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The job's environment on the worker: as good as whoever may set its variables.
    Environment,
    /// A token that the platform signed for this job.
    PlatformToken,
}

impl Source {
    /// The name, as in the encoding.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::PlatformToken => "platform_token",
        }
    }
}

/// Claims cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// A claim that every job has is absent.
    #[error("the job has no `{claim}`{}", .variable.map(|name| format!(": set {name}")).unwrap_or_default())]
    Missing {
        /// Which claim.
        claim: JobClaim,
        /// The variable that would give it.
        variable: Option<&'static str>,
    },
    /// A value that the claim cannot have.
    #[error(
        "`{claim}` of the job is not what it may be: 1 to {MAX_CLAIM_BYTES} bytes without control \
         characters; a commit is 40 or 64 hexadecimal digits, an attempt a number"
    )]
    Value {
        /// Which claim.
        claim: JobClaim,
    },
    /// One claim twice.
    #[error("`{claim}` of the job stands twice")]
    Twice {
        /// Which claim.
        claim: JobClaim,
    },
    /// Not the name of a CI system.
    #[error("the CI system is none of buildkite, generic, github, gitlab, jenkins and tekton")]
    System,
    /// Not the one encoding of claims.
    #[error("the job's claims are not in their canonical encoding")]
    Encoding,
}

impl JobError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "JOB_CLAIM_MISSING",
            Self::Value { .. } | Self::Twice { .. } => "JOB_CLAIM_INVALID",
            Self::System => "JOB_SYSTEM_UNKNOWN",
            Self::Encoding => "JOB_ENCODING_INVALID",
        }
    }
}

/// A claim's value and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    value: String,
    source: Source,
}

impl Claim {
    /// The value.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Where it comes from.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.source
    }
}

/// What is claimed about a job, at least its run and its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobClaims {
    system: CiSystem,
    claims: BTreeMap<JobClaim, Claim>,
}

impl JobClaims {
    /// These claims about a job of `system`.
    ///
    /// # Errors
    /// [`JobError::Value`], [`JobError::Twice`], [`JobError::Missing`].
    pub fn new(
        system: CiSystem,
        claims: impl IntoIterator<Item = (JobClaim, String, Source)>,
    ) -> Result<Self, JobError> {
        let mut out = Self { system, claims: BTreeMap::new() };
        for (claim, value, source) in claims {
            if !claim.allows(&value) {
                return Err(JobError::Value { claim });
            }
            match out.claims.entry(claim) {
                Entry::Vacant(entry) => entry.insert(Claim { value, source }),
                Entry::Occupied(_) => return Err(JobError::Twice { claim }),
            };
        }
        let missing = JobClaim::ALL
            .into_iter()
            .find(|claim| claim.is_required() && !out.claims.contains_key(claim));
        match missing {
            Some(claim) => Err(JobError::Missing { claim, variable: None }),
            None => Ok(out),
        }
    }

    /// The CI system.
    #[must_use]
    pub const fn system(&self) -> CiSystem {
        self.system
    }

    /// A claim, if it is made.
    #[must_use]
    pub fn claim(&self, claim: JobClaim) -> Option<&Claim> {
        self.claims.get(&claim)
    }

    /// A claim's value, if it is made.
    #[must_use]
    pub fn value(&self, claim: JobClaim) -> Option<&str> {
        self.claim(claim).map(Claim::value)
    }

    /// All claims that are made, in the order of the encoding.
    pub fn iter(&self) -> impl Iterator<Item = (JobClaim, &Claim)> {
        self.claims.iter().map(|(claim, value)| (*claim, value))
    }

    /// The one encoding of the system and the claims' values.
    ///
    /// Sources are not part of it: worker and verifier hash the same bytes, and only the verifier
    /// can tell what a token says.
    ///
    /// # Format
    /// A JSON object without white space; members in the order of their names' bytes; all values
    /// texts; claims that are not made are left out. In texts, only `"` and `\` are escaped, by a
    /// `\`; everything else is UTF-8 (there are no control characters). That is what RFC 8785 gives
    /// for such an object. At most [`MAX_JOB_CLAIMS_BYTES`].
    /// ```json
    /// {"attempt":"1","commit":"5a…","job":"build","repository":"acme/app","run_id":"42","system":"github","workflow":"acme/app/.github/workflows/ci.yml@refs/heads/main"}
    /// ```
    #[must_use]
    pub fn canonical_json(&self) -> String {
        let mut members: BTreeMap<&str, &str> =
            self.iter().map(|(claim, found)| (claim.as_str(), found.value())).collect();
        members.insert(SYSTEM, self.system.as_str());
        let mut out = String::from("{");
        for (at, (name, value)) in members.into_iter().enumerate() {
            if at != 0 {
                out.push(',');
            }
            out.push('"');
            out.push_str(name);
            out.push_str("\":\"");
            for c in value.chars() {
                if matches!(c, '"' | '\\') {
                    out.push('\\');
                }
                out.push(c);
            }
            out.push('"');
        }
        out.push('}');
        out
    }

    /// Reads the encoding: the bytes that [`Self::canonical_json`] gives, and no others.
    ///
    /// # Errors
    /// [`JobError::Encoding`] for any other spelling, [`JobError`] for claims that cannot be.
    pub fn from_canonical_json(bytes: &[u8], source: Source) -> Result<Self, JobError> {
        if bytes.len() > MAX_JOB_CLAIMS_BYTES {
            return Err(JobError::Encoding);
        }
        let mut members: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|_| JobError::Encoding)?;
        let Some(Value::String(system)) = members.remove(SYSTEM) else {
            return Err(JobError::Encoding);
        };
        let mut claims = Vec::new();
        for (name, value) in members {
            let claim = JobClaim::ALL.into_iter().find(|claim| claim.as_str() == name);
            let (Some(claim), Value::String(value)) = (claim, value) else {
                return Err(JobError::Encoding);
            };
            claims.push((claim, value, source));
        }
        let out = Self::new(system.parse()?, claims)?;
        // Also refuses a member that stood twice: the reader above keeps the last one.
        if out.canonical_json().as_bytes() == bytes { Ok(out) } else { Err(JobError::Encoding) }
    }

    /// The claims with where each comes from, as the verifier records and hands them out.
    ///
    /// # Format
    /// A JSON object without white space, members sorted: `system` is a text, every other member an object with `source`
    /// (`environment` or `platform_token`) and `value`.
    #[must_use]
    pub fn json_with_sources(&self) -> String {
        let mut members: Map<String, Value> = self
            .iter()
            .map(|(claim, found)| {
                let sourced = serde_json::json!({ "source": found.source, "value": found.value });
                (claim.as_str().to_owned(), sourced)
            })
            .collect();
        members.insert(SYSTEM.to_owned(), self.system.as_str().into());
        Value::Object(members).to_string()
    }

    /// Reads what [`Self::json_with_sources`] gives, and nothing else.
    ///
    /// # Errors
    /// As [`Self::from_canonical_json`].
    pub fn from_json_with_sources(bytes: &[u8]) -> Result<Self, JobError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Sourced {
            source: Source,
            value: String,
        }
        // Twice the encoding without sources: their names and braces.
        if bytes.len() > 2 * MAX_JOB_CLAIMS_BYTES {
            return Err(JobError::Encoding);
        }
        let mut members: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|_| JobError::Encoding)?;
        let Some(Value::String(system)) = members.remove(SYSTEM) else {
            return Err(JobError::Encoding);
        };
        let mut claims = Vec::new();
        for (name, value) in members {
            let claim = JobClaim::ALL.into_iter().find(|claim| claim.as_str() == name);
            let sourced = serde_json::from_value::<Sourced>(value);
            let (Some(claim), Ok(Sourced { source, value })) = (claim, sourced) else {
                return Err(JobError::Encoding);
            };
            claims.push((claim, value, source));
        }
        let out = Self::new(system.parse()?, claims)?;
        if out.json_with_sources().as_bytes() == bytes { Ok(out) } else { Err(JobError::Encoding) }
    }

    /// SHA-256 of [`Self::canonical_json`].
    #[must_use]
    pub fn digest(&self) -> Digest {
        HashAlg::Sha256.hash(&[self.canonical_json().as_bytes()])
    }
}
