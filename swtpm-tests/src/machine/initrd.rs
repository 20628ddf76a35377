//! What the guest's root file system holds: busybox, programs with the libraries they need, `init`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    machine::{
        MachineError, Parts,
        cpio::{Entry, archive},
    },
    swtpm::{HarnessError, io, not_installed, tail},
};

/// Mounts, loads the network card's module and the IMA policy, then runs what the host sends.
const INIT: &str = include_str!("init.sh");
/// Where `init` looks for an IMA policy.
const IMA_POLICY: &str = "etc/ima-policy";
/// libtss2 opens it by name at run time, so that it is in nobody's list of needed libraries.
const DEVICE_TCTI: &str = "libtss2-tcti-device.so.0";
/// The library next to which it lies.
const TCTI_LOADER: &str = "libtss2-tctildr.so";

/// A root file system under construction.
#[derive(Clone, Debug)]
pub(super) struct Initrd {
    files: BTreeMap<String, Entry>,
}

impl Initrd {
    /// busybox, `init` and the network card's module.
    pub(super) fn new(parts: &Parts) -> Result<Self, MachineError> {
        let mut initrd = Self { files: BTreeMap::new() };
        initrd.insert("/init", INIT.as_bytes().to_vec(), true);
        initrd.insert("/bin/busybox", read(&parts.busybox)?, true);
        initrd.insert("/lib/modules/e1000.ko", read(&parts.network_module)?, false);
        Ok(initrd)
    }

    /// Puts a file at `path`, in place of one that is there.
    pub(super) fn insert(&mut self, path: &str, content: Vec<u8>, is_program: bool) {
        self.files.insert(path.trim_start_matches('/').to_owned(), Entry { content, is_program });
    }

    /// The policy that `init` gives to IMA.
    pub(super) fn ima_policy(&mut self, policy: &str) {
        self.insert(IMA_POLICY, policy.as_bytes().to_vec(), false);
    }

    /// Puts a program of this host at `path`, without debugging symbols, and at their own paths the
    /// libraries that its loader needs.
    pub(super) fn program(&mut self, host: &Path, path: &str) -> Result<(), MachineError> {
        self.insert(path, stripped(host)?, true);
        for library in libraries(host)? {
            let content = read(&library)?;
            self.insert(&library.to_string_lossy(), content, true);
        }
        Ok(())
    }

    /// The archive, not compressed.
    pub(super) fn archive(&self) -> Vec<u8> {
        archive(&self.files)
    }
}

/// A program without symbols: a debug build is mostly symbols, and firmware hashes every byte slowly.
fn stripped(program: &Path) -> Result<Vec<u8>, MachineError> {
    let folder = io("creating a folder", tempfile::tempdir)?;
    let out = folder.path().join("program");
    run(Command::new("strip").arg("-o").arg(&out).arg(program))?;
    read(&out)
}

/// Interpreter and libraries of a dynamic program, by the paths that the loader uses.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, MachineError> {
    let listed = run(Command::new("ldd").arg(program))?;
    let mut out: Vec<PathBuf> = listed.lines().filter_map(library_path).collect();
    let loader = out.iter().find(|path| path.to_string_lossy().contains(TCTI_LOADER));
    if let Some(loader) = loader.cloned() {
        let device = loader.with_file_name(DEVICE_TCTI);
        if !device.is_file() {
            return Err(MachineError::Missing {
                what: device.display().to_string(),
                package: "libtss2-tcti-device0",
            });
        }
        out.push(device);
    }
    Ok(out)
}

/// The path in a line of ldd: `libz.so.1 => /lib/libz.so.1 (0x…)`, `/lib64/ld-linux.so.2 (0x…)`.
fn library_path(line: &str) -> Option<PathBuf> {
    let path = line.split_whitespace().find(|word| word.starts_with('/'))?;
    Some(PathBuf::from(path))
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, MachineError> {
    Ok(io(&format!("reading {}", path.display()), || fs::read(path))?)
}

/// Runs a program of the tool box to its end; its standard output.
pub(super) fn run(command: &mut Command) -> Result<String, MachineError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|source| not_installed(&program, source))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let text = stdout + &String::from_utf8_lossy(&output.stderr);
    let error = HarnessError::Program { program, status: output.status, output: tail(&text) };
    Err(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_in_the_lines_of_ldd() {
        let path = |line| library_path(line).map(|path| path.display().to_string());
        assert_eq!(path("\tlinux-vdso.so.1 (0x00007f)"), None);
        assert_eq!(path("\tlibz.so.1 => /lib/libz.so.1 (0x7f)").as_deref(), Some("/lib/libz.so.1"));
        assert_eq!(path("\t/lib64/ld.so.2 (0x7f)").as_deref(), Some("/lib64/ld.so.2"));
        assert_eq!(path("\tstatically linked"), None);
    }
}
