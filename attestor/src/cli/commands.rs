//! What each subcommand does.

use std::{
    error::Error,
    fmt, fs,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use attestor::{
    attestation::{Answered, Attester, Settings},
    config::Config,
    daemon::{self, Plan},
    jobs::{JobSockets, Link, desk},
    logs::{EventLogs, LogPaths},
    measure::{self, Cache, Options, Progress, ToolList, render_text},
    output::{BUNDLE_FILE, Output, Status, read_bundle},
    privilege::{become_user, hand_over},
    tpm::{Tcti, TpmConfig, TpmHandle, TpmThread},
    trust::Learned,
};
use indicatif::{ProgressBar, ProgressStyle};
use results::UnixTime;
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;

use super::ConfigArgs;

pub(super) type Done = Result<ExitCode, Box<dyn Error>>;

/// Writes to the standard output. A reader that has gone (`| head`) is nothing to complain of.
pub(super) fn say(text: fmt::Arguments<'_>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// Writes a value to the standard output, for `--json`.
pub(super) fn say_json(value: &impl Serialize) -> io::Result<()> {
    say(format_args!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Between two looks at what the daemon reports.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Denied, or a check found problems.
pub(super) const REFUSED: u8 = 3;

pub(super) fn run(args: &ConfigArgs) -> Done {
    let config = load(args)?;
    runtime()?.block_on(async {
        let (attester, thread) = open(&config).await?;
        let output = Output::open(&config.output_dir)?;
        // The tool log is locked: no other daemon's state is replaced.
        daemon::starts(&output);
        let plan = Plan {
            measure_interval: config.measure_interval,
            bundle_path: config.state_dir.join(BUNDLE_FILE),
        };
        // While the folder is still ours to write to.
        let sockets = config.jobs.clone().map(JobSockets::bind).transpose()?;
        if let Some(user) = &config.user {
            hand_over(user, &[&config.output_dir, &config.state_dir])?;
            become_user(user)?;
        }
        serve(&config, attester, output, plan, sockets).await?;
        thread.ended().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// The daemon, and beside it what jobs talk to, until a signal ends both.
async fn serve(
    config: &Config,
    attester: Attester,
    output: Output,
    plan: Plan,
    sockets: Option<JobSockets>,
) -> Result<(), Box<dyn Error>> {
    let (desk, counter) = desk();
    let (stop, stopping) = watch::channel(false);
    let stopped = |mut stopping: watch::Receiver<bool>| async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    let (url, trust) = (config.url.clone(), config.trust.clone());
    let link = Link::new(url, trust, attester.learned());
    let jobs = async {
        let Some(sockets) = sockets else { return Ok(()) };
        let served = sockets.serve(desk, link, stopped(stopping.clone())).await;
        // A daemon that no job can reach starts again, by its unit.
        stop.send_replace(true);
        served
    };
    let node = async {
        let ends = async {
            tokio::select! {
                () = daemon::ended() => {}
                () = stopped(stopping.clone()) => {}
            }
        };
        daemon::run(attester, output, plan, counter, ends).await;
        stop.send_replace(true);
    };
    let (served, ()) = tokio::join!(jobs, node);
    Ok(served?)
}

pub(super) fn once(args: &ConfigArgs, json: bool) -> Done {
    let config = load(args)?;
    runtime()?.block_on(async {
        let (mut attester, thread) = open(&config).await?;
        let output = Output::open(&config.output_dir)?;
        let plan = Plan {
            measure_interval: config.measure_interval,
            bundle_path: config.state_dir.join(BUNDLE_FILE),
        };
        let answered = attester.attest().await?;
        let status = daemon::keep(&output, &answered, Some(&plan), None)?;
        drop(attester);
        thread.ended().await;
        print_outcome(&status, &answered, &output, json)?;
        Ok(if status.outcome == "admitted" { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
    })
}

fn print_outcome(
    status: &Status,
    answered: &Answered,
    output: &Output,
    json: bool,
) -> Result<(), Box<dyn Error>> {
    if json {
        say_json(status)?;
        return Ok(());
    }
    for problem in &answered.measured.problems {
        eprintln!("note: {problem}");
    }
    if status.outcome == "admitted" {
        say(format_args!("admitted as {} (decision {})\n", status.spiffe_id, status.decision_id))?;
        say(format_args!(
            "certificate: {}\n",
            output.path(attestor::output::CERTIFICATE_FILE).display()
        ))?;
        say(format_args!("node key:    {}\n", output.path(attestor::output::KEY_FILE).display()))?;
        say(format_args!("trust:       {}\n", output.path(BUNDLE_FILE).display()))?;
        return Ok(());
    }
    Ok(print_reasons(status)?)
}

fn print_reasons(status: &Status) -> io::Result<()> {
    let decision = if status.decision_id.is_empty() {
        "not recorded".to_owned()
    } else {
        format!("decision {}", status.decision_id)
    };
    say(format_args!("denied ({decision}); no certificate\n"))?;
    for reason in &status.reasons {
        say(format_args!("  {}\n", reason.code))?;
        say(format_args!("    what:     {}\n", reason.subject))?;
        say(format_args!("    observed: {}\n", reason.observed))?;
        say(format_args!("    remedy:   {}\n", reason.remedy))?;
    }
    if !status.accepted_by_staged.is_empty() {
        say(format_args!(
            "  This state is accepted by {}, which is staged: it waits for an administrator.\n",
            status.accepted_by_staged
        ))?;
    }
    Ok(())
}

pub(super) fn measure(path: &Path, json: bool) -> Done {
    let list = ToolList::read(path)?;
    let bar = progress_bar();
    let shown = bar.clone();
    let progress = move |progress: Progress| {
        shown.set_length(progress.bytes_total);
        shown.set_position(progress.bytes);
    };
    let measured = measure::measure(&list, &mut Cache::new(), Options::default(), &progress);
    bar.finish_and_clear();
    if json {
        say_json(&measured)?;
    } else {
        say(format_args!("{}", render_text(&measured)))?;
    }
    Ok(if measured.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
}

/// On a terminal; silent in a pipe.
fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("hashing {bar:40} {bytes}/{total_bytes} {eta}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

pub(super) fn inspect(tcti: Option<Tcti>, config: Option<&Path>, json: bool) -> Done {
    let mut tpm = match config {
        Some(path) => Config::load(path)?.tpm,
        None => TpmConfig::default(),
    };
    if let Some(tcti) = tcti {
        tpm.tcti = tcti;
    }
    let now = std::time::SystemTime::now();
    let found = runtime()?.block_on(attestor::inspect::inspect(&tpm, &LogPaths::default(), now));
    if json {
        say_json(&found)?;
    } else {
        say(format_args!("{found}"))?;
    }
    Ok(if found.has_errors() { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS })
}

pub(super) fn status(folder: &Path, wait_s: u64, json: bool) -> Done {
    let Some(seen) = wait_for_admission(folder, Duration::from_secs(wait_s))? else {
        eprintln!(
            "attestor: {}: no status; has `attestor run` or `attestor once` run?",
            folder.display()
        );
        return Ok(ExitCode::FAILURE);
    };
    if json {
        say_json(&seen)?;
    } else {
        print_seen(&seen)?;
    }
    Ok(match seen.status.outcome.as_str() {
        "admitted" => ExitCode::SUCCESS,
        "denied" => ExitCode::from(REFUSED),
        _ => ExitCode::FAILURE,
    })
}

/// The daemon's last report, as it is worth now.
#[derive(Serialize)]
struct Seen {
    /// Its outcome is `stale` where the daemon should have reported since.
    #[serde(flatten)]
    status: Status,
    /// The outcome that is stale.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_outcome: Option<String>,
}

impl Seen {
    fn of(mut status: Status, now_unix_s: u64) -> Self {
        let is_stale = status.is_stale(now_unix_s);
        let last_outcome =
            is_stale.then(|| std::mem::replace(&mut status.outcome, "stale".to_owned()));
        Self { status, last_outcome }
    }

    /// `None` where nothing has reported yet.
    fn look(folder: &Path) -> Result<Option<Self>, Box<dyn Error>> {
        // Opening it would make the folder, which is the daemon's to make.
        if !folder.is_dir() {
            return Ok(None);
        }
        let status = Output::open(folder)?.read_status()?;
        Ok(status.map(|status| Self::of(status, daemon::now_unix_s())))
    }
}

fn print_seen(Seen { status, last_outcome }: &Seen) -> io::Result<()> {
    if let Some(last) = last_outcome {
        let at = UnixTime::from_unix_s(status.at_unix_s);
        let at = at.map_or_else(|_| status.at_unix_s.to_string(), |at| at.to_string());
        return say(format_args!(
            "stale: the daemon has not reported since {at} ({last} then); does `attestor run` run?\n"
        ));
    }
    let now = daemon::now_unix_s();
    say(format_args!("{} {} s ago\n", status.outcome, now.saturating_sub(status.at_unix_s)))?;
    match status.outcome.as_str() {
        "admitted" => {
            say(format_args!("as {} (decision {})\n", status.spiffe_id, status.decision_id))?
        }
        "denied" => print_reasons(status)?,
        "starting" => return Ok(()),
        _ => say(format_args!("{}\n", status.error))?,
    }
    match status.next_unix_s {
        Some(next) => say(format_args!("next attempt in {} s\n", next.saturating_sub(now))),
        None => Ok(()),
    }
}

/// Returns once the worker is admitted, or after `at_most`.
fn wait_for_admission(folder: &Path, at_most: Duration) -> Result<Option<Seen>, Box<dyn Error>> {
    let start = std::time::Instant::now();
    loop {
        let seen = Seen::look(folder)?;
        let is_admitted = seen.as_ref().is_some_and(|seen| seen.status.outcome == "admitted");
        if is_admitted || start.elapsed() >= at_most {
            return Ok(seen);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

pub(super) fn tcti(tcti: &Tcti) -> Done {
    attestor::tpm::bridge::run(tcti, std::io::stdin().lock(), std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn check_config(args: &ConfigArgs, json: bool) -> Done {
    let checked = || -> Result<(Config, usize), Box<dyn Error>> {
        let config = load(args)?;
        let tools = ToolList::read(&config.tools)?.tools().len();
        config.trust.read()?.client_config(&Learned::default())?;
        Ok((config, tools))
    };
    let checked = checked();
    if json {
        let problem = checked.as_ref().err().map(|error| attestor::chain(error.as_ref()));
        let problems: Vec<_> = problem.iter().map(|what| json!({ "what": what })).collect();
        say_json(&json!({ "usable": problems.is_empty(), "problems": problems }))?;
        return Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let (config, tools) = checked?;
    say(format_args!(
        "{}: fine; {tools} tools in {}\n",
        args.config.display(),
        config.tools.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn man(command: clap::Command, folder: &Path) -> Done {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command, folder)?;
    say(format_args!("man pages written to {}\n", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn load(args: &ConfigArgs) -> Result<Config, Box<dyn Error>> {
    let mut config = Config::load(&args.config)?;
    if let Some(tcti) = &args.tcti {
        config.tpm.tcti = tcti.clone();
    }
    Ok(config)
}

/// TPM, tool list, tool log, last trust bundle.
async fn open(config: &Config) -> Result<(Attester, TpmThread), Box<dyn Error>> {
    let list = ToolList::read(&config.tools)?;
    fs::create_dir_all(&config.state_dir)
        .map_err(|error| format!("cannot create {}: {error}", config.state_dir.display()))?;
    let bundle = read_bundle(&config.state_dir.join(BUNDLE_FILE))?;
    let (tpm, thread) = TpmHandle::start(config.tpm.clone()).await?;
    let settings = Settings {
        url: config.url.clone(),
        trust: config.trust.clone(),
        tool_pcr: config.tool_pcr,
    };
    let logs = EventLogs::open(&config.logs);
    let attester = Attester::open(settings, tpm, list, logs, &config.state_dir, bundle).await?;
    Ok((attester, thread))
}

/// One thread for the network, one for the TPM, and a few that come and go for files: a small process.
pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(8).build()
}
