//! Path validation: from an EK certificate to a pinned anchor, with bounded work.

use proto::reason::ReasonCode;
use serde::Serialize;

use super::{
    certificate::{Certificate, KeyUsage},
    key::{SignatureAlgorithm, SignatureFailure},
    oddity::{Oddities, Oddity},
    roots::{EndorsementRoots, ExpiredIntermediates},
    time::format_utc,
};
use crate::verdict::Finding;

/// Certificates of one path, EK certificate and anchor included; real paths have two to five.
pub const MAX_PATH_CERTIFICATES: usize = 8;
/// Signature checks for one path, dead ends included: enough for eight levels of four candidates. A
/// worker chooses up to eight certificates and could otherwise cross-sign them into a maze.
pub const MAX_SIGNATURE_CHECKS: u32 = 32;

/// What CRLs say of a certificate or a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RevocationState {
    /// A current CRL of its issuer does not list it; of a path: this holds for each certificate.
    Good,
    /// No current CRL of its issuer was imported; of a path: for at least one certificate.
    Unknown,
    /// A CRL of its issuer lists it.
    Revoked,
}

/// What policy demands of the revocation state. A revoked certificate denies under either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RevocationRequirement {
    /// Unknown is accepted and recorded. Most manufacturers publish no CRLs for their EKs.
    #[default]
    IfKnown,
    /// Every certificate below the anchor must be good.
    Required,
}

/// A path from an EK certificate to an anchor, every check of it passed.
///
/// # Proves
/// Each certificate names the next one as its issuer byte for byte and is signed by its key; each
/// issuer is a CA by basic constraints, key usage, path length and extended key usage; all are
/// valid at the time of the appraisal (except intermediates under
/// [`ExpiredIntermediates::AcceptImportedIfValidAtIssue`]); none has an unknown critical extension;
/// none is revoked; the last one is an imported anchor.
///
/// # Does not prove
/// That the key at its end is an EK: that is [`TrustedEk`](crate::ek::TrustedEk).
///
/// # Errors
/// The `EK_CHAIN_*` codes, `EK_CERTIFICATE_ALGORITHM_UNSUPPORTED`, `EK_REVOKED` and
/// `EK_REVOCATION_UNKNOWN`. Where several paths fail, the failure that got furthest is reported.
///
/// # Source
/// RFC 5280, section 6.1, with the anchor's own pathLen and key usage obeyed (RFC 5937).
#[derive(Clone, Debug)]
pub struct ValidPath {
    anchor: Certificate,
    intermediates: Vec<Certificate>,
    valid_until_unix_s: i64,
    revocation: RevocationState,
    oddities: Oddities,
}

impl ValidPath {
    /// The anchor.
    #[must_use]
    pub const fn anchor(&self) -> &Certificate {
        &self.anchor
    }

    /// The certificates between, from the EK certificate's issuer upwards.
    #[must_use]
    pub fn intermediates(&self) -> &[Certificate] {
        &self.intermediates
    }

    /// The last second of which the path holds without being validated again, seconds since 1970:
    /// the earliest end of validity on it, and where revocation is
    /// [required](RevocationRequirement::Required), the earliest end of what the CRLs say. An
    /// intermediate accepted although expired does not count.
    #[must_use]
    pub const fn valid_until_unix_s(&self) -> i64 {
        self.valid_until_unix_s
    }

    /// [`RevocationState::Good`] or [`RevocationState::Unknown`].
    #[must_use]
    pub const fn revocation(&self) -> RevocationState {
        self.revocation
    }

    /// Deviations of EK certificate and intermediates. The anchor's own are the operator's choice.
    #[must_use]
    pub const fn oddities(&self) -> Oddities {
        self.oddities
    }
}

/// What a path is looked for.
pub(crate) struct PathRequest<'a> {
    pub(crate) leaf: &'a Certificate,
    /// What the worker sent along; believed of nothing.
    pub(crate) presented: &'a [Certificate],
    pub(crate) roots: &'a EndorsementRoots,
    pub(crate) now_unix_s: i64,
    pub(crate) revocation: RevocationRequirement,
}

/// Finds a path for `request.leaf` and validates it.
pub(crate) fn validate(request: &PathRequest<'_>) -> Result<ValidPath, Finding> {
    check_critical(request.leaf, "EK certificate")?;
    check_validity(request.leaf, "EK certificate", request.now_unix_s)?;
    let mut search = Search { request, checks_left: MAX_SIGNATURE_CHECKS };
    let mut path = Vec::with_capacity(MAX_PATH_CERTIFICATES);
    path.push(Step { certificate: request.leaf, source: Source::Leaf });
    match search.extend(&mut path) {
        Ok(()) => Ok(finish(request, &path)),
        Err(failure) => Err(failure.finding),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Leaf,
    Presented,
    Imported,
    Anchor,
}

#[derive(Clone, Copy)]
struct Step<'a> {
    certificate: &'a Certificate,
    source: Source,
}

/// Why one branch of the search ended.
struct Failure {
    finding: Finding,
    /// The search ends with it: no other branch may be tried.
    fatal: bool,
}

impl From<Finding> for Failure {
    fn from(finding: Finding) -> Self {
        Self { finding, fatal: false }
    }
}

impl Failure {
    /// How far the branch got: facts about certificates whose signatures verified come last.
    const fn rank(&self) -> u8 {
        match self.finding.code {
            ReasonCode::EkChainUnknownRoot => 0,
            ReasonCode::EkChainTooLong => 1,
            ReasonCode::EkCertificateAlgorithmUnsupported => 2,
            ReasonCode::EkChainSignatureInvalid => 3,
            ReasonCode::EkRevocationUnknown => 5,
            ReasonCode::EkRevoked => 6,
            _ => 4,
        }
    }
}

struct Search<'a, 'r> {
    request: &'r PathRequest<'a>,
    checks_left: u32,
}

impl<'a> Search<'a, '_> {
    /// Extends `path` to an anchor. Recursion ends at [`MAX_PATH_CERTIFICATES`].
    fn extend(&mut self, path: &mut Vec<Step<'a>>) -> Result<(), Failure> {
        let Some(current) = path.last().copied() else {
            return Err(unknown_root("the path is empty").into());
        };
        let request = self.request;
        let issuer = current.certificate.issuer();
        let anchors = request.roots.anchors_named(issuer).map(|c| (c, Source::Anchor));
        let imported = request.roots.intermediates_named(issuer).map(|c| (c, Source::Imported));
        let presented = request
            .presented
            .iter()
            .filter(|c| c.subject() == issuer && !request.roots.contains(c))
            .map(|c| (c, Source::Presented));

        let mut furthest: Option<Failure> = None;
        for (certificate, source) in anchors.chain(imported).chain(presented) {
            let candidate = Step { certificate, source };
            if !key_ids_match(current.certificate, certificate) || is_loop(path, certificate) {
                continue;
            }
            let outcome = self.judge(path, current, candidate).and_then(|()| {
                path.push(candidate);
                if source == Source::Anchor {
                    return Ok(());
                }
                let outcome = self.extend(path);
                if outcome.is_err() {
                    path.pop();
                }
                outcome
            });
            match outcome {
                Ok(()) => return Ok(()),
                Err(failure) if failure.fatal => return Err(failure),
                Err(failure) => {
                    if furthest.as_ref().is_none_or(|other| failure.rank() > other.rank()) {
                        furthest = Some(failure);
                    }
                }
            }
        }
        Err(furthest.unwrap_or_else(|| {
            let name = current.certificate.issuer_text();
            unknown_root(&format!("no certificate of the issuer {name:?} that fits")).into()
        }))
    }

    /// Whether `candidate` issued `current` and was allowed to.
    fn judge(
        &mut self,
        path: &[Step<'a>],
        current: Step<'a>,
        candidate: Step<'a>,
    ) -> Result<(), Failure> {
        if path.len() >= MAX_PATH_CERTIFICATES {
            return Err(too_long(format!("more than {MAX_PATH_CERTIFICATES} certificates")).into());
        }
        self.verify_signature(current, candidate)?;
        let issuer = candidate.certificate;
        let subject = || format!("CA certificate {:?}", issuer.subject_text());
        check_critical(issuer, &subject())?;
        self.check_issuer_validity(current, candidate, &subject())?;
        check_may_issue(path, candidate, &subject())?;
        self.check_revocation(current.certificate, issuer)
    }

    fn verify_signature(&mut self, current: Step<'a>, candidate: Step<'a>) -> Result<(), Failure> {
        let algorithm = current.certificate.signature_algorithm();
        let subject = describe(current);
        // SHA-1 collisions let an attacker choose what is signed; an imported certificate is one
        // whose bytes the operator chose.
        if *algorithm == SignatureAlgorithm::RsaSha1 && current.source != Source::Imported {
            return Err(algorithm_unsupported(subject, algorithm.to_string()).into());
        }
        let Some(left) = self.checks_left.checked_sub(1) else {
            let observed = format!("more than {MAX_SIGNATURE_CHECKS} signature checks needed");
            return Err(Failure { finding: too_long(observed), fatal: true });
        };
        self.checks_left = left;
        current.certificate.verify_signed_by(candidate.certificate).map_err(|failure| {
            let key = candidate.certificate.key();
            match failure {
                SignatureFailure::Invalid => Finding::new(
                    ReasonCode::EkChainSignatureInvalid,
                    subject,
                    format!("signed by {:?}", candidate.certificate.subject_text()),
                    format!("signature ({algorithm}) does not verify under its key ({key})"),
                ),
                SignatureFailure::Unsupported => {
                    algorithm_unsupported(subject, format!("{algorithm} by a key {key}"))
                }
            }
            .into()
        })
    }

    fn check_issuer_validity(
        &self,
        current: Step<'a>,
        candidate: Step<'a>,
        subject: &str,
    ) -> Result<(), Finding> {
        let Err(finding) = check_validity(candidate.certificate, subject, self.request.now_unix_s)
        else {
            return Ok(());
        };
        let excused = finding.code == ReasonCode::EkChainExpired
            && candidate.source == Source::Imported
            && self.request.roots.expired_intermediates()
                == ExpiredIntermediates::AcceptImportedIfValidAtIssue
            && current.certificate.not_before_unix_s() <= candidate.certificate.not_after_unix_s();
        if excused { Ok(()) } else { Err(finding) }
    }

    fn check_revocation(
        &self,
        certificate: &Certificate,
        issuer: &Certificate,
    ) -> Result<(), Failure> {
        let request = self.request;
        let subject = || format!("certificate {:?}", certificate.subject_text());
        let expected = "not revoked by its issuer's current CRL";
        match request.roots.revocation(certificate, issuer, request.now_unix_s) {
            RevocationState::Revoked => Err(Finding::new(
                ReasonCode::EkRevoked,
                subject(),
                expected,
                format!("listed in a CRL of {:?}", issuer.subject_text()),
            )
            .into()),
            RevocationState::Unknown if request.revocation == RevocationRequirement::Required => {
                Err(Finding::new(
                    ReasonCode::EkRevocationUnknown,
                    subject(),
                    expected,
                    format!("no current CRL of {:?} is imported", issuer.subject_text()),
                )
                .into())
            }
            RevocationState::Unknown | RevocationState::Good => Ok(()),
        }
    }
}

fn finish(request: &PathRequest<'_>, path: &[Step<'_>]) -> ValidPath {
    let mut oddities = Oddities::default();
    let mut valid_until_unix_s = i64::MAX;
    let mut revocation = RevocationState::Good;
    for step in path {
        let certificate = step.certificate;
        let expired = certificate.not_after_unix_s() < request.now_unix_s;
        if expired {
            oddities.add(Oddity::IntermediateExpired);
        } else {
            valid_until_unix_s = valid_until_unix_s.min(certificate.not_after_unix_s());
        }
        if step.source == Source::Anchor {
            continue;
        }
        oddities.add_all(certificate.oddities());
        if certificate.authority_key_id().is_none() {
            oddities.add(Oddity::AuthorityKeyIdAbsent);
        }
        if certificate.extensions().key_usage.is_none() {
            oddities.add(Oddity::KeyUsageAbsent);
        }
        if *certificate.signature_algorithm() == SignatureAlgorithm::RsaSha1 {
            oddities.add(Oddity::Sha1Intermediate);
        }
    }
    for pair in path.windows(2) {
        if let [certificate, issuer] = pair {
            let (certificate, issuer) = (certificate.certificate, issuer.certificate);
            let found = request.roots.revocation(certificate, issuer, request.now_unix_s);
            revocation = revocation.max(found);
            // Good becomes unknown when the lists run out; that matters where unknown denies.
            if request.revocation == RevocationRequirement::Required {
                let until = request.roots.good_until(certificate, issuer, request.now_unix_s);
                valid_until_unix_s = valid_until_unix_s.min(until);
            }
        }
    }
    let mut certificates = path.iter().skip(1).map(|step| step.certificate.clone());
    // `extend` succeeds only with an anchor at the end; the leaf stands in where it did not.
    let anchor = certificates.next_back().unwrap_or_else(|| request.leaf.clone());
    ValidPath {
        intermediates: certificates.collect(),
        anchor,
        valid_until_unix_s,
        revocation,
        oddities,
    }
}

/// Key identifiers choose among issuers of one name; where one is absent the signature alone does.
fn key_ids_match(certificate: &Certificate, issuer: &Certificate) -> bool {
    match (certificate.authority_key_id(), issuer.subject_key_id()) {
        (Some(authority), Some(subject)) => authority == subject,
        _ => true,
    }
}

/// Whether the path already holds a certificate of this name and key: cross-signed twins of it lead
/// nowhere new.
fn is_loop(path: &[Step<'_>], certificate: &Certificate) -> bool {
    path.iter().any(|step| {
        step.certificate.subject() == certificate.subject()
            && step.certificate.spki() == certificate.spki()
    })
}

fn check_critical(certificate: &Certificate, subject: &str) -> Result<(), Finding> {
    match &certificate.extensions().not_understood {
        None => Ok(()),
        Some(oid) => Err(Finding::new(
            ReasonCode::EkChainCriticalExtension,
            subject,
            "no extension that restricts its use in an unknown way",
            format!("extension {oid}"),
        )),
    }
}

fn check_validity(
    certificate: &Certificate,
    subject: &str,
    now_unix_s: i64,
) -> Result<(), Finding> {
    let now = || format!("valid at {}", format_utc(now_unix_s));
    if now_unix_s < certificate.not_before_unix_s() {
        let observed = format!("not before {}", format_utc(certificate.not_before_unix_s()));
        return Err(Finding::new(ReasonCode::EkChainNotYetValid, subject, now(), observed));
    }
    if now_unix_s > certificate.not_after_unix_s() {
        let observed = format!("not after {}", format_utc(certificate.not_after_unix_s()));
        return Err(Finding::new(ReasonCode::EkChainExpired, subject, now(), observed));
    }
    Ok(())
}

/// CA flag, key usage, path length and extended key usage of an issuer above `path`.
fn check_may_issue(path: &[Step<'_>], candidate: Step<'_>, subject: &str) -> Result<(), Finding> {
    let refuse = |expected: &str, observed: String| {
        Err(Finding::new(ReasonCode::EkChainCaInvalid, subject, expected, observed))
    };
    let extensions = candidate.certificate.extensions();
    let Some(constraints) = extensions.basic_constraints.filter(|constraints| constraints.ca)
    else {
        return refuse("a CA", "basic constraints absent, or CA:FALSE".to_owned());
    };
    if extensions.key_usage.is_some_and(|usage| !usage.has_any(KeyUsage::KEY_CERT_SIGN)) {
        return refuse("key usage keyCertSign", "key usage without keyCertSign".to_owned());
    }
    // RFC 5280, 6.1.4 (l): self-issued intermediates do not count; the EK certificate never does.
    let below = path.iter().skip(1).filter(|step| !step.certificate.is_self_issued()).count();
    if let Some(limit) = constraints.path_len
        && u32::try_from(below).unwrap_or(u32::MAX) > limit
    {
        let expected = format!("at most {limit} intermediates below (pathLen)");
        return refuse(&expected, format!("{below} intermediates"));
    }
    if candidate.source != Source::Anchor
        && extensions.extended_key_usage.is_some_and(|usage| !usage.endorsement_key && !usage.any)
    {
        return refuse(
            "extended key usage tcg-kp-EKCertificate, where the CA is limited to purposes",
            "other purposes only".to_owned(),
        );
    }
    Ok(())
}

fn describe(step: Step<'_>) -> String {
    match step.source {
        Source::Leaf => "EK certificate".to_owned(),
        _ => format!("CA certificate {:?}", step.certificate.subject_text()),
    }
}

fn unknown_root(observed: &str) -> Finding {
    let expected = "a path to an imported manufacturer root";
    Finding::new(ReasonCode::EkChainUnknownRoot, "EK certificate chain", expected, observed)
}

fn too_long(observed: String) -> Finding {
    let expected = format!(
        "at most {MAX_PATH_CERTIFICATES} certificates and {MAX_SIGNATURE_CHECKS} signature checks"
    );
    Finding::new(ReasonCode::EkChainTooLong, "EK certificate chain", expected, observed)
}

fn algorithm_unsupported(subject: String, observed: String) -> Finding {
    Finding::new(
        ReasonCode::EkCertificateAlgorithmUnsupported,
        subject,
        "RSA (2048 to 8192 bits) or ECDSA (P-256, P-384, P-521) with SHA-256, SHA-384 or SHA-512; \
         RSA with SHA-1 for imported intermediates only",
        observed,
    )
}
