//! The file that a job's agent wrote its variables into; what stands in it is [`proto::job::agent_file`]'s.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::Read as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use proto::job::agent_file::{AgentFileError, MAX_VARIABLES, read_agent_file};

/// Largest file, bytes: a command line and its environment have 2 MiB in Linux, and JSON doubles some of it.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Why a file gives no variables.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvFileError {
    /// A line or value that is none.
    #[error("{}: {what}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and what.
        what: String,
    },
    /// One name twice: two readers could take different ones.
    #[error("{}: {name} stands twice", .path.display())]
    NameTwice {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// A name that has code of the job's author run where the job's permit is not yet redeemed.
    #[error("{}: {name} is not for a job to set", .path.display())]
    NameRefused {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// More than is read.
    #[error("{}: more than {max} {what}", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What is counted.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// It cannot be read, or is no regular file.
    #[error("{}: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl EnvFileError {
    fn of(path: &Path, wrong: AgentFileError) -> Self {
        let path = path.to_owned();
        match wrong {
            AgentFileError::NameRefused(name) => Self::NameRefused { path, name },
            AgentFileError::NameTwice(name) => Self::NameTwice { path, name },
            AgentFileError::TooMany => {
                Self::TooLarge { path, what: "variables", max: MAX_VARIABLES as u64 }
            }
            other => Self::Malformed { path, what: other.to_string() },
        }
    }

    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "ENV_FILE_MALFORMED",
            Self::NameTwice { .. } => "ENV_FILE_NAME_TWICE",
            Self::NameRefused { .. } => "ENV_FILE_NAME_REFUSED",
            Self::TooLarge { .. } => "ENV_FILE_TOO_LARGE",
            Self::Unreadable { .. } => "ENV_FILE_UNREADABLE",
        }
    }
}

/// Reads the variables of a file: a JSON object of texts, or lines `NAME=value`.
///
/// # Format
/// At most 4 MiB of UTF-8, as [`read_agent_file`] takes it.
///
/// # Errors
/// [`EnvFileError`].
pub fn read_env_file(path: &Path) -> Result<BTreeMap<String, String>, EnvFileError> {
    let unreadable = |source| EnvFileError::Unreadable { path: path.to_owned(), source };
    // A FIFO would keep the reader waiting for a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(unreadable(std::io::Error::other("not a regular file")));
    }
    let mut text = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(EnvFileError::TooLarge {
            path: path.to_owned(),
            what: "bytes",
            max: MAX_BYTES,
        });
    }
    let text = String::from_utf8(text).map_err(|_| EnvFileError::Malformed {
        path: path.to_owned(),
        what: "not UTF-8".to_owned(),
    })?;
    let own_path = std::env::var("PATH").ok();
    let variables = read_agent_file(&text, own_path.as_deref());
    variables.map_err(|wrong| EnvFileError::of(path, wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_kinds_of_files_are_bounded() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("env");
        let code = |path: &Path| read_env_file(path).expect_err("refused").code();
        assert_eq!(code(&path), "ENV_FILE_UNREADABLE");
        assert_eq!(code(folder.path()), "ENV_FILE_UNREADABLE");
        std::fs::write(&path, "A=1\n").expect("write");
        assert_eq!(
            read_env_file(&path).expect("read"),
            BTreeMap::from([("A".to_owned(), "1".to_owned())])
        );
        let many: String = (0..=MAX_VARIABLES).map(|n| format!("V{n}=1\n")).collect();
        std::fs::write(&path, &many).expect("write");
        assert_eq!(code(&path), "ENV_FILE_TOO_LARGE");
        let many = (0..=MAX_VARIABLES).map(|n| format!("\"V{n}\":\"1\"")).collect::<Vec<_>>();
        std::fs::write(&path, format!("{{{}}}", many.join(","))).expect("write");
        assert_eq!(code(&path), "ENV_FILE_TOO_LARGE");
        std::fs::write(&path, format!("A={}\n", "x".repeat(4 * 1024 * 1024))).expect("write");
        assert_eq!(code(&path), "ENV_FILE_TOO_LARGE");
        std::fs::write(&path, b"A=\xff\n").expect("write");
        assert_eq!(code(&path), "ENV_FILE_MALFORMED");
        std::fs::write(&path, "{\"A\":\"1\",\"A\":\"1\"}").expect("write");
        assert_eq!(code(&path), "ENV_FILE_NAME_TWICE");
        let fifo = folder.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo");
        assert!(made.success());
        assert_eq!(code(&fifo), "ENV_FILE_UNREADABLE");
    }
}
