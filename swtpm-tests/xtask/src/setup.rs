//! Installs the system packages that building and testing need.

use std::{env, fs, os::unix::fs::MetadataExt, path::Path, process::Command};

use crate::{
    kernel,
    run::{Failure, execute, is_installed},
    systemd,
};

/// A Debian package, how to see that it is there, and why it is needed.
struct Package {
    name: &'static str,
    is_there: fn() -> bool,
    why: &'static str,
}

const PACKAGES: [Package; 10] = [
    Package {
        name: "build-essential",
        is_there: || ["cc", "c++", "make"].into_iter().all(is_installed),
        why: "C compiler and linker, for aws-lc and libFuzzer",
    },
    Package { name: "pkg-config", is_there: || is_installed("pkg-config"), why: "finds libtss2" },
    Package { name: "libtss2-dev", is_there: has_tss2, why: "the attestor talks to TPMs with it" },
    Package { name: "swtpm", is_there: || is_installed("swtpm"), why: "software TPMs for tests" },
    Package {
        name: "swtpm-tools",
        is_there: || ["swtpm_setup", "swtpm_localca"].into_iter().all(is_installed),
        why: "manufactures software TPMs",
    },
    Package {
        name: "openssl",
        is_there: || is_installed("openssl"),
        why: "independent check of our certificates and signatures",
    },
    Package {
        name: "jq",
        is_there: || is_installed("jq"),
        why: "takes signed documents apart, as their documentation says",
    },
    Package {
        name: "tpm2-openssl",
        is_there: has_openssl_provider,
        why: "TLS with the node key, which lives in the TPM",
    },
    Package {
        name: "tpm2-tools",
        is_there: || is_installed("tpm2_nvread"),
        why: "independent client of the TPM in tests",
    },
    Package {
        name: "gcab",
        is_there: || is_installed("gcab"),
        why: "makes a cabinet file like Microsoft's list of TPM roots",
    },
];

/// What the test machine is made of; it is an x86-64 PC, emulated where nothing better is known.
const MACHINE: [Package; 8] = [
    Package {
        name: "qemu-system-x86",
        is_there: || is_installed("qemu-system-x86_64"),
        why: "the test machine, which really boots",
    },
    Package {
        name: "ovmf",
        is_there: || {
            let snakeoil = "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd";
            ["/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", snakeoil].into_iter().all(is_file)
        },
        why: "its firmware, with Secure Boot",
    },
    Package {
        name: "systemd-boot-efi",
        is_there: || is_file("/usr/lib/systemd/boot/efi/linuxx64.efi.stub"),
        why: "the EFI program around its kernel",
    },
    Package {
        name: "sbsigntool",
        is_there: || is_installed("sbsign"),
        why: "signs its kernel image",
    },
    Package {
        name: "busybox-static",
        is_there: || is_installed("busybox"),
        why: "the programs of its initrd",
    },
    Package { name: "cpio", is_there: || is_installed("cpio"), why: "reads an initrd in a test" },
    Package {
        name: "xz-utils",
        is_there: || is_installed("xz"),
        why: "unpacks kernel modules where they are packed",
    },
    Package {
        name: "zstd",
        is_there: || is_installed("zstd"),
        why: "unpacks kernel modules where they are packed",
    },
];

/// A part of the test machine that is taken out of packages, not installed.
struct Unpacked {
    name: &'static str,
    is_there: fn() -> bool,
    bring: fn() -> Result<(), Failure>,
    why: &'static str,
}

const UNPACKED: [Unpacked; 2] = [
    Unpacked {
        name: "kernel",
        is_there: kernel::is_there,
        bring: kernel::bring,
        why: "a kernel for the test machine, out of its package",
    },
    Unpacked {
        name: "systemd",
        is_there: systemd::is_there,
        bring: systemd::bring,
        why: "systemd for the test machine, out of its packages",
    },
];

/// What this host unpacks.
fn unpacked() -> &'static [Unpacked] {
    if kernel::IS_SUPPORTED { &UNPACKED } else { &[] }
}

/// What this host needs.
fn packages() -> impl Iterator<Item = &'static Package> {
    let machine: &[Package] = if kernel::IS_SUPPORTED { &MACHINE } else { &[] };
    PACKAGES.iter().chain(machine)
}

/// Says what is there and what is missing; fails where something is.
pub(crate) fn check() -> Result<(), Failure> {
    let mut missing = Vec::new();
    for package in packages() {
        let is_there = (package.is_there)();
        let mark = if is_there { "ok     " } else { "missing" };
        println!("{mark}  {:<16} {}", package.name, package.why);
        if !is_there {
            missing.push(package.name);
        }
    }
    for part in unpacked() {
        let is_there = (part.is_there)();
        let mark = if is_there { "ok     " } else { "missing" };
        println!("{mark}  {:<16} {}", format!("({})", part.name), part.why);
        if !is_there {
            missing.push(part.name);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::Missing(format!("missing: {}", missing.join(", "))))
}

/// Installs what is missing, saying so; silent where nothing is.
pub(crate) fn install_missing() -> Result<(), Failure> {
    install_packages()?;
    for part in unpacked().iter().filter(|part| !(part.is_there)()) {
        match (part.bring)() {
            // Everything else works without: the tests that need it say so, and fail where CI=true.
            Err(Failure::Missing(why)) => {
                eprintln!("note: no {} for the test machine: {why}", part.name);
            }
            other => other?,
        }
    }
    Ok(())
}

fn install_packages() -> Result<(), Failure> {
    let is_missing = |package: &&'static Package| !(package.is_there)();
    let missing: Vec<_> = packages().filter(is_missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    if !is_installed("apt-get") {
        return Err(Failure::Missing(format!(
            "this is no Debian or Ubuntu; install what these packages hold, then come again: {}",
            names.join(" ")
        )));
    }
    println!("Installing system packages:");
    for package in &missing {
        println!("  {:<16} {}", package.name, package.why);
    }
    // The first install needs the package lists, which a fresh container does not have.
    execute(apt()?.arg("update").arg("-qq"))?;
    execute(apt()?.args(["install", "-y", "-qq", "--no-install-recommends"]).args(&names))?;
    let still: Vec<_> = missing.iter().filter(|package| !(package.is_there)()).collect();
    if let Some(package) = still.first() {
        return Err(Failure::Missing(format!(
            "{} was installed, but what it should bring ({}) is not there",
            package.name, package.why
        )));
    }
    Ok(())
}

/// Installs one package that only some commands need.
pub(crate) fn install(name: &str) -> Result<(), Failure> {
    if !is_installed("apt-get") {
        return Err(Failure::Missing(format!(
            "this is no Debian or Ubuntu; install what the package {name} holds, then come again"
        )));
    }
    println!("Installing system package: {name}");
    execute(apt()?.arg("update").arg("-qq"))?;
    execute(apt()?.args(["install", "-y", "-qq", "--no-install-recommends", name]))
}

/// `apt-get`, with sudo where we are not root.
pub(crate) fn apt() -> Result<Command, Failure> {
    let is_root = fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0);
    let mut command = if is_root {
        Command::new("apt-get")
    } else if is_installed("sudo") {
        let mut command = Command::new("sudo");
        command.args(["--preserve-env=DEBIAN_FRONTEND", "apt-get"]);
        command
    } else {
        return Err(Failure::Missing(
            "packages are missing, and this is neither root nor is sudo there".into(),
        ));
    };
    if env::var_os("DEBIAN_FRONTEND").is_none() {
        command.env("DEBIAN_FRONTEND", "noninteractive");
    }
    // A freshly started machine may still be running its own update.
    command.args(["-o", "DPkg::Lock::Timeout=300"]);
    Ok(command)
}

fn is_file(path: &str) -> bool {
    Path::new(path).is_file()
}

fn has_tss2() -> bool {
    let modules = ["tss2-sys", "tss2-esys", "tss2-mu", "tss2-tctildr"];
    let query = Command::new("pkg-config").arg("--exists").args(modules).status();
    query.is_ok_and(|status| status.success())
}

/// OpenSSL's provider for TPM keys, in the library directory of whichever architecture.
fn has_openssl_provider() -> bool {
    let Ok(libraries) = fs::read_dir("/usr/lib") else { return false };
    let in_multiarch = libraries
        .filter_map(Result::ok)
        .any(|entry| entry.path().join("ossl-modules/tpm2.so").is_file());
    in_multiarch || Path::new("/usr/lib64/ossl-modules/tpm2.so").is_file()
}
