//! The socket's file: made where nobody else can put one, replaced only when nobody listens.

use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, Stat, chmodat, chownat, flock, open,
        statat, unlinkat,
    },
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with},
};

/// Longest path of a socket that clients can connect to, bytes: `sun_path` with its final NUL.
pub const MAX_PATH_BYTES: usize = 107;
/// Name of the socket's file unless another is given.
pub const DEFAULT_NAME: &str = "workload.sock";
/// Mode of the socket's file unless another is given: everybody may ask, as who asks decides what is
/// answered. Narrow it with a group where all jobs have one.
pub const DEFAULT_MODE: u32 = 0o666;
/// Connections that wait to be accepted: a flood shall not fill it before it is read.
const BACKLOG: i32 = 1024;

/// Where the socket is, and who may connect.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// An absolute directory that belongs to root or to us and that nobody else can write to.
    pub directory: PathBuf,
    /// The file in it; one plain name.
    pub name: String,
    /// Permission bits of the file.
    pub mode: u32,
    /// Group of the file; `None`: as it comes.
    pub group: Option<u32>,
}

impl SocketOptions {
    /// A socket with the default name and mode.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            name: DEFAULT_NAME.to_owned(),
            mode: DEFAULT_MODE,
            group: None,
        }
    }

    /// The socket's path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// Another server is listening there, or starting.
    #[error("{0}: another server is listening there")]
    Busy(PathBuf),
    /// The directory is not absolute, not a directory, or reached by a symbolic link at its end.
    #[error(
        "{0}: not a directory, or a symbolic link to one; give an absolute path to a directory"
    )]
    Directory(PathBuf, #[source] io::Error),
    /// Others can write to the directory, and so could put a socket of theirs there.
    #[error(
        "{0}: the directory must belong to root or to this user, and others must not write to it"
    )]
    DirectoryNotOurs(PathBuf),
    /// The operating system refused.
    #[error("{0}: {1}")]
    Io(PathBuf, &'static str, #[source] io::Error),
    /// Not one plain file name, or a mode that is not made of permission bits.
    #[error("{0:?}: the name must be one plain file name, the mode permission bits")]
    Options(String),
    /// No client could connect to a path this long.
    #[error("{path}: the path has {bytes} bytes, and a socket's path has at most {MAX_PATH_BYTES}")]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// What is there is not a socket of ours; it was left alone.
    #[error("{0}: there is something that is not this user's socket; it was left alone")]
    Occupied(PathBuf),
}

impl SocketError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Busy(_) => "SOCKET_BUSY",
            Self::Directory(..) => "SOCKET_DIRECTORY",
            Self::DirectoryNotOurs(_) => "SOCKET_DIRECTORY_NOT_OURS",
            Self::Io(..) => "SOCKET_IO",
            Self::Options(_) => "SOCKET_OPTIONS",
            Self::PathTooLong { .. } => "SOCKET_PATH_TOO_LONG",
            Self::Occupied(_) => "SOCKET_OCCUPIED",
        }
    }
}

/// A listening socket with its file, which goes when this does.
#[derive(Debug)]
pub(crate) struct BoundSocket {
    listener: UnixListener,
    directory: OwnedFd,
    name: String,
    /// Device and number of the file we made.
    file: (u64, u64),
}

impl BoundSocket {
    /// Makes the file and listens.
    ///
    /// The directory is opened once and everything is done relative to it; a lock on it keeps two
    /// servers from replacing each other's socket while they start.
    pub(crate) fn bind(options: &SocketOptions) -> Result<Self, SocketError> {
        let path = options.path();
        check_options(options, &path)?;
        let io = |what| {
            let path = path.clone();
            move |error: Errno| SocketError::Io(path, what, error.into())
        };
        let directory = open_directory(&options.directory)?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(SocketError::Busy(path)),
            Err(error) => return Err(io("cannot lock its directory")(error)),
        }
        let name = options.name.as_str();
        // The path within a directory that is open: nothing on the way can be exchanged.
        let inside = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
        make_room(&directory, name, &inside, &path)?;

        let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, kind, flags, None).map_err(io("cannot make a socket"))?;
        let address = SocketAddrUnix::new(inside.as_str()).map_err(io("cannot name it"))?;
        bind(&socket, &address).map_err(io("cannot bind"))?;
        let made = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW);
        let made = made.map_err(io("cannot look at the file just made"))?;
        let bound =
            Self { listener: socket.into(), directory, name: name.to_owned(), file: file(&made) };
        // Nobody is answered before listening, so that nobody connects under another mode.
        if let Some(group) = options.group {
            let group = Some(Gid::from_raw(group));
            chownat(&bound.directory, name, None, group, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(io("cannot set its group"))?;
        }
        // No call changes a mode without following links everywhere; the directory is ours alone.
        chmodat(&bound.directory, name, Mode::from_raw_mode(options.mode), AtFlags::empty())
            .map_err(io("cannot set its mode"))?;
        listen(&bound.listener, BACKLOG).map_err(io("cannot listen"))?;
        flock(&bound.directory, FlockOperation::Unlock)
            .map_err(io("cannot unlock its directory"))?;
        Ok(bound)
    }

    /// A further descriptor of the listening socket, non-blocking.
    pub(crate) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for BoundSocket {
    /// Removes the file, if it is still the one made.
    fn drop(&mut self) {
        let found = statat(&self.directory, self.name.as_str(), AtFlags::SYMLINK_NOFOLLOW);
        if found.is_ok_and(|found| file(&found) == self.file)
            && let Err(error) = unlinkat(&self.directory, self.name.as_str(), AtFlags::empty())
        {
            tracing::warn!(name = self.name, %error, "the socket's file stays");
        }
    }
}

fn file(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn check_options(options: &SocketOptions, path: &Path) -> Result<(), SocketError> {
    let name = options.name.as_str();
    let is_plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    if !is_plain || options.mode & !0o777 != 0 {
        return Err(SocketError::Options(name.to_owned()));
    }
    let bytes = path.as_os_str().len();
    if bytes > MAX_PATH_BYTES {
        return Err(SocketError::PathTooLong { path: path.to_owned(), bytes });
    }
    Ok(())
}

fn open_directory(path: &Path) -> Result<OwnedFd, SocketError> {
    if !path.is_absolute() {
        let error = io::Error::from(io::ErrorKind::InvalidInput);
        return Err(SocketError::Directory(path.to_owned(), error));
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let directory = open(path, flags, Mode::empty())
        .map_err(|error| SocketError::Directory(path.to_owned(), error.into()))?;
    let stat = rustix::fs::fstat(&directory)
        .map_err(|error| SocketError::Directory(path.to_owned(), error.into()))?;
    let is_ours = stat.st_uid == 0 || stat.st_uid == own_uid();
    if !is_ours || stat.st_mode & 0o022 != 0 {
        return Err(SocketError::DirectoryNotOurs(path.to_owned()));
    }
    Ok(directory)
}

/// Removes a socket that nobody listens on any more.
fn make_room(
    directory: impl AsFd,
    name: &str,
    inside: &str,
    path: &Path,
) -> Result<(), SocketError> {
    let io = |what| move |error: io::Error| SocketError::Io(path.to_owned(), what, error);
    let found = match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(io("cannot look at it")(error.into())),
    };
    if FileType::from_raw_mode(found.st_mode) != FileType::Socket || found.st_uid != own_uid() {
        return Err(SocketError::Occupied(path.to_owned()));
    }
    match UnixStream::connect(inside) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        // EAGAIN is a listener whose queue is full.
        Ok(_) => return Err(SocketError::Busy(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err(SocketError::Busy(path.to_owned()));
        }
        Err(error) => return Err(io("cannot see whether somebody listens")(error)),
    }
    unlinkat(directory, name, AtFlags::empty())
        .map_err(|error| io("cannot remove the stale socket")(error.into()))
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests;
