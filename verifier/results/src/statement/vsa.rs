//! The verification summary of a node.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Descriptor, Document, MAX_REFERENCES, Predicate, invalid, sha256_map, sha256_of, text, uri,
};
use crate::{
    Sha256Digest, SpiffeId, UnixTime,
    refusal::{Refusal, quoted, within},
};

/// Type of the predicate.
pub const VSA_PREDICATE_TYPE: &str = "https://slsa.dev/verification_summary/v1";
/// How every level begins. SLSA's own prefix is not ours to use: no SLSA level is claimed.
pub const LEVEL_PREFIX: &str = "ASSAY_";

const AK_SUBJECT: &str = "ak-public";
const QUOTE_SUBJECT: &str = "quote";

/// What the verifier found about a node, at one time, from one quote.
///
/// # Source
/// SLSA, "Verification Summary Attestation (VSA)", predicate version 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vsa {
    /// SHA-256 of the AK's public area (`TPMT_PUBLIC`, as marshalled).
    pub ak_public: Sha256Digest,
    /// SHA-256 of the quote (`TPMS_ATTEST`, as signed).
    pub quote: Sha256Digest,
    /// The node.
    pub node: SpiffeId,
    /// Who verified.
    pub verifier: VerifierId,
    /// When.
    pub time_verified: UnixTime,
    /// The policy that decided.
    pub policy: PolicyRef,
    /// What it was decided from: the evidence case, the golden sets. At most [`MAX_REFERENCES`].
    pub input_attestations: Vec<Reference>,
    /// What was decided.
    pub result: Verdict,
    /// What the node reached: each begins with [`LEVEL_PREFIX`]; ascending, no two alike; empty where
    /// the node failed.
    pub levels: Vec<String>,
}

/// A verifier and the versions of its parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifierId {
    /// URI that names the verifier, such as its SPIFFE ID.
    pub id: String,
    /// Version by name of the part.
    pub version: BTreeMap<String, String>,
}

/// A policy by name and digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRef {
    /// URI.
    pub uri: String,
    /// SHA-256 of its canonical form.
    pub digest: Sha256Digest,
}

/// A document by name and digest.
pub type Reference = PolicyRef;

/// Whether a node passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It did not.
    #[serde(rename = "FAILED")]
    Failed,
    /// It did.
    #[serde(rename = "PASSED")]
    Passed,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    verifier: VerifierId,
    time_verified: UnixTime,
    resource_uri: SpiffeId,
    policy: ReferenceBody,
    input_attestations: Vec<ReferenceBody>,
    verification_result: Verdict,
    verified_levels: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReferenceBody {
    uri: String,
    digest: BTreeMap<String, String>,
}

impl Vsa {
    fn check(&self) -> Result<(), Refusal> {
        uri("verifier.id", &self.verifier.id)?;
        within("verifier.version", self.verifier.version.len(), MAX_REFERENCES, "parts")?;
        for (name, version) in &self.verifier.version {
            text("verifier.version", name)?;
            text("verifier.version", version)?;
        }
        uri("policy.uri", &self.policy.uri)?;
        let inputs = &self.input_attestations;
        within("inputAttestations", inputs.len(), MAX_REFERENCES, "references")?;
        if inputs.is_empty() {
            return Err(invalid("inputAttestations", "at least the evidence", "none"));
        }
        inputs.iter().try_for_each(|input| uri("inputAttestations.uri", &input.uri))?;
        self.check_levels()
    }

    fn check_levels(&self) -> Result<(), Refusal> {
        within("verifiedLevels", self.levels.len(), MAX_REFERENCES, "levels")?;
        for level in &self.levels {
            text("verifiedLevels", level)?;
            let rest = level.strip_prefix(LEVEL_PREFIX).unwrap_or_default();
            let is_name =
                |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
            if rest.is_empty() || !rest.bytes().all(is_name) {
                let expected = format!("{LEVEL_PREFIX} and a name in upper case");
                return Err(invalid("verifiedLevels", expected, quoted(level)));
            }
        }
        if !self.levels.is_sorted_by(|one, next| one < next) {
            return Err(invalid("verifiedLevels", "ascending, no two alike", "another order"));
        }
        if self.result == Verdict::Failed && !self.levels.is_empty() {
            return Err(invalid("verifiedLevels", "none, as the node failed", "levels"));
        }
        Ok(())
    }
}

impl Predicate for Vsa {
    fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let document = Document::<Body>::parse(bytes, VSA_PREDICATE_TYPE)?;
        if document.subject.len() != 2 {
            let found = format!("{} subjects", document.subject.len());
            return Err(invalid("subject", "the AK and the quote", found));
        }
        let [ak_public, quote] = [AK_SUBJECT, QUOTE_SUBJECT].map(|name| document.subject(name));
        let body = document.predicate;
        let vsa = Self {
            ak_public: ak_public?,
            quote: quote?,
            node: body.resource_uri,
            verifier: body.verifier,
            time_verified: body.time_verified,
            policy: body.policy.parse("policy.digest")?,
            input_attestations: body
                .input_attestations
                .into_iter()
                .map(|input| input.parse("inputAttestations.digest"))
                .collect::<Result<_, _>>()?,
            result: body.verification_result,
            levels: body.verified_levels,
        };
        vsa.check()?;
        // Whatever stands in a descriptor and was not read would be lost, and is refused.
        if vsa.to_json()? != bytes {
            return Err(invalid("statement", "nothing but a VSA's content", "more, or less"));
        }
        Ok(vsa)
    }

    fn to_json(&self) -> Result<Vec<u8>, Refusal> {
        self.check()?;
        let subject = vec![
            Descriptor::named(AK_SUBJECT, &self.ak_public),
            Descriptor::named(QUOTE_SUBJECT, &self.quote),
        ];
        let body = Body {
            verifier: self.verifier.clone(),
            time_verified: self.time_verified,
            resource_uri: self.node.clone(),
            policy: ReferenceBody::new(&self.policy),
            input_attestations: self.input_attestations.iter().map(ReferenceBody::new).collect(),
            verification_result: self.result,
            verified_levels: self.levels.clone(),
        };
        Document::new(subject, VSA_PREDICATE_TYPE, body).to_json()
    }
}

impl ReferenceBody {
    fn new(reference: &PolicyRef) -> Self {
        Self { uri: reference.uri.clone(), digest: sha256_map(&reference.digest) }
    }

    fn parse(self, at: &str) -> Result<PolicyRef, Refusal> {
        Ok(PolicyRef { digest: sha256_of(&self.digest, at)?, uri: self.uri })
    }
}
