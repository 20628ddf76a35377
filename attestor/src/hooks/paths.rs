//! Files of root, written so that a reader sees the old content or the new.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use super::HookError;

/// Largest file that is read here: a tool list.
const MAX_BYTES: u64 = 1024 * 1024;

/// Reads a file; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, HookError> {
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(HookError::io("read", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(HookError::io("read", path))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(HookError::io("read", path)(io::Error::other("more than 1 MiB")));
    }
    Ok(Some(bytes))
}

/// Whether anything has this name: a link to nothing, too.
pub(super) fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Writes a file beside, syncs it, and renames it over; root's, where this is root.
pub(super) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), HookError> {
    replace_as(path, content, mode, (0, 0))
}

/// As [`replace`], of this user and group, where this is root.
pub(super) fn replace_as(
    path: &Path,
    content: &[u8],
    mode: u32,
    (uid, gid): (u32, u32),
) -> Result<(), HookError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".assay-new");
    let beside = path.with_file_name(name);
    let _ = fs::remove_file(&beside);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)
        .and_then(|mut file| {
            if rustix::process::geteuid().is_root() {
                fchown(&file, Some(uid), Some(gid))?;
            }
            // Whatever the umask says.
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&beside, path))
        .and_then(|()| match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        });
    written.map_err(|error| {
        let _ = fs::remove_file(&beside);
        HookError::io("write", path)(error)
    })
}

/// Makes the folders above `path` that are missing, 0755; gives the ones it made, the upper first.
pub(super) fn make_folders(path: &Path) -> Result<Vec<PathBuf>, HookError> {
    let above = path.ancestors().skip(1);
    let mut missing: Vec<PathBuf> =
        above.take_while(|folder| !folder.exists()).map(Path::to_owned).collect();
    missing.reverse();
    for folder in &missing {
        fs::create_dir(folder).map_err(HookError::io("make", folder))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
            .map_err(HookError::io("make", folder))?;
    }
    Ok(missing)
}

/// Most changed files that are kept beside one.
const MAX_SAVED: u32 = 20;

/// Where a file of somebody else's is kept.
pub(super) fn saved(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".before-assay");
    path.with_file_name(name)
}

/// Where a changed file is kept while another one is kept already: the first name that is free, or the last, which is not.
pub(super) fn saved_too(path: &Path) -> PathBuf {
    let numbered = |number: u32| {
        let mut name = saved(path).into_os_string();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    let free = (2..MAX_SAVED).map(numbered).find(|name| !is_there(name));
    free.unwrap_or_else(|| numbered(MAX_SAVED))
}
