//! A TCP proxy between a TPM client and swtpm: counts and records commands, and injects faults.
//!
//! Same port layout as swtpm (control = data + 1), so that the swtpm TCTI works through it. The data
//! port is relayed frame by frame, one upstream connection for each command; the control port byte
//! by byte.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    ports::PortPair,
    raw::{CommandCode, RawTpm, frame_code, read_frame},
    swtpm::{HarnessError, Swtpm, io as attempt, tcti},
};

/// What a fault does to one command.
#[derive(Clone)]
#[non_exhaustive]
pub enum Fault {
    /// Forward it this much later.
    Delay(Duration),
    /// Close the client's connection instead of forwarding.
    Cut,
    /// Forward it, then close the client's connection instead of answering: the TPM did it, and the
    /// client does not know.
    CutAfter,
    /// Answer this `TPM_RC` instead of forwarding.
    Answer(u32),
    /// Change the command's frame before it is forwarded.
    RewriteCommand(FrameEdit),
    /// Change the answer's frame before it is returned: what an interposer on the bus does.
    RewriteAnswer(FrameEdit),
}

/// Changes a frame in place; its size field is set right afterwards.
pub type FrameEdit = Arc<dyn Fn(&mut Vec<u8>) + Send + Sync>;

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delay(time) => f.debug_tuple("Delay").field(time).finish(),
            Self::Cut => f.write_str("Cut"),
            Self::CutAfter => f.write_str("CutAfter"),
            Self::Answer(code) => write!(f, "Answer({code:#x})"),
            Self::RewriteCommand(_) => f.write_str("RewriteCommand"),
            Self::RewriteAnswer(_) => f.write_str("RewriteAnswer"),
        }
    }
}

/// When a fault happens.
#[derive(Clone, Debug)]
pub struct FaultRule {
    /// Only for this command; `None` for every one.
    pub command: Option<CommandCode>,
    /// Let this many matching commands pass first.
    pub skip: u64,
    /// Then do it to this many; `None` for all.
    pub times: Option<u64>,
    /// What to do.
    pub fault: Fault,
}

impl FaultRule {
    /// Does `fault` to every `command`.
    #[must_use]
    pub const fn every(command: CommandCode, fault: Fault) -> Self {
        Self { command: Some(command), skip: 0, times: None, fault }
    }

    /// Does `fault` to the next `command` only.
    #[must_use]
    pub const fn once(command: CommandCode, fault: Fault) -> Self {
        Self { command: Some(command), skip: 0, times: Some(1), fault }
    }
}

/// Reads what went through a [`Proxy`]; outlives it.
#[derive(Clone, Debug, Default)]
pub struct CommandCounter {
    log: Arc<Mutex<Vec<CommandCode>>>,
}

impl CommandCounter {
    /// How often each command was sent, since the last [`Self::reset`].
    #[must_use]
    pub fn counts(&self) -> BTreeMap<CommandCode, u64> {
        let mut out = BTreeMap::new();
        for command in lock(&self.log).iter() {
            *out.entry(*command).or_insert(0) += 1;
        }
        out
    }

    /// How often `command` was sent.
    #[must_use]
    pub fn count(&self, command: CommandCode) -> u64 {
        self.counts().get(&command).copied().unwrap_or(0)
    }

    /// All commands, in order.
    #[must_use]
    pub fn log(&self) -> Vec<CommandCode> {
        lock(&self.log).clone()
    }

    /// Forgets what was counted.
    pub fn reset(&self) {
        lock(&self.log).clear();
    }
}

#[derive(Debug)]
struct ActiveRule {
    rule: FaultRule,
    seen: u64,
}

#[derive(Debug)]
struct Shared {
    upstream: u16,
    counter: CommandCounter,
    rules: Mutex<Vec<ActiveRule>>,
    is_stopping: AtomicBool,
    clients: Mutex<Vec<TcpStream>>,
}

/// A running proxy; ends with its connections when dropped.
#[derive(Debug)]
pub struct Proxy {
    ports: PortPair,
    shared: Arc<Shared>,
    acceptors: Vec<JoinHandle<()>>,
}

/// Port pairs tried before giving up.
const PORT_ATTEMPTS: usize = 64;

impl Proxy {
    /// Puts a proxy before `tpm`.
    ///
    /// # Errors
    /// No free port pair.
    pub fn before(tpm: &Swtpm) -> Result<Self, HarnessError> {
        Self::start(tpm.port())
    }

    /// Puts a proxy before the TPM whose data port is `upstream` on 127.0.0.1.
    ///
    /// # Errors
    /// No free port pair.
    pub fn start(upstream: u16) -> Result<Self, HarnessError> {
        for _ in 0..PORT_ATTEMPTS {
            let ports = attempt("reserving a pair of ports", PortPair::reserve)?;
            let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
            let (Ok(data), Ok(control)) = (bind(ports.data), bind(ports.control())) else {
                continue;
            };
            let shared = Arc::new(Shared {
                upstream,
                counter: CommandCounter::default(),
                rules: Mutex::default(),
                is_stopping: AtomicBool::new(false),
                clients: Mutex::default(),
            });
            let acceptors =
                vec![accept(data, &shared, serve_data)?, accept(control, &shared, serve_control)?];
            return Ok(Self { ports, shared, acceptors });
        }
        Err(HarnessError::NoPort { tried: PORT_ATTEMPTS, output: "all taken".into() })
    }

    /// TCTI string of the TPM as seen through the proxy.
    #[must_use]
    pub fn tcti(&self) -> String {
        tcti(self.ports.data)
    }

    /// The proxy's data port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.ports.data
    }

    /// A raw client through the proxy.
    #[must_use]
    pub fn raw(&self) -> RawTpm {
        RawTpm::at(self.ports.data)
    }

    /// The counter of commands that clients sent (faulted ones included).
    #[must_use]
    pub fn counter(&self) -> CommandCounter {
        self.shared.counter.clone()
    }

    /// Adds a fault. Of several rules that match a command the oldest acts.
    pub fn inject(&self, rule: FaultRule) {
        lock(&self.shared.rules).push(ActiveRule { rule, seen: 0 });
    }

    /// Removes all faults.
    pub fn heal(&self) {
        lock(&self.shared.rules).clear();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::SeqCst);
        for client in lock(&self.shared.clients).drain(..) {
            // Failure means that it is closed already.
            let _ = client.shutdown(Shutdown::Both);
        }
        // Wake the acceptors.
        for port in [self.ports.data, self.ports.control()] {
            let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        }
        for acceptor in self.acceptors.drain(..) {
            let _ = acceptor.join();
        }
    }
}

type Serve = fn(TcpStream, &Shared) -> io::Result<()>;

fn accept(
    listener: TcpListener,
    shared: &Arc<Shared>,
    serve: Serve,
) -> Result<JoinHandle<()>, HarnessError> {
    let shared = Arc::clone(shared);
    attempt("starting a proxy thread", || {
        thread::Builder::new().name("tpm-proxy".into()).spawn(move || {
            for client in listener.incoming() {
                if shared.is_stopping.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                let Ok(handle) = client.try_clone() else { continue };
                let mut clients = lock(&shared.clients);
                clients.retain(|client| client.peer_addr().is_ok());
                clients.push(handle);
                drop(clients);
                let shared = Arc::clone(&shared);
                // A connection that ends in an error is a closed connection for the client.
                thread::spawn(move || serve(client, &shared));
            }
        })
    })
}

fn serve_data(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    while let Some(command) = read_frame(&mut client)? {
        match relay(command, shared)? {
            Some(answer) => client.write_all(&answer)?,
            None => return client.shutdown(Shutdown::Both),
        }
    }
    Ok(())
}

/// The answer to a command, or `None` to hang up.
fn relay(mut command: Vec<u8>, shared: &Shared) -> io::Result<Option<Vec<u8>>> {
    let code = CommandCode(frame_code(&command).unwrap_or_default());
    lock(&shared.counter.log).push(code);
    let upstream = RawTpm::at(shared.upstream);
    match shared.fault(code) {
        None => upstream.transmit(&command).map(Some),
        Some(Fault::Delay(time)) => {
            thread::sleep(time);
            upstream.transmit(&command).map(Some)
        }
        Some(Fault::Cut) => Ok(None),
        Some(Fault::CutAfter) => upstream.transmit(&command).map(|_| None),
        Some(Fault::Answer(response)) => {
            let mut answer = vec![0x80, 0x01, 0, 0, 0, 10];
            answer.extend_from_slice(&response.to_be_bytes());
            Ok(Some(answer))
        }
        Some(Fault::RewriteCommand(edit)) => {
            edit(&mut command);
            set_size(&mut command);
            upstream.transmit(&command).map(Some)
        }
        Some(Fault::RewriteAnswer(edit)) => {
            let mut answer = upstream.transmit(&command)?;
            edit(&mut answer);
            set_size(&mut answer);
            Ok(Some(answer))
        }
    }
}

fn set_size(frame: &mut [u8]) {
    let size = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    if let Some(field) = frame.get_mut(2..6) {
        field.copy_from_slice(&size.to_be_bytes());
    }
}

/// Relays control commands and answers; each side closes when the other does.
fn serve_control(client: TcpStream, shared: &Shared) -> io::Result<()> {
    let control = shared.upstream + 1;
    let upstream = TcpStream::connect((Ipv4Addr::LOCALHOST, control))?;
    let (mut from_client, mut to_client) = (client.try_clone()?, client);
    let (mut from_upstream, mut to_upstream) = (upstream.try_clone()?, upstream);
    let back = thread::spawn(move || {
        let copied = io::copy(&mut from_upstream, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
        copied
    });
    let forth = io::copy(&mut from_client, &mut to_upstream);
    let _ = to_upstream.shutdown(Shutdown::Both);
    let _ = back.join();
    forth.map(drop)
}

impl Shared {
    /// The fault that the next `command` meets, if any.
    fn fault(&self, command: CommandCode) -> Option<Fault> {
        let mut rules = lock(&self.rules);
        for active in rules.iter_mut() {
            if active.rule.command.is_some_and(|wanted| wanted != command) {
                continue;
            }
            let turn = active.seen;
            active.seen += 1;
            let end = active.rule.times.map(|times| active.rule.skip + times);
            if turn >= active.rule.skip && end.is_none_or(|end| turn < end) {
                return Some(active.rule.fault.clone());
            }
        }
        None
    }
}

/// A panicking test thread must not take the others' locks with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
