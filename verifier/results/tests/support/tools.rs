//! Programs of others.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

/// A folder of files for other programs.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).expect("a file is written");
        path
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.path().join(name)).expect("a file")
    }

    /// Runs a program here: whether it succeeded, and all that it said.
    pub(crate) fn run<S: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> (bool, String) {
        let output = Command::new(program)
            .current_dir(self.0.path())
            .args(arguments)
            .output()
            .unwrap_or_else(|error| panic!("{program} runs: {error}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    }

    pub(crate) fn shell(&self, script: &str) -> (bool, String) {
        self.run("sh", ["-euc", script])
    }
}

/// Whether what a test needs is there. Where CI=true it must be.
pub(crate) fn is_there(what: &str, probe: &str, arguments: &[&str]) -> bool {
    let is_there =
        Command::new(probe).args(arguments).output().is_ok_and(|output| output.status.success());
    if !is_there {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{what} is not there");
        eprintln!("skipped: {what} is not there");
    }
    is_there
}

pub(crate) fn has_openssl() -> bool {
    is_there("openssl", "openssl", &["version"]) && is_there("jq", "jq", &["--version"])
}
