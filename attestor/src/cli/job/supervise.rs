//! A job that runs: its command, its permit, and the end of both.

use std::{
    ffi::OsString,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::Path,
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use proto::pb::{self, job_event::Event};
use rustix::process::{Pid, Signal};
use tokio::{
    signal::unix::{Signal as Stream, SignalKind, signal},
    time::{Instant, sleep_until, timeout},
};

use super::{super::commands::Done, Client, Events, begin, family::Family, signals::Ending};

/// Between asking a job to end and ending it.
const KILL_AFTER: Duration = Duration::from_secs(10);
/// How long the daemon is waited for when a job is over.
const FAREWELL: Duration = Duration::from_secs(5);
/// What the daemon says of a permit that was given back.
const JOB_OVER: &str = "GATE_JOB_OVER";

/// Why a job's processes are ended.
enum End {
    /// The command ended, by itself or because this process was told to end.
    Command(ExitStatus),
    /// It was told to end, and did not.
    Told,
    /// In words.
    Permit(String),
}

/// A job whose command has been started.
pub(super) struct Job {
    family: Family,
    ending: Ending,
    children: Stream,
}

/// Starts the command, tied to this process.
pub(super) fn start(
    command: &[OsString],
    socket: &Path,
    started: &pb::JobStarted,
) -> Result<Job, Box<dyn std::error::Error>> {
    let mut family = Family::new().map_err(|error| format!("this job's processes: {error}"))?;
    let (ending, children) = (Ending::new()?, signal(SignalKind::child())?);
    let child = begin::command(command)
        .env("SPIFFE_ENDPOINT_SOCKET", &started.workload_endpoint)
        // Wherever the job goes from here.
        .env("ASSAY_JOB_SOCKET", std::path::absolute(socket)?)
        .env("ASSAY_PERMIT_ID", &started.permit_id)
        .env("ASSAY_DECISION_ID", &started.decision_id)
        .process_group(0)
        .spawn()
        .map_err(|error| format!("the job's command cannot be started: {error}"))?;
    // The family waits for it.
    let main = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    family.is_led_by(main.ok_or("the job's process has no number")?);
    Ok(Job { family, ending, children })
}

/// Runs the job until it ends, or its permit does.
///
/// # Errors
/// The job cannot be supervised. The caller has to end, without a word to the daemon: the kernel then ends the command.
pub(super) async fn run(
    job: Job,
    started: &pb::JobStarted,
    daemon: &mut Client,
    events: &mut Events,
    refused: u8,
) -> Done {
    let Job { mut family, mut ending, mut children } = job;
    let mut kill_at = None;
    let end = loop {
        // What the daemon says comes first: a job that ended in the same moment as its permit did not end well.
        tokio::select! {
            biased;
            event = events.message() => break End::Permit(why(&event)),
            signal = ending.next() => {
                kill_at.get_or_insert_with(|| Instant::now() + KILL_AFTER);
                family.signal(signal)?;
            }
            _ = children.recv() => if let Some(status) = family.status()? {
                break End::Command(status);
            },
            () = sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => break End::Told,
        }
    };

    if let End::Permit(why) = &end {
        eprintln!("attestor: the permit of this job ended, and so does the job: {why}");
    }
    // A job is over when its processes are: whatever it left behind ends before the permit is given back. Those who were told
    // already are not told twice.
    let ask = (kill_at.is_none() || matches!(end, End::Permit(_))).then_some(Signal::TERM);
    let kill_at = kill_at.unwrap_or_else(|| Instant::now() + KILL_AFTER);
    let left = family.end(ask, kill_at).await?;
    if Instant::now() >= kill_at {
        eprintln!("attestor: the job did not end when asked to: killed");
    }
    if let Err(unending) = left {
        // Nor is the daemon told that all is well.
        eprintln!("attestor: {unending}");
        return Ok(ExitCode::from(refused));
    }
    let status = match end {
        End::Permit(_) => return Ok(ExitCode::from(refused)),
        End::Command(status) => status,
        End::Told => family.status()?.ok_or("the job's command ended unseen")?,
    };
    match give_back(&started.permit_id, daemon, events).await {
        Ok(()) => Ok(exit_code(status)),
        Err(why) => {
            eprintln!("attestor: the permit of this job ended before the job did: {why}");
            Ok(ExitCode::from(refused))
        }
    }
}

/// Ends a permit whose job is over.
///
/// # Errors
/// It had ended before, or the daemon is gone: why, in words.
async fn give_back(
    permit_id: &str,
    daemon: &mut Client,
    events: &mut Events,
) -> Result<(), String> {
    let is_given_back = stop(permit_id, daemon, "the job is over").await;
    // What the daemon said before that, and its last word.
    match timeout(FAREWELL, events.message()).await {
        Ok(Ok(Some(pb::JobEvent { event: Some(Event::Ended(ended)) })))
            if ended.code == JOB_OVER && is_given_back =>
        {
            Ok(())
        }
        Ok(Ok(None)) if is_given_back => Ok(()),
        Ok(event) => Err(why(&event)),
        // It holds the permit still.
        Err(_) => Ok(()),
    }
}

/// Tells the daemon that a job is over, and whether its permit was in force until now. That it cannot be told is only logged.
pub(super) async fn stop(permit_id: &str, daemon: &mut Client, reason: &str) -> bool {
    let request = pb::StopRequest { permit_id: permit_id.to_owned(), reason: reason.to_owned() };
    match timeout(FAREWELL, daemon.stop(request)).await {
        Ok(Ok(stopped)) => stopped.into_inner().ended,
        Ok(Err(status)) => {
            eprintln!(
                "attestor: the daemon was not told that the job is over: {}",
                status.message()
            );
            false
        }
        Err(_) => {
            eprintln!("attestor: the daemon was not told that the job is over: it does not answer");
            false
        }
    }
}

/// Why a permit is over, by what came of its stream.
fn why(event: &Result<Option<pb::JobEvent>, tonic::Status>) -> String {
    match event {
        Ok(Some(pb::JobEvent { event: Some(Event::Ended(ended)) })) => {
            format!("{} {}", ended.code, ended.why)
        }
        Ok(_) => "GATE_STOPPING the worker's daemon hung up".to_owned(),
        Err(status) => {
            format!("GATE_STOPPING the worker's daemon is gone: {}", status.message())
        }
    }
}

/// As a shell has it: the command's own code, or 128 and the signal.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
