//! What is claimed about a job, and where each claim comes from.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{invalid, text};
use crate::{
    Sha256Digest, json,
    refusal::{Refusal, quoted, within},
};

/// Most claims of a job.
pub const MAX_CLAIMS: usize = 64;
/// Longest name of a claim, bytes.
const MAX_NAME_BYTES: usize = 64;

/// How a claim came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClaimSource {
    /// Read from the job's environment, which whoever starts the job may set.
    Environment,
    /// Out of a token that the platform signed and the verifier verified.
    PlatformToken,
}

impl ClaimSource {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::PlatformToken => "platform-token",
        }
    }
}

impl fmt::Display for ClaimSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A claim about a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// How it came to be known.
    pub source: ClaimSource,
    /// What is claimed.
    pub value: String,
}

/// Everything claimed about a job.
///
/// # Format
/// The build identifier is the SHA-256 of `{"claims":{NAME:{"source":…,"value":…},…},"system":…}`
/// without white space, names ascending: RFC 8785, since names are ASCII and there are no numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobClaims {
    /// By name: lower-case letters, digits, `_`, `-`, `.`. `repository`, `workflow` and `commit` have a
    /// meaning here. At most [`MAX_CLAIMS`].
    pub claims: BTreeMap<String, Claim>,
    /// The system that runs jobs, such as `github`.
    pub system: String,
}

impl JobClaims {
    /// The canonical form.
    #[must_use]
    pub fn canonical_json(&self) -> Vec<u8> {
        json::write(self).into_bytes()
    }

    /// Which build this is: the SHA-256 of the canonical form.
    #[must_use]
    pub fn build_id(&self) -> Sha256Digest {
        Sha256Digest::of(&self.canonical_json())
    }

    /// The value of a claim.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.claims.get(name).map(|claim| claim.value.as_str())
    }

    pub(super) fn check(&self) -> Result<(), Refusal> {
        name("system", &self.system)?;
        within("claims", self.claims.len(), MAX_CLAIMS, "claims")?;
        for (key, claim) in &self.claims {
            name("claims", key)?;
            text(&format!("claims.{key}"), &claim.value)?;
        }
        Ok(())
    }
}

/// Refuses what is no name of a claim or of a system.
fn name(at: &str, text: &str) -> Result<(), Refusal> {
    let is_allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.".contains(&byte);
    if (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(is_allowed) {
        return Ok(());
    }
    let expected = format!("1 to {MAX_NAME_BYTES} lower-case letters, digits, _ - .");
    Err(invalid(at, expected, quoted(text)))
}
