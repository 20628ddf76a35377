//! For CI systems that go on after a hook that failed: whoever started the hook does not.

use std::{thread, time::Duration};

use rustix::process::{Pid, Signal, getppid, kill_process};

/// Between a refusal and the end of the parent.
const AFTER: Duration = Duration::from_secs(3);

/// Kills the parent of this process when dropped.
pub(super) struct StopParent {
    parent: Option<Pid>,
}

impl StopParent {
    /// From now on, unless disarmed.
    pub(super) fn arm() -> Result<Self, &'static str> {
        let parent = getppid().filter(|parent| !parent.is_init());
        let parent = parent.ok_or("--stop-parent: the parent is init")?;
        Ok(Self { parent: Some(parent) })
    }

    /// There is a permit.
    pub(super) fn disarm(mut self) {
        self.parent = None;
    }
}

impl Drop for StopParent {
    fn drop(&mut self) {
        let Some(parent) = self.parent else { return };
        // The parent waits for this command and sends what it said meanwhile; a second later nobody could.
        thread::sleep(AFTER);
        // A parent that is gone left its children to another process, and its number to anybody.
        if getppid() != Some(parent) {
            return;
        }
        if let Err(error) = kill_process(parent, Signal::KILL) {
            eprintln!("attestor: the parent was not stopped: {error}");
        }
    }
}
