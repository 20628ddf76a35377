//! `verifier policy`: rules of the site.

use std::path::{Path, PathBuf};

use appraisal::policy::{
    GoldenProblem,
    site::{CaseResult, Explanation, Outcome, PolicyInput, SitePolicy, run_cases, schema},
};
use clap::{Args, Subcommand};
use proto::pb;
use serde_json::{Value, json};

use super::{
    Done, Failure, Global, block_on,
    client::{answer, connect, connect_reference},
    documents::{self, DocumentCommand},
    files::read_text,
    output::{Output, printable},
};
use crate::store::DocumentKind;

/// Site policy: rules over what a node proved, beside its golden set.
#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Check a policy, without a server. Says everything that is wrong with it.
    ///
    /// Example:
    ///   verifier policy check linux.policy.toml
    #[command(verbatim_doc_comment)]
    Check {
        /// TOML file; `-` for the standard input.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Run a policy's cases, without a server. Exits with 3 if it says something else than expected.
    ///
    /// Example:
    ///   verifier policy test linux.policy.toml linux.cases.toml
    #[command(verbatim_doc_comment)]
    Test {
        /// The policy.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Cases, TOML or JSON.
        #[arg(value_name = "CASES", required = true)]
        cases: Vec<PathBuf>,
    },
    /// Print what rules can read, and an example of it; or the JSON Schema of policies.
    ///
    /// Examples:
    ///   verifier policy schema
    ///   verifier policy schema --document > policy.v1.json
    #[command(verbatim_doc_comment)]
    Schema {
        /// The JSON Schema of policies, for editors and for programs that write them.
        #[arg(long)]
        document: bool,
    },
    /// Show each rule over what a node last proved, with the values that it read. Exits with 3 if a rule
    /// denies.
    ///
    /// Examples:
    ///   verifier policy explain worker-17
    ///   verifier policy explain worker-17 --policy linux.policy.toml
    ///   verifier policy explain worker-17 --policy linux.policy.toml --claims claims.json --pool linux
    #[command(verbatim_doc_comment)]
    Explain(ExplainArgs),
    #[command(flatten)]
    Document(DocumentCommand),
}

#[derive(Args, Debug)]
pub(super) struct ExplainArgs {
    /// Node.
    #[arg(value_name = "NODE")]
    node: String,
    /// The policy; by default every one that is in force.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Claims as `verifier --json nodes show` prints them, or that whole output; no server is asked then.
    #[arg(long, value_name = "FILE", requires_all = ["pool", "policy"])]
    claims: Option<PathBuf>,
    /// The node's pool, with --claims.
    #[arg(long, value_name = "POOL", requires = "claims")]
    pool: Option<String>,
}

pub(super) fn run(global: &Global, command: PolicyCommand) -> Done {
    let output = global.output();
    match command {
        PolicyCommand::Check { file } => check(output, &file),
        PolicyCommand::Test { file, cases } => test(output, &policy_of(output, &file)?, &cases),
        PolicyCommand::Schema { document: false } => print_schema(output),
        PolicyCommand::Schema { document: true } => documents::schema(output, DocumentKind::Policy),
        PolicyCommand::Explain(args) => explain(global, output, &args),
        PolicyCommand::Document(command) => {
            block_on(documents::run(global, DocumentKind::Policy, command))
        }
    }
}

fn check(output: Output, file: &Path) -> Done {
    let policy = policy_of(output, file)?;
    let count = policy.rules().count();
    output.either(
        &json!({
            "usable": true, "name": policy.name(), "version": policy.version(), "sha256": policy.digest(),
            "rules": policy.rules().collect::<Vec<_>>(), "problems": [],
        }),
        format!(
            "{} is usable: {} version {} with {count} rules ({})",
            file.display(),
            policy.name(),
            policy.version(),
            policy.digest()
        ),
    )
}

/// The policy of a file; its problems are printed.
fn policy_of(output: Output, file: &Path) -> Result<SitePolicy, Failure> {
    SitePolicy::parse(&read_text(file)?).or_else(|problems| Err(refuse(output, file, &problems)?))
}

/// Prints problems, and gives the failure that says no more.
fn refuse(output: Output, file: &Path, problems: &[GoldenProblem]) -> Result<Failure, Failure> {
    if output.is_json() {
        let problems: Vec<_> = problems
            .iter()
            .map(|problem| json!({ "at": problem.at, "what": problem.what }))
            .collect();
        let file = file.display().to_string();
        output.json(&json!({ "usable": false, "file": file, "problems": problems }))?;
    } else {
        output.line(format!("{} cannot be used:", file.display()))?;
        for problem in problems {
            output.line(format!("  {}", printable(&problem.to_string())))?;
        }
    }
    Ok(Failure::problems_found())
}

fn test(output: Output, policy: &SitePolicy, files: &[PathBuf]) -> Done {
    let mut results: Vec<CaseResult> = Vec::new();
    for file in files {
        let base = file.parent().unwrap_or_else(|| Path::new(""));
        let mut read =
            |name: &str| read_text(&base.join(name)).map_err(|_| format!("cannot read {name}"));
        match run_cases(policy, &read_text(file)?, &mut read) {
            Ok(ran) => results.extend(ran),
            Err(problems) => return Err(refuse(output, file, &problems)?),
        }
    }
    let failed = results.iter().filter(|result| !result.passed).count();
    if output.is_json() {
        output.json(&json!({ "passed": failed == 0, "cases": results }))?;
    } else {
        for result in &results {
            output.line(case_lines(result))?;
        }
        output.line(format!("{} cases, {failed} failed", results.len()))?;
    }
    if failed == 0 { Ok(()) } else { Err(Failure::problems_found()) }
}

fn case_lines(result: &CaseResult) -> String {
    let names = |rules: &[String]| {
        if rules.is_empty() {
            "allow".to_owned()
        } else {
            format!("denied by {}", rules.join(", "))
        }
    };
    if result.passed {
        return format!("ok    {}: {}", printable(&result.case), names(&result.denied));
    }
    let (expected, denied) = (names(&result.expected), names(&result.denied));
    let mut out = format!("FAIL  {}: expected {expected}, got {denied}", printable(&result.case));
    for finding in &result.findings {
        out +=
            &format!("\n        {}: {}", printable(&finding.subject), printable(&finding.observed));
    }
    out
}

fn print_schema(output: Output) -> Done {
    let (fields, example) = (schema(), example());
    if output.is_json() {
        return output.json(&json!({ "fields": fields, "example": example }));
    }
    let rows: Vec<_> = fields
        .into_iter()
        .map(|field| {
            let absent = field.absent.unwrap_or("never");
            [&field.path, &field.kind, field.source, field.what, absent].map(str::to_owned).to_vec()
        })
        .collect();
    output.table(&["FIELD", "TYPE", "SAYS WHO", "WHAT", "ABSENT WHERE"], &rows, "")?;
    output.line("\nExample of an input:")?;
    output.json(&example)
}

/// An input with a little of everything.
fn example() -> Value {
    let digest = |byte: &str| format!("sha256:{}", byte.repeat(32));
    json!({
        "node": { "name": "worker-17", "pool": "linux" },
        "ek": { "digest": digest("1c"), "trust": "certificate", "root": digest("4a"), "oddities": [] },
        "tpm": {
            "manufacturer": "id:49465800", "manufacturer_name": "IFX", "model": "SLB 9670", "version": "id:0755",
            "firmware_version": "000700550011cb02",
            "firmware": { "major": 7, "minor": 85, "build": 1_166_082, "dotted": "7.85.1166082" },
            "clock_safe": true, "reset_count": 41, "restart_count": 0,
        },
        "pcrs": { "sha256": { "7": "b5".repeat(32) } },
        "boot": {
            "secure_boot": true, "setup_mode": false, "debug_mode": false, "dma_protection_off": false,
            "signers": [digest("d9")], "applications": [digest("a3")], "sections": { ".linux": digest("77") },
            "command_lines": ["root=/dev/mapper/root ro quiet"], "command_line_digests": [digest("c0")],
            "problems": [],
        },
        "tools": {
            "gcc": {
                "state": "present", "digest": digest("0f"), "version": "13.2.0",
                "purl": "pkg:deb/debian/gcc-13@13.2.0-5",
            },
        },
        "ima": { "entries": 1204, "violations": 0, "refused": 0, "excluded": 3 },
    })
}

fn explain(global: &Global, output: Output, args: &ExplainArgs) -> Done {
    let policies = match &args.policy {
        Some(file) => vec![policy_of(output, file)?],
        None => block_on(in_force(global))?,
    };
    let (claims, pool) = match (&args.claims, &args.pool) {
        (Some(file), Some(pool)) => (claims_in(&read_text(file)?)?, pool.clone()),
        _ => block_on(ask(global, args.node.clone()))?,
    };
    let input = PolicyInput::of_document(&claims, &args.node, &pool);
    let mut is_met = true;
    let mut shown = Vec::new();
    for policy in &policies {
        let rules = policy.explain(&input);
        let applies = policy.applies_to(&pool);
        is_met &= !applies || rules.iter().all(|rule| rule.outcome == Outcome::True);
        if output.is_json() {
            shown.push(json!({
                "node": args.node, "pool": pool, "policy": policy.name(),
                "version": policy.version(), "applies": applies, "rules": rules,
            }));
            continue;
        }
        let not = if applies { "" } else { ", which does not judge this pool; if it did" };
        output.line(format!("{}@{}{not}:", policy.name(), policy.version()))?;
        for rule in &rules {
            output.line(rule_lines(rule))?;
        }
    }
    if output.is_json() {
        output.json(&shown)?;
    } else if policies.is_empty() {
        output.line("No policy is in force: only golden sets judge.")?;
    }
    if is_met { Ok(()) } else { Err(Failure::problems_found()) }
}

/// The policies that the verifier enforces.
async fn in_force(global: &Global) -> Result<Vec<SitePolicy>, Failure> {
    let mut client = connect_reference(global).await?;
    let kind = DocumentKind::Policy.to_string();
    let request = pb::ListDocumentsRequest { kind: kind.clone(), name: String::new() };
    let listed = answer(client.list(request).await)?.documents;
    let mut out = Vec::new();
    for known in listed.into_iter().filter(|known| known.state == "active") {
        let named =
            pb::DocumentRef { kind: kind.clone(), name: known.name, version: known.version };
        let toml = answer(client.show(named).await)?.toml;
        let policy = SitePolicy::parse(&toml)
            .map_err(|_| Failure::failed("a policy in force cannot be read by this program"))?;
        out.push(policy);
    }
    Ok(out)
}

fn rule_lines(rule: &Explanation) -> String {
    let outcome = match rule.outcome {
        Outcome::True => "true ",
        Outcome::False => "FALSE",
        Outcome::Error => "ERROR",
    };
    let mut out = format!("{outcome}  {}", rule.rule);
    if let Some(error) = &rule.error {
        out += &format!(": {}", printable(error));
    }
    if rule.outcome != Outcome::True {
        out += &format!("\n       {}", printable(&rule.message));
    }
    for (words, value) in &rule.read {
        out += &format!("\n       {} = {}", printable(words), printable(value));
    }
    out
}

/// Claims of a node's last verified evidence, and its pool.
async fn ask(
    global: &Global,
    name: String,
) -> Result<(appraisal::claims::ClaimsDocument, String), Failure> {
    let detail = answer(connect(global).await?.show_node(pb::NodeName { name }).await)?;
    let node = detail.node.unwrap_or_default();
    if detail.claims_json.is_empty() {
        return Err(Failure::failed(format!("nothing of {} was verified yet", node.name)));
    }
    Ok((claims_in(&detail.claims_json)?, node.pool))
}

/// Claims, or the answer of `nodes show` that has them.
fn claims_in(text: &str) -> Result<appraisal::claims::ClaimsDocument, Failure> {
    let mut json: Value = serde_json::from_str(text)?;
    if let Some(claims) = json.get_mut("claims") {
        json = claims.take();
    }
    serde_json::from_value(json).map_err(|error| Failure::of(&error).while_doing("read the claims"))
}

#[cfg(test)]
mod tests {
    use appraisal::policy::site::PolicyInput;

    #[test]
    fn the_example_is_of_the_schema() {
        PolicyInput::from_json(&super::example()).expect("of the schema");
    }
}
