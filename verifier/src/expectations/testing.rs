//! Documents for tests.

use appraisal::policy::Manifests;
use proto::digest::{HashAlg, PcrIndex};

use super::Compiled;
use crate::store::DocumentKind;

/// TOML of a golden set, or of a part where there is no pool; `more` are its other lines.
pub(crate) fn golden_text(name: &str, version: u64, pool: Option<&str>, more: &str) -> String {
    let pool = pool.map(|pool| format!("pool = {pool:?}\n")).unwrap_or_default();
    let value = "11".repeat(32);
    format!(
        "schema = \"assay.golden/v1\"\nname = {name:?}\nversion = {version}\n{pool}{more}\n\
         [[pcr]]\nbank = \"sha256\"\nindex = 4\naccept = [{{ value = \"{value}\" }}]\n"
    )
}

/// TOML of a policy.
pub(crate) fn policy_text(name: &str, version: u64, pools: &[&str]) -> String {
    format!(
        "schema = \"assay.policy/v1\"\nname = {name:?}\nversion = {version}\npools = {pools:?}\n\
         [[rule]]\nname = \"no-debug\"\nmessage = \"boot without debugging\"\nexpr = \"!boot.debug_mode\"\n"
    )
}

fn compiled(kind: DocumentKind, text: &str) -> Compiled {
    let tool_pcr = PcrIndex::new(14).expect("a PCR");
    let sha256 = HashAlg::Sha256.hash(&[text.as_bytes()]);
    Compiled::parse(kind, text, false, sha256, tool_pcr, &Manifests::new())
        .expect("a good document")
        .expect("rules")
}

/// An active golden set, or a part.
pub(crate) fn golden(name: &str, version: u64, pool: Option<&str>) -> Compiled {
    compiled(DocumentKind::Golden, &golden_text(name, version, pool, ""))
}

/// As [`golden`], which includes parts.
pub(crate) fn including(name: &str, version: u64, pool: &str, parts: &[&str]) -> Compiled {
    let more = format!("include = {parts:?}");
    compiled(DocumentKind::Golden, &golden_text(name, version, Some(pool), &more))
}

/// An active policy.
pub(crate) fn policy(name: &str, version: u64, pools: &[&str]) -> Compiled {
    compiled(DocumentKind::Policy, &policy_text(name, version, pools))
}

/// As it is while it is staged.
pub(crate) fn staged(document: Compiled) -> Compiled {
    Compiled { is_staged: true, ..document }
}
