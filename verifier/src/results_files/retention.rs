//! Removing old results: by age and by number, the oldest first.

use std::{collections::BinaryHeap, fs, io, os::unix::fs::MetadataExt as _};

use serde::Serialize;

use super::{EXTENSION, ResultFiles, is_digest};
use crate::ca::files::FileError;

/// Results that one step removes: it lasts for about a second, and holds half a megabyte of names.
pub(super) const STEP: usize = 10_000;

/// Which results are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResultsLimits {
    /// Those written before this time may go, unix seconds.
    pub before_unix_s: i64,
    /// Of more than so many the oldest may go; a job has two.
    pub keep_newest: u64,
}

/// What retention dropped, or would drop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ResultsDropped {
    /// Results.
    pub results: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl ResultsDropped {
    fn count(&mut self, bytes: u64) {
        self.results = self.results.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// With what another step dropped.
    pub fn add(&mut self, other: Self) {
        self.results = self.results.saturating_add(other.results);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// A result that may go, ordered by when it was written.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Old {
    written: (i64, i64),
    digest: [u8; 32],
    bytes: u64,
}

impl ResultFiles {
    /// Removes some of the results that the limits don't keep, the oldest; says what went, and whether there are more.
    ///
    /// A file with another name, a symbolic link and a folder are nobody's results: they are neither counted nor removed.
    ///
    /// # Errors
    /// [`FileError`]; what was removed before stays removed.
    pub fn drop_some(&self, limits: ResultsLimits) -> Result<(ResultsDropped, bool), FileError> {
        let (oldest, beyond) = self.beyond(limits, STEP)?;
        let more = beyond > oldest.len();
        let mut dropped = ResultsDropped::default();
        for Old { digest, bytes, .. } in oldest {
            let path = self.path(&hex::encode(digest));
            match fs::remove_file(&path) {
                Ok(()) => dropped.count(bytes),
                // By whoever cleans up by hand.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(FileError::Io { doing: "remove", path, source }),
            }
        }
        Ok((dropped, more))
    }

    /// What [`Self::drop_some`] would remove until there is nothing more.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn would_drop(&self, limits: ResultsLimits) -> Result<ResultsDropped, FileError> {
        let (oldest, _) = self.beyond(limits, usize::MAX)?;
        let mut dropped = ResultsDropped::default();
        oldest.iter().for_each(|old| dropped.count(old.bytes));
        Ok(dropped)
    }

    /// At most `most` of the results beyond the limits, the oldest first, and how many there are in all.
    fn beyond(&self, limits: ResultsLimits, most: usize) -> Result<(Vec<Old>, usize), FileError> {
        let failed = |source| FileError::Io { doing: "list", path: self.folder.clone(), source };
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
            other => other.map_err(failed)?,
        };
        let (mut all, mut aged) = (0_usize, 0_usize);
        // The newest on top, to be thrown out for an older one: bounded, whatever the folder holds.
        let mut oldest = BinaryHeap::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let Some(digest) = entry.file_name().to_str().and_then(digest_of) else { continue };
            // Of the name, not of what a link leads to.
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(failed)?,
            };
            if !metadata.is_file() {
                continue;
            }
            let written = (metadata.mtime(), metadata.mtime_nsec());
            all = all.saturating_add(1);
            aged = aged.saturating_add(usize::from(written.0 < limits.before_unix_s));
            oldest.push(Old { written, digest, bytes: metadata.len() });
            if oldest.len() > most {
                oldest.pop();
            }
        }
        let too_many =
            all.saturating_sub(usize::try_from(limits.keep_newest).unwrap_or(usize::MAX));
        // Both are the oldest so many: the larger number includes the other.
        let beyond = aged.max(too_many);
        let mut oldest = oldest.into_sorted_vec();
        oldest.truncate(beyond);
        Ok((oldest, beyond))
    }
}

fn digest_of(name: &str) -> Option<[u8; 32]> {
    let name = name.strip_suffix(EXTENSION).filter(|name| is_digest(name))?;
    let mut digest = [0; 32];
    hex::decode_to_slice(name, &mut digest).ok()?;
    Some(digest)
}
