//! The first moments of a job's command: it is tied to whoever holds its permit, and only then it is the command.

use std::{
    ffi::OsString,
    io,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use clap::Args;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::{super::commands::Done, terminal};

/// Name of the subcommand, which is none for people.
pub(in crate::cli) const NAME: &str = "__job";
/// As shells have it: there is no such program.
const NOT_FOUND: u8 = 127;
/// As shells have it: it is there, and cannot be executed.
const NOT_EXECUTABLE: u8 = 126;

/// Arguments of [`NAME`].
#[derive(Args, Debug)]
pub(in crate::cli) struct BeginArgs {
    /// The process that holds the permit.
    #[arg(long)]
    holder: i32,
    /// The command's process group gets the terminal.
    #[arg(long)]
    terminal: bool,
    /// The command.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// A command that becomes this one. It has to be started by a thread that lasts as long as the process: the kernel takes that
/// thread for the parent.
pub(super) fn command(command: &[OsString], gets_terminal: bool) -> Command {
    // Not by its path, where another version may be by now.
    let mut begin = Command::new("/proc/self/exe");
    begin.arg0("attestor").arg(NAME).arg("--holder").arg(std::process::id().to_string());
    begin.args(gets_terminal.then_some("--terminal")).arg("--").args(command);
    begin
}

/// Becomes the command; returns only if it cannot.
pub(in crate::cli) fn begin(args: &BeginArgs) -> Done {
    // Whoever kills the holder ends the command, which may be the job itself: they have one user.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // One that was gone before that gives no signal any more.
    if getppid() != Pid::from_raw(args.holder) {
        return Err("whoever held this job's permit is gone".into());
    }
    if args.terminal {
        // Before the command can read from it. One that hung up is nobody's.
        let _ = terminal::take();
    }
    let (program, arguments) = args.command.split_first().ok_or("no command")?;
    let error = Command::new(program).args(arguments).exec();
    eprintln!("attestor: the job's command {}: {error}", program.to_string_lossy());
    Ok(ExitCode::from(match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    }))
}
