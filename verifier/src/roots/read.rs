//! From a path to labelled byte strings, with bounds on size, number and depth.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::{
    cabinet::{self, CabinetError},
    classify::{Import, Placement, classify},
};

/// Largest file: a PEM bundle of every manufacturer's certificates has about 2 MB, CRLs up to 8 MB.
pub const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Files of one import, in a directory or in a cabinet.
pub const MAX_FILES: usize = 20_000;
/// Directories below the one that is named.
pub const MAX_DIRECTORY_DEPTH: usize = 8;

/// Why an import could not be read at all. Single files that are no endorsements do not end it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A damaged or unsupported cabinet.
    #[error("{}", path.display())]
    Cabinet {
        /// The cabinet.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: CabinetError,
    },
    /// Directories nested too deeply.
    #[error("{} is nested more than {MAX_DIRECTORY_DEPTH} directories deep", .0.display())]
    Depth(PathBuf),
    /// The operating system refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Neither a file nor a directory.
    #[error("{} is neither a file nor a directory", .0.display())]
    NotAFile(PathBuf),
    /// A file larger than [`MAX_FILE_BYTES`].
    #[error("{} has more than {MAX_FILE_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
    /// More than [`MAX_FILES`] files.
    #[error("more than {MAX_FILES} files")]
    TooMany,
}

/// One byte string of an import and where it came from.
pub(super) struct Item {
    pub(super) label: String,
    pub(super) bytes: Vec<u8>,
}

/// Reads a PEM or DER file, a directory of such files, or a cabinet, and classifies what is in it.
///
/// A directory is read recursively in the order of names; symbolic links to directories are not
/// followed. A cabinet is known by its signature `MSCF`, wherever it lies. Labels are paths below
/// `path`, inside a cabinet the cabinet's name, `:` and the path there.
///
/// # Errors
/// [`ImportError`] if `path` cannot be read or a bound is exceeded.
pub fn import(path: &Path, placement: Placement) -> Result<Import, ImportError> {
    let mut items = Vec::new();
    let metadata = metadata(path)?;
    if metadata.is_dir() {
        read_directory(path, "", 0, &mut items)?;
    } else {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        read_file(path, name.unwrap_or_default(), &mut items)?;
    }
    Ok(classify(items, placement))
}

fn read_directory(
    path: &Path,
    label: &str,
    depth: usize,
    items: &mut Vec<Item>,
) -> Result<(), ImportError> {
    if depth > MAX_DIRECTORY_DEPTH {
        return Err(ImportError::Depth(path.to_owned()));
    }
    let io_error = |source| ImportError::Io { path: path.to_owned(), source };
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).map_err(io_error)? {
        if entries.len() >= MAX_FILES {
            return Err(ImportError::TooMany);
        }
        entries.push(entry.map_err(io_error)?);
    }
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name();
        let label = match label {
            "" => name.to_string_lossy().into_owned(),
            _ => format!("{label}/{}", name.to_string_lossy()),
        };
        let io_error = |source| ImportError::Io { path: path.clone(), source };
        let kind = entry.file_type().map_err(io_error)?;
        if kind.is_dir() {
            read_directory(&path, &label, depth + 1, items)?;
        } else if kind.is_symlink() && !metadata(&path)?.is_file() {
            // A link to a directory could lead round in circles.
        } else {
            read_file(&path, label, items)?;
        }
    }
    Ok(())
}

fn read_file(path: &Path, label: String, items: &mut Vec<Item>) -> Result<(), ImportError> {
    // Opening a FIFO would wait for its other end.
    if !metadata(path)?.is_file() {
        return Err(ImportError::NotAFile(path.to_owned()));
    }
    let io_error = |source| ImportError::Io { path: path.to_owned(), source };
    let limit = MAX_FILE_BYTES.max(cabinet::MAX_CABINET_BYTES);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io_error)?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(io_error)?;
    let is_cabinet = cabinet::is_cabinet(&bytes);
    let limit = if is_cabinet { cabinet::MAX_CABINET_BYTES } else { MAX_FILE_BYTES };
    if bytes.len() as u64 > limit {
        return Err(ImportError::TooLarge(path.to_owned()));
    }
    if is_cabinet {
        let files = cabinet::extract(&bytes)
            .map_err(|source| ImportError::Cabinet { path: path.to_owned(), source })?;
        for file in files {
            push(items, Item { label: format!("{label}:{}", file.label), bytes: file.bytes })?;
        }
        return Ok(());
    }
    push(items, Item { label, bytes })
}

fn push(items: &mut Vec<Item>, item: Item) -> Result<(), ImportError> {
    if items.len() >= MAX_FILES {
        return Err(ImportError::TooMany);
    }
    items.push(item);
    Ok(())
}

fn metadata(path: &Path) -> Result<fs::Metadata, ImportError> {
    fs::metadata(path).map_err(|source| ImportError::Io { path: path.to_owned(), source })
}
