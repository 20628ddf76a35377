//! The main job, shown with the real programs: a software TPM, `verifier` on SQLite, `attestor`.
//!
//! A worker enrols, its state is captured as a golden set, it receives a certificate that openssl accepts; a tampered tool and
//! a replayed quote are denied, each with its reason and no certificate. Then it runs a CI job, whose artifact is admitted;
//! an artifact that was changed is not, and a job of a worker that was changed does not start.
//!
//! `--write-examples` writes what README.md and docs/RESULTS.md show of it.

mod examples;
mod hostile;
mod job;
mod site;

use std::{fs, process::ExitCode};

use attestor::hooks::HookSystem;
use proto::pb;
use swtpm_tests::{
    cluster::AnyError,
    firmware::Firmware,
    hook_driver::platform::Platform,
    process::Ended,
    swtpm::{Swtpm, SwtpmOptions},
};

use self::site::{Site, expect, free_address};

const ONCE: [&str; 3] = ["once", "--config", "attestor.toml"];

fn main() -> ExitCode {
    attestor::tpm::quiet::silence_tss_log();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let writes = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--write-examples"] => true,
        _ => {
            eprintln!("demo: nothing, or --write-examples");
            return ExitCode::from(2);
        }
    };
    match Site::new().and_then(|site| demo(&site, writes)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demo(site: &Site, writes: bool) -> Result<(), AnyError> {
    let tpm = Swtpm::start(SwtpmOptions::default())?;
    let tcti = tpm.tcti();
    let ek = worker(site, &tpm)?;
    let platform = Platform::new(HookSystem::GitHub)?;
    let (listen, _serving) = verifier(site, &platform)?;
    add(site, &tpm, &ek)?;
    site.write_worker(&listen, &tcti)?;

    site.say(
        "First attestation: genuine, but nothing says yet what is expected: denied and recorded",
    );
    expect(&site.show("attestor", &ONCE, 3)?, "POLICY_NO_REFERENCE_VALUES")?;
    golden_set(site)?;
    certificate(site)?;

    site.say("A compiler is tampered with: denied, naming the file; the certificate is withdrawn");
    site.tools.write("cc1", b"compiler proper 12.2.0 with a gift")?;
    let denied = site.show("attestor", &ONCE, 3)?;
    expect(&denied, "POLICY_TOOL_NOT_ALLOWED")?;
    expect(&denied, "/cc1")?;
    if site.path("output/node.pem").exists() {
        return Err("a denied worker still has its certificate".into());
    }
    site.tools.write("cc1", b"compiler proper 12.2.0")?;

    let replayed = replay(site, &listen, &tcti)?;
    let examples = job::run(site, &platform)?;

    site.say("Every decision can be judged again offline, and the audit chain checked");
    expect(&site.show("verifier", &["replay", &replayed], 0)?, &format!("{replayed} equal"))?;
    site.show("verifier", &["audit", "verify"], 0)?;
    site.tell(
        "\nDone: a certificate and a job for the honest worker, neither for the others; its artifact is \
         admitted,\nand no other.",
    );
    if writes { examples.write(&site.said()) } else { Ok(()) }
}

/// Boots the worker; its EK's digest.
fn worker(site: &Site, tpm: &Swtpm) -> Result<String, AnyError> {
    site.say(
        "A worker: a software TPM with an EK certificate of a test manufacturer, firmware booted",
    );
    let firmware_log = Firmware::default().boot_swtpm(tpm)?;
    fs::write(site.path("binary_bios_measurements"), firmware_log)?;
    let tcti = tpm.tcti();
    // Logs are missing on a software TPM: inspect says so and exits with 3.
    let shown = site.run("attestor", &["inspect", "--json", "--tcti", &tcti], &[0, 3])?;
    let inspection: serde_json::Value = serde_json::from_str(&shown)?;
    let ek = inspection["endorsement_keys"][0]["ek_digest"].as_str();
    let ek = ek.ok_or("inspect shows no EK digest")?;
    site.tell(&format!("TPM at {tcti}, EK {ek}"));
    Ok(ek.to_owned())
}

/// Sets up a verifier that believes the platform's tokens, and starts it; where it listens.
fn verifier(site: &Site, platform: &Platform) -> Result<(String, Ended), AnyError> {
    site.say("A verifier: CA, database, first administrator");
    let listen = free_address()?;
    let init = ["init", "--trust-domain", "demo.example", "--name", "127.0.0.1"];
    site.run("verifier", &[&init[..], &["--listen", &listen]].concat(), &[0])?;
    let path = site.path("verifier.toml");
    let mut config: toml::Table = fs::read_to_string(&path)?.parse()?;
    // The default address may be in use.
    let metrics = format!("metrics_listen = \"{}\"", free_address()?);
    for (table, lines) in [("service", metrics), ("jobs", platform.verifier_jobs())] {
        let of_the_table = config.entry(table).or_insert_with(|| toml::Table::new().into());
        let of_the_table = of_the_table.as_table_mut().ok_or("no table")?;
        of_the_table.extend(lines.parse::<toml::Table>()?);
    }
    fs::write(&path, config.to_string())?;
    let serving = site.serve(&listen)?;
    Ok((listen, serving))
}

fn add(site: &Site, tpm: &Swtpm, ek: &str) -> Result<(), AnyError> {
    site.say("The security team trusts the manufacturer and adds the machine");
    let manufacturer = tpm.manufacturer();
    for (kind, pem) in
        [("RootCA", manufacturer.root_pem()?), ("IntermediateCA", manufacturer.intermediate_pem()?)]
    {
        let folder = site.path("roots").join(kind);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("manufacturer.pem"), pem)?;
    }
    site.show("verifier", &["roots", "import", "roots"], 0)?;
    let node = ["nodes", "add", "worker-1", "--pool", "linux", "--ek-digest", ek];
    site.show("verifier", &node, 0)?;
    Ok(())
}

fn golden_set(site: &Site) -> Result<(), AnyError> {
    site.say("Its state becomes the golden set of pool linux");
    let golden = site.run("verifier", &["golden", "capture", "worker-1"], &[0])?;
    fs::write(site.path("linux.toml"), &golden)?;
    site.tell(&golden.lines().take(8).collect::<Vec<_>>().join("\n"));
    site.tell(&format!("… ({} lines)", golden.lines().count()));
    site.show("verifier", &["golden", "check", "linux.toml"], 0)?;
    let apply = ["golden", "apply", "linux.toml", "--key", "state/admin/security.key", "--yes"];
    site.show("verifier", &apply, 0)?;
    Ok(())
}

fn certificate(site: &Site) -> Result<(), AnyError> {
    site.say("Second attestation: admitted; the certificate is for a key that lives in the TPM");
    site.show("attestor", &ONCE, 0)?;
    let chain = fs::read_to_string(site.path("output/node.pem"))?;
    fs::write(site.path("issuing.pem"), after_first_certificate(&chain))?;
    let verify =
        ["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "output/bundle.pem"];
    let verify = [&verify[..], &["-untrusted", "issuing.pem", "output/node.pem"]].concat();
    expect(&site.show("openssl", &verify, 0)?, "output/node.pem: OK")
}

/// Everything behind the first certificate of a PEM chain.
fn after_first_certificate(chain: &str) -> &str {
    const END: &str = "-----END CERTIFICATE-----";
    chain.find(END).map_or("", |at| &chain[at + END.len()..])
}

/// A worker that answers with a quote of before; the decision about it.
fn replay(site: &Site, listen: &str, tcti: &str) -> Result<String, AnyError> {
    site.say("An earlier quote is replayed: denied");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let replayed = runtime.block_on(hostile::replay(site, listen, tcti))?;
    for finding in &replayed.findings {
        site.tell(&format!("{}: {}", finding.code, finding.remedy));
    }
    if replayed.outcome() != pb::Outcome::Deny || !replayed.certificate_chain.is_empty() {
        return Err("a replayed quote was not denied".into());
    }
    expect(&format!("{:?}", replayed.findings), "QUOTE_QUALIFYING_DATA_MISMATCH")?;
    Ok(replayed.decision_id)
}
