//! What golden sets, policies and the ring of keys have in common on the command line: their life.

mod apply;
mod dry_run;
mod print;
mod shown;
mod signing;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use proto::{pb, reason::ReasonCode};
use serde_json::json;

pub(super) use self::{
    apply::{ApplyArgs, apply},
    dry_run::{DryRunArgs, dry_run},
};
use self::{
    dry_run::{print_summary, run_change, summary_json},
    print::{document_json, history, key_names, missing, row, said, show},
    shown::show_before_signing,
    signing::{SignArgs, envelope_of, in_force, is_what_was_asked_for, sign},
};
use super::{
    Done, Failure, Global,
    client::{ReferenceClient, answer, connect_reference},
    files::read_text,
    output::{Output, printable},
};
use crate::{
    documents::{kind_of, schema::published},
    signatures::PayloadType,
    store::{DocumentId, DocumentKind},
};

/// Steps of a document's life: observed, proposed, signed, staged, active, retired.
#[derive(Debug, Subcommand)]
pub(super) enum DocumentCommand {
    /// Offer a document for review and signature. Its version must be above every earlier one.
    ///
    /// Example:
    ///   verifier golden propose linux.toml
    #[command(verbatim_doc_comment)]
    Propose {
        /// TOML file; `-` for the standard input.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Sign it too, with this private key; may be repeated.
        #[arg(long = "key", value_name = "FILE")]
        keys: Vec<PathBuf>,
        /// Signatures made elsewhere (`sign FILE` writes them).
        #[arg(long, value_name = "FILE")]
        envelope: Option<PathBuf>,
    },
    /// Sign a proposed document, or a file on a machine without a network.
    ///
    /// What is signed is the meaning (canonical JSON): comments and spaces of the TOML make no difference. With
    /// enough signatures the document is approved.
    ///
    /// Examples:
    ///   verifier golden sign linux@4 --key alice.key
    ///   verifier golden sign linux.toml --key alice.key     # writes linux.toml.dsse.json
    #[command(verbatim_doc_comment)]
    Sign(SignArgs),
    /// Have a signed document judged at every attestation and reported, without enforcing it.
    ///
    /// Example:
    ///   verifier golden stage linux@4
    #[command(verbatim_doc_comment)]
    Stage {
        /// NAME@VERSION, or NAME for the newest.
        #[arg(value_name = "DOCUMENT")]
        document: Reference,
    },
    /// Put a signed or staged document in force, after a dry run against the fleet.
    ///
    /// Refused where more of the admitted nodes would be denied than `golden.max_denied_percent` of the
    /// verifier's configuration lets pass.
    ///
    /// Examples:
    ///   verifier golden activate linux@4
    ///   verifier golden activate linux@4 --alongside   # version 3 stays in force too
    #[command(verbatim_doc_comment)]
    Activate {
        /// NAME@VERSION, or NAME for the newest.
        #[arg(value_name = "DOCUMENT")]
        document: Reference,
        /// Leave the active version in force beside it, while the fleet moves; `retire` ends that.
        #[arg(long)]
        alongside: bool,
        #[command(flatten)]
        dare: Dare,
    },
    /// End a document's life for good: it judges no more. To go back, `revert` makes a new version.
    ///
    /// Example:
    ///   verifier golden retire linux@3 --reason "every node runs the new kernel"
    #[command(verbatim_doc_comment)]
    Retire {
        /// NAME@VERSION.
        #[arg(value_name = "DOCUMENT")]
        document: Reference,
        /// Recorded.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        dare: Dare,
    },
    /// Make old content a new version and, with enough keys, put it in force, in one step.
    ///
    /// For emergencies: versions only rise, so that going back is a new version too.
    ///
    /// Example:
    ///   verifier golden revert linux@3 --key alice.key --key bob.key --yes
    #[command(verbatim_doc_comment)]
    Revert {
        /// NAME@VERSION whose content comes back.
        #[arg(value_name = "DOCUMENT")]
        document: Reference,
        /// Private keys that sign the new version; may be repeated.
        #[arg(long = "key", value_name = "FILE", required = true)]
        keys: Vec<PathBuf>,
        #[command(flatten)]
        dare: Dare,
    },
    /// List every version with its state and who signed.
    ///
    /// Example:
    ///   verifier golden list
    #[command(verbatim_doc_comment)]
    List {
        /// Only of this name.
        #[arg(value_name = "NAME", default_value = "", hide_default_value = true)]
        name: String,
    },
    /// Print a document as it was proposed; or what is signed, or its signatures.
    ///
    /// Examples:
    ///   verifier golden show linux
    ///   verifier golden show linux@4 --envelope > linux.dsse.json
    #[command(verbatim_doc_comment)]
    Show {
        /// NAME@VERSION, or NAME for the newest active one.
        #[arg(value_name = "DOCUMENT")]
        document: Reference,
        /// Print the DSSE envelope with the signatures so far.
        #[arg(long)]
        envelope: bool,
        /// Print the canonical JSON: the bytes that are signed.
        #[arg(long, conflicts_with = "envelope")]
        payload: bool,
    },
    /// Print what was done to a document, by whom, when.
    ///
    /// Example:
    ///   verifier golden history linux@4
    #[command(verbatim_doc_comment)]
    History {
        /// NAME@VERSION, or NAME for the newest.
        #[arg(value_name = "DOCUMENT")]
        document: Reference,
    },
}

/// Puts the examples of the commands that all kinds share into the words of each kind.
pub(super) fn with_own_examples(command: clap::Command) -> clap::Command {
    let own = |kind: &'static str, document: &'static str, file: &'static str| {
        move |command: clap::Command| {
            command.mut_subcommands(move |shared| {
                let about = shared.get_long_about().map(ToString::to_string).unwrap_or_default();
                let about = about
                    .replace("verifier golden", &format!("verifier {kind}"))
                    .replace("linux.toml", file)
                    .replace("linux", document);
                shared.long_about(about)
            })
        }
    };
    command
        .mut_subcommand("keys", own("keys", "security", "ring.toml"))
        .mut_subcommand("policy", own("policy", "infineon-firmware", "infineon-firmware.toml"))
}

/// Whether to go on without being asked.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Dare {
    /// Do not ask: for scripts. Needed with --json.
    #[arg(long)]
    pub(super) yes: bool,
    /// Go on although more nodes would be denied than the configuration lets pass.
    #[arg(long)]
    pub(super) accept_denials: bool,
}

/// `NAME` or `NAME@VERSION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) name: String,
    /// 0: not said.
    pub(super) version: u64,
}

impl std::str::FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, version) = match text.split_once('@') {
            None => (text, 0),
            Some((name, version)) => match version.parse() {
                Ok(version) if version > 0 => (name, version),
                _ => return Err(format!("{version:?} is not a version: NAME@3")),
            },
        };
        if name.is_empty() || name.contains('/') {
            return Err(format!("{text:?} is not NAME or NAME@VERSION"));
        }
        Ok(Self { name: name.to_owned(), version })
    }
}

impl Reference {
    fn message(&self, kind: DocumentKind) -> pb::DocumentRef {
        pb::DocumentRef { kind: kind.to_string(), name: self.name.clone(), version: self.version }
    }

    /// With the newest version where none was said.
    async fn newest(
        &self,
        client: &mut ReferenceClient,
        kind: DocumentKind,
    ) -> Result<pb::DocumentRef, Failure> {
        if self.version > 0 {
            return Ok(self.message(kind));
        }
        let known = list(client, kind, &self.name).await?;
        let newest = known.iter().map(|document| document.version).max().ok_or_else(|| {
            Failure::refused(format!("there is no {kind} {:?}", self.name))
                .with_reason("ADMIN_NOT_FOUND")
        })?;
        Ok(pb::DocumentRef { version: newest, ..self.message(kind) })
    }
}

async fn list(
    client: &mut ReferenceClient,
    kind: DocumentKind,
    name: &str,
) -> Result<Vec<pb::Document>, Failure> {
    let request = pb::ListDocumentsRequest { kind: kind.to_string(), name: name.to_owned() };
    Ok(answer(client.list(request).await)?.documents)
}

/// As signatures name what they are over.
const fn payload_type(kind: DocumentKind) -> PayloadType {
    match kind {
        DocumentKind::Golden => PayloadType::Golden,
        DocumentKind::Policy => PayloadType::Policy,
        DocumentKind::Keys => PayloadType::Keys,
    }
}

/// Runs a step of a document's life.
pub(super) async fn run(global: &Global, kind: DocumentKind, command: DocumentCommand) -> Done {
    let output = global.output();
    match command {
        DocumentCommand::Propose { file, keys, envelope } => {
            let text = read_text(&file)?;
            of_kind(&text, kind, &file)?;
            let envelope = envelope_of(&text, kind, &keys, envelope.as_deref())?;
            let mut client = connect_reference(global).await?;
            let origin = format!("file {}", file.display());
            let proposed = propose(&mut client, text, envelope, origin).await?;
            match proposed.state.as_str() {
                "retired" => Err(retired(&proposed)),
                // The same text once more: nothing was done to it.
                "staged" | "active" => said(output, "known already", &proposed),
                _ => said(output, "proposed", &proposed),
            }
        }
        DocumentCommand::Sign(args) => sign(global, kind, args).await,
        DocumentCommand::Stage { document } => {
            let mut client = connect_reference(global).await?;
            let named = document.newest(&mut client, kind).await?;
            said(output, "staged", &answer(client.stage(named).await)?)
        }
        DocumentCommand::Activate { document, alongside, dare } => {
            asks_or_is_told(output, dare.yes)?;
            let mut client = connect_reference(global).await?;
            let named = document.newest(&mut client, kind).await?;
            activate(output, &mut client, named, alongside, dare).await
        }
        DocumentCommand::Retire { document, reason, dare } => {
            asks_or_is_told(output, dare.yes)?;
            let mut client = connect_reference(global).await?;
            let named = document.newest(&mut client, kind).await?;
            retire(output, &mut client, named, reason, dare).await
        }
        DocumentCommand::Revert { document, keys, dare } => {
            asks_or_is_told(output, dare.yes)?;
            let mut client = connect_reference(global).await?;
            revert(output, &mut client, kind, &document, &keys, dare).await
        }
        DocumentCommand::List { name } => {
            let known = list(&mut connect_reference(global).await?, kind, &name).await?;
            if output.is_json() {
                return output.json(&known.iter().map(document_json).collect::<Vec<_>>());
            }
            let rows: Vec<_> = known.into_iter().map(row).collect();
            let heads =
                ["NAME", "VERSION", "POOL", "STATE", "SIGNED BY", "PROPOSED", "BY", "DIGEST"];
            output.table(&heads, &rows, none_yet(kind))
        }
        DocumentCommand::Show { document, envelope, payload } => {
            let mut client = connect_reference(global).await?;
            let detail = answer(client.show(document.message(kind)).await)?;
            show(output, detail, envelope, payload)
        }
        DocumentCommand::History { document } => {
            let mut client = connect_reference(global).await?;
            let named = document.newest(&mut client, kind).await?;
            let detail = answer(client.show(named).await)?;
            let names = key_names(&mut client).await;
            history(output, detail, &names)
        }
    }
}

const fn none_yet(kind: DocumentKind) -> &'static str {
    match kind {
        DocumentKind::Golden => "There is none yet: every pool without a golden set denies.",
        DocumentKind::Policy => "There is none: golden sets alone say what is accepted.",
        DocumentKind::Keys => "There is none: nothing can be approved. `verifier init` makes one.",
    }
}

/// Refuses a document of another kind than the command's.
fn of_kind(text: &str, kind: DocumentKind, file: &Path) -> Done {
    let found = kind_of(text)
        .map_err(|problem| Failure::refused(format!("{}: {problem}", file.display())))?;
    if found == kind {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "this is a document of the kind {found}: use `verifier {found} …` for it"
    )))
}

fn retired(document: &pb::Document) -> Failure {
    let pb::Document { kind, name, version, .. } = document;
    Failure::refused(format!("{kind} {name}@{version} is retired"))
        .with_reason(ReasonCode::GoldenStateInvalid.as_str())
        .with_help(format!("`verifier {kind} revert {name}@{version}` brings its content back"))
}

async fn propose(
    client: &mut ReferenceClient,
    toml: String,
    envelope: Vec<u8>,
    origin: String,
) -> Result<pb::Document, Failure> {
    answer(client.propose(pb::ProposeRequest { toml, envelope, origin }).await)
}

async fn activate(
    output: Output,
    client: &mut ReferenceClient,
    named: pb::DocumentRef,
    alongside: bool,
    dare: Dare,
) -> Done {
    let what = id(&named);
    let known = answer(client.show(named.clone()).await)?.document.unwrap_or_default();
    // Nobody is asked for what cannot be done.
    if known.state == "retired" {
        return Err(retired(&known));
    }
    let is_approved = matches!(known.state.as_str(), "signed" | "staged");
    if is_approved && named.kind != DocumentKind::Keys.as_str() {
        let change =
            pb::DryRunRequest { documents: vec![named.clone()], alongside, ..Default::default() };
        // For programs the answer has the dry run that the verifier makes by itself.
        if !output.is_json() {
            let found = run_change(client, change).await?;
            print_summary(output, &found)?;
        }
    }
    if is_approved {
        confirm(&format!("Put {what} in force?"), dare.yes)?;
    }
    let request = pb::ActivateRequest {
        document: Some(named),
        alongside,
        accept_denials: dare.accept_denials,
    };
    let reply = answer(client.activate(request).await)?;
    let document = reply.document.unwrap_or_default();
    let retired = reply.retired;
    if output.is_json() {
        return output.json(&json!({
            "document": document_json(&document), "retired": retired,
            "dry_run": reply.dry_run.as_ref().map(summary_json),
        }));
    }
    let gone: Vec<String> =
        retired.iter().map(|version| format!("{}@{version}", document.name)).collect();
    let gone =
        if gone.is_empty() { String::new() } else { format!("; retired: {}", gone.join(", ")) };
    let beside = if alongside { ", beside what was" } else { "" };
    let said = format!("in force: {what}{beside} ({}){gone}", document.sha256);
    output.line(printable(&said))
}

async fn retire(
    output: Output,
    client: &mut ReferenceClient,
    named: pb::DocumentRef,
    reason: String,
    dare: Dare,
) -> Done {
    let known = answer(client.show(named.clone()).await)?.document.unwrap_or_default();
    if known.state == "active" && !output.is_json() {
        let change = pb::DryRunRequest { retire: vec![named.clone()], ..Default::default() };
        let found = run_change(client, change).await?;
        print_summary(output, &found)?;
    }
    confirm(&format!("Retire {}, which is {}?", id(&named), known.state), dare.yes)?;
    let request =
        pb::RetireRequest { document: Some(named), reason, accept_denials: dare.accept_denials };
    said(output, "retired", &answer(client.retire(request).await)?)
}

async fn revert(
    output: Output,
    client: &mut ReferenceClient,
    kind: DocumentKind,
    document: &Reference,
    keys: &[PathBuf],
    dare: Dare,
) -> Done {
    if document.version == 0 {
        return Err(Failure::usage("say which version comes back: NAME@VERSION"));
    }
    let old = answer(client.show(document.message(kind)).await)?;
    is_what_was_asked_for(&old.toml, kind, &document.message(kind))?;
    let known = list(client, kind, &document.name).await?;
    let newest = known.iter().map(|known| known.version).max().unwrap_or(document.version);
    let text = with_version(&old.toml, newest.saturating_add(1))?;
    let before = in_force(client, kind, &document.message(kind)).await?;
    show_before_signing(output, kind, before.as_deref(), &text)?;
    confirm(&format!("Sign the content of {}@{}?", document.name, document.version), dare.yes)?;
    let envelope = envelope_of(&text, kind, keys, None)?;
    let origin = format!("the content of {}@{}", document.name, document.version);
    let proposed = propose(client, text, envelope, origin).await?;
    if proposed.state != "signed" {
        said(output, "proposed, but not signed by enough keys yet", &proposed)?;
        return Err(Failure::refused(missing(&proposed)).with_reason("GOLDEN_SIGNATURES_MISSING"));
    }
    let named = pb::DocumentRef {
        kind: kind.to_string(),
        name: proposed.name.clone(),
        version: proposed.version,
    };
    activate(output, client, named, false, dare).await
}

/// The same document, comments and all, with another version.
fn with_version(text: &str, version: u64) -> Result<String, Failure> {
    let mut document: toml_edit::DocumentMut = text.parse()?;
    let version =
        i64::try_from(version).map_err(|_| Failure::refused("there is no higher version left"))?;
    document["version"] = toml_edit::value(version);
    Ok(document.to_string())
}

/// Refuses to ask about what is not shown: with `--json` the program that reads it has to mean it.
fn asks_or_is_told(output: Output, yes: bool) -> Done {
    if yes || !output.is_json() {
        return Ok(());
    }
    Err(Failure::usage(
        "with --json nothing is shown of what would be agreed to, so nobody is asked: add --yes",
    ))
}

/// Asks on the terminal; a script must say `--yes`.
fn confirm(question: &str, yes: bool) -> Done {
    use std::io::{BufRead as _, IsTerminal as _, Write as _};
    if yes {
        return Ok(());
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage(format!("{question} Nobody can be asked here: add --yes")));
    }
    let mut err = std::io::stderr().lock();
    write!(err, "{} [y/N] ", printable(question))?;
    err.flush()?;
    let mut line = String::new();
    stdin.lock().read_line(&mut line)?;
    if matches!(line.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::failed("nothing was changed"))
}

fn id(named: &pb::DocumentRef) -> String {
    format!("{}@{}", named.name, named.version)
}

/// Prints the JSON Schema of a kind of document.
pub(super) fn schema(output: Output, kind: DocumentKind) -> Done {
    output.text(published(kind))
}

fn identity(id: &DocumentId) -> String {
    format!("{}@{}", id.name, id.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_named_with_or_without_version() {
        let reference = |name: &str, version| Ok(Reference { name: name.to_owned(), version });
        assert_eq!("linux".parse(), reference("linux", 0));
        assert_eq!("linux@12".parse(), reference("linux", 12));
        for bad in ["", "@1", "linux@", "linux@0", "linux@-1", "linux@x", "./linux.toml"] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn going_back_keeps_comments() {
        let old = "# why\nschema = \"assay.golden/v1\"\nversion = 3 # third\n\n[[pcr]] # four\nindex = 4\n";
        let new = with_version(old, 9).expect("TOML");
        assert_eq!(new, old.replace("version = 3 # third", "version = 9"));
    }
}
