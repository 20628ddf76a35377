//! systemd with its libraries for the test machine, taken out of the distribution's packages.
//!
//! What a machine boots is to be what a worker of this distribution boots: this host may run another systemd, or none.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    package,
    run::{Failure, output_of, target_directory},
};

/// The package.
const PACKAGE: &str = "systemd";
/// Libraries whose packages begin otherwise than `lib`, or that must be this host's own: the attestor was linked
/// against them.
const OF_THIS_HOST: [&str; 2] = ["libc6", "libgcc-s1"];
/// What nobody reads in a machine.
const DOCUMENTATION: [&str; 3] = ["usr/share/doc", "usr/share/man", "usr/share/locale"];

/// Whether systemd's files are in the target directory.
pub(crate) fn is_there() -> bool {
    folder().is_ok_and(|folder| folder.join("tree").is_dir() && folder.join("packages").is_file())
}

/// Downloads systemd's package and those of its libraries, and unpacks them.
pub(crate) fn bring() -> Result<(), Failure> {
    package::require_programs()?;
    let packages = package::find(packages)?;
    println!("Taking systemd for the test machine out of {} packages", packages.len());
    let folder = folder()?;
    let work = folder.with_extension("new");
    let failed = |error| Failure::Failed(format!("{}: {error}", work.display()));
    let mut names = Vec::new();
    let tree = package::unpack_into(&work, &packages, |file, tree| {
        output_of(Command::new("dpkg-deb").arg("--extract").arg(file).arg(tree))?;
        names.extend(stem(file));
        Ok(())
    })?;
    for folder in DOCUMENTATION {
        // Not every set of packages has each.
        let _ = fs::remove_dir_all(tree.join(folder));
    }
    names.sort();
    fs::write(work.join("packages"), names.join("\n") + "\n").map_err(failed)?;
    let _ = fs::remove_dir_all(&folder);
    fs::rename(&work, &folder).map_err(failed)
}

fn folder() -> Result<PathBuf, Failure> {
    Ok(target_directory()?.join("machine/systemd"))
}

/// systemd, and every library that it depends on, directly or not.
fn packages() -> Result<Vec<String>, Failure> {
    let mut known = BTreeSet::from([PACKAGE.to_owned()]);
    let mut unseen = vec![PACKAGE.to_owned()];
    while let Some(package) = unseen.pop() {
        for name in package::dependencies(&package)? {
            let is_wanted = name.starts_with("lib") && !OF_THIS_HOST.contains(&name.as_str());
            if is_wanted && known.insert(name.clone()) {
                unseen.push(name);
            }
        }
    }
    if known.len() == 1 {
        return Err(Failure::Missing(format!("{PACKAGE} is not in the package lists")));
    }
    Ok(known.into_iter().collect())
}

/// Name, version and architecture of a package, from its file's name.
fn stem(file: &Path) -> Option<String> {
    // apt writes the colon of a version as it may stand in a file's name.
    Some(file.file_stem()?.to_string_lossy().replace("%3a", ":").replace('_', " "))
}
