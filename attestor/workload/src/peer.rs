//! The process at the other end of a connection, as the kernel names it.

use std::{io, os::fd::OwnedFd};

use nix::sys::socket::{getsockopt, sockopt};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::net::UnixStream;

use crate::{
    proc_fs::{ProcFs, ProcessKey},
    refusal::{Refusal, RefusalCode},
};

/// The process that opened a connection.
///
/// # Proves
/// User, group and process are what the kernel noted when the process connected. The process is held
/// by a pidfd, so that a later process with the same number is never taken for it.
///
/// # Does not prove
/// That this process, and not one it handed its descriptor to, wrote a request: descriptors can be
/// passed on. A connection speaks for whoever opened it, and only while that process lives.
#[derive(Debug)]
pub struct Peer {
    uid: u32,
    gid: u32,
    pidfd: OwnedFd,
    key: ProcessKey,
    proc_fs: ProcFs,
}

/// What the kernel says of a peer at one moment; it lived when all of this was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Effective user when it connected.
    pub uid: u32,
    /// Effective group when it connected.
    pub gid: u32,
    /// `None` where the kernel has no unified hierarchy.
    pub cgroup: Option<String>,
    /// The process itself, its parent, and so on.
    pub ancestry: Vec<ProcessKey>,
}

/// Why nothing is known of a peer.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The process ended, or its number stands for another by now.
    #[error("the process that opened the connection is gone")]
    Gone,
    /// The kernel would not say; the caller fails closed.
    #[error("the process cannot be read")]
    Unreadable(#[source] io::Error),
}

impl From<PeerError> for Refusal {
    fn from(error: PeerError) -> Self {
        let code = match error {
            PeerError::Gone => RefusalCode::PeerGone,
            PeerError::Unreadable(_) => RefusalCode::PeerUnreadable,
        };
        Self::new(code, error.to_string())
    }
}

/// What `SO_PEERCRED` says.
#[derive(Clone, Copy, Debug)]
struct Credentials {
    uid: u32,
    gid: u32,
    pid: u32,
}

impl Peer {
    /// The peer of a connection just accepted.
    ///
    /// `SO_PEERPIDFD` (Linux 6.5) names the process itself. On older kernels the number of
    /// `SO_PEERCRED` is turned into a pidfd: somebody would have to run through all process numbers
    /// in the moment between connecting and being accepted to be taken for another; the accept loop
    /// does nothing else, so that this moment is short.
    ///
    /// # Errors
    /// [`PeerError`]; there is no peer without a process.
    pub(crate) fn of(stream: &UnixStream) -> Result<Self, PeerError> {
        let credentials = stream.peer_cred().map_err(PeerError::Unreadable)?;
        // A process of another PID namespace has no number here.
        let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok());
        let pid = pid.filter(|pid| *pid != 0).ok_or(PeerError::Gone)?;
        let credentials = Credentials { uid: credentials.uid(), gid: credentials.gid(), pid };
        let pidfd = match getsockopt(stream, sockopt::PeerPidfd) {
            Ok(pidfd) => Some(pidfd),
            Err(nix::errno::Errno::ENOPROTOOPT) => None,
            // ESRCH, or EINVAL on older kernels: it ended and was reaped.
            Err(_) => return Err(PeerError::Gone),
        };
        Self::with(credentials, pidfd, ProcFs::system())
    }

    fn with(
        credentials: Credentials,
        pidfd: Option<OwnedFd>,
        proc_fs: ProcFs,
    ) -> Result<Self, PeerError> {
        let Credentials { uid, gid, pid } = credentials;
        let start_time = || proc_fs.stat(pid).map(|stat| stat.start_time).map_err(unreadable);
        let before = start_time()?;
        let pidfd = match pidfd {
            Some(pidfd) => pidfd,
            None => open(pid)?,
        };
        // The same start time on both sides of opening: the descriptor is of that process.
        if start_time()? != before {
            return Err(PeerError::Gone);
        }
        let peer = Self { uid, gid, pidfd, key: ProcessKey { pid, start_time: before }, proc_fs };
        if peer.is_running() { Ok(peer) } else { Err(PeerError::Gone) }
    }

    /// Effective user ID when it connected.
    #[must_use]
    pub(crate) const fn uid(&self) -> u32 {
        self.uid
    }

    /// Its number and start time.
    #[must_use]
    pub(crate) const fn key(&self) -> ProcessKey {
        self.key
    }

    /// Whether the process that connected has not ended; a zombie has.
    #[must_use]
    pub(crate) fn is_running(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        loop {
            match poll(&mut fds, Some(&now)) {
                Ok(count) => return count == 0,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Reads what selectors look at, anew at every call.
    ///
    /// # Errors
    /// [`PeerError::Gone`] when the process ended before everything was read: what was read by its
    /// number may then be of another.
    pub fn observe(&self) -> Result<Observation, PeerError> {
        let read = self.read();
        if !self.is_running() {
            return Err(PeerError::Gone);
        }
        let observation = read.map_err(unreadable)?;
        // Beside the descriptor, the number itself must stand for the process that connected.
        match observation.ancestry.first() {
            Some(first) if *first == self.key => Ok(observation),
            _ => Err(PeerError::Gone),
        }
    }

    fn read(&self) -> io::Result<Observation> {
        Ok(Observation {
            uid: self.uid,
            gid: self.gid,
            cgroup: self.proc_fs.cgroup(self.key.pid)?,
            ancestry: self.proc_fs.ancestry(self.key.pid)?,
        })
    }
}

fn unreadable(error: io::Error) -> PeerError {
    match error.kind() {
        io::ErrorKind::NotFound => PeerError::Gone,
        _ => PeerError::Unreadable(error),
    }
}

fn open(pid: u32) -> Result<OwnedFd, PeerError> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(PeerError::Gone)?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(pidfd),
        Err(Errno::SRCH) => Err(PeerError::Gone),
        Err(error) => Err(PeerError::Unreadable(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        process::{Child, Command, Stdio},
    };

    use super::*;
    use crate::proc_fs::tests::write_stat;

    /// A process that does nothing, and goes with the test.
    struct Sleeper(Child);

    impl Drop for Sleeper {
        fn drop(&mut self) {
            // It may have been ended and reaped by the test.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    impl Sleeper {
        fn id(&self) -> u32 {
            self.0.id()
        }
    }

    fn sleeper() -> Sleeper {
        let mut command = Command::new("sleep");
        command.arg("600").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Sleeper(command.spawn().unwrap())
    }

    fn credentials(pid: u32) -> Credentials {
        Credentials { uid: 1, gid: 2, pid }
    }

    fn is_gone<T: std::fmt::Debug>(result: Result<T, PeerError>) -> bool {
        matches!(result, Err(PeerError::Gone))
    }

    #[tokio::test]
    async fn a_connection_is_of_the_process_that_opened_it() {
        let (here, _there) = UnixStream::pair().unwrap();
        let peer = Peer::of(&here).unwrap();
        assert_eq!(peer.key(), ProcessKey::of(std::process::id()).unwrap());
        assert_eq!(peer.uid(), rustix::process::geteuid().as_raw());
        let seen = peer.observe().unwrap();
        assert_eq!(seen.ancestry.first(), Some(&peer.key()));
    }

    #[test]
    fn both_ways_to_a_pidfd_see_the_process_end() {
        let child = sleeper();
        let pid = child.id();
        let own = open(pid).unwrap();
        let given = Peer::with(credentials(pid), Some(own), ProcFs::system()).unwrap();
        let opened = Peer::with(credentials(pid), None, ProcFs::system()).unwrap();
        for peer in [&given, &opened] {
            assert!(peer.is_running());
            let seen = peer.observe().unwrap();
            assert_eq!((seen.uid, seen.gid), (1, 2));
            assert_eq!(seen.ancestry.get(1).map(|key| key.pid), Some(std::process::id()));
        }
        drop(child);
        for peer in [given, opened] {
            assert!(!peer.is_running());
            assert!(is_gone(peer.observe()));
        }
        assert!(is_gone(Peer::with(credentials(pid), None, ProcFs::system())));
    }

    /// A zombie still has its number and its files, and nobody can run in it.
    #[test]
    fn a_process_that_ended_but_was_not_reaped_is_gone() {
        let mut child = sleeper();
        let peer = Peer::with(credentials(child.id()), None, ProcFs::system()).unwrap();
        assert!(peer.observe().is_ok());
        child.0.kill().unwrap();
        // Its state becomes Z without being waited for.
        let stat = format!("/proc/{}/stat", child.id());
        while !fs::read_to_string(&stat).unwrap().contains(") Z ") {
            std::thread::yield_now();
        }
        assert!(is_gone(peer.observe()));
    }

    /// The number changed hands while it was turned into a descriptor.
    #[test]
    fn a_number_that_changes_hands_while_it_is_opened_is_gone() {
        let own = std::process::id();
        for (change_at, expected) in [(0, true), (1, false), (2, true)] {
            let directory = tempfile::tempdir().unwrap();
            write_stat(directory.path(), own, 0, 1);
            let root = directory.path().to_owned();
            let proc_fs = ProcFs::changing(directory.path(), move |reads| {
                if reads == change_at {
                    write_stat(&root, own, 0, 2);
                }
            });
            let peer = Peer::with(credentials(own), None, proc_fs);
            assert_eq!(peer.is_ok(), expected, "{change_at}");
            assert!(expected || is_gone(peer));
        }
    }

    /// As where `/proc` is mounted so that it hides others' processes, or says what no kernel says.
    #[test]
    fn what_the_kernel_does_not_tell_of_is_refused() {
        let own = std::process::id();
        let directory = tempfile::tempdir().unwrap();
        write_stat(directory.path(), own, 0, 1);
        let spoil = |file: &str, text: &str| {
            fs::write(directory.path().join(own.to_string()).join(file), text).unwrap();
        };
        spoil("cgroup", "0::/unit\n");
        let peer = Peer::with(credentials(own), None, ProcFs::at(directory.path())).unwrap();
        assert!(peer.observe().is_ok());
        spoil("cgroup", "0::no path\n");
        let code = |error: PeerError| Refusal::from(error).code();
        assert_eq!(peer.observe().map_err(code), Err(RefusalCode::PeerUnreadable));
        spoil("stat", "no stat");
        let peer = Peer::with(credentials(own), None, ProcFs::at(directory.path()));
        assert_eq!(peer.map(drop).map_err(code), Err(RefusalCode::PeerUnreadable));
        assert_eq!(RefusalCode::PeerUnreadable.code(), "WORKLOAD_PEER_UNREADABLE");
    }

    /// The number stands for a living process again: what it is now is not believed.
    #[test]
    fn a_reused_number_is_not_the_peer() {
        let (first, second) = (sleeper(), sleeper());
        let pidfd = open(first.id()).unwrap();
        let key = ProcessKey::of(first.id()).unwrap();
        drop(first);
        // As if the kernel had given the first one's number to the second.
        let directory = tempfile::tempdir().unwrap();
        let link = |pid: u32, to: u32| {
            let link = directory.path().join(pid.to_string());
            std::os::unix::fs::symlink(format!("/proc/{to}"), link).unwrap();
        };
        link(key.pid, second.id());
        for parent in ProcFs::system().ancestry(std::process::id()).unwrap() {
            link(parent.pid, parent.pid);
        }
        let proc_fs = ProcFs::at(directory.path());
        assert!(proc_fs.stat(key.pid).is_ok(), "the number is in use");
        assert!(is_gone(Peer::with(credentials(key.pid), Some(pidfd), proc_fs.clone())));
        // A living descriptor, but the number's process began at another time.
        let own = ProcessKey::of(std::process::id()).unwrap();
        let pidfd = open(own.pid).unwrap();
        let later = ProcessKey { pid: key.pid, start_time: own.start_time + 1_000_000 };
        let peer = Peer { uid: 0, gid: 0, pidfd, key: later, proc_fs };
        assert!(peer.is_running());
        assert!(peer.read().is_ok());
        assert!(is_gone(peer.observe()));
        drop(second);
    }
}
