//! `verifier roots`: whose TPMs are trusted.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use proto::pb;
use serde_json::{Value, json};

use super::{
    Done, Failure, Global, block_on,
    client::{answer, connect},
    local_actor, now,
    output::{Output, printable, time},
};
use crate::{
    clock::SystemClock,
    roots::{Entry, Import, Kind, Placement, import},
    run::open_store,
    store::{By, EndorsementKind},
};

/// Bytes and items of one request: well below the message limit.
const CHUNK_BYTES: usize = 8 * 1024 * 1024;
const CHUNK_ITEMS: usize = 2000;

/// Manufacturers' roots, intermediates and revocation lists.
#[derive(Debug, Subcommand)]
pub(super) enum RootsCommand {
    /// Import certificates and revocation lists. Needs the role security.
    ///
    /// A directory is read with everything below it; a .cab as Microsoft publishes it for TPM
    /// manufacturers. In both, directories named RootCA and IntermediateCA say what is what; else a
    /// certificate that is its own issuer is a root.
    ///
    /// Examples:
    ///   verifier roots import TrustedTpm.cab
    ///   verifier roots import --as roots site-tpm-root.pem
    ///   verifier roots import --offline /usr/share/tpm-roots     # while the server is stopped
    #[command(verbatim_doc_comment)]
    Import(ImportArgs),
    /// List what is imported, with what to watch: expiry, algorithms, accepted oddities.
    ///
    /// Example:
    ///   verifier roots list
    #[command(verbatim_doc_comment)]
    List,
    /// Remove one. Needs the role security.
    ///
    /// Example:
    ///   verifier roots remove sha256:5f0c7c0d…
    #[command(verbatim_doc_comment)]
    Remove {
        /// SHA-256 of the DER, as `roots list` prints it.
        #[arg(value_name = "DIGEST")]
        sha256: String,
    },
}

#[derive(Args, Debug)]
pub(super) struct ImportArgs {
    /// PEM or DER file, directory, or cabinet.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// What the certificates are.
    #[arg(long = "as", value_name = "WHAT", default_value = "guess")]
    placement: PlacementArg,
    /// Write into the database of this machine; the server must be stopped.
    #[arg(long)]
    offline: bool,
    /// Say what would be imported, and import nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PlacementArg {
    /// By directory name, else by whether it is its own issuer.
    Guess,
    /// All are roots.
    Roots,
    /// All are intermediates.
    Intermediates,
}

impl From<PlacementArg> for Placement {
    fn from(arg: PlacementArg) -> Self {
        match arg {
            PlacementArg::Guess => Self::Guess,
            PlacementArg::Roots => Self::Anchors,
            PlacementArg::Intermediates => Self::Intermediates,
        }
    }
}

pub(super) fn run(global: &Global, command: RootsCommand) -> Done {
    let output = global.output();
    match command {
        RootsCommand::Import(args) => run_import(global, output, &args),
        RootsCommand::List => block_on(async {
            let roots = answer(connect(global).await?.list_roots(pb::Empty {}).await)?.roots;
            list(output, roots)
        }),
        RootsCommand::Remove { sha256 } => block_on(async {
            let request = pb::RootDigest { sha256: sha256.clone() };
            answer(connect(global).await?.remove_root(request).await)?;
            output.either(&json!({ "removed": sha256 }), format!("removed {sha256}"))
        }),
    }
}

/// What came of an import.
#[derive(Default)]
struct Report {
    added: u32,
    known: u32,
    /// Label and reason.
    rejected: Vec<(String, String)>,
    ignored: Vec<String>,
}

fn run_import(global: &Global, output: Output, args: &ImportArgs) -> Done {
    let mut report = Report::default();
    let mut entries = Vec::new();
    for path in &args.paths {
        let Import { entries: found, rejected, ignored } = import(path, args.placement.into())?;
        entries.extend(found);
        report.rejected.extend(rejected.into_iter().map(|r| (r.label, r.reason)));
        report.ignored.extend(ignored);
    }
    if entries.is_empty() {
        let mut failure = Failure::refused("no certificate and no revocation list was found there");
        if let Some((label, reason)) = report.rejected.first() {
            failure = failure.with_help(format!("for example, {label} was refused: {reason}"));
        }
        return Err(failure);
    }
    if args.dry_run {
        return dry_run(output, &entries, &report);
    }
    block_on(async {
        if args.offline {
            import_offline(global, entries, &mut report).await
        } else {
            import_online(global, entries, &mut report).await
        }
    })?;
    print(output, &report)
}

async fn import_online(global: &Global, entries: Vec<Entry>, report: &mut Report) -> Done {
    let mut client = connect(global).await?;
    let mut send = async |items: Vec<pb::RootItem>| -> Done {
        let reply = answer(client.import_roots(pb::ImportRootsRequest { items }).await)?;
        report.added += reply.added;
        report.known += reply.known;
        report.rejected.extend(reply.rejected.into_iter().map(|root| (root.label, root.note)));
        Ok(())
    };
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    for entry in entries {
        if chunk.len() >= CHUNK_ITEMS || bytes + entry.der.len() > CHUNK_BYTES {
            send(std::mem::take(&mut chunk)).await?;
            bytes = 0;
        }
        bytes += entry.der.len();
        let kind = entry.kind.as_str().to_owned();
        chunk.push(pb::RootItem { der: entry.der, label: entry.label, kind });
    }
    if !chunk.is_empty() {
        send(chunk).await?;
    }
    Ok(())
}

async fn import_offline(global: &Global, entries: Vec<Entry>, report: &mut Report) -> Done {
    let store = open_store(&global.config()?, &SystemClock).await.map_err(|error| {
        Failure::of(&error).with_help("stop the verifier first, or import without --offline")
    })?;
    let by = By::new(local_actor(), now());
    let imported = async {
        for entry in entries {
            let kind = match entry.kind {
                Kind::Anchor => EndorsementKind::Root,
                Kind::Intermediate => EndorsementKind::Intermediate,
                Kind::Crl => EndorsementKind::Crl,
            };
            let added = store.import_endorsement(kind, entry.der, &entry.label, by.clone()).await?;
            if added { report.added += 1 } else { report.known += 1 }
        }
        Done::Ok(())
    };
    let imported = imported.await;
    store.close().await?;
    imported
}

fn dry_run(output: Output, entries: &[Entry], report: &Report) -> Done {
    let rows: Vec<_> =
        entries.iter().map(|e| crate::roots::describe(e.kind, &e.label, &e.der, now())).collect();
    if output.is_json() {
        let rejected = pairs(&report.rejected);
        return output
            .json(&json!({ "entries": rows, "rejected": rejected, "ignored": report.ignored }));
    }
    let rows: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let name = if row.subject.is_empty() { row.issuer } else { row.subject };
            vec![row.kind, row.label, name, time(row.not_after_unix_s), row.note]
        })
        .collect();
    output.table(&["KIND", "FROM", "NAME", "ENDS", "NOTE"], &rows, "")?;
    rejections(output, report)
}

fn print(output: Output, report: &Report) -> Done {
    let Report { added, known, ignored, .. } = report;
    if output.is_json() {
        let rejected = pairs(&report.rejected);
        return output.json(&json!({
            "added": added, "known": known, "rejected": rejected, "ignored": ignored,
        }));
    }
    output
        .line(format!("{added} added, {known} known already, {} refused", report.rejected.len()))?;
    rejections(output, report)
}

fn rejections(output: Output, report: &Report) -> Done {
    for (label, reason) in &report.rejected {
        output.line(format!("  refused {}: {}", printable(label), printable(reason)))?;
    }
    if !report.ignored.is_empty() {
        output.line(format!("  {} other files passed over", report.ignored.len()))?;
    }
    Ok(())
}

fn pairs(rejected: &[(String, String)]) -> Vec<Value> {
    rejected.iter().map(|(from, why)| json!({ "label": from, "reason": why })).collect()
}

fn list(output: Output, roots: Vec<pb::Root>) -> Done {
    if output.is_json() {
        let roots: Vec<_> = roots
            .iter()
            .map(|root| {
                json!({
                    "sha256": root.sha256, "kind": root.kind, "subject": root.subject,
                    "issuer": root.issuer, "not_after_unix_s": root.not_after_unix_s,
                    "algorithm": root.algorithm, "oddities": root.oddities, "label": root.label,
                    "note": root.note,
                })
            })
            .collect();
        return output.json(&roots);
    }
    let rows: Vec<_> = roots
        .into_iter()
        .map(|root| {
            let name = if root.subject.is_empty() { root.issuer } else { root.subject };
            let mut notes = root.oddities;
            notes.extend((!root.note.is_empty()).then_some(root.note));
            let ends = time(root.not_after_unix_s);
            vec![root.kind, name, ends, root.algorithm, notes.join(", "), root.sha256]
        })
        .collect();
    let heads = ["KIND", "NAME", "ENDS", "ALGORITHM", "NOTES", "DIGEST"];
    output.table(&heads, &rows, "Nothing is imported: only allow-listed EKs are trusted.")
}
