//! Programs that others wrote, which read what ours write: brought, built, and tested with.
//!
//! They come through the clients of their own package registries and stand in the target directory alone.

use std::{fs, path::Path, process::Command};

use crate::{
    run::{Failure, cargo, execute, is_installed, target_directory, workspace_root},
    setup,
};

/// Where they are kept, and how tests find them (`swtpm-tests/independent`).
const VARIABLE: &str = "ASSAY_INTEROP";

/// Brings what is missing and runs the tests that need it.
pub(crate) fn run() -> Result<(), Failure> {
    execute(&mut command()?)
}

/// The tests, with everything there that they need.
pub(crate) fn command() -> Result<Command, Failure> {
    let folder = target_directory()?.join("interop");
    let sources = workspace_root()?.join("verifier/results/interop");
    for (name, program) in [("python3-venv", "python3"), ("nodejs", "node"), ("npm", "npm")] {
        let is_there = is_installed(program) && (name != "python3-venv" || has_venv());
        if !is_there {
            setup::install(name)?;
        }
    }
    fs::create_dir_all(&folder)
        .map_err(|error| Failure::Failed(format!("{}: {error}", folder.display())))?;
    python(&folder, &sources)?;
    node(&folder, &sources)?;
    let manifest = sources.join("sigstore-rust/Cargo.toml");
    let mut build = cargo(["build", "--quiet", "--locked", "--manifest-path"]);
    build.arg(manifest).arg("--target-dir").arg(folder.join("sigstore-rust"));
    execute(&mut build)?;
    // What the clients in a job run against.
    execute(&mut cargo(["build", "--locked", "-p", "attestor", "-p", "verifier", "--bins"]))?;
    let mut tests = cargo(["test", "--locked", "--no-fail-fast"]);
    for package in ["results", "jose", "platform", "workload", "verifier", "swtpm-tests"] {
        tests.args(["-p", package]);
    }
    // Those of their test programs that have such a test; the verifier's stands in its library.
    tests.args(["--lib", "--test", "interop", "--test", "pyjwt", "--test", "api", "--"]);
    tests.args(["_verifies_", "pyjwt", "the_python_client", "the_rust_client"]);
    tests.env(VARIABLE, folder);
    Ok(tests)
}

/// Whether Python makes environments: Debian has that in a package of its own.
fn has_venv() -> bool {
    let probe = Command::new("python3").args(["-c", "import ensurepip, venv"]).output();
    probe.is_ok_and(|output| output.status.success())
}

fn python(folder: &Path, sources: &Path) -> Result<(), Failure> {
    let venv = folder.join("venv");
    if !venv.join("bin/python").is_file() {
        execute(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    }
    let mut install = Command::new(venv.join("bin/python"));
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
    execute(install.arg(sources.join("requirements.txt")))
}

fn node(folder: &Path, sources: &Path) -> Result<(), Failure> {
    let packages = folder.join("npm");
    let failed = |error| Failure::Failed(format!("{}: {error}", packages.display()));
    fs::create_dir_all(&packages).map_err(failed)?;
    fs::copy(sources.join("package.json"), packages.join("package.json")).map_err(failed)?;
    let mut install = Command::new("npm");
    // Its sources are plain JavaScript: nothing of theirs runs at installation.
    install.args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]);
    execute(install.current_dir(&packages))
}
