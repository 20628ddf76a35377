//! DSSE v1: the envelope around a signed document, and the bytes that are signed.
//!
//! # Source
//! Dead Simple Signing Envelope, `protocol.md` and `envelope.md`, version 1.0.

use std::{borrow::Cow, fmt};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, SeqAccess, Visitor},
};

use super::PayloadType;

pub use results::dsse::Pae;

/// Largest payload, bytes: as large as a golden set may be.
pub const MAX_PAYLOAD_BYTES: usize = 32 * 1024 * 1024;
/// Most signatures: while a key ring is replaced, those of two rings of 32 keys.
pub const MAX_SIGNATURES: usize = 64;
/// Largest envelope, bytes: the largest payload in base64, every signature at its largest, and room
/// for fields that others add.
pub const MAX_ENVELOPE_BYTES: usize =
    MAX_PAYLOAD_BYTES / 3 * 4 + MAX_SIGNATURES * MAX_SIGNATURE_BYTES * 2 + 64 * 1024;
/// Largest signature, bytes: ours have 72 at most; others' are passed over, and those of ML-DSA-87
/// have 4627.
const MAX_SIGNATURE_BYTES: usize = 8 * 1024;
/// Longest key identifier, bytes: ours have 71.
const MAX_KEYID_BYTES: usize = 256;
/// Longest payload type, bytes: a media type has 255 at most (RFC 6838, "Naming Requirements").
const MAX_PAYLOAD_TYPE_BYTES: usize = 255;

/// An envelope does not decode, or is larger than allowed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Not the JSON of an envelope.
    #[error("not a DSSE envelope in JSON")]
    Json(#[source] serde_json::Error),
    /// A field is not base64.
    #[error("{at} is not base64, standard or URL-safe, with padding")]
    Base64 {
        /// The field.
        at: String,
        /// What is wrong with it.
        source: base64::DecodeError,
    },
    /// A field is too large.
    #[error("{at} has {bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// The field, or the envelope.
        at: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Too many signatures.
    #[error("{count} signatures, at most {MAX_SIGNATURES} are allowed")]
    TooManySignatures {
        /// How many there are.
        count: usize,
    },
}

/// A signature in an envelope, verified by nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    untrusted_keyid: Option<String>,
    bytes: Vec<u8>,
}

impl Signature {
    /// A signature; an empty identifier is none.
    ///
    /// # Errors
    /// [`EnvelopeError::TooLarge`].
    pub fn new(keyid: Option<String>, bytes: Vec<u8>) -> Result<Self, EnvelopeError> {
        let keyid = keyid.filter(|keyid| !keyid.is_empty());
        within("keyid", keyid.as_ref().map_or(0, String::len), MAX_KEYID_BYTES)?;
        within("sig", bytes.len(), MAX_SIGNATURE_BYTES)?;
        Ok(Self { untrusted_keyid: keyid, bytes })
    }

    /// Which key is said to have signed: a hint, not part of what is signed.
    #[must_use]
    pub fn untrusted_keyid(&self) -> Option<&str> {
        self.untrusted_keyid.as_deref()
    }

    /// The signature.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A DSSE envelope, believed by nobody: see [`super::KeyRing::verify`].
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    untrusted_payload_type: String,
    untrusted_payload: Vec<u8>,
    signatures: Vec<Signature>,
}

impl Envelope {
    /// An envelope without signatures.
    ///
    /// # Errors
    /// [`EnvelopeError::TooLarge`].
    pub fn new(
        payload_type: PayloadType,
        payload: impl Into<Vec<u8>>,
    ) -> Result<Self, EnvelopeError> {
        let payload = payload.into();
        within("payload", payload.len(), MAX_PAYLOAD_BYTES)?;
        Ok(Self {
            untrusted_payload_type: payload_type.as_str().to_owned(),
            untrusted_payload: payload,
            signatures: Vec::new(),
        })
    }

    /// Decodes the JSON form. Unknown fields are passed over, as DSSE demands; `signatures` may be
    /// empty, `keyid` absent, `null` or empty.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    ///
    /// # Source
    /// DSSE `envelope.md`, "Parsing rules"; base64 with padding: RFC 4648, "Padding of Encoded Data".
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        within("envelope", bytes.len(), MAX_ENVELOPE_BYTES)?;
        let json: EnvelopeIn<'_> = serde_json::from_slice(bytes).map_err(EnvelopeError::Json)?;
        if json.signatures.count > MAX_SIGNATURES {
            return Err(EnvelopeError::TooManySignatures { count: json.signatures.count });
        }
        within("payloadType", json.payload_type.len(), MAX_PAYLOAD_TYPE_BYTES)?;
        let payload = decode("payload", &json.payload)?;
        within("payload", payload.len(), MAX_PAYLOAD_BYTES)?;
        let mut signatures = Vec::with_capacity(json.signatures.list.len());
        for (position, signature) in json.signatures.list.into_iter().enumerate() {
            let at = |field: &str| format!("signatures[{position}].{field}");
            within(
                &at("keyid"),
                signature.keyid.as_ref().map_or(0, |id| id.len()),
                MAX_KEYID_BYTES,
            )?;
            let bytes = decode(&at("sig"), &signature.sig)?;
            within(&at("sig"), bytes.len(), MAX_SIGNATURE_BYTES)?;
            signatures.push(Signature::new(signature.keyid.map(Cow::into_owned), bytes)?);
        }
        Ok(Self {
            untrusted_payload_type: json.payload_type.into_owned(),
            untrusted_payload: payload,
            signatures,
        })
    }

    /// Adds a signature.
    ///
    /// # Errors
    /// [`EnvelopeError::TooManySignatures`].
    pub fn add(&mut self, signature: Signature) -> Result<(), EnvelopeError> {
        let count = self.signatures.len().saturating_add(1);
        if count > MAX_SIGNATURES {
            return Err(EnvelopeError::TooManySignatures { count });
        }
        self.signatures.push(signature);
        Ok(())
    }

    /// What its signers sign.
    #[must_use]
    pub fn pae(&self) -> Pae {
        Pae::new(&self.untrusted_payload_type, &self.untrusted_payload)
    }

    /// The type that the envelope claims.
    #[must_use]
    pub fn untrusted_payload_type(&self) -> &str {
        &self.untrusted_payload_type
    }

    /// The payload.
    #[must_use]
    pub fn untrusted_payload(&self) -> &[u8] {
        &self.untrusted_payload
    }

    /// The signatures, in order.
    #[must_use]
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// The JSON form, in one line: base64 of the standard alphabet.
    #[must_use]
    pub fn to_json(&self) -> String {
        let signatures = self.signatures.iter();
        let json = EnvelopeOut {
            payload: STANDARD.encode(&self.untrusted_payload),
            payload_type: &self.untrusted_payload_type,
            signatures: signatures
                .map(|signature| SignatureOut {
                    keyid: signature.untrusted_keyid(),
                    sig: STANDARD.encode(&signature.bytes),
                })
                .collect(),
        };
        serde_json::to_string(&json).expect("strings and lists of them are always JSON")
    }
}

/// Sizes only: a payload may have megabytes.
impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("untrusted_payload_type", &self.untrusted_payload_type)
            .field("untrusted_payload_bytes", &self.untrusted_payload.len())
            .field("signatures", &self.signatures)
            .finish()
    }
}

fn within(at: &str, bytes: usize, max: usize) -> Result<(), EnvelopeError> {
    if bytes > max {
        return Err(EnvelopeError::TooLarge { at: at.to_owned(), bytes, max });
    }
    Ok(())
}

/// Base64 of either alphabet, never of both at once; what is left over of the last character must be
/// zero, so that bytes have one spelling in each.
fn decode(at: &str, text: &str) -> Result<Vec<u8>, EnvelopeError> {
    let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    engine.decode(text).map_err(|source| EnvelopeError::Base64 { at: at.to_owned(), source })
}

#[derive(Deserialize)]
struct EnvelopeIn<'a> {
    #[serde(borrow)]
    payload: Cow<'a, str>,
    #[serde(borrow, rename = "payloadType")]
    payload_type: Cow<'a, str>,
    #[serde(borrow)]
    signatures: SignaturesIn<'a>,
}

#[derive(Deserialize)]
struct SignatureIn<'a> {
    #[serde(borrow, default)]
    keyid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    sig: Cow<'a, str>,
}

/// The first [`MAX_SIGNATURES`] signatures, and how many there are: a hostile list costs no memory.
struct SignaturesIn<'a> {
    list: Vec<SignatureIn<'a>>,
    count: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for SignaturesIn<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(SignaturesVisitor)
    }
}

struct SignaturesVisitor;

impl<'de> Visitor<'de> for SignaturesVisitor {
    type Value = SignaturesIn<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of signatures")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while list.len() < MAX_SIGNATURES {
            match seq.next_element()? {
                Some(signature) => list.push(signature),
                None => break,
            }
        }
        let mut count = list.len();
        while seq.next_element::<IgnoredAny>()?.is_some() {
            count = count.saturating_add(1);
        }
        Ok(SignaturesIn { list, count })
    }
}

#[derive(Serialize)]
struct EnvelopeOut<'a> {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: &'a str,
    signatures: Vec<SignatureOut<'a>>,
}

#[derive(Serialize)]
struct SignatureOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    keyid: Option<&'a str>,
    sig: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Envelope, EnvelopeError> {
        Envelope::parse(text.as_bytes())
    }

    fn refusal(text: &str) -> String {
        parse(text).expect_err("it is refused").to_string()
    }

    #[test]
    fn an_envelope_reads_back_as_it_was_written() {
        let mut envelope =
            Envelope::new(PayloadType::Golden, b"{\"a\":1}".as_slice()).expect("an envelope");
        envelope.add(Signature::new(Some("k".into()), vec![1, 2]).expect("sig")).expect("added");
        envelope.add(Signature::new(None, vec![0xfb, 0xff]).expect("sig")).expect("added");
        let json = envelope.to_json();
        assert_eq!(
            json,
            "{\"payload\":\"eyJhIjoxfQ==\",\
             \"payloadType\":\"application/vnd.assay.golden.v1+json\",\
             \"signatures\":[{\"keyid\":\"k\",\"sig\":\"AQI=\"},{\"sig\":\"+/8=\"}]}"
        );
        assert_eq!(parse(&json).expect("it parses"), envelope);
    }

    #[test]
    fn others_spellings_of_an_envelope_are_read() {
        let ours = parse(r#"{"payload":"+/8=","payloadType":"t","signatures":[{"sig":"+/8="}]}"#)
            .expect("it parses");
        for other in [
            r#"{"payload":"-_8=","payloadType":"t","signatures":[{"sig":"-_8="}]}"#,
            r#"{"payload":"-_8=","payloadType":"t","signatures":[{"keyid":null,"sig":"+/8="}]}"#,
            r#"{"x":[1],"signatures":[{"keyid":"","sig":"+/8=","cert":"y"}],
                "payload":"+\/8=","payloadType":"\u0074"} "#,
        ] {
            assert_eq!(parse(other).expect("it parses"), ours, "{other}");
        }
    }

    #[test]
    fn what_is_no_envelope_is_refused_with_its_cause() {
        for text in [
            "",
            "null",
            "{}",
            r#"{"payload":"","payloadType":"t"}"#,
            r#"{"payload":"","signatures":[]}"#,
            r#"{"payloadType":"t","signatures":[]}"#,
            r#"{"payload":"","payloadType":"t","signatures":[{"keyid":"k"}]}"#,
            r#"{"payload":"","payload":"","payloadType":"t","signatures":[]}"#,
            r#"{"payload":"","payloadType":"t","signatures":[]}{}"#,
        ] {
            assert!(matches!(parse(text), Err(EnvelopeError::Json(_))), "{text}");
        }
        for (payload, why) in [
            ("+_8=", "both alphabets"),
            ("+/8", "no padding"),
            ("+/9=", "bits left"),
            ("A", "short"),
        ] {
            let text = format!(r#"{{"payload":"{payload}","payloadType":"t","signatures":[]}}"#);
            assert_eq!(
                refusal(&text),
                "payload is not base64, standard or URL-safe, with padding",
                "{why}"
            );
        }
        assert_eq!(
            refusal(r#"{"payload":"","payloadType":"t","signatures":[{"sig":""},{"sig":"?"}]}"#),
            "signatures[1].sig is not base64, standard or URL-safe, with padding"
        );
    }

    #[test]
    fn sizes_and_counts_are_bounded() {
        let with = |count: usize| {
            let list = vec![r#"{"sig":""}"#; count].join(",");
            format!(r#"{{"payload":"","payloadType":"t","signatures":[{list}]}}"#)
        };
        let mut full = parse(&with(MAX_SIGNATURES)).expect("it parses");
        assert_eq!(refusal(&with(MAX_SIGNATURES + 1)), "65 signatures, at most 64 are allowed");
        let one_more = full.add(Signature::new(None, Vec::new()).expect("a signature"));
        assert!(matches!(one_more, Err(EnvelopeError::TooManySignatures { count: 65 })));
        let long = "k".repeat(MAX_KEYID_BYTES + 1);
        assert_eq!(
            refusal(&format!(
                r#"{{"payload":"","payloadType":"t","signatures":[{{"keyid":"{long}","sig":""}}]}}"#
            )),
            "signatures[0].keyid has 257 bytes, at most 256 are allowed"
        );
        assert_eq!(
            refusal(&format!(r#"{{"payload":"","payloadType":"{long}","signatures":[]}}"#)),
            "payloadType has 257 bytes, at most 255 are allowed"
        );
        let long = STANDARD.encode(vec![0; MAX_SIGNATURE_BYTES + 1]);
        assert_eq!(
            refusal(&format!(
                r#"{{"payload":"","payloadType":"t","signatures":[{{"sig":"{long}"}}]}}"#
            )),
            "signatures[0].sig has 8193 bytes, at most 8192 are allowed"
        );
        let large = vec![b' '; MAX_ENVELOPE_BYTES + 1];
        assert!(matches!(
            Envelope::parse(&large),
            Err(EnvelopeError::TooLarge { at, .. }) if at == "envelope"
        ));
        assert!(matches!(
            Envelope::new(PayloadType::Golden, vec![0; MAX_PAYLOAD_BYTES + 1]),
            Err(EnvelopeError::TooLarge { at, .. }) if at == "payload"
        ));
    }
}
