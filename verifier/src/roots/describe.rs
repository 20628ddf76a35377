//! Rows for `roots list`.

use appraisal::x509::{Certificate, Crl, Oddity, SignatureAlgorithm, format_utc};
use serde::Serialize;

use super::Kind;

/// Days before the end of validity from which a row says so.
const WARN_DAYS: i64 = 90;

/// One endorsement in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// `anchor`, `intermediate` or `crl`.
    pub kind: String,
    /// Where it was imported from.
    pub label: String,
    /// `sha256:…` of the DER.
    pub sha256: String,
    /// Subject; empty for a CRL.
    pub subject: String,
    /// Issuer.
    pub issuer: String,
    /// Serial number, hexadecimal; for a CRL the number of revoked certificates, decimal.
    pub serial: String,
    /// End of validity, for a CRL when the next one is due; seconds since 1970.
    pub not_after_unix_s: i64,
    /// Certified key, for example `RSA-2048`; empty for a CRL.
    pub key: String,
    /// How it is signed, for example `sha256WithRSAEncryption`.
    pub signature: String,
    /// Names of accepted deviations.
    pub oddities: Vec<String>,
    /// What to watch (expired, about to expire, not valid yet, not readable); empty if nothing.
    pub note: String,
}

/// Describes one endorsement at `now_unix_s`. One that does not parse gives a row that says so: a
/// listing shows everything there is.
#[must_use]
pub fn describe(kind: Kind, label: &str, der: &[u8], now_unix_s: i64) -> Row {
    let described = match kind {
        Kind::Anchor | Kind::Intermediate => Certificate::parse(der)
            .map(|certificate| of_certificate(kind, label, &certificate, now_unix_s)),
        Kind::Crl => Crl::parse(der).map(|crl| of_crl(label, &crl, now_unix_s)),
    };
    described.unwrap_or_else(|error| Row {
        kind: kind.as_str().to_owned(),
        label: label.to_owned(),
        sha256: proto::digest::HashAlg::Sha256.hash(&[der]).to_string(),
        subject: String::new(),
        issuer: String::new(),
        serial: String::new(),
        not_after_unix_s: 0,
        key: String::new(),
        signature: String::new(),
        oddities: Vec::new(),
        note: format!("not readable: {error}"),
    })
}

fn of_certificate(kind: Kind, label: &str, certificate: &Certificate, now_unix_s: i64) -> Row {
    let mut oddities: Vec<Oddity> = certificate.oddities().iter().collect();
    if certificate.extensions().key_usage.is_none() {
        oddities.push(Oddity::KeyUsageAbsent);
    }
    if kind == Kind::Intermediate {
        if certificate.authority_key_id().is_none() {
            oddities.push(Oddity::AuthorityKeyIdAbsent);
        }
        if *certificate.signature_algorithm() == SignatureAlgorithm::RsaSha1 {
            oddities.push(Oddity::Sha1Intermediate);
        }
    }
    oddities.sort_unstable();
    let mut note =
        validity_note(certificate.not_before_unix_s(), certificate.not_after_unix_s(), now_unix_s);
    if kind == Kind::Anchor && !certificate.is_self_issued() {
        let comma = if note.is_empty() { "" } else { "; " };
        note = format!("{note}{comma}not self-issued: pinned as it is");
    }
    Row {
        kind: kind.as_str().to_owned(),
        label: label.to_owned(),
        sha256: certificate.sha256().to_string(),
        subject: certificate.subject_text(),
        issuer: certificate.issuer_text(),
        serial: hex::encode(certificate.serial()),
        not_after_unix_s: certificate.not_after_unix_s(),
        key: certificate.key().to_string(),
        signature: certificate.signature_algorithm().to_string(),
        oddities: oddities.iter().map(|oddity| oddity.name().to_owned()).collect(),
        note,
    }
}

fn of_crl(label: &str, crl: &Crl, now_unix_s: i64) -> Row {
    let validity = crl.validity_unix_s();
    let note = if now_unix_s > validity.end {
        format!("stale since {}: says nothing good any more", format_utc(validity.end))
    } else {
        validity_note(validity.start, i64::MAX, now_unix_s)
    };
    Row {
        kind: Kind::Crl.as_str().to_owned(),
        label: label.to_owned(),
        sha256: crl.sha256().to_string(),
        subject: String::new(),
        issuer: crl.issuer_text(),
        serial: crl.revoked_count().to_string(),
        not_after_unix_s: validity.end,
        key: String::new(),
        signature: crl.signature_algorithm().to_string(),
        oddities: Vec::new(),
        note,
    }
}

fn validity_note(not_before: i64, not_after: i64, now: i64) -> String {
    if now < not_before {
        format!("not valid before {}", format_utc(not_before))
    } else if now > not_after {
        format!("expired {}", format_utc(not_after))
    } else if not_after.saturating_sub(now) < WARN_DAYS * 86_400 {
        format!("expires {}", format_utc(not_after))
    } else {
        String::new()
    }
}
