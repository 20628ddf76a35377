//! Declarative attack rows and the threats they stand for: `attacks/*.toml`.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::cluster::AnyError;

/// One attack.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attack {
    /// Unique, kebab-case; never reused.
    pub id: String,
    /// `T-n` of `attacks/threats.toml`.
    pub threat: String,
    /// One sentence.
    pub title: String,
    /// What the attacker does, step by step: see [`crate::attacker`] for the verbs.
    #[serde(default)]
    pub mutate: Vec<String>,
    /// The reason code, or several joined by `+` where policy reports several findings.
    pub expect: String,
    /// Always true: a row that wants a certificate is no attack.
    #[serde(default)]
    pub expect_no_certificate: bool,
    /// Which layer refuses.
    pub layer: Layer,
    /// Codes of the recorded decision; what is expected of the answer where left out.
    #[serde(default)]
    pub audit: Option<Vec<String>>,
    /// What every finding is about, where the code alone does not say that the right rule refused.
    #[serde(default)]
    pub subject: Option<String>,
    /// `path::test` that provokes the code where no attacker can.
    #[serde(default)]
    pub covered_by: Option<String>,
    /// Why the code cannot be reached end to end; with `covered_by` only.
    #[serde(default)]
    pub why: Option<String>,
    /// What the attacker is given that no honest TPM gives.
    #[serde(default)]
    pub assumes: Option<String>,
}

/// Where an attack ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// Wire contract, limits and deadlines: an error status, nothing recorded.
    Wire,
    /// Refused at Hello, before any challenge: a result without decision.
    Hello,
    /// An integrity stage: recorded, but not in any node's history.
    Appraisal,
    /// Proven, and denied by policy: recorded in the node's history.
    Policy,
    /// The administration service.
    Admin,
    /// Another test.
    Unit,
}

impl Attack {
    /// The expected codes.
    #[must_use]
    pub fn codes(&self) -> BTreeSet<String> {
        self.expect.split('+').map(|code| code.trim().to_owned()).collect()
    }

    /// What is wrong with the row itself.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut out = Vec::new();
        let unit = self.layer == Layer::Unit;
        if !self.expect_no_certificate {
            out.push("expect_no_certificate must be true".to_owned());
        }
        if unit != self.covered_by.is_some() || unit != self.why.is_some() {
            out.push("layer unit, covered_by and why go together".to_owned());
        }
        if unit != self.mutate.is_empty() {
            out.push("a row has either mutations or covered_by".to_owned());
        }
        out
    }
}

/// One threat.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threat {
    /// `T-n`.
    pub id: String,
    /// What an attacker, or bad luck, does.
    pub title: String,
    /// The check that stops it.
    pub stopped: String,
    /// Classes of past failures it stands for.
    pub source: Vec<String>,
    /// Why there is no attack row yet.
    #[serde(default)]
    pub deferred: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AttackFile {
    attack: Vec<Attack>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ThreatFile {
    threat: Vec<Threat>,
}

/// The folder of the rows.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("attacks")
}

/// All attacks, by file name, then as written.
///
/// # Errors
/// A file that cannot be read or is not a table of attacks.
pub fn attacks() -> Result<Vec<Attack>, AnyError> {
    Ok(attacks_by_file()?.into_iter().map(|(_, attack)| attack).collect())
}

/// All attacks, each with the name of its file.
///
/// # Errors
/// As [`attacks`].
pub fn attacks_by_file() -> Result<Vec<(String, Attack)>, AnyError> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder())?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    let mut out = Vec::new();
    for file in files {
        let is_rows = file.extension().is_some_and(|extension| extension == "toml")
            && file.file_stem().is_some_and(|stem| stem != "threats");
        if is_rows {
            let text = std::fs::read_to_string(&file)?;
            let parsed: AttackFile =
                toml::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            out.extend(parsed.attack.into_iter().map(|attack| (name.clone(), attack)));
        }
    }
    Ok(out)
}

/// All threats, as written.
///
/// # Errors
/// The file cannot be read or is not a table of threats.
pub fn threats() -> Result<Vec<Threat>, AnyError> {
    let file = folder().join("threats.toml");
    let parsed: ThreatFile = toml::from_str(&std::fs::read_to_string(file)?)?;
    Ok(parsed.threat)
}
