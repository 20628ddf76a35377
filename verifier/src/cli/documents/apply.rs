//! `golden apply`: brings the verifier to what files say, as they were reviewed in a repository.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
};

use clap::Args;
use proto::{digest::HashAlg, pb};
use serde_json::{Value, json};

use super::{
    Dare, answer, asks_or_is_told, confirm, connect_reference,
    dry_run::{print_summary, run_change},
    identity, missing, propose,
    signing::{beside, envelope_of, payload_of},
};
use crate::{
    cli::{Done, Failure, Global, client::ReferenceClient, files::read_text, output::printable},
    documents::{kind_of, name_and_version},
    store::{DocumentId, DocumentKind},
};

/// Files that one run takes: every document of a large site.
const MAX_FILES: usize = 1000;

/// Bring the verifier to what files say. Run again, it finds nothing to do.
///
/// DIR/*.toml become active, DIR/staged/*.toml staged, DIR/proposed/*.toml proposed; signatures stand beside each
/// in FILE.dsse.json (`sign FILE` writes them). Two versions of one name in DIR are active side by side; versions of
/// these names that are in no file retire. Golden sets, parts, policies and the ring of keys alike. A single file
/// becomes active.
///
/// Examples:
///   verifier golden apply reference/ --plan
///   verifier golden apply reference/ --yes
///   verifier golden apply linux.toml --key security.key
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct ApplyArgs {
    /// Directory or TOML file.
    #[arg(value_name = "DIR|FILE")]
    path: PathBuf,
    /// Only print what would be done.
    #[arg(long)]
    plan: bool,
    /// Sign what is not approved yet with this private key; may be repeated.
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// Retire what is active or staged under names that no file has.
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    dare: Dare,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Goal {
    Proposed,
    Staged,
    Active,
}

/// A file, and where it is to be.
struct Wanted {
    path: PathBuf,
    id: DocumentId,
    text: String,
    goal: Goal,
    is_part: bool,
}

/// One step, in the order of the plan.
#[derive(Debug)]
enum Step {
    Propose { id: DocumentId, file: usize },
    Sign { id: DocumentId, file: usize },
    Stage { id: DocumentId },
    Activate { id: DocumentId, alongside: bool },
    Retire { id: DocumentId },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, id, more) = match self {
            Self::Propose { id, .. } => ("propose ", id, ""),
            Self::Sign { id, .. } => ("sign    ", id, ""),
            Self::Stage { id } => ("stage   ", id, ""),
            Self::Activate { id, alongside: true } => ("activate", id, ", beside what is active"),
            Self::Activate { id, alongside: false } => ("activate", id, ""),
            Self::Retire { id } => ("retire  ", id, ""),
        };
        write!(f, "{verb} {} {}{more}", id.kind, identity(id))
    }
}

impl Step {
    fn json(&self) -> Value {
        let (verb, id) = match self {
            Self::Propose { id, .. } => ("propose", id),
            Self::Sign { id, .. } => ("sign", id),
            Self::Stage { id } => ("stage", id),
            Self::Activate { id, .. } => ("activate", id),
            Self::Retire { id } => ("retire", id),
        };
        json!({ "step": verb, "kind": id.kind, "name": id.name, "version": id.version })
    }
}

/// Runs it.
pub(in crate::cli) async fn apply(global: &Global, args: ApplyArgs) -> Done {
    let output = global.output();
    if args.prune && !args.path.is_dir() {
        return Err(Failure::usage(
            "--prune goes with a directory: one file would retire all the rest",
        ));
    }
    if !args.plan {
        asks_or_is_told(output, args.dare.yes)?;
    }
    let wanted = wanted(&args.path)?;
    let mut client = connect_reference(global).await?;
    let request = pb::ListDocumentsRequest::default();
    let known = answer(client.list(request).await)?.documents;
    let steps = plan(&wanted, &known, &args)?;
    if output.is_json() && args.plan {
        return output.json(&steps.iter().map(Step::json).collect::<Vec<_>>());
    }
    if steps.is_empty() {
        return output
            .either(&json!({ "steps": [] }), "Nothing to do: the verifier is as the files say.");
    }
    if !output.is_json() {
        output.line("Plan:")?;
        for step in &steps {
            output.line(format!("  {}", printable(&step.to_string())))?;
        }
    }
    if args.plan {
        return Ok(());
    }
    let change = change(&steps, &wanted, &known);
    let judges_otherwise = !change.texts.is_empty() || !change.retire.is_empty();
    if judges_otherwise && !output.is_json() {
        let found = run_change(&mut client, change).await?;
        print_summary(output, &found)?;
    }
    confirm("Do it?", args.dare.yes)?;
    for step in &steps {
        take(&mut client, step, &wanted, &args).await?;
        if !output.is_json() {
            output.line(format!("done: {}", printable(&step.to_string())))?;
        }
    }
    if output.is_json() {
        return output.json(&json!({ "steps": steps.iter().map(Step::json).collect::<Vec<_>>() }));
    }
    Ok(())
}

fn wanted(path: &Path) -> Result<Vec<Wanted>, Failure> {
    let mut files = Vec::new();
    if path.is_dir() {
        for (folder, goal) in [
            (path.to_owned(), Goal::Active),
            (path.join("staged"), Goal::Staged),
            (path.join("proposed"), Goal::Proposed),
        ] {
            if !folder.is_dir() {
                continue;
            }
            let failed = |error: std::io::Error| {
                Failure::of(&error).while_doing(&format!("list {}", folder.display()))
            };
            for entry in std::fs::read_dir(&folder).map_err(failed)? {
                let file = entry.map_err(failed)?.path();
                if file.is_file() && file.extension().is_some_and(|ending| ending == "toml") {
                    files.push((file, goal));
                }
            }
        }
    } else {
        files.push((path.to_owned(), Goal::Active));
    }
    if files.is_empty() {
        return Err(Failure::usage(format!("{} has no .toml file", path.display())));
    }
    if files.len() > MAX_FILES {
        return Err(Failure::usage(format!("{} files, at most {MAX_FILES}", files.len())));
    }
    let mut out: Vec<Wanted> = Vec::with_capacity(files.len());
    for (path, goal) in files {
        let at = |what: String| Failure::refused(format!("{}: {what}", path.display()));
        let text = read_text(&path)?;
        let kind = kind_of(&text).map_err(|problem| at(problem.to_string()))?;
        // Every problem that can be told without the verifier is told before anything is done.
        payload_of(&text, kind)
            .map_err(|failure| failure.while_doing(&format!("use {}", path.display())))?;
        let (name, version, pool) =
            name_and_version(&text).map_err(|problem| at(problem.to_string()))?;
        let id = DocumentId { kind, name, version };
        if let Some(twice) = out.iter().find(|other| other.id == id) {
            return Err(at(format!("{} stands in {} too", identity(&id), twice.path.display())));
        }
        if kind == DocumentKind::Keys && goal == Goal::Staged {
            return Err(at("a ring of keys judges nobody, and cannot be staged".to_owned()));
        }
        let is_part = kind == DocumentKind::Golden && pool.is_none();
        out.push(Wanted { path, id, text, goal, is_part });
    }
    // Keys first, then parts, then what includes them, each from its lowest version on.
    out.sort_by_key(|one| {
        let order = match one.id.kind {
            DocumentKind::Keys => 0,
            DocumentKind::Golden if one.is_part => 1,
            DocumentKind::Golden => 2,
            DocumentKind::Policy => 3,
        };
        (order, one.id.clone())
    });
    Ok(out)
}

/// What has to be done, from what is there.
fn plan(wanted: &[Wanted], known: &[pb::Document], args: &ApplyArgs) -> Result<Vec<Step>, Failure> {
    let mut steps = Vec::new();
    for (file, one) in wanted.iter().enumerate() {
        let id = &one.id;
        let found = known.iter().find(|known| is(known, id));
        let sha256 = HashAlg::Sha256.hash(&[one.text.as_bytes()]).to_string();
        if let Some(other) = found.filter(|known| known.sha256 != sha256) {
            return Err(Failure::refused(format!(
                "{}: {} is known with other content ({}): give it a higher version",
                one.path.display(),
                identity(id),
                other.state
            )));
        }
        let newest = known
            .iter()
            .filter(|known| known.kind == id.kind.as_str() && known.name == id.name)
            .map(|known| known.version)
            .max()
            .unwrap_or(0);
        if found.is_none() && id.version <= newest {
            return Err(Failure::refused(format!(
                "{}: {} is not above version {newest}; versions only rise (`revert` brings old content back)",
                one.path.display(),
                identity(id)
            ))
            .with_reason("GOLDEN_VERSION_NOT_NEWER"));
        }
        let state = found.map_or("", |known| known.state.as_str());
        if state == "retired" {
            return Err(Failure::refused(format!(
                "{}: {} is retired; `revert` brings its content back as a new version",
                one.path.display(),
                identity(id)
            )));
        }
        if one.goal < Goal::Active && state == "active" {
            return Err(Failure::refused(format!(
                "{}: {} is in force, which does not go back; `verifier {} retire` ends it",
                one.path.display(),
                identity(id),
                id.kind
            )));
        }
        if matches!(state, "" | "observed") {
            steps.push(Step::Propose { id: id.clone(), file });
        }
        let is_unsigned = matches!(state, "" | "observed" | "proposed");
        let has_signatures = !args.keys.is_empty() || beside(&one.path).exists();
        if is_unsigned && has_signatures {
            steps.push(Step::Sign { id: id.clone(), file });
        } else if is_unsigned && one.goal > Goal::Proposed {
            let have = found.map_or_else(|| "no signature".to_owned(), missing);
            return Err(Failure::refused(format!(
                "{}: {} is not approved ({have}): sign it (`verifier {} sign {} --key FILE`), or give --key",
                one.path.display(),
                identity(id),
                id.kind,
                one.path.display(),
            ))
            .with_reason("GOLDEN_SIGNATURES_MISSING"));
        }
        match one.goal {
            Goal::Staged if !matches!(state, "staged" | "active") => {
                steps.push(Step::Stage { id: id.clone() });
            }
            Goal::Active if state != "active" => {
                let others = wanted.iter().any(|other| {
                    other.goal == Goal::Active
                        && (other.id.kind, &other.id.name) == (id.kind, &id.name)
                        && other.id.version != id.version
                });
                steps.push(Step::Activate { id: id.clone(), alongside: others });
            }
            _ => {}
        }
    }
    let left = leftovers(wanted, known, &steps, args.prune)?;
    steps.extend(left);
    Ok(steps)
}

/// What no file has any more, and what no activation retires by itself.
fn leftovers(
    wanted: &[Wanted],
    known: &[pb::Document],
    steps: &[Step],
    prune: bool,
) -> Result<Vec<Step>, Failure> {
    let names: BTreeSet<(&str, &str)> =
        wanted.iter().map(|one| (one.id.kind.as_str(), one.id.name.as_str())).collect();
    let mut out = Vec::new();
    for known in known.iter().filter(|known| matches!(known.state.as_str(), "active" | "staged")) {
        if wanted.iter().any(|one| is(known, &one.id)) || known.kind == DocumentKind::Keys.as_str()
        {
            continue;
        }
        let is_named = names.contains(&(known.kind.as_str(), known.name.as_str()));
        if !is_named && !prune {
            continue;
        }
        // A version that comes into force alone retires the others by itself, and the lower ones in any case.
        let is_retired_by = |step: &Step| match step {
            Step::Activate { id, alongside } => {
                let is_lower = known.state == "staged" && known.version < id.version;
                id.kind.as_str() == known.kind
                    && id.name == known.name
                    && (is_lower || (known.state == "active" && !alongside))
            }
            _ => false,
        };
        if steps.iter().any(is_retired_by) {
            continue;
        }
        let becomes_active = |one: &Wanted| {
            one.goal == Goal::Active
                && one.id.kind.as_str() == known.kind
                && one.id.name == known.name
        };
        if known.state == "active" && is_named && !wanted.iter().any(becomes_active) {
            // Only a staged or proposed successor: the active one stays until that is active.
            continue;
        }
        let kind = known.kind.parse()?;
        let id = DocumentId { kind, name: known.name.clone(), version: known.version };
        out.push(Step::Retire { id });
    }
    Ok(out)
}

fn is(known: &pb::Document, id: &DocumentId) -> bool {
    (known.kind.as_str(), &known.name, known.version) == (id.kind.as_str(), &id.name, id.version)
}

/// What the steps change about judging, as one dry run: what is not said to retire stays.
fn change(steps: &[Step], wanted: &[Wanted], known: &[pb::Document]) -> pb::DryRunRequest {
    let mut request = pb::DryRunRequest { alongside: true, ..pb::DryRunRequest::default() };
    for step in steps {
        match step {
            Step::Activate { id, alongside } if id.kind != DocumentKind::Keys => {
                let file = wanted.iter().find(|one| one.id == *id);
                request.texts.extend(file.map(|one| one.text.clone()));
                let goes = |known: &&pb::Document| {
                    !alongside
                        && known.state == "active"
                        && (known.kind.as_str(), &known.name) == (id.kind.as_str(), &id.name)
                        && known.version != id.version
                };
                request.retire.extend(known.iter().filter(goes).map(|known| pb::DocumentRef {
                    kind: known.kind.clone(),
                    name: known.name.clone(),
                    version: known.version,
                }));
            }
            Step::Retire { id } => request.retire.push(message(id)),
            _ => {}
        }
    }
    request
}

fn message(id: &DocumentId) -> pb::DocumentRef {
    pb::DocumentRef { kind: id.kind.to_string(), name: id.name.clone(), version: id.version }
}

async fn take(
    client: &mut ReferenceClient,
    step: &Step,
    wanted: &[Wanted],
    args: &ApplyArgs,
) -> Done {
    match step {
        Step::Propose { file, .. } => {
            let Some(one) = wanted.get(*file) else { return Ok(()) };
            let origin = format!("file {}", one.path.display());
            propose(client, one.text.clone(), Vec::new(), origin).await?;
        }
        Step::Sign { id, file } => {
            let Some(one) = wanted.get(*file) else { return Ok(()) };
            let made = Some(beside(&one.path)).filter(|path| path.exists());
            let envelope = envelope_of(&one.text, id.kind, &args.keys, made.as_deref())?;
            let request = pb::SignRequest { document: Some(message(id)), envelope };
            answer(client.sign(request).await)?;
        }
        Step::Stage { id } => {
            answer(client.stage(message(id)).await)?;
        }
        Step::Activate { id, alongside } => {
            let request = pb::ActivateRequest {
                document: Some(message(id)),
                alongside: *alongside,
                accept_denials: args.dare.accept_denials,
            };
            answer(client.activate(request).await)?;
        }
        Step::Retire { id } => {
            let request = pb::RetireRequest {
                document: Some(message(id)),
                reason: "no file has it any more".to_owned(),
                accept_denials: args.dare.accept_denials,
            };
            answer(client.retire(request).await)?;
        }
    }
    Ok(())
}
