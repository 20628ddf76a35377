//! What a certificate says, as far as SPIFFE has rules for it.

use const_oid::db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH};
use der::{Decode as _, Encode as _, Header, Reader as _, SliceReader, Tag};
use x509_cert::{
    Certificate,
    ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName, name::GeneralName},
};

use super::Nonconformity;

/// Bytes of one certificate; those of SPIFFE issuers have under 2 KiB.
const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// What is compared with the rest of an SVID.
pub(super) struct Leaf {
    pub(super) uri: String,
    pub(super) public_key_der: Vec<u8>,
    pub(super) not_after_unix_s: u64,
}

/// One certificate and nothing behind it.
pub(super) fn parse(der: &[u8]) -> Option<Certificate> {
    if der.len() > MAX_CERTIFICATE_BYTES {
        return None;
    }
    Certificate::from_der(der).ok()
}

/// The first DER SEQUENCE, and what follows it.
pub(super) fn first_sequence(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = SliceReader::new(bytes).ok()?;
    let header = Header::decode(&mut reader).ok()?;
    let start = usize::try_from(reader.position()).ok()?;
    let end = start.checked_add(usize::try_from(header.length()).ok()?)?;
    (header.tag() == Tag::Sequence).then_some(())?;
    bytes.split_at_checked(end)
}

pub(super) fn may_sign(certificate: &Certificate) -> bool {
    let tbs = certificate.tbs_certificate();
    let is_ca = matches!(tbs.get_extension::<BasicConstraints>(), Ok(Some((_, basic))) if basic.ca);
    let signs =
        matches!(tbs.get_extension::<KeyUsage>(), Ok(Some((_, usage))) if usage.key_cert_sign());
    is_ca && signs
}

/// The rules for an X.509-SVID's leaf.
pub(super) fn leaf(der: &[u8]) -> Result<Leaf, Nonconformity> {
    let certificate = parse(der).ok_or(Nonconformity::SvidChainMalformed)?;
    let tbs = certificate.tbs_certificate();
    match tbs.get_extension::<BasicConstraints>() {
        Ok(Some((_, basic))) if !basic.ca => {}
        _ => return Err(Nonconformity::SvidLeafIsCa),
    }
    match tbs.get_extension::<KeyUsage>() {
        Ok(Some((true, usage)))
            if usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign() => {}
        _ => return Err(Nonconformity::SvidLeafKeyUsage),
    }
    let has_both = |usage: &ExtendedKeyUsage| {
        [ID_KP_SERVER_AUTH, ID_KP_CLIENT_AUTH].iter().all(|oid| usage.0.contains(oid))
    };
    match tbs.get_extension::<ExtendedKeyUsage>() {
        Ok(None) => {}
        Ok(Some((_, usage))) if has_both(&usage) => {}
        _ => return Err(Nonconformity::SvidLeafExtendedKeyUsage),
    }
    let names = match tbs.get_extension::<SubjectAltName>() {
        // With an empty subject the names are all there is, and must not be skipped.
        Ok(Some((is_critical, names))) if is_critical || !tbs.subject().is_empty() => names.0,
        _ => return Err(Nonconformity::SvidLeafNames),
    };
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
        _ => None,
    });
    let (Some(uri), None) = (uris.next(), uris.next()) else {
        return Err(Nonconformity::SvidLeafNames);
    };
    let public_key_der = tbs.subject_public_key_info().to_der();
    Ok(Leaf {
        uri: uri.to_owned(),
        public_key_der: public_key_der.map_err(|_| Nonconformity::SvidChainMalformed)?,
        not_after_unix_s: tbs.validity().not_after.to_unix_duration().as_secs(),
    })
}
