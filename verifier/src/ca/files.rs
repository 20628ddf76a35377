//! Files of the CA: atomic, never overwritten by accident, private keys readable by their owner
//! only.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use der::pem::{LineEnding, encode_string};
use zeroize::Zeroizing;

/// Mode of a file with a private key.
pub const MODE_SECRET: u32 = 0o600;
/// Mode of a file for everybody to read.
pub const MODE_PUBLIC: u32 = 0o644;
/// Mode of a directory that holds private keys.
pub const MODE_SECRET_DIR: u32 = 0o700;
/// Mode of the state directory: others may pass through to what is public.
pub const MODE_STATE_DIR: u32 = 0o711;

/// Largest file read here: a chain of a dozen certificates has 30 kB.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Certificates in one PEM file.
const MAX_PEM_BLOCKS: usize = 32;

/// A file could not be read or written, or must not be used as it stands.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Input or output failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A private key that others can read.
    #[error(
        "{} holds a private key and has mode {mode:04o}: others could have read it. If nobody did, \
         run `chmod 600 {}`; else make a new key", path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A private key that belongs to somebody else.
    #[error("{} holds a private key and belongs to user {owner}, not to the user {user} that runs this program", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The effective user.
        user: u32,
    },
    /// Not what is expected there.
    #[error("{}: {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl FileError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }

    pub(super) fn content(path: &Path, what: impl Into<String>) -> Self {
        Self::Content { path: path.to_owned(), what: what.into() }
    }

    /// Whether the file is simply not there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Creates a directory with its parents; the mode applies to the last one, and is not touched where
/// the directory exists. Returns whether it was created.
///
/// # Errors
/// [`FileError::Io`]; [`FileError::Content`] if something else has that name.
pub fn make_dir(path: &Path, mode: u32) -> Result<bool, FileError> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(FileError::io("create", parent))?;
    }
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {
            // The umask may have taken bits away.
            fs::set_permissions(path, fs::Permissions::from_mode(mode))
                .map_err(FileError::io("set the mode of", path))?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if path.is_dir() {
                Ok(false)
            } else {
                Err(FileError::content(path, "is not a directory"))
            }
        }
        Err(error) => Err(FileError::io("create", path)(error)),
    }
}

/// Writes a file that does not exist yet; complete or not at all. Returns `false`, and writes
/// nothing, where a file of that name exists.
///
/// # Errors
/// [`FileError::Io`].
pub fn create(path: &Path, content: &[u8], mode: u32) -> Result<bool, FileError> {
    let temporary = temporary(path, content, mode)?;
    // A hard link, unlike a rename, fails where the name is taken.
    let linked = fs::hard_link(&temporary, path);
    let removed = fs::remove_file(&temporary);
    match linked {
        Ok(()) => {
            removed.map_err(FileError::io("remove", &temporary))?;
            sync_dir(path)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(FileError::io("create", path)(error)),
    }
}

/// Writes a file, replacing one of that name; readers see the old or the new one, complete.
///
/// # Errors
/// [`FileError::Io`].
pub fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let temporary = temporary(path, content, mode)?;
    if let Err(error) = fs::rename(&temporary, path) {
        // The error that is reported is the rename's; the leftover is harmless.
        let _ = fs::remove_file(&temporary);
        return Err(FileError::io("replace", path)(error));
    }
    sync_dir(path)
}

fn temporary(path: &Path, content: &[u8], mode: u32) -> Result<PathBuf, FileError> {
    let name = path
        .file_name()
        .ok_or_else(|| FileError::content(path, "is not the name of a file"))?
        .to_string_lossy();
    // Unique within this process and among those running now.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(".{name}.{}.{count}.tmp", std::process::id()));
    // Left by a run that was killed under the same process number.
    let _ = fs::remove_file(&temporary);
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        FileError::io("write", path)(error)
    })?;
    Ok(temporary)
}

fn sync_dir(path: &Path) -> Result<(), FileError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(FileError::io("write", parent))
}

/// Reads a text file of at most 1 MiB.
///
/// # Errors
/// [`FileError::Io`]; [`FileError::Content`] if it is larger or not UTF-8.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    let file = File::open(path).map_err(FileError::io("read", path))?;
    let mut text = String::new();
    read_bounded(path, file, &mut text)?;
    Ok(text)
}

/// Reads a private-key file: regular, not a symbolic link, owned by the effective user or root, no
/// permission for group and others.
///
/// # Errors
/// [`FileError::Exposed`], [`FileError::Owner`], [`FileError::Content`], [`FileError::Io`].
pub fn read_secret(path: &Path) -> Result<Zeroizing<String>, FileError> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .map_err(FileError::io("read", path))?;
    // Facts of the open file, not of its name.
    let metadata = file.metadata().map_err(FileError::io("read", path))?;
    if !metadata.is_file() {
        return Err(FileError::content(path, "is not a regular file"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(FileError::Exposed { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
    }
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user && metadata.uid() != 0 {
        return Err(FileError::Owner { path: path.to_owned(), owner: metadata.uid(), user });
    }
    // Enough room from the start, so that growing leaves no copy of a key behind.
    let room = usize::try_from(metadata.len().min(MAX_FILE_BYTES)).unwrap_or(0).saturating_add(1);
    let mut text = Zeroizing::new(String::with_capacity(room));
    read_bounded(path, file, &mut text)?;
    Ok(text)
}

fn read_bounded(path: &Path, file: File, text: &mut String) -> Result<(), FileError> {
    match file.take(MAX_FILE_BYTES.saturating_add(1)).read_to_string(text) {
        Ok(_) if text.len() as u64 <= MAX_FILE_BYTES => Ok(()),
        Ok(_) => Err(FileError::content(path, format!("is larger than {MAX_FILE_BYTES} bytes"))),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(FileError::content(path, "is not text"))
        }
        Err(error) => Err(FileError::io("read", path)(error)),
    }
}

/// PEM of one structure.
#[must_use]
pub fn pem(label: &str, der: &[u8]) -> String {
    encode_string(label, LineEnding::LF, der).expect("labels are constants; length is no limit")
}

/// PEM of certificates, one after the other.
#[must_use]
pub fn certificates_pem<'a>(ders: impl IntoIterator<Item = &'a [u8]>) -> String {
    ders.into_iter().map(|der| pem("CERTIFICATE", der)).collect()
}

/// One PEM block: its text from `BEGIN` to `END`, and its label.
pub(super) fn pem_blocks<'a>(
    path: &Path,
    text: &'a str,
) -> Result<Vec<(&'a str, &'a str)>, FileError> {
    const BEGIN: &str = "-----BEGIN ";
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(BEGIN) {
        if blocks.len() == MAX_PEM_BLOCKS {
            return Err(FileError::content(path, format!("has more than {MAX_PEM_BLOCKS} blocks")));
        }
        let block = &rest[start..];
        let label = block[BEGIN.len()..]
            .split_once("-----")
            .map(|(label, _)| label)
            .ok_or_else(|| FileError::content(path, "has a PEM block without a label"))?;
        let end = format!("-----END {label}-----");
        let length = block
            .find(&end)
            .map(|at| at.saturating_add(end.len()))
            .ok_or_else(|| FileError::content(path, format!("has no end of its {label} block")))?;
        blocks.push((label, &block[..length]));
        rest = &block[length..];
    }
    Ok(blocks)
}

/// The certificates of a PEM text, DER, in order; other blocks are passed over.
///
/// # Errors
/// [`FileError::Content`] if there is none, or one does not decode as PEM.
pub fn certificates_of(path: &Path, text: &str) -> Result<Vec<Vec<u8>>, FileError> {
    let mut out = Vec::new();
    for (label, block) in pem_blocks(path, text)? {
        if label == "CERTIFICATE" {
            let (_, der) = der::pem::decode_vec(block.as_bytes())
                .map_err(|error| FileError::content(path, format!("is not PEM: {error}")))?;
            out.push(der);
        }
    }
    if out.is_empty() {
        return Err(FileError::content(path, "has no certificate in it"));
    }
    Ok(out)
}

/// Removes a file; it is no error if there is none.
///
/// # Errors
/// [`FileError::Io`].
pub fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::io("remove", path)(error))
        }
        _ => sync_dir(path),
    }
}
