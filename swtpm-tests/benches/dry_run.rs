//! A dry run over a whole fleet's recorded evidence, beside the signature verifications that it cannot do without.
//!
//! Workers are TPMs in memory that booted as a committed record of a real boot says, and attest to a verifier in this
//! process: half of them last proved a new boot, the others renewed. The dry runs are then made by a process of their own
//! (this program again, with `--judge`), so that memory and processor time are theirs. The number of nodes can be given:
//! `-- --nodes 1000`.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
        UnparsedPublicKey,
    },
};
use proto::pb;
use swtpm_tests::{
    cluster::{AnyError, Cluster},
    machine::PcrValues,
    process::Process,
    soft_worker::SoftWorker,
};
use verifier::{
    clock::SystemClock,
    config::Config,
    documents::{Change, DryRun, Summary},
    store::ALLOW_LISTED,
};

const DEFAULT_NODES: usize = 10_000;
/// Workers that attest at once while the store is filled.
const IN_FLIGHT: usize = 16;
/// Verifications that are timed.
const RAW: u32 = 5_000;
/// A tool that no worker has.
const CLOSED: &str = "\n[[tool]]\nname = \"no-such-tool\"\naccept = [{ digest = \
    \"sha256:0000000000000000000000000000000000000000000000000000000000000000\" }]\n";
/// A PCR that no quote covers.
const NOT_QUOTED: &str = "\n[[pcr]]\nbank = \"sha384\"\nindex = 13\naccept = [{ value = \
    \"000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\" }]\n";
/// What makes the kernel count the highest resident size anew.
const RESET_PEAK: &str = "5";

fn main() -> Result<(), AnyError> {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(at + 1).cloned()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Some(config) = after("--judge") {
        let golden = after("--golden").ok_or("no golden set")?;
        return runtime.block_on(judge(Path::new(&config), Path::new(&golden)));
    }
    // `cargo test --benches` only wants to know that it builds.
    if arguments.iter().any(|argument| argument == "--test") {
        return Ok(());
    }
    let nodes = after("--nodes").map_or(Ok(DEFAULT_NODES), |text| text.parse())?;
    runtime.block_on(measure(nodes))
}

async fn measure(nodes: usize) -> Result<(), AnyError> {
    let cluster = Arc::new(Cluster::start().await?);
    let start = Instant::now();
    let golden = fill(&cluster, nodes).await?;
    println!("{nodes} nodes with evidence: {:.0} s", start.elapsed().as_secs_f64());
    let mut cluster = Arc::into_inner(cluster).ok_or("the cluster is still in use")?;
    cluster.stop_verifier().await?;
    let file = cluster.folder().join("golden.toml");
    std::fs::write(&file, golden)?;
    let done = Command::new(std::env::current_exe()?)
        .arg("--judge")
        .arg(cluster.folder().join("verifier.toml"))
        .arg("--golden")
        .arg(&file)
        .status()?;
    if done.success() { Ok(()) } else { Err("the dry runs failed".into()) }
}

/// The boot that every worker had.
struct RecordedBoot {
    pcrs: PcrValues,
    log: Vec<u8>,
}

impl RecordedBoot {
    fn read() -> Result<Self, AnyError> {
        let vectors = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors");
        let pcrs = std::fs::read(vectors.join("secure-boot-on.pcrs.json"))?;
        let log = std::fs::read(vectors.join("secure-boot-on.uefi.bin"))?;
        Ok(Self { pcrs: serde_json::from_slice(&pcrs)?, log })
    }

    /// A worker that had it, in the inventory.
    async fn worker(&self, cluster: &Cluster, at: usize) -> Result<SoftWorker, AnyError> {
        let tool_pcr = cluster.verifier().settings().tool_pcr;
        let mut worker = SoftWorker::new(format!("n{at}"), tool_pcr);
        worker.boot_as(&self.pcrs, &self.log)?;
        cluster.add_node_as(&worker.name, "fleet", worker.ek(), Some(ALLOW_LISTED)).await?;
        Ok(worker)
    }
}

/// A fleet with evidence; returns the golden set that admits it.
async fn fill(cluster: &Arc<Cluster>, nodes: usize) -> Result<String, AnyError> {
    let boot = Arc::new(RecordedBoot::read()?);
    let first = boot.worker(cluster, 0).await?;
    if first.attest(cluster.verifier()).await?.outcome() != pb::Outcome::Deny {
        return Err("admitted without a golden set".into());
    }
    let golden = cluster.golden_from("n0", |text| text).await?;
    let next = Arc::new(AtomicUsize::new(1));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (cluster, boot, next) = (Arc::clone(cluster), Arc::clone(&boot), Arc::clone(&next));
        tasks.spawn(async move {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= nodes {
                    return Ok::<_, AnyError>(());
                }
                let worker = boot.worker(&cluster, at).await?;
                for _ in 0..=at % 2 {
                    let result = worker.attest(cluster.verifier()).await?;
                    if result.outcome() != pb::Outcome::Admit {
                        return Err(format!("{}: {:?}", worker.name, result.findings).into());
                    }
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(golden)
}

/// The process that judges: once for each kind of change.
async fn judge(config: &Path, golden: &Path) -> Result<(), AnyError> {
    let mut config = Config::load(config)?;
    config.metrics_listen = "127.0.0.1:0".parse()?;
    let running = verifier::run::start(config, Arc::new(SystemClock)).await?;
    let verifier = running.verifier();
    let raw_us = raw_us()?;
    let process = Process::own();
    println!("raw P-256 verification, key parsed each time: {raw_us:.1} us");
    let next = std::fs::read_to_string(golden)?.replacen("version = 1", "version = 2", 1);
    /// How many nodes of a summary have the outcome that is measured.
    type Outcome = fn(&Summary) -> u32;
    let changes: [(&str, String, Outcome); 3] = [
        ("nothing changes", next.clone(), |summary| summary.still_admitted),
        ("every node is denied", next.clone() + CLOSED, |summary| summary.newly_denied),
        ("no node can be told", next + NOT_QUOTED, |summary| summary.undecided),
    ];
    for (name, text, expected) in changes {
        let put = verifier.read_document(&text).await?.compiled(false).into_iter().collect();
        let change = Change { put, ..Change::default() };
        std::fs::write("/proc/self/clear_refs", RESET_PEAK)?;
        let (rss, cpu) = (process.memory_mib("VmRSS")?, process.cpu_s()?);
        let start = Instant::now();
        let summary = DryRun::new(verifier, change).await?.run(verifier, None).await?;
        let (seconds, cpu) = (start.elapsed().as_secs_f64(), process.cpu_s()? - cpu);
        // Another outcome costs something else than what is measured here.
        if summary.nodes == 0 || expected(&summary) != summary.nodes {
            return Err(format!("{name}: {} nodes: {}", summary.nodes, in_words(&summary)).into());
        }
        let (nodes, each_us) = (f64::from(summary.nodes), cpu * 1e6 / f64::from(summary.nodes));
        println!(
            "{name}: {} nodes in {seconds:.2} s, {:.0}/s; {each_us:.0} us of processor time each, {:.1} raw \
             verifications; at most {:.1} MiB on top of {rss:.1} resident\n  {}",
            summary.nodes,
            nodes / seconds,
            each_us / raw_us,
            process.memory_mib("VmHWM")? - rss,
            in_words(&summary),
        );
    }
    Ok(running.stop().await?)
}

fn in_words(summary: &Summary) -> String {
    let Summary { still_admitted, newly_denied, undecided, without_evidence, .. } = summary;
    format!(
        "{still_admitted} admitted, {newly_denied} denied, {undecided} undecided, {without_evidence} without evidence"
    )
}

/// Microseconds of one verification by the library that verifies quotes.
fn raw_us() -> Result<f64, AnyError> {
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| "no key")?;
    let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).map_err(|_| "no key")?;
    let message = [0x5a; 160];
    let signature = key.sign(&random, &message).map_err(|_| "no signature")?;
    let start = Instant::now();
    for _ in 0..RAW {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public_key().as_ref())
            .verify(&message, signature.as_ref())
            .map_err(|_| "a bad signature")?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(RAW))
}
