//! A kernel that measures what a test tells it to: IMA lists of every template, with their PCRs.
//!
//! Written from the kernel's documentation and sources, apart from the code that it tests: framing, template
//! digests and extending are here a second time.

use aws_lc_rs::digest::{Algorithm, Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512};

/// A PCR bank, by the name of its algorithm.
pub const BANKS: [&str; 4] = ["sha1", "sha256", "sha384", "sha512"];

/// How the kernel of a list behaves.
#[derive(Clone, Copy, Debug)]
pub struct ImaKernel {
    /// Numbers most significant byte first.
    pub is_big_endian: bool,
    /// The algorithm whose template digests stand in the list.
    pub recorded: &'static str,
    /// Whether banks are extended with SHA-1 digests padded with zeros, as before 5.8.
    pub is_padding: bool,
    /// The PCR that entries name and extend.
    pub pcr: u32,
}

impl Default for ImaKernel {
    fn default() -> Self {
        Self { is_big_endian: false, recorded: "sha1", is_padding: false, pcr: 10 }
    }
}

/// A list under construction, and what the PCR then holds in each bank.
#[derive(Clone, Debug)]
pub struct ImaList {
    kernel: ImaKernel,
    bytes: Vec<u8>,
    ends: Vec<usize>,
    pcrs: Vec<Vec<u8>>,
    /// `pcrs` after each entry.
    history: Vec<Vec<Vec<u8>>>,
    /// What each entry extended, by bank.
    extended: Vec<Vec<Vec<u8>>>,
}

/// One field of an entry.
#[derive(Clone, Copy, Debug)]
pub enum ImaValue<'v> {
    /// As it is.
    Raw(&'v [u8]),
    /// A name: a NUL is put after it.
    Name(&'v str),
    /// `algorithm:`, NUL, digest.
    Digest(&'v str, &'v [u8]),
    /// A number of the inode.
    U32(u32),
    /// The mode of the inode.
    U16(u16),
}

impl ImaList {
    /// An empty list: PCR at zero.
    #[must_use]
    pub fn new(kernel: ImaKernel) -> Self {
        let pcrs = BANKS.iter().map(|bank| vec![0; hash(bank, &[]).len()]).collect();
        let (history, extended) = (Vec::new(), Vec::new());
        Self { kernel, bytes: Vec::new(), ends: Vec::new(), pcrs, history, extended }
    }

    /// A list that begins as the kernel begins it: `boot_aggregate` over these PCRs' values.
    #[must_use]
    pub fn booted(kernel: ImaKernel, template: &str, bank: &str, pcrs: &[&[u8]]) -> Self {
        let mut list = Self::new(kernel);
        list.file(template, bank, &hash(bank, pcrs), "boot_aggregate", &[]);
        list
    }

    /// The list's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Offsets after each entry.
    #[must_use]
    pub fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// Value of the PCR in a bank.
    #[must_use]
    pub fn pcr(&self, bank: &str) -> &[u8] {
        let at = BANKS.iter().position(|known| *known == bank).expect("a bank");
        &self.pcrs[at]
    }

    /// Value that the PCR had in a bank after the entry with this number.
    #[must_use]
    pub fn pcr_after(&self, bank: &str, entry: usize) -> &[u8] {
        let at = BANKS.iter().position(|known| *known == bank).expect("a bank");
        &self.history[entry][at]
    }

    /// Digest that the entry with this number extended in a bank.
    #[must_use]
    pub fn extended(&self, bank: &str, entry: usize) -> &[u8] {
        let at = BANKS.iter().position(|known| *known == bank).expect("a bank");
        &self.extended[entry][at]
    }

    /// Adds a measured file: digest, name, and `signature` where the template has one.
    pub fn file(
        &mut self,
        template: &str,
        algorithm: &str,
        digest: &[u8],
        name: &str,
        signature: &[u8],
    ) {
        use ImaValue::{Digest, Name, Raw, U16, U32};
        let typed = [b"ima:", algorithm.as_bytes(), b":\0", digest].concat();
        let ng = Digest(algorithm, digest);
        match template {
            "ima" => self.original(digest, name),
            "ima-ng" => self.entry(template, &[ng, Name(name)]),
            "ima-sig" => self.entry(template, &[ng, Name(name), Raw(signature)]),
            "ima-ngv2" => self.entry(template, &[Raw(&typed), Name(name)]),
            "ima-sigv2" => self.entry(template, &[Raw(&typed), Name(name), Raw(signature)]),
            "ima-modsig" => {
                self.entry(template, &[ng, Name(name), Raw(signature), ng, Raw(b"appended")]);
            }
            "evm-sig" => {
                let names = Raw(b"security.ima|security.selinux\0");
                let lengths = Raw(&[1, 0, 0, 0, 2, 0, 0, 0]);
                let inode = [U32(1000), U32(100), U16(0o100_755)];
                let attributes = [ng, Name(name), Raw(b""), names, lengths, Raw(b"abc")];
                self.entry(template, &[&attributes[..], &inode].concat());
            }
            other => panic!("no form for template {other}"),
        }
    }

    /// Adds a measured buffer: the digest is its own.
    pub fn buffer(&mut self, algorithm: &str, name: &str, buffer: &[u8]) {
        let digest = hash(algorithm, &[buffer]);
        let values =
            [ImaValue::Digest(algorithm, &digest), ImaValue::Name(name), ImaValue::Raw(buffer)];
        self.entry("ima-buf", &values);
    }

    /// Adds an entry of any template but `ima`.
    pub fn entry(&mut self, template: &str, values: &[ImaValue<'_>]) {
        let data = self.data(values);
        let digests = self.digests(&[&data]);
        self.put(template, &digests, Some(&data), &[]);
    }

    /// Adds a violation of a file, in the template `ima-ng`.
    pub fn violation(&mut self, name: &str) {
        let data = self.data(&[ImaValue::Digest("sha1", &[0; 20]), ImaValue::Name(name)]);
        let digests: Vec<Vec<u8>> = self.pcrs.iter().map(|pcr| vec![0xff; pcr.len()]).collect();
        self.put("ima-ng", &digests, Some(&data), &[]);
        // In the list zeros stand for it.
        let start = self.ends.iter().rev().nth(1).copied().unwrap_or(0) + 4;
        let size = hash(self.kernel.recorded, &[]).len();
        self.bytes[start..start + size].fill(0);
    }

    /// Adds an entry of the template `ima`.
    fn original(&mut self, digest: &[u8], name: &str) {
        let padded = [name.as_bytes(), &vec![0; 256 - name.len()]].concat();
        let digests = self.digests(&[digest, &padded]);
        let tail = [digest, &self.number(name.len()), name.as_bytes()].concat();
        self.put("ima", &digests, None, &tail);
    }

    /// Template digest for each bank.
    fn digests(&self, parts: &[&[u8]]) -> Vec<Vec<u8>> {
        BANKS
            .iter()
            .map(|bank| {
                if self.kernel.is_padding {
                    let mut digest = hash("sha1", parts);
                    digest.resize(hash(bank, &[]).len(), 0);
                    digest
                } else {
                    hash(bank, parts)
                }
            })
            .collect()
    }

    fn put(&mut self, template: &str, digests: &[Vec<u8>], data: Option<&[u8]>, tail: &[u8]) {
        let recorded = BANKS.iter().position(|bank| *bank == self.kernel.recorded).expect("a bank");
        let pcr = self.number(self.kernel.pcr as usize);
        self.bytes.extend_from_slice(&pcr);
        self.bytes.extend_from_slice(&digests[recorded]);
        self.sized(template.as_bytes());
        if let Some(data) = data {
            self.sized(data);
        }
        self.bytes.extend_from_slice(tail);
        self.ends.push(self.bytes.len());
        for ((bank, pcr), digest) in BANKS.iter().zip(&mut self.pcrs).zip(digests) {
            *pcr = hash(bank, &[pcr, digest]);
        }
        self.history.push(self.pcrs.clone());
        self.extended.push(digests.to_vec());
    }

    fn sized(&mut self, bytes: &[u8]) {
        let length = self.number(bytes.len());
        self.bytes.extend_from_slice(&length);
        self.bytes.extend_from_slice(bytes);
    }

    fn data(&self, values: &[ImaValue<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        for value in values {
            let bytes = match value {
                ImaValue::Raw(bytes) => bytes.to_vec(),
                ImaValue::Name(name) => [name.as_bytes(), &[0]].concat(),
                ImaValue::Digest(algorithm, digest) => {
                    [algorithm.as_bytes(), b":\0", digest].concat()
                }
                ImaValue::U32(number) if self.kernel.is_big_endian => number.to_be_bytes().to_vec(),
                ImaValue::U32(number) => number.to_le_bytes().to_vec(),
                ImaValue::U16(number) if self.kernel.is_big_endian => number.to_be_bytes().to_vec(),
                ImaValue::U16(number) => number.to_le_bytes().to_vec(),
            };
            out.extend_from_slice(&self.number(bytes.len()));
            out.extend_from_slice(&bytes);
        }
        out
    }

    fn number(&self, value: usize) -> [u8; 4] {
        let value = u32::try_from(value).expect("a length of a list");
        if self.kernel.is_big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }
}

/// Hash of the concatenation of `parts`, by the algorithm's name.
#[must_use]
pub fn hash(algorithm: &str, parts: &[&[u8]]) -> Vec<u8> {
    let algorithm: &'static Algorithm = match algorithm {
        "sha1" => &SHA1_FOR_LEGACY_USE_ONLY,
        "sha256" => &SHA256,
        "sha384" => &SHA384,
        "sha512" => &SHA512,
        other => panic!("no algorithm {other}"),
    };
    let mut context = Context::new(algorithm);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().to_vec()
}
