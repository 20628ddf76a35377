//! A kernel that is started through its own EFI stub: what it is measured as, and what it measures.
//!
//! # Source
//! Linux, `drivers/firmware/efi/libstub/efi-stub-helper.c` (`EV_EVENT_TAG` in PCR 9: the initrd from 5.17 on, LoadOptions
//! from 6.1 on); Linux, "The Linux/x86 Boot Protocol"; systemd, `src/boot/efi/measure.c` (`tpm_log_load_options`), PCR 12.

use proto::digest::HashAlg;

use super::{
    artifact::{ArtifactError, application},
    measured::{INITRD_PCR, Measured, OPTIONS_PCR, Role},
    pe::{Image, MAX_IMAGE_BYTES},
};

/// Longest command line: the kernel itself takes 2048 characters on x86, 65 536 at most elsewhere.
pub const MAX_COMMAND_LINE_BYTES: usize = 64 * 1024;

/// First kernel that measures its initrd.
const MEASURES_INITRD: (u32, u32) = (5, 17);
/// First kernel that measures its load options.
const MEASURES_OPTIONS: (u32, u32) = (6, 1);

/// A kernel with what is handed to it.
#[derive(Clone, Copy, Debug)]
pub struct Kernel<'a> {
    /// The kernel's file, an image with an EFI stub.
    pub image: &'a [u8],
    /// The initrd; several files one behind the other, as the boot loader hands them over.
    pub initrd: Option<&'a [u8]>,
    /// LoadOptions: exactly the text, with `initrd=` where the boot loader puts it there.
    pub command_line: &'a str,
}

impl Kernel<'_> {
    pub(super) fn measured(&self, banks: &[HashAlg]) -> Result<Vec<Measured>, ArtifactError> {
        limit("the command line", self.command_line.len(), MAX_COMMAND_LINE_BYTES)?;
        limit("the initrd", self.initrd.map_or(0, <[u8]>::len), MAX_IMAGE_BYTES)?;
        let image = Image::parse(self.image)?;
        let mut out = vec![application(&image, Role::Application(0), "boot application", banks)];
        // With its terminator, here and there: systemd-boot measures all that it allocated, whatever its documentation
        // says of terminators.
        let mut text = ucs2(self.command_line);
        text.extend([0, 0]);
        let words = format!("kernel command line {:?}", self.command_line);
        let place = (OPTIONS_PCR, Role::Options);
        out.push(Measured::new(place, words, banks, |bank| bank.hash(&[&text])));
        let place = (INITRD_PCR, Role::KernelFile);
        let words = "file read by the boot loader";
        out.push(Measured::new(place, words, banks, |bank| bank.hash(&[self.image])));
        let version = Version::of(self.image);
        if version.measures_options() {
            out.push(options(&text, banks));
        }
        if let Some(bytes) = self.initrd.filter(|_| version.measures_initrd()) {
            out.push(initrd(&[bytes], banks));
        }
        Ok(out)
    }
}

fn limit(what: &'static str, len: usize, limit: usize) -> Result<(), ArtifactError> {
    if len > limit { Err(ArtifactError::TooLarge { what, len, limit }) } else { Ok(()) }
}

/// Little-endian, without terminator.
pub(super) fn ucs2(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// The event of LoadOptions, all `LoadOptionsSize` bytes: with the terminator.
pub(super) fn options(load_options: &[u8], banks: &[HashAlg]) -> Measured {
    let place = (INITRD_PCR, Role::LoadOptions);
    Measured::new(place, "kernel command line", banks, |bank| bank.hash(&[load_options]))
}

/// The event of the initrd, in as many pieces as it comes.
pub(super) fn initrd(pieces: &[&[u8]], banks: &[HashAlg]) -> Measured {
    let place = (INITRD_PCR, Role::Initrd);
    Measured::new(place, "initial RAM disk", banks, |bank| bank.hash(pieces))
}

/// Version of a kernel, where its file says one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version(Option<(u32, u32)>);

impl Version {
    /// Reads `kernel_version` of the x86 boot protocol. Other processors' kernels say nothing before they are unpacked.
    pub(super) fn of(kernel: &[u8]) -> Self {
        Self(read_version(kernel))
    }

    /// Without a version: yes, as every kernel since 2022.
    pub(super) fn measures_options(self) -> bool {
        self.0.is_none_or(|version| version >= MEASURES_OPTIONS)
    }

    /// Without a version: yes.
    pub(super) fn measures_initrd(self) -> bool {
        self.0.is_none_or(|version| version >= MEASURES_INITRD)
    }
}

fn read_version(kernel: &[u8]) -> Option<(u32, u32)> {
    const HEADER: usize = 0x202;
    const VERSION_TEXT: usize = 0x20e;
    const TEXT_BYTES: usize = 32;
    if kernel.get(HEADER..HEADER + 4)? != b"HdrS" {
        return None;
    }
    let field = kernel.get(VERSION_TEXT..VERSION_TEXT + 2)?;
    let at = usize::from(u16::from_le_bytes(field.try_into().ok()?)).checked_add(0x200)?;
    let text = kernel.get(at..at.checked_add(TEXT_BYTES)?)?;
    let mut numbers = text
        .split(|byte| !byte.is_ascii_digit())
        .map(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}
