//! Certificate revocation lists, imported beforehand.

use std::{fmt, ops::Range, sync::Arc};

use proto::digest::{Digest, HashAlg};

use super::{
    certificate::{Certificate, each_extension, minimal_integer, read_serial},
    der::{DerError, DerErrorKind, Reader, Span, dotted, tag},
    key::{SignatureAlgorithm, SignatureFailure},
    name,
    oddity::Oddities,
    time,
};

/// Largest CRL: 200 000 entries of about 40 bytes.
const MAX_CRL_BYTES: usize = 8 * 1024 * 1024;
/// Entries of one CRL.
const MAX_CRL_ENTRIES: usize = 200_000;

/// A complete CRL of one issuer, well-formed and believed by nobody.
///
/// Delta CRLs, indirect CRLs and CRLs for a part of an issuer's certificates mark themselves by
/// critical extensions and are refused: taking one for a complete list would make `unknown` `good`.
///
/// # Format
/// DER `CertificateList` of at most 8 MiB and 200 000 entries.
///
/// # Source
/// RFC 5280, section 5.
#[derive(Clone)]
pub struct Crl {
    der: Arc<[u8]>,
    sha256: Digest,
    tbs: Span,
    signature_algorithm: SignatureAlgorithm,
    signature: Span,
    issuer: Span,
    this_update_unix_s: i64,
    next_update_unix_s: i64,
    authority_key_id: Option<Span>,
    /// Sorted by the minimal form of the serial number.
    revoked: Vec<Span>,
}

impl Crl {
    /// Reads one CRL, consuming all of `bytes`.
    ///
    /// # Errors
    /// [`DerError`] with the offset.
    pub fn parse(bytes: &[u8]) -> Result<Self, DerError> {
        if bytes.len() > MAX_CRL_BYTES {
            let kind = DerErrorKind::Limit(MAX_CRL_BYTES);
            return Err(DerError { at: 0, what: "CRL", kind });
        }
        read(bytes)
    }

    /// The CRL's bytes.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of [`Crl::der`].
    #[must_use]
    pub const fn sha256(&self) -> Digest {
        self.sha256
    }

    /// Issuer, DER `Name` as received.
    #[must_use]
    pub fn issuer(&self) -> &[u8] {
        self.issuer.of(&self.der)
    }

    /// Issuer as text, for people.
    #[must_use]
    pub fn issuer_text(&self) -> String {
        name::show(self.issuer())
    }

    /// How it is signed.
    #[must_use]
    pub const fn signature_algorithm(&self) -> &SignatureAlgorithm {
        &self.signature_algorithm
    }

    /// When it was issued and when the next one is due, seconds since 1970.
    #[must_use]
    pub const fn validity_unix_s(&self) -> Range<i64> {
        self.this_update_unix_s..self.next_update_unix_s
    }

    /// Number of revoked certificates.
    #[must_use]
    pub fn revoked_count(&self) -> usize {
        self.revoked.len()
    }

    /// Whether it covers `now_unix_s`: issued, and the next one not overdue.
    #[must_use]
    pub fn is_current(&self, now_unix_s: i64) -> bool {
        (self.this_update_unix_s..=self.next_update_unix_s).contains(&now_unix_s)
    }

    /// Whether it lists this serial number (minimal form, as [`Certificate::serial`]).
    #[must_use]
    pub fn lists(&self, serial: &[u8]) -> bool {
        self.revoked
            .binary_search_by(|span| minimal_integer(span.of(&self.der)).cmp(serial))
            .is_ok()
    }

    /// Authority key identifier.
    #[must_use]
    pub fn authority_key_id(&self) -> Option<&[u8]> {
        self.authority_key_id.map(|span| span.of(&self.der))
    }

    /// Whether `issuer`'s key signed this CRL.
    ///
    /// # Errors
    /// [`SignatureFailure`]; SHA-1 is unsupported here.
    pub fn verify_signed_by(&self, issuer: &Certificate) -> Result<(), SignatureFailure> {
        if self.signature_algorithm == SignatureAlgorithm::RsaSha1 {
            return Err(SignatureFailure::Unsupported);
        }
        let (tbs, signature) = (self.tbs.of(&self.der), self.signature.of(&self.der));
        self.signature_algorithm.verify(&issuer.key(), tbs, signature)
    }
}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crl")
            .field("issuer", &self.issuer_text())
            .field("sha256", &self.sha256)
            .field("revoked", &self.revoked.len())
            .finish_non_exhaustive()
    }
}

fn read(bytes: &[u8]) -> Result<Crl, DerError> {
    // Oddities of a CRL change nothing that is decided from it.
    let mut oddities = Oddities::default();
    let mut document = Reader::new(bytes);
    let mut list = document.enter(tag::SEQUENCE, "CRL")?;
    document.finish("CRL")?;
    let tbs_element = list.expect(tag::SEQUENCE, "tbsCertList")?;
    let (signature_algorithm, outer_span) = SignatureAlgorithm::read(&mut list, &mut oddities)?;
    let signature = list.octet_bits("signatureValue")?;
    list.finish("CRL")?;

    let mut tbs = list.inside(tbs_element);
    let version =
        if tbs.rest().first() == Some(&tag::INTEGER) { tbs.small_integer("version")? } else { 0 };
    if version > 1 {
        return Err(tbs.error("version", DerErrorKind::Value("version is above 2")));
    }
    let (_, inner_span) = SignatureAlgorithm::read(&mut tbs, &mut oddities)?;
    if tbs.bytes(inner_span) != tbs.bytes(outer_span) {
        let kind = DerErrorKind::Value("signed and outer algorithm differ");
        return Err(DerError { at: outer_span.start(), what: "signatureAlgorithm", kind });
    }
    let issuer = name::read(&mut tbs, "issuer", &mut oddities)?;
    let this_update_unix_s = time::read(&mut tbs, "thisUpdate")?;
    if !matches!(tbs.rest().first(), Some(&(tag::UTC_TIME | tag::GENERALIZED_TIME))) {
        let kind = DerErrorKind::Value("absent, so that nobody can tell when the list is stale");
        return Err(tbs.error("nextUpdate", kind));
    }
    let next_update_unix_s = time::read(&mut tbs, "nextUpdate")?;
    let mut revoked = Vec::new();
    if let Some(element) = tbs.optional(tag::SEQUENCE, "revokedCertificates")? {
        let mut entries = tbs.inside(element);
        while !entries.is_empty() {
            if revoked.len() >= MAX_CRL_ENTRIES {
                let kind = DerErrorKind::Limit(MAX_CRL_ENTRIES);
                return Err(entries.error("revokedCertificates", kind));
            }
            let mut entry = entries.enter(tag::SEQUENCE, "revokedCertificate")?;
            revoked.push(read_serial(&mut entry, &mut oddities)?);
            time::read(&mut entry, "revocationDate")?;
            if let Some(element) = entry.optional(tag::SEQUENCE, "crlEntryExtensions")? {
                refuse_critical(entry.inside(element), &mut oddities)?;
            }
            entry.finish("revokedCertificate")?;
        }
    }
    let mut authority_key_id = None;
    if let Some(element) = tbs.optional(tag::explicit(0), "crlExtensions")? {
        let mut reader = tbs.inside(element);
        let extensions = reader.enter(tag::SEQUENCE, "crlExtensions")?;
        reader.finish("crlExtensions")?;
        each_extension(extensions, &mut oddities, |oid, critical, mut value, _| {
            match oid {
                [0x55, 0x1d, 35] => {
                    let mut reader = value.enter(tag::SEQUENCE, "authorityKeyIdentifier")?;
                    let id = reader.optional(tag::context(0), "authorityKeyIdentifier")?;
                    authority_key_id = id.map(|id| id.body);
                }
                // Delta CRL indicator and issuing distribution point, critical or not: the list is
                // not a complete one.
                [0x55, 0x1d, 27 | 28] => {
                    let kind = DerErrorKind::Value("a delta, partial or indirect list");
                    return Err(value.error("crlExtensions", kind));
                }
                _ if critical => return Err(not_understood(&value, oid)),
                _ => {}
            }
            Ok(())
        })?;
    }
    tbs.finish("tbsCertList")?;

    let der: Arc<[u8]> = bytes.into();
    revoked.sort_unstable_by(|a, b| minimal_integer(a.of(&der)).cmp(minimal_integer(b.of(&der))));
    Ok(Crl {
        sha256: HashAlg::Sha256.hash(&[&der]),
        der,
        tbs: tbs_element.whole,
        signature_algorithm,
        signature,
        issuer,
        this_update_unix_s,
        next_update_unix_s,
        authority_key_id,
        revoked,
    })
}

/// Certificate issuer (2.5.29.29) is the one critical entry extension of RFC 5280: an indirect
/// list.
fn refuse_critical(extensions: Reader<'_>, oddities: &mut Oddities) -> Result<(), DerError> {
    each_extension(extensions, oddities, |oid, critical, value, _| {
        if critical { Err(not_understood(&value, oid)) } else { Ok(()) }
    })
}

fn not_understood(value: &Reader<'_>, oid: &[u8]) -> DerError {
    let reason = match dotted(oid).as_str() {
        "2.5.29.29" => "an indirect list (certificate issuer)",
        _ => "a critical extension is not understood",
    };
    value.error("crlExtensions", DerErrorKind::Value(reason))
}
