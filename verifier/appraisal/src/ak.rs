//! The attestation key: restricted, fixed to its TPM, strong; then bound to its EK by activation.

use proto::{
    reason::ReasonCode,
    tpm::{
        constants::RH_ENDORSEMENT,
        name::Name,
        public::{ObjectAttributes, Public},
    },
};

use crate::{
    verdict::{Denial, Finding},
    verification_key::{KeyError, VerificationKey},
};

/// An attestation key whose quotes can only be made by a TPM.
///
/// # Proves
/// The public area demands `fixedTPM`, `fixedParent`, `sensitiveDataOrigin`, `restricted` and `sign`, forbids
/// `decrypt`, and fixes one strong signing scheme.
///
/// # Does not prove
/// That a TPM holds a key with this public area: see [`BoundAk`].
///
/// # Errors
/// `AK_NOT_RESTRICTED`, `AK_ATTRIBUTES_INVALID`, `AK_SCHEME_INVALID`, `AK_ALGORITHM_NOT_ALLOWED`,
/// `AK_KEY_WEAK`.
///
/// # Source
/// TPM 2.0 Library Part 1, "Restricted signing keys"; TCG "TPM 2.0 Keys for Device Identity and Attestation".
#[derive(Clone, Debug)]
pub struct RestrictedAk {
    public: Public,
    name: Name,
    key: VerificationKey,
}

/// Attributes an AK must have besides restricted and sign, with their names.
const REQUIRED: [(u32, &str); 3] = [
    (ObjectAttributes::FIXED_TPM, "fixedTPM"),
    (ObjectAttributes::FIXED_PARENT, "fixedParent"),
    (ObjectAttributes::SENSITIVE_DATA_ORIGIN, "sensitiveDataOrigin"),
];

impl RestrictedAk {
    /// Judges an AK's public area.
    ///
    /// # Errors
    /// See the type.
    pub fn verify(public: &Public) -> Result<Self, Denial> {
        let attributes = public.attributes();
        for (bit, name) in
            [(ObjectAttributes::RESTRICTED, "restricted"), (ObjectAttributes::SIGN, "sign")]
        {
            if !attributes.has(bit) {
                return Err(deny(ReasonCode::AkNotRestricted, format!("{name} set"), "clear"));
            }
        }
        for (bit, name) in REQUIRED {
            if !attributes.has(bit) {
                return Err(deny(ReasonCode::AkAttributesInvalid, format!("{name} set"), "clear"));
            }
        }
        if attributes.has(ObjectAttributes::DECRYPT) {
            return Err(deny(ReasonCode::AkAttributesInvalid, "decrypt clear", "set"));
        }
        let key = VerificationKey::from_public(public).map_err(|error| match error {
            KeyError::Algorithm => deny(
                ReasonCode::AkAlgorithmNotAllowed,
                "P-256 with SHA-256, P-384 with SHA-384, or RSA-2048/3072/4096 with SHA-256/384",
                format!("{:?}", public.scheme()),
            ),
            KeyError::Scheme => deny(
                ReasonCode::AkSchemeInvalid,
                "ECDSA, RSASSA or RSAPSS",
                format!("{:?}", public.scheme()),
            ),
            KeyError::Weak => deny(ReasonCode::AkKeyWeak, "a sound public key", error.to_string()),
        })?;
        Ok(Self { name: public.name(), public: public.clone(), key })
    }

    /// The public area.
    #[must_use]
    pub const fn public(&self) -> &Public {
        &self.public
    }

    /// The Name.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// Qualified Name as a child of this EK.
    #[must_use]
    pub fn qualified_name(&self, ek: &Public) -> Name {
        let parent = Name::qualified_primary(RH_ENDORSEMENT, ek.name_alg(), &ek.name());
        Name::qualified_child(&parent, self.public.name_alg(), &self.name)
    }
}

/// An AK that was shown to live in the same TPM as its EK, as a child of that EK.
///
/// # Proves
/// The TPM of the EK recovered a secret that was wrapped for exactly this AK's Name, in this exchange or in the
/// one that the store vouches for.
///
/// # Invariants
/// INV-1, INV-3 (docs/THREAT_MODEL.md).
#[derive(Clone, Debug)]
pub struct BoundAk {
    ak: RestrictedAk,
    qualified_name: Name,
}

impl BoundAk {
    /// Only [`crate::activation::ActivationChallenge::redeem`] calls this.
    pub(crate) fn activated(ak: RestrictedAk, qualified_name: Name) -> Self {
        Self { ak, qualified_name }
    }

    /// The binding that the store recorded after an activation: the one other door.
    ///
    /// The public area is judged again, so that a rule tightened since then holds for old records too.
    ///
    /// # Errors
    /// As [`RestrictedAk::verify`].
    pub fn assert_from_store(ak_public: &Public, qualified_name: Name) -> Result<Self, Denial> {
        Ok(Self { ak: RestrictedAk::verify(ak_public)?, qualified_name })
    }

    /// The AK.
    #[must_use]
    pub const fn ak(&self) -> &RestrictedAk {
        &self.ak
    }

    /// What `qualifiedSigner` must be in everything that this AK signs.
    #[must_use]
    pub const fn qualified_name(&self) -> &Name {
        &self.qualified_name
    }

    pub(crate) const fn key(&self) -> &VerificationKey {
        &self.ak.key
    }
}

fn deny(code: ReasonCode, expected: impl Into<String>, observed: impl Into<String>) -> Denial {
    Finding::new(code, "attestation key", expected, observed).into()
}
