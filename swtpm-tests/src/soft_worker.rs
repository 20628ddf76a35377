//! Workers on TPMs in memory that attest to a verifier in this process: whole fleets, without a wire.

use std::sync::Arc;

use proto::{
    digest::{Digest, HashAlg, PcrIndex, PcrSelection, PcrSet},
    evidence::{ChallengeParts, LogKind, LogSuffix},
    pb,
    spki::ek_digest,
};
use soft_tpm::{
    Algorithm, EkKind, SoftTpm,
    ima::{ImaKernel, ImaList, hash},
};
use verifier::attestation::{Begun, Verifier, denied};

pub use crate::attacker::site::tool;
use crate::{cluster::AnyError, machine::PcrValues};

/// PCR of the kernel's list.
const IMA_PCR: u8 = 10;
/// Template of the kernel's entries.
const TEMPLATE: &str = "ima-ng";

/// A worker: a TPM, and the logs of its boot.
#[derive(Debug)]
pub struct SoftWorker {
    /// Name of the node.
    pub name: String,
    /// Its TPM.
    pub tpm: SoftTpm,
    /// Firmware's event log; empty: there is none.
    pub firmware_log: Vec<u8>,
    /// The kernel's list.
    pub ima: Option<ImaList>,
}

impl SoftWorker {
    /// A worker with fresh keys and no logs but that of its tools.
    #[must_use]
    pub fn new(name: impl Into<String>, tool_pcr: PcrIndex) -> Self {
        let tpm = SoftTpm::new(EkKind::P256, Algorithm::EcdsaP256, tool_pcr);
        Self { name: name.into(), tpm, firmware_log: Vec::new(), ima: None }
    }

    /// What the inventory pins it to.
    #[must_use]
    pub fn ek(&self) -> Digest {
        ek_digest(self.tpm.ek.public())
    }

    /// Boots as a recorded machine did: its PCRs, but for those of the tools and of the kernel's list, and its log.
    ///
    /// # Errors
    /// Values that are no digests.
    pub fn boot_as(&mut self, recorded: &PcrValues, log: &[u8]) -> Result<(), AnyError> {
        for (bank, values) in recorded {
            let bank: HashAlg = bank.parse()?;
            for (index, value) in values {
                let index = PcrIndex::new(*index).ok_or("no such PCR")?;
                let value = Digest::new(bank, &hex::decode(value)?)?;
                let is_kept = index == self.tpm.tool_pcr || index.get() == IMA_PCR;
                if let Some(pcr) = self.tpm.pcrs.get_mut(&(bank, index)).filter(|_| !is_kept) {
                    *pcr = value;
                }
            }
        }
        self.firmware_log = log.to_vec();
        Ok(())
    }

    /// The kernel begins its list over what firmware measured.
    pub fn start_ima(&mut self) {
        let values: Vec<&[u8]> = (0..10)
            .filter_map(PcrIndex::new)
            .filter_map(|index| self.tpm.pcrs.get(&(HashAlg::Sha256, index)))
            .map(Digest::as_bytes)
            .collect();
        let list = ImaList::booted(ImaKernel::default(), TEMPLATE, "sha256", &values);
        self.with_list(list);
    }

    /// The kernel measures a file; nothing where it keeps no list.
    pub fn run_file(&mut self, path: &str, content: &[u8]) {
        if let Some(mut list) = self.ima.take() {
            list.file(TEMPLATE, "sha256", &hash("sha256", &[content]), path, &[]);
            self.with_list(list);
        }
    }

    fn with_list(&mut self, list: ImaList) {
        for (alg, name) in [(HashAlg::Sha256, "sha256"), (HashAlg::Sha384, "sha384")] {
            let known = PcrIndex::new(IMA_PCR).and_then(|at| self.tpm.pcrs.get_mut(&(alg, at)));
            if let (Some(pcr), Ok(value)) = (known, Digest::new(alg, list.pcr(name))) {
                *pcr = value;
            }
        }
        self.ima = Some(list);
    }

    /// Attests once.
    ///
    /// # Errors
    /// No verdict.
    pub async fn attest(
        &self,
        verifier: &Arc<Verifier>,
    ) -> Result<pb::AttestationResult, AnyError> {
        self.attest_for(verifier, None).await
    }

    /// Attests for a job, or for the node where there is none. The quote is bound to what the TPM has under `purpose`,
    /// whatever is asked.
    ///
    /// # Errors
    /// No verdict.
    pub async fn attest_for(
        &self,
        verifier: &Arc<Verifier>,
        job: Option<pb::JobRequest>,
    ) -> Result<pb::AttestationResult, AnyError> {
        let mut hello = pb::Hello { job, ..self.tpm.hello() };
        for kind in [LogKind::Uefi, LogKind::Ima] {
            let size_bytes = self.log(kind).len() as u64;
            if size_bytes > 0 {
                hello.logs.push(pb::LogState { kind: kind.to_pb().into(), size_bytes });
            }
        }
        let session = match verifier.begin(hello).await? {
            Begun::Challenge(session) => session,
            Begun::Refused(denial) => return Ok(denied(&denial, String::new()).result),
        };
        let mut asked = ChallengeParts::try_from(session.challenge())?;
        // A TPM quotes what it has.
        let has = asked.pcr_selection.iter().filter(|at| self.tpm.pcrs.contains_key(at));
        let has = has.map(|(bank, index)| (bank, PcrSet::from_iter([index])));
        asked.pcr_selection = PcrSelection::new(has.collect::<Vec<_>>());
        let answer = self.tpm.answer(&asked);
        let mut logs = answer.log.clone();
        for (kind, from_bytes) in &asked.logs_wanted {
            if matches!(kind, LogKind::Uefi | LogKind::Ima) {
                let from = usize::try_from(*from_bytes)?;
                let bytes = self.log(*kind).get(from..).unwrap_or_default().to_vec();
                logs.push(LogSuffix { kind: *kind, from_bytes: *from_bytes, bytes });
            }
        }
        Ok(verifier.finish(*session, answer.sign(), logs).await?.result)
    }

    fn log(&self, kind: LogKind) -> &[u8] {
        match kind {
            LogKind::Uefi => &self.firmware_log,
            LogKind::Ima => self.ima.as_ref().map_or(&[], ImaList::bytes),
            _ => &[],
        }
    }
}
