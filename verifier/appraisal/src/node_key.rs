//! The node key: made in this TPM in this boot, certified by the bound AK, unable to leave.

use proto::{
    binding::{Challenge, QualifyingData, VerifierId},
    digest::HashAlg,
    evidence::NodeKeyEvidence,
    reason::ReasonCode,
    tpm::{
        attest::{Attest, Attested, ClockInfo},
        constants::{RH_NULL, TPM_GENERATED},
        name::Name,
        public::{Curve, KeyKind, ObjectAttributes, Public, Scheme, SigningScheme},
    },
};
use subtle::ConstantTimeEq;

use crate::{
    ak::BoundAk,
    quote::attested_name,
    verdict::{Denial, Finding},
    verification_key::VerificationKey,
};

/// A P-256 key that lives in the attested TPM until its next reset.
///
/// # Proves
/// The bound AK certified, for this challenge, an object with exactly this public area, under a primary of the
/// NULL hierarchy: the key cannot be duplicated and dies with a TPM reset.
///
/// # Errors
/// `NODE_KEY_UNSUPPORTED`, `NODE_KEY_ATTRIBUTES_INVALID`, `NODE_KEY_CERTIFY_SIGNATURE_INVALID`,
/// `NODE_KEY_CERTIFY_WRONG_TYPE`, `NODE_KEY_NAME_MISMATCH`, `NODE_KEY_HIERARCHY_INVALID`,
/// `NODE_KEY_QUALIFYING_DATA_MISMATCH`, `NODE_KEY_COUNTERS_MISMATCH`.
///
/// # Source
/// TPM 2.0 Library Part 3, "TPM2_Certify"; Part 2, "TPMS_CERTIFY_INFO".
///
/// # Invariants
/// INV-4 (docs/THREAT_MODEL.md).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertifiedNodeKey {
    public: Public,
}

/// Attributes a node key must have.
const REQUIRED: [(u32, &str); 4] = [
    (ObjectAttributes::FIXED_TPM, "fixedTPM"),
    (ObjectAttributes::FIXED_PARENT, "fixedParent"),
    (ObjectAttributes::SENSITIVE_DATA_ORIGIN, "sensitiveDataOrigin"),
    (ObjectAttributes::SIGN, "sign"),
];
/// Attributes a node key must not have.
const FORBIDDEN: [(u32, &str); 3] = [
    (ObjectAttributes::RESTRICTED, "restricted"),
    (ObjectAttributes::DECRYPT, "decrypt"),
    (ObjectAttributes::ADMIN_WITH_POLICY, "adminWithPolicy"),
];

impl CertifiedNodeKey {
    /// Judges the key and its certification.
    ///
    /// `counters` are those of the quote in the same evidence.
    ///
    /// # Errors
    /// See the type.
    pub fn verify(
        ak: &BoundAk,
        evidence: &NodeKeyEvidence,
        challenge: &Challenge,
        verifier: &VerifierId,
        quote_clock: ClockInfo,
    ) -> Result<Self, Denial> {
        judge_public(&evidence.public)?;
        let signed = &evidence.certify;
        ak.key().verify(&signed.untrusted_attest, &signed.signature).map_err(|error| {
            deny(
                ReasonCode::NodeKeyCertifySignatureInvalid,
                format!("a signature by the AK with Name {}", ak.ak().name()),
                error.to_string(),
            )
        })?;
        let attest = Attest::decode(&signed.untrusted_attest)
            .map_err(|error| deny(error.code(), "a TPMS_ATTEST", error.to_string()))?;
        let (name, qualified_name) = match &attest.attested {
            Attested::Certify { name, qualified_name } if attest.magic == TPM_GENERATED => {
                (*name, *qualified_name)
            }
            other => {
                return Err(deny(
                    ReasonCode::NodeKeyCertifyWrongType,
                    format!("TPM_ST_ATTEST_CERTIFY with magic {TPM_GENERATED:#010x}"),
                    format!("{} with magic {:#010x}", attested_name(other), attest.magic),
                ));
            }
        };
        if attest.qualified_signer != ak.qualified_name().as_bytes() {
            return Err(deny(
                ReasonCode::NodeKeyCertifySignatureInvalid,
                format!("qualifiedSigner {}", ak.qualified_name()),
                hex::encode(attest.qualified_signer),
            ));
        }
        let expected = evidence.public.name();
        if name != expected.as_bytes() {
            return Err(deny(
                ReasonCode::NodeKeyNameMismatch,
                expected.to_string(),
                hex::encode(name),
            ));
        }
        let parent = &evidence.parent_public;
        let parent_qualified = Name::qualified_primary(RH_NULL, parent.name_alg(), &parent.name());
        let expected_qualified =
            Name::qualified_child(&parent_qualified, evidence.public.name_alg(), &expected);
        if qualified_name != expected_qualified.as_bytes() {
            return Err(deny(
                ReasonCode::NodeKeyHierarchyInvalid,
                format!("qualifiedName {expected_qualified}"),
                hex::encode(qualified_name),
            ));
        }
        let data = QualifyingData::for_node_key(challenge, verifier, &expected);
        if !bool::from(attest.extra_data.ct_eq(data.as_bytes())) {
            return Err(deny(
                ReasonCode::NodeKeyQualifyingDataMismatch,
                hex::encode(data.as_bytes()),
                hex::encode(attest.extra_data),
            ));
        }
        let counters = |clock: ClockInfo| (clock.reset_count, clock.restart_count);
        if counters(attest.clock_info) != counters(quote_clock) {
            return Err(deny(
                ReasonCode::NodeKeyCountersMismatch,
                format!("{:?}", counters(quote_clock)),
                format!("{:?}", counters(attest.clock_info)),
            ));
        }
        Ok(Self { public: evidence.public.clone() })
    }

    /// The key that the store recorded for this boot: the one other door.
    ///
    /// # Errors
    /// As for a key just presented, without its certification.
    pub fn assert_from_store(public: &Public) -> Result<Self, Denial> {
        judge_public(public)?;
        Ok(Self { public: public.clone() })
    }

    /// The certified public area.
    #[must_use]
    pub const fn public(&self) -> &Public {
        &self.public
    }
}

fn judge_public(public: &Public) -> Result<(), Denial> {
    let KeyKind::Ecc { curve: Curve::P256, .. } = public.key() else {
        return Err(deny(ReasonCode::NodeKeyUnsupported, "a P-256 key", "another type or curve"));
    };
    // The node key signs TLS transcripts: a scheme is either left open or ECDSA with SHA-256.
    let scheme = SigningScheme::Ecdsa(HashAlg::Sha256);
    if !(public.scheme() == Scheme::Null || public.scheme() == Scheme::Signing(scheme))
        || VerificationKey::with_scheme(public, scheme).is_err()
    {
        return Err(deny(
            ReasonCode::NodeKeyUnsupported,
            "a P-256 key on its curve, scheme null or ECDSA with SHA-256",
            format!("{:?}", public.scheme()),
        ));
    }
    let attributes = public.attributes();
    for (bit, name) in REQUIRED {
        if !attributes.has(bit) {
            return Err(deny(ReasonCode::NodeKeyAttributesInvalid, format!("{name} set"), "clear"));
        }
    }
    for (bit, name) in FORBIDDEN {
        if attributes.has(bit) {
            return Err(deny(ReasonCode::NodeKeyAttributesInvalid, format!("{name} clear"), "set"));
        }
    }
    Ok(())
}

fn deny(code: ReasonCode, expected: impl Into<String>, observed: impl Into<String>) -> Denial {
    Finding::new(code, "node key", expected, observed).into()
}
