//! Which keys of a ring signed a document, and whether they are enough.

use std::fmt;

use proto::{
    digest::{Digest, HashAlg},
    reason::ReasonCode,
};

use super::{Envelope, KeyName, KeyRing, Pae, PayloadType, Signature, Signer};

/// Most bytes hashed for one approval: a signature that names no key is tried with each, and an
/// Ed25519 signature hashes the whole message. 64 passes over the largest payload, some ten seconds;
/// for payloads up to 1 MiB, 64 signatures are tried with all of 32 keys.
const MAX_HASHED_BYTES: usize = 64 * super::MAX_PAYLOAD_BYTES;

/// A document is approved by the security keys.
///
/// # Proves
/// At least `threshold` distinct keys of the ring signed exactly this payload with this type.
///
/// # Does not prove
/// That the document is newer than another: see its version; nor when it was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    ring: KeyName,
    ring_version: u64,
    payload_type: PayloadType,
    payload_digest: Digest,
    signers: Vec<Signer>,
    uncounted: Vec<Uncounted>,
}

impl Approval {
    /// Name of the ring whose keys signed.
    #[must_use]
    pub const fn ring(&self) -> &KeyName {
        &self.ring
    }

    /// Version of that ring.
    #[must_use]
    pub const fn ring_version(&self) -> u64 {
        self.ring_version
    }

    /// What was signed.
    #[must_use]
    pub const fn payload_type(&self) -> PayloadType {
        self.payload_type
    }

    /// SHA-256 of the payload.
    #[must_use]
    pub const fn payload_digest(&self) -> &Digest {
        &self.payload_digest
    }

    /// The distinct keys that signed, in the order of their first signatures.
    #[must_use]
    pub fn signers(&self) -> &[Signer] {
        &self.signers
    }

    /// Signatures that made no difference.
    #[must_use]
    pub fn uncounted(&self) -> &[Uncounted] {
        &self.uncounted
    }
}

/// A signature that does not count, which is no error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Uncounted {
    /// The ring has no key of this identifier.
    UnknownKey {
        /// Position in the envelope, from 0.
        position: usize,
        /// The identifier.
        untrusted_keyid: String,
    },
    /// It names no key, and verifies with none of the ring.
    NoKey {
        /// Position in the envelope, from 0.
        position: usize,
    },
    /// Another signature by a key that signed already.
    Repeated {
        /// Position in the envelope, from 0.
        position: usize,
        /// Whose key.
        name: KeyName,
    },
}

impl fmt::Display for Uncounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey { position, untrusted_keyid } => {
                write!(f, "signatures[{position}] by an unknown key, {untrusted_keyid:?}")
            }
            Self::NoKey { position } => {
                write!(f, "signatures[{position}] names no key and is by none that is known")
            }
            Self::Repeated { position, name } => {
                write!(f, "signatures[{position}] by {name}, who signed already")
            }
        }
    }
}

/// Why a document is not approved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApprovalError {
    /// The envelope is around another kind of document.
    #[error("the envelope is for {found:?}, not for {expected}")]
    PayloadType {
        /// What was expected.
        expected: PayloadType,
        /// What the envelope says.
        found: String,
    },
    /// The envelope is around another document.
    #[error(
        "the envelope is around another document: its payload has the SHA-256 {found}, expected \
         {expected}"
    )]
    Payload {
        /// Digest of the payload that was expected.
        expected: Box<Digest>,
        /// Digest of the envelope's.
        found: Box<Digest>,
    },
    /// A signature that names a key of the ring and does not verify with it.
    #[error("signatures[{position}] is not a signature by {name}, whose key it names")]
    SignatureInvalid {
        /// Position in the envelope, from 0.
        position: usize,
        /// Whose key it names.
        name: KeyName,
    },
    /// Too few keys signed, or none.
    #[error(
        "{} of {threshold} signatures: missing {}{}",
        signers.len(), missing_words(missing, threshold.saturating_sub(signers.len())),
        uncounted_words(uncounted)
    )]
    BelowThreshold {
        /// How many must sign.
        threshold: usize,
        /// Who did.
        signers: Vec<Signer>,
        /// Who did not, in the ring's order.
        missing: Vec<KeyName>,
        /// Signatures that do not count.
        uncounted: Vec<Uncounted>,
    },
    /// Too many signatures that name no key, over too large a document.
    #[error("too many signatures without a keyid for a document of {payload_bytes} bytes")]
    TooMuchWork {
        /// Size of the payload.
        payload_bytes: usize,
    },
}

impl ApprovalError {
    /// The reason code.
    #[must_use]
    pub const fn code(&self) -> ReasonCode {
        match self {
            Self::PayloadType { .. } | Self::Payload { .. } | Self::SignatureInvalid { .. } => {
                ReasonCode::GoldenSignatureInvalid
            }
            Self::BelowThreshold { .. } => ReasonCode::GoldenSignaturesMissing,
            Self::TooMuchWork { .. } => ReasonCode::AdminRequestInvalid,
        }
    }
}

/// `alice`, `one of alice, bob`, `2 of alice, bob, carol`, `alice and bob`.
fn missing_words(missing: &[KeyName], needed: usize) -> String {
    let names: Vec<&str> = missing.iter().map(KeyName::as_str).collect();
    match (names.as_slice(), needed) {
        ([only], _) => (*only).to_owned(),
        ([others @ .., last], _) if needed == missing.len() => {
            format!("{} and {last}", others.join(", "))
        }
        (_, 1) => format!("one of {}", names.join(", ")),
        _ => format!("{needed} of {}", names.join(", ")),
    }
}

fn uncounted_words(uncounted: &[Uncounted]) -> String {
    if uncounted.is_empty() {
        return String::new();
    }
    let each: Vec<String> = uncounted.iter().map(ToString::to_string).collect();
    format!("; not counted: {}", each.join("; "))
}

/// Why a key ring may not follow another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SuccessorError {
    /// It is another ring.
    #[error("the key ring is {found}, not {expected}")]
    Name {
        /// Name of the ring in force.
        expected: KeyName,
        /// Name of the next.
        found: KeyName,
    },
    /// Its version is not higher.
    #[error("the key ring has version {next}, which is not above {current}")]
    VersionNotNewer {
        /// Version of the ring in force.
        current: u64,
        /// Version of the next.
        next: u64,
    },
    /// The ring in force does not approve it.
    #[error("the keys in force do not approve it")]
    Current(#[source] ApprovalError),
    /// Its own keys do not approve it: nobody showed that its threshold can be met.
    #[error("the new keys do not approve it")]
    Next(#[source] ApprovalError),
}

impl SuccessorError {
    /// The reason code.
    #[must_use]
    pub const fn code(&self) -> ReasonCode {
        match self {
            Self::Name { .. } => ReasonCode::AdminRequestInvalid,
            Self::VersionNotNewer { .. } => ReasonCode::GoldenVersionNotNewer,
            Self::Current(error) | Self::Next(error) => error.code(),
        }
    }
}

impl KeyRing {
    /// Whether enough keys signed `payload`, which the caller made from the document at hand.
    ///
    /// Distinct keys of this ring count, once each. A `keyid` is a hint: a signature that names a key
    /// of the ring is checked with that key only, one that names none with every key, one that names
    /// another is passed over.
    ///
    /// # Errors
    /// [`ApprovalError`]. One false signature under the name of a key of the ring is an error even
    /// where the others would do: somebody's key is misused, or the envelope was damaged.
    ///
    /// # Source
    /// DSSE `protocol.md`, "Multi-signature Verification", which would skip the false signature.
    pub fn verify(
        &self,
        envelope: &Envelope,
        payload_type: PayloadType,
        payload: &[u8],
    ) -> Result<Approval, ApprovalError> {
        if envelope.untrusted_payload_type() != payload_type.as_str() {
            return Err(ApprovalError::PayloadType {
                expected: payload_type,
                found: envelope.untrusted_payload_type().to_owned(),
            });
        }
        let payload_digest = HashAlg::Sha256.hash(&[payload]);
        if envelope.untrusted_payload() != payload {
            let found = Box::new(HashAlg::Sha256.hash(&[envelope.untrusted_payload()]));
            return Err(ApprovalError::Payload { expected: Box::new(payload_digest), found });
        }
        let pae = Pae::new(payload_type.as_str(), payload);
        let mut tries = Tries::over(&pae);
        let mut signers: Vec<Signer> = Vec::new();
        let mut uncounted = Vec::new();
        for (position, signature) in envelope.signatures().iter().enumerate() {
            let too_much = ApprovalError::TooMuchWork { payload_bytes: payload.len() };
            match self.signer(position, signature, &pae, &mut tries) {
                Found::Signer(signer) => {
                    if signers.iter().any(|earlier| earlier.id() == signer.id()) {
                        let name = signer.name().clone();
                        uncounted.push(Uncounted::Repeated { position, name });
                    } else {
                        signers.push(signer);
                    }
                }
                Found::Nobody(why) => uncounted.push(why),
                Found::False(name) => {
                    return Err(ApprovalError::SignatureInvalid { position, name });
                }
                Found::TooMuchWork => return Err(too_much),
            }
        }
        if signers.len() < self.threshold() {
            let signed = |name: &KeyName| signers.iter().any(|signer| signer.name() == name);
            let names = self.keys().iter().map(super::SecurityKey::name);
            let missing = names.filter(|name| !signed(name)).cloned().collect();
            let threshold = self.threshold();
            return Err(ApprovalError::BelowThreshold { threshold, signers, missing, uncounted });
        }
        Ok(Approval {
            ring: self.name().clone(),
            ring_version: self.version(),
            payload_type,
            payload_digest,
            signers,
            uncounted,
        })
    }

    /// Whether `next` may take this ring's place: the same name, a higher version, signed by enough
    /// keys of this ring, and by enough of its own, so that nobody locks the site out with keys that
    /// no one holds.
    ///
    /// The approval is this ring's.
    ///
    /// # Errors
    /// [`SuccessorError`].
    ///
    /// # Source
    /// The Update Framework, "Update the root role": thresholds of both versions.
    pub fn approves_successor(
        &self,
        next: &Self,
        envelope: &Envelope,
    ) -> Result<Approval, SuccessorError> {
        if next.name() != self.name() {
            let (expected, found) = (self.name().clone(), next.name().clone());
            return Err(SuccessorError::Name { expected, found });
        }
        if next.version() <= self.version() {
            let (current, next) = (self.version(), next.version());
            return Err(SuccessorError::VersionNotNewer { current, next });
        }
        let approval = self
            .verify(envelope, PayloadType::Keys, next.payload())
            .map_err(SuccessorError::Current)?;
        next.verify(envelope, PayloadType::Keys, next.payload()).map_err(SuccessorError::Next)?;
        Ok(approval)
    }

    fn signer(
        &self,
        position: usize,
        signature: &Signature,
        pae: &Pae,
        tries: &mut Tries,
    ) -> Found {
        let Some(keyid) = signature.untrusted_keyid() else {
            for key in self.keys() {
                if !tries.take() {
                    return Found::TooMuchWork;
                }
                if let Some(signer) = key.verify(pae, signature.as_bytes()) {
                    return Found::Signer(signer);
                }
            }
            return Found::Nobody(Uncounted::NoKey { position });
        };
        let Some(key) = self.keys().iter().find(|key| key.id().to_string() == keyid) else {
            let untrusted_keyid = keyid.to_owned();
            return Found::Nobody(Uncounted::UnknownKey { position, untrusted_keyid });
        };
        if !tries.take() {
            return Found::TooMuchWork;
        }
        key.verify(pae, signature.as_bytes())
            .map_or_else(|| Found::False(key.name().clone()), Found::Signer)
    }
}

/// What one signature comes to.
enum Found {
    Signer(Signer),
    Nobody(Uncounted),
    False(KeyName),
    TooMuchWork,
}

/// How many verifications are left.
struct Tries(usize);

impl Tries {
    fn over(pae: &Pae) -> Self {
        Self(
            MAX_HASHED_BYTES
                .checked_div(pae.as_bytes().len())
                .unwrap_or(0)
                .max(super::MAX_SIGNATURES),
        )
    }

    /// Takes one, if there is one.
    const fn take(&mut self) -> bool {
        match self.0.checked_sub(1) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => false,
        }
    }
}
