//! `verifier results`: signed results and signatures, looked at without a network.

mod provenance;
mod show;
mod statements;
mod verify;

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use results::{
    Refusal, Sha256Digest, UnixTime,
    bundle::{Bundle, MAX_BUNDLE_BYTES, MAX_TRUSTED_ROOT_BYTES, TrustedRoot},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub(super) use self::{
    provenance::ProvenanceArgs,
    statements::{StatementFiles, bundle_of},
    verify::VerifyArgs,
};
use super::{Done, Failure, Global, files::read_bytes, now};
use crate::{
    ca::{
        CaDir,
        files::{self, MODE_PUBLIC},
    },
    results_service::{ExternalAuthorities, trusted_root},
};

/// Attestation results and signatures of jobs: verify them offline, show them, and hand out whom to trust.
///
/// A bundle is a Sigstore bundle: what was signed, the signer's certificate, and a time stamp. Three of them make a chain:
/// what a job signed, `dispatch.sigstore.json` (this job was given to that node) and `node.sigstore.json` (that node had
/// passed). `verifier admit` follows it from the artifact to the TPM; `results verify` looks at one bundle.
#[derive(Debug, Subcommand)]
pub(super) enum ResultsCommand {
    /// Verify bundles, without a network: time stamp, certificate at that time, identity, signature, statement.
    ///
    /// Who may sign is for you to say: jobs of a pool sign as spiffe://TRUST-DOMAIN/pool/NAME, the verifier signs its
    /// statements as spiffe://TRUST-DOMAIN/verifier/results. Without --identity nobody may, and the refusal says who did.
    ///
    /// Examples:
    ///   verifier results verify dispatch.sigstore.json --trusted-root trusted_root.json \
    ///     --identity spiffe://builds.example.org/verifier/results
    ///   verifier results verify app.tar.gz.sigstore.json --artifact app.tar.gz \
    ///     --trusted-root trusted_root.json --identity spiffe://builds.example.org/pool/release
    #[command(verbatim_doc_comment, after_help = VERIFY_EXIT)]
    Verify(VerifyArgs),
    /// Print what a builder adds to its SLSA provenance v1 about the worker, from verified statements.
    ///
    /// Both statements are verified as by `results verify`, and the dispatch must rest on that statement about the node.
    /// What is printed is JSON in the shape of the predicate https://slsa.dev/provenance/v1, to be merged into a builder's:
    ///   buildDefinition.internalParameters.assay    node, pool, permit and quote of the job
    ///   buildDefinition.resolvedDependencies        the tools that were measured, each with its digest
    ///   runDetails.builder.builderDependencies      the statement about the node (assay-vsa)
    ///   runDetails.byproducts                       the statement about the job (assay-dispatch)
    ///
    /// The digests of the two are SHA-256 of the verified statements, the payloads of the bundles' envelopes, not of the files.
    /// Append to the lists that the builder has, do not replace them; docs/RESULTS.md has the command for jq.
    ///
    /// Example:
    ///   verifier results provenance --results results/ --trusted-root trusted_root.json \
    ///     --identity spiffe://builds.example.org/verifier/results --out assay.json
    #[command(verbatim_doc_comment, after_help = PROVENANCE_EXIT)]
    Provenance(ProvenanceArgs),
    /// Show what a bundle claims. Nothing of it is verified.
    ///
    /// Example:
    ///   verifier results show dispatch.sigstore.json
    #[command(verbatim_doc_comment)]
    Show {
        /// The bundle; `-` for the standard input.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print the JSON Schema of a statement, or of the policy of `verifier admit`.
    ///
    /// Examples:
    ///   verifier results schema dispatch > dispatch.v1.json
    ///   verifier results schema admit-policy
    #[command(verbatim_doc_comment)]
    Schema {
        /// Of what.
        #[arg(value_name = "KIND", value_enum)]
        kind: SchemaKind,
    },
    /// Write trusted_root.json: whom those trust who verify this verifier's results and its jobs' signatures.
    ///
    /// Made of the CA's files on this machine: the CAs of jobs and results, current and former, each with its root. Give it
    /// to whoever verifies by a way that they trust, once, and again after `verifier ca rotate`: who may write it decides
    /// what they believe.
    ///
    /// Examples:
    ///   verifier results trusted-root --out trusted_root.json
    ///   verifier results trusted-root | ssh registry 'cat > /etc/assay/trusted_root.json'
    #[command(verbatim_doc_comment)]
    TrustedRoot {
        /// Write it to a file instead of the standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

const VERIFY_EXIT: &str = "\
Exit codes:
  0  every bundle is good
  1  something cannot be read
  2  wrong usage
  3  a bundle is refused; the code says why (docs/RESULTS.md has all)";

const PROVENANCE_EXIT: &str = "\
Exit codes:
  0  both statements are good, and the parts are printed
  1  something cannot be read or written
  2  wrong usage
  3  a statement is refused, or the dispatch rests on another; the code says why (docs/RESULTS.md has all)";

/// What has a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum SchemaKind {
    /// The policy of `verifier admit` (TOML, in the form of JSON).
    AdmitPolicy,
    /// The statement about a job.
    Dispatch,
    /// The statement about a node: a verification summary.
    Vsa,
}

impl SchemaKind {
    const fn published(self) -> &'static str {
        match self {
            Self::AdmitPolicy => include_str!("../../../docs/schemas/admit-policy.v1.json"),
            Self::Dispatch => include_str!("../../../docs/schemas/dispatch.v1.json"),
            Self::Vsa => include_str!("../../../docs/schemas/vsa.v1.json"),
        }
    }
}

pub(super) fn run(global: &Global, command: ResultsCommand) -> Done {
    let output = global.output();
    match command {
        ResultsCommand::Verify(args) => verify::run(output, &args),
        ResultsCommand::Provenance(args) => provenance::run(output, &args),
        ResultsCommand::Show { file } => show::run(output, &file),
        ResultsCommand::Schema { kind } => output.text(kind.published()),
        ResultsCommand::TrustedRoot { out } => {
            let config = global.config()?;
            let ca = CaDir::new(&config.state_dir, config.trust_domain);
            let root = trusted_root(&ca, &ExternalAuthorities::read(&config.results)?)?;
            let text = root.to_json();
            let Some(out) = out else { return output.line(text) };
            files::replace(&out, text.as_bytes(), MODE_PUBLIC)?;
            output.either(
                &json!({
                    "trusted_root": out, "sha256": Sha256Digest::of(text.as_bytes()),
                    "certificate_authorities": root.certificate_authorities().len(),
                    "timestamp_authorities": root.timestamp_authorities().len(),
                }),
                format!(
                    "wrote {}: {} authorities for certificates, {} for time stamps\nsha256:{}",
                    out.display(),
                    root.certificate_authorities().len(),
                    root.timestamp_authorities().len(),
                    Sha256Digest::of(text.as_bytes()),
                ),
            )
        }
    }
}

/// The list of authorities in a file.
pub(super) fn read_trusted_root(path: &Path) -> Result<TrustedRoot, Failure> {
    TrustedRoot::parse(&read_some(path, MAX_TRUSTED_ROOT_BYTES)?)
        .map_err(|refusal| refused(&refusal.within(&path.display().to_string())))
}

/// The bundle in a file: cannot be read, or is none.
pub(super) fn read_bundle(path: &Path) -> Result<Result<Bundle, Refusal>, Failure> {
    Ok(Bundle::parse(&read_some(path, MAX_BUNDLE_BYTES)?))
}

/// The bytes of a file, and one more than the parser takes where there are more.
fn read_some(path: &Path, max: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = read_bytes(path)?;
    bytes.truncate(max.saturating_add(1));
    Ok(bytes)
}

/// SHA-256 of a file of any size; `-` is the standard input.
pub(super) fn digest_of(path: &Path) -> Result<Sha256Digest, Failure> {
    let failed = |error: std::io::Error| {
        Failure::of(&error).while_doing(&format!("read {}", path.display()))
    };
    let mut hash = Sha256::new();
    let mut feed = |from: &mut dyn std::io::Read| -> std::io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => hash.update(buffer.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    };
    if path.as_os_str() == "-" {
        feed(&mut std::io::stdin().lock()).map_err(failed)?;
    } else {
        feed(&mut std::fs::File::open(path).map_err(failed)?).map_err(failed)?;
    }
    Ok(Sha256Digest::from_bytes(hash.finalize().into()))
}

/// Now, for time stamps.
pub(super) fn instant() -> Result<UnixTime, Failure> {
    let now = u64::try_from(now()).ok().and_then(|now| UnixTime::from_unix_s(now).ok());
    now.ok_or_else(|| Failure::failed("this machine's clock is not set"))
}

/// A refusal ends a command with 3.
pub(super) fn refused(refusal: &Refusal) -> Failure {
    let message = format!(
        "{}: expected {}, found {}",
        refusal.subject(),
        refusal.expected(),
        refusal.observed()
    );
    Failure::refused(message).with_reason(refusal.code().code())
}

/// A refusal for programs.
pub(super) fn refusal_json(refusal: &Refusal) -> Value {
    json!({
        "code": refusal.code().code(), "subject": refusal.subject(),
        "expected": refusal.expected(), "observed": refusal.observed(),
    })
}
