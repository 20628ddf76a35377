//! The whole service under load: TLS, gRPC, appraisal, durable store, certificate; verifier and load share the cores.
//!
//! The verifier runs in a process of its own (this program again, with `--serve`), so that its memory and processor
//! time are its own. Workers are TPMs in memory, which sign honest answers; each has an inventory record, a boot
//! record and certificates, as a fleet would. The number of nodes can be given: `-- --nodes 1000`.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use attestor::{
    client::{Answer, Conversation, DEADLINES, connect},
    trust::{Learned, Trust},
};
use proto::{evidence::ChallengeParts, pb, spki::ek_digest};
use soft_tpm::{Algorithm, EkKind, SoftTpm};
use swtpm_tests::{
    cluster::{AnyError, Cluster},
    process::Process,
};
use tokio::sync::Mutex;
use tonic::transport::Channel;
use verifier::{clock::SystemClock, config::Config, store::ALLOW_LISTED};

const DEFAULT_NODES: usize = 10_000;
/// Attestations under way at once; below the verifier's bound for one address.
const IN_FLIGHT: usize = 32;
/// Length of each measurement.
const MEASURED: Duration = Duration::from_secs(10);
/// Cores that verifier and load share in the budget: processor time is less noisy than the rate where
/// others use the machine, and gives the rate that a quiet one would have.
const CORES: usize = 2;

fn main() -> Result<(), AnyError> {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(at + 1).cloned()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Some(config) = after("--serve") {
        return runtime.block_on(serve(Path::new(&config)));
    }
    // `cargo test --benches` only wants to know that it builds.
    if arguments.iter().any(|argument| argument == "--test") {
        return Ok(());
    }
    let nodes = after("--nodes").map_or(Ok(DEFAULT_NODES), |text| text.parse())?;
    runtime.block_on(measure(nodes))
}

/// The verifier's process: serves until its standard input ends.
async fn serve(config: &Path) -> Result<(), AnyError> {
    let mut config = Config::load(config)?;
    config.metrics_listen = "127.0.0.1:0".parse()?;
    let running = verifier::run::start(config, Arc::new(SystemClock)).await?;
    println!("{}", running.address.port());
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(running.stop().await?)
}

struct Fleet {
    url: String,
    trust: Trust,
    workers: Vec<Mutex<SoftTpm>>,
}

impl Fleet {
    async fn channel(&self) -> Result<Channel, AnyError> {
        Ok(connect(&self.url, &self.trust.read()?, &Learned::default(), &DEADLINES).await?)
    }

    /// One attestation of one worker.
    async fn attest(&self, channel: Channel, at: usize) -> Result<pb::AttestationResult, AnyError> {
        let tpm = self.workers[at].lock().await;
        let (conversation, answer) = Conversation::begin(channel, tpm.hello(), &DEADLINES).await?;
        let challenge = match answer {
            Answer::Challenge(challenge) => ChallengeParts::try_from(*challenge)?,
            Answer::Result(result) => return Ok(*result),
        };
        let answer = tpm.answer(&challenge);
        let logs = answer
            .log
            .iter()
            .map(|log| (log.kind.to_pb(), log.from_bytes, log.bytes.clone()))
            .collect();
        Ok(conversation.finish(answer.sign(), logs, &DEADLINES).await?)
    }
}

async fn measure(nodes: usize) -> Result<(), AnyError> {
    let mut cluster = Cluster::start().await?;
    let tool_pcr = cluster.verifier().settings().tool_pcr;
    let workers: Vec<SoftTpm> =
        (0..nodes).map(|_| SoftTpm::new(EkKind::P256, Algorithm::EcdsaP256, tool_pcr)).collect();
    let mut adding = tokio::task::JoinSet::new();
    let cluster_ref = Arc::new(cluster);
    for (at, worker) in workers.iter().enumerate() {
        let (cluster, ek) = (Arc::clone(&cluster_ref), ek_digest(worker.ek.public()));
        adding.spawn(async move {
            cluster.add_node_as(&format!("n{at}"), "fleet", ek, Some(ALLOW_LISTED)).await
        });
    }
    while let Some(added) = adding.join_next().await {
        added??;
    }
    cluster = Arc::into_inner(cluster_ref).ok_or("the cluster is still in use")?;
    let mut fleet = Fleet {
        url: format!("https://127.0.0.1:{}", cluster.running().address.port()),
        trust: Trust::CaFile(cluster.folder().join("state/bundle.pem")),
        workers: workers.into_iter().map(Mutex::new).collect(),
    };
    let denied = fleet.attest(fleet.channel().await?, 0).await?;
    if denied.outcome() != pb::Outcome::Deny {
        return Err("admitted without a golden set".into());
    }
    cluster.golden_from("n0", |text| text).await?;
    cluster.stop_verifier().await?;

    let verifier = VerifierProcess::start(&cluster.folder().join("verifier.toml"))?;
    fleet.url = format!("https://127.0.0.1:{}", verifier.port);
    let fleet = Arc::new(fleet);
    println!("verifier started, {nodes} nodes in the inventory: {}", verifier.memory()?);

    let next = Arc::new(AtomicUsize::new(0));
    let enrolled = load(&fleet, &next, Some(nodes), Connections::Kept, &verifier).await?;
    println!("enrolments (allow-listed P-256 EK, open connections): {enrolled}");
    println!("verifier with {nodes} boots: {}", verifier.memory()?);
    let kept = load(&fleet, &next, None, Connections::Kept, &verifier).await?;
    println!("renewals, open connections: {kept}");
    let fresh = load(&fleet, &next, None, Connections::Fresh, &verifier).await?;
    println!("renewals, a TLS handshake each: {fresh}");
    println!("verifier at the end: {}", verifier.memory()?);
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Connections {
    /// One for all attestations of a task.
    Kept,
    /// One for each attestation, as attestors make them.
    Fresh,
}

/// What a load saw.
struct Seen {
    attestations: usize,
    seconds: f64,
    /// Sorted.
    latencies: Vec<Duration>,
    /// Processor time of the verifier and of the load.
    cpu_s: (f64, f64),
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let quantile = |share: f64| {
            let at = (self.latencies.len() as f64 * share) as usize;
            let last = self.latencies.len() - 1;
            self.latencies[at.min(last)].as_secs_f64() * 1e3
        };
        let each = |cpu_s: f64| cpu_s * 1e6 / self.attestations as f64;
        let (verifier, load) = (each(self.cpu_s.0), each(self.cpu_s.1));
        write!(
            f,
            "{:.0}/s ({} in {:.1} s, {IN_FLIGHT} at once), p50 {:.1} ms, p99 {:.1} ms; processor time each: \
             verifier {verifier:.0} us, load {load:.0} us, hence at most {:.0}/s on {CORES} cores",
            self.attestations as f64 / self.seconds,
            self.attestations,
            self.seconds,
            quantile(0.5),
            quantile(0.99),
            CORES as f64 * 1e6 / (verifier + load),
        )
    }
}

/// [`IN_FLIGHT`] tasks attest one worker after the other, `total` of them or for [`MEASURED`].
async fn load(
    fleet: &Arc<Fleet>,
    next: &Arc<AtomicUsize>,
    total: Option<usize>,
    connections: Connections,
    verifier: &VerifierProcess,
) -> Result<Seen, AnyError> {
    next.store(0, Ordering::Relaxed);
    let (start, before) = (Instant::now(), (verifier.cpu_s()?, Process::own().cpu_s()?));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (fleet, next) = (Arc::clone(fleet), Arc::clone(next));
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            let kept = fleet.channel().await?;
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let over = match total {
                    Some(total) => at >= total,
                    None => start.elapsed() >= MEASURED,
                };
                if over {
                    return Ok::<_, AnyError>(latencies);
                }
                let began = Instant::now();
                let channel = match connections {
                    Connections::Kept => kept.clone(),
                    Connections::Fresh => fleet.channel().await?,
                };
                let result = fleet.attest(channel, at % fleet.workers.len()).await?;
                if result.outcome() != pb::Outcome::Admit || result.certificate_chain.is_empty() {
                    return Err(format!("worker {at}: {:?}", result.findings).into());
                }
                latencies.push(began.elapsed());
            }
        });
    }
    let mut latencies = Vec::new();
    while let Some(done) = tasks.join_next().await {
        latencies.extend(done??);
    }
    let seconds = start.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let attestations = latencies.len();
    if attestations == 0 {
        return Err("no attestation".into());
    }
    let cpu_s = (verifier.cpu_s()? - before.0, Process::own().cpu_s()? - before.1);
    Ok(Seen { attestations, seconds, latencies, cpu_s })
}

/// The verifier in a process of its own; stopped on drop.
struct VerifierProcess {
    child: Child,
    port: u16,
}

impl VerifierProcess {
    fn start(config: &Path) -> Result<Self, AnyError> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--serve")
            .arg(config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let port = line.trim().parse().map_err(|_| "the verifier did not start")?;
        Ok(Self { child, port })
    }

    /// Resident memory now and at its highest.
    fn memory(&self) -> Result<String, AnyError> {
        let process = Process::of(&self.child);
        let (now, peak) = (process.memory_mib("VmRSS")?, process.memory_mib("VmHWM")?);
        Ok(format!("{now:.1} MiB resident (peak {peak:.1})"))
    }

    fn cpu_s(&self) -> Result<f64, AnyError> {
        Process::of(&self.child).cpu_s()
    }
}

impl Drop for VerifierProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
