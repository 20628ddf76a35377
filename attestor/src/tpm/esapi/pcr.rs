//! PCR selections, reading and extending.

use proto::digest::{Digest, HashAlg, PcrIndex, PcrSelection};
use tss_esapi::{
    Context,
    handles::PcrHandle,
    interface_types::algorithm::HashingAlgorithm,
    structures::{
        Digest as TssDigest, DigestValues, PcrSelectionList, PcrSelectionListBuilder, PcrSlot,
    },
};

use super::{response::tpm_error, with_password};
use crate::tpm::{PcrValue, TpmError};

/// Digests that a `TPML_DIGEST` holds, and so one `TPM2_PCR_Read` returns at most.
const DIGESTS_PER_READ: usize = 8;
/// Reads that may be disturbed by an extend before we give up.
const READ_ATTEMPTS: usize = 5;

pub(super) const fn hashing(alg: HashAlg) -> HashingAlgorithm {
    match alg {
        HashAlg::Sha256 => HashingAlgorithm::Sha256,
        HashAlg::Sha384 => HashingAlgorithm::Sha384,
        HashAlg::Sha512 => HashingAlgorithm::Sha512,
    }
}

const fn from_hashing(alg: HashingAlgorithm) -> Option<HashAlg> {
    match alg {
        HashingAlgorithm::Sha256 => Some(HashAlg::Sha256),
        HashingAlgorithm::Sha384 => Some(HashAlg::Sha384),
        HashingAlgorithm::Sha512 => Some(HashAlg::Sha512),
        _ => None,
    }
}

/// `TPML_PCR_SELECTION` for `entries`, one entry a bank, in the order of `PcrSelection`.
pub(super) fn selection(
    entries: impl IntoIterator<Item = (HashAlg, PcrIndex)>,
) -> Result<PcrSelectionList, TpmError> {
    let mut banks: Vec<(HashAlg, Vec<PcrSlot>)> = Vec::new();
    for (alg, index) in entries {
        let slot = PcrSlot::try_from(1_u32 << index.get())
            .map_err(|error| tpm_error(error, "PCR selection", None))?;
        match banks.last_mut() {
            Some((last, slots)) if *last == alg => slots.push(slot),
            _ => banks.push((alg, vec![slot])),
        }
    }
    banks
        .iter()
        .fold(PcrSelectionListBuilder::new(), |builder, (alg, slots)| {
            builder.with_selection(hashing(*alg), slots)
        })
        .build()
        .map_err(|error| tpm_error(error, "PCR selection", None))
}

/// Values of one moment: where something was extended between two reads, all are read again.
pub(super) fn read(
    context: &mut Context,
    wanted: &PcrSelection,
) -> Result<Vec<PcrValue>, TpmError> {
    for _ in 0..READ_ATTEMPTS {
        if let Some(values) = read_once(context, wanted)? {
            return Ok(values);
        }
    }
    Err(TpmError::Unsupported {
        what: format!("reading PCRs at rest: they were extended during {READ_ATTEMPTS} readings"),
    })
}

/// `None` where the PCR update counter moved between two commands.
fn read_once(
    context: &mut Context,
    wanted: &PcrSelection,
) -> Result<Option<Vec<PcrValue>>, TpmError> {
    const COMMAND: &str = "TPM2_PCR_Read";
    let mut left: Vec<(HashAlg, PcrIndex)> = wanted.iter().collect();
    let mut out = Vec::with_capacity(left.len());
    let mut counter = None;
    while !left.is_empty() {
        let list = selection(left.iter().copied().take(DIGESTS_PER_READ))?;
        let (update_counter, returned, digests) = context
            .execute_without_session(|context| context.pcr_read(list))
            .map_err(|error| tpm_error(error, COMMAND, None))?;
        if *counter.get_or_insert(update_counter) != update_counter {
            return Ok(None);
        }
        let mut digests = digests.value().iter();
        let before = left.len();
        for bank in returned.get_selections() {
            let Some(alg) = from_hashing(bank.hashing_algorithm()) else { continue };
            for slot in bank.selected() {
                let index = PcrIndex::try_from(
                    u8::try_from(u32::from(slot).trailing_zeros()).unwrap_or(u8::MAX),
                )
                .map_err(|error| malformed(COMMAND, error))?;
                let bytes =
                    digests.next().ok_or_else(|| malformed(COMMAND, "a digest is missing"))?;
                let digest =
                    Digest::new(alg, bytes.value()).map_err(|error| malformed(COMMAND, error))?;
                left.retain(|entry| *entry != (alg, index));
                out.push(PcrValue { bank: alg, index, digest });
            }
        }
        if left.len() == before {
            let missing: Vec<String> =
                left.iter().map(|(alg, index)| format!("{alg}:{index}")).collect();
            return Err(TpmError::Unsupported {
                what: format!("PCRs that are not allocated: {}", missing.join(" ")),
            });
        }
    }
    out.sort_by_key(|value| (value.bank, value.index));
    Ok(Some(out))
}

pub(super) fn extend(
    context: &mut Context,
    index: PcrIndex,
    digests: &[Digest],
) -> Result<(), TpmError> {
    const COMMAND: &str = "TPM2_PCR_Extend";
    let handle = PcrHandle::try_from(u32::from(index.get()))
        .map_err(|error| tpm_error(error, COMMAND, None))?;
    let mut values = DigestValues::new();
    for digest in digests {
        let value = TssDigest::try_from(digest.as_bytes())
            .map_err(|error| tpm_error(error, COMMAND, None))?;
        values.set(hashing(digest.alg()), value);
    }
    with_password(context, |context| context.pcr_extend(handle, values))
        .map_err(|error| tpm_error(error, COMMAND, None))
}

fn malformed(command: &'static str, detail: impl ToString) -> TpmError {
    TpmError::Malformed { command, detail: detail.to_string() }
}
