//! The authorities that a relying party trusts.

use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::{
    UnixTime,
    certificate::{self, Certificate, ChainError, MAX_CERTIFICATE_BYTES, Purpose},
    json,
    refusal::{Code, Refusal, one_of, quoted, within},
};

/// The only type of list.
pub const TRUSTED_ROOT_MEDIA_TYPE: &str =
    "application/vnd.dev.sigstore.trustedroot+json;version=0.1";
/// Most authorities of a kind: ten years of yearly ones, twice, and those of others.
const MAX_AUTHORITIES: usize = 32;
/// Most certificates of an authority: a leaf, two intermediates, a root.
const MAX_CHAIN: usize = 4;
/// Largest list, bytes.
pub const MAX_TRUSTED_ROOT_BYTES: usize = 1024 * 1024;
/// Longest URI or name, bytes.
const MAX_NAME_BYTES: usize = 1024;

/// The authorities that are trusted, and when: for certificates and for time stamps.
///
/// Whoever may write this list decides what is believed: it must come from where policies come from,
/// not from where bundles do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedRoot {
    certificate_authorities: Vec<CertificateAuthority>,
    timestamp_authorities: Vec<CertificateAuthority>,
}

/// An authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateAuthority {
    uri: String,
    organization: String,
    common_name: String,
    /// From what issues (or, of a time stamp authority, stamps or issues to what does) to the root, which is the anchor. What
    /// counts as this authority leads over the first.
    certificates: Vec<Certificate>,
    valid_from: UnixTime,
    valid_until: Option<UnixTime>,
}

impl CertificateAuthority {
    /// An authority: `chain_der` begins with what issues or stamps and ends with the root.
    ///
    /// # Errors
    /// `RESULT_TRUSTED_ROOT_INVALID` without certificates or with a reversed period; `RESULT_TOO_LARGE`;
    /// `RESULT_MALFORMED`.
    pub fn new(
        uri: &str,
        [organization, common_name]: [&str; 2],
        chain_der: &[Vec<u8>],
        valid_from: UnixTime,
        valid_until: Option<UnixTime>,
    ) -> Result<Self, Refusal> {
        within("certChain", chain_der.len(), MAX_CHAIN, "certificates")?;
        for text in [uri, organization, common_name] {
            within("authority's names", text.len(), MAX_NAME_BYTES, "bytes")?;
        }
        if chain_der.is_empty() {
            return Err(invalid("certChain", "certificates", "none"));
        }
        if valid_until.is_some_and(|until| until < valid_from) {
            return Err(invalid("validFor", "start before end", "the reverse"));
        }
        let parse = |der: &Vec<u8>| Certificate::parse("trusted certificate", der);
        Ok(Self {
            uri: uri.to_owned(),
            organization: organization.to_owned(),
            common_name: common_name.to_owned(),
            certificates: chain_der.iter().map(parse).collect::<Result<_, _>>()?,
            valid_from,
            valid_until,
        })
    }

    /// Whether each of its certificates was issued by the next, and the last is a CA: an order that is wrong makes another of
    /// them the anchor.
    ///
    /// # Errors
    /// `RESULT_TRUSTED_ROOT_INVALID`.
    pub fn check_order(&self) -> Result<(), Refusal> {
        for (at, pair) in self.certificates.windows(2).enumerate() {
            if let [certificate, issuer] = pair
                && !certificate.is_issued_by(issuer)
            {
                let expected = format!("certificate {} issued by the next", at.saturating_add(1));
                return Err(invalid("certChain", &expected, "one that is not"));
            }
        }
        if self.certificates.last().is_some_and(Certificate::is_ca) {
            return Ok(());
        }
        Err(invalid("certChain", "a CA at the end, the root", "a certificate of no CA"))
    }

    /// What names it.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    pub(crate) fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// Whether `leaf` is of this authority at that time; `more` may stand between.
    pub(crate) fn verify(
        &self,
        leaf: &Certificate,
        more: &[Certificate],
        at: UnixTime,
        purpose: Purpose,
    ) -> Result<(), ChainError> {
        if at < self.valid_from || self.valid_until.is_some_and(|until| at > until) {
            let until = self.valid_until.map_or("further notice".to_owned(), |u| u.to_string());
            let text = format!("an authority trusted from {} to {until}", self.valid_from);
            return Err(ChainError { text, is_of_time: true });
        }
        certificate::verify_chain(leaf, &self.certificates, more, at, purpose)
    }
}

impl TrustedRoot {
    /// A list.
    ///
    /// # Errors
    /// `RESULT_TRUSTED_ROOT_INVALID` without an authority of each kind; `RESULT_TOO_LARGE`.
    pub fn new(
        certificate_authorities: Vec<CertificateAuthority>,
        timestamp_authorities: Vec<CertificateAuthority>,
    ) -> Result<Self, Refusal> {
        for (what, list) in [
            ("certificateAuthorities", &certificate_authorities),
            ("timestampAuthorities", &timestamp_authorities),
        ] {
            within(what, list.len(), MAX_AUTHORITIES, "authorities")?;
            if list.is_empty() {
                return Err(invalid(what, "at least one", "none"));
            }
        }
        Ok(Self { certificate_authorities, timestamp_authorities })
    }

    /// Decodes `trusted_root.json`.
    ///
    /// # Errors
    /// `RESULT_TOO_LARGE`, `RESULT_MALFORMED`, `RESULT_TRUSTED_ROOT_INVALID`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let list: RootJson = json::parse("trusted root", bytes, MAX_TRUSTED_ROOT_BYTES)?;
        if list.media_type != TRUSTED_ROOT_MEDIA_TYPE {
            let expected = one_of([TRUSTED_ROOT_MEDIA_TYPE]);
            let found = quoted(&list.media_type);
            return Err(Refusal::new(Code::Malformed, "mediaType", expected, found));
        }
        if !list.tlogs.is_empty() || !list.ctlogs.is_empty() {
            return Err(json::malformed("tlogs, ctlogs", "none", "logs, which nobody asks here"));
        }
        let parse = |list: Vec<AuthorityJson>| {
            // Before any certificate is decoded.
            within("authorities", list.len(), MAX_AUTHORITIES, "authorities")?;
            list.into_iter().map(AuthorityJson::parse).collect::<Result<Vec<_>, _>>()
        };
        Self::new(parse(list.certificate_authorities)?, parse(list.timestamp_authorities)?)
    }

    /// The JSON form, in one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        let list = |list: &[CertificateAuthority]| list.iter().map(AuthorityJson::new).collect();
        json::write(&RootJson {
            media_type: TRUSTED_ROOT_MEDIA_TYPE.to_owned(),
            tlogs: Vec::new(),
            certificate_authorities: list(&self.certificate_authorities),
            ctlogs: Vec::new(),
            timestamp_authorities: list(&self.timestamp_authorities),
        })
    }

    /// Who issues certificates of signers.
    #[must_use]
    pub fn certificate_authorities(&self) -> &[CertificateAuthority] {
        &self.certificate_authorities
    }

    /// Who stamps.
    #[must_use]
    pub fn timestamp_authorities(&self) -> &[CertificateAuthority] {
        &self.timestamp_authorities
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RootJson {
    media_type: String,
    /// Some readers demand the field.
    #[serde(default, serialize_with = "no_logs")]
    tlogs: Vec<IgnoredAny>,
    certificate_authorities: Vec<AuthorityJson>,
    #[serde(default, serialize_with = "no_logs")]
    ctlogs: Vec<IgnoredAny>,
    timestamp_authorities: Vec<AuthorityJson>,
}

fn no_logs<S: serde::Serializer>(_: &[IgnoredAny], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(std::iter::empty::<()>())
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AuthorityJson {
    subject: SubjectJson,
    uri: String,
    cert_chain: ChainJson,
    valid_for: PeriodJson,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SubjectJson {
    organization: String,
    common_name: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChainJson {
    certificates: Vec<CertificateJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CertificateJson {
    raw_bytes: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeriodJson {
    start: UnixTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<UnixTime>,
}

impl AuthorityJson {
    fn new(authority: &CertificateAuthority) -> Self {
        let encode = |certificate: &Certificate| CertificateJson {
            raw_bytes: json::encode_base64(certificate.der()),
        };
        Self {
            subject: SubjectJson {
                organization: authority.organization.clone(),
                common_name: authority.common_name.clone(),
            },
            uri: authority.uri.clone(),
            cert_chain: ChainJson {
                certificates: authority.certificates.iter().map(encode).collect(),
            },
            valid_for: PeriodJson { start: authority.valid_from, end: authority.valid_until },
        }
    }

    fn parse(self) -> Result<CertificateAuthority, Refusal> {
        let chain = self.cert_chain.certificates;
        within("certChain", chain.len(), MAX_CHAIN, "certificates")?;
        let decode = |certificate: CertificateJson| {
            json::decode_base64("rawBytes", &certificate.raw_bytes, MAX_CERTIFICATE_BYTES)
        };
        let chain: Vec<_> = chain.into_iter().map(decode).collect::<Result<_, _>>()?;
        let names = [self.subject.organization.as_str(), self.subject.common_name.as_str()];
        CertificateAuthority::new(
            &self.uri,
            names,
            &chain,
            self.valid_for.start,
            self.valid_for.end,
        )
    }
}

fn invalid(at: &str, expected: &str, observed: &str) -> Refusal {
    Refusal::new(Code::TrustedRootInvalid, at, expected, observed)
}
