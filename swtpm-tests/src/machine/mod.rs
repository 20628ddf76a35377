//! A virtual machine that really boots: firmware, Secure Boot, kernel, IMA, and a software TPM that saw all of it.
//!
//! A software TPM alone has empty PCRs and no logs. Here QEMU starts OVMF, OVMF measures and starts a
//! unified kernel image, and inside runs the real `attestor` on `/dev/tpmrm0`. Everything comes from
//! Debian's packages; no root, no fixed port, no KVM.
//!
//! ```text
//! Image    command line + initrd + kernel ─▶ one EFI program, signed or not    what is booted
//! Machine  TPM + firmware's variables, kept from boot to boot                  what it is booted on
//! Guest    one running boot: runs scripts, gives files, reboots, powers off    what the test talks to
//! Site     a verifier, and workers that are machines                           who judges
//! ```
//!
//! The initrd's `init` does nothing of its own after mounting: it runs scripts that the test sends over
//! the second serial port. So what a test does in the guest is not part of what was measured, and one
//! image serves many tests. An image with [`Systemd`] boots as a worker does: the distribution's own units, and
//! ours beside them.
//!
//! # Source
//! systemd's `systemd-stub(7)` for the sections of a unified kernel image; QEMU's documentation of TPM
//! devices; the kernel's `Documentation/ABI/testing/ima_policy`.

mod console;
mod cpio;
mod error;
mod guest;
mod image;
mod initrd;
mod parts;
mod power;
mod record;
mod site;
mod systemd;
mod uki;

pub use error::MachineError;
pub use guest::{Guest, Output};
pub use image::{EXECUTED_FILES, Image};
pub use parts::{Parts, Requirement, require};
pub use power::{Machine, SecureBoot, Terminal};
pub use record::{BootRecord, PcrValues};
pub use site::{Site, program};
pub use systemd::{InitialRamDisk, Systemd};
