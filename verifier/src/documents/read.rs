//! From a text to a document that can be proposed.

use std::sync::Arc;

use appraisal::policy::{GoldenProblem, GoldenSet, Manifests, site::SitePolicy};
use proto::digest::{Digest, HashAlg, PcrIndex};
use serde::{Deserialize, Serialize};

use crate::{
    expectations::{Compiled, CompiledRules},
    signatures::{KeyRing, PayloadType, to_canonical_json},
    store::{DocumentId, DocumentKind, NewDocument},
};

/// A document that passed every check of its kind.
#[derive(Clone, Debug)]
pub struct ReadDocument {
    id: DocumentId,
    text: String,
    payload: Vec<u8>,
    content: Content,
}

/// What a document says.
#[derive(Clone, Debug)]
pub enum Content {
    /// A golden set or a part.
    Golden(Arc<GoldenSet>),
    /// A policy of the site.
    Policy(Arc<SitePolicy>),
    /// A ring of keys.
    Keys(Arc<KeyRing>),
}

#[derive(Deserialize)]
struct Head {
    schema: String,
}

#[derive(Deserialize)]
struct Identity {
    name: String,
    version: u64,
    pool: Option<String>,
}

/// What kind of document a text says it is.
///
/// # Errors
/// A problem if the text is not TOML or names no schema that is known.
pub fn kind_of(text: &str) -> Result<DocumentKind, GoldenProblem> {
    let problem = |at: &str, what: String| GoldenProblem { at: at.to_owned(), what };
    let head: Head =
        toml::from_str(text).map_err(|error| problem("document", error.message().to_owned()))?;
    match head.schema.split_once('/') {
        Some(("assay.golden", _)) => Ok(DocumentKind::Golden),
        Some(("assay.policy", _)) => Ok(DocumentKind::Policy),
        Some(("assay.keys", _)) => Ok(DocumentKind::Keys),
        _ => Err(problem(
            "schema",
            format!(
                "{:?}: expected \"assay.golden/v1\", \"assay.policy/v1\" or \"assay.keys/v1\"",
                head.schema
            ),
        )),
    }
}

/// Name, version and pool that a text says it has.
///
/// # Errors
/// A problem if the text is not TOML or lacks them.
pub fn name_and_version(text: &str) -> Result<(String, u64, Option<String>), GoldenProblem> {
    let head: Identity = toml::from_str(text).map_err(|error| GoldenProblem {
        at: "document".to_owned(),
        what: error.message().to_owned(),
    })?;
    Ok((head.name, head.version, head.pool))
}

/// Canonical JSON of a document: what is signed. Its rules are not checked.
///
/// # Errors
/// Every problem of its form.
pub fn payload_of(text: &str, kind: DocumentKind) -> Result<Vec<u8>, Vec<GoldenProblem>> {
    match kind {
        DocumentKind::Golden => canonical(&GoldenSet::document(text)?),
        DocumentKind::Policy => canonical(&SitePolicy::document(text)?),
        DocumentKind::Keys => Ok(KeyRing::parse(text)?.payload().to_vec()),
    }
}

impl ReadDocument {
    /// Reads and checks a document; `manifests` has those that it names.
    ///
    /// # Errors
    /// Every problem found.
    pub fn read(
        text: &str,
        tool_pcr: PcrIndex,
        manifests: &Manifests,
    ) -> Result<Self, Vec<GoldenProblem>> {
        let kind = kind_of(text).map_err(|problem| vec![problem])?;
        let payload = payload_of(text, kind)?;
        let (id, content) = match kind {
            DocumentKind::Golden => {
                let set = GoldenSet::parse(text, tool_pcr, manifests)?;
                let id = DocumentId { kind, name: set.name().to_owned(), version: set.version() };
                (id, Content::Golden(Arc::new(set)))
            }
            DocumentKind::Policy => {
                let policy = SitePolicy::parse(text)?;
                let (name, version) = (policy.name().to_owned(), policy.version());
                (DocumentId { kind, name, version }, Content::Policy(Arc::new(policy)))
            }
            DocumentKind::Keys => {
                let ring = KeyRing::parse(text)?;
                let name = ring.name().as_str().to_owned();
                let id = DocumentId { kind, name, version: ring.version() };
                (id, Content::Keys(Arc::new(ring)))
            }
        };
        Ok(Self { id, text: text.to_owned(), payload, content })
    }

    /// Which document it is.
    #[must_use]
    pub const fn id(&self) -> &DocumentId {
        &self.id
    }

    /// Canonical JSON: what is signed.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// As signatures name what they are over.
    #[must_use]
    pub const fn payload_type(&self) -> PayloadType {
        payload_type(self.id.kind)
    }

    /// What it says.
    #[must_use]
    pub const fn content(&self) -> &Content {
        &self.content
    }

    /// Pool that a golden set judges.
    #[must_use]
    pub fn pool(&self) -> Option<&str> {
        match &self.content {
            Content::Golden(set) => set.pool(),
            Content::Policy(_) | Content::Keys(_) => None,
        }
    }

    /// SHA-256 of the text.
    #[must_use]
    pub fn sha256(&self) -> Digest {
        HashAlg::Sha256.hash(&[self.text.as_bytes()])
    }

    /// As it judges, or would; `None` for a ring of keys.
    #[must_use]
    pub fn compiled(&self, is_staged: bool) -> Option<Compiled> {
        let rules = match &self.content {
            Content::Golden(set) => CompiledRules::Golden(Arc::clone(set)),
            Content::Policy(policy) => CompiledRules::Policy(Arc::clone(policy)),
            Content::Keys(_) => return None,
        };
        Some(Compiled { sha256: self.sha256(), is_staged, rules })
    }

    /// As the store keeps it.
    #[must_use]
    pub fn into_new(self, is_observed: bool, origin: impl Into<String>) -> NewDocument {
        NewDocument {
            pool: self.pool().map(str::to_owned),
            id: self.id,
            document: self.text.into_bytes(),
            payload: self.payload,
            is_observed,
            origin: origin.into(),
        }
    }
}

fn canonical(document: &impl Serialize) -> Result<Vec<u8>, Vec<GoldenProblem>> {
    to_canonical_json(document)
        .map_err(|error| vec![GoldenProblem { at: "document".to_owned(), what: error.to_string() }])
}

/// As signatures name what they are over.
#[must_use]
pub(super) const fn payload_type(kind: DocumentKind) -> PayloadType {
    match kind {
        DocumentKind::Golden => PayloadType::Golden,
        DocumentKind::Policy => PayloadType::Policy,
        DocumentKind::Keys => PayloadType::Keys,
    }
}
