//! The worker: latency of a renewal on swtpm, and resident memory of the daemon while it waits.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use attestor::tpm::EkPreference;
use swtpm_tests::{
    cluster::{AnyError, Cluster, Tools, booted, ek_of},
    process::Process,
    swtpm::{Swtpm, SwtpmOptions},
};

const RENEWALS: usize = 200;
/// Budget of the daemon's resident memory, MiB.
const BUDGET_MIB: f64 = 15.0;
/// The daemon is idle once its credentials are written and this long after.
const SETTLED: Duration = Duration::from_secs(3);

fn main() -> Result<(), AnyError> {
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> Result<(), AnyError> {
    let tpm = booted(Swtpm::start(SwtpmOptions::default())?)?;
    let cluster = Cluster::start().await?;
    cluster.trust(tpm.manufacturer()).await?;
    let ek = ek_of(&tpm.tcti(), EkPreference::Auto).await?;
    cluster.add_node("w1", "linux", ek).await?;
    let tools = Tools::new()?;
    let mut worker = cluster.worker(&tpm.tcti(), &tools).await?;
    let start = Instant::now();
    worker.denied(&["POLICY_NO_REFERENCE_VALUES"]).await;
    println!("enrolment (EK, AK, node key, activation, certification, quote): {:.0} ms", ms(start));
    cluster.golden_from("w1", |text| text).await?;
    worker.admitted().await;
    let mut latencies = Vec::with_capacity(RENEWALS);
    for _ in 0..RENEWALS {
        let start = Instant::now();
        worker.admitted().await;
        latencies.push(ms(start));
    }
    latencies.sort_unstable_by(f64::total_cmp);
    let quantile = |share: f64| latencies[((RENEWALS as f64 * share) as usize).min(RENEWALS - 1)];
    println!(
        "renewal (connect, TLS, one TPM2_Quote, verdict, certificate): p50 {:.1} ms, p99 {:.1} ms",
        quantile(0.5),
        quantile(0.99)
    );
    worker.stop().await;
    daemon(&cluster, &tpm, &tools).await
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// The real program, on the same TPM and tools.
async fn daemon(cluster: &Cluster, tpm: &Swtpm, tools: &Tools) -> Result<(), AnyError> {
    let binary = attestor_binary()?;
    let folder = tempfile::tempdir()?;
    let list = folder.path().join("tools.toml");
    std::fs::write(&list, tools.list_text())?;
    let config = folder.path().join("attestor.toml");
    let output = folder.path().join("out");
    std::fs::write(
        &config,
        format!(
            "[verifier]\nurl = \"https://127.0.0.1:{}\"\nca_file = {:?}\n[tpm]\ntcti = {:?}\n[tools]\n\
             list = {list:?}\n[daemon]\nstate_dir = {:?}\noutput_dir = {output:?}\n",
            cluster.running().address.port(),
            cluster.folder().join("state/bundle.pem"),
            tpm.tcti(),
            tools.state(),
        ),
    )?;
    let mut child = Command::new(&binary)
        .args(["--log", "error", "run", "--config"])
        .arg(&config)
        .stdin(Stdio::null())
        .spawn()?;
    let seen = idle(&mut child, &output).await;
    child.kill()?;
    child.wait()?;
    let (resident, peak, private) = seen?;
    println!(
        "attestor, idle after an attestation: {resident:.1} MiB resident, of it {private:.1} MiB its own and not \
         shared files (peak {peak:.1} MiB; budget {BUDGET_MIB} MiB resident); program {:.1} MiB",
        std::fs::metadata(&binary)?.len() as f64 / 1048576.0
    );
    Ok(())
}

/// Waits until the certificate is written; resident, peak and anonymous memory, MiB.
async fn idle(
    child: &mut std::process::Child,
    output: &std::path::Path,
) -> Result<(f64, f64, f64), AnyError> {
    let certificate = output.join("node.pem");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !certificate.exists() {
        if Instant::now() > deadline || child.try_wait()?.is_some() {
            return Err("the attestor wrote no certificate".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(SETTLED).await;
    let daemon = Process::of(child);
    Ok((daemon.memory_mib("VmRSS")?, daemon.memory_mib("VmHWM")?, daemon.memory_mib("RssAnon")?))
}

/// `attestor` as released, built beside this bench.
fn attestor_binary() -> Result<PathBuf, AnyError> {
    let bench = std::env::current_exe()?;
    // TARGET/release/deps/worker-…
    let target = bench.ancestors().nth(3).ok_or("no target folder")?;
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--package", "attestor", "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()?;
    if !built.success() {
        return Err("the attestor does not build".into());
    }
    Ok(target.join("release/attestor"))
}
