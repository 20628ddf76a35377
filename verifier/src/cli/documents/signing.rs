//! Signing a document: what was proposed, or a file on a machine without a network.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use proto::pb;
use serde_json::json;

use super::{
    Reference, answer, asks_or_is_told, confirm, connect_reference, list, of_kind, payload_type,
    said, shown::show_before_signing,
};
use crate::{
    cli::{
        Done, Failure, Global,
        client::ReferenceClient,
        files::{read_bytes, read_text},
        output::printable,
    },
    documents::{kind_of, name_and_version},
    signatures::{Envelope, SecurityPrivateKey},
    store::DocumentKind,
};

/// What to sign, and with what.
#[derive(Args, Debug)]
pub(in crate::cli) struct SignArgs {
    /// NAME@VERSION (or NAME for the newest) of a proposed document, or a TOML file.
    #[arg(value_name = "DOCUMENT|FILE")]
    what: String,
    /// Private key, PKCS#8 PEM, P-256 or Ed25519; may be repeated.
    #[arg(long = "key", value_name = "FILE", required = true)]
    keys: Vec<PathBuf>,
    /// Do not ask before signing what the verifier sent: for scripts. Needed with --json, except for a file.
    #[arg(long)]
    yes: bool,
    /// Where a file's signatures go; by default beside it, with the ending .dsse.json. Signatures that are there
    /// already stay.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Signs.
pub(super) async fn sign(global: &Global, kind: DocumentKind, args: SignArgs) -> Done {
    let path = Path::new(&args.what);
    if path.is_file() {
        return sign_file(global, kind, path, &args);
    }
    if args.out.is_some() {
        return Err(Failure::usage(
            "--out goes with a file; what is proposed is signed where it is",
        ));
    }
    let reference: Reference = args
        .what
        .parse()
        .map_err(|why: String| Failure::usage(format!("{why}, and there is no such file")))?;
    let output = global.output();
    asks_or_is_told(output, args.yes)?;
    let mut client = connect_reference(global).await?;
    let named = reference.newest(&mut client, kind).await?;
    let detail = answer(client.show(named.clone()).await)?;
    // What is signed is what the server sent: its meaning is computed here, it has to be what was asked for, and whoever
    // signs sees it. A file that was reviewed elsewhere needs no such trust.
    let payload = payload_of(&detail.toml, kind)?;
    is_what_was_asked_for(&detail.toml, kind, &named)?;
    if !output.is_json() {
        let before = in_force(&mut client, kind, &named).await?;
        show_before_signing(output, kind, before.as_deref(), &detail.toml)?;
    }
    confirm(&format!("Sign {}@{}?", named.name, named.version), args.yes)?;
    let envelope = signed(kind, payload, &args.keys)?;
    let request =
        pb::SignRequest { document: Some(named), envelope: envelope.to_json().into_bytes() };
    said(output, "signed", &answer(client.sign(request).await)?)
}

/// Refuses a text of another kind, name or version than was asked for.
pub(super) fn is_what_was_asked_for(
    text: &str,
    kind: DocumentKind,
    named: &pb::DocumentRef,
) -> Done {
    let says = name_and_version(text).map_err(|problem| Failure::refused(problem.to_string()))?;
    let is_kind = kind_of(text).is_ok_and(|found| found == kind);
    if is_kind && (says.0.as_str(), says.1) == (named.name.as_str(), named.version) {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "the verifier sent {}@{} for {}@{}: nothing was signed",
        says.0, says.1, named.name, named.version
    )))
}

/// The text of the newest active version of a name, if there is one.
pub(super) async fn in_force(
    client: &mut ReferenceClient,
    kind: DocumentKind,
    named: &pb::DocumentRef,
) -> Result<Option<String>, Failure> {
    let known = list(client, kind, &named.name).await?;
    let active = known.iter().filter(|known| known.state == "active").map(|known| known.version);
    let Some(version) = active.filter(|version| *version != named.version).max() else {
        return Ok(None);
    };
    let active = pb::DocumentRef { version, ..named.clone() };
    Ok(Some(answer(client.show(active).await)?.toml))
}

fn sign_file(global: &Global, kind: DocumentKind, path: &Path, args: &SignArgs) -> Done {
    let text = read_text(path)?;
    of_kind(&text, kind, path)?;
    let payload = payload_of(&text, kind)?;
    let out = args.out.clone().unwrap_or_else(|| beside(path));
    let mut envelope = signed(kind, payload.clone(), &args.keys)?;
    if out.exists() {
        let before = Envelope::parse(&read_bytes(&out)?)?;
        if before.untrusted_payload() != payload {
            let out = out.display();
            eprintln!("note: {out} was over another content of {}: replaced", path.display());
        } else {
            for signature in before.signatures() {
                let again = envelope
                    .signatures()
                    .iter()
                    .any(|new| new.untrusted_keyid() == signature.untrusted_keyid());
                if !again {
                    envelope.add(signature.clone())?;
                }
            }
        }
    }
    fs::write(&out, envelope.to_json() + "\n")
        .map_err(|error| Failure::of(&error).while_doing(&format!("write {}", out.display())))?;
    let keys: Vec<_> =
        envelope.signatures().iter().filter_map(|signature| signature.untrusted_keyid()).collect();
    global.output().either(
        &json!({ "envelope": out, "keys": keys }),
        format!("{}: signed by {}", out.display(), printable(&keys.join(", "))),
    )
}

/// Where the signatures of a file are kept.
pub(super) fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".dsse.json");
    PathBuf::from(name)
}

/// The envelope to send with a proposal; empty if there is nothing to sign with.
pub(super) fn envelope_of(
    text: &str,
    kind: DocumentKind,
    keys: &[PathBuf],
    made: Option<&Path>,
) -> Result<Vec<u8>, Failure> {
    if keys.is_empty() {
        return made.map_or_else(|| Ok(Vec::new()), read_bytes);
    }
    let mut envelope = signed(kind, payload_of(text, kind)?, keys)?;
    if let Some(made) = made {
        for signature in Envelope::parse(&read_bytes(made)?)?.signatures() {
            envelope.add(signature.clone())?;
        }
    }
    Ok(envelope.to_json().into_bytes())
}

fn signed(kind: DocumentKind, payload: Vec<u8>, keys: &[PathBuf]) -> Result<Envelope, Failure> {
    let mut envelope = Envelope::new(payload_type(kind), payload)?;
    for path in keys {
        let key = SecurityPrivateKey::read(path)?;
        envelope.add(key.sign(&envelope.pae())?)?;
    }
    Ok(envelope)
}

/// What is signed of a document: computed from its text alone.
pub(super) fn payload_of(text: &str, kind: DocumentKind) -> Result<Vec<u8>, Failure> {
    kind_of(text).map_err(|problem| Failure::refused(problem.to_string()))?;
    crate::documents::payload_of(text, kind)
        .map_err(|problems| Failure::problems("the document has problems", &problems))
}
