//! Offline verification of a bundle, step by step, each a type of its own.
//!
//! ```text
//! bytes ─Bundle::parse─▶ Bundle ─prove_time─▶ TimestampedBundle ─┬─verify_artifact──▶ VerifiedArtifact
//!                                                                └─verify_statement─▶ VerifiedStatement
//! ```
//! What does not compile: to verify a signature without its time,
//! ```compile_fail,E0599
//! # use results::{bundle::Bundle, Sha256Digest, verify::Trust};
//! fn skip(bundle: &Bundle, trust: &Trust<'_>) {
//!     bundle.verify_artifact(&Sha256Digest::of(b""), trust);
//! }
//! ```
//! or to make a verified signature by hand:
//! ```compile_fail,E0451
//! # use results::verify::{VerifiedArtifact, VerifiedSignature};
//! fn forge(digest: results::Sha256Digest, signature: VerifiedSignature) -> VerifiedArtifact {
//!     VerifiedArtifact { digest, signature }
//! }
//! ```

use crate::{
    Sha256Digest, SpiffeId, UnixTime,
    bundle::{Bundle, Content, TrustedRoot},
    certificate::{Certificate, Purpose},
    refusal::{Code, Refusal, one_of},
    statement::{Predicate, Statement},
    timestamp::{ProvenTime, Response},
};

/// What a relying party trusts: authorities, and identities that may sign.
#[derive(Clone, Copy, Debug)]
pub struct Trust<'a> {
    /// The authorities.
    pub root: &'a TrustedRoot,
    /// SPIFFE IDs that are accepted, each compared byte for byte; an empty list accepts nobody.
    pub identities: &'a [SpiffeId],
}

/// A bundle whose signature existed at a known instant.
///
/// # Proves
/// A trusted time stamp authority stamped the signature's bytes then.
/// # Does not prove
/// whose signature it is, nor over what: see [`TimestampedBundle::verify_artifact`].
#[derive(Clone, Debug)]
pub struct TimestampedBundle<'a> {
    bundle: &'a Bundle,
    time: ProvenTime,
}

/// A signature by an accepted identity, made while its certificate was valid.
///
/// # Proves
/// The certificate led to a trusted authority at the stamped instant, was for signing code, and named
/// exactly one SPIFFE ID, which is accepted; its key made the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedSignature {
    identity: SpiffeId,
    signed_at: UnixTime,
    stamped_by: String,
    certificate: Certificate,
}

/// An artifact that an accepted identity signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedArtifact {
    digest: Sha256Digest,
    signature: VerifiedSignature,
}

/// A statement of a known kind that an accepted identity signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedStatement<S> {
    statement: S,
    digest: Sha256Digest,
    signature: VerifiedSignature,
}

impl Bundle {
    /// Finds out when the signature existed, by the first time stamp: each of them must be good, and
    /// the earliest counts.
    ///
    /// # Errors
    /// `RESULT_TIMESTAMP_MISSING` without any; otherwise as [`Response::parse`] and [`Response::verify`].
    pub fn prove_time(
        &self,
        root: &TrustedRoot,
        now: UnixTime,
    ) -> Result<TimestampedBundle<'_>, Refusal> {
        let imprint = Sha256Digest::of(self.content.signature());
        let prove = |der: &Vec<u8>| {
            Response::parse(der)?.verify(&imprint, root.timestamp_authorities(), now)
        };
        let times: Vec<_> = self.timestamps.iter().map(prove).collect::<Result<_, _>>()?;
        let time = times.into_iter().min_by_key(ProvenTime::at).ok_or_else(|| {
            Refusal::new(Code::TimestampMissing, "bundle", "a time stamp", "none")
        })?;
        Ok(TimestampedBundle { bundle: self, time })
    }
}

impl TimestampedBundle<'_> {
    /// When the signature existed.
    #[must_use]
    pub const fn time(&self) -> &ProvenTime {
        &self.time
    }

    /// The signature, if it is over the artifact with that SHA-256, by somebody trusted.
    ///
    /// # Errors
    /// `RESULT_CONTENT_UNEXPECTED` if the bundle signs a statement; `RESULT_ARTIFACT_MISMATCH`; those of
    /// the certificate: `RESULT_CERTIFICATE_USAGE`, `RESULT_KEY_UNSUPPORTED`,
    /// `RESULT_CERTIFICATE_NOT_VALID_THEN`, `RESULT_CERTIFICATE_UNTRUSTED`, `RESULT_IDENTITY_INVALID`,
    /// `RESULT_IDENTITY_NOT_ACCEPTED`; `RESULT_SIGNATURE_INVALID`.
    pub fn verify_artifact(
        &self,
        artifact: &Sha256Digest,
        trust: &Trust<'_>,
    ) -> Result<VerifiedArtifact, Refusal> {
        let Content::Artifact(message) = &self.bundle.content else {
            return Err(self.unexpected("the signature of an artifact"));
        };
        if message.untrusted_digest != *artifact {
            let (expected, found) = (artifact.to_string(), message.untrusted_digest.to_string());
            return Err(Refusal::new(Code::ArtifactMismatch, "artifact", expected, found));
        }
        let signature = self.verify_signature(artifact, trust)?;
        Ok(VerifiedArtifact { digest: *artifact, signature })
    }

    /// The statement, if it is of the kind `S` and signed by somebody trusted.
    ///
    /// # Errors
    /// `RESULT_CONTENT_UNEXPECTED` if the bundle signs an artifact; those of the certificate and the
    /// signature as [`TimestampedBundle::verify_artifact`]; those of the statement as
    /// [`Statement::parse`].
    pub fn verify_statement<S: Predicate>(
        &self,
        trust: &Trust<'_>,
    ) -> Result<VerifiedStatement<S>, Refusal> {
        self.verify_payload(trust, S::parse)
    }

    /// The statement, of whichever known kind it is.
    ///
    /// # Errors
    /// As [`TimestampedBundle::verify_statement`].
    pub fn verify_any_statement(
        &self,
        trust: &Trust<'_>,
    ) -> Result<VerifiedStatement<Statement>, Refusal> {
        self.verify_payload(trust, Statement::parse)
    }

    fn verify_payload<S>(
        &self,
        trust: &Trust<'_>,
        parse: impl FnOnce(&[u8]) -> Result<S, Refusal>,
    ) -> Result<VerifiedStatement<S>, Refusal> {
        let Content::Statement(envelope) = &self.bundle.content else {
            return Err(self.unexpected("a statement"));
        };
        let signature =
            self.verify_signature(&Sha256Digest::of(envelope.pae().as_bytes()), trust)?;
        // Nothing of the payload is read before it is signed.
        let payload = envelope.untrusted_payload();
        Ok(VerifiedStatement {
            statement: parse(payload)?,
            digest: Sha256Digest::of(payload),
            signature,
        })
    }

    fn verify_signature(
        &self,
        signed: &Sha256Digest,
        trust: &Trust<'_>,
    ) -> Result<VerifiedSignature, Refusal> {
        let certificate = &self.bundle.certificate;
        certificate.check_purpose(Purpose::CodeSigning)?;
        certificate.check_p256()?;
        self.verify_chain(trust.root)?;
        let identity = certificate.spiffe_id()?;
        if !trust.identities.contains(&identity) {
            let accepted = one_of(trust.identities.iter().map(SpiffeId::as_str));
            let found = identity.to_string();
            return Err(Refusal::new(Code::IdentityNotAccepted, "signer", accepted, found));
        }
        if !certificate.verifies_digest(signed, self.bundle.content.signature()) {
            let expected = format!("a signature of {identity} over the content");
            let found = "one that is not";
            return Err(Refusal::new(Code::SignatureInvalid, "signature", expected, found));
        }
        let certificate = certificate.clone();
        let stamped_by = self.time.authority().to_owned();
        Ok(VerifiedSignature { identity, signed_at: self.time.at(), stamped_by, certificate })
    }

    fn verify_chain(&self, root: &TrustedRoot) -> Result<(), Refusal> {
        let (certificate, at) = (&self.bundle.certificate, self.time.at());
        let refused = |code, found: String| {
            let expected = format!("one that led to a trusted authority at {at}");
            Err(Refusal::new(code, "signer's certificate", expected, found))
        };
        if !certificate.is_valid_at(at) {
            let (begin, end) = (certificate.not_before(), certificate.not_after());
            return refused(Code::CertificateNotValidThen, format!("valid {begin} to {end}"));
        }
        let mut nearest = None;
        for authority in root.certificate_authorities() {
            match authority.verify(certificate, &[], at, Purpose::CodeSigning) {
                Ok(()) => return Ok(()),
                // An authority that was not valid then says more than one that is another's.
                Err(why) if why.is_of_time || nearest.is_none() => nearest = Some(why),
                Err(_) => {}
            }
        }
        match nearest {
            Some(why) if why.is_of_time => refused(Code::CertificateNotValidThen, why.text),
            Some(why) => refused(Code::CertificateUntrusted, why.text),
            None => refused(Code::CertificateUntrusted, "a list of none".to_owned()),
        }
    }

    fn unexpected(&self, expected: &str) -> Refusal {
        let found = self.bundle.content.kind();
        Refusal::new(Code::ContentUnexpected, "bundle", expected, found)
    }
}

impl VerifiedSignature {
    /// Who signed.
    #[must_use]
    pub const fn identity(&self) -> &SpiffeId {
        &self.identity
    }

    /// The stamped instant: the signature was made then or before.
    #[must_use]
    pub const fn signed_at(&self) -> UnixTime {
        self.signed_at
    }

    /// URI of the authority that stamped it, as the list of trusted ones names it.
    #[must_use]
    pub fn stamped_by(&self) -> &str {
        &self.stamped_by
    }

    /// The signer's certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

impl VerifiedArtifact {
    /// The artifact's SHA-256.
    #[must_use]
    pub const fn digest(&self) -> &Sha256Digest {
        &self.digest
    }

    /// Who signed it, and when.
    #[must_use]
    pub const fn signature(&self) -> &VerifiedSignature {
        &self.signature
    }
}

impl<S> VerifiedStatement<S> {
    /// The statement.
    #[must_use]
    pub const fn statement(&self) -> &S {
        &self.statement
    }

    /// SHA-256 of the statement's bytes: how others refer to it.
    #[must_use]
    pub const fn digest(&self) -> &Sha256Digest {
        &self.digest
    }

    /// Who signed it, and when.
    #[must_use]
    pub const fn signature(&self) -> &VerifiedSignature {
        &self.signature
    }
}
