//! Synthetic firmware logs, and where public ones are.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part")]

use proto::{
    digest::{Digest, HashAlg, PcrIndex, PcrSet},
    eventlog::{EventLog, EventType, LogAlg, guid::Guid, text::to_utf16},
    evidence::PcrValue,
};
use soft_tpm::vectors_dir;

/// A public log.
pub fn vector(path: &str) -> Option<Vec<u8>> {
    let file = vectors_dir()?.join(path);
    Some(std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())))
}

pub fn pcr(index: u8) -> PcrIndex {
    PcrIndex::new(index).expect("a PCR")
}

pub fn pcrs(indexes: &[u8]) -> PcrSet {
    indexes.iter().map(|index| pcr(*index)).collect()
}

pub fn all_pcrs() -> PcrSet {
    (0..24).map(pcr).collect()
}

/// A log under construction.
#[derive(Clone)]
pub struct Log {
    banks: Vec<LogAlg>,
    pub bytes: Vec<u8>,
}

impl Log {
    /// A crypto-agile log with its Spec ID event.
    pub fn new(banks: &[LogAlg]) -> Self {
        let mut out = Self { banks: banks.to_vec(), bytes: Vec::new() };
        let algorithms: Vec<_> = banks
            .iter()
            .map(|alg| (alg.tpm_id(), u16::try_from(alg.len_bytes()).expect("short")))
            .collect();
        out.first(&spec_id(&algorithms, &[]));
        out
    }

    /// Nothing yet, not even a Spec ID event.
    pub fn empty(banks: &[LogAlg]) -> Self {
        Self { banks: banks.to_vec(), bytes: Vec::new() }
    }

    /// What follows a log that is there.
    pub fn after(bytes: Vec<u8>, banks: &[LogAlg]) -> Self {
        Self { banks: banks.to_vec(), bytes }
    }

    /// A first event, in the TPM 1.2 format.
    pub fn first(&mut self, data: &[u8]) -> &mut Self {
        self.tcg12(0, EventType::NO_ACTION, &[0; 20], data)
    }

    /// An event in the TPM 1.2 format.
    pub fn tcg12(
        &mut self,
        pcr: u32,
        kind: EventType,
        digest: &[u8; 20],
        data: &[u8],
    ) -> &mut Self {
        self.bytes.extend(pcr.to_le_bytes());
        self.bytes.extend(kind.0.to_le_bytes());
        self.bytes.extend(digest);
        self.bytes.extend(u32::try_from(data.len()).expect("short").to_le_bytes());
        self.bytes.extend(data);
        self
    }

    /// An event with just these digests.
    pub fn raw(
        &mut self,
        pcr: u32,
        kind: EventType,
        digests: &[(u16, Vec<u8>)],
        data: &[u8],
    ) -> &mut Self {
        self.bytes.extend(pcr.to_le_bytes());
        self.bytes.extend(kind.0.to_le_bytes());
        self.bytes.extend(u32::try_from(digests.len()).expect("few").to_le_bytes());
        for (alg, digest) in digests {
            self.bytes.extend(alg.to_le_bytes());
            self.bytes.extend(digest);
        }
        self.bytes.extend(u32::try_from(data.len()).expect("short").to_le_bytes());
        self.bytes.extend(data);
        self
    }

    /// An event whose digests are over `measured`.
    pub fn measured(
        &mut self,
        pcr: u8,
        kind: EventType,
        measured: &[u8],
        data: &[u8],
    ) -> &mut Self {
        let digests: Vec<_> = self
            .banks
            .iter()
            .map(|alg| {
                let digest = alg.hash(&[measured]).expect("computed");
                (alg.tpm_id(), digest.as_bytes().to_vec())
            })
            .collect();
        self.raw(pcr.into(), kind, &digests, data)
    }

    /// An event whose digests are over its data.
    pub fn data(&mut self, pcr: u8, kind: EventType, data: &[u8]) -> &mut Self {
        self.measured(pcr, kind, data, data)
    }

    /// An event that is not extended.
    pub fn information(&mut self, pcr: u32, data: &[u8]) -> &mut Self {
        let digests: Vec<_> =
            self.banks.iter().map(|alg| (alg.tpm_id(), vec![0; alg.len_bytes()])).collect();
        self.raw(pcr, EventType::NO_ACTION, &digests, data)
    }

    pub fn startup(&mut self, locality: u8) -> &mut Self {
        let mut data = b"StartupLocality\0".to_vec();
        data.push(locality);
        self.information(0, &data)
    }

    /// What every firmware measures and nothing else: versions, and a separator for each PCR of its own.
    pub fn firmware_alone() -> Self {
        let mut log = Self::new(&[LogAlg::Sha256, LogAlg::Sha384]);
        log.startup(3);
        for pcr in [0, 2] {
            log.data(pcr, EventType::S_CRTM_VERSION, b"1");
        }
        for pcr in 0..8 {
            log.separator(pcr);
        }
        log
    }

    pub fn separator(&mut self, pcr: u8) -> &mut Self {
        self.data(pcr, EventType::SEPARATOR, &[0; 4])
    }

    pub fn action(&mut self, pcr: u8, text: &str) -> &mut Self {
        self.data(pcr, EventType::EFI_ACTION, text.as_bytes())
    }

    pub fn config(&mut self, vendor: Guid, name: &str, data: &[u8]) -> &mut Self {
        self.data(7, EventType::EFI_VARIABLE_DRIVER_CONFIG, &variable(vendor, name, data))
    }

    pub fn authority(&mut self, vendor: Guid, name: &str, data: &[u8]) -> &mut Self {
        self.data(7, EventType::EFI_VARIABLE_AUTHORITY, &variable(vendor, name, data))
    }

    pub fn application(&mut self, image: &[u8], file: &str) -> &mut Self {
        self.measured(4, EventType::EFI_BOOT_SERVICES_APPLICATION, image, &image_load(file))
    }

    /// A pair of events of systemd-stub.
    pub fn section(&mut self, name: &str, content: &[u8]) -> &mut Self {
        let mut measured = name.as_bytes().to_vec();
        measured.push(0);
        let mut data = to_utf16(name);
        data.extend([0, 0]);
        self.measured(11, EventType::IPL, &measured, &data);
        self.measured(11, EventType::IPL, content, &data)
    }
}

/// Data of a crypto-agile log's first event.
pub fn spec_id(algorithms: &[(u16, u16)], vendor_info: &[u8]) -> Vec<u8> {
    let mut data = b"Spec ID Event03\0".to_vec();
    data.extend([0, 0, 0, 0, 0, 2, 0, 2]);
    data.extend(u32::try_from(algorithms.len()).expect("few").to_le_bytes());
    for (alg, size) in algorithms {
        data.extend(alg.to_le_bytes());
        data.extend(size.to_le_bytes());
    }
    data.push(u8::try_from(vendor_info.len()).expect("short"));
    data.extend(vendor_info);
    data
}

/// `UEFI_VARIABLE_DATA`.
pub fn variable(vendor: Guid, name: &str, data: &[u8]) -> Vec<u8> {
    let mut out = vendor.as_bytes().to_vec();
    out.extend(u64::try_from(name.len()).expect("short").to_le_bytes());
    out.extend(u64::try_from(data.len()).expect("short").to_le_bytes());
    out.extend(to_utf16(name));
    out.extend(data);
    out
}

pub const OWNER: Guid = Guid::new(0xa5a5_a5a5, 0xa5a5, 0xa5a5, 0xa5a5_a5a5_a5a5_a5a5);

/// `EFI_SIGNATURE_LIST`; entries of one size.
pub fn signature_list(kind: Guid, entries: &[&[u8]]) -> Vec<u8> {
    let size = 16 + entries.first().map_or(0, |entry| entry.len());
    let mut out = kind.as_bytes().to_vec();
    for field in [28 + size * entries.len(), 0, size] {
        out.extend(u32::try_from(field).expect("short").to_le_bytes());
    }
    for entry in entries {
        out.extend(OWNER.as_bytes());
        out.extend(*entry);
    }
    out
}

/// `EFI_SIGNATURE_DATA`.
pub fn signature_data(entry: &[u8]) -> Vec<u8> {
    [OWNER.as_bytes().as_slice(), entry].concat()
}

/// `UEFI_IMAGE_LOAD_EVENT` with a file path.
pub fn image_load(file: &str) -> Vec<u8> {
    let mut name = to_utf16(file);
    name.extend([0, 0]);
    let mut path = vec![4, 4];
    path.extend(u16::try_from(4 + name.len()).expect("short").to_le_bytes());
    path.extend(name);
    path.extend([0x7f, 0xff, 4, 0]);
    let mut out = Vec::new();
    for field in [0x7e00_0000, 4096, 0, u64::try_from(path.len()).expect("short")] {
        out.extend(u64::to_le_bytes(field));
    }
    out.extend(path);
    out
}

/// `EFI_LOAD_OPTION`.
pub fn load_option(description: &str, file: &str) -> Vec<u8> {
    let path = image_load(file).split_off(32);
    let mut out = 1u32.to_le_bytes().to_vec();
    out.extend(u16::try_from(path.len()).expect("short").to_le_bytes());
    out.extend(to_utf16(description));
    out.extend([0, 0]);
    out.extend(path);
    out
}

/// `TCG_PCClientTaggedEvent`.
pub fn tagged(tag: u32, data: &[u8]) -> Vec<u8> {
    let mut out = tag.to_le_bytes().to_vec();
    out.extend(u32::try_from(data.len()).expect("short").to_le_bytes());
    out.extend(data);
    out
}

/// `UEFI_GPT_DATA` with one partition.
pub fn gpt(disk: Guid) -> Vec<u8> {
    let mut out = b"EFI PART".to_vec();
    out.extend([0; 48]);
    out.extend(disk.as_bytes());
    out.extend([0; 20]);
    out.extend(1u64.to_le_bytes());
    let mut entry = OWNER.as_bytes().to_vec();
    entry.extend(OWNER.as_bytes());
    entry.extend([0; 24]);
    entry.extend(to_utf16("root"));
    entry.resize(128, 0);
    out.extend(entry);
    out
}

/// A certificate to enrol.
pub fn certificate() -> Vec<u8> {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let pem = include_str!("../data/sha1-intermediate/root.pem");
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    BASE64_STANDARD.decode(body).expect("base64")
}

/// What a synthetic machine boots.
#[derive(Clone, Debug)]
pub struct Boot {
    pub banks: Vec<LogAlg>,
    pub secure_boot: u8,
    pub dbx_entries: usize,
    pub kernel: Vec<u8>,
    pub command_line: String,
    pub initrd: Vec<u8>,
    pub grub_commands: usize,
    /// Whether shim measures its list of keys into PCR 14.
    pub mok: bool,
    pub exit: bool,
}

impl Default for Boot {
    fn default() -> Self {
        Self {
            banks: vec![LogAlg::Sha256, LogAlg::Sha384],
            secure_boot: 1,
            dbx_entries: 2,
            kernel: b"kernel".to_vec(),
            command_line: "root=/dev/vda2 ro lockdown=integrity".to_owned(),
            initrd: b"initrd".to_vec(),
            grub_commands: 2,
            mok: true,
            exit: true,
        }
    }
}

impl Boot {
    /// A log of about 45 kB, as a laptop with GRUB writes it.
    pub fn large() -> Self {
        Self {
            banks: vec![LogAlg::Sha1, LogAlg::Sha256],
            dbx_entries: 430,
            grub_commands: 110,
            ..Self::default()
        }
    }

    pub fn log(&self) -> Vec<u8> {
        let mut log = Log::new(&self.banks);
        self.firmware(&mut log);
        for pcr in 0..=6 {
            log.separator(pcr);
        }
        self.loader(&mut log);
        if self.exit {
            log.action(5, "Exit Boot Services Invocation");
            log.action(5, "Exit Boot Services Returned with Success");
        }
        log.bytes
    }

    fn firmware(&self, log: &mut Log) {
        let certificate = certificate();
        log.startup(3);
        log.data(0, EventType::S_CRTM_VERSION, &to_utf16("Test 1.0\0"));
        let mut blob = 0xff00_0000u64.to_le_bytes().to_vec();
        blob.extend(0x10_0000u64.to_le_bytes());
        log.measured(0, EventType::EFI_PLATFORM_FIRMWARE_BLOB, b"firmware", &blob);
        let keys = signature_list(Guid::CERT_X509, &[&certificate]);
        log.config(Guid::GLOBAL_VARIABLE, "SecureBoot", &[self.secure_boot]);
        log.config(Guid::GLOBAL_VARIABLE, "PK", &keys);
        log.config(Guid::GLOBAL_VARIABLE, "KEK", &keys);
        log.config(Guid::SECURITY_DATABASE, "db", &keys);
        let hashes: Vec<Vec<u8>> = (0..self.dbx_entries)
            .map(|n| HashAlg::Sha256.hash(&[&n.to_le_bytes()]).as_bytes().to_vec())
            .collect();
        let hashes: Vec<&[u8]> = hashes.iter().map(Vec::as_slice).collect();
        log.config(Guid::SECURITY_DATABASE, "dbx", &signature_list(Guid::CERT_SHA256, &hashes));
        log.separator(7);
        let driver = image_load("\\driver.efi");
        log.measured(2, EventType::EFI_BOOT_SERVICES_DRIVER, b"option ROM", &driver);
        for (name, content) in [
            ("BootOrder", vec![1, 0, 0, 0, 2, 0]),
            ("Boot0001", load_option("debian", "\\EFI\\debian\\shimx64.efi")),
        ] {
            let data = variable(Guid::GLOBAL_VARIABLE, name, &content);
            log.measured(1, EventType::EFI_VARIABLE_BOOT, &content, &data);
        }
        log.action(4, "Calling EFI Application from Boot Option");
    }

    fn loader(&self, log: &mut Log) {
        let certificate = certificate();
        log.authority(Guid::SECURITY_DATABASE, "db", &signature_data(&certificate));
        log.data(5, EventType::EFI_GPT_EVENT, &gpt(OWNER));
        log.application(b"shim", "\\EFI\\debian\\shimx64.efi");
        log.authority(Guid::SHIM_LOCK, "SbatLevel", b"sbat,1,2024010900\nshim,4\n");
        if self.mok {
            log.measured(14, EventType::IPL, b"mok", b"MokList\0");
        }
        for number in 0..self.grub_commands {
            let text = format!("set variable_{number}=a value of usual length for GRUB");
            let data = format!("grub_cmd: {text}\0");
            log.measured(8, EventType::IPL, text.as_bytes(), data.as_bytes());
        }
        let data = format!("kernel_cmdline: {}\0", self.command_line);
        log.measured(8, EventType::IPL, self.command_line.as_bytes(), data.as_bytes());
        log.application(&self.kernel, "\\EFI\\Linux\\linux.efi");
        log.section(".linux", &self.kernel);
        log.section(".cmdline", self.command_line.as_bytes());
        log.section(".initrd", &self.initrd);
        let options = to_utf16(&format!("{}\0", self.command_line));
        log.data(12, EventType::IPL, &options);
        let data = tagged(0x8F3B_22ED, b"LOADED_IMAGE::LoadOptions\0");
        log.measured(9, EventType::EVENT_TAG, &options, &data);
        let data = tagged(0x8F3B_22EC, b"Linux initrd\0");
        log.measured(9, EventType::EVENT_TAG, &self.initrd, &data);
    }
}

/// PCR values of a log by a replay that shares nothing with the one under test.
pub fn values_of(log: &[u8], alg: HashAlg, locality: u8) -> Vec<PcrValue> {
    let log = EventLog::parse(log).expect("well-formed");
    let len = alg.len_bytes();
    let mut values: Vec<Vec<u8>> = (0..24_u8)
        .map(|index| if (17..=22).contains(&index) { vec![0xff; len] } else { vec![0; len] })
        .collect();
    values[0][len - 1] = locality;
    for event in log.events() {
        if event.untrusted_type != EventType::NO_ACTION {
            let at = usize::from(event.pcr.expect("a PCR").get());
            let digest = event.digest_bytes(alg.into()).expect("a digest");
            values[at] = alg.hash(&[&values[at], digest]).as_bytes().to_vec();
        }
    }
    (0..24_u8)
        .zip(values)
        .map(|(index, value)| PcrValue {
            index: pcr(index),
            value: Digest::new(alg, &value).expect("its length"),
        })
        .collect()
}
