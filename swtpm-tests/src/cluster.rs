//! A verifier in this process, and workers on software TPMs: what end-to-end tests are made of.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use attestor::{
    attestation::{Answered, Attester, Settings},
    logs::{EventLogs, LogPaths},
    measure::ToolList,
    tpm::{EkPreference, TpmConfig, TpmHandle, TpmThread},
    trust::{Learned, Trust},
};
use proto::{digest::Digest, pb, spki::ek_digest};
use tempfile::TempDir;
use verifier::{
    attestation::Verifier,
    clock::{Clock, SystemClock},
    documents::Proposal,
    init::{InitOptions, init},
    run::{Running, adopt_first_ring, register_first_admin, start},
    signatures::SecurityPrivateKey,
    store::{By, DocumentId, EndorsementKind, NewNode, NodeStatus, Store},
};

use crate::{firmware::Firmware, manufacturer::Manufacturer, swtpm::Swtpm};

/// Any error of a part.
pub type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// A verifier with its own state, on a free port of the loopback.
#[derive(Debug)]
pub struct Cluster {
    folder: TempDir,
    running: Option<Running>,
    clock: Arc<dyn Clock>,
    config: PathBuf,
}

impl Cluster {
    /// `verifier init` and `verifier serve`, in this process, on the system's clock.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn start() -> Result<Self, AnyError> {
        Self::start_at(Arc::new(SystemClock)).await
    }

    /// As [`Cluster::start`], on a clock of the test's.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn start_at(clock: Arc<dyn Clock>) -> Result<Self, AnyError> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("verifier.toml");
        let report = init(&InitOptions {
            config_path: config.clone(),
            state_dir: folder.path().join("state"),
            trust_domain: "test.example".parse()?,
            // Under the second name, guests on QEMU's user network reach this loopback.
            names: vec!["127.0.0.1".parse()?, "10.0.2.2".parse()?],
            listen: Some("127.0.0.1:0".parse()?),
            admin: "admin".parse()?,
            security_keys: Vec::new(),
            threshold: None,
            now_unix_s: u64::try_from(clock.now_unix_s())?,
        })?;
        register_first_admin(
            &report.config,
            &"admin".parse()?,
            &report.admin_certificate,
            clock.as_ref(),
        )
        .await?;
        adopt_first_ring(&report.config, &report.ring, clock.as_ref()).await?;
        let mut cluster = Self { folder, running: None, clock, config };
        cluster.start_verifier().await?;
        Ok(cluster)
    }

    /// Starts the verifier again on the same state.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn start_verifier(&mut self) -> Result<(), AnyError> {
        let mut config = verifier::config::Config::load(&self.config)?;
        config.metrics_listen = "127.0.0.1:0".parse()?;
        self.running = Some(start(config, Arc::clone(&self.clock)).await?);
        Ok(())
    }

    /// Starts the verifier again with these keys in a table of its configuration.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn configure(&mut self, table: &str, lines: &str) -> Result<(), AnyError> {
        let mut config: toml::Table = std::fs::read_to_string(&self.config)?.parse()?;
        let keys: toml::Table = lines.parse()?;
        let of_the_table = config.entry(table).or_insert_with(|| toml::Table::new().into());
        of_the_table.as_table_mut().ok_or("no table")?.extend(keys);
        std::fs::write(&self.config, config.to_string())?;
        self.stop_verifier().await?;
        self.start_verifier().await
    }

    /// Stops the verifier; its state stays.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn stop_verifier(&mut self) -> Result<(), AnyError> {
        if let Some(running) = self.running.take() {
            running.stop().await?;
        }
        Ok(())
    }

    /// The running verifier's parts.
    ///
    /// # Panics
    /// If it was stopped.
    #[must_use]
    pub fn running(&self) -> &Running {
        self.running.as_ref().expect("the verifier runs")
    }

    /// The verifier.
    #[must_use]
    pub fn verifier(&self) -> &Arc<Verifier> {
        self.running().verifier()
    }

    /// Its store.
    #[must_use]
    pub fn store(&self) -> &Store {
        self.verifier().store()
    }

    /// Folder of `verifier init`: configuration and state.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Who did it, in tests.
    #[must_use]
    pub fn by(&self) -> By {
        By::new("admin/test", self.clock.now_unix_s())
    }

    /// Imports a manufacturer's root.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn trust(&self, manufacturer: &Manufacturer) -> Result<(), AnyError> {
        let kind = EndorsementKind::Root;
        let root = manufacturer.root_der()?;
        self.store().import_endorsement(kind, root, "test root", self.by()).await?;
        let kind = EndorsementKind::Intermediate;
        let intermediate = manufacturer.intermediate_der()?;
        self.store().import_endorsement(kind, intermediate, "test ca", self.by()).await?;
        self.verifier().reload().await?;
        Ok(())
    }

    /// Adds an active node for an EK.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn add_node(&self, name: &str, pool: &str, ek: Digest) -> Result<(), AnyError> {
        self.add_node_as(name, pool, ek, None).await
    }

    /// As [`Cluster::add_node`], with what vouches for it besides its certificate.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn add_node_as(
        &self,
        name: &str,
        pool: &str,
        ek: Digest,
        admitted_by: Option<&str>,
    ) -> Result<(), AnyError> {
        let node = NewNode {
            name: name.to_owned(),
            ek_digest: ek,
            pool: pool.to_owned(),
            status: NodeStatus::Active,
            ek_certificate: None,
            ek_chain: Vec::new(),
            manufacturer: None,
            admitted_by: admitted_by.map(str::to_owned),
            note: String::new(),
        };
        self.store().add_node(node, self.by()).await?;
        Ok(())
    }

    /// Captures a golden set from what a node proved last, changed by `edit`, and puts it in force.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn golden_from(
        &self,
        node: &str,
        edit: impl FnOnce(String) -> String,
    ) -> Result<String, AnyError> {
        let text = edit(self.captured(node).await?);
        self.put_in_force(&text).await?;
        Ok(text)
    }

    /// A golden set from what a node proved last.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn captured(&self, node: &str) -> Result<String, AnyError> {
        let node = self.store().node(node).await?.ok_or("no such node")?;
        let pcr = self.verifier().settings().tool_pcr;
        let captured =
            verifier::capture::capture(self.store(), &[node], "", pcr, &self.by()).await?;
        Ok(captured)
    }

    /// Proposes, signs and activates a document, whatever it does to the fleet.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn put_in_force(&self, text: &str) -> Result<DocumentId, AnyError> {
        let id = self.propose_signed(text).await?;
        self.verifier().activate(&id, false, true, self.by()).await?;
        Ok(id)
    }

    /// Proposes and signs a document.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn propose_signed(&self, text: &str) -> Result<DocumentId, AnyError> {
        let proposal = Proposal {
            text: text.to_owned(),
            envelope: Vec::new(),
            origin: "a test".to_owned(),
            is_observed: false,
        };
        let id = self.verifier().propose(proposal, self.by()).await?;
        let document = self.verifier().document(&id).await?;
        let mut envelope = self.verifier().envelope(&document).await?;
        envelope.add(self.security_key()?.sign(&envelope.pae())?)?;
        self.verifier().sign(&id, envelope.to_json().as_bytes(), self.by()).await?;
        Ok(id)
    }

    /// The key that signs golden sets: the one that init made.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn security_key(&self) -> Result<SecurityPrivateKey, AnyError> {
        Ok(SecurityPrivateKey::read(&self.folder().join("state/admin/security.key"))?)
    }

    /// A worker on this TPM, with a tool list of its own.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn worker(&self, tcti: &str, tools: &Tools) -> Result<Worker, AnyError> {
        self.worker_with(tcti, tools, EkPreference::Auto).await
    }

    /// As [`Cluster::worker`], with an EK preference.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn worker_with(
        &self,
        tcti: &str,
        tools: &Tools,
        ek: EkPreference,
    ) -> Result<Worker, AnyError> {
        let trust = Trust::CaFile(self.folder().join("state/bundle.pem"));
        self.start_worker(tcti, tools, ek, trust).await
    }

    /// As [`Cluster::worker`], with another trust in the verifier.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn worker_trusting(
        &self,
        tcti: &str,
        tools: &Tools,
        trust: Trust,
    ) -> Result<Worker, AnyError> {
        self.start_worker(tcti, tools, EkPreference::Auto, trust).await
    }

    async fn start_worker(
        &self,
        tcti: &str,
        tools: &Tools,
        ek: EkPreference,
        trust: Trust,
    ) -> Result<Worker, AnyError> {
        let config = TpmConfig { tcti: tcti.parse()?, ek, ..TpmConfig::default() };
        let (tpm, thread) = TpmHandle::start(config).await?;
        let settings = Settings {
            url: format!("https://127.0.0.1:{}", self.running().address.port()),
            trust,
            tool_pcr: self.verifier().settings().tool_pcr,
        };
        let logs = EventLogs::open(tools.logs());
        let (list, state, bundle) = (tools.list()?, tools.state(), Learned::default());
        let attester = Attester::open(settings, tpm.clone(), list, logs, state, bundle).await?;
        Ok(Worker { attester, tpm, thread })
    }

    /// The last decision's recorded verdict.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn verdict(&self, id: &str) -> Result<serde_json::Value, AnyError> {
        let bytes = self.store().verdict(id).await?.ok_or("no such decision")?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}

/// A worker: the attestor's library on one TPM.
#[derive(Debug)]
pub struct Worker {
    /// The attestor.
    pub attester: Attester,
    /// Its TPM.
    pub tpm: TpmHandle,
    thread: TpmThread,
}

impl Worker {
    /// Attests once.
    ///
    /// # Errors
    /// No verdict.
    pub async fn attest(&mut self) -> Result<Answered, AnyError> {
        Ok(self.attester.attest().await?)
    }

    /// Attests, and expects to be admitted.
    ///
    /// # Panics
    /// On a denial or no verdict.
    pub async fn admitted(&mut self) -> Answered {
        let answered = self.attester.attest().await.expect("a verdict");
        let result = &answered.result;
        assert_eq!(result.outcome(), pb::Outcome::Admit, "{:#?}", result.findings);
        assert!(!result.certificate_chain.is_empty());
        answered
    }

    /// Attests, and expects exactly these codes and no certificate; returns the result.
    ///
    /// # Panics
    /// On anything else.
    pub async fn denied(&mut self, codes: &[&str]) -> pb::AttestationResult {
        let result = self.attester.attest().await.expect("a verdict").result;
        assert_denied(&result, codes);
        result
    }

    /// Ends the TPM thread, so that the TPM is free for another user.
    pub async fn stop(self) {
        let Self { attester, tpm, thread } = self;
        drop(attester);
        drop(tpm);
        thread.ended().await;
    }
}

/// A denial with exactly these codes, and no certificate.
///
/// # Panics
/// On anything else.
pub fn assert_denied(result: &pb::AttestationResult, codes: &[&str]) {
    let found: Vec<&str> = result.findings.iter().map(|finding| finding.code.as_str()).collect();
    assert_eq!(result.outcome(), pb::Outcome::Deny, "admitted, expected {codes:?}");
    assert_eq!(found, codes, "{:#?}", result.findings);
    assert!(result.certificate_chain.is_empty(), "a denied worker got a certificate");
}

/// Tools of a worker, and the folder of its tool log.
#[derive(Debug)]
pub struct Tools {
    folder: TempDir,
    state: PathBuf,
    logs: LogPaths,
    /// Entries of the list besides compiler and linker.
    more: String,
}

impl Tools {
    /// Two tools: a compiler of two files and a linker.
    ///
    /// # Errors
    /// The file system.
    pub fn new() -> Result<Self, AnyError> {
        let folder = tempfile::tempdir()?;
        for name in ["bin", "state"] {
            std::fs::create_dir(folder.path().join(name))?;
        }
        let state = folder.path().join("state");
        let tools = Self { folder, state, logs: LogPaths::none(), more: String::new() };
        tools.write("cc", b"compiler 12.2.0")?;
        tools.write("cc1", b"compiler proper 12.2.0")?;
        tools.write("ld", b"linker 2.40")?;
        Ok(tools)
    }

    /// Writes a tool's file.
    ///
    /// # Errors
    /// The file system.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), AnyError> {
        Ok(std::fs::write(self.path(name), content)?)
    }

    /// The worker also has this firmware event log: written now, sent when it is asked for.
    ///
    /// # Errors
    /// The file system.
    pub fn firmware_log(&mut self, log: &[u8]) -> Result<(), AnyError> {
        let path = self.folder.path().join("binary_bios_measurements");
        std::fs::write(&path, log)?;
        self.logs.uefi = Some(path);
        Ok(())
    }

    /// The worker has no firmware event log any more.
    pub fn no_firmware_log(&mut self) {
        self.logs.uefi = None;
    }

    /// Logs that the worker has besides its tool log.
    #[must_use]
    pub const fn logs(&self) -> &LogPaths {
        &self.logs
    }

    /// Path of a tool's file.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("bin").join(name)
    }

    /// Folder of the tool log.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The list also has these entries.
    pub fn declare(&mut self, entries: &str) {
        self.more.push_str(entries);
    }

    /// The tool list.
    ///
    /// # Errors
    /// A bad list.
    pub fn list(&self) -> Result<ToolList, AnyError> {
        Ok(ToolList::parse(&self.list_text())?)
    }

    /// The tool list as a file has it.
    #[must_use]
    pub fn list_text(&self) -> String {
        let bin = self.folder.path().join("bin");
        let bin = bin.display();
        format!(
            "[[tool]]\nname = \"cc\"\npaths = [\"{bin}/cc*\"]\n\n[[tool]]\nname = \"ld\"\npaths = \
             [\"{bin}/ld\"]\nrequired = false\n{more}",
            more = self.more
        )
    }
}

/// Digest of the EK that a worker on this TPM will show, as `attestor inspect` prints it.
///
/// # Errors
/// Whatever the TPM says.
pub async fn ek_of(tcti: &str, ek: EkPreference) -> Result<Digest, AnyError> {
    let config = TpmConfig { tcti: tcti.parse()?, ek, ..TpmConfig::default() };
    let (tpm, thread) = TpmHandle::start(config).await?;
    let identity = tpm.enroll().await?;
    drop(tpm);
    thread.ended().await;
    Ok(ek_digest(&identity.ek.public))
}

/// A manufactured TPM whose firmware has booted.
///
/// # Errors
/// Whatever the harness says.
pub fn booted(tpm: Swtpm) -> Result<Swtpm, AnyError> {
    Firmware::default().boot_swtpm(&tpm)?;
    Ok(tpm)
}
