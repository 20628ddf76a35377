//! From what is installed: the files that dpkg's database names, as they lie on the disk.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use super::{CollectError, Collected, Progress, Selection, root::take, select::names_of};

/// Files of the packages in a database directory (`ROOT/var/lib/dpkg`), below its root.
///
/// Files that nobody packaged are not there: that is the difference to a directory. What a package's
/// file now contains is what is on the disk: do this where the disk can be trusted.
///
/// # Errors
/// [`CollectError::NotDpkg`] for another directory, [`CollectError::Read`] for one that cannot be read.
/// Packaged files that are absent are left out and said.
pub fn from_installed(
    database: &Path,
    selection: Selection,
    progress: Progress<'_>,
) -> Result<Collected, CollectError> {
    let root = root_of(database);
    let info = database.join("info");
    let listed = fs::read_dir(&info).map_err(|_| CollectError::NotDpkg(database.to_path_buf()))?;
    let mut lists: Vec<PathBuf> = listed
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension() == Some(OsStr::new("list")))
        .collect();
    lists.sort();
    if lists.is_empty() {
        return Err(CollectError::NotDpkg(database.to_path_buf()));
    }
    let status = database.join("status");
    let status = fs::read(&status).map_err(CollectError::read(&status))?;
    let mut out = Collected::default();
    for (name, version) in packages(&status) {
        out.builder.source(format!("package {name} {version}, installed"));
    }
    for list in lists {
        let text = fs::read(&list).map_err(CollectError::read(&list))?;
        for path in text.split(|byte| *byte == b'\n').filter(|path| path.len() > 1) {
            let relative = path.strip_prefix(b"/").unwrap_or(path);
            let on_disk = root.join(OsStr::from_bytes(relative));
            // Directories, links and diverted files are other names of what is named elsewhere.
            match fs::symlink_metadata(&on_disk) {
                Ok(found) if found.is_file() => {
                    out.seen = out.seen.saturating_add(1);
                    progress(out.seen);
                    take(&mut out, selection, &on_disk, &names_of(path), found.mode());
                }
                Ok(_) => {}
                Err(error) => out.skip(format!("{}: {error}", on_disk.display())),
            }
        }
    }
    Ok(out)
}

/// `/` for `/var/lib/dpkg`, `ROOT` for `ROOT/var/lib/dpkg`.
fn root_of(database: &Path) -> PathBuf {
    let up = database.ancestors().nth(3);
    match up {
        Some(root) if database.ends_with("var/lib/dpkg") && !root.as_os_str().is_empty() => {
            root.to_path_buf()
        }
        Some(_) if database.ends_with("var/lib/dpkg") => PathBuf::from("."),
        _ => PathBuf::from("/"),
    }
}

/// Names and versions of a status file.
fn packages(status: &[u8]) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut name = None;
    for line in String::from_utf8_lossy(status).lines() {
        if let Some(value) = line.strip_prefix("Package: ") {
            name = Some(value.trim().to_owned());
        }
        let version = line.strip_prefix("Version: ");
        if let (Some(version), Some(name)) = (version, name.take_if(|_| version.is_some())) {
            out.push((name, version.trim().to_owned()));
        }
    }
    out
}
