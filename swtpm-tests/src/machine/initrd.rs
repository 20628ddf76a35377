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

/// Mounts, loads the network card's module and the IMA policy, then runs [`AGENT`].
const INIT: &str = include_str!("guest_files/init.sh");
/// Runs what the host sends.
const AGENT: &str = include_str!("guest_files/agent.sh");
const AGENT_PATH: &str = "/usr/lib/assay/agent.sh";
/// Folders at the root whose files stand below `/usr` where a distribution has merged them.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];
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
    /// Whether `/bin`, `/lib` and their like are links into `/usr`.
    is_merged: bool,
}

impl Initrd {
    /// busybox, `init` and the network card's module.
    pub(super) fn new(parts: &Parts) -> Result<Self, MachineError> {
        let mut initrd = Self { files: BTreeMap::new(), is_merged: false };
        initrd.insert("/init", INIT.as_bytes().to_vec(), true);
        initrd.basics(parts)?;
        Ok(initrd)
    }

    /// As [`Initrd::new`] with `/usr` merged, and another `init`, which may load the file system of firmware's
    /// variables.
    pub(super) fn merged(parts: &Parts, init: &str) -> Result<Self, MachineError> {
        let mut initrd = Self { files: BTreeMap::new(), is_merged: true };
        for folder in MERGED {
            initrd.link(folder, &format!("usr/{folder}"));
        }
        initrd.insert("/init", init.as_bytes().to_vec(), true);
        initrd.basics(parts)?;
        initrd.insert("/lib/modules/efivarfs.ko", read(&parts.variables_module)?, false);
        // The interpreter of `init`, before anything else is there.
        initrd.link("/bin/sh", "busybox");
        Ok(initrd)
    }

    fn basics(&mut self, parts: &Parts) -> Result<(), MachineError> {
        self.insert(AGENT_PATH, AGENT.as_bytes().to_vec(), false);
        self.insert("/bin/busybox", read(&parts.busybox)?, true);
        self.insert("/lib/modules/e1000.ko", read(&parts.network_module)?, false);
        Ok(())
    }

    /// Puts a file at `path`, in place of one that is there.
    pub(super) fn insert(&mut self, path: &str, content: Vec<u8>, is_program: bool) {
        let entry = if is_program { Entry::Program(content) } else { Entry::File(content) };
        self.files.insert(self.place(path), entry);
    }

    /// Puts a symbolic link at `path`.
    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.files.insert(self.place(path), Entry::Link(target.to_owned()));
    }

    /// Where a path leads to: without the leading slash, and through the links into `/usr`.
    fn place(&self, path: &str) -> String {
        let path = path.trim_start_matches('/');
        let is_moved = |(first, _): (&str, &str)| self.is_merged && MERGED.contains(&first);
        if path.split_once('/').is_some_and(is_moved) {
            return format!("usr/{path}");
        }
        path.to_owned()
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
            self.library(&library, &library.to_string_lossy())?;
        }
        Ok(())
    }

    /// As [`Initrd::program`], for a program that was unpacked below `tree`: its libraries are taken from there, and
    /// from this host where they are not there.
    pub(super) fn unpacked(
        &mut self,
        tree: &Path,
        program: &Path,
        path: &str,
    ) -> Result<(), MachineError> {
        self.insert(path, read(program)?, true);
        for library in libraries_within(program, &library_folders(tree))? {
            let place = library.strip_prefix(tree).unwrap_or(&library);
            self.library(&library, &place.to_string_lossy())?;
        }
        Ok(())
    }

    /// Puts a library at `path`, unless there is one: of two builds the one that came first serves all.
    pub(super) fn library(&mut self, library: &Path, path: &str) -> Result<(), MachineError> {
        let place = self.place(path);
        if !self.files.contains_key(&place) {
            self.insert(&place, read(library)?, true);
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
pub(super) fn libraries(program: &Path) -> Result<Vec<PathBuf>, MachineError> {
    let mut out = libraries_within(program, "")?;
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

/// As the loader finds them, which looks into `folders` first.
fn libraries_within(program: &Path, folders: &str) -> Result<Vec<PathBuf>, MachineError> {
    let listed = run(Command::new("ldd").env("LD_LIBRARY_PATH", folders).arg(program))?;
    if let Some(line) = listed.lines().find(|line| line.ends_with("not found")) {
        let what = format!("a library of {}: {}", program.display(), line.trim());
        return Err(MachineError::Shape(what));
    }
    Ok(listed.lines().filter_map(library_path).collect())
}

/// Every folder below `tree` that packages put libraries into, as the loader wants them named.
fn library_folders(tree: &Path) -> String {
    let mut out = Vec::new();
    for top in ["lib", "usr/lib"] {
        let Ok(entries) = fs::read_dir(tree.join(top)) else { continue };
        let multiarch = entries.filter_map(|entry| Some(entry.ok()?.path()));
        for folder in multiarch.filter(|path| path.to_string_lossy().ends_with("-linux-gnu")) {
            out.push(folder.join("systemd").display().to_string());
            out.push(folder.display().to_string());
        }
    }
    out.join(":")
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
