//! Small images for tests, with every field that the parser reads.

const PE_AT: usize = 0x40;
const OPTIONAL_LEN: usize = 112 + 16 * 8;
const HEADERS_LEN: usize = 0x400;
const FILE_ALIGNMENT: usize = 0x200;

/// An image under construction.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    sections: Vec<(&'static str, Vec<u8>)>,
    certificates: Vec<u8>,
    trailing: Vec<u8>,
}

impl Sample {
    /// A unified kernel image by systemd-stub of this version.
    pub(super) fn uki(version: &str, kernel: &Self) -> Self {
        let magic = format!("#### LoaderInfo: systemd-stub {version} ####\0");
        Self::default()
            .section(".text", b"stub")
            .section(".sdmagic", magic.as_bytes())
            .section(".linux", &kernel.build())
    }

    pub(super) fn section(mut self, name: &'static str, content: &[u8]) -> Self {
        self.sections.retain(|(known, _)| *known != name);
        self.repeated(name, content)
    }

    pub(super) fn repeated(mut self, name: &'static str, content: &[u8]) -> Self {
        self.sections.push((name, content.to_vec()));
        self
    }

    pub(super) fn signed(mut self, certificates: &[u8]) -> Self {
        self.certificates = certificates.to_vec();
        self
    }

    pub(super) fn trailing(mut self, bytes: &[u8]) -> Self {
        self.trailing = bytes.to_vec();
        self
    }

    pub(super) fn build(&self) -> Vec<u8> {
        let mut out = vec![0; HEADERS_LEN];
        put(&mut out, 0, b"MZ");
        put(&mut out, 0x3c, &word(PE_AT));
        put(&mut out, PE_AT, b"PE\0\0");
        put(&mut out, PE_AT + 4, &0x8664_u16.to_le_bytes());
        put(&mut out, PE_AT + 6, &half(self.sections.len()));
        put(&mut out, PE_AT + 20, &half(OPTIONAL_LEN));
        let optional = PE_AT + 24;
        put(&mut out, optional, &0x20b_u16.to_le_bytes());
        put(&mut out, optional + 44, &half(1));
        put(&mut out, optional + 60, &word(HEADERS_LEN));
        put(&mut out, optional + 64, &[0xc5; 4]);
        put(&mut out, optional + 108, &word(16));
        for (index, (name, content)) in self.sections.iter().enumerate() {
            let at = optional + OPTIONAL_LEN + index * 40;
            put(&mut out, at, name.as_bytes());
            put(&mut out, at + 8, &word(content.len()));
            let start = out.len();
            out.extend(content);
            out.resize(out.len().next_multiple_of(FILE_ALIGNMENT), 0);
            let raw = out.len() - start;
            put(&mut out, at + 16, &word(raw));
            put(&mut out, at + 20, &word(start));
        }
        out.extend(&self.trailing);
        if !self.certificates.is_empty() {
            let directory = optional + 112 + 4 * 8;
            let start = out.len();
            put(&mut out, directory, &word(start));
            put(&mut out, directory + 4, &word(self.certificates.len()));
            out.extend(&self.certificates);
        }
        out
    }
}

pub(super) fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

fn word(value: usize) -> [u8; 4] {
    u32::try_from(value).expect("a small image").to_le_bytes()
}

fn half(value: usize) -> [u8; 2] {
    u16::try_from(value).expect("a small image").to_le_bytes()
}
