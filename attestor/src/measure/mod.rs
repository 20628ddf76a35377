//! Build tools: which files they are made of and what those files hash to.
//!
//! `list` says which tools there are; `resolve` and `glob` find their files and record every link;
//! `closure` adds what the files need to run, with `elf`, `needs` and `loader` reading that from
//! the files and the loader's own cache; `hash` and `file` read them, `cache` remembers what has
//! not changed; `log` keeps what was measured in this boot and extends it into the PCR.
//!
//! # Trust
//! This runs in user space. It shows what the tools were when they were read; it proves that to the
//! verifier only as far as the worker's kernel and this program can be believed, which measured
//! boot and IMA attest. What happens to a file between being measured and being run is not seen
//! here.
//!
//! # Not covered
//! Libraries and plugins that a program opens by name at run time (`dlopen`, gcc's `cc1` and
//! `liblto_plugin.so`, Python modules): list them with patterns, as `examples/tools-debian.toml`
//! does.

mod cache;
mod claims;
mod closure;
mod elf;
mod file;
pub mod glob;
mod hash;
pub mod list;
mod loader;
pub mod log;
mod needs;
mod render;
mod resolve;

use std::{collections::BTreeSet, fmt, path::PathBuf};

use proto::{
    digest::{Digest, HashAlg},
    tool_log::{EntryKind, MeasurementError, ToolEntry, ToolMeasurement, ToolState},
};
use serde::Serialize;

pub use self::{cache::Cache, list::ToolList, render::render_text};
use self::{
    closure::{Draft, Files, Parts, Walk},
    file::FileError,
    list::{PackageClaim, Tool},
};

/// Rounds of reading and walking: interpreters of interpreters' libraries take four.
const MAX_ROUNDS: usize = 64;
/// Times that everything is measured again because a file changed meanwhile.
const ATTEMPTS: usize = 3;

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Read every file, whatever the cache says. Job permits demand it.
    pub fresh: bool,
    /// Threads that read files.
    pub threads: usize,
}

impl Default for Options {
    /// The cache is used; one thread for each processor, at most four.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(4));
        Self { fresh: false, threads }
    }
}

/// How far one round of reading has come; later rounds read what the earlier ones were found to
/// need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Files read.
    pub files: usize,
    /// Files of the round.
    pub files_total: usize,
    /// Bytes read.
    pub bytes: u64,
    /// Bytes of the round.
    pub bytes_total: u64,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Measured {
    /// Tools, ascending by name; those with a problem that [blocks](Problem::blocks) are not among
    /// them.
    pub tools: Vec<ToolMeasurement>,
    /// What was not as it should be, ascending.
    pub problems: Vec<Problem>,
}

impl Measured {
    /// Problems that leave the state of a tool unknown: nothing may be attested before they are
    /// solved.
    pub fn blocking(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| problem.blocks())
    }

    /// Directories in which a change may change the measurement.
    #[must_use]
    pub fn directories(&self) -> BTreeSet<PathBuf> {
        use std::os::unix::ffi::OsStrExt;
        self.tools
            .iter()
            .flat_map(ToolMeasurement::entries)
            .filter_map(|entry| {
                let path = std::path::Path::new(std::ffi::OsStr::from_bytes(&entry.path));
                path.parent().map(PathBuf::from)
            })
            .collect()
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The tool.
    pub tool: String,
    /// The path, as `proto::tool_log::path_text` writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What is wrong.
    #[serde(flatten)]
    pub kind: ProblemKind,
}

/// What is wrong with a tool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, thiserror::Error)]
#[serde(tag = "problem", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProblemKind {
    /// A file kept changing while it was read.
    #[error("changes while it is being read")]
    Changing,
    /// An ELF file that no loader would load.
    #[error("is no loadable ELF file: {what}")]
    ElfMalformed {
        /// Why.
        what: &'static str,
    },
    /// An interpreter is not there.
    #[error("needs the interpreter {name}, which is not there")]
    InterpreterMissing {
        /// As the file names it.
        name: String,
    },
    /// Scripts that interpret scripts, deeper than the kernel goes.
    #[error("has interpreters nested too deep")]
    InterpretersNested,
    /// What was found does not form a measurement.
    #[error("cannot be recorded: {error}")]
    Invalid {
        /// Why.
        error: String,
    },
    /// A library is not where the loader would look.
    #[error("needs the library {name}, which the loader would not find")]
    LibraryMissing {
        /// As the file names it.
        name: String,
    },
    /// A link leads nowhere.
    #[error("is a link that leads nowhere")]
    LinkDangling,
    /// A directory, device, socket or FIFO.
    #[error("is not a regular file")]
    NotRegular,
    /// The package manager could not be asked.
    #[error("package: {error}")]
    Package {
        /// Why.
        error: String,
    },
    /// A required tool is not there.
    #[error("is required and no file matches its paths")]
    RequiredAbsent,
    /// More files than one measurement may have.
    #[error("has more than {max} files and links; narrow its patterns")]
    TooManyEntries {
        /// The limit.
        max: usize,
    },
    /// The system does not let it be read.
    #[error("cannot be read: {error}")]
    Unreadable {
        /// The system's words.
        error: String,
    },
    /// The version command failed.
    #[error("version command: {error}")]
    Version {
        /// Why.
        error: String,
    },
}

impl Problem {
    /// Whether the tool's state is unknown because of it.
    #[must_use]
    pub const fn blocks(&self) -> bool {
        match self.kind {
            ProblemKind::Changing
            | ProblemKind::Invalid { .. }
            | ProblemKind::TooManyEntries { .. }
            | ProblemKind::Unreadable { .. } => true,
            ProblemKind::ElfMalformed { .. }
            | ProblemKind::InterpreterMissing { .. }
            | ProblemKind::InterpretersNested
            | ProblemKind::LibraryMissing { .. }
            | ProblemKind::LinkDangling
            | ProblemKind::NotRegular
            | ProblemKind::Package { .. }
            | ProblemKind::RequiredAbsent
            | ProblemKind::Version { .. } => false,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tool {}: ", self.tool)?;
        if let Some(path) = &self.path {
            write!(f, "{path} ")?;
        }
        self.kind.fmt(f)
    }
}

impl From<FileError> for ProblemKind {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Changed => Self::Changing,
            FileError::Os(errno) => {
                Self::Unreadable { error: std::io::Error::from(errno).to_string() }
            }
        }
    }
}

/// Measures every tool of a list.
///
/// Never fails as a whole: what could not be measured is a [`Problem`]. `progress` is called from
/// several threads.
pub fn measure(
    list: &ToolList,
    cache: &mut Cache,
    options: Options,
    progress: &(dyn Fn(Progress) + Sync),
) -> Measured {
    let mut attempt = 1;
    loop {
        let measured = measure_once(list, cache, options, progress);
        let changing =
            measured.problems.iter().any(|problem| problem.kind == ProblemKind::Changing);
        if !changing || attempt == ATTEMPTS {
            return measured;
        }
        attempt += 1;
    }
}

fn measure_once(
    list: &ToolList,
    cache: &mut Cache,
    options: Options,
    progress: &(dyn Fn(Progress) + Sync),
) -> Measured {
    let mut files = Files::new(cache, options.fresh);
    let mut walk = Walk::new(&mut files);
    let mut all: Vec<Parts> = Vec::new();
    for _ in 0..MAX_ROUNDS {
        walk.again();
        all = list.tools().iter().map(|tool| walk.tool(tool)).collect();
        let wanted = walk.files.take_wanted();
        if wanted.is_empty() {
            break;
        }
        for (job, result) in hash::hash_all(wanted, options.threads, progress) {
            walk.files.put(&job, result);
        }
    }
    drop(walk);
    let cache = files.finish();
    let mut measured = Measured { tools: Vec::new(), problems: Vec::new() };
    for (tool, parts) in list.tools().iter().zip(all) {
        finish_tool(tool, parts, cache, &mut measured);
    }
    measured.problems.sort();
    measured
}

fn finish_tool(tool: &Tool, parts: Parts, cache: &mut Cache, measured: &mut Measured) {
    let Parts { entries, problems, listed } = parts;
    let blocked = problems.iter().any(Problem::blocks);
    measured.problems.extend(problems);
    if blocked {
        return;
    }
    let mut problem = |kind| {
        measured.problems.push(Problem { tool: tool.name.clone(), path: None, kind });
    };
    let Some(first) = listed.first() else {
        if tool.required {
            problem(ProblemKind::RequiredAbsent);
        }
        match ToolMeasurement::absent(tool.name.clone()) {
            Ok(absent) => measured.tools.push(absent),
            Err(error) => problem(invalid(&error)),
        }
        return;
    };
    let entries: Vec<ToolEntry> =
        entries.into_iter().map(|(path, draft)| ToolEntry { path, kind: draft.into() }).collect();
    let new = |version, package| {
        ToolMeasurement::new(
            tool.name.clone(),
            ToolState::Present,
            version,
            package,
            entries.clone(),
        )
    };
    let bare = match new(None, None) {
        Ok(bare) => bare,
        Err(error) => return problem(invalid(&error)),
    };
    if tool.version_command.is_none() && tool.package.is_none() {
        measured.tools.push(bare);
        return;
    }
    let (claims, failed) = match cache.claims(&bare) {
        Some(known) => (known, None),
        None => ask(tool, first),
    };
    let keep = failed.is_none();
    failed.into_iter().for_each(&mut problem);
    match new(claims.0, claims.1) {
        Ok(tool) => {
            if keep {
                cache.put_claims(&tool);
            }
            measured.tools.push(tool);
        }
        Err(error) => problem(invalid(&error)),
    }
}

/// Version and package, and what went wrong in asking for them.
fn ask(tool: &Tool, first: &[u8]) -> ((Option<String>, Option<String>), Option<ProblemKind>) {
    let mut failed = None;
    let version = tool.version_command.as_deref().and_then(|command| {
        claims::version(command).map_err(|error| failed = Some(ProblemKind::Version { error })).ok()
    });
    let package = match &tool.package {
        None => None,
        Some(PackageClaim::Given(text)) => Some(text.clone()),
        Some(PackageClaim::Auto) => claims::debian_package(first)
            .map_err(|error| failed = Some(ProblemKind::Package { error }))
            .ok()
            .flatten(),
    };
    ((version, package), failed)
}

fn invalid(error: &MeasurementError) -> ProblemKind {
    ProblemKind::Invalid { error: error.to_string() }
}

impl From<Draft> for EntryKind {
    fn from(draft: Draft) -> Self {
        match draft {
            Draft::File { sha256, size_bytes, role } => Self::File {
                digest: Digest::new(HashAlg::Sha256, &sha256)
                    .expect("an array of 32 bytes is a SHA-256 digest"),
                size_bytes,
                role,
            },
            Draft::Link { target } => Self::Link { target },
        }
    }
}
