use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink},
};

use super::*;

fn directory() -> tempfile::TempDir {
    // Others must not write: what a umask of 0 would allow.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

fn code(result: Result<BoundSocket, SocketError>) -> Result<(), &'static str> {
    result.map(drop).map_err(|error| error.code())
}

#[test]
fn the_file_has_mode_and_group_and_goes_with_the_server() {
    let directory = directory();
    let own_group = rustix::process::getegid().as_raw();
    // Root may give any group.
    let group = if own_uid() == 0 { 4711 } else { own_group };
    let options =
        SocketOptions { mode: 0o620, group: Some(group), ..SocketOptions::new(directory.path()) };
    let bound = BoundSocket::bind(&options).unwrap();
    let metadata = fs::symlink_metadata(options.path()).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!((metadata.mode() & 0o7777, metadata.gid()), (0o620, group));
    assert!(UnixStream::connect(options.path()).is_ok());
    drop(bound);
    assert!(!options.path().exists());
    let default = BoundSocket::bind(&SocketOptions::new(directory.path())).unwrap();
    assert_eq!(fs::metadata(options.path()).unwrap().mode() & 0o7777, DEFAULT_MODE);
    drop(default);
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let directory = directory();
    let options = SocketOptions::new(directory.path());
    drop(UnixListener::bind(options.path()).unwrap());
    assert!(options.path().exists(), "a socket that nobody listens on");
    let first = BoundSocket::bind(&options).unwrap();
    assert_eq!(code(BoundSocket::bind(&options)), Err("SOCKET_BUSY"));
    assert!(UnixStream::connect(options.path()).is_ok(), "the first one was left alone");
    // The file of another server that took over is not removed.
    fs::remove_file(options.path()).unwrap();
    let second = BoundSocket::bind(&options).unwrap();
    drop(first);
    assert!(options.path().exists());
    drop(second);
    assert!(!options.path().exists());
}

#[test]
fn two_that_start_at_once_do_not_replace_each_other() {
    let directory = directory();
    let options = SocketOptions::new(directory.path());
    let held = open_directory(directory.path()).unwrap();
    flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
    assert_eq!(code(BoundSocket::bind(&options)), Err("SOCKET_BUSY"));
    drop(held);
    assert_eq!(code(BoundSocket::bind(&options)), Ok(()));
}

#[test]
fn what_is_not_our_socket_is_left_alone() {
    let directory = directory();
    let options = SocketOptions::new(directory.path());
    let occupied = || code(BoundSocket::bind(&options));
    fs::write(options.path(), "a file").unwrap();
    assert_eq!(occupied(), Err("SOCKET_OCCUPIED"));
    assert_eq!(fs::read_to_string(options.path()).unwrap(), "a file");
    fs::remove_file(options.path()).unwrap();
    // A link, even to a stale socket of ours.
    let elsewhere = directory.path().join("elsewhere");
    drop(UnixListener::bind(&elsewhere).unwrap());
    symlink(&elsewhere, options.path()).unwrap();
    assert_eq!(occupied(), Err("SOCKET_OCCUPIED"));
    assert!(elsewhere.exists());
    fs::remove_file(options.path()).unwrap();
    // A link to nowhere would have bind make its target.
    symlink(directory.path().join("nowhere"), options.path()).unwrap();
    assert_eq!(occupied(), Err("SOCKET_OCCUPIED"));
    assert!(!directory.path().join("nowhere").exists());
    fs::remove_file(options.path()).unwrap();
    fs::create_dir(options.path()).unwrap();
    assert_eq!(occupied(), Err("SOCKET_OCCUPIED"));
    fs::remove_dir(options.path()).unwrap();
    if own_uid() == 0 {
        drop(UnixListener::bind(options.path()).unwrap());
        std::os::unix::fs::chown(options.path(), Some(65534), None).unwrap();
        assert_eq!(occupied(), Err("SOCKET_OCCUPIED"));
        fs::remove_file(options.path()).unwrap();
    }
    assert_eq!(occupied(), Ok(()));
}

#[test]
fn the_directory_is_ours_and_no_link() {
    let directory = directory();
    let options = |path: &Path| SocketOptions::new(path);
    let bind = |path: &Path| code(BoundSocket::bind(&options(path)));
    let inner = directory.path().join("inner");
    assert_eq!(bind(&inner), Err("SOCKET_DIRECTORY"));
    fs::create_dir(&inner).unwrap();
    for mode in [0o775, 0o757, 0o1777] {
        fs::set_permissions(&inner, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(bind(&inner), Err("SOCKET_DIRECTORY_NOT_OURS"), "{mode:o}");
    }
    fs::set_permissions(&inner, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(bind(&inner), Ok(()));
    let link = directory.path().join("link");
    symlink(&inner, &link).unwrap();
    assert_eq!(bind(&link), Err("SOCKET_DIRECTORY"));
    assert_eq!(bind(Path::new("relative")), Err("SOCKET_DIRECTORY"));
    if own_uid() == 0 {
        std::os::unix::fs::chown(&inner, Some(65534), None).unwrap();
        assert_eq!(bind(&inner), Err("SOCKET_DIRECTORY_NOT_OURS"));
    }
}

#[test]
fn names_modes_and_lengths_are_checked_first() {
    let directory = directory();
    let options = SocketOptions::new(directory.path());
    for name in ["", ".", "..", "a/b", "/a", "a\0b"] {
        let options = SocketOptions { name: name.to_owned(), ..options.clone() };
        assert_eq!(code(BoundSocket::bind(&options)), Err("SOCKET_OPTIONS"), "{name:?}");
    }
    let sticky = SocketOptions { mode: 0o1666, ..options.clone() };
    assert_eq!(code(BoundSocket::bind(&sticky)), Err("SOCKET_OPTIONS"));
    let room = MAX_PATH_BYTES - directory.path().as_os_str().len() - 1;
    let named = |bytes: usize| SocketOptions { name: "s".repeat(bytes), ..options.clone() };
    let error = BoundSocket::bind(&named(room + 1)).unwrap_err();
    assert_eq!(error.code(), "SOCKET_PATH_TOO_LONG");
    assert!(error.to_string().contains("has 108 bytes"), "{error}");
    let bound = BoundSocket::bind(&named(room)).unwrap();
    assert!(UnixStream::connect(named(room).path()).is_ok());
    drop(bound);
}
