//! The terminal of a job that somebody watches: one process group may read from it and gets its signals, and that is the job's
//! while it runs.

use std::{
    io::{self, IsTerminal as _, stdin, stdout},
    mem::MaybeUninit,
    ptr,
};

use rustix::{
    io::Errno,
    process::{Pid, getpgrp, test_kill_process_group},
    termios::{tcgetpgrp, tcsetpgrp},
};

/// A terminal that belongs to this process's group, and again when this is dropped.
pub(super) struct Terminal {
    group: Pid,
}

impl Terminal {
    /// The one of the standard input, if it is this group's to give: a command in the background has none, and one whose output
    /// goes down a pipe has others of its group beside it, which may want it.
    pub(super) fn of_this_group() -> Option<Self> {
        let group = getpgrp();
        let is_alone = stdin().is_terminal() && stdout().is_terminal();
        let has_it = is_alone && tcgetpgrp(stdin()).is_ok_and(|has| has == group);
        has_it.then_some(Self { group })
    }

    /// The job takes it. Whatever the job makes of its settings, a word of this process to the terminal does not stop it.
    pub(super) fn is_lent(&self) {
        mask(libc::SIG_BLOCK, None);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may be another's by now, such as that of the shell that began this.
        let is_nobodys = tcgetpgrp(stdin())
            .is_ok_and(|group| test_kill_process_group(group) == Err(Errno::SRCH));
        if is_nobodys {
            mask(libc::SIG_BLOCK, None);
            let _ = tcsetpgrp(stdin(), self.group);
        }
    }
}

/// Takes the terminal for this process's group.
pub(super) fn take() -> io::Result<()> {
    let before = mask(libc::SIG_BLOCK, None);
    let taken = tcsetpgrp(stdin(), getpgrp());
    mask(libc::SIG_SETMASK, Some(&before));
    Ok(taken?)
}

/// Changes the signals that this thread holds back, by SIGTTOU where no set is given; returns those of before. SIGTTOU would
/// stop whoever gives a terminal away that it does not have.
fn mask(how: libc::c_int, set: Option<&libc::sigset_t>) -> libc::sigset_t {
    let mut before = MaybeUninit::<libc::sigset_t>::zeroed();
    #[expect(unsafe_code, reason = "libc has the only calls that hold signals back")]
    // SAFETY: every set is initialized before it is read, zeroed or by `sigemptyset`, and outlives the calls.
    unsafe {
        let mut only = MaybeUninit::<libc::sigset_t>::zeroed();
        libc::sigemptyset(only.as_mut_ptr());
        libc::sigaddset(only.as_mut_ptr(), libc::SIGTTOU);
        let set = set.map_or(only.as_ptr(), ptr::from_ref);
        libc::pthread_sigmask(how, set, before.as_mut_ptr());
        before.assume_init()
    }
}
