//! Signing a document: what was proposed, or a file on a machine without a network.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use proto::pb;
use serde_json::json;

use super::{Reference, answer, connect_reference, of_kind, payload_type, said};
use crate::{
    cli::{
        Done, Failure, Global,
        files::{read_bytes, read_text},
    },
    documents::kind_of,
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
    let mut client = connect_reference(global).await?;
    let named = reference.newest(&mut client, kind).await?;
    let detail = answer(client.show(named.clone()).await)?;
    // The meaning is computed here: nobody signs what only the server says.
    let payload = payload_of(&detail.toml, kind)?;
    let envelope = signed(kind, payload, &args.keys)?;
    let request =
        pb::SignRequest { document: Some(named), envelope: envelope.to_json().into_bytes() };
    said(global.output(), "signed", &answer(client.sign(request).await)?)
}

fn sign_file(global: &Global, kind: DocumentKind, path: &Path, args: &SignArgs) -> Done {
    let text = read_text(path)?;
    of_kind(&text, kind, path)?;
    let payload = payload_of(&text, kind)?;
    let out = args.out.clone().unwrap_or_else(|| beside(path));
    let mut envelope = signed(kind, payload.clone(), &args.keys)?;
    if out.exists() {
        let before = Envelope::parse(&read_bytes(&out)?)?;
        if before.untrusted_payload() == payload {
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
        format!("{}: signed by {}", out.display(), keys.join(", ")),
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
    crate::documents::payload_of(text, kind).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
        Failure::refused(format!("the document has problems: {}", lines.join("; ")))
    })
}
