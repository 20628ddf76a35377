//! The practice environment of docs/GOLDEN-SETS.md: a verifier and three workers on software TPMs, in one folder.
//!
//! The verifier runs, trusts the TPMs' manufacturer and knows the workers, and no golden set is there. The programs are
//! those that are installed; what a person's hands do to a worker (power button, firmware setup, update) the program
//! `worker` does. `cargo xtask demo --practice` gives a shell in it, and a test runs the guide in it.

mod machine;
mod serve;
mod verbs;

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use attestor::tpm::EkPreference;

pub use self::verbs::{HELP, Refused, run};
use self::{
    machine::Machine,
    serve::{Serving, free_port, initialise, manage},
};
use crate::{
    cluster::{AnyError, ek_of},
    efi::unified_kernel_image,
    machine::program,
    manufacturer::Manufacturer,
    swtpm::{Swtpm, SwtpmOptions},
};

/// Names the folder to the program `worker`.
pub const FOLDER_VARIABLE: &str = "ASSAY_PRACTICE";
/// Pool of every worker.
const POOL: &str = "linux";
/// Enough for old, new and changed at once; each costs a second to make.
const WORKERS: [&str; 3] = ["worker-1", "worker-2", "worker-3"];
/// Every worker boots this at first.
const FIRST_IMAGE: &str = "images/linux-28.efi";
/// What is in `images/`: file, release, command line.
const IMAGES: [(&str, &str, &str); 4] = [
    (FIRST_IMAGE, "6.1.0-28-amd64", "root=/dev/vda2 ro quiet"),
    ("images/linux-29.efi", "6.1.0-29-amd64", "root=/dev/vda2 ro quiet"),
    ("images/linux-30.efi", "6.1.0-30-amd64", "root=/dev/vda2 ro quiet"),
    ("images/linux-29-shell.efi", "6.1.0-29-amd64", "root=/dev/vda2 ro init=/bin/sh"),
];
/// The tools of every worker: a compiler of two files, and a linker.
const TOOLS: [(&str, &str); 3] =
    [("cc", "compiler 12.2.0\n"), ("cc1", "compiler proper 12.2.0\n"), ("ld", "linker 2.40\n")];

/// A running environment. When it is dropped, the processes that it started end, and the folder goes.
#[derive(Debug)]
pub struct Practice {
    // In the order in which they end.
    _serving: Serving,
    _tpms: Vec<Swtpm>,
    folder: tempfile::TempDir,
}

impl Practice {
    /// Makes everything, and starts it.
    ///
    /// # Errors
    /// A program is not built or not installed, or one of them fails.
    pub async fn start() -> Result<Self, AnyError> {
        let folder = tempfile::Builder::new().prefix("assay-practice-").tempdir()?;
        let root = folder.path();
        write_programs(root)?;
        write_images(root)?;
        let url = initialise(root)?;
        let serving = Serving::start(root, free_port()?)?;
        trust(root, &Manufacturer::shared())?;
        let tpms = start_tpms().await?;
        for (name, tpm) in WORKERS.iter().zip(&tpms) {
            write_worker(root, name, tpm, &url)?;
            let ek = ek_of(&tpm.tcti(), EkPreference::Auto).await?.to_string();
            manage(root, &["nodes", "add", name, "--pool", POOL, "--ek-digest", &ek])?;
        }
        Ok(Self { _serving: serving, _tpms: tpms, folder })
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A program in the folder, with the environment that its commands need.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder());
        for (name, value) in environment(self.folder()) {
            command.env(name, value);
        }
        command
    }
}

/// What the commands of the guide find in their environment.
fn environment(root: &Path) -> Vec<(&'static str, OsString)> {
    let mut path = root.join("bin").into_os_string();
    if let Some(rest) = std::env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    vec![
        (FOLDER_VARIABLE, root.into()),
        ("ASSAY_CONFIG", root.join("verifier.toml").into()),
        ("ASSAY_STATE", root.join("state").into()),
        ("PATH", path),
    ]
}

fn write_programs(root: &Path) -> Result<(), AnyError> {
    fs::create_dir(root.join("bin"))?;
    for name in ["verifier", "attestor", "worker"] {
        symlink(program(name)?, root.join("bin").join(name))?;
    }
    Ok(())
}

fn write_images(root: &Path) -> io::Result<()> {
    fs::create_dir(root.join("images"))?;
    for (file, release, command_line) in IMAGES {
        let initrd = format!("initrd of {release}");
        fs::write(root.join(file), unified_kernel_image(release, command_line, initrd.as_bytes()))?;
    }
    Ok(())
}

fn trust(root: &Path, manufacturer: &Manufacturer) -> Result<(), AnyError> {
    let roots = root.join("roots");
    for (kind, pem) in
        [("RootCA", manufacturer.root_pem()?), ("IntermediateCA", manufacturer.intermediate_pem()?)]
    {
        fs::create_dir_all(roots.join(kind))?;
        fs::write(roots.join(kind).join("manufacturer.pem"), pem)?;
    }
    manage(root, &["roots", "import", "roots"])
}

/// All at once: making a TPM waits for other programs most of the time.
async fn start_tpms() -> Result<Vec<Swtpm>, AnyError> {
    let start = || tokio::task::spawn_blocking(|| Swtpm::start(SwtpmOptions::default()));
    let starting: Vec<_> = WORKERS.iter().map(|_| start()).collect();
    let mut tpms = Vec::with_capacity(starting.len());
    for tpm in starting {
        tpms.push(tpm.await??);
    }
    Ok(tpms)
}

fn write_worker(root: &Path, name: &str, tpm: &Swtpm, url: &str) -> Result<(), AnyError> {
    let folder = worker_folder(root, name);
    let tools = folder.join("tools");
    fs::create_dir_all(&tools)?;
    for (tool, content) in TOOLS {
        fs::write(tools.join(tool), content)?;
    }
    let mounted = root.join(MOUNTED);
    let mounted = mounted.display();
    fs::write(
        folder.join("tools.toml"),
        format!(
            "[[tool]]\nname = \"cc\"\npaths = [\"{mounted}/cc*\"]\n\n[[tool]]\nname = \"ld\"\npaths = \
             [\"{mounted}/ld\"]\n"
        ),
    )?;
    let at = |name: &str| folder.join(name).display().to_string();
    fs::write(
        folder.join("attestor.toml"),
        format!(
            "[verifier]\nurl = \"{url}\"\nca_file = \"{ca}\"\n\n[tpm]\ntcti = \"{tcti}\"\n\n[tools]\nlist = \
             \"{tools}\"\n\n[logs]\nuefi = \"{log}\"\nima = \"none\"\nsystemd = \"none\"\n\n[daemon]\nstate_dir = \
             \"{state}\"\noutput_dir = \"{output}\"\n",
            ca = root.join("state/bundle.pem").display(),
            tcti = tpm.tcti(),
            tools = at("tools.toml"),
            log = at("binary_bios_measurements"),
            state = at("state"),
            output = at("output"),
        ),
    )?;
    Machine::new(tpm.port(), FIRST_IMAGE).boot(root, &folder)
}

/// Where the tools of every worker are while it attests: at one path, as on workers of one image.
const MOUNTED: &str = "opt";

/// Where a worker's files are.
fn worker_folder(root: &Path, name: &str) -> PathBuf {
    root.join("workers").join(name)
}
