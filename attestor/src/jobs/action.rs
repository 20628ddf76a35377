//! What a site has done when a job must not run: a command of its own, as the daemon's user.

use std::time::Duration;

use tokio::{process::Command, time::timeout};

/// How long it may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs what the configuration names, with what it is about in its environment; nothing if nothing is named.
pub(super) async fn act(command: &[String], about: &[(&str, &str)]) {
    let Some((program, arguments)) = command.split_first() else { return };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(about.iter().copied())
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    match timeout(DEADLINE, command.status()).await {
        Ok(Ok(status)) if status.success() => tracing::info!(program, "ran what ends the job"),
        Ok(Ok(status)) => tracing::error!(program, %status, "what should end the job failed"),
        Ok(Err(error)) => tracing::error!(program, %error, "what should end the job did not start"),
        Err(_) => tracing::error!(program, "what should end the job took too long"),
    }
}
