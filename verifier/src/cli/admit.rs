//! `verifier admit`: whether an artifact may be used, from its signature back to the TPM's quote.

use std::path::{Path, PathBuf};

use clap::Args;
use results::{
    Code, Refusal,
    admit::{AdmitPolicy, Examined, Link, Request, examine},
};
use serde_json::{Value, json};

use super::{
    Done, Failure, Global,
    files::read_text,
    output::{Output, printable_lines},
    results::{
        StatementFiles, bundle_of, digest_of, instant, read_trusted_root, refusal_json, refused,
    },
};

/// What a job's signature is named, beside the artifact.
const SIGNATURE_SUFFIX: &str = ".sigstore.json";

const AFTER_HELP: &str = "\
The chain, and what breaks it:
  artifact <- job      the job's signature over these bytes, at a stamped time
  job <- permit        the dispatch: this key, this permit, this pool, and signed before it ended
  permit <- node       the node's verification summary: PASSED, not long before the dispatch
  node <- TPM          both rest on the one quote by which the TPM answered this job's challenge
  policy               what you accept: pools, repositories, workflows, claims, levels, tools

Every broken link is named with its code; docs/RESULTS.md explains them. An example of a policy, explained, is
docs/examples/admit/release.toml; its JSON Schema: verifier results schema admit-policy

Exit codes:
  0  admitted
  1  something cannot be read
  2  wrong usage
  3  not admitted";

/// Decide whether an artifact may be used: follow the chain from its signature to the TPM of the worker that built it.
///
/// Offline: everything is in the files. Nothing in them is believed that does not lead to --trusted-root, and everything
/// that is admitted satisfies --policy. Give both by a way that those who build cannot change.
///
/// Examples:
///   verifier admit app.tar.gz --results results/ --trusted-root trusted_root.json --policy release.toml
///   verifier admit app.tar.gz --bundle app.tar.gz.sigstore.json --dispatch dispatch.sigstore.json \
///     --node node.sigstore.json --trusted-root trusted_root.json --policy release.toml
#[derive(Args, Debug)]
#[command(verbatim_doc_comment, after_help = AFTER_HELP)]
pub(super) struct AdmitArgs {
    /// The artifact; `-` for the standard input.
    #[arg(value_name = "ARTIFACT")]
    artifact: PathBuf,
    /// The job's signature of it; ARTIFACT.sigstore.json by default, as `attestor sign` writes it.
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    statements: StatementFiles,
    /// Whom to trust, as `verifier results trusted-root` writes it.
    #[arg(long, value_name = "FILE")]
    trusted_root: PathBuf,
    /// What you accept, TOML.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Explain each link, also of what is admitted.
    #[arg(long)]
    explain: bool,
}

impl AdmitArgs {
    /// Where signature, dispatch and node are.
    fn files(&self) -> Result<[PathBuf; 3], Failure> {
        let signature = match &self.bundle {
            Some(bundle) => bundle.clone(),
            None if self.artifact.as_os_str() == "-" => {
                return Err(Failure::usage("the artifact has no name: say where its signature is")
                    .with_help("--bundle FILE"));
            }
            None => {
                let mut name = self.artifact.as_os_str().to_owned();
                name.push(SIGNATURE_SUFFIX);
                name.into()
            }
        };
        let [dispatch, node] = self.statements.paths()?;
        Ok([signature, dispatch, node])
    }
}

pub(super) fn run(global: &Global, args: &AdmitArgs) -> Done {
    let output = global.output();
    let policy = read_policy(&args.policy)?;
    let root = read_trusted_root(&args.trusted_root)?;
    let [signature, dispatch, node] = args.files()?;
    let artifact = digest_of(&args.artifact)?;
    let [job, dispatch, vsa] =
        [("artifact", &signature), ("dispatch", &dispatch), ("vsa", &node)].map(bundle_of);
    let (job, dispatch, vsa) = (job?, dispatch?, vsa?);
    let request = Request { artifact: &artifact, job: &job, dispatch: &dispatch, vsa: &vsa };
    let examined = examine(request, &policy, &root, instant()?).map_err(|why| refused(&why))?;
    say(output, examined, args.explain)
}

fn read_policy(path: &Path) -> Result<AdmitPolicy, Failure> {
    let policy: AdmitPolicy = toml::from_str(&read_text(path)?).map_err(|error| {
        Failure::refused(format!("{}: {error}", path.display()))
            .with_reason(Code::AdmitPolicyInvalid.code())
            .with_help("verifier results schema admit-policy has all fields")
    })?;
    policy.check().map_err(|why| refused(&why.within(&path.display().to_string())))?;
    Ok(policy)
}

fn say(output: Output, examined: Examined, explain: bool) -> Done {
    let links: Vec<Value> = Link::ALL.into_iter().map(|link| link_json(&examined, link)).collect();
    let tree = printable_lines(&examined.to_string());
    match examined.admitted() {
        Ok(admitted) => {
            if output.is_json() {
                return output.json(&json!({
                    "admitted": true, "sha256": admitted.artifact().digest(),
                    "node": admitted.node(), "links": links,
                }));
            }
            output.line("admitted\n")?;
            let shown = admitted.to_string();
            let shown = if explain { format!("{tree}\n{shown}") } else { shown };
            output.line(shown.trim_end())
        }
        Err(first) => {
            if output.is_json() {
                output.json(&json!({
                    "admitted": false, "refusal": refusal_json(&first), "links": links,
                }))?;
            } else {
                output.line(format!(
                    "NOT admitted: {}\n{}\n",
                    first.code(),
                    first.code().meaning()
                ))?;
                output.line(tree)?;
            }
            Err(Failure::problems_found())
        }
    }
}

fn link_json(examined: &Examined, link: Link) -> Value {
    let broken: Vec<&Refusal> =
        examined.broken().iter().filter(|(at, _)| *at == link).map(|(_, why)| why).collect();
    let state = match (broken.is_empty(), examined.is_unknown(link)) {
        (false, _) => "broken",
        (true, true) => "unknown",
        (true, false) => "good",
    };
    let broken: Vec<Value> = broken.into_iter().map(refusal_json).collect();
    json!({ "link": link.name(), "state": state, "broken": broken })
}
