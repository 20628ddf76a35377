//! The dispatch of a job to an attested node.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Descriptor, Document, JobClaims, MAX_TOOLS, Predicate, invalid, sha256_map, text, uri,
};
use crate::{
    Sha256Digest, SpiffeId, UnixTime,
    refusal::{Refusal, quoted, within},
};

/// Type of the predicate.
pub const SCAI_PREDICATE_TYPE: &str = "https://in-toto.io/attestation/scai/v0.3";

/// What a dispatch says, one attribute each.
pub mod attribute {
    /// The job was given to this node, whose quote is the evidence; the conditions say which job.
    pub const DISPATCHED: &str = "BUILD_DISPATCHED_TO_ATTESTED_NODE";
    /// The node had passed: the VSA is the evidence.
    pub const NODE_PASSED: &str = "NODE_VERIFICATION_PASSED";
    /// A tool was measured with an accepted digest.
    pub const TOOL: &str = "TOOL_DIGEST_MATCHED";
}

/// Longest name of a pool, bytes: it must fit in a certificate's common name.
const MAX_POOL_BYTES: usize = 64;
const BUILD_SUBJECT: &str = "build";
const KEY_SUBJECT: &str = "job-key";
const SOURCE_SUBJECT: &str = "source";
const GIT_COMMIT: &str = "gitCommit";
const QUOTE: &str = "quote";
const VSA: &str = "vsa";
const VERSION: &str = "version";

/// What the verifier says about a job when it lets it run on a node.
///
/// # Format
/// Subjects: `build` (`sha256` of the canonical [`JobClaims`]), `job-key` (`sha256` of the key's SPKI
/// DER) and, where known, `source` (`gitCommit`).
///
/// # Source
/// in-toto attestation predicate "SCAI", version 0.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// What is claimed about the job; the build identifier is computed from it.
    pub job: JobClaims,
    /// The commit that is built, 40 or 64 hexadecimal digits.
    pub git_commit: Option<String>,
    /// SHA-256 of the SPKI DER of the key that the job signs with.
    pub job_key: Sha256Digest,
    /// SHA-256 of the quote (`TPMS_ATTEST`, as signed) that answered the job's challenge.
    pub quote: Sha256Digest,
    /// SHA-256 of the VSA statement: the payload of its envelope.
    pub vsa: Sha256Digest,
    /// Tools that the golden sets name and that matched; ascending by name, no two alike. At most
    /// [`MAX_TOOLS`].
    pub tools: Vec<Tool>,
    /// URI of who dispatched: the verifier.
    pub producer: String,
    /// The permit.
    pub permit_id: String,
    /// The node.
    pub node: SpiffeId,
    /// The pool.
    pub pool: String,
    /// Until when the permit is good.
    pub expires: UnixTime,
}

/// A tool that matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Name in the golden set.
    pub name: String,
    /// Version.
    pub version: String,
    /// Package URL; it begins with `pkg:`.
    pub purl: String,
    /// SHA-256 that was measured.
    pub digest: Sha256Digest,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    attributes: Vec<Attribute>,
    producer: Descriptor,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Attribute {
    attribute: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    conditions: Option<Conditions>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    evidence: Option<Descriptor>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Conditions {
    expires: UnixTime,
    job: JobClaims,
    node_id: SpiffeId,
    permit_id: String,
    pool: String,
}

impl Dispatch {
    fn check(&self) -> Result<(), Refusal> {
        self.job.check()?;
        if let Some(commit) = &self.git_commit {
            let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            if !matches!(commit.len(), 40 | 64) || !commit.bytes().all(is_hex) {
                let expected = "40 or 64 lower-case hexadecimal digits";
                return Err(invalid(GIT_COMMIT, expected, quoted(commit)));
            }
        }
        within("tools", self.tools.len(), MAX_TOOLS, "tools")?;
        for tool in &self.tools {
            text("tool name", &tool.name)?;
            text("tool version", &tool.version)?;
            uri("tool purl", &tool.purl)?;
            if !tool.purl.starts_with("pkg:") {
                return Err(invalid("tool purl", "pkg:…", quoted(&tool.purl)));
            }
        }
        if !self.tools.is_sorted_by(|one, next| one.name < next.name) {
            return Err(invalid("tools", "ascending by name, no two alike", "another order"));
        }
        uri("producer", &self.producer)?;
        text("permitId", &self.permit_id)?;
        pool(&self.pool)
    }

    fn subjects(&self) -> Vec<Descriptor> {
        let mut subjects = vec![
            Descriptor::named(BUILD_SUBJECT, &self.job.build_id()),
            Descriptor::named(KEY_SUBJECT, &self.job_key),
        ];
        if let Some(commit) = &self.git_commit {
            subjects.push(Descriptor {
                name: SOURCE_SUBJECT.to_owned(),
                digest: BTreeMap::from([(GIT_COMMIT.to_owned(), commit.clone())]),
                ..Descriptor::default()
            });
        }
        subjects
    }

    fn attributes(&self) -> Vec<Attribute> {
        let dispatched = Attribute {
            attribute: attribute::DISPATCHED.to_owned(),
            target: None,
            conditions: Some(Conditions {
                expires: self.expires,
                job: self.job.clone(),
                node_id: self.node.clone(),
                permit_id: self.permit_id.clone(),
                pool: self.pool.clone(),
            }),
            evidence: Some(Descriptor::named(QUOTE, &self.quote)),
        };
        let passed = Attribute {
            attribute: attribute::NODE_PASSED.to_owned(),
            target: None,
            conditions: None,
            evidence: Some(Descriptor::named(VSA, &self.vsa)),
        };
        [dispatched, passed].into_iter().chain(self.tools.iter().map(Tool::attribute)).collect()
    }
}

/// Refuses what cannot be a segment of a SPIFFE ID.
fn pool(pool: &str) -> Result<(), Refusal> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=MAX_POOL_BYTES).contains(&pool.len()) && pool.bytes().all(is_allowed) {
        return Ok(());
    }
    let expected = format!("1 to {MAX_POOL_BYTES} letters, digits, . _ -");
    Err(invalid("pool", expected, quoted(pool)))
}

impl Predicate for Dispatch {
    fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let document = Document::<Body>::parse(bytes, SCAI_PREDICATE_TYPE)?;
        let (build, job_key) = (document.subject(BUILD_SUBJECT)?, document.subject(KEY_SUBJECT)?);
        let git_commit = match document.subject.as_slice() {
            [_, _] => None,
            [_, _, source] => source.digest.get(GIT_COMMIT).cloned(),
            others => {
                let found = format!("{} subjects", others.len());
                return Err(invalid("subject", "the build, the job key, the source", found));
            }
        };
        let Body { attributes, producer } = document.predicate;
        let mut attributes = attributes.into_iter();
        let missing = || invalid("attributes", attribute::DISPATCHED, "another first attribute");
        let (conditions, quote) = match attributes.next() {
            Some(Attribute {
                attribute,
                conditions: Some(conditions),
                evidence: Some(quote),
                ..
            }) if attribute == attribute::DISPATCHED => (conditions, quote.sha256(QUOTE)?),
            _ => return Err(missing()),
        };
        let vsa = match attributes.next() {
            Some(Attribute { attribute, evidence: Some(vsa), .. })
                if attribute == attribute::NODE_PASSED =>
            {
                vsa.sha256(VSA)?
            }
            _ => return Err(invalid("attributes", attribute::NODE_PASSED, "another second one")),
        };
        within("attributes", attributes.len(), MAX_TOOLS, "tools")?;
        let dispatch = Self {
            git_commit,
            job_key,
            quote,
            vsa,
            tools: attributes.map(Tool::parse).collect::<Result<_, _>>()?,
            producer: producer.uri,
            permit_id: conditions.permit_id,
            node: conditions.node_id,
            pool: conditions.pool,
            expires: conditions.expires,
            job: conditions.job,
        };
        dispatch.check()?;
        if build != dispatch.job.build_id() {
            let expected = format!("{}, of the claims", dispatch.job.build_id());
            return Err(invalid("subject build", expected, build.to_string()));
        }
        // Whatever stands in a descriptor and was not read would be lost, and is refused.
        if dispatch.to_json()? != bytes {
            return Err(invalid("statement", "nothing but a dispatch's content", "more, or less"));
        }
        Ok(dispatch)
    }

    fn to_json(&self) -> Result<Vec<u8>, Refusal> {
        self.check()?;
        let producer = Descriptor { uri: self.producer.clone(), ..Descriptor::default() };
        let body = Body { attributes: self.attributes(), producer };
        Document::new(self.subjects(), SCAI_PREDICATE_TYPE, body).to_json()
    }
}

impl Tool {
    fn attribute(&self) -> Attribute {
        Attribute {
            attribute: attribute::TOOL.to_owned(),
            target: Some(self.descriptor()),
            conditions: None,
            evidence: None,
        }
    }

    pub(super) fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: self.name.clone(),
            uri: self.purl.clone(),
            digest: sha256_map(&self.digest),
            annotations: BTreeMap::from([(VERSION.to_owned(), self.version.clone())]),
        }
    }

    fn parse(attribute: Attribute) -> Result<Self, Refusal> {
        let Attribute { attribute: name, target: Some(tool), conditions: None, evidence: None } =
            attribute
        else {
            return Err(invalid("attributes", "a tool and nothing else", "another attribute"));
        };
        if name != attribute::TOOL {
            return Err(invalid("attributes", attribute::TOOL, quoted(&name)));
        }
        Ok(Self {
            digest: tool.sha256("tool")?,
            version: tool.annotations.get(VERSION).cloned().unwrap_or_default(),
            name: tool.name,
            purl: tool.uri,
        })
    }
}
