//! From a directory: every file below it, as a machine with this root names it.

use std::{
    fs::{self, File},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use proto::{digest::Digest, tool_log::path_text};

use super::{CollectError, Collected, Progress, Selection, hash::Begun, select::is_selected};

/// Files below `root`, with paths from there.
///
/// Links are not followed: the kernel names a file where it lies. Other file systems are not entered.
///
/// # Errors
/// [`CollectError::Read`] if `root` cannot be read. What cannot be read below it is left out and said.
pub fn from_root(
    root: &Path,
    selection: Selection,
    progress: Progress<'_>,
) -> Result<Collected, CollectError> {
    let device = fs::metadata(root).map_err(CollectError::read(root))?.dev();
    let mut out = Collected::default();
    let mut open = vec![root.to_path_buf()];
    while let Some(folder) = open.pop() {
        let listed = fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = match listed {
            Ok(entries) => entries,
            Err(error) if folder == root => return Err(CollectError::read(root)(error)),
            Err(error) => {
                out.skip(format!("{}: {error}", shown(&folder)));
                continue;
            }
        };
        for entry in entries {
            let path = entry.path();
            match entry.metadata() {
                Ok(found) if found.is_dir() && found.dev() == device => open.push(path),
                Ok(found) if found.is_dir() => {
                    out.skip(format!("{}: another file system", shown(&path)));
                }
                Ok(found) if found.is_file() => {
                    out.seen = out.seen.saturating_add(1);
                    progress(out.seen);
                    let name = name_in(root, &path);
                    take(&mut out, selection, &path, &[name], found.mode());
                }
                Ok(_) => {}
                Err(error) => out.skip(format!("{}: {error}", shown(&path))),
            }
        }
    }
    out.builder.source(format!("directory {}", shown(root)));
    Ok(out)
}

/// Hashes a file of the disk, which the kernel may know by any of `names`, if it is selected; what goes
/// wrong is said.
pub(super) fn take(
    out: &mut Collected,
    selection: Selection,
    path: &Path,
    names: &[Vec<u8>],
    mode: u32,
) {
    match digest(selection, path, mode) {
        Ok(Some((digest, size))) => {
            out.hashed_bytes = out.hashed_bytes.saturating_add(size);
            for name in names {
                out.builder.file(&digest, name);
            }
        }
        Ok(None) => {}
        Err(error) => out.skip(format!("{}: {error}", shown(path))),
    }
}

fn digest(selection: Selection, path: &Path, mode: u32) -> io::Result<Option<(Digest, u64)>> {
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits();
    let flags = i32::try_from(flags).map_err(io::Error::other)?;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let begun = Begun::new(file)?;
    if is_selected(selection, path.as_os_str().as_bytes(), mode, begun.head()) {
        begun.digest(selection.digest).map(Some)
    } else {
        Ok(None)
    }
}

/// `/usr/bin/true` for `ROOT/usr/bin/true`.
fn name_in(root: &Path, path: &Path) -> Vec<u8> {
    let relative: PathBuf = path.strip_prefix(root).unwrap_or(path).into();
    [b"/", relative.as_os_str().as_bytes()].concat()
}

fn shown(path: &Path) -> String {
    path_text(path.as_os_str().as_bytes())
}
