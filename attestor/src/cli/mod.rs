//! Command line of `attestor`.

mod commands;
mod hook;
mod job;
mod job_files;
mod sign;
mod socket;
mod stop_parent;

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

/// Exit codes, in every help text.
const EXIT_CODES: &str = "Exit codes: 0 done (admitted), 1 no answer (TPM, network, disk, configuration), \
                          2 wrong usage, 3 denied, or a check found problems.";

/// Exit codes of what tells where the worker stands.
const EXIT_CODES_STATUS: &str = "Exit codes: 0 admitted; 1 nobody knows: the daemon starts, got no verdict, or its last outcome is \
                                 stale; 2 wrong usage; 3 denied.";

/// Exit codes of what jobs run.
const EXIT_CODES_JOB: &str = "Exit codes: the command's own, or 128 and its signal; 126 it cannot be executed; 127 there is \
                              no such program; 1 no answer (no daemon, \
                              configuration); 2 wrong usage; 3 (or --refused-code, or SYSTEM_FAILURE_EXIT_CODE) \
                              the worker or the job was refused, or the permit ended.";

/// Exit codes of what gets permits and ends them.
const EXIT_CODES_PERMIT: &str = "Exit codes: 0 there is a permit, or --end ended it; 1 no answer (no daemon, configuration); 2 wrong \
                                 usage; 3 (or --refused-code, or SYSTEM_FAILURE_EXIT_CODE) the worker or the job was refused; 3 \
                                 with --end: no such permit of this user runs.";

/// Exit codes of what checks files.
const EXIT_CODES_CHECK: &str = "Exit codes: 0 the daemon can use it; 1 it cannot; 2 wrong usage.";

/// Exit codes of what signs.
const EXIT_CODES_SIGN: &str = "Exit codes: 0 signed; 1 no answer (no daemon, no verifier, a file that cannot be read); 2 wrong \
                               usage; 3 refused: not a process of a job, or no time stamp for it.";

/// Proves to a verifier, with this machine's TPM, which machine this is, what it booted and which build
/// tools it carries; keeps the build-node certificate that the verifier issues for it.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Cli {
    /// Lines in the log: error, warn, info, debug, trace, or a filter such as attestor=debug.
    #[arg(long, global = true, env = "ASSAY_LOG", default_value = "info")]
    log: String,
    /// Form of the log.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// Configuration file.
    #[arg(long, env = "ASSAY_ATTESTOR_CONFIG", default_value = attestor::config::DEFAULT_CONFIG_PATH)]
    config: PathBuf,
    /// TPM to use, in place of the configuration's: device:/dev/tpmrm0, swtpm:host=127.0.0.1,port=2321
    #[arg(long, env = "ASSAY_TCTI")]
    tcti: Option<attestor::tpm::Tcti>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run as a daemon: attest, renew at half-life, measure when files change.
    ///
    /// Example: attestor run --config /etc/assay/attestor.toml
    #[command(after_help = EXIT_CODES)]
    Run(ConfigArgs),
    /// Attest once and write the certificate.
    ///
    /// Example: attestor once && openssl x509 -in /run/assay/node.pem -noout -text
    #[command(after_help = EXIT_CODES)]
    Once {
        #[command(flatten)]
        config: ConfigArgs,
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Measure the build tools and print what would be recorded; the TPM is not touched.
    ///
    /// Example: attestor measure --tools tools.toml
    #[command(after_help = EXIT_CODES)]
    Measure {
        /// Tool list.
        #[arg(long, default_value = attestor::config::DEFAULT_TOOLS)]
        tools: PathBuf,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the TPM, its endorsement keys and certificates, the logs, and what is missing.
    ///
    /// Example: attestor inspect --tcti device:/dev/tpmrm0
    #[command(after_help = EXIT_CODES)]
    Inspect {
        /// TPM to look at.
        #[arg(long, env = "ASSAY_TCTI")]
        tcti: Option<attestor::tpm::Tcti>,
        /// Configuration file to take TPM, passwords and certificates from.
        #[arg(long)]
        config: Option<PathBuf>,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the last outcome of the daemon, if it is one: a daemon that should have reported since is dead or hangs.
    ///
    /// Ten minutes after the time of its next attempt, by this machine's clock, an outcome is stale, and counts for nothing.
    ///
    /// Example: attestor status --wait 600
    #[command(after_help = EXIT_CODES_STATUS)]
    Status {
        /// Folder the daemon writes to.
        #[arg(long, default_value = attestor::config::DEFAULT_OUTPUT_DIR)]
        output_dir: PathBuf,
        /// Wait so many seconds for an admission: for units that must not start before.
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        wait: u64,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run a job's command if, and as long as, this worker proves itself for it.
    ///
    /// Asks the daemon for a permit: a fresh challenge, every tool measured anew, a quote over the job's key and claims.
    /// The command starts once the verifier has given and redeemed it, and is ended with it.
    ///
    /// Example: attestor exec --job generic -- make release
    #[command(after_help = EXIT_CODES_JOB, verbatim_doc_comment)]
    Exec(job::ExecArgs),
    /// What `exec` starts a command through.
    #[command(name = job::begin::NAME, hide = true)]
    Begin(job::begin::BeginArgs),
    /// Get a permit for the job around this command: for hooks of CI systems.
    ///
    /// Examples:
    ///   attestor permit --job github --for parent
    ///   attestor permit --job gitlab --defer permit.json && attestor exec --permit permit.json -- make
    ///   attestor permit --end PERMIT
    #[command(after_help = EXIT_CODES_PERMIT, verbatim_doc_comment)]
    Permit(job::PermitArgs),
    /// Install, show, check and remove the hooks of CI systems that ask for permits.
    ///
    /// Example: attestor hook install github --user runner --dry-run
    #[command(after_help = hook::EXIT_CODES)]
    Hook(hook::HookArgs),
    /// Sign what a job built, in that job: with its key, as its pool, at a time that the verifier stamps.
    ///
    /// Writes a Sigstore bundle beside each file, which `verifier results verify`, `verifier admit` and programs of others
    /// verify offline. The job's certificate ends within ten minutes, so there is no signature without a time stamp.
    ///
    /// Examples:
    ///   attestor sign app.tar.gz
    ///   attestor exec --job github -- sh -c 'make app.tar.gz && attestor sign app.tar.gz'
    #[command(after_help = EXIT_CODES_SIGN, verbatim_doc_comment)]
    Sign(sign::SignArgs),
    /// Pass TPM commands through standard input and output, for OpenSSL's tpm2 provider.
    ///
    /// The provider cannot load keys under the NULL hierarchy by itself. Example:
    /// TPM2OPENSSL_TCTI="cmd:attestor tcti device:/dev/tpmrm0" openssl s_server -provider default
    /// -provider tpm2 -propquery '?tpm2.signature=yes' -cert /run/assay/node.pem -key /run/assay/node-key.pem
    Tcti {
        /// The TPM.
        tcti: attestor::tpm::Tcti,
    },
    /// Check a configuration file and the tool list it names.
    ///
    /// Example: attestor check-config --config attestor.toml
    #[command(after_help = EXIT_CODES_CHECK)]
    CheckConfig {
        #[command(flatten)]
        config: ConfigArgs,
        /// Print as JSON, what is wrong too.
        #[arg(long)]
        json: bool,
    },
    /// Print shell completions.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write man pages into a folder.
    Man {
        /// The folder.
        folder: PathBuf,
    },
}

/// Runs the command line.
pub(crate) fn main() -> ExitCode {
    // First of all: whatever ends this command without a permit ends the parent, wrong arguments too.
    let parent = stop_parent::StopParent::if_asked(std::env::args_os());
    let code = match Cli::try_parse() {
        Ok(cli) => run(cli, parent.as_ref()),
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if code == ExitCode::SUCCESS
        && let Some(parent) = parent
    {
        parent.disarm();
    }
    code
}

fn run(cli: Cli, parent: Option<&stop_parent::StopParent>) -> ExitCode {
    if let Err(error) = log(&cli.log, cli.log_format) {
        eprintln!("attestor: --log: {error}");
        return ExitCode::from(2);
    }
    let done = match cli.command {
        Command::Run(config) => commands::run(&config),
        Command::Once { config, json } => commands::once(&config, json),
        Command::Measure { tools, json } => commands::measure(&tools, json),
        Command::Inspect { tcti, config, json } => commands::inspect(tcti, config.as_deref(), json),
        Command::Status { output_dir, wait, json } => commands::status(&output_dir, wait, json),
        Command::Hook(args) => hook::hook(&args),
        Command::Exec(args) => job::exec(&args),
        Command::Begin(args) => job::begin::begin(&args),
        Command::Permit(args) => job::permit(&args, parent),
        Command::Sign(args) => sign::sign(&args),
        Command::Tcti { tcti } => commands::tcti(&tcti),
        Command::CheckConfig { config, json } => commands::check_config(&config, json),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "attestor", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { folder } => commands::man(Cli::command(), &folder),
    };
    done.unwrap_or_else(|error| {
        eprintln!("attestor: {}", attestor::chain(error.as_ref()));
        ExitCode::FAILURE
    })
}

fn log(filter: &str, format: LogFormat) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let set = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    set.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
