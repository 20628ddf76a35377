//! The key ring: whose signatures count, and how many it takes.

use appraisal::policy::GoldenProblem;
use serde::{Deserialize, Serialize};

use super::{KeyName, KeyNameError, MAX_INTEGER, PublicKey, SecurityKey, to_canonical_json};

/// Value of `schema`.
pub const SCHEMA: &str = "assay.keys/v1";
/// Most keys: more people than can know of each other what they signed.
pub const MAX_KEYS: usize = 32;
/// Largest document, bytes: 32 keys have a fifth of it, the rest is for comments.
pub const MAX_RING_BYTES: usize = 64 * 1024;

/// The ring of security keys: whose signatures put golden sets, policies and the next version of the ring in force. TOML.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KeyRingDocument {
    /// Always `assay.keys/v1`.
    pub schema: String,
    /// Name of the ring; every later version has it too.
    pub name: String,
    /// Rises with every change.
    pub version: u64,
    /// How many keys must sign; at least 1 and at most as many as there are.
    pub threshold: u64,
    /// The keys; at least one.
    #[serde(default)]
    pub key: Vec<KeyEntry>,
}

/// A security key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    /// Whose key it is.
    pub name: String,
    /// Public key (SPKI), PEM: Ed25519 or P-256.
    pub pem: String,
}

/// Security keys, of which a number must sign.
///
/// # Invariants
/// 1 ≤ threshold ≤ number of keys ≤ [`MAX_KEYS`]; names are distinct, and so are keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRing {
    name: KeyName,
    version: u64,
    threshold: usize,
    keys: Vec<SecurityKey>,
    payload: Vec<u8>,
}

impl KeyRing {
    /// Parses and checks the TOML of a key ring.
    ///
    /// # Errors
    /// Every problem found, never only the first (a syntax error hides the rest).
    pub fn parse(text: &str) -> Result<Self, Vec<GoldenProblem>> {
        if text.len() > MAX_RING_BYTES {
            return Err(vec![problem(
                "document",
                format!("{} bytes, at most {MAX_RING_BYTES} are allowed", text.len()),
            )]);
        }
        let document: KeyRingDocument = toml::from_str(text).map_err(|error| {
            let at =
                error.span().map_or_else(|| "document".to_owned(), |span| place(text, span.start));
            vec![problem(at, error.message())]
        })?;
        Self::check(&document)
    }

    fn check(document: &KeyRingDocument) -> Result<Self, Vec<GoldenProblem>> {
        let mut problems = Vec::new();
        if document.schema != SCHEMA {
            problems.push(problem("schema", format!("{:?}, expected {SCHEMA:?}", document.schema)));
        }
        let name = parsed_name("name", &document.name, &mut problems);
        if document.version == 0 {
            problems.push(problem("version", "0, the first version is 1"));
        }
        // The canonical form has no larger numbers.
        if document.version > MAX_INTEGER {
            problems
                .push(problem("version", format!("{}, at most {MAX_INTEGER}", document.version)));
        }
        let keys = keys(&document.key, &mut problems);
        let count = document.key.len();
        let threshold = usize::try_from(document.threshold).unwrap_or(usize::MAX);
        if threshold == 0 || threshold > count {
            problems.push(problem(
                "threshold",
                format!(
                    "{}: at least 1 and at most the number of keys, {count}",
                    document.threshold
                ),
            ));
        }
        let (Some(name), true) = (name, problems.is_empty()) else { return Err(problems) };
        let payload = payload(document, &keys).map_err(|what| vec![problem("document", what)])?;
        Ok(Self { name, version: document.version, threshold, keys, payload })
    }

    /// Name of the ring.
    #[must_use]
    pub const fn name(&self) -> &KeyName {
        &self.name
    }

    /// Version; rises with every change.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// How many keys must sign.
    #[must_use]
    pub const fn threshold(&self) -> usize {
        self.threshold
    }

    /// The keys, in the document's order.
    #[must_use]
    pub fn keys(&self) -> &[SecurityKey] {
        &self.keys
    }

    /// What is signed where this ring is to follow another: its canonical JSON, in which white space
    /// and comments of TOML and PEM make no difference.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
}

fn keys(entries: &[KeyEntry], problems: &mut Vec<GoldenProblem>) -> Vec<SecurityKey> {
    if entries.len() > MAX_KEYS {
        problems.push(problem(
            "key",
            format!("{} keys, at most {MAX_KEYS} are allowed", entries.len()),
        ));
        return Vec::new();
    }
    let mut keys = Vec::new();
    // By position: who has the key, as the document says.
    let mut seen: Vec<(&str, PublicKey)> = Vec::new();
    for (position, entry) in entries.iter().enumerate() {
        let name_at = format!("key[{position}].name");
        let pem_at = format!("key[{position}].pem");
        if entries.iter().take(position).any(|earlier| earlier.name == entry.name) {
            problems.push(problem(&name_at, format!("{:?} is there twice", entry.name)));
        }
        let name = parsed_name(&name_at, &entry.name, problems);
        let public = match PublicKey::from_pem(&entry.pem) {
            Ok(public) => public,
            Err(error) => {
                problems.push(problem(pem_at, words(&error)));
                continue;
            }
        };
        if let Some((holder, _)) = seen.iter().find(|(_, earlier)| *earlier == public) {
            problems.push(problem(pem_at, format!("the same key as that of {holder:?}")));
        }
        seen.push((&entry.name, public.clone()));
        keys.extend(name.map(|name| SecurityKey::new(name, public)));
    }
    keys
}

fn parsed_name(at: &str, text: &str, problems: &mut Vec<GoldenProblem>) -> Option<KeyName> {
    text.parse().map_err(|error: KeyNameError| problems.push(problem(at, error.to_string()))).ok()
}

/// The canonical form of the document with its PEM spelled as it is spelled here.
fn payload(document: &KeyRingDocument, keys: &[SecurityKey]) -> Result<Vec<u8>, String> {
    let entry =
        |key: &SecurityKey| KeyEntry { name: key.name().to_string(), pem: key.public().to_pem() };
    let document = KeyRingDocument { key: keys.iter().map(entry).collect(), ..document.clone() };
    to_canonical_json(&document).map_err(|error| words(&error))
}

/// An error with its causes, for one line.
fn words(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn place(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count().saturating_add(1);
    let column = before.rsplit('\n').next().unwrap_or("").chars().count().saturating_add(1);
    format!("line {line}, column {column}")
}

fn problem(at: impl Into<String>, what: impl Into<String>) -> GoldenProblem {
    GoldenProblem { at: at.into(), what: what.into() }
}

/// The TOML of a ring; whether it is one, [`KeyRing::parse`] says.
#[must_use]
pub fn ring_document(
    name: &str,
    version: u64,
    threshold: usize,
    keys: &[(KeyName, PublicKey)],
) -> String {
    let mut out = format!(
        "# Security keys: so many of them must sign golden sets, policies and the next version of this ring.\n\
         schema = \"{SCHEMA}\"\nname = \"{name}\"\nversion = {version}\nthreshold = {threshold}\n"
    );
    for (name, public) in keys {
        out.push_str(&format!(
            "\n[[key]]\nname = \"{name}\"\npem = \"\"\"\n{}\"\"\"\n",
            public.to_pem()
        ));
    }
    out
}
