//! Sigstore bundles: a signature, the certificate of its key, its time stamps, in one JSON file.
//!
//! # Source
//! Sigstore `protobuf-specs`, `sigstore_bundle.proto`, `sigstore_trustroot.proto`, in their JSON form.

mod trusted_root;

use serde::{Deserialize, Serialize};

pub use self::trusted_root::{
    CertificateAuthority, MAX_TRUSTED_ROOT_BYTES, TRUSTED_ROOT_MEDIA_TYPE, TrustedRoot,
};
use crate::{
    Sha256Digest,
    certificate::{Certificate, MAX_CERTIFICATE_BYTES},
    dsse::{Envelope, EnvelopeJson, MAX_ENVELOPE_BYTES},
    json,
    refusal::{Code, Refusal, one_of, quoted, within},
    signer::{self, MAX_SIGNATURE_BYTES, Signer},
    timestamp::MAX_RESPONSE_BYTES,
};

/// The only type of bundle.
pub const BUNDLE_MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// Most time stamps: one is enough, a few authorities may be asked.
pub const MAX_TIMESTAMPS: usize = 4;
/// Largest bundle, bytes: the largest envelope, time stamps and certificate in base64.
pub const MAX_BUNDLE_BYTES: usize =
    MAX_ENVELOPE_BYTES + (MAX_TIMESTAMPS * MAX_RESPONSE_BYTES + MAX_CERTIFICATE_BYTES) * 2;

/// What a bundle's signature is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The bytes of an artifact.
    Artifact(MessageSignature),
    /// A statement.
    Statement(Envelope),
}

/// A signature over an artifact, verified by nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageSignature {
    /// The artifact's SHA-256, as the bundle claims.
    pub untrusted_digest: Sha256Digest,
    /// DER `ECDSA-Sig-Value`: what a time stamp is over.
    pub signature: Vec<u8>,
}

impl MessageSignature {
    /// Signs an artifact by its SHA-256.
    ///
    /// # Errors
    /// `RESULT_SIGNING_FAILED`.
    pub fn sign(artifact: Sha256Digest, signer: &dyn Signer) -> Result<Self, Refusal> {
        let signature = signer::sign(signer, &artifact)?;
        Ok(Self { untrusted_digest: artifact, signature })
    }

    /// Whether this key on P-256 made it, over the digest that it claims.
    #[must_use]
    pub fn is_of(&self, spki_der: &[u8]) -> bool {
        signer::verifies(spki_der, &self.untrusted_digest, &self.signature)
    }
}

impl Content {
    /// The signature: what a time stamp is over.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        match self {
            Self::Artifact(artifact) => &artifact.signature,
            Self::Statement(envelope) => envelope.signature(),
        }
    }

    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Artifact(_) => "the signature of an artifact",
            Self::Statement(_) => "a statement",
        }
    }
}

/// A bundle, believed by nobody: see [`crate::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    pub(crate) certificate: Certificate,
    pub(crate) timestamps: Vec<Vec<u8>>,
    pub(crate) content: Content,
}

impl Bundle {
    /// A bundle of parts made before: `timestamps` are DER `TimeStampResp` over the signature's bytes.
    ///
    /// # Errors
    /// `RESULT_MALFORMED`, `RESULT_TOO_LARGE` for parts that no parser would take back.
    pub fn new(
        certificate_der: &[u8],
        timestamps: Vec<Vec<u8>>,
        content: Content,
    ) -> Result<Self, Refusal> {
        let certificate = Certificate::parse("signer's certificate", certificate_der)?;
        within("time stamps", timestamps.len(), MAX_TIMESTAMPS, "time stamps")?;
        for timestamp in &timestamps {
            within("time stamp", timestamp.len(), MAX_RESPONSE_BYTES, "bytes")?;
        }
        Ok(Self { certificate, timestamps, content })
    }

    /// Decodes the JSON form: the fields that are documented and no others, but for empty `tlogEntries`.
    ///
    /// # Errors
    /// `RESULT_TOO_LARGE`, `RESULT_MALFORMED`, `RESULT_PAYLOAD_TYPE_UNKNOWN`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let bundle: BundleJson = json::parse("bundle", bytes, MAX_BUNDLE_BYTES)?;
        if bundle.media_type != BUNDLE_MEDIA_TYPE {
            let found = quoted(&bundle.media_type);
            let expected = one_of([BUNDLE_MEDIA_TYPE]);
            return Err(Refusal::new(Code::Malformed, "mediaType", expected, found));
        }
        let content = match (bundle.dsse_envelope, bundle.message_signature) {
            (Some(envelope), None) => Content::Statement(Envelope::from_json(envelope)?),
            (None, Some(message)) => Content::Artifact(message.parse()?),
            _ => {
                let expected = "dsseEnvelope or messageSignature";
                return Err(json::malformed("bundle", expected, "both, or none"));
            }
        };
        let material = bundle.verification_material;
        if !material.tlog_entries.is_empty() {
            return Err(json::malformed("tlogEntries", "none", "entries of a transparency log"));
        }
        let timestamps = material.timestamp_verification_data.unwrap_or_default();
        let timestamps = timestamps.rfc3161_timestamps;
        within("rfc3161Timestamps", timestamps.len(), MAX_TIMESTAMPS, "time stamps")?;
        let decode = |timestamp: &TimestampJson| {
            json::decode_base64("signedTimestamp", &timestamp.signed_timestamp, MAX_RESPONSE_BYTES)
        };
        let certificate = json::decode_base64(
            "certificate",
            &material.certificate.raw_bytes,
            MAX_CERTIFICATE_BYTES,
        )?;
        Self::new(&certificate, timestamps.iter().map(decode).collect::<Result<_, _>>()?, content)
    }

    /// The JSON form, in one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        let (dsse_envelope, message_signature) = match &self.content {
            Content::Statement(envelope) => (Some(envelope.as_json()), None),
            Content::Artifact(message) => (None, Some(MessageJson::new(message))),
        };
        let stamp = |der: &Vec<u8>| TimestampJson { signed_timestamp: json::encode_base64(der) };
        json::write(&BundleJson {
            media_type: BUNDLE_MEDIA_TYPE.to_owned(),
            verification_material: MaterialJson {
                certificate: CertificateJson {
                    raw_bytes: json::encode_base64(self.certificate.der()),
                },
                tlog_entries: Vec::new(),
                timestamp_verification_data: Some(TimestampsJson {
                    rfc3161_timestamps: self.timestamps.iter().map(stamp).collect(),
                }),
            },
            dsse_envelope,
            message_signature,
        })
    }

    /// What is signed.
    #[must_use]
    pub const fn content(&self) -> &Content {
        &self.content
    }

    /// Whose key is said to have signed.
    #[must_use]
    pub const fn untrusted_certificate(&self) -> &Certificate {
        &self.certificate
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct BundleJson {
    media_type: String,
    verification_material: MaterialJson,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message_signature: Option<MessageJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dsse_envelope: Option<EnvelopeJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct MaterialJson {
    certificate: CertificateJson,
    /// No log is asked; other writers put the empty list down.
    #[serde(default, skip_serializing)]
    tlog_entries: Vec<serde::de::IgnoredAny>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timestamp_verification_data: Option<TimestampsJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CertificateJson {
    raw_bytes: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TimestampsJson {
    #[serde(default)]
    rfc3161_timestamps: Vec<TimestampJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TimestampJson {
    signed_timestamp: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct MessageJson {
    message_digest: DigestJson,
    signature: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DigestJson {
    algorithm: String,
    digest: String,
}

const SHA2_256: &str = "SHA2_256";

impl MessageJson {
    fn new(message: &MessageSignature) -> Self {
        Self {
            message_digest: DigestJson {
                algorithm: SHA2_256.to_owned(),
                digest: json::encode_base64(message.untrusted_digest.as_bytes()),
            },
            signature: json::encode_base64(&message.signature),
        }
    }

    fn parse(self) -> Result<MessageSignature, Refusal> {
        let DigestJson { algorithm, digest } = self.message_digest;
        if algorithm != SHA2_256 {
            return Err(json::malformed("messageDigest.algorithm", SHA2_256, &algorithm));
        }
        let digest = json::decode_base64("messageDigest.digest", &digest, 32)?;
        let digest = <[u8; 32]>::try_from(digest.as_slice())
            .map_err(|_| json::malformed("messageDigest.digest", "32 bytes", "fewer"))?;
        Ok(MessageSignature {
            untrusted_digest: Sha256Digest::from_bytes(digest),
            signature: json::decode_base64("signature", &self.signature, MAX_SIGNATURE_BYTES)?,
        })
    }
}
