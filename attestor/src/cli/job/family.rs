//! Everything that a job started: found, signalled and waited for, whatever it did to get away.
//!
//! `attestor exec` is the subreaper of what it starts: a process whose parent ends becomes its child. So as long as one is
//! left, the kernel has a child to wait for, and "no child" is the one proof that the job is over; `/proc` only tells whom to
//! signal.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::unix::process::ExitStatusExt as _,
    process::ExitStatus,
    time::Duration,
};

use rustix::{
    io::Errno,
    process::{
        Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, kill_process_group, pidfd_open,
        pidfd_send_signal, set_child_subreaper, wait,
    },
};
use tokio::time::{Instant, sleep};

/// The kernel's limit of process numbers (PID_MAX_LIMIT): a job cannot hide behind a smaller one.
const MAX_PROCESSES: usize = 4 << 20;
/// Most often that those who came meanwhile are looked for when a signal is sent.
const MAX_ROUNDS: usize = 8;
/// Between two looks at what is left.
const PAUSE: Duration = Duration::from_millis(10);
/// How long processes that are killed may take: one that a signal does not reach is another user's, or hangs in a device.
const DIES_WITHIN: Duration = Duration::from_secs(30);
/// Looks that find nobody, one after the other, where the kernel's word for it cannot be had.
const EMPTY_LOOKS: usize = 5;

/// A process: its number, and its start in clock ticks since boot, which tells it from a later one of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Process {
    number: i32,
    start: u64,
}

/// Processes that no signal ends.
#[derive(Debug, thiserror::Error)]
#[error("{count} processes of the job cannot be ended, among them number {example}")]
pub(super) struct Unending {
    count: usize,
    example: i32,
}

/// What this process started, and what that started.
#[derive(Debug)]
pub(super) struct Family {
    /// Of whoever became this process by `exec`: no part of the job.
    earlier: HashSet<Process>,
    main: Option<Pid>,
    has_terminal: bool,
    status: Option<ExitStatus>,
}

impl Family {
    /// Before anything is started: from now on, orphans come to this process.
    pub(super) fn new() -> io::Result<Self> {
        set_child_subreaper(Some(rustix::process::getpid()))?;
        // It shows here, and not when the job is to end, if there is no /proc, or that of others.
        let earlier = descendants(&HashSet::new())?.into_iter().collect();
        Ok(Self { earlier, main: None, has_terminal: false, status: None })
    }

    /// The process whose exit status is the job's, and whether its group has the terminal. It is waited for here and nowhere
    /// else.
    pub(super) fn is_led_by(&mut self, main: Pid, has_terminal: bool) {
        self.main = Some(main);
        self.has_terminal = has_terminal;
    }

    /// How the main process ended, once it has. Waits for everything that ended, for nothing that has not.
    pub(super) fn status(&mut self) -> io::Result<Option<ExitStatus>> {
        self.reap()?;
        Ok(self.status)
    }

    /// Whether a child is left.
    fn reap(&mut self) -> io::Result<bool> {
        loop {
            match wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
                Ok(Some((pid, status))) if status.stopped() => self.goes_on(pid, status),
                Ok(Some((pid, status))) => {
                    if self.main == Some(pid) {
                        self.main = None;
                        self.status = Some(ExitStatus::from_raw(status.as_raw()));
                    }
                }
                Ok(None) => return Ok(true),
                Err(Errno::CHILD) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Nobody who waits for this process would see that the job stands still, and could have it go on.
    fn goes_on(&self, pid: Pid, status: WaitStatus) {
        let by_the_terminal = status.stopping_signal() == Some(Signal::TSTP.as_raw());
        if self.has_terminal && self.main == Some(pid) && by_the_terminal {
            let _ = kill_process_group(pid, Signal::CONT);
        }
    }

    /// Signals each process of the job, also those that come meanwhile.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        let mut told = HashSet::new();
        for _ in 0..MAX_ROUNDS {
            let mut is_new = false;
            for process in descendants(&self.earlier)? {
                if told.insert(process) {
                    is_new = true;
                    send(process, signal);
                }
            }
            if !is_new {
                break;
            }
        }
        Ok(())
    }

    /// Returns once no process of the job is left: they are asked by this signal, unless they have been, and killed from
    /// `kill_at` on.
    pub(super) async fn end(
        &mut self,
        ask: Option<Signal>,
        kill_at: Instant,
    ) -> io::Result<Result<(), Unending>> {
        let (mut empty, mut ask) = (0, ask);
        while self.reap()? {
            if let Some(ask) = ask.take() {
                self.signal(ask)?;
            }
            let now = Instant::now();
            // While they have time, the kernel's word is enough.
            if now >= kill_at || !self.earlier.is_empty() {
                let left = descendants(&self.earlier)?;
                empty = if left.is_empty() { empty + 1 } else { 0 };
                if empty >= EMPTY_LOOKS && !self.earlier.is_empty() {
                    break;
                }
                if now >= kill_at + DIES_WITHIN {
                    let example = left.first().map_or(0, |process| process.number);
                    return Ok(Err(Unending { count: left.len(), example }));
                }
                if now >= kill_at {
                    left.into_iter().for_each(|process| send(process, Signal::KILL));
                }
            }
            sleep(PAUSE).await;
        }
        Ok(Ok(()))
    }
}

/// By a descriptor, so that it reaches nobody who has the number meanwhile. Whoever it does not reach is seen again.
fn send(process: Process, signal: Signal) {
    let Some(pid) = Pid::from_raw(process.number) else { return };
    let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    if stat(process.number).is_some_and(|(found, _)| found == process) {
        let _ = pidfd_send_signal(&descriptor, signal);
        if signal != Signal::KILL {
            // One that is stopped would not see it.
            let _ = pidfd_send_signal(&descriptor, Signal::CONT);
        }
    }
}

/// Descendants of this process, as they are found in one pass, without those of `except` and what comes of them.
fn descendants(except: &HashSet<Process>) -> io::Result<Vec<Process>> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    let mut me = None;
    for entry in fs::read_dir("/proc")?.take(MAX_PROCESSES) {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One that ended meanwhile is none.
        let Some((process, parent)) = stat(number) else { continue };
        if number == own {
            me = Some(process);
        }
        children.entry(parent).or_default().push(process);
    }
    let me = me.ok_or_else(|| io::Error::other("/proc does not show this process"))?;
    Ok(below(me, &mut children, except))
}

/// Follows the children of each process.
fn below(
    root: Process,
    children: &mut HashMap<i32, Vec<Process>>,
    except: &HashSet<Process>,
) -> Vec<Process> {
    let (mut found, mut next) = (Vec::new(), vec![root]);
    while let Some(parent) = next.pop() {
        for child in children.remove(&parent.number).unwrap_or_default() {
            // Nobody is older than its parent: that one had the number before.
            if child.start >= parent.start && !except.contains(&child) {
                found.push(child);
                next.push(child);
            }
        }
    }
    found
}

/// A process and its parent's number; `None` where there is no such process.
fn stat(number: i32) -> Option<(Process, i32)> {
    parse(number, &fs::read(format!("/proc/{number}/stat")).ok()?)
}

/// `NUMBER (NAME) STATE PARENT …` with the start as field 22 (proc_pid_stat(5)); the name may hold anything.
fn parse(number: i32, line: &[u8]) -> Option<(Process, i32)> {
    let end = line.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(line.get(end + 1..)?).ok()?.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    Some((Process { number, start }, parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(number: i32, start: u64) -> Process {
        Process { number, start }
    }

    #[test]
    fn a_line_is_read_whatever_the_process_calls_itself() {
        let numbered: Vec<_> = (4..=52).map(|field: u32| field.to_string()).collect();
        let line = format!("7 (a) R 9 (b)) S {}\n", numbered.join(" "));
        assert_eq!(parse(7, line.as_bytes()), Some((process(7, 22), 4)));
        for bad in ["", "7 (a S 1 2", "7 (a) S 1 0 0", "7 (a) S x 0 0 0"] {
            assert_eq!(parse(7, bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn what_comes_of_a_process_is_found_and_nothing_else() {
        let tree = || {
            HashMap::from([
                (1, vec![process(5, 10), process(6, 10)]),
                (5, vec![process(7, 20), process(8, 5)]),
                (7, vec![process(9, 20)]),
                (8, vec![process(10, 30)]),
            ])
        };
        let found = |except: &[Process]| {
            let except = except.iter().copied().collect();
            let mut found: Vec<_> = below(process(5, 10), &mut tree(), &except)
                .into_iter()
                .map(|process| process.number)
                .collect();
            found.sort_unstable();
            found
        };
        // 6 is another's, and 8 is older than 5: its parent had that number before.
        assert_eq!(found(&[]), [7, 9]);
        assert_eq!(found(&[process(9, 20)]), [7]);
        assert_eq!(found(&[process(7, 20)]), [0; 0]);
        assert_eq!(found(&[process(7, 21)]), [7, 9], "another process of that number");
    }
}
