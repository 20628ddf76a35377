//! Removing old results: by age and by number, the oldest first.

use std::{
    collections::BinaryHeap, ffi::OsString, fs, io, os::unix::fs::MetadataExt as _, path::Path,
};

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

/// What one step did.
#[derive(Debug)]
pub struct ResultsStep {
    /// What it removed.
    pub dropped: ResultsDropped,
    /// Whether there are more to remove, and another step would get on with it.
    pub goes_on: bool,
    /// The first one that could not be removed, and why; the others went.
    pub failed: Option<FileError>,
}

/// A result that may go, ordered by when it was written.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Old {
    written: (i64, i64),
    digest: [u8; 32],
    bytes: u64,
}

/// What is beyond the limits.
#[derive(Debug, Default)]
struct Beyond {
    /// Results, the oldest first.
    oldest: Vec<Old>,
    /// How many results there are in all.
    count: usize,
    /// Names of what killed writes left.
    rests: Vec<OsString>,
}

impl ResultFiles {
    /// Removes some of the results that the limits don't keep, the oldest, until it is said to stop; one that cannot be removed
    /// keeps no other of these.
    ///
    /// A file with another name, a symbolic link and a folder are nobody's results: they are neither counted nor removed. Of a
    /// write that was killed the rest goes, not counted, when it is as old as a result that goes.
    ///
    /// # Errors
    /// [`FileError`] if they cannot be listed.
    pub fn drop_some(
        &self,
        limits: ResultsLimits,
        stop: impl Fn() -> bool,
    ) -> Result<ResultsStep, FileError> {
        self.drop_with(limits, stop, |path| fs::remove_file(path))
    }

    pub(super) fn drop_with(
        &self,
        limits: ResultsLimits,
        stop: impl Fn() -> bool,
        remove: impl Fn(&Path) -> io::Result<()>,
    ) -> Result<ResultsStep, FileError> {
        let Beyond { oldest, count, rests } = self.beyond(limits, STEP)?;
        let more = count > oldest.len();
        let (mut dropped, mut failed) = (ResultsDropped::default(), None);
        let results = oldest.iter().map(|old| (self.path(&hex::encode(old.digest)), Some(old)));
        let rests = rests.iter().map(|name| (self.folder.join(name), None));
        // A service that stops waits for a moment, and a disk may be slow.
        for (path, old) in results.chain(rests).take_while(|_| !stop()) {
            match remove(&path) {
                Ok(()) => old.iter().for_each(|old| dropped.count(old.bytes)),
                // By whoever cleans up by hand.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    failed.get_or_insert(FileError::Io { doing: "remove", path, source });
                }
            }
        }
        // Where nothing went, the next step would find the same.
        let is_stuck = failed.is_some() && dropped == ResultsDropped::default();
        Ok(ResultsStep { dropped, goes_on: more && !is_stuck, failed })
    }

    /// What [`Self::drop_some`] would remove until there is nothing more.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn would_drop(&self, limits: ResultsLimits) -> Result<ResultsDropped, FileError> {
        let beyond = self.beyond(limits, usize::MAX)?;
        let mut dropped = ResultsDropped::default();
        beyond.oldest.iter().for_each(|old| dropped.count(old.bytes));
        Ok(dropped)
    }

    /// At most `most` of the results beyond the limits.
    fn beyond(&self, limits: ResultsLimits, most: usize) -> Result<Beyond, FileError> {
        let failed = |source| FileError::Io { doing: "list", path: self.folder.clone(), source };
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Beyond::default()),
            other => other.map_err(failed)?,
        };
        let mut rests = Vec::new();
        let (mut all, mut aged) = (0_usize, 0_usize);
        // The newest on top, to be thrown out for an older one: bounded, whatever the folder holds.
        let mut oldest = BinaryHeap::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some(kind) = name.to_str().and_then(Kind::of) else { continue };
            // Of the name, not of what a link leads to.
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(failed)?,
            };
            if !metadata.is_file() {
                continue;
            }
            let written = (metadata.mtime(), metadata.mtime_nsec());
            let is_aged = written.0 < limits.before_unix_s;
            let Kind::Result(digest) = kind else {
                if is_aged && rests.len() < most {
                    rests.push(name);
                }
                continue;
            };
            all = all.saturating_add(1);
            aged = aged.saturating_add(usize::from(is_aged));
            oldest.push(Old { written, digest, bytes: metadata.len() });
            if oldest.len() > most {
                oldest.pop();
            }
        }
        let too_many =
            all.saturating_sub(usize::try_from(limits.keep_newest).unwrap_or(usize::MAX));
        // Both are the oldest so many: the larger number includes the other.
        let count = aged.max(too_many);
        let mut oldest = oldest.into_sorted_vec();
        oldest.truncate(count);
        Ok(Beyond { oldest, count, rests })
    }
}

/// What a file's name says that it is.
enum Kind {
    /// A result with this digest.
    Result([u8; 32]),
    /// Of a write that did not come to its end.
    Rest,
}

impl Kind {
    /// `None` for what nothing here has written.
    fn of(name: &str) -> Option<Self> {
        if let Some(name) = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp")) {
            let (digest, writer) = name.split_once(EXTENSION)?;
            return (is_digest(digest) && writer.starts_with('.')).then_some(Self::Rest);
        }
        let name = name.strip_suffix(EXTENSION).filter(|name| is_digest(name))?;
        let mut digest = [0; 32];
        hex::decode_to_slice(name, &mut digest).ok()?;
        Some(Self::Result(digest))
    }
}
