//! Giving up root once everything that needs it is open.

use std::ffi::CString;

/// Why the user could not be changed; nothing goes on as root then.
#[derive(Debug, thiserror::Error)]
#[error("cannot become user {user:?}: {what}")]
pub struct PrivilegeError {
    /// The user.
    pub user: String,
    /// Why not.
    pub what: String,
}

/// Becomes `user` with its primary and supplementary groups, in every thread, for good.
///
/// # Errors
/// [`PrivilegeError`] for an unknown user, a missing permission, or if root could be had back.
pub fn become_user(user: &str) -> Result<(), PrivilegeError> {
    let fail = |what: String| PrivilegeError { user: user.to_owned(), what };
    let os = |step: &str| fail(format!("{step}: {}", std::io::Error::last_os_error()));
    let name = CString::new(user).map_err(|_| fail("has a NUL".to_owned()))?;
    #[expect(unsafe_code, reason = "libc has the only calls that change every thread's user")]
    // SAFETY: `name` is a NUL-terminated string that outlives the calls; getpwnam's result is read before any
    // other call could overwrite it; the set*id calls take plain numbers.
    unsafe {
        let entry = libc::getpwnam(name.as_ptr());
        if entry.is_null() {
            return Err(fail("no such user".to_owned()));
        }
        let (uid, gid) = ((*entry).pw_uid, (*entry).pw_gid);
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
