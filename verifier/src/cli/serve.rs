//! `verifier serve`.

use std::{io::IsTerminal as _, sync::Arc};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{Done, Failure, Global, LogFormat};
use crate::{clock::SystemClock, run};

/// Run the service until SIGTERM or SIGINT.
///
/// SIGHUP reloads the server certificate, the CA, the trust bundle, endorsements, rules and golden
/// sets; the configuration itself is read at the start only. What is under way when the service
/// stops is given ten seconds.
///
/// Example:
///   verifier serve --config /etc/assay/verifier.toml --log info --log-format json
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(super) struct ServeArgs {}

pub(super) fn run(global: &Global, _args: ServeArgs) -> Done {
    let config = global.config()?;
    log_to_stderr(global, "info")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::of(&error).while_doing("start the runtime"))?;
    runtime.block_on(async {
        // Before serving starts: a signal during the start stops it.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        run::serve(config, Arc::new(SystemClock), shutdown).await?;
        Ok(())
    })
}

/// Sends log lines to the standard error output.
pub(super) fn log_to_stderr(global: &Global, default: &str) -> Done {
    let filter = global.log.as_deref().unwrap_or(default);
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Failure::usage(format!("--log {filter:?}: {error}"))
            .with_help("use error, warn, info, debug or trace, or filters like warn,verifier=debug")
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let installed = match global.log_format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    installed.map_err(|error| Failure::failed(format!("logging cannot start: {error}")))
}
