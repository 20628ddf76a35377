//! What a change would do to the fleet, found out from the last recorded evidence of every node.
//!
//! Evidence is judged as an attestation judges it, by what is in force and by what would be: the same function, the same
//! findings. What was not asked for then (a PCR that was not quoted, an IMA list that another policy judged) cannot be told,
//! and is said to be undecided: a document that is staged has it asked for from the next attestation on.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use appraisal::{
    Appraisal,
    context::{NodeRecord, Standing},
    ima::Manifest,
    verdict::{Finding, Verdict},
};
use proto::{digest::Digest, reason::ReasonCode};
use serde::Serialize;
use tokio::sync::mpsc;

use super::DocumentError;
use crate::{
    attestation::{AttestError, Verifier},
    case::{CaseObjects, RecordedCase, ReplayError},
    endorsements::EndorsementSet,
    expectations::{Compiled, Expectations},
    objects::Objects,
    store::{DocumentId, Node, NodeStatus, RecordedEvidence, StoreError},
};

/// Recorded decisions of one node that are looked through for evidence that can be judged.
const LOOK_BACK: u32 = 16;
/// Nodes of one fleet: what the inventory lists.
const MAX_NODES: u32 = 100_000;
/// Nodes judged between two looks at the clock of the progress.
const CHUNK: usize = 32;
/// Answers that wait for whoever reads them.
const QUEUE: usize = 64;

/// Findings that say what the evidence lacks, not what the node is.
pub const UNDECIDED_CODES: [ReasonCode; 3] = [
    ReasonCode::PcrSelectionIncomplete,
    ReasonCode::PolicyImaListMissing,
    ReasonCode::ImaOffsetInvalid,
];

/// What would be changed.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Documents that would be active.
    pub put: Vec<Compiled>,
    /// Documents that would be retired.
    pub retire: Vec<DocumentId>,
    /// Whether versions of the same names that are active stay so.
    pub alongside: bool,
}

impl Change {
    /// What would be in force, from what is. What is staged takes no part.
    #[must_use]
    pub fn applied_to(&self, now: &[Compiled]) -> Vec<Compiled> {
        let is_replaced = |one: &Compiled| {
            let same_name = |put: &&Compiled| put.kind() == one.kind() && put.name() == one.name();
            self.put
                .iter()
                .filter(same_name)
                .any(|put| !self.alongside || put.version() == one.version())
        };
        let is_retired = |one: &Compiled| {
            self.retire.iter().any(|id| {
                (id.kind, id.name.as_str(), id.version) == (one.kind(), one.name(), one.version())
            })
        };
        let stays = now
            .iter()
            .filter(|one| !one.is_staged && !is_replaced(one) && !is_retired(one))
            .cloned();
        stays.chain(self.put.iter().cloned()).collect()
    }
}

/// How many nodes fare how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Nodes of the fleet, but no revoked ones.
    pub nodes: u32,
    /// Admitted today and admitted then.
    pub still_admitted: u32,
    /// Denied today and denied then.
    pub still_denied: u32,
    /// Admitted today, denied then.
    pub newly_denied: u32,
    /// Denied today, admitted then.
    pub newly_admitted: u32,
    /// Admitted today, and the evidence does not tell what then.
    pub undecided: u32,
    /// Nodes that never proved anything, or whose evidence is gone.
    pub without_evidence: u32,
}

impl Summary {
    /// Nodes that are admitted today.
    #[must_use]
    pub const fn admitted_now(&self) -> u32 {
        self.still_admitted.saturating_add(self.newly_denied).saturating_add(self.undecided)
    }

    /// Whether more than this share of the nodes admitted today would not be for certain.
    #[must_use]
    pub fn denies_more_than(&self, percent: u8) -> bool {
        let turned_away = u64::from(self.newly_denied) + u64::from(self.undecided);
        turned_away * 100 > u64::from(self.admitted_now()) * u64::from(percent)
    }

    fn count(&mut self, judged: &Judged) {
        self.nodes += 1;
        let counter = match judged {
            Judged::WithoutEvidence => &mut self.without_evidence,
            Judged::Same { admitted: true } => &mut self.still_admitted,
            Judged::Same { admitted: false } => &mut self.still_denied,
            Judged::Changed(change) => match change.what {
                What::Denied => &mut self.newly_denied,
                What::Admitted => &mut self.newly_admitted,
                What::Undecided => &mut self.undecided,
                What::DeniedDifferently => &mut self.still_denied,
            },
        };
        *counter += 1;
    }
}

/// How one node fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// It never proved anything, or its evidence is gone.
    WithoutEvidence,
    /// As today.
    Same {
        /// Whether it is admitted.
        admitted: bool,
    },
    /// Otherwise.
    Changed(Box<NodeChange>),
}

/// What changes for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Admitted today, denied then.
    Denied,
    /// Denied today, admitted then.
    Admitted,
    /// Admitted today, and the evidence does not tell what then.
    Undecided,
    /// Denied today and then, for other reasons.
    DeniedDifferently,
}

impl What {
    /// Stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Admitted => "admitted",
            Self::Undecided => "undecided",
            Self::DeniedDifferently => "denied-differently",
        }
    }
}

/// What changes for a node, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeChange {
    /// Node.
    pub node: String,
    /// Its pool.
    pub pool: String,
    /// What changes.
    pub what: What,
    /// Decision whose evidence was judged.
    pub decision: String,
    /// When that was.
    pub evidence_unix_s: i64,
    /// What would be met, or is nearest.
    pub judged_by: String,
    /// Why it would be denied.
    pub findings: Vec<Finding>,
}

/// What a dry run tells while it runs.
#[derive(Clone, Debug)]
pub enum Told {
    /// So many nodes are judged.
    Progress {
        /// Judged so far.
        judged: u32,
        /// Of so many.
        of: u32,
    },
    /// A node whose answer changes.
    Change(Box<NodeChange>),
}

/// A dry run, ready.
#[derive(Debug)]
pub struct DryRun {
    nodes: Vec<Node>,
    judge: Arc<Judge>,
}

/// What every thread shares.
#[derive(Debug)]
struct Judge {
    now: Expectations,
    then: Expectations,
    objects: CaseParts,
}

/// What cases name, each endorsement set parsed once.
#[derive(Debug)]
struct CaseParts {
    objects: Objects,
    endorsements: Mutex<HashMap<Digest, Arc<EndorsementSet>>>,
}

impl CaseObjects for CaseParts {
    fn object(&self, what: &'static str, digest: &Digest) -> Result<Vec<u8>, ReplayError> {
        self.objects.get(digest).map_err(|error| match error {
            StoreError::NotFound { .. } => ReplayError::Missing { what, digest: *digest },
            other => ReplayError::Damaged(format!("{what}: {}", crate::store::error_chain(&other))),
        })
    }

    fn document(&self, digest: &Digest) -> Result<Vec<u8>, ReplayError> {
        // What judges is given, not read from the case.
        Err(ReplayError::Missing { what: "reference document", digest: *digest })
    }

    fn manifest(&self, digest: &Digest) -> Result<Arc<Manifest>, ReplayError> {
        Err(ReplayError::Missing { what: "manifest", digest: *digest })
    }

    fn endorsements(&self, digest: &Digest) -> Result<Arc<EndorsementSet>, ReplayError> {
        let mut known = self.endorsements.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(digest) {
            return Ok(Arc::clone(known));
        }
        let bytes = self.object("endorsement set", digest)?;
        let set = EndorsementSet::from_object(&bytes)
            .map_err(|error| ReplayError::Damaged(error.to_string()))?;
        let set = Arc::new(set);
        known.insert(*digest, Arc::clone(&set));
        Ok(set)
    }
}

impl DryRun {
    /// Prepares a dry run of a change against the whole fleet.
    ///
    /// # Errors
    /// [`DocumentError`] if the store cannot be read.
    pub async fn new(verifier: &Verifier, change: Change) -> Result<Self, DocumentError> {
        let in_force: Vec<Compiled> = verifier.compile_in_force().await?;
        let then = Expectations::compile(&change.applied_to(&in_force));
        let active: Vec<Compiled> = in_force.into_iter().filter(|one| !one.is_staged).collect();
        let now = Expectations::compile(&active);
        let mut nodes = verifier.store().nodes(None, None, MAX_NODES).await?;
        nodes.retain(|node| node.status != NodeStatus::Revoked);
        let objects = verifier.store().objects().clone();
        let objects = CaseParts { objects, endorsements: Mutex::default() };
        Ok(Self { nodes, judge: Arc::new(Judge { now, then, objects }) })
    }

    /// Judges every node, telling what changes while it goes on.
    ///
    /// # Errors
    /// [`DocumentError`] if the store cannot be read.
    pub async fn run(
        self,
        verifier: &Verifier,
        mut tell: impl FnMut(Told) + Send,
    ) -> Result<Summary, DocumentError> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let of = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let nodes = Arc::new(self.nodes);
        let next = Arc::new(AtomicUsize::new(0));
        let (send, mut receive) = mpsc::channel::<Result<Vec<Judged>, StoreError>>(QUEUE);
        for _ in 0..threads {
            let (nodes, next, send) = (Arc::clone(&nodes), Arc::clone(&next), send.clone());
            let (store, judge) = (verifier.store().clone(), Arc::clone(&self.judge));
            tokio::spawn(async move {
                loop {
                    let from = next.fetch_add(CHUNK, Ordering::SeqCst);
                    let Some(chunk) = nodes.get(from..nodes.len().min(from + CHUNK)) else { break };
                    if chunk.is_empty() {
                        break;
                    }
                    let mut evidence = Vec::with_capacity(chunk.len());
                    for node in chunk {
                        match store.recorded_evidence(&node.name, 1).await {
                            Ok(found) => evidence.push((node.clone(), found)),
                            Err(error) => {
                                let _ = send.send(Err(error)).await;
                                return;
                            }
                        }
                    }
                    let task = {
                        let judge = Arc::clone(&judge);
                        tokio::task::spawn_blocking(move || {
                            evidence
                                .into_iter()
                                .map(|(node, found)| (judge.newest(&node, &found), node))
                                .collect::<Vec<_>>()
                        })
                    };
                    let Ok(first) = task.await else { return };
                    let mut judged = Vec::with_capacity(first.len());
                    for (answer, node) in first {
                        judged.push(match answer {
                            Some(answer) => answer,
                            // The newest does not tell: perhaps an older one does.
                            None => match store.recorded_evidence(&node.name, LOOK_BACK).await {
                                Ok(found) => judge.any(&node, &found),
                                Err(error) => {
                                    let _ = send.send(Err(error)).await;
                                    return;
                                }
                            },
                        });
                    }
                    if send.send(Ok(judged)).await.is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        let mut summary = Summary::default();
        while let Some(block) = receive.recv().await {
            for judged in block? {
                summary.count(&judged);
                if let Judged::Changed(change) = judged {
                    tell(Told::Change(change));
                }
            }
            tell(Told::Progress { judged: summary.nodes, of });
        }
        // A thread that ended early left nodes unjudged: no summary may hide that.
        if summary.nodes != of {
            return Err(AttestError::Task.into());
        }
        Ok(summary)
    }
}

impl Judge {
    /// By the newest evidence alone; `None` if it does not tell.
    fn newest(&self, node: &Node, evidence: &[RecordedEvidence]) -> Option<Judged> {
        let Some(newest) = evidence.first() else { return Some(Judged::WithoutEvidence) };
        let judged = self.judge(node, newest)?;
        let is_undecided = |judged: &Judged| matches!(judged, Judged::Changed(change) if change.what == What::Undecided);
        (!is_undecided(&judged)).then_some(judged)
    }

    /// By the newest evidence that tells.
    fn any(&self, node: &Node, evidence: &[RecordedEvidence]) -> Judged {
        let mut undecided = None;
        for one in evidence {
            match self.judge(node, one) {
                Some(Judged::Changed(change)) if change.what == What::Undecided => {
                    undecided.get_or_insert(Judged::Changed(change));
                }
                Some(judged) => return judged,
                None => {}
            }
        }
        undecided.unwrap_or(Judged::WithoutEvidence)
    }

    /// By one recorded case; `None` if it proves nothing of this node, or cannot be read.
    fn judge(&self, node: &Node, evidence: &RecordedEvidence) -> Option<Judged> {
        let case = RecordedCase::read(&evidence.case).ok()?;
        let record = NodeRecord {
            name: node.name.clone(),
            pool: node.pool.clone(),
            standing: match node.status {
                NodeStatus::Active => Standing::Active,
                NodeStatus::Pending => Standing::Pending,
                NodeStatus::Revoked => Standing::Revoked,
            },
            ek_digest: node.ek_digest,
            highest_counters: case.node().highest_counters,
        };
        let (now, then) = (self.now.of(&node.pool), self.then.of(&node.pool));
        let context =
            case.context(&record, now.in_force.as_context(), Some(then.in_force.as_context()));
        let appraisal = case.appraise(&context, &self.objects).ok()?;
        let Appraisal { verdict, proven: Some(_), staged: Some(then), .. } = appraisal else {
            return None;
        };
        let is_active = record.standing == Standing::Active;
        let admitted_now = matches!(verdict, Verdict::Admit(_));
        let is_told = then.findings.is_empty()
            || then.findings.iter().any(|finding| !UNDECIDED_CODES.contains(&finding.code));
        let admitted_then = is_active && then.findings.is_empty();
        let before: Vec<Finding> = match verdict {
            Verdict::Admit(_) => Vec::new(),
            Verdict::Deny(denial) => denial.findings().cloned().collect(),
        };
        let what = match (admitted_now, admitted_then) {
            (true, true) => return Some(Judged::Same { admitted: true }),
            (true, false) if !is_told => What::Undecided,
            (true, false) => What::Denied,
            (false, true) => What::Admitted,
            (false, false) => {
                let same = then.findings.iter().all(|finding| before.contains(finding));
                if same {
                    return Some(Judged::Same { admitted: false });
                }
                What::DeniedDifferently
            }
        };
        Some(Judged::Changed(Box::new(NodeChange {
            node: node.name.clone(),
            pool: node.pool.clone(),
            what,
            decision: evidence.decision.clone(),
            evidence_unix_s: evidence.at,
            judged_by: then.judged_by,
            findings: then.findings,
        })))
    }
}
