//! Events in words, for people. From types and data that no digest may cover: never a fact.

use proto::{
    digest::PcrIndex,
    eventlog::{
        EventType, device_path,
        firmware::{FirmwareBlob, HandoffTables, ImageLoad},
        load_option::LoadOption,
        no_action::NoAction,
        spdm::DeviceSecurityEvent,
        tagged::TaggedEvent,
        text,
        variable::VariableData,
    },
};

use super::vouch::split_label;

/// Longest text that is quoted.
const MAX_QUOTED_CHARS: usize = 512;

/// An event in words such as "kernel command line", "Secure Boot variable db" or "boot application
/// \EFI\BOOT\BOOTX64.EFI".
#[must_use]
pub fn describe(pcr: Option<PcrIndex>, kind: EventType, data: &[u8]) -> String {
    match kind {
        EventType::NO_ACTION => no_action(data),
        EventType::SEPARATOR => "separator".to_owned(),
        EventType::ACTION | EventType::EFI_ACTION => quoted("action", data),
        EventType::S_CRTM_CONTENTS => quoted("root of trust's code", data),
        EventType::S_CRTM_VERSION => quoted("root of trust's version", data),
        EventType::EFI_HCRTM_EVENT => "hardware root of trust's measurement".to_owned(),
        EventType::POST_CODE => firmware_code(data, FirmwareBlob::read(data).ok()),
        EventType::POST_CODE2 | EventType::EFI_PLATFORM_FIRMWARE_BLOB2 => {
            firmware_code(data, FirmwareBlob::read2(data).ok())
        }
        EventType::EFI_PLATFORM_FIRMWARE_BLOB => firmware_code(data, FirmwareBlob::read(data).ok()),
        EventType::EFI_HANDOFF_TABLES => tables(HandoffTables::read(data).ok()),
        EventType::EFI_HANDOFF_TABLES2 => tables(HandoffTables::read2(data).ok()),
        EventType::CPU_MICROCODE => quoted("microcode", data),
        EventType::PLATFORM_CONFIG_FLAGS => quoted("platform configuration", data),
        EventType::TABLE_OF_DEVICES => "table of devices".to_owned(),
        EventType::NONHOST_CODE | EventType::NONHOST_CONFIG | EventType::NONHOST_INFO => {
            quoted("management controller", data)
        }
        EventType::EFI_VARIABLE_DRIVER_CONFIG => variable("firmware variable", data),
        EventType::EFI_VARIABLE_BOOT | EventType::EFI_VARIABLE_BOOT2 => boot_variable(data),
        EventType::EFI_VARIABLE_AUTHORITY => variable("authority from", data),
        EventType::EFI_BOOT_SERVICES_APPLICATION => image("boot application", data),
        EventType::EFI_BOOT_SERVICES_DRIVER => image("boot driver", data),
        EventType::EFI_RUNTIME_SERVICES_DRIVER => image("runtime driver", data),
        EventType::EFI_GPT_EVENT | EventType::EFI_GPT_EVENT2 => "partition table".to_owned(),
        EventType::EVENT_TAG => tagged(data),
        EventType::IPL => loader(pcr, data),
        EventType::EFI_SPDM_FIRMWARE_BLOB | EventType::EFI_SPDM_FIRMWARE_CONFIG => {
            match DeviceSecurityEvent::read(data) {
                Ok(_) => "device measured by SPDM".to_owned(),
                Err(_) => "device event".to_owned(),
            }
        }
        EventType::EFI_SPDM_DEVICE_POLICY => variable("device authentication variable", data),
        EventType::EFI_SPDM_DEVICE_AUTHORITY => variable("device authority from", data),
        other => quoted(&other.to_string(), data),
    }
}

/// `what "text"` where the data is text, else `what`.
pub(super) fn quoted(what: &str, data: &[u8]) -> String {
    match text::any_printable(data) {
        Some(text) => format!("{what} \"{}\"", cut(&text)),
        None => what.to_owned(),
    }
}

fn cut(text: &str) -> String {
    let mut out: String = text.chars().take(MAX_QUOTED_CHARS).collect();
    if out.len() < text.len() {
        out.push('…');
    }
    out
}

fn no_action(data: &[u8]) -> String {
    match NoAction::read(data) {
        NoAction::SpecId => "format of the log".to_owned(),
        NoAction::StartupLocality(locality) => format!("TPM started from locality {locality}"),
        NoAction::Sp800_155 { reference_manifest, .. } => {
            format!("reference manifest {reference_manifest}")
        }
        NoAction::NvIndex => "NV index".to_owned(),
        NoAction::Hcrtm => "hardware root of trust's component".to_owned(),
        _ => "information".to_owned(),
    }
}

fn firmware_code(data: &[u8], blob: Option<FirmwareBlob<'_>>) -> String {
    match blob {
        Some(blob) => {
            let place = format!("{} bytes at {:#x}", blob.len_bytes, blob.base);
            match text::any_printable(blob.description) {
                Some(name) => format!("firmware code \"{}\", {place}", cut(&name)),
                None => format!("firmware code, {place}"),
            }
        }
        None => quoted("firmware code", data),
    }
}

fn tables(tables: Option<HandoffTables<'_>>) -> String {
    match tables {
        Some(tables) => match text::any_printable(tables.description) {
            Some(name) => format!("firmware tables \"{}\"", cut(&name)),
            None => format!("firmware tables ({})", tables.tables.len()),
        },
        None => "firmware tables".to_owned(),
    }
}

fn variable(what: &str, data: &[u8]) -> String {
    match VariableData::read(data) {
        Ok(variable) => format!("{what} {}", cut(&variable.name_text())),
        Err(_) => what.to_owned(),
    }
}

fn boot_variable(data: &[u8]) -> String {
    let Ok(read) = VariableData::read(data) else { return "boot variable".to_owned() };
    let name = cut(&read.name_text());
    match LoadOption::read(read.data) {
        Ok(option) if name != "BootOrder" => {
            format!("boot entry {name} \"{}\"", cut(&option.description))
        }
        _ => format!("boot variable {name}"),
    }
}

fn image(what: &str, data: &[u8]) -> String {
    let Ok(load) = ImageLoad::read(data) else { return what.to_owned() };
    let path = device_path::file(load.path).unwrap_or_else(|| device_path::show(load.path));
    if path.is_empty() { what.to_owned() } else { format!("{what} {path}") }
}

fn tagged(data: &[u8]) -> String {
    match TaggedEvent::read(data) {
        Ok(event) => match TaggedEvent::describe(event.tag) {
            Some(what) => what.to_owned(),
            None => format!("tagged event {:#010x}", event.tag),
        },
        Err(_) => "tagged event".to_owned(),
    }
}

/// What boot loaders measure: which one it was is told by the PCR and the text.
fn loader(pcr: Option<PcrIndex>, data: &[u8]) -> String {
    let pcr = pcr.map(PcrIndex::get);
    if let (Some(11), Some(section)) = (pcr, text::any_printable(data)) {
        return format!("kernel image section {}", cut(&section));
    }
    if pcr == Some(12) {
        return quoted("kernel command line", data);
    }
    if pcr == Some(14) {
        return quoted("shim variable", data);
    }
    if let Some((label, rest)) = split_label(data) {
        match label {
            b"kernel_cmdline" | b"grub_kernel_cmdline" => {
                return quoted("kernel command line", rest);
            }
            b"grub_cmd" => return quoted("boot loader command", rest),
            b"module_cmdline" => return quoted("module command line", rest),
            _ => {}
        }
    }
    if pcr == Some(9) {
        return quoted("file read by the boot loader", data);
    }
    if pcr == Some(8) {
        return quoted("kernel command line", data);
    }
    quoted("boot loader", data)
}
