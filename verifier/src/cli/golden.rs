//! `verifier golden`: reference values.

mod diff;
mod predict;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use appraisal::policy::{GoldenSet, Manifests};
use clap::Subcommand;
use proto::{digest::PcrIndex, pb};
use serde_json::json;

use self::{diff::DiffArgs, predict::PredictArgs};
use super::{
    Done, Failure, Global, block_on,
    client::{answer, connect_reference},
    documents::{self, ApplyArgs, DocumentCommand, DryRunArgs},
    files::read_text,
    output::{Output, printable},
};
use crate::{config::DEFAULT_TOOL_PCR, store::DocumentKind};

/// Golden sets: what nodes of a pool must be, and the steps by which a set comes into force.
#[derive(Debug, Subcommand)]
pub(super) enum GoldenCommand {
    /// Write a golden set from what nodes last proved. Read it before you sign it: it is trust on first use.
    ///
    /// From several nodes: what all share becomes values, what differs becomes groups or event rules, each with a
    /// sentence why at the top.
    ///
    /// Examples:
    ///   verifier golden capture worker-17 > linux.toml
    ///   verifier golden capture --pool linux > linux.toml
    #[command(verbatim_doc_comment)]
    Capture {
        /// Nodes that attested at least once, even if they were denied.
        #[arg(value_name = "NODE", required_unless_present = "pool", conflicts_with = "pool")]
        nodes: Vec<String>,
        /// Every active node of this pool.
        #[arg(long, value_name = "POOL", default_value = "", hide_default_value = true)]
        pool: String,
        /// Name of the set; the pool's name by default.
        #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
        set_name: String,
        /// Keep it at the verifier too, as observed.
        #[arg(long)]
        record: bool,
    },
    /// Check a golden set, without a server. Says everything that is wrong with it.
    ///
    /// Example:
    ///   verifier golden check linux.toml
    #[command(verbatim_doc_comment)]
    Check {
        /// TOML file; `-` for the standard input.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The tool log's PCR; the configuration's, if there is one, else 14.
        #[arg(long, value_name = "PCR")]
        tool_pcr: Option<u8>,
        /// A manifest that the set names under [ima]; may be repeated.
        #[arg(long = "manifest", value_name = "FILE")]
        manifests: Vec<PathBuf>,
    },
    /// Print the JSON Schema of golden sets, for editors and for programs that write them.
    ///
    /// Example:
    ///   verifier golden schema > golden.v1.json
    #[command(verbatim_doc_comment)]
    Schema,
    Predict(PredictArgs),
    Diff(DiffArgs),
    DryRun(DryRunArgs),
    Apply(ApplyArgs),
    #[command(flatten)]
    Document(DocumentCommand),
}

pub(super) fn run(global: &Global, command: GoldenCommand) -> Done {
    let output = global.output();
    match command {
        GoldenCommand::Check { file, tool_pcr, manifests: files } => {
            let tool_pcr = tool_pcr_of(global, tool_pcr)?;
            check(output, &file, tool_pcr, &manifests(&files)?)
        }
        GoldenCommand::Capture { nodes, pool, set_name, record } => block_on(async {
            let request = pb::CaptureRequest { nodes, pool, set_name, record };
            let toml = answer(connect_reference(global).await?.capture(request).await)?.toml;
            print_toml(output, &toml)
        }),
        GoldenCommand::Schema => documents::schema(output, DocumentKind::Golden),
        GoldenCommand::Predict(args) => predict::predict(global, &args),
        GoldenCommand::Diff(args) => diff::run(global, &args),
        GoldenCommand::DryRun(args) => block_on(documents::dry_run(global, args)),
        GoldenCommand::Apply(args) => block_on(documents::apply(global, args)),
        GoldenCommand::Document(command) => {
            block_on(documents::run(global, DocumentKind::Golden, command))
        }
    }
}

fn tool_pcr_of(global: &Global, asked: Option<u8>) -> Result<PcrIndex, Failure> {
    if asked.is_none() && (global.config.is_some() || global.config_path().exists()) {
        return Ok(global.config()?.tool_pcr);
    }
    PcrIndex::new(asked.unwrap_or(DEFAULT_TOOL_PCR))
        .ok_or_else(|| Failure::usage("--tool-pcr must be 0 to 23"))
}

fn manifests(files: &[PathBuf]) -> Result<Manifests, Failure> {
    let mut out = Manifests::new();
    for file in files {
        let manifest = super::ima::read(file)?;
        out.insert(*manifest.id(), Arc::new(manifest));
    }
    Ok(out)
}

fn check(output: Output, file: &Path, tool_pcr: PcrIndex, manifests: &Manifests) -> Done {
    let text = read_text(file)?;
    match GoldenSet::parse(&text, tool_pcr, manifests) {
        Ok(set) => {
            let of = set.pool().map_or_else(
                || "a part, for sets to include".to_owned(),
                |pool| format!("for pool {pool}"),
            );
            output.either(
                &json!({
                    "usable": true, "name": set.name(), "pool": set.pool(),
                    "version": set.version(), "include": set.include(),
                    "groups": set.group_names().collect::<Vec<_>>(), "sha256": set.digest(),
                    "problems": [],
                }),
                format!(
                    "{} is usable: {} version {}, {of} ({})",
                    file.display(),
                    set.name(),
                    set.version(),
                    set.digest()
                ),
            )
        }
        Err(problems) => {
            if output.is_json() {
                let problems: Vec<_> = problems
                    .iter()
                    .map(|problem| json!({ "at": problem.at, "what": problem.what }))
                    .collect();
                output.json(&json!({ "usable": false, "problems": problems }))?;
            } else {
                output.line(format!("{} cannot be used:", file.display()))?;
                for problem in &problems {
                    output.line(format!("  {}", printable(&problem.to_string())))?;
                }
            }
            Err(Failure::problems_found())
        }
    }
}

fn print_toml(output: Output, toml: &str) -> Done {
    if output.is_json() {
        return output.json(&json!({ "toml": toml }));
    }
    output.text(toml)
}
