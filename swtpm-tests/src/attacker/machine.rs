//! A TPM with firmware, tools and a tool log: the machine that an attacker is root on.

use std::collections::BTreeMap;

use proto::{
    digest::{Digest, HashAlg, PcrIndex},
    evidence::LogKind,
    tool_log::{ToolLogReader, ToolLogState, ToolMeasurement, encode_event},
    tpm::public::Public,
};
use soft_tpm::ima::ImaList;

use crate::{
    attacker::tpm,
    cluster::AnyError,
    firmware::Firmware,
    manufacturer::EkTemplate,
    raw::{Bank, RawTpm},
    swtpm::Swtpm,
};

/// A machine.
#[derive(Debug)]
pub struct Machine {
    /// Its TPM.
    pub tpm: Swtpm,
    /// Its EK.
    pub ek: Public,
    /// The EK's certificate, from NV.
    pub certificate: Vec<u8>,
    /// The tool log as the machine keeps it.
    pub log: Vec<u8>,
    /// What the log replays to.
    pub state: ToolLogState,
    /// What the machine's tools measure to.
    pub tools: Vec<ToolMeasurement>,
    /// The firmware's log of this boot.
    pub firmware_log: Vec<u8>,
    /// The kernel's list of this boot, where its kernel measures files.
    pub ima: Option<ImaList>,
    /// Logs that the machine shows besides its tool log.
    pub shown: BTreeMap<LogKind, Vec<u8>>,
    /// PCRs are not what a clean boot leaves.
    pub dirty: bool,
    pcr: PcrIndex,
}

/// The EK in use: P-384 takes a password, which spares policy sessions.
pub const TEMPLATE: EkTemplate = EkTemplate::EccP384;

impl Machine {
    /// A machine on a TPM that `swtpm_setup` made; not booted.
    ///
    /// # Errors
    /// The TPM refuses.
    pub fn new(tpm: Swtpm, pcr: PcrIndex) -> Result<Self, AnyError> {
        let ek = tpm.ek(TEMPLATE)?;
        let certificate = tpm.raw().nv_read(TEMPLATE.certificate_index())?;
        let state = ToolLogState::at_reset(pcr, &[HashAlg::Sha256]);
        let (log, tools) = (Vec::new(), Vec::new());
        let (firmware_log, shown) = (Vec::new(), BTreeMap::new());
        Ok(Self {
            tpm,
            ek,
            certificate,
            log,
            state,
            tools,
            firmware_log,
            ima: None,
            shown,
            dirty: true,
            pcr,
        })
    }

    /// A raw client.
    #[must_use]
    pub fn raw(&self) -> RawTpm {
        self.tpm.raw()
    }

    /// A clean boot: reset, firmware, tools measured.
    ///
    /// # Errors
    /// The TPM refuses.
    pub fn boot(&mut self) -> Result<(), AnyError> {
        self.boot_with(&Firmware::default())
    }

    /// A boot of other firmware.
    ///
    /// # Errors
    /// The TPM refuses.
    pub fn boot_with(&mut self, firmware: &Firmware) -> Result<(), AnyError> {
        self.start(firmware)?;
        self.begin_log()?;
        self.dirty = false;
        Ok(())
    }

    /// Reset and firmware: no tool is measured yet.
    ///
    /// # Errors
    /// The TPM refuses.
    pub fn start(&mut self, firmware: &Firmware) -> Result<(), AnyError> {
        self.tpm.reset()?;
        self.firmware_log = firmware.boot_swtpm(&self.tpm)?;
        self.ima = None;
        self.shown.clear();
        Ok(())
    }

    /// Begins the tool log and measures the tools.
    ///
    /// # Errors
    /// The TPM refuses.
    pub fn begin_log(&mut self) -> Result<(), AnyError> {
        self.log.clear();
        self.state = ToolLogState::at_reset(self.pcr, &[HashAlg::Sha256]);
        for tool in self.tools.clone() {
            self.measure(&tool)?;
        }
        Ok(())
    }

    /// Appends an event and extends the PCR with it.
    ///
    /// # Errors
    /// The TPM refuses.
    pub fn measure(&mut self, tool: &ToolMeasurement) -> Result<(), AnyError> {
        let event = encode_event(self.state.events, self.pcr, &[HashAlg::Sha256], tool);
        let digest = event_digest(&event)?;
        self.state.apply(&event)?;
        self.log.extend(event);
        self.extend(self.pcr.get(), digest.as_bytes())
    }

    /// Extends a PCR of the SHA-256 bank, and says nothing to the log.
    ///
    /// # Errors
    /// The TPM refuses.
    pub fn extend(&mut self, pcr: u8, digest: &[u8]) -> Result<(), AnyError> {
        self.dirty = true;
        Ok(self.raw().pcr_extend(pcr, &[(Bank::Sha256, digest.to_vec())])?)
    }

    /// The tool of this name, measured as it should be.
    ///
    /// # Errors
    /// There is none.
    pub fn tool(&self, name: &str) -> Result<ToolMeasurement, AnyError> {
        let found = self.tools.iter().find(|tool| tool.name() == name);
        Ok(found.ok_or("no such tool")?.clone())
    }

    /// The EK, loaded.
    ///
    /// # Errors
    /// The TPM refuses.
    pub fn load_ek(&self) -> Result<tpm::Key, AnyError> {
        tpm::endorsement_key(self.raw(), TEMPLATE)
    }
}

/// The SHA-256 digest that an event says it extended.
fn event_digest(event: &[u8]) -> Result<Digest, AnyError> {
    let event = ToolLogReader::new(event).next().ok_or("no event")??;
    Ok(*event.digests.first().ok_or("no digest")?)
}

/// Events of a log, each with its bytes.
///
/// # Errors
/// The log does not decode.
pub fn events(log: &[u8]) -> Result<Vec<Vec<u8>>, AnyError> {
    let mut reader = ToolLogReader::new(log);
    let mut out = Vec::new();
    loop {
        let from = reader.offset();
        match reader.next() {
            None => return Ok(out),
            Some(event) => drop(event?),
        }
        out.push(log.get(from..reader.offset()).unwrap_or_default().to_vec());
    }
}

/// `log:…`: the tool log as the attacker shows it.
///
/// # Errors
/// An unknown verb.
pub fn forge_log(machine: &Machine, verb: &str) -> Result<Vec<u8>, AnyError> {
    let events = events(&machine.log)?;
    let (first, second) = match events.as_slice() {
        [first, second, ..] => (first.clone(), second.clone()),
        _ => return Err("the log has fewer than two events".into()),
    };
    let tools = &machine.tools;
    let pcr = machine.pcr;
    let sha256 = [HashAlg::Sha256];
    let renumbered =
        |order: &mut dyn Iterator<Item = &ToolMeasurement>, pcr: PcrIndex, banks: &[HashAlg]| {
            let numbered = order.zip(0_u64..);
            numbered.flat_map(|(tool, n)| encode_event(n, pcr, banks, tool)).collect::<Vec<u8>>()
        };
    Ok(match verb {
        "drop-last" => machine.log[..machine.log.len() - events.last().map_or(0, Vec::len)].into(),
        "drop-first" => machine.log[first.len()..].into(),
        "empty" => Vec::new(),
        "reorder" => [second, first].concat(),
        "reorder-renumbered" => renumbered(&mut tools.iter().rev(), pcr, &sha256),
        "repeat" => [machine.log.clone(), first].concat(),
        "other-tool" => {
            let mut forged = tools.clone();
            *forged.first_mut().ok_or("no tool")? = ToolMeasurement::absent("cc")?;
            renumbered(&mut forged.iter(), pcr, &sha256)
        }
        // A byte of a path, near the end: the digest beside it stays.
        "edit-content" => {
            let mut log = machine.log.clone();
            let at = log.len() - 20;
            log[at] ^= 1;
            log
        }
        "edit-digest" => {
            // Record number 13 bytes, PCR 6, digests header 5, SHA-256 header 5, then the digest.
            let mut log = machine.log.clone();
            log[13 + 6 + 5 + 5] ^= 1;
            log
        }
        "other-pcr" => renumbered(&mut tools.iter(), PcrIndex::new(15).ok_or("PCR 15")?, &sha256),
        "other-bank" => renumbered(&mut tools.iter(), pcr, &[HashAlg::Sha384]),
        "bank-order" => {
            let both = [HashAlg::Sha256, HashAlg::Sha384];
            let mut log = encode_event(0, pcr, &both, &tools[0]);
            // Exchange the two digests: 5 + 32 and 5 + 48 bytes after 24 of headers.
            log[24..24 + 37 + 53].rotate_left(37);
            log
        }
        "cut" => machine.log[..machine.log.len() - 1].into(),
        "tail" => [machine.log.clone(), vec![0xff; 3]].concat(),
        "padding" => [machine.log.clone(), vec![0; 16]].concat(),
        "length" => {
            let mut log = machine.log.clone();
            // Length of the first element: 4 GiB.
            log[1..5].copy_from_slice(&[0xff; 4]);
            log
        }
        other => return Err(format!("log:{other}").into()),
    })
}
