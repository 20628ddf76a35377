//! `verifier ima`: manifests of the files that workers may run.

use std::{
    collections::BTreeMap,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    time::Duration,
};

use appraisal::ima::Manifest;
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use proto::{digest::HashAlg, pb};
use serde_json::json;

use super::{
    Done, Failure, Global, block_on,
    client::{answer, connect_reference},
    files::read_bytes,
    now,
    output::{Output, printable, time},
};
use crate::ima_manifest::{
    CollectError, Collected, Selection, from_installed, from_list, from_packages, from_root,
};

/// Files that the kernel's IMA list may name.
#[derive(Debug, Subcommand)]
pub(super) enum ImaCommand {
    #[command(subcommand)]
    Manifest(ManifestCommand),
    /// Give a manifest to the verifier, so that golden sets can name it. Needs the role security.
    ///
    /// What is imported is kept for good: decisions that rest on it can be judged again. It judges
    /// nobody until a golden set names its digest under [ima].
    ///
    /// Example:
    ///   verifier ima import manifest.jsonl
    #[command(verbatim_doc_comment)]
    Import {
        /// The manifest; `-` for the standard input.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// List what was imported, the newest first.
    ///
    /// Example:
    ///   verifier ima list
    #[command(verbatim_doc_comment)]
    List,
}

/// Manifests: digests of the files that may be used, with their paths.
#[derive(Debug, Subcommand)]
pub(super) enum ManifestCommand {
    /// Build a manifest from a binary IMA list: what that machine measured is what will be allowed.
    /// Nothing here checks the list against a TPM.
    ///
    /// Example:
    ///   verifier ima manifest from-list binary_runtime_measurements -o manifest.jsonl
    #[command(verbatim_doc_comment)]
    FromList {
        /// The list; `-` for the standard input.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        out: OutArgs,
    },
    /// Build a manifest from a directory that is a worker's root: an unpacked image, a chroot.
    ///
    /// Links are not followed and other file systems are not entered.
    ///
    /// Example:
    ///   verifier ima manifest from-root /srv/images/worker -o manifest.jsonl
    #[command(verbatim_doc_comment)]
    FromRoot {
        /// The directory.
        #[arg(value_name = "DIR")]
        root: PathBuf,
        #[command(flatten)]
        select: SelectArgs,
        #[command(flatten)]
        out: OutArgs,
    },
    /// Build a manifest from Debian packages, or from the packages that are installed below a root.
    ///
    /// Packages are unpacked by dpkg-deb, in memory. Files that packages make when they are installed
    /// (caches, compiled modules, an initrd) are not in them.
    ///
    /// Examples:
    ///   verifier ima manifest from-packages /var/cache/apt/archives/*.deb -o manifest.jsonl
    ///   verifier ima manifest from-packages --installed-status /srv/images/worker/var/lib/dpkg
    #[command(verbatim_doc_comment)]
    FromPackages {
        /// Packages (.deb).
        #[arg(value_name = "DEB", required_unless_present = "installed_status")]
        packages: Vec<PathBuf>,
        /// Instead of packages: dpkg's database, ROOT/var/lib/dpkg; its files are read below ROOT.
        #[arg(long, value_name = "DIR", conflicts_with = "packages")]
        installed_status: Option<PathBuf>,
        #[command(flatten)]
        select: SelectArgs,
        #[command(flatten)]
        out: OutArgs,
    },
    /// Check a manifest, and show what it says.
    ///
    /// Example:
    ///   verifier ima manifest check manifest.jsonl
    #[command(verbatim_doc_comment)]
    Check {
        /// The manifest; `-` for the standard input.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Show what a second manifest has and has not that a first one has.
    ///
    /// Example:
    ///   verifier ima manifest diff monday.jsonl tuesday.jsonl
    #[command(verbatim_doc_comment)]
    Diff {
        /// The first manifest.
        #[arg(value_name = "A")]
        a: PathBuf,
        /// The second manifest.
        #[arg(value_name = "B")]
        b: PathBuf,
    },
}

#[derive(Args, Debug)]
pub(super) struct SelectArgs {
    /// Every regular file, not only what can run (executables, libraries, scripts, kernel modules).
    #[arg(long)]
    all: bool,
    /// The hash that workers measure with (their `ima_hash=`).
    #[arg(long, value_name = "HASH", default_value = "sha256")]
    digest: DigestArg,
}

#[derive(Args, Debug)]
pub(super) struct OutArgs {
    /// Where the manifest is written; the standard output without this.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The manifest's name.
    #[arg(long, value_name = "NAME", default_value = "manifest")]
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DigestArg {
    Sha256,
    Sha384,
    Sha512,
}

impl From<&SelectArgs> for Selection {
    fn from(args: &SelectArgs) -> Self {
        let digest = match args.digest {
            DigestArg::Sha256 => HashAlg::Sha256,
            DigestArg::Sha384 => HashAlg::Sha384,
            DigestArg::Sha512 => HashAlg::Sha512,
        };
        Self { digest, all: args.all }
    }
}

pub(super) fn run(global: &Global, command: ImaCommand) -> Done {
    let output = global.output();
    match command {
        ImaCommand::Manifest(command) => manifest(output, command),
        ImaCommand::Import { file } => block_on(import(global, output, &file)),
        ImaCommand::List => block_on(list(global, output)),
    }
}

async fn import(global: &Global, output: Output, file: &Path) -> Done {
    let request = pb::ManifestDocument { document: read_bytes(file)? };
    let info = answer(connect_reference(global).await?.import_manifest(request).await)?;
    let verb = if info.known { "known already" } else { "imported" };
    let sentence =
        format!("{verb}: {} ({} files, {})", printable(&info.name), info.files, info.sha256);
    output.either(&info_json(&info), sentence)
}

async fn list(global: &Global, output: Output) -> Done {
    let listed =
        answer(connect_reference(global).await?.list_manifests(pb::Empty {}).await)?.manifests;
    if output.is_json() {
        return output.json(&listed.iter().map(info_json).collect::<Vec<_>>());
    }
    let rows: Vec<_> = listed
        .into_iter()
        .map(|info| {
            let (files, imported) = (info.files.to_string(), time(info.imported_unix_s));
            vec![printable(&info.name), files, imported, info.imported_by, info.sha256]
        })
        .collect();
    let heads = ["NAME", "FILES", "IMPORTED", "BY", "DIGEST"];
    output.table(&heads, &rows, "No manifest was imported yet.")
}

fn info_json(info: &pb::ManifestInfo) -> serde_json::Value {
    json!({
        "sha256": info.sha256, "name": info.name, "files": info.files, "bytes": info.bytes,
        "imported_unix_s": info.imported_unix_s, "imported_by": info.imported_by,
        "known": info.known,
    })
}

fn manifest(output: Output, command: ManifestCommand) -> Done {
    match command {
        ManifestCommand::FromList { file, out } => {
            let bytes = read_bytes(&file)?;
            collected(output, &out, |tick| from_list(&bytes, tick))
        }
        ManifestCommand::FromRoot { root, select, out } => {
            collected(output, &out, |tick| from_root(&root, (&select).into(), tick))
        }
        ManifestCommand::FromPackages { packages, installed_status, select, out } => {
            collected(output, &out, |tick| match &installed_status {
                Some(database) => from_installed(database, (&select).into(), tick),
                None => from_packages(&packages, (&select).into(), tick),
            })
        }
        ManifestCommand::Check { file } => check(output, &file),
        ManifestCommand::Diff { a, b } => diff(output, &a, &b),
    }
}

/// Collects files, writes their manifest, and says how it went.
fn collected(
    output: Output,
    args: &OutArgs,
    collect: impl FnOnce(&mut dyn FnMut(u64)) -> Result<Collected, CollectError>,
) -> Done {
    let bar = spinner();
    let collected = collect(&mut |seen| bar.set_position(seen)).map_err(|error| {
        let help = match &error {
            CollectError::ProgramMissing { .. } => Some("apt-get install dpkg"),
            CollectError::NotAList => {
                Some("the binary list is binary_runtime_measurements, not the ascii one")
            }
            _ => None,
        };
        let failure = Failure::of(&error);
        match help {
            Some(help) => failure.with_help(help),
            None => failure,
        }
    })?;
    bar.finish_and_clear();
    let text = collected.builder.to_text(&args.name, now());
    // What is written is what a verifier reads: also the limits.
    let manifest = Manifest::parse(text.as_bytes())
        .map_err(|problem| Failure::of(&problem).while_doing("make a manifest"))?;
    let Some(file) = &args.output else {
        say_skipped(&collected);
        return output.text(&text);
    };
    std::fs::write(file, &text)
        .map_err(|error| Failure::of(&error).while_doing(&format!("write {}", file.display())))?;
    if output.is_json() {
        return output.json(&json!({
            "manifest": file.display().to_string(), "id": manifest.id().to_string(),
            "files": manifest.files(), "seen": collected.seen,
            "hashed_bytes": collected.hashed_bytes, "skipped": collected.skipped,
            "more_skipped": collected.more_skipped,
        }));
    }
    say_skipped(&collected);
    output.line(format!(
        "{}: {} files of {} looked at, {}",
        printable(&file.display().to_string()),
        manifest.files(),
        collected.seen,
        manifest.id()
    ))
}

/// What was left out, on the standard error output.
fn say_skipped(collected: &Collected) {
    for skipped in &collected.skipped {
        eprintln!("left out: {}", printable(skipped));
    }
    if collected.more_skipped > 0 {
        eprintln!("left out: {} more", collected.more_skipped);
    }
}

/// A counter on a terminal, nothing in a pipe.
fn spinner() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} files, {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A manifest in a file.
pub(super) fn read(file: &Path) -> Result<Manifest, Failure> {
    let bytes = read_bytes(file)?;
    Manifest::parse(&bytes).map_err(|problem| {
        Failure::refused(format!("{} is not a manifest: {problem}", file.display()))
    })
}

fn check(output: Output, file: &Path) -> Done {
    let manifest = read(file)?;
    if output.is_json() {
        return output.json(&json!({
            "name": manifest.name(), "id": manifest.id().to_string(), "files": manifest.files(),
            "created_unix_s": manifest.created_unix_s(), "memory_bytes": manifest.memory_bytes(),
            "sources": manifest.sources(),
        }));
    }
    output.facts(&[
        ("name", manifest.name().to_owned()),
        ("identifier", manifest.id().to_string()),
        ("files", manifest.files().to_string()),
        ("made", time(manifest.created_unix_s())),
        ("memory", format!("{} kB", manifest.memory_bytes() / 1000)),
        ("sources", manifest.sources().len().to_string()),
    ])?;
    for source in manifest.sources() {
        output.line(format!("  {}", printable(source)))?;
    }
    Ok(())
}

/// Digests of each path, and of no path.
fn by_path(manifest: &Manifest) -> BTreeMap<String, Vec<String>> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (digest, path) in manifest.iter() {
        out.entry(path).or_default().push(digest);
    }
    out
}

fn diff(output: Output, a: &Path, b: &Path) -> Done {
    let (a, b) = (by_path(&read(a)?), by_path(&read(b)?));
    let mut rows: Vec<(&str, &str, &[String], &[String])> = Vec::new();
    for (path, before) in &a {
        match b.get(path) {
            None => rows.push(("removed", path, before, &[])),
            Some(after) if after != before => rows.push(("changed", path, before, after)),
            Some(_) => {}
        }
    }
    let added = b.iter().filter(|(path, _)| !a.contains_key(*path));
    rows.extend(added.map(|(path, after)| ("added", path.as_str(), &[][..], after.as_slice())));
    rows.sort_by_key(|(_, path, _, _)| *path);
    if output.is_json() {
        let list: Vec<_> = rows
            .iter()
            .map(|(change, path, before, after)| {
                json!({ "change": change, "path": path, "before": before, "after": after })
            })
            .collect();
        return output.json(&list);
    }
    let joined = |digests: &[String]| {
        if digests.is_empty() { "-".to_owned() } else { digests.join(" ") }
    };
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|(change, path, before, after)| {
            vec![(*change).to_owned(), (*path).to_owned(), joined(before), joined(after)]
        })
        .collect();
    output.table(&["CHANGE", "PATH", "BEFORE", "AFTER"], &rows, "The manifests allow the same.")
}
