//! Lists with their quotes, and what is said of them.

use appraisal::{
    ima::{AnchoredImaList, BootPcrs, IMA_PCR, ImaState, ReplayedImaList},
    verdict::Denial,
};
use proto::{
    digest::{Digest, HashAlg},
    ima::{BankAlg, BankDigest},
    reason::ReasonCode,
};
use soft_tpm::ima::{ImaKernel, ImaList};

/// Value of firmware PCR `index` in `bank`, on the machine of these tests.
pub fn boot_pcr(bank: BankAlg, index: u8) -> BankDigest {
    bank.hash(&[b"firmware", &[index]])
}

/// Every firmware PCR in every bank.
pub fn boot_pcrs() -> BootPcrs {
    BankAlg::ALL
        .into_iter()
        .flat_map(|bank| (0..10).map(move |index| (index, boot_pcr(bank, index))))
        .collect()
}

/// A list with a right `boot_aggregate`, made in `bank` over so many PCRs.
pub fn booted_over(kernel: ImaKernel, template: &str, bank: BankAlg, count: u8) -> ImaList {
    let values: Vec<Vec<u8>> =
        (0..count).map(|index| boot_pcr(bank, index).as_bytes().to_vec()).collect();
    let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
    ImaList::booted(kernel, template, bank.name(), &values)
}

/// A list as a current kernel begins it.
pub fn booted(kernel: ImaKernel) -> ImaList {
    booted_over(kernel, "ima-ng", BankAlg::Sha256, 10)
}

/// The quoted values of the list's PCR.
pub fn quoted(list: &ImaList, banks: &[HashAlg]) -> Vec<Digest> {
    banks
        .iter()
        .map(|bank| Digest::new(*bank, list.pcr(bank.name())).expect("a PCR value"))
        .collect()
}

pub fn sha256(of: &[u8]) -> Digest {
    HashAlg::Sha256.hash(&[of])
}

/// Replays a whole list to a quote and ties it to the firmware.
pub fn anchored<'e>(bytes: &'e [u8], quoted: &[Digest]) -> Result<AnchoredImaList<'e>, Denial> {
    ReplayedImaList::replay(None, 0, bytes, IMA_PCR, quoted)?.anchor(&boot_pcrs())
}

/// Continues a list with what follows.
pub fn continued<'e>(
    known: &ImaState,
    bytes: &'e [u8],
    quoted: &[Digest],
) -> Result<AnchoredImaList<'e>, Denial> {
    ReplayedImaList::replay(Some(known), known.bytes, bytes, IMA_PCR, quoted)?
        .anchor(&BootPcrs::new())
}

/// The code of a refusal.
#[track_caller]
pub fn code<T>(result: Result<T, Denial>) -> ReasonCode {
    match result {
        Ok(_) => panic!("not refused"),
        Err(denial) => denial.code(),
    }
}
