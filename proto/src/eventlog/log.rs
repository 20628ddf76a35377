//! A whole firmware log.

use super::{
    Event, EventLogError, EventLogErrorKind, LogAlg,
    event::Digests,
    event_type::EventType,
    reader::{DataError, LeReader},
    spec_id::{SIGNATURE_AGILE, SpecId},
};
use crate::{
    digest::PcrIndex,
    limits::{MAX_LOG_BANKS, MAX_LOG_PADDING_BYTES, MAX_UEFI_EVENTS, MAX_UEFI_LOG_BYTES},
};

/// PCR of information that belongs to no PCR.
const NO_PCR: u32 = u32::MAX;

/// How a log is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `TCG_PCR_EVENT2`: one digest for each bank.
    CryptoAgile,
    /// `TCG_PCR_EVENT`: SHA-1 only.
    Tcg12,
}

/// A firmware log, well-formed and believed by nobody.
///
/// # Format
/// `binary_bios_measurements`. A first event of type `EV_NO_ACTION` whose data begins with "Spec ID Event03" makes it
/// crypto-agile; any other first event makes it a log in the format of TPM 1.2. Uniform padding (0x00 or 0xff) after
/// the last event is not part of it.
///
/// # Errors
/// `EVENT_LOG_MALFORMED`, `EVENT_LOG_LIMIT_EXCEEDED`, `EVENT_LOG_PCR_INVALID`, `EVENT_LOG_ALGORITHM_INVALID`,
/// `EVENT_LOG_SPEC_ID_INVALID`.
#[derive(Clone, Debug)]
pub struct EventLog<'a> {
    format: LogFormat,
    spec_id: Option<SpecId<'a>>,
    events: Vec<Event<'a>>,
    padding_bytes: usize,
}

impl<'a> EventLog<'a> {
    /// Decodes a log, consuming all of `bytes`.
    ///
    /// # Errors
    /// See the type.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EventLogError> {
        let at = |kind| EventLogError { at: 0, event: 0, kind };
        let limit = |what, max, found| at(EventLogErrorKind::Limit { what, max, found });
        if bytes.len() > MAX_UEFI_LOG_BYTES {
            return Err(limit("bytes of the log", MAX_UEFI_LOG_BYTES, bytes.len()));
        }
        let padding_from = padding_from(bytes);
        let mut parser = Parser { reader: LeReader::new(bytes), event: 0 };
        let mut out =
            Self { format: LogFormat::Tcg12, spec_id: None, events: Vec::new(), padding_bytes: 0 };
        while parser.reader.offset() < padding_from {
            if out.events.len() == MAX_UEFI_EVENTS {
                let kind = EventLogErrorKind::Limit {
                    what: "events",
                    max: MAX_UEFI_EVENTS,
                    found: MAX_UEFI_EVENTS.saturating_add(1),
                };
                return Err(parser.error(parser.reader.offset(), kind));
            }
            let event = match (&out.spec_id, out.format) {
                (Some(spec_id), LogFormat::CryptoAgile) => parser.agile(spec_id)?,
                _ => parser.tcg12()?,
            };
            if out.events.is_empty() {
                (out.format, out.spec_id) = parser.first(&event)?;
            }
            out.events.push(event);
            parser.event = parser.event.saturating_add(1);
        }
        out.padding_bytes = parser.reader.rest().len();
        if out.padding_bytes > MAX_LOG_PADDING_BYTES {
            return Err(limit("bytes of padding", MAX_LOG_PADDING_BYTES, out.padding_bytes));
        }
        Ok(out)
    }

    /// The encoding.
    #[must_use]
    pub const fn format(&self) -> LogFormat {
        self.format
    }

    /// The Spec ID event, if there is one.
    #[must_use]
    pub const fn spec_id(&self) -> Option<&SpecId<'a>> {
        self.spec_id.as_ref()
    }

    /// All events, in order, the Spec ID event included.
    #[must_use]
    pub fn events(&self) -> &[Event<'a>] {
        &self.events
    }

    /// Banks that the log declares and that have a name here, ascending.
    #[must_use]
    pub fn banks(&self) -> Vec<LogAlg> {
        match (self.format, &self.spec_id) {
            (LogFormat::CryptoAgile, Some(spec_id)) => LogAlg::ALL
                .into_iter()
                .filter(|alg| spec_id.digest_size(alg.tpm_id()).is_some())
                .collect(),
            _ => vec![LogAlg::Sha1],
        }
    }

    /// Bytes of padding after the last event.
    #[must_use]
    pub const fn padding_bytes(&self) -> usize {
        self.padding_bytes
    }
}

/// Where uniform padding to the end begins: the length, if there is none. Found once, from the end, so that a log of
/// zeros is not searched again at every event.
fn padding_from(bytes: &[u8]) -> usize {
    let Some(last) = bytes.last().filter(|last| matches!(last, 0x00 | 0xff)) else {
        return bytes.len();
    };
    bytes.iter().rposition(|byte| byte != last).map_or(0, |at| at.saturating_add(1))
}

struct Parser<'a> {
    reader: LeReader<'a>,
    event: u32,
}

impl<'a> Parser<'a> {
    const fn error(&self, at: usize, kind: EventLogErrorKind) -> EventLogError {
        EventLogError { at, event: self.event, kind }
    }

    /// A field of the log that is not all there.
    fn truncated(&self, error: &DataError, wanted: usize) -> EventLogError {
        let left = self.reader.rest().len();
        self.error(error.at, EventLogErrorKind::Truncated { what: error.what, wanted, left })
    }

    fn u16(&mut self, what: &'static str) -> Result<u16, EventLogError> {
        self.reader.u16(what).map_err(|error| self.truncated(&error, 2))
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, EventLogError> {
        self.reader.u32(what).map_err(|error| self.truncated(&error, 4))
    }

    fn bytes(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], EventLogError> {
        self.reader.bytes(count, what).map_err(|error| self.truncated(&error, count))
    }

    fn data(&mut self) -> Result<&'a [u8], EventLogError> {
        let size = usize::try_from(self.u32("event size")?).unwrap_or(usize::MAX);
        self.bytes(size, "event data")
    }

    /// PCR and type, which every event begins with.
    fn head(&mut self) -> Result<(Option<PcrIndex>, EventType), EventLogError> {
        let at = self.reader.offset();
        let pcr = self.u32("PCR")?;
        let kind = EventType(self.u32("event type")?);
        let index = u8::try_from(pcr).ok().and_then(PcrIndex::new);
        let none = pcr == NO_PCR && kind == EventType::NO_ACTION;
        if index.is_none() && !none {
            return Err(self.error(at, EventLogErrorKind::Pcr(pcr)));
        }
        Ok((index, kind))
    }

    /// `TCG_PCR_EVENT`.
    fn tcg12(&mut self) -> Result<Event<'a>, EventLogError> {
        let offset = self.reader.offset();
        let (pcr, untrusted_type) = self.head()?;
        let mut digests = Digests::default();
        digests.insert(LogAlg::Sha1, self.bytes(LogAlg::Sha1.len_bytes(), "digest")?);
        let untrusted_data = self.data()?;
        Ok(Event { index: self.event, offset, pcr, untrusted_type, digests, untrusted_data })
    }

    /// `TCG_PCR_EVENT2`.
    fn agile(&mut self, spec_id: &SpecId<'_>) -> Result<Event<'a>, EventLogError> {
        let offset = self.reader.offset();
        let (pcr, untrusted_type) = self.head()?;
        let at = self.reader.offset();
        let count = usize::try_from(self.u32("digest count")?).unwrap_or(usize::MAX);
        if count > MAX_LOG_BANKS {
            let (what, max) = ("digests of an event", MAX_LOG_BANKS);
            return Err(self.error(at, EventLogErrorKind::Limit { what, max, found: count }));
        }
        let mut digests = Digests::default();
        // Of banks without a name here only the number is kept, to see one that repeats.
        let mut unnamed: [Option<u16>; MAX_LOG_BANKS] = [None; MAX_LOG_BANKS];
        for slot in unnamed.iter_mut().take(count) {
            let at = self.reader.offset();
            let id = self.u16("digest algorithm")?;
            let size = spec_id
                .digest_size(id)
                .ok_or_else(|| self.error(at, EventLogErrorKind::AlgorithmUndeclared(id)))?;
            let digest = self.bytes(size, "digest")?;
            let fresh = match LogAlg::from_tpm(id) {
                Some(alg) => digests.insert(alg, digest),
                None => {
                    *slot = Some(id);
                    true
                }
            };
            if !fresh {
                return Err(self.error(at, EventLogErrorKind::AlgorithmRepeated(id)));
            }
        }
        for (position, id) in unnamed.iter().enumerate() {
            if let Some(repeated) = id
                && unnamed.iter().take(position).any(|known| known == id)
            {
                return Err(self.error(at, EventLogErrorKind::AlgorithmRepeated(*repeated)));
            }
        }
        let untrusted_data = self.data()?;
        Ok(Event { index: self.event, offset, pcr, untrusted_type, digests, untrusted_data })
    }

    /// What the first event says about the others.
    fn first(&self, event: &Event<'a>) -> Result<(LogFormat, Option<SpecId<'a>>), EventLogError> {
        let data = event.untrusted_data;
        if event.untrusted_type != EventType::NO_ACTION {
            return Ok((LogFormat::Tcg12, None));
        }
        if data.starts_with(SIGNATURE_AGILE) {
            let spec_id = SpecId::decode(data).map_err(|kind| self.error(event.offset, kind))?;
            return Ok((LogFormat::CryptoAgile, Some(spec_id)));
        }
        let spec_id = SpecId::decode_tcg12(data).map_err(|kind| self.error(event.offset, kind))?;
        Ok((LogFormat::Tcg12, spec_id))
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
