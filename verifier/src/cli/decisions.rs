//! `verifier decisions`, `replay` and `audit`: what was decided, and whether it still stands.

use std::{collections::HashMap, io::IsTerminal as _, sync::Arc};

use appraisal::{
    ima::Manifest,
    policy::{GoldenSet, Manifests},
};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use proto::{
    digest::{Digest, HashAlg},
    pb,
};
use serde_json::{Value, json};

use super::{
    Done, Failure, Global, block_on,
    client::{answer, connect},
    nodes::{DECISION_HEADS, decision_json, decision_rows},
    output::time,
};
use crate::{
    case::{CaseObjects, ReplayError, replay},
    objects::Objects,
    run::STORE_FOLDER,
    store::{AuditEntry, DecisionFilter, DocumentKind, Store, StoreError, StoreOptions},
};

/// Recorded decisions.
#[derive(Debug, Subcommand)]
pub(super) enum DecisionsCommand {
    /// List decisions, newest first.
    ///
    /// Example:
    ///   verifier decisions list --node worker-17 --limit 20
    #[command(verbatim_doc_comment)]
    List {
        /// Only of this node.
        #[arg(long, value_name = "NODE", default_value = "", hide_default_value = true)]
        node: String,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 100,
              value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Show a decision with its verdict: every reason, expected and observed.
    ///
    /// Example:
    ///   verifier decisions show 0067a1b2c3-8f3a12c04b6d5e01
    #[command(verbatim_doc_comment)]
    Show {
        /// The decision.
        #[arg(value_name = "ID")]
        id: String,
    },
}

pub(super) fn run(global: &Global, command: DecisionsCommand) -> Done {
    let output = global.output();
    block_on(async {
        match command {
            DecisionsCommand::List { node, limit } => {
                let request = pb::ListDecisionsRequest { node, limit };
                let answered = connect(global).await?.list_decisions(request).await;
                let decisions = answer(answered)?.decisions;
                if output.is_json() {
                    return output.json(&decisions.iter().map(decision_json).collect::<Vec<_>>());
                }
                output.table(&DECISION_HEADS, &decision_rows(&decisions), "There is no decision.")
            }
            DecisionsCommand::Show { id } => {
                let answered = connect(global).await?.show_decision(pb::DecisionId { id }).await;
                let detail = answer(answered)?;
                let verdict: Value =
                    serde_json::from_str(&detail.verdict_json).unwrap_or(Value::Null);
                let decision = detail.decision.unwrap_or_default();
                if output.is_json() {
                    let decision = decision_json(&decision);
                    return output.json(&json!({ "decision": decision, "verdict": verdict }));
                }
                output.table(&DECISION_HEADS, &decision_rows(&[decision]), "")?;
                if verdict.is_null() {
                    return output.line("\nIts evidence is gone: retention dropped it.");
                }
                output.json(&verdict)
            }
        }
    })
}

/// Judge recorded evidence again, offline, and compare with what was decided.
///
/// Reads the database of this machine, also beside a running verifier; no network, no TPM. The same
/// bytes must come out: another verdict means that the record or the program changed. Exits with 3
/// then.
///
/// Examples:
///   verifier replay 0067a1b2c3-8f3a12c04b6d5e01
///   verifier replay --last 100
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
#[group(id = "which", required = true)]
pub(super) struct ReplayArgs {
    /// Decisions.
    #[arg(value_name = "ID", group = "which")]
    ids: Vec<String>,
    /// The newest N decisions.
    #[arg(long, value_name = "N", group = "which", conflicts_with = "ids",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    last: Option<u32>,
}

/// What a case names, from the object folder and the reference documents.
struct Recorded {
    objects: Objects,
    documents: HashMap<Digest, Vec<u8>>,
    manifests: Manifests,
}

impl CaseObjects for Recorded {
    fn object(&self, what: &'static str, digest: &Digest) -> Result<Vec<u8>, ReplayError> {
        self.objects.get(digest).map_err(|error| match error {
            StoreError::NotFound { .. } => ReplayError::Missing { what, digest: *digest },
            other => ReplayError::Damaged(format!("{what}: {}", crate::store::error_chain(&other))),
        })
    }

    fn document(&self, digest: &Digest) -> Result<Vec<u8>, ReplayError> {
        let what = "reference document";
        self.documents.get(digest).cloned().ok_or(ReplayError::Missing { what, digest: *digest })
    }

    fn manifest(&self, digest: &Digest) -> Result<Arc<Manifest>, ReplayError> {
        let what = "manifest";
        self.manifests.get(digest).cloned().ok_or(ReplayError::Missing { what, digest: *digest })
    }
}

/// Every manifest that a golden set names.
async fn manifests(
    store: &Store,
    sets: impl Iterator<Item = &Vec<u8>>,
) -> Result<Manifests, Failure> {
    let mut out = Manifests::new();
    for set in sets {
        let Ok(text) = std::str::from_utf8(set) else { continue };
        for digest in GoldenSet::manifests_named_by(text) {
            if out.contains_key(&digest) {
                continue;
            }
            let Some(document) = store.manifest(&digest).await? else { continue };
            if let Ok(manifest) = Manifest::parse(&document) {
                out.insert(digest, Arc::new(manifest));
            }
        }
    }
    Ok(out)
}

/// How a decision fared.
enum Replayed {
    Equal(Digest),
    Different {
        recorded: Vec<u8>,
        derived: Vec<u8>,
    },
    /// Retention dropped its evidence.
    Dropped,
}

pub(super) fn run_replay(global: &Global, args: ReplayArgs) -> Done {
    let output = global.output();
    block_on(async {
        let store = open_read_only(global).await?;
        let ids = match args.last {
            None => args.ids,
            Some(limit) => {
                let newest = DecisionFilter { limit, ..Default::default() };
                store.decisions(&newest).await?.into_iter().map(|d| d.decision.id).collect()
            }
        };
        let mut documents = HashMap::new();
        for kind in [DocumentKind::Golden, DocumentKind::Policy] {
            let known = store.documents(kind).await?.into_iter();
            documents.extend(known.map(|known| (known.sha256, known.document)));
        }
        let manifests = manifests(&store, documents.values()).await?;
        let recorded = Recorded { objects: store.objects().clone(), documents, manifests };
        let progress = progress(ids.len() as u64, "decisions");
        let mut reports = Vec::new();
        let mut different = false;
        for id in ids {
            let replayed = replay_one(&store, &recorded, &id)
                .await
                .map_err(|failure| failure.while_doing(&format!("judge decision {id} again")))?;
            progress.inc(1);
            different |= matches!(replayed, Replayed::Different { .. });
            reports.push((id, replayed));
        }
        progress.finish_and_clear();
        store.close().await?;
        if output.is_json() {
            output.json(&reports.iter().map(replayed_json).collect::<Vec<_>>())?;
        } else {
            for (id, replayed) in &reports {
                match replayed {
                    Replayed::Equal(digest) => output.line(format!("{id} equal {digest}"))?,
                    Replayed::Dropped => output.line(format!("{id} gone: retention dropped it"))?,
                    Replayed::Different { recorded, derived } => {
                        output.line(format!("{id} DIFFERENT"))?;
                        output.line(format!("recorded: {}", String::from_utf8_lossy(recorded)))?;
                        output.line(format!("derived:  {}", String::from_utf8_lossy(derived)))?;
                    }
                }
            }
        }
        if different {
            return Err(Failure::problems_found());
        }
        // One that was asked for by name and cannot be judged is no success.
        if args.last.is_none() && reports.iter().any(|(_, r)| matches!(r, Replayed::Dropped)) {
            return Err(Failure::failed(
                "evidence of a decision is gone: it cannot be judged again",
            ));
        }
        Ok(())
    })
}

async fn replay_one(store: &Store, objects: &Recorded, id: &str) -> Result<Replayed, Failure> {
    let (Some(case), Some(recorded)) = (store.case(id).await?, store.verdict(id).await?) else {
        return Ok(Replayed::Dropped);
    };
    let derived = replay(&case, objects)?;
    Ok(if derived == recorded {
        Replayed::Equal(HashAlg::Sha256.hash(&[&derived]))
    } else {
        Replayed::Different { recorded, derived }
    })
}

fn replayed_json((id, replayed): &(String, Replayed)) -> Value {
    let value = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap_or(Value::Null);
    match replayed {
        Replayed::Equal(digest) => json!({ "id": id, "result": "equal", "verdict": digest }),
        Replayed::Dropped => json!({ "id": id, "result": "gone" }),
        Replayed::Different { recorded, derived } => json!({
            "id": id, "result": "different", "recorded": value(recorded),
            "derived": value(derived),
        }),
    }
}

/// The audit trail of this machine.
#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Recompute the hash chain and compare every record with its entry. Exits with 3 at a break.
    ///
    /// Example:
    ///   verifier audit verify --json
    #[command(verbatim_doc_comment)]
    Verify,
    /// List entries, newest first.
    ///
    /// Example:
    ///   verifier audit list --subject worker-17
    #[command(verbatim_doc_comment)]
    List {
        /// Only about this node, decision, administrator, …
        #[arg(long, value_name = "NAME")]
        subject: Option<String>,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 100,
              value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Go on after the clock was far ahead and the verifier decided then. Without options it says what
    /// is recorded. The verifier must be stopped; the act is recorded.
    ///
    /// Example:
    ///   verifier audit accept-clock --recorded 1956528000 --reason "wrong NTP server, ticket 4711"
    #[command(verbatim_doc_comment)]
    AcceptClock {
        /// Time of the last decision, as this command prints it: what is accepted must be known.
        #[arg(long, value_name = "UNIX_S", requires = "reason")]
        recorded: Option<i64>,
        /// Why; recorded.
        #[arg(long, value_name = "TEXT", requires = "recorded")]
        reason: Option<String>,
    },
}

pub(super) fn run_audit(global: &Global, command: AuditCommand) -> Done {
    match command {
        AuditCommand::AcceptClock { recorded, reason } => {
            super::clock::run(global, recorded, reason.as_deref())
        }
        AuditCommand::List { subject, limit } => block_on(list(global, subject, limit)),
        AuditCommand::Verify => block_on(verify(global)),
    }
}

async fn verify(global: &Global) -> Done {
    let output = global.output();
    let store = open_read_only(global).await?;
    let bar = progress(0, "entries");
    let report = store
        .verify_chain(|done, all| {
            bar.set_length(all);
            bar.set_position(done);
        })
        .await?;
    bar.finish_and_clear();
    store.close().await?;
    if output.is_json() {
        output.json(&report)?;
    } else {
        output.line(format!("{} entries read", report.entries))?;
        for head in &report.heads {
            let (replica, seq, hash) = (&head.replica, head.seq, head.hash);
            output.line(format!("chain {replica} ends at entry {seq}, {hash}"))?;
        }
        if !report.anchored {
            output.line("no anchor file: a cut-off end would not show")?;
        }
        if let Some(broken) = &report.broken {
            output.line(format!("BROKEN: {}", super::output::printable(&broken.to_string())))?;
        }
    }
    if report.broken.is_some() { Err(Failure::problems_found()) } else { Ok(()) }
}

async fn list(global: &Global, subject: Option<String>, limit: u32) -> Done {
    let output = global.output();
    let store = open_read_only(global).await?;
    let entries = store.audit_entries(subject.as_deref(), limit).await?;
    store.close().await?;
    if output.is_json() {
        return output.json(&entries.iter().map(entry_json).collect::<Vec<_>>());
    }
    let rows: Vec<_> = entries
        .into_iter()
        .map(|entry| {
            let at = time(entry.at);
            let body = String::from_utf8_lossy(&entry.body).into_owned();
            let place = format!("{}/{}", entry.replica, entry.seq);
            vec![place, at, entry.kind, entry.actor, entry.subject, body]
        })
        .collect();
    let heads = ["ENTRY", "AT", "KIND", "BY", "ABOUT", "CONTENT"];
    output.table(&heads, &rows, "There is no entry.")
}

fn entry_json(entry: &AuditEntry) -> Value {
    let body: Value = serde_json::from_slice(&entry.body).unwrap_or(Value::Null);
    json!({
        "replica": entry.replica, "seq": entry.seq, "at_unix_s": entry.at, "kind": entry.kind,
        "actor": entry.actor, "subject": entry.subject, "body": body,
        "prev_hash": hex::encode(entry.prev_hash), "entry_hash": hex::encode(entry.entry_hash),
    })
}

/// The database of this machine, also beside a running verifier.
pub(super) async fn open_read_only(global: &Global) -> Result<Store, Failure> {
    let folder = global.state()?.join(STORE_FOLDER);
    Ok(Store::open(StoreOptions::new(folder).read_only(), 0).await?)
}

/// A bar on a terminal, nothing in a pipe.
fn progress(all: u64, what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(all);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}, {eta} left") {
        bar.set_style(style);
    }
    bar.with_message(what)
}
