//! A fleet of several kinds of nodes, what it is predicted to do, and what it then does.

use std::{collections::BTreeMap, path::PathBuf};

use appraisal::ima::ManifestBuilder;
use proto::{
    digest::{Digest, HashAlg, PcrIndex},
    pb,
};
use swtpm_tests::{
    cluster::{AnyError, Cluster},
    machine::PcrValues,
    soft_worker::{SoftWorker, tool},
};
use verifier::{
    documents::{Change, DryRun, NodeChange as Changed, Summary, Told, What},
    store::{ALLOW_LISTED, DocumentId, NewManifest, NewNode, NodeChange, NodeStatus},
};

/// Nodes of each kind; half of them last proved a boot, the others renewed.
const OF_EACH: usize = 6;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As the golden set says.
    Plain,
    /// Its boot measured another kernel into PCR 4, which its firmware's log does not tell.
    Kernel2,
    /// Another compiler.
    OtherTool,
    /// Secure Boot is off.
    Insecure,
    /// A value in the SHA-384 bank that the others do not have.
    OtherBank,
    /// Its TPM has the SHA-256 bank alone.
    OneBank,
    /// Its kernel keeps no IMA list, and no firmware log is sent.
    WithoutLogs,
    /// It ran another file after its boot.
    RanLate,
    /// Waits for approval.
    Pending,
    /// Was revoked after it attested.
    Revoked,
    /// Never attested.
    Silent,
}

const KINDS: [Kind; 11] = [
    Kind::Plain,
    Kind::Kernel2,
    Kind::OtherTool,
    Kind::Insecure,
    Kind::OtherBank,
    Kind::OneBank,
    Kind::WithoutLogs,
    Kind::RanLate,
    Kind::Pending,
    Kind::Revoked,
    Kind::Silent,
];

/// A node of the fleet.
pub(crate) struct Node {
    pub(crate) worker: SoftWorker,
    pub(crate) kind: Kind,
    /// Whether its last evidence is a new boot.
    reboots: bool,
}

/// What an attestation said: nothing, or why it denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) admitted: bool,
    pub(crate) codes: Vec<String>,
}

/// What a dry run said.
pub(crate) struct Prediction {
    pub(crate) summary: Summary,
    pub(crate) nodes: BTreeMap<String, Changed>,
}

impl Prediction {
    pub(crate) fn count(&self, what: What) -> usize {
        self.nodes.values().filter(|change| change.what == what).count()
    }

    fn is_told(&self) -> bool {
        self.count(What::Undecided) + self.count(What::DeniedUndecided) == 0
    }
}

/// A verifier and its fleet.
pub(crate) struct Fleet {
    pub(crate) cluster: Cluster,
    pub(crate) nodes: Vec<Node>,
    /// What each node was told last.
    pub(crate) answers: BTreeMap<String, Answered>,
}

impl Fleet {
    /// A fleet whose nodes attested under these documents, each after another life.
    pub(crate) async fn under(texts: &[String]) -> Result<Self, AnyError> {
        let cluster = Cluster::start().await?;
        let tool_pcr = cluster.verifier().settings().tool_pcr;
        let mut nodes = Vec::new();
        for kind in KINDS {
            for at in 0..OF_EACH {
                let worker = SoftWorker::new(format!("{kind:?}-{at}").to_lowercase(), tool_pcr);
                nodes.push(Node { worker, kind, reboots: at.is_multiple_of(2) });
            }
        }
        let mut fleet = Self { cluster, nodes, answers: BTreeMap::new() };
        fleet.enrol().await?;
        for text in texts {
            fleet.cluster.put_in_force(text).await?;
        }
        for node in &mut fleet.nodes {
            node.boot()?;
        }
        fleet.attest().await?;
        fleet.live_on().await?;
        Ok(fleet)
    }

    async fn enrol(&mut self) -> Result<(), AnyError> {
        for node in &self.nodes {
            let status = match node.kind {
                Kind::Pending => NodeStatus::Pending,
                _ => NodeStatus::Active,
            };
            let new = NewNode {
                name: node.worker.name.clone(),
                ek_digest: node.worker.ek(),
                pool: "linux".to_owned(),
                status,
                ek_certificate: None,
                ek_chain: Vec::new(),
                manufacturer: None,
                admitted_by: Some(ALLOW_LISTED.to_owned()),
                note: String::new(),
            };
            self.cluster.store().add_node(new, self.cluster.by()).await?;
        }
        Ok(())
    }

    /// Some reboot, some run other files; all attest again, and some are revoked.
    async fn live_on(&mut self) -> Result<(), AnyError> {
        for node in &mut self.nodes {
            if node.reboots {
                node.boot()?;
            }
            if node.kind == Kind::RanLate {
                node.worker.run_file("/usr/bin/late", b"late");
            }
        }
        self.attest().await?;
        for node in self.nodes.iter().filter(|node| node.kind == Kind::Revoked) {
            let what = NodeChange::Revoke { reason: "stolen".to_owned() };
            let (name, by) = (&node.worker.name, self.cluster.by());
            self.cluster.store().change_node(name, None, what, by).await?;
        }
        // Those that are revoked are told so; the others prove what they proved.
        self.attest().await
    }

    /// Every node but the silent ones attests.
    pub(crate) async fn attest(&mut self) -> Result<(), AnyError> {
        for node in self.nodes.iter().filter(|node| node.kind != Kind::Silent) {
            let result = node.worker.attest(self.cluster.verifier()).await?;
            let mut codes: Vec<String> =
                result.findings.iter().map(|finding| finding.code.clone()).collect();
            codes.sort();
            let admitted = result.outcome() == pb::Outcome::Admit;
            self.answers.insert(node.worker.name.clone(), Answered { admitted, codes });
        }
        Ok(())
    }

    /// Dry run of a change.
    pub(crate) async fn predict(
        &self,
        texts: &[String],
        alongside: bool,
        retire: &[DocumentId],
    ) -> Result<Prediction, AnyError> {
        let verifier = self.cluster.verifier();
        let mut put = Vec::new();
        for text in texts {
            put.extend(verifier.read_document(text).await?.compiled(false));
        }
        let change = Change { put, retire: retire.to_vec(), alongside };
        let (listener, mut told) = tokio::sync::mpsc::channel(16);
        let collect = async {
            let mut nodes = BTreeMap::new();
            while let Some(told) = told.recv().await {
                if let Told::Change(change) = told {
                    nodes.insert(change.node.clone(), *change);
                }
            }
            nodes
        };
        let run = DryRun::new(verifier, change).await?.run(verifier, Some(listener));
        let (summary, nodes) = tokio::join!(run, collect);
        Ok(Prediction { summary: summary?, nodes })
    }

    /// Predicts a change, makes it, has every node attest, and compares; what is undecided is staged first. Returns the
    /// prediction that was made before anything was done.
    pub(crate) async fn comes_true(
        &mut self,
        texts: &[String],
        alongside: bool,
        retire: &[DocumentId],
    ) -> Result<Prediction, AnyError> {
        let first = self.predict(texts, alongside, retire).await?;
        let mut ids = Vec::new();
        for text in texts {
            ids.push(self.cluster.propose_signed(text).await?);
        }
        let mut staged = None;
        if !first.is_told() {
            for id in &ids {
                self.cluster.verifier().stage(id, self.cluster.by()).await?;
            }
            let before = self.answers.clone();
            self.attest().await?;
            for (name, answer) in &before {
                assert_eq!(&self.answers[name], answer, "{name}: what is staged is not enforced");
            }
            let again = self.predict(texts, alongside, retire).await?;
            assert!(again.is_told(), "{:#?}", again.nodes);
            self.agrees(&first, &again);
            staged = Some(again);
        }
        let prediction = staged.as_ref().unwrap_or(&first);
        let before = self.answers.clone();
        let verifier = self.cluster.verifier();
        for id in &ids {
            let alongside = alongside && id.kind == verifier::store::DocumentKind::Golden;
            verifier.activate(id, alongside, true, self.cluster.by()).await?;
        }
        for id in retire {
            verifier.retire(id, "a test", true, self.cluster.by()).await?;
        }
        // Some are new boots when they are judged.
        for node in self.nodes.iter_mut().filter(|node| node.worker.name.ends_with('1')) {
            let is_late = node.kind == Kind::RanLate;
            node.boot()?;
            if is_late {
                node.worker.run_file("/usr/bin/late", b"late");
            }
        }
        self.attest().await?;
        self.came_true(prediction, &before);
        Ok(first)
    }

    /// Node by node: outcome and codes.
    fn came_true(&self, prediction: &Prediction, before: &BTreeMap<String, Answered>) {
        let of = |kind: Kind| self.nodes.iter().filter(|node| node.kind == kind).count();
        let (silent, revoked) = (of(Kind::Silent), of(Kind::Revoked));
        let summary = &prediction.summary;
        assert_eq!(summary.nodes as usize, self.nodes.len() - revoked);
        assert_eq!(summary.without_evidence as usize, silent);
        for node in &self.nodes {
            let name = &node.worker.name;
            let predicted = prediction.nodes.get(name);
            if matches!(node.kind, Kind::Revoked | Kind::Silent) {
                assert!(predicted.is_none(), "{name}: {predicted:?}");
                continue;
            }
            let (before, after) = (&before[name], &self.answers[name]);
            let Some(change) = predicted else {
                assert_eq!(after, before, "{name} was to be as it was");
                continue;
            };
            let admitted = change.what == What::Admitted;
            assert_eq!(before.admitted, change.what == What::Denied, "{name}: {change:?}");
            assert_eq!(after.admitted, admitted, "{name}: {change:#?}, {after:?}");
            let codes = |lacking: bool| {
                let of_kind = change
                    .findings
                    .iter()
                    .filter(move |finding| finding.is_of_lacking_evidence() == lacking);
                let mut codes: Vec<String> =
                    of_kind.map(|finding| finding.code.as_str().to_owned()).collect();
                codes.sort();
                codes
            };
            if codes(true).is_empty() {
                assert_eq!(after.codes, codes(false), "{name}: {change:#?}");
            } else {
                // Denied for certain, and what the evidence lacked may have added to it.
                let seen = |code: &String| after.codes.contains(code);
                assert!(codes(false).iter().all(seen), "{name}: {change:#?}, {after:?}");
            }
        }
    }

    /// What was told before something was staged is still so.
    fn agrees(&self, first: &Prediction, again: &Prediction) {
        let is_open = |change: Option<&Changed>| {
            change.is_some_and(|one| matches!(one.what, What::Undecided | What::DeniedUndecided))
        };
        for node in &self.nodes {
            let name = &node.worker.name;
            let (was, is) = (first.nodes.get(name), again.nodes.get(name));
            if !is_open(was) {
                let what = |change: Option<&Changed>| change.map(|change| change.what);
                assert_eq!(what(was), what(is), "{name}: {was:#?}, {is:#?}");
            }
        }
    }

    /// Takes a manifest of these files, whose contents are their names.
    pub(crate) async fn import_manifest(&self, files: &[&str]) -> Result<Digest, AnyError> {
        let (document, sha256) = manifest(files);
        let files = files.len() as u64;
        let new = NewManifest { name: "files".to_owned(), files, document };
        self.cluster.store().import_manifest(new, self.cluster.by()).await?;
        Ok(sha256)
    }
}

/// A manifest of these files, and its digest.
pub(crate) fn manifest(files: &[&str]) -> (Vec<u8>, Digest) {
    let mut builder = ManifestBuilder::new();
    for file in files {
        let digest = HashAlg::Sha256.hash(&[file.as_bytes()]);
        builder.file(&digest, format!("/usr/bin/{file}").as_bytes());
    }
    let document = builder.to_text("files", 1_800_000_000).into_bytes();
    let sha256 = HashAlg::Sha256.hash(&[&document]);
    (document, sha256)
}

impl Node {
    /// A new boot, as its kind boots.
    pub(crate) fn boot(&mut self) -> Result<(), AnyError> {
        let kind = self.kind;
        let worker = &mut self.worker;
        worker.tpm.reset();
        boot(worker, kind)
    }
}

/// A worker of a kind that never attested: what golden sets are written from.
pub(crate) fn model(kind: Kind) -> SoftWorker {
    let tool_pcr = PcrIndex::new(14).expect("a PCR");
    let mut worker = SoftWorker::new("model", tool_pcr);
    boot(&mut worker, kind).expect("boots");
    worker
}

fn boot(worker: &mut SoftWorker, kind: Kind) -> Result<(), AnyError> {
    let record = if kind == Kind::Insecure { "secure-boot-off" } else { "secure-boot-on" };
    let (pcrs, log) = recorded(record)?;
    worker.boot_as(&pcrs, &log)?;
    let pcr = |index| PcrIndex::new(index).ok_or("no such PCR");
    match kind {
        Kind::Kernel2 => {
            let kernel = HashAlg::Sha256.hash(&[b"kernel 2"]);
            worker.tpm.extend(HashAlg::Sha256, pcr(4)?, &kernel);
        }
        Kind::OtherBank => {
            let other = HashAlg::Sha384.hash(&[b"another"]);
            worker.tpm.extend(HashAlg::Sha384, pcr(13)?, &other);
        }
        Kind::OneBank => worker.tpm.pcrs.retain(|(bank, _), _| *bank == HashAlg::Sha256),
        Kind::WithoutLogs => worker.firmware_log.clear(),
        _ => {}
    }
    worker.ima = None;
    if kind != Kind::WithoutLogs {
        worker.start_ima();
        worker.run_file("/usr/bin/a", b"a");
        worker.run_file("/usr/bin/b", b"b");
    }
    worker.tpm.measure(&tool("cc", compiler(kind))?);
    worker.tpm.measure(&tool("ld", b"linker")?);
    Ok(())
}

/// What its compiler is.
pub(crate) fn compiler(kind: Kind) -> &'static [u8] {
    if kind == Kind::OtherTool { b"compiler 13" } else { b"compiler 12" }
}

fn recorded(name: &str) -> Result<(PcrValues, Vec<u8>), AnyError> {
    let vectors = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let pcrs = std::fs::read(vectors.join(format!("{name}.pcrs.json")))?;
    let log = std::fs::read(vectors.join(format!("{name}.uefi.bin")))?;
    Ok((serde_json::from_slice(&pcrs)?, log))
}
