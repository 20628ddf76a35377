//! `golden diff`: what differs between two golden sets, or a set and a node, in words.

use std::path::Path;

use appraisal::policy::{
    GoldenSet,
    diff::{Difference, diff, diff_with_node, to_markdown, to_text},
    document::GoldenDocument,
};
use clap::{Args, ValueEnum};
use proto::pb;

use crate::{
    cli::{
        Done, Failure, Global, block_on,
        client::{answer, connect_reference},
        documents::Reference,
        files::read_text,
    },
    store::DocumentKind,
};

/// Say what differs between two golden sets, or between a set and what a node last proved.
///
/// Words first, and whether each change lets more nodes in (widens) or fewer (narrows); --hex adds the whole digests.
///
/// Examples:
///   verifier golden diff linux@3 linux@4
///   verifier golden diff linux.toml node:worker-17
///   verifier golden diff linux@3 linux.toml --format markdown
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct DiffArgs {
    /// A file, or NAME@VERSION, or NAME for the newest active version.
    #[arg(value_name = "BEFORE")]
    before: String,
    /// The same, or node:NAME.
    #[arg(value_name = "AFTER")]
    after: String,
    /// Show whole digests.
    #[arg(long)]
    hex: bool,
    /// How it is printed; --json does as well.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For a pull request.
    Markdown,
    /// For programs.
    Json,
}

/// Runs it: a server is asked only for what is no file.
pub(in crate::cli) fn run(global: &Global, args: &DiffArgs) -> Done {
    let output = global.output();
    let before = set(global, &args.before)?;
    let node = args.after.strip_prefix("node:");
    let differences: Vec<Difference> = match node {
        Some(node) => diff_with_node(&before, &captured(global, node)?),
        None => diff(&before, &set(global, &args.after)?),
    };
    if output.is_json() || args.format == Format::Json {
        let text = serde_json::to_string_pretty(&differences)?;
        return output.line(text);
    }
    let text = match args.format {
        Format::Markdown => to_markdown(&differences, args.hex),
        _ => to_text(&differences, args.hex),
    };
    let text = match (node, text.split_once('\n')) {
        // Between a set and a node nothing is widened yet: the headline would speak of a change that nobody made.
        (Some(node), Some((_, rest))) if !differences.is_empty() => {
            let things = match differences.len() {
                1 => "one thing".to_owned(),
                many => format!("{many} things"),
            };
            format!("The set does not accept {things} of {node}:\n{rest}")
        }
        _ => text,
    };
    output.line(text.trim_end())
}

fn set(global: &Global, what: &str) -> Result<GoldenDocument, Failure> {
    let text = if Path::new(what).is_file() || what == "-" {
        read_text(Path::new(what))?
    } else {
        let reference: Reference = what
            .parse()
            .map_err(|why: String| Failure::usage(format!("{why}, and there is no such file")))?;
        block_on(async {
            let named = pb::DocumentRef {
                kind: DocumentKind::Golden.to_string(),
                name: reference.name,
                version: reference.version,
            };
            Ok(answer(connect_reference(global).await?.show(named).await)?.toml)
        })?
    };
    read(what, &text)
}

fn captured(global: &Global, node: &str) -> Result<GoldenDocument, Failure> {
    let text = block_on(async {
        let request = pb::CaptureRequest { nodes: vec![node.to_owned()], ..Default::default() };
        Ok(answer(connect_reference(global).await?.capture(request).await)?.toml)
    })?;
    read(node, &text)
}

fn read(what: &str, text: &str) -> Result<GoldenDocument, Failure> {
    GoldenSet::document(text).map_err(|problems| Failure::problems(what, &problems))
}
