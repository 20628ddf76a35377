//! Site policy: rules of the site over the claims, as data.
//!
//! ```text
//! TOML ─parse─▶ SitePolicy ─┐
//! Claims, NodeRecord ─of─▶ PolicyInput ─judge─▶ findings
//! ```
//! A policy only narrows. Each rule must be exactly `true`; false, a missing value, an overflow, a spent budget are
//! findings. docs/POLICY.md has the language, the fields and examples.

mod cases;
mod cel;
mod compile;
mod document;
mod input;
mod judge;
mod limits;
mod schema;
mod value;

use std::{collections::BTreeMap, sync::Arc};

use proto::digest::Digest;

pub use self::{
    cases::{CaseResult, MAX_CASES_BYTES, run_cases},
    document::{KernelDocument, RuleDocument, RuleScope, SCHEMA, SitePolicyDocument},
    input::PolicyInput,
    judge::{Explanation, Outcome},
    limits::MAX_POLICY_BYTES,
    schema::{SchemaField, schema},
};

/// A site policy that passed every check of the document, compiled.
///
/// # Proves
/// Every rule is within the limits, reads only fields that exist, and is a condition.
#[derive(Clone, Debug)]
pub struct SitePolicy {
    name: String,
    version: u64,
    digest: Digest,
    pools: Vec<String>,
    kernels: BTreeMap<String, Arc<str>>,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    name: String,
    message: String,
    program: cel::Program,
    at: RuleScope,
}

impl SitePolicy {
    /// Name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
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

    /// Whether it judges nodes of this pool.
    #[must_use]
    pub fn applies_to(&self, pool: &str) -> bool {
        self.pools.is_empty() || self.pools.iter().any(|named| named == pool)
    }

    /// Names of its rules, in order.
    pub fn rules(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.name.as_str())
    }
}
