//! The endorsements a site imported: manufacturer anchors, intermediates and CRLs.

use std::collections::BTreeMap;

use proto::digest::{Digest, HashAlg};

use super::{
    certificate::{Certificate, KeyUsage},
    crl::Crl,
    key::SubjectKey,
    path::RevocationState,
};

/// Anchors and intermediates of one set; Microsoft's list of all manufacturers has about 700.
pub const MAX_ENDORSEMENT_CERTIFICATES: usize = 10_000;
/// CRLs of one set: one for each CA that publishes one.
pub const MAX_CRLS: usize = 1_000;

/// What is done with an intermediate that has expired.
///
/// Some manufacturers let intermediates run out under EK certificates that outlive them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExpiredIntermediates {
    /// It denies, with `EK_CHAIN_EXPIRED`.
    #[default]
    Refuse,
    /// It is accepted as [`Oddity::IntermediateExpired`](super::Oddity::IntermediateExpired) if it
    /// was imported (never if the worker sent it) and had not expired at the `notBefore` of the
    /// certificate it issued. Anchors and EK certificates must always be valid now.
    ///
    /// Who steals the key of an expired intermediate can issue backdated certificates: that is why
    /// a site has to choose this.
    AcceptImportedIfValidAtIssue,
}

/// Why a certificate cannot be an endorsement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RootsError {
    /// It has a critical extension that is not understood, or constraints that are not processed.
    #[error("extension {0} is not understood")]
    ExtensionNotUnderstood(String),
    /// The set is full.
    #[error("more than {0} entries")]
    Limit(usize),
    /// Its basic constraints do not say CA, or its key usage has no keyCertSign.
    #[error("not a CA certificate")]
    NotCa,
    /// A CRL that no imported CA signed.
    #[error("not signed by an imported CA that may sign CRLs")]
    SignerUnknown,
    /// Its key cannot verify anything here.
    #[error("key {0} is not supported")]
    UnsupportedKey(String),
}

/// Collects endorsements; see [`EndorsementRoots`].
#[derive(Debug, Default)]
pub struct RootsBuilder {
    anchors: Vec<Certificate>,
    intermediates: Vec<Certificate>,
    crls: Vec<Crl>,
    expired_intermediates: ExpiredIntermediates,
}

impl RootsBuilder {
    /// An empty set that refuses expired intermediates.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Pins `certificate` as an anchor. Its own signature is never looked at, its validity is
    /// judged whenever it is used.
    ///
    /// # Errors
    /// [`RootsError`]: it could never anchor a path.
    pub fn anchor(&mut self, certificate: Certificate) -> Result<(), RootsError> {
        self.admissible(&certificate)?;
        self.anchors.push(certificate);
        Ok(())
    }

    /// Adds `certificate` as an intermediate. Nothing is believed of it before a path is validated.
    ///
    /// # Errors
    /// [`RootsError`]: it could never be part of a path.
    pub fn intermediate(&mut self, certificate: Certificate) -> Result<(), RootsError> {
        self.admissible(&certificate)?;
        self.intermediates.push(certificate);
        Ok(())
    }

    /// Adds a CRL; [`RootsBuilder::build`] looks for its signer.
    ///
    /// # Errors
    /// [`RootsError::Limit`].
    pub fn crl(&mut self, crl: Crl) -> Result<(), RootsError> {
        if self.crls.len() >= MAX_CRLS {
            return Err(RootsError::Limit(MAX_CRLS));
        }
        self.crls.push(crl);
        Ok(())
    }

    /// Chooses what is done with expired intermediates.
    pub fn expired_intermediates(&mut self, choice: ExpiredIntermediates) {
        self.expired_intermediates = choice;
    }

    /// The set, whatever the order of adding was; and the CRLs that no imported CA signed, which
    /// are not in it.
    #[must_use]
    pub fn build(self) -> (EndorsementRoots, Vec<(Crl, RootsError)>) {
        let Self { mut anchors, mut intermediates, mut crls, expired_intermediates } = self;
        for list in [&mut anchors, &mut intermediates] {
            list.sort_by_key(Certificate::sha256);
            list.dedup_by_key(|certificate| certificate.sha256());
        }
        intermediates.retain(|certificate| {
            anchors.binary_search_by_key(&certificate.sha256(), Certificate::sha256).is_err()
        });
        crls.sort_by_key(Crl::sha256);
        crls.dedup_by_key(|crl| crl.sha256());

        let mut by_subject: BTreeMap<Vec<u8>, Entries> = BTreeMap::new();
        for (index, anchor) in anchors.iter().enumerate() {
            by_subject.entry(anchor.subject().to_vec()).or_default().anchors.push(index);
        }
        for (index, certificate) in intermediates.iter().enumerate() {
            let entries = by_subject.entry(certificate.subject().to_vec()).or_default();
            entries.intermediates.push(index);
        }
        let mut roots = EndorsementRoots {
            anchors,
            intermediates,
            by_subject,
            crls: Vec::new(),
            crls_by_issuer: BTreeMap::new(),
            expired_intermediates,
            digest: Digest::zero(HashAlg::Sha256),
        };
        let mut refused = Vec::new();
        for crl in crls {
            let signers = roots.crl_signers(&crl);
            if signers.is_empty() {
                refused.push((crl, RootsError::SignerUnknown));
                continue;
            }
            let indexes = roots.crls_by_issuer.entry(crl.issuer().to_vec()).or_default();
            indexes.push(roots.crls.len());
            roots.crls.push(VerifiedCrl { crl, signers });
        }
        roots.digest = roots.compute_digest();
        (roots, refused)
    }

    fn admissible(&self, certificate: &Certificate) -> Result<(), RootsError> {
        if self.anchors.len() + self.intermediates.len() >= MAX_ENDORSEMENT_CERTIFICATES {
            return Err(RootsError::Limit(MAX_ENDORSEMENT_CERTIFICATES));
        }
        let extensions = certificate.extensions();
        let may_issue = extensions.basic_constraints.is_some_and(|constraints| constraints.ca)
            && extensions.key_usage.is_none_or(|usage| usage.has_any(KeyUsage::KEY_CERT_SIGN));
        if !may_issue {
            return Err(RootsError::NotCa);
        }
        if let Some(oid) = &extensions.not_understood {
            return Err(RootsError::ExtensionNotUnderstood(oid.clone()));
        }
        if let SubjectKey::Unsupported(oid) = certificate.key() {
            return Err(RootsError::UnsupportedKey(oid));
        }
        Ok(())
    }
}

/// The endorsements that EK certificates are judged by.
///
/// Independent of the order of import: sorted by SHA-256, without duplicates; a certificate that is
/// an anchor is not also an intermediate.
///
/// # Proves
/// Each CRL in it was signed by the key of an imported CA of the CRL's issuer name that may sign
/// CRLs.
///
/// # Does not prove
/// That intermediates were issued by anchors, or that anything is valid now: each path is
/// validated.
#[derive(Clone, Debug)]
pub struct EndorsementRoots {
    anchors: Vec<Certificate>,
    intermediates: Vec<Certificate>,
    by_subject: BTreeMap<Vec<u8>, Entries>,
    crls: Vec<VerifiedCrl>,
    crls_by_issuer: BTreeMap<Vec<u8>, Vec<usize>>,
    expired_intermediates: ExpiredIntermediates,
    digest: Digest,
}

/// Indexes of the certificates with one subject.
#[derive(Clone, Debug, Default)]
struct Entries {
    anchors: Vec<usize>,
    intermediates: Vec<usize>,
}

/// A CRL and the imported certificates whose keys verify it.
#[derive(Clone, Debug)]
struct VerifiedCrl {
    crl: Crl,
    signers: Vec<Certificate>,
}

impl EndorsementRoots {
    /// A set that endorses nothing.
    #[must_use]
    pub fn empty() -> Self {
        RootsBuilder::new().build().0
    }

    /// SHA-256 over the set's whole content and its treatment of expired intermediates: equal
    /// digests give equal decisions.
    ///
    /// # Format
    /// `SHA-256("assay/v1/endorsement-roots" ‖ mode ‖ for anchors, intermediates, CRLs: count (u32,
    /// big-endian) ‖ SHA-256 of each DER, ascending)`; mode 0 refuses expired intermediates, 1
    /// accepts.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The anchors, by SHA-256.
    #[must_use]
    pub fn anchors(&self) -> &[Certificate] {
        &self.anchors
    }

    /// The intermediates, by SHA-256.
    #[must_use]
    pub fn intermediates(&self) -> &[Certificate] {
        &self.intermediates
    }

    /// The CRLs, by SHA-256.
    pub fn crls(&self) -> impl Iterator<Item = &Crl> {
        self.crls.iter().map(|verified| &verified.crl)
    }

    /// What is done with expired intermediates.
    #[must_use]
    pub const fn expired_intermediates(&self) -> ExpiredIntermediates {
        self.expired_intermediates
    }

    /// Anchors with this subject, byte for byte.
    pub(super) fn anchors_named(&self, subject: &[u8]) -> impl Iterator<Item = &Certificate> {
        let entries = self.by_subject.get(subject);
        entries
            .into_iter()
            .flat_map(|entries| &entries.anchors)
            .filter_map(|i| self.anchors.get(*i))
    }

    /// Imported intermediates with this subject, byte for byte.
    pub(super) fn intermediates_named(&self, subject: &[u8]) -> impl Iterator<Item = &Certificate> {
        let entries = self.by_subject.get(subject);
        entries
            .into_iter()
            .flat_map(|entries| &entries.intermediates)
            .filter_map(|i| self.intermediates.get(*i))
    }

    /// Whether this very certificate was imported, as anchor or as intermediate.
    pub(super) fn contains(&self, certificate: &Certificate) -> bool {
        let digest = certificate.sha256();
        [&self.anchors, &self.intermediates]
            .iter()
            .any(|list| list.binary_search_by_key(&digest, Certificate::sha256).is_ok())
    }

    /// What the CRLs of `issuer`, name and key, say of `certificate`.
    ///
    /// A serial number listed in any of them is revoked, current or not: revocation is not undone
    /// by a list going stale. Not being listed is good only by a current list.
    pub(super) fn revocation(
        &self,
        certificate: &Certificate,
        issuer: &Certificate,
        now_unix_s: i64,
    ) -> RevocationState {
        let mut state = RevocationState::Unknown;
        for crl in self.crls_of(certificate, issuer) {
            if crl.lists(certificate.serial()) {
                return RevocationState::Revoked;
            }
            if crl.is_current(now_unix_s) {
                state = RevocationState::Good;
            }
        }
        state
    }

    /// When the last of the current CRLs that speak of `certificate` becomes stale, seconds since
    /// 1970; `now_unix_s` where none is current.
    pub(super) fn good_until(
        &self,
        certificate: &Certificate,
        issuer: &Certificate,
        now_unix_s: i64,
    ) -> i64 {
        self.crls_of(certificate, issuer)
            .filter(|crl| crl.is_current(now_unix_s))
            .map(|crl| crl.validity_unix_s().end)
            .fold(now_unix_s, i64::max)
    }

    /// The CRLs that the key of `issuer` signed under the name that `certificate` gives its issuer.
    fn crls_of<'a>(
        &'a self,
        certificate: &Certificate,
        issuer: &'a Certificate,
    ) -> impl Iterator<Item = &'a Crl> {
        let indexes = self.crls_by_issuer.get(certificate.issuer()).into_iter().flatten();
        indexes
            .filter_map(|index| self.crls.get(*index))
            .filter(|verified| verified.signers.iter().any(|ca| ca.spki() == issuer.spki()))
            .map(|verified| &verified.crl)
    }

    fn crl_signers(&self, crl: &Crl) -> Vec<Certificate> {
        self.anchors_named(crl.issuer())
            .chain(self.intermediates_named(crl.issuer()))
            .filter(|ca| {
                let may_sign =
                    ca.extensions().key_usage.is_none_or(|usage| usage.has_any(KeyUsage::CRL_SIGN));
                let key_id_matches = match (crl.authority_key_id(), ca.subject_key_id()) {
                    (Some(authority), Some(subject)) => authority == subject,
                    _ => true,
                };
                may_sign && key_id_matches && crl.verify_signed_by(ca).is_ok()
            })
            .cloned()
            .collect()
    }

    fn compute_digest(&self) -> Digest {
        let mut content = b"assay/v1/endorsement-roots".to_vec();
        content.push(match self.expired_intermediates {
            ExpiredIntermediates::Refuse => 0,
            ExpiredIntermediates::AcceptImportedIfValidAtIssue => 1,
        });
        let classes: [Vec<Digest>; 3] = [
            self.anchors.iter().map(Certificate::sha256).collect(),
            self.intermediates.iter().map(Certificate::sha256).collect(),
            self.crls().map(Crl::sha256).collect(),
        ];
        for class in &classes {
            // Bounded by MAX_ENDORSEMENT_CERTIFICATES and MAX_CRLS.
            let count = u32::try_from(class.len()).unwrap_or(u32::MAX);
            content.extend_from_slice(&count.to_be_bytes());
            for digest in class {
                content.extend_from_slice(digest.as_bytes());
            }
        }
        HashAlg::Sha256.hash(&[&content])
    }
}
