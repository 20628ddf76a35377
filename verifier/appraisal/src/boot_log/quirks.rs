//! What real firmware and boot loaders do differently from the specification, by name.
//!
//! Each is tolerated for a reason, and shown by a public log. A quirk is told to people; none of them weakens a fact:
//! where a quirk leaves something unproven, the fact says so.

use serde::{Deserialize, Serialize};

macro_rules! quirks {
    ($($variant:ident $name:literal $log:literal $summary:literal;)*) => {
        /// A deviation that is tolerated.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Quirk {
            $(#[doc = $summary] #[serde(rename = $name)] $variant,)*
        }

        impl Quirk {
            /// Every quirk.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its stable name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What is done differently, one sentence.
            #[must_use]
            pub const fn summary(self) -> &'static str {
                match self { $(Self::$variant => $summary,)* }
            }

            /// A public log that shows it (file in the collection of test vectors).
            #[must_use]
            pub const fn shown_by(self) -> &'static str {
                match self { $(Self::$variant => $log,)* }
            }
        }
    };
}

quirks! {
    AuthorityShortByOne "authority_short_by_one" "google+go-attestation/eventlogs/sb_cert_eventlog"
        "shim measures an authority without the last byte of what it logs, and logs six bytes too many.";
    CallInPcr5 "call_in_pcr_5" "google+go-attestation/eventlogs/option_rom_eventlog"
        "Firmware tells PCR 5 instead of PCR 4 that it calls the boot option, so that the order of the two is not proven.";
    CrtmVersionNotVouched "crtm_version_not_vouched" "google+go-tpm-tools/eventlogs/gdc-host.bin"
        "The digest of the root of trust's version is not over the version in the log.";
    EarlyApplication "early_application" "google+go-tpm-tools/eventlogs/gdc-host.bin"
        "Firmware runs an application of its own before it calls the boot option.";
    ExitNotLogged "exit_not_logged" "google+go-attestation/eventlogs/ebs_event_missing_eventlog"
        "The kernel keeps a log that ends before the firmware is left; the two events are known and explain PCR 5.";
    ImagePathCut "image_path_cut" "google+go-attestation/eventlogs/sb_cert_eventlog"
        "shim logs an image without address, size and device path.";
    LoaderTextOnly "loader_text_only" "tpm2-software+tpm2-tools/eventlogs/event-bootorder.bin"
        "GRUB measures the text of a command and logs it with a word before that is not measured.";
    LoaderTextTerminated "loader_text_terminated" "google+go-tpm-tools/eventlogs/rhel8-uefi.bin"
        "GRUB of RHEL 8 does the same and measures the terminator too.";
    SecureBootEmpty "secure_boot_empty" "google+go-tpm-tools/eventlogs/arch-linux-workstation.bin"
        "Firmware measures the variable SecureBoot without content, as if it did not exist.";
    TextShortByOne "text_short_by_one" "google+go-tpm-tools/eventlogs/arch-linux-workstation.bin"
        "systemd-boot logs its text one byte short of what it measures.";
    TrailingInformation "trailing_information" "google+go-attestation/eventlogs/option_rom_eventlog"
        "Windows ends the log with information for PCR 0xffffffff.";
    VariableContentOnly "variable_content_only" "google+go-tpm-tools/eventlogs/rhel8-uefi.bin"
        "Firmware measures the content of boot variables without their names.";
    WindowsSeparator "windows_separator" "google+go-attestation/eventlogs/option_rom_eventlog"
        "Windows ends PCR 12 to 14 with separators of its own, \"WBCL\".";
}

/// A quirk, where it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QuirkSeen {
    /// Which.
    pub quirk: Quirk,
    /// The first event that shows it.
    pub event: u32,
}
