//! systemd-stub: which sections a version measures, and what it hands to the kernel.
//!
//! # Source
//! UAPI Group, "Unified Kernel Image", UKI TPM PCR Measurements; systemd-stub(7); systemd's "TPM2 PCR Measurements Made
//! by systemd".

use super::{artifact::ArtifactError, pe::Image};

/// First version that measures each section by name and content into PCR 11.
pub(super) const FIRST: u16 = 252;
/// First version that also hands `.osrel` and `.profile` to the kernel, as archives.
///
/// # Source
/// systemd pull request 34338.
const HANDS_OVER_MORE: u16 = 257;
/// First version that starts the kernel itself, unless shim is there to load it; what firmware measures then was not
/// seen here.
///
/// # Source
/// systemd pull request 37372.
const OTHER_KERNEL_LOADER: u16 = 258;
/// The newest version that this was written against.
pub(super) const NEWEST: u16 = 258;

/// Sections that are measured, in their order, with the first version that does. `.pcrsig` is never: it signs the
/// values that come out.
const MEASURED: [(&str, u16); 10] = [
    (".linux", FIRST),
    (".osrel", FIRST),
    (".cmdline", FIRST),
    (".initrd", FIRST),
    (".ucode", 256),
    (".splash", FIRST),
    (".dtb", FIRST),
    (".uname", 254),
    (".sbat", 254),
    (".pcrpkey", FIRST),
];
/// Sections of which the stub takes those that fit the machine, or the profile that was chosen; from 257 on.
const CHOSEN: [&str; 4] = [".profile", ".dtbauto", ".hwids", ".efifw"];
const CHOOSES: u16 = 257;

/// Version of a stub, by what it says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stub(pub(super) u16);

impl Stub {
    /// Reads `.sdmagic`: `#### LoaderInfo: systemd-stub 252.39-1 ####`.
    pub(super) fn of(image: &Image<'_>) -> Result<Self, ArtifactError> {
        let section = image.section(".sdmagic")?.ok_or(ArtifactError::NoStub)?;
        let text = section.loaded()?.to_vec();
        let text = String::from_utf8_lossy(&text);
        let (_, version) = text.split_once("systemd-stub ").ok_or(ArtifactError::NoStub)?;
        let digits = version.split(|letter: char| !letter.is_ascii_digit()).next();
        let version = digits.and_then(|digits| digits.parse().ok()).ok_or(ArtifactError::NoStub)?;
        if version < FIRST {
            return Err(ArtifactError::OldStub { version });
        }
        Ok(Self(version))
    }

    /// Names of the sections that it measures, in order.
    pub(super) fn measured(self) -> impl Iterator<Item = &'static str> {
        MEASURED.into_iter().filter(move |(_, first)| self.0 >= *first).map(|(name, _)| name)
    }

    /// Names of the sections that it measures if they fit.
    pub(super) fn chosen(self) -> impl Iterator<Item = &'static str> {
        CHOSEN.into_iter().filter(move |_| self.0 >= CHOOSES)
    }

    pub(super) const fn hands_over_more(self) -> bool {
        self.0 >= HANDS_OVER_MORE
    }

    pub(super) const fn may_load_kernel_itself(self) -> bool {
        self.0 >= OTHER_KERNEL_LOADER
    }
}
