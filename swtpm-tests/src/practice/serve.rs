//! The verifier of the practice environment: set up and run with its own program.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::environment;
use crate::{cluster::AnyError, process::Ended};

/// How long the verifier may take to listen: a debug build on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// A running `verifier serve`.
#[derive(Debug)]
pub(super) struct Serving {
    _child: Ended,
}

/// `verifier init`; the URL for workers.
pub(super) fn initialise(root: &Path) -> Result<String, AnyError> {
    let listen = format!("{}:{}", Ipv4Addr::LOCALHOST, free_port()?);
    manage(
        root,
        &["init", "--trust-domain", "practice.example", "--name", "127.0.0.1", "--listen", &listen],
    )?;
    Ok(format!("https://{listen}"))
}

impl Serving {
    /// `verifier serve`, once it listens; metrics on a port of its own.
    pub(super) fn start(root: &Path, metrics_port: u16) -> Result<Self, AnyError> {
        let path = root.join("verifier.toml");
        let config = fs::read_to_string(&path)?;
        fs::write(&path, with_metrics_on(&config, metrics_port))?;
        let listen = verifier::config::Config::load(&path)?.listen;
        let log = root.join("verifier.log");
        let child = verifier_program(root)
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            // Ctrl-C in the shell is for what runs there.
            .process_group(0)
            .spawn()?;
        let mut child = Ended(child);
        let started = Instant::now();
        while TcpStream::connect(listen).is_err() {
            if child.0.try_wait()?.is_some() || started.elapsed() > START_DEADLINE {
                drop(child);
                let log = fs::read_to_string(log)?;
                return Err(format!("the verifier did not start:\n{log}").into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { _child: child })
    }
}

/// Runs `verifier` with these arguments.
pub(super) fn manage(root: &Path, arguments: &[&str]) -> Result<(), AnyError> {
    let output = verifier_program(root).args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("verifier {} ended with {}: {said}", arguments.join(" "), output.status).into())
}

fn verifier_program(root: &Path) -> Command {
    let mut command = Command::new(root.join("bin/verifier"));
    command.current_dir(root).envs(environment(root));
    command
}

pub(super) fn free_port() -> Result<u16, AnyError> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The configuration with another address for metrics: the default one may be in use.
fn with_metrics_on(config: &str, port: u16) -> String {
    let mut out = String::new();
    for line in config.lines().filter(|line| !line.trim_start().starts_with("metrics_listen")) {
        out.push_str(line);
        out.push('\n');
        if line.trim() == "[service]" {
            out.push_str(&format!("metrics_listen = \"{}:{port}\"\n", Ipv4Addr::LOCALHOST));
        }
    }
    out
}
