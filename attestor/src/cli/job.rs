//! `exec` and `permit`: what a job's own user runs. They talk to the daemon over its socket, and touch no TPM.

pub(super) mod begin;
mod family;
mod signals;
mod supervise;
mod terminal;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use attestor::{hooks::read_env_file, output::Reason};
use clap::{ArgGroup, Args, ValueEnum};
use proto::{
    job::{CiSystem, JobClaims, Source, from_environment},
    limits::MAX_JOB_TOKEN_BYTES,
    pb::{self, job_event::Event, job_gate_client::JobGateClient},
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tonic::{Streaming, transport::Channel};

use super::{
    commands::{Done, REFUSED, say, say_json},
    job_files::{append_variables, read_bounded, write_private, write_results},
    socket::{DEFAULT_SOCKET, connect},
    stop_parent::StopParent,
};

/// Longest wait for the daemon; its own deadline is shorter.
const START_WITHIN: Duration = Duration::from_secs(90);
/// Largest permit file, bytes.
const MAX_PERMIT_FILE_BYTES: u64 = 64 * 1024;

/// A CI system, as the command line names it.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum System {
    Buildkite,
    /// Any other: variables ASSAY_JOB_RUN_ID, ASSAY_JOB_ID and others.
    Generic,
    Github,
    Gitlab,
    Jenkins,
    Tekton,
}

impl From<System> for CiSystem {
    fn from(system: System) -> Self {
        match system {
            System::Buildkite => Self::Buildkite,
            System::Generic => Self::Generic,
            System::Github => Self::GitHub,
            System::Gitlab => Self::GitLab,
            System::Jenkins => Self::Jenkins,
            System::Tekton => Self::Tekton,
        }
    }
}

/// Which processes get the job's identities.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Processes {
    /// Those that the command's parent starts: for hooks.
    Parent,
    /// Those of the command's control group.
    Cgroup,
    /// Every process of the user: for workers that run one job at a time.
    User,
}

impl From<Processes> for pb::JobProcesses {
    fn from(processes: Processes) -> Self {
        match processes {
            Processes::Parent => Self::Parent,
            Processes::Cgroup => Self::Cgroup,
            Processes::User => Self::User,
        }
    }
}

/// What a job is, and how the daemon is asked.
#[derive(Args, Debug)]
struct JobArgs {
    /// CI system: which variables say what job this is.
    #[arg(long, value_enum, value_name = "SYSTEM")]
    job: Option<System>,
    /// File with the job's variables, in place of this command's environment: a JSON object of texts or lines NAME="value",
    /// as Buildkite's agent writes them.
    #[arg(long, value_name = "FILE", requires = "job")]
    env_file: Option<PathBuf>,
    /// File with the CI system's signed token.
    #[arg(long, value_name = "FILE", conflicts_with = "token_env")]
    token_file: Option<PathBuf>,
    /// Variable with the CI system's signed token.
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
    /// Audience of a JWT-SVID that is wanted at once; may be repeated.
    #[arg(long = "audience", value_name = "NAME")]
    audiences: Vec<String>,
    /// A permit that `attestor permit --defer` wrote: it is redeemed now, once. It says what job this is.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["job", "env_file", "token_file", "token_env"])]
    permit: Option<PathBuf>,
    /// Folder for the signed results about node and dispatch, and for tokens; files of earlier jobs are replaced.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// The daemon's socket for jobs.
    #[arg(long, env = "ASSAY_JOB_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    socket: PathBuf,
    /// Exit code where the job must not start or was ended; what the CI system gives under SYSTEM_FAILURE_EXIT_CODE
    /// (GitLab's custom executor) by default, else 3.
    #[arg(long, value_name = "CODE")]
    refused_code: Option<u8>,
}

/// Arguments of `exec`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("what").args(["job", "permit"]).required(true)))]
pub(super) struct ExecArgs {
    #[command(flatten)]
    job: JobArgs,
    /// Print a refusal as JSON on the standard output, which is the command's only where it starts.
    #[arg(long)]
    json: bool,
    /// The job's command.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<std::ffi::OsString>,
}

/// Arguments of `permit`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("what").args(["job", "permit", "end"]).required(true)))]
pub(super) struct PermitArgs {
    #[command(flatten)]
    job: JobArgs,
    /// Which processes get the job's identities.
    #[arg(long = "for", value_enum, default_value_t = Processes::Parent, value_name = "PROCESSES")]
    processes: Processes,
    /// Only get the permit, into this file, for `attestor exec --permit` of the same user, which says for whom it is.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["permit", "out", "processes", "audiences"])]
    defer: Option<PathBuf>,
    /// Append SPIFFE_ENDPOINT_SOCKET, ASSAY_JOB_SOCKET, ASSAY_PERMIT_ID and ASSAY_DECISION_ID to this file, such as GITHUB_ENV.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["defer", "end"])]
    env_out: Option<PathBuf>,
    /// Unless there is a permit, kill the parent of this command, for systems that go on after a hook that failed.
    #[arg(long, conflicts_with_all = ["defer", "end"])]
    stop_parent: bool,
    /// End this permit: the job is over.
    #[arg(long, value_name = "PERMIT",
          conflicts_with_all = ["job", "permit", "defer", "out", "processes", "audiences", "token_file", "token_env"])]
    end: Option<String>,
    /// Print as JSON, a refusal too.
    #[arg(long)]
    json: bool,
}

/// What `--defer` writes: worth nothing without the daemon that has the job's key.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct PermitFile {
    permit_id: String,
}

/// Starts a command if, and as long as, this worker proves itself.
pub(super) fn exec(args: &ExecArgs) -> Done {
    let refused = refused_code(&args.job);
    super::commands::runtime()?.block_on(async {
        let mut request = request(&args.job)?;
        request.hold = true;
        request.processes = pb::JobProcesses::Caller.into();
        let (mut daemon, mut events) = start(&args.job.socket, request).await?;
        let started = match next(&mut events).await? {
            Event::Started(started) => started,
            Event::Refused(why) => return refuse(&why, refused, args.json),
            other => return Err(format!("the daemon sent {other:?} instead of an answer").into()),
        };
        eprint!("{}", summary(&started));
        let out = args.job.out.as_deref();
        let job = out
            .map_or(Ok(()), |folder| Ok(write_results(folder, &started)?))
            .and_then(|()| supervise::start(&args.command, &args.job.socket, &started));
        match job {
            Ok(job) => supervise::run(job, &started, &mut daemon, &mut events, refused).await,
            Err(error) => {
                supervise::stop(&started.permit_id, &mut daemon, "the job did not start").await;
                Err(error)
            }
        }
    })
}

/// Gets a permit for the processes around this command, or ends one; `parent` is killed by whoever holds it unless this succeeds.
pub(super) fn permit(args: &PermitArgs, parent: Option<&StopParent>) -> Done {
    if args.stop_parent && !parent.is_some_and(StopParent::has_parent) {
        return Err("--stop-parent: the parent is init".into());
    }
    let done = get_permit(args);
    if args.stop_parent && !args.json && !matches!(&done, Ok(code) if *code == ExitCode::SUCCESS) {
        // GitHub Actions shows it beside the job, which is all that is left of it.
        say(format_args!("::error title=attestor::no permit: this job does not run here\n"))?;
    }
    done
}

fn get_permit(args: &PermitArgs) -> Done {
    let refused = refused_code(&args.job);
    super::commands::runtime()?.block_on(async {
        if let Some(permit_id) = &args.end {
            let request =
                pb::StopRequest { permit_id: permit_id.clone(), reason: "the job is over".into() };
            let mut daemon = Client::new(connect(&args.job.socket).await?);
            let stopped = daemon.stop(request).await?.into_inner();
            if args.json {
                let outcome = if stopped.ended { "ended" } else { "unknown" };
                say_json(&serde_json::json!({ "outcome": outcome, "permit_id": permit_id }))?;
            } else {
                let what = if stopped.ended { "ended" } else { "no such permit of this user runs" };
                say(format_args!("{permit_id}: {what}\n"))?;
            }
            return Ok(if stopped.ended { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) });
        }
        let mut request = request(&args.job)?;
        request.defer = args.defer.is_some();
        request.processes = pb::JobProcesses::from(args.processes).into();
        let (_daemon, mut events) = start(&args.job.socket, request).await?;
        match next(&mut events).await? {
            Event::Started(started) => {
                if let Some(folder) = &args.job.out {
                    write_results(folder, &started)?;
                }
                if let Some(path) = &args.env_out {
                    append_variables(path, &args.job.socket, &started)?;
                }
                if args.json {
                    say_json(&json(&started))?;
                } else {
                    say(format_args!("{}", summary(&started)))?;
                }
                Ok(ExitCode::SUCCESS)
            }
            Event::Deferred(deferred) => {
                let file = PermitFile { permit_id: deferred.permit_id.clone() };
                let path = args.defer.as_deref().unwrap_or(Path::new("permit.json"));
                write_private(path, serde_json::to_string_pretty(&file)?.as_bytes())?;
                if args.json {
                    say_json(&deferred_json(&deferred, path))?;
                } else {
                    say(format_args!(
                        "permit {} (decision {}) in {}: redeem it within {} s\n",
                        deferred.permit_id,
                        deferred.decision_id,
                        path.display(),
                        deferred.redeem_within_s
                    ))?;
                }
                Ok(ExitCode::SUCCESS)
            }
            Event::Refused(why) => refuse(&why, refused, args.json),
            Event::Ended(ended) => Err(format!("the permit ended at once: {}", ended.why).into()),
        }
    })
}

/// The exit code that makes the CI system give the job up, and not blame the build.
fn refused_code(args: &JobArgs) -> u8 {
    let of_the_system = || std::env::var("SYSTEM_FAILURE_EXIT_CODE").ok()?.parse().ok();
    args.refused_code.or_else(of_the_system).filter(|code| *code != 0).unwrap_or(REFUSED)
}

fn request(args: &JobArgs) -> Result<pb::StartRequest, Box<dyn std::error::Error>> {
    let mut request = pb::StartRequest { audiences: args.audiences.clone(), ..Default::default() };
    if let Some(path) = &args.permit {
        let bytes = read_bounded(path, MAX_PERMIT_FILE_BYTES)?;
        let file: PermitFile = serde_json::from_slice(&bytes)
            .map_err(|error| format!("{}: no permit of `--defer`: {error}", path.display()))?;
        request.permit_id = file.permit_id;
        return Ok(request);
    }
    let system: CiSystem = args.job.ok_or("--job says which CI system this is")?.into();
    let variables: BTreeMap<String, String> = match &args.env_file {
        Some(path) => read_env_file(path).map_err(|error| format!("{}: {error}", error.code()))?,
        None => std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
    };
    let claims =
        from_environment(system, &variables).map_err(|error| format!("--job {system}: {error}"))?;
    request.claims = claims.canonical_json().into_bytes();
    let max = u64::try_from(MAX_JOB_TOKEN_BYTES).unwrap_or(u64::MAX);
    let token = match (&args.token_file, &args.token_env) {
        (Some(path), _) => Some(String::from_utf8(read_bounded(path, max)?)?),
        (None, Some(name)) => {
            Some(std::env::var(name).map_err(|error| format!("--token-env {name}: {error}"))?)
        }
        (None, None) => None,
    };
    request.token = token.map(|token| token.trim().to_owned()).unwrap_or_default();
    Ok(request)
}

type Client = JobGateClient<Channel>;
type Events = Streaming<pb::JobEvent>;

async fn start(
    socket: &Path,
    request: pb::StartRequest,
) -> Result<(Client, Events), Box<dyn std::error::Error>> {
    let mut client = Client::new(connect(socket).await?);
    let events = timeout(START_WITHIN, client.start(request)).await;
    let events = events.map_err(|_| "the worker's daemon did not answer in time")??;
    Ok((client, events.into_inner()))
}

async fn next(events: &mut Events) -> Result<Event, Box<dyn std::error::Error>> {
    let event = timeout(START_WITHIN, events.message()).await;
    let event = event.map_err(|_| "the worker's daemon did not answer in time")??;
    event
        .and_then(|event| event.event)
        .ok_or_else(|| "the worker's daemon hung up before it answered".into())
}

/// Says why a job must not run.
fn refuse(why: &pb::JobRefused, code: u8, json: bool) -> Done {
    if json {
        say_json(&refusal_json(why))?;
    } else {
        eprint!("{}", refusal(why));
    }
    Ok(ExitCode::from(code))
}

fn refusal(refused: &pb::JobRefused) -> String {
    let mut out = String::new();
    let decision = match refused.decision_id.as_str() {
        "" => String::new(),
        id => format!(" (decision {id})"),
    };
    let _ = writeln!(out, "attestor: this job does not run here: {}{decision}", refused.why);
    let _ = writeln!(out, "  {}", refused.code);
    for finding in &refused.findings {
        if finding.code != refused.code {
            let _ = writeln!(out, "  {}", finding.code);
        }
        let _ = writeln!(out, "    what:     {}", finding.subject);
        let _ = writeln!(out, "    observed: {}", finding.observed);
        let _ = writeln!(out, "    remedy:   {}", finding.remedy);
    }
    out
}

/// What a job's log shows: who vouches for what, on one screen.
fn summary(started: &pb::JobStarted) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "attestor: this worker has proved itself for this job");
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "  {name:<10} {value}");
    };
    line("node", &started.node);
    for id in &started.spiffe_ids {
        line("identity", id);
    }
    line("permit", &started.permit_id);
    line("decision", &started.decision_id);
    line("tools", &format!("{} measured now, none from memory", started.tools));
    if let Ok(claims) = JobClaims::from_json_with_sources(&started.claims) {
        line("system", claims.system().as_str());
        for (claim, found) in claims.iter() {
            let source = match found.source() {
                Source::PlatformToken => "signed by the platform",
                Source::Environment => "from the environment, unproven",
            };
            line(claim.as_str(), &format!("{} ({source})", found.value()));
        }
    }
    line("ends", &format!("in {} s at the latest", started.ends_within_s));
    line("SPIFFE", &started.workload_endpoint);
    out
}

fn json(started: &pb::JobStarted) -> serde_json::Value {
    serde_json::json!({
        "outcome": "started",
        "permit_id": started.permit_id,
        "decision_id": started.decision_id,
        "node": started.node,
        "spiffe_ids": started.spiffe_ids,
        "claims": claims_json(&started.claims),
        "tools": started.tools,
        "ends_within_s": started.ends_within_s,
        "workload_endpoint": started.workload_endpoint,
    })
}

fn deferred_json(deferred: &pb::JobDeferred, file: &Path) -> serde_json::Value {
    serde_json::json!({
        "outcome": "deferred",
        "permit_id": deferred.permit_id,
        "decision_id": deferred.decision_id,
        "claims": claims_json(&deferred.claims),
        "redeem_within_s": deferred.redeem_within_s,
        "file": file.display().to_string(),
    })
}

/// Reasons have the form of those in the daemon's status.
fn refusal_json(refused: &pb::JobRefused) -> serde_json::Value {
    let reasons: Vec<Reason> = refused.findings.iter().map(Reason::from).collect();
    serde_json::json!({
        "outcome": "refused",
        "code": refused.code,
        "why": refused.why,
        "decision_id": refused.decision_id,
        "reasons": reasons,
    })
}

fn claims_json(claims: &[u8]) -> serde_json::Value {
    serde_json::from_slice(claims).unwrap_or_default()
}
