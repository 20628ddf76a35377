//! Where these statements belong in SLSA provenance v1, for builders that write provenance.
//!
//! # Source
//! SLSA, "Build: Provenance", predicate `https://slsa.dev/provenance/v1`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Descriptor, Dispatch, sha256_map};
use crate::{Sha256Digest, json};

/// Parts for a provenance predicate, as JSON: to be merged into `buildDefinition` and `runDetails`.
///
/// It has the members of the predicate that they belong to: `buildDefinition.internalParameters.assay`,
/// `buildDefinition.resolvedDependencies`, `runDetails.builder.builderDependencies` and
/// `runDetails.byproducts`.
#[must_use]
pub fn provenance_parts(dispatch: &Dispatch, dispatch_digest: &Sha256Digest) -> String {
    let statement = |name: &str, digest: &Sha256Digest| Part {
        descriptor: Descriptor {
            name: name.to_owned(),
            digest: sha256_map(digest),
            ..Descriptor::default()
        },
        media_type: Some(crate::dsse::PAYLOAD_TYPE),
    };
    let node = BTreeMap::from([
        ("nodeId", dispatch.node.to_string()),
        ("permitId", dispatch.permit_id.clone()),
        ("pool", dispatch.pool.clone()),
        ("quoteSha256", dispatch.quote.to_string()),
    ]);
    let tools = dispatch.tools.iter();
    json::write(&Parts {
        build_definition: BuildDefinition {
            internal_parameters: BTreeMap::from([("assay", node)]),
            resolved_dependencies: tools
                .map(|tool| Part { descriptor: tool.descriptor(), media_type: None })
                .collect(),
        },
        run_details: RunDetails {
            builder: Builder { builder_dependencies: vec![statement("assay-vsa", &dispatch.vsa)] },
            byproducts: vec![statement("assay-dispatch", dispatch_digest)],
        },
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Parts {
    build_definition: BuildDefinition,
    run_details: RunDetails,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BuildDefinition {
    internal_parameters: BTreeMap<&'static str, BTreeMap<&'static str, String>>,
    resolved_dependencies: Vec<Part>,
}

#[derive(Serialize)]
struct RunDetails {
    builder: Builder,
    byproducts: Vec<Part>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Builder {
    builder_dependencies: Vec<Part>,
}

#[derive(Serialize)]
struct Part {
    #[serde(flatten)]
    descriptor: Descriptor,
    #[serde(rename = "mediaType", skip_serializing_if = "Option::is_none")]
    media_type: Option<&'static str>,
}
