//! One file: opened once, hashed through that descriptor, and proven not to have changed meanwhile.
//!
//! # Rules
//! - The path is free of links when it is opened: it comes from [`super::resolve`], which recorded
//!   each link, and `openat2(RESOLVE_NO_SYMLINKS)` refuses if one appeared since (kernels without
//!   openat2: `O_NOFOLLOW`, which guards the last component only).
//! - `O_NONBLOCK`, so that a FIFO put there cannot hang the daemon; only regular files are read.
//! - Device, inode, size, mtime and ctime (nanoseconds) must be the same before and after reading;
//!   otherwise the file is read again, at most [`ATTEMPTS`] times, and then reported.
//! - Exactly the size seen before is read: a file that grows without end cannot hold the daemon.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::ffi::OsStrExt, unix::fs::FileExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{Advice, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fadvise, fstat, openat2},
    io::Errno,
};
use sha2::{Digest as _, Sha256};

use super::needs::Needs;

/// Times that a changing file is read before it is reported.
const ATTEMPTS: usize = 3;
/// Age of the last change below which a later change may leave the same time stamps: kernels stamp
/// files from a clock that ticks every 1–10 ms, network and foreign file systems up to every 2 s.
const RACY: Duration = Duration::from_secs(2);

/// Inode facts that decide whether a file is the one that was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Device.
    pub(crate) dev: u64,
    /// Inode number.
    pub(crate) ino: u64,
    /// Size, bytes.
    pub(crate) size_bytes: u64,
    /// Last change of the content, nanoseconds since 1970.
    pub(crate) mtime_ns: i128,
    /// Last change of content or inode, nanoseconds since 1970; no system call sets it.
    pub(crate) ctime_ns: i128,
    /// Type and permissions.
    pub(crate) mode: u32,
}

impl Facts {
    /// The facts in a `struct stat`.
    #[expect(
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        reason = "field types of struct stat differ between architectures"
    )]
    pub(crate) fn of(stat: &Stat) -> Self {
        let nanos = |secs: i64, nanos: u64| i128::from(secs) * 1_000_000_000 + i128::from(nanos);
        Self {
            dev: u64::from(stat.st_dev),
            ino: u64::from(stat.st_ino),
            size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
            mtime_ns: nanos(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
            ctime_ns: nanos(stat.st_ctime as i64, stat.st_ctime_nsec as u64),
            mode: stat.st_mode,
        }
    }

    /// Whether any execute permission is set.
    pub(crate) const fn is_executable(&self) -> bool {
        self.mode & 0o111 != 0
    }
}

/// A file that was read.
#[derive(Clone, Debug)]
pub(crate) struct Hashed {
    /// Its facts while it was read.
    pub(crate) facts: Facts,
    /// SHA-256 of its bytes.
    pub(crate) sha256: [u8; 32],
    /// What its content says that it needs.
    pub(crate) needs: Arc<Needs>,
    /// Whether any later change must show in the facts (the last change was not just now).
    pub(crate) settled: bool,
}

/// Why a file could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileError {
    /// It changed while it was read, or is no longer what the path led to.
    Changed,
    /// The system refuses.
    Os(Errno),
}

impl From<Errno> for FileError {
    fn from(errno: Errno) -> Self {
        Self::Os(errno)
    }
}

/// Opens a path without links for reading.
pub(crate) fn open(path: &Path) -> Result<OwnedFd, Errno> {
    static NO_OPENAT2: AtomicBool = AtomicBool::new(false);
    let flags =
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    if !NO_OPENAT2.load(Ordering::Relaxed) {
        match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
            // Not there before Linux 5.6; some containers' filters answer EPERM for what they don't
            // know.
            Err(Errno::NOSYS | Errno::PERM) => NO_OPENAT2.store(true, Ordering::Relaxed),
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    rustix::fs::open(path, flags, Mode::empty())
}

/// Reads one file whose facts were `expected` when its path was resolved.
pub(crate) fn hash_file(
    path: &[u8],
    expected: &Facts,
    buffer: &mut [u8],
    read: &dyn Fn(u64),
) -> Result<Hashed, FileError> {
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    let file = match open(path) {
        Ok(fd) => File::from(fd),
        // It was there, without links, a moment ago.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(FileError::Changed),
        Err(errno) => return Err(errno.into()),
    };
    let mut before = Facts::of(&fstat(&file)?);
    // A regular file stood here a moment ago.
    if FileType::from_raw_mode(before.mode) != FileType::RegularFile
        || (before.dev, before.ino) != (expected.dev, expected.ino)
    {
        return Err(FileError::Changed);
    }
    // What one read takes needs no advice; and it is only advice: the answer does not matter.
    if before.size_bytes > buffer.len() as u64 {
        let _ = fadvise(&file, 0, None, Advice::Sequential);
    }
    for _ in 0..ATTEMPTS {
        let started = SystemTime::now();
        let sha256 = digest(&file, before.size_bytes, buffer, read);
        let needs = Needs::of(&file, &before);
        let after = Facts::of(&fstat(&file)?);
        if after != before {
            before = after;
            continue;
        }
        let needs = Arc::new(needs?);
        let Some(sha256) = sha256? else {
            continue;
        };
        let settled = is_settled(&before, started);
        return Ok(Hashed { facts: before, sha256, needs, settled });
    }
    Err(FileError::Changed)
}

/// The digest of the first `size` bytes; `None` if the file ends before.
fn digest(
    file: &File,
    size: u64,
    buffer: &mut [u8],
    read: &dyn Fn(u64),
) -> Result<Option<[u8; 32]>, Errno> {
    let mut hasher = Sha256::new();
    let mut at = 0;
    while at < size {
        let wanted = usize::try_from(size - at).unwrap_or(usize::MAX).min(buffer.len());
        let Some(part) = buffer.get_mut(..wanted) else {
            break;
        };
        match file.read_at(part, at) {
            Ok(0) => return Ok(None),
            Ok(count) => {
                hasher.update(part.get(..count).unwrap_or_default());
                let count = u64::try_from(count).unwrap_or(0);
                at += count;
                read(count);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }
    Ok(Some(hasher.finalize().into()))
}

/// Whether the last change lies far enough before `now`; a change "in the future" does not.
pub(crate) fn is_settled(facts: &Facts, now: SystemTime) -> bool {
    let Ok(now) = now.duration_since(UNIX_EPOCH) else {
        return false;
    };
    let nanos = |duration: Duration| i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX);
    facts.ctime_ns.max(facts.mtime_ns).saturating_add(nanos(RACY)) <= nanos(now)
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        fs,
        os::unix::{ffi::OsStrExt as _, fs::symlink},
        path::{Path, PathBuf},
    };

    use rustix::fs::{CWD, Mode, stat};
    use sha2::{Digest as _, Sha256};

    use super::{ATTEMPTS, Facts, FileError, Hashed, hash_file};

    struct Tool {
        folder: tempfile::TempDir,
        path: PathBuf,
        /// As the path was resolved.
        facts: Facts,
    }

    const BAD: &[u8] = b"the tool with a gift";
    const GOOD: &[u8] = b"the tool that the golden set lists";

    impl Tool {
        /// A tool in a directory of its own, beside a good one that is not it.
        fn new(content: &[u8]) -> Self {
            let folder = tempfile::tempdir().expect("folder");
            let root = folder.path().canonicalize().expect("path");
            for (name, content) in [("bin", content), ("good", GOOD)] {
                fs::create_dir(root.join(name)).expect("folder");
                fs::write(root.join(name).join("tool"), content).expect("file");
            }
            let path = root.join("bin/tool");
            let facts = Facts::of(&stat(&path).expect("stat"));
            Self { folder, path, facts }
        }

        fn beside(&self, name: &str) -> PathBuf {
            self.folder.path().canonicalize().expect("path").join(name)
        }

        /// Something else in the place of `at`, by one rename.
        fn swap(&self, at: &Path, make: impl FnOnce(&Path)) {
            let new = self.beside("new");
            make(&new);
            if at.is_dir() && !at.is_symlink() {
                fs::rename(at, self.beside("old")).expect("moved away");
            }
            fs::rename(new, at).expect("swapped");
        }

        fn hash(&self, during: &dyn Fn(u64)) -> Result<Hashed, FileError> {
            hash_file(self.path.as_os_str().as_bytes(), &self.facts, &mut [0; 8], during)
        }
    }

    fn sha256(bytes: &[u8]) -> [u8; 32] {
        Sha256::digest(bytes).into()
    }

    /// The link would lead to content that the golden set lists.
    #[test]
    fn what_stands_in_the_files_place_when_it_is_opened_is_not_read() {
        let good = |tool: &Tool| tool.beside("good/tool");
        type Swap = fn(&Tool, PathBuf);
        let swaps: [(&str, Swap); 6] = [
            ("a link", |tool, good| {
                tool.swap(&tool.path, |new| symlink(&good, new).expect("link"));
            }),
            ("a link above", |tool, _| {
                tool.swap(&tool.beside("bin"), |new| symlink("good", new).expect("link"));
            }),
            ("another file", |tool, good| {
                tool.swap(&tool.path, |new| {
                    fs::copy(&good, new).expect("copy");
                });
            }),
            ("the other file itself", |tool, good| {
                tool.swap(&tool.path, |new| fs::hard_link(&good, new).expect("link"));
            }),
            ("a FIFO", |tool, _| {
                tool.swap(&tool.path, |new| {
                    let (kind, mode) = (rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR);
                    rustix::fs::mknodat(CWD, new, kind, mode, 0).expect("FIFO");
                });
            }),
            ("nothing", |tool, _| fs::remove_file(&tool.path).expect("removed")),
        ];
        for (what, swap) in swaps {
            let tool = Tool::new(BAD);
            swap(&tool, good(&tool));
            assert_eq!(tool.hash(&|_| ()).map(|_| ()), Err(FileError::Changed), "{what}");
        }
    }

    /// In the middle of reading: the digest is of what was opened, whatever the path says by then.
    #[test]
    fn a_link_that_appears_while_the_file_is_read_is_not_followed() {
        let tool = Tool::new(BAD);
        let swapped = Cell::new(false);
        let hashed = tool.hash(&|_| {
            if !swapped.replace(true) {
                let good = tool.beside("good/tool");
                tool.swap(&tool.path, |new| symlink(&good, new).expect("link"));
            }
        });
        assert!(swapped.get());
        assert_eq!(fs::read(&tool.path).expect("read"), GOOD, "the path leads elsewhere now");
        assert_eq!(hashed.expect("hashed").sha256, sha256(BAD));
        // And at the next measurement the path is another one.
        assert_eq!(tool.hash(&|_| ()).map(|_| ()), Err(FileError::Changed));
    }

    /// Content changed in place between two reads is never a digest of both halves.
    #[test]
    fn a_file_written_to_while_it_is_read_is_read_again_or_reported() {
        let tool = Tool::new(BAD);
        let times = Cell::new(0);
        let write = |content: &[u8]| fs::write(&tool.path, content).expect("written");
        let hashed = tool.hash(&|_| {
            times.set(times.get() + 1);
            if times.get() == 1 {
                write(GOOD);
            }
        });
        assert_eq!(hashed.expect("hashed").sha256, sha256(GOOD));

        let tool = Tool::new(BAD);
        let rounds = Cell::new(0_usize);
        let write = |content: &[u8]| fs::write(&tool.path, content).expect("written");
        let never_still = tool.hash(&|_| {
            rounds.set(rounds.get() + 1);
            // Another size each time, so that no clock can hide the change.
            write(&vec![b'x'; BAD.len() + rounds.get()]);
        });
        assert_eq!(never_still.map(|_| ()), Err(FileError::Changed));
        assert!(rounds.get() >= ATTEMPTS);
    }
}
