//! Certificate revocation lists.

use std::{fmt, time::Duration};

use const_oid::AssociatedOid;
use der::{Decode, Encode, Sequence, asn1::Int, asn1::OctetString};
use spki::AlgorithmIdentifierOwned;
use x509_cert::{
    crl::CertificateList,
    ext::{
        Extension,
        pkix::{AuthorityKeyIdentifier, CrlNumber, CrlReason},
    },
    name::Name,
    time::Time,
};

use super::{
    CaCertificate, CaError,
    profile::{extension, time},
    signer::{IssuingKey, Serial, SignerError, signature_algorithm, verifies},
};

/// How long a CRL is good for: a relying party that fetches once a day must find a valid one.
pub const CRL_LIFETIME: Duration = Duration::from_secs(36 * 3600);

/// Entries in one list: certificates live for a day at most, so that this many revocations in a day
/// are an error, not a load.
pub const MAX_CRL_ENTRIES: usize = 100_000;

/// Why a certificate was revoked.
///
/// # Source
/// RFC 5280, "Reason Code"; those that this CA has a use for.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum RevocationReason {
    /// No reason given: no extension is written (RFC 5280 asks for its absence).
    #[default]
    Unspecified,
    /// The node is believed to be in foreign hands.
    KeyCompromise,
    /// The node changed pool or name.
    AffiliationChanged,
    /// Another certificate took its place.
    Superseded,
    /// The node was retired.
    CessationOfOperation,
    /// The inventory no longer grants it.
    PrivilegeWithdrawn,
}

impl RevocationReason {
    const fn code(self) -> Option<CrlReason> {
        Some(match self {
            Self::Unspecified => return None,
            Self::KeyCompromise => CrlReason::KeyCompromise,
            Self::AffiliationChanged => CrlReason::AffiliationChanged,
            Self::Superseded => CrlReason::Superseded,
            Self::CessationOfOperation => CrlReason::CessationOfOperation,
            Self::PrivilegeWithdrawn => CrlReason::PrivilegeWithdrawn,
        })
    }
}

/// One revoked certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Its serial number.
    pub serial: Serial,
    /// When it was revoked, seconds since 1970.
    pub at_unix_s: u64,
    /// Why.
    pub reason: RevocationReason,
}

#[derive(Sequence)]
struct Tbs {
    version: u8,
    signature: AlgorithmIdentifierOwned,
    issuer: Name,
    this_update: Time,
    next_update: Time,
    #[asn1(optional = "true")]
    revoked: Option<Vec<Entry>>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    extensions: Vec<Extension>,
}

#[derive(Clone, Debug, Sequence)]
struct Entry {
    serial: Int,
    at: Time,
    #[asn1(optional = "true")]
    extensions: Option<Vec<Extension>>,
}

/// A signed list.
#[derive(Clone, PartialEq, Eq)]
pub struct Crl {
    der: Vec<u8>,
    number: u64,
    next_update_unix_s: u64,
}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crl").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Crl {
    /// Signs a complete v2 list of `revoked` under `issuer`.
    ///
    /// `number` must be above that of every list published before; the caller's store keeps it.
    /// Entries are sorted by serial number; of two for one serial the earlier stands.
    ///
    /// # Errors
    /// [`CaError::CrlTooLong`]; [`CaError::Signer`].
    pub fn sign(
        issuer: &CaCertificate,
        key: &IssuingKey,
        number: u64,
        now_unix_s: u64,
        lifetime: Duration,
        mut revoked: Vec<Revoked>,
    ) -> Result<Self, CaError> {
        if key.id() != issuer.key_id() {
            return Err(
                SignerError::WrongIssuer { prepared: issuer.key_id(), found: key.id() }.into()
            );
        }
        if revoked.len() > MAX_CRL_ENTRIES {
            return Err(CaError::CrlTooLong { entries: revoked.len() });
        }
        revoked.sort_by_key(|entry| (entry.serial, entry.at_unix_s));
        revoked.dedup_by_key(|entry| entry.serial);
        let next_update_unix_s = now_unix_s.saturating_add(lifetime.as_secs());
        let der = tbs(issuer, number, now_unix_s, next_update_unix_s, &revoked)
            .and_then(|tbs| tbs.to_der())
            .map_err(SignerError::from)?;
        Ok(Self { der: key.sign_structure(&der)?, number, next_update_unix_s })
    }

    /// Decodes a list and checks that `issuer` signed it.
    ///
    /// # Errors
    /// [`CaError::Crl`] saying what is wrong with it.
    pub fn verify(der: &[u8], issuer: &CaCertificate) -> Result<Self, CaError> {
        let bad = |why: &str| CaError::Crl(why.to_owned());
        let list = CertificateList::<x509_cert::certificate::Rfc5280>::from_der(der)
            .map_err(|error| CaError::Crl(error.to_string()))?;
        let tbs = list.tbs_cert_list.to_der().map_err(|error| CaError::Crl(error.to_string()))?;
        if list.tbs_cert_list.issuer != *issuer.subject() {
            return Err(bad("another CA issued it"));
        }
        if !verifies(issuer.key(), &list.signature_algorithm, &tbs, &list.signature) {
            return Err(bad("its signature is not the issuer's"));
        }
        let number = list
            .tbs_cert_list
            .crl_extensions
            .iter()
            .flatten()
            .find(|extension| extension.extn_id == CrlNumber::OID)
            .and_then(|extension| CrlNumber::from_der(extension.extn_value.as_bytes()).ok())
            .and_then(|number| {
                let bytes = number.0.as_bytes();
                let mut out = [0; 8];
                let start = out.len().checked_sub(bytes.len())?;
                out[start..].copy_from_slice(bytes);
                Some(u64::from_be_bytes(out))
            })
            .ok_or_else(|| bad("it has no usable number"))?;
        let next = list.tbs_cert_list.next_update.ok_or_else(|| bad("it has no next update"))?;
        let next_update_unix_s = next.to_unix_duration().as_secs();
        Ok(Self { der: der.to_vec(), number, next_update_unix_s })
    }

    /// DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        super::files::pem("X509 CRL", &self.der)
    }

    /// The list's number.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// When the next list is due at the latest, seconds since 1970.
    #[must_use]
    pub const fn next_update_unix_s(&self) -> u64 {
        self.next_update_unix_s
    }
}

fn tbs(
    issuer: &CaCertificate,
    number: u64,
    now_unix_s: u64,
    next_update_unix_s: u64,
    revoked: &[Revoked],
) -> Result<Tbs, der::Error> {
    let authority = AuthorityKeyIdentifier {
        key_identifier: Some(OctetString::new(issuer.subject_key_id())?),
        ..AuthorityKeyIdentifier::default()
    };
    let entries = revoked.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    Ok(Tbs {
        version: 1,
        signature: signature_algorithm(),
        issuer: issuer.subject().clone(),
        this_update: time(now_unix_s)?,
        next_update: time(next_update_unix_s)?,
        // RFC 5280, 5.1.2.6: absent when there is none.
        revoked: (!entries.is_empty()).then_some(entries),
        extensions: vec![
            extension(AuthorityKeyIdentifier::OID, false, &authority)?,
            extension(CrlNumber::OID, false, &CrlNumber::try_from(number)?)?,
        ],
    })
}

fn entry(revoked: &Revoked) -> Result<Entry, der::Error> {
    let extensions = match revoked.reason.code() {
        None => None,
        Some(code) => {
            Some(vec![extension(const_oid::db::rfc5280::ID_CE_CRL_REASONS, false, &code)?])
        }
    };
    Ok(Entry {
        serial: Int::new(revoked.serial.as_bytes())?,
        at: time(revoked.at_unix_s)?,
        extensions,
    })
}
