//! One golden set, checked and compiled.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proto::digest::{Digest, HashAlg, PcrIndex};

use super::{
    document::{GoldenDocument, RulesOf, SCHEMA},
    rules::Rules,
};
use crate::ima::Manifest;

/// Largest golden set, bytes: 100 tools with 2 000 files of 150 bytes each fit five times over.
pub const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;
/// Groups of one set: more kernels than a fleet runs at once.
pub const MAX_GROUPS: usize = 64;
/// Parts that one set includes: platform, operating system, tools, and as many again.
pub const MAX_INCLUDES: usize = 8;

/// Manifests of files that IMA may list, by digest: compiled once, shared by every set that names them.
pub type Manifests = BTreeMap<Digest, Arc<Manifest>>;

/// A golden set, or a part for others to include, that passed every check of its document.
///
/// # Proves
/// No dangling or contradictory rule, every digest well-formed, every manifest at hand. Whether the parts that it includes
/// are there is for [`super::ReferenceValues::resolve`] to find out.
#[derive(Clone, Debug)]
pub struct GoldenSet {
    name: String,
    pool: Option<String>,
    version: u64,
    digest: Digest,
    include: Vec<String>,
    pub(super) base: Arc<Rules>,
    /// Alternatives by name; empty: the base alone.
    pub(super) groups: Vec<(String, Arc<Rules>)>,
}

/// What is wrong in a golden set, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct GoldenProblem {
    /// Key path, or line and column of a syntax error.
    pub at: String,
    /// What is wrong and what is expected.
    pub what: String,
}

pub(super) fn problem(at: impl Into<String>, what: impl Into<String>) -> GoldenProblem {
    GoldenProblem { at: at.into(), what: what.into() }
}

impl GoldenSet {
    /// Parses and checks a golden set.
    ///
    /// `tool_pcr` must not be listed as a value: it is judged tool by tool. `manifests` has those that the set names.
    ///
    /// # Errors
    /// Every problem found, never only the first (a syntax error hides the rest).
    pub fn parse(
        text: &str,
        tool_pcr: PcrIndex,
        manifests: &Manifests,
    ) -> Result<Self, Vec<GoldenProblem>> {
        let document = Self::document(text)?;
        let digest = HashAlg::Sha256.hash(&[text.as_bytes()]);
        Self::compile(&document, digest, tool_pcr, manifests)
    }

    /// The document in a text, its rules not yet checked.
    ///
    /// # Errors
    /// A document that is too large, not TOML, or has keys that are not known.
    pub fn document(text: &str) -> Result<GoldenDocument, Vec<GoldenProblem>> {
        if text.len() > MAX_DOCUMENT_BYTES {
            return Err(vec![problem(
                "document",
                format!("{} bytes, at most {MAX_DOCUMENT_BYTES} are allowed", text.len()),
            )]);
        }
        toml::from_str(text).map_err(|error| vec![syntax_problem(text, &error)])
    }

    /// The manifests that a set names: they have to be at hand before the set is parsed.
    #[must_use]
    pub fn manifests_named_by(text: &str) -> BTreeSet<Digest> {
        let Ok(document) = Self::document(text) else { return BTreeSet::new() };
        let of_groups = document.group.iter().filter_map(|group| group.ima.as_ref());
        document.ima.iter().chain(of_groups).filter_map(|ima| ima.manifest).collect()
    }

    fn compile(
        document: &GoldenDocument,
        digest: Digest,
        tool_pcr: PcrIndex,
        manifests: &Manifests,
    ) -> Result<Self, Vec<GoldenProblem>> {
        let mut problems = Vec::new();
        head(document, &mut problems);
        let base = Rules::compile(document.rules(), "", tool_pcr, manifests, &mut problems);
        let mut groups: Vec<(String, Arc<Rules>)> = Vec::new();
        if document.group.len() > MAX_GROUPS {
            let what = format!("{} groups, at most {MAX_GROUPS}", document.group.len());
            problems.push(problem("group", what));
        }
        for (at, group) in document.group.iter().enumerate().take(MAX_GROUPS) {
            let at = format!("group[{at}]");
            name(&format!("{at}.name"), &group.name, &mut problems);
            if groups.iter().any(|(known, _)| *known == group.name) {
                problems.push(problem(&at, format!("group {:?} is there twice", group.name)));
            }
            let rules = group.rules();
            if rules.is_empty() {
                let what =
                    "no rule: every node would be of this group, and the others would say nothing";
                problems.push(problem(&at, what));
            }
            let prefix = format!("{at}.");
            let rules = Rules::compile(rules, &prefix, tool_pcr, manifests, &mut problems);
            groups.push((group.name.clone(), Arc::new(rules)));
        }
        // A set that includes parts may leave the PCRs to them: that is seen when they are known.
        let is_whole = document.pool.is_some() && document.include.is_empty();
        let reads = |rules: RulesOf<'_>| !rules.pcr.is_empty() || !rules.events.is_empty();
        let in_groups =
            !document.group.is_empty() && document.group.iter().all(|group| reads(group.rules()));
        if is_whole && !reads(document.rules()) && !in_groups {
            problems.push(problem("pcr", "empty: a golden set lists at least one PCR"));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            name: document.name.clone(),
            pool: document.pool.clone(),
            version: document.version,
            digest,
            include: document.include.clone(),
            base: Arc::new(base),
            groups,
        })
    }

    /// Name of the set.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Pool whose nodes it judges; `None` for a part.
    #[must_use]
    pub fn pool(&self) -> Option<&str> {
        self.pool.as_deref()
    }

    /// Version.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// SHA-256 of the document's bytes.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Names of the parts that it includes.
    #[must_use]
    pub fn include(&self) -> &[String] {
        &self.include
    }

    /// Names of its groups.
    pub fn group_names(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().map(|(name, _)| name.as_str())
    }
}

fn head(document: &GoldenDocument, problems: &mut Vec<GoldenProblem>) {
    if document.schema != SCHEMA {
        problems.push(problem("schema", format!("{:?}, expected {SCHEMA:?}", document.schema)));
    }
    name("name", &document.name, problems);
    if let Some(pool) = &document.pool {
        name("pool", pool, problems);
    }
    if document.version == 0 {
        problems.push(problem("version", "0, the first version is 1"));
    }
    if document.pool.is_none() && !document.include.is_empty() {
        let what = "a part (a document without pool) includes nothing itself";
        problems.push(problem("include", what));
    }
    if document.include.len() > MAX_INCLUDES {
        let what = format!("{} parts, at most {MAX_INCLUDES}", document.include.len());
        problems.push(problem("include", what));
    }
    let mut known = BTreeSet::new();
    for (at, part) in document.include.iter().enumerate() {
        let at = format!("include[{at}]");
        name(&at, part, problems);
        if !known.insert(part) || *part == document.name {
            problems.push(problem(at, format!("{part:?} is included twice, or includes itself")));
        }
    }
}

/// Says what is wrong with the name of a document, a group or a rule.
pub(super) fn name(at: &str, name: &str, problems: &mut Vec<GoldenProblem>) {
    if !is_name(name) {
        let what = format!("{name:?}: lower-case letters, digits, '-', '_' and '.', at most 63");
        problems.push(problem(at, what));
    }
}

fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
        && !name.starts_with('.')
}

/// A syntax error of a document, by line and column.
pub(super) fn syntax_problem(text: &str, error: &toml::de::Error) -> GoldenProblem {
    let at = error.span().map_or_else(
        || "document".to_owned(),
        |span| {
            let before = text.get(..span.start).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
            format!("line {line}, column {column}")
        },
    );
    problem(at, error.message().to_owned())
}
