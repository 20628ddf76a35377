//! What a certificate must be, and its encoding.

use std::time::Duration;

use const_oid::{AssociatedOid, ObjectIdentifier};
use der::{
    DateTime, Encode, Sequence,
    asn1::{GeneralizedTime, Int, OctetString, UtcTime},
};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::{
    ext::{
        Extension,
        pkix::{
            AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName,
            SubjectKeyIdentifier,
        },
    },
    name::Name,
    time::Time,
};

use super::{ATTESTATION_EXTENSION, BACKDATE, PERMIT_EXTENSION, Profile};
use crate::ca::{
    CaCertificate, CaError, KeyId, Serial, SignerError, TrustDomain,
    lint::{self, LintedTbs},
    signer::{key_id_octets, signature_algorithm},
};

/// Issuer as the encoder and the lint need it.
#[derive(Clone, Debug)]
pub(in crate::ca) struct IssuerFacts {
    pub(in crate::ca) name: Name,
    pub(in crate::ca) key_id: KeyId,
    /// What the issuer's own certificate names as its key: goes into the authority key identifier.
    pub(in crate::ca) subject_key_id: Vec<u8>,
    pub(in crate::ca) not_before_unix_s: u64,
    pub(in crate::ca) not_after_unix_s: u64,
}

impl From<&CaCertificate> for IssuerFacts {
    fn from(certificate: &CaCertificate) -> Self {
        Self {
            name: certificate.subject().clone(),
            key_id: certificate.key_id(),
            subject_key_id: certificate.subject_key_id().to_vec(),
            not_before_unix_s: certificate.not_before_unix_s(),
            not_after_unix_s: certificate.not_after_unix_s(),
        }
    }
}

/// Everything that a `TBSCertificate` is encoded from. Tests break it field by field.
#[derive(Clone, Debug, Sequence)]
pub(in crate::ca) struct Template {
    #[asn1(context_specific = "0", default = "version_1")]
    pub(in crate::ca) version: u8,
    pub(in crate::ca) serial: Int,
    pub(in crate::ca) signature: AlgorithmIdentifierOwned,
    pub(in crate::ca) issuer: Name,
    pub(in crate::ca) validity: Validity,
    pub(in crate::ca) subject: Name,
    pub(in crate::ca) key: SubjectPublicKeyInfoOwned,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    pub(in crate::ca) extensions: Option<Vec<Extension>>,
}

const fn version_1() -> u8 {
    0
}

/// `Validity`.
#[derive(Clone, Debug, Sequence)]
pub(in crate::ca) struct Validity {
    pub(in crate::ca) not_before: Time,
    pub(in crate::ca) not_after: Time,
}

/// RFC 5280 time: UTCTime through 2049, GeneralizedTime from 2050.
pub(in crate::ca) fn time(unix_s: u64) -> Result<Time, der::Error> {
    let date = DateTime::from_unix_duration(Duration::from_secs(unix_s))?;
    Ok(if date.year() < 2050 {
        Time::UtcTime(UtcTime::from_date_time(date)?)
    } else {
        Time::GeneralTime(GeneralizedTime::from_date_time(date))
    })
}

/// An extension.
pub(in crate::ca) fn extension(
    id: ObjectIdentifier,
    critical: bool,
    value: &impl Encode,
) -> Result<Extension, der::Error> {
    Ok(Extension { extn_id: id, critical, extn_value: OctetString::new(value.to_der()?)? })
}

/// Window of validity, seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ca) struct Window {
    pub(in crate::ca) not_before_unix_s: u64,
    pub(in crate::ca) not_after_unix_s: u64,
}

impl Window {
    /// From `BACKDATE` before now for `lifetime`, cut to the issuer's own window.
    pub(super) fn new(now_unix_s: u64, lifetime: Duration, issuer: Option<&IssuerFacts>) -> Self {
        let not_before = now_unix_s.saturating_sub(BACKDATE.as_secs());
        let not_after = now_unix_s.saturating_add(lifetime.as_secs());
        Self {
            not_before_unix_s: issuer.map_or(not_before, |i| not_before.max(i.not_before_unix_s)),
            not_after_unix_s: issuer.map_or(not_after, |i| not_after.min(i.not_after_unix_s)),
        }
    }
}

/// What a certificate must be: input of the encoder and, separately, of the lint.
#[derive(Clone, Debug)]
pub(in crate::ca) struct Order {
    pub(in crate::ca) profile: Profile,
    pub(in crate::ca) trust_domain: TrustDomain,
    pub(in crate::ca) issuer: IssuerFacts,
    pub(in crate::ca) subject: Name,
    pub(in crate::ca) key: SubjectPublicKeyInfoOwned,
    pub(in crate::ca) serial: Serial,
    pub(in crate::ca) window: Window,
    pub(in crate::ca) now_unix_s: u64,
}

impl Order {
    /// The certificate's fields as the profile wants them.
    pub(in crate::ca) fn template(&self) -> Result<Template, der::Error> {
        let subject_key = SubjectKeyIdentifier(key_id_octets(KeyId::of(&self.key))?);
        let authority_key = AuthorityKeyIdentifier {
            key_identifier: Some(OctetString::new(self.issuer.subject_key_id.as_slice())?),
            ..AuthorityKeyIdentifier::default()
        };
        let basic = BasicConstraints {
            ca: self.profile.is_ca(),
            path_len_constraint: self.profile.path_length(),
        };
        let key_usage = KeyUsage(self.profile.key_usage());
        let mut extensions = vec![
            extension(BasicConstraints::OID, true, &basic)?,
            extension(KeyUsage::OID, true, &key_usage)?,
        ];
        let usages = self.profile.usages();
        if !usages.is_empty() {
            let usages = ExtendedKeyUsage(usages.to_vec());
            let critical = self.profile.usages_are_critical();
            extensions.push(extension(ExtendedKeyUsage::OID, critical, &usages)?);
        }
        let names = self.profile.names(&self.trust_domain)?;
        if !names.is_empty() {
            extensions.push(extension(SubjectAltName::OID, false, &SubjectAltName(names))?);
        }
        extensions.push(extension(SubjectKeyIdentifier::OID, false, &subject_key)?);
        extensions.push(extension(AuthorityKeyIdentifier::OID, false, &authority_key)?);
        let facts = match &self.profile {
            Profile::Node { facts, .. } => Some((ATTESTATION_EXTENSION, facts.to_der()?)),
            Profile::Job { facts, .. } => Some((PERMIT_EXTENSION, facts.to_der()?)),
            _ => None,
        };
        if let Some((extn_id, facts)) = facts {
            let extn_value = OctetString::new(facts)?;
            extensions.push(Extension { extn_id, critical: false, extn_value });
        }
        Ok(Template {
            version: 2,
            serial: Int::new(self.serial.as_bytes())?,
            signature: signature_algorithm(),
            issuer: self.issuer.name.clone(),
            validity: Validity {
                not_before: time(self.window.not_before_unix_s)?,
                not_after: time(self.window.not_after_unix_s)?,
            },
            subject: self.subject.clone(),
            key: self.key.clone(),
            extensions: Some(extensions),
        })
    }

    pub(super) fn linted<S>(&self) -> Result<LintedTbs<S>, CaError> {
        let tbs = self.template().and_then(|t| t.to_der()).map_err(SignerError::from)?;
        Ok(lint::lint(tbs, self)?)
    }
}

/// Terms under which a certificate is prepared.
#[derive(Clone, Debug)]
pub struct Terms<'a> {
    /// The trust domain.
    pub trust_domain: &'a TrustDomain,
    /// Time of preparation, seconds since 1970.
    pub now_unix_s: u64,
    /// Wanted life from now; cut to the issuer's own end, refused above the profile's bound.
    pub lifetime: Duration,
}

impl Terms<'_> {
    pub(super) fn order(
        &self,
        profile: Profile,
        subject: Name,
        key: SubjectPublicKeyInfoOwned,
        issuer: IssuerFacts,
    ) -> Result<Order, CaError> {
        Ok(Order {
            profile,
            trust_domain: self.trust_domain.clone(),
            window: Window::new(self.now_unix_s, self.lifetime, Some(&issuer)),
            issuer,
            subject,
            key,
            serial: Serial::random()?,
            now_unix_s: self.now_unix_s,
        })
    }
}
