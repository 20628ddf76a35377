//! The administration service: who calls is decided by the client certificate, what it may do by the store.

use std::sync::Arc;

use appraisal::x509::{Certificate, Crl};
use proto::{digest::Digest, pb, reason::ReasonCode};
use tokio::sync::Notify;
use tonic::{Code, Request, Response, Status};

use super::{
    access::Access,
    answer::{Answer, invalid, not_found, store},
    status::with_reason,
};
use crate::{
    attestation::Verifier,
    ca::Segment,
    capture, roots,
    store::{
        ALLOW_LISTED, Admin, AdmissionRule, By, DecisionFilter, EndorsementKind, NewNode, Node,
        NodeChange, NodeStatus, RecordedDecision, Role,
    },
};

/// Nodes listed in one answer.
const MAX_LISTED_NODES: u32 = 100_000;
/// Decisions shown with a node.
const SHOWN_DECISIONS: u32 = 10;

/// Implements `assay.attest.v1.Admin`.
#[derive(Debug)]
pub struct AdminService {
    verifier: Arc<Verifier>,
    access: Arc<Access>,
    revoked: Notify,
}

impl AdminService {
    /// The service of a verifier, for those whom `access` lets in.
    #[must_use]
    pub fn new(verifier: Arc<Verifier>, access: Arc<Access>) -> Self {
        Self { verifier, access, revoked: Notify::new() }
    }

    /// Resolves after certificates may have been revoked since the last call.
    pub async fn revoked(&self) {
        self.revoked.notified().await;
    }

    async fn authorize<T>(&self, request: &Request<T>, needed: Role) -> Result<By, Status> {
        self.access.authorize(request, needed).await
    }

    async fn node_named(&self, name: &str) -> Result<Node, Status> {
        let found = if name.starts_with("sha256:") {
            let digest = parse_digest(name)?;
            self.verifier.store().node_by_ek(&digest).await
        } else {
            self.verifier.store().node(name).await
        };
        found.map_err(|error| store(&error))?.ok_or_else(|| not_found(format!("node {name:?}")))
    }

    async fn change(&self, name: &str, change: NodeChange, by: By) -> Answer<pb::Node> {
        let node = self.node_named(name).await?;
        let changed = self
            .verifier
            .store()
            .change_node(&node.name, Some(node.version), change, by)
            .await
            .map_err(|error| store(&error))?;
        Ok(Response::new(self.node_message(&changed).await?))
    }

    async fn node_message(&self, node: &Node) -> Result<pb::Node, Status> {
        let filter =
            DecisionFilter { node: Some(node.name.clone()), limit: 1, ..Default::default() };
        let last = self.verifier.store().decisions(&filter).await.map_err(|error| store(&error))?;
        let last = last.first();
        Ok(pb::Node {
            name: node.name.clone(),
            pool: node.pool.clone(),
            status: node.status.to_string(),
            ek_digest: node.ek_digest.to_string(),
            allow_listed: node.admitted_by.as_deref() == Some(ALLOW_LISTED),
            manufacturer: node.manufacturer.clone().unwrap_or_default(),
            created_unix_s: node.created.at,
            last_attested_unix_s: last.map_or(0, |d| d.decision.at),
            last_outcome: last.map(|d| d.decision.outcome.to_string()).unwrap_or_default(),
            last_codes: last.map(|d| d.decision.codes.clone()).unwrap_or_default(),
            note: node.note.clone(),
        })
    }
}

#[tonic::async_trait]
impl pb::admin_server::Admin for AdminService {
    async fn add_node(&self, request: Request<pb::AddNodeRequest>) -> Answer<pb::Node> {
        let by = self.authorize(&request, Role::Operator).await?;
        let message = request.into_inner();
        segment("name", &message.name)?;
        segment("pool", &message.pool)?;
        let (ek_digest, certificate) = match message.ek {
            Some(pb::add_node_request::Ek::EkCertificate(bytes)) => {
                let (digest, der) = ek_of_certificate(&bytes)?;
                (digest, Some(der))
            }
            Some(pb::add_node_request::Ek::EkDigest(text)) => (parse_digest(&text)?, None),
            None => return Err(invalid("an EK certificate or an EK digest is needed")),
        };
        // The site vouching for an EK by itself changes what is trusted.
        if message.allow_listed {
            self.require_security(&by).await?;
        }
        let node = NewNode {
            name: message.name,
            ek_digest,
            pool: message.pool,
            status: NodeStatus::Active,
            ek_certificate: certificate,
            ek_chain: Vec::new(),
            manufacturer: None,
            admitted_by: message.allow_listed.then(|| ALLOW_LISTED.to_owned()),
            note: message.note,
        };
        let added =
            self.verifier.store().add_node(node, by).await.map_err(|error| store(&error))?;
        Ok(Response::new(self.node_message(&added).await?))
    }

    async fn approve_node(&self, request: Request<pb::ApproveNodeRequest>) -> Answer<pb::Node> {
        let by = self.authorize(&request, Role::Operator).await?;
        let message = request.into_inner();
        let node = self.node_named(&message.name).await?;
        let name = if message.new_name.is_empty() { node.name.clone() } else { message.new_name };
        let pool = if message.pool.is_empty() { node.pool.clone() } else { message.pool };
        segment("name", &name)?;
        segment("pool", &pool)?;
        let change = NodeChange::Approve { name, pool };
        let changed = self
            .verifier
            .store()
            .change_node(&node.name, Some(node.version), change, by)
            .await
            .map_err(|error| store(&error))?;
        Ok(Response::new(self.node_message(&changed).await?))
    }

    async fn list_nodes(&self, request: Request<pb::ListNodesRequest>) -> Answer<pb::NodeList> {
        self.authorize(&request, Role::Viewer).await?;
        let message = request.into_inner();
        let pool = (!message.pool.is_empty()).then_some(message.pool.as_str());
        let nodes = self
            .verifier
            .store()
            .nodes(pool, None, MAX_LISTED_NODES)
            .await
            .map_err(|error| store(&error))?;
        let mut out = Vec::with_capacity(nodes.len());
        for node in &nodes {
            if message.status.is_empty() || node.status.as_str() == message.status {
                out.push(self.node_message(node).await?);
            }
        }
        Ok(Response::new(pb::NodeList { nodes: out }))
    }

    async fn show_node(&self, request: Request<pb::NodeName>) -> Answer<pb::NodeDetail> {
        self.authorize(&request, Role::Viewer).await?;
        let node = self.node_named(&request.into_inner().name).await?;
        let database = self.verifier.store();
        let filter = DecisionFilter {
            node: Some(node.name.clone()),
            limit: SHOWN_DECISIONS,
            ..Default::default()
        };
        let decisions = database.decisions(&filter).await.map_err(|error| store(&error))?;
        let certificates =
            database.certificates(&node.name, SHOWN_DECISIONS).await.map_err(|e| store(&e))?;
        let claims = capture::last_claims(database, &node.name).await.map_err(|e| store(&e))?;
        Ok(Response::new(pb::NodeDetail {
            node: Some(self.node_message(&node).await?),
            claims_json: claims.map(|claims| claims.json).unwrap_or_default(),
            decisions: decisions.iter().map(decision_message).collect(),
            certificates: certificates
                .iter()
                .map(|certificate| pb::Certificate {
                    serial: certificate.intent.serial.clone(),
                    not_after_unix_s: certificate.intent.not_after,
                    status: certificate.status.to_string(),
                })
                .collect(),
        }))
    }

    async fn revoke_node(&self, request: Request<pb::NodeReason>) -> Answer<pb::Node> {
        let by = self.authorize(&request, Role::Operator).await?;
        let pb::NodeReason { name, reason } = with_a_reason(request)?;
        let changed = self.change(&name, NodeChange::Revoke { reason }, by).await;
        self.revoked.notify_one();
        changed
    }

    async fn remove_node(&self, request: Request<pb::NodeReason>) -> Answer<pb::Empty> {
        let by = self.authorize(&request, Role::Operator).await?;
        let pb::NodeReason { name, reason } = with_a_reason(request)?;
        let node = self.node_named(&name).await?;
        self.verifier
            .store()
            .remove_node(&node.name, &reason, by)
            .await
            .map_err(|error| store(&error))?;
        self.revoked.notify_one();
        Ok(Response::new(pb::Empty {}))
    }

    async fn replace_tpm(&self, request: Request<pb::ReplaceTpmRequest>) -> Answer<pb::Node> {
        let by = self.authorize(&request, Role::Operator).await?;
        let message = request.into_inner();
        if message.reason.trim().is_empty() {
            return Err(invalid("a reason is needed: it is recorded"));
        }
        if message.allow_listed {
            self.require_security(&by).await?;
        }
        let change = NodeChange::ReplaceEk {
            ek_digest: parse_digest(&message.ek_digest)?,
            allow_listed: message.allow_listed,
            reason: message.reason,
        };
        self.change(&message.name, change, by).await
    }

    async fn accept_clear(&self, request: Request<pb::NodeReason>) -> Answer<pb::Node> {
        let by = self.authorize(&request, Role::Operator).await?;
        let pb::NodeReason { name, reason } = with_a_reason(request)?;
        self.change(&name, NodeChange::ForgetCounters { reason }, by).await
    }

    async fn add_rule(&self, request: Request<pb::Rule>) -> Answer<pb::Rule> {
        let by = self.authorize(&request, Role::Security).await?;
        let rule = request.into_inner();
        segment("name", &rule.name)?;
        if rule.name == ALLOW_LISTED {
            // Nodes remember what admitted them by name: this one means the site's own word.
            return Err(invalid(format!("name {ALLOW_LISTED:?} is reserved")));
        }
        segment("pool", &rule.pool)?;
        if !rule.name_prefix.is_empty() {
            segment("name_prefix", &rule.name_prefix)?;
        }
        let root = parse_digest(&rule.root)?;
        self.verifier
            .store()
            .add_admission_rule(
                AdmissionRule {
                    name: rule.name.clone(),
                    root_sha256: Some(root),
                    manufacturer: (!rule.manufacturer.is_empty())
                        .then(|| rule.manufacturer.clone()),
                    pool: rule.pool.clone(),
                    name_template: rule.name_prefix.clone(),
                },
                by,
            )
            .await
            .map_err(|error| store(&error))?;
        self.reload().await?;
        Ok(Response::new(rule))
    }

    async fn list_rules(&self, request: Request<pb::Empty>) -> Answer<pb::RuleList> {
        self.authorize(&request, Role::Viewer).await?;
        let rules = self.verifier.store().admission_rules().await.map_err(|error| store(&error))?;
        Ok(Response::new(pb::RuleList {
            rules: rules
                .into_iter()
                .map(|(rule, _)| pb::Rule {
                    name: rule.name,
                    root: rule.root_sha256.map(|root| root.to_string()).unwrap_or_default(),
                    manufacturer: rule.manufacturer.unwrap_or_default(),
                    pool: rule.pool,
                    name_prefix: rule.name_template,
                })
                .collect(),
        }))
    }

    async fn remove_rule(&self, request: Request<pb::RuleName>) -> Answer<pb::Empty> {
        let by = self.authorize(&request, Role::Security).await?;
        let name = request.into_inner().name;
        self.verifier
            .store()
            .remove_admission_rule(&name, by)
            .await
            .map_err(|error| store(&error))?;
        self.reload().await?;
        Ok(Response::new(pb::Empty {}))
    }

    async fn import_roots(
        &self,
        request: Request<pb::ImportRootsRequest>,
    ) -> Answer<pb::ImportRootsReply> {
        let by = self.authorize(&request, Role::Security).await?;
        let now = by.at;
        let mut reply = pb::ImportRootsReply::default();
        for item in request.into_inner().items {
            let kind = match item.kind.as_str() {
                "anchor" => EndorsementKind::Root,
                "intermediate" => EndorsementKind::Intermediate,
                "crl" => EndorsementKind::Crl,
                other => {
                    return Err(invalid(format!(
                        "kind {other:?} is not anchor, intermediate or crl"
                    )));
                }
            };
            if let Err(why) = readable(kind, &item.der) {
                reply.rejected.push(pb::Root {
                    note: why,
                    ..root_message(kind, &item.der, &item.label, now)
                });
                continue;
            }
            let added = self
                .verifier
                .store()
                .import_endorsement(kind, item.der, &item.label, by.clone())
                .await
                .map_err(|error| store(&error))?;
            if added {
                reply.added += 1;
            } else {
                reply.known += 1;
            }
        }
        self.reload().await?;
        Ok(Response::new(reply))
    }

    async fn list_roots(&self, request: Request<pb::Empty>) -> Answer<pb::RootList> {
        let by = self.authorize(&request, Role::Viewer).await?;
        let set = self.verifier.store().endorsements().await.map_err(|error| store(&error))?;
        let roots = set
            .items
            .iter()
            .map(|item| root_message(item.kind, &item.der, &item.label, by.at))
            .collect();
        Ok(Response::new(pb::RootList { roots }))
    }

    async fn remove_root(&self, request: Request<pb::RootDigest>) -> Answer<pb::Empty> {
        let by = self.authorize(&request, Role::Security).await?;
        let digest = parse_digest(&request.into_inner().sha256)?;
        let database = self.verifier.store();
        let set = database.endorsements().await.map_err(|error| store(&error))?;
        let item = set
            .items
            .iter()
            .find(|item| item.sha256 == digest)
            .ok_or_else(|| not_found(format!("root, intermediate or CRL {digest}")))?;
        database.remove_endorsement(item.kind, digest, by).await.map_err(|error| store(&error))?;
        self.reload().await?;
        Ok(Response::new(pb::Empty {}))
    }

    async fn list_decisions(
        &self,
        request: Request<pb::ListDecisionsRequest>,
    ) -> Answer<pb::DecisionList> {
        self.authorize(&request, Role::Viewer).await?;
        let message = request.into_inner();
        let filter = DecisionFilter {
            node: (!message.node.is_empty()).then_some(message.node),
            limit: message.limit.min(1000),
            ..Default::default()
        };
        let decisions =
            self.verifier.store().decisions(&filter).await.map_err(|error| store(&error))?;
        Ok(Response::new(pb::DecisionList {
            decisions: decisions.iter().map(decision_message).collect(),
        }))
    }

    async fn show_decision(&self, request: Request<pb::DecisionId>) -> Answer<pb::DecisionDetail> {
        self.authorize(&request, Role::Viewer).await?;
        let id = request.into_inner().id;
        let database = self.verifier.store();
        let decision = database
            .decision(&id)
            .await
            .map_err(|error| store(&error))?
            .ok_or_else(|| not_found(format!("decision {id:?}")))?;
        let verdict = database.verdict(&id).await.map_err(|error| store(&error))?;
        Ok(Response::new(pb::DecisionDetail {
            decision: Some(decision_message(&decision)),
            verdict_json: String::from_utf8(verdict.unwrap_or_default()).unwrap_or_default(),
        }))
    }

    async fn add_admin(&self, request: Request<pb::AdminRecord>) -> Answer<pb::AdminRecord> {
        let by = self.authorize(&request, Role::Security).await?;
        let record = request.into_inner();
        segment("name", &record.name)?;
        let role: Role = record.role.parse().map_err(|_| {
            invalid(format!("role {:?} is not viewer, operator or security", record.role))
        })?;
        let spki_sha256 = parse_digest(&record.spki_sha256)?;
        let admin =
            Admin { name: record.name.clone(), role, spki_sha256, created: by, revoked_at: None };
        self.verifier.store().add_admin(admin).await.map_err(|error| store(&error))?;
        Ok(Response::new(record))
    }

    async fn list_admins(&self, request: Request<pb::Empty>) -> Answer<pb::AdminList> {
        self.authorize(&request, Role::Viewer).await?;
        let admins = self.verifier.store().admins().await.map_err(|error| store(&error))?;
        Ok(Response::new(pb::AdminList {
            admins: admins
                .into_iter()
                .map(|admin| pb::AdminRecord {
                    name: admin.name,
                    role: admin.role.to_string(),
                    revoked: admin.revoked_at.is_some(),
                    spki_sha256: admin.spki_sha256.to_string(),
                })
                .collect(),
        }))
    }

    async fn revoke_admin(&self, request: Request<pb::AdminName>) -> Answer<pb::Empty> {
        let by = self.authorize(&request, Role::Security).await?;
        let name = request.into_inner().name;
        self.verifier.store().revoke_admin(&name, by).await.map_err(|error| store(&error))?;
        Ok(Response::new(pb::Empty {}))
    }
}

impl AdminService {
    async fn require_security(&self, by: &By) -> Result<(), Status> {
        let admins = self.verifier.store().admins().await.map_err(|error| store(&error))?;
        let name = by.actor.strip_prefix("admin/").unwrap_or_default();
        if admins.iter().any(|admin| admin.name == name && admin.role >= Role::Security) {
            return Ok(());
        }
        Err(with_reason(
            Code::PermissionDenied,
            ReasonCode::AdminRoleInsufficient,
            "allow-listing an EK changes what is trusted: it needs the role security",
        ))
    }

    async fn reload(&self) -> Result<(), Status> {
        self.verifier.reload().await.map_err(|error| super::status::attest(&error))
    }
}

/// Whether a certificate or CRL can be used as an endorsement at all.
fn readable(kind: EndorsementKind, der: &[u8]) -> Result<(), String> {
    match kind {
        EndorsementKind::Crl => Crl::parse(der).map(drop),
        EndorsementKind::Root | EndorsementKind::Intermediate => Certificate::parse(der).map(drop),
    }
    .map_err(|error| error.to_string())
}

fn root_message(kind: EndorsementKind, der: &[u8], label: &str, now_unix_s: i64) -> pb::Root {
    let kind = match kind {
        EndorsementKind::Root => roots::Kind::Anchor,
        EndorsementKind::Intermediate => roots::Kind::Intermediate,
        EndorsementKind::Crl => roots::Kind::Crl,
    };
    let row = roots::describe(kind, label, der, now_unix_s);
    pb::Root {
        sha256: row.sha256,
        kind: row.kind,
        subject: row.subject,
        issuer: row.issuer,
        not_after_unix_s: row.not_after_unix_s,
        algorithm: format!("{}, {}", row.key, row.signature),
        oddities: row.oddities,
        label: row.label,
        note: row.note,
    }
}

fn decision_message(decision: &RecordedDecision) -> pb::Decision {
    let decision = &decision.decision;
    pb::Decision {
        id: decision.id.clone(),
        at_unix_s: decision.at,
        node: decision.node.clone().unwrap_or_default(),
        outcome: decision.outcome.to_string(),
        codes: decision.codes.clone(),
    }
}

/// Digest of the EK in a certificate, PEM or DER, and the certificate's DER.
fn ek_of_certificate(bytes: &[u8]) -> Result<(Digest, Vec<u8>), Status> {
    let der = crate::endorsements::der_of(bytes)
        .ok_or_else(|| invalid("the EK certificate is neither DER nor PEM"))?;
    let certificate = Certificate::parse(&der)
        .map_err(|error| invalid(format!("the EK certificate: {error}")))?;
    let digest = appraisal::ek::certified_digest(&certificate)
        .ok_or_else(|| invalid("the EK certificate's key is none of RSA, P-256, P-384"))?;
    Ok((digest, der))
}

fn with_a_reason(request: Request<pb::NodeReason>) -> Result<pb::NodeReason, Status> {
    let message = request.into_inner();
    if message.reason.trim().is_empty() {
        return Err(invalid("a reason is needed: it is recorded"));
    }
    Ok(message)
}

fn segment(what: &str, text: &str) -> Result<(), Status> {
    text.parse::<Segment>().map(drop).map_err(|error| invalid(format!("{what} {text:?}: {error}")))
}

fn parse_digest(text: &str) -> Result<Digest, Status> {
    text.parse().map_err(|error| invalid(format!("digest {text:?}: {error}")))
}
