//! Attestation results as files, named by their digest: written once, handed to whoever has the digest, removed when old.

mod retention;

#[cfg(test)]
mod tests;

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use proto::digest::{Digest, HashAlg};

pub use self::retention::{ResultsDropped, ResultsLimits, ResultsStep};
use crate::ca::files::{self, FileError, MODE_PUBLIC};

/// Folder of the results under the state directory.
pub const RESULTS_FOLDER: &str = "results";
const EXTENSION: &str = ".json";
const MODE_FOLDER: u32 = 0o755;
/// Largest result: a statement with every tool at its longest.
const MAX_RESULT_BYTES: u64 = 4 * 1024 * 1024;

/// The results of a verifier.
#[derive(Clone, Debug)]
pub struct ResultFiles {
    folder: PathBuf,
}

impl ResultFiles {
    /// Results under a state directory.
    ///
    /// # Errors
    /// [`FileError`] if the folder cannot be made.
    pub fn open(state: &Path) -> Result<Self, FileError> {
        let folder = state.join(RESULTS_FOLDER);
        files::make_dir(&folder, MODE_FOLDER)?;
        Ok(Self { folder })
    }

    /// Results under a state directory, which are only looked at: nothing is made.
    #[must_use]
    pub fn at(state: &Path) -> Self {
        Self { folder: state.join(RESULTS_FOLDER) }
    }

    /// Keeps a result; returns its digest. Nothing happens where it is kept already.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn keep(&self, bundle: &[u8]) -> Result<Digest, FileError> {
        let digest = HashAlg::Sha256.hash(&[bundle]);
        files::create(&self.path(&hex::encode(digest.as_bytes())), bundle, MODE_PUBLIC)?;
        Ok(digest)
    }

    /// The result with this digest, 64 lower-case hexadecimal digits; `None` for any other text, and where there is none.
    ///
    /// # Errors
    /// [`io::Error`] if it cannot be read.
    pub fn read(&self, digest: &str) -> io::Result<Option<Vec<u8>>> {
        if !is_digest(digest) {
            return Ok(None);
        }
        // Opened once: one that is removed meanwhile is read to its end, or was never there.
        let file = match fs::File::open(self.path(digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_RESULT_BYTES.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_RESULT_BYTES {
            return Err(io::Error::other("a result is larger than any that is written"));
        }
        Ok(Some(bytes))
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{digest}{EXTENSION}"))
    }
}

/// A name and nothing else: it becomes part of a path.
fn is_digest(text: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.len() == 64 && text.bytes().all(is_digit)
}
