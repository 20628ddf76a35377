//! Key sets as files.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use jose::jwk::MAX_SET_BYTES;

/// A file with a key set cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The system gave an error.
    #[error("cannot read the key set")]
    Io(#[source] io::Error),
    /// Not a plain file.
    #[error("the key set is not a plain file")]
    NotAFile,
    /// Larger than a key set may be.
    #[error("the key set has more than {MAX_SET_BYTES} bytes")]
    TooLarge,
}

/// The content of a file, bounded. Blocks: call it off the reactor threads.
///
/// # Errors
/// [`FileError`].
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    // Asked before it is opened: opening a pipe waits for somebody to write.
    if !std::fs::metadata(path).map_err(FileError::Io)?.is_file() {
        return Err(FileError::NotAFile);
    }
    let file = File::open(path).map_err(FileError::Io)?;
    let mut content = Vec::new();
    let limit = u64::try_from(MAX_SET_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut content).map_err(FileError::Io)?;
    if content.len() > MAX_SET_BYTES { Err(FileError::TooLarge) } else { Ok(content) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_plain_files_within_the_bound() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("keys.json");
        assert!(matches!(read(&path), Err(FileError::Io(_))));
        assert!(matches!(read(dir.path()), Err(FileError::NotAFile)));
        std::fs::write(&path, vec![b' '; MAX_SET_BYTES]).expect("a file is written");
        assert_eq!(read(&path).expect("the bound").len(), MAX_SET_BYTES);
        std::fs::write(&path, vec![b' '; MAX_SET_BYTES + 1]).expect("a file is written");
        assert!(matches!(read(&path), Err(FileError::TooLarge)));
    }
}
