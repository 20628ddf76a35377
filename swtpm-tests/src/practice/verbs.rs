//! The verbs of the program `worker`: what hands do to a worker.

use std::{
    fs, io,
    path::Path,
    process::{Command, Stdio},
};

use super::{MOUNTED, WORKERS, machine::Machine, worker_folder};
use crate::cluster::AnyError;

/// How the program is used.
pub const HELP: &str = "\
Usage: worker VERB …

  list                          what each worker is set to boot
  boot NAME… [SETTING…]         set, power off, power on; settings stay until they are changed
  attest NAME…                  `attestor once` on each; exits with 3 if one was denied

Names are worker-1, worker-2, worker-3, or all. Settings:
  image=FILE                    unified kernel image, as images/linux-29.efi
  firmware=VERSION              version of the firmware
  secure-boot=on|off
  db=NAME,NAME                  whose signatures Secure Boot trusts

A worker's build tools are files in workers/NAME/tools; change them with any program.";

/// Wrong usage, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{0}; `worker help` says how")]
pub struct Refused(String);

/// Runs a verb in the environment at `root`; the exit code.
///
/// # Errors
/// [`Refused`], or what went wrong.
pub fn run(root: &Path, arguments: &[String]) -> Result<u8, AnyError> {
    let (verb, rest) = arguments.split_first().ok_or_else(|| Refused("no verb".into()))?;
    let is_setting = |argument: &&String| argument.contains('=');
    let (settings, names): (Vec<&String>, Vec<&String>) = rest.iter().partition(is_setting);
    match verb.as_str() {
        "help" | "--help" | "-h" => println!("{HELP}"),
        "list" if rest.is_empty() => {
            for name in WORKERS {
                println!("{name}: {}", Machine::read(&worker_folder(root, name))?);
            }
        }
        "boot" => {
            for name in named(&names)? {
                println!("{name}: {}", boot(root, name, &settings)?);
            }
        }
        "attest" if settings.is_empty() => return attest(root, &named(&names)?),
        other => return Err(Refused(format!("{other:?} is not understood so")).into()),
    }
    Ok(0)
}

fn named(names: &[&String]) -> Result<Vec<&'static str>, Refused> {
    let mut out = Vec::new();
    for name in names {
        if *name == "all" {
            out.extend(WORKERS);
            continue;
        }
        let known = WORKERS.iter().find(|known| *known == name);
        out.push(*known.ok_or_else(|| Refused(format!("there is no worker {name:?}")))?);
    }
    if out.is_empty() { Err(Refused("which worker?".into())) } else { Ok(out) }
}

fn boot(root: &Path, name: &str, settings: &[&String]) -> Result<Machine, AnyError> {
    let folder = worker_folder(root, name);
    let mut machine = Machine::read(&folder)?;
    for setting in settings {
        machine.set(setting).ok_or_else(|| Refused(format!("{setting:?} is no setting")))?;
    }
    machine.boot(root, &folder)?;
    Ok(machine)
}

/// A worker that is denied is an answer: the others are asked all the same.
fn attest(root: &Path, names: &[&str]) -> Result<u8, AnyError> {
    let mut exit = 0;
    for name in names {
        let folder = worker_folder(root, name);
        mount_tools(root, &folder)?;
        let output = Command::new(root.join("bin/attestor"))
            .args(["--log", "error", "once", "--config"])
            .arg(folder.join("attestor.toml"))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let mut lines = said.lines();
        println!("{name}: {}", lines.next().unwrap_or("no answer"));
        match output.status.code() {
            // Where certificate and key are, every time, would hide the answers.
            Some(0) => {}
            Some(3) => {
                lines.for_each(|line| println!("{line}"));
                exit = 3;
            }
            _ => return Err(format!("attestor ended with {}", output.status).into()),
        }
    }
    Ok(exit)
}

/// One worker after the other: they share the place.
fn mount_tools(root: &Path, folder: &Path) -> io::Result<()> {
    let mounted = root.join(MOUNTED);
    if mounted.exists() {
        fs::remove_dir_all(&mounted)?;
    }
    fs::create_dir(&mounted)?;
    for tool in fs::read_dir(folder.join("tools"))? {
        let tool = tool?;
        fs::copy(tool.path(), mounted.join(tool.file_name()))?;
    }
    Ok(())
}
