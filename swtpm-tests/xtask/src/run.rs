//! Running other programs and saying what happened.

use std::{
    env,
    ffi::OsStr,
    fmt,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Why a command of xtask did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Wrong arguments.
    Usage(String),
    /// Something is not there and cannot be installed by us.
    Missing(String),
    /// A step ran and failed.
    Failed(String),
    /// Steps failed, and a summary has said which.
    Reported,
}

impl Failure {
    pub(crate) fn usage(text: &str) -> Self {
        Self::Usage(text.to_owned())
    }

    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Reported => 1,
            Self::Usage(_) => 2,
            Self::Missing(_) => 3,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Missing(text) | Self::Failed(text) => f.write_str(text),
            Self::Reported => f.write_str("a step failed; see the summary"),
        }
    }
}

/// The workspace's directory: two above this package's.
pub(crate) fn workspace_root() -> Result<PathBuf, Failure> {
    // At run time, so that a moved checkout with an old build still finds itself.
    let package =
        env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let root = Path::new(&package).ancestors().nth(2).map(Path::to_path_buf);
    root.filter(|root| root.join("Cargo.toml").is_file())
        .ok_or_else(|| Failure::Missing("the workspace's Cargo.toml is not where it was".into()))
}

/// Where cargo builds: CARGO_TARGET_DIR or target/ in the workspace.
pub(crate) fn target_directory() -> Result<PathBuf, Failure> {
    let root = workspace_root()?;
    Ok(match env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => root.join(directory),
        None => root.join("target"),
    })
}

/// The cargo that runs us, in the workspace's directory.
pub(crate) fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    if let Ok(root) = workspace_root() {
        command.current_dir(root);
    }
    command.args(arguments);
    command
}

/// Runs `command` to its end with our terminal.
pub(crate) fn execute(command: &mut Command) -> Result<(), Failure> {
    let shown = show(command);
    eprintln!("$ {shown}");
    let status = command.status().map_err(|error| not_started(command, &error))?;
    if status.success() { Ok(()) } else { Err(Failure::Failed(format!("`{shown}`: {status}"))) }
}

/// Runs `command`, shows its standard output line by line, and gives each line to `each`.
pub(crate) fn execute_reading(
    command: &mut Command,
    mut each: impl FnMut(&str),
) -> Result<(), Failure> {
    let shown = show(command);
    eprintln!("$ {shown}");
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|error| not_started(command, &error))?;
    let read_error = |error: io::Error| Failure::Failed(format!("reading `{shown}`: {error}"));
    if let Some(output) = child.stdout.take() {
        let mut reader = BufReader::new(output);
        let mut line = Vec::new();
        // By bytes: a test may print what is no UTF-8.
        while reader.read_until(b'\n', &mut line).map_err(read_error)? > 0 {
            // A closed terminal is no reason to stop the step.
            let _ = io::stdout().write_all(&line);
            each(String::from_utf8_lossy(&line).trim_end());
            line.clear();
        }
    }
    let status = child.wait().map_err(read_error)?;
    if status.success() { Ok(()) } else { Err(Failure::Failed(format!("`{shown}`: {status}"))) }
}

/// Standard output of `command`.
pub(crate) fn output_of(command: &mut Command) -> Result<Vec<u8>, Failure> {
    let shown = show(command);
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|error| not_started(command, &error))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(Failure::Failed(format!("`{shown}`: {}", output.status)))
    }
}

/// Whether a program of this name is in PATH.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

fn not_started(command: &Command, error: &io::Error) -> Failure {
    let program = command.get_program().to_string_lossy();
    Failure::Missing(format!("cannot run {program}: {error}"))
}

fn show(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = [program].into_iter().chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
