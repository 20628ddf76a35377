//! in-toto statements: what the verifier says about a node ([`Vsa`]) and about a job ([`Dispatch`]).
//!
//! Both are written in one way only: fields in a fixed order, no white space, maps ordered by key.
//! The parsers take exactly that, so that a statement has one sequence of bytes and one digest.
//!
//! # Source
//! in-toto Attestation Framework, `spec/v1/statement.md`, `spec/v1/resource_descriptor.md`.

mod dispatch;
mod job;
pub mod slsa;
mod vsa;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::{
    dispatch::{Dispatch, SCAI_PREDICATE_TYPE, Tool, attribute},
    job::{Claim, ClaimSource, JobClaims, MAX_CLAIMS},
    vsa::{LEVEL_PREFIX, PolicyRef, Reference, VSA_PREDICATE_TYPE, Verdict, VerifierId, Vsa},
};
use crate::{
    Sha256Digest, json,
    refusal::{Code, Refusal, one_of, quoted, within},
};

/// The type of every statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// Largest statement, bytes: a dispatch with [`MAX_TOOLS`] tools of 400 bytes each, and as much again.
pub const MAX_STATEMENT_BYTES: usize = 1024 * 1024;
/// Most tools of a dispatch: as many as a golden set names at most in practice, times ten.
pub const MAX_TOOLS: usize = 1024;
/// Most input attestations of a VSA, and most levels.
pub const MAX_REFERENCES: usize = 256;
/// Longest text in a statement, bytes: the longest SPIFFE ID.
pub const MAX_TEXT_BYTES: usize = 2048;

/// A statement of a known kind, verified by nobody: see [`crate::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// About a node.
    Vsa(Vsa),
    /// About a job.
    Dispatch(Dispatch),
}

impl Statement {
    /// Decodes a statement.
    ///
    /// # Errors
    /// `RESULT_TOO_LARGE`, `RESULT_MALFORMED`; `RESULT_PREDICATE_UNKNOWN` for another type of statement or
    /// predicate; `RESULT_STATEMENT_INVALID` for content that its type does not allow.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let types: Types = json::parse("statement", bytes, MAX_STATEMENT_BYTES)?;
        if types.statement_type != STATEMENT_TYPE {
            return Err(unknown("_type", one_of([STATEMENT_TYPE]), &types.statement_type));
        }
        match types.predicate_type.as_str() {
            VSA_PREDICATE_TYPE => Vsa::parse(bytes).map(Self::Vsa),
            SCAI_PREDICATE_TYPE => Dispatch::parse(bytes).map(Self::Dispatch),
            other => {
                let known = one_of([VSA_PREDICATE_TYPE, SCAI_PREDICATE_TYPE]);
                Err(unknown("predicateType", known, other))
            }
        }
    }
}

/// A statement of one known kind: what [`Vsa`] and [`Dispatch`] have in common.
pub trait Predicate: Sized {
    /// Decodes a statement of this kind alone.
    ///
    /// # Errors
    /// As [`Statement::parse`].
    fn parse(bytes: &[u8]) -> Result<Self, Refusal>;

    /// The statement's bytes.
    ///
    /// # Errors
    /// `RESULT_STATEMENT_INVALID`, `RESULT_TOO_LARGE` for values that no parser would take back.
    fn to_json(&self) -> Result<Vec<u8>, Refusal>;
}

/// Only what tells statements apart.
#[derive(Deserialize)]
struct Types {
    #[serde(rename = "_type")]
    statement_type: String,
    #[serde(rename = "predicateType")]
    predicate_type: String,
}

/// A statement with the predicate `P`, as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<P> {
    #[serde(rename = "_type")]
    statement_type: String,
    subject: Vec<Descriptor>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: P,
}

impl<P: Serialize + DeserializeOwned> Document<P> {
    fn new(subject: Vec<Descriptor>, predicate_type: &str, predicate: P) -> Self {
        Self {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject,
            predicate_type: predicate_type.to_owned(),
            predicate,
        }
    }

    fn parse(bytes: &[u8], predicate_type: &'static str) -> Result<Self, Refusal> {
        let types: Types = json::parse("statement", bytes, MAX_STATEMENT_BYTES)?;
        if types.statement_type != STATEMENT_TYPE {
            return Err(unknown("_type", one_of([STATEMENT_TYPE]), &types.statement_type));
        }
        if types.predicate_type != predicate_type {
            let known = one_of([predicate_type]);
            return Err(unknown("predicateType", known, &types.predicate_type));
        }
        let document: Self = json::parse("statement", bytes, MAX_STATEMENT_BYTES)?;
        // Repeated keys of a map, white space and other escapes end here.
        if json::write(&document).as_bytes() == bytes {
            return Ok(document);
        }
        let found = "other bytes of the same meaning";
        Err(json::malformed("statement", "the one way of writing it", found))
    }

    fn to_json(&self) -> Result<Vec<u8>, Refusal> {
        let bytes = json::write(self).into_bytes();
        within("statement", bytes.len(), MAX_STATEMENT_BYTES, "bytes")?;
        Ok(bytes)
    }

    /// The digest of the subject of that name.
    fn subject(&self, name: &str) -> Result<Sha256Digest, Refusal> {
        let mut found = self.subject.iter().filter(|subject| subject.name == name);
        match (found.next(), found.next()) {
            (Some(subject), None) => subject.sha256(&format!("subject {name}")),
            _ => Err(invalid("subject", format!("one named {name}"), "none, or more than one")),
        }
    }
}

/// in-toto's ResourceDescriptor, as far as it is used here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Descriptor {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    uri: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    digest: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Descriptor {
    fn named(name: &str, digest: &Sha256Digest) -> Self {
        Self { name: name.to_owned(), digest: sha256_map(digest), ..Self::default() }
    }

    fn sha256(&self, at: &str) -> Result<Sha256Digest, Refusal> {
        sha256_of(&self.digest, at)
    }
}

fn sha256_map(digest: &Sha256Digest) -> BTreeMap<String, String> {
    BTreeMap::from([("sha256".to_owned(), digest.to_string())])
}

/// The digest of a set that has SHA-256 and nothing else.
fn sha256_of(digests: &BTreeMap<String, String>, at: &str) -> Result<Sha256Digest, Refusal> {
    let found = match digests.first_key_value() {
        Some((algorithm, digest)) if algorithm == "sha256" && digests.len() == 1 => digest,
        _ => return Err(invalid(at, "one digest, sha256", "others")),
    };
    found.parse().map_err(|_| invalid(at, "64 lower-case hexadecimal digits", quoted(found)))
}

/// Refuses empty, overlong and unprintable texts.
fn text(at: &str, text: &str) -> Result<(), Refusal> {
    within(at, text.len(), MAX_TEXT_BYTES, "bytes")?;
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(invalid(at, "a text without control characters", quoted(text)));
    }
    Ok(())
}

/// Refuses what is no absolute URI.
fn uri(at: &str, uri: &str) -> Result<(), Refusal> {
    text(at, uri)?;
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|first: char| first.is_ascii_lowercase())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    match uri.split_once(':') {
        Some((scheme, rest))
            if is_scheme(scheme)
                && !rest.is_empty()
                && uri.bytes().all(|b| b.is_ascii_graphic()) =>
        {
            Ok(())
        }
        _ => Err(invalid(at, "an absolute URI", quoted(uri))),
    }
}

fn unknown(at: &str, expected: String, observed: &str) -> Refusal {
    Refusal::new(Code::PredicateUnknown, at, expected, quoted(observed))
}

fn invalid(
    at: impl Into<String>,
    expected: impl Into<String>,
    observed: impl Into<String>,
) -> Refusal {
    Refusal::new(Code::StatementInvalid, at, expected, observed)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
