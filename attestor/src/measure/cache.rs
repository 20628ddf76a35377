//! Files that were hashed before and have not changed since.
//!
//! # What decides
//! A file is not read again if device, inode number, size, mtime, ctime (both in nanoseconds) and
//! mode are those of the reading, and the last change was at least two seconds old when that
//! reading began (a younger one could be followed by another within the same time stamp: such a
//! file is read again next time). The cache lives in memory: a restart or reboot begins with none.
//!
//! # Limits
//! The kernel sets ctime and no call sets it to a chosen value, but who is root can still get
//! around it: by setting the clock back, by writing to the block device, or from below the kernel.
//! Stores through a shared mapping change the time stamps when the page is first dirtied, not at
//! each store. A network file system may report stale attributes. Whoever needs more than that
//! measures fresh: job permits always do.

use std::{collections::HashMap, sync::Arc};

use proto::{digest::Digest, tool_log::ToolMeasurement};

use super::{
    file::{Facts, Hashed},
    needs::Needs,
};

/// Results of earlier measurements, kept in memory by whoever measures again.
#[derive(Debug, Default)]
pub struct Cache {
    run: u64,
    files: HashMap<(u64, u64), Entry>,
    claims: HashMap<String, Claims>,
}

#[derive(Debug)]
struct Entry {
    hashed: Hashed,
    /// The measurement that read it.
    read_in: u64,
    /// The last measurement that used it.
    used_in: u64,
}

#[derive(Debug)]
struct Claims {
    digest: Digest,
    version: Option<String>,
    package: Option<String>,
}

/// What a file is known to be.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) sha256: [u8; 32],
    pub(crate) size_bytes: u64,
    pub(crate) needs: Arc<Needs>,
}

impl Cache {
    /// An empty cache.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Files that are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Begins a measurement.
    pub(crate) const fn begin(&mut self) {
        self.run += 1;
    }

    /// What is known of the file with these facts; `fresh`: only what this measurement read.
    pub(crate) fn get(&mut self, facts: &Facts, fresh: bool) -> Option<Known> {
        let entry = self.files.get_mut(&(facts.dev, facts.ino))?;
        let Hashed { facts: then, sha256, needs, settled } = &entry.hashed;
        let valid = entry.read_in == self.run || (!fresh && *settled && then == facts);
        if !valid {
            return None;
        }
        entry.used_in = self.run;
        Some(Known { sha256: *sha256, size_bytes: then.size_bytes, needs: Arc::clone(needs) })
    }

    /// Keeps what was read just now.
    pub(crate) fn put(&mut self, hashed: Hashed) {
        let key = (hashed.facts.dev, hashed.facts.ino);
        self.files.insert(key, Entry { hashed, read_in: self.run, used_in: self.run });
    }

    /// Ends a measurement: what it did not use is forgotten.
    pub(crate) fn end(&mut self) {
        let run = self.run;
        self.files.retain(|_, entry| entry.used_in == run);
        self.files.shrink_to_fit();
    }

    /// Version and package of a tool, if they were asked for this very content before.
    pub(crate) fn claims(
        &self,
        tool: &ToolMeasurement,
    ) -> Option<(Option<String>, Option<String>)> {
        let claims = self.claims.get(tool.name())?;
        (claims.digest == tool.digest()).then(|| (claims.version.clone(), claims.package.clone()))
    }

    /// Keeps a tool's version and package.
    pub(crate) fn put_claims(&mut self, tool: &ToolMeasurement) {
        let claims = Claims {
            digest: tool.digest(),
            version: tool.version().map(str::to_owned),
            package: tool.package().map(str::to_owned),
        };
        self.claims.insert(tool.name().to_owned(), claims);
    }
}
