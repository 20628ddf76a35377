//! The practice environment of docs/GOLDEN-SETS.md with a shell in it: `cargo xtask demo --practice`.

use std::{fs, process::ExitCode};

use swtpm_tests::{cluster::AnyError, practice::Practice};
use tokio::signal::unix::{SignalKind, signal};

/// Says where one is; what the person's own files set up stays out of it.
const PROMPT: &str = "PS1='practice:${PWD#$ASSAY_PRACTICE}\\$ '\n";

const WELCOME: &str = "
A verifier runs here, and three workers with software TPMs, in pool linux. No golden set is there yet.

  worker attest all                        every worker is denied, and recorded
  verifier golden capture --pool linux     proposes a golden set from that
  worker help, verifier golden --help      what else there is

The guide is docs/GOLDEN-SETS.md. Everything ends, and this folder goes, when you leave the shell.
";

fn main() -> ExitCode {
    attestor::tpm::quiet::silence_tss_log();
    let done = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = done.map_err(AnyError::from).and_then(|runtime| {
        let done = runtime.block_on(shell());
        // Where somebody ended this program, the shell may go on, and is not waited for.
        runtime.shutdown_background();
        done
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("practice: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns when the shell ends, or when somebody ends this program: what it started ends in both cases.
async fn shell() -> Result<(), AnyError> {
    eprintln!("Making three TPMs and a verifier …");
    let practice = Practice::start().await?;
    let settings = practice.folder().join(".bashrc");
    fs::write(&settings, PROMPT)?;
    println!("{WELCOME}");
    let (mut hangup, mut terminate) =
        (signal(SignalKind::hangup())?, signal(SignalKind::terminate())?);
    let mut shell = practice
        .command("bash")
        .arg("--noprofile")
        .arg("--rcfile")
        .arg(settings)
        .arg("-i")
        .spawn()?;
    let ended = tokio::task::spawn_blocking(move || shell.wait());
    tokio::select! {
        status = ended => { status??; }
        _ = hangup.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
