//! An authority that stamps: the verifier's own.

use std::fmt;

use const_oid::ObjectIdentifier;
use der::{
    Any, Decode as _, Encode as _,
    asn1::{BitString, GeneralizedTime, Int, OctetString, SetOfVec},
};
use x509_cert::{attr::Attribute, name::Name};

use super::{
    asn1::{
        AT_CONTENT_TYPE, AT_MESSAGE_DIGEST, AT_SIGNING_CERTIFICATE, Accuracy, CT_SIGNED_DATA,
        CT_TST_INFO, ContentInfo, ECDSA_SHA_256, EncapContentInfo, EssCertIdV2,
        IssuerAndSerialNumber, PkiStatusInfo, SHA_256, SignedData, SignerInfo,
        SigningCertificateV2, TimeStampResp, TstInfo, algorithm,
    },
    request::{Request, message_imprint},
};
use crate::{
    Sha256Digest, UnixTime,
    certificate::{Certificate, Purpose},
    refusal::{Code, Refusal},
    signer::{self, Signer},
};

/// The time-stamp policy of this project's authority, under its OID arc: key and clock are the
/// verifier's, the clock to within a second.
pub const DEFAULT_POLICY: ObjectIdentifier = ObjectIdentifier::new_unwrap(
    "1.2.840.113556.1.8000.2554.48499.12167.14529.20271.40369.9916843.2229550.3",
);
/// How far the stated time may be from the true one, seconds: clocks that are kept by NTP are well
/// within; whole seconds cost up to one.
const ACCURACY_S: u32 = 1;
/// Longest serial number, bytes: as for certificates.
const MAX_SERIAL_BYTES: usize = 20;

/// A time stamp authority: a key, its certificate, a policy.
pub struct Authority<S> {
    signer: S,
    certificate: Certificate,
    issuer: Name,
    serial_number: Int,
    policy: ObjectIdentifier,
}

/// What an authority answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// DER of the `TimeStampResp`, for `application/timestamp-reply`.
    pub der: Vec<u8>,
    /// Why it was refused, if it was.
    pub failure: Option<Failure>,
}

/// Why an authority refuses.
///
/// # Source
impl Answer {
    /// To what is no request.
    #[must_use]
    pub fn bad_request() -> Self {
        Self::rejected(Failure::BadRequest)
    }

    fn rejected(failure: Failure) -> Self {
        Self { der: rejection(failure), failure: Some(failure) }
    }
}

/// RFC 3161, `PKIFailureInfo`: the numbers of its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Failure {
    /// The request does not decode, or asks for what is not offered.
    BadRequest = 2,
    /// The time is outside of the authority's certificate.
    TimeNotAvailable = 14,
    /// Another policy is asked for.
    UnacceptedPolicy = 15,
    /// The key did not sign.
    SystemFailure = 25,
}

impl<S: Signer> Authority<S> {
    /// An authority.
    ///
    /// # Errors
    /// `RESULT_MALFORMED` for what is no certificate; `RESULT_CERTIFICATE_USAGE` for one that is not for
    /// time stamps alone (critical extended key usage, RFC 3161 "TSA certificate"), or not `signer`'s;
    /// `RESULT_KEY_UNSUPPORTED`.
    pub fn new(
        signer: S,
        certificate_der: &[u8],
        policy: ObjectIdentifier,
    ) -> Result<Self, Refusal> {
        let certificate = Certificate::parse("time stamp authority", certificate_der)?;
        certificate.check_purpose(Purpose::TimeStamping)?;
        certificate.check_p256()?;
        if certificate.spki_der() != signer.spki_der() {
            let expected = format!("one of {}", signer::key_id(signer.spki_der()));
            let found = format!("one of {}", signer::key_id(certificate.spki_der()));
            let subject = "time stamp authority's certificate";
            return Err(Refusal::new(Code::CertificateUsage, subject, expected, found));
        }
        let (issuer, serial_number) = certificate.issuer_and_serial()?;
        Ok(Self { signer, certificate, issuer, serial_number, policy })
    }

    /// The certificate, DER.
    #[must_use]
    pub fn certificate_der(&self) -> &[u8] {
        self.certificate.der()
    }

    /// Answers a request, whatever it is. `serial` must be fresh for every answer: 16 random bytes are.
    pub fn answer(&self, request_der: &[u8], serial: &[u8], now: UnixTime) -> Answer {
        match Request::parse(request_der) {
            Ok(request) => self.answer_to(&request, serial, now),
            Err(_) => Answer::bad_request(),
        }
    }

    /// As [`Authority::answer`], to a request that was read and looked at before.
    pub fn answer_to(&self, request: &Request, serial: &[u8], now: UnixTime) -> Answer {
        match self.grant(request, serial, now) {
            Ok(der) => Answer { der, failure: None },
            Err(failure) => Answer::rejected(failure),
        }
    }

    /// Stamps the SHA-256 `imprint`, without a request: for who has the authority at hand.
    ///
    /// # Errors
    /// `RESULT_TIMESTAMP_REFUSED` outside of the certificate's validity, or if the key does not sign.
    pub fn stamp(
        &self,
        imprint: Sha256Digest,
        serial: &[u8],
        now: UnixTime,
    ) -> Result<Vec<u8>, Refusal> {
        self.grant(&Request::new(imprint, &[])?.without_nonce(), serial, now).map_err(|failure| {
            let expected = "a time stamp";
            Refusal::new(Code::TimestampRefused, "time stamp", expected, format!("{failure:?}"))
        })
    }

    fn grant(&self, request: &Request, serial: &[u8], now: UnixTime) -> Result<Vec<u8>, Failure> {
        if request.policy.is_some_and(|policy| policy != self.policy) {
            return Err(Failure::UnacceptedPolicy);
        }
        if !self.certificate.is_valid_at(now) {
            return Err(Failure::TimeNotAvailable);
        }
        let token = self.token(request, serial, now).map_err(|_| Failure::SystemFailure)?;
        let status = PkiStatusInfo { status: 0, status_string: None, fail_info: None };
        TimeStampResp { status, token: Some(token) }.to_der().map_err(|_| Failure::SystemFailure)
    }

    fn token(
        &self,
        request: &Request,
        serial: &[u8],
        now: UnixTime,
    ) -> Result<ContentInfo, TokenError> {
        if serial.is_empty() || serial.len() >= MAX_SERIAL_BYTES {
            return Err(TokenError);
        }
        let gen_time = GeneralizedTime::from_date_time(now.to_date().map_err(|_| TokenError)?);
        let info = TstInfo {
            version: 1,
            policy: self.policy,
            message_imprint: message_imprint(&request.imprint)?,
            serial_number: Int::new(&[&[1], serial].concat())?,
            gen_time: Any::encode_from(&gen_time)?,
            accuracy: Some(Accuracy { seconds: Some(ACCURACY_S), millis: None, micros: None }),
            ordering: false,
            nonce: request.nonce_integer().cloned(),
            tsa: None,
            extensions: None,
        }
        .to_der()?;
        let signed_attributes = self.signed_attributes(&info)?;
        let signature = signer::sign(&self.signer, &Sha256Digest::of(&signed_attributes.to_der()?));
        let signer_info = SignerInfo {
            version: 1,
            sid: IssuerAndSerialNumber {
                issuer: self.issuer.clone(),
                serial_number: self.serial_number.clone(),
            },
            digest_algorithm: algorithm(SHA_256),
            signed_attributes: Some(signed_attributes),
            signature_algorithm: algorithm(ECDSA_SHA_256),
            signature: OctetString::new(signature.map_err(|_| TokenError)?)?,
            unsigned_attributes: None,
        };
        let certificate = Any::from_der(self.certificate.der())?;
        let certificates = request.wants_certificate.then(|| SetOfVec::from_iter([certificate]));
        let signed_data = SignedData {
            version: 3,
            digest_algorithms: SetOfVec::from_iter([algorithm(SHA_256)])?,
            encap_content_info: EncapContentInfo {
                content_type: CT_TST_INFO,
                content: OctetString::new(info)?,
            },
            certificates: certificates.transpose()?,
            crls: None,
            signer_infos: SetOfVec::from_iter([Any::encode_from(&signer_info)?])?,
        };
        Ok(ContentInfo { content_type: CT_SIGNED_DATA, content: Any::encode_from(&signed_data)? })
    }

    fn signed_attributes(&self, info: &[u8]) -> Result<SetOfVec<Attribute>, TokenError> {
        let digest = |bytes: &[u8]| OctetString::new(*Sha256Digest::of(bytes).as_bytes());
        let certificate = SigningCertificateV2 {
            certs: vec![EssCertIdV2 {
                hash_algorithm: None,
                cert_hash: digest(self.certificate.der())?,
                issuer_serial: None,
            }],
            policies: None,
        };
        let attributes = [
            (AT_CONTENT_TYPE, Any::encode_from(&CT_TST_INFO)?),
            (AT_MESSAGE_DIGEST, Any::encode_from(&digest(info)?)?),
            (AT_SIGNING_CERTIFICATE, Any::encode_from(&certificate)?),
        ];
        let mut set = SetOfVec::new();
        for (oid, value) in attributes {
            set.insert(Attribute { oid, values: SetOfVec::from_iter([value])? })?;
        }
        Ok(set)
    }
}

impl<S> fmt::Debug for Authority<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// A token could not be made; why is nobody's business but the key's.
struct TokenError;

impl From<der::Error> for TokenError {
    fn from(_: der::Error) -> Self {
        Self
    }
}

/// DER of a rejection: `TimeStampResp { status rejection (2), failInfo }`.
fn rejection(failure: Failure) -> Vec<u8> {
    let bit = failure as usize;
    let mut bits = vec![0_u8; bit / 8 + 1];
    let unused = 7 - bit % 8;
    if let Some(last) = bits.last_mut() {
        *last = 1 << unused;
    }
    let unused = u8::try_from(unused).unwrap_or_default();
    let fail_info = BitString::new(unused, bits).ok();
    let status = PkiStatusInfo { status: 2, status_string: None, fail_info };
    let response = TimeStampResp { status, token: None }.to_der();
    // Small integers and one bit string always encode; a bare rejection is what is left otherwise.
    response.unwrap_or_else(|_| vec![0x30, 5, 0x30, 3, 2, 1, 2])
}
