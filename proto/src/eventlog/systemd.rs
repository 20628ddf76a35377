//! systemd's log of what it measured from userspace, `/run/log/systemd/tpm2-measure.log`.
//!
//! # Format
//! JSON text sequence: each record begins with 0x1E and ends with a line feed. A record is an object in the manner of
//! TCG CEL-JSON (without `recnum`): `pcr`, `digests` (`hashAlg`, `digest`), `content_type` "systemd", and `content` with
//! `string` (what was measured, or what it stands for), `eventType`, `bootId` and `timestamp`. Records for an NV index
//! have none of `pcr`: they are counted and not replayed.
//!
//! # Source
//! systemd-pcrphase.service(8), systemd-pcrlock(8); RFC 7464; TCG Canonical Event Log Format.

use std::borrow::Cow;

use serde::Deserialize;

use super::{LogAlg, LogDigest};
use crate::{
    digest::PcrIndex,
    limits::{MAX_LOG_BANKS, MAX_SYSTEMD_LOG_BYTES, MAX_SYSTEMD_RECORDS},
    reason::ReasonCode,
};

/// Begins a record.
const RECORD_SEPARATOR: u8 = 0x1e;

/// A record, believed by nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemdRecord {
    /// The PCR; `None` for an NV index.
    pub pcr: Option<PcrIndex>,
    /// One digest for each bank at most.
    pub digests: Vec<LogDigest>,
    /// `phase`, `filesystem`, `volume-key`, `machine-id`, …
    pub untrusted_event_type: Option<String>,
    /// What was measured, or what it stands for.
    pub untrusted_string: Option<String>,
}

impl SystemdRecord {
    /// The digest in one bank.
    #[must_use]
    pub fn digest(&self, alg: LogAlg) -> Option<LogDigest> {
        self.digests.iter().find(|digest| digest.alg() == alg).copied()
    }

    /// The text, if the record's digest in `alg` is its hash; a volume key's description, for example, is not.
    #[must_use]
    pub fn vouched_string(&self, alg: LogAlg) -> Option<&str> {
        let text = self.untrusted_string.as_deref()?;
        (alg.hash(&[text.as_bytes()]) == self.digest(alg)).then_some(text)
    }
}

/// Why bytes are not such a log, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {record} at byte {at}: {kind}")]
pub struct SystemdLogError {
    /// Offset of the record.
    pub at: usize,
    /// The record, from 0.
    pub record: usize,
    /// What is wrong.
    pub kind: SystemdLogErrorKind,
}

/// What is wrong in systemd's log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SystemdLogErrorKind {
    /// A digest is not one of its algorithm, or repeats a bank.
    #[error("its digest for {0:?} has a wrong size or comes twice")]
    Digest(String),
    /// Not JSON, or not of this shape.
    #[error("{0}")]
    Json(String),
    /// More than is allowed.
    #[error("more than {max} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// The PCR does not exist.
    #[error("PCR {0} does not exist")]
    Pcr(u64),
    /// It does not begin with 0x1E.
    #[error("a record does not begin with a record separator")]
    Separator,
    /// It does not end with a line feed: the log was read while it was written.
    #[error("the last record is not complete")]
    Unfinished,
}

impl SystemdLogError {
    /// The reason code that this error leaves the service with.
    #[must_use]
    pub const fn code(&self) -> ReasonCode {
        match self.kind {
            SystemdLogErrorKind::Limit { .. } => ReasonCode::EventLogLimitExceeded,
            SystemdLogErrorKind::Pcr(_) => ReasonCode::EventLogPcrInvalid,
            SystemdLogErrorKind::Digest(_) => ReasonCode::EventLogAlgorithmInvalid,
            SystemdLogErrorKind::Json(_)
            | SystemdLogErrorKind::Separator
            | SystemdLogErrorKind::Unfinished => ReasonCode::EventLogMalformed,
        }
    }
}

/// Decodes a log, consuming all of `bytes`.
///
/// # Errors
/// [`SystemdLogError`], with `EVENT_LOG_MALFORMED`, `EVENT_LOG_LIMIT_EXCEEDED`, `EVENT_LOG_PCR_INVALID` or
/// `EVENT_LOG_ALGORITHM_INVALID`.
pub fn parse(bytes: &[u8]) -> Result<Vec<SystemdRecord>, SystemdLogError> {
    let mut out = Vec::new();
    let mut at = 0_usize;
    if bytes.len() > MAX_SYSTEMD_LOG_BYTES {
        let kind = SystemdLogErrorKind::Limit { what: "bytes", max: MAX_SYSTEMD_LOG_BYTES };
        return Err(SystemdLogError { at, record: 0, kind });
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        let fail = |kind| SystemdLogError { at, record: out.len(), kind };
        if out.len() == MAX_SYSTEMD_RECORDS {
            let max = MAX_SYSTEMD_RECORDS;
            return Err(fail(SystemdLogErrorKind::Limit { what: "records", max }));
        }
        let Some((&RECORD_SEPARATOR, body)) = rest.split_first() else {
            return Err(fail(SystemdLogErrorKind::Separator));
        };
        let end = body.iter().position(|byte| *byte == RECORD_SEPARATOR).unwrap_or(body.len());
        let (record, next) = body.split_at_checked(end).unwrap_or((body, &[]));
        let Some(json) = record.strip_suffix(b"\n") else {
            return Err(fail(SystemdLogErrorKind::Unfinished));
        };
        let record = decode(json).map_err(fail)?;
        out.push(record);
        at = at.saturating_add(end).saturating_add(1);
        rest = next;
    }
    Ok(out)
}

#[derive(Deserialize)]
struct Record<'a> {
    pcr: Option<u64>,
    #[serde(borrow, default)]
    digests: Vec<DigestField<'a>>,
    #[serde(borrow)]
    content: Option<Content<'a>>,
}

#[derive(Deserialize)]
struct DigestField<'a> {
    #[serde(borrow, rename = "hashAlg")]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    digest: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, rename = "eventType")]
    event_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    string: Option<Cow<'a, str>>,
}

fn decode(json: &[u8]) -> Result<SystemdRecord, SystemdLogErrorKind> {
    let record: Record<'_> = serde_json::from_slice(json)
        .map_err(|error| SystemdLogErrorKind::Json(error.to_string()))?;
    let pcr = match record.pcr {
        None => None,
        Some(index) => Some(
            u8::try_from(index)
                .ok()
                .and_then(PcrIndex::new)
                .ok_or(SystemdLogErrorKind::Pcr(index))?,
        ),
    };
    if record.digests.len() > MAX_LOG_BANKS {
        return Err(SystemdLogErrorKind::Limit { what: "digests", max: MAX_LOG_BANKS });
    }
    let mut digests: Vec<LogDigest> = Vec::new();
    for field in &record.digests {
        // A bank without a name here is one that nobody asks for.
        let Ok(alg) = field.alg.parse::<LogAlg>() else { continue };
        let digest = hex::decode(field.digest.as_ref())
            .ok()
            .and_then(|bytes| LogDigest::new(alg, &bytes).ok())
            .filter(|_| digests.iter().all(|known| known.alg() != alg))
            .ok_or_else(|| SystemdLogErrorKind::Digest(field.alg.clone().into_owned()))?;
        digests.push(digest);
    }
    let (event_type, string) =
        record.content.map(|content| (content.event_type, content.string)).unwrap_or_default();
    Ok(SystemdRecord {
        pcr,
        digests,
        untrusted_event_type: event_type.map(Cow::into_owned),
        untrusted_string: string.map(Cow::into_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(pcr: &str, alg: &str, digest: &str) -> Vec<u8> {
        format!(
            "\u{1e}{{\"pcr\":{pcr},\"digests\":[{{\"hashAlg\":\"{alg}\",\"digest\":\"{digest}\"}}],\
             \"content_type\":\"systemd\",\"content\":{{\"eventType\":\"phase\",\"string\":\"sysinit\",\
             \"bootId\":\"00\",\"timestamp\":1}}}}\n"
        )
        .into_bytes()
    }

    fn hash(text: &str) -> String {
        hex::encode(LogAlg::Sha256.hash(&[text.as_bytes()]).expect("computed").as_bytes())
    }

    #[test]
    fn records_are_read_in_order() {
        let mut log = record("11", "sha256", &hash("sysinit"));
        log.extend(b"\x1e{\"nv_index\":1,\"digests\":[]}\n");
        log.extend(record("15", "sha256", &hash("other")));
        let records = parse(&log).expect("well-formed");
        assert_eq!(records.len(), 3);
        assert_eq!(records[0].pcr, PcrIndex::new(11));
        assert_eq!(records[0].vouched_string(LogAlg::Sha256), Some("sysinit"));
        assert_eq!(records[1].pcr, None);
        assert_eq!(records[2].vouched_string(LogAlg::Sha256), None);
        assert_eq!(parse(b""), Ok(Vec::new()));
    }

    #[test]
    fn each_defect_has_its_code() {
        let good = record("11", "sha256", &hash("sysinit"));
        let twice = String::from_utf8(good.clone()).expect("text").replace(
            "\"digests\":[",
            &format!("\"digests\":[{{\"hashAlg\":\"sha256\",\"digest\":\"{}\"}},", hash("a")),
        );
        for (bytes, code) in [
            (good[1..].to_vec(), ReasonCode::EventLogMalformed),
            (good[..good.len() - 1].to_vec(), ReasonCode::EventLogMalformed),
            (good[..good.len() / 2].to_vec(), ReasonCode::EventLogMalformed),
            (b"\x1e[[\n".to_vec(), ReasonCode::EventLogMalformed),
            (record("24", "sha256", &hash("a")), ReasonCode::EventLogPcrInvalid),
            (record("11", "sha1", &hash("a")), ReasonCode::EventLogAlgorithmInvalid),
            (twice.into_bytes(), ReasonCode::EventLogAlgorithmInvalid),
            (vec![0; MAX_SYSTEMD_LOG_BYTES + 1], ReasonCode::EventLogLimitExceeded),
            (b"\x1e{}\n".repeat(MAX_SYSTEMD_RECORDS + 1), ReasonCode::EventLogLimitExceeded),
        ] {
            assert_eq!(parse(&bytes).map_err(|error| error.code()), Err(code));
        }
    }
}
