//! Types of events, by number and name.

use std::fmt;

/// The type that a log claims for an event. It is not under the event's digest.
///
/// # Source
/// TCG PC Client Platform Firmware Profile, "Event Types".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventType(pub u32);

macro_rules! event_types {
    ($($name:ident $value:literal $text:literal $doc:literal;)*) => {
        impl EventType {
            $(#[doc = $doc] pub const $name: Self = Self($value);)*

            /// Every type with a name.
            pub const NAMED: &'static [Self] = &[$(Self::$name,)*];

            /// The name in the specification, if it has one.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

event_types! {
    PREBOOT_CERT 0x00 "EV_PREBOOT_CERT" "Reserved.";
    POST_CODE 0x01 "EV_POST_CODE" "Firmware code in PCR 0.";
    UNUSED 0x02 "EV_UNUSED" "Not used.";
    NO_ACTION 0x03 "EV_NO_ACTION" "Information; never extended.";
    SEPARATOR 0x04 "EV_SEPARATOR" "Ends the pre-boot part of a PCR.";
    ACTION 0x05 "EV_ACTION" "A text that names an action.";
    EVENT_TAG 0x06 "EV_EVENT_TAG" "A tagged event of an operating system.";
    S_CRTM_CONTENTS 0x07 "EV_S_CRTM_CONTENTS" "The static root of trust's code.";
    S_CRTM_VERSION 0x08 "EV_S_CRTM_VERSION" "The static root of trust's version.";
    CPU_MICROCODE 0x09 "EV_CPU_MICROCODE" "Microcode.";
    PLATFORM_CONFIG_FLAGS 0x0A "EV_PLATFORM_CONFIG_FLAGS" "Platform configuration.";
    TABLE_OF_DEVICES 0x0B "EV_TABLE_OF_DEVICES" "Devices of the platform.";
    COMPACT_HASH 0x0C "EV_COMPACT_HASH" "A hash by TCG_CompactHashLogExtendEvent.";
    IPL 0x0D "EV_IPL" "Boot loaders: GRUB, shim, systemd-boot, systemd-stub.";
    IPL_PARTITION_DATA 0x0E "EV_IPL_PARTITION_DATA" "Partition table of a BIOS boot.";
    NONHOST_CODE 0x0F "EV_NONHOST_CODE" "Code of a management controller.";
    NONHOST_CONFIG 0x10 "EV_NONHOST_CONFIG" "Configuration of a management controller.";
    NONHOST_INFO 0x11 "EV_NONHOST_INFO" "Presence of a management controller.";
    OMIT_BOOT_DEVICE_EVENTS 0x12 "EV_OMIT_BOOT_DEVICE_EVENTS" "Boot devices are not measured.";
    POST_CODE2 0x13 "EV_POST_CODE2" "Firmware code in PCR 0, described.";
    EFI_VARIABLE_DRIVER_CONFIG 0x8000_0001 "EV_EFI_VARIABLE_DRIVER_CONFIG" "A configuration variable.";
    EFI_VARIABLE_BOOT 0x8000_0002 "EV_EFI_VARIABLE_BOOT" "A boot variable.";
    EFI_BOOT_SERVICES_APPLICATION 0x8000_0003 "EV_EFI_BOOT_SERVICES_APPLICATION" "A boot application's image.";
    EFI_BOOT_SERVICES_DRIVER 0x8000_0004 "EV_EFI_BOOT_SERVICES_DRIVER" "A boot driver's image, option ROMs among them.";
    EFI_RUNTIME_SERVICES_DRIVER 0x8000_0005 "EV_EFI_RUNTIME_SERVICES_DRIVER" "A runtime driver's image.";
    EFI_GPT_EVENT 0x8000_0006 "EV_EFI_GPT_EVENT" "Partition table.";
    EFI_ACTION 0x8000_0007 "EV_EFI_ACTION" "A text that names an action of UEFI firmware.";
    EFI_PLATFORM_FIRMWARE_BLOB 0x8000_0008 "EV_EFI_PLATFORM_FIRMWARE_BLOB" "Firmware code.";
    EFI_HANDOFF_TABLES 0x8000_0009 "EV_EFI_HANDOFF_TABLES" "Tables such as SMBIOS.";
    EFI_PLATFORM_FIRMWARE_BLOB2 0x8000_000A "EV_EFI_PLATFORM_FIRMWARE_BLOB2" "Firmware code, described.";
    EFI_HANDOFF_TABLES2 0x8000_000B "EV_EFI_HANDOFF_TABLES2" "Tables such as SMBIOS, described.";
    EFI_VARIABLE_BOOT2 0x8000_000C "EV_EFI_VARIABLE_BOOT2" "A boot variable, measured with its name.";
    EFI_GPT_EVENT2 0x8000_000D "EV_EFI_GPT_EVENT2" "Partition table.";
    EFI_HCRTM_EVENT 0x8000_0010 "EV_EFI_HCRTM_EVENT" "The hardware root of trust's measurement.";
    EFI_VARIABLE_AUTHORITY 0x8000_00E0 "EV_EFI_VARIABLE_AUTHORITY" "The entry that authorised an image.";
    EFI_SPDM_FIRMWARE_BLOB 0x8000_00E1 "EV_EFI_SPDM_FIRMWARE_BLOB" "A device's firmware, by SPDM.";
    EFI_SPDM_FIRMWARE_CONFIG 0x8000_00E2 "EV_EFI_SPDM_FIRMWARE_CONFIG" "A device's configuration, by SPDM.";
    EFI_SPDM_DEVICE_POLICY 0x8000_00E3 "EV_EFI_SPDM_DEVICE_POLICY" "Device authentication's databases.";
    EFI_SPDM_DEVICE_AUTHORITY 0x8000_00E4 "EV_EFI_SPDM_DEVICE_AUTHORITY" "The entry that authenticated a device.";
}

impl fmt::Debug for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The specification's name, else the number.
impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#010x}", self.0),
        }
    }
}
