//! What a machine is made of, found on this host.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use crate::{
    machine::MachineError,
    swtpm::{HarnessError, find_program, io},
};

/// OVMF that can enforce Secure Boot; with an empty variable store it leaves it off.
const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
/// No keys: Secure Boot is off.
const VARIABLES_OFF: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// OVMF's published test key is enrolled: Secure Boot is on.
const VARIABLES_ON: &str = "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd";
/// OVMF's published test key, encrypted, and its certificate.
const SIGNING_KEY: &str = "/usr/share/ovmf/PkKek-1-snakeoil.key";
const SIGNING_CERTIFICATE: &str = "/usr/share/ovmf/PkKek-1-snakeoil.pem";
/// systemd's EFI program that carries kernel, initrd and command line in its sections.
const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// Everything a machine is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    pub(super) qemu: PathBuf,
    pub(super) swtpm: PathBuf,
    pub(super) firmware: PathBuf,
    pub(super) variables_off: PathBuf,
    pub(super) variables_on: PathBuf,
    pub(super) signing_key: PathBuf,
    pub(super) signing_certificate: PathBuf,
    pub(super) stub: PathBuf,
    pub(super) busybox: PathBuf,
    pub(super) kernel: PathBuf,
    pub(super) network_module: PathBuf,
    /// Empty where the kernel has it built in.
    pub(super) variables_module: PathBuf,
    /// Built images, by content.
    pub(super) cache: PathBuf,
}

impl Parts {
    /// Looks for every part.
    ///
    /// # Errors
    /// [`MachineError::Missing`] names the first that is not there.
    pub fn find() -> Result<Self, MachineError> {
        if cfg!(not(target_arch = "x86_64")) {
            let what = "firmware and kernel for this processor (the machine is x86-64 only)".into();
            return Err(MachineError::Missing { what, package: "ovmf" });
        }
        let parts = Self {
            qemu: program("qemu-system-x86_64", "qemu-system-x86")?,
            swtpm: program("swtpm", "swtpm")?,
            firmware: file(FIRMWARE, "ovmf")?,
            variables_off: file(VARIABLES_OFF, "ovmf")?,
            variables_on: file(VARIABLES_ON, "ovmf")?,
            signing_key: file(SIGNING_KEY, "ovmf")?,
            signing_certificate: file(SIGNING_CERTIFICATE, "ovmf")?,
            stub: file(STUB, "systemd-boot-efi")?,
            busybox: program("busybox", "busybox-static")?,
            kernel: kernel_file("vmlinuz")?,
            network_module: kernel_file("e1000.ko")?,
            variables_module: kernel_file("efivarfs.ko")?,
            cache: target()?.join("machine/images"),
        };
        for (name, package) in [
            ("objcopy", "binutils"),
            ("strip", "binutils"),
            ("sbsign", "sbsigntool"),
            ("gzip", "gzip"),
            ("ldd", "libc-bin"),
            ("openssl", "openssl"),
        ] {
            program(name, package)?;
        }
        io("creating the folder of images", || fs::create_dir_all(&parts.cache))?;
        Ok(parts)
    }
}

/// Whether machines can run here.
#[derive(Debug)]
pub enum Requirement {
    /// They can.
    Met(Parts),
    /// They cannot; why was said.
    Skipped,
}

/// The parts, or a word on the standard error why this test is skipped.
///
/// # Panics
/// In CI (`CI=true`), where nothing is skipped.
#[must_use]
#[expect(clippy::panic, reason = "a test that CI relies on must not pass by not running")]
pub fn require() -> Requirement {
    match Parts::find() {
        Ok(parts) => Requirement::Met(parts),
        Err(error) if env::var_os("CI").is_some_and(|value| value == "true") => {
            panic!("the virtual machine cannot run, and CI=true: {error}")
        }
        Err(error) => {
            eprintln!("skipped: the virtual machine cannot run here: {error}");
            Requirement::Skipped
        }
    }
}

fn program(name: &str, package: &'static str) -> Result<PathBuf, MachineError> {
    match find_program(name) {
        Ok(path) => Ok(path),
        Err(HarnessError::NotInstalled { program }) => {
            Err(MachineError::Missing { what: program, package })
        }
        Err(error) => Err(error.into()),
    }
}

fn file(path: &str, package: &'static str) -> Result<PathBuf, MachineError> {
    if Path::new(path).is_file() {
        return Ok(path.into());
    }
    Err(MachineError::Missing { what: path.into(), package })
}

/// A file that `cargo xtask setup` took out of the kernel's package.
fn kernel_file(name: &str) -> Result<PathBuf, MachineError> {
    let path = target()?.join("machine/kernel").join(name);
    if path.is_file() {
        return Ok(path);
    }
    let what = format!("{} of a kernel", path.display());
    Err(MachineError::Missing { what, package: "linux-image-amd64" })
}

/// The folder that `cargo xtask setup` unpacked systemd's packages into.
pub(super) fn systemd_folder() -> Result<PathBuf, MachineError> {
    let path = target()?.join("machine/systemd");
    if path.join("tree").is_dir() {
        return Ok(path);
    }
    Err(MachineError::Missing { what: path.display().to_string(), package: "systemd" })
}

/// Cargo's target directory, which this program was built into.
fn target() -> Result<PathBuf, MachineError> {
    let program = io("looking for this program", env::current_exe)?;
    // target/debug/NAME, or target/debug/deps/NAME for a test.
    let is_target = |folder: &&Path| folder.join("CACHEDIR.TAG").is_file();
    let found = program.ancestors().skip(2).take(3).find(is_target);
    found.map(Path::to_path_buf).ok_or_else(|| {
        MachineError::Shape(format!("{} is in no target directory of cargo's", program.display()))
    })
}
