//! Programs that others wrote, which tests hold ours against.
//!
//! `cargo xtask interop` brings them and names their folder in `ASSAY_INTEROP`: there nothing is skipped. Elsewhere a test
//! uses what is installed, and says so where it is not.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A part of what `cargo xtask interop` brought; `None` where it does not run this.
#[must_use]
pub fn brought(part: &str) -> Option<PathBuf> {
    std::env::var_os("ASSAY_INTEROP").map(|folder| Path::new(&folder).join(part))
}

/// Whether a program is there, by a command that succeeds if it is.
///
/// # Panics
/// Where it was brought and does not run.
#[must_use]
pub fn is_there(name: &str, mut probe: Command) -> bool {
    let is_there = probe.output().is_ok_and(|output| output.status.success());
    assert!(is_there || brought("").is_none(), "{name} was brought and does not run");
    if !is_there {
        eprintln!("skipped: {name} is not there; `cargo xtask interop` brings it");
    }
    is_there
}

/// A Python that can run `imports`, which are statements: the one that was brought, the one that `ASSAY_PYTHON` names, or
/// `python3`.
///
/// # Panics
/// As [`is_there`].
#[must_use]
pub fn python(imports: &str) -> Option<PathBuf> {
    let named = std::env::var_os("ASSAY_PYTHON").map(PathBuf::from);
    let python = brought("venv/bin/python").or(named).unwrap_or_else(|| "python3".into());
    let mut probe = Command::new(&python);
    probe.args(["-c", imports]);
    is_there(&format!("Python with `{imports}`"), probe).then_some(python)
}
