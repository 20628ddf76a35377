//! `hook`: what an administrator runs, as root, to have a CI system ask for permits.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use attestor::{
    config::DEFAULT_CONFIG_PATH,
    hooks::{
        Action, HookError, HookSystem, Options, Outcome, Problem, Report, Site, check, install,
        is_installed, remove,
    },
};
use clap::{Args, Subcommand};

use super::{
    commands::{Done, REFUSED, say},
    socket::DEFAULT_SOCKET,
};

/// Exit codes of what this does.
pub(super) const EXIT_CODES: &str = "Exit codes: 0 done, 1 a file cannot be read or written, 2 wrong usage, 3 refused (a \
                                     file that is not ours, nothing installed), or a check found problems.";

/// Arguments of `hook`.
#[derive(Args, Debug)]
pub(super) struct HookArgs {
    #[command(subcommand)]
    command: HookCommand,
}

#[derive(Debug, Subcommand)]
enum HookCommand {
    /// Look whether the installed hooks are as they were installed, root's, measured and configured.
    #[command(after_help = EXIT_CODES)]
    Check {
        #[command(flatten)]
        place: Place,
        /// The daemon's configuration.
        #[arg(long, env = "ASSAY_ATTESTOR_CONFIG", default_value = DEFAULT_CONFIG_PATH)]
        config: PathBuf,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Install a system's hooks, and add them to the measured tools.
    ///
    /// Files of others are left alone. The worker is denied until its golden set has the new tool assay-hook-SYSTEM.
    ///
    /// Example: attestor hook install gitlab --user gitlab-runner
    #[command(after_help = EXIT_CODES)]
    Install {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        site: SiteArgs,
        #[command(flatten)]
        how: How,
    },
    /// List the systems, and what is installed.
    List {
        /// Folder in place of /.
        #[arg(long, value_name = "ROOT", default_value = "/")]
        dir: PathBuf,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove a system's hooks and their entry in the tool list, and put back what was there before.
    #[command(after_help = EXIT_CODES)]
    Remove {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        how: How,
    },
    /// Print a system's files as they would be installed.
    Show {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        site: SiteArgs,
    },
}

/// Which hooks, and below which folder.
#[derive(Args, Debug)]
struct Place {
    /// buildkite, github, gitlab, jenkins or tekton.
    system: HookSystem,
    /// Folder in place of /: everything lies below it, and the files name their paths with it.
    #[arg(long, value_name = "ROOT", default_value = "/")]
    dir: PathBuf,
}

/// What is filled into the files.
#[derive(Args, Debug)]
struct SiteArgs {
    /// User whose processes run the jobs; what the system's packages make by default.
    #[arg(long)]
    user: Option<String>,
    /// The program that the hooks call; this one by default.
    #[arg(long, value_name = "PATH")]
    attestor: Option<PathBuf>,
    /// The daemon's socket for jobs.
    #[arg(long, default_value = DEFAULT_SOCKET, value_name = "PATH")]
    socket: PathBuf,
    /// Audience of the platform's tokens, as the verifier's `[[platform]]` has it: a job without a token is refused then.
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
}

/// How files are changed.
#[derive(Args, Debug)]
struct How {
    /// The tool list; ROOT/etc/assay/tools.toml by default.
    #[arg(long, value_name = "FILE")]
    tools: Option<PathBuf>,
    /// Also where a file of others or a changed one is in the way: it is kept beside, as FILE.before-assay.
    #[arg(long)]
    force: bool,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments that cannot be used.
const WRONG_USAGE: u8 = 2;

/// Does what is asked.
pub(super) fn hook(args: &HookArgs) -> Done {
    let done = match &args.command {
        HookCommand::Check { place, config, json } => check_hooks(place, config, *json),
        HookCommand::Install { place, site, how } => install_hooks(place, site, how),
        HookCommand::List { dir, json } => list(dir, *json),
        HookCommand::Remove { place, how } => remove_hooks(place, how),
        HookCommand::Show { place, site } => show(place, site),
    };
    match done {
        // An answer, not a failure to give one.
        Err(error) => match error.downcast_ref::<HookError>() {
            Some(found @ (HookError::Foreign { .. } | HookError::NotInstalled(_))) => {
                eprintln!("attestor: {}: {found}", found.code());
                Ok(ExitCode::from(REFUSED))
            }
            Some(found @ HookError::Name { .. }) => {
                eprintln!("attestor: {}: {found}", found.code());
                Ok(ExitCode::from(WRONG_USAGE))
            }
            Some(found) => Err(format!("{}: {found}", found.code()).into()),
            None => Err(error),
        },
        done => done,
    }
}

fn site(place: &Place, args: &SiteArgs) -> Result<Site, Box<dyn std::error::Error>> {
    let attestor = match &args.attestor {
        Some(path) => path.clone(),
        None => std::env::current_exe()?,
    };
    let user = args.user.clone().unwrap_or_else(|| place.system.default_user().to_owned());
    let (system, root, socket) = (place.system, place.dir.clone(), args.socket.clone());
    let audience = args.audience.clone();
    Ok(Site { system, root, attestor, socket, user, audience }.checked()?)
}

fn options(how: &How) -> Options {
    Options { tools: how.tools.clone(), is_forced: how.force, is_dry: how.dry_run }
}

fn install_hooks(place: &Place, args: &SiteArgs, how: &How) -> Done {
    let site = site(place, args)?;
    let report = install(&site, &options(how))?;
    if how.json {
        say(format_args!("{}\n", serde_json::to_string_pretty(&report)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    print_report(&report)?;
    if let (Some(entry), Some(tools)) = (&report.entry, &report.tools) {
        say(format_args!("\nentry in {}:\n{entry}", tools.path.display()))?;
        say(format_args!("\n{}", next_steps(site.system)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is left to an administrator, in its order.
fn next_steps(system: HookSystem) -> String {
    let units = match system {
        HookSystem::Buildkite => "systemctl restart buildkite-agent.service",
        HookSystem::GitHub => {
            "systemctl enable --now assay-stop-github.path assay-github-runner.service"
        }
        HookSystem::GitLab => "systemctl restart gitlab-runner.service",
        HookSystem::Jenkins => "systemctl enable --now assay-jenkins-agent.service",
        HookSystem::Tekton => "true",
    };
    let name = system.tool_name();
    format!(
        "next:\n  systemctl daemon-reload\n  systemctl restart assay-attestor.service    # reads the tool list when it \
         starts\n  # capture a golden set with the tool {name} and put it in force: until then this worker is denied\n  \
         {units}\n  attestor hook check {system}\ndocs/CI.md has the system's own configuration.\n"
    )
}

fn remove_hooks(place: &Place, how: &How) -> Done {
    let report = remove(&place.dir, place.system, &options(how))?;
    match how.json {
        true => say(format_args!("{}\n", serde_json::to_string_pretty(&report)?))?,
        false => print_report(&report)?,
    }
    let is_left = report.files.iter().any(|file| file.action == Action::Leave);
    if !how.json && !is_left {
        say(format_args!("\n{}", steps_after(&place.dir, place.system)))?;
    }
    Ok(if is_left { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS })
}

/// What removing leaves to an administrator: what runs, what `systemctl enable` linked, what the configuration names.
fn steps_after(root: &Path, system: HookSystem) -> String {
    let own: &[&str] = match system {
        HookSystem::GitHub => &["assay-stop-github.path", "assay-github-runner.service"],
        HookSystem::Jenkins => &["assay-jenkins-agent.service"],
        HookSystem::Buildkite | HookSystem::GitLab | HookSystem::Tekton => &[],
    };
    let mut steps = Vec::new();
    if !own.is_empty() {
        let wants = root.join("etc/systemd/system/*.wants").display().to_string();
        let links: Vec<_> = own.iter().map(|unit| format!("{wants}/{unit}")).collect();
        steps.push(format!("systemctl stop {}", own.join(" ")));
        steps.push(format!("rm -f {}    # what `systemctl enable` linked", links.join(" ")));
    }
    let last: &[&str] = match system {
        HookSystem::Buildkite => &[
            "systemctl daemon-reload",
            "systemctl restart buildkite-agent.service    # its jobs run without permits now",
        ],
        HookSystem::GitHub => &[
            "systemctl daemon-reload",
            "# take stop.sh out of jobs.on_end and jobs.on_refused, and job-started.sh out of a runner's .env",
        ],
        HookSystem::GitLab => &[
            "systemctl daemon-reload",
            "# take the hooks out of /etc/gitlab-runner/config.toml",
            "systemctl restart gitlab-runner.service",
        ],
        HookSystem::Jenkins => &["systemctl daemon-reload"],
        HookSystem::Tekton => &["kubectl delete stepaction assay-exec    # where it was applied"],
    };
    steps.extend(last.iter().map(|step| (*step).to_owned()));
    if system != HookSystem::Tekton {
        let name = system.tool_name();
        steps.push("systemctl restart assay-attestor.service    # reads the tool list".to_owned());
        steps.push(format!("# put a golden set without the tool {name} in force"));
    }
    format!("next:\n  {}\n", steps.join("\n  "))
}

fn print_report(report: &Report) -> std::io::Result<()> {
    for Outcome { path, action } in report.files.iter().chain(&report.tools) {
        let what = match action {
            Action::Create => "new",
            Action::Exchange => "removed; the one before is back, and the changed one beside",
            Action::Keep => "as it is",
            Action::Leave => {
                "left, and all others with it: changed since it was installed; --force keeps it beside"
            }
            Action::Remove => "removed",
            Action::Replace => "replaced",
            Action::ReplaceForeign => "replaced; the other one is kept beside",
            Action::Restore => "removed; the one before is back",
            Action::Save => "removed; the changed one is kept beside",
        };
        let would = if report.is_dry { "would be " } else { "" };
        say(format_args!("{}: {would}{what}\n", path.display()))?;
    }
    Ok(())
}

fn check_hooks(place: &Place, config: &Path, json: bool) -> Done {
    let problems = check(&place.dir, place.system, config)?;
    if json {
        say(format_args!("{}\n", serde_json::to_string_pretty(&problems)?))?;
    } else {
        for Problem { code, path, what } in &problems {
            say(format_args!("{code} {}: {what}\n", path.display()))?;
        }
        if problems.is_empty() {
            say(format_args!("{}: fine\n", place.system))?;
        }
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
}

fn list(root: &Path, json: bool) -> Done {
    let mut rows = Vec::new();
    for system in HookSystem::ALL {
        rows.push((system, is_installed(root, system)?));
    }
    if json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(system, is_there)| {
                serde_json::json!({
                    "system": system,
                    "installed": is_there,
                    "about": system.about(),
                    "tool": system.tool_name(),
                })
            })
            .collect();
        say(format_args!("{}\n", serde_json::to_string_pretty(&rows)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    for (system, is_there) in rows {
        let mark = if is_there { "installed" } else { "-" };
        say(format_args!("{:<10} {mark:<10} {}\n", system.as_str(), system.about()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(place: &Place, args: &SiteArgs) -> Done {
    let site = site(place, args)?;
    let files = site.files();
    let mut out = std::io::stdout().lock();
    for file in &files {
        // One file alone, such as YAML for kubectl, comes as it is.
        if files.len() > 1 {
            writeln!(out, "==> {} (mode {:04o})", file.path.display(), file.mode)?;
        }
        writeln!(out, "{}", file.content.trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}
