//! Giving up root once everything that needs it is open.

use std::{
    ffi::CString,
    os::unix::fs::{chown, lchown},
    path::Path,
};

/// Why the user could not be changed; nothing goes on as root then.
#[derive(Debug, thiserror::Error)]
#[error("user {user:?}: {what}")]
pub struct PrivilegeError {
    /// The user.
    pub user: String,
    /// Why not.
    pub what: String,
}

/// Gives folders that root made to `user`, with what is directly in them.
///
/// # Errors
/// [`PrivilegeError`] for an unknown user or a folder that cannot be given away.
pub fn hand_over(user: &str, folders: &[&Path]) -> Result<(), PrivilegeError> {
    let fail = |what: String| PrivilegeError { user: user.to_owned(), what };
    let (uid, gid) = ids(user)?;
    for folder in folders {
        let at = |error: std::io::Error| fail(format!("{}: {error}", folder.display()));
        chown(folder, Some(uid), Some(gid)).map_err(at)?;
        for entry in std::fs::read_dir(folder).map_err(at)? {
            lchown(entry.map_err(at)?.path(), Some(uid), Some(gid)).map_err(at)?;
        }
    }
    Ok(())
}

/// The user with this name.
///
/// # Errors
/// [`PrivilegeError`] for an unknown one.
pub fn uid_of(user: &str) -> Result<u32, PrivilegeError> {
    ids(user).map(|(uid, _)| uid)
}

/// User and primary group of a name.
fn ids(user: &str) -> Result<(u32, u32), PrivilegeError> {
    let fail = |what: &str| PrivilegeError { user: user.to_owned(), what: what.to_owned() };
    let name = CString::new(user).map_err(|_| fail("has a NUL"))?;
    #[expect(unsafe_code, reason = "libc has the only look-up that knows every user database")]
    // SAFETY: `name` is NUL-terminated and outlives the call; the result is read before any other call
    // could overwrite it.
    unsafe {
        let entry = libc::getpwnam(name.as_ptr());
        if entry.is_null() {
            return Err(fail("no such user"));
        }
        Ok(((*entry).pw_uid, (*entry).pw_gid))
    }
}

/// Becomes `user` with its primary and supplementary groups, in every thread, for good.
///
/// # Errors
/// [`PrivilegeError`] for an unknown user, a missing permission, or if root could be had back.
pub fn become_user(user: &str) -> Result<(), PrivilegeError> {
    let fail = |what: String| PrivilegeError { user: user.to_owned(), what };
    let os = |step: &str| fail(format!("{step}: {}", std::io::Error::last_os_error()));
    let (uid, gid) = ids(user)?;
    let name = CString::new(user).map_err(|_| fail("has a NUL".to_owned()))?;
    #[expect(unsafe_code, reason = "libc has the only calls that change every thread's user")]
    // SAFETY: `name` is a NUL-terminated string that outlives the call; the set*id calls take plain numbers.
    unsafe {
        if libc::initgroups(name.as_ptr(), gid) != 0 {
            return Err(os("initgroups"));
        }
        if libc::setgid(gid) != 0 {
            return Err(os("setgid"));
        }
        if libc::setuid(uid) != 0 {
            return Err(os("setuid"));
        }
        if uid != 0 && libc::setuid(0) == 0 {
            return Err(fail("root could be had back".to_owned()));
        }
    }
    Ok(())
}
