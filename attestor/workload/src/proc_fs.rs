//! What the kernel says of a process under `/proc`: start time, parent, control group.
//!
//! Everything here is by number, and numbers are reused: a caller holds a pidfd and asks again after
//! reading whether that process still lived ([`crate::peer`]).

use std::{
    fs::File,
    io::{self, Read as _},
    path::PathBuf,
};

/// Levels of parents that are followed: deeper than build systems nest, bounded against a process
/// that forks a chain to keep us reading.
pub const MAX_ANCESTORS: usize = 64;
/// Bytes of one file that are read: a stat line is under 500, a control group's path up to 4 KiB.
const MAX_FILE_BYTES: u64 = 16 * 1024;
/// How often a chain of parents that changes while it is read is read again.
const MAX_ATTEMPTS: usize = 4;

/// A process: its number, and the start time that tells it from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessKey {
    /// Process ID in the server's PID namespace.
    pub pid: u32,
    /// Field `starttime` of `/proc/PID/stat`: clock ticks since boot.
    pub start_time: u64,
}

impl ProcessKey {
    /// The running process with this number.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] where there is none, or one that has ended and was not waited for; others where `/proc`
    /// cannot be read.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = ProcFs::system().stat(pid)?;
        if stat.is_zombie {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self { pid, start_time: stat.start_time })
    }

    /// Path of its control group in the unified hierarchy; `None` where there is no such hierarchy.
    ///
    /// # Errors
    /// [`io::Error`] where the process has ended or `/proc` cannot be read.
    pub fn cgroup(self) -> io::Result<Option<String>> {
        let cgroup = ProcFs::system().cgroup(self.pid)?;
        // Read before: it was this process's.
        match Self::of(self.pid)? == self {
            true => Ok(cgroup),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// What `/proc/PID/stat` says, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) parent: u32,
    pub(crate) start_time: u64,
    pub(crate) is_zombie: bool,
}

/// A mounted proc file system; tests bring one of their own.
#[derive(Clone, Debug)]
pub(crate) struct ProcFs {
    root: PathBuf,
    #[cfg(test)]
    before_read: tests::BeforeRead,
}

impl ProcFs {
    pub(crate) fn system() -> Self {
        Self {
            root: PathBuf::from("/proc"),
            #[cfg(test)]
            before_read: tests::BeforeRead::default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn at(root: &std::path::Path) -> Self {
        Self { root: root.to_owned(), before_read: tests::BeforeRead::default() }
    }

    /// One in which something happens before each reading, told how many there were.
    #[cfg(test)]
    pub(crate) fn changing(
        root: &std::path::Path,
        change: impl Fn(usize) + Send + Sync + 'static,
    ) -> Self {
        Self { root: root.to_owned(), before_read: tests::BeforeRead::new(change) }
    }

    pub(crate) fn stat(&self, pid: u32) -> io::Result<Stat> {
        parse_stat(&self.read(pid, "stat")?).ok_or_else(|| malformed("stat"))
    }

    /// Path of the process in the unified hierarchy; `None` where there is no such hierarchy.
    pub(crate) fn cgroup(&self, pid: u32) -> io::Result<Option<String>> {
        parse_cgroup(&self.read(pid, "cgroup")?).map_err(|()| malformed("cgroup"))
    }

    /// The process and its parents, nearest first, at most [`MAX_ANCESTORS`].
    ///
    /// Read twice, and again where the two differ. A parent's number in the second reading equal to
    /// that in the first means that it was the parent all along, as no process becomes the child of
    /// one that began after it; so the start time read in between is that parent's.
    pub(crate) fn ancestry(&self, pid: u32) -> io::Result<Vec<ProcessKey>> {
        for _ in 0..MAX_ATTEMPTS {
            let first = match self.chain(pid) {
                Ok(chain) => chain,
                // A parent that ended meanwhile; the process itself is looked at by its caller.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if self.chain(pid).is_ok_and(|second| second == first) {
                return Ok(first);
            }
        }
        Err(io::Error::other("the parents change faster than they can be read"))
    }

    fn chain(&self, pid: u32) -> io::Result<Vec<ProcessKey>> {
        let mut chain = Vec::new();
        let mut next = pid;
        while next != 0 && chain.len() < MAX_ANCESTORS {
            let stat = self.stat(next)?;
            chain.push(ProcessKey { pid: next, start_time: stat.start_time });
            next = stat.parent;
        }
        Ok(chain)
    }

    fn read(&self, pid: u32, name: &str) -> io::Result<Vec<u8>> {
        #[cfg(test)]
        self.before_read.happens();
        let path = self.root.join(pid.to_string()).join(name);
        let gone = |error: io::Error| {
            // A process that ends while its file is open reads as ESRCH.
            let is_gone = error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error());
            if is_gone { io::Error::from(io::ErrorKind::NotFound) } else { error }
        };
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(gone)?;
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(gone)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(malformed(name));
        }
        Ok(bytes)
    }
}

fn malformed(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/proc/PID/{name} is not as expected"))
}

/// `PID (COMM) STATE PPID …`; the name may hold spaces, parentheses and bytes that are no UTF-8.
fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let end = bytes.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(bytes.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    // After the name: state is field 3, ppid 4, starttime 22.
    let is_zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let start_time = fields.nth(17)?.parse().ok()?;
    Some(Stat { parent, start_time, is_zombie })
}

/// The line `0::PATH`. Lines of other hierarchies are of no interest.
fn parse_cgroup(bytes: &[u8]) -> Result<Option<String>, ()> {
    let mut found = None;
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some(path) = line.strip_prefix(b"0::") else { continue };
        let path = std::str::from_utf8(path).map_err(|_| ())?;
        if found.is_some() || !path.starts_with('/') {
            return Err(());
        }
        found = Some(path.to_owned());
    }
    Ok(found)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        fmt, fs,
        path::Path,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use super::*;

    /// What happens before a file is read.
    #[derive(Clone, Default)]
    pub(crate) struct BeforeRead(Option<Arc<dyn Fn() + Send + Sync>>);

    impl BeforeRead {
        pub(super) fn new(change: impl Fn(usize) + Send + Sync + 'static) -> Self {
            let reads = AtomicUsize::new(0);
            Self(Some(Arc::new(move || change(reads.fetch_add(1, Ordering::SeqCst)))))
        }

        pub(super) fn happens(&self) {
            if let Some(change) = &self.0 {
                change();
            }
        }
    }

    impl fmt::Debug for BeforeRead {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("BeforeRead")
        }
    }

    /// Writes what `/proc/PID/stat` would be.
    pub(crate) fn write_stat(root: &Path, pid: u32, parent: u32, start_time: u64) {
        let folder = root.join(pid.to_string());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("stat"), stat_line(pid, parent, start_time)).unwrap();
    }

    /// A folder like `/proc` with these `(pid, parent, start_time)`.
    fn made_up(processes: &[(u32, u32, u64)]) -> (tempfile::TempDir, ProcFs) {
        let directory = tempfile::tempdir().unwrap();
        for (pid, parent, start_time) in processes {
            write_stat(directory.path(), *pid, *parent, *start_time);
        }
        let proc_fs = ProcFs::at(directory.path());
        (directory, proc_fs)
    }

    fn stat_line(pid: u32, parent: u32, start_time: u64) -> String {
        let zeros = "0 ".repeat(17);
        format!("{pid} (a) b (c)) S {parent} {zeros}{start_time} 9 9 9\n")
    }

    #[test]
    fn a_stat_line_is_read_behind_the_last_parenthesis() {
        let stat = parse_stat(stat_line(7, 3, 4711).as_bytes());
        let runs = Stat { parent: 3, start_time: 4711, is_zombie: false };
        assert_eq!(stat, Some(runs));
        let ended = stat_line(7, 3, 4711).replace(" S ", " Z ");
        assert_eq!(parse_stat(ended.as_bytes()), Some(Stat { is_zombie: true, ..runs }));
        // Field 22 and no other: each field holds its own number.
        let numbered: Vec<_> = (4..=52).map(|field: u32| field.to_string()).collect();
        let line = format!("1 (x) S {}\n", numbered.join(" "));
        assert_eq!(
            parse_stat(line.as_bytes()),
            Some(Stat { parent: 4, start_time: 22, is_zombie: false })
        );
        for bad in ["", "1 (x S 1 2", "1 (x) S 1 0 0", "1 (x) S -1 0 0 0"] {
            assert_eq!(parse_stat(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn this_process_is_read_as_the_kernel_says() {
        let own = ProcessKey::of(std::process::id()).unwrap();
        let chain = ProcFs::system().ancestry(own.pid).unwrap();
        assert_eq!(chain.first(), Some(&own));
        assert_eq!(chain.get(1).map(|key| key.pid), Some(std::os::unix::process::parent_id()));
        assert!(own.start_time > 0);
    }

    #[test]
    fn a_cgroup_line_is_that_of_the_unified_hierarchy() {
        let of = |text: &str| parse_cgroup(text.as_bytes());
        assert_eq!(of("4:memory:/a\n1:cpu:/\n0::/jobs/7\n"), Ok(Some("/jobs/7".to_owned())));
        assert_eq!(of("0::/jobs/0::/7\n"), Ok(Some("/jobs/0::/7".to_owned())));
        assert_eq!(of("4:memory:/a\n"), Ok(None));
        assert_eq!(of("0::jobs\n"), Err(()));
        assert_eq!(of("0::/a\n0::/b\n"), Err(()));
        assert_eq!(parse_cgroup(b"0::/\xff\n"), Err(()));
    }

    #[test]
    fn a_chain_of_parents_ends_at_the_root_or_at_the_limit() {
        let (_directory, proc_fs) = made_up(&[(30, 20, 3), (20, 1, 2), (1, 0, 1)]);
        let key = |pid, start_time| ProcessKey { pid, start_time };
        assert_eq!(proc_fs.ancestry(30).unwrap(), [key(30, 3), key(20, 2), key(1, 1)]);
        let deep: Vec<_> = (1..=200).map(|pid| (pid, pid - 1, u64::from(pid))).collect();
        let (_directory, proc_fs) = made_up(&deep);
        let chain = proc_fs.ancestry(200).unwrap();
        assert_eq!(chain.len(), MAX_ANCESTORS);
        assert_eq!(chain.last(), Some(&key(137, 137)));
        // A loop, which no kernel has, ends as well.
        let (_directory, proc_fs) = made_up(&[(2, 3, 1), (3, 2, 1)]);
        assert_eq!(proc_fs.ancestry(2).unwrap().len(), MAX_ANCESTORS);
    }

    /// Between the readings of child and parent the parent ends, and its number is another's.
    #[test]
    fn a_process_that_took_a_parents_number_is_no_parent() {
        let key = |pid, start_time| ProcessKey { pid, start_time };
        for change_at in 0..6 {
            let (directory, _) = made_up(&[(30, 20, 3), (20, 1, 2), (1, 0, 1)]);
            let root = directory.path().to_owned();
            let proc_fs = ProcFs::changing(directory.path(), move |reads| {
                if reads == change_at {
                    write_stat(&root, 30, 1, 3);
                    write_stat(&root, 20, 1, 99);
                }
            });
            let chain = proc_fs.ancestry(30).unwrap();
            let before = [key(30, 3), key(20, 2), key(1, 1)];
            let after = [key(30, 3), key(1, 1)];
            assert!(chain == before || chain == after, "{change_at}: {chain:?}");
        }
    }

    #[test]
    fn a_parent_that_is_missing_or_changes_is_no_parent() {
        let (_directory, proc_fs) = made_up(&[(30, 20, 3)]);
        assert_eq!(proc_fs.ancestry(30).unwrap_err().kind(), io::ErrorKind::Other);
        let (directory, proc_fs) = made_up(&[(30, 20, 3), (20, 0, 2)]);
        fs::write(directory.path().join("30/stat"), vec![b'x'; 20_000]).unwrap();
        assert_eq!(proc_fs.ancestry(30).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
