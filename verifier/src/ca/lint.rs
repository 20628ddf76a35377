//! Checks an encoded `TBSCertificate` against its profile before anything is signed.
//!
//! The encoder's input is not trusted here: the bytes are decoded again and every rule is checked
//! on what a relying party will read. A violation is a bug of this program and never leaves a
//! certificate behind.

use std::{fmt, marker::PhantomData, time::Duration};

use const_oid::AssociatedOid;
use der::{Decode, Encode, asn1::Int};
use p256::{PublicKey, pkcs8::DecodePublicKey};
use proto::{
    reason::ReasonCode,
    spiffe::{SpiffeError, SpiffeId},
};
use spki::ObjectIdentifier;
use x509_cert::{
    TbsCertificate, Version,
    ext::{
        Extension,
        pkix::{
            AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName,
            SubjectKeyIdentifier, name::GeneralName,
        },
    },
    time::Time,
};

use super::{
    profile::{ATTESTATION_EXTENSION, BACKDATE, NodeFacts, Order, Profile},
    signer::{KeyId, Serial, signature_algorithm},
};

macro_rules! rules {
    ($($variant:ident $name:literal $doc:literal;)*) => {
        /// One rule of the certificate profiles.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Rule {
            $(#[doc = $doc] $variant,)*
        }

        impl Rule {
            /// Every rule.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The rule's name, as findings print it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

rules! {
    AttestationExtension "attestation-extension" "A node certificate has the attestation extension with exactly the facts of its admission; no other certificate has it.";
    AuthorityKeyIdentifier "authority-key-identifier" "The authority key identifier is the issuer's subject key identifier and nothing else (RFC 5280, 4.2.1.1).";
    BasicConstraints "basic-constraints" "Basic constraints are present; cA and pathLenConstraint are the profile's (RFC 5280, 4.2.1.9).";
    CanonicalDer "canonical-der" "The bytes are DER: encoding what they decode to gives the same bytes.";
    Criticality "criticality" "Exactly the profile's extensions are critical.";
    ExtendedKeyUsage "extended-key-usage" "The extended key usages are exactly the profile's (X509-SVID, 4.4).";
    ExtensionDuplicate "extension-duplicate" "No extension stands twice (RFC 5280, 4.2).";
    ExtensionUnknown "extension-unknown" "No extension beyond the profile's.";
    Issuer "issuer" "The issuer's name is the subject of the issuing certificate.";
    KeyMatch "key-match" "The public key is the one that was asked for, byte for byte.";
    KeyType "key-type" "The public key is a point on P-256 with named-curve parameters.";
    KeyUsage "key-usage" "The key usage is exactly the profile's (X509-SVID, 4.3).";
    Serial "serial" "The serial number is positive, of 16 to 20 bytes, and the one that was drawn.";
    SignatureAlgorithm "signature-algorithm" "The signature algorithm is ecdsa-with-SHA256 without parameters.";
    SpiffeId "spiffe-id" "The URI name is a well-formed SPIFFE ID: a path for a leaf, none for a CA (X509-SVID, 2 and 3).";
    Subject "subject" "The subject is not empty and is the one that was asked for.";
    SubjectAltName "subject-alt-name" "The alternative names are exactly the profile's: one URI, or the server's names.";
    SubjectKeyIdentifier "subject-key-identifier" "The subject key identifier is the hash of the public key.";
    UniqueIdentifier "unique-identifier" "No issuer or subject unique identifier (RFC 5280, 4.1.2.8).";
    ValidityEncoding "validity-encoding" "Times are UTCTime through 2049 and GeneralizedTime from 2050 (RFC 5280, 4.1.2.5).";
    ValidityIssuer "validity-issuer" "The validity lies within the issuer's.";
    ValidityLength "validity-length" "The validity is not empty and not longer than the profile allows.";
    ValidityStart "validity-start" "The validity begins no more than the backdating interval before now, and not after now.";
    Version "version" "The version is 3.";
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A certificate that was about to be signed breaks its profile.
///
/// Corresponds to `CERTIFICATE_PROFILE_VIOLATION`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("certificate profile rule {rule} is broken: {detail}")]
pub struct ProfileViolation {
    /// The rule.
    pub rule: Rule,
    /// What was found, in words.
    pub detail: String,
}

impl ProfileViolation {
    /// The reason code.
    #[must_use]
    pub const fn code(&self) -> ReasonCode {
        ReasonCode::CertificateProfileViolation
    }
}

/// An encoded certificate content that passed every rule of its profile.
///
/// # Proves
/// The bytes decode to exactly the profile's certificate for the subject that it was prepared from.
/// # Does not prove
/// That anything was signed.
pub struct LintedTbs<S> {
    der: Vec<u8>,
    issuer_key_id: KeyId,
    serial: Serial,
    not_after_unix_s: u64,
    _subject: PhantomData<fn() -> S>,
}

impl<S> LintedTbs<S> {
    /// The `TBSCertificate`, DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The serial number, for recording the intent before signing.
    #[must_use]
    pub const fn serial(&self) -> Serial {
        self.serial
    }

    /// End of validity, seconds since 1970.
    #[must_use]
    pub const fn not_after_unix_s(&self) -> u64 {
        self.not_after_unix_s
    }

    pub(super) const fn issuer_key_id(&self) -> KeyId {
        self.issuer_key_id
    }
}

impl<S> fmt::Debug for LintedTbs<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LintedTbs").field("serial", &self.serial).finish_non_exhaustive()
    }
}

/// Checks `tbs` against the order; all rules, in a fixed order, first violation wins.
pub(super) fn lint<S>(tbs: Vec<u8>, order: &Order) -> Result<LintedTbs<S>, ProfileViolation> {
    check(&tbs, order)?;
    Ok(LintedTbs {
        issuer_key_id: order.issuer.key_id,
        serial: order.serial,
        not_after_unix_s: order.window.not_after_unix_s,
        der: tbs,
        _subject: PhantomData,
    })
}

type Outcome = Result<(), ProfileViolation>;

fn broken<T>(rule: Rule, detail: impl Into<String>) -> Result<T, ProfileViolation> {
    Err(ProfileViolation { rule, detail: detail.into() })
}

fn ensure(holds: bool, rule: Rule, detail: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { broken(rule, detail()) }
}

fn check(bytes: &[u8], order: &Order) -> Outcome {
    let tbs = TbsCertificate::from_der(bytes).or_else(|error| {
        broken(Rule::CanonicalDer, format!("the content does not decode: {error}"))
    })?;
    ensure(tbs.version() == Version::V3, Rule::Version, || format!("{:?}", tbs.version()))?;
    serial(&tbs, order)?;
    ensure(*tbs.signature() == signature_algorithm(), Rule::SignatureAlgorithm, || {
        tbs.signature().oid.to_string()
    })?;
    ensure(*tbs.issuer() == order.issuer.name, Rule::Issuer, || tbs.issuer().to_string())?;
    validity(&tbs, order)?;
    ensure(!tbs.subject().is_empty() && *tbs.subject() == order.subject, Rule::Subject, || {
        tbs.subject().to_string()
    })?;
    key(&tbs, order)?;
    ensure(
        tbs.issuer_unique_id().is_none() && tbs.subject_unique_id().is_none(),
        Rule::UniqueIdentifier,
        || "a unique identifier is present".to_owned(),
    )?;
    extensions(&tbs, order)?;
    // Last, so that a broken rule is named by its own name rather than by this one.
    let again = tbs.to_der().or_else(|error| broken(Rule::CanonicalDer, error.to_string()))?;
    ensure(again == bytes, Rule::CanonicalDer, || "encoding again gives other bytes".to_owned())
}

fn serial(tbs: &TbsCertificate, order: &Order) -> Outcome {
    let bytes = tbs.serial_number().as_bytes();
    // `as_bytes` gives the DER content: a set top bit means a negative number.
    let positive = bytes.first().is_some_and(|first| first & 0x80 == 0);
    ensure(positive && (16..=20).contains(&bytes.len()), Rule::Serial, || {
        format!("{} bytes, {}", bytes.len(), if positive { "positive" } else { "not positive" })
    })?;
    let drawn = Int::new(order.serial.as_bytes())
        .or_else(|error| broken(Rule::Serial, error.to_string()))?;
    ensure(bytes == drawn.as_bytes(), Rule::Serial, || "not the number that was drawn".to_owned())
}

fn validity(tbs: &TbsCertificate, order: &Order) -> Outcome {
    let validity = tbs.validity();
    for time in [validity.not_before, validity.not_after] {
        let early = time.to_date_time().year() < 2050;
        ensure(early == matches!(time, Time::UtcTime(_)), Rule::ValidityEncoding, || {
            format!("{time} has the wrong form")
        })?;
    }
    let start = validity.not_before.to_unix_duration().as_secs();
    let end = validity.not_after.to_unix_duration().as_secs();
    let earliest = order.now_unix_s.saturating_sub(BACKDATE.as_secs());
    ensure((earliest..=order.now_unix_s).contains(&start), Rule::ValidityStart, || {
        format!("begins at {start}, now is {}", order.now_unix_s)
    })?;
    let longest = order.profile.max_lifetime().saturating_add(BACKDATE);
    let length = end.checked_sub(start).map(Duration::from_secs);
    let fits = length.is_some_and(|length| !length.is_zero() && length <= longest);
    ensure(fits && end > order.now_unix_s, Rule::ValidityLength, || {
        format!("from {start} to {end}; at most {} s", longest.as_secs())
    })?;
    ensure(
        start >= order.issuer.not_before_unix_s && end <= order.issuer.not_after_unix_s,
        Rule::ValidityIssuer,
        || format!("from {start} to {end}, the issuer ends at {}", order.issuer.not_after_unix_s),
    )
}

fn key(tbs: &TbsCertificate, order: &Order) -> Outcome {
    let key = tbs.subject_public_key_info();
    let der = key.to_der().or_else(|error| broken(Rule::KeyType, error.to_string()))?;
    ensure(PublicKey::from_public_key_der(&der).is_ok(), Rule::KeyType, || {
        key.algorithm.oid.to_string()
    })?;
    ensure(*key == order.key, Rule::KeyMatch, || KeyId::of(key).to_string())
}

/// Extensions of a profile: identifier and whether it is critical.
fn allowed(order: &Order) -> Vec<(ObjectIdentifier, bool)> {
    let mut list = vec![
        (BasicConstraints::OID, true),
        (KeyUsage::OID, true),
        (SubjectKeyIdentifier::OID, false),
        (AuthorityKeyIdentifier::OID, false),
    ];
    if !matches!(order.profile, Profile::Root) {
        list.push((ExtendedKeyUsage::OID, false));
    }
    if !matches!(order.profile, Profile::Ca(super::profile::CaRole::Servers)) {
        list.push((SubjectAltName::OID, false));
    }
    list
}

fn extensions(tbs: &TbsCertificate, order: &Order) -> Outcome {
    let extensions = tbs.extensions().map(Vec::as_slice).unwrap_or_default();
    for (index, extension) in extensions.iter().enumerate() {
        let again = extensions.iter().skip(index + 1).any(|e| e.extn_id == extension.extn_id);
        ensure(!again, Rule::ExtensionDuplicate, || extension.extn_id.to_string())?;
    }
    attestation(extensions, order)?;
    let allowed = allowed(order);
    for extension in extensions.iter().filter(|e| e.extn_id != ATTESTATION_EXTENSION) {
        match allowed.iter().find(|(id, _)| *id == extension.extn_id) {
            None => return broken(Rule::ExtensionUnknown, extension.extn_id.to_string()),
            Some((id, critical)) => {
                ensure(extension.critical == *critical, Rule::Criticality, || {
                    format!("{id} is {}critical", if extension.critical { "" } else { "not " })
                })?
            }
        }
    }
    let basic: BasicConstraints = decoded(extensions, Rule::BasicConstraints)?;
    ensure(
        basic.ca == order.profile.is_ca()
            && basic.path_len_constraint == order.profile.path_length(),
        Rule::BasicConstraints,
        || format!("{basic:?}"),
    )?;
    let usage: KeyUsage = decoded(extensions, Rule::KeyUsage)?;
    ensure(usage.0 == order.profile.key_usage(), Rule::KeyUsage, || format!("{usage:?}"))?;
    if !order.profile.usages().is_empty() {
        let usages: ExtendedKeyUsage = decoded(extensions, Rule::ExtendedKeyUsage)?;
        ensure(usages.0 == order.profile.usages(), Rule::ExtendedKeyUsage, || {
            format!("{usages:?}")
        })?;
    }
    names(extensions, order)?;
    let subject: SubjectKeyIdentifier = decoded(extensions, Rule::SubjectKeyIdentifier)?;
    let expected = KeyId::of(tbs.subject_public_key_info());
    ensure(subject.0.as_bytes() == expected.as_bytes(), Rule::SubjectKeyIdentifier, || {
        hex::encode(subject.0.as_bytes())
    })?;
    let authority: AuthorityKeyIdentifier = decoded(extensions, Rule::AuthorityKeyIdentifier)?;
    let id = authority.key_identifier.as_ref().map(|id| id.as_bytes());
    ensure(
        id == Some(order.issuer.subject_key_id.as_slice())
            && authority.authority_cert_issuer.is_none()
            && authority.authority_cert_serial_number.is_none(),
        Rule::AuthorityKeyIdentifier,
        || id.map(hex::encode).unwrap_or_default(),
    )
}

fn decoded<'a, T>(extensions: &'a [Extension], rule: Rule) -> Result<T, ProfileViolation>
where
    T: Decode<'a, Error = der::Error> + AssociatedOid,
{
    match extensions.iter().find(|extension| extension.extn_id == T::OID) {
        None => broken(rule, "absent"),
        Some(extension) => T::from_der(extension.extn_value.as_bytes())
            .or_else(|error| broken(rule, error.to_string())),
    }
}

fn attestation(extensions: &[Extension], order: &Order) -> Outcome {
    let rule = Rule::AttestationExtension;
    let found = extensions.iter().find(|extension| extension.extn_id == ATTESTATION_EXTENSION);
    match (&order.profile, found) {
        (Profile::Node { facts, .. }, Some(extension)) => {
            ensure(!extension.critical, Rule::Criticality, || {
                "the attestation extension is critical".to_owned()
            })?;
            let decoded = NodeFacts::from_der(extension.extn_value.as_bytes())
                .or_else(|error| broken(rule, error.to_string()))?;
            ensure(decoded == *facts, rule, || "other facts than the admission's".to_owned())
        }
        (Profile::Node { .. }, None) => broken(rule, "absent"),
        (_, Some(_)) => broken(rule, "present in a certificate that is not a node's"),
        (_, None) => Ok(()),
    }
}

fn names(extensions: &[Extension], order: &Order) -> Outcome {
    let rule = Rule::SubjectAltName;
    let expected = order
        .profile
        .names(&order.trust_domain)
        .or_else(|error| broken(rule, error.to_string()))?;
    if let Profile::Ca(super::profile::CaRole::Servers) = order.profile {
        return Ok(());
    }
    let found: SubjectAltName = decoded(extensions, rule)?;
    for name in &found.0 {
        if let GeneralName::UniformResourceIdentifier(uri) = name {
            let id: SpiffeId = uri
                .as_str()
                .parse()
                .or_else(|error: SpiffeError| broken(Rule::SpiffeId, error.to_string()))?;
            let has_path = id.segments().next().is_some();
            ensure(has_path != order.profile.is_ca(), Rule::SpiffeId, || id.to_string())?;
        }
    }
    ensure(!found.0.is_empty() && found.0 == expected, rule, || format!("{:?}", found.0))
}
