//! Events that are known by their digests alone.

use proto::eventlog::{LogAlg, LogDigest};

/// An event whose content is fixed by a specification. Its digest proves it, whatever type and data the log claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Constant {
    /// The end of a PCR's pre-boot part.
    Separator([u8; 4]),
    /// `EV_SEPARATOR` that reports an error.
    ErrorSeparator,
    /// Firmware calls a boot option (PCR 4).
    Calling,
    /// A boot option came back (PCR 4).
    Returning,
    /// The operating system leaves the firmware (PCR 5).
    ExitInvocation,
    /// It succeeded.
    ExitSuccess,
    /// It failed.
    ExitFailure,
    /// `UEFI Debug Mode` (PCR 7).
    DebugMode,
    /// `DMA Protection Disabled` (PCR 7).
    DmaProtectionDisabled,
    /// systemd-stub names the section of its image that it measures next (PCR 11).
    Section(&'static str),
}

/// Text that is measured as it is, in ASCII without terminator (with one by some firmware).
pub(super) const CALLING: &str = "Calling EFI Application from Boot Option";
pub(super) const EXIT_INVOCATION: &str = "Exit Boot Services Invocation";
pub(super) const EXIT_SUCCESS: &str = "Exit Boot Services Returned with Success";

const TEXTS: [(Constant, &str); 7] = [
    (Constant::Calling, CALLING),
    (Constant::Returning, "Returning from EFI Application from Boot Option"),
    (Constant::ExitInvocation, EXIT_INVOCATION),
    (Constant::ExitSuccess, EXIT_SUCCESS),
    (Constant::ExitFailure, "Exit Boot Services Returned with Failure"),
    (Constant::DebugMode, "UEFI Debug Mode"),
    (Constant::DmaProtectionDisabled, "DMA Protection Disabled"),
];

const SEPARATORS: [[u8; 4]; 2] = [[0; 4], [0xff; 4]];
/// `EV_SEPARATOR` error value.
pub(super) const ERROR_SEPARATOR: [u8; 4] = [1, 0, 0, 0];

/// Sections of a unified kernel image, in the order in which the stub measures them.
///
/// # Source
/// UAPI Group, "Unified Kernel Image", UKI TPM PCR Measurements.
const SECTIONS: [&str; 14] = [
    ".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".dtbauto", ".uname",
    ".sbat", ".pcrpkey", ".profile", ".hwids", ".efifw",
];

/// Digests of all constants in one bank.
#[derive(Debug)]
pub(crate) struct Constants {
    alg: LogAlg,
    known: Vec<(LogDigest, Constant)>,
}

impl Constant {
    /// The text of an action; none for anything else.
    pub(super) fn text(self) -> Option<&'static str> {
        TEXTS.iter().find(|(constant, _)| *constant == self).map(|(_, text)| *text)
    }
}

impl Constants {
    pub(crate) fn new(alg: LogAlg) -> Self {
        let mut known = Vec::with_capacity(2 * TEXTS.len() + 3);
        let mut add = |parts: &[&[u8]], constant| {
            known.extend(alg.hash(parts).map(|digest| (digest, constant)));
        };
        for value in SEPARATORS {
            add(&[&value], Constant::Separator(value));
        }
        add(&[&ERROR_SEPARATOR], Constant::ErrorSeparator);
        for (constant, text) in TEXTS {
            add(&[text.as_bytes()], constant);
            add(&[text.as_bytes(), &[0]], constant);
        }
        Self { alg, known }
    }

    /// Also the names of sections, which only PCR 11 needs.
    pub(crate) fn add_sections(&mut self) {
        for name in SECTIONS {
            let digest = self.alg.hash(&[name.as_bytes(), &[0]]);
            self.known.extend(digest.map(|digest| (digest, Constant::Section(name))));
        }
    }

    pub(crate) fn of(&self, digest: &LogDigest) -> Option<Constant> {
        self.known.iter().find(|(known, _)| known == digest).map(|(_, constant)| *constant)
    }
}
