//! For CI systems that go on after a hook that failed: whoever started the hook does not.
//!
//! ```text
//! main ──if_asked──▶ StopParent ──permit──▶ disarm
//!                        ├─ wrong usage, an error, a refusal, a panic ──▶ drop: the parent is killed
//!                        └─ SIGHUP, SIGINT, SIGTERM ──▶ a thread: the parent is killed, exit
//! ```

use std::{
    ffi::OsString,
    process::exit,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, getppid, kill_process};
use tokio::signal::unix::{SignalKind, signal};

/// The argument that asks for this.
const ARGUMENT: &str = "--stop-parent";
/// Between a refusal and the end of the parent.
const AFTER: Duration = Duration::from_secs(3);

/// The parent, until there is a permit or it was killed.
type Armed = Arc<Mutex<Option<Pid>>>;

/// Kills the parent of this process when dropped.
pub(super) struct StopParent {
    parent: Armed,
}

impl StopParent {
    /// From now on, unless disarmed, if these arguments ask for it: looked at before anything can refuse them.
    pub(super) fn if_asked(arguments: impl IntoIterator<Item = OsString>) -> Option<Self> {
        // What follows `--` is another command's.
        let mut own = arguments.into_iter().skip(1).take_while(|argument| argument != "--");
        own.any(|argument| argument.as_encoded_bytes().starts_with(ARGUMENT.as_bytes())).then(
            || {
                let parent = Arc::new(Mutex::new(getppid().filter(|parent| !parent.is_init())));
                watch_signals(&parent);
                Self { parent }
            },
        )
    }

    /// Whether there is a parent to be stopped: init is none.
    pub(super) fn has_parent(&self) -> bool {
        self.parent.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// There is a permit.
    pub(super) fn disarm(self) {
        self.parent.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Drop for StopParent {
    fn drop(&mut self) {
        stop(&self.parent);
    }
}

/// The lock is held to the end, so that one of two who come at once waits for the other.
fn stop(armed: &Armed) {
    let mut armed = armed.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(parent) = armed.take() else { return };
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

/// Until they are watched, signals end this process as they always do; the hook that started it sees that.
fn watch_signals(armed: &Armed) {
    let armed = Arc::clone(armed);
    let (is_ready, ready) = mpsc::channel();
    let watch = move || -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut hang_up = signal(SignalKind::hangup())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            let _ = is_ready.send(());
            let name = tokio::select! {
                _ = hang_up.recv() => "SIGHUP",
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            };
            eprintln!("attestor: {name} before there was a permit");
            Ok::<(), std::io::Error>(())
        })?;
        stop(&armed);
        exit(1)
    };
    let watcher = thread::Builder::new().name("stop-parent".to_owned());
    if watcher.spawn(watch).is_ok() {
        // An error ends the thread, and the wait with it.
        let _ = ready.recv();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_arguments_of_this_command_ask_for_it() {
        let asks = |arguments: &[&str]| {
            let armed = StopParent::if_asked(arguments.iter().map(OsString::from));
            armed.map(StopParent::disarm).is_some()
        };
        assert!(asks(&["attestor", "permit", "--stop-parent"]));
        assert!(asks(&["attestor", "--stop-parent=yes", "permit"]));
        assert!(!asks(&["attestor", "permit"]));
        assert!(!asks(&["attestor", "exec", "--", "x", "--stop-parent"]));
        assert!(!asks(&["--stop-parent"]));
    }
}
