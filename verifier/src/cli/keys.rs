//! `verifier keys`: the ring of security keys, whose signatures put golden sets and policies in force.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use proto::pb;
use serde_json::json;

use super::{
    Done, Failure, Global, block_on,
    client::{answer, connect_reference},
    documents::{self, DocumentCommand},
    files::read_text,
};
use crate::{
    init::RING_NAME,
    signatures::{Algorithm, KeyName, KeyRing, PublicKey, SecurityPrivateKey, ring_document},
    store::DocumentKind,
};

/// Security keys: who approves golden sets, policies, and the next ring of keys.
///
/// `init` makes the first ring. A change is a new version that enough keys of the ring in force and enough of
/// its own have signed: `change` writes it, `propose --key …`, `sign`, and `activate` put it in force.
#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Make a private key (PKCS#8 PEM, mode 0600) and print its public key.
    ///
    /// Keys of `openssl genpkey` (P-256, Ed25519) do as well.
    ///
    /// Example:
    ///   verifier keys new alice.key > alice.pem
    #[command(verbatim_doc_comment)]
    New {
        /// File of the private key; never overwritten.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Kind of key.
        #[arg(long, value_name = "KIND", default_value = "ed25519")]
        algorithm: KeyKind,
    },
    /// Print the public key of a private key.
    ///
    /// Example:
    ///   verifier keys public alice.key > alice.pem
    #[command(verbatim_doc_comment)]
    Public {
        /// File of the private key.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Write the next version of the ring in force, to be proposed and signed.
    ///
    /// Example:
    ///   verifier keys change --add bob=bob.pem --threshold 2 > ring.toml
    #[command(verbatim_doc_comment)]
    Change {
        /// A key that comes in: NAME=FILE of its public key; may be repeated.
        #[arg(long = "add", value_name = "NAME=FILE")]
        add: Vec<NamedFile>,
        /// A key that goes out, by name; may be repeated.
        #[arg(long = "remove", value_name = "NAME")]
        remove: Vec<String>,
        /// How many keys must sign from then on.
        #[arg(long, value_name = "M")]
        threshold: Option<usize>,
    },
    /// Print the JSON Schema of rings of keys, for editors and for programs that write them.
    ///
    /// Example:
    ///   verifier keys schema > keys.v1.json
    #[command(verbatim_doc_comment)]
    Schema,
    #[command(flatten)]
    Document(DocumentCommand),
}

/// Kind of a new key.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum KeyKind {
    /// Ed25519.
    Ed25519,
    /// ECDSA P-256 with SHA-256.
    P256,
}

/// `NAME=FILE`.
#[derive(Clone, Debug)]
pub(super) struct NamedFile {
    pub(super) name: KeyName,
    pub(super) file: PathBuf,
}

impl std::str::FromStr for NamedFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, file) =
            text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=FILE"))?;
        let name = name.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { name, file: PathBuf::from(file) })
    }
}

pub(super) fn run(global: &Global, command: KeysCommand) -> Done {
    let output = global.output();
    match command {
        KeysCommand::Schema => documents::schema(global.output(), DocumentKind::Keys),
        KeysCommand::New { file, algorithm } => {
            let algorithm = match algorithm {
                KeyKind::Ed25519 => Algorithm::Ed25519,
                KeyKind::P256 => Algorithm::P256,
            };
            let public = SecurityPrivateKey::create(&file, algorithm)?.ok_or_else(|| {
                Failure::failed(format!("{} exists: nothing was written", file.display()))
            })?;
            print_public(global, &public)
        }
        KeysCommand::Public { file } => {
            let key = SecurityPrivateKey::read(&file)?;
            print_public(global, key.public())
        }
        KeysCommand::Change { add, remove, threshold } => block_on(async {
            let named = pb::DocumentRef {
                kind: DocumentKind::Keys.to_string(),
                name: RING_NAME.to_owned(),
                version: 0,
            };
            let mut client = connect_reference(global).await?;
            let toml = answer(client.show(named).await)?.toml;
            let ring = KeyRing::parse(&toml)
                .map_err(|_| Failure::failed("the ring in force cannot be read"))?;
            let known = pb::ListDocumentsRequest {
                kind: DocumentKind::Keys.to_string(),
                name: RING_NAME.to_owned(),
            };
            let known = answer(client.list(known).await)?.documents;
            let newest = known.iter().map(|known| known.version).max().unwrap_or(0);
            let text = changed(&ring, newest.saturating_add(1), add, &remove, threshold)?;
            if output.is_json() {
                return output.json(&json!({ "toml": text }));
            }
            output.text(&text)
        }),
        KeysCommand::Document(command) => {
            block_on(documents::run(global, DocumentKind::Keys, command))
        }
    }
}

fn print_public(global: &Global, public: &PublicKey) -> Done {
    let output = global.output();
    if output.is_json() {
        return output.json(&json!({
            "id": public.id(), "algorithm": public.algorithm().as_str(), "pem": public.to_pem(),
        }));
    }
    output.text(&public.to_pem())
}

fn changed(
    ring: &KeyRing,
    version: u64,
    add: Vec<NamedFile>,
    remove: &[String],
    threshold: Option<usize>,
) -> Result<String, Failure> {
    for name in remove {
        if !ring.keys().iter().any(|key| key.name().as_str() == name) {
            return Err(Failure::usage(format!("the ring has no key {name:?}")));
        }
    }
    let mut keys: Vec<(KeyName, PublicKey)> = ring
        .keys()
        .iter()
        .filter(|key| !remove.iter().any(|name| name == key.name().as_str()))
        .map(|key| (key.name().clone(), key.public().clone()))
        .collect();
    for NamedFile { name, file } in add {
        keys.push((name, PublicKey::from_pem(&read_text(&file)?)?));
    }
    let text = ring_document(RING_NAME, version, threshold.unwrap_or(ring.threshold()), &keys);
    KeyRing::parse(&text)
        .map_err(|problems| Failure::problems("that would be no ring", &problems))?;
    Ok(text)
}
