//! What one boot left: the logs as the kernel has them, and the PCRs they must replay to.

use std::{collections::BTreeMap, fs, path::Path};

use crate::{
    machine::{Guest, MachineError},
    swtpm::io,
};

/// The firmware's log.
const UEFI_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";
/// IMA's list.
const IMA_LIST: &str = "/sys/kernel/security/ima/binary_runtime_measurements";
/// Prints bank, index and value of every PCR. Programs run before PCR 10 is read have been measured
/// before, so that the list, read first, is what it stands for.
const READ_PCRS: &str = "cd /sys/class/tpm/tpm0 && for bank in pcr-*; do for pcr in $(ls $bank); do \
                         echo ${bank#pcr-} $pcr $(cat $bank/$pcr); done; done";

/// Values by bank and index, hexadecimal.
pub type PcrValues = BTreeMap<String, BTreeMap<u8, String>>;

/// Logs and PCRs of a boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootRecord {
    /// The firmware's log, crypto-agile.
    pub uefi: Vec<u8>,
    /// IMA's binary list.
    pub ima: Vec<u8>,
    /// Every PCR of every bank.
    pub pcrs: PcrValues,
}

impl BootRecord {
    /// Reads it in the guest.
    ///
    /// # Errors
    /// As [`Guest::succeed`]; [`MachineError::Shape`] if IMA measured something meanwhile.
    pub async fn read(guest: &mut Guest) -> Result<Self, MachineError> {
        let uefi = guest.read(UEFI_LOG).await?;
        let ima = guest.read(IMA_LIST).await?;
        let listed = guest.succeed(READ_PCRS).await?;
        if guest.read(IMA_LIST).await? != ima {
            return Err(MachineError::Shape("IMA measured a file while its list was read".into()));
        }
        let pcrs = parse_pcrs(&String::from_utf8_lossy(&listed))?;
        Ok(Self { uefi, ima, pcrs })
    }

    /// Writes `NAME.uefi.bin`, `NAME.ima.bin` and `NAME.pcrs.json`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, folder: &Path, name: &str) -> Result<(), MachineError> {
        let pcrs = serde_json::to_string_pretty(&self.pcrs).unwrap_or_default() + "\n";
        io("writing a boot's logs", || {
            fs::write(folder.join(format!("{name}.uefi.bin")), &self.uefi)?;
            fs::write(folder.join(format!("{name}.ima.bin")), &self.ima)?;
            fs::write(folder.join(format!("{name}.pcrs.json")), pcrs)
        })?;
        Ok(())
    }
}

fn parse_pcrs(text: &str) -> Result<PcrValues, MachineError> {
    let mut out = PcrValues::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [bank, index, value] = words[..] else {
            return Err(MachineError::Agent(line.to_owned()));
        };
        let index = index.parse().map_err(|_| MachineError::Agent(line.to_owned()))?;
        out.entry(bank.to_owned()).or_default().insert(index, value.to_ascii_lowercase());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pcrs_are_read_by_bank_and_index() {
        let pcrs = parse_pcrs("sha256 10 AB\nsha256 2 CD\nsha384 0 EF\n").expect("values");
        assert_eq!(
            serde_json::to_string(&pcrs).expect("JSON"),
            r#"{"sha256":{"2":"cd","10":"ab"},"sha384":{"0":"ef"}}"#
        );
        assert!(matches!(parse_pcrs("sha256 10"), Err(MachineError::Agent(_))));
    }
}
