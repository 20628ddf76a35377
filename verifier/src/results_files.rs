//! Attestation results as files, named by their digest: written once, handed to whoever has the digest.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use proto::digest::{Digest, HashAlg};

use crate::ca::files::{self, FileError, MODE_PUBLIC};

/// Folder of the results under the state directory.
pub const RESULTS_FOLDER: &str = "results";
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
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        // A name and nothing else: it becomes part of a path.
        if digest.len() != 64 || !digest.bytes().all(is_digit) {
            return Ok(None);
        }
        let path = self.path(digest);
        match fs::metadata(&path) {
            Ok(found) if found.len() <= MAX_RESULT_BYTES => fs::read(&path).map(Some),
            Ok(_) => Err(io::Error::other("a result is larger than any that is written")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{digest}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_found_by_its_digest_and_nothing_else_is() {
        let state = tempfile::tempdir().expect("folder");
        let results = ResultFiles::open(state.path()).expect("opened");
        let digest = results.keep(b"{}").expect("kept");
        assert_eq!(results.keep(b"{}").expect("kept already"), digest);
        let name = hex::encode(digest.as_bytes());
        assert_eq!(results.read(&name).expect("read"), Some(b"{}".to_vec()));
        fs::write(state.path().join("secret.json"), "secret").expect("written");
        for other in ["", "../secret", &name[1..], &name.to_uppercase(), &format!("{name}/")] {
            assert_eq!(results.read(other).expect("read"), None, "{other:?}");
        }
    }
}
