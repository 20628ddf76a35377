//! JSON Schemas of the documents, as the repository publishes them.

use crate::store::DocumentKind;

/// The published schema of a kind of document.
#[must_use]
pub const fn published(kind: DocumentKind) -> &'static str {
    match kind {
        DocumentKind::Golden => include_str!("../../../docs/schemas/golden.v1.json"),
        DocumentKind::Policy => include_str!("../../../docs/schemas/policy.v1.json"),
        DocumentKind::Keys => include_str!("../../../docs/schemas/keys.v1.json"),
    }
}

/// The schema that the document's type gives: what is published, if that is current.
#[cfg(feature = "schema")]
#[must_use]
pub fn generated(kind: DocumentKind) -> String {
    use appraisal::policy::json_schema::{golden_set, of, site_policy};

    use crate::signatures::{KEYS_SCHEMA, KeyRingDocument};

    let schema = match kind {
        DocumentKind::Golden => golden_set(),
        DocumentKind::Policy => site_policy(),
        DocumentKind::Keys => of::<KeyRingDocument>(KEYS_SCHEMA),
    };
    format!("{schema:#}\n")
}
