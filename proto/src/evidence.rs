//! The only door from wire messages to domain types.
//!
//! What comes out is well-formed and within limits, and still believed by nobody: the appraisal's
//! stages turn it into proofs.

use crate::{
    binding::{Challenge, Purpose, VerifierId},
    digest::{Digest, HashAlg, PcrIndex, PcrSelection, PcrSet},
    limits::{
        MAX_ATTEST_BYTES, MAX_CERTIFICATE_BYTES, MAX_CHAIN_CERTIFICATES, MAX_CREDENTIAL_BYTES,
        MAX_EVIDENCE_BYTES, MAX_IMA_LOG_BYTES, MAX_LOG_CHUNK_BYTES, MAX_LOG_KINDS, MAX_PCR_BANKS,
        MAX_PCR_VALUES, MAX_SIGNATURE_BYTES, MAX_SYSTEMD_LOG_BYTES, MAX_TEXT_BYTES,
        MAX_TOOL_LOG_BYTES, MAX_TPM_PUBLIC_BYTES, MAX_UEFI_LOG_BYTES,
    },
    pb,
    permit::JobRequest,
    reason::ReasonCode,
    tpm::{DecodeError, public::Public, signature::Signature},
};

/// Protocol version of this crate.
pub const PROTOCOL_VERSION: u32 = 1;

/// Malformed or over-limit input: which field, why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {at}: {detail}")]
pub struct EvidenceError {
    /// Stable code.
    pub code: ReasonCode,
    /// Field path, and offset within it where there is one.
    pub at: String,
    /// What was found and what was expected.
    pub detail: String,
}

impl EvidenceError {
    /// An error at a field.
    pub fn new(code: ReasonCode, at: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { code, at: at.into(), detail: detail.into() }
    }

    fn structure(at: &str, error: &DecodeError) -> Self {
        Self::new(error.code(), at, error.to_string())
    }
}

type Result<T> = std::result::Result<T, EvidenceError>;

/// Which log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogKind {
    /// Tool measurements (TCG CEL).
    Tools,
    /// Firmware's event log.
    Uefi,
    /// systemd's measurement log.
    Systemd,
    /// Kernel IMA list.
    Ima,
}

impl LogKind {
    /// Largest size of such a log, bytes.
    #[must_use]
    pub const fn max_bytes(self) -> usize {
        match self {
            Self::Tools => MAX_TOOL_LOG_BYTES,
            Self::Uefi => MAX_UEFI_LOG_BYTES,
            Self::Systemd => MAX_SYSTEMD_LOG_BYTES,
            Self::Ima => MAX_IMA_LOG_BYTES,
        }
    }

    /// The message's enum value.
    #[must_use]
    pub const fn to_pb(self) -> pb::LogKind {
        match self {
            Self::Tools => pb::LogKind::Tools,
            Self::Uefi => pb::LogKind::Uefi,
            Self::Systemd => pb::LogKind::Systemd,
            Self::Ima => pb::LogKind::Ima,
        }
    }

    /// The kind of a message.
    ///
    /// # Errors
    /// `EVIDENCE_FIELD_INVALID` for an unknown value.
    pub fn from_pb(at: &str, kind: i32) -> Result<Self> {
        match pb::LogKind::try_from(kind) {
            Ok(pb::LogKind::Tools) => Ok(Self::Tools),
            Ok(pb::LogKind::Uefi) => Ok(Self::Uefi),
            Ok(pb::LogKind::Systemd) => Ok(Self::Systemd),
            Ok(pb::LogKind::Ima) => Ok(Self::Ima),
            Ok(pb::LogKind::Unspecified) | Err(_) => Err(EvidenceError::new(
                ReasonCode::EvidenceFieldInvalid,
                at,
                format!("log kind {kind} is unknown"),
            )),
        }
    }
}

/// First message of a worker.
///
/// # Does not prove
/// Anything: every field is public data that anybody can send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Public area of the endorsement key.
    pub ek_public: Public,
    /// DER of the EK certificate with whatever padding NV had.
    pub ek_certificate: Option<Vec<u8>>,
    /// DER intermediates, any order.
    pub ek_chain: Vec<Vec<u8>>,
    /// Public area of the attestation key.
    pub ak_public: Public,
    /// Logs that the worker has, with their sizes in bytes.
    pub logs: Vec<(LogKind, u64)>,
    /// For the audit record only.
    pub attestor_version: String,
    /// The job that a permit is asked for; `None`: the node attests for itself.
    pub job: Option<JobRequest>,
}

impl Hello {
    /// What the quote is asked for.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        self.job.as_ref().map_or(Purpose::Node, |job| Purpose::Permit(job.binding()))
    }
}

impl TryFrom<pb::Hello> for Hello {
    type Error = EvidenceError;

    fn try_from(message: pb::Hello) -> Result<Self> {
        if message.protocol_version != PROTOCOL_VERSION {
            return Err(EvidenceError::new(
                ReasonCode::EvidenceVersionUnsupported,
                "hello.protocol_version",
                format!("{} found, {PROTOCOL_VERSION} expected", message.protocol_version),
            ));
        }
        bounded("hello.ek_certificate", message.ek_certificate.len(), MAX_CERTIFICATE_BYTES)?;
        bounded("hello.ek_chain", message.ek_chain.len(), MAX_CHAIN_CERTIFICATES)?;
        for certificate in &message.ek_chain {
            bounded("hello.ek_chain[]", certificate.len(), MAX_CERTIFICATE_BYTES)?;
        }
        bounded("hello.logs", message.logs.len(), MAX_LOG_KINDS)?;
        bounded("hello.attestor_version", message.attestor_version.len(), MAX_TEXT_BYTES)?;
        let mut logs = Vec::with_capacity(message.logs.len());
        for log in &message.logs {
            let kind = LogKind::from_pb("hello.logs[].kind", log.kind)?;
            if logs.iter().any(|(known, _)| *known == kind) {
                return Err(EvidenceError::new(
                    ReasonCode::EvidenceFieldInvalid,
                    "hello.logs[].kind",
                    format!("{kind:?} is announced twice"),
                ));
            }
            if log.size_bytes > kind.max_bytes() as u64 {
                return Err(EvidenceError::new(
                    ReasonCode::EvidenceLimitExceeded,
                    "hello.logs[].size_bytes",
                    format!("{} bytes, at most {} are allowed", log.size_bytes, kind.max_bytes()),
                ));
            }
            logs.push((kind, log.size_bytes));
        }
        Ok(Self {
            ek_public: public("hello.ek_public", &message.ek_public)?,
            ek_certificate: (!message.ek_certificate.is_empty()).then_some(message.ek_certificate),
            ek_chain: message.ek_chain,
            ak_public: public("hello.ak_public", &message.ak_public)?,
            logs,
            attestor_version: message.attestor_version,
            job: message.job.map(JobRequest::try_from).transpose()?,
        })
    }
}

/// A structure that the TPM signed: bytes as received, signature decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedAttest {
    /// `TPMS_ATTEST`; decoded only after the signature over it was verified.
    pub untrusted_attest: Vec<u8>,
    /// The signature.
    pub signature: Signature,
}

impl SignedAttest {
    fn from_pb(at: &str, message: Option<pb::SignedAttest>) -> Result<Self> {
        let message = message.ok_or_else(|| missing(at))?;
        bounded(&format!("{at}.attest"), message.attest.len(), MAX_ATTEST_BYTES)?;
        bounded(&format!("{at}.signature"), message.signature.len(), MAX_SIGNATURE_BYTES)?;
        let signature = Signature::decode(&message.signature)
            .map_err(|error| EvidenceError::structure(&format!("{at}.signature"), &error))?;
        Ok(Self { untrusted_attest: message.attest, signature })
    }
}

/// A PCR value as the worker presents it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PcrValue {
    /// The PCR.
    pub index: PcrIndex,
    /// Its value; the digest's algorithm is the bank.
    pub value: Digest,
}

/// The node key, its parent and the AK's certification of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeKeyEvidence {
    /// Public area of the node key.
    pub public: Public,
    /// Public area of the NULL-hierarchy primary above it.
    pub parent_public: Public,
    /// `TPM2_Certify`.
    pub certify: SignedAttest,
}

/// A log's bytes from an offset on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSuffix {
    /// Which log.
    pub kind: LogKind,
    /// Offset of the first byte in the log.
    pub from_bytes: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// The worker's answer to a challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Secret recovered by `TPM2_ActivateCredential`.
    pub activation_secret: Option<[u8; 32]>,
    /// The quote.
    pub quote: SignedAttest,
    /// PCR values, strictly ascending by (bank, index).
    pub pcr_values: Vec<PcrValue>,
    /// Node key, on a new boot.
    pub node_key: Option<NodeKeyEvidence>,
    /// Log suffixes that followed.
    pub logs: Vec<LogSuffix>,
}

impl Evidence {
    /// The suffix of one log.
    #[must_use]
    pub fn log(&self, kind: LogKind) -> Option<&LogSuffix> {
        self.logs.iter().find(|log| log.kind == kind)
    }
}

impl TryFrom<pb::Evidence> for Evidence {
    type Error = EvidenceError;

    fn try_from(message: pb::Evidence) -> Result<Self> {
        let activation_secret = match message.activation_secret.len() {
            0 => None,
            _ => Some(array32("evidence.activation_secret", &message.activation_secret)?),
        };
        let quote = SignedAttest::from_pb("evidence.quote", message.quote)?;
        bounded("evidence.pcr_values", message.pcr_values.len(), MAX_PCR_VALUES)?;
        let mut pcr_values = Vec::with_capacity(message.pcr_values.len());
        for value in &message.pcr_values {
            pcr_values.push(pcr_value(value)?);
        }
        if !pcr_values.is_sorted_by_key(|value| (value.value.alg(), value.index))
            || pcr_values
                .windows(2)
                .any(|pair| matches!(pair, [a, b] if (a.value.alg(), a.index) == (b.value.alg(), b.index)))
        {
            return Err(EvidenceError::new(
                ReasonCode::PcrValuesInvalid,
                "evidence.pcr_values",
                "not strictly ascending by bank and index",
            ));
        }
        let node_key = message
            .node_key
            .map(|key| {
                Ok(NodeKeyEvidence {
                    public: public("evidence.node_key.public", &key.public)?,
                    parent_public: public("evidence.node_key.parent_public", &key.parent_public)?,
                    certify: SignedAttest::from_pb("evidence.node_key.certify", key.certify)?,
                })
            })
            .transpose()?;
        Ok(Self { activation_secret, quote, pcr_values, node_key, logs: Vec::new() })
    }
}

/// Whether an Evidence message is small enough to be kept until its logs have come. All else is left
/// to the conversion.
///
/// # Errors
/// `EVIDENCE_LIMIT_EXCEEDED`.
pub fn may_be_held(message: &pb::Evidence) -> Result<()> {
    bounded("evidence.pcr_values", message.pcr_values.len(), MAX_PCR_VALUES)?;
    bounded("evidence", prost::Message::encoded_len(message), MAX_EVIDENCE_BYTES)
}

/// Collects [`pb::LogChunk`]s into suffixes: one log after the other or mixed, no gaps, bounded.
#[derive(Clone, Debug, Default)]
pub struct LogCollector {
    logs: Vec<LogSuffix>,
}

impl LogCollector {
    /// Takes one piece; returns how many bytes it added.
    ///
    /// # Errors
    /// `EVIDENCE_LIMIT_EXCEEDED` for a piece or log beyond its limit, `EVIDENCE_OUT_OF_ORDER` for a
    /// gap, an overlap or a log that was not asked for, `EVIDENCE_FIELD_INVALID` for an unknown kind.
    pub fn take(&mut self, chunk: pb::LogChunk, wanted: &[(LogKind, u64)]) -> Result<usize> {
        let kind = LogKind::from_pb("log_chunk.kind", chunk.kind)?;
        bounded("log_chunk.data", chunk.data.len(), MAX_LOG_CHUNK_BYTES)?;
        let Some((_, from)) = wanted.iter().find(|(known, _)| *known == kind) else {
            return Err(EvidenceError::new(
                ReasonCode::EvidenceOutOfOrder,
                "log_chunk.kind",
                format!("{kind:?} was not asked for"),
            ));
        };
        let index = match self.logs.iter().position(|log| log.kind == kind) {
            Some(index) => index,
            None => {
                self.logs.push(LogSuffix { kind, from_bytes: *from, bytes: Vec::new() });
                self.logs.len() - 1
            }
        };
        let log = &mut self.logs[index];
        let expected = log.from_bytes + log.bytes.len() as u64;
        if chunk.offset_bytes != expected {
            return Err(EvidenceError::new(
                ReasonCode::EvidenceOutOfOrder,
                "log_chunk.offset_bytes",
                format!("{} found, {expected} expected", chunk.offset_bytes),
            ));
        }
        let added = chunk.data.len();
        if expected + added as u64 > kind.max_bytes() as u64 {
            return Err(EvidenceError::new(
                ReasonCode::EvidenceLimitExceeded,
                "log_chunk.data",
                format!("a {kind:?} log has at most {} bytes", kind.max_bytes()),
            ));
        }
        log.bytes.extend_from_slice(&chunk.data);
        Ok(added)
    }

    /// The suffixes, by kind.
    #[must_use]
    pub fn finish(mut self) -> Vec<LogSuffix> {
        self.logs.sort_by_key(|log| log.kind);
        self.logs
    }
}

/// What a worker reads from a [`pb::Challenge`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChallengeParts {
    /// The challenge.
    pub challenge: Challenge,
    /// The verifier fleet.
    pub verifier_id: VerifierId,
    /// `TPM2B_ID_OBJECT` and `TPM2B_ENCRYPTED_SECRET`, size prefixes included.
    pub credential: Option<(Vec<u8>, Vec<u8>)>,
    /// PCRs to quote.
    pub pcr_selection: PcrSelection,
    /// Logs wanted, with the offset to begin at.
    pub logs_wanted: Vec<(LogKind, u64)>,
    /// Time left, milliseconds.
    pub deadline_ms: u64,
    /// A new node key and its certification are wanted.
    pub node_key_wanted: bool,
}

impl TryFrom<pb::Challenge> for ChallengeParts {
    type Error = EvidenceError;

    fn try_from(message: pb::Challenge) -> Result<Self> {
        bounded("challenge.pcr_selection", message.pcr_selection.len(), MAX_PCR_BANKS)?;
        bounded("challenge.logs_wanted", message.logs_wanted.len(), MAX_LOG_KINDS)?;
        let mut banks = Vec::with_capacity(message.pcr_selection.len());
        for bank in &message.pcr_selection {
            let alg = u16::try_from(bank.hash_alg).ok().and_then(HashAlg::from_tpm);
            match (alg, PcrSet::from_bits(bank.pcr_bits)) {
                (Some(alg), Some(set)) => banks.push((alg, set)),
                _ => {
                    return Err(EvidenceError::new(
                        ReasonCode::EvidenceFieldInvalid,
                        "challenge.pcr_selection[]",
                        format!("bank {:#06x}, bits {:#x}", bank.hash_alg, bank.pcr_bits),
                    ));
                }
            }
        }
        let mut logs_wanted = Vec::with_capacity(message.logs_wanted.len());
        for log in &message.logs_wanted {
            let at = "challenge.logs_wanted[].kind";
            let kind = LogKind::from_pb(at, log.kind)?;
            if logs_wanted.iter().any(|(known, _)| *known == kind) {
                let why = format!("{kind:?} is wanted twice");
                return Err(EvidenceError::new(ReasonCode::EvidenceFieldInvalid, at, why));
            }
            logs_wanted.push((kind, log.from_bytes));
        }
        if let Some(credential) = &message.credential {
            let at = "challenge.credential";
            bounded(at, credential.id_object.len(), MAX_CREDENTIAL_BYTES)?;
            bounded(at, credential.encrypted_secret.len(), MAX_CREDENTIAL_BYTES)?;
        }
        Ok(Self {
            challenge: Challenge::new(array32("challenge.challenge", &message.challenge)?),
            verifier_id: VerifierId::new(array32("challenge.verifier_id", &message.verifier_id)?),
            credential: message.credential.map(|parts| (parts.id_object, parts.encrypted_secret)),
            pcr_selection: PcrSelection::new(banks),
            logs_wanted,
            deadline_ms: message.deadline_ms,
            node_key_wanted: message.node_key_wanted,
        })
    }
}

fn missing(at: &str) -> EvidenceError {
    EvidenceError::new(ReasonCode::EvidenceFieldMissing, at, "required")
}

fn bounded(at: &str, found: usize, max: usize) -> Result<()> {
    if found > max {
        return Err(EvidenceError::new(
            ReasonCode::EvidenceLimitExceeded,
            at,
            format!("{found} bytes or items, at most {max} are allowed"),
        ));
    }
    Ok(())
}

fn array32(at: &str, bytes: &[u8]) -> Result<[u8; 32]> {
    bytes.try_into().map_err(|_| {
        EvidenceError::new(
            ReasonCode::EvidenceFieldInvalid,
            at,
            format!("{} bytes found, exactly 32 expected", bytes.len()),
        )
    })
}

fn public(at: &str, bytes: &[u8]) -> Result<Public> {
    if bytes.is_empty() {
        return Err(missing(at));
    }
    bounded(at, bytes.len(), MAX_TPM_PUBLIC_BYTES)?;
    Public::decode(bytes).map_err(|error| EvidenceError::structure(at, &error))
}

fn pcr_value(value: &pb::PcrValue) -> Result<PcrValue> {
    let at = "evidence.pcr_values[]";
    let alg = u16::try_from(value.hash_alg).ok().and_then(HashAlg::from_tpm).ok_or_else(|| {
        EvidenceError::new(
            ReasonCode::EvidenceFieldInvalid,
            format!("{at}.hash_alg"),
            format!("{:#06x} is not an accepted bank", value.hash_alg),
        )
    })?;
    let index = u8::try_from(value.index).ok().and_then(PcrIndex::new).ok_or_else(|| {
        EvidenceError::new(
            ReasonCode::EvidenceFieldInvalid,
            format!("{at}.index"),
            format!("{} is not in 0..=23", value.index),
        )
    })?;
    let digest = Digest::new(alg, &value.digest).map_err(|error| {
        EvidenceError::new(
            ReasonCode::EvidenceFieldInvalid,
            format!("{at}.digest"),
            error.to_string(),
        )
    })?;
    Ok(PcrValue { index, value: digest })
}
