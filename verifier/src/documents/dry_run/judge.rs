//! One node: its recorded evidence, judged by what is in force and by what would be.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use appraisal::{
    Appraisal,
    context::{NodeRecord, Standing},
    ima::Manifest,
    policy::decide::pcr_subject,
    verdict::{Finding, Verdict},
};
use proto::{digest::Digest, evidence::LogKind, reason::ReasonCode};

use super::{
    ima::whole_list,
    outcome::{Judged, NodeChange, What},
};
use crate::{
    case::{CaseObjects, OpenedCase, RecordedCase, ReplayError},
    endorsements::EndorsementSet,
    expectations::{Expectations, Expected},
    objects::Objects,
    store::{FleetNode, NodeStatus, RecordedEvidence, StoreError},
};

/// What judges, shared by all that judge.
#[derive(Debug)]
pub(super) struct Judge {
    now: Expectations,
    then: Expectations,
    objects: CaseParts,
}

/// What the newest evidence alone leads to.
#[derive(Debug)]
pub(super) enum First {
    /// An answer.
    Told(Judged),
    /// Older evidence may tell more.
    AskOlder,
}

impl Judge {
    pub(super) fn new(now: Expectations, then: Expectations, objects: Objects) -> Self {
        Self { now, then, objects: CaseParts { objects, endorsements: Mutex::default() } }
    }

    /// By the newest evidence alone.
    pub(super) fn newest(&self, node: &FleetNode) -> First {
        let Some(newest) = &node.evidence else { return First::Told(Judged::WithoutEvidence) };
        match self.judge(node, newest, &[]) {
            Some(Answer { judged, wants_list: false }) => First::Told(judged),
            Some(Answer { wants_list: true, .. }) | None => First::AskOlder,
        }
    }

    /// By the newest evidence that can be read, with what older evidence of the same boot adds to it.
    pub(super) fn any(&self, node: &FleetNode, evidence: &[RecordedEvidence]) -> Judged {
        let mut rest = evidence;
        while let [newest, older @ ..] = rest {
            if let Some(answer) = self.judge(node, newest, older) {
                return answer.judged;
            }
            rest = older;
        }
        Judged::WithoutEvidence
    }

    /// By one recorded case; `None` if it proves nothing of this node, or cannot be read.
    fn judge(
        &self,
        node: &FleetNode,
        evidence: &RecordedEvidence,
        older: &[RecordedEvidence],
    ) -> Option<Answer> {
        let case = RecordedCase::read(&evidence.case).ok()?;
        // Another TPM has taken the name since.
        if case.node().ek_digest != node.ek_digest {
            return None;
        }
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
        let opened = case.open(&self.objects).ok()?.reading_the_whole_list();
        let (now, then) = (self.now.of(&node.pool), self.then.of(&node.pool));
        let node_evidence =
            NodeEvidence { judge: self, case: &case, opened, record: &record, older };
        let today = node_evidence.judged_by(&now.in_force);
        // Another pool's documents change: nothing does here.
        if now.documents == then.documents {
            let (wants_list, admitted) = (today.wants_list, today.counts_as_admitted());
            return Some(Answer { judged: Judged::Same { admitted }, wants_list });
        }
        let then = node_evidence.judged_by(&then.in_force);
        let wants_list = today.wants_list || then.wants_list;
        let judged = match what_changes(&today, &then) {
            None => Judged::Same { admitted: then.is_admitted() },
            Some(what) => Judged::Changed(Box::new(NodeChange {
                node: node.name.clone(),
                pool: node.pool.clone(),
                what,
                decision: evidence.decision.clone(),
                evidence_unix_s: evidence.at,
                judged_by: then.judged_by,
                findings: then.findings,
            })),
        };
        Some(Answer { judged, wants_list })
    }
}

/// What one case tells of a node.
struct Answer {
    judged: Judged,
    /// The answer depends on entries of the kernel's list that this case does not have.
    wants_list: bool,
}

/// What changes between two answers; `None`: nothing.
fn what_changes(today: &Opinion, then: &Opinion) -> Option<What> {
    match (today.counts_as_admitted(), then.is_admitted()) {
        (true, true) => None,
        (true, false) if then.is_in_doubt => Some(What::Undecided),
        (true, false) => Some(What::Denied),
        (false, true) => Some(What::Admitted),
        (false, false) if then.lacks_evidence => Some(What::DeniedUndecided),
        (false, false) => {
            (reasons(&today.findings) != reasons(&then.findings)).then_some(What::DeniedDifferently)
        }
    }
}

/// What findings are about. What would be accepted instead differs between documents that refuse a node for the same reason.
fn reasons(findings: &[Finding]) -> Vec<(ReasonCode, &str)> {
    findings.iter().map(|finding| (finding.code, finding.subject.as_str())).collect()
}

/// What something says of a node.
struct Opinion {
    judged_by: String,
    /// Why not. Where the evidence lacks something: that, and what is certain besides.
    findings: Vec<Finding>,
    /// Nothing stands against the node but what the evidence lacks.
    is_in_doubt: bool,
    /// More evidence may change the findings.
    lacks_evidence: bool,
    wants_list: bool,
}

impl Opinion {
    fn is_admitted(&self) -> bool {
        self.findings.is_empty()
    }

    /// Where the evidence does not tell whether a node is admitted today, it counts as admitted: no denial goes unseen.
    fn counts_as_admitted(&self) -> bool {
        self.is_admitted() || self.is_in_doubt
    }
}

/// One node's evidence, ready to be judged.
struct NodeEvidence<'e> {
    judge: &'e Judge,
    case: &'e RecordedCase,
    opened: OpenedCase,
    record: &'e NodeRecord,
    older: &'e [RecordedEvidence],
}

impl NodeEvidence<'_> {
    /// Judged as an attestation judges it, by what would be in force.
    fn judged_by(&self, expected: &Expected) -> Opinion {
        let opinion = self.opinion(&self.opened, expected);
        if !opinion.wants_list {
            return opinion;
        }
        match whole_list(self.case, &self.opened, self.older, &self.judge.objects) {
            Some(list) => {
                let opened = self.opened.with_log(list).reading_the_whole_list();
                self.opinion(&opened, expected)
            }
            None => opinion,
        }
    }

    fn opinion(&self, opened: &OpenedCase, expected: &Expected) -> Opinion {
        let context = self.case.context(self.record, expected.as_context(), None);
        let Appraisal { verdict, judged_by, lacking, .. } = opened.appraise(&context);
        let Verdict::Deny(denial) = verdict else {
            let findings = Vec::new();
            return Opinion {
                judged_by,
                findings,
                is_in_doubt: false,
                lacks_evidence: false,
                wants_list: false,
            };
        };
        let never_comes = |one: &Finding| self.never_comes(opened, one);
        let is_told = lacking.is_empty() || lacking.iter().any(never_comes);
        let findings: Vec<Finding> =
            if is_told { denial.findings().cloned().collect() } else { lacking };
        let is_lacking = |one: &Finding| one.is_of_lacking_evidence() && !never_comes(one);
        Opinion {
            is_in_doubt: !is_told && findings.iter().all(is_lacking),
            lacks_evidence: findings.iter().any(is_lacking),
            wants_list: findings.iter().any(|one| is_lacking(one) && is_about_list(one)),
            judged_by,
            findings,
        }
    }

    /// Whether the node has given what there is of what it lacks: a TPM without a bank, a kernel without a list.
    fn never_comes(&self, opened: &OpenedCase, lacking: &Finding) -> bool {
        if is_about_list(lacking) {
            let gave_all = opened.log(LogKind::Ima).is_some_and(|log| log.from_bytes == 0);
            return gave_all || !self.case.has_log(LogKind::Ima);
        }
        let is_it = |(bank, index)| lacking.subject == pcr_subject(bank, index);
        lacking.code == ReasonCode::PcrSelectionIncomplete && self.case.asked_for().any(is_it)
    }
}

fn is_about_list(finding: &Finding) -> bool {
    matches!(finding.code, ReasonCode::PolicyImaListMissing | ReasonCode::ImaOffsetInvalid)
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
