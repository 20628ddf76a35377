//! One event: a CEL-TLV record around a tool measurement.

use super::{
    ToolLogError, ToolLogErrorKind,
    measurement::{CONTENT, ToolMeasurement},
    tlv::{Cursor, Tlv, put, put_bytes},
};
use crate::{
    digest::{Digest, HashAlg, PcrIndex},
    limits::MAX_PCR_BANKS,
};

const RECORD_NUMBER: u8 = 0x00;
const PCR: u8 = 0x01;
const DIGESTS: u8 = 0x03;

/// An event whose digests are the hashes of its content as received.
///
/// # Proves
/// Nothing but that it is well-formed: anybody can write one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolEvent<'a> {
    /// Position in the boot's log, from 0.
    pub record_number: u64,
    /// The PCR that it says it was extended into.
    pub pcr: PcrIndex,
    /// One digest a bank, ascending by `TPM_ALG_ID`.
    pub digests: Vec<Digest>,
    /// What was measured.
    pub content: ToolMeasurement,
    content_tlv: &'a [u8],
}

impl ToolEvent<'_> {
    /// SHA-256 of the content TLV: what the log's head is made of, whatever the banks.
    #[must_use]
    pub fn content_digest(&self) -> Digest {
        HashAlg::Sha256.hash(&[self.content_tlv])
    }
}

/// Bytes of one event, to be appended to the log; its digests, one a bank, are to be extended.
///
/// Banks are sorted and united. The digests are those that [`ToolLogReader`] recomputes.
#[must_use]
pub fn encode_event(
    record_number: u64,
    pcr: PcrIndex,
    banks: &[HashAlg],
    measurement: &ToolMeasurement,
) -> Vec<u8> {
    let mut content = Vec::with_capacity(measurement.encoded_len_hint());
    measurement.put_content(&mut content);
    let mut out = Vec::with_capacity(content.len().saturating_add(256));
    put_bytes(&mut out, RECORD_NUMBER, &record_number.to_be_bytes());
    put_bytes(&mut out, PCR, &[pcr.get()]);
    put(&mut out, DIGESTS, |out| {
        for bank in HashAlg::ALL.into_iter().filter(|bank| banks.contains(bank)) {
            put_bytes(out, bank_tag(bank), bank.hash(&[&content]).as_bytes());
        }
    });
    out.extend_from_slice(&content);
    out
}

/// Events of a log or of a log's suffix, front to back; ends after the first error.
#[derive(Clone, Debug)]
pub struct ToolLogReader<'a> {
    cursor: Cursor<'a>,
    failed: bool,
}

impl<'a> ToolLogReader<'a> {
    /// Reads events from the first byte on.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { cursor: Cursor::new(bytes), failed: false }
    }

    /// Offset of the next event's first byte.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.cursor.at()
    }
}

impl<'a> Iterator for ToolLogReader<'a> {
    type Item = Result<ToolEvent<'a>, ToolLogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.cursor.is_empty() {
            return None;
        }
        // A failed event leaves the offset at its start: that is where a torn log is cut.
        let mut cursor = self.cursor.clone();
        let event = event(&mut cursor);
        match &event {
            Ok(_) => self.cursor = cursor,
            Err(_) => self.failed = true,
        }
        Some(event)
    }
}

fn event<'a>(cursor: &mut Cursor<'a>) -> Result<ToolEvent<'a>, ToolLogError> {
    let record_number = cursor.expect(RECORD_NUMBER, "record number")?.array("record number")?;
    let pcr = cursor.expect(PCR, "PCR")?;
    let [index] = pcr.array("PCR")?;
    let pcr = PcrIndex::new(index)
        .ok_or_else(|| pcr.error(ToolLogErrorKind::Value { what: "PCR", found: index }))?;
    let digests = cursor.expect(DIGESTS, "digests")?;
    let content = cursor.expect(CONTENT, "tool measurement")?;
    let digests = verified_digests(&digests, &content)?;
    Ok(ToolEvent {
        record_number: u64::from_be_bytes(record_number),
        pcr,
        digests,
        content: ToolMeasurement::from_content(&content)?,
        content_tlv: content.whole,
    })
}

/// The digests, once each was recomputed from the content.
fn verified_digests(field: &Tlv<'_>, content: &Tlv<'_>) -> Result<Vec<Digest>, ToolLogError> {
    let mut digests: Vec<Digest> = Vec::with_capacity(MAX_PCR_BANKS);
    let mut banks = field.inner();
    while !banks.is_empty() {
        let bank = banks.next()?;
        let Some(alg) = HashAlg::from_tpm(u16::from(bank.tag)) else {
            return Err(ToolLogError { at: bank.at, kind: ToolLogErrorKind::Banks });
        };
        if digests.last().is_some_and(|last| last.alg() >= alg) {
            return Err(ToolLogError { at: bank.at, kind: ToolLogErrorKind::Order("banks") });
        }
        let digest = Digest::new(alg, bank.value).map_err(|_| {
            bank.error(ToolLogErrorKind::Length {
                what: "event digest",
                expected: alg.len_bytes(),
                found: bank.value.len(),
            })
        })?;
        if digest != alg.hash(&[content.whole]) {
            return Err(bank.error(ToolLogErrorKind::Digest(alg)));
        }
        digests.push(digest);
    }
    if digests.is_empty() {
        return Err(field.error(ToolLogErrorKind::Banks));
    }
    Ok(digests)
}

/// Low byte of the bank's `TPM_ALG_ID`, which has no other bits for the algorithms used here.
const fn bank_tag(bank: HashAlg) -> u8 {
    let [_, low] = bank.tpm_id().to_be_bytes();
    low
}
