//! Building manifests of allowed files: from a list, a directory, packages, or what is installed.
//!
//! A manifest says what its maker saw, nothing more: build it where the files can be trusted, from a
//! distribution's packages or an image that was just made, not on the machine that it is to judge.

mod hash;
mod installed;
mod list;
mod packages;
mod root;
mod select;
mod tar;

use std::{
    io,
    path::{Path, PathBuf},
};

use appraisal::ima::ManifestBuilder;
use proto::digest::HashAlg;

pub use self::{
    installed::from_installed, list::from_list, packages::from_packages, root::from_root,
};

/// What is measured, and how.
#[derive(Clone, Copy, Debug)]
pub struct Selection {
    /// The hash of `ima_hash=`.
    pub digest: HashAlg,
    /// Every regular file; else only what can run: executables, libraries, scripts, kernel modules.
    pub all: bool,
}

/// Files with their digests, and what happened on the way.
#[derive(Debug, Default)]
pub struct Collected {
    /// The manifest's files and sources.
    pub builder: ManifestBuilder,
    /// Files looked at.
    pub seen: u64,
    /// Bytes hashed.
    pub hashed_bytes: u64,
    /// What was left out although it was asked for, and why; at most [`MAX_SKIPPED`].
    pub skipped: Vec<String>,
    /// More of them.
    pub more_skipped: u64,
}

/// Reasons that are kept: an operator reads the first ones.
pub const MAX_SKIPPED: usize = 100;

impl Collected {
    fn skip(&mut self, what: impl Into<String>) {
        if self.skipped.len() < MAX_SKIPPED {
            self.skipped.push(what.into());
        } else {
            self.more_skipped = self.more_skipped.saturating_add(1);
        }
    }
}

/// Called after each file: files looked at so far.
pub type Progress<'p> = &'p mut dyn FnMut(u64);

/// Why no manifest was built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// A program that is needed is not there.
    #[error("{program} is not installed: it unpacks Debian packages")]
    ProgramMissing {
        /// Its name.
        program: &'static str,
    },
    /// A program failed.
    #[error("{program} failed on {}: {message}", file.display())]
    ProgramFailed {
        /// Its name.
        program: &'static str,
        /// The file it was given.
        file: PathBuf,
        /// What it said.
        message: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An archive is not what it must be.
    #[error("{}: {what}", file.display())]
    Archive {
        /// The package.
        file: PathBuf,
        /// What is wrong in it.
        what: String,
    },
    /// A list cannot be read.
    #[error(transparent)]
    List(#[from] proto::ima::ImaError),
    /// Not a list at all.
    #[error("this is not a binary IMA list")]
    NotAList,
    /// Not a directory of dpkg's database.
    #[error("{} has no info/*.list: not dpkg's database (usually /var/lib/dpkg)", .0.display())]
    NotDpkg(PathBuf),
}

impl CollectError {
    fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        |source| Self::Read { path, source }
    }
}

#[cfg(test)]
mod tests;
