//! `TCG_PCClientTaggedEvent`: events of operating systems and their stubs.

use super::reader::{DataError, LeReader};

/// Tag of the Linux EFI stub for an initial RAM disk (PCR 9). The digest is over the disk.
pub const LINUX_INITRD: u32 = 0x8F3B_22EC;
/// Tag of the Linux EFI stub for its command line (PCR 9). The digest is over the options, UCS-2.
pub const LINUX_LOAD_OPTIONS: u32 = 0x8F3B_22ED;
/// Tag of systemd-boot for its configuration (PCR 5).
pub const SYSTEMD_LOADER_CONF: u32 = 0xF5BC_582A;
/// Tag of systemd-stub for device tree add-ons (PCR 12).
pub const SYSTEMD_DEVICETREE_ADDON: u32 = 0x6C46_F751;
/// Tag of systemd-stub for initrd add-ons (PCR 12).
pub const SYSTEMD_INITRD_ADDON: u32 = 0x49DF_FE0F;
/// Tag of systemd-stub for microcode add-ons (PCR 12).
pub const SYSTEMD_UCODE_ADDON: u32 = 0xDAC0_8E1A;
/// Tag of systemd-stub for the UKI profile (PCR 12).
pub const SYSTEMD_UKI_PROFILE: u32 = 0x3CF1_17AB;

/// A tagged event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaggedEvent<'a> {
    /// What it is.
    pub tag: u32,
    /// Its data.
    pub data: &'a [u8],
}

impl<'a> TaggedEvent<'a> {
    /// Reads an event's data.
    ///
    /// # Errors
    /// [`DataError`] if the declared size leaves the data.
    pub fn read(bytes: &'a [u8]) -> Result<Self, DataError> {
        let mut reader = LeReader::new(bytes);
        let tag = reader.u32("tag")?;
        let size = reader.u32("tagged data")?;
        Ok(Self { tag, data: reader.bytes_u64(size.into(), "tagged data")? })
    }

    /// What the tag means, for people.
    #[must_use]
    pub const fn describe(tag: u32) -> Option<&'static str> {
        match tag {
            LINUX_INITRD => Some("initial RAM disk"),
            LINUX_LOAD_OPTIONS => Some("kernel command line"),
            SYSTEMD_LOADER_CONF => Some("boot loader configuration"),
            SYSTEMD_DEVICETREE_ADDON => Some("device tree add-on"),
            SYSTEMD_INITRD_ADDON => Some("initrd add-on"),
            SYSTEMD_UCODE_ADDON => Some("microcode add-on"),
            SYSTEMD_UKI_PROFILE => Some("kernel image profile"),
            _ => None,
        }
    }
}
