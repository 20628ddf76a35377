//! A root file system that systemd runs: programs and units of the distribution's package, unpacked and not changed.
//!
//! What a unit needs beyond that is left out with the unit: a service whose program is not here, and mounts, timers and
//! sockets of other services. Nothing here measures anything; where a boot phase is measured, systemd's own unit did it.
//!
//! # Source
//! systemd-pcrphase.service(8), bootup(7).

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    machine::{
        MachineError, Parts,
        initrd::{Initrd, libraries, read},
        parts::systemd_folder,
        site::program,
    },
    swtpm::io,
};

/// Programs that run: the manager and its tool, the journal, users and files that units need, boot phases, the way out of
/// an initrd.
const PROGRAMS: [&str; 10] = [
    "journalctl",
    "systemctl",
    "systemd",
    "systemd-fstab-generator",
    "systemd-journald",
    "systemd-pcrphase",
    "systemd-shutdown",
    "systemd-sysusers",
    "systemd-tmpfiles",
    "systemd-user-sessions",
];
/// Where packages put programs and units: as long as `/usr` was not merged, and since. What stands in systemd's own
/// folder comes first: `bin` has links to it.
const PROGRAM_FOLDERS: [&str; 6] = [
    "lib/systemd",
    "usr/lib/systemd",
    "lib/systemd/system-generators",
    "usr/lib/systemd/system-generators",
    "bin",
    "usr/bin",
];
const UNIT_FOLDERS: [&str; 2] = ["lib/systemd/system", "usr/lib/systemd/system"];
/// Starts terminals, whose program is not here.
const LEFT_OUT: &str = "getty-static.service";
/// Where units go.
const UNITS: &str = "/usr/lib/systemd/system";
/// What systemd reads of its package besides units.
const SETTINGS: [&str; 2] = ["usr/lib/sysusers.d", "usr/lib/tmpfiles.d"];
/// Opened by name where a unit measures. In nobody's list of needed libraries; beside the one that the attestor needs.
const OPENED_BY_NAME: [&str; 3] = ["libtss2-esys.so.0", "libtss2-mu.so.0", "libtss2-rc.so.0"];

const INIT: &str = include_str!("guest_files/systemd-init.sh");
/// Ours: files by path.
const FILES: [(&str, &str); 9] = [
    ("/usr/lib/assay/fill-root.sh", include_str!("guest_files/fill-root.sh")),
    (
        "/usr/lib/systemd/system/assay-agent.service",
        include_str!("guest_files/assay-agent.service"),
    ),
    (
        "/usr/lib/systemd/system/assay-attestor.service",
        include_str!("../../../attestor/dist/assay-attestor.service"),
    ),
    (
        "/usr/lib/sysusers.d/assay-attestor.conf",
        include_str!("../../../attestor/dist/assay-attestor.sysusers"),
    ),
    ("/usr/lib/tmpfiles.d/assay-tpm.conf", include_str!("guest_files/tmpfiles.conf")),
    ("/usr/lib/os-release", "ID=assay-test\nPRETTY_NAME=\"Assay test machine\"\n"),
    ("/etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
    ("/etc/group", "root:x:0:\nadm:x:4:\ntty:x:5:\nutmp:x:43:\n"),
    // Without one systemd asks for settings at its first boot.
    ("/etc/machine-id", "6a1f0e7d3c5b4928a7e6d5c4b3a29180\n"),
];
/// More, where the initrd runs systemd too.
const INITRD_FILES: [(&str, &str); 3] = [
    // What tells systemd that it runs in an initrd.
    ("/etc/initrd-release", "ID=assay-test\nPRETTY_NAME=\"Assay test machine's initrd\"\n"),
    ("/usr/lib/systemd/system/sysroot.mount", include_str!("guest_files/sysroot.mount")),
    (
        "/usr/lib/systemd/system/sysroot-fill.service",
        include_str!("guest_files/sysroot-fill.service"),
    ),
];

/// What the initial RAM disk runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialRamDisk {
    /// A script, as Debian's does.
    Script,
    /// systemd, as those of dracut and mkosi do.
    Systemd,
}

/// systemd of this host's distribution, unpacked.
#[derive(Clone, Debug)]
pub struct Systemd {
    tree: PathBuf,
    version: u32,
}

impl Systemd {
    /// Looks for what `cargo xtask setup` unpacked.
    ///
    /// # Errors
    /// [`MachineError::Missing`], [`MachineError::Shape`].
    pub fn find() -> Result<Self, MachineError> {
        let tree = systemd_folder()?.join("tree");
        let version = files_below(&tree).iter().find_map(|path| version(path));
        let version = version.ok_or_else(|| {
            MachineError::Shape(format!("{} holds no libsystemd-shared", tree.display()))
        })?;
        Ok(Self { tree, version })
    }

    /// Its version, such as 252.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// An initrd that ends in a root file system that systemd runs, with the attestor and its unit.
    pub(super) fn initrd(
        &self,
        parts: &Parts,
        initial: InitialRamDisk,
    ) -> Result<Initrd, MachineError> {
        let mut initrd = Initrd::merged(parts, INIT)?;
        for name in PROGRAMS {
            let (folder, program) = self.program(name)?;
            initrd.unpacked(&self.tree, &program, &format!("/{folder}/{name}"))?;
        }
        self.units(&mut initrd)?;
        for folder in SETTINGS {
            for file in files_below(&self.tree.join(folder)) {
                let path = file.strip_prefix(&self.tree).unwrap_or(&file);
                initrd.insert(&path.to_string_lossy(), read(&file)?, false);
            }
        }
        tpm_libraries(&mut initrd)?;
        let more: &[_] = match initial {
            InitialRamDisk::Script => &[],
            InitialRamDisk::Systemd => &INITRD_FILES,
        };
        for (path, content) in FILES.iter().chain(more) {
            initrd.insert(path, content.as_bytes().to_vec(), false);
        }
        let wants = |unit: &str, by: &str| {
            (format!("/etc/systemd/system/{by}/{unit}"), format!("{UNITS}/{unit}"))
        };
        let mut wanted = vec![wants("assay-agent.service", "multi-user.target.wants")];
        if initial == InitialRamDisk::Systemd {
            wanted.push(wants("sysroot.mount", "initrd-root-fs.target.requires"));
            wanted.push(wants("sysroot-fill.service", "initrd-root-fs.target.requires"));
        }
        for (link, unit) in wanted {
            initrd.link(&link, &unit);
        }
        Ok(initrd)
    }

    /// A program of the package, and the folder that it stands in.
    fn program(&self, name: &str) -> Result<(&'static str, PathBuf), MachineError> {
        let places =
            PROGRAM_FOLDERS.iter().map(|folder| (*folder, self.tree.join(folder).join(name)));
        let mut found = places.filter(|(_, path)| path.is_file());
        found.next().ok_or_else(|| {
            MachineError::Shape(format!("systemd {} has no program {name}", self.version))
        })
    }

    /// Targets, slices, the journal's sockets, services whose programs are here, and links to these.
    fn units(&self, initrd: &mut Initrd) -> Result<(), MachineError> {
        let folders = UNIT_FOLDERS.map(|folder| self.tree.join(folder));
        let mut links = Vec::new();
        let mut names = BTreeSet::new();
        for folder in folders.iter().filter(|folder| folder.is_dir()) {
            for file in files_below(folder) {
                let name =
                    file.strip_prefix(folder).unwrap_or(&file).to_string_lossy().into_owned();
                if file.is_symlink() {
                    links.push((name, io("reading a unit's link", || fs::read_link(&file))?));
                    continue;
                }
                let content = read(&file)?;
                if is_wanted(&name, &String::from_utf8_lossy(&content)) {
                    initrd.insert(&format!("{UNITS}/{name}"), content, false);
                    names.insert(name);
                }
            }
        }
        for (name, target) in links {
            if target.file_name().is_some_and(|unit| names.contains(&*unit.to_string_lossy())) {
                initrd.link(&format!("{UNITS}/{name}"), &target.to_string_lossy());
            }
        }
        Ok(())
    }
}

/// Whether a unit can do its work with what is here.
fn is_wanted(name: &str, unit: &str) -> bool {
    if name.contains('/') || name == LEFT_OUT {
        return false;
    }
    match name.rsplit_once('.') {
        Some((_, "target" | "slice")) => true,
        Some((name, "socket")) => name.starts_with("systemd-journald"),
        Some((_, "service")) => programs(unit).all(|program| PROGRAMS.contains(&program)),
        _ => false,
    }
}

/// The programs that a unit starts, by their last names.
fn programs(unit: &str) -> impl Iterator<Item = &str> {
    let commands = unit.lines().filter_map(|line| {
        let (key, command) = line.split_once('=')?;
        key.starts_with("Exec").then_some(command)
    });
    commands.filter_map(|command| {
        // Characters before the path say how it is run.
        let path = command.split_whitespace().next()?.trim_start_matches(['-', '@', ':', '+', '!']);
        path.rsplit('/').next()
    })
}

/// Libraries for TPMs, which systemd opens by name: those that the attestor was built with, of this host.
fn tpm_libraries(initrd: &mut Initrd) -> Result<(), MachineError> {
    let needed = libraries(&program("attestor")?)?;
    let of_tss = |path: &&PathBuf| path.to_string_lossy().contains("libtss2-esys");
    let esys = needed.iter().find(of_tss).ok_or_else(|| {
        MachineError::Shape("the attestor is not linked against libtss2-esys".into())
    })?;
    for name in OPENED_BY_NAME {
        let library = esys.with_file_name(name);
        if !library.is_file() {
            let what = library.display().to_string();
            return Err(MachineError::Missing { what, package: "libtss2-dev" });
        }
        initrd.library(&library, &library.to_string_lossy())?;
    }
    Ok(())
}

/// The version in the name of systemd's own library.
fn version(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    let version = name.strip_prefix("libsystemd-shared-")?.strip_suffix(".so")?;
    // Debian's later ones say `257.9-1`.
    version.split(['.', '-', '~']).next()?.parse().ok()
}

/// Every file and link below a folder, in order.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut out = Vec::new();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() && !path.is_symlink() {
            out.extend(files_below(&path));
        } else {
            out.push(path);
        }
    }
    out.sort();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_taken_by_what_they_start() {
        let service = "[Service]\nExecStart=-@/lib/systemd/systemd-pcrphase x --graceful ready\n";
        assert_eq!(programs(service).collect::<Vec<_>>(), ["systemd-pcrphase"]);
        assert!(is_wanted("systemd-pcrphase.service", service));
        assert!(!is_wanted("kmod-static-nodes.service", "ExecStart=/bin/kmod static-nodes\n"));
        assert!(is_wanted("sysinit.target", ""));
        assert!(is_wanted("systemd-journald-dev-log.socket", ""));
        assert!(!is_wanted("systemd-initctl.socket", ""));
        assert!(!is_wanted("user-.slice.d/10-defaults.conf", ""));
    }

    #[test]
    fn the_version_is_read_from_the_library() {
        let version = |name| version(Path::new(name));
        assert_eq!(version("/x/libsystemd-shared-252.so"), Some(252));
        assert_eq!(version("/x/libsystemd-shared-257.9-1.so"), Some(257));
        assert_eq!(version("/x/libsystemd-core-252.so"), None);
    }
}
