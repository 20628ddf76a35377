//! The main job, shown with the real programs: a software TPM, `verifier` on SQLite, `attestor`.
//!
//! A worker enrols, its state is captured as a golden set, it receives a certificate that openssl accepts; then
//! a tampered tool and a replayed quote are denied, each with its reason and no certificate.

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use attestor::{
    client::{Answer, Conversation, DEADLINES, connect},
    tpm::{TpmConfig, TpmHandle},
    trust::{Learned, Trust},
};
use proto::{
    binding::{Purpose, QualifyingData},
    digest::{Digest, HashAlg},
    evidence::{ChallengeParts, PROTOCOL_VERSION},
    pb,
};
use swtpm_tests::{
    cluster::{AnyError, Tools},
    firmware::Firmware,
    swtpm::{Swtpm, SwtpmOptions},
};

/// How long the verifier may take to listen.
const START_DEADLINE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    attestor::tpm::quiet::silence_tss_log();
    match Demo::new().and_then(|demo| demo.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Demo {
    folder: tempfile::TempDir,
    programs: PathBuf,
    tools: Tools,
}

/// A child that is ended, by its own id, when the demo ends.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Demo {
    fn new() -> Result<Self, AnyError> {
        let programs = env::current_exe()?.parent().ok_or("no folder of programs")?.to_owned();
        for program in ["verifier", "attestor"] {
            if !programs.join(program).is_file() {
                return Err(format!(
                    "{} is not built; run `cargo xtask demo`",
                    programs.join(program).display()
                )
                .into());
            }
        }
        Ok(Self { folder: tempfile::tempdir()?, programs, tools: Tools::new()? })
    }

    fn run(&self) -> Result<(), AnyError> {
        say(
            "A worker: a software TPM with an EK certificate of a test manufacturer, firmware booted",
        );
        let tpm = Swtpm::start(SwtpmOptions::default())?;
        let firmware_log = Firmware::default().boot_swtpm(&tpm)?;
        fs::write(self.path("binary_bios_measurements"), firmware_log)?;
        let tcti = tpm.tcti();
        let inspection: serde_json::Value = serde_json::from_str(&self.attestor(
            &["inspect", "--json", "--tcti", &tcti],
            // Logs are missing on a software TPM: inspect says so and exits with 3.
            &[0, 3],
        )?)?;
        let ek = inspection["endorsement_keys"][0]["ek_digest"]
            .as_str()
            .ok_or("inspect shows no EK digest")?
            .to_owned();
        println!("TPM at {tcti}, EK {ek}");

        say("A verifier: CA, database, first administrator");
        let port = free_port()?;
        let listen = format!("127.0.0.1:{port}");
        let metrics = format!("127.0.0.1:{}", free_port()?);
        self.verifier(&[
            "init",
            "--trust-domain",
            "demo.example",
            "--name",
            "127.0.0.1",
            "--listen",
            &listen,
        ])?;
        let config = fs::read_to_string(self.path("verifier.toml"))?;
        fs::write(self.path("verifier.toml"), with_metrics(&config, &metrics))?;
        let _serving = self.serve(&listen)?;

        say("The security team trusts the manufacturer and adds the machine");
        let manufacturer = tpm.manufacturer();
        let roots = self.path("roots");
        fs::create_dir_all(roots.join("RootCA"))?;
        fs::create_dir_all(roots.join("IntermediateCA"))?;
        fs::write(roots.join("RootCA/root.pem"), manufacturer.root_pem()?)?;
        fs::write(roots.join("IntermediateCA/ca.pem"), manufacturer.intermediate_pem()?)?;
        self.show(&["roots", "import", &text(&roots)])?;
        self.show(&["nodes", "add", "worker-1", "--pool", "linux", "--ek-digest", &ek])?;

        say(
            "First attestation: genuine, but nothing says yet what is expected: denied and recorded",
        );
        self.write_worker_config(&listen, &tcti)?;
        let first =
            self.attestor(&["once", "--config", &text(&self.path("attestor.toml"))], &[3])?;
        print!("{first}");
        expect(&first, "POLICY_NO_REFERENCE_VALUES")?;

        say("Its state becomes the golden set of pool linux");
        let golden = self.verifier(&["golden", "capture", "worker-1"])?;
        let set = self.path("linux.toml");
        fs::write(&set, &golden)?;
        println!("{}", golden.lines().take(8).collect::<Vec<_>>().join("\n"));
        println!("… ({} lines)", golden.lines().count());
        self.show(&["golden", "check", &text(&set)])?;
        let key = text(&self.path("state/admin/security.key"));
        self.show(&["golden", "apply", &text(&set), "--key", &key, "--yes"])?;

        say("Second attestation: admitted; the certificate is for a key that lives in the TPM");
        let once = ["once", "--config", &text(&self.path("attestor.toml"))].map(str::to_owned);
        let once: Vec<&str> = once.iter().map(String::as_str).collect();
        print!("{}", self.attestor(&once, &[0])?);
        let output = self.path("output");
        let issuing = output.join("issuing.pem");
        let chain = fs::read_to_string(output.join("node.pem"))?;
        fs::write(&issuing, after_first_certificate(&chain))?;
        let verified = run(
            Command::new("openssl")
                .args(["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile"])
                .arg(output.join("bundle.pem"))
                .arg("-untrusted")
                .arg(&issuing)
                .arg(output.join("node.pem")),
            &[0],
        )?;
        print!("$ openssl verify …\n{verified}");
        expect(&verified, "OK")?;

        say("A compiler is tampered with: denied, naming the file; the certificate is withdrawn");
        self.tools.write("cc1", b"compiler proper 12.2.0 with a gift")?;
        let denied = self.attestor(&once, &[3])?;
        print!("{denied}");
        expect(&denied, "POLICY_TOOL_NOT_ALLOWED")?;
        expect(&denied, "/cc1")?;
        no_certificate(&output)?;
        self.tools.write("cc1", b"compiler proper 12.2.0")?;

        say("An earlier quote is replayed: denied");
        let replayed = runtime()?.block_on(self.replay(&listen, &tcti))?;
        for finding in &replayed.findings {
            println!("{}: {}", finding.code, finding.remedy);
        }
        if replayed.outcome() != pb::Outcome::Deny || !replayed.certificate_chain.is_empty() {
            return Err("a replayed quote was not denied".into());
        }
        expect(&format!("{:?}", replayed.findings), "QUOTE_QUALIFYING_DATA_MISMATCH")?;

        say("Every decision can be judged again offline, and the audit chain checked");
        let decision = replayed.decision_id.as_str();
        self.show(&["replay", decision])?;
        self.show(&["audit", "verify"])?;
        println!("\nDone: one certificate for the honest worker, none for the others.");
        Ok(())
    }

    /// A hostile worker with a genuine TPM: attests once by hand, then answers the next challenge with the
    /// evidence of the first.
    async fn replay(&self, listen: &str, tcti: &str) -> Result<pb::AttestationResult, AnyError> {
        let config = TpmConfig { tcti: tcti.parse()?, ..TpmConfig::default() };
        let (tpm, thread) = TpmHandle::start(config).await?;
        let identity = tpm.enroll().await?;
        let hello = pb::Hello {
            protocol_version: PROTOCOL_VERSION,
            ek_public: identity.ek.public.as_bytes().to_vec(),
            ek_certificate: identity.ek.certificate.clone().unwrap_or_default(),
            ek_chain: identity.ek_chain.clone(),
            ak_public: identity.ak_public.as_bytes().to_vec(),
            logs: Vec::new(),
            attestor_version: "hostile".into(),
            job: None,
        };
        let trust = Trust::CaFile(self.path("state/bundle.pem"));
        let url = format!("https://{listen}");
        let log = fs::read(self.path("worker-state/tool.log"))?;
        let mut kept = None;
        let mut result = pb::AttestationResult::default();
        for _ in 0..2 {
            let channel = connect(&url, &trust.read()?, &Learned::default(), &DEADLINES).await?;
            let (conversation, answer) =
                Conversation::begin(channel, hello.clone(), &DEADLINES).await?;
            let Answer::Challenge(challenge) = answer else {
                return Err("the hostile worker was refused before its challenge".into());
            };
            let challenge = ChallengeParts::try_from(*challenge)?;
            let evidence = match kept.clone() {
                Some(evidence) => evidence,
                None => self.honest_evidence(&tpm, &challenge, &log).await?,
            };
            kept = Some(evidence.clone());
            let logs = challenge
                .logs_wanted
                .iter()
                .map(|(kind, from)| {
                    let from_byte = usize::try_from(*from).unwrap_or(usize::MAX);
                    (kind.to_pb(), *from, log.get(from_byte..).unwrap_or_default().to_vec())
                })
                .collect();
            result = conversation.finish(evidence, logs).await?;
        }
        drop(tpm);
        thread.ended().await;
        Ok(result)
    }

    async fn honest_evidence(
        &self,
        tpm: &TpmHandle,
        challenge: &ChallengeParts,
        log: &[u8],
    ) -> Result<pb::Evidence, AnyError> {
        let (id_object, secret) = challenge.credential.clone().ok_or("no credential")?;
        let activation_secret = tpm.activate_credential(id_object, secret).await?.to_vec();
        let key = tpm.create_node_key().await?;
        let name = key.public().name();
        let data =
            QualifyingData::for_node_key(&challenge.challenge, &challenge.verifier_id, &name);
        let certify = tpm.certify_node_key(key.clone(), *data.as_bytes()).await?;
        let mut head = Digest::zero(HashAlg::Sha256);
        for event in proto::tool_log::ToolLogReader::new(log).flatten() {
            head = HashAlg::Sha256.hash(&[head.as_bytes(), event.content_digest().as_bytes()]);
        }
        let data = QualifyingData::for_quote(
            &Purpose::Node,
            &challenge.challenge,
            &challenge.verifier_id,
            &name,
            &head,
        );
        let quote = tpm.quote(*data.as_bytes(), challenge.pcr_selection.clone()).await?;
        let values = tpm.read_pcrs(challenge.pcr_selection.clone()).await?;
        let signed = |attest: attestor::tpm::SignedAttest| pb::SignedAttest {
            attest: attest.attest,
            signature: attest.signature,
        };
        Ok(pb::Evidence {
            activation_secret,
            quote: Some(signed(quote)),
            pcr_values: values
                .into_iter()
                .map(|value| pb::PcrValue {
                    hash_alg: u32::from(value.bank.tpm_id()),
                    index: u32::from(value.index.get()),
                    digest: value.digest.as_bytes().to_vec(),
                })
                .collect(),
            node_key: Some(pb::NodeKey {
                public: key.public().as_bytes().to_vec(),
                parent_public: key.parent_public().as_bytes().to_vec(),
                certify: Some(signed(certify)),
            }),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn serve(&self, listen: &str) -> Result<Ended, AnyError> {
        let log = fs::File::create(self.path("verifier.log"))?;
        let mut child = Command::new(self.programs.join("verifier"))
            .args(self.common())
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let started = Instant::now();
        while std::net::TcpStream::connect(listen).is_err() {
            if child.try_wait()?.is_some() || started.elapsed() > START_DEADLINE {
                let _ = child.kill();
                let log = fs::read_to_string(self.path("verifier.log"))?;
                return Err(format!("the verifier did not start:\n{log}").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        println!("$ verifier serve   (listening on {listen})");
        Ok(Ended(child))
    }

    fn write_worker_config(&self, listen: &str, tcti: &str) -> Result<(), AnyError> {
        fs::create_dir_all(self.path("worker-state"))?;
        fs::write(self.path("tools.toml"), self.tools.list_text())?;
        let config = format!(
            "[verifier]\nurl = \"https://{listen}\"\nca_file = \"{ca}\"\n\n[tpm]\ntcti = \"{tcti}\"\n\n\
             [tools]\nlist = \"{tools}\"\n\n[logs]\nuefi = \"{uefi}\"\nima = \"none\"\nsystemd = \"none\"\n\n\
             [daemon]\nstate_dir = \"{state}\"\noutput_dir = \"{output}\"\n",
            ca = self.path("state/bundle.pem").display(),
            tools = self.path("tools.toml").display(),
            uefi = self.path("binary_bios_measurements").display(),
            state = self.path("worker-state").display(),
            output = self.path("output").display(),
        );
        Ok(fs::write(self.path("attestor.toml"), config)?)
    }

    fn common(&self) -> [String; 4] {
        [
            "--config".into(),
            text(&self.path("verifier.toml")),
            "--state".into(),
            text(&self.path("state")),
        ]
    }

    fn verifier(&self, arguments: &[&str]) -> Result<String, AnyError> {
        println!("$ verifier {}", shown(arguments));
        run(Command::new(self.programs.join("verifier")).args(self.common()).args(arguments), &[0])
    }

    fn show(&self, arguments: &[&str]) -> Result<(), AnyError> {
        let printed = self.verifier(arguments)?;
        print!("{printed}");
        Ok(())
    }

    fn attestor(&self, arguments: &[&str], codes: &[i32]) -> Result<String, AnyError> {
        println!("$ attestor {}", shown(arguments));
        let mut command = Command::new(self.programs.join("attestor"));
        run(command.args(["--log", "warn"]).args(arguments), codes)
    }
}

fn say(what: &str) {
    println!("\n== {what}");
}

/// Arguments without the temporary folder's path.
fn shown(arguments: &[&str]) -> String {
    let short = |argument: &&str| match Path::new(argument).file_name() {
        Some(name) if argument.starts_with('/') => name.to_string_lossy().into_owned(),
        _ => (*argument).to_owned(),
    };
    arguments.iter().map(short).collect::<Vec<_>>().join(" ")
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Runs a program; its standard output, if it ended with one of `codes`.
fn run(command: &mut Command, codes: &[i32]) -> Result<String, AnyError> {
    let output = command.stdin(Stdio::null()).output()?;
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code().is_some_and(|code| codes.contains(&code)) {
        return Ok(out.into_owned());
    }
    Err(format!("{command:?} ended with {}, expected {codes:?}\n{out}{err}", output.status).into())
}

fn expect(printed: &str, wanted: &str) -> Result<(), AnyError> {
    if printed.contains(wanted) {
        return Ok(());
    }
    Err(format!("expected {wanted} in:\n{printed}").into())
}

fn no_certificate(output: &Path) -> Result<(), AnyError> {
    if output.join("node.pem").exists() {
        return Err("a denied worker still has its certificate".into());
    }
    Ok(())
}

/// Everything behind the first certificate of a PEM chain.
fn after_first_certificate(chain: &str) -> &str {
    const END: &str = "-----END CERTIFICATE-----";
    chain.find(END).map_or("", |at| &chain[at + END.len()..])
}

/// The configuration with metrics on another address: the default one may be in use.
fn with_metrics(config: &str, address: &str) -> String {
    let mut lines: Vec<String> = config
        .lines()
        .filter(|line| !line.trim_start().starts_with("metrics_listen"))
        .map(str::to_owned)
        .collect();
    let section = lines.iter().position(|line| line.trim() == "[service]");
    let at = section.map_or(lines.len(), |at| at + 1);
    lines.insert(at, format!("metrics_listen = \"{address}\""));
    lines.join("\n") + "\n"
}

fn free_port() -> Result<u16, AnyError> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn runtime() -> Result<tokio::runtime::Runtime, AnyError> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
