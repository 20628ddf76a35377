//! Packages of the distribution, taken apart without installing them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    run::{Failure, execute, is_installed, output_of},
    setup::apt,
};

/// Programs that all of this needs.
const PROGRAMS: [&str; 4] = ["apt-get", "apt-cache", "dpkg-deb", "tar"];

/// Fails where this host has no packages of this kind.
pub(crate) fn require_programs() -> Result<(), Failure> {
    match PROGRAMS.into_iter().find(|program| !is_installed(program)) {
        None => Ok(()),
        Some(program) => Err(Failure::Missing(format!(
            "{program} is missing: parts of the test machine come out of packages"
        ))),
    }
}

/// Names of packages by `find`, with the package lists fetched where it finds none.
pub(crate) fn find(
    find: impl Fn() -> Result<Vec<String>, Failure>,
) -> Result<Vec<String>, Failure> {
    match find() {
        Ok(packages) => Ok(packages),
        // A fresh container has no package lists.
        Err(_) => {
            execute(apt()?.arg("update").arg("-qq"))?;
            find()
        }
    }
}

/// What a package depends on; nothing for a package that the lists do not have.
pub(crate) fn dependencies(package: &str) -> Result<Vec<String>, Failure> {
    let mut command = Command::new("apt-cache");
    let only = ["depends", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks"];
    let output = match output_of(command.args(only).args(["--no-replaces", package])) {
        Ok(output) => output,
        Err(Failure::Failed(_)) => return Ok(Vec::new()),
        Err(failure) => return Err(failure),
    };
    let text = String::from_utf8_lossy(&output);
    let names = text.lines().filter_map(|line| {
        let line = line.trim();
        line.strip_prefix("Depends: ").or_else(|| line.strip_prefix("PreDepends: "))
    });
    Ok(names.map(str::to_owned).collect())
}

/// Downloads packages into a folder; their files.
fn download(packages: &[String], into: &Path) -> Result<Vec<PathBuf>, Failure> {
    // The download needs no rights, and no other user has a business in our folder.
    let mut download = Command::new("apt-get");
    download.args(["download", "-qq", "-o", "APT::Sandbox::User=root"]).args(packages);
    execute(download.current_dir(into))?;
    let is_package = |path: &PathBuf| path.extension().is_some_and(|end| end == "deb");
    Ok(files_below(into).into_iter().filter(is_package).collect())
}

/// Downloads packages into an empty folder; each is handed to `unpack` with the folder `tree` in it, and then removed.
pub(crate) fn unpack_into(
    work: &Path,
    packages: &[String],
    mut unpack: impl FnMut(&Path, &Path) -> Result<(), Failure>,
) -> Result<PathBuf, Failure> {
    let failed = |error| Failure::Failed(format!("{}: {error}", work.display()));
    let _ = fs::remove_dir_all(work);
    let tree = work.join("tree");
    fs::create_dir_all(&tree).map_err(failed)?;
    for package in download(packages, work)? {
        unpack(&package, &tree)?;
        fs::remove_file(&package).map_err(failed)?;
    }
    Ok(tree)
}

/// Every file below a folder, in the order of their names: who takes the first that fits takes the same one everywhere.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let mut out = Vec::new();
    for path in paths {
        if path.is_dir() && !path.is_symlink() {
            out.extend(files_below(&path));
        } else {
            out.push(path);
        }
    }
    out
}
