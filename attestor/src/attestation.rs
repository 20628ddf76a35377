//! One attestation: measure, say Hello, answer the challenge, keep what comes back.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use proto::{
    binding::{Purpose, QualifyingData, VerifierId},
    digest::{Digest, HashAlg, PcrIndex, PcrSelection, PcrSet},
    evidence::{ChallengeParts, EvidenceError, LogKind, PROTOCOL_VERSION},
    pb,
    permit::JobRequest,
    tpm::attest::{Attest, Attested},
};

use tokio::sync::watch;

use crate::{
    client::{Answer, ClientError, Conversation, DEADLINES, connect},
    logs::{EventLogError, EventLogs},
    measure::{
        self, Cache, Measured, Options, ToolList,
        log::{LogError, LogState, ToolLog},
    },
    tpm::{Identity, NodeKey, PcrValue, SignedAttest, TpmError, TpmHandle},
    trust::{Learned, Trust},
};

/// Quotes tried until values and digest agree: PCRs move while a machine boots, and then rest.
const QUOTE_ATTEMPTS: usize = 5;

/// Codes after which the boot has to be proven anew: new AK, activation, whole logs, new node key.
///
/// A qualifyingData mismatch on a renewal means that verifier and worker remember different node keys.
const PROVE_AGAIN: [&str; 9] = [
    "EVENT_LOG_STALE",
    "IMA_OFFSET_INVALID",
    "IMA_WRONG_PCR",
    "POLICY_BOOT_LOG_MISSING",
    "QUOTE_BOOT_CHANGED",
    "QUOTE_FIRMWARE_CHANGED",
    "QUOTE_QUALIFYING_DATA_MISMATCH",
    "TOOL_LOG_OFFSET_INVALID",
    "AK_ACTIVATION_FAILED",
];

/// A job's permit stands on a boot that the verifier has on record.
const BOOT_UNPROVEN: &str = "JOB_BOOT_UNPROVEN";

/// Longest time between attestations, whatever the verifier asks for.
const MAX_RENEWAL_DELAY: Duration = Duration::from_secs(24 * 3600);

/// What stays the same while the daemon runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `https://host:port`.
    pub url: String,
    /// What the verifier is trusted by.
    pub trust: Trust,
    /// PCR of the tool log.
    pub tool_pcr: PcrIndex,
}

/// The worker's side of attestation, with what it knows of this boot.
#[derive(Debug)]
pub struct Attester {
    settings: Settings,
    tpm: TpmHandle,
    list: Arc<ToolList>,
    /// Measurements and log are files: touched on blocking threads only.
    local: Arc<Mutex<Local>>,
    identity: Option<Identity>,
    node_key: Option<NodeKey>,
    /// PCR values as last read, so that a steady renewal costs one TPM command.
    pcr_values: Vec<PcrValue>,
    /// Roots from the last admission.
    bundle: watch::Sender<Learned>,
}

/// A log's bytes from an offset on, as they are sent.
type Suffix = (pb::LogKind, u64, Vec<u8>);

#[derive(Debug)]
struct Local {
    cache: Cache,
    log: ToolLog,
    reconciled: bool,
    others: EventLogs,
}

/// Why there was no verdict.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttestError {
    /// The TPM.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The tool log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A log of firmware, kernel or systemd.
    #[error("a measurement log cannot be sent: {0}")]
    EventLog(#[from] EventLogError),
    /// The verifier or the way to it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The verifier's challenge is malformed.
    #[error("the verifier's challenge is malformed")]
    Challenge(#[from] EvidenceError),
    /// PCR values and quote never agreed.
    #[error("PCR values kept changing while they were quoted ({QUOTE_ATTEMPTS} attempts)")]
    PcrsMoving,
    /// The verifier asked for the log from beyond its end: it knows another boot.
    #[error("the verifier asked for the tool log from byte {wanted}, and it has {have}")]
    OtherLog {
        /// From where it was asked for.
        wanted: u64,
        /// Bytes there are.
        have: u64,
    },
    /// A blocking task ended.
    #[error("a measuring task ended without an answer")]
    Task,
}

/// What an attestation gave.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The verifier's answer.
    pub result: pb::AttestationResult,
    /// The node key that the certificate is for.
    pub node_key: Option<NodeKey>,
    /// Tools as measured for this attestation.
    pub measured: Measured,
    /// Roots to trust from now on; changed by an admission only.
    pub bundle: Learned,
    /// The fleet that the challenge was of; `None` where there was none.
    pub verifier_id: Option<VerifierId>,
}

impl Answered {
    /// Whether the node has to prove itself before it can vouch for a job.
    #[must_use]
    pub fn needs_proof(&self) -> bool {
        let mut codes = self.result.findings.iter().map(|finding| finding.code.as_str());
        codes.any(|code| code == BOOT_UNPROVEN) || wants_proof(&self.result)
    }
}

impl Attester {
    /// Opens the tool log for the TPM's banks.
    ///
    /// `directory` must exist. `bundle` is what an earlier run learned, empty if there was none.
    ///
    /// # Errors
    /// [`AttestError::Tpm`], [`AttestError::Log`].
    pub async fn open(
        settings: Settings,
        tpm: TpmHandle,
        list: ToolList,
        mut others: EventLogs,
        directory: &std::path::Path,
        bundle: Learned,
    ) -> Result<Self, AttestError> {
        let facts = tpm.facts().await?;
        let banks: Vec<HashAlg> = facts.appraised_banks().collect();
        let pcr = settings.tool_pcr;
        let (others, start) = tokio::task::spawn_blocking(move || {
            let start = others.firmware_value(pcr, &banks);
            (others, start)
        })
        .await
        .map_err(|_| AttestError::Task)?;
        let log = ToolLog::open(directory, settings.tool_pcr, &start)?;
        Ok(Self {
            settings,
            tpm,
            list: Arc::new(list),
            local: Arc::new(Mutex::new(Local {
                cache: Cache::new(),
                log,
                reconciled: false,
                others,
            })),
            identity: None,
            node_key: None,
            pcr_values: Vec::new(),
            bundle: watch::Sender::new(bundle),
        })
    }

    /// Measures the tools and records what changed, in the log and in the PCR.
    ///
    /// # Errors
    /// [`AttestError::Log`] where a tool's state is unknown, the PCR is not ours, or the disk is full.
    pub async fn measure(&mut self, fresh: bool) -> Result<Measured, AttestError> {
        let (local, list, tpm) =
            (Arc::clone(&self.local), Arc::clone(&self.list), self.tpm.clone());
        let pcr = self.settings.tool_pcr;
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let mut local = local.lock().unwrap_or_else(PoisonError::into_inner);
            let options = Options { fresh, ..Options::default() };
            let measured = measure::measure(&list, &mut local.cache, options, &|_| {});
            let extend = |digests: &[Digest]| runtime.block_on(tpm.extend(pcr, digests.to_vec()));
            if !local.reconciled {
                let selection = PcrSelection::new(
                    local.log.state().banks().map(|bank| (bank, PcrSet::from_iter([pcr]))),
                );
                let values = runtime.block_on(tpm.read_pcrs(selection))?;
                let values: Vec<Digest> = values.into_iter().map(|value| value.digest).collect();
                match local.log.reconcile(&values, extend)? {
                    LogState::InSync => {}
                    LogState::AheadBy { events } => {
                        tracing::info!(
                            events,
                            "extended tool events that an earlier run had only logged"
                        );
                    }
                    LogState::NewBoot => {
                        tracing::info!("the tool log begins anew: this is another boot")
                    }
                    LogState::Foreign => return Err(LogError::Foreign { pcr }.into()),
                }
                local.reconciled = true;
            }
            let changed = local.log.changed_events(&measured)?;
            if let Err(error) = local.log.record(&changed, extend) {
                // What was logged and not extended is healed by the next comparison.
                local.reconciled = false;
                return Err(error.into());
            }
            for tool in &changed {
                tracing::info!(tool = tool.name(), digest = %tool.digest(), "measured");
            }
            Ok(measured)
        })
        .await
        .map_err(|_| AttestError::Task)?
    }

    /// Attests once; proves the boot again, once, where the verifier or the TPM asks for it.
    ///
    /// # Errors
    /// [`AttestError`] where there was no verdict.
    pub async fn attest(&mut self) -> Result<Answered, AttestError> {
        let renewal = self.identity.is_some();
        match self.try_attest(None).await {
            Ok(answered) if renewal && wants_proof(&answered.result) => {
                tracing::info!("proving this boot again");
                self.forget_boot();
                self.try_attest(None).await
            }
            Err(AttestError::Tpm(error)) if renewal && error.needs_enrollment() => {
                tracing::info!(%error, "the TPM lost our keys; proving this boot anew");
                self.forget_boot();
                self.try_attest(None).await
            }
            Err(error @ AttestError::OtherLog { .. }) if renewal => {
                tracing::info!(%error, "proving this boot anew");
                self.forget_boot();
                self.try_attest(None).await
            }
            other => other,
        }
    }

    /// Proves this worker for a job, with every tool measured anew: the answer has a permit, or says why not.
    ///
    /// Where the answer [needs proof](Answered::needs_proof), the node attests first, and the job asks again.
    ///
    /// # Errors
    /// [`AttestError`] where there was no verdict.
    pub async fn permit(&mut self, job: pb::JobRequest) -> Result<Answered, AttestError> {
        self.try_attest(Some(job)).await
    }

    /// Events in this boot's tool log.
    #[must_use]
    pub fn log_events(&self) -> u64 {
        self.local.lock().unwrap_or_else(PoisonError::into_inner).log.state().events
    }

    /// Roots that the verifier named last.
    #[must_use]
    pub fn bundle(&self) -> Learned {
        self.bundle.borrow().clone()
    }

    /// The same, from now on.
    #[must_use]
    pub fn learned(&self) -> watch::Receiver<Learned> {
        self.bundle.subscribe()
    }

    /// Makes the next attestation prove the boot from the start.
    pub fn forget_boot(&mut self) {
        self.identity = None;
        self.node_key = None;
        self.pcr_values.clear();
        self.local.lock().unwrap_or_else(PoisonError::into_inner).reconciled = false;
    }

    async fn try_attest(&mut self, job: Option<pb::JobRequest>) -> Result<Answered, AttestError> {
        let purpose = match job.clone().map(JobRequest::try_from).transpose()? {
            Some(job) => Purpose::Permit(job.binding()),
            None => Purpose::Node,
        };
        let measured = self.measure(job.is_some()).await?;
        let identity = match &self.identity {
            Some(identity) => identity.clone(),
            None => {
                let identity = self.tpm.enroll().await?;
                self.identity = Some(identity.clone());
                identity
            }
        };
        let given = self.settings.trust.read().map_err(ClientError::from)?;
        if !self.bundle().is_empty() && !self.bundle().holds_under(&given) {
            tracing::warn!(
                "another CA file or pin is given: the roots learned before count no more"
            );
            self.bundle.send_replace(Learned::default());
        }
        let channel = connect(&self.settings.url, &given, &self.bundle(), &DEADLINES).await?;
        let hello = pb::Hello { job, ..self.hello(&identity).await? };
        let (conversation, answer) = Conversation::begin(channel, hello, &DEADLINES).await?;
        let challenge = match answer {
            Answer::Challenge(challenge) => ChallengeParts::try_from(*challenge)?,
            Answer::Result(result) => {
                let bundle = self.bundle();
                let (node_key, verifier_id) = (None, None);
                return Ok(Answered { result: *result, node_key, measured, bundle, verifier_id });
            }
        };
        let (evidence, logs) = self.evidence(&challenge, &purpose).await?;
        let result = conversation.finish(evidence, logs, &DEADLINES).await?;
        // Only an admission changes whom the worker trusts, and only to certificates that can be used.
        if result.outcome() == pb::Outcome::Admit && usable(&result.trust_bundle) {
            self.bundle.send_replace(given.learned(result.trust_bundle.clone()));
        }
        let (node_key, bundle) = (self.node_key.clone(), self.bundle());
        let verifier_id = Some(challenge.verifier_id);
        Ok(Answered { result, node_key, measured, bundle, verifier_id })
    }

    async fn hello(&self, identity: &Identity) -> Result<pb::Hello, AttestError> {
        let logs = self
            .on_files(|local| {
                let tools = (LogKind::Tools, local.log.state().bytes);
                // How long the others are shows when they are read; that they are there is enough here.
                let others = local.others.kinds().into_iter().map(|kind| (kind, 0));
                Ok(std::iter::once(tools).chain(others).collect::<Vec<_>>())
            })
            .await?;
        Ok(pb::Hello {
            protocol_version: PROTOCOL_VERSION,
            ek_public: identity.ek.public.as_bytes().to_vec(),
            ek_certificate: identity.ek.certificate.clone().unwrap_or_default(),
            ek_chain: identity.ek_chain.clone(),
            ak_public: identity.ak_public.as_bytes().to_vec(),
            logs: logs
                .into_iter()
                .map(|(kind, size_bytes)| pb::LogState { kind: kind.to_pb().into(), size_bytes })
                .collect(),
            attestor_version: env!("CARGO_PKG_VERSION").to_owned(),
            job: None,
        })
    }

    /// Runs what reads or writes files where it may block.
    async fn on_files<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Local) -> Result<T, AttestError> + Send + 'static,
    ) -> Result<T, AttestError> {
        let local = Arc::clone(&self.local);
        tokio::task::spawn_blocking(move || {
            work(&mut local.lock().unwrap_or_else(PoisonError::into_inner))
        })
        .await
        .map_err(|_| AttestError::Task)?
    }

    /// Answers a challenge: activation, node key, quote, values, logs.
    async fn evidence(
        &mut self,
        challenge: &ChallengeParts,
        purpose: &Purpose,
    ) -> Result<(pb::Evidence, Vec<Suffix>), AttestError> {
        let activation_secret = match &challenge.credential {
            Some((id_object, encrypted_secret)) => self
                .tpm
                .activate_credential(id_object.clone(), encrypted_secret.clone())
                .await?
                .to_vec(),
            None => Vec::new(),
        };
        if challenge.node_key_wanted || self.node_key.is_none() {
            self.node_key = Some(self.tpm.create_node_key().await?);
        }
        let Some(node_key) = self.node_key.clone() else {
            return Err(AttestError::Task);
        };
        let name = node_key.public().name();
        let certified = if challenge.node_key_wanted {
            let data =
                QualifyingData::for_node_key(&challenge.challenge, &challenge.verifier_id, &name);
            let certify = self.tpm.certify_node_key(node_key.clone(), *data.as_bytes()).await?;
            Some(pb::NodeKey {
                public: node_key.public().as_bytes().to_vec(),
                parent_public: node_key.parent_public().as_bytes().to_vec(),
                certify: Some(signed(certify)),
            })
        } else {
            None
        };
        let (head, log_values, mut logs) = self.tool_log(challenge).await?;
        let data = QualifyingData::for_quote(
            purpose,
            &challenge.challenge,
            &challenge.verifier_id,
            &name,
            &head,
        );
        let quote = self.quote(&data, &challenge.pcr_selection, &log_values).await?;
        logs.extend(self.other_logs(challenge).await?);
        let evidence = pb::Evidence {
            activation_secret,
            quote: Some(signed(quote)),
            pcr_values: self.pcr_values.iter().map(value_to_pb).collect(),
            node_key: certified,
        };
        Ok((evidence, logs))
    }

    /// Head of the tool log, its replayed PCR values, and the suffix asked for.
    async fn tool_log(
        &self,
        challenge: &ChallengeParts,
    ) -> Result<(Digest, Vec<Digest>, Vec<Suffix>), AttestError> {
        let wanted = challenge.logs_wanted.clone();
        self.on_files(move |local| {
            let mut logs = Vec::new();
            for (kind, from) in wanted.into_iter().filter(|(kind, _)| *kind == LogKind::Tools) {
                let have = local.log.state().bytes;
                if from > have {
                    return Err(AttestError::OtherLog { wanted: from, have });
                }
                logs.push((kind.to_pb(), from, local.log.read_from(from)?));
            }
            Ok((local.log.head(), local.log.state().pcr_values.clone(), logs))
        })
        .await
    }

    /// Suffixes of the other logs, read after the quote: they hold at least what it covers.
    async fn other_logs(&self, challenge: &ChallengeParts) -> Result<Vec<Suffix>, AttestError> {
        let wanted = challenge.logs_wanted.clone();
        self.on_files(move |local| {
            wanted
                .into_iter()
                .filter(|(kind, _)| *kind != LogKind::Tools)
                .map(|(kind, from)| Ok((kind.to_pb(), from, local.others.read_from(kind, from)?)))
                .collect()
        })
        .await
    }

    /// Quotes until values and digest agree; in the steady state the first quote does.
    async fn quote(
        &mut self,
        data: &QualifyingData,
        selection: &PcrSelection,
        log_values: &[Digest],
    ) -> Result<SignedAttest, AttestError> {
        let tool_pcr = self.settings.tool_pcr;
        for value in self.pcr_values.iter_mut().filter(|value| value.index == tool_pcr) {
            if let Some(replayed) = log_values.iter().find(|known| known.alg() == value.bank) {
                value.digest = *replayed;
            }
        }
        let covered = self.pcr_values.iter().map(|value| (value.bank, value.index));
        if !covered.eq(selection.iter()) {
            self.pcr_values = self.tpm.read_pcrs(selection.clone()).await?;
        }
        for _ in 0..QUOTE_ATTEMPTS {
            let quote = self.tpm.quote(*data.as_bytes(), selection.clone()).await?;
            if hash_to(&quote.attest, &self.pcr_values, self.signing_hash()) {
                return Ok(quote);
            }
            self.pcr_values = self.tpm.read_pcrs(selection.clone()).await?;
            if hash_to(&quote.attest, &self.pcr_values, self.signing_hash()) {
                return Ok(quote);
            }
        }
        Err(AttestError::PcrsMoving)
    }

    /// Hash of the AK's scheme: what `pcrDigest` is made with.
    fn signing_hash(&self) -> HashAlg {
        use proto::tpm::public::Scheme;
        match self.identity.as_ref().map(|identity| identity.ak_public.scheme()) {
            Some(Scheme::Signing(scheme)) => scheme.hash_alg(),
            _ => HashAlg::Sha256,
        }
    }
}

/// Whether values, in the quote's order, hash to the quote's `pcrDigest`.
fn hash_to(attest: &[u8], values: &[PcrValue], alg: HashAlg) -> bool {
    let Ok(Attest { attested: Attested::Quote { selection, pcr_digest }, .. }) =
        Attest::decode(attest)
    else {
        return false;
    };
    let mut parts: Vec<&[u8]> = Vec::with_capacity(values.len());
    for bank in &selection {
        parts.extend(
            values
                .iter()
                .filter(|value| {
                    value.bank.tpm_id() == bank.hash_alg && bank.pcrs.contains(value.index)
                })
                .map(|value| value.digest.as_bytes()),
        );
    }
    alg.hash(&parts).as_bytes() == pcr_digest
}

/// Whether every entry is a certificate; an empty bundle changes nothing.
fn usable(bundle: &[Vec<u8>]) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    !bundle.is_empty() && bundle.iter().all(|der| roots.add(der.clone().into()).is_ok())
}

fn wants_proof(result: &pb::AttestationResult) -> bool {
    result.findings.iter().any(|finding| PROVE_AGAIN.contains(&finding.code.as_str()))
}

fn signed(attest: SignedAttest) -> pb::SignedAttest {
    pb::SignedAttest { attest: attest.attest, signature: attest.signature }
}

fn value_to_pb(value: &PcrValue) -> pb::PcrValue {
    pb::PcrValue {
        hash_alg: u32::from(value.bank.tpm_id()),
        index: u32::from(value.index.get()),
        digest: value.digest.as_bytes().to_vec(),
    }
}

/// How long until the next attestation: the verifier's wish, moved by up to a tenth either way.
#[must_use]
pub fn renewal_delay(renew_after: Duration, random: u32) -> Duration {
    let renew_after = renew_after.min(MAX_RENEWAL_DELAY);
    // 0.9 to 1.1, so that a fleet started together does not come together.
    let factor = 0.9 + f64::from(random % 2001) / 10_000.0;
    renew_after.mul_f64(factor)
}
