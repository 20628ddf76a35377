//! `verifier nodes` and `verifier rules`: the inventory.

use std::path::{Path, PathBuf};

use appraisal::x509::Certificate;
use clap::{Args, Subcommand};
use proto::pb::{self, add_node_request::Ek};
use serde_json::{Value, json};

use super::{
    Done, Failure, Global, block_on,
    client::{answer, connect},
    files::read_bytes,
    output::{Output, time},
};

/// The inventory: which TPMs are which nodes.
#[derive(Debug, Subcommand)]
pub(super) enum NodesCommand {
    /// Add a node by its EK certificate or EK digest.
    ///
    /// Example:
    ///   verifier nodes add worker-17 --pool linux --ek-certificate ek.pem
    #[command(verbatim_doc_comment)]
    Add(AddArgs),
    /// Let a pending or revoked node in.
    ///
    /// Example:
    ///   verifier nodes approve pending-8f3a12c04b6d --name worker-17 --pool linux
    #[command(verbatim_doc_comment)]
    Approve(ApproveArgs),
    /// List nodes with their last decision.
    ///
    /// Example:
    ///   verifier nodes list --status pending
    #[command(verbatim_doc_comment)]
    List(ListArgs),
    /// Show a node: claims of its last verified evidence, decisions, certificates.
    ///
    /// Example:
    ///   verifier nodes show worker-17
    #[command(verbatim_doc_comment)]
    Show {
        /// Name, or EK digest `sha256:…`.
        #[arg(value_name = "NODE")]
        name: String,
    },
    /// Revoke a node and every certificate that it holds; the revocation list follows at once.
    ///
    /// Example:
    ///   verifier nodes revoke worker-17 --reason key-compromise
    #[command(verbatim_doc_comment)]
    Revoke(ReasonArgs),
    /// Remove a node from the inventory; its decisions stay on record.
    ///
    /// Example:
    ///   verifier nodes remove worker-17 --reason "sold"
    #[command(verbatim_doc_comment)]
    Remove(ReasonArgs),
    /// The TPM or mainboard was replaced: pin the node to another EK.
    ///
    /// Example:
    ///   verifier nodes replace-tpm worker-17 --ek-certificate new.pem --reason "new mainboard"
    #[command(verbatim_doc_comment)]
    ReplaceTpm(ReplaceArgs),
    /// The TPM was cleared on purpose: let its counters start again.
    ///
    /// Example:
    ///   verifier nodes accept-clear worker-17 --reason "reinstalled, ticket 4711"
    #[command(verbatim_doc_comment)]
    AcceptClear(ReasonArgs),
}

/// Which EK: exactly one of both.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(super) struct EkArgs {
    /// EK certificate, PEM or DER, as read from the TPM or given by its manufacturer.
    #[arg(long, value_name = "FILE")]
    ek_certificate: Option<PathBuf>,
    /// EK digest, `sha256:…`, as `attestor inspect` prints it.
    #[arg(long, value_name = "DIGEST")]
    ek_digest: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct AddArgs {
    /// Name of the node; it becomes part of its SPIFFE ID.
    #[arg(value_name = "NODE")]
    name: String,
    /// Pool: whose golden set judges it.
    #[arg(long)]
    pool: String,
    #[command(flatten)]
    ek: EkArgs,
    /// The site itself vouches for this EK: no certificate of a manufacturer is needed. Needs the
    /// role security.
    #[arg(long)]
    allow_listed: bool,
    /// Free text.
    #[arg(long, default_value = "", hide_default_value = true)]
    note: String,
}

#[derive(Args, Debug)]
pub(super) struct ApproveArgs {
    /// Name, or EK digest `sha256:…`.
    #[arg(value_name = "NODE")]
    node: String,
    /// Name from now on.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    name: String,
    /// Pool from now on.
    #[arg(long, default_value = "", hide_default_value = true)]
    pool: String,
}

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    /// Only this pool.
    #[arg(long, default_value = "", hide_default_value = true)]
    pool: String,
    /// Only this status.
    #[arg(long, value_parser = ["active", "pending", "revoked"])]
    status: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct ReasonArgs {
    /// Name, or EK digest `sha256:…`.
    #[arg(value_name = "NODE")]
    name: String,
    /// Why; it is recorded. A word of RFC 5280 (key-compromise, cessation-of-operation, superseded,
    /// …) stands in the revocation list too.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(Args, Debug)]
pub(super) struct ReplaceArgs {
    /// Name of the node.
    #[arg(value_name = "NODE")]
    name: String,
    #[command(flatten)]
    ek: EkArgs,
    /// The site itself vouches for the new EK. Needs the role security.
    #[arg(long)]
    allow_listed: bool,
    /// Why; it is recorded.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Rules that admit unknown TPMs by themselves.
#[derive(Debug, Subcommand)]
pub(super) enum RulesCommand {
    /// Admit every TPM under a manufacturer's root to a pool: for short-lived workers.
    ///
    /// Example:
    ///   verifier rules add cloud --root sha256:5f0c… --pool ephemeral --name-prefix vm-
    #[command(verbatim_doc_comment)]
    Add(RuleArgs),
    /// List the rules.
    ///
    /// Example:
    ///   verifier rules list
    #[command(verbatim_doc_comment)]
    List,
    /// Remove a rule; nodes that it admitted stay.
    ///
    /// Example:
    ///   verifier rules remove cloud
    #[command(verbatim_doc_comment)]
    Remove {
        /// Name of the rule.
        #[arg(value_name = "RULE")]
        name: String,
    },
}

#[derive(Args, Debug)]
pub(super) struct RuleArgs {
    /// Name of the rule.
    #[arg(value_name = "RULE")]
    name: String,
    /// SHA-256 of the root certificate that the EK must chain to, as `verifier roots list` prints it.
    #[arg(long, value_name = "DIGEST")]
    root: String,
    /// Only TPMs of this manufacturer, for example `id:474F4F47`.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    manufacturer: String,
    /// Pool of the nodes.
    #[arg(long)]
    pool: String,
    /// Beginning of their names; the EK digest's first twelve digits follow.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    name_prefix: String,
}

pub(super) fn run(global: &Global, command: NodesCommand) -> Done {
    let output = global.output();
    block_on(async {
        match command {
            NodesCommand::Add(args) => {
                let ek = match (args.ek.ek_certificate, args.ek.ek_digest) {
                    (Some(path), _) => Ek::EkCertificate(read_bytes(&path)?),
                    (None, digest) => Ek::EkDigest(digest.unwrap_or_default()),
                };
                let request = pb::AddNodeRequest {
                    name: args.name,
                    pool: args.pool,
                    allow_listed: args.allow_listed,
                    note: args.note,
                    ek: Some(ek),
                };
                changed(output, "added", &answer(connect(global).await?.add_node(request).await)?)
            }
            NodesCommand::Approve(ApproveArgs { node: name, name: new_name, pool }) => {
                let request = pb::ApproveNodeRequest { name, new_name, pool };
                let node = answer(connect(global).await?.approve_node(request).await)?;
                changed(output, "approved", &node)
            }
            NodesCommand::List(ListArgs { pool, status }) => {
                let request = pb::ListNodesRequest { pool, status: status.unwrap_or_default() };
                list(output, &answer(connect(global).await?.list_nodes(request).await)?.nodes)
            }
            NodesCommand::Show { name } => {
                let request = pb::NodeName { name };
                show(output, &answer(connect(global).await?.show_node(request).await)?)
            }
            NodesCommand::Revoke(ReasonArgs { name, reason }) => {
                let request = pb::NodeReason { name, reason };
                let node = answer(connect(global).await?.revoke_node(request).await)?;
                changed(output, "revoked", &node)
            }
            NodesCommand::Remove(ReasonArgs { name, reason }) => {
                let request = pb::NodeReason { name: name.clone(), reason };
                answer(connect(global).await?.remove_node(request).await)?;
                output.either(&json!({ "removed": name }), format!("removed {name}"))
            }
            NodesCommand::ReplaceTpm(args) => {
                let request = pb::ReplaceTpmRequest {
                    name: args.name,
                    ek_digest: ek_digest(&args.ek)?,
                    allow_listed: args.allow_listed,
                    reason: args.reason,
                };
                let node = answer(connect(global).await?.replace_tpm(request).await)?;
                changed(output, "pinned to another TPM:", &node)
            }
            NodesCommand::AcceptClear(ReasonArgs { name, reason }) => {
                let request = pb::NodeReason { name, reason };
                let node = answer(connect(global).await?.accept_clear(request).await)?;
                changed(output, "counters forgotten:", &node)
            }
        }
    })
}

pub(super) fn run_rules(global: &Global, command: RulesCommand) -> Done {
    let output = global.output();
    block_on(async {
        match command {
            RulesCommand::Add(args) => {
                let RuleArgs { name, root, manufacturer, pool, name_prefix } = args;
                let rule = pb::Rule { name, root, manufacturer, pool, name_prefix };
                let rule = answer(connect(global).await?.add_rule(rule).await)?;
                output.either(&rule_json(&rule), format!("added rule {}", rule.name))
            }
            RulesCommand::List => {
                let rules = answer(connect(global).await?.list_rules(pb::Empty {}).await)?.rules;
                if output.is_json() {
                    return output.json(&rules.iter().map(rule_json).collect::<Vec<_>>());
                }
                let rows: Vec<_> = rules
                    .into_iter()
                    .map(|rule| {
                        let any = |text: String| if text.is_empty() { "any".into() } else { text };
                        let prefix = rule.name_prefix;
                        vec![rule.name, rule.pool, any(rule.manufacturer), prefix, rule.root]
                    })
                    .collect();
                let heads = ["RULE", "POOL", "MANUFACTURER", "PREFIX", "ROOT"];
                output.table(&heads, &rows, "There is no rule: unknown TPMs become pending nodes.")
            }
            RulesCommand::Remove { name } => {
                let request = pb::RuleName { name: name.clone() };
                answer(connect(global).await?.remove_rule(request).await)?;
                output.either(&json!({ "removed": name }), format!("removed rule {name}"))
            }
        }
    })
}

fn ek_digest(ek: &EkArgs) -> Result<String, Failure> {
    match &ek.ek_certificate {
        None => Ok(ek.ek_digest.clone().unwrap_or_default()),
        Some(path) => digest_of(path),
    }
}

fn digest_of(path: &Path) -> Result<String, Failure> {
    let der = crate::endorsements::der_of(&read_bytes(path)?)
        .ok_or_else(|| Failure::failed(format!("{} is neither DER nor PEM", path.display())))?;
    let certificate = Certificate::parse(&der)
        .map_err(|error| Failure::of(&error).while_doing(&format!("read {}", path.display())))?;
    appraisal::ek::certified_digest(&certificate).map(|digest| digest.to_string()).ok_or_else(
        || Failure::failed(format!("{}: its key is none of RSA, P-256, P-384", path.display())),
    )
}

fn changed(output: Output, what: &str, node: &pb::Node) -> Done {
    output.either(
        &node_json(node),
        format!(
            "{what} {} (pool {}, {}, EK {})",
            node.name, node.pool, node.status, node.ek_digest
        ),
    )
}

fn list(output: Output, nodes: &[pb::Node]) -> Done {
    if output.is_json() {
        return output.json(&nodes.iter().map(node_json).collect::<Vec<_>>());
    }
    let rows: Vec<_> = nodes
        .iter()
        .map(|node| {
            vec![
                node.name.clone(),
                node.pool.clone(),
                node.status.clone(),
                time(node.last_attested_unix_s),
                or_dash(&node.last_outcome),
                or_dash(&node.last_codes.join(" ")),
                node.ek_digest.chars().take(19).collect(),
            ]
        })
        .collect();
    let heads = ["NODE", "POOL", "STATUS", "LAST ATTESTED", "OUTCOME", "REASONS", "EK"];
    output.table(&heads, &rows, "There is no such node.")
}

fn show(output: Output, detail: &pb::NodeDetail) -> Done {
    let node = detail.node.clone().unwrap_or_default();
    let claims: Value = serde_json::from_str(&detail.claims_json).unwrap_or(Value::Null);
    if output.is_json() {
        let decisions: Vec<_> = detail.decisions.iter().map(decision_json).collect();
        let certificates: Vec<_> = detail
            .certificates
            .iter()
            .map(|certificate| {
                json!({
                    "serial": certificate.serial,
                    "not_after_unix_s": certificate.not_after_unix_s,
                    "status": certificate.status,
                })
            })
            .collect();
        return output.json(&json!({
            "node": node_json(&node), "claims": claims, "decisions": decisions,
            "certificates": certificates,
        }));
    }
    output.facts(&[
        ("name", node.name.clone()),
        ("pool", node.pool.clone()),
        ("status", node.status.clone()),
        ("EK", node.ek_digest.clone()),
        ("allow-listed", if node.allow_listed { "yes" } else { "no" }.to_owned()),
        ("manufacturer", or_dash(&node.manufacturer)),
        ("added", time(node.created_unix_s)),
        ("last attested", time(node.last_attested_unix_s)),
        ("last outcome", or_dash(&node.last_outcome)),
        ("note", or_dash(&node.note)),
    ])?;
    output.line("\nDecisions, newest first:")?;
    output.table(&DECISION_HEADS, &decision_rows(&detail.decisions), "  none yet")?;
    output.line("\nCertificates, latest first:")?;
    let rows: Vec<_> = detail
        .certificates
        .iter()
        .map(|c| vec![c.serial.clone(), c.status.clone(), time(c.not_after_unix_s)])
        .collect();
    output.table(&["SERIAL", "STATUS", "ENDS"], &rows, "  none yet")?;
    output.line("\nClaims of the last verified evidence:")?;
    if claims.is_null() {
        return output.line("  none: nothing was verified yet");
    }
    output.json(&claims)
}

pub(super) const DECISION_HEADS: [&str; 5] = ["DECISION", "AT", "NODE", "OUTCOME", "REASONS"];

pub(super) fn decision_rows(decisions: &[pb::Decision]) -> Vec<Vec<String>> {
    decisions
        .iter()
        .map(|decision| {
            vec![
                decision.id.clone(),
                time(decision.at_unix_s),
                or_dash(&decision.node),
                decision.outcome.clone(),
                or_dash(&decision.codes.join(" ")),
            ]
        })
        .collect()
}

pub(super) fn decision_json(decision: &pb::Decision) -> Value {
    json!({
        "id": decision.id, "at_unix_s": decision.at_unix_s, "node": decision.node,
        "outcome": decision.outcome, "codes": decision.codes,
    })
}

pub(super) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

fn node_json(node: &pb::Node) -> Value {
    json!({
        "name": node.name, "pool": node.pool, "status": node.status, "ek_digest": node.ek_digest,
        "allow_listed": node.allow_listed, "manufacturer": node.manufacturer,
        "created_unix_s": node.created_unix_s, "last_attested_unix_s": node.last_attested_unix_s,
        "last_outcome": node.last_outcome, "last_codes": node.last_codes, "note": node.note,
    })
}

fn rule_json(rule: &pb::Rule) -> Value {
    json!({
        "name": rule.name, "root": rule.root, "manufacturer": rule.manufacturer,
        "pool": rule.pool, "name_prefix": rule.name_prefix,
    })
}
