//! What an artifact is, and why bytes are none.

use proto::digest::HashAlg;

use super::{
    measured::{APPLICATIONS_PCR, Measured, Role},
    pe::{Image, PeError},
};

/// Why an artifact cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactError {
    /// No image.
    #[error("not a PE image: {0}")]
    Pe(#[from] PeError),
    /// No kernel inside.
    #[error("not a unified kernel image: there is no section .linux")]
    NoKernel,
    /// The kernel inside is no image.
    #[error("section .linux is not a PE image: {0}")]
    Kernel(PeError),
    /// It is not said which stub measures.
    #[error(
        "section .sdmagic does not name a version of systemd-stub, so it is not known what the stub measures"
    )]
    NoStub,
    /// The stub measures in another way.
    #[error(
        "systemd-stub {version} is older than 252, the first that measures sections as known here"
    )]
    OldStub {
        /// Of the stub.
        version: u16,
    },
    /// A limit.
    #[error("{what} has {len} bytes, at most {limit} are read")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        len: usize,
        /// What is allowed.
        limit: usize,
    },
}

/// A boot application's event: firmware measures what `LoadImage` loads.
///
/// # Source
/// TCG PC Client Platform Firmware Profile, "PCR[4] – Boot Manager Code"; UEFI Specification, "EFI_TCG2_PROTOCOL"
/// (`PE_COFF_IMAGE`).
pub(super) fn application(
    image: &Image<'_>,
    role: Role,
    what: impl Into<String>,
    banks: &[HashAlg],
) -> Measured {
    Measured::new((APPLICATIONS_PCR, role), what, banks, |bank| image.authenticode(bank))
}
