//! The endorsement roots, CRLs and EK policy in force: one immutable set, addressed by its digest.

use appraisal::{
    ek::{AllowListed, EkPolicy, EkPresented, Profile, TrustedEk, verify_ek},
    verdict::Denial,
    x509::{
        Certificate, Crl, EndorsementRoots, ExpiredIntermediates, RevocationRequirement,
        RootsBuilder,
    },
};
use prost::Message;
use proto::{
    digest::{Digest, HashAlg},
    evidence::Hello,
    pb,
};
use serde::{Deserialize, Serialize};

use crate::store::{Endorsement, EndorsementKind};

/// How EKs are judged, besides by whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EkRules {
    /// Closeness to the profiles.
    pub profile: Profile,
    /// What is demanded of CRLs.
    pub revocation: RevocationRequirement,
    /// What becomes of intermediates that expired after they issued the EK certificate.
    pub expired_intermediates: ExpiredIntermediates,
}

/// Roots, intermediates, CRLs and rules, with the bytes that a recorded case refers to.
#[derive(Debug)]
pub struct EndorsementSet {
    roots: EndorsementRoots,
    rules: EkRules,
    object: Vec<u8>,
    digest: Digest,
    rejected: Vec<(Digest, String)>,
}

impl EndorsementSet {
    /// The set of what the store holds. What cannot be used is left out and named.
    #[must_use]
    pub fn new(endorsements: &[Endorsement], rules: EkRules) -> Self {
        let mut items: Vec<(&str, &Endorsement)> =
            endorsements.iter().map(|item| (item.kind.as_str(), item)).collect();
        items.sort_by_key(|(kind, item)| (*kind, item.sha256));
        let message = pb::EndorsementObject {
            items: items
                .iter()
                .map(|(kind, item)| pb::RootItem {
                    der: item.der.clone(),
                    label: String::new(),
                    kind: (*kind).to_owned(),
                })
                .collect(),
            rules: serde_json::to_string(&rules).unwrap_or_default(),
        };
        Self::from_message(&message, rules)
    }

    /// The set that a recorded case refers to.
    ///
    /// # Errors
    /// [`EndorsementObjectError`] if the bytes are not such a set.
    pub fn from_object(bytes: &[u8]) -> Result<Self, EndorsementObjectError> {
        let message = pb::EndorsementObject::decode(bytes).map_err(|_| EndorsementObjectError)?;
        let rules = serde_json::from_str(&message.rules).map_err(|_| EndorsementObjectError)?;
        Ok(Self::from_message(&message, rules))
    }

    fn from_message(message: &pb::EndorsementObject, rules: EkRules) -> Self {
        let object = message.encode_to_vec();
        let digest = HashAlg::Sha256.hash(&[&object]);
        let mut builder = RootsBuilder::new();
        let mut rejected = Vec::new();
        builder.expired_intermediates(rules.expired_intermediates);
        for item in &message.items {
            let sha256 = HashAlg::Sha256.hash(&[&item.der]);
            let added = match item.kind.parse() {
                Ok(EndorsementKind::Root) => Certificate::parse(&item.der)
                    .map_err(|e| e.to_string())
                    .and_then(|c| builder.anchor(c).map_err(|e| e.to_string())),
                Ok(EndorsementKind::Intermediate) => Certificate::parse(&item.der)
                    .map_err(|e| e.to_string())
                    .and_then(|c| builder.intermediate(c).map_err(|e| e.to_string())),
                Ok(EndorsementKind::Crl) => Crl::parse(&item.der)
                    .map_err(|e| e.to_string())
                    .and_then(|c| builder.crl(c).map_err(|e| e.to_string())),
                Err(error) => Err(error.to_string()),
            };
            if let Err(why) = added {
                rejected.push((sha256, why));
            }
        }
        let (roots, refused_crls) = builder.build();
        rejected.extend(refused_crls.into_iter().map(|(crl, why)| (crl.sha256(), why.to_string())));
        Self { roots, rules, object, digest, rejected }
    }

    /// SHA-256 of [`EndorsementSet::object`].
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The bytes that a recorded case refers to.
    #[must_use]
    pub fn object(&self) -> &[u8] {
        &self.object
    }

    /// The roots.
    #[must_use]
    pub const fn roots(&self) -> &EndorsementRoots {
        &self.roots
    }

    /// What the store holds and this set does not use, with the reason.
    #[must_use]
    pub fn rejected(&self) -> &[(Digest, String)] {
        &self.rejected
    }

    /// Judges the EK of a Hello.
    ///
    /// # Errors
    /// The denial of [`verify_ek`].
    pub fn verify(
        &self,
        hello: &Hello,
        allow_listed: AllowListed,
        now_unix_s: i64,
    ) -> Result<TrustedEk, Denial> {
        let chain: Vec<&[u8]> = hello.ek_chain.iter().map(Vec::as_slice).collect();
        verify_ek(
            &EkPresented {
                public: &hello.ek_public,
                certificate: hello.ek_certificate.as_deref(),
                chain: &chain,
            },
            &EkPolicy {
                roots: &self.roots,
                allow_listed,
                now_unix_s,
                profile: self.rules.profile,
                revocation: self.rules.revocation,
            },
        )
    }
}

/// Bytes that are not an endorsement set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the recorded endorsement set is damaged")]
pub struct EndorsementObjectError;

/// The DER in bytes that are DER or PEM.
#[must_use]
pub fn der_of(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.first() == Some(&0x30) {
        return Some(bytes.to_vec());
    }
    let text = std::str::from_utf8(bytes).ok()?;
    let (_, der) = der::pem::decode_vec(text.trim().as_bytes()).ok()?;
    Some(der)
}
