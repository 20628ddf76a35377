//! What an authority answered, and whether it is to be believed.

use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
use const_oid::ObjectIdentifier;
use der::{
    Any, Decode as _, Encode as _, Tag,
    asn1::{Int, OctetString, SetOfVec},
};
use x509_cert::attr::Attribute;

use super::{
    algorithms,
    asn1::{
        AT_CONTENT_TYPE, AT_MESSAGE_DIGEST, AT_SIGNING_CERTIFICATE, CT_SIGNED_DATA, CT_TST_INFO,
        SHA_256, SHA_384, SHA_512, SignedData, SignerInfo, SigningCertificateV2, TimeStampResp,
        TstInfo, is_digest,
    },
    request::{Request, imprint},
};
use crate::{
    Sha256Digest, UnixTime,
    bundle::CertificateAuthority,
    certificate::{Certificate, Purpose},
    refusal::{Code, Refusal, within},
};

/// Largest response, bytes: with a chain of four certificates that are larger than any of ours.
pub const MAX_RESPONSE_BYTES: usize = 16 * 1024;
/// Most certificates in a token.
const MAX_CERTIFICATES: usize = 8;
/// Most attributes that are signed.
const MAX_ATTRIBUTES: usize = 16;

/// How far a time stamp may lie in the verifier's future: its clock may be behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockTolerance;

impl ClockTolerance {
    /// Seconds: five minutes, as Kerberos takes for clocks that are kept at all.
    pub const SECONDS: u64 = 300;
}

/// A granted time-stamp response, believed by nobody: see [`Response::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    info: TstInfo,
    /// What was digested: the received bytes, not another encoding of them.
    info_der: Vec<u8>,
    signer: SignerInfo,
    certificates: Vec<Certificate>,
}

/// An instant at which bytes existed.
///
/// # Proves
/// A trusted authority, valid at that instant, stamped the imprint that it was asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenTime {
    at: UnixTime,
    authority: String,
    certificate: Sha256Digest,
}

impl ProvenTime {
    /// The instant, without its fraction of a second.
    #[must_use]
    pub const fn at(&self) -> UnixTime {
        self.at
    }

    /// URI of the authority, as the list of trusted ones names it.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// SHA-256 of the authority's certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Sha256Digest {
        &self.certificate
    }
}

impl Response {
    /// Decodes a response that grants.
    ///
    /// # Errors
    /// `RESULT_TOO_LARGE`, `RESULT_MALFORMED`; `RESULT_TIMESTAMP_REFUSED` if it does not grant.
    pub fn parse(der: &[u8]) -> Result<Self, Refusal> {
        within("time-stamp response", der.len(), MAX_RESPONSE_BYTES, "bytes")?;
        let response = TimeStampResp::from_der(der).map_err(|error| malformed(&error))?;
        // Granted, or granted with modifications that the checks below would find.
        if response.status.status > 1 {
            let found = format!("status {}", response.status.status);
            return Err(refused(Code::TimestampRefused, "status 0 or 1, granted", found));
        }
        let token = response.token.ok_or_else(|| not("a token", "none"))?;
        if token.content_type != CT_SIGNED_DATA {
            return Err(not("signed data", "other content"));
        }
        let signed: SignedData = token.content.decode_as().map_err(|error| malformed(&error))?;
        if signed.encap_content_info.content_type != CT_TST_INFO {
            return Err(not("a TSTInfo", "other content"));
        }
        let [signer] = signed.signer_infos.as_slice() else {
            return Err(not("one signer", "none, or more than one"));
        };
        let embedded = signed.certificates.unwrap_or_default();
        within("certificates of a time stamp", embedded.len(), MAX_CERTIFICATES, "certificates")?;
        let info_der = signed.encap_content_info.content.as_bytes().to_vec();
        let parse = |certificate: &Any| {
            let der = certificate.to_der().map_err(|error| malformed(&error))?;
            Certificate::parse("certificate of a time stamp", &der)
        };
        let info = TstInfo::from_der(&info_der).map_err(|error| malformed(&error))?;
        if info.version != 1 {
            return Err(not("TSTInfo version 1", "another"));
        }
        if info.extensions.iter().flatten().any(|extension| extension.critical) {
            return Err(not("no critical extension", "one"));
        }
        Ok(Self {
            info,
            info_der,
            signer: signer.decode_as().map_err(|error| malformed(&error))?,
            certificates: embedded.iter().map(parse).collect::<Result<_, _>>()?,
        })
    }

    /// The time stamp, if it answers `request`.
    ///
    /// # Errors
    /// `RESULT_TIMESTAMP_NONCE`; otherwise as [`Response::verify`].
    pub fn verify_answer(
        &self,
        request: &Request,
        authorities: &[CertificateAuthority],
        now: UnixTime,
    ) -> Result<ProvenTime, Refusal> {
        self.untrusted_answer(request, now)?;
        self.verify(&request.imprint, authorities, now)
    }

    /// The instant that it states, if it answers `request`: for who asked and knows no authority.
    ///
    /// # Does not prove
    /// that anybody stamped it: no certificate and no signature is looked at.
    ///
    /// # Errors
    /// `RESULT_TIMESTAMP_NONCE`, `RESULT_TIMESTAMP_INVALID` for another policy, `RESULT_TIMESTAMP_IMPRINT`,
    /// `RESULT_TIMESTAMP_IN_FUTURE`.
    pub fn untrusted_answer(&self, request: &Request, now: UnixTime) -> Result<UnixTime, Refusal> {
        if self.info.nonce.as_ref().map(Int::as_bytes) != request.nonce() {
            let found = "another, or none";
            return Err(refused(Code::TimestampNonce, "the request's nonce", found.to_owned()));
        }
        if request.policy.is_some_and(|policy| policy != self.info.policy) {
            let found = self.info.policy.to_string();
            return Err(refused(Code::TimestampInvalid, "the request's policy", found));
        }
        self.untrusted_time_of(&request.imprint, now)
    }

    /// The instant that it states, if it is over that imprint.
    fn untrusted_time_of(
        &self,
        imprint_wanted: &Sha256Digest,
        now: UnixTime,
    ) -> Result<UnixTime, Refusal> {
        let found = imprint(&self.info.message_imprint);
        if found.as_ref() != Some(imprint_wanted) {
            let found = found.map_or_else(|| "another hash".to_owned(), |found| found.to_string());
            return Err(refused(Code::TimestampImprint, imprint_wanted.to_string(), found));
        }
        let at = self.gen_time()?;
        if at.unix_s() > now.unix_s().saturating_add(ClockTolerance::SECONDS) {
            let expected = format!("at most {now} and {} s", ClockTolerance::SECONDS);
            return Err(refused(Code::TimestampInFuture, expected, at.to_string()));
        }
        Ok(at)
    }

    /// The instant at which `imprint` was stamped by one of `authorities`.
    ///
    /// # Errors
    /// - `RESULT_TIMESTAMP_IMPRINT` it is over something else;
    /// - `RESULT_TIMESTAMP_IN_FUTURE` by more than [`ClockTolerance::SECONDS`];
    /// - `RESULT_TIMESTAMP_UNTRUSTED` its certificate is not there, not for time stamps alone, not valid
    ///   then, or not of one of `authorities` at that time;
    /// - `RESULT_TIMESTAMP_INVALID` signed attributes or signature are not good.
    pub fn verify(
        &self,
        imprint_wanted: &Sha256Digest,
        authorities: &[CertificateAuthority],
        now: UnixTime,
    ) -> Result<ProvenTime, Refusal> {
        let at = self.untrusted_time_of(imprint_wanted, now)?;
        let mut nearest = None;
        for authority in authorities {
            match self.verify_by(authority, at) {
                Ok(time) => return Ok(time),
                Err(refusal) => {
                    // A bad signature by a trusted authority says more than an unknown authority.
                    let is_better = refusal.code() == Code::TimestampInvalid || nearest.is_none();
                    nearest = if is_better { Some(refusal) } else { nearest };
                }
            }
        }
        Err(nearest.unwrap_or_else(|| untrusted("an authority", "a list of none".to_owned())))
    }

    fn verify_by(
        &self,
        authority: &CertificateAuthority,
        at: UnixTime,
    ) -> Result<ProvenTime, Refusal> {
        let listed = authority.certificates().iter();
        let certificate = self
            .certificates
            .iter()
            .chain(listed)
            .find(|certificate| self.is_of(certificate))
            .ok_or_else(|| untrusted("the signer's certificate", "none of that name".to_owned()))?;
        certificate
            .check_purpose(Purpose::TimeStamping)
            .map_err(|refusal| untrusted(refusal.expected(), refusal.observed().to_owned()))?;
        // At that time, not now: the stamp outlives the certificate.
        authority
            .verify(certificate, &self.certificates, at, Purpose::TimeStamping)
            .map_err(|why| untrusted(&format!("a certificate of {}", authority.uri()), why.text))?;
        self.verify_signature(certificate)?;
        Ok(ProvenTime {
            at,
            authority: authority.uri().to_owned(),
            certificate: Sha256Digest::of(certificate.der()),
        })
    }

    fn is_of(&self, certificate: &Certificate) -> bool {
        let sid = &self.signer.sid;
        certificate
            .issuer_and_serial()
            .is_ok_and(|(issuer, serial)| issuer == sid.issuer && serial == sid.serial_number)
    }

    fn verify_signature(&self, certificate: &Certificate) -> Result<(), Refusal> {
        let signer = &self.signer;
        let bad = |expected: &str, found: &str| {
            refused(Code::TimestampInvalid, expected, found.to_owned())
        };
        let Some(attributes) = &signer.signed_attributes else {
            return Err(bad("signed attributes", "none"));
        };
        if attributes.len() > MAX_ATTRIBUTES {
            return Err(bad("at most 16 signed attributes", "more"));
        }
        let content_type: Option<ObjectIdentifier> = value(attributes, AT_CONTENT_TYPE);
        if content_type != Some(CT_TST_INFO) {
            return Err(bad("the content type TSTInfo, signed", "another, or none"));
        }
        let digest_algorithm = [(SHA_256, &SHA256), (SHA_384, &SHA384), (SHA_512, &SHA512)]
            .into_iter()
            .find(|(oid, _)| is_digest(&signer.digest_algorithm, *oid))
            .map(|(_, algorithm)| algorithm)
            .ok_or_else(|| bad("SHA-256, SHA-384 or SHA-512", "another hash"))?;
        let message_digest: Option<OctetString> = value(attributes, AT_MESSAGE_DIGEST);
        let info_digest = digest(digest_algorithm, &self.info_der);
        if message_digest.as_ref().map(OctetString::as_bytes) != Some(info_digest.as_ref()) {
            return Err(bad("the TSTInfo's digest, signed", "another, or none"));
        }
        let signing: Option<SigningCertificateV2> = value(attributes, AT_SIGNING_CERTIFICATE);
        let is_named =
            signing.as_ref().and_then(|signing| signing.certs.first()).is_some_and(|id| {
                id.hash_algorithm.as_ref().is_none_or(|algorithm| is_digest(algorithm, SHA_256))
                    && id.cert_hash.as_bytes() == Sha256Digest::of(certificate.der()).as_bytes()
            });
        if !is_named {
            return Err(bad(
                "the certificate's SHA-256 as ESSCertIDv2, signed",
                "another, or none",
            ));
        }
        let message = attributes.to_der().map_err(|error| malformed(&error))?;
        let Some(algorithms) = algorithms::of(signer) else {
            return Err(bad("ECDSA or RSA PKCS #1 v1.5, with SHA-2", "another algorithm"));
        };
        if certificate.verifies(&algorithms, &message, signer.signature.as_bytes()) {
            return Ok(());
        }
        Err(bad("a signature by the authority's certificate", "one that is not"))
    }

    /// Whole seconds of `genTime`.
    ///
    /// # Source
    /// RFC 3161, "TSTInfo": `YYYYMMDDhhmmss[.s...]Z`, no trailing zeros.
    fn gen_time(&self) -> Result<UnixTime, Refusal> {
        let wrong = || not("a genTime YYYYMMDDhhmmss[.s]Z", "another");
        let gen_time = &self.info.gen_time;
        if der::Tagged::tag(gen_time) != Tag::GeneralizedTime {
            return Err(wrong());
        }
        let text = std::str::from_utf8(gen_time.value()).map_err(|_| wrong())?;
        let body = text.strip_suffix('Z').ok_or_else(wrong)?;
        let (whole, fraction) = body.split_once('.').map_or((body, None), |(w, f)| (w, Some(f)));
        if fraction.is_some_and(|fraction| {
            fraction.ends_with('0')
                || !(1..=9).contains(&fraction.len())
                || !fraction.bytes().all(|byte| byte.is_ascii_digit())
        }) {
            return Err(wrong());
        }
        let whole = Any::new(Tag::GeneralizedTime, format!("{whole}Z").into_bytes());
        let time: der::asn1::GeneralizedTime =
            whole.and_then(|whole| whole.decode_as()).map_err(|_| wrong())?;
        Ok(UnixTime::from_duration(time.to_unix_duration()))
    }
}

/// The one value of the one attribute of that type.
fn value<T>(attributes: &SetOfVec<Attribute>, oid: ObjectIdentifier) -> Option<T>
where
    T: for<'a> der::Choice<'a, Error = der::Error>
        + for<'a> der::DecodeValue<'a, Error = der::Error>,
{
    let mut found = attributes.iter().filter(|attribute| attribute.oid == oid);
    match (found.next()?.values.as_slice(), found.next()) {
        ([value], None) => value.decode_as().ok(),
        _ => None,
    }
}

fn malformed(error: &der::Error) -> Refusal {
    not("DER of RFC 3161", &error.to_string())
}

fn not(expected: &str, found: &str) -> Refusal {
    refused(Code::Malformed, expected, found.to_owned())
}

fn untrusted(expected: &str, found: String) -> Refusal {
    refused(Code::TimestampUntrusted, expected, found)
}

fn refused(code: Code, expected: impl Into<String>, found: String) -> Refusal {
    Refusal::new(code, "time stamp", expected, found)
}
