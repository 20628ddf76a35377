//! `uefi:…` and `ima:…`: the logs of firmware and kernel, as an attacker shows them.
//!
//! What a log is to prove was extended; what it says may be anything. Some verbs extend as well: root on a worker
//! may extend every PCR that is no locality's own.

use proto::{digest::HashAlg, evidence::LogKind, limits::MAX_LOG_PADDING_BYTES};
use soft_tpm::ima::{ImaKernel, ImaList, ImaValue};

use super::machine::Machine;
use crate::{cluster::AnyError, firmware::Firmware, raw::Bank};

/// Files that the golden set's manifest lists, each with its name for content.
pub const LISTED: [&str; 2] = ["/usr/bin/cc", "/usr/bin/ld"];
/// PCR of the kernel's list.
const IMA_PCR: u8 = 10;

const NO_ACTION: u32 = 0x03;
const SEPARATOR: u32 = 0x04;
const IPL: u32 = 0x0D;
const VARIABLE_DRIVER_CONFIG: u32 = 0x8000_0001;
const APPLICATION: u32 = 0x8000_0003;
const EFI_ACTION: u32 = 0x8000_0007;

/// A firmware log in pieces: its first event, then each event with its bytes.
struct Pieces {
    banks: Vec<Bank>,
    pieces: Vec<Vec<u8>>,
}

impl Pieces {
    /// Of a log that the synthetic firmware wrote in these banks.
    fn of(log: &[u8], banks: &[Bank]) -> Result<Self, AnyError> {
        let digests: usize = banks.iter().map(|bank| 2 + bank.len_bytes()).sum();
        let mut pieces = Vec::new();
        let mut rest = log;
        while !rest.is_empty() {
            // PCR, type, digests, size of the data: the first event has one SHA-1 digest and no count.
            let head = if pieces.is_empty() { 8 + 20 } else { 12 + digests };
            let size = rest.get(head..head + 4).ok_or("a log that ends within an event")?;
            let size = u32::from_le_bytes(size.try_into()?);
            let end = head + 4 + usize::try_from(size)?;
            let (piece, after) = rest.split_at_checked(end).ok_or("a log that ends early")?;
            pieces.push(piece.to_vec());
            rest = after;
        }
        Ok(Self { banks: banks.to_vec(), pieces })
    }

    /// The first event of this type in this PCR.
    fn place(&self, kind: u32, pcr: u32) -> Result<usize, AnyError> {
        let head = [pcr.to_le_bytes(), kind.to_le_bytes()].concat();
        let found = self.pieces.iter().skip(1).position(|piece| piece.starts_with(&head));
        Ok(found.ok_or("no such event")? + 1)
    }

    /// Adds an event whose digests are over `measured`, or zeros.
    fn push(&mut self, pcr: u32, kind: u32, measured: Option<&[u8]>, data: &[u8]) {
        let mut piece = [pcr.to_le_bytes(), kind.to_le_bytes(), size(self.banks.len())].concat();
        for bank in &self.banks {
            piece.extend(bank.tpm_id().to_le_bytes());
            match measured {
                Some(measured) => piece.extend(bank.hash(measured)),
                None => piece.extend(vec![0; bank.len_bytes()]),
            }
        }
        piece.extend(size(data.len()));
        piece.extend(data);
        self.pieces.push(piece);
    }

    fn bytes(&self) -> Vec<u8> {
        self.pieces.concat()
    }
}

fn size(of: usize) -> [u8; 4] {
    u32::try_from(of).unwrap_or(u32::MAX).to_le_bytes()
}

/// The firmware's log with one more event: what a loader extended after it.
///
/// # Errors
/// A log that is none.
pub fn with_event(log: &[u8], pcr: u8, digest: &[u8]) -> Result<Vec<u8>, AnyError> {
    let mut pieces = Pieces::of(log, &[Bank::Sha256])?;
    pieces.push(pcr.into(), IPL, None, b"what a loader says\0");
    let event = pieces.pieces.last_mut().ok_or("no event")?;
    event.get_mut(14..14 + 32).ok_or("no digest")?.copy_from_slice(digest);
    Ok(pieces.bytes())
}

/// `uefi:…`: what the machine shows for its firmware's log.
///
/// # Errors
/// An unknown verb; the TPM refuses.
pub fn forge_firmware_log(machine: &mut Machine, verb: &str) -> Result<(), AnyError> {
    let mut log = Pieces::of(&machine.firmware_log, &[Bank::Sha256])?;
    match verb {
        "announced-not-sent" => {}
        "withheld" => {
            machine.shown.remove(&LogKind::Uefi);
            return Ok(());
        }
        "of-other-boot" => {
            log = Pieces::of(&Firmware::default().event_log(&[Bank::Sha256]), &[Bank::Sha256])?;
        }
        "bank-missing" => {
            log = Pieces::of(&Firmware::default().event_log(&[Bank::Sha1]), &[Bank::Sha1])?;
        }
        "data-changed" => {
            // SecureBoot's one byte; the digest stays.
            let at = log.place(VARIABLE_DRIVER_CONFIG, 7)?;
            *log.pieces[at].last_mut().ok_or("no data")? = 1;
        }
        "type-relabelled" => {
            let at = log.place(APPLICATION, 4)?;
            log.pieces[at][4..8].copy_from_slice(&EFI_ACTION.to_le_bytes());
        }
        "type-not-extended" => {
            let at = log.place(APPLICATION, 4)?;
            log.pieces[at][4..8].copy_from_slice(&NO_ACTION.to_le_bytes());
        }
        "event-dropped" => {
            let at = log.place(APPLICATION, 4)?;
            log.pieces.remove(at);
        }
        "event-moved" => {
            let at = log.place(APPLICATION, 4)?;
            log.pieces[at][..4].copy_from_slice(&6_u32.to_le_bytes());
        }
        "pcr-untold" => {
            let pcr = 4_u32.to_le_bytes();
            let mut first = true;
            log.pieces.retain(|piece| std::mem::take(&mut first) || !piece.starts_with(&pcr));
        }
        "separator-added" => {
            log.push(7, SEPARATOR, Some(&[0; 4]), &[0; 4]);
            machine.extend(7, &Bank::Sha256.hash(&[0; 4]))?;
        }
        "debug-mode" => {
            let text = b"UEFI Debug Mode";
            log.push(7, EFI_ACTION, Some(text), text);
            machine.extend(7, &Bank::Sha256.hash(text))?;
        }
        "authority-hidden" => {
            // A key of the attacker's authorised an image; the event is called another, and its data changed.
            let measured = b"a key of the attacker's";
            log.push(7, IPL, Some(measured), b"a key of somebody's");
            machine.extend(7, &Bank::Sha256.hash(measured))?;
        }
        "startup-late" => log.push(0, NO_ACTION, None, b"StartupLocality\0\x03"),
        "pcr-24" => log.push(24, IPL, Some(b"x"), b"x"),
        "first-event-unknown" => {
            let version = log.pieces[0].get_mut(32 + 14).ok_or("no Spec ID event")?;
            *version = b'4';
        }
        "digest-undeclared" => {
            log.banks = vec![Bank::Sha384];
            log.push(7, IPL, Some(b"x"), b"x");
        }
        "digest-missing" => {
            let banks = [Bank::Sha1, Bank::Sha256];
            log = Pieces::of(&Firmware::default().event_log(&banks), &banks)?;
            let at = log.place(APPLICATION, 4)?;
            let event = &mut log.pieces[at];
            event[8..12].copy_from_slice(&1_u32.to_le_bytes());
            // The SHA-256 digest stands after the SHA-1 digest.
            event.drain(12 + 22..12 + 22 + 34);
        }
        "truncated" => drop(log.pieces.last_mut().and_then(Vec::pop)),
        "padding" => log.pieces.push(vec![0; MAX_LOG_PADDING_BYTES + 1]),
        other => return Err(format!("uefi:{other}").into()),
    }
    machine.shown.insert(LogKind::Uefi, log.bytes());
    Ok(())
}

/// The kernel begins its list, and measures what the manifest lists; `ima:…` says what is different.
///
/// # Errors
/// An unknown verb; the TPM refuses.
pub fn begin_ima(machine: &mut Machine, verb: Option<&str>) -> Result<(), AnyError> {
    let mut values = Vec::new();
    for pcr in 0..IMA_PCR {
        values.push(machine.raw().pcr_read(Bank::Sha256, pcr)?.ok_or("a PCR is not there")?);
    }
    if verb == Some("of-other-boot") {
        values[4] = vec![0x44; 32];
    }
    let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
    let kernel = ImaKernel::default();
    machine.ima = Some(if verb == Some("without-boot-aggregate") {
        ImaList::new(kernel)
    } else {
        ImaList::booted(kernel, "ima-ng", "sha256", &values)
    });
    let first = machine.ima.as_ref().map_or(0, |list| list.ends().len());
    for entry in 0..first {
        extend(machine, entry)?;
    }
    for file in LISTED {
        measure(machine, file)?;
    }
    match verb {
        Some(verb) => forge_ima(machine, verb),
        None => Ok(()),
    }
}

/// Measures a file with its name for content, by the book.
///
/// # Errors
/// There is no list; the TPM refuses.
pub fn measure(machine: &mut Machine, name: &str) -> Result<(), AnyError> {
    let digest = Bank::Sha256.hash(name.as_bytes());
    add(machine, |list| list.file("ima-ng", "sha256", &digest, name, &[]))
}

/// Adds one entry, extends the PCR with it, and shows the list.
fn add(machine: &mut Machine, entry: impl FnOnce(&mut ImaList)) -> Result<(), AnyError> {
    let list = machine.ima.as_mut().ok_or("the kernel measures nothing")?;
    entry(list);
    let last = list.ends().len().checked_sub(1).ok_or("no entry")?;
    extend(machine, last)
}

fn extend(machine: &mut Machine, entry: usize) -> Result<(), AnyError> {
    let list = machine.ima.as_ref().ok_or("the kernel measures nothing")?;
    let digest = list.extended(HashAlg::Sha256.name(), entry).to_vec();
    let bytes = list.bytes().to_vec();
    machine.shown.insert(LogKind::Ima, bytes);
    machine.extend(IMA_PCR, &digest)
}

/// `ima:…` after the kernel measured what is listed.
fn forge_ima(machine: &mut Machine, verb: &str) -> Result<(), AnyError> {
    let evil = "/tmp/evil";
    match verb {
        "announced-not-sent" | "of-other-boot" | "without-boot-aggregate" => return Ok(()),
        "withheld" => {
            machine.shown.remove(&LogKind::Ima);
            return Ok(());
        }
        "unlisted-file" => return measure(machine, evil),
        "violation" => return add(machine, |list| list.violation(LISTED[0])),
        "weak-digest" => {
            let digest = Bank::Sha1.hash(LISTED[0].as_bytes());
            return add(machine, |list| list.file("ima-ng", "sha1", &digest, LISTED[0], &[]));
        }
        "name-with-nul" => {
            let digest = Bank::Sha256.hash(b"x");
            let fields = [ImaValue::Digest("sha256", &digest), ImaValue::Name("/tmp/a\0b")];
            return add(machine, |list| list.entry("ima-ng", &fields));
        }
        "template-unknown" => {
            let digest = Bank::Sha256.hash(b"x");
            let fields = [ImaValue::Digest("sha256", &digest), ImaValue::Name(evil)];
            return add(machine, |list| list.entry("ima-next", &fields));
        }
        "digest-without-name" => {
            let digest = Bank::Sha256.hash(b"x");
            let fields = [ImaValue::Digest("sha256", &digest)];
            return add(machine, |list| list.entry("ima-ng", &fields));
        }
        _ => {}
    }
    // The rest shows another list than the one that was extended.
    measure(machine, evil)?;
    let list = machine.ima.as_ref().ok_or("the kernel measures nothing")?;
    let mut shown = list.bytes().to_vec();
    let last = *list.ends().iter().rev().nth(1).ok_or("too few entries")?;
    match verb {
        "entry-dropped" => shown.truncate(last),
        // A letter of the name; the template digest beside it stays.
        "entry-changed" => {
            let at = shown.len().checked_sub(2).ok_or("an empty list")?;
            shown[at] ^= 1;
        }
        "wrong-pcr" => shown[last..last + 4].copy_from_slice(&11_u32.to_le_bytes()),
        other => return Err(format!("ima:{other}").into()),
    }
    machine.shown.insert(LogKind::Ima, shown);
    Ok(())
}
