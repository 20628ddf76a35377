//! What an artifact makes a boot measure: digests with their place in the chain.

use std::collections::BTreeMap;

use proto::digest::{Digest, HashAlg};

/// Firmware, shim, systemd-boot: images, by Authenticode digest.
pub(super) const APPLICATIONS_PCR: u8 = 4;
/// The kernel's EFI stub: load options and initrd. GRUB: every file that it reads.
pub(super) const INITRD_PCR: u8 = 9;
/// systemd-stub: the sections of its image; systemd: the phases of the boot.
pub(super) const SECTIONS_PCR: u8 = 11;
/// systemd-boot and systemd-stub: command lines from outside of the image, credentials.
pub(super) const OPTIONS_PCR: u8 = 12;

/// Part that an event plays in a boot. Old and new artifact play the same parts, so that one's event takes the place
/// of the other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// An image of the chain, counted from the first that the update is about.
    Application(usize),
    /// The kernel inside of a unified kernel image, where its stub has firmware load it.
    InnerKernel,
    /// The name of a section.
    SectionName(&'static str),
    /// A section.
    Section(&'static str),
    /// Options handed to the kernel.
    LoadOptions,
    /// Initial RAM disk handed to the kernel.
    Initrd,
    /// The kernel's file, read by GRUB.
    KernelFile,
    /// A command line that systemd-boot was told.
    Options,
}

/// Why a digest cannot be computed from the artifact alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unknown {
    /// The machine's PCR 12 or 13 has events.
    #[error(
        "something from outside of the image (PCR 12 or 13) is merged with it: give the old image, or capture"
    )]
    Outside,
    /// The command line has what versions of systemd-stub treat in different ways.
    #[error(
        "versions of systemd-stub pass this command line on in different ways: use printable ASCII without spaces at its ends"
    )]
    CommandLine,
    /// The stub adds archives of its own to the initrd.
    #[error("systemd-stub {version} adds files of its own to the initrd: capture")]
    GeneratedInitrd {
        /// Of the stub.
        version: u16,
    },
    /// Not every version has firmware load the kernel.
    #[error(
        "it is not known whether systemd-stub {version} has firmware measure the kernel inside: capture"
    )]
    KernelLoader {
        /// Of the stub.
        version: u16,
    },
    /// The stub chooses sections by the machine.
    #[error("section {section} depends on the machine and on the profile that is chosen: capture")]
    DependsOnMachine {
        /// The section.
        section: &'static str,
    },
}

/// One event.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) pcr: u8,
    pub(super) role: Role,
    pub(super) what: String,
    digests: Result<BTreeMap<HashAlg, Digest>, Unknown>,
}

impl Measured {
    pub(super) fn new(
        (pcr, role): (u8, Role),
        what: impl Into<String>,
        banks: &[HashAlg],
        hash: impl Fn(HashAlg) -> Digest,
    ) -> Self {
        let digests = banks.iter().map(|bank| (*bank, hash(*bank))).collect();
        Self { pcr, role, what: what.into(), digests: Ok(digests) }
    }

    pub(super) fn unknown(
        (pcr, role): (u8, Role),
        what: impl Into<String>,
        unknown: Unknown,
    ) -> Self {
        Self { pcr, role, what: what.into(), digests: Err(unknown) }
    }

    /// Its digest in a bank that was asked for.
    pub(super) fn digest(&self, bank: HashAlg) -> Result<Option<Digest>, Unknown> {
        self.digests.as_ref().map(|digests| digests.get(&bank).copied()).map_err(Clone::clone)
    }

    pub(super) fn is(&self, bank: HashAlg, digest: &Digest) -> bool {
        self.digests.as_ref().is_ok_and(|digests| digests.get(&bank) == Some(digest))
    }

    /// The same event where something from outside may have been merged in.
    pub(super) fn forget(&mut self) {
        self.digests = Err(Unknown::Outside);
    }
}
