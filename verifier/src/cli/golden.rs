//! `verifier golden`: reference values.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use appraisal::policy::{Manifests, ReferenceValues};
use clap::Subcommand;
use proto::{digest::PcrIndex, pb};
use serde_json::{Value, json};

use super::{
    Done, Failure, Global, block_on,
    client::{answer, connect},
    files::read_text,
    output::{Output, time},
};
use crate::config::DEFAULT_TOOL_PCR;

/// Golden sets: what nodes of a pool must measure.
#[derive(Debug, Subcommand)]
pub(super) enum GoldenCommand {
    /// Propose a golden set from what a node last proved. Read it before you apply it: it is trust
    /// on first use.
    ///
    /// Example:
    ///   verifier golden capture worker-17 > linux.toml
    #[command(verbatim_doc_comment)]
    Capture {
        /// Node that attested at least once, even if it was denied.
        #[arg(value_name = "NODE")]
        node: String,
        /// Name of the set; the pool's name by default.
        #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
        set_name: String,
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
        /// The manifest that the set names under [ima].
        #[arg(long, value_name = "FILE")]
        manifest: Option<PathBuf>,
    },
    /// Put a golden set in force for its pool. Needs the role security.
    ///
    /// Example:
    ///   verifier golden apply linux.toml
    #[command(verbatim_doc_comment)]
    Apply {
        /// TOML file; `-` for the standard input.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// List the versions of all pools.
    ///
    /// Example:
    ///   verifier golden list
    #[command(verbatim_doc_comment)]
    List,
    /// Print a golden set as it was applied.
    ///
    /// Example:
    ///   verifier golden show linux --version 3
    #[command(verbatim_doc_comment)]
    Show {
        /// Pool.
        #[arg(value_name = "POOL")]
        pool: String,
        /// Version; the one in force by default.
        #[arg(long = "version", value_name = "N", default_value_t = 0, hide_default_value = true)]
        number: u64,
    },
}

pub(super) fn run(global: &Global, command: GoldenCommand) -> Done {
    let output = global.output();
    match command {
        GoldenCommand::Check { file, tool_pcr, manifest } => {
            let tool_pcr = tool_pcr_of(global, tool_pcr)?;
            check(output, &file, tool_pcr, &manifests(manifest.as_deref())?)
        }
        command => block_on(ask(global, output, command)),
    }
}

async fn ask(global: &Global, output: Output, command: GoldenCommand) -> Done {
    match command {
        GoldenCommand::Capture { node, set_name } => {
            let request = pb::CaptureRequest { node, set_name };
            let toml = answer(connect(global).await?.capture_golden(request).await)?.toml;
            print_toml(output, &toml)
        }
        GoldenCommand::Apply { file } => {
            let toml = read_text(&file)?;
            let request = pb::GoldenText { toml };
            let version = answer(connect(global).await?.apply_golden(request).await)?;
            let sentence = format!(
                "in force: {} version {} for pool {} ({})",
                version.name, version.version, version.pool, version.sha256
            );
            output.either(&version_json(&version), sentence)
        }
        GoldenCommand::List => {
            let versions = answer(connect(global).await?.list_golden(pb::Empty {}).await)?.versions;
            if output.is_json() {
                return output.json(&versions.iter().map(version_json).collect::<Vec<_>>());
            }
            let rows: Vec<_> = versions
                .into_iter()
                .map(|version| {
                    let applied = time(version.applied_unix_s);
                    let number = version.version.to_string();
                    let (pool, by) = (version.pool, version.applied_by);
                    vec![pool, number, version.state, version.name, applied, by, version.sha256]
                })
                .collect();
            let heads = ["POOL", "VERSION", "STATE", "NAME", "APPLIED", "BY", "DIGEST"];
            output.table(&heads, &rows, "No golden set was applied yet: every pool denies.")
        }
        GoldenCommand::Show { pool, number } => {
            let request = pb::GoldenRef { pool, version: number };
            let toml = answer(connect(global).await?.show_golden(request).await)?.toml;
            print_toml(output, &toml)
        }
        // Works without a server.
        GoldenCommand::Check { .. } => Ok(()),
    }
}

fn tool_pcr_of(global: &Global, asked: Option<u8>) -> Result<PcrIndex, Failure> {
    if asked.is_none() && (global.config.is_some() || global.config_path().exists()) {
        return Ok(global.config()?.tool_pcr);
    }
    PcrIndex::new(asked.unwrap_or(DEFAULT_TOOL_PCR))
        .ok_or_else(|| Failure::usage("--tool-pcr must be 0 to 23"))
}

fn manifests(file: Option<&Path>) -> Result<Manifests, Failure> {
    let Some(file) = file else { return Ok(Manifests::new()) };
    let manifest = super::ima::read(file)?;
    Ok(Manifests::from([(*manifest.id(), Arc::new(manifest))]))
}

fn check(output: Output, file: &Path, tool_pcr: PcrIndex, manifests: &Manifests) -> Done {
    let text = read_text(file)?;
    match ReferenceValues::parse(&text, tool_pcr, manifests) {
        Ok(set) => output.either(
            &json!({
                "usable": true, "name": set.name(), "pool": set.pool(), "version": set.version(),
                "sha256": set.digest(), "problems": [],
            }),
            format!(
                "{} is usable: {} version {} for pool {} ({})",
                file.display(),
                set.name(),
                set.version(),
                set.pool(),
                set.digest()
            ),
        ),
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
                    output.line(format!("  {}", super::output::printable(&problem.to_string())))?;
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

fn version_json(version: &pb::GoldenVersion) -> Value {
    json!({
        "pool": version.pool, "name": version.name, "version": version.version,
        "sha256": version.sha256, "state": version.state,
        "applied_unix_s": version.applied_unix_s, "applied_by": version.applied_by,
    })
}
