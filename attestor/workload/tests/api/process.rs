//! Processes of their own: this test program again, told on its standard input what to do.
//!
//! `fetch` makes a new connection and asks for X.509-SVIDs; `flood N` opens N connections and counts
//! those that the server leaves open; `hand-over` connects, starts a process that has the connection
//! and asks over it, and ends; `hand-over-silently` the same, without asking. Each answers with one line.

use std::{
    io::{BufRead as _, BufReader, Lines, Write as _},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use tonic::transport::Endpoint;
use workload::{ProcessKey, pb::X509svidRequest};

use crate::world::{Client, client, marked, refusal};

const ENDPOINT: &str = "ASSAY_TEST_WORKLOAD_ENDPOINT";
const INHERITED: &str = "ASSAY_TEST_WORKLOAD_INHERITED";
const ORDER: &str = "ASSAY_TEST_WORKLOAD_ORDER";
/// Before each answer: the test harness writes to the same output.
const ANSWER: &str = "ANSWER ";

/// A process that does as it is told.
pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Starts one; with a user, from a copy of this program that the user can read.
    pub(crate) fn start(endpoint: &str, user: Option<(u32, &Path)>) -> Self {
        let program = match user {
            Some((_, directory)) => copy_to(directory),
            None => std::env::current_exe().unwrap(),
        };
        let mut command = Command::new(program);
        command.args(ARGUMENTS).env(ENDPOINT, endpoint);
        if let Some((uid, _)) = user {
            command.uid(uid).gid(uid).current_dir("/");
        }
        Self::spawn(command)
    }

    /// Starts one as the child of a shell, whose process this is; killing it leaves the child alone.
    pub(crate) fn start_below_a_shell(endpoint: &str) -> Self {
        let mut command = Command::new("sh");
        let arguments = ARGUMENTS.join(" ");
        command
            .arg("-c")
            .arg(format!("exec 3<&0; \"$0\" {arguments} <&3 & wait"))
            .arg(std::env::current_exe().unwrap())
            .env(ENDPOINT, endpoint);
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, input, output }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn key(&self) -> ProcessKey {
        ProcessKey::of(self.id()).unwrap()
    }

    /// Kills the process that was started, not those it started.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Gives an order and waits for the answer.
    pub(crate) async fn ask(&mut self, order: &str) -> String {
        let order = format!("{order}\n");
        tokio::task::block_in_place(|| {
            self.input.write_all(order.as_bytes()).unwrap();
            let is_answer = |line: &String| line.contains(ANSWER);
            let line = self.output.by_ref().map(Result::unwrap).find(is_answer).expect("an answer");
            line.split_once(ANSWER).unwrap().1.to_owned()
        })
    }
}

const ARGUMENTS: [&str; 3] = ["process::as_told", "--exact", "--nocapture"];

/// The program where another user may read it: the target directory may be below a home.
fn copy_to(directory: &Path) -> PathBuf {
    let copy = directory.join("program");
    if !copy.exists() {
        std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    copy
}

/// What the processes do; nothing where it is run as a test.
#[tokio::test]
async fn as_told() {
    let Ok(endpoint) = std::env::var(ENDPOINT) else { return };
    if std::env::var(INHERITED).is_ok() {
        return speak_over_standard_input().await;
    }
    let mut kept = Vec::new();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("fetch", _) => answer(&fetch(client(&endpoint).await).await),
            ("flood", number) => {
                answer(&flood(&endpoint, number.parse().unwrap(), &mut kept).to_string());
            }
            (order @ ("hand-over" | "hand-over-silently"), _) => {
                return hand_over(&endpoint, order);
            }
            _ => panic!("{line}"),
        }
    }
}

fn answer(text: &str) {
    println!("\n{ANSWER}{text}");
}

/// The identities, or the code of the refusal.
pub(crate) async fn fetch(mut client: Client) -> String {
    let result = client.fetch_x509svid(X509svidRequest {}).await;
    let mut stream = match result {
        Ok(response) => response.into_inner(),
        Err(status) => return told(&status),
    };
    match stream.message().await {
        Ok(Some(message)) => {
            let ids: Vec<_> = message.svids.iter().map(|svid| svid.spiffe_id.as_str()).collect();
            ids.join(" ")
        }
        Ok(None) => "no message".to_owned(),
        Err(status) => told(&status),
    }
}

fn told(status: &tonic::Status) -> String {
    match refusal(status).1 {
        code if code.is_empty() => format!("{:?}", status.code()),
        code => code,
    }
}

fn path_of(endpoint: &str) -> &str {
    endpoint.strip_prefix("unix://").unwrap()
}

/// Opens connections and keeps them; how many of them are still open once the server has looked.
fn flood(endpoint: &str, number: usize, kept: &mut Vec<std::os::unix::net::UnixStream>) -> usize {
    use std::io::{ErrorKind, Read as _};
    let connect = |_| std::os::unix::net::UnixStream::connect(path_of(endpoint)).unwrap();
    let mut streams: Vec<_> = (0..number).map(connect).collect();
    // The server accepts in order: when the last is decided, all are. One that is served gets the
    // server's settings, one that is not the end.
    let mut open = 0;
    for stream in &mut streams {
        let mut byte = [0];
        let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        match stream.read(&mut byte) {
            Ok(0) => {}
            Ok(_) => open += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    kept.append(&mut streams);
    open
}

/// Connects, hands the connection to another process, and ends.
#[expect(clippy::zombie_processes, reason = "this process ends first: init reaps the other")]
fn hand_over(endpoint: &str, order: &str) {
    let stream = std::os::unix::net::UnixStream::connect(path_of(endpoint)).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(ARGUMENTS).env(INHERITED, std::process::id().to_string()).env(ORDER, order);
    command.stdin(Stdio::from(std::os::fd::OwnedFd::from(stream)));
    command.spawn().unwrap();
}

/// Speaks over a connection that another process opened, once that has ended.
async fn speak_over_standard_input() {
    use std::os::fd::AsFd as _;
    let opener: u32 = std::env::var(INHERITED).unwrap().parse().unwrap();
    while std::os::unix::process::parent_id() == opener {
        std::thread::yield_now();
    }
    let fd = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let stream = std::os::unix::net::UnixStream::from(fd);
    if std::env::var(ORDER).is_ok_and(|order| order == "hand-over-silently") {
        use std::io::Read as _;
        let mut rest = Vec::new();
        (&stream).read_to_end(&mut rest).unwrap();
        return answer("closed");
    }
    stream.set_nonblocking(true).unwrap();
    let stream = tokio::net::UnixStream::from_std(stream).unwrap();
    let mut stream = Some(hyper_util::rt::TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        let stream = stream.take().ok_or(std::io::ErrorKind::NotConnected.into());
        std::future::ready::<Result<_, std::io::Error>>(stream)
    });
    let endpoint = Endpoint::from_static("http://inherited");
    let said = match endpoint.connect_with_connector(connector).await {
        Ok(channel) => fetch(marked(channel)).await,
        Err(error) => format!("{error:?}"),
    };
    answer(&said);
}
