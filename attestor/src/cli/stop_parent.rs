//! For CI systems that go on after a hook that failed: whoever started the hook does not.

use std::{os::fd::OwnedFd, thread, time::Duration};

use rustix::process::{PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal};

/// Between a refusal and the end of the parent.
const AFTER: Duration = Duration::from_secs(3);

/// Kills the parent of this process when dropped.
pub(super) struct StopParent {
    parent: Option<OwnedFd>,
}

impl StopParent {
    /// From now on, unless disarmed.
    pub(super) fn arm() -> Result<Self, String> {
        let parent = getppid().filter(|parent| !parent.is_init());
        let parent = parent.ok_or("--stop-parent: the parent is init")?;
        // By a descriptor: once the parent is gone, its number may be anybody's.
        let parent = pidfd_open(parent, PidfdFlags::empty())
            .map_err(|error| format!("--stop-parent: {error}"))?;
        Ok(Self { parent: Some(parent) })
    }

    /// There is a permit.
    pub(super) fn disarm(mut self) {
        self.parent = None;
    }
}

impl Drop for StopParent {
    fn drop(&mut self) {
        let Some(parent) = &self.parent else { return };
        // The parent waits for this command and sends what it said meanwhile; a second later nobody could.
        thread::sleep(AFTER);
        if let Err(error) = pidfd_send_signal(parent, Signal::KILL) {
            eprintln!("attestor: the parent was not stopped: {error}");
        }
    }
}
