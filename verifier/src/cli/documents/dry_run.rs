//! `golden dry-run`: what a change would do to the fleet.

use std::{io::IsTerminal as _, path::PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use proto::pb;
use serde_json::{Value, json};

use super::{Reference, answer, connect_reference};
use crate::{
    cli::{
        Done, Failure, Global,
        client::ReferenceClient,
        files::read_text,
        output::{Output, printable, time},
    },
    store::DocumentKind,
};

/// Nodes that are shown one by one; all of them with `--json` or `--all`.
const SHOWN: usize = 20;

/// Judge the last recorded evidence of every node as if documents were in force.
///
/// Says who would be denied and why, who newly admitted, and for whom the evidence does not tell: stage the
/// document then, so that nodes send what is missing. Nothing is changed. Exits with 3 if a node that is
/// admitted today would be denied.
///
/// Examples:
///   verifier golden dry-run linux@4
///   verifier golden dry-run --file linux.toml --retire linux@2
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
#[group(id = "changes", required = true, multiple = true)]
pub(in crate::cli) struct DryRunArgs {
    /// Documents that are known to the verifier: NAME@VERSION, or NAME for the newest; `policy:NAME` for a policy.
    #[arg(value_name = "DOCUMENT", group = "changes")]
    documents: Vec<String>,
    /// A document that is not proposed yet; may be repeated.
    #[arg(long = "file", value_name = "FILE", group = "changes")]
    files: Vec<PathBuf>,
    /// A document that would be retired; may be repeated.
    #[arg(long, value_name = "DOCUMENT", group = "changes")]
    retire: Vec<String>,
    /// As if the active versions of the same names stayed in force too.
    #[arg(long)]
    alongside: bool,
    /// Show every node that changes.
    #[arg(long)]
    all: bool,
}

/// What a dry run found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) nodes: Vec<pb::DryRunNode>,
    pub(super) summary: pb::DryRunSummary,
}

/// Runs it.
pub(in crate::cli) async fn dry_run(global: &Global, args: DryRunArgs) -> Done {
    let output = global.output();
    let mut client = connect_reference(global).await?;
    let mut request =
        pb::DryRunRequest { alongside: args.alongside, ..pb::DryRunRequest::default() };
    for text in &args.documents {
        request.documents.push(named(&mut client, text).await?);
    }
    for text in &args.retire {
        request.retire.push(named(&mut client, text).await?);
    }
    for file in &args.files {
        request.texts.push(read_text(file)?);
    }
    let found = run_change(&mut client, request).await?;
    if output.is_json() {
        output.json(&found_json(&found))?;
    } else {
        print(output, &found, if args.all { usize::MAX } else { SHOWN })?;
    }
    if found.summary.newly_denied > 0 {
        return Err(Failure::problems_found());
    }
    Ok(())
}

async fn named(client: &mut ReferenceClient, text: &str) -> Result<pb::DocumentRef, Failure> {
    let (kind, name) = match text.split_once(':') {
        Some(("policy", name)) => (DocumentKind::Policy, name),
        Some(("golden", name)) => (DocumentKind::Golden, name),
        Some((other, _)) => {
            return Err(Failure::usage(format!("{other:?}: expected golden:NAME or policy:NAME")));
        }
        None => (DocumentKind::Golden, text),
    };
    let reference: Reference = name.parse().map_err(Failure::usage)?;
    reference.newest(client, kind).await
}

/// Asks for a dry run and follows it, with a progress bar on a terminal.
pub(super) async fn run_change(
    client: &mut ReferenceClient,
    request: pb::DryRunRequest,
) -> Result<Found, Failure> {
    use pb::dry_run_event::Event;
    let mut stream = answer(client.dry_run(request).await)?;
    let bar = bar();
    let mut found = Found::default();
    let mut is_whole = false;
    while let Some(event) = stream.message().await.map_err(|s| super::super::client::refused(&s))? {
        match event.event {
            Some(Event::Progress(progress)) => {
                bar.set_length(progress.of.into());
                bar.set_position(progress.judged.into());
            }
            Some(Event::Node(node)) => found.nodes.push(node),
            Some(Event::Summary(summary)) => {
                found.summary = summary;
                is_whole = true;
            }
            None => {}
        }
    }
    bar.finish_and_clear();
    if !is_whole {
        return Err(Failure::failed("the verifier ended the dry run without a summary"));
    }
    found.nodes.sort_by(|a, b| (&a.change, &a.pool, &a.node).cmp(&(&b.change, &b.pool, &b.node)));
    Ok(found)
}

fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} nodes, {eta} left") {
        bar.set_style(style);
    }
    bar
}

/// The counts, and the first nodes that change.
pub(super) fn print_summary(output: Output, found: &Found) -> Done {
    if output.is_json() {
        return Ok(());
    }
    print(output, found, SHOWN)
}

fn print(output: Output, found: &Found, shown: usize) -> Done {
    let summary = &found.summary;
    output.line(in_one_line(summary))?;
    for node in found.nodes.iter().take(shown) {
        let head = match node.change.as_str() {
            "denied" => "WOULD BE DENIED",
            "admitted" => "would be admitted",
            "undecided" => "undecided",
            "denied-undecided" => "denied, undecided then",
            _ => "denied for other reasons",
        };
        output.line(format!(
            "  {} ({}): {head}, judged by {} on evidence of {}",
            printable(&node.node),
            printable(&node.pool),
            printable(&node.judged_by),
            time(node.evidence_unix_s)
        ))?;
        for finding in node.findings.iter().take(3) {
            output.line(format!(
                "    {}: {}: expected {}, observed {}",
                finding.code,
                printable(&finding.subject),
                printable(&finding.expected),
                printable(&finding.observed)
            ))?;
        }
        if let Some(more @ 1..) = node.findings.len().checked_sub(3) {
            let findings = if more == 1 { "finding" } else { "findings" };
            output.line(format!("    and {more} more {findings}"))?;
        }
    }
    if found.nodes.len() > shown {
        output
            .line(format!("  and {} more nodes (--all shows them)", found.nodes.len() - shown))?;
    }
    if summary.undecided > 0 {
        output.line(
            "Undecided: the evidence lacks what the document reads. Stage it: nodes send it from their next \
             attestation on.",
        )?;
    }
    Ok(())
}

/// Only what there is: a row of zeros hides the number that counts.
fn in_one_line(summary: &pb::DryRunSummary) -> String {
    let counts = [
        (summary.still_admitted, "still admitted"),
        (summary.newly_denied, "newly denied"),
        (summary.newly_admitted, "newly admitted"),
        (summary.still_denied, "still denied"),
        (summary.undecided, "undecided"),
        (summary.without_evidence, "without evidence"),
    ];
    let told: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let nodes = if summary.nodes == 1 { "node" } else { "nodes" };
    let told = if told.is_empty() { "nothing to judge".to_owned() } else { told.join(", ") };
    format!("Against the last evidence of {} {nodes}: {told}.", summary.nodes)
}

fn found_json(found: &Found) -> Value {
    let nodes: Vec<Value> = found
        .nodes
        .iter()
        .map(|node| {
            let findings: Vec<Value> = node
                .findings
                .iter()
                .map(|finding| {
                    json!({
                        "code": finding.code, "subject": finding.subject,
                        "expected": finding.expected, "observed": finding.observed,
                    })
                })
                .collect();
            json!({
                "node": node.node, "pool": node.pool, "change": node.change,
                "decision": node.decision_id, "evidence_unix_s": node.evidence_unix_s,
                "judged_by": node.judged_by, "findings": findings,
            })
        })
        .collect();
    let mut value = summary_json(&found.summary);
    if let Some(object) = value.as_object_mut() {
        object.insert("changes".to_owned(), nodes.into());
    }
    value
}

/// The counts, for programs.
pub(super) fn summary_json(summary: &pb::DryRunSummary) -> Value {
    json!({
        "nodes": summary.nodes, "still_admitted": summary.still_admitted,
        "still_denied": summary.still_denied, "newly_denied": summary.newly_denied,
        "newly_admitted": summary.newly_admitted, "undecided": summary.undecided,
        "without_evidence": summary.without_evidence,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_says_only_what_there_is() {
        let summary =
            pb::DryRunSummary { nodes: 3, newly_denied: 2, undecided: 1, ..Default::default() };
        assert_eq!(
            in_one_line(&summary),
            "Against the last evidence of 3 nodes: 2 newly denied, 1 undecided."
        );
        assert_eq!(
            in_one_line(&pb::DryRunSummary::default()),
            "Against the last evidence of 0 nodes: nothing to judge."
        );
    }
}
