//! X.509 certificates: what a leaf says, and whether it leads to an authority.

use const_oid::{
    AssociatedOid, ObjectIdentifier,
    db::{rfc5280, rfc5912},
};
use der::{Decode as _, Encode as _, Reader as _, SliceReader, asn1::Int};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use x509_cert::{
    ext::{
        Extension,
        pkix::{
            BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
            name::GeneralName,
        },
    },
    name::Name,
};

use crate::{
    Sha256Digest, SpiffeId, UnixTime,
    refusal::{Code, Refusal, quoted, within},
    signer,
};

/// Largest certificate, bytes: ours have 1 KiB.
pub const MAX_CERTIFICATE_BYTES: usize = 8 * 1024;

/// What a certificate's key may sign here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Artifacts and statements.
    CodeSigning,
    /// Time stamps, and nothing else.
    TimeStamping,
}

impl Purpose {
    const fn oid(self) -> ObjectIdentifier {
        match self {
            Self::CodeSigning => rfc5280::ID_KP_CODE_SIGNING,
            Self::TimeStamping => rfc5280::ID_KP_TIME_STAMPING,
        }
    }

    /// For intermediates: one that limits what it issues must allow the purpose.
    fn usage(self) -> webpki::KeyUsage {
        // Content bytes of the identifiers above.
        webpki::KeyUsage::required_if_present(match self {
            Self::CodeSigning => &[0x2b, 6, 1, 5, 5, 7, 3, 3],
            Self::TimeStamping => &[0x2b, 6, 1, 5, 5, 7, 3, 8],
        })
    }

    const fn chain_algorithms(self) -> &'static [&'static dyn SignatureVerificationAlgorithm] {
        match self {
            Self::CodeSigning => CODE_SIGNING_CHAIN,
            Self::TimeStamping => TIME_STAMPING_CHAIN,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::CodeSigning => "codeSigning",
            Self::TimeStamping => "timeStamping, critical and alone",
        }
    }
}

/// A certificate, believed by nobody.
#[derive(Clone, Debug)]
pub struct Certificate {
    what: &'static str,
    der: Vec<u8>,
    spki_der: Vec<u8>,
    is_p256: bool,
    issuer: Name,
    subject: Name,
    serial_number: Int,
    not_before: UnixTime,
    not_after: UnixTime,
    is_ca: bool,
    key_usage: Option<KeyUsage>,
    extended_key_usage: Option<(bool, ExtendedKeyUsage)>,
    names: Vec<GeneralName>,
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for Certificate {}

impl Certificate {
    /// Decodes a certificate; `what` it is says any refusal.
    ///
    /// # Errors
    /// `RESULT_TOO_LARGE`, `RESULT_MALFORMED`.
    pub fn parse(what: &'static str, der: &[u8]) -> Result<Self, Refusal> {
        within(what, der.len(), MAX_CERTIFICATE_BYTES, "bytes")?;
        let malformed = |error: der::Error| {
            Refusal::new(Code::Malformed, what, "a DER X.509 certificate", error.to_string())
        };
        let certificate = x509_cert::Certificate::from_der(der).map_err(malformed)?;
        let tbs = certificate.tbs_certificate();
        let spki = tbs.subject_public_key_info();
        let extensions = Extensions(tbs.extensions().map(Vec::as_slice).unwrap_or_default());
        let names = extensions.decode::<SubjectAltName>().map_err(malformed)?;
        let constraints = extensions.decode::<BasicConstraints>().map_err(malformed)?;
        let validity = tbs.validity();
        Ok(Self {
            what,
            der: der.to_vec(),
            spki_der: spki.to_der().map_err(malformed)?,
            is_p256: spki.algorithm.oid == rfc5912::ID_EC_PUBLIC_KEY
                && spki
                    .algorithm
                    .parameters
                    .as_ref()
                    .is_some_and(|parameters| parameters.decode_as() == Ok(rfc5912::SECP_256_R_1)),
            issuer: tbs.issuer().clone(),
            subject: tbs.subject().clone(),
            serial_number: Int::new(tbs.serial_number().as_bytes()).map_err(malformed)?,
            not_before: UnixTime::from_duration(validity.not_before.to_unix_duration()),
            not_after: UnixTime::from_duration(validity.not_after.to_unix_duration()),
            is_ca: constraints.is_some_and(|(_, constraints)| constraints.ca),
            key_usage: extensions.decode().map_err(malformed)?.map(|(_, usage)| usage),
            extended_key_usage: extensions.decode().map_err(malformed)?,
            names: names.map(|(_, names)| names.0).unwrap_or_default(),
        })
    }

    /// DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// DER of the public key's `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// SHA-256 of the public key's `SubjectPublicKeyInfo`: what a dispatch names.
    #[must_use]
    pub fn spki_digest(&self) -> Sha256Digest {
        Sha256Digest::of(&self.spki_der)
    }

    /// Begin of validity.
    #[must_use]
    pub const fn not_before(&self) -> UnixTime {
        self.not_before
    }

    /// End of validity.
    #[must_use]
    pub const fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// Whether it may issue certificates.
    #[must_use]
    pub const fn is_ca(&self) -> bool {
        self.is_ca
    }

    /// Whether the instant lies in its validity, ends included.
    #[must_use]
    pub fn is_valid_at(&self, at: UnixTime) -> bool {
        (self.not_before..=self.not_after).contains(&at)
    }

    /// The one SPIFFE ID that it names, and no other name.
    ///
    /// # Errors
    /// `RESULT_IDENTITY_INVALID`.
    ///
    /// # Source
    /// SPIFFE X509-SVID, "SPIFFE ID": exactly one URI SAN. Other kinds of names, which it allows, are
    /// refused as well: nobody compares them.
    pub fn spiffe_id(&self) -> Result<SpiffeId, Refusal> {
        let invalid = |found: String| {
            let expected = "exactly one name, a SPIFFE ID";
            Refusal::new(Code::IdentityInvalid, self.what, expected, found)
        };
        match self.names.as_slice() {
            [GeneralName::UniformResourceIdentifier(uri)] => {
                uri.as_str().parse().map_err(|_| invalid(quoted(uri.as_str())))
            }
            [_] => Err(invalid("a name of another kind".to_owned())),
            names => Err(invalid(format!("{} names", names.len()))),
        }
    }

    /// Refuses what may not be used for `purpose`.
    ///
    /// # Errors
    /// `RESULT_CERTIFICATE_USAGE`.
    pub fn check_purpose(&self, purpose: Purpose) -> Result<(), Refusal> {
        let refused = |expected: &str, found: &str| {
            Refusal::new(Code::CertificateUsage, self.what, expected, found)
        };
        if self.is_ca {
            return Err(refused("a leaf", "a CA"));
        }
        if !self.key_usage.is_some_and(|usage| usage.0.contains(KeyUsages::DigitalSignature)) {
            return Err(refused("the key usage digitalSignature", "others, or none"));
        }
        let is_allowed = self.extended_key_usage.as_ref().is_some_and(|(is_critical, usages)| {
            match purpose {
                Purpose::CodeSigning => usages.0.contains(&purpose.oid()),
                // RFC 3161, "Identification of the TSA".
                Purpose::TimeStamping => *is_critical && usages.0 == [purpose.oid()],
            }
        });
        if is_allowed {
            return Ok(());
        }
        let expected = format!("the extended key usage {}", purpose.name());
        Err(refused(&expected, "others, or none"))
    }

    /// Refuses another key than one on P-256.
    ///
    /// # Errors
    /// `RESULT_KEY_UNSUPPORTED`.
    pub fn check_p256(&self) -> Result<(), Refusal> {
        if self.is_p256 {
            return Ok(());
        }
        Err(Refusal::new(Code::KeyUnsupported, self.what, "a key on P-256", "another"))
    }

    /// Whether `issuer` signed it, and is named as its issuer.
    pub(crate) fn is_issued_by(&self, issuer: &Self) -> bool {
        let Ok(certificate) = x509_cert::Certificate::from_der(&self.der) else { return false };
        let signed = SliceReader::new(&self.der).and_then(|mut reader| {
            // The bytes that were signed, not another encoding of them.
            reader.sequence(|fields| {
                let tbs = fields.tlv_bytes()?;
                let _rest = fields.read_slice(fields.remaining_len())?;
                Ok(tbs)
            })
        });
        let Ok(tbs) = signed else { return false };
        self.issuer == issuer.subject
            && issuer.is_ca
            && issuer.verifies(TIME_STAMPING_CHAIN, tbs, certificate.signature().raw_bytes())
    }

    /// Whether its key signed the content with that SHA-256.
    pub(crate) fn verifies_digest(&self, digest: &Sha256Digest, signature: &[u8]) -> bool {
        self.is_p256 && signer::verifies(&self.spki_der, digest, signature)
    }

    /// Whether its key signed `message` with one of these algorithms.
    pub(crate) fn verifies(
        &self,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        let der = CertificateDer::from(self.der.as_slice());
        let Ok(certificate) = webpki::EndEntityCert::try_from(&der) else { return false };
        let is_by = |algorithm: &&dyn SignatureVerificationAlgorithm| {
            certificate.verify_signature(*algorithm, message, signature).is_ok()
        };
        algorithms.iter().any(is_by)
    }

    pub(crate) fn issuer_and_serial(&self) -> Result<(Name, Int), Refusal> {
        Ok((self.issuer.clone(), self.serial_number.clone()))
    }
}

/// Why a certificate does not lead to an authority.
pub(crate) struct ChainError {
    /// In words.
    pub(crate) text: String,
    /// Whether it, or one above it, was not valid at that time.
    pub(crate) is_of_time: bool,
}

/// Signatures of the certificates above a leaf that signs code: this project's CAs, or a site's in their place.
const CODE_SIGNING_CHAIN: &[&dyn SignatureVerificationAlgorithm] = &[
    webpki::aws_lc_rs::ECDSA_P256_SHA256,
    webpki::aws_lc_rs::ECDSA_P256_SHA384,
    webpki::aws_lc_rs::ECDSA_P384_SHA256,
    webpki::aws_lc_rs::ECDSA_P384_SHA384,
];
/// Above an authority that stamps: those that are for everybody mostly have RSA keys.
const TIME_STAMPING_CHAIN: &[&dyn SignatureVerificationAlgorithm] = &[
    webpki::aws_lc_rs::ECDSA_P256_SHA256,
    webpki::aws_lc_rs::ECDSA_P256_SHA384,
    webpki::aws_lc_rs::ECDSA_P384_SHA256,
    webpki::aws_lc_rs::ECDSA_P384_SHA384,
    webpki::aws_lc_rs::RSA_PKCS1_2048_8192_SHA256,
    webpki::aws_lc_rs::RSA_PKCS1_2048_8192_SHA384,
    webpki::aws_lc_rs::RSA_PKCS1_2048_8192_SHA512,
];

/// Whether `leaf` leads over the first certificate of `chain` to the last, the anchor, at that time; any of `more` may stand
/// between.
///
/// A root vouches for many: what is listed below it is who is meant. Where the first is no CA, it is the leaf itself.
pub(crate) fn verify_chain(
    leaf: &Certificate,
    chain: &[Certificate],
    more: &[Certificate],
    at: UnixTime,
    purpose: Purpose,
) -> Result<(), ChainError> {
    let of = |text: &str| ChainError { text: text.to_owned(), is_of_time: false };
    let (Some(first), Some((root, between))) = (chain.first(), chain.split_last()) else {
        return Err(of("an authority without certificates"));
    };
    if !first.is_ca && first.der != leaf.der {
        return Err(of("another certificate than the one that is listed"));
    }
    let failed = |error: webpki::Error| ChainError {
        is_of_time: matches!(
            error,
            webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. }
        ),
        text: error.to_string(),
    };
    // webpki takes anchors as they are: one that is past its time ends here.
    if !root.is_valid_at(at) {
        let text = format!("a root valid from {} to {}", root.not_before, root.not_after);
        return Err(ChainError { text, is_of_time: true });
    }
    let root_der = CertificateDer::from(root.der.as_slice());
    let anchor = webpki::anchor_from_trusted_cert(&root_der).map_err(failed)?;
    let between: Vec<_> = between
        .iter()
        .chain(more)
        .map(|above| CertificateDer::from(above.der.as_slice()))
        .collect();
    let leads_over_the_first = |path: &webpki::VerifiedPath<'_>| {
        let is_first = |above: &[u8]| above == first.der;
        let is_there = chain.len() == 1
            || !first.is_ca
            || path.intermediate_certificates().any(|above| is_first(&above.der()));
        if is_there { Ok(()) } else { Err(webpki::Error::UnknownIssuer) }
    };
    let leaf_der = CertificateDer::from(leaf.der.as_slice());
    let leaf = webpki::EndEntityCert::try_from(&leaf_der).map_err(failed)?;
    let time =
        rustls_pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(at.unix_s()));
    let anchors = [anchor];
    leaf.verify_for_usage(
        purpose.chain_algorithms(),
        &anchors,
        &between,
        time,
        purpose.usage(),
        None,
        Some(&leads_over_the_first),
    )
    .map(|_| ())
    .map_err(failed)
}

/// The extensions of a certificate, none of them twice.
struct Extensions<'a>(&'a [Extension]);

impl Extensions<'_> {
    /// Whether it is critical, and its value.
    fn decode<T: AssociatedOid + for<'a> der::Decode<'a, Error = der::Error>>(
        &self,
    ) -> Result<Option<(bool, T)>, der::Error> {
        let mut found = self.0.iter().filter(|extension| extension.extn_id == T::OID);
        let Some(extension) = found.next() else { return Ok(None) };
        if found.next().is_some() {
            return Err(der::Tag::Sequence.value_error().into());
        }
        Ok(Some((extension.critical, T::from_der(extension.extn_value.as_bytes())?)))
    }
}
