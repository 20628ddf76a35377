//! What a unified kernel image has measured behind the firmware: by systemd-stub, and by the kernel inside.
//!
//! # Source
//! systemd-stub(7), "TPM PCR Notes", version 252; Linux EFI stub for PCR 9.

use super::{Event, event_type, handed_over, image_load, section, utf16_terminated};
use crate::efi::Program;

/// Sections that systemd-stub 252 measures, in its order.
const MEASURED: [&str; 4] = [".linux", ".osrel", ".cmdline", ".initrd"];

/// Its events behind that of its own start.
pub(super) fn events(image: &Program, secure_boot: bool) -> Vec<Event> {
    let content = |name| image.section(name).filter(|content| !content.is_empty());
    let mut out: Vec<Event> = MEASURED
        .into_iter()
        .filter_map(|name| Some(section(name, content(name)?)))
        .flatten()
        .collect();
    // With Secure Boot the stub stands in for firmware's check of the kernel inside, and with it for its measurement.
    let kernel = content(".linux").filter(|_| !secure_boot);
    if let Some(kernel) = kernel.and_then(|bytes| Program::parse(bytes.to_vec()).ok()) {
        let kind = event_type::EFI_BOOT_SERVICES_APPLICATION;
        out.push(image_load(4, kind, &kernel.hashed()));
    }
    let command_line = content(".cmdline").unwrap_or_default();
    let command_line = utf16_terminated(&String::from_utf8_lossy(command_line));
    out.extend(handed_over(&command_line, content(".initrd").unwrap_or_default()));
    out
}
