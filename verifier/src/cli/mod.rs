//! The command line of `verifier`: arguments, output, exit codes.
//!
//! Commands either work on the state directory of this machine, or ask a running verifier over its
//! administration service; `client` has the connection.

mod admins;
mod admit;
mod ca;
mod client;
mod clock;
mod decisions;
mod documents;
mod failure;
mod files;
mod golden;
mod ima;
mod init;
mod inspect;
mod keys;
mod nodes;
mod output;
mod policy;
mod results;
mod roots;
mod serve;
mod upkeep;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use self::{failure::Failure, output::Output};
use crate::{
    clock::{Clock as _, SystemClock},
    config::{Config, DEFAULT_CONFIG_PATH, DEFAULT_STATE_DIR},
};

type Done = Result<(), Failure>;

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  failed: something needed is missing, broken or not reachable
  2  wrong usage
  3  refused: the verifier said no, or a check found problems

First steps:
  verifier init --trust-domain builds.example.org --name verifier.builds.example.org
  verifier serve
  verifier roots import TrustedTpm.cab
  verifier golden capture worker-17 > set.toml
  verifier golden apply set.toml --key /var/lib/assay/admin/security.key";

/// Admits build workers whose TPM proves what they are and what they run.
///
/// One program is the service (`serve`), its set-up (`init`, `ca`), its administration (`nodes`,
/// `golden`, `roots`, …) and its auditor (`replay`, `audit`). On the verifier's own machine no
/// connection options are needed: they default to what `init` wrote.
#[derive(Debug, Parser)]
#[command(
    name = "verifier",
    version,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = AFTER_HELP
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Args, Debug)]
struct Global {
    /// The configuration.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "ASSAY_CONFIG",
        hide_env_values = true,
        help_heading = "Common options"
    )]
    config: Option<PathBuf>,
    /// The state directory; the configuration's, if there is one, else /var/lib/assay.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "ASSAY_STATE",
        hide_env_values = true,
        help_heading = "Common options"
    )]
    state: Option<PathBuf>,
    /// Print JSON, for programs.
    #[arg(long, global = true, help_heading = "Common options")]
    json: bool,
    /// What is logged: a level (error, warn, info, debug, trace) or filters like
    /// `warn,verifier=debug`. The log goes to the standard error output.
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "ASSAY_LOG",
        hide_env_values = true,
        help_heading = "Common options"
    )]
    log: Option<String>,
    /// How it is logged.
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "ASSAY_LOG_FORMAT",
        hide_env_values = true,
        default_value = "text",
        help_heading = "Common options"
    )]
    log_format: LogFormat,
    #[command(flatten)]
    server: client::ServerArgs,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::InitArgs),
    Serve(serve::ServeArgs),
    CheckConfig(upkeep::CheckConfigArgs),
    #[command(subcommand)]
    Nodes(nodes::NodesCommand),
    #[command(subcommand)]
    Rules(nodes::RulesCommand),
    #[command(subcommand)]
    Golden(golden::GoldenCommand),
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    #[command(subcommand)]
    Roots(roots::RootsCommand),
    #[command(subcommand)]
    Admins(admins::AdminsCommand),
    #[command(subcommand)]
    Ca(ca::CaCommand),
    #[command(subcommand)]
    Decisions(decisions::DecisionsCommand),
    Replay(decisions::ReplayArgs),
    Admit(admit::AdmitArgs),
    #[command(subcommand)]
    Results(results::ResultsCommand),
    #[command(subcommand)]
    Audit(decisions::AuditCommand),
    Backup(upkeep::BackupArgs),
    Restore(upkeep::RestoreArgs),
    #[command(subcommand)]
    Retention(upkeep::RetentionCommand),
    #[command(subcommand)]
    Ima(ima::ImaCommand),
    #[command(subcommand)]
    Inspect(inspect::InspectCommand),
    /// Print shell completions.
    ///
    /// Example:
    ///   verifier completions bash > /etc/bash_completion.d/verifier
    #[command(verbatim_doc_comment)]
    Completions {
        /// Shell.
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
    /// Write manual pages, one for each command.
    ///
    /// Example:
    ///   verifier man /usr/local/share/man/man1
    #[command(verbatim_doc_comment)]
    Man {
        /// Directory; made if it is absent.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

impl Global {
    /// Where the configuration is.
    fn config_path(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG_PATH))
    }

    /// The configuration, with the state directory of the command line if it names one.
    fn config(&self) -> Result<Config, Failure> {
        let mut config = Config::load(&self.config_path())?;
        if let Some(state) = &self.state {
            config.state_dir.clone_from(state);
        }
        Ok(config)
    }

    /// The state directory: the command line's, else the configuration's, else the default one.
    fn state(&self) -> Result<PathBuf, Failure> {
        if let Some(state) = &self.state {
            return Ok(state.clone());
        }
        if self.config.is_some() || self.config_path().exists() {
            return Ok(self.config()?.state_dir);
        }
        Ok(PathBuf::from(DEFAULT_STATE_DIR))
    }

    const fn output(&self) -> Output {
        Output::new(self.json)
    }
}

/// Now, seconds since 1970.
fn now() -> i64 {
    SystemClock.now_unix_s()
}

/// The command line, with the examples of shared commands in each command's own words.
fn command_line() -> clap::Command {
    documents::with_own_examples(Cli::command())
}

/// Runs the program with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let matches = command_line().get_matches();
    let Cli { global, command } = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match dispatch(&global, command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(global.json),
    }
}

fn dispatch(global: &Global, command: Command) -> Done {
    if !matches!(command, Command::Serve(_)) {
        // Only what goes wrong: the output is what counts.
        serve::log_to_stderr(global, "warn")?;
    }
    match command {
        Command::Init(args) => init::run(global, args),
        Command::Serve(args) => serve::run(global, args),
        Command::CheckConfig(args) => upkeep::run_check_config(global, args),
        Command::Nodes(command) => nodes::run(global, command),
        Command::Rules(command) => nodes::run_rules(global, command),
        Command::Golden(command) => golden::run(global, command),
        Command::Policy(command) => policy::run(global, command),
        Command::Keys(command) => keys::run(global, command),
        Command::Roots(command) => roots::run(global, command),
        Command::Admins(command) => admins::run(global, command),
        Command::Ca(command) => ca::run(global, command),
        Command::Decisions(command) => decisions::run(global, command),
        Command::Replay(args) => decisions::run_replay(global, args),
        Command::Admit(args) => admit::run(global, &args),
        Command::Results(command) => results::run(global, command),
        Command::Audit(command) => decisions::run_audit(global, command),
        Command::Backup(args) => upkeep::run_backup(global, args),
        Command::Restore(args) => upkeep::run_restore(global, args),
        Command::Retention(command) => upkeep::run_retention(global, command),
        Command::Ima(command) => ima::run(global, command),
        Command::Inspect(command) => inspect::run(global, command),
        Command::Completions { shell } => completions(global, shell),
        Command::Man { dir } => man(global, &dir),
    }
}

fn completions(global: &Global, shell: clap_complete::Shell) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command_line(), "verifier", &mut script);
    global.output().text(&String::from_utf8_lossy(&script))
}

fn man(global: &Global, dir: &Path) -> Done {
    let written = || -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        clap_mangen::generate_to(command_line(), dir)
    };
    written().map_err(|error| {
        Failure::of(&error).while_doing(&format!("write manual pages to {}", dir.display()))
    })?;
    let dir = dir.display();
    global.output().either(
        &serde_json::json!({ "directory": dir.to_string() }),
        format!("manual pages are in {dir}; read one: man -l {dir}/verifier.1"),
    )
}

/// Who works on this machine without a certificate, for the audit trail.
fn local_actor() -> String {
    format!("local/uid-{}", rustix::process::getuid().as_raw())
}

/// Runs a command that waits: on one thread, a few steps.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::of(&error).while_doing("start the runtime"))?
        .block_on(work)
}

#[cfg(test)]
mod tests {
    use super::command_line;

    #[test]
    fn the_arguments_fit_together() {
        command_line().debug_assert();
    }

    /// Help that teaches: every command that does something shows how it is called.
    #[test]
    fn every_command_has_an_example() {
        fn leaves(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands() {
                let path = format!("{path} {}", sub.get_name());
                if sub.has_subcommands() {
                    leaves(sub, &path);
                    continue;
                }
                let help = sub.get_long_about().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example"), "{path} has no example");
                assert!(help.contains(path.trim()), "the example of {path} calls something else");
            }
        }
        leaves(&command_line(), "verifier");
    }
}
