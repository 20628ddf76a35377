//! Signals by which others end a job.

use std::{fs, future::pending, io};

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// Signals that ask `attestor exec` to end. One that it was started to ignore, as `nohup` and shells do for commands in the
/// background, stays ignored by it and by the job; SIGTERM never does.
#[derive(Debug)]
pub(super) struct Ending {
    hangup: Option<Stream>,
    interrupt: Option<Stream>,
    quit: Option<Stream>,
    terminate: Stream,
}

impl Ending {
    /// From now on these signals end nothing by themselves.
    pub(super) fn new() -> io::Result<Self> {
        let ignored = ignored(&fs::read_to_string("/proc/self/status")?);
        let unless_ignored = |of: Signal, kind: SignalKind| {
            let is_ignored = ignored >> (of.as_raw() - 1) & 1 == 1;
            (!is_ignored).then(|| signal(kind)).transpose()
        };
        Ok(Self {
            hangup: unless_ignored(Signal::HUP, SignalKind::hangup())?,
            interrupt: unless_ignored(Signal::INT, SignalKind::interrupt())?,
            quit: unless_ignored(Signal::QUIT, SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next one that comes.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::TERM,
            () = one(&mut self.hangup) => Signal::HUP,
            () = one(&mut self.interrupt) => Signal::INT,
            () = one(&mut self.quit) => Signal::QUIT,
        }
    }
}

async fn one(stream: &mut Option<Stream>) {
    match stream {
        Some(stream) => {
            stream.recv().await;
        }
        None => pending().await,
    }
}

/// The set of ignored signals (proc_pid_status(5)): bit 0 is signal 1. None where the kernel does not say.
fn ignored(status: &str) -> u64 {
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_set_of_ignored_signals_is_read() {
        assert_eq!(
            super::ignored("SigBlk:\t00ff\nSigIgn:\t0000000000001006\nSigCgt:\t01\n"),
            0x1006
        );
        assert_eq!(super::ignored("SigCgt:\t01\n"), 0);
    }
}
