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

use super::{
    super::commands::Done, Client, Events, begin, family::Family, signals::Ending,
    terminal::Terminal,
};

/// Between asking a job to end and ending it. Who asked this process to end kills it soon, and then nobody ends the rest of the
/// job and gives the permit back: Buildkite's agent gives 10 s (`cancel-grace-period`), and what it runs 9 s of them.
const KILL_AFTER: Duration = Duration::from_secs(8);
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
    /// It is taken back when this is dropped.
    terminal: Option<Terminal>,
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
    let terminal = Terminal::of_this_group();
    let child = begin::command(command, terminal.is_some())
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
    family.is_led_by(main.ok_or("the job's process has no number")?, terminal.is_some());
    if let Some(terminal) = &terminal {
        terminal.is_lent();
    }
    Ok(Job { family, terminal, ending, children })
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
    let Job { mut family, terminal: _terminal, mut ending, mut children } = job;
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

/// What the daemon said when it was told that a job is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The permit was in force until then.
    Ended,
    /// It had ended before.
    HadEnded,
    /// Nothing: it may have heard.
    Unknown,
}

/// What came of the stream of a permit.
type Heard = Result<Option<pb::JobEvent>, tonic::Status>;

/// Ends a permit whose job is over.
///
/// # Errors
/// It had ended before, or the daemon is gone: why, in words.
async fn give_back(
    permit_id: &str,
    daemon: &mut Client,
    events: &mut Events,
) -> Result<(), String> {
    let stopped = stop(permit_id, daemon, "the job is over").await;
    // What the daemon said before that, and its last word.
    let heard = timeout(FAREWELL, events.message()).await.ok();
    was_in_force(stopped, heard.as_ref())
}

/// Whether a permit lasted as long as its job, by the answer to its end and by what was heard then.
fn was_in_force(stopped: Stopped, heard: Option<&Heard>) -> Result<(), String> {
    let is_over = matches!(
        heard,
        Some(Ok(Some(pb::JobEvent { event: Some(Event::Ended(ended)) }))) if ended.code == JOB_OVER
    );
    match (stopped, heard) {
        // Of an end whose answer was late or lost, the code tells.
        (Stopped::Ended | Stopped::Unknown, _) if is_over => Ok(()),
        (Stopped::Ended, Some(Ok(None))) => Ok(()),
        // Nobody said anything against the job: the daemon is slow, or tells the verifier first.
        (Stopped::Ended | Stopped::Unknown, None) => Ok(()),
        (Stopped::HadEnded, None) => Err("the daemon had ended it before".to_owned()),
        (_, Some(event)) => Err(why(event)),
    }
}

/// Tells the daemon that a job is over. That it cannot be told is only logged.
pub(super) async fn stop(permit_id: &str, daemon: &mut Client, reason: &str) -> Stopped {
    let request = pb::StopRequest { permit_id: permit_id.to_owned(), reason: reason.to_owned() };
    let why = match timeout(FAREWELL, daemon.stop(request)).await {
        Ok(Ok(stopped)) if stopped.get_ref().ended => return Stopped::Ended,
        Ok(Ok(_)) => return Stopped::HadEnded,
        Ok(Err(status)) => status.message().to_owned(),
        Err(_) => "it does not answer".to_owned(),
    };
    eprintln!("attestor: the daemon was not told that the job is over: {why}");
    Stopped::Unknown
}

/// Why a permit is over, by what came of its stream.
fn why(event: &Heard) -> String {
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proto::pb::job_gate_server::{JobGate, JobGateServer};
    use tokio::{net::UnixListener, sync::mpsc};
    use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
    use tonic::{Request, Response, Status, transport::Server};

    use super::*;
    use crate::cli::socket::connect;

    fn ended(code: &str) -> Heard {
        let ended = pb::JobEnded { code: code.to_owned(), why: "so".to_owned() };
        Ok(Some(pb::JobEvent { event: Some(Event::Ended(ended)) }))
    }

    #[test]
    fn a_job_that_ended_by_itself_fails_by_nothing_but_an_earlier_end() {
        use Stopped::{Ended, HadEnded, Unknown};
        let is_well = |stopped, heard: Option<Heard>| was_in_force(stopped, heard.as_ref());
        for (stopped, is_good) in [(Ended, true), (Unknown, true), (HadEnded, false)] {
            assert_eq!(is_well(stopped, Some(ended(JOB_OVER))).is_ok(), is_good, "{stopped:?}");
            assert_eq!(is_well(stopped, None).is_ok(), is_good, "{stopped:?}");
            let early = is_well(stopped, Some(ended("GATE_TOOL_CHANGED")));
            assert_eq!(early, Err("GATE_TOOL_CHANGED so".to_owned()), "{stopped:?}");
            let gone = is_well(stopped, Some(Err(Status::unavailable("reset"))));
            assert!(gone.unwrap_err().starts_with("GATE_STOPPING"), "{stopped:?}");
            // It hung up: after its answer that is its last word.
            assert_eq!(is_well(stopped, Some(Ok(None))).is_ok(), stopped == Ended, "{stopped:?}");
        }
    }

    /// A daemon that ends permits, and answers in its own way.
    struct Daemon {
        answer: Option<bool>,
        events: Mutex<Option<mpsc::Sender<Result<pb::JobEvent, Status>>>>,
    }

    #[tonic::async_trait]
    impl JobGate for Daemon {
        type StartStream = ReceiverStream<Result<pb::JobEvent, Status>>;

        async fn start(
            &self,
            _: Request<pb::StartRequest>,
        ) -> Result<Response<Self::StartStream>, Status> {
            let (events, stream) = mpsc::channel(1);
            *self.events.lock().unwrap() = Some(events);
            Ok(Response::new(ReceiverStream::new(stream)))
        }

        async fn stop(&self, _: Request<pb::StopRequest>) -> Result<Response<pb::Stopped>, Status> {
            let events = self.events.lock().unwrap().clone().unwrap();
            events.send(ended(JOB_OVER).map(Option::unwrap)).await.unwrap();
            match self.answer {
                Some(ended) => Ok(Response::new(pb::Stopped { ended })),
                None => std::future::pending().await,
            }
        }

        async fn timestamp(
            &self,
            _: Request<pb::StampRequest>,
        ) -> Result<Response<pb::TimestampReply>, Status> {
            Err(Status::unimplemented("no authority"))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_ends_a_permit_and_answers_late_fails_no_job() {
        for (answer, stopped, is_good) in [
            (Some(true), Stopped::Ended, true),
            (Some(false), Stopped::HadEnded, false),
            (None, Stopped::Unknown, true),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("job.sock");
            let socket = UnixListenerStream::new(UnixListener::bind(&path).unwrap());
            let daemon = JobGateServer::new(Daemon { answer, events: Mutex::default() });
            let served = Server::builder().add_service(daemon).serve_with_incoming(socket);
            let served = tokio::spawn(served);
            let mut client = Client::new(connect(&path).await.unwrap());
            let request = pb::StartRequest::default();
            let _events = client.start(request.clone()).await.unwrap();
            assert_eq!(stop("p", &mut client, "over").await, stopped);
            let mut events = client.start(request).await.unwrap().into_inner();
            let given = give_back("p", &mut client, &mut events).await;
            assert_eq!(given.is_ok(), is_good, "{answer:?}: {given:?}");
            served.abort();
        }
    }
}
