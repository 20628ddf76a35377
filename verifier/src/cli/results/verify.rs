//! `verifier results verify`.

use std::path::{Path, PathBuf};

use clap::Args;
use results::{
    Code, Refusal, Sha256Digest, SpiffeId, UnixTime,
    bundle::{Content, TrustedRoot},
    statement::{Statement, Verdict},
    verify::{Trust, VerifiedSignature},
};
use serde_json::{Value, json};

use super::{digest_of, instant, read_bundle, read_trusted_root, refusal_json};
use crate::cli::{
    Done, Failure,
    output::{Output, printable},
};

#[derive(Args, Debug)]
pub(in crate::cli) struct VerifyArgs {
    /// Bundles; `-` for the standard input.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Whom to trust, as `verifier results trusted-root` writes it.
    #[arg(long, value_name = "FILE")]
    trusted_root: PathBuf,
    /// Who may have signed, compared byte for byte; several times for several.
    #[arg(long = "identity", value_name = "SPIFFE-ID")]
    identities: Vec<SpiffeId>,
    /// The artifact that the bundles are to sign.
    #[arg(long, value_name = "FILE", conflicts_with = "digest")]
    artifact: Option<PathBuf>,
    /// The artifact's digest, instead of the artifact.
    #[arg(long, value_name = "sha256:HEX", value_parser = parse_digest)]
    digest: Option<Sha256Digest>,
}

fn parse_digest(text: &str) -> Result<Sha256Digest, String> {
    let digits = text.strip_prefix("sha256:").ok_or("a digest begins with sha256:")?;
    digits.parse().map_err(|error: results::digest::DigestParseError| error.to_string())
}

/// What a bundle proved.
struct Verified {
    /// `artifact`, `dispatch` or `node`.
    kind: &'static str,
    digest: Sha256Digest,
    signature: VerifiedSignature,
    statement: Option<Statement>,
}

pub(super) fn run(output: Output, args: &VerifyArgs) -> Done {
    let root = read_trusted_root(&args.trusted_root)?;
    let wanted = match (&args.artifact, args.digest) {
        (Some(path), _) => Some(digest_of(path)?),
        (None, digest) => digest,
    };
    let now = instant()?;
    let mut all = Vec::new();
    let mut is_refused = false;
    for path in &args.files {
        let verified = one(path, wanted.as_ref(), args, &root, now)?;
        is_refused |= verified.is_err();
        match (output.is_json(), &verified) {
            (true, Ok(verified)) => all.push(verified_json(path, verified)),
            (true, Err(refusal)) => all.push(json!({
                "file": path, "verified": false, "refusal": refusal_json(refusal),
            })),
            (false, Ok(verified)) => output.line(words(path, verified))?,
            (false, Err(refusal)) => output.line(refusal_words(path, refusal))?,
        }
    }
    if output.is_json() {
        output.json(&all)?;
    }
    if is_refused { Err(Failure::problems_found()) } else { Ok(()) }
}

fn one(
    path: &Path,
    wanted: Option<&Sha256Digest>,
    args: &VerifyArgs,
    root: &TrustedRoot,
    now: UnixTime,
) -> Result<Result<Verified, Refusal>, Failure> {
    let bundle = match read_bundle(path)? {
        Ok(bundle) => bundle,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let signs_artifact = matches!(bundle.content(), Content::Artifact(_));
    if signs_artifact && wanted.is_none() {
        let path = path.display();
        return Err(Failure::usage(format!(
            "{path} signs an artifact: say which one it has to be"
        ))
        .with_help("--artifact FILE, or --digest sha256:…"));
    }
    let trust = Trust { root, identities: &args.identities };
    Ok(bundle.prove_time(root, now).and_then(|timed| match wanted {
        // A statement where the signature of an artifact is wanted is refused there.
        Some(wanted) => timed.verify_artifact(wanted, &trust).map(|verified| Verified {
            kind: "artifact",
            digest: *verified.digest(),
            signature: verified.signature().clone(),
            statement: None,
        }),
        None => timed.verify_any_statement(&trust).map(|verified| Verified {
            kind: kind(verified.statement()),
            digest: *verified.digest(),
            signature: verified.signature().clone(),
            statement: Some(verified.statement().clone()),
        }),
    }))
}

/// What a statement is about, as the worker's files are named.
pub(super) const fn kind(statement: &Statement) -> &'static str {
    match statement {
        Statement::Vsa(_) => "node",
        Statement::Dispatch(_) => "dispatch",
    }
}

/// Subjects with their digests, as the statement names them.
pub(super) fn subjects(statement: &Statement) -> Vec<(&'static str, String)> {
    let sha256 = |digest: &Sha256Digest| format!("sha256:{digest}");
    match statement {
        Statement::Vsa(vsa) => {
            vec![("ak-public", sha256(&vsa.ak_public)), ("quote", sha256(&vsa.quote))]
        }
        Statement::Dispatch(dispatch) => {
            let mut subjects = vec![
                ("build", sha256(&dispatch.job.build_id())),
                ("job-key", sha256(&dispatch.job_key)),
            ];
            if let Some(commit) = &dispatch.git_commit {
                subjects.push(("source", format!("gitCommit:{commit}")));
            }
            subjects
        }
    }
}

/// What a statement says, one fact a line.
pub(super) fn facts(statement: &Statement) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut fact = |name: &str, value: String| out.push((name.to_owned(), value));
    for (name, digest) in subjects(statement) {
        fact(&format!("subject {name}"), digest);
    }
    match statement {
        Statement::Vsa(vsa) => {
            fact("node", vsa.node.to_string());
            let passed = vsa.result == Verdict::Passed;
            fact("result", if passed { "PASSED" } else { "FAILED" }.to_owned());
            fact("verified", vsa.time_verified.to_string());
            fact("policy", format!("{} sha256:{}", vsa.policy.uri, vsa.policy.digest));
            for level in &vsa.levels {
                fact("level", level.clone());
            }
            for input in &vsa.input_attestations {
                fact("rests on", format!("{} sha256:{}", input.uri, input.digest));
            }
        }
        Statement::Dispatch(dispatch) => {
            fact("node", dispatch.node.to_string());
            fact("pool", dispatch.pool.clone());
            fact("permit", format!("{} until {}", dispatch.permit_id, dispatch.expires));
            fact("system", dispatch.job.system.clone());
            for (name, claim) in &dispatch.job.claims {
                fact(&format!("claim {name}"), format!("{} ({})", claim.value, claim.source));
            }
            for tool in &dispatch.tools {
                let (name, version) = (&tool.name, &tool.version);
                fact("tool", format!("{name} {version} sha256:{}", tool.digest));
            }
            fact("quote", format!("sha256:{}", dispatch.quote));
            fact("rests on", format!("the statement sha256:{} about the node", dispatch.vsa));
        }
    }
    out
}

fn words(path: &Path, verified: &Verified) -> String {
    let Verified { kind, digest, signature, statement } = verified;
    let what = match statement {
        Some(_) => format!("statement about a {}", if *kind == "node" { "node" } else { "job" }),
        None => "signature of the artifact".to_owned(),
    };
    let mut lines = vec![
        format!("{}: good: {what}", printable(&path.display().to_string())),
        format!("  digest    sha256:{digest}"),
        format!("  signed    {} by {}", signature.signed_at(), signature.identity()),
        format!("  stamped   by {}", printable(signature.stamped_by())),
    ];
    for (name, value) in statement.iter().flat_map(facts) {
        lines.push(format!("  {name:<9} {}", printable(&value)));
    }
    lines.join("\n")
}

fn refusal_words(path: &Path, refusal: &Refusal) -> String {
    let mut lines = vec![
        format!("{}: refused: {}", printable(&path.display().to_string()), refusal.code()),
        format!("  {}", refusal.code().meaning()),
        format!("  what      {}", printable(refusal.subject())),
        format!("  expected  {}", printable(refusal.expected())),
        format!("  observed  {}", printable(refusal.observed())),
    ];
    if refusal.code() == Code::IdentityNotAccepted {
        lines.push("  help      if that is who may sign, say so: --identity SPIFFE-ID".to_owned());
    }
    lines.join("\n")
}

fn verified_json(path: &Path, verified: &Verified) -> Value {
    let Verified { kind, digest, signature, statement } = verified;
    let mut object = json!({
        "file": path, "verified": true, "kind": kind, "sha256": digest,
        "identity": signature.identity(), "signed_at": signature.signed_at(),
        "stamped_by": signature.stamped_by(),
    });
    if let (Some(statement), Some(fields)) = (statement, object.as_object_mut()) {
        let list = |pairs: Vec<(String, String)>| -> Vec<Value> {
            pairs.into_iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()
        };
        let subjects = subjects(statement).into_iter();
        let subjects = subjects.map(|(name, digest)| (name.to_owned(), digest)).collect();
        fields.insert("subjects".to_owned(), list(subjects).into());
        fields.insert("facts".to_owned(), list(facts(statement)).into());
    }
    object
}
