//! A certificate, read without losing its bytes.

use std::sync::Arc;

use proto::{
    digest::{Digest, HashAlg},
    limits::MAX_CERTIFICATE_BYTES,
};

use super::{
    der::{DerError, DerErrorKind, Element, Reader, Span, dotted, tag},
    key::{KeySpans, SignatureAlgorithm, SignatureFailure, SubjectKey, read_spki},
    name,
    oddity::{Oddities, Oddity},
    time::{self, NO_EXPIRY_UNIX_S},
};

/// Extensions of one certificate; real ones have up to eleven.
const MAX_EXTENSIONS: usize = 32;
/// Purposes, names or policies in one extension.
const MAX_ITEMS: usize = 64;
/// Longest serial number: RFC 5280 allows 20 bytes, one more is the sign.
const MAX_SERIAL_BYTES: usize = 21;
/// Longest text of a TPM's manufacturer, model or version.
const MAX_TPM_TEXT_BYTES: usize = 64;
/// TCG_PCCLIENT_STORED_CERT (tag 0x1001, type 0: full certificate), size, TCG_FULL_CERT (0x1002).
const TCG_HEADER_BYTES: usize = 7;

/// What a basic constraints extension says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BasicConstraints {
    /// `cA`.
    pub ca: bool,
    /// `pathLenConstraint`.
    pub path_len: Option<u32>,
}

/// A key usage extension: bit n of RFC 5280 is bit n here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUsage(u16);

impl KeyUsage {
    /// `digitalSignature`.
    pub const DIGITAL_SIGNATURE: u16 = 1 << 0;
    /// `nonRepudiation`.
    pub const NON_REPUDIATION: u16 = 1 << 1;
    /// `keyEncipherment`.
    pub const KEY_ENCIPHERMENT: u16 = 1 << 2;
    /// `keyAgreement`.
    pub const KEY_AGREEMENT: u16 = 1 << 4;
    /// `keyCertSign`.
    pub const KEY_CERT_SIGN: u16 = 1 << 5;
    /// `cRLSign`.
    pub const CRL_SIGN: u16 = 1 << 6;

    /// Whether any bit of `mask` is set.
    #[must_use]
    pub const fn has_any(self, mask: u16) -> bool {
        self.0 & mask != 0
    }
}

/// The purposes of an extended key usage extension that matter here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtendedKeyUsage {
    /// anyExtendedKeyUsage, 2.5.29.37.0.
    pub any: bool,
    /// tcg-kp-AIKCertificate, 2.23.133.8.3.
    pub attestation_key: bool,
    /// tcg-kp-EKCertificate, 2.23.133.8.1.
    pub endorsement_key: bool,
    /// tcg-kp-PlatformAttributeCertificate, 2.23.133.8.2, or -PlatformKeyCertificate, 2.23.133.8.4.
    pub platform: bool,
}

/// What a certificate says of the TPM it was issued for, in its subject alternative name.
///
/// # Format
/// Text as the manufacturer wrote it, at most 64 bytes, without control characters; the
/// manufacturer and version usually as `id:` and eight hexadecimal digits.
///
/// # Source
/// TCG EK Credential Profile, "Subject Alternative Name"; attributes 2.23.133.2.1 to .3.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TpmIdentity {
    /// `TPMManufacturer`, for example `id:49465800`.
    pub manufacturer: String,
    /// `TPMModel`.
    pub model: String,
    /// `TPMVersion`: of the firmware the TPM was made with.
    pub version: String,
}

impl TpmIdentity {
    /// The four characters of the TCG vendor ID registry, for example `INTC`, `IFX`, `GOOG`:
    /// decoded from `id:XXXXXXXX`, trailing NULs and spaces cut; `None` if it is in another form.
    #[must_use]
    pub fn vendor(&self) -> Option<String> {
        let digits = self.manufacturer.strip_prefix("id:")?;
        let bytes: [u8; 4] = hex::decode(digits).ok()?.try_into().ok()?;
        let text = std::str::from_utf8(&bytes).ok()?.trim_end_matches(['\0', ' ']);
        let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
        plain.then(|| text.to_owned())
    }
}

/// What the extensions say.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Extensions {
    /// Basic constraints.
    pub basic_constraints: Option<BasicConstraints>,
    /// Key usage.
    pub key_usage: Option<KeyUsage>,
    /// Extended key usage.
    pub extended_key_usage: Option<ExtendedKeyUsage>,
    /// TPM attributes in a directory name of the subject alternative name.
    pub tpm_identity: Option<TpmIdentity>,
    /// Whether CRL distribution points are named (they are never fetched).
    pub crl_distribution_points: bool,
    /// A critical extension that is not understood, or name constraints, policy mappings or policy
    /// constraints whether critical or not: its object identifier, dotted.
    pub not_understood: Option<String>,
    pub(super) authority_key_id: Option<Span>,
    pub(super) subject_key_id: Option<Span>,
}

/// A certificate, well-formed and believed by nobody.
///
/// # Format
/// DER `Certificate` of at most [`MAX_CERTIFICATE_BYTES`] bytes, versions 1 to 3, with the
/// deviations named in [`Certificate::oddities`]. Cloning shares the bytes.
///
/// # Does not prove
/// Anything: signature, validity and issuer are judged by path validation.
///
/// # Source
/// RFC 5280, section 4.1.
#[derive(Clone)]
pub struct Certificate {
    der: Arc<[u8]>,
    sha256: Digest,
    tbs: Span,
    version: u8,
    serial: Span,
    signature_algorithm: SignatureAlgorithm,
    issuer: Span,
    subject: Span,
    not_before_unix_s: i64,
    not_after_unix_s: i64,
    spki: Span,
    key: KeySpans,
    signature: Span,
    extensions: Extensions,
    oddities: Oddities,
}

impl Certificate {
    /// Reads one certificate, consuming all of `bytes`.
    ///
    /// # Errors
    /// [`DerError`] with the offset.
    pub fn parse(bytes: &[u8]) -> Result<Self, DerError> {
        if bytes.len() > MAX_CERTIFICATE_BYTES {
            let kind = DerErrorKind::Limit(MAX_CERTIFICATE_BYTES);
            return Err(DerError { at: 0, what: "certificate", kind });
        }
        read(bytes)
    }

    /// Reads an EK certificate as it stands in an NV index: the seven-byte header of TPM 1.2's
    /// stored certificates and uniform padding (all 0x00 or all 0xff) are cut off and named as
    /// oddities.
    ///
    /// # Errors
    /// As [`Certificate::parse`].
    pub fn parse_from_nv(bytes: &[u8]) -> Result<Self, DerError> {
        let mut oddities = Oddities::default();
        let mut rest = bytes;
        if let [0x10, 0x01, 0x00, size_high, size_low, 0x10, 0x02, ..] = *bytes {
            let size = usize::from(u16::from_be_bytes([size_high, size_low]));
            // The size counts the inner tag and the certificate.
            let end = (TCG_HEADER_BYTES - 2).checked_add(size).filter(|end| *end <= bytes.len());
            let (Some(end), true) = (end, size > 2) else {
                let kind = DerErrorKind::Value("size of the TCG header is wrong");
                return Err(DerError { at: 3, what: "certificate", kind });
            };
            if !is_padding(bytes.get(end..).unwrap_or_default()) {
                let kind = DerErrorKind::Trailing(bytes.len() - end);
                return Err(DerError { at: end, what: "certificate", kind });
            }
            rest = bytes.get(TCG_HEADER_BYTES..end).unwrap_or_default();
            oddities.add(Oddity::TcgHeader);
        }
        let mut outer = Reader::new(rest);
        let certificate = outer.expect(tag::SEQUENCE, "certificate")?;
        if !outer.is_empty() {
            if !is_padding(outer.rest()) {
                return Err(outer.error("certificate", DerErrorKind::Trailing(outer.rest().len())));
            }
            oddities.add(Oddity::NvPadding);
        }
        let mut parsed = Self::parse(outer.bytes(certificate.whole))?;
        parsed.oddities.add_all(oddities);
        Ok(parsed)
    }

    /// The certificate's bytes, without header and padding.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of [`Certificate::der`].
    #[must_use]
    pub const fn sha256(&self) -> Digest {
        self.sha256
    }

    /// The signed part, as received.
    #[must_use]
    pub fn tbs(&self) -> &[u8] {
        self.tbs.of(&self.der)
    }

    /// 1, 2 or 3.
    #[must_use]
    pub const fn version(&self) -> u8 {
        self.version
    }

    /// Serial number: two's complement, big-endian, minimal.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        minimal_integer(self.serial.of(&self.der))
    }

    /// How it is signed.
    #[must_use]
    pub const fn signature_algorithm(&self) -> &SignatureAlgorithm {
        &self.signature_algorithm
    }

    /// Issuer, DER `Name` as received.
    #[must_use]
    pub fn issuer(&self) -> &[u8] {
        self.issuer.of(&self.der)
    }

    /// Subject, DER `Name` as received.
    #[must_use]
    pub fn subject(&self) -> &[u8] {
        self.subject.of(&self.der)
    }

    /// Issuer as text, for people.
    #[must_use]
    pub fn issuer_text(&self) -> String {
        name::show(self.issuer())
    }

    /// Subject as text, for people.
    #[must_use]
    pub fn subject_text(&self) -> String {
        name::show(self.subject())
    }

    /// First second of validity, seconds since 1970.
    #[must_use]
    pub const fn not_before_unix_s(&self) -> i64 {
        self.not_before_unix_s
    }

    /// Last second of validity, seconds since 1970.
    #[must_use]
    pub const fn not_after_unix_s(&self) -> i64 {
        self.not_after_unix_s
    }

    /// `SubjectPublicKeyInfo`, as received.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        self.spki.of(&self.der)
    }

    /// The certified key.
    #[must_use]
    pub fn key(&self) -> SubjectKey<'_> {
        self.key.key(&self.der)
    }

    /// The extensions.
    #[must_use]
    pub const fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// Authority key identifier.
    #[must_use]
    pub fn authority_key_id(&self) -> Option<&[u8]> {
        self.extensions.authority_key_id.map(|span| span.of(&self.der))
    }

    /// Subject key identifier.
    #[must_use]
    pub fn subject_key_id(&self) -> Option<&[u8]> {
        self.extensions.subject_key_id.map(|span| span.of(&self.der))
    }

    /// Deviations found while reading. Those of the certificate's place in a chain come with it.
    #[must_use]
    pub const fn oddities(&self) -> Oddities {
        self.oddities
    }

    /// Whether issuer and subject are the same name.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.issuer() == self.subject()
    }

    /// Whether `issuer`'s key signed this certificate.
    ///
    /// # Errors
    /// [`SignatureFailure`].
    pub fn verify_signed_by(&self, issuer: &Self) -> Result<(), SignatureFailure> {
        self.signature_algorithm.verify(&issuer.key(), self.tbs(), self.signature.of(&self.der))
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &self.subject_text())
            .field("sha256", &self.sha256)
            .finish_non_exhaustive()
    }
}

fn is_padding(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0) || bytes.iter().all(|byte| *byte == 0xff)
}

/// Two's complement without surplus leading bytes.
pub(super) fn minimal_integer(mut value: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = value {
        let surplus = rest.first().is_some_and(|second| {
            (*first == 0 && *second < 0x80) || (*first == 0xff && *second >= 0x80)
        });
        if !surplus {
            break;
        }
        value = rest;
    }
    value
}

/// Reads a serial number; its oddities are the certificate's.
pub(super) fn read_serial(
    reader: &mut Reader<'_>,
    oddities: &mut Oddities,
) -> Result<Span, DerError> {
    let element = reader.expect(tag::INTEGER, "serialNumber")?;
    let value = reader.bytes(element.body);
    if value.is_empty() {
        return Err(reader.error_at(element, "serialNumber", "integer is empty"));
    }
    let minimal = minimal_integer(value);
    if minimal.len() > MAX_SERIAL_BYTES {
        let kind = DerErrorKind::Limit(MAX_SERIAL_BYTES);
        return Err(DerError { at: element.whole.start(), what: "serialNumber", kind });
    }
    if minimal.len() != value.len() {
        oddities.add(Oddity::SerialNotMinimal);
    }
    if minimal == [0] || minimal.first().is_some_and(|first| *first >= 0x80) {
        oddities.add(Oddity::SerialNotPositive);
    }
    Ok(element.body)
}

fn read(bytes: &[u8]) -> Result<Certificate, DerError> {
    let mut oddities = Oddities::default();
    let mut document = Reader::new(bytes);
    let mut certificate = document.enter(tag::SEQUENCE, "certificate")?;
    document.finish("certificate")?;
    let tbs_element = certificate.expect(tag::SEQUENCE, "tbsCertificate")?;
    let (outer_algorithm, outer_span) = SignatureAlgorithm::read(&mut certificate, &mut oddities)?;
    let signature = certificate.octet_bits("signatureValue")?;
    certificate.finish("certificate")?;

    let mut tbs = certificate.inside(tbs_element);
    let version = match tbs.optional(tag::explicit(0), "version")? {
        None => 1,
        Some(element) => {
            let mut reader = tbs.inside(element);
            let version = reader.small_integer("version")?;
            reader.finish("version")?;
            match version {
                0 => {
                    oddities.add(Oddity::DefaultEncoded);
                    1
                }
                1 => 2,
                2 => 3,
                _ => return Err(tbs.error_at(element, "version", "version is above 3")),
            }
        }
    };
    let serial = read_serial(&mut tbs, &mut oddities)?;
    let (_, inner_span) = SignatureAlgorithm::read(&mut tbs, &mut oddities)?;
    if tbs.bytes(inner_span) != tbs.bytes(outer_span) {
        let kind = DerErrorKind::Value("signed and outer algorithm differ");
        return Err(DerError { at: outer_span.start(), what: "signatureAlgorithm", kind });
    }
    let issuer = name::read(&mut tbs, "issuer", &mut oddities)?;
    let mut validity = tbs.enter(tag::SEQUENCE, "validity")?;
    let not_before_unix_s = time::read(&mut validity, "notBefore")?;
    let not_after_unix_s = time::read(&mut validity, "notAfter")?;
    validity.finish("validity")?;
    if not_after_unix_s >= NO_EXPIRY_UNIX_S {
        oddities.add(Oddity::NoExpiry);
    }
    let subject = name::read(&mut tbs, "subject", &mut oddities)?;
    let spki_start = tbs.offset();
    let key = read_spki(&mut tbs, &mut oddities)?;
    let spki = Span::from(spki_start..tbs.offset());
    if version >= 2 {
        // issuerUniqueID, subjectUniqueID: long deprecated, never used for a decision.
        tbs.optional(tag::context(1), "issuerUniqueID")?;
        tbs.optional(tag::context(2), "subjectUniqueID")?;
    }
    let mut extensions = Extensions::default();
    if version == 3
        && let Some(element) = tbs.optional(tag::explicit(3), "extensions")?
    {
        let mut reader = tbs.inside(element);
        let list = reader.enter(tag::SEQUENCE, "extensions")?;
        reader.finish("extensions")?;
        extensions = read_extensions(list, &mut oddities)?;
    }
    tbs.finish("tbsCertificate")?;

    Ok(Certificate {
        der: bytes.into(),
        sha256: HashAlg::Sha256.hash(&[bytes]),
        tbs: tbs_element.whole,
        version,
        serial,
        signature_algorithm: outer_algorithm,
        issuer,
        subject,
        not_before_unix_s,
        not_after_unix_s,
        spki,
        key,
        signature,
        extensions,
        oddities,
    })
}

/// Calls `seen` with object identifier, critical flag and content of each extension; repeated ones
/// are refused.
pub(super) fn each_extension<'a>(
    mut list: Reader<'a>,
    oddities: &mut Oddities,
    mut seen: impl FnMut(&'a [u8], bool, Reader<'a>, &mut Oddities) -> Result<(), DerError>,
) -> Result<(), DerError> {
    const WHAT: &str = "extension";
    let mut known: [&[u8]; MAX_EXTENSIONS] = [&[]; MAX_EXTENSIONS];
    let mut count = 0;
    while !list.is_empty() {
        let at = list.offset();
        let mut extension = list.enter(tag::SEQUENCE, WHAT)?;
        let oid = extension.oid(WHAT)?;
        if known.iter().take(count).any(|other| *other == oid) {
            let kind = DerErrorKind::Value("an extension is repeated");
            return Err(DerError { at, what: WHAT, kind });
        }
        let Some(slot) = known.get_mut(count) else {
            return Err(DerError { at, what: WHAT, kind: DerErrorKind::Limit(MAX_EXTENSIONS) });
        };
        *slot = oid;
        count += 1;
        let mut critical = false;
        if extension.rest().first() == Some(&tag::BOOLEAN) {
            critical = extension.boolean("extension.critical")?;
            if !critical {
                oddities.add(Oddity::DefaultEncoded);
            }
        }
        let value = extension.enter(tag::OCTET_STRING, "extension.value")?;
        extension.finish(WHAT)?;
        seen(oid, critical, value, oddities)?;
    }
    Ok(())
}

fn read_extensions(list: Reader<'_>, oddities: &mut Oddities) -> Result<Extensions, DerError> {
    let mut out = Extensions::default();
    each_extension(list, oddities, |oid, critical, mut value, oddities| {
        match oid {
            // Subject directory attributes: only the specification the TPM follows.
            [0x55, 0x1d, 9] if critical => {
                oddities.add(Oddity::SubjectDirectoryAttributesCritical);
            }
            [0x55, 0x1d, 14] => {
                let id = value.expect(tag::OCTET_STRING, "subjectKeyIdentifier")?;
                value.finish("subjectKeyIdentifier")?;
                out.subject_key_id = Some(id.body);
            }
            [0x55, 0x1d, 15] => out.key_usage = Some(read_key_usage(&mut value)?),
            [0x55, 0x1d, 17] => out.tpm_identity = read_alt_name(&mut value, oddities)?,
            [0x55, 0x1d, 19] => {
                out.basic_constraints = Some(read_basic_constraints(&mut value, oddities)?);
            }
            [0x55, 0x1d, 31] => {
                value.expect(tag::SEQUENCE, "cRLDistributionPoints")?;
                value.finish("cRLDistributionPoints")?;
                out.crl_distribution_points = true;
            }
            [0x55, 0x1d, 32] => {
                read_policies(&mut value)?;
                if critical {
                    oddities.add(Oddity::PoliciesCritical);
                }
            }
            [0x55, 0x1d, 35] => out.authority_key_id = read_authority_key_id(&mut value)?,
            [0x55, 0x1d, 37] => {
                out.extended_key_usage = Some(read_extended_key_usage(&mut value)?);
                if critical {
                    oddities.add(Oddity::ExtendedKeyUsageCritical);
                }
            }
            // Name constraints, policy mappings, policy constraints: a CA that has them wanted them
            // obeyed. They are not processed here, so such a CA is not used, critical or not.
            [0x55, 0x1d, 30 | 33 | 36] => out.not_understood = Some(dotted(oid)),
            _ if critical => out.not_understood = Some(dotted(oid)),
            _ => {}
        }
        Ok(())
    })?;
    Ok(out)
}

fn read_basic_constraints(
    value: &mut Reader<'_>,
    oddities: &mut Oddities,
) -> Result<BasicConstraints, DerError> {
    const WHAT: &str = "basicConstraints";
    let mut reader = value.enter(tag::SEQUENCE, WHAT)?;
    value.finish(WHAT)?;
    let mut out = BasicConstraints::default();
    if reader.rest().first() == Some(&tag::BOOLEAN) {
        out.ca = reader.boolean(WHAT)?;
        if !out.ca {
            oddities.add(Oddity::DefaultEncoded);
        }
    }
    if !reader.is_empty() {
        out.path_len = Some(reader.small_integer("pathLenConstraint")?);
    }
    reader.finish(WHAT)?;
    Ok(out)
}

fn read_key_usage(value: &mut Reader<'_>) -> Result<KeyUsage, DerError> {
    const WHAT: &str = "keyUsage";
    let (bits, _) = value.bit_string(WHAT)?;
    value.finish(WHAT)?;
    let mut out = 0;
    for (index, byte) in value.bytes(bits).iter().take(2).enumerate() {
        // Bit 0 of RFC 5280 is the highest bit of the first byte.
        out |= u16::from(byte.reverse_bits()) << (8 * index);
    }
    Ok(KeyUsage(out))
}

fn read_extended_key_usage(value: &mut Reader<'_>) -> Result<ExtendedKeyUsage, DerError> {
    const WHAT: &str = "extKeyUsage";
    let mut list = value.enter(tag::SEQUENCE, WHAT)?;
    value.finish(WHAT)?;
    let mut out = ExtendedKeyUsage::default();
    let mut count = 0;
    while !list.is_empty() {
        count += 1;
        if count > MAX_ITEMS {
            return Err(list.error(WHAT, DerErrorKind::Limit(MAX_ITEMS)));
        }
        match list.oid(WHAT)? {
            [0x55, 0x1d, 37, 0] => out.any = true,
            [0x67, 0x81, 0x05, 0x08, 0x01] => out.endorsement_key = true,
            [0x67, 0x81, 0x05, 0x08, 0x02 | 0x04] => out.platform = true,
            [0x67, 0x81, 0x05, 0x08, 0x03] => out.attestation_key = true,
            _ => {}
        }
    }
    if count == 0 {
        return Err(value.error(WHAT, DerErrorKind::Value("lists no purpose")));
    }
    Ok(out)
}

fn read_policies(value: &mut Reader<'_>) -> Result<(), DerError> {
    const WHAT: &str = "certificatePolicies";
    let mut list = value.enter(tag::SEQUENCE, WHAT)?;
    value.finish(WHAT)?;
    let mut count = 0;
    while !list.is_empty() {
        count += 1;
        if count > MAX_ITEMS {
            return Err(list.error(WHAT, DerErrorKind::Limit(MAX_ITEMS)));
        }
        list.enter(tag::SEQUENCE, WHAT)?.oid(WHAT)?;
    }
    Ok(())
}

fn read_authority_key_id(value: &mut Reader<'_>) -> Result<Option<Span>, DerError> {
    const WHAT: &str = "authorityKeyIdentifier";
    let mut reader = value.enter(tag::SEQUENCE, WHAT)?;
    value.finish(WHAT)?;
    // Issuer and serial, the other form, is a hint that adds nothing to the signature check.
    let id = reader.optional(tag::context(0), WHAT)?;
    Ok(id.map(|id| id.body))
}

fn read_alt_name(
    value: &mut Reader<'_>,
    oddities: &mut Oddities,
) -> Result<Option<TpmIdentity>, DerError> {
    const WHAT: &str = "subjectAltName";
    let mut list = value.enter(tag::SEQUENCE, WHAT)?;
    value.finish(WHAT)?;
    let mut found: [Option<String>; 3] = [None, None, None];
    let mut count = 0;
    while !list.is_empty() {
        count += 1;
        if count > MAX_ITEMS {
            return Err(list.error(WHAT, DerErrorKind::Limit(MAX_ITEMS)));
        }
        let general_name = list.element(WHAT)?;
        if general_name.tag != tag::explicit(4) {
            continue;
        }
        let mut reader = list.inside(general_name);
        let names = reader.enter(tag::SEQUENCE, WHAT)?;
        reader.finish(WHAT)?;
        name::each_attribute(names, WHAT, oddities, |oid, element| {
            let [0x67, 0x81, 0x05, 0x02, kind @ 1..=3] = *oid else {
                return Ok(());
            };
            let text = tpm_text(&names, element)?;
            match found.get_mut(usize::from(kind) - 1) {
                Some(slot @ None) => *slot = Some(text),
                // Two manufacturers in one certificate: neither can be believed.
                _ => return Err(names.error_at(element, WHAT, "a TPM attribute is repeated")),
            }
            Ok(())
        })?;
    }
    let [Some(manufacturer), Some(model), Some(version)] = found else {
        return Ok(None);
    };
    Ok(Some(TpmIdentity { manufacturer, model, version }))
}

fn tpm_text(reader: &Reader<'_>, element: Element) -> Result<String, DerError> {
    const WHAT: &str = "TPM attribute";
    let body = reader.bytes(element.body);
    if body.len() > MAX_TPM_TEXT_BYTES {
        let kind = DerErrorKind::Limit(MAX_TPM_TEXT_BYTES);
        return Err(DerError { at: element.whole.start(), what: WHAT, kind });
    }
    name::text(element.tag, body).ok_or_else(|| reader.error_at(element, WHAT, "is not a text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_lose_only_surplus_bytes() {
        for (value, expected) in [
            (&[0][..], &[0][..]),
            (&[0, 0, 0x7f], &[0x7f]),
            (&[0, 0x80], &[0, 0x80]),
            (&[0, 0, 0x80], &[0, 0x80]),
            (&[0xff, 0xff, 0x80], &[0x80]),
            (&[0xff, 0x7f], &[0xff, 0x7f]),
        ] {
            assert_eq!(minimal_integer(value), expected);
        }
    }

    #[test]
    fn vendors_are_decoded() {
        let identity = |manufacturer: &str| TpmIdentity {
            manufacturer: manufacturer.to_owned(),
            model: String::new(),
            version: String::new(),
        };
        assert_eq!(identity("id:474F4F47").vendor().as_deref(), Some("GOOG"));
        assert_eq!(identity("id:49465800").vendor().as_deref(), Some("IFX"));
        assert_eq!(identity("id:00001014").vendor(), None, "IBM's number is not text");
        assert_eq!(identity("GOOG").vendor(), None);
    }
}
