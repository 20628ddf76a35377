//! Drivers that call installed hooks as the CI systems do: their environment, their files, their user, and what each makes of
//! an exit code.
//!
//! None of the systems themselves is here; what each does is taken from its own documentation and sources, named in its file.

pub mod buildkite;
pub mod github;
pub mod gitlab;
pub mod jenkins;
pub mod platform;
pub mod tekton;

use std::{
    fs,
    io::Write as _,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::{
    cluster::AnyError,
    job_site::{JobSite, finish},
};

/// The user `nobody`, whose processes run the jobs.
pub const NOBODY: u32 = 65534;

/// What a system makes of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It passed.
    Passed,
    /// It failed by itself, with this code.
    Failed(i32),
    /// It did not run, or was ended: the system blames the worker.
    Refused,
}

/// A job that the system is done with.
#[derive(Clone, Debug)]
pub struct Ran {
    /// How it ended.
    pub end: End,
    /// What its log says.
    pub log: String,
}

impl Ran {
    /// What `attestor exec --refused-code 3` did, called as a system calls any command.
    #[must_use]
    pub fn of(output: &Output) -> Self {
        let log = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
        Self { end: End::of(output), log: log.concat() }
    }
}

impl End {
    fn of(output: &Output) -> Self {
        match output.status.code() {
            Some(0) => Self::Passed,
            Some(3) => Self::Refused,
            code => Self::Failed(code.unwrap_or(-1)),
        }
    }
}

/// A worker with a system's agent, whose jobs run as `nobody`.
#[derive(Debug)]
pub struct Agent<'a> {
    /// The site.
    pub site: &'a JobSite,
    /// The agent's own folder.
    pub home: PathBuf,
    /// The platform's token for the job.
    token: Option<String>,
    log: String,
}

impl<'a> Agent<'a> {
    /// An agent with an empty folder of its own.
    ///
    /// # Errors
    /// The file system.
    pub fn new(site: &'a JobSite) -> Result<Self, AnyError> {
        let home = site.path("home");
        make_folder(&home)?;
        Ok(Self { site, home, token: None, log: String::new() })
    }

    /// A path below the folder that stands for `/`.
    #[must_use]
    pub fn root(&self, name: &str) -> PathBuf {
        self.site.path("root").join(name)
    }

    /// A program as this agent starts it: as `nobody`, in its folder, with nothing in its environment but a PATH.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", &self.home)
            .current_dir(&self.home)
            .stdin(Stdio::null());
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// Writes a program of the agent's user.
    ///
    /// # Errors
    /// The file system.
    pub fn program(&self, name: &str, text: &str) -> Result<PathBuf, AnyError> {
        let path = self.home.join(name);
        write_program(&path, text)?;
        Ok(path)
    }

    /// Runs to the end; what is said goes to the job's log.
    async fn run(&mut self, command: Command) -> Result<Output, AnyError> {
        let output = finish(command).await?;
        for said in [&output.stdout, &output.stderr] {
            self.log.push_str(&String::from_utf8_lossy(said));
        }
        Ok(output)
    }

    fn ran(self, end: End) -> Ran {
        Ran { end, log: self.log }
    }
}

/// Makes a folder of `nobody`.
///
/// # Errors
/// The file system.
pub fn make_folder(path: &Path) -> Result<(), AnyError> {
    fs::create_dir_all(path)?;
    if rustix::process::geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY))?;
    }
    Ok(())
}

/// Writes a program that everybody may run.
///
/// # Errors
/// The file system.
pub fn write_program(path: &Path, text: &str) -> Result<(), AnyError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // By another process: a child that is forked meanwhile would have the file open for writing, and nobody could run it.
    let mut install = Command::new("install");
    install.args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped());
    let mut child = install.spawn()?;
    child.stdin.take().ok_or("no pipe")?.write_all(text.as_bytes())?;
    match child.wait()?.success() {
        true => Ok(()),
        false => Err(format!("{} cannot be written", path.display()).into()),
    }
}

/// The values of a key in a unit file, in their order.
fn unit_values(unit: &Path, key: &str) -> Result<Vec<String>, AnyError> {
    let text = fs::read_to_string(unit)?;
    let values = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    Ok(values.map(str::to_owned).collect())
}
