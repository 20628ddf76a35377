//! The service for what nodes are judged by: golden sets, policies, the ring of keys, manifests.

use std::{pin::Pin, sync::Arc, time::Duration};

use appraisal::ima::Manifest;
use proto::{pb, reason::ReasonCode};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Code, Request, Response, Status};

use super::{
    access::Access,
    answer::{Answer, document, invalid, not_found, store},
    status::{attest, with_reason},
};
use crate::{
    attestation::{Verifier, blocking},
    capture,
    documents::{self, Change, DocumentError, DryRun, NodeChange, Proposal, Summary, Told},
    expectations::Compiled,
    signatures::KeyRing,
    store::{
        By, DocumentHead, DocumentId, DocumentKind, DocumentState, NewManifest, Node, NodeStatus,
        Role, StoreError,
    },
};

/// Messages of a dry run that wait for a slow reader.
const STREAM_QUEUE: usize = 32;
/// How long a call that reads the whole fleet waits for another one.
const TURN_DEADLINE: Duration = Duration::from_secs(60);
/// How long a dry run may take: the largest fleet takes minutes.
const DRY_RUN_DEADLINE: Duration = Duration::from_secs(900);
/// How long one message of a dry run waits for its reader: nobody keeps others waiting by not reading.
const READER_DEADLINE: Duration = Duration::from_secs(30);
/// Nodes that a capture reads.
const MAX_CAPTURED_NODES: u32 = 10_000;

/// Implements `assay.attest.v1.Reference`.
#[derive(Debug)]
pub struct ReferenceService {
    verifier: Arc<Verifier>,
    access: Arc<Access>,
    /// What only reads the whole fleet takes turns: nobody slows attestations down by asking often. Steps of documents
    /// take turns in the verifier.
    fleet: Arc<Semaphore>,
}

impl ReferenceService {
    /// The service of a verifier, for those whom `access` lets in.
    #[must_use]
    pub fn new(verifier: Arc<Verifier>, access: Arc<Access>) -> Self {
        Self { verifier, access, fleet: Arc::new(Semaphore::new(1)) }
    }

    /// The turn of a call that reads the whole fleet, for as long as it is kept.
    async fn alone(&self) -> Result<OwnedSemaphorePermit, Status> {
        let turn = timeout(TURN_DEADLINE, Arc::clone(&self.fleet).acquire_owned()).await;
        turn.ok().and_then(Result::ok).ok_or_else(|| {
            let why = "another dry run or capture is under way; come again";
            with_reason(Code::ResourceExhausted, ReasonCode::ServiceBusy, why)
        })
    }

    async fn authorize<T>(&self, request: &Request<T>, needed: Role) -> Result<By, Status> {
        self.access.authorize(request, needed).await
    }

    /// The document that a request means; version 0 is the newest that is active.
    async fn named(&self, reference: Option<pb::DocumentRef>) -> Result<DocumentId, Status> {
        let pb::DocumentRef { kind, name, version } =
            reference.ok_or_else(|| invalid("no document is named"))?;
        let kind = kind_of(&kind)?;
        if version > 0 {
            return Ok(DocumentId { kind, name, version });
        }
        let known = self.verifier.store().document_heads(kind).await;
        let active = known
            .map_err(|error| store(&error))?
            .into_iter()
            .find(|known| known.id.name == name && known.state == DocumentState::Active);
        active
            .map(|active| active.id)
            .ok_or_else(|| not_found(format!("active version of {kind} {name:?}; give a version")))
    }

    /// The document that a request would change: a version is named, so that nothing else is meant than what was looked at.
    fn exactly(reference: Option<pb::DocumentRef>) -> Result<DocumentId, Status> {
        let pb::DocumentRef { kind, name, version } =
            reference.ok_or_else(|| invalid("no document is named"))?;
        let kind = kind_of(&kind)?;
        if version == 0 {
            return Err(invalid(format!("no version of {kind} {name:?} is named")));
        }
        Ok(DocumentId { kind, name, version })
    }

    /// The ring in force, if there is one.
    async fn ring(&self) -> Result<Option<KeyRing>, Status> {
        match self.verifier.ring().await {
            Ok(ring) => Ok(Some(ring)),
            Err(DocumentError::NoRing) => Ok(None),
            Err(other) => Err(document(&other)),
        }
    }

    async fn message(
        &self,
        known: &DocumentHead,
        ring: Option<&KeyRing>,
    ) -> Result<pb::Document, Status> {
        let (signed_by, threshold) = match ring {
            Some(ring) => {
                let signed_by = self.verifier.signed_by(&known.id, ring).await;
                (signed_by.map_err(|error| document(&error))?, ring.threshold())
            }
            None => (Vec::new(), 0),
        };
        Ok(pb::Document {
            kind: known.id.kind.to_string(),
            name: known.id.name.clone(),
            version: known.id.version,
            pool: known.pool.clone().unwrap_or_default(),
            state: known.state.to_string(),
            sha256: known.sha256.to_string(),
            origin: known.origin.clone(),
            proposed_unix_s: known.proposed.at,
            proposed_by: known.proposed.actor.clone(),
            signed_by,
            threshold: u32::try_from(threshold).unwrap_or(u32::MAX),
        })
    }

    async fn answer(&self, id: &DocumentId) -> Result<pb::Document, Status> {
        let known = self.verifier.document(id).await.map_err(|error| document(&error))?;
        self.message(&known, self.ring().await?.as_ref()).await
    }

    /// The nodes that a capture is to read.
    async fn captured(&self, message: &pb::CaptureRequest) -> Result<Vec<Node>, Status> {
        let database = self.verifier.store();
        match (message.nodes.is_empty(), message.pool.as_str()) {
            (true, "") => Err(invalid("name nodes, or a pool")),
            (false, pool) if !pool.is_empty() => Err(invalid("name nodes or a pool, not both")),
            (true, pool) => {
                let nodes = database.nodes(Some(pool), None, MAX_CAPTURED_NODES).await;
                let mut nodes = nodes.map_err(|error| store(&error))?;
                nodes.retain(|node| node.status == NodeStatus::Active);
                if nodes.is_empty() {
                    return Err(not_found(format!("active node in pool {pool:?}")));
                }
                Ok(nodes)
            }
            (false, _) => {
                let mut out = Vec::with_capacity(message.nodes.len());
                for name in &message.nodes {
                    let found = database.node(name).await.map_err(|error| store(&error))?;
                    out.push(found.ok_or_else(|| not_found(format!("node {name:?}")))?);
                }
                Ok(out)
            }
        }
    }

    async fn change(&self, request: pb::DryRunRequest) -> Result<Change, Status> {
        let mut put: Vec<Compiled> = Vec::new();
        let mut texts = request.texts;
        for reference in request.documents {
            let id = self.named(Some(reference)).await?;
            let known = self.verifier.document(&id).await.map_err(|error| document(&error))?;
            texts.push(String::from_utf8_lossy(&known.document).into_owned());
        }
        for text in texts {
            let read =
                self.verifier.read_document(&text).await.map_err(|error| document(&error))?;
            let compiled = read.compiled(false);
            put.push(compiled.ok_or_else(|| invalid("a ring of keys judges no node"))?);
        }
        let mut retire = Vec::with_capacity(request.retire.len());
        for reference in request.retire {
            retire.push(self.named(Some(reference)).await?);
        }
        if put.is_empty() && retire.is_empty() {
            return Err(invalid("nothing would change: name a document"));
        }
        Ok(Change { put, retire, alongside: request.alongside })
    }
}

#[tonic::async_trait]
impl pb::reference_server::Reference for ReferenceService {
    type DryRunStream = Pin<Box<dyn Stream<Item = Result<pb::DryRunEvent, Status>> + Send>>;

    async fn capture(&self, request: Request<pb::CaptureRequest>) -> Answer<pb::DocumentText> {
        let needed = if request.get_ref().record { Role::Operator } else { Role::Viewer };
        let by = self.authorize(&request, needed).await?;
        let message = request.into_inner();
        let _alone = self.alone().await?;
        let nodes = self.captured(&message).await?;
        let tool_pcr = self.verifier.settings().tool_pcr;
        let database = self.verifier.store();
        let captured = capture::capture(database, &nodes, &message.set_name, tool_pcr, &by).await;
        let toml = captured.map_err(|error| match error {
            capture::CaptureError::Store(error) => store(&error),
            other => invalid(other.to_string()),
        })?;
        if message.record {
            let names: Vec<&str> = nodes.iter().take(3).map(|node| node.name.as_str()).collect();
            let more = nodes.len().saturating_sub(names.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let proposal = Proposal {
                text: toml.clone(),
                envelope: Vec::new(),
                origin: format!("captured from {}{more}", names.join(", ")),
                is_observed: true,
            };
            self.verifier.propose(proposal, by).await.map_err(|error| document(&error))?;
        }
        Ok(Response::new(pb::DocumentText { toml }))
    }

    async fn check(&self, request: Request<pb::DocumentText>) -> Answer<pb::DocumentCheck> {
        self.authorize(&request, Role::Viewer).await?;
        let problems = match self.verifier.read_document(&request.into_inner().toml).await {
            Ok(_) => Vec::new(),
            Err(DocumentError::Problems(problems)) => problems
                .into_iter()
                .map(|problem| pb::DocumentProblem { at: problem.at, what: problem.what })
                .collect(),
            Err(other) => return Err(document(&other)),
        };
        Ok(Response::new(pb::DocumentCheck { problems }))
    }

    async fn propose(&self, request: Request<pb::ProposeRequest>) -> Answer<pb::Document> {
        let mut by = self.authorize(&request, Role::Operator).await?;
        // Who may sign is decided by the ring: whoever proposes another one has to be of the security team.
        let text = request.get_ref().toml.clone();
        let kind = blocking(move || documents::kind_of(&text)).await;
        if kind.map_err(|error| attest(&error))? == Ok(DocumentKind::Keys) {
            by = self.authorize(&request, Role::Security).await?;
        }
        let pb::ProposeRequest { toml, envelope, origin } = request.into_inner();
        let proposal = Proposal { text: toml, envelope, origin, is_observed: false };
        let id = self.verifier.propose(proposal, by).await.map_err(|error| document(&error))?;
        Ok(Response::new(self.answer(&id).await?))
    }

    async fn sign(&self, request: Request<pb::SignRequest>) -> Answer<pb::Document> {
        let by = self.authorize(&request, Role::Operator).await?;
        let message = request.into_inner();
        let id = Self::exactly(message.document)?;
        let signed = self.verifier.sign(&id, &message.envelope, by).await;
        signed.map_err(|error| document(&error))?;
        Ok(Response::new(self.answer(&id).await?))
    }

    async fn stage(&self, request: Request<pb::DocumentRef>) -> Answer<pb::Document> {
        let by = self.authorize(&request, Role::Security).await?;
        let id = Self::exactly(Some(request.into_inner()))?;
        self.verifier.stage(&id, by).await.map_err(|error| document(&error))?;
        Ok(Response::new(self.answer(&id).await?))
    }

    async fn activate(&self, request: Request<pb::ActivateRequest>) -> Answer<pb::ActivateReply> {
        let by = self.authorize(&request, Role::Security).await?;
        let message = request.into_inner();
        let id = Self::exactly(message.document)?;
        let activated = self
            .verifier
            .activate(&id, message.alongside, message.accept_denials, by)
            .await
            .map_err(|error| document(&error))?;
        Ok(Response::new(pb::ActivateReply {
            document: Some(self.answer(&id).await?),
            retired: activated.retired,
            dry_run: activated.summary.map(summary_message),
        }))
    }

    async fn retire(&self, request: Request<pb::RetireRequest>) -> Answer<pb::Document> {
        let by = self.authorize(&request, Role::Security).await?;
        let message = request.into_inner();
        if message.reason.trim().is_empty() {
            return Err(invalid("a reason is needed: it is recorded"));
        }
        let id = Self::exactly(message.document)?;
        let retired = self.verifier.retire(&id, &message.reason, message.accept_denials, by).await;
        retired.map_err(|error| document(&error))?;
        Ok(Response::new(self.answer(&id).await?))
    }

    async fn list(&self, request: Request<pb::ListDocumentsRequest>) -> Answer<pb::DocumentList> {
        self.authorize(&request, Role::Viewer).await?;
        let message = request.into_inner();
        let kinds = if message.kind.is_empty() {
            vec![DocumentKind::Golden, DocumentKind::Policy, DocumentKind::Keys]
        } else {
            vec![kind_of(&message.kind)?]
        };
        let ring = self.ring().await?;
        let mut documents = Vec::new();
        for kind in kinds {
            let known = self.verifier.store().document_heads(kind).await.map_err(|e| store(&e))?;
            for one in known {
                if message.name.is_empty() || one.id.name == message.name {
                    documents.push(self.message(&one, ring.as_ref()).await?);
                }
            }
        }
        Ok(Response::new(pb::DocumentList { documents }))
    }

    async fn show(&self, request: Request<pb::DocumentRef>) -> Answer<pb::DocumentDetail> {
        self.authorize(&request, Role::Viewer).await?;
        let id = self.named(Some(request.into_inner())).await?;
        let known = self.verifier.document(&id).await.map_err(|error| document(&error))?;
        let steps =
            self.verifier.store().document_history(&id).await.map_err(|error| store(&error))?;
        // Documents of an older schema have no canonical form, and no signatures.
        let envelope = match known.payload.is_empty() {
            true => Vec::new(),
            false => {
                let envelope = self.verifier.envelope(&known).await;
                envelope.map_err(|error| document(&error))?.to_json().into_bytes()
            }
        };
        Ok(Response::new(pb::DocumentDetail {
            document: Some(self.message(&known, self.ring().await?.as_ref()).await?),
            toml: String::from_utf8_lossy(&known.document).into_owned(),
            payload: known.payload,
            envelope,
            steps: steps
                .into_iter()
                .map(|step| pb::DocumentStep {
                    at_unix_s: step.by.at,
                    by: step.by.actor,
                    what: step.what,
                })
                .collect(),
        }))
    }

    async fn dry_run(&self, request: Request<pb::DryRunRequest>) -> Answer<Self::DryRunStream> {
        self.authorize(&request, Role::Viewer).await?;
        let change = self.change(request.into_inner()).await?;
        let alone = self.alone().await?;
        let run = DryRun::new(&self.verifier, change).await.map_err(|error| document(&error))?;
        let (send, receive) = mpsc::channel(STREAM_QUEUE);
        let verifier = Arc::clone(&self.verifier);
        tokio::spawn(async move {
            let _alone = alone;
            let (listener, told) = mpsc::channel(STREAM_QUEUE);
            let forward = forward(told, send.clone(), READER_DEADLINE);
            let run = async move {
                let run = run.run(&verifier, Some(listener));
                timeout(DRY_RUN_DEADLINE, run).await.unwrap_or(Err(DocumentError::NobodyListens))
            };
            let (done, ()) = tokio::join!(run, forward);
            let last = match done {
                Ok(summary) => {
                    let event = pb::dry_run_event::Event::Summary(summary_message(summary));
                    Ok(pb::DryRunEvent { event: Some(event) })
                }
                Err(error) => Err(document(&error)),
            };
            let _ = send.send_timeout(last, READER_DEADLINE).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }

    async fn import_manifest(
        &self,
        request: Request<pb::ManifestDocument>,
    ) -> Answer<pb::ManifestInfo> {
        let by = self.authorize(&request, Role::Security).await?;
        let document = request.into_inner().document;
        let (manifest, document) =
            tokio::task::spawn_blocking(move || (Manifest::parse(&document), document))
                .await
                .map_err(|_| Status::internal("the task that reads the manifest ended"))?;
        let manifest = manifest
            .map_err(|problem| invalid(format!("the manifest cannot be used: {problem}")))?;
        let info = pb::ManifestInfo {
            sha256: manifest.id().to_string(),
            name: manifest.name().to_owned(),
            files: manifest.files() as u64,
            bytes: document.len() as u64,
            imported_unix_s: by.at,
            imported_by: by.actor.clone(),
            known: false,
        };
        let new = NewManifest { name: info.name.clone(), files: info.files, document };
        let added = self.verifier.store().import_manifest(new, by).await;
        let added = added.map_err(|error| store(&error))?;
        Ok(Response::new(pb::ManifestInfo { known: !added, ..info }))
    }

    async fn list_manifests(&self, request: Request<pb::Empty>) -> Answer<pb::ManifestList> {
        self.authorize(&request, Role::Viewer).await?;
        let listed = self.verifier.store().manifests().await.map_err(|error| store(&error))?;
        let manifests = listed
            .into_iter()
            .map(|manifest| pb::ManifestInfo {
                sha256: manifest.sha256.to_string(),
                name: manifest.name,
                files: manifest.files,
                bytes: manifest.bytes,
                imported_unix_s: manifest.imported.at,
                imported_by: manifest.imported.actor,
                known: true,
            })
            .collect();
        Ok(Response::new(pb::ManifestList { manifests }))
    }
}

/// Hands on what a dry run tells. A caller that went away, or reads no more, ends it; that drops the queue, and that ends
/// the run.
async fn forward(
    mut told: mpsc::Receiver<Told>,
    to_caller: mpsc::Sender<Result<pb::DryRunEvent, Status>>,
    patience: Duration,
) {
    while let Some(event) = told.recv().await {
        if to_caller.send_timeout(Ok(event_message(event)), patience).await.is_err() {
            return;
        }
    }
}

fn kind_of(word: &str) -> Result<DocumentKind, Status> {
    word.parse()
        .map_err(|_: StoreError| invalid(format!("kind {word:?} is not golden, policy or keys")))
}

fn summary_message(summary: Summary) -> pb::DryRunSummary {
    let Summary {
        nodes,
        still_admitted,
        still_denied,
        newly_denied,
        newly_admitted,
        undecided,
        without_evidence,
    } = summary;
    pb::DryRunSummary {
        nodes,
        still_admitted,
        still_denied,
        newly_denied,
        newly_admitted,
        undecided,
        without_evidence,
    }
}

fn event_message(told: Told) -> pb::DryRunEvent {
    use pb::dry_run_event::Event;
    let event = match told {
        Told::Progress { judged, of } => Event::Progress(pb::DryRunProgress { judged, of }),
        Told::Change(change) => Event::Node(node_message(*change)),
    };
    pb::DryRunEvent { event: Some(event) }
}

fn node_message(change: NodeChange) -> pb::DryRunNode {
    pb::DryRunNode {
        node: change.node,
        pool: change.pool,
        change: change.what.as_str().to_owned(),
        decision_id: change.decision,
        evidence_unix_s: change.evidence_unix_s,
        judged_by: change.judged_by,
        findings: change
            .findings
            .into_iter()
            .map(|finding| pb::DryRunFinding {
                code: finding.code.to_string(),
                subject: finding.subject,
                expected: finding.expected,
                observed: finding.observed,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who opens a dry run and reads nothing keeps the turn no longer than one message may wait.
    #[tokio::test]
    async fn a_reader_that_reads_nothing_ends_its_dry_run() {
        let (listener, told) = mpsc::channel(STREAM_QUEUE);
        let (to_caller, unread) = mpsc::channel(1);
        let forwarding = tokio::spawn(forward(told, to_caller, Duration::from_millis(50)));
        let progress = |judged| Told::Progress { judged, of: 2 };
        listener.send(progress(1)).await.expect("heard");
        listener.send(progress(2)).await.expect("heard");
        timeout(TURN_DEADLINE, forwarding).await.expect("it ended").expect("no panic");
        assert!(listener.send(progress(2)).await.is_err(), "the run hears that nobody listens");
        drop(unread);
    }
}
