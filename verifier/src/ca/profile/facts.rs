//! What a node certificate says about the appraisal that it rests on.

use const_oid::ObjectIdentifier;
use der::{Decode, Encode, Sequence, asn1::OctetString};

/// The node attestation extension.
///
/// # Source
/// docs/adr/0001-oid-arc.md.
pub const ATTESTATION_EXTENSION: ObjectIdentifier = ObjectIdentifier::new_unwrap(
    "1.2.840.113556.1.8000.2554.48499.12167.14529.20271.40369.9916843.2229550.1",
);

/// What the certificate says about the appraisal that it rests on.
///
/// # Format
/// `AssayAttestation` of docs/adr/0001-oid-arc.md, version 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// SHA-256 of the evidence as recorded.
    pub evidence_digest: [u8; 32],
    /// Version of the active golden set.
    pub policy_version: String,
    /// SHA-256 of the golden set.
    pub reference_set_digest: [u8; 32],
    /// `resetCount` of the quote.
    pub reset_count: u32,
    /// `restartCount` of the quote.
    pub restart_count: u32,
    /// Identifier of the decision, for `verifier replay`.
    pub decision_id: String,
}

#[derive(Sequence)]
struct AttestationValue {
    version: u8,
    evidence_digest: OctetString,
    policy_version: String,
    reference_set_digest: OctetString,
    reset_count: u32,
    restart_count: u32,
    decision_id: String,
}

impl NodeFacts {
    /// DER of the extension's value.
    ///
    /// # Errors
    /// [`der::Error`] if a text is longer than DER can say, never in practice.
    pub fn to_der(&self) -> Result<Vec<u8>, der::Error> {
        AttestationValue {
            version: 1,
            evidence_digest: OctetString::new(self.evidence_digest)?,
            policy_version: self.policy_version.clone(),
            reference_set_digest: OctetString::new(self.reference_set_digest)?,
            reset_count: self.reset_count,
            restart_count: self.restart_count,
            decision_id: self.decision_id.clone(),
        }
        .to_der()
    }

    /// Decodes the extension's value.
    ///
    /// # Errors
    /// [`der::Error`] for another version, a digest that is not 32 bytes, or anything not DER.
    pub fn from_der(der: &[u8]) -> Result<Self, der::Error> {
        let value = AttestationValue::from_der(der)?;
        let digest = |octets: &OctetString| {
            <[u8; 32]>::try_from(octets.as_bytes())
                .map_err(|_| der::Error::from(der::Tag::OctetString.length_error()))
        };
        if value.version != 1 {
            return Err(der::Tag::Integer.value_error().into());
        }
        Ok(Self {
            evidence_digest: digest(&value.evidence_digest)?,
            policy_version: value.policy_version,
            reference_set_digest: digest(&value.reference_set_digest)?,
            reset_count: value.reset_count,
            restart_count: value.restart_count,
            decision_id: value.decision_id,
        })
    }

    /// The facts in a certificate, if it has them.
    ///
    /// # Errors
    /// [`der::Error`] if the certificate or the extension does not decode.
    pub fn from_certificate(der: &[u8]) -> Result<Option<Self>, der::Error> {
        let certificate = x509_cert::Certificate::from_der(der)?;
        certificate
            .tbs_certificate()
            .extensions()
            .into_iter()
            .flatten()
            .find(|extension| extension.extn_id == ATTESTATION_EXTENSION)
            .map(|extension| Self::from_der(extension.extn_value.as_bytes()))
            .transpose()
    }
}
