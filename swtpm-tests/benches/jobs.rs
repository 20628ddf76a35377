//! From a hook to a redeemed permit on swtpm: time, TPM commands, and what of it is the verifier's.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::Instant,
};

use attestor::{
    jobs::{JobKeyPair, Line, Link},
    tpm::EkPreference,
    trust::{Learned, Trust},
};
use proto::pb;
use swtpm_tests::{
    cluster::{AnyError, Cluster, Tools, booted, ek_of},
    job_site::JobSite,
    process::Process,
    proxy::Proxy,
    raw::CommandCode,
    soft_worker::{SoftWorker, tool},
    swtpm::{Swtpm, SwtpmOptions},
};
use tokio::sync::watch;
use verifier::store::ALLOW_LISTED;

/// Permits that are asked for one after the other.
const PERMITS: usize = 100;
/// Permits of the verifier alone.
const SOFT_PERMITS: u32 = 1000;
const CLAIMS: &[u8] = b"{\"job\":\"build\",\"run_id\":\"42\",\"system\":\"generic\"}";

fn main() -> Result<(), AnyError> {
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        from_a_hook().await?;
        on_swtpm().await?;
        verifier_alone().await
    })
}

fn request(key: &JobKeyPair) -> Result<pb::JobRequest, AnyError> {
    Ok(pb::JobRequest { key: key.public()?, claims: CLAIMS.to_vec(), token: String::new() })
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Processes that are started one after the other, as hooks are.
const HOOKS: usize = 40;

/// As a CI system sees it: a process is started, talks to the daemon over its socket, and prints or becomes the job.
async fn from_a_hook() -> Result<(), AnyError> {
    let site = JobSite::start().await?;
    let counter = site.proxy.counter();
    let (mut bare, mut to_permit, mut to_job) = (Vec::new(), Vec::new(), Vec::new());
    counter.reset();
    for _ in 0..HOOKS {
        bare.push(first_line_ms(below_a_runner(&site, &["--version"])).await?);
        let permit = below_a_runner(&site, &["permit", "--job", "generic", "--json"]);
        to_permit.push(first_line_ms(permit).await?);
        let job = site.attestor(&["exec", "--job", "generic", "--", "/bin/echo", "runs"]);
        to_job.push(first_line_ms(job).await?);
    }
    let commands = counter.log();
    for times in [&mut bare, &mut to_permit, &mut to_job] {
        times.sort_unstable_by(f64::total_cmp);
    }
    println!(
        "from a process's start: to its first line without a daemon {:.1} ms; to the permit redeemed and printed p50 {:.1} ms, \
         p99 {:.1} ms; to the first line of a job p50 {:.1} ms, p99 {:.1} ms; {:.2} TPM commands each",
        quantile(&bare, 0.5),
        quantile(&to_permit, 0.5),
        quantile(&to_permit, 0.99),
        quantile(&to_job, 0.5),
        quantile(&to_job, 0.99),
        commands.len() as f64 / (2 * HOOKS) as f64
    );
    Ok(())
}

/// A shell stands for the runner: the permit is for what it starts, and ends with it.
fn below_a_runner(site: &JobSite, arguments: &[&str]) -> Command {
    let attestor = site.attestor(arguments);
    let mut runner = Command::new("sh");
    runner.args(["-c", "\"$0\" \"$@\"; exit $?"]).arg(attestor.get_program());
    runner.args(attestor.get_args()).current_dir(site.path(""));
    runner.envs(attestor.get_envs().filter_map(|(name, value)| Some((name, value?))));
    runner
}

/// Time from the start of a process to the first line that it, or the job that it became, prints; it must end well.
async fn first_line_ms(mut command: Command) -> Result<f64, AnyError> {
    let measured = tokio::task::spawn_blocking(move || -> std::io::Result<(f64, bool)> {
        let start = Instant::now();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        out.read_line(&mut line)?;
        let took = ms(start);
        std::io::copy(&mut out, &mut std::io::sink())?;
        Ok((took, child.wait()?.success() && !line.is_empty()))
    });
    match measured.await?? {
        (took, true) => Ok(took),
        (_, false) => Err("a process that was measured failed".into()),
    }
}

async fn on_swtpm() -> Result<(), AnyError> {
    let tpm = booted(Swtpm::start(SwtpmOptions::default())?)?;
    let cluster = Cluster::start().await?;
    cluster.trust(tpm.manufacturer()).await?;
    let ek = ek_of(&tpm.tcti(), EkPreference::Auto).await?;
    cluster.add_node("w1", "linux", ek).await?;
    let tools = Tools::new()?;
    let proxy = Proxy::before(&tpm)?;
    let mut worker = cluster.worker(&proxy.tcti(), &tools).await?;
    worker.denied(&["POLICY_NO_REFERENCE_VALUES"]).await;
    cluster.golden_from("w1", |text| text).await?;
    worker.admitted().await;
    let counter = proxy.counter();
    counter.reset();
    let (_bundle, bundle) = watch::channel(Learned::default());
    let url = format!("https://127.0.0.1:{}", cluster.running().address.port());
    let trust = Trust::CaFile(cluster.folder().join("state/bundle.pem"));
    let link = Link::new(url, trust, bundle);
    let (mut to_permit, mut to_identity) = (Vec::new(), Vec::new());
    for _ in 0..PERMITS {
        let start = Instant::now();
        let key = JobKeyPair::generate()?;
        let answered = worker.attester.permit(request(&key)?).await?;
        let permit = answered.result.permit.ok_or("no permit")?;
        to_permit.push(ms(start));
        let verifier_id = answered.verifier_id.ok_or("no challenge")?;
        let line = Line::new(link.clone(), key, verifier_id, permit.id, permit.secret);
        let identity = line.redeem(Vec::new()).await?;
        to_identity.push(ms(start));
        if identity.x509.len() != 2 || identity.statements.len() != 2 {
            return Err("a redemption gives two certificates and two results".into());
        }
    }
    let commands = counter.log();
    if commands.iter().any(|command| *command != CommandCode::QUOTE) {
        return Err(format!("other commands than TPM2_Quote: {commands:?}").into());
    }
    to_permit.sort_unstable_by(f64::total_cmp);
    to_identity.sort_unstable_by(f64::total_cmp);
    println!(
        "hook to permit (key, 2 tools measured anew, connect, TLS, quote, verdict, record): p50 {:.1} ms, p99 {:.1} ms; \
         {:.2} TPM commands each, all of them TPM2_Quote",
        quantile(&to_permit, 0.5),
        quantile(&to_permit, 0.99),
        commands.len() as f64 / PERMITS as f64
    );
    println!(
        "hook to identities (and: redemption on the jobs' shared connection, two certificates, two signed and stamped results): p50 {:.1} ms, \
         p99 {:.1} ms",
        quantile(&to_identity, 0.5),
        quantile(&to_identity, 0.99)
    );
    worker.stop().await;
    Ok(())
}

/// A TPM in memory signs in microseconds: what is left is the verifier's.
async fn verifier_alone() -> Result<(), AnyError> {
    let cluster = Cluster::start().await?;
    let verifier = cluster.verifier();
    let mut worker = SoftWorker::new("w1", verifier.settings().tool_pcr);
    worker.tpm.measure(&tool("cc", b"compiler")?);
    cluster.add_node_as("w1", "linux", worker.ek(), Some(ALLOW_LISTED)).await?;
    worker.attest(verifier).await?;
    cluster.golden_from("w1", |text| text).await?;
    worker.attest(verifier).await?;
    let process = Process::own();
    let (renewals, permits) = {
        let cpu = process.cpu_s()?;
        for _ in 0..SOFT_PERMITS {
            let result = worker.attest(verifier).await?;
            if result.certificate_chain.is_empty() {
                return Err(format!("denied: {:?}", result.findings).into());
            }
        }
        let renewals = process.cpu_s()? - cpu;
        let key = JobKeyPair::generate()?;
        let job = request(&key)?;
        let bound = proto::permit::JobRequest::try_from(job.clone())?.binding();
        worker.tpm.purpose = proto::binding::Purpose::Permit(bound);
        let cpu = process.cpu_s()?;
        for _ in 0..SOFT_PERMITS {
            let result = worker.attest_for(verifier, Some(job.clone())).await?;
            if result.permit.is_none() {
                return Err(format!("denied: {:?}", result.findings).into());
            }
        }
        (renewals, process.cpu_s()? - cpu)
    };
    let each = |seconds: f64| seconds * 1e6 / f64::from(SOFT_PERMITS);
    println!(
        "verifier, no network: {:.0} us of processor time a permit, {:.0} us a renewal, the TPM's signature in both; ratio {:.2}",
        each(permits),
        each(renewals),
        permits / renewals
    );
    Ok(())
}
