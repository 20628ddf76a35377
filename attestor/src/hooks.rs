//! Hooks of CI systems: the files that make a system ask this worker's daemon before it runs a job.
//!
//! ```text
//! attestor/hooks/SYSTEM/*  ──Site::files──▶ RenderedFile ──install──▶ ROOT/usr/lib/assay/hooks/SYSTEM, ROOT/etc/…
//!                                                       └─────────▶ entry assay-hook-SYSTEM of the tool list
//! ```
//! The files are root's, and one of the tools that are measured: a worker whose hooks were changed is denied. What a system
//! does with them, and what it does not, stands in docs/CI.md.

mod catalog;
mod check;
mod env_file;
mod install;
mod manifest;
mod paths;
#[cfg(test)]
mod tests;
mod tool_entry;

pub use self::{
    catalog::{HookSystem, RenderedFile, Site},
    check::{Problem, check},
    env_file::{EnvFileError, read_env_file},
    install::{Action, Options, Outcome, Report, install, is_installed, remove},
};

/// Why hooks are not installed, removed or checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookError {
    /// A file that is not ours, or that somebody changed, stands where one of ours would.
    #[error(
        "{}: not as `attestor hook install` left it; --force keeps it as {} and goes on",
        .path.display(),
        .saved.display()
    )]
    Foreign {
        /// The file.
        path: std::path::PathBuf,
        /// Where it would be kept.
        saved: std::path::PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot {doing} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The record of what was installed is not one.
    #[error("{}: {what}", .path.display())]
    Manifest {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A path or user that cannot stand in a script or unit as it is.
    #[error("{what} {value:?}: {rule}")]
    Name {
        /// What it names.
        what: &'static str,
        /// The value.
        value: String,
        /// What it must be like.
        rule: &'static str,
    },
    /// Nothing of this system is installed.
    #[error("no hooks of {0} are installed here")]
    NotInstalled(HookSystem),
    /// The tool list cannot take the hooks.
    #[error("{}: {what}", .path.display())]
    Tools {
        /// The list.
        path: std::path::PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl HookError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Foreign { .. } => "HOOK_FILE_FOREIGN",
            Self::Io { .. } => "HOOK_FILE_UNUSABLE",
            Self::Manifest { .. } => "HOOK_MANIFEST_INVALID",
            Self::Name { .. } => "HOOK_NAME_INVALID",
            Self::NotInstalled(_) => "HOOK_NOT_INSTALLED",
            Self::Tools { .. } => "HOOK_TOOLS_INVALID",
        }
    }

    fn io(doing: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}
