//! The endorsement key: what makes a TPM a genuine one.

mod public_area;

pub use proto::spki::{canonical_spki, ek_digest};
use proto::{
    digest::{Digest, HashAlg},
    limits::MAX_CHAIN_CERTIFICATES,
    reason::ReasonCode,
    tpm::public::{KeyKind, Public},
};
use serde::{Deserialize, Serialize};

use crate::{
    claims::{EkClaims, EkTrust},
    verdict::{Denial, Finding},
    x509::{
        Certificate, EndorsementRoots, KeyUsage, Oddities, Oddity, PathRequest,
        RevocationRequirement, RevocationState, TpmIdentity, ValidPath, validate,
    },
};

/// Digest of the EK that a certificate certifies, in the form of [`ek_digest`]; `None` for keys
/// that no EK has.
#[must_use]
pub fn certified_digest(certificate: &Certificate) -> Option<Digest> {
    let spki = certificate.key().canonical_spki()?;
    Some(HashAlg::Sha256.hash(&[&spki]))
}

/// An endorsement key as a worker presents it; believed by nobody.
#[derive(Clone, Copy, Debug)]
pub struct EkPresented<'a> {
    /// The EK's public area.
    pub public: &'a Public,
    /// The EK certificate as read from the TPM, NV padding and header included.
    pub certificate: Option<&'a [u8]>,
    /// Intermediates, DER, in any order.
    pub chain: &'a [&'a [u8]],
}

/// Whether the site's inventory vouches for an EK by itself.
///
/// The second way in besides a manufacturer's certificate, for TPMs that have none. It names the EK
/// it is meant for, so that a record of another node cannot be passed by mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowListed {
    /// The EK with this digest (see [`ek_digest`]) is allow-listed.
    ByDigest(Digest),
    /// None is.
    No,
}

/// How closely certificates must follow the profiles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// RFC 5280 and the TCG EK profile, with the named [`Oddity`]s that manufacturers shipped.
    #[default]
    AsShipped,
    /// Every oddity denies, with `EK_CERTIFICATE_PROFILE_VIOLATION`.
    Strict,
}

/// What EKs are judged by: all of it the verifier's own.
#[derive(Clone, Copy, Debug)]
pub struct EkPolicy<'a> {
    /// Imported endorsements.
    pub roots: &'a EndorsementRoots,
    /// Whether this EK is allow-listed.
    pub allow_listed: AllowListed,
    /// Seconds since 1970 by the verifier's clock.
    pub now_unix_s: i64,
    /// Closeness to the profiles.
    pub profile: Profile,
    /// What is demanded of CRLs.
    pub revocation: RevocationRequirement,
}

/// An endorsement key that a manufacturer's certificate or the site's allow-list vouches for.
///
/// # Proves
/// The public area is that of a restricted decryption key that its TPM made and that cannot leave
/// it, of an accepted and not known-weak kind; and either an EK certificate for exactly this key
/// leads to an imported anchor ([`ValidPath`]), or the inventory lists its digest.
///
/// # Does not prove
/// That the caller has this TPM: EK certificates are public. Activation proves that.
///
/// # Errors
/// The `EK_*` codes.
///
/// # Source
/// TCG EK Credential Profile for TPM Family 2.0; TPM 2.0 Library Part 1, "Endorsement Key".
#[derive(Clone, Debug)]
pub struct TrustedEk {
    public: Public,
    digest: Digest,
    trust: Trust,
}

/// How an EK came to be trusted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Trust {
    /// By the site's allow-list, the certificate being absent or refused.
    AllowListed {
        /// Why the certificate did not do, if one was presented.
        certificate_refused: Option<Finding>,
    },
    /// By a certificate.
    Certificate(CertifiedEk),
}

/// What the certificate of a trusted EK says.
#[derive(Clone, Debug)]
pub struct CertifiedEk {
    path: ValidPath,
    identity: Option<TpmIdentity>,
    oddities: Oddities,
}

impl CertifiedEk {
    /// The validated path.
    #[must_use]
    pub const fn path(&self) -> &ValidPath {
        &self.path
    }

    /// Manufacturer, model and version of the TPM; `None` where the certificate does not say.
    #[must_use]
    pub const fn identity(&self) -> Option<&TpmIdentity> {
        self.identity.as_ref()
    }

    /// Every accepted deviation of the path and of the EK certificate.
    #[must_use]
    pub const fn oddities(&self) -> Oddities {
        self.oddities
    }
}

impl TrustedEk {
    /// The public area.
    #[must_use]
    pub const fn public(&self) -> &Public {
        &self.public
    }

    /// The EK's name in the inventory: SHA-256 of its canonical SubjectPublicKeyInfo.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// How it came to be trusted.
    #[must_use]
    pub const fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The TPM's manufacturer, model and version, as the manufacturer signed them.
    #[must_use]
    pub const fn identity(&self) -> Option<&TpmIdentity> {
        match &self.trust {
            Trust::Certificate(certified) => certified.identity(),
            Trust::AllowListed { .. } => None,
        }
    }

    /// Until when the path holds ([`ValidPath::valid_until_unix_s`]), seconds since 1970; `None` for
    /// an allow-listed EK, which ends when it is taken off the list.
    #[must_use]
    pub const fn valid_until_unix_s(&self) -> Option<i64> {
        match &self.trust {
            Trust::Certificate(certified) => Some(certified.path.valid_until_unix_s()),
            Trust::AllowListed { .. } => None,
        }
    }

    /// Revocation state of the path: good or unknown; unknown for an allow-listed EK.
    #[must_use]
    pub const fn revocation(&self) -> RevocationState {
        match &self.trust {
            Trust::Certificate(certified) => certified.path.revocation(),
            Trust::AllowListed { .. } => RevocationState::Unknown,
        }
    }

    /// Accepted deviations; none for an allow-listed EK.
    #[must_use]
    pub fn oddities(&self) -> Oddities {
        match &self.trust {
            Trust::Certificate(certified) => certified.oddities(),
            Trust::AllowListed { .. } => Oddities::default(),
        }
    }

    /// What policy and records read of this EK.
    #[must_use]
    pub fn claims(&self) -> EkClaims {
        let identity = self.identity();
        let text = |field: fn(&TpmIdentity) -> &String| identity.map(|id| field(id).clone());
        EkClaims {
            digest: self.digest,
            trust: match &self.trust {
                Trust::AllowListed { .. } => EkTrust::AllowListed,
                Trust::Certificate(certified) => EkTrust::Certificate {
                    root: certified.path.anchor().sha256(),
                    oddities: certified.oddities.iter().map(|o| o.name().to_owned()).collect(),
                },
            },
            manufacturer: text(|id| &id.manufacturer),
            model: text(|id| &id.model),
            version: text(|id| &id.version),
        }
    }
}

/// Judges an endorsement key: the one way to a [`TrustedEk`].
///
/// The key itself is judged first, whoever vouches for it. A certificate that passes is preferred,
/// for it names the TPM; an allow-listed EK needs none, and is not lost because a certificate is
/// absent or refused. A revoked certificate denies even then: somebody who knows said so.
///
/// # Errors
/// A denial with one `EK_*` finding.
pub fn verify_ek(presented: &EkPresented<'_>, policy: &EkPolicy<'_>) -> Result<TrustedEk, Denial> {
    public_area::check(presented.public)?;
    let digest = ek_digest(presented.public);
    let allow_listed = policy.allow_listed == AllowListed::ByDigest(digest);
    let trust = match certify(presented, policy) {
        Ok(certified) => Trust::Certificate(certified),
        Err(finding) if allow_listed && finding.code != ReasonCode::EkRevoked => {
            let certificate_refused = presented.certificate.map(|_| finding);
            Trust::AllowListed { certificate_refused }
        }
        Err(finding) => return Err(finding.into()),
    };
    Ok(TrustedEk { public: presented.public.clone(), digest, trust })
}

/// The way in by certificate.
fn certify(presented: &EkPresented<'_>, policy: &EkPolicy<'_>) -> Result<CertifiedEk, Finding> {
    let Some(bytes) = presented.certificate.filter(|bytes| !bytes.is_empty()) else {
        return Err(Finding::new(
            ReasonCode::EkCertificateMissing,
            "EK certificate",
            "a certificate, or the EK's digest in the inventory",
            "none",
        ));
    };
    let leaf = Certificate::parse_from_nv(bytes).map_err(|error| malformed(LEAF, &error))?;
    let mut oddities = check_profile(&leaf, presented.public)?;
    if leaf.key().canonical_spki() != Some(canonical_spki(presented.public)) {
        return Err(Finding::new(
            ReasonCode::EkCertificateKeyMismatch,
            LEAF,
            format!("a certificate for the EK {}", ek_digest(presented.public)),
            format!("a certificate for another key ({})", leaf.key()),
        ));
    }
    if presented.chain.len() > MAX_CHAIN_CERTIFICATES {
        return Err(Finding::new(
            ReasonCode::EkChainTooLong,
            "EK certificate chain",
            format!("at most {MAX_CHAIN_CERTIFICATES} certificates sent along"),
            format!("{}", presented.chain.len()),
        ));
    }
    let mut chain = Vec::with_capacity(presented.chain.len());
    for (index, bytes) in presented.chain.iter().enumerate() {
        let subject = format!("certificate {index} of the chain sent along");
        chain.push(Certificate::parse(bytes).map_err(|error| malformed(&subject, &error))?);
    }
    let path = validate(&PathRequest {
        leaf: &leaf,
        presented: &chain,
        roots: policy.roots,
        now_unix_s: policy.now_unix_s,
        revocation: policy.revocation,
    })?;
    oddities.add_all(path.oddities());
    if policy.profile == Profile::Strict && !oddities.is_empty() {
        return Err(Finding::new(
            ReasonCode::EkCertificateProfileViolation,
            "EK certificate chain",
            "no deviation from the profiles (strict profile)",
            oddities.to_string(),
        ));
    }
    Ok(CertifiedEk { path, identity: leaf.extensions().tpm_identity.clone(), oddities })
}

/// Leads a certificate to an anchor without knowing the EK: for people who look at certificates.
///
/// # Does not prove
/// That the certificate is an EK's, or whose: [`verify_ek`] does.
///
/// # Errors
/// The `EK_CHAIN_*` and `EK_CERTIFICATE_*` codes of the path.
pub fn inspect_path(
    leaf: &Certificate,
    presented: &[Certificate],
    roots: &EndorsementRoots,
    now_unix_s: i64,
    revocation: RevocationRequirement,
) -> Result<ValidPath, Finding> {
    validate(&PathRequest { leaf, presented, roots, now_unix_s, revocation })
}

const LEAF: &str = "EK certificate";

/// The TCG EK profile, as far as it says what the certificate is for.
///
/// - Version 3, not a CA.
/// - Extended key usage, where present: tcg-kp-EKCertificate, and neither the AK's nor a
///   platform's.
/// - Key usage, where present: keyEncipherment for RSA, keyAgreement for ECC. One that allows
///   signing only belongs to an AK, whatever its extended key usage says: Google's AK certificates
///   carry the EK's.
/// - Without extended key usage, key usage must be present and allow no signing.
fn check_profile(leaf: &Certificate, public: &Public) -> Result<Oddities, Finding> {
    let violation = |expected: &str, observed: &str| {
        Err(Finding::new(ReasonCode::EkCertificateProfileViolation, LEAF, expected, observed))
    };
    let mut oddities = Oddities::default();
    if leaf.version() != 3 {
        return violation("X.509 version 3", "an older version");
    }
    let extensions = leaf.extensions();
    match extensions.basic_constraints {
        None => oddities.add(Oddity::BasicConstraintsAbsent),
        Some(constraints) if constraints.ca => return violation("CA:FALSE", "CA:TRUE"),
        Some(_) => {}
    }
    const SIGNING: u16 = KeyUsage::DIGITAL_SIGNATURE
        | KeyUsage::NON_REPUDIATION
        | KeyUsage::KEY_CERT_SIGN
        | KeyUsage::CRL_SIGN;
    let signing = extensions.key_usage.is_some_and(|usage| usage.has_any(SIGNING));
    match extensions.extended_key_usage {
        Some(usage) if usage.attestation_key => {
            return violation(
                "extended key usage tcg-kp-EKCertificate",
                "tcg-kp-AIKCertificate (2.23.133.8.3): the certificate of an AK",
            );
        }
        Some(usage) if usage.platform => {
            return violation(
                "extended key usage tcg-kp-EKCertificate",
                "a platform certificate (2.23.133.8.2 or 2.23.133.8.4)",
            );
        }
        Some(usage) if !usage.endorsement_key => {
            return violation(
                "extended key usage tcg-kp-EKCertificate (2.23.133.8.1)",
                "other purposes only",
            );
        }
        Some(_) => {}
        None if extensions.key_usage.is_none() || signing => {
            return violation(
                "extended key usage tcg-kp-EKCertificate, or a key usage without signing",
                "no extended key usage, and key usage absent or with signing",
            );
        }
        None => oddities.add(Oddity::ExtendedKeyUsageAbsent),
    }
    if let Some(usage) = extensions.key_usage {
        let (transport, name) = match public.key() {
            KeyKind::Ecc { .. } => (KeyUsage::KEY_AGREEMENT, "key usage keyAgreement"),
            _ => (KeyUsage::KEY_ENCIPHERMENT, "key usage keyEncipherment"),
        };
        if !usage.has_any(transport) {
            let observed = if signing { "key usage for signing" } else { "another key usage" };
            return violation(name, observed);
        }
        if signing {
            oddities.add(Oddity::KeyUsageSigning);
        }
    }
    if extensions.tpm_identity.is_none() {
        oddities.add(Oddity::SubjectAltNameAbsent);
    }
    Ok(oddities)
}

fn malformed(subject: &str, error: &crate::x509::DerError) -> Finding {
    Finding::new(
        ReasonCode::EkCertificateMalformed,
        subject,
        "one DER X.509 certificate",
        error.to_string(),
    )
}
