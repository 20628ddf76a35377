//! Synthetic firmware: boots a software TPM the way UEFI firmware, a boot loader and systemd-stub
//! do, and writes the event log that they write.
//!
//! PCR 0 to 7, 9 and 11 are extended in every bank, and 14 where shim is used; others are left alone. Every value is a
//! parameter, so that a test can boot "the same machine with another kernel command line".
//!
//! # Source
//! TCG PC Client Platform Firmware Profile (crypto-agile log, event types, what each digest covers);
//! UEFI Specification (`EFI_SIGNATURE_LIST`, device paths); Linux EFI stub and systemd-stub for PCR
//! 9 and 11.

mod unified;

use crate::{
    efi::Program,
    raw::{Bank, RawError, RawTpm},
    swtpm::Swtpm,
};

/// Event types of the PC Client profile.
mod event_type {
    pub(super) const NO_ACTION: u32 = 0x03;
    pub(super) const SEPARATOR: u32 = 0x04;
    pub(super) const EVENT_TAG: u32 = 0x06;
    pub(super) const S_CRTM_VERSION: u32 = 0x08;
    pub(super) const IPL: u32 = 0x0D;
    pub(super) const EFI_VARIABLE_DRIVER_CONFIG: u32 = 0x8000_0001;
    pub(super) const EFI_VARIABLE_BOOT: u32 = 0x8000_0002;
    pub(super) const EFI_BOOT_SERVICES_APPLICATION: u32 = 0x8000_0003;
    pub(super) const EFI_BOOT_SERVICES_DRIVER: u32 = 0x8000_0004;
    pub(super) const EFI_GPT_EVENT: u32 = 0x8000_0006;
    pub(super) const EFI_ACTION: u32 = 0x8000_0007;
    pub(super) const EFI_PLATFORM_FIRMWARE_BLOB2: u32 = 0x8000_000A;
    pub(super) const EFI_VARIABLE_AUTHORITY: u32 = 0x8000_00E0;
}

/// `LOAD_OPTIONS_EVENT_TAG_ID` of the Linux EFI stub.
const TAG_LOAD_OPTIONS: u32 = 0x8F3B_22ED;
/// `INITRD_EVENT_TAG_ID` of the Linux EFI stub.
const TAG_INITRD: u32 = 0x8F3B_22EC;

/// `EFI_GLOBAL_VARIABLE`, as bytes in memory.
const GUID_GLOBAL: [u8; 16] = [
    0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c,
];
/// `EFI_IMAGE_SECURITY_DATABASE_GUID`.
const GUID_SECURITY_DATABASE: [u8; 16] = [
    0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f,
];
/// `EFI_CERT_SHA256_GUID`.
const GUID_CERT_SHA256: [u8; 16] = [
    0x26, 0x16, 0xc4, 0xc1, 0x4c, 0x50, 0x92, 0x40, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28,
];
/// `EFI_CERT_X509_GUID`.
const GUID_CERT_X509: [u8; 16] = [
    0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72,
];
/// Owner of the synthetic signature database entries.
const GUID_OWNER: [u8; 16] = [0xa5; 16];

/// What the synthetic machine boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firmware {
    /// Firmware version (PCR 0).
    pub version: String,
    /// Code of the firmware volume (PCR 0).
    pub firmware_code: Vec<u8>,
    /// Variable SecureBoot (PCR 7).
    pub secure_boot: bool,
    /// Subject certificates in `db` (PCR 7), opaque bytes; the first one authorises the loader.
    pub db: Vec<Vec<u8>>,
    /// SHA-256 image hashes in `dbx` (PCR 7).
    pub dbx: Vec<[u8; 32]>,
    /// `Boot0000`'s description (PCR 1).
    pub boot_entry: String,
    /// The option ROM's driver image (PCR 2).
    pub option_rom: Vec<u8>,
    /// The boot application's image (PCR 4).
    pub boot_application: Vec<u8>,
    /// Disk GUID of the partition table (PCR 5).
    pub disk: [u8; 16],
    /// Kernel image, measured by the stub (PCR 11).
    pub kernel: Vec<u8>,
    /// Initial ram disk (PCR 9 and 11).
    pub initrd: Vec<u8>,
    /// Kernel command line (PCR 9 and 11).
    pub command_line: String,
    /// A unified kernel image, booted in the place of boot application, kernel, initrd and command line (PCR 4, 9 and
    /// 11), and measured as it is.
    pub unified: Option<Program>,
    /// Keys of the machine's owner, which shim measures into PCR 14; `None` where shim is not used.
    pub machine_owner_keys: Option<Vec<u8>>,
}

impl Default for Firmware {
    fn default() -> Self {
        Self {
            version: "Assay Test Firmware 1.0".into(),
            firmware_code: b"firmware volume, build 1".to_vec(),
            secure_boot: true,
            db: vec![b"synthetic certificate of the site's loader signer".to_vec()],
            dbx: vec![[0xbb; 32]],
            boot_entry: "Worker image A".into(),
            option_rom: b"network option ROM 7".to_vec(),
            boot_application: b"systemd-boot 252 image".to_vec(),
            disk: [0xd1; 16],
            kernel: b"linux 6.1.0 image".to_vec(),
            initrd: b"initrd of worker image A".to_vec(),
            command_line: "root=/dev/vda2 ro quiet lockdown=integrity".into(),
            unified: None,
            machine_owner_keys: None,
        }
    }
}

/// One event before it is encoded.
struct Event {
    pcr: u8,
    kind: u32,
    /// What the digests are over; `None` for an event that is not extended.
    measured: Option<Vec<u8>>,
    data: Vec<u8>,
}

impl Event {
    /// An event whose digests are over its data.
    fn of_data(pcr: u8, kind: u32, data: Vec<u8>) -> Self {
        Self { pcr, kind, measured: Some(data.clone()), data }
    }
}

impl Firmware {
    /// Extends the PCRs of `tpm` in each of `banks` and returns the event log's bytes.
    ///
    /// The TPM must have been reset just before; `banks` must be the allocated ones.
    ///
    /// # Errors
    /// The TPM refuses an extend.
    pub fn boot(&self, tpm: RawTpm, banks: &[Bank]) -> Result<Vec<u8>, RawError> {
        for event in self.events() {
            if let Some(measured) = &event.measured {
                tpm.pcr_extend_data(event.pcr, banks, measured)?;
            }
        }
        Ok(self.event_log(banks))
    }

    /// [`Self::boot`] on a [`Swtpm`], in all the banks that it has allocated.
    ///
    /// # Errors
    /// The TPM refuses a command.
    pub fn boot_swtpm(&self, tpm: &Swtpm) -> Result<Vec<u8>, RawError> {
        let mut banks = Vec::new();
        for bank in Bank::ALL {
            if tpm.raw().pcr_read(bank, 0)?.is_some() {
                banks.push(bank);
            }
        }
        self.boot(tpm.raw(), &banks)
    }

    /// The crypto-agile event log of this boot, as `binary_bios_measurements` holds it.
    #[must_use]
    pub fn event_log(&self, banks: &[Bank]) -> Vec<u8> {
        let mut out = spec_id_event(banks);
        for event in self.events() {
            out.extend_from_slice(&u32::from(event.pcr).to_le_bytes());
            out.extend_from_slice(&event.kind.to_le_bytes());
            out.extend_from_slice(&len32(banks.len()));
            for bank in banks {
                out.extend_from_slice(&bank.tpm_id().to_le_bytes());
                match &event.measured {
                    Some(measured) => out.extend_from_slice(&bank.hash(measured)),
                    None => out.extend_from_slice(&vec![0; bank.len_bytes()]),
                }
            }
            out.extend_from_slice(&len32(event.data.len()));
            out.extend_from_slice(&event.data);
        }
        out
    }

    /// The value that this boot leaves in `pcr` of `bank`.
    #[must_use]
    pub fn pcr_value(&self, bank: Bank, pcr: u8) -> Vec<u8> {
        let mut value = vec![0; bank.len_bytes()];
        for event in self.events() {
            if let (true, Some(measured)) = (event.pcr == pcr, &event.measured) {
                value.extend_from_slice(&bank.hash(measured));
                value = bank.hash(&value);
            }
        }
        value
    }

    fn events(&self) -> Vec<Event> {
        let mut out = self.firmware_events();
        out.extend(self.secure_boot_events());
        out.extend(self.boot_manager_events());
        for pcr in 0..=6 {
            out.push(Event::of_data(pcr, event_type::SEPARATOR, vec![0; 4]));
        }
        out.extend(self.loader_events());
        // shim's event names what it measured; the digest is over the content.
        out.extend(self.machine_owner_keys.iter().map(|keys| Event {
            pcr: 14,
            kind: event_type::IPL,
            measured: Some(keys.clone()),
            data: b"MokList\0".to_vec(),
        }));
        out.extend(self.kernel_events());
        for text in ["Exit Boot Services Invocation", "Exit Boot Services Returned with Success"] {
            out.push(Event::of_data(5, event_type::EFI_ACTION, text.into()));
        }
        out
    }

    fn firmware_events(&self) -> Vec<Event> {
        let version = utf16_terminated(&self.version);
        // UEFI_PLATFORM_FIRMWARE_BLOB2: description, base, length. The digest is over the code.
        let description = b"Main volume";
        let mut blob = vec![u8::try_from(description.len()).unwrap_or(0)];
        blob.extend_from_slice(description);
        blob.extend_from_slice(&0xff00_0000u64.to_le_bytes());
        blob.extend_from_slice(&len64(self.firmware_code.len()));
        vec![
            Event::of_data(0, event_type::S_CRTM_VERSION, version),
            Event {
                pcr: 0,
                kind: event_type::EFI_PLATFORM_FIRMWARE_BLOB2,
                measured: Some(self.firmware_code.clone()),
                data: blob,
            },
        ]
    }

    fn secure_boot_events(&self) -> Vec<Event> {
        let kind = event_type::EFI_VARIABLE_DRIVER_CONFIG;
        let config = |guid, name, data: &[u8]| Event::of_data(7, kind, variable(guid, name, data));
        let platform_key = signature_list(&GUID_CERT_X509, &[b"synthetic platform key"]);
        let exchange_key = signature_list(&GUID_CERT_X509, &[b"synthetic key exchange key"]);
        let db: Vec<u8> =
            self.db.iter().flat_map(|entry| signature_list(&GUID_CERT_X509, &[entry])).collect();
        let hashes: Vec<&[u8]> = self.dbx.iter().map(<[u8; 32]>::as_slice).collect();
        let dbx = signature_list(&GUID_CERT_SHA256, &hashes);
        vec![
            config(&GUID_GLOBAL, "SecureBoot", &[self.secure_boot.into()]),
            config(&GUID_GLOBAL, "PK", &platform_key),
            config(&GUID_GLOBAL, "KEK", &exchange_key),
            config(&GUID_SECURITY_DATABASE, "db", &db),
            config(&GUID_SECURITY_DATABASE, "dbx", &dbx),
            Event::of_data(7, event_type::SEPARATOR, vec![0; 4]),
        ]
    }

    fn boot_manager_events(&self) -> Vec<Event> {
        // EFI_LOAD_OPTION: attributes (active), length of the path list, description, path list.
        let path = end_of_device_path();
        let mut option = Vec::from(1u32.to_le_bytes());
        option.extend_from_slice(&u16::try_from(path.len()).unwrap_or(0).to_le_bytes());
        option.extend_from_slice(&utf16_terminated(&self.boot_entry));
        option.extend_from_slice(&path);
        // EV_EFI_VARIABLE_BOOT measures the variable's data alone.
        let boot_variable = |name, data: Vec<u8>| Event {
            pcr: 1,
            kind: event_type::EFI_VARIABLE_BOOT,
            data: variable(&GUID_GLOBAL, name, &data),
            measured: Some(data),
        };
        vec![
            boot_variable("BootOrder", vec![0, 0]),
            boot_variable("Boot0000", option),
            image_load(2, event_type::EFI_BOOT_SERVICES_DRIVER, &self.option_rom),
            Event::of_data(
                4,
                event_type::EFI_ACTION,
                b"Calling EFI Application from Boot Option".to_vec(),
            ),
        ]
    }

    fn loader_events(&self) -> Vec<Event> {
        let mut out = Vec::new();
        if let (true, Some(entry)) = (self.secure_boot, self.db.first()) {
            // EFI_SIGNATURE_DATA of the entry that authorised the loader.
            let mut data = GUID_OWNER.to_vec();
            data.extend_from_slice(entry);
            let data = variable(&GUID_SECURITY_DATABASE, "db", &data);
            out.push(Event::of_data(7, event_type::EFI_VARIABLE_AUTHORITY, data));
        }
        out.push(Event::of_data(5, event_type::EFI_GPT_EVENT, self.partition_table()));
        let kind = event_type::EFI_BOOT_SERVICES_APPLICATION;
        match &self.unified {
            Some(image) => out.push(image_load(4, kind, &image.hashed())),
            None => out.push(image_load(4, kind, &self.boot_application)),
        }
        out
    }

    fn kernel_events(&self) -> Vec<Event> {
        if let Some(image) = &self.unified {
            return unified::events(image, self.secure_boot);
        }
        let mut out = Vec::new();
        let command_line = utf16_terminated(&self.command_line);
        let sections: [(&str, &[u8]); 3] = [
            (".linux", &self.kernel),
            (".cmdline", self.command_line.as_bytes()),
            (".initrd", &self.initrd),
        ];
        out.extend(sections.into_iter().flat_map(|(name, content)| section(name, content)));
        out.extend(handed_over(&command_line, &self.initrd));
        out
    }

    /// `UEFI_GPT_DATA` with a header and no partition.
    fn partition_table(&self) -> Vec<u8> {
        let mut header = Vec::from(*b"EFI PART");
        header.extend_from_slice(&0x0001_0000u32.to_le_bytes());
        header.extend_from_slice(&92u32.to_le_bytes());
        // Checksum and reserved: synthetic.
        header.extend_from_slice(&[0; 8]);
        for lba in [1u64, 0x3fff, 34, 0x3fde] {
            header.extend_from_slice(&lba.to_le_bytes());
        }
        header.extend_from_slice(&self.disk);
        header.extend_from_slice(&2u64.to_le_bytes());
        header.extend_from_slice(&128u32.to_le_bytes());
        header.extend_from_slice(&128u32.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        header.extend_from_slice(&0u64.to_le_bytes());
        header
    }
}

/// The first event, in the SHA-1 format of TPM 1.2: `TCG_EfiSpecIDEvent`.
fn spec_id_event(banks: &[Bank]) -> Vec<u8> {
    let mut data = Vec::from(*b"Spec ID Event03\0");
    // platformClass client; version 2.0 errata 2; uintnSize: 64-bit.
    data.extend_from_slice(&[0, 0, 0, 0, 0, 2, 2, 2]);
    data.extend_from_slice(&len32(banks.len()));
    for bank in banks {
        data.extend_from_slice(&bank.tpm_id().to_le_bytes());
        data.extend_from_slice(&u16::try_from(bank.len_bytes()).unwrap_or(0).to_le_bytes());
    }
    // No vendorInfo.
    data.push(0);
    let mut out = vec![0; 4];
    out.extend_from_slice(&event_type::NO_ACTION.to_le_bytes());
    out.extend_from_slice(&[0; 20]);
    out.extend_from_slice(&len32(data.len()));
    out.extend_from_slice(&data);
    out
}

/// `UEFI_VARIABLE_DATA`.
fn variable(guid: &[u8; 16], name: &str, data: &[u8]) -> Vec<u8> {
    let name = utf16(name);
    let mut out = guid.to_vec();
    out.extend_from_slice(&len64(name.len() / 2));
    out.extend_from_slice(&len64(data.len()));
    out.extend_from_slice(&name);
    out.extend_from_slice(data);
    out
}

/// `EFI_SIGNATURE_LIST` whose entries have one size.
fn signature_list(kind: &[u8; 16], entries: &[&[u8]]) -> Vec<u8> {
    let Some(first) = entries.first() else { return Vec::new() };
    let size = GUID_OWNER.len() + first.len();
    let mut out = kind.to_vec();
    out.extend_from_slice(&len32(28 + size * entries.len()));
    out.extend_from_slice(&len32(0));
    out.extend_from_slice(&len32(size));
    for entry in entries {
        out.extend_from_slice(&GUID_OWNER);
        out.extend_from_slice(entry);
    }
    out
}

/// `UEFI_IMAGE_LOAD_EVENT`; the digest stands for the image's Authenticode hash.
fn image_load(pcr: u8, kind: u32, image: &[u8]) -> Event {
    // A media file-path node, then the end node.
    let file = utf16_terminated("\\EFI\\BOOT\\BOOTX64.EFI");
    let mut path = vec![0x04, 0x04];
    path.extend_from_slice(&u16::try_from(4 + file.len()).unwrap_or(0).to_le_bytes());
    path.extend_from_slice(&file);
    path.extend_from_slice(&end_of_device_path());
    let mut data = Vec::from(0x7e00_0000u64.to_le_bytes());
    data.extend_from_slice(&len64(image.len()));
    data.extend_from_slice(&0u64.to_le_bytes());
    data.extend_from_slice(&len64(path.len()));
    data.extend_from_slice(&path);
    Event { pcr, kind, measured: Some(image.to_vec()), data }
}

/// What systemd-stub measures of a section: its name with a zero byte, then its content.
fn section(name: &str, content: &[u8]) -> [Event; 2] {
    let mut name = Vec::from(name);
    name.push(0);
    let of_content = Event {
        pcr: 11,
        kind: event_type::IPL,
        measured: Some(content.to_vec()),
        data: name.clone(),
    };
    [Event::of_data(11, event_type::IPL, name), of_content]
}

/// What the kernel's EFI stub measures. The digest of a tagged event is over what the tag describes.
fn handed_over(load_options: &[u8], initrd: &[u8]) -> [Event; 2] {
    let event = |measured: &[u8], data| Event {
        pcr: 9,
        kind: event_type::EVENT_TAG,
        measured: Some(measured.to_vec()),
        data,
    };
    [
        event(load_options, tagged(TAG_LOAD_OPTIONS, load_options)),
        event(initrd, tagged(TAG_INITRD, b"Linux initrd\0")),
    ]
}

fn end_of_device_path() -> Vec<u8> {
    vec![0x7f, 0xff, 0x04, 0x00]
}

/// `TCG_PCClientTaggedEvent`.
fn tagged(tag: u32, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::from(tag.to_le_bytes());
    out.extend_from_slice(&len32(data.len()));
    out.extend_from_slice(data);
    out
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn utf16_terminated(text: &str) -> Vec<u8> {
    let mut out = utf16(text);
    out.extend_from_slice(&[0, 0]);
    out
}

fn len32(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()
}

fn len64(len: usize) -> [u8; 8] {
    u64::try_from(len).unwrap_or(u64::MAX).to_le_bytes()
}
