//! `verifier check-config`, `backup`, `restore` and `retention`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    Done, Failure, Global, block_on, decisions::open_read_only, local_actor, now, output::Output,
};
use crate::{
    backup::{self, KEYS_FOLDER},
    ca::files::{self, MODE_PUBLIC, MODE_SECRET, MODE_SECRET_DIR},
    clock::SystemClock,
    config::{Config, check_config},
    init::RING_FILE,
    jwt_key::JWT_KEY_FILE,
    results_files::ResultFiles,
    run::{DropError, STORE_FOLDER, drop_results, open_store, results_retention, retention},
    store::By,
};

/// Say everything that is wrong with a configuration. Exits with 3 if anything is.
///
/// Example:
///   verifier check-config /etc/assay/verifier.toml
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(super) struct CheckConfigArgs {
    /// The configuration; the one of --config by default.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(super) fn run_check_config(global: &Global, args: CheckConfigArgs) -> Done {
    let output = global.output();
    let path = args.file.unwrap_or_else(|| global.config_path());
    match check_config(&path) {
        Ok(_) => output.either(
            &json!({ "usable": true, "problems": [] }),
            format!("{} is usable", path.display()),
        ),
        Err(error) if output.is_json() => {
            let problems: Vec<_> = error
                .problems
                .iter()
                .map(|p| json!({ "line": p.line, "key": p.key, "what": p.what }))
                .collect();
            output.json(&json!({ "usable": false, "problems": problems }))?;
            Err(Failure::problems_found())
        }
        Err(error) => {
            output.line(error.to_string())?;
            Err(Failure::problems_found())
        }
    }
}

/// Copy the database and the evidence, also while the verifier runs.
///
/// Examples:
///   verifier backup /backup/assay-2026-11-22
///   verifier backup --with-keys /safe/assay      # the CA's keys too: keep it as you keep them
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(super) struct BackupArgs {
    /// Directory, absent or empty.
    #[arg(value_name = "DIR")]
    target: PathBuf,
    /// Copy the CA's and the server's keys and certificates too; the configuration never is.
    #[arg(long)]
    with_keys: bool,
}

pub(super) fn run_backup(global: &Global, args: BackupArgs) -> Done {
    let keys = if args.with_keys { key_files(global)? } else { Vec::new() };
    block_on(async {
        let store = open_read_only(global).await?;
        let made = backup::backup(&store, &args.target, &keys, now()).await;
        store.close().await?;
        let manifest = made?;
        let bytes: u64 = manifest.files.values().map(|file| file.bytes).sum();
        let sentence = format!(
            "{} files, {bytes} bytes in {}{}",
            manifest.files.len(),
            args.target.display(),
            if manifest.with_keys { ", with keys: keep it as you keep them" } else { "" }
        );
        global.output().either(
            &json!({
                "target": args.target, "files": manifest.files.len(), "bytes": bytes,
                "with_keys": manifest.with_keys, "heads": manifest.heads,
            }),
            sentence,
        )
    })
}

/// Files of the CA under the state directory and their folders there.
const PLACES: [(&str, &str); 12] = [
    ("root.pem", "ca"),
    ("root.key", "ca"),
    ("nodes.pem", "ca"),
    ("admins.pem", "ca"),
    ("servers.pem", "ca"),
    ("jobs.pem", "ca"),
    ("results.pem", "ca"),
    ("server.pem", "tls"),
    ("bundle.pem", ""),
    ("fleet-id", ""),
    (JWT_KEY_FILE, ""),
    (RING_FILE, ""),
];

fn key_files(global: &Global) -> Result<Vec<PathBuf>, Failure> {
    let state = global.state()?;
    let mut found: Vec<PathBuf> = PLACES
        .iter()
        .map(|(name, folder)| state.join(folder).join(name))
        .filter(|path| path.exists())
        .collect();
    let retired = state.join("ca").join("retired");
    if retired.is_dir() {
        for entry in std::fs::read_dir(&retired)? {
            found.push(entry?.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Put a backup in place of an absent database. The audit chain is walked before.
///
/// Key files of a backup made --with-keys go where they belong, if nothing is there.
///
/// Example:
///   systemctl stop assay-verifier; verifier restore /backup/assay-2026-11-22
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(super) struct RestoreArgs {
    /// The backup.
    #[arg(value_name = "DIR")]
    source: PathBuf,
}

pub(super) fn run_restore(global: &Global, args: RestoreArgs) -> Done {
    let state = global.state()?;
    let target = state.join(STORE_FOLDER);
    block_on(async {
        files::make_dir(&state, files::MODE_STATE_DIR)?;
        let restored = backup::restore(&args.source, &target, now()).await.map_err(|error| {
            Failure::of(&error).with_help(
                "stop the verifier; a database that is there already must be moved away first",
            )
        })?;
        let placed = place_keys(&state, &target.join(KEYS_FOLDER))?;
        report_restored(global.output(), &target, restored.chain.entries, &placed)
    })
}

fn report_restored(
    output: Output,
    target: &Path,
    entries: u64,
    placed: &[(PathBuf, bool)],
) -> Done {
    if output.is_json() {
        let keys: Vec<_> = placed
            .iter()
            .map(|(path, written)| json!({ "path": path, "written": written }))
            .collect();
        return output.json(&json!({ "target": target, "audit_entries": entries, "keys": keys }));
    }
    let target = target.display();
    output.line(format!("restored {target}; its {entries} audit entries are unbroken"))?;
    for (path, written) in placed {
        let what = if *written { "restored" } else { "kept what was at" };
        output.line(format!("{what} {}", path.display()))?;
    }
    Ok(())
}

/// Moves restored key files to their places; none that exists is touched.
fn place_keys(state: &Path, keys: &Path) -> Result<Vec<(PathBuf, bool)>, Failure> {
    let mut placed = Vec::new();
    if !keys.is_dir() {
        return Ok(placed);
    }
    let mut entries = std::fs::read_dir(keys)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let folder = PLACES.iter().find(|(known, _)| *known == name);
        let folder = folder.map_or_else(|| "ca/retired".to_owned(), |(_, f)| (*f).to_owned());
        let folder = state.join(folder);
        if folder != state {
            files::make_dir(&folder, MODE_SECRET_DIR)?;
        }
        // What relying parties read; everything else holds private keys or stands beside them.
        let public = ["root.pem", "bundle.pem", "fleet-id", RING_FILE].contains(&name.as_str());
        let mode = if public { MODE_PUBLIC } else { MODE_SECRET };
        let content = files::read_secret(&entry.path())?;
        let target = folder.join(&name);
        let written = files::create(&target, content.as_bytes(), mode)?;
        placed.push((target, written));
    }
    std::fs::remove_dir_all(keys)
        .map_err(|error| Failure::of(&error).while_doing(&format!("remove {}", keys.display())))?;
    Ok(placed)
}

/// Evidence and results that are no longer needed.
#[derive(Debug, Subcommand)]
pub(super) enum RetentionCommand {
    /// Drop evidence and attestation results beyond the configuration's ages and counts, as the running
    /// verifier does hourly. Decisions and the audit trail stay for ever.
    ///
    /// Example:
    ///   verifier retention run --dry-run
    #[command(verbatim_doc_comment)]
    Run {
        /// Only say what would go; works beside a running verifier.
        #[arg(long)]
        dry_run: bool,
    },
}

pub(super) fn run_retention(global: &Global, command: RetentionCommand) -> Done {
    let RetentionCommand::Run { dry_run } = command;
    let config: Config = global.config()?;
    let output = global.output();
    block_on(async {
        let store = if dry_run {
            open_read_only(global).await?
        } else {
            open_store(&config, &SystemClock).await.map_err(|error| {
                Failure::of(&error)
                    .with_help("a running verifier does this every hour; stop it to do it now")
            })?
        };
        let limits = retention(config.retention, now(), dry_run);
        let by = || By::new(local_actor(), now());
        let retained = store.retain(limits, by()).await;
        let files = ResultFiles::at(&config.state_dir);
        let limits = results_retention(config.retention, now());
        let dropped = match dry_run {
            true => files.would_drop(limits).map_err(DropError::from),
            false => drop_results(&files, limits, &store, by(), || false).await,
        };
        store.close().await?;
        let (report, results) = (retained?, dropped?);
        let would = if dry_run { "would drop" } else { "dropped" };
        output.either(
            &json!({ "dry_run": dry_run, "report": report, "results": results }),
            format!(
                "{would} the evidence of {} decisions ({} bytes) and {} objects ({} bytes), and {} results ({} bytes)",
                report.decisions,
                report.database_bytes,
                report.objects,
                report.object_bytes,
                results.results,
                results.bytes
            ),
        )
    })
}
