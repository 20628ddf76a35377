//! `verifier results provenance`: parts for a builder's SLSA provenance, of verified statements alone.

use std::path::PathBuf;

use clap::Args;
use results::{
    Code, Sha256Digest, SpiffeId, UnixTime,
    admit::rests_on,
    bundle::Bundle,
    statement::{Dispatch, Predicate, Vsa, slsa::provenance_parts},
    verify::{Trust, VerifiedStatement},
};
use serde_json::{Value, json};

use super::{StatementFiles, bundle_of, instant, read_trusted_root, refused};
use crate::{
    ca::files::{self, MODE_PUBLIC},
    cli::{Done, Failure, output::Output},
};

#[derive(Args, Debug)]
pub(in crate::cli) struct ProvenanceArgs {
    #[command(flatten)]
    statements: StatementFiles,
    /// Whom to trust, as `verifier results trusted-root` writes it.
    #[arg(long, value_name = "FILE")]
    trusted_root: PathBuf,
    /// Who may have signed both statements, compared byte for byte; several times for several.
    #[arg(long = "identity", value_name = "SPIFFE-ID")]
    identities: Vec<SpiffeId>,
    /// Write it to a file instead of the standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(output: Output, args: &ProvenanceArgs) -> Done {
    let root = read_trusted_root(&args.trusted_root)?;
    let [dispatch, node] = args.statements.paths()?;
    let [dispatch, vsa] = [("dispatch", &dispatch), ("vsa", &node)].map(bundle_of);
    let (dispatch, vsa) = (dispatch?, vsa?);
    let trust = Trust { root: &root, identities: &args.identities };
    let now = instant()?;
    let dispatch: VerifiedStatement<Dispatch> = verified("dispatch", &dispatch, &trust, now)?;
    let vsa: VerifiedStatement<Vsa> = verified("vsa", &vsa, &trust, now)?;
    rests_on(&dispatch, &vsa).map_err(|why| refused(&why))?;
    let parts = provenance_parts(dispatch.statement(), dispatch.digest());
    let parts: Value = serde_json::from_str(&parts)?;
    let Some(out) = &args.out else { return output.json(&parts) };
    let text = format!("{}\n", serde_json::to_string_pretty(&parts)?);
    files::replace(out, text.as_bytes(), MODE_PUBLIC)?;
    let digest = Sha256Digest::of(text.as_bytes());
    output.either(
        &json!({ "provenance": out, "sha256": digest }),
        format!("wrote {}\nsha256:{digest}", out.display()),
    )
}

/// The statement of a bundle, once all of the bundle is good.
fn verified<S: Predicate>(
    whole: &str,
    bundle: &Bundle,
    trust: &Trust<'_>,
    now: UnixTime,
) -> Result<VerifiedStatement<S>, Failure> {
    let timed = bundle.prove_time(trust.root, now);
    let statement = timed.and_then(|timed| timed.verify_statement(trust));
    statement.map_err(|why| {
        let failure = refused(&why.clone().within(whole));
        match why.code() {
            Code::IdentityNotAccepted => {
                failure.with_help("if that is who may sign, say so: --identity SPIFFE-ID")
            }
            _ => failure,
        }
    })
}
