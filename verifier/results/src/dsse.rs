//! The envelope around a statement: DSSE with one signature.
//!
//! # Source
//! Dead Simple Signing Envelope, `protocol.md` and `envelope.md`, version 1.0; in-toto Attestation
//! Framework, `spec/v1/envelope.md`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    Sha256Digest, json,
    refusal::{Code, Refusal, one_of, quoted, within},
    signer::{self, MAX_SIGNATURE_BYTES, Signer},
    statement::{MAX_STATEMENT_BYTES, Predicate},
};

/// The only type of payload.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// Largest envelope, bytes: the largest statement in base64 and 4 KiB for everything else.
pub const MAX_ENVELOPE_BYTES: usize = MAX_STATEMENT_BYTES.div_ceil(3) * 4 + 4096;
/// Longest key identifier, bytes: ours have 71.
const MAX_KEYID_BYTES: usize = 256;

/// The bytes that are signed: type and payload, each with its length, so that no two pairs give the
/// same bytes.
///
/// # Format
/// `"DSSEv1" SP LEN(type) SP type SP LEN(payload) SP payload`; lengths in bytes, decimal.
///
/// # Source
/// DSSE `protocol.md`, "PAE".
#[derive(Clone, PartialEq, Eq)]
pub struct Pae(Vec<u8>);

impl Pae {
    /// Of a type and a payload.
    #[must_use]
    pub fn new(payload_type: &str, payload: &[u8]) -> Self {
        let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
        let mut bytes = Vec::with_capacity(head.len().saturating_add(payload.len()));
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(payload);
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Pae {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pae").field("bytes", &self.0.len()).finish()
    }
}

/// An envelope with one signature, verified by nobody: see [`crate::verify`].
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    untrusted_payload: Vec<u8>,
    untrusted_keyid: String,
    signature: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnvelopeJson {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<SignatureJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureJson {
    sig: String,
    keyid: String,
}

impl Envelope {
    /// Signs a statement.
    ///
    /// # Errors
    /// `RESULT_STATEMENT_INVALID`, `RESULT_TOO_LARGE`, `RESULT_SIGNING_FAILED`.
    pub fn sign(statement: &impl Predicate, signer: &dyn Signer) -> Result<Self, Refusal> {
        let payload = statement.to_json()?;
        let pae = Pae::new(PAYLOAD_TYPE, &payload);
        let signature = signer::sign(signer, &Sha256Digest::of(pae.as_bytes()))?;
        let untrusted_keyid = signer::key_id(signer.spki_der());
        Ok(Self { untrusted_payload: payload, untrusted_keyid, signature })
    }

    /// Decodes the JSON form: one signature, standard base64, a key identifier, no other field.
    ///
    /// # Errors
    /// `RESULT_TOO_LARGE`, `RESULT_MALFORMED`, `RESULT_PAYLOAD_TYPE_UNKNOWN`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        Self::from_json(json::parse("envelope", bytes, MAX_ENVELOPE_BYTES)?)
    }

    pub(crate) fn from_json(envelope: EnvelopeJson) -> Result<Self, Refusal> {
        if envelope.payload_type != PAYLOAD_TYPE {
            let found = quoted(&envelope.payload_type);
            let expected = one_of([PAYLOAD_TYPE]);
            return Err(Refusal::new(Code::PayloadTypeUnknown, "payloadType", expected, found));
        }
        let [signature] = envelope.signatures.as_slice() else {
            let found = format!("{} signatures", envelope.signatures.len());
            return Err(Refusal::new(Code::Malformed, "signatures", "one", found));
        };
        within("keyid", signature.keyid.len(), MAX_KEYID_BYTES, "bytes")?;
        if signature.keyid.is_empty() {
            return Err(json::malformed("keyid", "one", "none"));
        }
        Ok(Self {
            untrusted_payload: json::decode_base64(
                "payload",
                &envelope.payload,
                MAX_STATEMENT_BYTES,
            )?,
            untrusted_keyid: signature.keyid.clone(),
            signature: json::decode_base64("sig", &signature.sig, MAX_SIGNATURE_BYTES)?,
        })
    }

    /// The JSON form, in one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        json::write(&self.as_json())
    }

    pub(crate) fn as_json(&self) -> EnvelopeJson {
        EnvelopeJson {
            payload: json::encode_base64(&self.untrusted_payload),
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: vec![SignatureJson {
                sig: json::encode_base64(&self.signature),
                keyid: self.untrusted_keyid.clone(),
            }],
        }
    }

    /// What is signed.
    #[must_use]
    pub fn pae(&self) -> Pae {
        Pae::new(PAYLOAD_TYPE, &self.untrusted_payload)
    }

    /// The payload.
    #[must_use]
    pub fn untrusted_payload(&self) -> &[u8] {
        &self.untrusted_payload
    }

    /// Which key is said to have signed: a hint, not part of what is signed.
    #[must_use]
    pub fn untrusted_keyid(&self) -> &str {
        &self.untrusted_keyid
    }

    /// The signature: what a time stamp is over.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The payload, if the key signed it.
    ///
    /// Says nothing about whose key it is: [`crate::verify`] does.
    ///
    /// # Errors
    /// `RESULT_SIGNATURE_INVALID`.
    pub fn verify(&self, spki_der: &[u8]) -> Result<&[u8], Refusal> {
        if signer::verifies(spki_der, &Sha256Digest::of(self.pae().as_bytes()), &self.signature) {
            return Ok(&self.untrusted_payload);
        }
        let expected = format!("a signature of {}", signer::key_id(spki_der));
        Err(Refusal::new(Code::SignatureInvalid, "envelope", expected, "one that is not"))
    }
}

/// Sizes only: a payload is long.
impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("untrusted_keyid", &self.untrusted_keyid)
            .field("untrusted_payload_bytes", &self.untrusted_payload.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pae_is_that_of_the_specification() {
        // DSSE protocol.md, "Test Vectors".
        assert_eq!(
            Pae::new("http://example.com/HelloWorld", b"hello world").as_bytes(),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
        assert_eq!(Pae::new("", b"").as_bytes(), b"DSSEv1 0  0 ");
        // Lengths are those of bytes.
        assert_eq!(Pae::new("\u{e4}", b"\0\xff").as_bytes(), b"DSSEv1 2 \xc3\xa4 2 \0\xff");
        // What one gives to the other makes a difference.
        assert_ne!(Pae::new("a", b"b c"), Pae::new("a 3 b", b"c"));
    }

    fn code(text: &str) -> Code {
        Envelope::parse(text.as_bytes()).expect_err("it is refused").code()
    }

    #[test]
    fn an_envelope_has_one_signature_one_type_and_one_spelling() {
        let envelope = |payload_type: &str, payload: &str, signatures: &str| {
            format!(
                r#"{{"payload":"{payload}","payloadType":"{payload_type}","signatures":[{signatures}]}}"#
            )
        };
        let one = r#"{"sig":"+/8=","keyid":"k"}"#;
        let good = envelope(PAYLOAD_TYPE, "e30=", one);
        let parsed = Envelope::parse(good.as_bytes()).expect("it parses");
        assert_eq!(parsed.to_json(), good);
        assert_eq!(
            (parsed.untrusted_payload(), parsed.signature()),
            (&b"{}"[..], &b"\xfb\xff"[..])
        );
        let two = format!("{one},{one}");
        let anonymous = r#"{"sig":"+/8="}"#;
        let url_safe = r#"{"sig":"-_8=","keyid":"k"}"#;
        let loose = r#"{"sig":"+/9=","keyid":"k"}"#;
        let unpadded = r#"{"sig":"+/8","keyid":"k"}"#;
        let nameless = r#"{"sig":"+/8=","keyid":""}"#;
        for signatures in ["", &two, anonymous, nameless, url_safe, loose, unpadded] {
            let text = envelope(PAYLOAD_TYPE, "e30=", signatures);
            assert_eq!(code(&text), Code::Malformed, "{signatures}");
        }
        assert_eq!(code(&good.replace("\"payload\"", "\"x\":1,\"payload\"")), Code::Malformed);
        assert_eq!(code(&format!("{good}{good}")), Code::Malformed);
        for other in ["application/vnd.in-toto+JSON", "application/json", ""] {
            assert_eq!(code(&envelope(other, "e30=", one)), Code::PayloadTypeUnknown, "{other}");
        }
        let long = format!(r#"{{"sig":"{}","keyid":"k"}}"#, "A".repeat(100));
        assert_eq!(code(&envelope(PAYLOAD_TYPE, "e30=", &long)), Code::TooLarge);
        let long = format!(r#"{{"sig":"+/8=","keyid":"{}"}}"#, "k".repeat(257));
        assert_eq!(code(&envelope(PAYLOAD_TYPE, "e30=", &long)), Code::TooLarge);
        assert_eq!(code(&" ".repeat(MAX_ENVELOPE_BYTES + 1)), Code::TooLarge);
    }
}
